//! The way of what is not plain TCP or UDP: options, extension headers, fragments, ICMP.

use super::{Step, pass};
use crate::{layout, packet::Packet, tables::World, verdict::Reason};

/// Decides a packet's fate, or finds out enough for [`super::beyond::process`] to do so.
#[inline(always)]
pub fn process<'w, P: Packet, W: World>(packet: &mut P, world: &'w W) -> Step<'w> {
    if packet.read::<u32>(26).is_none() {
        return Step::Done(pass(world, layout::HOST_EXITS, Reason::Truncated));
    }
    Step::Done(pass(world, layout::HOST_EXITS, Reason::NotTcpUdp))
}
