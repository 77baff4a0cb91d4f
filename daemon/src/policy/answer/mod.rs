//! A DNS response reduced to what it teaches: the addresses reachable from the asked name. Reads
//! hostile bytes in place, in bounded time and memory; decides nothing about fitness.

mod rewrite;
pub mod wire;

#[cfg(test)]
mod tests;

use super::name::Name;
pub use rewrite::Written;
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
}

/// An address that a response gives for the asked name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Found {
    /// The address.
    pub address: IpAddr,
    /// The position of its record in the answer section, for [`Reading::strike`].
    pub position: usize,
}

/// A response, read.
pub struct Reading<'m> {
    message: &'m [u8],
    asked: Expanded,
    kind: u16,
    answers: Vec<Record>,
    authority: Vec<Record>,
    /// Whether the answer record at this position is part of the answer.
    kept: Vec<bool>,
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
        let (kind, _class) = (short(message, end)?, short(message, end + 2)?);
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
        let kept = vec![false; answers.len()];
        let ttl = u32::MAX;
        let mut reading = Self {
            message,
            asked,
            kind,
            answers,
            authority,
            kept,
            found: Vec::new(),
            ttl,
        };
        let holder = reading.follow()?;
        reading.collect(&holder)?;
        Ok(reading)
    }

    /// The addresses of the asked name, in the order of their records; repetitions included.
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
        if let Some(kept) = self.kept.get_mut(position) {
            *kept = false;
        }
    }

    /// Walks from the asked name to the name that holds the answer, keeping the records it used.
    fn follow(&mut self) -> Result<Expanded, Malformed> {
        let mut current = self.asked;
        if self.kind == kind::CNAME || self.kind == kind::DNAME {
            return Ok(current);
        }
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
                if record.kind == kind::DNAME && owner.wire().len() < current.wire().len() {
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
            let Some(next) = next else { return Ok(current) };
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

    /// Keeps the records of the asked type at `holder`, and notes their addresses.
    fn collect(&mut self, holder: &Expanded) -> Result<(), Malformed> {
        let no_error = self.message.get(3).is_some_and(|flags| flags & 0x0f == 0);
        for position in 0..self.answers.len() {
            let record = self.answers[position];
            if record.class != IN || record.kind != self.kind {
                continue;
            }
            if !expand(self.message, record.owner)?.0.is(holder) {
                continue;
            }
            if let Some(address) = self.address(&record)? {
                if !no_error {
                    continue;
                }
                self.found.push(Found { address, position });
            }
            self.keep(position);
        }
        Ok(())
    }

    fn keep(&mut self, position: usize) {
        self.kept[position] = true;
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

    fn address(&self, record: &Record) -> Result<Option<IpAddr>, Malformed> {
        let data = self.data(record);
        match record.kind {
            kind::A => {
                let bytes: [u8; 4] = data.try_into().map_err(|_| Malformed::Data)?;
                Ok(Some(Ipv4Addr::from(bytes).into()))
            }
            kind::AAAA => {
                let bytes: [u8; 16] = data.try_into().map_err(|_| Malformed::Data)?;
                Ok(Some(Ipv6Addr::from(bytes).into()))
            }
            _ => Ok(None),
        }
    }
}
