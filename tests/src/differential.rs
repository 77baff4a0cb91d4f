//! The daemon's reducer of answers, held against the oracle.

use crate::oracle::{every_address, lesson};
use egressd::policy::answer::wire::HEADER;
use egressd::policy::answer::{Ech, Found, Reading, Shape};
use std::collections::BTreeSet;
use std::fmt;
use std::net::IpAddr;
use std::ops::AddAssign;

/// Sums over messages. All but the first three must be 0.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tally {
    /// Messages read by both.
    pub messages: u64,
    /// Messages that both refuse.
    pub refused: u64,
    /// Addresses that both find.
    pub addresses: u64,
    /// Addresses that the reducer alone finds.
    pub extra: u64,
    /// Addresses that the oracle alone finds.
    pub missing: u64,
    /// Messages in which both find the same with another TTL, or that one of them refuses though
    /// the other finds nothing in it either.
    pub otherwise: u64,
    /// Addresses in what is written for the client that were refused or not found.
    pub ungranted: u64,
    /// Addresses found and not refused that the client is not told.
    pub untold: u64,
    /// Messages that were read and could not be written.
    pub unwritten: u64,
}

impl Tally {
    /// Whether both agree and the client gets what is granted, and only that.
    #[must_use]
    pub fn is_clean(&self) -> bool {
        let wrong = [
            self.extra,
            self.missing,
            self.otherwise,
            self.ungranted,
            self.untold,
        ];
        wrong == [0; 5]
    }
}

impl AddAssign for Tally {
    fn add_assign(&mut self, other: Self) {
        self.messages += other.messages;
        self.refused += other.refused;
        self.addresses += other.addresses;
        self.extra += other.extra;
        self.missing += other.missing;
        self.otherwise += other.otherwise;
        self.ungranted += other.ungranted;
        self.untold += other.untold;
        self.unwritten += other.unwritten;
    }
}

impl fmt::Display for Tally {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{} responses, {} refused by both, {} addresses found by both: extra {}, missing {}, otherwise \
             different {}; told though not granted {}, granted but not told {}; read but not writable {}",
            self.messages,
            self.refused,
            self.addresses,
            self.extra,
            self.missing,
            self.otherwise,
            self.ungranted,
            self.untold,
            self.unwritten
        )
    }
}

/// Holds both against each other on one message. The bits of `refusals` say which of the addresses
/// found may not be taught.
#[must_use]
pub fn judge(message: &[u8], refusals: u64) -> Tally {
    let reading = Reading::of(message).ok();
    let expected = lesson(message);
    let mut tally = Tally {
        messages: 1,
        ..Tally::default()
    };
    let found = |reading: &Reading<'_>| -> Vec<IpAddr> {
        reading.found().iter().map(|found| found.address).collect()
    };
    let got = reading.as_ref().map(found).unwrap_or_default();
    let due = expected
        .as_ref()
        .map_or(&[][..], |lesson| &lesson.addresses);
    if got == due {
        let ttls = (
            reading.as_ref().map(Reading::ttl),
            expected.as_ref().map(|lesson| lesson.ttl),
        );
        tally.addresses = due.len() as u64;
        tally.refused = u64::from(ttls == (None, None));
        tally.otherwise = u64::from(ttls.0 != ttls.1);
    } else {
        let count = |one: &[IpAddr], other: &[IpAddr]| {
            let other: BTreeSet<_> = other.iter().collect();
            one.iter().filter(|one| !other.contains(one)).count() as u64
        };
        tally.extra = count(&got, due);
        tally.missing = count(due, &got);
        tally.otherwise = 1;
    }
    if let Some(reading) = reading {
        told(message, reading, refusals, &mut tally);
    }
    tally
}

/// What is written once some addresses are refused: every other address, nothing else.
fn told(message: &[u8], mut reading: Reading<'_>, refusals: u64, tally: &mut Tally) {
    let found = reading.found().to_vec();
    for (position, found) in found.iter().enumerate() {
        if refusals >> (position % 64) & 1 == 1 {
            reading.refuse(found);
        }
    }
    let told = |found: &&Found| reading.tells(found);
    let granted: Vec<IpAddr> = found
        .iter()
        .filter(told)
        .map(|found| found.address)
        .collect();
    let shape = Shape {
        dnssec: refusals & 1 == 1,
        ceiling: 86_400,
        ech: if refusals & 2 == 2 {
            Ech::Strip
        } else {
            Ech::Keep
        },
    };
    let question = egressd::policy::answer::wire::question_end(message);
    let Ok(end) = question else {
        tally.unwritten = 1;
        return;
    };
    let mut out = message[..end].to_vec();
    let Ok(written) = reading.write(&mut out, shape) else {
        tally.unwritten = 1;
        return;
    };
    out[6..8].copy_from_slice(&written.answers.to_be_bytes());
    out[8..10].copy_from_slice(&written.authority.to_be_bytes());
    out[10..HEADER].fill(0);
    let back = lesson(&out)
        .map(|lesson| lesson.addresses)
        .unwrap_or_default();
    let stays: BTreeSet<_> = granted.iter().collect();
    let all = every_address(&out);
    tally.ungranted = all.iter().filter(|one| !stays.contains(one)).count() as u64;
    if shape.ech == Ech::Keep && back != granted {
        let back: BTreeSet<_> = back.iter().collect();
        let gone = stays.difference(&back).count().max(1);
        tally.untold = gone as u64;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::oracle::generate::{Dice, response};

    #[test]
    fn both_agree() {
        let mut tally = Tally::default();
        for seed in 0..20_000 {
            let mut dice = Dice::new(seed);
            let message = response(&mut dice);
            let one = judge(&message, dice.roll() & dice.roll());
            assert!(one.is_clean(), "seed {seed}: {one}\n{message:?}");
            tally += one;
        }
        // Most of them teach something, and the damaged ones are really damaged.
        assert!(tally.addresses > 20_000, "{tally}");
        assert!(tally.refused > 1_000, "{tally}");
        assert!(tally.unwritten < 100, "{tally}");
    }
}
