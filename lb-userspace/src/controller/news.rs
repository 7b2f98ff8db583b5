//! What happened that may change the tables.

use std::time::Instant;

/// What happened that may change the tables, in words.
#[derive(Clone, Debug, Default)]
pub(super) struct News {
    whys: Vec<String>,
    more: usize,
    /// When the first of it was decided, where that is known.
    since: Option<Instant>,
}

impl News {
    /// As many are told; of a thousand backends that fail at once, these are enough to see it.
    const MOST: usize = 20;

    /// Something more happened.
    pub(super) fn add(&mut self, why: impl Into<String>) {
        let why = why.into();
        if self.whys.contains(&why) {
            return;
        }
        if self.whys.len() < Self::MOST {
            self.whys.push(why);
        } else {
            self.more += 1;
        }
    }

    /// Something more happened, and this is when it was decided.
    pub(super) fn add_at(&mut self, at: Instant, why: impl Into<String>) {
        self.since = Some(self.since.map_or(at, |since| since.min(at)));
        self.add(why);
    }

    /// When the first of it was decided, where that is known.
    pub(super) const fn since(&self) -> Option<Instant> {
        self.since
    }

    /// All that another one has, too.
    pub(super) fn append(&mut self, other: &Self) {
        self.since = [self.since, other.since].into_iter().flatten().min();
        for why in &other.whys {
            self.add(why.clone());
        }
        self.more += other.more;
    }

    pub(super) fn is_empty(&self) -> bool {
        self.whys.is_empty()
    }

    /// Whether something was told of this already.
    pub(super) fn tells_of(&self, name: &str) -> bool {
        let about = |why: &String| {
            why.strip_prefix(name)
                .is_some_and(|rest| rest.starts_with(' '))
        };
        self.whys.iter().any(about)
    }

    pub(super) fn whys(&self) -> Vec<String> {
        let mut whys = self.whys.clone();
        if self.more > 0 {
            whys.push(format!("{} more", self.more));
        }
        whys
    }

    pub(super) fn take(&mut self) -> Vec<String> {
        let whys = self.whys();
        *self = Self::default();
        whys
    }
}
