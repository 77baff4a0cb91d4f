//! PURE: the table of learned grants of one family, as `egressd_common::grants` lays it out, in
//! whatever memory. A reader beside finds an entry that is here whole or, while it comes or goes, not
//! at all; an entry that only moves it finds throughout.

use egressd_common::address::{V4, V6};
use egressd_common::grants::{self, Found, Granted, Seed, said, says, says_v6, words_v6};
use std::marker::PhantomData;
use std::sync::atomic::{AtomicU64, Ordering};

/// Words in a bucket.
const BUCKET: usize = 8;

/// How many entries may have to move to make room for one.
const MOVES: usize = 5;

/// What an entry holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Held<A> {
    pub(super) zone: u8,
    pub(super) address: A,
    /// Never 0.
    pub(super) kind: u16,
    /// The tick in which a packet last used it.
    pub(super) used: u16,
}

/// An address whose entries can be written.
pub(super) trait Entry: Granted + Eq {
    /// What is in a slot of `bucket`, if it is not free.
    fn load(bucket: &[AtomicU64], slot: usize) -> Option<Held<Self>>;

    /// Fills a free slot.
    fn store(bucket: &[AtomicU64], slot: usize, held: Held<Self>);

    /// Gives an entry another kind.
    fn change(bucket: &[AtomicU64], slot: usize, zone: u8, kind: u16);

    /// Frees a slot.
    fn clear(bucket: &[AtomicU64], slot: usize);

    /// The slot of an entry.
    fn slot(found: Found) -> usize;
}

/// Replaces 16 bits of a word that programs may write another part of at the same time.
fn set(word: &AtomicU64, shift: u32, halfword: u16) {
    let with = |old: u64| Some(old & !(0xffff << shift) | u64::from(halfword) << shift);
    let updated = word.fetch_update(Ordering::AcqRel, Ordering::Acquire, with);
    debug_assert!(updated.is_ok(), "the closure always gives a value");
}

impl Entry for V4 {
    fn load(bucket: &[AtomicU64], slot: usize) -> Option<Held<Self>> {
        let word = bucket[slot].load(Ordering::Acquire);
        let (zone, kind) = said((word >> 32) as u16);
        (kind != 0).then_some(Held {
            zone,
            address: [word as u32],
            kind,
            used: (word >> 48) as u16,
        })
    }

    fn store(bucket: &[AtomicU64], slot: usize, held: Held<Self>) {
        let says = says(held.zone, held.kind);
        let entry = grants::entry_v4(held.address, says, held.used);
        bucket[slot].store(entry, Ordering::Release);
    }

    fn change(bucket: &[AtomicU64], slot: usize, zone: u8, kind: u16) {
        set(&bucket[slot], 32, says(zone, kind));
    }

    fn clear(bucket: &[AtomicU64], slot: usize) {
        bucket[slot].store(0, Ordering::Release);
    }

    fn slot(found: Found) -> usize {
        found.used_at / 4
    }
}

impl Entry for V6 {
    fn load(bucket: &[AtomicU64], slot: usize) -> Option<Held<Self>> {
        let (at, shift) = says_v6(slot);
        let word = bucket[at].load(Ordering::Acquire) >> shift;
        let (zone, kind) = said(word as u16);
        if kind == 0 {
            return None;
        }
        let [high, low] = [2 * slot, 2 * slot + 1].map(|at| bucket[at].load(Ordering::Acquire));
        let address = [
            high as u32,
            (high >> 32) as u32,
            low as u32,
            (low >> 32) as u32,
        ];
        Some(Held {
            zone,
            address,
            kind,
            used: (word >> 16) as u16,
        })
    }

    fn store(bucket: &[AtomicU64], slot: usize, held: Held<Self>) {
        let [high, low] = words_v6(held.address);
        bucket[2 * slot].store(high, Ordering::Release);
        bucket[2 * slot + 1].store(low, Ordering::Release);
        let (at, shift) = says_v6(slot);
        set(&bucket[at], shift + 16, held.used);
        set(&bucket[at], shift, says(held.zone, held.kind));
    }

    fn change(bucket: &[AtomicU64], slot: usize, zone: u8, kind: u16) {
        let (at, shift) = says_v6(slot);
        set(&bucket[at], shift, says(zone, kind));
    }

    fn clear(bucket: &[AtomicU64], slot: usize) {
        let (at, shift) = says_v6(slot);
        set(&bucket[at], shift, 0);
    }

    fn slot(found: Found) -> usize {
        // Words 6 and 7, two entries to each.
        (found.used_at - 6 * 4) / 2
    }
}

/// A table.
#[derive(Debug)]
pub(super) struct Table<A, M> {
    memory: M,
    seed: Seed,
    count: u32,
    family: PhantomData<A>,
}

/// The table has no room for an entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Full;

impl<A: Entry, M: AsRef<[AtomicU64]>> Table<A, M> {
    /// The table in `memory`, whole buckets of zeros.
    pub(super) fn new(memory: M, seed: Seed) -> Self {
        let count = u32::try_from(memory.as_ref().len() / BUCKET).unwrap_or(u32::MAX);
        Self {
            memory,
            seed,
            count,
            family: PhantomData,
        }
    }

    /// A key's hash, for the filter before this table too.
    pub(super) fn hash(&self, zone: u8, address: A) -> u64 {
        address.hash(zone, self.seed)
    }

    /// The entry of a key.
    pub(super) fn get(&self, zone: u8, address: A) -> Option<Held<A>> {
        let (bucket, slot) = self.find(zone, address)?;
        A::load(self.bucket(bucket), slot)
    }

    /// Adds a key that is not here.
    pub(super) fn insert(&self, held: Held<A>) -> Result<(), Full> {
        let (bucket, slot) = self.room_for(held.zone, held.address).ok_or(Full)?;
        A::store(self.bucket(bucket), slot, held);
        Ok(())
    }

    /// Gives the entry of a key another kind; the one it had, or `None` where there is no entry.
    pub(super) fn change(&self, zone: u8, address: A, kind: u16) -> Option<u16> {
        let (bucket, slot) = self.find(zone, address)?;
        let was = A::load(self.bucket(bucket), slot)?.kind;
        A::change(self.bucket(bucket), slot, zone, kind);
        Some(was)
    }

    /// Removes the entry of a key; the kind it had, or `None` where there is no entry.
    pub(super) fn remove(&self, zone: u8, address: A) -> Option<u16> {
        let (bucket, slot) = self.find(zone, address)?;
        let was = A::load(self.bucket(bucket), slot)?.kind;
        A::clear(self.bucket(bucket), slot);
        Some(was)
    }

    /// Every entry.
    pub(super) fn iter(&self) -> impl Iterator<Item = Held<A>> {
        let buckets = self.memory.as_ref().chunks_exact(BUCKET);
        buckets.flat_map(|bucket| (0..A::SLOTS).filter_map(|slot| A::load(bucket, slot)))
    }

    fn bucket(&self, number: u32) -> &[AtomicU64] {
        &self.memory.as_ref()[number as usize * BUCKET..][..BUCKET]
    }

    fn choices(&self, zone: u8, address: A) -> [u32; 2] {
        let hash = self.hash(zone, address);
        [
            grants::first(hash, self.count),
            grants::second(hash, self.count),
        ]
    }

    fn find(&self, zone: u8, address: A) -> Option<(u32, usize)> {
        self.choices(zone, address).into_iter().find_map(|number| {
            let bucket = self.bucket(number);
            let word = |at: usize| bucket[at].load(Ordering::Acquire);
            let found = address.find(zone, word).filter(|found| found.kind != 0)?;
            Some((number, A::slot(found)))
        })
    }

    fn free(&self, number: u32) -> Option<usize> {
        let bucket = self.bucket(number);
        (0..A::SLOTS).find(|slot| A::load(bucket, *slot).is_none())
    }

    fn room_for(&self, zone: u8, address: A) -> Option<(u32, usize)> {
        let choices = self.choices(zone, address);
        if let Some(found) = choices
            .into_iter()
            .find_map(|number| Some((number, self.free(number)?)))
        {
            return Some(found);
        }
        choices
            .into_iter()
            .find_map(|number| Some((number, self.make_room(number, MOVES)?)))
    }

    /// Frees a slot of a full bucket: an entry that is there by its first choice goes to its second.
    /// Never the other way: a reader that looked at the first in vain would no longer find it at the
    /// second.
    fn make_room(&self, number: u32, moves: usize) -> Option<usize> {
        let movable = |slot: usize| {
            let held = A::load(self.bucket(number), slot)?;
            let [first, second] = self.choices(held.zone, held.address);
            (first == number && second != number).then_some((held, second))
        };
        let mut any = (0..A::SLOTS).filter_map(|slot| Some((slot, movable(slot)?)));
        if let Some((slot, (held, there, free))) =
            any.find_map(|(slot, (held, there))| Some((slot, (held, there, self.free(there)?))))
        {
            A::store(self.bucket(there), free, held);
            A::clear(self.bucket(number), slot);
            return Some(slot);
        }
        if moves == 0 {
            return None;
        }
        (0..A::SLOTS).find_map(|slot| {
            let (held, there) = movable(slot)?;
            let free = self.make_room(there, moves - 1)?;
            // Making room there may have moved what is here.
            if A::load(self.bucket(number), slot).map(|now| (now.zone, now.address))
                != Some((held.zone, held.address))
            {
                return None;
            }
            A::store(self.bucket(there), free, held);
            A::clear(self.bucket(number), slot);
            Some(slot)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use egressd_common::address::{v4, v6};
    use std::collections::BTreeMap;

    const SEED: Seed = Seed {
        add: 0x0123_4567_89ab_cdef,
        multiply: 0xd6e8_feb8_6659_fd93,
    };

    fn table<A: Entry>(learned: u32) -> Table<A, Vec<AtomicU64>> {
        let words = grants::buckets(learned, A::SLOTS) as usize * BUCKET;
        Table::new((0..words).map(|_| AtomicU64::new(0)).collect(), SEED)
    }

    fn address_v4(n: u32) -> V4 {
        v4((0x3400_0000 + n.wrapping_mul(2_654_435_761) % 0x00ff_ffff)
            .to_be_bytes()
            .into())
    }

    fn address_v6(n: u32) -> V6 {
        v6((0x2603_1000_u128 << 96 | u128::from(n)).into())
    }

    /// As many as `learned` says fit, always; each is found, no other is.
    fn fills<A: Entry + std::fmt::Debug>(learned: u32, address: fn(u32) -> A) {
        let table = table::<A>(learned);
        let held = |n: u32| Held {
            zone: (n % 3) as u8,
            address: address(n / 3),
            kind: 1 + (n % 1000) as u16,
            used: n as u16,
        };
        for n in 0..learned {
            assert_eq!(table.insert(held(n)), Ok(()), "{n} of {learned}");
        }
        for n in 0..learned {
            let expected = held(n);
            assert_eq!(table.get(expected.zone, expected.address), Some(expected));
            assert_eq!(table.get(3, expected.address), None);
        }
        assert_eq!(table.iter().count(), learned as usize);
        for n in (0..learned).step_by(2) {
            let gone = held(n);
            assert_eq!(table.remove(gone.zone, gone.address), Some(gone.kind));
        }
        for n in 0..learned {
            let expected = held(n);
            let got = table.get(expected.zone, expected.address);
            assert_eq!(got, (n % 2 == 1).then_some(expected));
        }
    }

    #[test]
    fn there_is_room_for_as_many_as_promised() {
        for learned in [1, 10, 100, 1000, 131_072] {
            fills(learned, address_v4);
            fills(learned, address_v6);
        }
    }

    #[test]
    fn a_full_table_refuses_and_loses_nothing() {
        let table = table::<V6>(1);
        let most = (0..1000)
            .take_while(|n| {
                let held = Held {
                    zone: 1,
                    address: address_v6(*n),
                    kind: 7,
                    used: 0,
                };
                table.insert(held) == Ok(())
            })
            .count();
        assert!((15..=30).contains(&most), "{most}");
        for n in 0..most {
            assert!(table.get(1, address_v6(n as u32)).is_some());
        }
    }

    /// A long random walk agrees with an ordered map.
    fn walk<A: Entry + Ord + std::fmt::Debug>(address: fn(u32) -> A) {
        let table = table::<A>(300);
        let mut expected: BTreeMap<(u8, A), u16> = BTreeMap::new();
        let mut dice = 0x9e37_79b9_7f4a_7c15_u64;
        for step in 0..200_000 {
            dice ^= dice << 13;
            dice ^= dice >> 7;
            dice ^= dice << 17;
            let key = ((dice >> 8) as u8 % 2, address((dice >> 16) as u32 % 160));
            let kind = 1 + (dice >> 40) as u16 % 5;
            let was = expected.get(&key).copied();
            if dice.is_multiple_of(3) {
                assert_eq!(table.remove(key.0, key.1), was, "step {step}");
                expected.remove(&key);
            } else {
                let changed = table.change(key.0, key.1, kind);
                assert_eq!(changed, was, "step {step}");
                if changed.is_none() {
                    let (zone, address) = key;
                    let held = Held {
                        zone,
                        address,
                        kind,
                        used: 9,
                    };
                    assert_eq!(table.insert(held), Ok(()), "step {step}");
                }
                expected.insert(key, kind);
            }
        }
        let got: BTreeMap<_, _> = table
            .iter()
            .map(|held| ((held.zone, held.address), held.kind))
            .collect();
        assert_eq!(got, expected);
        assert!(table.iter().all(|held| held.used == 9));
    }

    #[test]
    fn whatever_the_order_the_table_holds_what_it_was_told() {
        walk(address_v4);
        walk(address_v6);
    }

    /// What programs see while entries around it come, go and move: an entry that stays is always
    /// found, and never with what was never said of it.
    fn beside_a_reader<A: Entry + Send + Sync>(address: fn(u32) -> A) {
        let table = table::<A>(60);
        let held = |n: u32| Held {
            zone: 1,
            address: address(n),
            kind: n as u16 + 1,
            used: 0,
        };
        table.insert(held(0)).unwrap();
        let program = |n: u32| {
            table.choices(1, address(n)).into_iter().find_map(|number| {
                let bucket = table.bucket(number);
                let word = |at: usize| bucket[at].load(Ordering::Acquire);
                address(n).find(1, word).map(|found| found.kind)
            })
        };
        let done = std::sync::atomic::AtomicBool::new(false);
        std::thread::scope(|scope| {
            let reader = scope.spawn(|| {
                let mut looks = 0u64;
                while !done.load(Ordering::Acquire) || looks == 0 {
                    assert_eq!(program(0), Some(1));
                    for n in 1..70 {
                        let kind = program(n);
                        assert!(
                            kind.is_none_or(|kind| kind == n as u16 + 1),
                            "{n}: {kind:?}"
                        );
                    }
                    looks += 1;
                }
                looks
            });
            for round in 0..2000u32 {
                for n in 1..70 {
                    // Some do not fit: that is the point.
                    if table.insert(held(n)).is_err() {
                        break;
                    }
                }
                for n in (1..70).filter(|n| (n + round) % 2 == 0) {
                    table.remove(1, address(n));
                }
                for n in 1..70 {
                    table.remove(1, address(n));
                }
            }
            done.store(true, Ordering::Release);
            assert!(reader.join().unwrap() > 0);
        });
    }

    #[test]
    fn a_reader_beside_finds_entries_whole() {
        beside_a_reader(address_v4);
        beside_a_reader(address_v6);
    }
}
