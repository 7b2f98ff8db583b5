//! The data plane in plain memory: the same decision for tests, explanations and forecasts.

use std::{boxed::Box, cell::RefCell, collections::BTreeMap, vec::Vec};

use bytemuck::Pod;

use crate::{
    layout::{self, EndpointCounters, RECENT_SYNS, Slot},
    packet::Packet,
    tables::{Counters, Tables},
    verdict::Reason,
};

/// A frame in a vector.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Frame {
    /// Its bytes, from the destination MAC address on.
    pub bytes: Vec<u8>,
    /// The index of the interface that it came in by.
    pub ingress: u32,
}

impl Packet for Frame {
    fn read<T: Pod>(&self, at: usize) -> Option<T> {
        let bytes = self.bytes.get(at..at.checked_add(size_of::<T>())?)?;
        Some(bytemuck::pod_read_unaligned(bytes))
    }

    fn write<T: Pod>(&mut self, at: usize, value: T) -> Option<()> {
        let bytes = self.bytes.get_mut(at..at.checked_add(size_of::<T>())?)?;
        bytes.copy_from_slice(bytemuck::bytes_of(&value));
        Some(())
    }

    fn length(&self) -> usize {
        self.bytes.len()
    }

    fn ingress(&self) -> u32 {
        self.ingress
    }
}

/// Tables in memory.
#[derive(Clone, Debug, Default)]
pub struct Memory {
    /// The current tables.
    pub tables: Option<Box<layout::Tables>>,
    /// The rings, by number; a short one answers `None` beyond its end.
    pub rings: BTreeMap<u32, Vec<Slot>>,
}

impl Tables for Memory {
    fn current(&self) -> Option<&layout::Tables> {
        self.tables.as_deref()
    }

    fn slot(&self, ring: u32, slot: u16) -> Option<Slot> {
        self.rings.get(&ring)?.get(usize::from(slot)).copied()
    }
}

/// Counters in memory.
#[derive(Clone, Debug)]
pub struct Tally {
    /// By endpoint number.
    pub endpoints: RefCell<BTreeMap<u16, EndpointCounters>>,
    /// By row and reason.
    pub exits: RefCell<BTreeMap<(u32, Reason), u64>>,
    recent: RefCell<Vec<u32>>,
}

impl Default for Tally {
    fn default() -> Self {
        Self {
            endpoints: RefCell::default(),
            exits: RefCell::default(),
            recent: RefCell::new(std::vec![0; RECENT_SYNS]),
        }
    }
}

impl Counters for Tally {
    fn forwarded(&self, endpoint: u16, bytes: usize, new_flow: bool) {
        let mut endpoints = self.endpoints.borrow_mut();
        let counters = endpoints.entry(endpoint).or_default();
        counters.packets += 1;
        counters.bytes += bytes as u64;
        counters.new_flows += u64::from(new_flow);
    }

    fn exit(&self, row: u32, reason: Reason) {
        *self.exits.borrow_mut().entry((row, reason)).or_default() += 1;
    }

    fn syn_seen(&self, place: usize, fingerprint: u32) -> bool {
        let mut recent = self.recent.borrow_mut();
        core::mem::replace(&mut recent[place], fingerprint) == fingerprint
    }
}
