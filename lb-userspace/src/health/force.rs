//! Which part of each backend's weight is in force.
//!
//! Three things take from it: the probes, which say that a backend is down; the ladder of
//! [`outlier`](super::outlier); and [`slow_start`](super::slow_start). Where too little would be
//! left, they are overruled, first those that are a matter of degree, then the probes.

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
}

/// Who was overruled.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Overruled {
    /// Nobody.
    #[default]
    Nobody,
    /// Ladder and slow start: those that are up have their whole weight.
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
        let whole = |takes: fn(&View) -> bool| -> Vec<Fraction> {
            let part = |view: &View| {
                if view.reachable && view.weight > 0 && takes(view) {
                    Fraction::FULL
                } else {
                    Fraction::NONE
                }
            };
            views.iter().map(part).collect()
        };
        if panics(up, pool().count(), panic_below) {
            return Self {
                fractions: whole(|_| true),
                overruled: Overruled::Probes,
            };
        }
        let usable = |view: &&View| view.up && view.reachable;
        let left: f64 = pool()
            .filter(usable)
            .map(|view| f64::from(view.weight) * view.part.number())
            .sum();
        let all: f64 = pool().map(|view| f64::from(view.weight)).sum();
        let graded = pool().filter(usable).any(|view| view.part < Fraction::FULL);
        if graded && (left <= 0.0 || left < panic_below.fraction() * all) {
            return Self {
                fractions: whole(|view| view.up),
                overruled: Overruled::Degrees,
            };
        }
        let part = |view: &View| {
            if view.weight > 0 && usable(&view) {
                view.part
            } else {
                Fraction::NONE
            }
        };
        Self {
            fractions: views.iter().map(part).collect(),
            overruled: Overruled::Nobody,
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
}
