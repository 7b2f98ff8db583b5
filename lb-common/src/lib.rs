//! What the XDP program and the host share: packet access, flow hash, table layout and the one
//! forwarding decision.
//!
//! The crate knows neither BPF nor the operating system. [`decide::process`] is generic over
//! [`packet::Packet`] and [`tables::Tables`]; `lb-ebpf` runs it over a frame and BPF maps, the
//! host over byte slices and plain memory.
#![no_std]
#![forbid(unsafe_code)]

#[cfg(any(test, feature = "host"))]
extern crate std;

pub mod layout;
