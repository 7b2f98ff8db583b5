//! What is found of one backend, and what becomes of it.

use std::time::Duration;

use super::{
    Happened, Monitor, Standing,
    guards::{self, FEWEST, Stake},
    ladder::{Finding, Rung},
    latency::Compared,
    losses::Losses,
    sense::Sense,
    settings::{ACT, DOUBT, HARD},
};
use crate::{
    health::event::{By, Cause, Spared, What},
    model::Underperformers,
};

impl Monitor {
    /// Judges a backend, and moves it on the ladder where nothing forbids that.
    pub(super) fn judge(
        &mut self,
        n: usize,
        now: Duration,
        standing: &[Standing],
        compared: &[Compared],
        happened: &mut Vec<Happened>,
    ) {
        let (finding, cause) = self.find(n, now);
        let backend = &mut self.backends[n];
        let before = backend.ladder.rung();
        let wish = backend.ladder.judge(now, finding);
        if finding == Finding::Well && self.evidence(n, now) < DOUBT && before == Rung::Full {
            if self.backends[n].spared.take().is_some() {
                self.backends[n].cause = None;
                happened.push((Some(n), What::Improved));
            }
            return;
        }
        match wish {
            None => {}
            Some(to) if to > before => self.raise(n, to, now, happened),
            Some(to) => {
                let Some(cause) = cause else { return };
                self.backends[n].cause = Some(cause);
                if let Some(why) = self.spared(n, to, now, standing, compared) {
                    // Told once, however often it is asked.
                    if self.backends[n].spared.replace(why).is_none() {
                        happened.push((Some(n), What::Spared { cause, why }));
                    }
                    return;
                }
                let senses = self.senses();
                let levels = senses.map(Sense::levels).collect();
                self.harm.note(n, before, now, levels);
                let backend = &mut self.backends[n];
                backend.spared = None;
                let hold = backend.ladder.move_to(to, now, self.settings.hold);
                let what = What::Demoted {
                    from: before,
                    to,
                    cause,
                    hold,
                };
                happened.push((Some(n), what));
            }
        }
    }

    /// How a backend is, and what is held against it.
    fn find(&mut self, n: usize, now: Duration) -> (Finding, Option<Cause>) {
        let reached = self.backends[n].failures.take_reached();
        let speaking = self.senses().filter(|sense| sense.speaks(n, now));
        let slow = speaking.filter(|sense| sense.hosts[n].is_slower(&self.settings));
        let slow: Vec<&Sense> = slow.collect();
        let ratio = |sense: &Sense| sense.hosts[n].ratio().unwrap_or(1.0);
        let found = slow.iter().filter(|of| of.hosts[n].evidence >= ACT);
        let worst = found.max_by(|a, b| ratio(a).total_cmp(&ratio(b)));
        if let Some(sense) = worst {
            let finding = if ratio(sense) >= HARD {
                Finding::Hopeless
            } else {
                Finding::Bad
            };
            return (finding, Some(slowness(sense, n, now)));
        }
        if reached && self.fails_alone(n) {
            return (Finding::Bad, Some(self.failing(n, now)));
        }
        let losses = self.losses(n);
        if let Some(losses) = losses.filter(|losses| losses.reached()) {
            let (seen, onset) = losses.counted();
            let cause = Cause::Failing {
                by: By::Traffic,
                failed: seen.failed as u64,
                of: seen.of as u64,
                over: now.saturating_sub(onset),
            };
            return (Finding::Bad, Some(cause));
        }
        let answers = self.backends[n].failures.well(now) && losses.is_none_or(Losses::well);
        if slow.is_empty() && answers {
            (Finding::Well, None)
        } else {
            (Finding::Doubtful, None)
        }
    }

    fn failing(&self, n: usize, now: Duration) -> Cause {
        let failures = &self.backends[n].failures;
        let (failed, of) = failures.counted();
        Cause::Failing {
            by: By::Probes,
            failed,
            of,
            over: now.saturating_sub(failures.onset()),
        }
    }

    /// Whether a backend fails much more often than the others that are up.
    fn fails_alone(&self, n: usize) -> bool {
        let own = &self.backends[n].failures;
        let others = self.backends.iter().enumerate();
        let others = others.filter(|(m, other)| *m != n && other.was_up);
        let (peers, failed) = others.fold((0, 0), |(peers, failed), (_, other)| {
            (
                peers + 1,
                failed + other.failures.failures_since(own.onset()),
            )
        });
        own.stands_out(peers, failed)
    }

    /// Why a backend may not be demoted to a rung; `None` where it may.
    fn spared(
        &self,
        n: usize,
        to: Rung,
        now: Duration,
        standing: &[Standing],
        compared: &[Compared],
    ) -> Option<Spared> {
        let stakes: Vec<Stake> = standing
            .iter()
            .zip(&self.backends)
            .map(|(standing, backend)| Stake {
                weight: f64::from(standing.weight),
                missing: if standing.up {
                    let rung = backend.ladder.rung().fraction();
                    1.0 - rung.min(standing.asked).number()
                } else {
                    1.0
                },
            })
            .collect();
        let judged = compared.iter().filter(|one| one.judged).count();
        if self.settings.underperformers == Underperformers::Tell {
            Some(Spared::AlertOnly)
        } else if judged < FEWEST {
            Some(Spared::TooFew)
        } else if self.degraded.is_some() {
            Some(Spared::Fleet)
        } else if self.harm.frozen_until(now).is_some() {
            Some(Spared::Frozen)
        } else if !guards::affordable(&stakes, n, to.fraction().number(), self.settings.budget) {
            Some(Spared::Budget)
        } else {
            None
        }
    }

    fn raise(&mut self, n: usize, to: Rung, now: Duration, happened: &mut Vec<Happened>) {
        self.acquit(n);
        let backend = &mut self.backends[n];
        backend.failures.parole();
        backend.spared = None;
        backend.ladder.move_to(to, now, self.settings.hold);
        let what = if to == Rung::Full {
            backend.cause = None;
            What::Restored
        } else {
            What::Raised {
                to,
                next: backend.ladder.next_rise(now).saturating_sub(now),
            }
        };
        happened.push((Some(n), what));
    }
}

/// What one sense holds against a backend that is slow.
fn slowness(sense: &Sense, n: usize, now: Duration) -> Cause {
    let host = &sense.hosts[n];
    let latency = |log: Option<f64>| Duration::from_secs_f64(log.unwrap_or_default().exp());
    let (onset, samples) = host.onset();
    Cause::Slow {
        by: sense.by,
        latency: latency(host.seen.value()),
        peers: latency(host.peers.value()),
        ratio: host.ratio().unwrap_or(1.0),
        samples: samples as u64,
        over: now.saturating_sub(onset),
    }
}
