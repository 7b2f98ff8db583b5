//! An assessment in words.

use std::time::Duration;

use super::{Assessment, Skew, Verdict, Why};

impl Assessment {
    /// The verdict in words, with its reason. `names` are those of the backends, in the order of
    /// the detector's shares.
    ///
    /// # Panics
    ///
    /// If a backend that deviates has no name.
    pub fn describe(&self, names: &[impl AsRef<str>]) -> String {
        let text = match self.verdict {
            Verdict::Even => self.describe_even(),
            Verdict::Skewed => self.describe_skewed(names),
            Verdict::CannotTell(why) => why.describe(),
        };
        match self.strays {
            0 => text,
            1 => text + "; 1 new flow went to a backend without slots",
            strays => format!("{text}; {strays} new flows went to backends without slots"),
        }
    }

    fn describe_even(&self) -> String {
        match self.detectable {
            Some(detectable) => format!(
                "even within chance; a skew of {:.2}x would show within {}",
                detectable.ratio,
                span(detectable.within)
            ),
            // Nothing could show where there is nobody to share with.
            None => "even: a single backend takes every new flow".to_owned(),
        }
    }

    fn describe_skewed(&self, names: &[impl AsRef<str>]) -> String {
        let Some(worst) = self.worst() else {
            return "skewed".to_owned();
        };
        let text = worst.describe(names[worst.backend].as_ref(), self.at);
        match self.skewed.len() - 1 {
            0 => text,
            1 => text + "; 1 other backend deviates",
            others => format!("{text}; {others} other backends deviate"),
        }
    }
}

impl Skew {
    /// The skew in words, as of `now`.
    pub fn describe(&self, name: &str, now: Duration) -> String {
        let lasts = span(now.saturating_sub(self.since));
        let intended = self.intended_share * 100.0;
        if self.observed_share <= 0.0 {
            return format!("{name} gets no new flows instead of its {intended:.1} % for {lasts}");
        }
        format!(
            "{name} gets {:.2}x its share ({:.1} % of new flows instead of {intended:.1} %) for \
             {lasts}",
            self.ratio(),
            self.observed_share * 100.0,
        )
    }
}

impl Why {
    /// The reason in words.
    pub fn describe(self) -> String {
        match self {
            Self::NoBackends => "cannot tell: no backend has slots".to_owned(),
            Self::WarmingUp { seen, of } if of < Duration::from_mins(2) => {
                format!(
                    "cannot tell yet: {} of {} s of warm-up",
                    seen.as_secs(),
                    of.as_secs()
                )
            }
            Self::WarmingUp { seen, of } => {
                format!("cannot tell yet: {} of {} of warm-up", span(seen), span(of))
            }
            Self::Idle { silent } => format!("cannot tell: no new flows for {}", span(silent)),
            Self::TooFewFlows {
                rate,
                doubling_takes,
            } => {
                let decimals = usize::from(rate < 10.0);
                format!(
                    "cannot tell: {rate:.decimals$} new flows/s, a 2x skew would take {} to show",
                    span(doubling_takes)
                )
            }
        }
    }
}

/// A time as people say it: `12 s`, `40 min`, `3 h`, `5 days`.
fn span(time: Duration) -> String {
    let seconds = time.as_secs_f64();
    match seconds {
        _ if seconds < 120.0 => format!("{seconds:.0} s"),
        _ if seconds < 2.0 * 3600.0 => format!("{:.0} min", seconds / 60.0),
        _ if seconds < 2.0 * 86_400.0 => format!("{:.0} h", seconds / 3600.0),
        _ if seconds < 1000.0 * 86_400.0 => format!("{:.0} days", seconds / 86_400.0),
        _ => "years".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::stats::evenness::{Detectable, Severity};

    const NAMES: [&str; 3] = ["web-1", "web-2", "web-3"];

    fn assessment(verdict: Verdict) -> Assessment {
        Assessment {
            at: Duration::from_secs(100),
            verdict,
            skewed: Vec::new(),
            overdispersion: 1.25,
            rate: 0.2,
            detectable: None,
            watched: 3,
            strays: 0,
        }
    }

    #[test]
    fn even_says_what_would_have_shown() {
        let mut even = assessment(Verdict::Even);
        even.detectable = Some(Detectable {
            ratio: 1.348,
            within: Duration::from_mins(1),
        });
        let text = "even within chance; a skew of 1.35x would show within 60 s";
        assert_eq!(even.describe(&NAMES), text);
        even.strays = 2;
        let text = format!("{text}; 2 new flows went to backends without slots");
        assert_eq!(even.describe(&NAMES), text);
    }

    #[test]
    fn a_single_backend_is_even() {
        let text = "even: a single backend takes every new flow";
        assert_eq!(assessment(Verdict::Even).describe(&NAMES), text);
    }

    #[test]
    fn skewed_names_the_worst_and_counts_the_rest() {
        let skew = |backend, observed_share| Skew {
            backend,
            severity: Severity::Page,
            observed_share,
            intended_share: 0.163,
            since: Duration::from_secs(88),
            found: Duration::from_secs(95),
        };
        let mut skewed = assessment(Verdict::Skewed);
        skewed.skewed.push(skew(1, 0.331));
        let text = "web-2 gets 2.03x its share (33.1 % of new flows instead of 16.3 %) for 12 s";
        assert_eq!(skewed.describe(&NAMES), text);
        skewed.skewed.insert(0, skew(2, 0.0));
        let text =
            "web-3 gets no new flows instead of its 16.3 % for 12 s; 1 other backend deviates";
        assert_eq!(skewed.describe(&NAMES), text);
    }

    #[test]
    fn not_knowing_has_a_reason() {
        let seconds = Duration::from_secs;
        for (why, text) in [
            (Why::NoBackends, "cannot tell: no backend has slots"),
            (
                Why::WarmingUp {
                    seen: seconds(3),
                    of: seconds(60),
                },
                "cannot tell yet: 3 of 60 s of warm-up",
            ),
            (
                Why::WarmingUp {
                    seen: seconds(70),
                    of: seconds(900),
                },
                "cannot tell yet: 70 s of 15 min of warm-up",
            ),
            (
                Why::Idle {
                    silent: seconds(7300),
                },
                "cannot tell: no new flows for 2 h",
            ),
            (
                Why::TooFewFlows {
                    rate: 0.2,
                    doubling_takes: seconds(2400),
                },
                "cannot tell: 0.2 new flows/s, a 2x skew would take 40 min to show",
            ),
            (
                Why::TooFewFlows {
                    rate: 1e-9,
                    doubling_takes: Duration::MAX,
                },
                "cannot tell: 0.0 new flows/s, a 2x skew would take years to show",
            ),
        ] {
            assert_eq!(assessment(Verdict::CannotTell(why)).describe(&NAMES), text);
        }
    }
}
