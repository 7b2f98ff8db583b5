//! Set-up, demonstration, tests and benchmarks of Evenkeel: `cargo xtask`.

#![forbid(unsafe_code)]
#![expect(
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "a tool at the command line talks to the person there"
)]

mod bench;
mod build;
mod demo;
mod dist;
mod kernels;
mod setup;
mod steps;
mod test;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

/// Sets up, builds, demonstrates, tests and measures Evenkeel.
#[derive(Parser)]
#[command(name = "cargo xtask", bin_name = "cargo xtask", version)]
struct Arguments {
    #[command(subcommand)]
    task: Task,
}

#[derive(Subcommand)]
enum Task {
    Setup(setup::Arguments),
    Build(build::Arguments),
    Demo(demo::Arguments),
    Test(test::Arguments),
    Bench(Box<bench::Arguments>),
    Dist(dist::Arguments),
}

fn main() -> ExitCode {
    let result = match Arguments::parse().task {
        Task::Setup(arguments) => setup::run(&arguments).map(|()| ExitCode::SUCCESS),
        Task::Build(arguments) => build::run(&arguments).map(|()| ExitCode::SUCCESS),
        Task::Demo(arguments) => demo::run(&arguments),
        Task::Test(arguments) => test::run(&arguments).map(|()| ExitCode::SUCCESS),
        Task::Dist(arguments) => dist::run(&arguments).map(|()| ExitCode::SUCCESS),
        Task::Bench(arguments) => bench::run(&arguments).map(|()| ExitCode::SUCCESS),
    };
    result.unwrap_or_else(|error| {
        eprintln!("error: {error:#}");
        ExitCode::FAILURE
    })
}
