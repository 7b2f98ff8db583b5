//! Hands on what is told, beside the controller's task.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use axum::body::Bytes;
use lb_common::trace::Pace;
use rustix::time::{ClockId, clock_gettime};
use tokio::{
    sync::{mpsc, watch},
    time::{Instant, interval, timeout_at},
};

use crate::{
    admin::proto::trace::{Begun, Decision, Ended, Line, Request},
    dataplane::{
        flows::Flows,
        trace::{Record, Records},
    },
    explain::Names,
};

/// How often what was told is read.
const READ: Duration = Duration::from_millis(20);

/// The two clocks at one moment.
#[derive(Clone, Copy)]
pub(super) struct Clock {
    unix_us: u64,
    monotonic_ns: u64,
}

impl Clock {
    pub(super) fn read(unix_ms: u64) -> Self {
        let now = clock_gettime(ClockId::Monotonic);
        Self {
            unix_us: unix_ms * 1000,
            monotonic_ns: now.tv_sec.unsigned_abs() * 1_000_000_000 + now.tv_nsec.unsigned_abs(),
        }
    }

    /// When something was, in microseconds since the epoch.
    const fn unix_us(self, monotonic_ns: u64) -> u64 {
        let since = monotonic_ns.wrapping_sub(self.monotonic_ns).cast_signed() / 1000;
        self.unix_us.wrapping_add_signed(since)
    }
}

/// Hands on what is told.
pub(super) struct Teller {
    records: Records,
    lines: mpsc::Sender<Bytes>,
    names: watch::Receiver<Arc<Names>>,
    request: Request,
    clock: Clock,
    pace: Pace,
    /// By CPU: a decision whose frame that left has not come yet, with the number that both have.
    pending: BTreeMap<u32, (u64, Decision)>,
    ended: Ended,
}

/// Whether there is more to be told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Goes {
    On,
    NoFurther,
}

impl Teller {
    pub(super) fn new(
        records: Records,
        lines: mpsc::Sender<Bytes>,
        names: watch::Receiver<Arc<Names>>,
        request: Request,
        clock: Clock,
    ) -> Self {
        Self {
            records,
            lines,
            names,
            request,
            clock,
            pace: Pace::default(),
            pending: BTreeMap::new(),
            ended: Ended {
                why: "time".to_owned(),
                told: 0,
                skipped: 0,
                lost: 0,
            },
        }
    }

    /// Goes on until the time is over, enough was told or whoever asked has gone, and says so.
    pub(super) async fn run(mut self, begun: Begun, over: mpsc::Sender<Ended>) {
        let until = Instant::now() + Duration::from_secs_f64(self.request.for_s);
        let mut read = interval(READ);
        let mut goes = self.tell(Line::Begun(begun), until).await;
        while goes == Goes::On {
            let lines = self.lines.clone();
            tokio::select! {
                () = lines.closed() => {
                    "gone".clone_into(&mut self.ended.why);
                    goes = Goes::NoFurther;
                }
                _ = read.tick() => {
                    goes = self.read(until).await;
                    if Instant::now() >= until {
                        goes = Goes::NoFurther;
                    }
                }
            }
        }
        let (skipped, lost) = self.records.untold();
        self.ended.skipped += skipped;
        self.ended.lost += lost;
        let ended = self.ended.clone();
        // Whoever asked may have gone, or not read for long.
        let soon = Instant::now() + Duration::from_secs(1);
        self.tell(Line::Ended(ended.clone()), soon).await;
        // The controller's task lives longer.
        let _ = over.send(ended).await;
    }

    /// Hands on what was told since the last time.
    async fn read(&mut self, until: Instant) -> Goes {
        while let Some(record) = self.records.take() {
            for decision in self.complete(record) {
                if self.pass_on(decision, until).await == Goes::NoFurther {
                    return Goes::NoFurther;
                }
            }
        }
        Goes::On
    }

    /// Puts together what is told of a packet in two records: the decisions that are whole by this one.
    fn complete(&mut self, record: Record) -> Vec<Decision> {
        match record {
            Record::Seen(seen, frame) => {
                let names = Arc::clone(&self.names.borrow());
                let mut decision = names.decision(&seen, self.clock.unix_us(seen.trail.at));
                let cpu = seen.head.cpu;
                // The frame of the one before was lost.
                let before = self.pending.remove(&cpu).map(|(_, decision)| decision);
                let mut whole: Vec<_> = before.into_iter().collect();
                if self.request.snap > 0 {
                    decision.frame = Some(hex::encode(frame));
                    if decision.left_by.is_some() {
                        self.pending.insert(cpu, (seen.head.serial, decision));
                        return whole;
                    }
                }
                whole.push(decision);
                whole
            }
            Record::Left(head, frame) => {
                let Some((serial, mut decision)) = self.pending.remove(&head.cpu) else {
                    return Vec::new();
                };
                if serial == head.serial {
                    decision.left = Some(hex::encode(frame));
                    decision.left_length = Some(head.length);
                }
                vec![decision]
            }
        }
    }

    /// Hands a decision on, where the rate allows it.
    async fn pass_on(&mut self, decision: Decision, until: Instant) -> Goes {
        if !self.pace.may_tell(Flows::now(), self.request.rate) {
            self.ended.skipped += 1;
            return Goes::On;
        }
        let goes = self.tell(Line::Decision(Box::new(decision)), until).await;
        if goes == Goes::On {
            self.ended.told += 1;
            if self
                .request
                .count
                .is_some_and(|count| self.ended.told >= count)
            {
                "count".clone_into(&mut self.ended.why);
                return Goes::NoFurther;
            }
        }
        goes
    }

    async fn tell(&self, line: Line, until: Instant) -> Goes {
        let Ok(mut text) = serde_json::to_vec(&line) else {
            return Goes::NoFurther;
        };
        text.push(b'\n');
        match timeout_at(until, self.lines.send(text.into())).await {
            Ok(Ok(())) => Goes::On,
            Ok(Err(_)) | Err(_) => Goes::NoFurther,
        }
    }
}
