//! What is found of one backend, and what becomes of it.

use std::time::Duration;

use super::{
    Happened, Monitor, Standing,
    guards::{self, FEWEST, Stake},
    ladder::{Finding, Rung},
    latency::Compared,
    settings::{ACT, DOUBT, HARD},
};
use crate::{
    health::event::{Cause, Spared, What},
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
        if finding == Finding::Well && self.evidence(n) < DOUBT && before == Rung::Full {
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
                let levels = self.hosts.iter().map(|host| host.level.value()).collect();
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
        let (host, failures) = (&self.hosts[n], &self.backends[n].failures);
        let slower = host.is_slower(&self.settings);
        let latency = |log: Option<f64>| Duration::from_secs_f64(log.unwrap_or_default().exp());
        if host.evidence >= ACT && slower {
            let ratio = host.ratio().unwrap_or(1.0);
            let cause = Cause::Slow {
                latency: latency(host.seen.value()),
                peers: latency(host.peers.value()),
                ratio,
                over: now.saturating_sub(host.onset()),
            };
            let finding = if ratio >= HARD {
                Finding::Hopeless
            } else {
                Finding::Bad
            };
            return (finding, Some(cause));
        }
        if reached && self.fails_alone(n) {
            let (failed, of) = failures.counted();
            let over = now.saturating_sub(failures.onset());
            return (Finding::Bad, Some(Cause::Failing { failed, of, over }));
        }
        if slower || !failures.well(now) {
            (Finding::Doubtful, None)
        } else {
            (Finding::Well, None)
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
                    1.0 - backend.ladder.rung().fraction().number()
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
        let backend = &mut self.backends[n];
        backend.failures.parole();
        backend.spared = None;
        self.hosts[n].acquit();
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
