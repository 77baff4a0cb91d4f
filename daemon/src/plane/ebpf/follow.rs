//! Follows interfaces and addresses without loading programs anew, which takes long: where nothing else
//! of the tables changed, the maps in force are changed. Every entry says the old or the new at any
//! moment, never a third thing.

use super::attach::{self, Attached};
use super::generation::Generation;
use super::tables::Tables;
use super::{EbpfPlane, warn};
use crate::policy::image::{Change, Image};
use crate::policy::origin::Origin;
use crate::policy::port::ClassMask;
use anyhow::Context as _;
use aya::maps::Array;
use aya::maps::lpm_trie::{Key, LpmTrie};
use egressd_common::layout::{Entry, name};
use std::collections::BTreeMap;

impl EbpfPlane {
    /// Puts `image` in force, of which `tables` were made, if the generation in force needs only other
    /// interfaces and addresses for that; whether it did. If not, all must be made anew.
    pub(super) fn follow(&mut self, image: &Image, tables: &Tables) -> bool {
        let (Some(old), Some(mut current)) = (self.tables.take(), self.current.take()) else {
            return false;
        };
        // Made again under its index before anyone could tell.
        let lost = self.attached.values().any(Attached::is_dead);
        let followed =
            if is_near(&old, tables, lost) && current.is_of(image, self.options.nft_behind) {
                self.change(&mut current, image, (&old, tables))
                    .map(|()| true)
            } else {
                Ok(false)
            };
        self.current = Some(current);
        match followed {
            Ok(followed) => followed,
            Err(error) => {
                log::info!(target: "ebpf", "the maps are made anew: {error:#}");
                false
            }
        }
    }

    fn change(
        &mut self,
        current: &mut Generation,
        image: &Image,
        (old, new): (&Tables, &Tables),
    ) -> anyhow::Result<()> {
        current.hold(image)?;
        current.widen(old, new)?;
        self.put_in_force(new, current)?;
        warn(
            "detach left-over links",
            attach::sweep(&self.links_dir(), self.attached.values()).map(drop),
        );
        current.narrow(old, new)
    }
}

/// Whether interfaces and addresses differ (or a link is `lost`) and nothing else, and no entry of an
/// interface that both have. The same once more is asked for where something is wrong.
fn is_near(old: &Tables, new: &Tables, lost: bool) -> bool {
    let indices = |tables: &Tables| -> Vec<u32> { tables.interfaces.keys().copied().collect() };
    let other = lost
        || indices(old) != indices(new)
        || old.sources != new.sources
        || old.places != new.places
        || old.names() != new.names();
    let same = other
        && old.ports == new.ports
        && old.masks == new.masks
        && old.few_classes == new.few_classes
        && old.serves == new.serves
        && old.strangers == new.strangers
        && old.vlans == new.vlans
        && old.macs == new.macs;
    same && new.interfaces.iter().all(|(index, wanted)| {
        let before = old.interfaces.get(index);
        before.is_none_or(|before| before.slot == wanted.slot && before.entry == wanted.entry)
    })
}

impl Generation {
    /// Makes the learned grants those of `image`.
    fn hold(&mut self, image: &Image) -> anyhow::Result<()> {
        let mut held = self.read();
        let origins = image.origins.iter().copied();
        let origins = origins.chain(std::iter::repeat(Origin::default()));
        let mut changes = Vec::new();
        for (&(zone, address, now), origin) in image.grants.iter().zip(origins) {
            // Also where the mask is the same: it may come from elsewhere.
            changes.push(Change {
                zone,
                address,
                was: held.remove(&(zone, address)).unwrap_or_default(),
                now,
                origin,
            });
        }
        changes.extend(held.into_iter().map(|((zone, address), was)| Change {
            zone,
            address,
            was,
            now: ClassMask::NONE,
            origin: Origin::default(),
        }));
        let refused = self.apply(changes)?;
        anyhow::ensure!(refused.is_empty(), "{} addresses do not fit", refused.len());
        Ok(())
    }

    /// Enters what `new` has more than `old`, or otherwise.
    fn widen(&mut self, old: &Tables, new: &Tables) -> anyhow::Result<()> {
        let mut interfaces: Array<_, Entry> = self.map_mut(name::INTERFACES)?.try_into()?;
        for (index, wanted) in &new.interfaces {
            if !old.interfaces.contains_key(index) {
                interfaces.set(wanted.slot, wanted.entry, 0)?;
            }
        }
        self.put_all(
            name::SOURCES_V4,
            &difference(&old.sources.v4, &new.sources.v4).0,
        )?;
        self.put_all(
            name::SOURCES_V6,
            &difference(&old.sources.v6, &new.sources.v6).0,
        )?;
        // A place that no hint tells of would not be found.
        let hints = old.hints.iter().zip(&new.hints);
        let both =
            hints.map(|(old, new)| old.iter().zip(new).map(|(old, new)| old | new).collect());
        let both: Vec<Vec<u64>> = both.collect();
        for (map, (old, both)) in HINTS.into_iter().zip(old.hints.iter().zip(&both)) {
            self.put_words(map, old, both)?;
        }
        let (places, _) = difference(&old.places.v4, &new.places.v4);
        let valued = places.into_iter();
        let valued =
            valued.map(|(bits, data, place)| Ok((bits, data, self.place_value(data[0], place)?)));
        let valued = valued.collect::<anyhow::Result<Vec<_>>>()?;
        self.put_all(name::PLACES_V4, &valued)?;
        let (places, _) = difference(&old.places.v6, &new.places.v6);
        let valued = places.into_iter();
        let valued =
            valued.map(|(bits, data, place)| Ok((bits, data, self.place_value(data[0], place)?)));
        let valued = valued.collect::<anyhow::Result<Vec<_>>>()?;
        self.put_all(name::PLACES_V6, &valued)
    }

    /// Takes out what `new` has no more.
    fn narrow(&mut self, old: &Tables, new: &Tables) -> anyhow::Result<()> {
        self.take_all::<_, [u64; 2]>(
            name::PLACES_V4,
            &difference(&old.places.v4, &new.places.v4).1,
        )?;
        self.take_all::<_, [u64; 2]>(
            name::PLACES_V6,
            &difference(&old.places.v6, &new.places.v6).1,
        )?;
        let hints = old.hints.iter().zip(&new.hints);
        for (map, (old, new)) in HINTS.into_iter().zip(hints) {
            // After `widen` it holds both.
            let both: Vec<u64> = old.iter().zip(new).map(|(old, new)| old | new).collect();
            self.put_words(map, &both, new)?;
        }
        self.take_all::<_, u32>(
            name::SOURCES_V4,
            &difference(&old.sources.v4, &new.sources.v4).1,
        )?;
        self.take_all::<_, u32>(
            name::SOURCES_V6,
            &difference(&old.sources.v6, &new.sources.v6).1,
        )?;
        let mut interfaces: Array<_, Entry> = self.map_mut(name::INTERFACES)?.try_into()?;
        for (index, wanted) in &old.interfaces {
            let taken = new
                .interfaces
                .values()
                .any(|other| other.slot == wanted.slot);
            if !taken && !new.interfaces.contains_key(index) {
                interfaces.set(wanted.slot, Entry::default(), 0)?;
            }
        }
        Ok(())
    }

    fn put_all<K: aya::Pod, V: aya::Pod>(
        &mut self,
        map: &str,
        entries: &[(u32, K, V)],
    ) -> anyhow::Result<()> {
        let mut trie: LpmTrie<_, K, V> = self.map_mut(map)?.try_into()?;
        for (bits, data, value) in entries {
            let put = trie.insert(&Key::new(*bits, *data), value, 0);
            put.with_context(|| format!("no room in {map}"))?;
        }
        Ok(())
    }

    fn take_all<K: aya::Pod, V: aya::Pod>(
        &mut self,
        map: &str,
        keys: &[(u32, K)],
    ) -> anyhow::Result<()> {
        let mut trie: LpmTrie<_, K, V> = self.map_mut(map)?.try_into()?;
        for (bits, data) in keys {
            trie.remove(&Key::new(*bits, *data))?;
        }
        Ok(())
    }

    /// Writes the words that differ.
    fn put_words(&mut self, map: &str, old: &[u64], new: &[u64]) -> anyhow::Result<()> {
        let mut array: Array<_, u64> = self.map_mut(map)?.try_into()?;
        for (index, (old, new)) in (0..).zip(old.iter().zip(new)) {
            if old != new {
                array.set(index, new, 0)?;
            }
        }
        Ok(())
    }
}

const HINTS: [&str; 2] = [name::HINTS_V4, name::HINTS_V6];

/// What a trie is to be given, and what it is to lose.
type Difference<K, V> = (Vec<(u32, K, V)>, Vec<(u32, K)>);

/// From one list of prefixes to another: those that are new or say something else, and those that are
/// gone.
fn difference<K: Ord + Copy, V: PartialEq + Copy>(
    old: &[(u32, K, V)],
    new: &[(u32, K, V)],
) -> Difference<K, V> {
    let known = |list: &[(u32, K, V)]| -> BTreeMap<(u32, K), V> {
        list.iter()
            .map(|&(bits, data, value)| ((bits, data), value))
            .collect()
    };
    let (before, after) = (known(old), known(new));
    let put = after
        .iter()
        .filter(|(key, value)| before.get(key) != Some(value));
    let put = put.map(|(&(bits, data), &value)| (bits, data, value));
    let gone = before
        .keys()
        .filter(|key| !after.contains_key(key))
        .copied();
    (put.collect(), gone.collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn differences() {
        type List = [(u32, u8, char)];
        fn check(old: &List, new: &List, put: &List, gone: &[(u32, u8)]) {
            assert_eq!(difference(old, new), (put.to_vec(), gone.to_vec()));
        }
        check(&[], &[], &[], &[]);
        check(&[(1, 2, 'a')], &[(1, 2, 'a')], &[], &[]);
        check(&[(1, 2, 'a')], &[(1, 2, 'b')], &[(1, 2, 'b')], &[]);
        check(&[(1, 2, 'a')], &[(2, 2, 'a')], &[(2, 2, 'a')], &[(1, 2)]);
        check(&[(1, 2, 'a'), (1, 3, 'b')], &[(1, 3, 'b')], &[], &[(1, 2)]);
    }
}
