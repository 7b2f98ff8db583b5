//! Builds the XDP programs, leaves their objects in `OUT_DIR` (`evenkeel-xdp`, the balancer,
//! `evenkeel-decap`, for backends, `evenkeel-probe`, for probes, `evenkeel-explain`, for
//! explanations, `evenkeel-trace`, for traces, `evenkeel-bench`, for the benchmark), and notes the git revision for `--version`.
//!
//! BPF takes `core` built from source, so a toolchain that has the source. Where the active one
//! lacks it (`rust-src` cannot be had everywhere), another installed one is used for this part.

use std::{
    env, fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context as _, Result, bail};
use aya_build::{Package, Toolchain};

/// Toolchains to look at after the active one, unless `EVENKEEL_BPF_TOOLCHAIN` names one.
///
/// `ebpf` is the name that `cargo xtask setup` gives to a distribution's compiler.
const CANDIDATES: [&str; 2] = ["nightly", "ebpf"];

const NO_TOOLCHAIN: &str = "\
building the XDP program takes a Rust toolchain with the source of `core`, and none was found\n\
on Debian, run `cargo xtask setup`; elsewhere, run `rustup component add rust-src`\n\
or name an installed toolchain that has it in EVENKEEL_BPF_TOOLCHAIN";

const NO_LINKER: &str = "\
building the XDP program takes bpf-linker, which is neither in PATH nor in target/tools/bin\n\
on Debian, run `cargo xtask setup`; elsewhere, `cargo xtask setup` prints the commands";

fn main() -> Result<()> {
    println!("cargo:rerun-if-env-changed=EVENKEEL_BPF_TOOLCHAIN");
    println!("cargo:rerun-if-env-changed=AYA_BUILD_SKIP");
    println!("cargo:rerun-if-env-changed=PATH");
    revision();
    // Lets clippy run where no BPF toolchain is: there has to be a file to include.
    if env::var_os("AYA_BUILD_SKIP").is_some() {
        for name in [
            "evenkeel-xdp",
            "evenkeel-decap",
            "evenkeel-probe",
            "evenkeel-explain",
            "evenkeel-trace",
            "evenkeel-bench",
        ] {
            let object = Path::new(&env::var("OUT_DIR")?).join(name);
            fs::write(&object, []).with_context(|| format!("write {}", object.display()))?;
        }
        return Ok(());
    }
    let toolchain = toolchain()?;
    let path = path_with_linker()?;
    // SAFETY: nothing else runs in this process yet.
    unsafe {
        env::set_var("PATH", path);
        // Lets a stable compiler build `core` for the target.
        env::set_var("RUSTC_BOOTSTRAP", "1");
        // aya-build turns each line of the inner cargo into a warning; keep the real ones only.
        env::set_var("CARGO_TERM_QUIET", "true");
    }
    let features: Vec<&str> = ["other-program", "next-layout"]
        .into_iter()
        .filter(|name| env::var_os(feature_variable(name)).is_some())
        .collect();
    aya_build::build_ebpf(
        [Package {
            name: "lb-ebpf",
            root_dir: "../lb-ebpf",
            features: &features,
            ..Default::default()
        }],
        Toolchain::Custom(&toolchain),
    )
}

/// The variable by which cargo says that a feature is on.
fn feature_variable(name: &str) -> String {
    format!("CARGO_FEATURE_{}", name.to_uppercase().replace('-', "_"))
}

/// The toolchain to build with; empty where there is no rustup and the compiler in `PATH` will do.
fn toolchain() -> Result<String> {
    if let Ok(name) = env::var("EVENKEEL_BPF_TOOLCHAIN") {
        return Ok(name);
    }
    let active = env::var("RUSTUP_TOOLCHAIN").ok();
    let mut names = active.as_deref().into_iter().chain(CANDIDATES);
    if let Some(name) =
        names.find(|name| has_core_source(Command::new("rustup").args(["run", name, "rustc"])))
    {
        return Ok(name.to_owned());
    }
    if active.is_none() && has_core_source(&mut Command::new("rustc")) {
        return Ok(String::new());
    }
    bail!(NO_TOOLCHAIN)
}

fn has_core_source(rustc: &mut Command) -> bool {
    // Cargo sets RUSTC for build scripts; `rustup run` must not inherit it.
    let output = rustc
        .args(["--print", "sysroot"])
        .env_remove("RUSTC")
        .env("RUSTUP_AUTO_INSTALL", "0")
        .output();
    output
        .ok()
        .filter(|output| output.status.success())
        .and_then(|output| String::from_utf8(output.stdout).ok())
        .is_some_and(|root| {
            Path::new(root.trim())
                .join("lib/rustlib/src/rust/library/core")
                .exists()
        })
}

/// `PATH` with the workspace's own tools in front, where `cargo xtask setup` puts the linker.
fn path_with_linker() -> Result<std::ffi::OsString> {
    let tools = Path::new(&env::var("CARGO_MANIFEST_DIR")?).join("../target/tools/bin");
    let paths: Vec<PathBuf> = std::iter::once(tools)
        .chain(env::split_paths(&env::var_os("PATH").unwrap_or_default()))
        .collect();
    if !paths
        .iter()
        .any(|folder| folder.join("bpf-linker").is_file())
    {
        bail!(NO_LINKER);
    }
    Ok(env::join_paths(paths)?)
}

/// Notes the revision that is built, with a plus sign where the work tree differs from it.
fn revision() {
    let git = |args: &[&str]| {
        let output = Command::new("git").args(args).output().ok()?;
        let text = String::from_utf8(output.stdout).ok()?;
        output.status.success().then(|| text.trim().to_owned())
    };
    // In a linked work tree it lies elsewhere; a file that is not there would be built for each time.
    if let Some(log) = git(&["rev-parse", "--git-path", "logs/HEAD"]) {
        println!("cargo:rerun-if-changed={log}");
    }
    let revision = git(&[
        "describe",
        "--always",
        "--dirty=+",
        "--abbrev=12",
        "--match=",
    ]);
    println!(
        "cargo:rustc-env=EVENKEEL_REVISION={}",
        revision.as_deref().unwrap_or("unknown")
    );
}
