//! The decapsulator in the kernel of a backend: a program with maps and pins of its own.

pub mod host;

use std::{
    collections::BTreeSet,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    path::{Path, PathBuf},
};

use aya::{
    Ebpf, EbpfError, EbpfLoader,
    maps::{Array, HashMap, LpmTrie, Map, MapData, MapError, PerCpuArray, lpm_trie::Key},
    programs::{ProgramError, Xdp},
};
use ipnet::IpNet;
use lb_common::{
    decap::{self, AddressKey, Counters, SenderKey, Settings, flag, role},
    flow::{self, Address},
};

use crate::{
    dataplane::{
        DECAP_OBJECT,
        attach::{self, Attached, LINK, PROGRAM, Shape, Unloaded, Words, check_shape, kind},
        pins::{Pins, PinsError},
        sum,
    },
    model::XdpMode,
};

/// Why the decapsulator failed.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The folder of pins is not in a bpffs.
    #[error(
        "{} is not in a BPF file system: name a folder in one with --pins ('mount -t bpf bpf \
         /sys/fs/bpf' mounts one)",
        .0.display()
    )]
    NotBpffs(PathBuf),
    /// Another process holds the folder.
    #[error(
        "another 'evenkeel decap' holds {}: end it first, what it attached goes on without it",
        .0.display()
    )]
    Held(PathBuf),
    /// The folder of pins cannot be had.
    #[error(transparent)]
    Pins(PinsError),
    /// The object was not loaded.
    #[error("load the decapsulator: {0}")]
    Load(#[source] EbpfError),
    /// The program was refused.
    #[error("load the decapsulator: {0}")]
    Program(#[source] ProgramError),
    /// The program is not on its interfaces.
    #[error(transparent)]
    Attach(#[from] attach::Error),
    /// What is loaded is of another version.
    #[error(
        "{} holds a decapsulator of version {found}, this one is of version {}: run the evenkeel \
         that loaded it, or {UNLOAD}",
        path.display(), decap::VERSION
    )]
    OtherVersion {
        /// The folder of pins.
        path: PathBuf,
        /// What its settings say.
        found: u32,
    },
    /// A map could not be opened, read or written.
    #[error("{action}: {source}")]
    Map {
        /// What was tried.
        action: &'static str,
        /// Why it failed.
        #[source]
        source: MapError,
    },
}

impl From<PinsError> for Error {
    fn from(error: PinsError) -> Self {
        match error {
            PinsError::NotBpffs(path) => Self::NotBpffs(path),
            PinsError::Held(path) => Self::Held(path),
            error @ PinsError::Io { .. } => Self::Pins(error),
        }
    }
}

const UNLOAD: &str = "'evenkeel decap --detach', which interrupts decapsulation";

const WORDS: Words = Words {
    interfaces: "--interface",
    generic: "--xdp-mode generic",
    unload: UNLOAD,
};

const MAPS: [Shape; 4] = [
    ("SETTINGS", kind::ARRAY, size_of::<Settings>(), 1),
    ("SENDERS", kind::LPM_TRIE, 1, decap::SENDERS),
    ("ADDRESSES", kind::HASH, 1, decap::ADDRESSES),
    ("COUNTERS", kind::PER_CPU_ARRAY, size_of::<Counters>(), 1),
];

/// Who may send.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Senders {
    /// Whoever reaches this host.
    Any,
    /// Who is in one of these prefixes.
    Of(BTreeSet<IpNet>),
}

/// What becomes of tunnel packets of other senders.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Others {
    /// They are dropped.
    Drop,
    /// They go to the stack as they are: to another tunnel of this host.
    Pass,
}

/// What the decapsulator goes by.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rules {
    /// Who may send.
    pub senders: Senders,
    /// What becomes of what others send.
    pub others: Others,
    /// Where tunnels end: addresses of this host.
    pub ends: BTreeSet<IpAddr>,
    /// What packets inside may be addressed to; anything where it is empty.
    pub vips: BTreeSet<IpAddr>,
    /// The UDP port of GUE; zero leaves UDP alone.
    pub gue_port: u16,
}

/// The loaded program with its maps.
pub struct Decap {
    pins: Pins,
    object: Ebpf,
    maps: Maps,
}

impl Decap {
    /// Loads the program onto the pinned maps, making those that are missing. Nothing is
    /// attached yet.
    ///
    /// # Errors
    /// Where the folder of pins cannot be had, the kernel refuses, or pins are of another layout.
    pub fn open(folder: &Path) -> Result<Self, Error> {
        let pins = Pins::open(folder)?;
        let mut loader = EbpfLoader::new();
        for shape in &MAPS {
            let path = pins.path(shape.0);
            if path.exists() {
                check_shape(&path, shape, &WORDS)?;
            }
            loader.map_pin_path(shape.0, path);
        }
        let mut object = loader.load(DECAP_OBJECT).map_err(Error::Load)?;
        program(&mut object)?.load().map_err(Error::Program)?;
        let maps = Maps::open(folder)?;
        let found = maps.settings()?.version;
        // Nothing was written yet where it is zero.
        if found != 0 && found != decap::VERSION {
            return Err(Error::OtherVersion {
                path: folder.to_owned(),
                found,
            });
        }
        Ok(Self { pins, object, maps })
    }

    /// Puts rules in force. What both the old and the new ones let through is let through all the
    /// while.
    ///
    /// # Errors
    /// Where the kernel does not take them.
    pub fn apply(&mut self, rules: &Rules) -> Result<(), Error> {
        self.maps.apply(rules)
    }

    /// Attaches the program, or puts it in the place of an earlier process's without a gap.
    ///
    /// Links to other interfaces are removed.
    ///
    /// # Errors
    /// Where an interface is missing or the kernel refuses; interfaces before it stay attached.
    pub fn attach(&mut self, interfaces: &[String], mode: XdpMode) -> Result<Vec<Attached>, Error> {
        let program = program(&mut self.object)?;
        Ok(attach::attach(
            program, &self.pins, interfaces, mode, &WORDS,
        )?)
    }

    /// What became of how many frames, over all CPUs.
    ///
    /// # Errors
    /// Where the kernel does not answer.
    pub fn counters(&self) -> Result<Counters, Error> {
        self.maps.counters()
    }

    /// The loaded program, to run it on test packets.
    ///
    /// # Errors
    /// Never, unless the object lacks its program.
    pub fn program(&mut self) -> Result<&mut Xdp, Error> {
        program(&mut self.object)
    }
}

/// What is loaded, as its pins tell.
#[derive(Clone, Debug)]
pub struct Loaded {
    /// The indices of the interfaces that it is attached to.
    pub interfaces: Vec<u32>,
    /// What it goes by.
    pub rules: Rules,
    /// What became of how many frames.
    pub counters: Counters,
}

/// Checks that there are interfaces of these names.
///
/// # Errors
/// Where there is none.
pub fn exist(interfaces: &[String]) -> Result<(), Error> {
    for name in interfaces {
        attach::interface_index(name, &WORDS)?;
    }
    Ok(())
}

/// Looks at what is loaded, whoever holds it; `None` where nothing is.
///
/// # Errors
/// Where the folder cannot be read or the kernel does not answer.
pub fn look(folder: &Path) -> Result<Option<Loaded>, Error> {
    let Some(names) = Pins::look(folder)? else {
        return Ok(None);
    };
    if !names.iter().any(|name| name == PROGRAM) {
        return Ok(None);
    }
    let maps = Maps::open(folder)?;
    let interfaces = names
        .iter()
        .filter_map(|name| name.strip_prefix(LINK)?.parse().ok());
    Ok(Some(Loaded {
        interfaces: interfaces.collect(),
        rules: maps.rules()?,
        counters: maps.counters()?,
    }))
}

/// Detaches the program and removes everything pinned, which interrupts decapsulation.
///
/// `None` where nothing was loaded.
///
/// # Errors
/// Where another process holds the folder, or the system refuses.
pub fn unload(folder: &Path) -> Result<Option<Unloaded>, Error> {
    let Some(pins) = Pins::existing(folder)? else {
        return Ok(None);
    };
    let is_map = |name: &str| MAPS.iter().any(|shape| shape.0 == name);
    Ok(Some(attach::unload(pins, is_map)?))
}

fn program(object: &mut Ebpf) -> Result<&mut Xdp, Error> {
    object
        .program_mut("unwrap")
        .ok_or_else(|| Error::Program(ProgramError::NotLoaded))?
        .try_into()
        .map_err(Error::Program)
}

/// The pinned maps.
struct Maps {
    settings: Array<MapData, u64>,
    senders: LpmTrie<MapData, [u32; 5], u8>,
    addresses: HashMap<MapData, [u32; 5], u8>,
    counters: PerCpuArray<MapData, Counters>,
}

impl Maps {
    fn open(folder: &Path) -> Result<Self, Error> {
        Ok(Self {
            settings: pinned(folder, "SETTINGS", Array::try_from)?,
            senders: pinned(folder, "SENDERS", LpmTrie::try_from)?,
            addresses: pinned(folder, "ADDRESSES", HashMap::try_from)?,
            counters: pinned(folder, "COUNTERS", PerCpuArray::try_from)?,
        })
    }

    fn settings(&self) -> Result<Settings, Error> {
        let settings = self.settings.get(&0, 0);
        settings
            .map(bytemuck::cast)
            .map_err(map_error("read the settings"))
    }

    fn counters(&self) -> Result<Counters, Error> {
        let values = self
            .counters
            .get(&0, 0)
            .map_err(map_error("read the counters"))?;
        Ok(sum(values.iter()))
    }

    /// First what is new, then the settings, then what is old: the tables always hold what the
    /// settings go by.
    fn apply(&mut self, rules: &Rules) -> Result<(), Error> {
        let (senders, addresses) = (rules.sender_keys(), rules.address_keys());
        let (old_senders, old_addresses) = (self.sender_keys()?, self.address_keys()?);
        for key in senders.difference(&old_senders) {
            self.senders
                .insert(&trie_key(key), 1, 0)
                .map_err(map_error("allow a sender"))?;
        }
        for key in addresses.difference(&old_addresses) {
            self.addresses
                .insert(bytemuck::cast_ref::<_, [u32; 5]>(key), 1, 0)
                .map_err(map_error("add an address"))?;
        }
        let settings: u64 = bytemuck::cast(rules.settings());
        self.settings
            .set(0, settings, 0)
            .map_err(map_error("write the settings"))?;
        for key in old_senders.difference(&senders) {
            self.senders
                .remove(&trie_key(key))
                .map_err(map_error("forget a sender"))?;
        }
        for key in old_addresses.difference(&addresses) {
            self.addresses
                .remove(bytemuck::cast_ref::<_, [u32; 5]>(key))
                .map_err(map_error("forget an address"))?;
        }
        Ok(())
    }

    fn sender_keys(&self) -> Result<BTreeSet<SenderKey>, Error> {
        let keys = self.senders.keys().map(|key| {
            key.map(|key| {
                let [family, a, b, c, d] = key.data();
                SenderKey {
                    prefix: key.prefix_len(),
                    family,
                    address: [a, b, c, d],
                }
            })
        });
        keys.collect::<Result<_, _>>()
            .map_err(map_error("list the senders"))
    }

    fn address_keys(&self) -> Result<BTreeSet<AddressKey>, Error> {
        let keys = self.addresses.keys();
        keys.map(|key| key.map(bytemuck::cast))
            .collect::<Result<_, _>>()
            .map_err(map_error("list the addresses"))
    }

    fn rules(&self) -> Result<Rules, Error> {
        let settings = self.settings()?;
        let addresses = self.address_keys()?;
        let with = |role: u8| {
            let keys = addresses.iter().filter(|key| key.role == role);
            keys.map(|key| ip(key.address, key.family)).collect()
        };
        let senders = if settings.flags & flag::ANY_SENDER == 0 {
            Senders::Of(self.sender_keys()?.iter().filter_map(prefix).collect())
        } else {
            Senders::Any
        };
        let others = if settings.flags & flag::PASS_OTHERS == 0 {
            Others::Drop
        } else {
            Others::Pass
        };
        Ok(Rules {
            senders,
            others,
            ends: with(role::TUNNEL),
            vips: with(role::VIP),
            gue_port: u16::from_be(settings.gue_port),
        })
    }
}

impl Rules {
    fn settings(&self) -> Settings {
        let mut flags = 0;
        if self.senders == Senders::Any {
            flags |= flag::ANY_SENDER;
        }
        if self.others == Others::Pass {
            flags |= flag::PASS_OTHERS;
        }
        if !self.vips.is_empty() {
            flags |= flag::VIPS;
        }
        Settings {
            version: decap::VERSION,
            gue_port: self.gue_port.to_be(),
            flags,
        }
    }

    fn sender_keys(&self) -> BTreeSet<SenderKey> {
        let Senders::Of(prefixes) = &self.senders else {
            return BTreeSet::new();
        };
        prefixes
            .iter()
            .map(|prefix| {
                let (address, family) = words(prefix.network());
                SenderKey::new(address, family, u32::from(prefix.prefix_len()))
            })
            .collect()
    }

    fn address_keys(&self) -> BTreeSet<AddressKey> {
        let key = |role| {
            move |address: &IpAddr| {
                let (address, family) = words(*address);
                AddressKey::new(address, family, role)
            }
        };
        let ends = self.ends.iter().map(key(role::TUNNEL));
        ends.chain(self.vips.iter().map(key(role::VIP))).collect()
    }
}

fn trie_key(key: &SenderKey) -> Key<[u32; 5]> {
    let [a, b, c, d] = key.address;
    Key::new(key.prefix, [key.family, a, b, c, d])
}

/// An address as the tables hold it, with its family.
fn words(address: IpAddr) -> (Address, u8) {
    match address {
        IpAddr::V4(v4) => (flow::v4(u32::from_ne_bytes(v4.octets())), flow::V4),
        IpAddr::V6(v6) => (bytemuck::cast(v6.octets()), flow::V6),
    }
}

fn ip(address: Address, family: u8) -> IpAddr {
    if family == flow::V4 {
        Ipv4Addr::from(address[3].to_ne_bytes()).into()
    } else {
        Ipv6Addr::from(bytemuck::cast::<_, [u8; 16]>(address)).into()
    }
}

fn prefix(key: &SenderKey) -> Option<IpNet> {
    let family = key.family as u8;
    let address = if family == flow::V4 {
        flow::v4(key.address[0])
    } else {
        key.address
    };
    let bits = u8::try_from(key.prefix.checked_sub(32)?).ok()?;
    IpNet::new(ip(address, family), bits).ok()
}

fn pinned<M>(
    folder: &Path,
    name: &str,
    kind: impl Fn(Map) -> Result<M, MapError>,
) -> Result<M, Error> {
    MapData::from_pin(folder.join(name))
        .and_then(Map::from_map_data)
        .and_then(kind)
        .map_err(map_error("open a pinned map"))
}

fn map_error(action: &'static str) -> impl Fn(MapError) -> Error {
    move |source| Error::Map { action, source }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rules_become_keys_and_come_back() {
        for text in [
            "10.0.9.0/24",
            "0.0.0.0/0",
            "192.0.2.1/32",
            "fd00:9::/32",
            "::/0",
        ] {
            let net: IpNet = text.parse().unwrap();
            let (address, family) = words(net.network());
            let key = SenderKey::new(address, family, u32::from(net.prefix_len()));
            assert_eq!(prefix(&key), Some(net));
            assert_eq!(ip(address, family), net.network());
        }
    }
}
