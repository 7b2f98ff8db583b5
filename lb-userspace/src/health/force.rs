//! Which part of each backend's weight is in force.
//!
//! Four things take from it: the probes, which say that a backend is down; the ladder of
//! [`outlier`](super::outlier); [`slow_start`](super::slow_start); and what the backend asks for by
//! its [`agent`](super::agent). Of the last three the least counts. Where too little would be left,
//! they are overruled: first what backends ask for, then what else is a matter of degree, then the
//! probes.

use super::outlier::panics;
use crate::model::{Fraction, Part};

/// A backend and what is known of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct View {
    /// Its configured weight; zero drains it.
    pub weight: u16,
    /// Whether its probes say that it is up.
    pub up: bool,
    /// Whether packets can be sent to it.
    pub reachable: bool,
    /// What ladder and slow start leave of its weight.
    pub part: Fraction,
    /// What it asks for itself.
    pub asked: Fraction,
}

impl View {
    const fn is_usable(&self) -> bool {
        self.weight > 0 && self.up && self.reachable
    }

    /// What is in force of its weight where nobody is overruled.
    fn least(&self) -> Fraction {
        self.part.min(self.asked)
    }
}

/// Who was overruled.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Overruled {
    /// Nobody.
    #[default]
    Nobody,
    /// The backends, by their agents: what they ask for does not count.
    Agents,
    /// Ladder and slow start, too: those that are up have their whole weight.
    Degrees,
    /// The probes too: all that are not drained have it. This is panic.
    Probes,
}

/// What is in force.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Force {
    /// The part of each backend's weight.
    pub fractions: Vec<Fraction>,
    /// Who was overruled.
    pub overruled: Overruled,
}

impl Force {
    /// What follows from what is known, where less than `panic_below` of a pool is too little.
    ///
    /// Where no backend is up there is no panic: what becomes of the packets then is configured.
    #[must_use]
    pub fn of(views: &[View], panic_below: Part) -> Self {
        let pool = || views.iter().filter(|view| view.weight > 0);
        let up = pool().filter(|view| view.up).count();
        if panics(up, pool().count(), panic_below) {
            let part = |view: &View| {
                if view.reachable && view.weight > 0 {
                    Fraction::FULL
                } else {
                    Fraction::NONE
                }
            };
            return Self {
                fractions: views.iter().map(part).collect(),
                overruled: Overruled::Probes,
            };
        }
        let overruled = Overruled::of(views, panic_below);
        let part = |view: &View| match overruled {
            _ if !view.is_usable() => Fraction::NONE,
            Overruled::Nobody => view.least(),
            Overruled::Agents => view.part,
            Overruled::Degrees | Overruled::Probes => Fraction::FULL,
        };
        Self {
            fractions: views.iter().map(part).collect(),
            overruled,
        }
    }
}

impl Overruled {
    /// Who is overruled while enough backends are up.
    fn of(views: &[View], panic_below: Part) -> Self {
        let all: f64 = views.iter().map(|view| f64::from(view.weight)).sum();
        let usable = || views.iter().filter(|view| view.is_usable());
        let enough = |part: fn(&View) -> Fraction| {
            let weight = |view: &View| f64::from(view.weight) * part(view).number();
            let left: f64 = usable().map(weight).sum();
            left > 0.0 && left >= panic_below.fraction() * all
        };
        let asked = usable().any(|view| view.asked < view.part);
        let graded = usable().any(|view| view.part < Fraction::FULL);
        if !(asked || graded) || enough(View::least) {
            Self::Nobody
        } else if asked && (!graded || enough(|view| view.part)) {
            Self::Agents
        } else {
            Self::Degrees
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const UP: View = View {
        weight: 1,
        up: true,
        reachable: true,
        part: Fraction::FULL,
        asked: Fraction::FULL,
    };
    const DOWN: View = View { up: false, ..UP };
    const DRAINED: View = View { weight: 0, ..UP };
    const LOST: View = View {
        reachable: false,
        ..UP
    };

    const fn part(parts: u16) -> View {
        View {
            part: Fraction::one_of(parts),
            ..UP
        }
    }

    /// One that asks for so much of its weight.
    const fn asks(part: Fraction) -> View {
        View { asked: part, ..UP }
    }

    const DRAINS: View = asks(Fraction::NONE);

    #[track_caller]
    fn assert_force(views: &[View], parts: &[u16], overruled: Overruled) {
        let fractions: Vec<Fraction> = parts
            .iter()
            .map(|&parts| match parts {
                0 => Fraction::NONE,
                _ => Fraction::one_of(parts),
            })
            .collect();
        let expected = Force {
            fractions,
            overruled,
        };
        assert_eq!(Force::of(views, Part::HALF), expected);
    }

    #[test]
    fn each_has_what_is_left_of_its_weight() {
        use Overruled::Nobody;
        assert_force(&[UP, DOWN, UP], &[1, 0, 1], Nobody);
        assert_force(&[UP, part(4), UP, DRAINED], &[1, 4, 1, 0], Nobody);
        assert_force(&[UP, UP, LOST], &[1, 1, 0], Nobody);
        assert_force(&[DOWN, DOWN], &[0, 0], Nobody);
        assert_force(&[], &[], Nobody);
    }

    #[test]
    fn where_too_few_are_up_all_are_used_but_the_drained() {
        use Overruled::{Nobody, Probes};
        assert_force(&[UP, DOWN, DOWN], &[1, 1, 1], Probes);
        assert_force(&[part(2), DOWN, DOWN, DRAINED], &[1, 1, 1, 0], Probes);
        assert_force(&[UP, DOWN, LOST, DOWN, DOWN], &[1, 1, 0, 1, 1], Probes);
        assert_force(&[UP, DOWN], &[1, 0], Nobody);
        let never = Force::of(&[UP, DOWN, DOWN], Part::NONE);
        assert_eq!(never.overruled, Nobody);
    }

    #[test]
    fn where_the_rest_is_too_little_degrees_do_not_count() {
        use Overruled::{Degrees, Nobody};
        let out = View {
            part: Fraction::NONE,
            ..UP
        };
        assert_force(&[out, DOWN, UP], &[1, 0, 1], Degrees);
        assert_force(&[out, UP, UP], &[0, 1, 1], Nobody);
        assert_force(&[part(8), part(8), part(8)], &[1, 1, 1], Degrees);
        let alone = Force::of(&[out, DOWN], Part::NONE);
        assert_eq!(alone.fractions, [Fraction::FULL, Fraction::NONE]);
    }
    #[test]
    fn of_what_backends_ask_for_and_what_is_left_of_their_weight_the_least_counts() {
        use Overruled::Nobody;
        let half = Fraction::one_of(2);
        assert_force(&[UP, asks(half), UP, DRAINS], &[1, 2, 1, 0], Nobody);
        let slow = View {
            part: Fraction::one_of(4),
            ..asks(half)
        };
        assert_force(&[UP, slow, UP, UP], &[1, 4, 1, 1], Nobody);
        let slow = View {
            part: half,
            ..asks(Fraction::one_of(8))
        };
        assert_force(&[UP, slow, UP, UP], &[1, 8, 1, 1], Nobody);
    }

    #[test]
    fn backends_do_not_empty_their_pool() {
        use Overruled::{Agents, Degrees, Nobody, Probes};
        assert_force(&[DRAINS, UP], &[0, 1], Nobody);
        assert_force(&[DRAINS, DRAINS, UP], &[1, 1, 1], Agents);
        assert_force(&[DRAINS, DRAINS], &[1, 1], Agents);
        assert_force(&[DRAINS, DOWN, UP, DOWN], &[1, 0, 1, 0], Agents);
        // What is measured of them counts on, where that leaves enough.
        assert_force(&[DRAINS, DRAINS, part(2), UP], &[1, 1, 2, 1], Agents);
        assert_force(&[part(8), DRAINS, part(8), part(8)], &[1, 1, 1, 1], Degrees);
        // Too little is up, whatever they ask for: that is nobody's wish.
        assert_force(&[UP, DOWN, DOWN], &[1, 1, 1], Probes);
        assert_force(&[DRAINS, UP, DOWN, DOWN, DOWN], &[1, 1, 1, 1, 1], Probes);
        let never = Force::of(&[DRAINS, asks(Fraction::one_of(8)), UP], Part::NONE);
        assert_eq!(never.overruled, Nobody);
        let last = Force::of(&[DRAINS, DOWN], Part::NONE);
        assert_eq!(last.fractions, [Fraction::FULL, Fraction::NONE]);
    }
}
