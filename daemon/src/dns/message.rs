//! Clients' questions and what is written back to them, as bytes. Pure.

use crate::policy::answer::wire::{HEADER, IN, answers_end, kind};
use crate::policy::answer::{Malformed, Reading, Written};
use crate::policy::name::Name;

/// Largest UDP message sent to anyone, safe from fragmentation (DNS flag day 2020).
pub(super) const SAFE_UDP: u16 = 1232;

/// Smallest UDP message everyone takes (RFC 1035 §4.2.1).
const OLD_UDP: u16 = 512;

const QR: u16 = 0x8000;
const OPCODE: u16 = 0x7800;
const TC: u16 = 0x0200;
const RD: u16 = 0x0100;
const RA: u16 = 0x0080;
const AD: u16 = 0x0020;
const CD: u16 = 0x0010;
const RCODE: u16 = 0x000f;

/// Bytes of an OPT record without options.
const OPT_LENGTH: usize = 11;

/// DNSSEC OK, in the TTL field of OPT (RFC 3225).
const DO: u8 = 0x80;

/// The option that carries an extended error (RFC 8914 §2).
const EXTENDED_ERROR: u16 = 15;

/// Response codes (IANA DNS RCODEs).
pub(super) mod rcode {
    pub(in crate::dns) const NO_ERROR: u16 = 0;
    pub(in crate::dns) const FORMERR: u16 = 1;
    pub(in crate::dns) const SERVFAIL: u16 = 2;
    pub(in crate::dns) const NXDOMAIN: u16 = 3;
    pub(in crate::dns) const NOTIMP: u16 = 4;
    pub(in crate::dns) const REFUSED: u16 = 5;
    pub(in crate::dns) const BADVERS: u16 = 16;
}

/// An extended error (RFC 8914): why, for people and for stub resolvers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Extended<'t> {
    pub(super) code: u16,
    pub(super) text: &'t str,
}

impl<'t> Extended<'t> {
    /// 0, other.
    pub(super) const fn other(text: &'t str) -> Self {
        Self { code: 0, text }
    }

    /// 18, prohibited.
    pub(super) const fn prohibited(text: &'t str) -> Self {
        Self { code: 18, text }
    }

    /// 22, no reachable authority.
    pub(super) const fn unreachable(text: &'t str) -> Self {
        Self { code: 22, text }
    }

    /// 23, network error.
    pub(super) const fn network(text: &'t str) -> Self {
        Self { code: 23, text }
    }
}

/// What the client said about EDNS (RFC 6891).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Edns {
    /// Largest UDP reply it takes, in bytes, as it said.
    pub(super) size: u16,
    /// Whether it wants signatures.
    pub(super) dnssec: bool,
}

/// A client's question.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Question {
    pub(super) id: u16,
    flags: u16,
    /// Name, type and class as they came.
    pub(super) wire: Box<[u8]>,
    pub(super) name: Name,
    pub(super) kind: u16,
    pub(super) edns: Option<Edns>,
}

/// Why a message is no question that can be looked at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Unread {
    /// Not even a question: no reply, or two servers would talk for ever.
    Silent,
    /// Reply with this response code.
    Code(u16),
}

fn short(message: &[u8], at: usize) -> Result<u16, Unread> {
    let bytes = message.get(at..).and_then(<[u8]>::first_chunk);
    bytes
        .map(|bytes| u16::from_be_bytes(*bytes))
        .ok_or(Unread::Code(rcode::FORMERR))
}

impl Question {
    /// Reads a client's message: one question of class IN, without compression (RFC 9619).
    pub(super) fn read(message: &[u8]) -> Result<Self, Unread> {
        const MALFORMED: Unread = Unread::Code(rcode::FORMERR);
        if message.len() < HEADER {
            return Err(Unread::Silent);
        }
        let (id, flags) = (short(message, 0)?, short(message, 2)?);
        if flags & QR != 0 {
            return Err(Unread::Silent);
        }
        if flags & OPCODE != 0 {
            return Err(Unread::Code(rcode::NOTIMP));
        }
        let counts = (short(message, 4)?, short(message, 6)?, short(message, 8)?);
        if counts != (1, 0, 0) {
            return Err(MALFORMED);
        }
        let mut at = HEADER;
        loop {
            match *message.get(at).ok_or(MALFORMED)? {
                0 => break,
                length @ 1..=63 => at += 1 + usize::from(length),
                64.. => return Err(MALFORMED),
            }
        }
        let name = Name::from_wire(&message[HEADER..=at]).map_err(|_| MALFORMED)?;
        let (kind, class) = (short(message, at + 1)?, short(message, at + 3)?);
        let end = at + 5;
        let edns = read_edns(&message[end..], short(message, 10)?)?;
        if class != IN {
            return Err(Unread::Code(rcode::REFUSED));
        }
        Ok(Self {
            id,
            flags,
            wire: message[HEADER..end].into(),
            name,
            kind,
            edns,
        })
    }

    /// The largest UDP reply that the client takes, in bytes.
    pub(super) fn udp_limit(&self) -> usize {
        usize::from(
            self.edns
                .map_or(OLD_UDP, |edns| edns.size.clamp(OLD_UDP, SAFE_UDP)),
        )
    }

    fn dnssec(&self) -> bool {
        self.edns.is_some_and(|edns| edns.dnssec)
    }

    /// Writes the question to an upstream: with the name's letters as in `cased`, EDNS of our own.
    pub(super) fn forward(&self, id: u16, cased: &[u8], out: &mut Vec<u8>) {
        let wants_ad = if self.dnssec() { AD } else { 0 };
        let flags = RD | (self.flags & (CD | AD)) | wants_ad;
        out.clear();
        header(out, id, flags, [1, 0, 0, 1]);
        out.extend(cased);
        let dnssec = if self.dnssec() { DO } else { 0 };
        out.push(0);
        out.extend(kind::OPT.to_be_bytes());
        out.extend(SAFE_UDP.to_be_bytes());
        out.extend([0, 0, dnssec, 0, 0, 0]);
    }

    /// Writes a reply without records.
    pub(super) fn bare(
        &self,
        code: u16,
        extended: Option<Extended<'_>>,
        limit: usize,
        out: &mut Vec<u8>,
    ) {
        self.begin(code, 0, Written::default(), out);
        self.finish(extended, limit, out);
    }

    /// Writes what a client may see of `reading`. The bit AD stays only where nothing was changed
    /// and the client asked for it (RFC 6840 §5.7).
    pub(super) fn reply(
        &self,
        reading: &Reading<'_>,
        upstream_flags: u16,
        struck: bool,
        ceiling: u32,
        limit: usize,
        out: &mut Vec<u8>,
    ) -> Result<(), Malformed> {
        let ad = if struck { 0 } else { upstream_flags & AD };
        self.begin(upstream_flags & RCODE, ad, Written::default(), out);
        let written = reading.write(out, self.dnssec(), ceiling)?;
        out[6..8].copy_from_slice(&written.answers.to_be_bytes());
        out[8..10].copy_from_slice(&written.authority.to_be_bytes());
        let extended = struck.then_some(Extended::prohibited("addresses were removed"));
        self.finish(extended, limit, out);
        Ok(())
    }

    /// Writes an upstream's `message` as it is, up to the additional section, for clients whose
    /// look-ups teach nothing. The header and the question keep their lengths, so every compression
    /// pointer keeps its target.
    pub(super) fn pass(
        &self,
        message: &[u8],
        limit: usize,
        out: &mut Vec<u8>,
    ) -> Result<(), Malformed> {
        let end = answers_end(message)?;
        let flags = flags(message);
        self.begin(flags & RCODE, flags & AD, Written::default(), out);
        out[6..10].copy_from_slice(&message[6..10]);
        out.extend(&message[HEADER + self.wire.len()..end]);
        self.finish(None, limit, out);
        Ok(())
    }

    fn begin(&self, code: u16, ad: u16, written: Written, out: &mut Vec<u8>) {
        let wants_ad = self.flags & AD != 0 || self.dnssec();
        let ad = if wants_ad { ad } else { 0 };
        let flags = QR | (self.flags & (RD | CD)) | RA | ad | (code & RCODE);
        out.clear();
        header(
            out,
            self.id,
            flags,
            [1, written.answers, written.authority, 0],
        );
        out.extend(&self.wire);
    }

    /// Adds OPT where the client spoke EDNS; what is over `limit` bytes leaves as a truncated reply
    /// without records (RFC 2181 §9).
    fn finish(&self, extended: Option<Extended<'_>>, limit: usize, out: &mut Vec<u8>) {
        let opt = if self.edns.is_some() { OPT_LENGTH } else { 0 };
        if out.len() + opt > limit {
            out.truncate(HEADER + self.wire.len());
            out[2] |= (TC >> 8) as u8;
            out[6..10].fill(0);
        }
        if self.edns.is_some() {
            let room = limit.saturating_sub(out.len() + OPT_LENGTH);
            write_opt(out, self.dnssec(), 0, extended, room);
        }
    }
}

/// The flags of a message that has a header.
pub(super) fn flags(message: &[u8]) -> u16 {
    u16::from_be_bytes([message[2], message[3]])
}

/// Whether `message` is truncated.
pub(super) fn is_truncated(message: &[u8]) -> bool {
    flags(message) & TC != 0
}

/// The response code in the header.
pub(super) fn code(message: &[u8]) -> u16 {
    flags(message) & RCODE
}

/// Whether `message` answers exactly the question `cased`: a reply, one question, equal to the byte.
pub(super) fn answers(message: &[u8], cased: &[u8]) -> bool {
    message.len() >= HEADER + cased.len()
        && flags(message) & (QR | OPCODE) == QR
        && message[4..6] == [0, 1]
        && message[HEADER..HEADER + cased.len()] == *cased
}

/// Writes the reply to a message that is not a question.
pub(super) fn fault(message: &[u8], code: u16, out: &mut Vec<u8>) {
    let Some([high, low]) = message.first_chunk() else {
        return;
    };
    let flags = QR | (flags(message) & (OPCODE | RD)) | (code & RCODE);
    out.clear();
    header(out, u16::from_be_bytes([*high, *low]), flags, [0; 4]);
    if code > RCODE {
        write_opt(out, false, (code >> 4) as u8, None, 0);
    }
}

fn header(out: &mut Vec<u8>, id: u16, flags: u16, counts: [u16; 4]) {
    out.extend(id.to_be_bytes());
    out.extend(flags.to_be_bytes());
    for count in counts {
        out.extend(count.to_be_bytes());
    }
}

/// Appends OPT and counts it. An extended error's text is cut to `room` bytes, its option included.
fn write_opt(
    out: &mut Vec<u8>,
    dnssec: bool,
    high_code: u8,
    extended: Option<Extended<'_>>,
    room: usize,
) {
    out[10..12].copy_from_slice(&[0, 1]);
    out.push(0);
    out.extend(kind::OPT.to_be_bytes());
    out.extend(SAFE_UDP.to_be_bytes());
    out.extend([high_code, 0, if dnssec { DO } else { 0 }, 0]);
    let Some(extended) = extended.filter(|_| room >= 6) else {
        out.extend([0, 0]);
        return;
    };
    let cut = extended.text.floor_char_boundary((room - 6).min(200));
    let length = cut as u16;
    out.extend((length + 6).to_be_bytes());
    out.extend(EXTENDED_ERROR.to_be_bytes());
    out.extend((length + 2).to_be_bytes());
    out.extend(extended.code.to_be_bytes());
    out.extend(&extended.text.as_bytes()[..cut]);
}

/// Finds OPT among a question's additional records.
fn read_edns(mut rest: &[u8], count: u16) -> Result<Option<Edns>, Unread> {
    const MALFORMED: Unread = Unread::Code(rcode::FORMERR);
    // Questions carry OPT, perhaps a signature; a long list is somebody's experiment.
    const MOST: u16 = 4;
    if count > MOST {
        return Err(MALFORMED);
    }
    let mut edns = None;
    for _ in 0..count {
        let mut at = 0;
        loop {
            match *rest.get(at).ok_or(MALFORMED)? {
                0 => break,
                length @ 1..=63 => at += 1 + usize::from(length),
                64.. => return Err(MALFORMED),
            }
        }
        let is_root = at == 0;
        let fixed: &[u8; 10] = rest
            .get(at + 1..)
            .and_then(<[u8]>::first_chunk)
            .ok_or(MALFORMED)?;
        let [k0, k1, s0, s1, _, version, flags, _, l0, l1] = *fixed;
        let end = at + 11 + usize::from(u16::from_be_bytes([l0, l1]));
        rest = rest.get(end..).ok_or(MALFORMED)?;
        if u16::from_be_bytes([k0, k1]) != kind::OPT {
            continue;
        }
        if edns.is_some() || !is_root {
            return Err(MALFORMED);
        }
        if version != 0 {
            return Err(Unread::Code(rcode::BADVERS));
        }
        let size = u16::from_be_bytes([s0, s1]);
        edns = Some(Edns {
            size,
            dnssec: flags & DO != 0,
        });
    }
    Ok(edns)
}

#[cfg(test)]
mod tests {
    use super::*;

    const OPT_512_DO: [u8; 11] = [0, 0, 41, 2, 0, 0, 0, 0x80, 0, 0, 0];

    fn message(flags: u16, counts: [u16; 4], rest: &[u8]) -> Vec<u8> {
        let mut out = Vec::new();
        header(&mut out, 0x1234, flags, counts);
        out.extend(rest);
        out
    }

    fn asked(kind: u8, class: u8) -> Vec<u8> {
        [&b"\x03wWw\x01A\x00"[..], &[0, kind, 0, class]].concat()
    }

    #[test]
    fn questions() {
        fn check(message: &[u8], expected: Result<Option<Edns>, Unread>) {
            let got = Question::read(message);
            assert_eq!(
                got.as_ref().map(|question| question.edns).map_err(|e| *e),
                expected
            );
            if let Ok(question) = got {
                assert_eq!(question.name.to_string(), "www.a");
                assert_eq!((question.id, question.kind), (0x1234, 1));
                assert_eq!(*question.wire, *asked(1, 1));
            }
        }
        let code = |code| Err(Unread::Code(code));
        let plain = asked(1, 1);
        let with = |rest: &[&[u8]]| [&plain, &rest.concat()[..]].concat();
        check(&message(RD, [1, 0, 0, 0], &plain), Ok(None));
        let edns = Edns {
            size: 512,
            dnssec: true,
        };
        check(
            &message(RD, [1, 0, 0, 1], &with(&[&OPT_512_DO])),
            Ok(Some(edns)),
        );
        check(&[], Err(Unread::Silent));
        check(&[0; 11], Err(Unread::Silent));
        check(&message(QR, [1, 0, 0, 0], &plain), Err(Unread::Silent));
        check(&message(0x2800, [1, 0, 0, 0], &plain), code(rcode::NOTIMP));
        check(&message(0, [0, 0, 0, 0], &[]), code(rcode::FORMERR));
        check(
            &message(0, [2, 0, 0, 0], &with(&[&plain])),
            code(rcode::FORMERR),
        );
        check(&message(0, [1, 1, 0, 0], &plain), code(rcode::FORMERR));
        check(
            &message(0, [1, 0, 0, 0], &asked(1, 3)),
            code(rcode::REFUSED),
        );
        check(
            &message(0, [1, 0, 0, 0], &asked(1, 255)),
            code(rcode::REFUSED),
        );
        check(
            &message(0, [1, 0, 0, 0], &[0xc0, 12, 0, 1, 0, 1]),
            code(rcode::FORMERR),
        );
        check(
            &message(0, [1, 0, 0, 0], &plain[..plain.len() - 1]),
            code(rcode::FORMERR),
        );
        check(&message(0, [1, 0, 0, 1], &plain), code(rcode::FORMERR));
        check(&message(0, [1, 0, 0, 9], &plain), code(rcode::FORMERR));
        let twice = with(&[&OPT_512_DO, &OPT_512_DO]);
        check(&message(0, [1, 0, 0, 2], &twice), code(rcode::FORMERR));
        let mut later = OPT_512_DO;
        later[6] = 1;
        check(
            &message(0, [1, 0, 0, 1], &with(&[&later])),
            code(rcode::BADVERS),
        );
        let long = [&[1, b'a'].repeat(128)[..], &[0, 0, 1, 0, 1]].concat();
        check(&message(0, [1, 0, 0, 0], &long), code(rcode::FORMERR));
    }

    #[test]
    fn replies_fit() {
        let rest = [asked(1, 1), OPT_512_DO.to_vec()].concat();
        let question = Question::read(&message(RD, [1, 0, 0, 1], &rest)).unwrap();
        assert_eq!(question.udp_limit(), 512);
        let text = "ü".repeat(400);
        let mut out = Vec::new();
        for limit in [40, 41, 45, 47, 48, 60, 512] {
            question.bare(
                rcode::SERVFAIL,
                Some(Extended::other(&text)),
                limit,
                &mut out,
            );
            assert!(out.len() <= limit, "{} of {limit}", out.len());
            let parsed = hickory_proto::op::Message::from_vec(&out).unwrap();
            assert!(parsed.edns.is_some());
        }
        let reply = message(QR | RA, [1, 0, 0, 0], &asked(1, 1));
        assert!(answers(&reply, &asked(1, 1)));
        assert!(!answers(&reply, &asked(28, 1)));
        assert!(!answers(&reply[..reply.len() - 1], &asked(1, 1)));
        assert!(!answers(
            &message(RA, [1, 0, 0, 0], &asked(1, 1)),
            &asked(1, 1)
        ));
        assert!(!answers(
            &message(QR, [2, 0, 0, 0], &asked(1, 1)),
            &asked(1, 1)
        ));
        let lower = asked(1, 1).to_ascii_lowercase();
        assert!(!answers(&reply, &lower), "the case counts");
    }

    #[test]
    fn faults() {
        fn check(question: &[u8], code: u16, expected: &[u8]) {
            let mut out = Vec::new();
            fault(question, code, &mut out);
            assert_eq!(out, expected);
        }
        let bad = message(RD, [0; 4], &[]);
        check(
            &bad,
            rcode::FORMERR,
            &[0x12, 0x34, 0x81, 1, 0, 0, 0, 0, 0, 0, 0, 0],
        );
        let opt = [0, 0, 41, 4, 0xd0, 1, 0, 0, 0, 0, 0];
        let badvers = [&[0x12, 0x34, 0x81, 0, 0, 0, 0, 0, 0, 0, 0, 1][..], &opt].concat();
        check(&bad, rcode::BADVERS, &badvers);
    }
}
