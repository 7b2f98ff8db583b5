//! `evenkeel completions`: what a shell needs to complete the command line.

use clap::{Args, CommandFactory as _};
use clap_complete::Shell;

use super::{Answer, CommandLine, output};

/// Print a script by which a shell completes the command line
///
/// The Debian package installs them for bash, zsh and fish.
#[derive(Debug, Args)]
#[command(after_long_help = "\
Examples:
  evenkeel completions bash > /etc/bash_completion.d/evenkeel
  evenkeel completions fish > ~/.config/fish/completions/evenkeel.fish
  source <(evenkeel completions zsh)

Exit codes:
  0  printed
  2  could not be written, or wrong usage")]
pub(super) struct Arguments {
    /// Which shell
    #[arg(value_name = "SHELL")]
    shell: Shell,
}

/// Prints the script.
pub(super) fn run(arguments: &Arguments) -> anyhow::Result<Answer> {
    let mut script = Vec::new();
    let mut command = CommandLine::command();
    clap_complete::generate(arguments.shell, &mut command, "evenkeel", &mut script);
    output::print(&String::from_utf8_lossy(&script))?;
    Ok(Answer::Yes)
}
