//! Endless frames: vectors of the corpus with other ends, bytes, bits, lengths and heads.

use super::plan::{GRANTED, INTERNAL, NETWORK, OWN, REFUSED, TUNNEL};
use super::{Vector, plan};
use core::net::IpAddr;
use std::vec::Vec;

/// Numbers that look random and are the same for the same seed (xorshift64*).
#[derive(Clone, Debug)]
pub struct Dice(u64);

impl Dice {
    /// A supply of numbers for this seed.
    #[must_use]
    pub const fn new(seed: u64) -> Self {
        Self(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1)
    }

    /// A number below `sides`, which is not 0.
    pub fn roll(&mut self, sides: usize) -> usize {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        let high = self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 33;
        usize::try_from(high).expect("31 bits") % sides
    }

    /// One of `of`, which is not empty.
    pub fn one<T: Copy>(&mut self, of: &[T]) -> T {
        of[self.roll(of.len())]
    }

    fn byte(&mut self) -> u8 {
        self.roll(256).to_le_bytes()[0]
    }
}

/// Bytes that headers give a meaning to.
const TELLING: [u8; 24] = [
    0, 1, 2, 4, 6, 8, 17, 20, 0x11, 0x21, 0x40, 0x45, 0x46, 0x57, 0x60, 0x81, 0x86, 0x88, 43, 44,
    58, 60, 132, 255,
];

/// Makes frames of the vectors of a corpus.
#[derive(Debug)]
pub struct Mutator {
    vectors: Vec<Vector>,
    ends: Vec<IpAddr>,
    dice: Dice,
}

impl Mutator {
    /// Of these vectors, of which there is at least one.
    #[must_use]
    pub fn new(vectors: Vec<Vector>, seed: u64) -> Self {
        let ends = [GRANTED, TUNNEL, REFUSED, NETWORK, INTERNAL];
        let ends = ends.into_iter().flatten().chain(OWN).collect();
        Self {
            vectors,
            ends,
            dice: Dice::new(seed),
        }
    }

    /// The next frame, of at least an Ethernet header's length, and whether it is the first bytes of
    /// `frame` that count (always): written into `frame` so that nothing is allocated for each.
    pub fn next(&mut self, frame: &mut Vec<u8>) {
        let number = self.dice.roll(self.vectors.len());
        frame.clear();
        frame.extend_from_slice(&self.vectors[number].frame);
        for _ in 0..self.dice.roll(4) {
            self.change(frame);
        }
        if frame.len() < 14 {
            frame.resize(14, 0);
        }
    }

    fn change(&mut self, frame: &mut Vec<u8>) {
        // Headers, mostly.
        let span = frame
            .len()
            .min(if self.dice.roll(4) == 0 { 9014 } else { 90 });
        let at = self.dice.roll(span.max(1));
        match self.dice.roll(9) {
            0 => set(frame, at, self.dice.byte()),
            1 => set(frame, at, self.dice.one(&TELLING)),
            2 => {
                let bit = 1 << self.dice.roll(8);
                if let Some(byte) = frame.get_mut(at) {
                    *byte ^= bit;
                }
            }
            3 => frame.truncate(at.max(14)),
            4 => {
                let more = self.dice.roll(40);
                let byte = self.dice.byte();
                frame.resize(frame.len() + more, byte);
            }
            5 => self.redirect(frame),
            6 => {
                // One header of one frame before the rest of another.
                let other = self.dice.roll(self.vectors.len());
                let rest = self.vectors[other].frame.get(at..).unwrap_or_default();
                frame.truncate(at);
                frame.extend_from_slice(rest);
            }
            7 => {
                let tag = self.dice.one(&[0x81u8, 0x88, 0x91]);
                let low = if tag == 0x88 { 0xa8 } else { 0 };
                let bytes = [tag, low, self.dice.byte(), self.dice.byte()];
                if frame.len() >= 12 {
                    frame.splice(12..12, bytes);
                }
            }
            _ => {
                let port = self
                    .dice
                    .one(&[443u16, 80, 53, 4500, 5060, 0, plan::CLOSED]);
                let start = self.dice.one(&[34usize, 36, 54, 56]);
                set(frame, start, port.to_be_bytes()[0]);
                set(frame, start + 1, port.to_be_bytes()[1]);
            }
        }
    }

    /// Another destination, or another source.
    fn redirect(&mut self, frame: &mut [u8]) {
        let end = self.dice.one(&self.ends);
        let source = self.dice.roll(3) == 0;
        match (end, frame.get(12)) {
            (IpAddr::V4(end), Some(0x08)) => {
                let at = if source { 26 } else { 30 };
                if let Some(bytes) = frame.get_mut(at..at + 4) {
                    bytes.copy_from_slice(&end.octets());
                }
            }
            (IpAddr::V6(end), Some(0x86)) => {
                let at = if source { 22 } else { 38 };
                if let Some(bytes) = frame.get_mut(at..at + 16) {
                    bytes.copy_from_slice(&end.octets());
                }
            }
            (IpAddr::V4(_) | IpAddr::V6(_), _) => {}
        }
    }
}

fn set(frame: &mut [u8], at: usize, value: u8) {
    if let Some(byte) = frame.get_mut(at) {
        *byte = value;
    }
}
