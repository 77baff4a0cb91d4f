//! Numbers that an outsider cannot guess (RFC 5452 §4), drawn from the kernel in gulps.

/// A supply of random bytes.
pub(super) struct Chance {
    bytes: [u8; 1024],
    used: usize,
}

impl Chance {
    pub(super) fn new() -> Self {
        Self {
            bytes: [0; 1024],
            used: 1024,
        }
    }

    fn take<const N: usize>(&mut self) -> [u8; N] {
        if self.used + N > self.bytes.len() {
            getrandom::fill(&mut self.bytes).expect("the kernel has getrandom since 3.17");
            self.used = 0;
        }
        let taken = self.bytes[self.used..]
            .first_chunk()
            .expect("it was just filled");
        self.used += N;
        *taken
    }

    /// A number to hide the places of a table by.
    pub(super) fn secret(&mut self) -> u64 {
        u64::from_ne_bytes(self.take())
    }

    /// A message id.
    pub(super) fn id(&mut self) -> u16 {
        u16::from_ne_bytes(self.take())
    }

    /// A number below `end`, which must not be 0 and should be far below 2³².
    pub(super) fn below(&mut self, end: usize) -> usize {
        u32::from_ne_bytes(self.take()) as usize % end
    }

    /// The question `wire` with the case of every letter of its name drawn anew (0x20). The last
    /// four bytes, type and class, stay.
    pub(super) fn cased(&mut self, wire: &[u8]) -> Box<[u8]> {
        let mut cased: Box<[u8]> = wire.into();
        let name = wire.len().saturating_sub(4);
        for eight in cased[..name].chunks_mut(8) {
            let [mut bits] = self.take();
            // Length bytes are below 64 and so are not letters.
            for byte in eight.iter_mut().filter(|byte| byte.is_ascii_alphabetic()) {
                *byte ^= (bits & 1) << 5;
                bits >>= 1;
            }
        }
        cased
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn case_is_drawn_and_nothing_else_changes() {
        let wire = b"\x07abcdefg\x02HI\x00\x00\x41\x00\x01";
        let mut chance = Chance::new();
        let draws: Vec<_> = (0..64).map(|_| chance.cased(wire)).collect();
        assert!(draws.iter().all(|draw| draw.eq_ignore_ascii_case(wire)));
        assert!(
            draws
                .iter()
                .all(|draw| draw[wire.len() - 4..] == wire[wire.len() - 4..])
        );
        for at in (1..8).chain(9..11) {
            let upper = draws
                .iter()
                .filter(|draw| draw[at].is_ascii_uppercase())
                .count();
            assert!((1..64).contains(&upper), "letter {at} is never drawn");
        }
    }
}
