//! The part of a response that a client may see, written anew: nothing is moved in place, so no
//! compression pointer can come to point at something else.

use super::service::{Cut, Service};
use super::wire::{Expanded, HEADER, IN, Record, expand, kind};
use super::{Ech, Fate, Malformed, Reading};
use std::net::Ipv6Addr;

/// How many records were written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Written {
    /// In the answer section.
    pub answers: u16,
    /// In the authority section.
    pub authority: u16,
}

/// Compression pointers reach this far (RFC 1035 §4.1.4).
const POINTER_REACH: usize = 0x4000;

/// Names remembered for compression; chains are shorter.
const MOST_NAMES: usize = 24;

/// For records that have no parameters.
const NOTHING: Cut = Cut {
    hints: false,
    ech: false,
};

/// Largest message (RFC 1035 §4.2.2).
const MOST_BYTES: usize = 65_535;

/// How a response is written for a client.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Shape {
    /// Whether signatures and denials are written.
    pub dnssec: bool,
    /// No TTL is above it, in seconds.
    pub ceiling: u32,
    /// What becomes of ECH in HTTPS and SVCB records.
    pub ech: Ech,
}

impl Reading<'_> {
    /// Appends the answer and authority sections as the client may see them to `out`, which must
    /// hold a header and the client's own question. What stays: the chain, the records of the asked
    /// type that were not struck, the SOA of a negative answer, and with `dnssec` the signatures and
    /// denials. Address hints of HTTPS and SVCB that were not stripped stay; a record that says that
    /// something stripped is mandatory leaves. No TTL exceeds the ceiling, nor, in the answer, the
    /// smallest one along the chain.
    ///
    /// # Errors
    /// When a record to be written is malformed or all do not fit; `out` is then to be thrown away.
    pub fn write(&self, out: &mut Vec<u8>, shape: Shape) -> Result<Written, Malformed> {
        let mut names = Vec::with_capacity(MOST_NAMES);
        names.push((self.asked, HEADER));
        let ceiling = shape.ceiling.min(self.ttl());
        Ok(Written {
            answers: self.write_answers(out, &mut names, Shape { ceiling, ..shape })?,
            authority: self.write_authority(out, &mut names, shape)?,
        })
    }

    /// Writes the answer section, and says how many records it has. `names` are where in `out`.
    pub(super) fn write_answers(
        &self,
        out: &mut Vec<u8>,
        names: &mut Names,
        shape: Shape,
    ) -> Result<u16, Malformed> {
        let mut writer = Writer {
            message: self.message,
            out,
            names,
        };
        let mut written = 0;
        for (record, fate) in self.answers.iter().zip(&self.fates) {
            let signature = shape.dnssec && record.kind == kind::RRSIG && record.class == IN;
            let cut = Cut {
                hints: *fate != Fate::Kept,
                ech: shape.ech == Ech::Strip,
            };
            if (*fate != Fate::Dropped || signature) && writer.record(record, shape.ceiling, cut)? {
                written += 1;
            }
        }
        Ok(written)
    }

    /// Writes what a client may see of the authority section.
    pub(super) fn write_authority(
        &self,
        out: &mut Vec<u8>,
        names: &mut Names,
        shape: Shape,
    ) -> Result<u16, Malformed> {
        let mut writer = Writer {
            message: self.message,
            out,
            names,
        };
        let mut written = 0;
        for record in &self.authority {
            let wanted = match record.kind {
                kind::SOA => true,
                kind::RRSIG | kind::NSEC | kind::NSEC3 => shape.dnssec,
                _ => false,
            };
            if wanted && record.class == IN && writer.record(record, shape.ceiling, NOTHING)? {
                written += 1;
            }
        }
        Ok(written)
    }
}

/// Types whose names old servers compress, beside those that are written name by name: MD, MF, MB,
/// MG, MR, MINFO, RP, AFSDB, RT, SIG, PX, NXT, NAPTR, KX and A6.
const COMPRESSED: [u16; 15] = [3, 4, 7, 8, 9, 14, 17, 18, 21, 24, 26, 30, 35, 36, 38];

/// Names that were written, and where, for compression.
pub(super) type Names = Vec<(Expanded, usize)>;

/// Appends records of `message`.
pub(super) struct Writer<'a> {
    pub(super) message: &'a [u8],
    pub(super) out: &'a mut Vec<u8>,
    pub(super) names: &'a mut Names,
}

impl Writer<'_> {
    /// Writes an AAAA record.
    pub(super) fn address(
        &mut self,
        owner: &Expanded,
        address: Ipv6Addr,
        ttl: u32,
    ) -> Result<(), Malformed> {
        self.owner(owner);
        self.out.extend(kind::AAAA.to_be_bytes());
        self.out.extend(IN.to_be_bytes());
        self.out.extend(ttl.to_be_bytes());
        self.out.extend([0, 16]);
        self.out.extend(address.octets());
        fits(self.out)
    }

    /// Writes one record; `false` when it has to be left out.
    fn record(&mut self, record: &Record, cap: u32, cut: Cut) -> Result<bool, Malformed> {
        let data = &self.message[record.data..record.end];
        let start = self.out.len();
        let owner = expand(self.message, record.owner)?.0;
        self.owner(&owner);
        self.out.extend(record.kind.to_be_bytes());
        self.out.extend(record.class.to_be_bytes());
        self.out.extend(record.ttl.min(cap).to_be_bytes());
        let length_at = self.out.len();
        self.out.extend([0, 0]);
        let whole = match record.kind {
            kind::HTTPS | kind::SVCB => Service::read(data)?.write(cut, self.out),
            kind::CNAME | kind::NS | kind::PTR | kind::DNAME => {
                ends(self.name(record.data)?, record.end)?;
                true
            }
            kind::SOA => {
                let primary_end = self.name(record.data)?;
                let mailbox_end = self.name(primary_end)?;
                ends(mailbox_end + 20, record.end)?;
                self.out.extend(&self.message[mailbox_end..record.end]);
                true
            }
            kind::SRV => {
                self.out.extend(data.get(..6).ok_or(Malformed::Data)?);
                ends(self.name(record.data + 6)?, record.end)?;
                true
            }
            kind::MX => {
                self.out.extend(data.get(..2).ok_or(Malformed::Data)?);
                ends(self.name(record.data + 2)?, record.end)?;
                true
            }
            // Their data may hold pointers that would come to point elsewhere (RFC 3597 §4).
            kind if COMPRESSED.contains(&kind) => false,
            _ => {
                self.out.extend(data);
                true
            }
        };
        if !whole {
            self.names.retain(|(_, at)| *at < start);
            self.out.truncate(start);
            return Ok(false);
        }
        fits(self.out)?;
        let length = self.out.len() - length_at - 2;
        let length = u16::try_from(length).map_err(|_| Malformed::Data)?;
        self.out[length_at..length_at + 2].copy_from_slice(&length.to_be_bytes());
        Ok(true)
    }

    fn owner(&mut self, owner: &Expanded) {
        match self.names.iter().find(|(name, _)| name.is(owner)) {
            Some((_, at)) => {
                let pointer = 0xc000 | u16::try_from(*at).expect("only near names are remembered");
                self.out.extend(pointer.to_be_bytes());
            }
            None => self.full(owner),
        }
    }

    /// Writes the name at `at` in the message and gives where it ended there.
    fn name(&mut self, at: usize) -> Result<usize, Malformed> {
        let (name, end) = expand(self.message, at)?;
        self.full(&name);
        Ok(end)
    }

    fn full(&mut self, name: &Expanded) {
        let at = self.out.len();
        if at < POINTER_REACH && self.names.len() < MOST_NAMES {
            self.names.push((*name, at));
        }
        self.out.extend(name.wire());
    }
}

fn fits(out: &[u8]) -> Result<(), Malformed> {
    if out.len() > MOST_BYTES {
        return Err(Malformed::Size);
    }
    Ok(())
}

fn ends(at: usize, end: usize) -> Result<(), Malformed> {
    if at == end {
        Ok(())
    } else {
        Err(Malformed::Data)
    }
}
