//! Names and records of a DNS message, read in place from bytes that may be hostile.

use super::{MOST_RECORDS, Malformed};

/// Types of records (RFC 1035 §3.2.2 and later).
pub mod kind {
    #![expect(missing_docs, reason = "the registry's own names")]
    pub const A: u16 = 1;
    pub const NS: u16 = 2;
    pub const CNAME: u16 = 5;
    pub const SOA: u16 = 6;
    pub const PTR: u16 = 12;
    pub const MX: u16 = 15;
    pub const AAAA: u16 = 28;
    pub const SRV: u16 = 33;
    pub const DNAME: u16 = 39;
    pub const OPT: u16 = 41;
    pub const DS: u16 = 43;
    pub const RRSIG: u16 = 46;
    pub const NSEC: u16 = 47;
    pub const NSEC3: u16 = 50;
    pub const SVCB: u16 = 64;
    pub const HTTPS: u16 = 65;
}

/// Class IN.
pub const IN: u16 = 1;

/// Length of a message's header.
pub const HEADER: usize = 12;

/// A name has at most 127 labels; no honest one needs more pointers.
const MOST_JUMPS: u32 = 127;

/// A name without compression, root label included, case kept.
#[derive(Clone, Copy)]
pub(super) struct Expanded {
    bytes: [u8; 255],
    length: u8,
}

impl Expanded {
    pub(super) fn wire(&self) -> &[u8] {
        &self.bytes[..usize::from(self.length)]
    }

    /// Whether both are the same name; ASCII case does not matter (RFC 4343). Length bytes are
    /// below 64 and so are not letters.
    pub(super) fn is(&self, other: &Self) -> bool {
        self.wire().eq_ignore_ascii_case(other.wire())
    }

    /// Whether this name is `zone` or below it.
    pub(super) fn is_under(&self, zone: &Self) -> bool {
        let (wire, suffix) = (self.wire(), zone.wire());
        let mut at = 0;
        while let Some(rest) = wire.get(at..) {
            if rest.eq_ignore_ascii_case(suffix) {
                return true;
            }
            match rest.first() {
                Some(0) | None => return false,
                Some(length) => at += 1 + usize::from(*length),
            }
        }
        false
    }

    /// What this name becomes under a DNAME (RFC 6672 §2.2): `None` where `owner` is not a proper
    /// ancestor.
    pub(super) fn redirected(
        &self,
        owner: &Self,
        target: &Self,
    ) -> Option<Result<Self, Malformed>> {
        let (wire, suffix) = (self.wire(), owner.wire());
        let mut at = 0;
        while at + suffix.len() < wire.len() {
            at += 1 + usize::from(wire[at]);
            if wire[at..].eq_ignore_ascii_case(suffix) {
                let mut made = Self {
                    bytes: [0; 255],
                    length: 0,
                };
                return Some(
                    made.push(&wire[..at])
                        .and_then(|()| made.push(target.wire()))
                        .map(|()| made),
                );
            }
        }
        None
    }

    fn push(&mut self, more: &[u8]) -> Result<(), Malformed> {
        let start = usize::from(self.length);
        let room = self
            .bytes
            .get_mut(start..start + more.len())
            .ok_or(Malformed::Name)?;
        room.copy_from_slice(more);
        self.length = u8::try_from(start + more.len()).map_err(|_| Malformed::Name)?;
        Ok(())
    }
}

/// Expands the name at `at`; gives it and where its bytes at `at` end. Every pointer must lead to
/// before the labels it continues, and what it leads to must end before them (a prior occurrence, RFC
/// 1035 §4.1.4), so the walk ends.
pub(super) fn expand(message: &[u8], at: usize) -> Result<(Expanded, usize), Malformed> {
    let mut name = Expanded {
        bytes: [0; 255],
        length: 0,
    };
    let mut end = None;
    let mut jumps = 0;
    let (mut at, mut segment, mut border) = (at, at, message.len());
    loop {
        if at >= border {
            let cut = at >= message.len();
            return Err(if cut {
                Malformed::Short
            } else {
                Malformed::Pointer
            });
        }
        let length = *message.get(at).ok_or(Malformed::Short)?;
        match length {
            0 => {
                name.push(&[0])?;
                return Ok((name, end.unwrap_or(at + 1)));
            }
            1..=63 => {
                let next = at + 1 + usize::from(length);
                name.push(message.get(at..next).ok_or(Malformed::Short)?)?;
                at = next;
            }
            64..=191 => return Err(Malformed::Name),
            192.. => {
                let target = usize::from(short(message, at)? & 0x3fff);
                end.get_or_insert(at + 2);
                jumps += 1;
                // The header holds no names.
                if target >= segment || target < HEADER || jumps > MOST_JUMPS {
                    return Err(Malformed::Pointer);
                }
                (at, segment, border) = (target, target, segment);
            }
        }
    }
}

/// Where the name at `at` ends, without following pointers.
fn skip(message: &[u8], mut at: usize) -> Result<usize, Malformed> {
    loop {
        match *message.get(at).ok_or(Malformed::Short)? {
            0 => return Ok(at + 1),
            length @ 1..=63 => at += 1 + usize::from(length),
            64..=191 => return Err(Malformed::Name),
            192.. => return Ok(at + 2),
        }
    }
}

/// Reads two bytes in network order.
pub(super) fn short(message: &[u8], at: usize) -> Result<u16, Malformed> {
    let bytes = message
        .get(at..)
        .and_then(<[u8]>::first_chunk)
        .ok_or(Malformed::Short)?;
    Ok(u16::from_be_bytes(*bytes))
}

/// A resource record by its places in the message.
#[derive(Clone, Copy, Debug)]
pub(super) struct Record {
    pub(super) owner: usize,
    pub(super) kind: u16,
    pub(super) class: u16,
    /// Seconds; one with the high bit set is 0 (RFC 2181 §8).
    pub(super) ttl: u32,
    pub(super) data: usize,
    pub(super) end: usize,
}

impl Record {
    /// Reads the record at `at`.
    pub(super) fn read(message: &[u8], at: usize) -> Result<Self, Malformed> {
        let fixed = skip(message, at)?;
        let bytes: &[u8; 10] = message
            .get(fixed..)
            .and_then(<[u8]>::first_chunk)
            .ok_or(Malformed::Short)?;
        let [k0, k1, c0, c1, t0, t1, t2, t3, l0, l1] = *bytes;
        let ttl = u32::from_be_bytes([t0, t1, t2, t3]);
        let data = fixed + 10;
        let end = data + usize::from(u16::from_be_bytes([l0, l1]));
        if end > message.len() {
            return Err(Malformed::Short);
        }
        Ok(Self {
            owner: at,
            kind: u16::from_be_bytes([k0, k1]),
            class: u16::from_be_bytes([c0, c1]),
            ttl: if ttl > i32::MAX as u32 { 0 } else { ttl },
            data,
            end,
        })
    }
}

/// Where the question of `message` ends.
///
/// # Errors
/// When it does not have exactly one, or it is malformed.
pub fn question_end(message: &[u8]) -> Result<usize, Malformed> {
    if short(message, 4)? != 1 {
        return Err(Malformed::Question);
    }
    let end = expand(message, HEADER)?.1 + 4;
    if end > message.len() {
        return Err(Malformed::Short);
    }
    Ok(end)
}

/// Where the answer and authority sections of `message` end.
///
/// # Errors
/// When it does not have exactly one question, or is truncated.
pub fn answers_end(message: &[u8]) -> Result<usize, Malformed> {
    if short(message, 4)? != 1 {
        return Err(Malformed::Question);
    }
    let mut at = skip(message, HEADER)? + 4;
    for _ in 0..usize::from(short(message, 6)?) + usize::from(short(message, 8)?) {
        at = Record::read(message, at)?.end;
    }
    if at > message.len() {
        Err(Malformed::Short)
    } else {
        Ok(at)
    }
}

/// How long a response lives, and where its TTLs stand.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Lifetime {
    /// Where the four bytes of each TTL of the answer and authority sections begin.
    pub places: Vec<usize>,
    /// The smallest TTL of the answer section in seconds; an SOA counts with its negative TTL too
    /// (RFC 2308 §5). 0 where neither is there.
    pub seconds: u32,
}

/// Reads the lifetime of `message`.
///
/// # Errors
/// When it does not have exactly one question, or is malformed.
pub fn lifetime(message: &[u8]) -> Result<Lifetime, Malformed> {
    if short(message, 4)? != 1 {
        return Err(Malformed::Question);
    }
    let answers = usize::from(short(message, 6)?);
    let count = answers + usize::from(short(message, 8)?);
    let mut at = skip(message, HEADER)? + 4;
    let mut places = Vec::with_capacity(count.min(MOST_RECORDS));
    let mut seconds = u32::MAX;
    for position in 0..count {
        let record = Record::read(message, at)?;
        places.push(record.data - 6);
        if position < answers {
            seconds = seconds.min(record.ttl);
        } else if record.kind == kind::SOA {
            let minimum = record.end.checked_sub(4).filter(|at| *at >= record.data);
            let minimum = minimum.ok_or(Malformed::Data)?;
            let bytes = message[minimum..].first_chunk().ok_or(Malformed::Short)?;
            seconds = seconds.min(record.ttl).min(u32::from_be_bytes(*bytes));
        }
        at = record.end;
    }
    let seconds = if seconds == u32::MAX { 0 } else { seconds };
    Ok(Lifetime { places, seconds })
}

/// Whether the answer section of `message` has a record of type `wanted`, whoever owns it. `false`
/// for what cannot be read.
#[must_use]
pub fn has_answer(message: &[u8], wanted: u16) -> bool {
    let find = || {
        let mut at = skip(message, HEADER)? + 4;
        for _ in 0..short(message, 6)? {
            let record = Record::read(message, at)?;
            if record.kind == wanted {
                return Ok(true);
            }
            at = record.end;
        }
        Ok::<_, Malformed>(false)
    };
    find().unwrap_or_default()
}
