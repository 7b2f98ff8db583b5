//! The binary: sets up the log and hands over to the command line.

use std::process::ExitCode;

fn main() -> ExitCode {
    lb_userspace::logging::init();
    lb_userspace::cli::main()
}
