//! The binary: sets up the log and hands over to the command line.

use std::process::ExitCode;

use env_logger::{Builder, Env};

fn main() -> ExitCode {
    Builder::from_env(Env::default().default_filter_or("info"))
        .format_timestamp_millis()
        .init();
    lb_userspace::cli::main()
}
