//! Latency, seen in passing: of some flows, how long the handshake takes, and how long the first of
//! a response.
//!
//! Which flows is decided by a number that follows from the flow, so that others pay one
//! comparison. Where replies pass by here (modes `nat` and `snat`), the backend's answer ends the
//! wait. Where they do not, the client's next segment tells that it has come: the way to the
//! client and back is in that, and what the client takes to acknowledge.
//!
//! Of the same flows it is seen where a backend does not answer: a SYN that is sent again, and a
//! reset of a connection that waits for its answer.

use bytemuck::Zeroable as _;

use super::{Job, Plain, beyond};
use crate::{
    flow::{self, Address, Flow},
    layout::{self, COUNTED_NS, Endpoint, FIRST_AGAIN, Waiting, mode, waiting},
    packet::Packet,
    tables::{Failed, Took, World},
    wire::{tcp, udp},
};

/// What took longer than this was no answer to what was waited for: a minute, in nanoseconds.
const LONGEST: u64 = 60_000_000_000;

/// Whether replies of an endpoint pass by here.
#[inline(always)]
const fn sees_replies(endpoint: &Endpoint) -> bool {
    matches!(endpoint.mode, mode::NAT | mode::SNAT)
}

/// Whether a client's flow is measured.
#[inline(always)]
pub const fn is_measured(endpoint: &Endpoint, hash: u64, from: &Address, port: u16) -> bool {
    let lot = if sees_replies(endpoint) {
        lot(from, port)
    } else {
        hash as u16
    };
    lot < endpoint.sampled
}

/// A number of a flow that its replies tell as well: by whom the backend takes for its client.
#[inline(always)]
const fn lot(address: &Address, port: u16) -> u16 {
    let word = address[3] ^ address[1] ^ ((port as u32) << 16 | port as u32);
    (word.wrapping_mul(0x9e37_79b1) >> 16) as u16
}

/// Whether the flow of a job is measured, whose endpoint is known.
#[inline(always)]
pub fn measures(tables: &layout::Tables, job: &Job) -> bool {
    let (to, _) = beyond::endpoint(tables, job.endpoint);
    let (from, port) = client(job);
    is_measured(to, job.hash, from, port)
}

/// Whether the flow of a backend's packet is measured.
#[inline(always)]
pub fn measures_reply(tables: &layout::Tables, job: &Job) -> bool {
    let (of, _) = beyond::endpoint(tables, job.endpoint);
    let flow = &job.flow;
    sees_replies(of) && lot(&flow.destination, flow.destination_port()) < of.sampled
}

/// Whom the backend takes for its client.
#[inline(always)]
const fn client(job: &Job) -> (&Address, u16) {
    if job.from_port == 0 {
        (&job.flow.source, job.flow.source_port())
    } else {
        (&job.from, job.from_port)
    }
}

/// What a flow that is measured is known by: of those whose replies pass by, the flow of these.
#[inline(always)]
fn key(tables: &layout::Tables, job: &Job) -> Flow {
    let (to, far) = beyond::endpoint(tables, job.endpoint);
    if !sees_replies(to) {
        return job.flow;
    }
    let (from, port) = client(job);
    beyond::replies(job, to, far, *from, port)
}

/// What a TCP segment says.
#[derive(Clone, Copy)]
struct Segment {
    flags: u8,
    /// The sequence number behind it.
    next: u32,
    acknowledged: u32,
    /// Whether it carries data.
    carries: bool,
}

impl Segment {
    #[inline(always)]
    fn of<P: Packet>(packet: &P, job: &Job) -> Option<Self> {
        let at = usize::from(job.transport) & beyond::OFFSET;
        let numbers = tcp::numbers(packet, at).ok()?;
        let header = u32::from(job.transport) + u32::from(numbers.header);
        let carried = job.end.saturating_sub(header);
        // A SYN takes a number of its own.
        let opens = u32::from(job.tcp_flags & tcp::SYN != 0);
        Some(Self {
            flags: job.tcp_flags,
            next: numbers.sequence.wrapping_add(carried).wrapping_add(opens),
            acknowledged: numbers.acknowledged,
            carries: carried > 0,
        })
    }
}

/// Whether one sequence number comes after another.
#[inline(always)]
const fn after(one: u32, other: u32) -> bool {
    other.wrapping_sub(one) >> 31 != 0
}

/// Looks at a client's packet on the shortest way, before it is touched.
#[inline(always)]
pub fn sent_plain<P: Packet, W: World>(
    packet: &P,
    world: &W,
    tables: &layout::Tables,
    plain: &Plain,
) {
    let at = [
        usize::from(plain.network) & 0x3f,
        usize::from(plain.transport) & beyond::OFFSET,
    ];
    let Some(flow) = flow::again(packet, at, plain.protocol, plain.family) else {
        return;
    };
    let job = Job {
        flow,
        transport: plain.transport,
        end: plain.end,
        tcp_flags: plain.tcp_flags,
        endpoint: plain.endpoint,
        ..Job::zeroed()
    };
    sent(packet, world, tables, &job);
}

/// Looks at a client's packet that goes to the job's endpoint, before it is touched.
#[inline(always)]
pub fn sent<P: Packet, W: World>(packet: &P, world: &W, tables: &layout::Tables, job: &Job) {
    let key = key(tables, job);
    let now = world.clock();
    let begun = Waiting {
        since: now,
        endpoint: job.endpoint,
        what: waiting::RESPONSE,
        ..Waiting::zeroed()
    };
    let (to, _) = beyond::endpoint(tables, job.endpoint);
    let replies = sees_replies(to);
    if job.flow.protocol == udp::PROTOCOL {
        let ask = |old: &mut Waiting| {
            // A datagram that follows one without an answer may belong to the same question.
            if old.what != waiting::RESPONSE || is_over(old, now) {
                begin(old, &begun);
            }
        };
        if replies && world.waiting(&key, ask).is_none() {
            world.wait(&key, &begun);
        }
        return;
    }
    let Some(segment) = Segment::of(packet, job) else {
        return;
    };
    if segment.flags & tcp::RST != 0 {
        world.wait_no_more(&key);
        return;
    }
    let begun = Waiting {
        next: segment.next,
        acknowledged: segment.acknowledged,
        what: if tcp::opens(segment.flags) {
            waiting::HANDSHAKE
        } else {
            waiting::RESPONSE
        },
        ..begun
    };
    let seen = world.waiting(&key, |old| step(old, &segment, &begun, replies));
    match seen {
        Some(told) => tell(world, job.endpoint, told),
        // Of a flow that is not known, what opens it or asks begins a wait.
        None if segment.carries || tcp::opens(segment.flags) => world.wait(&key, &begun),
        None => {}
    }
}

/// Whether what is waited for will not come any more.
#[inline(always)]
const fn is_over(old: &Waiting, now: u64) -> bool {
    now.wrapping_sub(old.since) > LONGEST
}

/// Waits anew in a flow that is known.
#[inline(always)]
const fn begin(old: &mut Waiting, begun: &Waiting) {
    *old = Waiting {
        counted: old.counted,
        ..*begun
    };
}

/// What a response is counted as that comes now.
#[inline(always)]
const fn response(of: &mut Waiting, now: u64) -> Took {
    // Zero stands for never.
    let now = ((now / COUNTED_NS) as u32).wrapping_add(1);
    if of.counted != 0 && now.wrapping_sub(of.counted) < FIRST_AGAIN {
        return Took::Further;
    }
    of.counted = now;
    Took::Response
}

/// What a packet tells.
#[derive(Clone, Copy)]
enum Told {
    /// Something took so many nanoseconds.
    Took(Took, u64),
    Failed(Failed),
}

/// What a segment of the client ends, and what is waited for after it.
#[inline(always)]
fn step(old: &mut Waiting, segment: &Segment, begun: &Waiting, replies: bool) -> Option<Told> {
    if tcp::opens(segment.flags) {
        match old.what {
            // The same SYN again.
            waiting::HANDSHAKE if old.next == segment.next => {
                old.what = waiting::UNCLEAR;
                return Some(Told::Failed(Failed::Unanswered));
            }
            waiting::UNCLEAR if old.next == segment.next => {}
            // Another connection.
            _ => *old = *begun,
        }
        return None;
    }
    let elapsed = begun.since.wrapping_sub(old.since);
    let mut told = None;
    if !replies {
        let answered = match old.what {
            waiting::HANDSHAKE => Some(Took::Handshake),
            waiting::RESPONSE if after(segment.acknowledged, old.acknowledged) => {
                Some(response(old, begun.since))
            }
            _ => None,
        };
        if let Some(what) = answered {
            told = Some(Told::Took(what, elapsed));
            old.what = waiting::NOTHING;
        }
    }
    if !segment.carries {
        return told;
    }
    // The client goes on asking, or asks again.
    let again = old.what != waiting::NOTHING && !after(segment.next, old.next);
    begin(old, begun);
    if again {
        old.what = waiting::UNCLEAR;
    }
    told
}

/// Looks at a backend's packet.
#[inline(always)]
pub fn answered<P: Packet, W: World>(packet: &P, world: &W, job: &Job) {
    let key = job.flow;
    let now = world.clock();
    let (carries, flags) = if job.flow.protocol == udp::PROTOCOL {
        (true, 0)
    } else {
        let Some(segment) = Segment::of(packet, job) else {
            return;
        };
        (segment.carries, segment.flags)
    };
    let told = world.waiting(&key, |old| {
        if flags & tcp::RST != 0 {
            let waits = matches!(old.what, waiting::HANDSHAKE | waiting::RESPONSE);
            return waits.then_some(Told::Failed(Failed::Reset));
        }
        let what = match old.what {
            waiting::HANDSHAKE if flags & tcp::SYN != 0 => Some(Took::Handshake),
            waiting::RESPONSE if carries => Some(response(old, now)),
            _ => None,
        };
        if what.is_some() || carries || flags & tcp::SYN != 0 {
            old.what = waiting::NOTHING;
        }
        what.map(|what| Told::Took(what, now.wrapping_sub(old.since)))
    });
    if flags & tcp::RST != 0 {
        world.wait_no_more(&key);
    }
    tell(world, job.endpoint, told.flatten());
}

#[inline(always)]
fn tell<W: World>(world: &W, endpoint: u16, told: Option<Told>) {
    match told {
        Some(Told::Took(what, nanoseconds)) if nanoseconds <= LONGEST => {
            world.took(endpoint, what, nanoseconds);
        }
        Some(Told::Failed(how)) => world.failed(endpoint, how),
        Some(Told::Took(..)) | None => {}
    }
}
