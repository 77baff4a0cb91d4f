//! A DNS response reduced to what it teaches: the addresses reachable from the asked name. Reads
//! hostile bytes in place, in bounded time and memory; decides nothing about fitness.

mod compose;
mod rewrite;
mod service;
pub mod wire;

#[cfg(test)]
mod tests;

use super::name::Name;
pub use compose::{splice, synthesize};
pub use rewrite::{Shape, Written};
pub use service::Ech;
use service::Service;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use wire::{Expanded, HEADER, IN, Record, expand, kind, short};

/// What a response gives for the asked name, after hygiene.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answer {
    /// The name the client asked for.
    pub name: Name,
    /// The addresses at the end of its CNAME chain, without repetition.
    pub addresses: Vec<IpAddr>,
    /// The smallest TTL along the way, in seconds; a TTL with the high bit set is 0 (RFC 2181 §8).
    pub ttl: u32,
}

/// Most CNAME or DNAME steps from the asked name to its addresses.
pub const MOST_HOPS: usize = 16;

/// Most records in the answer and authority sections together.
pub const MOST_RECORDS: usize = 512;

/// Most addresses that are found in one response; a record whose hints would go over it loses them.
pub const MOST_FOUND: usize = MOST_RECORDS;

/// Why a response is not read further.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Malformed {
    /// It ends in the middle of something.
    #[error("it is truncated")]
    Short,
    /// A name over 255 bytes, or a label of an unknown kind.
    #[error("a name is not well-formed")]
    Name,
    /// A compression pointer that does not lead backwards.
    #[error("a compression pointer does not lead backwards")]
    Pointer,
    /// Not exactly one question.
    #[error("it does not have exactly one question")]
    Question,
    /// More than [`MOST_RECORDS`].
    #[error("it has too many records")]
    Records,
    /// Data that does not fit its type.
    #[error("a record's data does not fit its type")]
    Data,
    /// A CNAME chain that comes back to a name it has passed.
    #[error("its CNAME chain is a loop")]
    Loop,
    /// A chain longer than [`MOST_HOPS`].
    #[error("its CNAME chain is too long")]
    Hops,
    /// What would be written of it does not fit a message.
    #[error("without compression it is over 65,535 bytes")]
    Size,
}

/// An address that a response gives for the asked name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Found {
    /// The address.
    pub address: IpAddr,
    /// The position of its record in the answer section, for [`Reading::strike`].
    pub position: usize,
    /// Whether it is an address hint of an HTTPS or SVCB record (RFC 9460 §7.3), which other
    /// addresses may share; else the record is the address.
    pub hint: bool,
}

/// What the client gets of an answer record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fate {
    Dropped,
    Kept,
    /// All but its address hints.
    Bare,
}

/// A response, read.
pub struct Reading<'m> {
    message: &'m [u8],
    asked: Expanded,
    kind: u16,
    class: u16,
    /// The end of the chain.
    holder: Expanded,
    /// How many steps lead there.
    hops: usize,
    /// Whether a record of the asked type is there.
    answered: bool,
    answers: Vec<Record>,
    authority: Vec<Record>,
    /// What becomes of the answer record at each position.
    fates: Vec<Fate>,
    found: Vec<Found>,
    ttl: u32,
}

impl<'m> Reading<'m> {
    /// Reads a response: follows the CNAME chain from the one question's name through the answer
    /// section, class IN only, in whatever order its records come. The additional section is never
    /// looked at. Only a response without error (RCODE 0) gives addresses.
    ///
    /// # Errors
    /// When what the chain touches is malformed, is a loop or exceeds a bound.
    pub fn of(message: &'m [u8]) -> Result<Self, Malformed> {
        if short(message, 4)? != 1 {
            return Err(Malformed::Question);
        }
        let (asked, end) = expand(message, HEADER)?;
        let (kind, class) = (short(message, end)?, short(message, end + 2)?);
        let counts = (
            usize::from(short(message, 6)?),
            usize::from(short(message, 8)?),
        );
        if counts.0 + counts.1 > MOST_RECORDS {
            return Err(Malformed::Records);
        }
        let mut at = end + 4;
        let mut section = |count: usize| -> Result<Vec<Record>, Malformed> {
            let mut records = Vec::with_capacity(count);
            for _ in 0..count {
                let record = Record::read(message, at)?;
                at = record.end;
                records.push(record);
            }
            Ok(records)
        };
        let (answers, authority) = (section(counts.0)?, section(counts.1)?);
        let fates = vec![Fate::Dropped; answers.len()];
        let ttl = u32::MAX;
        let mut reading = Self {
            message,
            asked,
            kind,
            class,
            holder: asked,
            hops: 0,
            answered: false,
            answers,
            authority,
            fates,
            found: Vec::new(),
            ttl,
        };
        reading.follow()?;
        reading.collect()?;
        Ok(reading)
    }

    /// The addresses of the asked name, in the order of their records; repetitions included. Those
    /// that HTTPS and SVCB records hint at are among them.
    #[must_use]
    pub fn found(&self) -> &[Found] {
        &self.found
    }

    /// The smallest TTL along the chain, in seconds; 0 when the chain has no record.
    #[must_use]
    pub fn ttl(&self) -> u32 {
        if self.ttl == u32::MAX { 0 } else { self.ttl }
    }

    /// Takes the record at `position` out of the answer.
    pub fn strike(&mut self, position: usize) {
        if let Some(fate) = self.fates.get_mut(position) {
            *fate = Fate::Dropped;
        }
    }

    /// Takes the address hints out of the record at `position`, all of them; the rest stays. A
    /// record that says they are mandatory leaves whole.
    pub fn strip_hints(&mut self, position: usize) {
        if let Some(fate @ Fate::Kept) = self.fates.get_mut(position) {
            *fate = Fate::Bare;
        }
    }

    /// Takes an address that must not be taught away from the client: a hint with the other hints
    /// of its record, else the record.
    pub fn refuse(&mut self, found: &Found) {
        if found.hint {
            self.strip_hints(found.position);
        } else {
            self.strike(found.position);
        }
    }

    /// Takes the address hints out of every record; they are no longer found.
    pub fn strip_all_hints(&mut self) {
        for found in std::mem::take(&mut self.found) {
            if found.hint {
                self.strip_hints(found.position);
            } else {
                self.found.push(found);
            }
        }
    }

    /// Whether the client still gets this address.
    #[must_use]
    pub fn tells(&self, found: &Found) -> bool {
        match self.fates.get(found.position) {
            Some(Fate::Kept) => true,
            Some(Fate::Bare) => !found.hint,
            Some(Fate::Dropped) | None => false,
        }
    }

    /// Walks from the asked name to the name that holds the answer, keeping the records it used.
    fn follow(&mut self) -> Result<(), Malformed> {
        if self.kind == kind::CNAME || self.kind == kind::DNAME {
            return Ok(());
        }
        let mut current = self.asked;
        let mut aliases = Vec::new();
        for (position, record) in self.answers.iter().enumerate() {
            if record.class == IN && (record.kind == kind::CNAME || record.kind == kind::DNAME) {
                // A hop is a CNAME, or a DNAME and the CNAME made from it.
                if aliases.len() == 2 * MOST_HOPS {
                    return Err(Malformed::Hops);
                }
                aliases.push((position, *record, expand(self.message, record.owner)?.0));
            }
        }
        let mut passed = vec![current];
        loop {
            let cname = aliases
                .iter()
                .find(|(_, record, owner)| record.kind == kind::CNAME && owner.is(&current));
            let mut next = None;
            if let Some((position, record, _)) = cname {
                next = Some(self.target(record)?);
                self.keep(*position);
            }
            for (position, record, owner) in &aliases {
                let above = !owner.is(&current) && current.is_under(owner);
                if record.kind == kind::DNAME && above {
                    let Some(made) = current.redirected(owner, &self.target(record)?) else {
                        continue;
                    };
                    self.keep(*position);
                    // The server's own CNAME, where it sent one, has the last word.
                    if next.is_none() {
                        next = Some(made?);
                    }
                }
            }
            let Some(next) = next else {
                (self.holder, self.hops) = (current, passed.len() - 1);
                return Ok(());
            };
            if passed.iter().any(|name| name.is(&next)) {
                return Err(Malformed::Loop);
            }
            if passed.len() > MOST_HOPS {
                return Err(Malformed::Hops);
            }
            passed.push(next);
            current = next;
        }
    }

    /// Keeps the records of the asked type at the chain's end, and notes their addresses.
    fn collect(&mut self) -> Result<(), Malformed> {
        let no_error = self.message.get(3).is_some_and(|flags| flags & 0x0f == 0);
        for position in 0..self.answers.len() {
            let record = self.answers[position];
            if record.class != IN || record.kind != self.kind {
                continue;
            }
            if !expand(self.message, record.owner)?.0.is(&self.holder) {
                continue;
            }
            self.answered = true;
            match record.kind {
                kind::A | kind::AAAA | kind::HTTPS | kind::SVCB if !no_error => continue,
                kind::A => {
                    let bytes: [u8; 4] = self.exactly(&record)?;
                    self.note(Ipv4Addr::from(bytes).into(), position);
                }
                kind::AAAA => {
                    let bytes: [u8; 16] = self.exactly(&record)?;
                    self.note(Ipv6Addr::from(bytes).into(), position);
                }
                kind::HTTPS | kind::SVCB => {
                    self.keep(position);
                    self.hints(position, Service::read(self.data(&record))?);
                    continue;
                }
                _ => {}
            }
            self.keep(position);
        }
        Ok(())
    }

    /// Notes the address hints of a kept record; those that nobody may look at or that are too many
    /// it loses.
    fn hints(&mut self, position: usize, service: Service<'_>) {
        let before = self.found.len();
        let room = MOST_FOUND - before;
        let found = service.hints().map(|address| Found {
            address,
            position,
            hint: true,
        });
        self.found.extend(found.take(room + 1));
        if service.is_alias() || self.found.len() > MOST_FOUND {
            self.found.truncate(before);
            self.strip_hints(position);
        }
    }

    fn keep(&mut self, position: usize) {
        self.fates[position] = Fate::Kept;
        self.ttl = self.ttl.min(self.answers[position].ttl);
    }

    fn target(&self, record: &Record) -> Result<Expanded, Malformed> {
        match expand(self.message, record.data)? {
            (target, end) if end == record.end => Ok(target),
            _ => Err(Malformed::Data),
        }
    }

    fn data(&self, record: &Record) -> &'m [u8] {
        &self.message[record.data..record.end]
    }

    fn exactly<const N: usize>(&self, record: &Record) -> Result<[u8; N], Malformed> {
        self.data(record).try_into().map_err(|_| Malformed::Data)
    }

    fn note(&mut self, address: IpAddr, position: usize) {
        self.found.push(Found {
            address,
            position,
            hint: false,
        });
    }
}
