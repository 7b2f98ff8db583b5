//! What is loaded and what it counted, for people and for programs.

use std::{collections::BTreeMap, fmt::Write as _, net::IpAddr, time::Duration};

use lb_common::decap::{BYTES, Counters, Reason, UNWRAPPED};
use serde::Serialize;

use crate::dataplane::decap::{Loaded, Others, Senders, host};

/// What is loaded and what it counted.
#[derive(Clone, Debug, Serialize)]
pub(super) struct Status {
    /// Where it is attached.
    interfaces: Vec<Interface>,
    /// Where tunnels end.
    addresses: Vec<IpAddr>,
    /// The prefixes of those who may send; `null` for everybody.
    allowed: Option<Vec<String>>,
    /// What becomes of what others send: `drop` or `pass`.
    others: &'static str,
    /// What packets inside may be addressed to; everything where it is empty.
    vips: Vec<IpAddr>,
    /// The UDP port of GUE; `null` where UDP is left alone.
    gue_port: Option<u16>,
    /// Packets that were taken out of their tunnels.
    unwrapped: u64,
    /// Bytes of their frames, as they came.
    unwrapped_bytes: u64,
    /// Frames that were not, by reason.
    reasons: BTreeMap<&'static str, u64>,
}

/// An interface.
#[derive(Clone, Debug, Serialize)]
struct Interface {
    /// Its index.
    index: u32,
    /// Its name; `null` where it is gone.
    name: Option<String>,
}

/// Puts together what is loaded.
pub(super) fn status(loaded: &Loaded) -> Status {
    let rules = &loaded.rules;
    let interfaces = loaded.interfaces.iter().map(|&index| Interface {
        index,
        name: host::name(index),
    });
    let counted = Reason::ALL.iter();
    Status {
        interfaces: interfaces.collect(),
        addresses: rules.ends.iter().copied().collect(),
        allowed: match &rules.senders {
            Senders::Any => None,
            Senders::Of(prefixes) => Some(prefixes.iter().map(ToString::to_string).collect()),
        },
        others: match rules.others {
            Others::Drop => "drop",
            Others::Pass => "pass",
        },
        vips: rules.vips.iter().copied().collect(),
        gue_port: (rules.gue_port != 0).then_some(rules.gue_port),
        unwrapped: loaded.counters[UNWRAPPED],
        unwrapped_bytes: loaded.counters[BYTES],
        reasons: counted
            .map(|&reason| (reason.name(), loaded.counters[reason as usize]))
            .collect(),
    }
}

/// All of it, for people.
pub(super) fn text(status: &Status) -> String {
    let list = |all: &[IpAddr]| {
        all.iter()
            .map(ToString::to_string)
            .collect::<Vec<_>>()
            .join(", ")
    };
    let interfaces = status.interfaces.iter().map(|one| match &one.name {
        Some(name) => name.clone(),
        None => format!("an interface that is gone (index {})", one.index),
    });
    let mut text = String::new();
    let mut row = |name: &str, value: &str| {
        // Writing to a string cannot fail.
        let _ = writeln!(text, "{name:<15}{value}");
    };
    row("attached to", &interfaces.collect::<Vec<_>>().join(", "));
    row("tunnels end at", &list(&status.addresses));
    let allowed = status.allowed.as_ref().map(|all| all.join(", "));
    row("allowed", allowed.as_deref().unwrap_or("everybody"));
    let others = if status.others == "drop" {
        "dropped"
    } else {
        "passed to the stack"
    };
    row("others", others);
    let vips = list(&status.vips);
    row("VIPs", if vips.is_empty() { "any" } else { &vips });
    let port = status.gue_port.map(|port| format!("UDP port {port}"));
    row("GUE", port.as_deref().unwrap_or("off"));
    let unwrapped = format!(
        "{} packets, {} bytes",
        status.unwrapped, status.unwrapped_bytes
    );
    row("unwrapped", &unwrapped);
    for (reason, count) in status.reasons.iter().filter(|(_, count)| **count > 0) {
        row(reason, &format!("{count} packets"));
    }
    text
}

/// What was counted in a while, in a line.
pub(super) fn line(before: &Counters, now: &Counters, period: Duration) -> String {
    let grown = |counter: usize| now[counter].wrapping_sub(before[counter]);
    let mut line = format!(
        "{} packets unwrapped ({:.1}/s, {:.1} kbit/s)",
        grown(UNWRAPPED),
        grown(UNWRAPPED) as f64 / period.as_secs_f64(),
        grown(BYTES) as f64 * 8.0 / 1000.0 / period.as_secs_f64(),
    );
    for reason in Reason::ALL {
        let count = grown(reason as usize);
        // All of the host's own traffic is told by the status alone.
        if count > 0 && reason != Reason::NotTunnel {
            let _ = write!(line, ", {} {count}", reason.name());
        }
    }
    line + "\n"
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dataplane::decap::Rules;

    fn loaded() -> Loaded {
        let mut counters = [0; 16];
        counters[UNWRAPPED] = 7;
        counters[BYTES] = 700;
        counters[Reason::Sender as usize] = 3;
        counters[Reason::NotTunnel as usize] = 9;
        Loaded {
            interfaces: vec![0],
            rules: Rules {
                senders: Senders::Of(["10.0.9.0/24".parse().unwrap()].into()),
                others: Others::Drop,
                ends: ["10.0.0.2".parse().unwrap()].into(),
                vips: [].into(),
                gue_port: 6080,
            },
            counters,
        }
    }

    #[test]
    fn people_see_what_is_there_and_what_happened() {
        let expected = "\
attached to    an interface that is gone (index 0)
tunnels end at 10.0.0.2
allowed        10.0.9.0/24
others         dropped
VIPs           any
GUE            UDP port 6080
unwrapped      7 packets, 700 bytes
not-tunnel     9 packets
sender         3 packets
";
        assert_eq!(text(&status(&loaded())), expected);
    }

    #[test]
    fn a_line_tells_what_is_new() {
        let now = loaded().counters;
        let mut before = [0; 16];
        before[UNWRAPPED] = 2;
        let told = line(&before, &now, Duration::from_secs(10));
        let expected = "5 packets unwrapped (0.5/s, 0.6 kbit/s), sender 3\n";
        assert_eq!(told, expected);
    }

    #[test]
    fn programs_see_every_reason() {
        let json = serde_json::to_value(status(&loaded())).unwrap();
        assert_eq!(json["reasons"]["sender"], 3);
        assert_eq!(json["reasons"]["congestion"], 0);
        assert_eq!(json["allowed"][0], "10.0.9.0/24");
        assert_eq!(json["gue_port"], 6080);
    }
}
