//! Responses made of two: a chain that goes on in another response (splice), and IPv6 addresses made
//! from IPv4 ones (DNS64, RFC 6147).

use super::rewrite::Writer;
use super::wire::{HEADER, kind, short};
use super::{Fate, Malformed, Reading, Shape};
use crate::policy::nat64::Prefix;
use crate::policy::special::special_purpose;
use std::net::{IpAddr, Ipv6Addr};

const QR: u16 = 0x8000;
const AUTHORITATIVE: u16 = 0x0400;
const TRUNCATED: u16 = 0x0200;
const AUTHENTIC: u16 = 0x0020;
const RCODE: u16 = 0x000f;
const NAME_ERROR: u16 = 3;

/// TTL of a synthesized address when no SOA says how long there is none, in seconds (RFC 6147
/// §5.1.7).
const UNSAID: u32 = 600;

/// Everything as the upstream sent it.
const WHOLE: Shape = Shape {
    dnssec: true,
    ceiling: u32::MAX,
    ech: super::Ech::Keep,
};

impl Reading<'_> {
    /// The end of a chain that this response leaves without saying what is there, as uncompressed
    /// wire form: the name to ask next. `None` where the response is an error, has no chain, has
    /// records of the asked type at its end, or an SOA in whose zone the end lies, which says that
    /// there are none (RFC 2308 §2.2).
    #[must_use]
    pub fn dangling(&self) -> Option<Vec<u8>> {
        let end = self.holder.wire();
        let open = self.code() == 0 && self.hops > 0 && !self.answered && !self.denied();
        open.then(|| end.to_vec())
    }

    /// Whether an SOA of the authority section says what the chain's end does not have.
    fn denied(&self) -> bool {
        self.authority.iter().any(|record| {
            record.kind == kind::SOA
                && record.class == super::IN
                && super::expand(self.message, record.owner)
                    .is_ok_and(|(owner, _)| self.holder.is_under(&owner))
        })
    }

    fn flags(&self) -> u16 {
        short(self.message, 2).unwrap_or_default()
    }

    fn code(&self) -> u16 {
        self.flags() & RCODE
    }

    fn keeps_only(&mut self, kinds: &[u16]) {
        for (record, fate) in self.answers.iter().zip(&mut self.fates) {
            if !kinds.contains(&record.kind) {
                *fate = Fate::Dropped;
            }
        }
    }
}

/// One response made of `first`, whose chain dangles ([`Reading::dangling`]), and `second`, which
/// answers the same question for the chain's end: the first's question and chain, the second's
/// answer, authority and response code. The bit AD stays where both have it; TC is never set. What
/// comes out reads as one response within the bounds of one.
///
/// # Errors
/// When one of them is malformed, the second answers another question, or both together are a loop,
/// too long a chain, too many records or too many bytes.
pub fn splice(first: &[u8], second: &[u8]) -> Result<Vec<u8>, Malformed> {
    let (start, rest) = (Reading::of(first)?, Reading::of(second)?);
    let fits = start.dangling().is_some()
        && rest.asked.is(&start.holder)
        && (rest.kind, rest.class) == (start.kind, start.class);
    if !fits {
        return Err(Malformed::Question);
    }
    let mut out = Vec::with_capacity(first.len() + second.len());
    let authentic = start.flags() & rest.flags() & AUTHENTIC;
    let flags = rest.flags() & !(AUTHORITATIVE | TRUNCATED | AUTHENTIC);
    start.begin(QR | flags | authentic, &mut out);
    let mut names = vec![(start.asked, HEADER)];
    let chain = start.write_answers(&mut out, &mut names, WHOLE)?;
    let answers = rest.write_answers(&mut out, &mut names, WHOLE)?;
    let authority = rest.write_authority(&mut out, &mut names, WHOLE)?;
    count(&mut out, chain + answers, authority);
    Reading::of(&out)?;
    Ok(out)
}

/// The answer to an AAAA question of a name that has none, made from its A records: `None` where it
/// has AAAA records (those inside `::ffff:0:0/96` do not count, RFC 6147 §5.1.4), does not exist, or
/// has no IPv4 address that may be told either. Special-purpose addresses are not translated. TTLs
/// are at most those of the A records and of the SOA that says that there are no AAAA.
///
/// # Errors
/// When one of them is malformed, or they do not ask for AAAA and A of one name.
pub fn synthesize(
    aaaa_reply: &[u8],
    a_reply: &[u8],
    prefix: Prefix,
) -> Result<Option<Vec<u8>>, Malformed> {
    let (wanted, mut given) = (Reading::of(aaaa_reply)?, Reading::of(a_reply)?);
    let kinds = (wanted.kind, given.kind) == (kind::AAAA, kind::A);
    if !kinds || !wanted.asked.is(&given.asked) || wanted.class != given.class {
        return Err(Malformed::Question);
    }
    let native = |address| matches!(address, IpAddr::V6(v6) if v6.to_ipv4_mapped().is_none());
    if wanted.code() == NAME_ERROR || wanted.found.iter().any(|found| native(found.address)) {
        return Ok(None);
    }
    let made: Vec<(Ipv6Addr, u32)> = given
        .found
        .iter()
        .filter(|found| special_purpose(found.address).is_none())
        .filter_map(|found| match found.address {
            IpAddr::V4(address) => {
                let ttl = given.answers[found.position].ttl;
                Some((prefix.embed(address), ttl))
            }
            IpAddr::V6(_) => None,
        })
        .collect();
    if made.is_empty() {
        return Ok(None);
    }
    let cap = wanted.absence().unwrap_or(UNSAID);
    let mut out = Vec::with_capacity(aaaa_reply.len() + a_reply.len());
    let flags = given.flags() & !(AUTHORITATIVE | TRUNCATED | AUTHENTIC);
    wanted.begin(QR | flags, &mut out);
    let mut names = vec![(wanted.asked, HEADER)];
    given.keeps_only(&[kind::CNAME, kind::DNAME]);
    let shape = Shape {
        dnssec: false,
        ..WHOLE
    };
    let mut answers = given.write_answers(&mut out, &mut names, shape)?;
    let mut writer = Writer {
        message: a_reply,
        out: &mut out,
        names: &mut names,
    };
    for (address, ttl) in made {
        writer.address(&given.holder, address, ttl.min(cap))?;
        answers += 1;
    }
    count(&mut out, answers, 0);
    Ok(Some(out))
}

impl Reading<'_> {
    /// Writes a header with these flags and one question.
    fn begin(&self, flags: u16, out: &mut Vec<u8>) {
        out.extend(self.message.iter().take(2));
        out.extend(flags.to_be_bytes());
        out.extend([0, 1, 0, 0, 0, 0, 0, 0]);
        out.extend(self.asked.wire());
        out.extend(self.kind.to_be_bytes());
        out.extend(self.class.to_be_bytes());
    }

    /// How long there is no record of the asked type, in seconds, where an SOA says it (RFC 2308 §5).
    fn absence(&self) -> Option<u32> {
        let mut records = self.authority.iter();
        let record =
            records.find(|record| record.kind == kind::SOA && record.class == super::IN)?;
        let minimum = record.end.checked_sub(4).filter(|at| *at >= record.data)?;
        let bytes = self.message.get(minimum..)?.first_chunk()?;
        Some(record.ttl.min(u32::from_be_bytes(*bytes)))
    }
}

fn count(out: &mut [u8], answers: u16, authority: u16) {
    out[6..8].copy_from_slice(&answers.to_be_bytes());
    out[8..10].copy_from_slice(&authority.to_be_bytes());
}
