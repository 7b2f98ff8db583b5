//! The guest's first file system: busybox, a few modules, and what to do.

use std::{
    fmt::Write as _,
    fs::{self, File},
    io::Write as _,
    os::unix::fs::{PermissionsExt, symlink},
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use anyhow::{Context, Result, bail, ensure};
use evenkeel_tests::tools;

use super::{
    checks::{Check, Programs, path},
    packages::{Kernel, make, remove, write},
};
use crate::steps::quoted;

const INIT: &str = include_str!("init.sh");
const CHECKS: &str = include_str!("checks.sh");

/// What the guest needs before it has the machine's file system.
const MODULES: [&str; 3] = ["virtio_pci", "9pnet_virtio", "9p"];

/// Packs it into a folder, and answers its path.
///
/// # Errors
///
/// Where a program, a module or room is missing.
pub(super) fn pack(
    kernel: &Kernel,
    checks: &[&Check],
    programs: &Programs,
    folder: &Path,
) -> Result<PathBuf> {
    let root = folder.join("initramfs");
    remove(&root)?;
    for name in ["bin", "dev", "modules", "root"] {
        make(&root.join(name))?;
    }
    let busybox = root.join("bin/busybox");
    fs::copy(tools::tool("busybox")?, &busybox).context("cannot copy busybox")?;
    symlink("busybox", root.join("bin/sh")).context("cannot link a shell")?;
    copy_modules(kernel, &root.join("modules"))?;
    write(&root.join("init"), INIT)?;
    write(&root.join("modprobe"), &modprobe(kernel)?)?;
    for program in ["init", "modprobe", "bin/busybox"] {
        fs::set_permissions(root.join(program), PermissionsExt::from_mode(0o755))
            .with_context(|| format!("cannot make {program} executable"))?;
    }
    write(&root.join("checks.sh"), &script(checks, programs)?)?;
    let archive = folder.join("initramfs.cpio");
    archive_folder(&root, &archive)?;
    remove(&root)?;
    Ok(archive)
}

/// What the guest does in the machine's file system.
fn script(checks: &[&Check], programs: &Programs) -> Result<String> {
    let mut script = String::from(CHECKS);
    let evenkeel = quoted(&path(&programs.evenkeel)?);
    writeln!(script, "export EVENKEEL_BIN={evenkeel}")?;
    for (number, check) in checks.iter().enumerate() {
        writeln!(script, "check {number} {}", check.command(programs)?)?;
    }
    script.push_str("report end\n");
    Ok(script)
}

/// What the kernel calls for a module: the machine's modprobe, with this kernel's modules.
fn modprobe(kernel: &Kernel) -> Result<String> {
    let program = quoted(&path(&tools::tool("modprobe")?)?);
    let root = quoted(&path(&kernel.root)?);
    Ok(format!(
        "#!/bin/sh\nexec /bin/busybox chroot /root {program} -d {root} \"$@\"\n"
    ))
}

/// Puts modules and what they depend on into a folder, with a list of their order.
fn copy_modules(kernel: &Kernel, to: &Path) -> Result<()> {
    let mut order: Vec<String> = Vec::new();
    for module in MODULES {
        let mut show = Command::new(tools::tool("modprobe")?);
        show.arg("-d").arg(&kernel.root);
        show.args(["-S", &kernel.release, "--show-depends", module]);
        let depends = tools::output(&mut show)?;
        for file in depends
            .lines()
            .filter_map(|line| line.strip_prefix("insmod "))
        {
            let file = Path::new(file.trim());
            let name = copy_module(file, to)?;
            if !order.contains(&name) {
                order.push(name);
            }
        }
    }
    write(&to.join("order"), &(order.join("\n") + "\n"))
}

/// Copies a module, without compression, which busybox does not take; answers its file's name.
fn copy_module(file: &Path, to: &Path) -> Result<String> {
    let name = file.file_name().unwrap_or_default().to_string_lossy();
    if let Some(plain) = name.strip_suffix(".xz") {
        let out = File::create(to.join(plain)).context("cannot create a module")?;
        let mut xz = Command::new(tools::tool("xz")?);
        xz.arg("-dc").arg(file).stdout(out);
        let status = xz.status().context("cannot start xz")?;
        ensure!(status.success(), "cannot decompress {}", file.display());
        Ok(plain.to_owned())
    } else if name.ends_with(".ko") {
        fs::copy(file, to.join(&*name))
            .with_context(|| format!("cannot copy {}", file.display()))?;
        Ok(name.into_owned())
    } else {
        bail!("{}: a module in an unknown form", file.display())
    }
}

/// Packs a folder as the kernel takes it.
fn archive_folder(root: &Path, archive: &Path) -> Result<()> {
    let mut names = Vec::new();
    list(root, root, &mut names)?;
    let out =
        File::create(archive).with_context(|| format!("cannot create {}", archive.display()))?;
    let mut cpio = Command::new(tools::tool("cpio")?)
        .args(["--create", "--format=newc", "--quiet", "--owner=+0:+0"])
        .current_dir(root)
        .stdin(Stdio::piped())
        .stdout(out)
        .spawn()
        .context("cannot start cpio")?;
    let mut stdin = cpio.stdin.take().context("cpio has no input")?;
    // It stops reading where it fails, which its status tells better.
    let _ = stdin.write_all((names.join("\n") + "\n").as_bytes());
    drop(stdin);
    let status = cpio.wait().context("cannot wait for cpio")?;
    ensure!(status.success(), "cannot pack {}", archive.display());
    Ok(())
}

/// The paths below a folder, each after its folder's.
fn list(folder: &Path, root: &Path, names: &mut Vec<String>) -> Result<()> {
    let listing = || format!("cannot list {}", folder.display());
    for entry in fs::read_dir(folder).with_context(listing)? {
        let entry = entry.with_context(listing)?;
        let name = entry.path();
        names.push(path(name.strip_prefix(root).unwrap_or(&name))?);
        if entry.file_type().with_context(listing)?.is_dir() {
            list(&entry.path(), root, names)?;
        }
    }
    Ok(())
}
