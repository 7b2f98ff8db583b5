//! What the decapsulator asks, in plain memory.

use std::{
    cell::RefCell,
    collections::{BTreeMap, BTreeSet},
};

use super::{AddressKey, SenderKey, Settings, VERSION, Verdict, World};

/// A host's settings, addresses, allowed senders and counters.
#[derive(Debug)]
pub struct Host {
    /// What the operator has set.
    pub settings: Option<Settings>,
    /// Its addresses.
    pub addresses: BTreeSet<AddressKey>,
    /// The prefixes of those who may send.
    pub senders: BTreeSet<SenderKey>,
    /// What became of how many frames.
    pub verdicts: RefCell<BTreeMap<Verdict, u64>>,
    /// The bytes of those that were unwrapped.
    pub bytes: RefCell<u64>,
}

impl Default for Host {
    fn default() -> Self {
        Self {
            settings: Some(Settings {
                version: VERSION,
                ..Settings::default()
            }),
            addresses: BTreeSet::new(),
            senders: BTreeSet::new(),
            verdicts: RefCell::default(),
            bytes: RefCell::default(),
        }
    }
}

impl World for Host {
    fn settings(&self) -> Option<Settings> {
        self.settings
    }

    fn has(&self, address: &AddressKey) -> bool {
        self.addresses.contains(address)
    }

    fn allows(&self, sender: &SenderKey) -> bool {
        let covers = |entry: &SenderKey| {
            let shift = 128 - entry.prefix.saturating_sub(32).min(128);
            // A shift by all bits leaves nothing to differ.
            let differs = number(entry) ^ number(sender);
            entry.family == sender.family && differs.checked_shr(shift).unwrap_or(0) == 0
        };
        self.senders.iter().any(covers)
    }

    fn count(&self, verdict: Verdict, bytes: usize) {
        *self.verdicts.borrow_mut().entry(verdict).or_default() += 1;
        if verdict == Verdict::Unwrapped {
            *self.bytes.borrow_mut() += bytes as u64;
        }
    }
}

/// The address of a prefix as a number, its first bit the highest.
fn number(key: &SenderKey) -> u128 {
    u128::from_be_bytes(bytemuck::cast(key.address))
}
