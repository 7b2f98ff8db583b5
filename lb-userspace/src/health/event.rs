//! What happens to the health of services and their backends, as values.
//!
//! Everything that an operator is to be told about health passes through [`Event`], on its way to
//! the log and the journal.

use std::{fmt, sync::Arc, time::Duration};

use serde::{Deserialize, Serialize};

use super::{
    agent::Wish,
    outlier::Rung,
    state::{Reason, State},
};
use crate::model::Fraction;

/// How grave an event is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Severity {
    /// For the record.
    Info,
    /// Something is wrong and is being dealt with.
    Warning,
    /// Somebody has to look.
    Page,
}

/// Something that happened, and to whom.
#[derive(Clone, Debug, PartialEq)]
pub struct Event {
    /// When, in milliseconds since the Unix epoch.
    pub at_ms: u64,
    /// The service.
    pub service: Arc<str>,
    /// The backend; `None` where it is the service as a whole.
    pub backend: Option<Arc<str>>,
    /// What happened.
    pub what: What,
}

impl Event {
    /// How grave it is.
    pub const fn severity(&self) -> Severity {
        self.what.severity()
    }
}

impl fmt::Display for Event {
    /// Writes `web/b2 is slow: …`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.backend {
            Some(backend) => write!(f, "{}/{backend} {}", self.service, self.what),
            None => write!(f, "{}: {}", self.service, self.what),
        }
    }
}

/// What tells how a backend performs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum By {
    /// Its probes.
    #[default]
    Probes,
    /// Its clients' traffic, as far as that is measured in passing.
    Traffic,
}

impl By {
    /// The word for it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Probes => "probes",
            Self::Traffic => "traffic",
        }
    }
}

/// Why a backend is taken for worse than its peers.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Cause {
    /// It is slower.
    Slow {
        /// What told so.
        #[serde(default)]
        by: By,
        /// Its latency.
        latency: Duration,
        /// The median of its peers.
        peers: Duration,
        /// How many times as slow it is.
        ratio: f64,
        /// In how many probes or requests that was seen.
        #[serde(default)]
        samples: u64,
        /// Over how long.
        over: Duration,
    },
    /// It fails more often than is borne.
    Failing {
        /// What told so.
        #[serde(default)]
        by: By,
        /// How many failed.
        failed: u64,
        /// Of how many.
        of: u64,
        /// Over how long that was seen.
        over: Duration,
    },
}

impl Cause {
    /// The word for it.
    pub const fn name(&self) -> &'static str {
        match self {
            Self::Slow { .. } => "slow",
            Self::Failing { .. } => "failing",
        }
    }

    /// What told so.
    pub const fn by(&self) -> By {
        match *self {
            Self::Slow { by, .. } | Self::Failing { by, .. } => by,
        }
    }
}

impl fmt::Display for Cause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Self::Slow {
                by,
                latency,
                peers,
                ratio,
                samples,
                over,
            } => {
                let (latency, peers) = (Millis(latency), Millis(peers));
                let what = match by {
                    By::Probes => "probes",
                    By::Traffic => "requests",
                };
                write!(
                    f,
                    "slow by its {}: {latency} ms where its peers take {peers} ms, {ratio:.1}x over \
                     {samples} {what} in {} s",
                    by.name(),
                    over.as_secs()
                )
            }
            Self::Failing {
                by,
                failed,
                of,
                over,
            } => {
                let what = match by {
                    By::Probes => "probes",
                    By::Traffic => "connections and requests",
                };
                write!(
                    f,
                    "failing by its {}: {failed} of {of} {what} in {} s",
                    by.name(),
                    over.as_secs()
                )
            }
        }
    }
}

/// A time in milliseconds, with a decimal where it is short.
struct Millis(Duration);

impl fmt::Display for Millis {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let millis = self.0.as_secs_f64() * 1e3;
        let decimals = usize::from(millis < 9.95);
        write!(f, "{millis:.decimals$}")
    }
}

/// Why a backend that is worse than its peers keeps its weight.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Spared {
    /// The configuration says so.
    AlertOnly,
    /// There are too few to compare with.
    TooFew,
    /// Too much of the pool is missing already.
    Budget,
    /// The fleet is bad as a whole.
    Fleet,
    /// A demotion did harm a short time ago.
    Frozen,
}

impl fmt::Display for Spared {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::AlertOnly => "the service is configured to alert only",
            Self::TooFew => "fewer than three backends cannot be told apart for certain",
            Self::Budget => "the budget is spent: too much of the pool's weight is missing already",
            Self::Fleet => "the fleet is degraded as a whole",
            Self::Frozen => "an earlier demotion did harm, and none follows for a while",
        })
    }
}

/// Why a fleet is taken for degraded.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Degraded {
    /// Too many backends are worse than the others.
    Suspects {
        /// How many.
        suspects: usize,
        /// Of how many.
        of: usize,
    },
    /// All are slower than they were.
    Slow {
        /// What told so.
        by: By,
        /// The median latency.
        latency: Duration,
        /// What it usually is.
        usual: Duration,
    },
}

impl fmt::Display for Degraded {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Self::Suspects { suspects, of } => {
                write!(f, "{suspects} of {of} backends are slow or fail")
            }
            Self::Slow { by, latency, usual } => write!(
                f,
                "the median latency of {} is {} ms, usually {} ms",
                by.name(),
                Millis(latency),
                Millis(usual)
            ),
        }
    }
}

/// What happened.
#[derive(Clone, Debug, PartialEq)]
pub enum What {
    /// A backend's probes changed its state.
    Turned {
        /// The state after.
        to: State,
        /// The rule that decided.
        reason: Reason,
        /// What the last probe found.
        detail: String,
    },
    /// A backend got less of its weight.
    Demoted {
        /// What it had.
        from: Rung,
        /// What it has.
        to: Rung,
        /// Why.
        cause: Cause,
        /// How long that lasts at least.
        hold: Duration,
    },
    /// A backend would have got less of its weight.
    Spared {
        /// What is wrong with it.
        cause: Cause,
        /// Why it keeps its weight.
        why: Spared,
    },
    /// A backend that was spared is as good as its peers again.
    Improved,
    /// A backend got some of its weight back.
    Raised {
        /// What it has.
        to: Rung,
        /// When the next step is due.
        next: Duration,
    },
    /// A backend got all of its weight back.
    Restored,
    /// A demotion was undone, because the others became slower by it.
    Reverted {
        /// What it has again.
        to: Rung,
        /// How many times slower the others became.
        rise: f64,
        /// How long nobody is demoted.
        frozen_for: Duration,
    },
    /// The fleet is bad as a whole; nobody is demoted.
    FleetDegraded(Degraded),
    /// It is not any more.
    FleetRecovered,
    /// So few backends are up that all are used.
    PanicBegan {
        /// How many are up.
        up: usize,
        /// Of how many that are not drained.
        of: usize,
    },
    /// Enough are up again.
    PanicEnded {
        /// How many are up.
        up: usize,
        /// Of how many that are not drained.
        of: usize,
    },
    /// So little of the weight would be left that demotion and slow start do not count.
    DegreesOverruled,
    /// Enough is left again for them to count.
    DegreesCount,
    /// So little of the weight would be left that what backends ask for does not count.
    AgentsOverruled,
    /// Enough is left again for it to count.
    AgentsCount,
    /// A backend asks for another part of its weight.
    Asked {
        /// What it asks for.
        wish: Wish,
        /// Whether an override holds, so that nothing follows.
        overridden: bool,
    },
    /// A backend's agent has been silent for so long that its last word does not count any more.
    Forgotten {
        /// Its last word.
        word: Wish,
        /// How long it has been silent.
        silent: Duration,
        /// Why it was not heard last.
        why: String,
    },
    /// A backend that is new or came back got a first part of its weight.
    StartedSlowly {
        /// What it has.
        part: Fraction,
        /// When it will have all of it.
        full_in: Duration,
    },
}

impl What {
    const fn severity(&self) -> Severity {
        match self {
            Self::Turned {
                to: State::Up | State::Unknown,
                ..
            }
            | Self::Improved
            | Self::Raised { .. }
            | Self::Restored
            | Self::FleetRecovered
            | Self::PanicEnded { .. }
            | Self::DegreesCount
            | Self::AgentsCount
            | Self::Asked { .. }
            | Self::StartedSlowly { .. } => Severity::Info,
            Self::Turned {
                to: State::Down, ..
            }
            | Self::Demoted { .. }
            | Self::Spared { .. }
            | Self::DegreesOverruled
            | Self::AgentsOverruled
            | Self::Forgotten { .. }
            | Self::Reverted { .. } => Severity::Warning,
            Self::FleetDegraded(_) | Self::PanicBegan { .. } => Severity::Page,
        }
    }
}

impl fmt::Display for What {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Turned { to, reason, detail } => write!(f, "is {to}: {reason}, {detail}"),
            Self::Demoted {
                from,
                to,
                cause,
                hold,
            } => {
                let (from, to_part) = (from.fraction(), to.fraction());
                write!(f, "is {cause}; its weight goes from {from} to {to_part}, ")?;
                if *to == Rung::Out {
                    f.write_str("so it takes no new flows; ")?;
                } else {
                    let further = to.down().fraction();
                    write!(f, "to {further} unless it is better in 20 s; ")?;
                }
                write!(f, "it returns no sooner than in {} s", hold.as_secs())
            }
            Self::Spared { cause, why } => write!(f, "is {cause}; it keeps its weight: {why}"),
            Self::Improved => f.write_str("is as good as its peers again"),
            Self::Raised { to, next } => write!(
                f,
                "is well again; its weight goes to {}, in {} s to {} if that lasts",
                to.fraction(),
                next.as_secs(),
                to.up().fraction()
            ),
            Self::Restored => f.write_str("is well again and has its whole weight"),
            Self::Reverted {
                to,
                rise,
                frozen_for,
            } => write!(
                f,
                "gets back to {} of its weight: the others became {rise:.1}x slower without it; \
                 nobody is demoted for {} s",
                to.fraction(),
                frozen_for.as_secs()
            ),
            Self::FleetDegraded(why) => write!(
                f,
                "FleetDegraded: {why}; nobody is demoted, the cause is likely one that all share"
            ),
            Self::FleetRecovered => f.write_str("the fleet is no longer degraded"),
            Self::PanicBegan { up, of } => write!(
                f,
                "Panic: {up} of {of} backends are up; all that are not drained are used until \
                 enough are"
            ),
            Self::PanicEnded { up, of } => {
                write!(f, "panic is over: {up} of {of} backends are up")
            }
            Self::DegreesOverruled => f.write_str(
                "too little of the weight would be left: demotion, slow start and what backends \
                 ask for do not count until more is up",
            ),
            Self::DegreesCount => {
                f.write_str("enough is up again for demotion and slow start to count")
            }
            Self::AgentsOverruled => f.write_str(
                "too little of the weight would be left: what backends ask for by their agents \
                 does not count until enough of them take new flows",
            ),
            Self::AgentsCount => {
                f.write_str("enough is left again for what backends ask for to count")
            }
            Self::Asked { wish, overridden } => {
                write!(f, "asks by its agent for {wish}")?;
                if *overridden {
                    f.write_str("; an override holds, so nothing follows")?;
                }
                Ok(())
            }
            Self::Forgotten { word, silent, why } => write!(
                f,
                "has an agent that was not understood for {} s ({why}): that it asked for {word} does \
                 not count any more",
                silent.as_secs()
            ),
            Self::StartedSlowly { part, full_in } => write!(
                f,
                "starts slowly with {part} of its weight, all of it in {} s",
                full_in.as_secs()
            ),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::health::agent::Admin;

    #[track_caller]
    fn assert_text(what: What, severity: Severity, text: &str) {
        let event = Event {
            at_ms: 0,
            service: "web".into(),
            backend: Some("b2".into()),
            what,
        };
        assert_eq!(
            (event.to_string().as_str(), event.severity()),
            (text, severity)
        );
    }

    #[test]
    fn an_event_says_cause_numbers_and_what_comes_next() {
        let cause = Cause::Slow {
            by: By::Traffic,
            latency: Duration::from_micros(31_400),
            peers: Duration::from_micros(9_940),
            ratio: 3.12,
            samples: 240,
            over: Duration::from_secs(24),
        };
        let hold = Duration::from_mins(1);
        assert_text(
            What::Demoted {
                from: Rung::Full,
                to: Rung::Half,
                cause,
                hold,
            },
            Severity::Warning,
            "web/b2 is slow by its traffic: 31 ms where its peers take 9.9 ms, 3.1x over 240 \
             requests in 24 s; its weight goes from 1 to 1/2, to 1/4 unless it is better in 20 s; \
             it returns no sooner than in 60 s",
        );
        let cause = Cause::Failing {
            by: By::Probes,
            failed: 8,
            of: 40,
            over: Duration::from_secs(40),
        };
        assert_text(
            What::Spared {
                cause,
                why: Spared::TooFew,
            },
            Severity::Warning,
            "web/b2 is failing by its probes: 8 of 40 probes in 40 s; it keeps its weight: fewer \
             than three backends cannot be told apart for certain",
        );
        assert_text(
            What::Raised {
                to: Rung::Eighth,
                next: Duration::from_secs(20),
            },
            Severity::Info,
            "web/b2 is well again; its weight goes to 1/8, in 20 s to 1/4 if that lasts",
        );
    }

    #[test]
    fn what_an_agent_says_is_told_in_its_words() {
        let wish = Wish {
            admin: Admin::Drain,
            note: Some("new kernel".to_owned()),
            ..Wish::default()
        };
        assert_text(
            What::Asked {
                wish: wish.clone(),
                overridden: true,
            },
            Severity::Info,
            "web/b2 asks by its agent for no new flows ('drain'): new kernel; an override holds, so \
             nothing follows",
        );
        assert_text(
            What::Forgotten {
                word: wish,
                silent: Duration::from_secs(61),
                why: "connection refused".to_owned(),
            },
            Severity::Warning,
            "web/b2 has an agent that was not understood for 61 s (connection refused): that it asked \
             for no new flows ('drain'): new kernel does not count any more",
        );
    }

    #[test]
    fn what_concerns_a_service_names_no_backend_and_is_a_page() {
        let event = Event {
            at_ms: 0,
            service: "web".into(),
            backend: None,
            what: What::FleetDegraded(Degraded::Suspects { suspects: 3, of: 4 }),
        };
        assert_eq!(
            event.to_string(),
            "web: FleetDegraded: 3 of 4 backends are slow or fail; nobody is demoted, the cause is \
             likely one that all share"
        );
        assert_eq!(event.severity(), Severity::Page);
    }
}
