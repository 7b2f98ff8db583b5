//! Kernels from Debian's archive, unpacked beside the workspace's other tools.
//!
//! apt runs with sources, lists and a cache of its own in `target/tools/kernels/apt`: suites of
//! other releases would otherwise have to be added to the machine, and it needs no root this way.

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use anyhow::{Context, Result, bail, ensure};
use evenkeel_tests::tools;

use super::{checks::path, series::Series};

/// Where Debian's packages come from.
const MIRROR: &str = "http://deb.debian.org/debian";

/// The keys that its lists are signed with.
const KEYS: &str = "/usr/share/keyrings/debian-archive-keyring.gpg";

const PREFIX: &str = "linux-image-";
const ARCHITECTURE: &str = "-amd64";

/// What is unpacked of a kernel's packages: the kernel itself, in either of its places, and the
/// modules that networking and the guest's file system take. All modules would be 400 MB.
const WANTED: [&str; 10] = [
    "./boot/vmlinuz-*",
    "*/vmlinuz",
    "*/modules.builtin*",
    "*/modules.order",
    "*/kernel/net",
    "*/kernel/lib",
    "*/kernel/crypto",
    "*/kernel/fs",
    "*/kernel/drivers/virtio",
    "*/kernel/drivers/net/*.ko*",
];

/// A kernel that is ready to boot.
#[derive(Debug)]
pub(crate) struct Kernel {
    /// What it calls itself.
    pub(super) release: String,
    /// What is booted.
    pub(super) image: PathBuf,
    /// The folder that holds `lib/modules`.
    pub(super) root: PathBuf,
}

/// The packages.
#[derive(Debug)]
pub(crate) struct Archive {
    folder: PathBuf,
}

impl Archive {
    /// Opens the workspace's folder of kernels.
    ///
    /// # Errors
    ///
    /// Where it cannot be made.
    pub(super) fn new() -> Result<Self> {
        let folder = tools::workspace_tools().join("kernels");
        make(&folder)?;
        Ok(Self { folder })
    }

    /// Brings the newest kernel of a line, unless one was unpacked before.
    ///
    /// # Errors
    ///
    /// Where no suite has one, or the archive cannot be reached.
    pub(super) fn kernel(&self, series: &Series) -> Result<Kernel> {
        let root = self.folder.join(series.to_string());
        if root.is_dir() {
            eprintln!("unpacked before; for a newer one remove {}", root.display());
            return find(&root);
        }
        let suites = series.suites();
        let apt = Apt::new(&self.folder.join("apt"), suites)?;
        let Some(package) = newest(&apt.search()?, series) else {
            bail!(
                "no package of it in {} of {MIRROR}; name one that has, such as 6.12",
                suites.join(", ")
            );
        };
        // Under another name until it is whole.
        let partial = self.folder.join(format!("{series}.partial"));
        remove(&partial)?;
        make(&partial.join("packages"))?;
        let packages = apt.with_its_parts(&package)?;
        apt.download(&packages, &partial.join("packages"))?;
        unpack(&partial)?;
        let kernel = find(&partial)?;
        let mut depmod = Command::new(tools::tool("depmod")?);
        depmod.arg("-b").arg(&partial).arg(&kernel.release);
        tools::output(&mut depmod)?;
        remove(&partial.join("packages"))?;
        fs::rename(&partial, &root)
            .with_context(|| format!("cannot move {}", partial.display()))?;
        find(&root)
    }
}

/// apt with nothing of the machine's but its programs and its keys.
struct Apt {
    folder: PathBuf,
}

impl Apt {
    /// Brings the lists of these suites.
    fn new(parent: &Path, suites: &[&str]) -> Result<Self> {
        let folder = parent.join(suites.join("+"));
        make(&folder.join("lists/partial"))?;
        make(&folder.join("cache/archives/partial"))?;
        let sources: Vec<_> = suites
            .iter()
            .map(|suite| format!("deb [signed-by={KEYS} arch=amd64] {MIRROR} {suite} main\n"))
            .collect();
        write(&folder.join("sources.list"), &sources.concat())?;
        write(&folder.join("status"), "")?;
        let apt = Self { folder };
        eprintln!("$ apt-get update   # {} of {MIRROR}", suites.join(", "));
        apt.run("apt-get", &["update", "-qq", "--error-on=any"])?;
        Ok(apt)
    }

    fn command(&self, program: &str) -> Result<Command> {
        let folder = path(&self.folder)?;
        let mut command = Command::new(tools::tool(program)?);
        for option in [
            format!("Dir::Etc::sourcelist={folder}/sources.list"),
            "Dir::Etc::sourceparts=/dev/null".into(),
            format!("Dir::State={folder}"),
            format!("Dir::State::lists={folder}/lists"),
            format!("Dir::State::status={folder}/status"),
            format!("Dir::Cache={folder}/cache"),
            "Acquire::Languages=none".into(),
            "Acquire::IndexTargets::deb::DEP-11::DefaultEnabled=false".into(),
            "Acquire::Retries=3".into(),
            // A user of apt's own could not write here.
            "APT::Sandbox::User=".into(),
            "APT::Update::Post-Invoke-Success=".into(),
        ] {
            command.args(["-o", &option]);
        }
        command.env("LC_ALL", "C");
        Ok(command)
    }

    fn run(&self, program: &str, words: &[&str]) -> Result<String> {
        tools::output(self.command(program)?.args(words))
    }

    /// The names of all kernels' packages.
    fn search(&self) -> Result<String> {
        let pattern = format!("^{PREFIX}[0-9].*{ARCHITECTURE}$");
        self.run("apt-cache", &["search", "--names-only", &pattern])
    }

    /// A kernel's package, and those that it was split into.
    fn with_its_parts(&self, package: &str) -> Result<Vec<String>> {
        let depends = self.run("apt-cache", &["depends", package])?;
        let mut packages = vec![package.to_owned()];
        packages.extend(parts(&depends));
        Ok(packages)
    }

    fn download(&self, packages: &[String], to: &Path) -> Result<()> {
        eprintln!("$ apt-get download {}", packages.join(" "));
        let mut download = self.command("apt-get")?;
        download.args(["download", "-q"]).args(packages);
        tools::output(download.current_dir(to)).map(drop)
    }
}

/// How the names of a kernel's parts begin. Which modules are built in is told by the base.
const PARTS: [&str; 3] = ["linux-base-", "linux-binary-", "linux-modules-"];

/// The parts of a kernel among what its package depends on: newer ones consist of nothing else.
fn parts(depends: &str) -> Vec<String> {
    depends
        .lines()
        .filter_map(|line| line.trim().strip_prefix("Depends: "))
        .filter(|name| PARTS.iter().any(|part| name.starts_with(part)))
        .map(ToOwned::to_owned)
        .collect()
}

/// The newest package of a line, among those that `apt-cache search` found.
fn newest(found: &str, series: &Series) -> Option<String> {
    found
        .lines()
        .filter_map(|line| line.split_whitespace().next())
        .filter_map(|name| Some((numbers(name)?, name)))
        .filter(|(numbers, _)| series.holds(numbers))
        .max()
        .map(|(_, name)| name.to_owned())
}

/// The numbers in a package's name, in their order; `None` for a kernel of a special kind, such
/// as `cloud`, which lacks the guest's file system.
fn numbers(name: &str) -> Option<Vec<u32>> {
    let release = name.strip_prefix(PREFIX)?.strip_suffix(ARCHITECTURE)?;
    // A name with a version and nothing else is one of a package that is empty, and depends on
    // the newest.
    if !release.contains(['-', '+']) || release.contains("-cloud") || release.contains("-rt") {
        return None;
    }
    let numbers = release.split(|c: char| !c.is_ascii_digit());
    Some(
        numbers
            .filter_map(|number| number.parse().ok())
            .collect::<Vec<_>>(),
    )
}

/// Unpacks what is wanted of all packages in a folder's `packages`.
fn unpack(folder: &Path) -> Result<()> {
    let packages = folder.join("packages");
    for package in entries(&packages)? {
        let mut content = Command::new(tools::tool("dpkg-deb")?)
            .arg("--fsys-tarfile")
            .arg(&package)
            .stdout(Stdio::piped())
            .spawn()
            .context("cannot start dpkg-deb")?;
        let stream = content.stdout.take().context("dpkg-deb has no output")?;
        let mut tar = Command::new(tools::tool("tar")?);
        tar.arg("-xC").arg(folder).arg("--wildcards").args(WANTED);
        let taken = tar
            .stdin(stream)
            .stderr(Stdio::piped())
            .output()
            .context("cannot start tar")?;
        let unpacked = content.wait().context("cannot wait for dpkg-deb")?;
        let complaint = String::from_utf8_lossy(&taken.stderr);
        // Each package holds some of what is wanted, and tar complains about the rest.
        let other = complaint
            .lines()
            .find(|line| !line.contains("Not found in archive") && !line.contains("Exiting with"));
        ensure!(
            unpacked.success() && other.is_none(),
            "cannot unpack {}: {}",
            package.display(),
            other.unwrap_or("dpkg-deb failed")
        );
    }
    Ok(())
}

/// The kernel that was unpacked to a folder.
fn find(root: &Path) -> Result<Kernel> {
    // Newer packages unpack to /usr, which is where /lib points to on a machine.
    let modules = root.join("lib/modules");
    if !modules.exists() {
        make(&root.join("lib"))?;
        fs::rename(root.join("usr/lib/modules"), &modules)
            .with_context(|| format!("no modules below {}", root.display()))?;
    }
    let all = entries(&modules)?;
    let [own] = &all[..] else {
        bail!("{} has not the modules of one kernel", modules.display());
    };
    let release = own.file_name().unwrap_or_default();
    let release = release.to_string_lossy().into_owned();
    let places = [
        root.join(format!("boot/vmlinuz-{release}")),
        own.join("vmlinuz"),
    ];
    let image = places.into_iter().find(|place| place.is_file());
    let image = image.with_context(|| format!("no kernel below {}", root.display()))?;
    Ok(Kernel {
        release,
        image,
        root: root.to_owned(),
    })
}

fn entries(folder: &Path) -> Result<Vec<PathBuf>> {
    let listing = || format!("cannot list {}", folder.display());
    fs::read_dir(folder)
        .with_context(listing)?
        .map(|entry| Ok(entry.with_context(listing)?.path()))
        .collect()
}

/// Makes a folder with those above it.
pub(super) fn make(folder: &Path) -> Result<()> {
    fs::create_dir_all(folder).with_context(|| format!("cannot create {}", folder.display()))
}

/// Removes a folder where it is there.
pub(super) fn remove(folder: &Path) -> Result<()> {
    if folder.exists() {
        fs::remove_dir_all(folder)
            .with_context(|| format!("cannot remove {}", folder.display()))?;
    }
    Ok(())
}

/// Writes a file.
pub(super) fn write(file: &Path, content: &str) -> Result<()> {
    fs::write(file, content).with_context(|| format!("cannot write {}", file.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_newest_ordinary_kernel_is_picked() {
        let found = "linux-image-6.12-amd64 - Linux for 64-bit PCs (meta-package)\n\
                     linux-image-6.12.90+deb12-amd64 - Linux 6.12\n\
                     linux-image-6.12.117+deb12-cloud-amd64 - Linux 6.12 for x86-64 cloud\n\
                     linux-image-6.12.117+deb12-rt-amd64 - Linux 6.12, PREEMPT_RT\n\
                     linux-image-6.12.107+deb12-amd64 - Linux 6.12\n\
                     linux-image-6.1.0-56-amd64 - Linux 6.1\n\
                     linux-image-6.1.0-9-amd64 - Linux 6.1\n\
                     linux-image-amd64 - Linux for 64-bit PCs (meta-package)\n";
        let pick = |name| newest(found, &Series::named(name).unwrap());
        assert_eq!(
            pick("6.12").as_deref(),
            Some("linux-image-6.12.107+deb12-amd64")
        );
        assert_eq!(pick("6.1").as_deref(), Some("linux-image-6.1.0-56-amd64"));
        assert_eq!(
            pick("6").as_deref(),
            Some("linux-image-6.12.107+deb12-amd64")
        );
        assert_eq!(pick("5.10"), None);
    }

    #[test]
    fn the_parts_of_a_split_kernel_are_found() {
        let depends = "linux-image-7.3.4+deb13-amd64\n |Depends: dracut\n  Depends: linux-base\n  Depends: \
                       linux-base-7.3.4+deb13-amd64\n  Depends: linux-binary-7.3.4+deb13-amd64\n  \
                       Depends: linux-modules-7.3.4+deb13-amd64\n";
        assert_eq!(
            parts(depends),
            [
                "linux-base-7.3.4+deb13-amd64",
                "linux-binary-7.3.4+deb13-amd64",
                "linux-modules-7.3.4+deb13-amd64"
            ]
        );
    }
}
