//! `evenkeel manual`: the help as manual pages.

use std::{
    fs,
    path::{Path, PathBuf},
};

use anyhow::Context as _;
use clap::{Args, Command, CommandFactory as _};
use clap_mangen::Man;

use super::{Answer, CommandLine, output};

/// Commands of administrators.
const SECTION: &str = "8";

/// Write the manual pages, one for each command, into a folder
///
/// They say what '--help' says. The Debian package installs them.
#[derive(Debug, Args)]
#[command(after_long_help = "\
Examples:
  evenkeel manual ./man && man ./man/evenkeel-apply.8
  sudo evenkeel manual /usr/local/share/man/man8

Exit codes:
  0  written
  2  could not be written")]
pub(super) struct Arguments {
    /// The folder, which is made where it is missing
    #[arg(value_name = "FOLDER")]
    folder: PathBuf,
}

/// Writes the pages.
pub(super) fn run(arguments: &Arguments) -> anyhow::Result<Answer> {
    let folder = &arguments.folder;
    fs::create_dir_all(folder).with_context(|| format!("cannot create {}", folder.display()))?;
    let mut command = CommandLine::command();
    // Gives commands of commands their whole names.
    command.build();
    let pages = write(&command, folder)?;
    output::print(&format!("{pages} pages in {}\n", folder.display()))?;
    Ok(Answer::Yes)
}

/// Writes the page of a command and those of its own commands; answers how many.
fn write(command: &Command, folder: &Path) -> anyhow::Result<usize> {
    let man = Man::new(command.clone()).section(SECTION);
    let path = folder.join(man.get_filename());
    let mut page = Vec::new();
    man.render(&mut page)?;
    fs::write(&path, page).with_context(|| format!("cannot write {}", path.display()))?;
    let mut pages = 1;
    for inner in command.get_subcommands() {
        if inner.get_name() != "help" && !inner.is_hide_set() {
            pages += write(inner, folder)?;
        }
    }
    Ok(pages)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_command_has_a_page_under_its_whole_name() {
        let folder = tempfile::tempdir().unwrap();
        let mut command = CommandLine::command();
        command.build();
        let pages = write(&command, folder.path()).unwrap();
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), pages);
        for command in CommandLine::command().get_subcommands() {
            let page = format!("evenkeel-{}.8", command.get_name());
            let text = fs::read_to_string(folder.path().join(&page)).expect(&page);
            assert!(text.contains("Exit codes"), "{page}");
        }
        assert!(folder.path().join("evenkeel.8").exists());
        assert!(folder.path().join("evenkeel-backend-drain.8").exists());
    }
}
