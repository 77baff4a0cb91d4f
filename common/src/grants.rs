//! How learned grants lie in the kernel: a hash table of ours in the memory of an array map, which
//! user space writes as memory and the programs read in place. One lookup is one cache line.
//!
//! A key is in the bucket of its first choice or, where that was full, of its second. Each bucket is
//! a line of 64 bytes: eight IPv4 addresses or three IPv6 addresses with what they grant. What an
//! address grants is a *kind*, an index into a table of masks.

use crate::address::{V4, V6};

/// A cache line.
pub type Bucket = [u64; 8];

/// How many kinds there can be; kind 0 grants nothing, and an entry of it is free.
pub const KINDS: usize = 1024;

/// Secret numbers of one generation, so that nobody can choose addresses that share buckets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Seed {
    /// Any number.
    pub add: u64,
    /// An odd number.
    pub multiply: u64,
}

/// An address of a family that has a table.
pub trait Granted: Copy {
    /// Entries in a bucket.
    const SLOTS: usize;

    /// The hash of a zone and this address.
    fn hash(&self, zone: u8, seed: Seed) -> u64;

    /// Where in a bucket, read a word at a time by `word`, the entry of `zone` and this address is.
    ///
    /// An entry that user space writes at the same time is found whole or not at all: an IPv4 entry
    /// is one word; an IPv6 entry has its kind written last and taken away first, and is believed only
    /// if it says the same after its address was read as before, and the first half of that as well.
    /// This takes a processor that shows others' stores in their order, as x86-64 does.
    fn find(&self, zone: u8, word: impl Fn(usize) -> u64) -> Option<Found>;
}

/// An entry, as a program finds it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Found {
    /// Which of the bucket's halfwords, in the order of memory, holds `used`.
    pub used_at: usize,
    /// When the entry was last used, see [`tick`].
    pub used: u16,
    /// Its kind.
    pub kind: u16,
}

/// Bits of a zone's number, below those of the kind.
const ZONE_BITS: u32 = 6;
const ZONE: u64 = (1 << ZONE_BITS) - 1;

/// What an entry says besides its address: kind and zone.
#[must_use]
#[inline(always)]
pub const fn says(zone: u8, kind: u16) -> u16 {
    kind << ZONE_BITS | (zone as u16 & ZONE as u16)
}

/// The zone and the kind that [`says`] put together.
#[must_use]
#[inline(always)]
pub const fn said(says: u16) -> (u8, u16) {
    ((says & ZONE as u16) as u8, says >> ZONE_BITS)
}

/// An IPv4 entry: address, then [`says`], then the time of the last use.
#[must_use]
#[inline(always)]
pub const fn entry_v4(address: V4, says: u16, used: u16) -> u64 {
    address[0] as u64 | (says as u64) << 32 | (used as u64) << 48
}

/// The two words of an IPv6 address.
#[must_use]
#[inline(always)]
pub const fn words_v6([a, b, c, d]: V6) -> [u64; 2] {
    [a as u64 | (b as u64) << 32, c as u64 | (d as u64) << 32]
}

/// The word that holds what the IPv6 entry in `slot` says, and how far left it is shifted there: 16
/// bits of [`says`], then 16 bits of the time of the last use. The addresses fill the words before.
#[must_use]
#[inline(always)]
pub const fn says_v6(slot: usize) -> (usize, u32) {
    (6 + slot / 2, 32 * (slot as u32 % 2))
}

/// Three rounds, after which every bit of `word` is in both halves of the hash: after two, words that
/// differ in their highest bits alone still shared their second choices.
#[inline(always)]
const fn mix(word: u64, seed: Seed) -> u64 {
    let hash = (word ^ seed.add).wrapping_mul(seed.multiply);
    let hash = (hash ^ hash >> 32).wrapping_mul(0xd6e8_feb8_6659_fd93);
    let hash = (hash ^ hash >> 29).wrapping_mul(seed.multiply);
    hash ^ hash >> 32
}

impl Granted for V4 {
    const SLOTS: usize = 8;

    #[inline(always)]
    fn hash(&self, zone: u8, seed: Seed) -> u64 {
        mix(self[0] as u64 | (zone as u64) << 32, seed)
    }

    #[inline(always)]
    fn find(&self, zone: u8, word: impl Fn(usize) -> u64) -> Option<Found> {
        let key = entry_v4(*self, says(zone, 0), 0);
        // Address and zone are the lowest bits.
        let above = 64 - 32 - ZONE_BITS;
        for slot in 0..Self::SLOTS {
            let entry = word(slot);
            if (entry ^ key) << above == 0 {
                return Some(Found {
                    used_at: 4 * slot + 3,
                    used: (entry >> 48) as u16,
                    kind: said((entry >> 32) as u16).1,
                });
            }
        }
        None
    }
}

impl Granted for V6 {
    const SLOTS: usize = 3;

    #[inline(always)]
    fn hash(&self, zone: u8, seed: Seed) -> u64 {
        let [high, low] = words_v6(*self);
        // What bits of `high` do to the outcome must take the secrets to know, else whoever answers
        // can cancel it with bits of `low`: one product moves its highest bit by the highest alone.
        let add = (zone as u64)
            .wrapping_mul(seed.multiply)
            .wrapping_add(seed.add);
        let hash = (high ^ add).wrapping_mul(seed.multiply);
        let hash = (hash ^ hash >> 32).wrapping_mul(seed.multiply);
        mix(hash ^ hash >> 32 ^ low, seed)
    }

    #[inline(always)]
    fn find(&self, zone: u8, word: impl Fn(usize) -> u64) -> Option<Found> {
        let [high, low] = words_v6(*self);
        for slot in 0..Self::SLOTS {
            let (at, shift) = says_v6(slot);
            let mut before = word(at) >> shift;
            // Once more where an entry is given another kind just now.
            for _ in 0..2 {
                let (of, kind) = said(before as u16);
                // A free slot still has its last address.
                if kind == 0 || of != zone || word(2 * slot) != high || word(2 * slot + 1) != low {
                    break;
                }
                let is_same = word(2 * slot) == high;
                let after = word(at) >> shift;
                if is_same && after as u16 == before as u16 {
                    return Some(Found {
                        used_at: 4 * at + shift as usize / 16 + 1,
                        used: (after >> 16) as u16,
                        kind,
                    });
                }
                before = after;
            }
        }
        None
    }
}

/// Of `count` buckets, the one of a key's first choice.
#[must_use]
#[inline(always)]
pub const fn first(hash: u64, count: u32) -> u32 {
    (((hash >> 32) * count as u64) >> 32) as u32
}

/// Of `count` buckets, the one of a key's second choice; it may be the first again.
#[must_use]
#[inline(always)]
pub const fn second(hash: u64, count: u32) -> u32 {
    first(hash << 32, count)
}

/// Buckets for at most `learned` addresses of a family with `slots` to a bucket. With eight slots
/// every one found room until 98 of 100 were taken, in fifty tables of up to four million slots; with
/// three, until 68 of 100 were. Three quarters and one half leave room for bad luck.
#[must_use]
pub const fn buckets(learned: u32, slots: usize) -> u32 {
    let count = if slots > 3 {
        learned.div_ceil(6)
    } else {
        learned.div_ceil(3).saturating_mul(2)
    };
    // Small tables fill less evenly.
    count.saturating_add(8)
}

/// Words of a filter before the table of one family, of which there are at most `learned` entries.
///
/// A filter is a bit per hash of a key that has a grant. Most refused packets end at a bit that is
/// not set, in a few hundred kilobytes that stay in the cache. With eight bits per address a full
/// table lets one refused packet in eight look further.
#[must_use]
pub const fn filter_words(learned: u32) -> u32 {
    let bits = learned as u64 * 8;
    let words = if bits < 64 {
        1
    } else {
        bits.next_power_of_two() / 64
    };
    if words > 1 << 24 {
        1 << 24
    } else {
        words as u32
    }
}

/// The word and the bit of a key in a filter of `mask + 1` words.
#[must_use]
#[inline(always)]
pub const fn filter_bit(hash: u64, mask: u32) -> (u32, u32) {
    ((hash >> 6) as u32 & mask, hash as u32 & 63)
}

/// The time of a use in the kernel: units of 2³¹ ns (a little more than two seconds) of
/// `CLOCK_MONOTONIC`, the lowest 16 bits, which come round after 39 hours.
#[must_use]
#[inline(always)]
pub const fn tick(nanoseconds: u64) -> u16 {
    (nanoseconds >> 31) as u16
}

/// The nanosecond in which the tick `used` began, if that was in the 39 hours before `now`. A tick after
/// it is now: a packet may have come since `now` was read.
#[must_use]
pub const fn since(used: u16, now: u64) -> u64 {
    const AHEAD: u16 = 0xfff0;
    let ticks = match tick(now).wrapping_sub(used) {
        AHEAD.. => 0,
        ticks => ticks as u64,
    };
    ((now >> 31) << 31).saturating_sub(ticks << 31)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::address::{v4, v6};

    const SEED: Seed = Seed {
        add: 0x1234_5678_9abc_def0,
        multiply: 0x9e37_79b9_7f4a_7c15,
    };

    #[test]
    fn entries_are_found_by_zone_and_address() {
        let address = v4([198, 51, 100, 7].into());
        for slot in 0..V4::SLOTS {
            let mut bucket = Bucket::default();
            bucket[slot] = entry_v4(address, says(63, 1023), 0xabcd);
            let find = |zone, address: V4| address.find(zone, |at| bucket[at]);
            let found = Found {
                used_at: 4 * slot + 3,
                used: 0xabcd,
                kind: 1023,
            };
            assert_eq!(find(63, address), Some(found));
            assert_eq!(find(62, address), None);
            assert_eq!(find(63, v4([198, 51, 100, 6].into())), None);
        }
        let address = v6("2001:db8::7".parse().unwrap());
        for slot in 0..V6::SLOTS {
            let mut bucket = Bucket::default();
            let [high, low] = words_v6(address);
            (bucket[2 * slot], bucket[2 * slot + 1]) = (high, low);
            let (at, shift) = says_v6(slot);
            bucket[at] |= (u64::from(says(5, 9)) | 0xabcd << 16) << shift;
            let find = |zone, address: V6| address.find(zone, |at| bucket[at]);
            let found = Found {
                used_at: 4 * at + shift as usize / 16 + 1,
                used: 0xabcd,
                kind: 9,
            };
            assert_eq!(find(5, address), Some(found));
            assert_eq!(find(4, address), None);
            assert_eq!(find(5, v6("2001:db8::8".parse().unwrap())), None);
            assert_eq!(find(5, v6("2001:db9::7".parse().unwrap())), None);
        }
    }

    #[test]
    fn an_empty_bucket_grants_nothing() {
        let empty = Bucket::default();
        let kind = |found: Option<Found>| found.map_or(0, |found| found.kind);
        assert_eq!(kind(v4([0; 4].into()).find(0, |at| empty[at])), 0);
        assert_eq!(kind(v6([0; 16].into()).find(0, |at| empty[at])), 0);
    }

    #[test]
    fn an_entry_that_changes_under_the_reader_is_not_believed() {
        let [high, low] = words_v6(v6("2001:db8::7".parse().unwrap()));
        let reads = core::cell::Cell::new(0);
        let found = v6("2001:db8::7".parse().unwrap()).find(5, |at| match at {
            0 => high,
            1 => low,
            6 => {
                reads.set(reads.get() + 1);
                u64::from(says(5, reads.get()))
            }
            _ => 0,
        });
        assert_eq!(found, None);
    }

    #[test]
    fn an_entry_that_is_given_another_kind_is_found() {
        let address = v6("2001:db8::7".parse().unwrap());
        let [high, low] = words_v6(address);
        let reads = core::cell::Cell::new(0);
        let found = address.find(5, |at| match at {
            0 => high,
            1 => low,
            6 => {
                reads.set(reads.get() + 1);
                u64::from(says(5, if reads.get() == 1 { 8 } else { 9 }))
            }
            _ => 0,
        });
        assert_eq!(found.map(|found| found.kind), Some(9));
    }

    #[test]
    fn an_entry_that_becomes_another_under_the_reader_is_not_believed() {
        let [high, low] = words_v6(v6("2001:db8::7".parse().unwrap()));
        let was_other = core::cell::Cell::new(true);
        let found = v6("2001:db8::7".parse().unwrap()).find(5, |at| match at {
            // It was 2001:db8::…:1, and is 2001:db9::7 from the first look at the second half on.
            0 if was_other.get() => high,
            0 => high + (1 << 32),
            1 => {
                was_other.set(false);
                low
            }
            6 => u64::from(says(5, 1)),
            _ => 0,
        });
        assert_eq!(found, None);
    }

    #[test]
    fn nobody_without_the_seed_can_choose_addresses_that_share_buckets() {
        // Flips bits of the first half of an address and those of the second that would undo it, if
        // the highest bits of a product depended on nothing else.
        let seeds = (1..=200u64).map(|n| Seed {
            add: n.wrapping_mul(0x9e37_79b9_7f4a_7c15),
            multiply: n.wrapping_mul(0xbf58_476d_1ce4_e5b9) | 1,
        });
        let mut equal = 0;
        for seed in seeds {
            let one = v6("2001:db8::1".parse().unwrap());
            for (other, zone) in [("2001:db8:0:80:0:80:0:81", 0), ("2101:db8::1", 1)] {
                let other = v6(other.parse().unwrap());
                equal += u32::from(one.hash(0, seed) == other.hash(zone, seed));
            }
        }
        assert_eq!(equal, 0, "of 400");
    }

    #[test]
    fn times_lie_where_the_programs_write_them() {
        fn check<A: Granted>(address: A, bucket: Bucket) {
            let found = address.find(7, |at| bucket[at]).unwrap();
            assert_eq!(found.used, 0xffff);
            let (word, shift) = (found.used_at / 4, 16 * (found.used_at % 4));
            assert_eq!(bucket[word] >> shift & 0xffff, 0xffff);
        }
        let address = v4([198, 51, 100, 7].into());
        for slot in 0..V4::SLOTS {
            let mut bucket = Bucket::default();
            bucket[slot] = entry_v4(address, says(7, 1), 0xffff);
            check(address, bucket);
        }
        let address = v6("2001:db8::7".parse().unwrap());
        for slot in 0..V6::SLOTS {
            let mut bucket = Bucket::default();
            [bucket[2 * slot], bucket[2 * slot + 1]] = words_v6(address);
            let (at, shift) = says_v6(slot);
            bucket[at] |= (u64::from(says(7, 1)) | 0xffff << 16) << shift;
            check(address, bucket);
        }
    }

    #[test]
    fn choices_are_spread() {
        let count = buckets(10_000, V4::SLOTS);
        let mut hits = vec![0u32; count as usize];
        for n in 0..10_000u32 {
            let hash = v4((0x0a00_0000 + n).to_be_bytes().into()).hash(1, SEED);
            assert!(second(hash, count) < count);
            hits[first(hash, count) as usize] += 1;
        }
        assert!(
            hits.iter().all(|hits| *hits < 30),
            "{:?}",
            hits.iter().max()
        );
    }

    #[test]
    fn uses_are_dated() {
        const TICK: u64 = 1 << 31;
        let check = |used: u64, now: u64| {
            let got = since(tick(used), now);
            assert_eq!(got, used / TICK * TICK, "{used} at {now}");
        };
        check(0, 5);
        check(7 * TICK + 3, 9 * TICK);
        check(0xfffe * TICK, 0x1_0003 * TICK);
        check(0x1_0000 * TICK, 0x1_efff * TICK);
        let ahead = since(tick(6 * TICK), 6 * TICK - 1);
        assert_eq!(ahead, 5 * TICK);
        check(0x5_0000 * TICK, 0x5_ffef * TICK);
    }

    #[test]
    fn filters_have_room_and_spread_keys() {
        assert_eq!(filter_words(0), 1);
        assert_eq!(filter_words(131_072), 16_384);
        assert_eq!(filter_words(131_073), 32_768);
        assert_eq!(filter_words(u32::MAX), 1 << 24);
        let words = filter_words(1000);
        let mut bits = std::collections::BTreeSet::new();
        for address in 0..1000u32 {
            let (word, bit) =
                filter_bit([(0xc633_0000 + address).to_be()].hash(3, SEED), words - 1);
            assert!(word < words && bit < 64);
            bits.insert((word, bit));
        }
        // A perfect hash of 1,000 keys into 8,192 bits sets about 941 of them.
        assert!(bits.len() > 900, "only {} bits", bits.len());
    }
}
