//! The packet corpus: frames made by code, each with the promise it belongs to and the verdict that
//! promise states. Verdicts are written down by hand here, from the promises and the RFCs, and never
//! computed by [`crate::decide`], which they judge.

mod extensions;
mod fragments;
mod lengths;
mod links;
mod matrix;
mod mutate;
mod options;
pub mod plan;
mod roles;
mod rule;
mod sizes;
mod tunnels;

pub use mutate::{Dice, Mutator};
pub use plan::Client;
pub use rule::{Expected, Rule, World};

use core::fmt;
use std::collections::BTreeMap;
use std::string::String;
use std::vec::Vec;

/// The promises that vectors belong to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Promise {
    /// Planes agree; what nft may know as established is left to it.
    P0,
    /// Fragments.
    P2,
    /// IPv4 options.
    P3,
    /// IPv6 extension headers.
    P4,
    /// Tags and PPPoE.
    P5,
    /// Encapsulations.
    P6,
    /// Truncation and lengths that lie.
    P7,
    /// Martian, spoofed and group addresses; the stack's own business.
    P8,
    /// Large frames.
    P9,
    /// Every protocol and port of both families.
    P10,
}

impl fmt::Display for Promise {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self, f)
    }
}

/// One frame and what must become of it.
#[derive(Clone, Debug)]
pub struct Vector {
    /// The promise that states it.
    pub promise: Promise,
    /// What the frame is, in words; unique.
    pub name: String,
    /// Its number, from which its client's addresses are made.
    pub number: u16,
    /// What must become of it.
    pub rule: Rule,
    /// The frame, from its Ethernet header on. IPv4 header checksums are right, others are zero.
    pub frame: Vec<u8>,
}

impl Vector {
    /// The packet without its Ethernet header, as a device without one has it; `None` where tags or
    /// another protocol come first, or the version is not the frame type's: there it is the type.
    #[must_use]
    pub fn bare(&self) -> Option<&[u8]> {
        match (
            self.frame.get(12..14)?,
            self.frame.get(14).map(|first| first >> 4),
        ) {
            ([0x08, 0x00], Some(4) | None) | ([0x86, 0xdd], Some(6) | None) => self.frame.get(14..),
            _ => None,
        }
    }
}

/// Collects vectors, and gives each a client of its own, so that no flow meets another's.
#[derive(Debug, Default)]
struct Sheet(Vec<Vector>);

impl Sheet {
    fn add(
        &mut self,
        promise: Promise,
        name: impl Into<String>,
        rule: Rule,
        frame: impl FnOnce(Client) -> Vec<u8>,
    ) {
        let number = u16::try_from(self.0.len()).expect("a corpus has less than 65,536 vectors");
        let mut frame = frame(Client::of(number));
        plan::checksum(&mut frame);
        self.0.push(Vector {
            promise,
            name: name.into(),
            number,
            rule,
            frame,
        });
    }
}

/// The whole corpus, the same in every run.
#[must_use]
pub fn all() -> Vec<Vector> {
    let mut sheet = Sheet::default();
    matrix::states(&mut sheet);
    fragments::add(&mut sheet);
    options::add(&mut sheet);
    extensions::add(&mut sheet);
    links::add(&mut sheet);
    tunnels::add(&mut sheet);
    lengths::add(&mut sheet);
    roles::add(&mut sheet);
    sizes::add(&mut sheet);
    matrix::services(&mut sheet);
    sheet.0
}

/// How many vectors each promise has.
#[must_use]
pub fn per_promise(vectors: &[Vector]) -> BTreeMap<Promise, usize> {
    let mut counts = BTreeMap::new();
    for vector in vectors {
        *counts.entry(vector.promise).or_default() += 1;
    }
    counts
}

#[cfg(test)]
mod tests;
