//! Named packets through both homes, each with its verdict, its reason, its counter and its bytes.

use lb_common::{
    layout::{EndpointCounters, HOST_EXITS, Scratch},
    verdict::{Reason, Verdict},
};

use super::{
    Counts, Homes,
    bed::{Bed, Served},
    network::CLIENTS,
};

/// What shall become of a packet.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Fate {
    /// Sent to this endpoint by the interface that it came by.
    Sent(u16),
    /// The same, and counted as a new flow.
    Opened(u16),
    /// Sent to this endpoint by another interface.
    Elsewhere(u16, u32),
    /// Sent to its client as this endpoint's answer.
    Reply(u16),
    /// To the stack, rewritten as this endpoint's answer, in this service's row.
    Stack(u16, u16),
    /// Answered in this service's name, which counts this reason.
    Answered(u16, Reason),
    /// An error handed on to this endpoint of this service.
    Related(u16, u16),
    /// An error about this service handed on to its client.
    RelatedBack(u16),
    /// To the host, in its own row.
    Host(Reason),
    /// To the host, in this service's row.
    Passed(u16, Reason),
    /// Nowhere, in this service's row.
    Dropped(u16, Reason),
}

/// Both homes, what they have counted so far, and how many packets there were.
pub(crate) struct Cases {
    pub(crate) homes: Homes,
    counted: Counts,
    /// How many were checked.
    pub(crate) checked: usize,
}

impl Cases {
    pub(crate) fn new(bed: &Bed) -> Self {
        Self {
            homes: Homes::with(&bed.builder.image, bed.builder.endpoints + 1),
            counted: Counts::default(),
            checked: 0,
        }
    }

    /// Makes both homes forget their flows, and `snat` begin with its first port.
    pub(crate) fn afresh(&mut self) {
        self.homes.forget();
        // It counts before it multiplies with the number of CPUs.
        self.homes.memory.put_scratch(&Scratch {
            port: u32::MAX,
            ..self.homes.memory.scratch()
        });
        self.homes.host.ports.set(0);
    }

    /// Runs a packet and checks what becomes of it, and that nothing else was counted.
    pub(crate) fn check(&mut self, name: &str, frame: &[u8], fate: Fate, expected: &[u8]) {
        self.checked += 1;
        let (verdict, bytes) = self.homes.run(frame);
        let mut counts = std::mem::take(&mut self.counted);
        let (wanted, exit) = match fate {
            Fate::Sent(endpoint) | Fate::Opened(endpoint) => {
                count(
                    &mut counts,
                    endpoint,
                    frame,
                    matches!(fate, Fate::Opened(_)),
                );
                (Verdict::Transmit, None)
            }
            Fate::Elsewhere(endpoint, interface) => {
                count(&mut counts, endpoint, frame, false);
                (Verdict::Redirect(interface), None)
            }
            Fate::Reply(endpoint) => {
                let events = counts.events.entry(endpoint).or_default();
                events.replies += 1;
                events.reply_bytes += frame.len() as u64;
                (Verdict::Redirect(CLIENTS), None)
            }
            Fate::Stack(service, endpoint) => {
                let events = counts.events.entry(endpoint).or_default();
                events.replies += 1;
                events.reply_bytes += frame.len() as u64;
                let reason = Reason::NoRoute;
                (
                    Verdict::Pass(reason),
                    Some((u32::from(service) + 1, reason)),
                )
            }
            Fate::Answered(service, reason) => {
                (Verdict::Transmit, Some((u32::from(service) + 1, reason)))
            }
            Fate::Related(service, endpoint) => {
                count(&mut counts, endpoint, frame, false);
                let exit = (u32::from(service) + 1, Reason::Related);
                (Verdict::Transmit, Some(exit))
            }
            Fate::RelatedBack(service) => {
                let exit = (u32::from(service) + 1, Reason::Related);
                (Verdict::Redirect(CLIENTS), Some(exit))
            }
            Fate::Host(reason) => (Verdict::Pass(reason), Some((HOST_EXITS, reason))),
            Fate::Passed(service, reason) => (
                Verdict::Pass(reason),
                Some((u32::from(service) + 1, reason)),
            ),
            Fate::Dropped(service, reason) => (
                Verdict::Drop(reason),
                Some((u32::from(service) + 1, reason)),
            ),
        };
        assert_eq!(verdict, wanted, "{name}");
        assert_eq!(hex(&bytes), hex(expected), "{name}: the frame");
        if let Some(exit) = exit {
            *counts.exits.entry(exit).or_default() += 1;
        }
        self.counted = self.homes.counts();
        counts.tracking = self.counted.tracking;
        assert_eq!(self.counted, counts, "{name}: the counters");
        self.homes.compare_memory();
    }

    /// A packet that goes on as it came.
    pub(crate) fn untouched(&mut self, name: &str, frame: &[u8], fate: Fate) {
        self.check(name, frame, fate, frame);
    }

    /// Publishes the bed anew.
    pub(crate) fn publish(&mut self, bed: &Bed) {
        self.homes.publish(&bed.builder.image);
    }
}

fn count(counts: &mut Counts, endpoint: u16, frame: &[u8], opened: bool) {
    let counters = counts.endpoints.entry(endpoint).or_default();
    *counters = EndpointCounters {
        packets: counters.packets + 1,
        bytes: counters.bytes + frame.len() as u64,
        new_flows: counters.new_flows + u64::from(opened),
    };
}

/// Bytes as they are read best where they differ: sixteen a line.
fn hex(bytes: &[u8]) -> String {
    let lines = bytes.chunks(16).map(|line| format!("{line:02x?}\n"));
    lines.collect::<Vec<String>>().concat()
}

/// The endpoint of a service, counted from zero.
pub(crate) const fn endpoint(served: &Served, nth: u16) -> u16 {
    served.endpoint + nth
}
