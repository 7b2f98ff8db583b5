//! The least that an XDP program can do and still spread connections: what the end-to-end
//! benchmark holds Evenkeel against. No controller loads it.
//!
//! No tables, no counters, no checks that a server is there: two VIPs and three MAC addresses are
//! constants, which the benchmark's network is built to.

use aya_ebpf::{bindings::xdp_action, macros::xdp, programs::XdpContext};
use lb_common::packet::Packet;

use crate::frame::Frame;

/// The VIP that is spread over all servers.
const SPREAD: u32 = u32::from_ne_bytes([198, 51, 100, 10]);
/// The VIP that is the first server's alone.
const SINGLE: u32 = u32::from_ne_bytes([198, 51, 100, 11]);
/// How many servers there are. Their MAC addresses are `02:45:4b:00:00:01` and up.
const SERVERS: u32 = 3;

/// Forwards what is for a VIP, and passes the rest.
#[xdp]
fn bare_forwarder(ctx: XdpContext) -> u32 {
    forward(&mut Frame::new(&ctx)).unwrap_or(xdp_action::XDP_PASS)
}

#[inline(always)]
fn forward(frame: &mut Frame<'_>) -> Option<u32> {
    let ethertype: u16 = frame.read(12)?;
    if ethertype != 0x0800_u16.to_be() {
        return None;
    }
    let server = match frame.read(30)? {
        SPREAD => {
            let source_port: u16 = frame.read(34)?;
            // The upper bits of a product depend on all bits of the port.
            let mixed = u32::from(source_port).wrapping_mul(0x9e37_79b1) >> 16;
            (mixed * SERVERS) >> 16
        }
        SINGLE => 0,
        _ => return None,
    };
    let own: [u8; 6] = frame.read(0)?;
    frame.write(0, [0x02_u8, 0x45, 0x4b, 0, 0, server as u8 + 1])?;
    frame.write(6, own)?;
    Some(xdp_action::XDP_TX)
}
