//! QUIC's invariants (RFC 8999), and server IDs that stand in connection IDs in the clear
//! (draft-ietf-quic-load-balancers §4).

use crate::{flow::Address, packet::Packet};

/// The longest server ID that is read, in bytes.
pub const SERVER_ID: u8 = 15;

/// The bit of the first byte that marks a long header.
const LONG: u8 = 0x80;
/// The configuration rotation of a connection ID that is not to be routed by (draft §3.1).
const UNROUTABLE: u8 = 7;

/// The server ID of the packet that begins at an offset, in the first bytes of four words.
///
/// `None` where there is none. A client that does not know its server's choice yet has drawn its
/// connection ID by chance, and that may look like one with a server ID: whoever asks falls back
/// on the flow where no server has the ID.
#[inline(always)]
pub fn server_id<P: Packet>(packet: &P, at: usize, length: u8) -> Option<Address> {
    let first: u8 = packet.read(at)?;
    // Long header: version, length of the connection ID, the ID. Short header: the ID at once.
    let id = if first & LONG == 0 {
        at + 1
    } else {
        let held: u8 = packet.read(at + 5)?;
        if held <= length {
            return None;
        }
        at + 6
    };
    let rotation: u8 = packet.read(id)?;
    if rotation >> 5 == UNROUTABLE {
        return None;
    }
    let mut server = [0; 4];
    for (word, place) in server.iter_mut().enumerate() {
        for byte in 0..4 {
            let nth = word * 4 + byte;
            if nth < usize::from(length) && nth < usize::from(SERVER_ID) {
                let value: u8 = packet.read(id + 1 + nth)?;
                *place |= u32::from(value) << (8 * byte);
            }
        }
    }
    Some(server)
}

#[cfg(test)]
mod tests;
