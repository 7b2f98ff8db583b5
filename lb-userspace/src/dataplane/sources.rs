//! Lists of allowed and denied sources, all in one trie.
//!
//! No list is changed: one that differs is written under a number that no packet follows, the
//! tables that name it are published, and the old one is removed after that.

use std::{collections::BTreeMap, path::Path, sync::Arc};

use aya::maps::{
    MapData, MapError,
    lpm_trie::{Key, LpmTrie},
};
use lb_common::layout::SourceKey;

use super::{
    error::{Error, map_error},
    maps::open_pin,
};
use crate::balance::image::List;

type Words = [u32; 6];

/// The trie.
pub(super) struct Sources(LpmTrie<MapData, Words, u8>);

impl Sources {
    pub(super) fn open(pin: &Path) -> Result<Self, Error> {
        Ok(Self(open_pin(pin, LpmTrie::try_from)?))
    }

    /// Everything that the trie holds, by the number of the list.
    pub(super) fn read(&self) -> Result<BTreeMap<u32, Arc<List>>, Error> {
        let mut lists: BTreeMap<u32, List> = BTreeMap::new();
        for entry in &self.0 {
            let (key, allowed) = entry.map_err(map_error("read the lists of sources"))?;
            let key = from_trie(key);
            lists.entry(key.list).or_default().insert(key, allowed);
        }
        Ok(lists
            .into_iter()
            .map(|(number, list)| (number, Arc::new(list)))
            .collect())
    }

    /// Writes lists under numbers that no packet follows, and removes what an interrupted
    /// publication left there.
    pub(super) fn write<'a>(
        &mut self,
        lists: impl Iterator<Item = (u32, &'a List)>,
    ) -> Result<(), Error> {
        let lists: BTreeMap<u32, &List> = lists.collect();
        if lists.is_empty() {
            return Ok(());
        }
        self.remove_where(|key| {
            lists
                .get(&key.list)
                .is_some_and(|list| !list.contains_key(key))
        })?;
        for (key, allowed) in lists.into_values().flatten() {
            self.0
                .insert(&to_trie(key), allowed, 0)
                .map_err(map_error("write a list of sources"))?;
        }
        Ok(())
    }

    /// Removes the lists but for those with these numbers.
    pub(super) fn retain(&mut self, wanted: &BTreeMap<u32, Arc<List>>) -> Result<(), Error> {
        self.remove_where(|key| !wanted.contains_key(&key.list))
    }

    fn remove_where(&mut self, doomed: impl Fn(&SourceKey) -> bool) -> Result<(), Error> {
        let keys: Result<Vec<_>, MapError> = self.0.keys().collect();
        let keys = keys.map_err(map_error("read the lists of sources"))?;
        for key in keys.into_iter().filter(|key| doomed(&from_trie(*key))) {
            match self.0.remove(&key) {
                Ok(()) | Err(MapError::KeyNotFound) => {}
                Err(source) => return Err(map_error("remove a list of sources")(source)),
            }
        }
        Ok(())
    }
}

fn to_trie(key: &SourceKey) -> Key<Words> {
    let [a, b, c, d] = key.address;
    Key::new(key.prefix, [key.list, key.family, a, b, c, d])
}

fn from_trie(key: Key<Words>) -> SourceKey {
    let [list, family, address @ ..] = key.data();
    SourceKey {
        prefix: key.prefix_len(),
        list,
        family,
        address,
    }
}
