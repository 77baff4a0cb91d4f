//! A packet as readable words. The kernel reads frames in place, tests and the model read slices.

/// A frame whose bytes are read by offset from its first byte.
pub trait Frame {
    /// `N` 32-bit words from `offset` on, **as they lie on the wire**: the bytes in memory are the
    /// frame's, so a number needs [`u32::from_be`] and an address does not. `None` when the frame
    /// ends before.
    fn words<const N: usize>(&self, offset: usize) -> Option<[u32; N]>;

    /// Whether the frame has at least `length` bytes.
    fn reaches(&self, length: usize) -> bool;
}

/// A frame in memory.
impl Frame for &[u8] {
    fn words<const N: usize>(&self, offset: usize) -> Option<[u32; N]> {
        let bytes = self.get(offset..)?.get(..4 * N)?;
        let mut words = [0; N];
        for (word, bytes) in words.iter_mut().zip(bytes.as_chunks::<4>().0) {
            *word = u32::from_ne_bytes(*bytes);
        }
        Some(words)
    }

    fn reaches(&self, length: usize) -> bool {
        self.len() >= length
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_are_read_whole_or_not_at_all() {
        let frame: &[u8] = &[0, 1, 2, 3, 4, 5, 6, 7, 8];
        assert_eq!(
            frame.words::<1>(1).map(|[w]| u32::from_be(w)),
            Some(0x0102_0304)
        );
        assert!(frame.words::<2>(1).is_some());
        assert!(frame.words::<2>(2).is_none());
        assert!(frame.words::<1>(usize::MAX).is_none());
        assert!(frame.reaches(9) && !frame.reaches(10));
    }
}
