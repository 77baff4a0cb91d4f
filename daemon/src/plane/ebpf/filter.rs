//! PURE: the words of the filter before a map of grants, with what the kernel's copy lacks: how many
//! keys share a bit. A bit is set before its first key is in the map and cleared after its last.

use egressd_common::layout::{filter_bit, filter_words};
use std::collections::BTreeSet;

/// The words of one filter.
#[derive(Debug)]
pub(super) struct Filter {
    words: Vec<u64>,
    /// Keys per bit. A bit that was once shared by 255 keys is never cleared again.
    keys: Vec<u8>,
    changed: BTreeSet<u32>,
}

impl Filter {
    /// An empty filter before at most `learned` keys.
    pub(super) fn new(learned: u32) -> Self {
        let words = filter_words(learned) as usize;
        Self {
            words: vec![0; words],
            keys: vec![0; words * 64],
            changed: BTreeSet::new(),
        }
    }

    /// The number of words less one, by which the kernel finds a key's word.
    pub(super) fn mask(&self) -> u32 {
        u32::try_from(self.words.len() - 1).expect("filter_words gives a u32")
    }

    /// Counts a key that is about to be inserted.
    pub(super) fn add(&mut self, key: &[u32]) {
        let (word, bit) = filter_bit(key, self.mask());
        let keys = &mut self.keys[word as usize * 64 + bit as usize];
        if *keys == 0 {
            self.words[word as usize] |= 1 << bit;
            self.changed.insert(word);
        }
        *keys = keys.saturating_add(1);
    }

    /// Uncounts a key that is no longer in the map, or was there already when it was added.
    pub(super) fn remove(&mut self, key: &[u32]) {
        let (word, bit) = filter_bit(key, self.mask());
        let keys = &mut self.keys[word as usize * 64 + bit as usize];
        if *keys == u8::MAX || *keys == 0 {
            return;
        }
        *keys -= 1;
        if *keys == 0 {
            self.words[word as usize] &= !(1 << bit);
            self.changed.insert(word);
        }
    }

    /// The words that changed since the last call, with their index.
    pub(super) fn take_changed(&mut self) -> Vec<(u32, u64)> {
        let changed = std::mem::take(&mut self.changed);
        changed
            .into_iter()
            .map(|word| (word, self.words[word as usize]))
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn is_set(filter: &Filter, key: &[u32]) -> bool {
        let (word, bit) = filter_bit(key, filter.mask());
        filter.words[word as usize] >> bit & 1 == 1
    }

    #[test]
    fn a_bit_lives_as_long_as_one_of_its_keys() {
        // One word: of 65 keys two must share a bit.
        let mut filter = Filter::new(1);
        let keys: Vec<[u32; 2]> = (0..65).map(|n| [0, n]).collect();
        keys.iter().for_each(|key| filter.add(key));
        assert_eq!(filter.take_changed().len(), 1);
        for (removed, key) in keys.iter().enumerate() {
            assert!(keys[removed..].iter().all(|later| is_set(&filter, later)));
            filter.remove(key);
        }
        assert_eq!(filter.take_changed(), [(0, 0)]);
        assert_eq!(filter.take_changed(), []);
    }

    #[test]
    fn a_bit_shared_by_very_many_keys_stays() {
        let mut filter = Filter::new(1);
        (0..300).for_each(|_| filter.add(&[7, 7]));
        (0..300).for_each(|_| filter.remove(&[7, 7]));
        assert!(is_set(&filter, &[7, 7]));
    }
}
