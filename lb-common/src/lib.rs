//! What the XDP program and the host share: packet access, flow hash, table layout and the one
//! forwarding decision.
//!
//! The crate knows neither BPF nor the operating system. [`decide::process`] is generic over
//! [`packet::Packet`], [`tables::Tables`] and [`tables::Counters`]; `lb-ebpf` runs it over a frame
//! and BPF maps, the host over byte slices and plain memory (module `host`, behind the feature of
//! that name).
//!
//! Data plane and controller are one little-endian machine: numbers that travel in network byte
//! order are kept as they lie in memory and say so.
#![no_std]
#![forbid(unsafe_code)]

#[cfg(any(test, feature = "host"))]
extern crate std;

#[cfg(target_endian = "big")]
compile_error!("the table layout is written for little-endian machines");

pub mod bench;
pub mod decap;
pub mod decide;
pub mod fault;
pub mod flow;
pub mod hash;
#[cfg(any(test, feature = "host"))]
pub mod host;
pub mod layout;
pub mod packet;
pub mod tables;
#[cfg(any(test, feature = "host"))]
pub mod testing;
pub mod trace;
pub mod trail;
pub mod verdict;
pub mod wire;
