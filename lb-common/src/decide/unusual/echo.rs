//! Echo requests to VIPs, answered here: no backend needs to, and none could alone.

use super::{Kind, address};
use crate::{
    decide::{
        Job,
        beyond::{self, OFFSET},
        pass,
    },
    flow::V4,
    layout,
    packet::Packet,
    tables::World,
    verdict::{Reason, Verdict},
    wire::{checksum::Change, icmp},
};

/// The hops that an answer may take.
const HOPS: u8 = 64;

/// Answers an echo request to a VIP; errors are for others to look at.
#[inline(always)]
pub(super) fn or_error<P: Packet, W: World>(
    packet: &mut P,
    world: &W,
    tables: &layout::Tables,
    job: &Job,
) -> Kind {
    let at = usize::from(job.transport) & OFFSET;
    let Some([kind, code]) = packet.read::<[u8; 2]>(at) else {
        return Kind::Done(pass(world, layout::HOST_EXITS, Reason::Truncated));
    };
    let is_error = icmp::is_error(job.flow.family, kind);
    let (request, reply) = icmp::echo(job.flow.family);
    let Some(vip) = address(tables, job) else {
        if is_error {
            return Kind::Error;
        }
        return Kind::Done(pass(world, layout::HOST_EXITS, Reason::NotTcpUdp));
    };
    if is_error {
        return Kind::ErrorToVip;
    }
    let row = beyond::row(vip.service);
    if kind != request || code != 0 {
        return Kind::Done(pass(world, row, Reason::NotTcpUdp));
    }
    if job.end as usize > packet.full_length() || answer(packet, job, at, [kind, reply]).is_none() {
        return Kind::Done(pass(world, row, Reason::Truncated));
    }
    world.exit(row, Reason::EchoAnswered);
    Kind::Done(Verdict::Transmit)
}

/// Turns a request into its reply: who is who, the type, and the hops.
#[inline(always)]
fn answer<P: Packet>(packet: &mut P, job: &Job, at: usize, [old, new]: [u8; 2]) -> Option<()> {
    let network = usize::from(job.network) & 0x3f;
    let flow = &job.flow;
    let checksum: u16 = packet.read(at + icmp::CHECKSUM)?;
    let [a, b, c]: [u32; 3] = packet.read(0)?;
    // Swapping the addresses changes neither checksum.
    let change = Change::default().half(old.into(), new.into());
    if flow.family == V4 {
        let [ttl, protocol]: [u8; 2] = packet.read(network + 8)?;
        let header: u16 = packet.read(network + 10)?;
        let hops = Change::default().half(
            u16::from_ne_bytes([ttl, protocol]),
            u16::from_ne_bytes([HOPS, protocol]),
        );
        packet.write(network + 8, [HOPS, protocol])?;
        packet.write(network + 10, hops.apply(header))?;
        packet.write(network + 12, flow.destination[3])?;
        packet.write(network + 16, flow.source[3])?;
    } else {
        let [protocol, _]: [u8; 2] = packet.read(network + 6)?;
        packet.write(network + 6, [protocol, HOPS])?;
        packet.write(network + 8, flow.destination)?;
        packet.write(network + 24, flow.source)?;
    }
    packet.write(at, [new, 0])?;
    packet.write(at + icmp::CHECKSUM, change.apply(checksum))?;
    packet.write(0, swap([a, b, c]))
}

/// The first twelve bytes of the frame that goes back.
#[inline(always)]
pub(in crate::decide) const fn swap([a, b, c]: [u32; 3]) -> [u32; 3] {
    // Six bytes and six bytes: one and a half words each.
    [b >> 16 | c << 16, c >> 16 | a << 16, a >> 16 | b << 16]
}
