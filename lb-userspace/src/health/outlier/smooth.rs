//! A running mean that follows the present.

use std::time::Duration;

/// An exponential average of values that come at any times, each for what it is worth: a plain mean
/// until it has a past.
#[derive(Clone, Copy, Debug)]
pub(super) struct Smooth {
    /// How long a value counts, in seconds.
    memory: f64,
    value: f64,
    /// What all values together are worth, each the less the older it is.
    worth: f64,
    at: Duration,
}

impl Smooth {
    /// An average whose values fade out with this time constant.
    pub(super) fn over(memory: Duration) -> Self {
        Self {
            memory: memory.as_secs_f64(),
            value: 0.0,
            worth: 0.0,
            at: Duration::ZERO,
        }
    }

    /// Takes a value that was seen at `now`.
    pub(super) fn add(&mut self, now: Duration, value: f64) {
        self.add_worth(now, value, 1.0, Duration::ZERO);
    }

    /// Takes a value that is worth so many; those before fade out no sooner than `least` says.
    pub(super) fn add_worth(&mut self, now: Duration, value: f64, worth: f64, least: Duration) {
        self.worth = self.worth(now, least) + worth;
        self.value += (value - self.value) * worth / self.worth;
        self.at = now;
    }

    /// The average; `None` before the first value.
    pub(super) fn value(&self) -> Option<f64> {
        (self.worth > 0.0).then_some(self.value)
    }

    /// What its values are worth by now, where they fade out no sooner than `least` says.
    pub(super) fn worth(&self, now: Duration, least: Duration) -> f64 {
        let elapsed = now.saturating_sub(self.at).as_secs_f64();
        self.worth * (-elapsed / self.memory.max(least.as_secs_f64())).exp()
    }
}

/// The median, the mean of the middle two where there are two; `None` of nothing.
pub(super) fn median(values: &mut [f64]) -> Option<f64> {
    values.sort_unstable_by(f64::total_cmp);
    let middle = values.len() / 2;
    if values.is_empty() {
        None
    } else if values.len().is_multiple_of(2) {
        Some(f64::midpoint(values[middle - 1], values[middle]))
    } else {
        Some(values[middle])
    }
}

/// Values in their order, of which the median without one of them is quickly told.
pub(super) struct Sorted(Vec<f64>);

impl Sorted {
    pub(super) fn new(mut values: Vec<f64>) -> Self {
        values.sort_unstable_by(f64::total_cmp);
        Self(values)
    }

    /// The median of all but `own`, where that is one of them.
    pub(super) fn median_without(&self, own: Option<f64>) -> Option<f64> {
        let place = own.and_then(|own| self.0.binary_search_by(|value| value.total_cmp(&own)).ok());
        let count = self.0.len() - usize::from(place.is_some());
        let at = |n: usize| self.0[n + usize::from(place.is_some_and(|place| n >= place))];
        match (count, count.is_multiple_of(2)) {
            (0, _) => None,
            (_, true) => Some(f64::midpoint(at(count / 2 - 1), at(count / 2))),
            (_, false) => Some(at(count / 2)),
        }
    }
}

/// The median, the lower of the middle two where there are two: of two hosts, the better one.
pub(super) fn lower_median(values: &mut [f64]) -> Option<f64> {
    values.sort_unstable_by(f64::total_cmp);
    values.get(values.len().checked_sub(1)? / 2).copied()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_a_mean_at_first_and_follows_later() {
        let mut smooth = Smooth::over(Duration::from_secs(10));
        assert_eq!(smooth.value(), None);
        for (at, value) in [(1, 1.0), (2, 3.0)] {
            smooth.add(Duration::from_secs(at), value);
        }
        assert!((smooth.value().unwrap() - 2.0).abs() < 0.06);
        for at in 3..60 {
            smooth.add(Duration::from_secs(at), 5.0);
        }
        assert!((smooth.value().unwrap() - 5.0).abs() < 0.02);
    }

    #[test]
    fn a_value_counts_for_what_it_is_worth_and_less_with_time() {
        let mut smooth = Smooth::over(Duration::from_secs(10));
        let (now, later) = (Duration::from_secs(5), Duration::from_secs(15));
        smooth.add_worth(now, 1.0, 9.0, Duration::ZERO);
        smooth.add_worth(now, 2.0, 1.0, Duration::ZERO);
        assert!((smooth.value().unwrap() - 1.1).abs() < 1e-9);
        let left = smooth.worth(later, Duration::ZERO) / 10.0;
        assert!((left - (-1.0_f64).exp()).abs() < 1e-9);
        let left = smooth.worth(later, Duration::from_secs(20)) / 10.0;
        assert!((left - (-0.5_f64).exp()).abs() < 1e-9);
    }

    #[test]
    fn a_median_without_one() {
        let values = [5.0, 1.0, 4.0, 2.0, 2.0];
        let sorted = Sorted::new(values.to_vec());
        assert_eq!(sorted.median_without(None), median(&mut values.to_vec()));
        for n in 0..values.len() {
            let mut others = values.to_vec();
            let own = others.remove(n);
            assert_eq!(
                sorted.median_without(Some(own)),
                median(&mut others),
                "without {own}"
            );
        }
        assert_eq!(Sorted::new(vec![3.0]).median_without(Some(3.0)), None);
    }

    #[test]
    fn medians_of_even_numbers() {
        assert_eq!(median(&mut []), None);
        assert_eq!(median(&mut [3.0, 1.0]), Some(2.0));
        assert_eq!(median(&mut [3.0, 9.0, 1.0]), Some(3.0));
        assert_eq!(lower_median(&mut []), None);
        assert_eq!(lower_median(&mut [3.0, 1.0]), Some(1.0));
        assert_eq!(lower_median(&mut [3.0, 9.0, 1.0]), Some(3.0));
        assert_eq!(lower_median(&mut [4.0, 3.0, 9.0, 1.0]), Some(3.0));
    }
}
