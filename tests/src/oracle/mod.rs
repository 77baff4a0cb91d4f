//! What a DNS response teaches for the asked name, by another way than the daemon's: every name on
//! another library, every record a value of its own, the chain walked by definition. Shares no code
//! with the daemon; [`generate`] makes responses for both to read.

pub mod generate;
pub mod service;

use hickory_proto::rr::Name;
use hickory_proto::serialize::binary::{BinDecodable, BinDecoder};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

const A: u16 = 1;
const CNAME: u16 = 5;
const AAAA: u16 = 28;
const DNAME: u16 = 39;
const SVCB: u16 = 64;
const HTTPS: u16 = 65;

/// Bounds that the daemon promises to keep.
const HOPS: usize = 16;
const RECORDS: usize = 512;
const ADDRESSES: usize = 512;
const JUMPS: usize = 127;

/// What a response teaches.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Lesson {
    /// The addresses, in the order of their records, repetitions included.
    pub addresses: Vec<IpAddr>,
    /// The smallest TTL of the records that were used, in seconds.
    pub ttl: u32,
}

/// What `message` teaches for the name that it answers; `None` where what must be read of it is
/// malformed, is a loop, or is over a bound.
#[must_use]
pub fn lesson(message: &[u8]) -> Option<Lesson> {
    Response::read(message)?.lesson()
}

/// Every address that stands anywhere in `message` where a client could take it for an answer: in
/// records of any section, hints included.
#[must_use]
pub fn every_address(message: &[u8]) -> Vec<IpAddr> {
    let Some(response) = Response::read(message) else {
        return Vec::new();
    };
    let records = response.answers.iter().chain(&response.authority);
    records.flat_map(Record::addresses).collect()
}

struct Response<'m> {
    asked: Name,
    kind: u16,
    failed: bool,
    answers: Vec<Record<'m>>,
    authority: Vec<Record<'m>>,
}

struct Record<'m> {
    owner: Option<Name>,
    kind: u16,
    internet: bool,
    ttl: u32,
    /// The name that the data is, if it is one and nothing else.
    target: Option<Name>,
    data: &'m [u8],
}

impl<'m> Response<'m> {
    /// Reads the frame: the question, and where the records of two sections stand. The additional
    /// section is nobody's answer.
    fn read(message: &'m [u8]) -> Option<Self> {
        let mut decoder = BinDecoder::new(message);
        let mut number = || decoder.read_u16().ok().map(|value| value.unverified());
        let (_, flags, questions) = (number()?, number()?, number()?);
        let (answers, authority, _) = (number()?, number()?, number()?);
        if questions != 1 || usize::from(answers) + usize::from(authority) > RECORDS {
            return None;
        }
        let (asked, mut at) = name(message, 12)?;
        let [high, low, ..]: [u8; 4] = *message.get(at..)?.first_chunk()?;
        let kind = u16::from_be_bytes([high, low]);
        at += 4;
        let mut section = |count| {
            let mut records = Vec::new();
            for _ in 0..count {
                let (record, end) = Record::read(message, at)?;
                records.push(record);
                at = end;
            }
            Some(records)
        };
        Some(Self {
            asked,
            kind,
            failed: flags & 0xf != 0,
            answers: section(answers)?,
            authority: section(authority)?,
        })
    }

    fn lesson(&self) -> Option<Lesson> {
        let mut ttls = Vec::new();
        let end = self.chain(&mut ttls)?;
        let mut addresses = Vec::new();
        for record in &self.answers {
            if !record.internet || record.kind != self.kind || record.owner()? != &end {
                continue;
            }
            let given = match record.kind {
                A | AAAA | SVCB | HTTPS if self.failed => continue,
                A => vec![record.v4()?],
                AAAA => vec![record.v6()?],
                SVCB | HTTPS => service::hints(record.data)?,
                _ => Vec::new(),
            };
            ttls.push(record.ttl);
            if addresses.len() + given.len() <= ADDRESSES {
                addresses.extend(given);
            }
        }
        let ttl = ttls.into_iter().min().unwrap_or(0);
        Some(Lesson { addresses, ttl })
    }

    /// Walks the aliases from the asked name to its end.
    fn chain(&self, ttls: &mut Vec<u32>) -> Option<Name> {
        let mut current = lower(&self.asked);
        if self.kind == CNAME || self.kind == DNAME {
            return Some(current);
        }
        let aliases = self.answers.iter();
        let aliases = aliases.filter(|r| r.internet && (r.kind == CNAME || r.kind == DNAME));
        let aliases: Vec<&Record<'_>> = aliases.collect();
        if aliases.len() > 2 * HOPS || aliases.iter().any(|alias| alias.owner.is_none()) {
            return None;
        }
        let mut passed = vec![current.clone()];
        loop {
            let owns = |alias: &&&Record<'_>| alias.owner.as_ref() == Some(&current);
            let cname = aliases.iter().find(|a| a.kind == CNAME && owns(a));
            let mut next = None;
            if let Some(cname) = cname {
                ttls.push(cname.ttl);
                next = Some(lower(cname.target.as_ref()?));
            }
            for dname in aliases.iter().filter(|a| a.kind == DNAME && !owns(a)) {
                let owner = dname.owner()?;
                if !owner.zone_of(&current) {
                    continue;
                }
                let target = dname.target.as_ref()?;
                ttls.push(dname.ttl);
                if next.is_none() {
                    let own = usize::from(current.num_labels() - owner.num_labels());
                    let prefix = Name::from_labels(current.iter().take(own)).ok()?;
                    let made = prefix.append_domain(target).ok()?;
                    if made.len() > 254 {
                        return None;
                    }
                    next = Some(lower(&made));
                }
            }
            let Some(next) = next else {
                return Some(current);
            };
            if passed.contains(&next) || passed.len() > HOPS {
                return None;
            }
            passed.push(next.clone());
            current = next;
        }
    }
}

impl<'m> Record<'m> {
    /// The record at `at` and where it ends; `None` where its frame is broken.
    fn read(message: &'m [u8], at: usize) -> Option<(Self, usize)> {
        let mut decoder = BinDecoder::new(message.get(skip(message, at)?..)?);
        let kind = decoder.read_u16().ok()?.unverified();
        let class = decoder.read_u16().ok()?.unverified();
        let ttl = decoder.read_u32().ok()?.unverified();
        let length = decoder.read_u16().ok()?.unverified();
        let data = decoder.read_slice(length.into()).ok()?.unverified();
        let end = message.len() - decoder.len();
        let target = name(message, end - data.len());
        let record = Self {
            owner: name(message, at).map(|(owner, _)| lower(&owner)),
            kind,
            internet: class == 1,
            // RFC 2181 §8.
            ttl: if ttl >> 31 == 1 { 0 } else { ttl },
            target: target
                .filter(|(_, after)| *after == end)
                .map(|(name, _)| name),
            data,
        };
        Some((record, end))
    }

    fn owner(&self) -> Option<&Name> {
        self.owner.as_ref()
    }

    fn v4(&self) -> Option<IpAddr> {
        Some(Ipv4Addr::from(<[u8; 4]>::try_from(self.data).ok()?).into())
    }

    fn v6(&self) -> Option<IpAddr> {
        Some(Ipv6Addr::from(<[u8; 16]>::try_from(self.data).ok()?).into())
    }

    fn addresses(&self) -> Vec<IpAddr> {
        match self.kind {
            A => self.v4().into_iter().collect(),
            AAAA => self.v6().into_iter().collect(),
            SVCB | HTTPS => service::hints(self.data).unwrap_or_default(),
            _ => Vec::new(),
        }
    }
}

fn lower(name: &Name) -> Name {
    name.to_lowercase()
}

/// The name at `at`, and where its own bytes end.
fn name(message: &[u8], at: usize) -> Option<(Name, usize)> {
    plausible(message, at)?;
    let start = u16::try_from(at).ok()?;
    let mut decoder = BinDecoder::new(message).clone(start);
    let name = Name::read(&mut decoder).ok()?;
    Some((name, decoder.index()))
}

/// What the library does not look at: no pointer leads into the header, which holds no name, and no
/// name has more pointers than labels.
fn plausible(message: &[u8], mut at: usize) -> Option<()> {
    let mut jumps = 0;
    loop {
        match *message.get(at)? {
            0 => return Some(()),
            length @ 1..=63 => at += 1 + usize::from(length),
            64..=191 => return None,
            high => {
                let target = usize::from(high & 0x3f) << 8 | usize::from(*message.get(at + 1)?);
                jumps += 1;
                if target < 12 || target >= at || jumps > JUMPS {
                    return None;
                }
                at = target;
            }
        }
    }
}

/// Where the bytes of the name at `at` end, whatever they point to.
fn skip(message: &[u8], mut at: usize) -> Option<usize> {
    loop {
        match *message.get(at)? {
            0 => return Some(at + 1),
            length @ 1..=63 => at += 1 + usize::from(length),
            64..=191 => return None,
            192.. => return Some(at + 2),
        }
    }
}
