//! Rates and shares from counters that only ever grow, except when somebody starts them anew.

use std::time::Duration;

/// Turns readings of a fixed set of growing counters into increases and rates.
#[derive(Clone, Debug)]
pub struct Meter {
    last: Vec<u64>,
    read_at: Option<Duration>,
    increases: Vec<u64>,
    /// The time that `increases` cover; `None` where there are none.
    over: Option<Duration>,
}

impl Meter {
    /// A meter of `counters` counters, none of them read yet.
    pub fn new(counters: usize) -> Self {
        Self {
            last: vec![0; counters],
            read_at: None,
            increases: vec![0; counters],
            over: None,
        }
    }

    /// Takes a reading of every counter at `now`.
    ///
    /// There is no increase to tell after the first reading, after one that is not later than the
    /// one before, and where any counter is smaller than before: counters that started anew have
    /// lost an unknown part of the interval, for all of them. The next reading is compared with
    /// this one.
    ///
    /// # Panics
    ///
    /// If `counters` are not as many as the meter was made for.
    pub fn read(&mut self, now: Duration, counters: &[u64]) -> Option<Increase<'_>> {
        assert_eq!(
            counters.len(),
            self.last.len(),
            "a meter has a fixed number of counters"
        );
        let elapsed = self.read_at.and_then(|before| now.checked_sub(before));
        let grown = counters
            .iter()
            .zip(&self.last)
            .all(|(now, before)| now >= before);
        self.over = elapsed.filter(|elapsed| grown && !elapsed.is_zero());
        for ((increase, &now), last) in self.increases.iter_mut().zip(counters).zip(&mut self.last)
        {
            *increase = if self.over.is_some() { now - *last } else { 0 };
            *last = now;
        }
        self.read_at = Some(now);
        self.increase()
    }

    /// What the last reading added, where that can be told.
    pub fn increase(&self) -> Option<Increase<'_>> {
        self.over.map(|over| Increase {
            counts: &self.increases,
            over,
        })
    }

    /// The growth of one counter per second between the last two readings, where that can be told.
    ///
    /// # Panics
    ///
    /// If there is no such counter.
    pub fn rate(&self, counter: usize) -> Option<f64> {
        self.over
            .map(|over| self.increases[counter] as f64 / over.as_secs_f64())
    }
}

/// By how much counters grew between two readings.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Increase<'a> {
    /// For every counter.
    pub counts: &'a [u64],
    /// The time between the readings; never zero.
    pub over: Duration,
}

/// Each backend's share of what was counted during the last minute or so.
///
/// A ring of increases: what leaves the window is subtracted exactly, so nothing drifts.
#[derive(Clone, Debug)]
pub struct ShareWindow {
    length: Duration,
    /// `capacity` rows of one count per backend.
    counts: Vec<u64>,
    /// The time that each row covers.
    spans: Vec<Duration>,
    oldest: usize,
    rows: usize,
    sums: Vec<u64>,
    total: u64,
    covered: Duration,
}

impl ShareWindow {
    /// A window over the last `length`, which is fed about once a second.
    ///
    /// It keeps one row a second; fed more often, it covers less than `length`.
    pub fn new(backends: usize, length: Duration) -> Self {
        let capacity = length.as_secs().max(1) as usize;
        Self {
            length,
            counts: vec![0; capacity * backends],
            spans: vec![Duration::ZERO; capacity],
            oldest: 0,
            rows: 0,
            sums: vec![0; backends],
            total: 0,
            covered: Duration::ZERO,
        }
    }

    /// Takes an increase, and forgets what is older than the window.
    ///
    /// # Panics
    ///
    /// If the increase has not one count per backend.
    pub fn push(&mut self, increase: Increase<'_>) {
        assert_eq!(
            increase.counts.len(),
            self.sums.len(),
            "a count for every backend"
        );
        while self.rows > 0
            && (self.rows == self.spans.len() || self.covered + increase.over > self.length)
        {
            self.forget_oldest();
        }
        let row = (self.oldest + self.rows) % self.spans.len();
        let backends = self.sums.len();
        self.counts[row * backends..][..backends].copy_from_slice(increase.counts);
        for (sum, count) in self.sums.iter_mut().zip(increase.counts) {
            *sum += count;
            self.total += count;
        }
        self.spans[row] = increase.over;
        self.covered += increase.over;
        self.rows += 1;
    }

    fn forget_oldest(&mut self) {
        let backends = self.sums.len();
        let gone = &self.counts[self.oldest * backends..][..backends];
        for (sum, count) in self.sums.iter_mut().zip(gone) {
            *sum -= count;
            self.total -= count;
        }
        self.covered -= self.spans[self.oldest];
        self.oldest = (self.oldest + 1) % self.spans.len();
        self.rows -= 1;
    }

    /// Forgets everything, as a change of the table asks for.
    pub fn clear(&mut self) {
        self.rows = 0;
        self.covered = Duration::ZERO;
        self.sums.fill(0);
        self.total = 0;
    }

    /// A backend's part of everything counted within the window; `None` where nothing was.
    ///
    /// # Panics
    ///
    /// If there is no such backend.
    pub fn share(&self, backend: usize) -> Option<f64> {
        (self.total > 0).then(|| self.sums[backend] as f64 / self.total as f64)
    }

    /// The time that the shares cover.
    pub fn covered(&self) -> Duration {
        self.covered
    }
}

#[cfg(test)]
mod tests;
