//! What keeps the cure from being worse than the disease.

use std::time::Duration;

use super::{ladder::Rung, latency::Compared, sense::Sense, smooth::median};
use crate::model::Part;

/// The fewest hosts of which one can be told to be worse than the others.
pub(super) const FEWEST: usize = 3;
/// The most of a pool's weight that one backend may take with it, though one is always allowed.
const MOST_ALONE: f64 = 0.5;
/// Of how many backends the rest may be suspects, before the fleet counts as bad; one always may.
const SUSPECTS: f64 = 0.25;
/// When the others are looked at after a step.
const LOOK: (Duration, Duration) = (Duration::from_secs(10), Duration::from_mins(1));
/// How many times slower they may be then.
const HARM: f64 = 1.3;
/// So many standard errors are no harm either.
const CHANCE: f64 = 4.0;
/// How long nobody is demoted after a step that did harm.
const FREEZE: Duration = Duration::from_mins(5);
/// The longest such time, and how long after one the next is short again.
const LONGEST_FREEZE: Duration = Duration::from_hours(1);

/// A backend's part in the budget.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Stake {
    /// Its configured weight; zero where it is drained.
    pub(super) weight: f64,
    /// How much of it is missing, as a part of one.
    pub(super) missing: f64,
}

/// Whether the backend `n` may lose so much of its weight that `part` of it is left.
///
/// One backend is always allowed where nothing else is missing, and the others are half of the
/// weight at least.
pub(super) fn affordable(stakes: &[Stake], n: usize, part: f64, budget: f64) -> bool {
    let total: f64 = stakes.iter().map(|stake| stake.weight).sum();
    let elsewhere: f64 = stakes
        .iter()
        .enumerate()
        .filter(|(m, _)| *m != n)
        .map(|(_, stake)| stake.weight * stake.missing)
        .sum();
    let own = stakes[n].weight * (1.0 - part);
    // A rounding error is no backend.
    let within = elsewhere + own <= budget * total + 1e-9;
    let alone = elsewhere <= 1e-9 && own <= MOST_ALONE * total + 1e-9;
    within || alone
}

/// Whether so many suspects of so many backends mean that the fleet is bad, and not they.
pub(super) fn fleet_is_suspect(suspects: usize, backends: usize) -> bool {
    suspects as f64 > (SUSPECTS * backends as f64).max(1.0)
}

/// Whether so little of a pool is up that all of it is used.
#[must_use]
pub fn panics(up: usize, pool: usize, below: Part) -> bool {
    up > 0 && (up as f64) < below.fraction() * pool as f64
}

/// A step downwards that may still turn out to do harm.
#[derive(Clone, Debug)]
struct Step {
    backend: usize,
    /// The rung before.
    from: Rung,
    at: Duration,
    /// The latencies of the others then, by each sense.
    levels: Vec<Vec<Option<f64>>>,
}

/// Steps that are looked at, and the time in which there are to be none.
#[derive(Clone, Debug, Default)]
pub(super) struct Harm {
    steps: Vec<Step>,
    frozen_until: Duration,
    freeze: Duration,
}

/// A step that did harm.
#[derive(Clone, Copy, Debug)]
pub(super) struct Done {
    pub(super) backend: usize,
    pub(super) back_to: Rung,
    /// How many times slower the others became.
    pub(super) rise: f64,
    pub(super) frozen_for: Duration,
}

impl Harm {
    /// Until when nobody is demoted.
    pub(super) fn frozen_until(&self, now: Duration) -> Option<Duration> {
        (self.frozen_until > now).then_some(self.frozen_until)
    }

    /// Notes a step.
    pub(super) fn note(
        &mut self,
        backend: usize,
        from: Rung,
        at: Duration,
        levels: Vec<Vec<Option<f64>>>,
    ) {
        self.steps.push(Step {
            backend,
            from,
            at,
            levels,
        });
    }

    /// Looks at the others after the steps; answers one that did harm.
    pub(super) fn look<'s>(
        &mut self,
        senses: &(impl Iterator<Item = &'s Sense> + Clone),
        standing: &[Compared],
        now: Duration,
    ) -> Option<Done> {
        self.steps
            .retain(|step| now.saturating_sub(step.at) <= LOOK.1);
        let (place, rise) = self.steps.iter().enumerate().find_map(|(place, step)| {
            let mut levels = senses.clone().zip(&step.levels);
            let rise =
                levels.find_map(|(sense, levels)| rise(step, sense, levels, standing, now))?;
            Some((place, rise))
        })?;
        let step = self.steps.swap_remove(place);
        // Later ones of the same backend are undone with it.
        self.steps.retain(|other| other.backend != step.backend);
        let lately = now.saturating_sub(self.frozen_until) < LONGEST_FREEZE;
        self.freeze = if lately && !self.freeze.is_zero() {
            (self.freeze * 2).min(LONGEST_FREEZE)
        } else {
            FREEZE
        };
        self.frozen_until = now + self.freeze;
        Some(Done {
            backend: step.backend,
            back_to: step.from,
            rise: rise.exp(),
            frozen_for: self.freeze,
        })
    }
}

/// How much slower the others are than before a step, in logarithms; `None` where that is no more
/// than chance or what is borne.
fn rise(
    step: &Step,
    sense: &Sense,
    levels: &[Option<f64>],
    standing: &[Compared],
    now: Duration,
) -> Option<f64> {
    if now.saturating_sub(step.at) < LOOK.0 {
        return None;
    }
    let (mut changes, mut errors) = (Vec::new(), Vec::new());
    let hosts = sense.hosts.iter().zip(standing).zip(levels).enumerate();
    for (n, ((host, standing), before)) in hosts {
        let (Some(level), Some(before)) = (host.level.value(), *before) else {
            continue;
        };
        if n != step.backend && standing.peer {
            changes.push(level - before);
            // An exponential average has the variance of one sample over twice of what it is worth;
            // there are two of them.
            let worth = host.level.worth(now, sense.memory);
            errors.push(host.spread() / worth.max(1.0).sqrt());
        }
    }
    let (count, rise) = (changes.len(), median(&mut changes)?);
    let error = 1.2533 * median(&mut errors)? / (count as f64).sqrt();
    (rise > HARM.ln().max(CHANCE * error)).then_some(rise)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stakes(missing: &[f64]) -> Vec<Stake> {
        let stake = |&missing: &f64| Stake {
            weight: 1.0,
            missing,
        };
        missing.iter().map(stake).collect()
    }

    #[test]
    fn the_budget_bounds_what_is_missing_and_one_is_always_allowed() {
        let ten = stakes(&[0.0, 1.0, 1.0, 0.25, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0]);
        assert!(affordable(&ten, 0, 0.0, 0.34));
        assert!(!affordable(&ten, 0, 0.0, 0.3));
        assert!(affordable(&ten, 0, 0.5, 0.3));
        assert!(affordable(&stakes(&[0.0; 3]), 0, 0.0, 0.1), "one of three");
        assert!(
            !affordable(&stakes(&[0.0, 1.0, 0.0]), 0, 0.5, 0.34),
            "one is down"
        );
        let mut unequal = stakes(&[0.0; 3]);
        unequal[0].weight = 10.0;
        assert!(affordable(&unequal, 0, 0.5, 0.34));
        assert!(
            !affordable(&unequal, 0, 0.25, 0.34),
            "it is most of the pool"
        );
    }

    #[test]
    fn a_quarter_may_be_suspects_and_one_always() {
        for (suspects, backends, bad) in
            [(1, 3, false), (2, 3, true), (2, 10, false), (3, 10, true)]
        {
            assert_eq!(
                fleet_is_suspect(suspects, backends),
                bad,
                "{suspects} of {backends}"
            );
        }
    }

    #[test]
    fn panic_is_for_few_and_not_for_none() {
        for (up, pool, panic) in [
            (0, 4, false),
            (1, 4, true),
            (2, 4, false),
            (1, 2, false),
            (1, 3, true),
        ] {
            assert_eq!(panics(up, pool, Part::HALF), panic, "{up} of {pool}");
        }
        assert!(!panics(1, 100, Part::NONE));
    }
}
