//! PURE: the filter before a table of grants, in whatever memory, with what the memory lacks: how
//! many keys share a bit. A bit is set before its first key is in the table and cleared after its last.

use egressd_common::grants::filter_bit;
use std::sync::atomic::{AtomicU64, Ordering};

/// The words of one filter.
#[derive(Debug)]
pub(super) struct Filter<M> {
    memory: M,
    mask: u32,
    /// Keys per bit. A bit that was once shared by 255 keys is never cleared again.
    keys: Vec<u8>,
}

impl<M: AsRef<[AtomicU64]>> Filter<M> {
    /// The filter in `memory`: zeros, a power of two of them.
    pub(super) fn new(memory: M) -> Self {
        let words = memory.as_ref().len();
        debug_assert!(words.is_power_of_two(), "{words} words");
        Self {
            memory,
            mask: u32::try_from(words - 1).unwrap_or(u32::MAX),
            keys: vec![0; words * 64],
        }
    }

    /// Counts a key, known by its hash, that is about to be inserted.
    pub(super) fn add(&mut self, hash: u64) {
        let (word, bit) = filter_bit(hash, self.mask);
        let keys = &mut self.keys[word as usize * 64 + bit as usize];
        if *keys == 0 {
            self.memory.as_ref()[word as usize].fetch_or(1 << bit, Ordering::AcqRel);
        }
        *keys = keys.saturating_add(1);
    }

    /// Uncounts a key that is no longer in the table.
    pub(super) fn remove(&mut self, hash: u64) {
        let (word, bit) = filter_bit(hash, self.mask);
        let keys = &mut self.keys[word as usize * 64 + bit as usize];
        if *keys == u8::MAX || *keys == 0 {
            return;
        }
        *keys -= 1;
        if *keys == 0 {
            self.memory.as_ref()[word as usize].fetch_and(!(1 << bit), Ordering::AcqRel);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn filter() -> Filter<Vec<AtomicU64>> {
        Filter::new(vec![AtomicU64::new(0)])
    }

    fn is_set(filter: &Filter<Vec<AtomicU64>>, hash: u64) -> bool {
        let (word, bit) = filter_bit(hash, filter.mask);
        filter.memory[word as usize].load(Ordering::Acquire) >> bit & 1 == 1
    }

    #[test]
    fn a_bit_lives_as_long_as_one_of_its_keys() {
        // One word: of 65 keys two must share a bit.
        let mut filter = filter();
        let keys: Vec<u64> = (0..65).collect();
        keys.iter().for_each(|key| filter.add(*key));
        for (removed, key) in keys.iter().enumerate() {
            assert!(keys[removed..].iter().all(|later| is_set(&filter, *later)));
            filter.remove(*key);
        }
        assert_eq!(filter.memory[0].load(Ordering::Acquire), 0);
    }

    #[test]
    fn a_bit_shared_by_very_many_keys_stays() {
        let mut filter = filter();
        (0..300).for_each(|_| filter.add(7));
        (0..300).for_each(|_| filter.remove(7));
        assert!(is_set(&filter, 7));
    }
}
