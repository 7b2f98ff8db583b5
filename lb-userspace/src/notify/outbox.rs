//! What one receiver was told, and what it has yet to be sent: what to say, when to try again.

use std::{
    collections::{BTreeMap, VecDeque},
    time::Duration,
};

use super::{
    alert::{Item, Key, Notification},
    ledger::{Ledger, Stage},
};
use crate::model::{AlertName, Filter, Receiver, Target};

/// How many notifications may wait for one receiver. Beyond that none is made: what is wrong is
/// told once there is room, as it is by then.
pub const QUEUE: usize = 500;
/// How old a notification may become before it is given up, in milliseconds.
pub const OLDEST: u64 = 24 * 60 * 60 * 1000;
/// How many alerts a notification has at most.
const ITEMS: usize = 64;
/// The first wait after a failure; each further one is twice as long, up to [`LONGEST`].
const SHORTEST: Duration = Duration::from_secs(1);
/// The longest wait after a failure.
const LONGEST: Duration = Duration::from_mins(5);

/// Why a delivery failed, and whether it may yet succeed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failure {
    /// Why, in words.
    pub why: String,
    /// Whether to try again.
    pub again: Again,
}

/// Whether a delivery that failed is tried again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Again {
    /// After a wait that grows.
    Later,
    /// No sooner than the receiver said.
    After(Duration),
    /// The receiver does not take this one, ever.
    Never,
}

/// What became of a delivery.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// It was taken; the first after failures says how many there were.
    Delivered {
        /// What.
        notification: Notification,
        /// How many tries failed before.
        failures: u32,
    },
    /// It will be tried again.
    Retried {
        /// What.
        notification: Notification,
        /// How many tries failed.
        failures: u32,
    },
    /// It was given up.
    Dropped(Notification),
}

/// What was decided for a receiver, to be written down.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Decision {
    /// What is to be sent, in order.
    pub send: Vec<Notification>,
    /// What the receiver is not told the end of.
    pub forget: Vec<Key>,
}

impl Decision {
    /// Whether nothing changes.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.send.is_empty() && self.forget.is_empty()
    }
}

/// What a receiver was told of an alert.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Told {
    /// How it was told.
    pub item: Item,
    /// When it was last told.
    pub at_ms: u64,
}

/// How many deliveries ended how, since the controller started.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Notifications that were taken.
    pub sent: u64,
    /// Tries that failed.
    pub failed: u64,
    /// Notifications that were given up.
    pub dropped: u64,
    /// Times that a notification was not made because too many wait.
    pub held_back: u64,
}

/// How a receiver's rules read.
#[derive(Clone, Debug)]
struct Rules {
    filter: Filter,
    resolve: bool,
    repeat: u64,
    heartbeat: Option<u64>,
    by_service: bool,
    per_minute: f64,
}

/// The state of one receiver.
#[derive(Debug)]
pub struct Outbox {
    rules: Rules,
    told: BTreeMap<Key, Told>,
    queue: VecDeque<Notification>,
    /// Notifications that may be made at once.
    tokens: f64,
    tokens_ms: u64,
    failures: u32,
    next_try_ms: u64,
    counts: Counts,
}

impl Outbox {
    /// Goes on from what was written down.
    #[must_use]
    pub fn new(
        receiver: &Receiver,
        now_ms: u64,
        told: BTreeMap<Key, Told>,
        queue: VecDeque<Notification>,
    ) -> Self {
        let millis = |duration: Duration| duration.as_millis() as u64;
        let per_minute = f64::from(receiver.per_minute.get());
        Self {
            rules: Rules {
                filter: receiver.filter.clone(),
                resolve: receiver.resolve,
                repeat: millis(receiver.repeat),
                heartbeat: receiver.heartbeat.map(millis),
                // Alertmanager groups by itself.
                by_service: !matches!(receiver.target, Target::Alertmanager(_)),
                per_minute,
            },
            told,
            queue,
            tokens: per_minute,
            tokens_ms: now_ms,
            failures: 0,
            next_try_ms: now_ms,
            counts: Counts::default(),
        }
    }

    /// Compares what is on with what the receiver was told, and queues the difference.
    pub fn decide(&mut self, now_ms: u64, ledger: &Ledger, ids: &mut u64) -> Decision {
        self.refill(now_ms);
        let mut news: BTreeMap<Option<String>, Vec<Item>> = BTreeMap::new();
        let mut again: BTreeMap<Option<String>, Vec<Item>> = BTreeMap::new();
        for (key, active, stage) in ledger.iter(now_ms) {
            if !self.rules.concerns(key) || stage == Stage::Waiting {
                continue;
            }
            let item = Item {
                key: key.clone(),
                summary: active.summary.clone(),
                since_ms: active.since_ms,
                ended_ms: None,
            };
            let group = self.rules.group(key);
            match self.told.get(key) {
                None if stage == Stage::Firing => news.entry(group).or_default().push(item),
                // Alertmanager takes what is not repeated for over: what is hidden is repeated.
                Some(told) if now_ms >= told.at_ms + self.rules.repeat(key) => {
                    again.entry(group).or_default().push(item);
                }
                _ => {}
            }
        }
        let mut decision = Decision::default();
        for (key, told) in &self.told {
            if ledger.is_on(key) {
                continue;
            }
            // Who is no longer to be told of something is still told of its end.
            if self.rules.resolve && key.name != AlertName::Watchdog {
                let item = Item {
                    ended_ms: Some(now_ms),
                    ..told.item.clone()
                };
                news.entry(self.rules.group(key)).or_default().push(item);
            } else {
                decision.forget.push(key.clone());
            }
        }
        for key in &decision.forget {
            self.told.remove(key);
        }
        self.queue_all(now_ms, news, false, ids, &mut decision);
        // What waits says it already; the latest of it is enough.
        if self.queue.is_empty() {
            self.queue_all(now_ms, again, true, ids, &mut decision);
        }
        decision
    }

    fn queue_all(
        &mut self,
        now_ms: u64,
        groups: BTreeMap<Option<String>, Vec<Item>>,
        again: bool,
        ids: &mut u64,
        decision: &mut Decision,
    ) {
        for (service, mut items) in groups {
            // Those that are on first; the sort keeps the order otherwise.
            items.sort_by_key(|item| item.ended_ms.is_some());
            for items in items.chunks(ITEMS) {
                if self.queue.len() >= QUEUE {
                    self.counts.held_back += 1;
                    return;
                }
                if self.tokens < 1.0 {
                    return;
                }
                self.tokens -= 1.0;
                *ids += 1;
                let notification = Notification {
                    id: *ids,
                    service: service.clone(),
                    at_ms: now_ms,
                    again,
                    items: items.to_vec(),
                };
                self.note(&notification);
                self.queue.push_back(notification.clone());
                decision.send.push(notification);
            }
        }
    }

    /// Notes what the receiver is told.
    fn note(&mut self, notification: &Notification) {
        for item in &notification.items {
            if item.ended_ms.is_some() {
                self.told.remove(&item.key);
            } else {
                let told = Told {
                    item: item.clone(),
                    at_ms: notification.at_ms,
                };
                self.told.insert(item.key.clone(), told);
            }
        }
    }

    fn refill(&mut self, now_ms: u64) {
        let elapsed = now_ms.saturating_sub(self.tokens_ms) as f64;
        self.tokens =
            (self.tokens + elapsed / 60_000.0 * self.rules.per_minute).min(self.rules.per_minute);
        self.tokens_ms = now_ms;
    }

    /// What is to be sent now: the oldest, unless it has to wait.
    #[must_use]
    pub fn due(&self, now_ms: u64) -> Option<&Notification> {
        self.queue.front().filter(|_| now_ms >= self.next_try_ms)
    }

    /// Takes the outcome of sending the oldest; `jitter` is from 0 to 1.
    ///
    /// `None` where there was nothing to send.
    pub fn ended(
        &mut self,
        now_ms: u64,
        result: &Result<(), Failure>,
        jitter: f64,
    ) -> Option<Outcome> {
        let failure = match result {
            Ok(()) => {
                let notification = self.queue.pop_front()?;
                self.counts.sent += 1;
                let failures = std::mem::take(&mut self.failures);
                self.next_try_ms = now_ms;
                return Some(Outcome::Delivered {
                    notification,
                    failures,
                });
            }
            Err(failure) => failure,
        };
        self.counts.failed += 1;
        let wait = match failure.again {
            Again::Never => return self.drop_oldest().map(Outcome::Dropped),
            Again::Later => SHORTEST
                .saturating_mul(1 << self.failures.min(16))
                .min(LONGEST)
                // Receivers that failed together are not asked together.
                .mul_f64(0.8 + 0.2 * jitter),
            Again::After(wait) => wait.min(LONGEST),
        };
        self.failures += 1;
        self.next_try_ms = now_ms + wait.as_millis() as u64;
        Some(Outcome::Retried {
            notification: self.queue.front()?.clone(),
            failures: self.failures,
        })
    }

    /// Gives up what has become too old.
    pub fn expire(&mut self, now_ms: u64) -> Vec<Notification> {
        let mut dropped = Vec::new();
        while self
            .queue
            .front()
            .is_some_and(|oldest| now_ms >= oldest.at_ms + OLDEST)
        {
            dropped.extend(self.drop_oldest());
        }
        dropped
    }

    fn drop_oldest(&mut self) -> Option<Notification> {
        let dropped = self.queue.pop_front()?;
        self.counts.dropped += 1;
        Some(dropped)
    }

    /// Has the receiver told anew of what is still on, after a notification of it was given up.
    pub fn tell_again(&mut self, dropped: &Notification) {
        for item in &dropped.items {
            if self
                .told
                .get(&item.key)
                .is_some_and(|told| told.at_ms == dropped.at_ms)
            {
                self.told.remove(&item.key);
            }
        }
    }

    /// What the receiver was told of, with what is queued.
    pub const fn told(&self) -> &BTreeMap<Key, Told> {
        &self.told
    }

    /// What waits, the oldest first.
    pub const fn queue(&self) -> &VecDeque<Notification> {
        &self.queue
    }

    /// How many deliveries ended how.
    #[must_use]
    pub const fn counts(&self) -> Counts {
        self.counts
    }

    /// How many tries of the oldest failed.
    #[must_use]
    pub const fn failures(&self) -> u32 {
        self.failures
    }
}

impl Rules {
    /// Whether the receiver is told of an alert.
    fn concerns(&self, key: &Key) -> bool {
        if key.name == AlertName::Watchdog {
            return self.heartbeat.is_some();
        }
        let filter = &self.filter;
        let of = |services: &Vec<std::sync::Arc<str>>| {
            key.service
                .as_ref()
                .is_none_or(|own| services.iter().any(|one| **one == **own))
        };
        key.severity >= filter.severity
            && filter
                .alerts
                .as_ref()
                .is_none_or(|names| names.contains(&key.name))
            && filter.services.as_ref().is_none_or(of)
    }

    fn repeat(&self, key: &Key) -> u64 {
        match (key.name, self.heartbeat) {
            (AlertName::Watchdog, Some(heartbeat)) => heartbeat,
            _ => self.repeat,
        }
    }

    fn group(&self, key: &Key) -> Option<String> {
        key.service.clone().filter(|_| self.by_service)
    }
}

#[cfg(test)]
mod tests;
