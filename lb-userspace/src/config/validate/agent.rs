//! How a service's backends are asked for what they want themselves.

use std::{ops::RangeInclusive, time::Duration};

use super::{
    field::{Fields, place},
    options::table,
};
use crate::{
    config::raw::{self, Leaf},
    model::AgentCheck,
};

const INTERVALS: RangeInclusive<Duration> = Duration::from_millis(100)..=Duration::from_hours(1);
const LONGEST_KEEP: Duration = Duration::from_hours(24);
/// How many questions in a row may fail before the last word is forgotten, where that is not
/// configured.
const PATIENCE: u32 = 5;

/// Checks a service's agent.
#[expect(
    clippy::option_option,
    reason = "wrong, missing and there are three things"
)]
pub(super) fn check(raw: &raw::Service, fields: &mut Fields<'_, '_>) -> Option<Option<AgentCheck>> {
    let Some((table, at)) = table(&raw.agent, "agent", "{ port = 8008 }", fields)? else {
        return Some(None);
    };
    let mut fields = fields.inner("agent", at);
    let port = fields.port("port", &table.port);
    if place(&table.port).is_none() {
        fields.missing("port", "give the TCP port that the agents listen on");
    }
    let default = AgentCheck::INTERVAL;
    let interval = fields.duration("interval", &table.interval, default, INTERVALS);
    let usual = interval.unwrap_or(default);
    let shorter = AgentCheck::TIMEOUT.min(usual / 2);
    let bounds = Duration::from_millis(1)..=*INTERVALS.end();
    let timeout = fields.duration("timeout", &table.timeout, shorter, bounds);
    let longer = AgentCheck::KEEP.max(PATIENCE * usual);
    let bounds = Duration::from_secs(1)..=LONGEST_KEEP;
    let keep = fields.duration("keep", &table.keep, longer, bounds);
    if let (Some(interval), Some(timeout), Some(at)) = (interval, timeout, place(&table.timeout))
        && timeout >= interval
    {
        let problem = not("shorter", timeout, interval);
        let remedy = "make it shorter: questions to one agent never overlap";
        fields.report(at, "timeout", problem, remedy);
    }
    if let (Some(interval), Some(keep), Some(at)) = (interval, keep, place(&table.keep))
        && keep <= interval
    {
        let problem = not("longer", keep, interval);
        let remedy = "make it longer: a word would be forgotten before the next one can come";
        fields.report(at, "keep", problem, remedy);
    }
    let send = send(&mut fields, &table.send);
    Some(Some(AgentCheck {
        port: port??,
        interval: interval?,
        timeout: timeout?,
        send: send?,
        keep: keep?,
    }))
}

fn not(how: &str, one: Duration, interval: Duration) -> String {
    format!(
        "{} is not {how} than the interval of {}",
        humantime::format_duration(one),
        humantime::format_duration(interval)
    )
}

/// What is sent to an agent first.
fn send(fields: &mut Fields<'_, '_>, leaf: &Leaf<String>) -> Option<String> {
    let remedy = format!("give up to {} bytes of text", AgentCheck::LONGEST_SEND);
    let sent = fields.optional("send", leaf, &remedy, |text| {
        if text.len() <= AgentCheck::LONGEST_SEND {
            Ok(text.clone())
        } else {
            Err(format!("has {} bytes", text.len()))
        }
    });
    sent.map(Option::unwrap_or_default)
}
