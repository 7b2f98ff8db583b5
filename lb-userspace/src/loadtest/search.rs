//! The search for the highest rate that holds.

/// What a rate is held to.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Target {
    /// The quantile that is looked at, as in 0.99.
    pub quantile: f64,
    /// The most that it may be, in seconds.
    pub latency_s: f64,
    /// The part of the requests that may fail.
    pub failures: f64,
}

/// Looks for the highest rate that holds: up by a factor until one does not, then between the two.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Search {
    /// The highest rate known to hold.
    held: Option<f64>,
    /// The lowest rate known not to.
    broken: Option<f64>,
    next: f64,
    most: f64,
}

/// How much the rate grows while every one holds.
const GROWTH: f64 = 1.5;
/// How near, as a ratio, the highest that holds and the lowest that does not are in the end.
const NEAR: f64 = 1.04;
/// The lowest rate that is looked at.
const LEAST: f64 = 1.0;

impl Search {
    /// Begins at a rate, and goes no higher than `most`.
    pub fn new(first: f64, most: f64) -> Self {
        Self {
            held: None,
            broken: None,
            next: first.clamp(LEAST, most.max(LEAST)),
            most: most.max(LEAST),
        }
    }

    /// The rate to try; `None` once the answer is known.
    pub fn next(&self) -> Option<f64> {
        match (self.held, self.broken) {
            (Some(held), Some(broken)) if broken / held <= NEAR => None,
            (Some(held), None) if held >= self.most => None,
            (None, Some(broken)) if broken <= LEAST => None,
            _ => Some(self.next),
        }
    }

    /// Takes note of whether the rate that was tried holds.
    pub fn tried(&mut self, holds: bool) {
        if holds {
            self.held = Some(self.next);
        } else {
            self.broken = Some(self.next);
        }
        self.next = match (self.held, self.broken) {
            (Some(held), Some(broken)) => (held * broken).sqrt(),
            (Some(held), None) => (held * GROWTH).min(self.most),
            (None, Some(broken)) => (broken / 2.0).max(LEAST),
            (None, None) => self.next,
        };
    }

    /// The highest rate known to hold.
    pub fn held(&self) -> Option<f64> {
        self.held
    }

    /// The lowest rate known not to hold.
    pub fn broken(&self) -> Option<f64> {
        self.broken
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn find(first: f64, most: f64, knee: f64) -> (Search, usize) {
        let mut search = Search::new(first, most);
        let mut tries = 0;
        while let Some(rate) = search.next() {
            search.tried(rate <= knee);
            tries += 1;
            assert!(tries < 60, "{search:?}");
        }
        (search, tries)
    }

    proptest! {
        #[test]
        fn the_knee_is_found_from_anywhere_within_a_few_tries(
            first in 1.0..10_000.0_f64,
            knee in 1.0..10_000.0_f64,
        ) {
            let (search, tries) = find(first, 20_000.0, knee);
            let held = search.held().unwrap();
            prop_assert!(held <= knee && knee / held <= NEAR, "{:?}", search);
            prop_assert!(search.broken().unwrap() > knee);
            prop_assert!(tries <= 35, "{}", tries);
        }
    }

    #[test]
    fn it_goes_no_higher_than_it_may_and_says_where_nothing_holds() {
        let (search, _) = find(100.0, 1000.0, f64::INFINITY);
        assert_eq!((search.held(), search.broken()), (Some(1000.0), None));
        let (search, _) = find(100.0, 1000.0, 0.0);
        assert_eq!((search.held(), search.broken()), (None, Some(LEAST)));
    }
}
