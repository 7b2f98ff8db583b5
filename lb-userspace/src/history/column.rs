//! Numbers in a row.

use serde::{Deserialize, Deserializer, Serialize, Serializer};
use smallvec::SmallVec;

use super::chunk::ABSENT;

/// Numbers in a row, as runs of equal ones: most of what is known of a backend stays as it is for a
/// while, and there are three rows of each kind in memory for every backend.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Column(SmallVec<[Run; 1]>);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Run {
    value: u32,
    times: u8,
}

impl Column {
    /// The number at a place; [`ABSENT`] where there is none.
    pub(super) fn get(&self, place: usize) -> u32 {
        let mut end = 0;
        let of_run = self.0.iter().find(|run| {
            end += usize::from(run.times);
            place < end
        });
        of_run.map_or(ABSENT, |run| run.value)
    }

    /// Puts a number at a place, which is the last one or lies behind it.
    pub(super) fn put(&mut self, place: usize, value: u32) {
        let len = self.len();
        if place + 1 == len {
            self.pop();
        }
        for _ in len..place {
            self.push(ABSENT);
        }
        self.push(value);
    }

    fn len(&self) -> usize {
        self.0.iter().map(|run| usize::from(run.times)).sum()
    }

    fn iter(&self) -> impl Iterator<Item = u32> {
        let runs = self.0.iter();
        runs.flat_map(|run| std::iter::repeat_n(run.value, run.times.into()))
    }

    fn push(&mut self, value: u32) {
        match self.0.last_mut() {
            Some(run) if run.value == value && run.times < u8::MAX => run.times += 1,
            _ => self.0.push(Run { value, times: 1 }),
        }
    }

    fn pop(&mut self) {
        if let Some(run) = self.0.last_mut() {
            run.times -= 1;
            if run.times == 0 {
                self.0.pop();
            }
        }
    }
}

impl Serialize for Column {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_seq(self.iter())
    }
}

impl<'de> Deserialize<'de> for Column {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let mut column = Self::default();
        for value in Vec::<u32>::deserialize(deserializer)? {
            column.push(value);
        }
        Ok(column)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn a_column_is_a_vector(steps in prop::collection::vec((0_usize..3, 0_u32..3), 0..300)) {
            let (mut column, mut vector) = (Column::default(), Vec::<u32>::new());
            for (further, value) in steps {
                // In the place of the last one, behind it, or with a gap.
                let place = (vector.len() + further).saturating_sub(1);
                vector.resize(vector.len().max(place + 1), ABSENT);
                vector[place] = value;
                column.put(place, value);
            }
            let written = serde_json::to_string(&column).unwrap();
            prop_assert_eq!(&written, &serde_json::to_string(&vector).unwrap());
            prop_assert_eq!(&serde_json::from_str::<Column>(&written).unwrap(), &column);
            for (place, value) in vector.iter().enumerate() {
                prop_assert_eq!(column.get(place), *value);
            }
            prop_assert_eq!(column.get(vector.len()), ABSENT);
        }
    }

    #[test]
    fn what_stays_takes_no_room() {
        let mut column = Column::default();
        (0..60).for_each(|place| column.put(place, 7));
        assert!(!column.0.spilled() && column.get(59) == 7);
    }
}
