//! A packet as readable words. The kernel reads frames in place, tests and the model read slices.

use crate::decide::Lookup;
use crate::link;

/// A frame whose bytes are read by offset from its first byte.
pub trait Frame {
    /// `N` 32-bit words from `offset` on, **as they lie on the wire**: the bytes in memory are the
    /// frame's, so a number needs [`u32::from_be`] and an address does not. `None` when the frame
    /// ends before.
    fn words<const N: usize>(&self, offset: usize) -> Option<[u32; N]>;

    /// Whether the frame has at least `length` bytes.
    fn reaches(&self, length: usize) -> bool;

    /// As [`Self::words`], but for a header [`Behind`] others.
    #[inline(always)]
    fn words_behind<const N: usize>(&self, offset: usize) -> Option<[u32; N]> {
        self.words(offset)
    }

    /// `number`, as one that the kernel's verifier knows nothing of: what may follow it looks at once,
    /// and not once for each number that it has seen in a packet.
    #[inline(always)]
    fn blur(&self, number: u64) -> u64 {
        number
    }

    /// [`link::device`], for hooks that keep its ways out of the verifier's sight.
    #[inline(always)]
    fn device<L: Lookup>(&self, index: u32, lookup: &L) -> u32
    where
        Self: Sized,
    {
        link::device(self, index, lookup)
    }

    /// The outermost VLAN tag, as [`crate::link::tag`] has it, where it was already taken off the
    /// frame and is known beside it.
    #[inline(always)]
    fn stripped(&self) -> Option<u32> {
        None
    }
}

/// A frame whose IP header lies behind tags or a session's header.
pub(crate) struct Behind<'a, F>(pub(crate) &'a F);

impl<F: Frame> Frame for Behind<'_, F> {
    #[inline(always)]
    fn words<const N: usize>(&self, offset: usize) -> Option<[u32; N]> {
        self.0.words_behind(offset)
    }

    #[inline(always)]
    fn reaches(&self, length: usize) -> bool {
        self.0.reaches(length)
    }

    #[inline(always)]
    fn blur(&self, number: u64) -> u64 {
        self.0.blur(number)
    }
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
