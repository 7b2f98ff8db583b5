//! Drills in a network of their own.

use super::{Run, finish};
use crate::{
    cli::{Answer, loadtest::stop_on_signals, output},
    model::Drill,
    sandbox::{self, Plan},
};

/// Whether a sandbox has this one.
pub(super) fn has(drill: Drill) -> bool {
    drill != Drill::Tabletop
}

/// Rehearses.
pub(super) fn run(arguments: &Run) -> anyhow::Result<Answer> {
    let plan = Plan {
        drill: arguments.drill,
        keep: arguments.keep.clone(),
        stop: stop_on_signals()?,
    };
    let tell = |line: &str| output::complain(&output::plain(line));
    let outcome = sandbox::run(&plan, tell)?;
    let answer = finish(&outcome.card, &arguments.state, arguments.json)?;
    if let Some(report) = outcome.report.filter(|_| !arguments.json) {
        output::print(&report)?;
    }
    Ok(answer)
}
