//! A compiler that can build `core` for BPF, and a linker that goes with it.

use std::{
    env,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context, Result, bail, ensure};
use evenkeel_tests::tools;
use serde_json::Value;

use super::{
    Missing,
    debian::{self, Version},
};
use crate::steps::Step;

/// The linker's version, and the LLVM majors that it can be built with.
const LINKER: &str = "0.13.0";
const LLVMS: std::ops::RangeInclusive<u32> = 21..=23;

/// The variable that names the toolchain to take, for `lb-userspace/build.rs` too.
const OVERRIDE: &str = "EVENKEEL_BPF_TOOLCHAIN";

/// The name under which Debian's compiler is made known to rustup.
const LINKED: &str = "ebpf";

/// Debian's compilers with the source of `core`: one kept current for browsers, and the usual one.
const COMPILERS: [[&str; 3]; 2] = [
    ["rustc-web", "cargo-web", "rust-web-src"],
    ["rustc", "cargo", "rust-src"],
];

/// Notes what is missing for building BPF programs.
pub(super) fn look(missing: &mut Missing) -> Result<()> {
    let Some(compiler) = Compiler::find()? else {
        return install_compiler(missing);
    };
    compiler.check()?;
    let llvm = match compiler.installed_llvm() {
        Some(major) => major,
        None => compiler.missing_llvm(missing)?,
    };
    if !has_linker(llvm) {
        missing.afterwards.push(install_linker(&llvm.to_string()));
    }
    Ok(())
}

/// A compiler whose sysroot has the source of `core`.
struct Compiler {
    /// How messages call it.
    name: String,
    release: Version,
    llvm: Version,
}

impl Compiler {
    /// The first one, in the order of `lb-userspace/build.rs`: the override alone where there is
    /// one, or else the active toolchain, `nightly`, `ebpf`.
    fn find() -> Result<Option<Self>> {
        if let Some(name) = env::var_os(OVERRIDE) {
            let name = name.to_string_lossy();
            let compiler = Self::ask(&name, || rustup_run(&name));
            return compiler.map(Some).with_context(|| {
                format!("{OVERRIDE} names `{name}`, which has no source of `core`; unset it")
            });
        }
        let known = |name| Self::ask(name, || rustup_run(name));
        let active = Self::ask("the active toolchain", || offline("rustc"));
        Ok(active
            .or_else(|| known("nightly"))
            .or_else(|| known(LINKED)))
    }

    /// Asks a compiler for its source of `core` and its versions; `None` without either.
    fn ask(name: &str, rustc: impl Fn() -> Command) -> Option<Self> {
        let sysroot = tools::output(rustc().args(["--print", "sysroot"])).ok()?;
        let core = Path::new(sysroot.trim()).join("lib/rustlib/src/rust/library/core");
        if !core.is_dir() {
            return None;
        }
        let versions = tools::output(rustc().arg("-vV")).ok()?;
        let find = |key| versions.lines().find_map(|line| line.strip_prefix(key));
        Some(Self {
            name: name.to_owned(),
            release: Version::parse(find("release: ")?)?,
            llvm: Version::parse(find("LLVM version: ")?)?,
        })
    }

    /// Refuses a compiler that the build could only fail with.
    fn check(&self) -> Result<()> {
        let Self {
            name,
            release,
            llvm,
        } = self;
        let remedy = format!("name another toolchain with the component rust-src in {OVERRIDE}");
        ensure!(
            *release >= least_release(),
            "{name} would build the BPF program, but is {release}, older than {}; {remedy}",
            least_release()
        );
        ensure!(
            llvm.0 <= *LLVMS.end(),
            "{name} would build the BPF program, but its LLVM is {llvm}, and bpf-linker {LINKER} \
             knows LLVM {} at most; {remedy}",
            LLVMS.end()
        );
        Ok(())
    }

    /// The majors that a linker for this compiler can be built with: its own, or a later one.
    fn llvms(&self) -> impl Iterator<Item = u32> {
        LLVMS.skip_while(|major| *major < self.llvm.0)
    }

    /// The major of an LLVM that is installed and no older than this compiler's.
    fn installed_llvm(&self) -> Option<u32> {
        self.llvms().find(|major| {
            let config = llvm_prefix(&major.to_string()).join("bin/llvm-config");
            let version = tools::output(Command::new(config).arg("--version"));
            version
                .ok()
                .and_then(|text| Version::parse(&text))
                .is_some_and(|v| v >= self.llvm)
        })
    }

    /// Notes a package of an LLVM that is no older than this compiler's; answers its major.
    fn missing_llvm(&self, missing: &mut Missing) -> Result<u32> {
        let least = self.llvm;
        let names: Vec<_> = self
            .llvms()
            .map(|major| format!("llvm-{major}-dev"))
            .collect();
        let candidates = debian::candidates(&names);
        let fits = |major: &u32| {
            candidates
                .get(&format!("llvm-{major}-dev"))
                .is_some_and(|version| *version >= least)
        };
        let known = self.llvms().find(fits);
        if known.is_none() && debian::is_here() {
            bail!(
                "bpf-linker needs LLVM {least} or later for {}, and apt knows no such package; \
                 run `apt-get update` and try again, add one from https://apt.llvm.org (`sudo ./llvm.sh {}`, then \
                 `sudo apt-get install llvm-{0}-dev`), or name another toolchain in {OVERRIDE}",
                self.name,
                least.0
            );
        }
        let major = known
            .or_else(|| self.llvms().next())
            .context("no LLVM fits bpf-linker")?;
        let why = format!("LLVM {least} or later, as in {}, for bpf-linker", self.name);
        missing.needs(format!("llvm-{major}-dev"), why);
        Ok(major)
    }
}

/// The oldest compiler that builds this workspace.
fn least_release() -> Version {
    Version::parse(env!("CARGO_PKG_RUST_VERSION")).expect("the workspace names its rust-version")
}

/// A program that rustup must not take for a reason to download something.
fn offline(program: &str) -> Command {
    let mut command = Command::new(program);
    command.env("RUSTUP_AUTO_INSTALL", "0");
    command
}

/// The compiler of a toolchain.
fn rustup_run(toolchain: &str) -> Command {
    let mut command = offline("rustup");
    command.args(["run", toolchain, "rustc"]);
    command
}

/// Notes a compiler with the source of `core`, and how rustup gets to know it.
fn install_compiler(missing: &mut Missing) -> Result<()> {
    let names: Vec<_> = COMPILERS
        .iter()
        .flatten()
        .map(ToString::to_string)
        .collect();
    let candidates = debian::candidates(&names);
    let recent = |name: &str| candidates.get(name).is_some_and(|v| *v >= least_release());
    let Some(packages) = COMPILERS.iter().find(|packages| recent(packages[0])) else {
        let remedy = "rustup component add rust-src";
        if debian::is_here() {
            bail!(
                "the XDP program needs a compiler of {} or later with the source of `core`, and \
                 apt's lists have none; run `apt-get update` and try again, or \
                 `{remedy}`",
                least_release()
            );
        }
        let why = "the source of `core`, which the XDP program is built with";
        let step = Step::new(why, "it needs the network", remedy.split(' '));
        missing.afterwards.push(step);
        missing.afterwards.push(install_linker("N"));
        missing
            .notes
            .push("N: the LLVM major that `rustc -vV` tells; install its files first".into());
        return Ok(());
    };
    for package in packages {
        missing.needs(
            *package,
            "a compiler with the source of `core`, for the XDP program",
        );
    }
    if tools::find("rustup").is_some() {
        missing.afterwards.push(Step::new(
            format!("Debian's compiler, made known to rustup as `{LINKED}`"),
            "see rustup's message above",
            ["rustup", "toolchain", "link", LINKED, "/usr"],
        ));
    }
    let note = "then llvm-N-dev and bpf-linker, N being the LLVM major of that compiler";
    missing.notes.push(note.into());
    Ok(())
}

/// Where Debian keeps an LLVM.
fn llvm_prefix(major: &str) -> PathBuf {
    PathBuf::from(format!("/usr/lib/llvm-{major}"))
}

/// Whether `target/tools` has the right linker, built with this LLVM, and it starts.
fn has_linker(llvm: u32) -> bool {
    let root = tools::workspace_tools();
    let records = super::installed_crates();
    let starts = || {
        Command::new(root.join("bin/bpf-linker"))
            .arg("--version")
            .output()
    };
    records_linker(&records, llvm) && starts().is_ok_and(|output| output.status.success())
}

/// Whether cargo's records of what it has installed name the right linker with this LLVM.
fn records_linker(records: &Value, llvm: u32) -> bool {
    let feature = Value::from(format!("llvm-{llvm}"));
    let installs = records["installs"].as_object();
    installs.into_iter().flatten().any(|(name, install)| {
        name.starts_with(&format!("bpf-linker {LINKER} "))
            && install["features"]
                .as_array()
                .is_some_and(|all| all.contains(&feature))
    })
}

/// Builds the linker into `target/tools`, where `lb-userspace/build.rs` looks first.
fn install_linker(llvm: &str) -> Step {
    let root = tools::workspace_tools();
    let mut step = Step::new(
        "a linker for BPF programs, kept in target/tools",
        "see cargo's message above; it needs the crates' registry",
        [
            "cargo",
            "install",
            "bpf-linker",
            "--version",
            LINKER,
            "--locked",
            "--root",
        ],
    );
    let rest = ["--no-default-features", "--features"].map(str::to_owned);
    step.words.push(root.display().to_string());
    step.words.extend(rest);
    step.words.push(format!("llvm-{llvm}"));
    // An older build of the same version with another LLVM is in the way.
    step.words.push("--force".into());
    step.environment.push((
        "LLVM_PREFIX".into(),
        llvm_prefix(llvm).display().to_string(),
    ));
    step
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_linker_counts_with_its_version_and_its_llvm() {
        let records = |name: &str, feature: &str| {
            let name = format!("{name} (registry+https://github.com/rust-lang/crates.io-index)");
            json!({ "installs": { name: { "features": [feature] } } })
        };
        assert!(records_linker(&records("bpf-linker 0.13.0", "llvm-22"), 22));
        assert!(!records_linker(
            &records("bpf-linker 0.13.0", "llvm-21"),
            22
        ));
        assert!(!records_linker(
            &records("bpf-linker 0.12.9", "llvm-22"),
            22
        ));
        assert!(!records_linker(&records("other 0.13.0", "llvm-22"), 22));
        assert!(!records_linker(&Value::Null, 22));
    }

    #[test]
    fn a_linkers_llvm_is_the_compilers_or_later() {
        let majors = |llvm| {
            let compiler = Compiler {
                name: String::new(),
                release: Version(1, 95, 0),
                llvm,
            };
            compiler.llvms().collect::<Vec<_>>()
        };
        assert_eq!(majors(Version(20, 1, 0)), [21, 22, 23]);
        assert_eq!(majors(Version(22, 1, 8)), [22, 23]);
        assert_eq!(majors(Version(24, 0, 0)), [0; 0]);
    }

    #[test]
    fn a_compiler_too_new_or_too_old_is_refused_with_a_remedy() {
        let check = |release, llvm| {
            Compiler {
                name: "x".into(),
                release,
                llvm,
            }
            .check()
        };
        check(least_release(), Version(22, 1, 2)).unwrap();
        let new = check(Version(2, 0, 0), Version(24, 0, 0))
            .unwrap_err()
            .to_string();
        assert!(
            new.contains("LLVM is 24.0.0") && new.contains(OVERRIDE),
            "{new}"
        );
        let old = check(Version(1, 80, 0), Version(22, 0, 0))
            .unwrap_err()
            .to_string();
        assert!(
            old.contains("is 1.80.0, older than") && old.contains(OVERRIDE),
            "{old}"
        );
    }
}
