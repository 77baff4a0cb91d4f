//! Clients' questions and what is written back to them, as bytes. Pure.

use crate::policy::answer::wire::{HEADER, IN, kind};
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

/// Most bytes of a name (RFC 1035 §2.3.4).
pub(super) const MOST_NAME: usize = 255;

/// What of a question, beside the name and the type, changes what an upstream says.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Variant {
    /// Signatures are wanted.
    pub(super) dnssec: bool,
    /// The client validates for itself.
    pub(super) checking_disabled: bool,
    /// It is proven here: the upstream need not validate, and must not keep back what fails.
    pub(super) proven: bool,
}

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

    /// 3, stale answer.
    pub(super) const STALE: Self = Self {
        code: 3,
        text: "the upstreams do not answer; this is an older answer",
    };

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

/// A question as it stands in a client's message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Asked<'m> {
    pub(super) id: u16,
    flags: u16,
    /// Name, type and class as they came.
    pub(super) wire: &'m [u8],
    pub(super) kind: u16,
    pub(super) edns: Option<Edns>,
}

/// A client's question that outlives its message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Question {
    id: u16,
    flags: u16,
    wire: Box<[u8]>,
    pub(super) name: Name,
    pub(super) kind: u16,
    edns: Option<Edns>,
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

impl<'m> Asked<'m> {
    /// Reads a client's message: one question of class IN, without compression (RFC 9619).
    pub(super) fn read(message: &'m [u8]) -> Result<Self, Unread> {
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
        if at - HEADER >= MOST_NAME {
            return Err(MALFORMED);
        }
        let (kind, class) = (short(message, at + 1)?, short(message, at + 3)?);
        let end = at + 5;
        let edns = read_edns(&message[end..], short(message, 10)?)?;
        if class != IN {
            return Err(Unread::Code(rcode::REFUSED));
        }
        Ok(Self {
            id,
            flags,
            wire: &message[HEADER..end],
            kind,
            edns,
        })
    }

    /// Keeps it beyond its message.
    pub(super) fn keep(&self) -> Result<Question, Unread> {
        let name = Name::from_wire(&self.wire[..self.wire.len() - 4])
            .map_err(|_| Unread::Code(rcode::FORMERR))?;
        Ok(Question {
            id: self.id,
            flags: self.flags,
            wire: self.wire.into(),
            name,
            kind: self.kind,
            edns: self.edns,
        })
    }

    /// The largest UDP reply that the client takes, in bytes.
    pub(super) fn udp_limit(&self) -> usize {
        usize::from(
            self.edns
                .map_or(OLD_UDP, |edns| edns.size.clamp(OLD_UDP, SAFE_UDP)),
        )
    }

    /// Whether the client wants signatures (RFC 3225).
    pub(super) fn dnssec(&self) -> bool {
        self.edns.is_some_and(|edns| edns.dnssec)
    }

    /// Whether the client validates for itself (RFC 4035 §3.2.2).
    pub(super) fn checking_disabled(&self) -> bool {
        self.flags & CD != 0
    }

    /// Writes a reply without records.
    pub(super) fn bare(
        &self,
        code: u16,
        extended: Option<Extended<'_>>,
        limit: usize,
        out: &mut Vec<u8>,
    ) {
        self.begin(code, false, [0, 0], out);
        self.finish(extended, limit, out);
    }

    /// Begins a reply: header and question. `authentic` reaches only a client that asked for it
    /// (RFC 6840 §5.7); `counts` are those of the answer and authority sections.
    pub(super) fn begin(&self, code: u16, authentic: bool, counts: [u16; 2], out: &mut Vec<u8>) {
        let wants_ad = self.flags & AD != 0 || self.dnssec();
        let ad = if authentic && wants_ad { AD } else { 0 };
        let flags = QR | (self.flags & (RD | CD)) | RA | ad | (code & RCODE);
        out.clear();
        header(out, self.id, flags, [1, counts[0], counts[1], 0]);
        out.extend(self.wire);
    }

    /// Adds OPT where the client spoke EDNS; what is over `limit` bytes leaves as a truncated reply
    /// without records (RFC 2181 §9).
    pub(super) fn finish(&self, extended: Option<Extended<'_>>, limit: usize, out: &mut Vec<u8>) {
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

impl Question {
    /// A question of the gateway's own.
    pub(super) fn own(name: &Name, kind: u16) -> Self {
        let wire = [name.wire(), &kind.to_be_bytes(), &IN.to_be_bytes()].concat();
        Self {
            id: 0,
            flags: RD,
            wire: wire.into(),
            name: name.clone(),
            kind,
            edns: None,
        }
    }

    pub(super) fn asked(&self) -> Asked<'_> {
        Asked {
            id: self.id,
            flags: self.flags,
            wire: &self.wire,
            kind: self.kind,
            edns: self.edns,
        }
    }
}

/// Writes a question to an upstream: `cased` is its name, type and class; EDNS of our own. The bit
/// AD asks for the upstream's opinion (RFC 6840 §5.7), whoever will read it.
pub(super) fn forward(id: u16, cased: &[u8], variant: Variant, out: &mut Vec<u8>) {
    out.clear();
    // CD for what is proven here alone: else what the upstream found forged would come through, and
    // teach.
    let cd = if variant.proven { CD } else { 0 };
    header(out, id, RD | AD | cd, [1, 0, 0, 1]);
    out.extend(cased);
    out.push(0);
    out.extend(kind::OPT.to_be_bytes());
    out.extend(SAFE_UDP.to_be_bytes());
    out.extend([0, 0, if variant.dnssec { DO } else { 0 }, 0, 0, 0]);
}

/// The flags of a message that has a header.
pub(super) fn flags(message: &[u8]) -> u16 {
    u16::from_be_bytes([message[2], message[3]])
}

/// Whether `message` is truncated.
pub(super) fn is_truncated(message: &[u8]) -> bool {
    flags(message) & TC != 0
}

/// Whether an upstream vouches for `message`.
pub(super) fn is_authentic(message: &[u8]) -> bool {
    flags(message) & AD != 0
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

/// Whether `message` is an error without a question: what upstreams say who could not read it, or
/// would not. It answers nothing and so can teach nothing.
pub(super) fn is_bare_error(message: &[u8]) -> bool {
    message.len() >= HEADER
        && flags(message) & (QR | OPCODE | TC) == QR
        && message[4..10] == [0; 6]
        && matches!(
            code(message),
            rcode::FORMERR | rcode::SERVFAIL | rcode::NOTIMP | rcode::REFUSED
        )
}

/// SERVFAIL without a question, in the name of an upstream that did not answer in DNS at all.
pub(super) fn failure(id: u16) -> [u8; HEADER] {
    let mut message = [0; HEADER];
    message[..2].copy_from_slice(&id.to_be_bytes());
    message[2..4].copy_from_slice(&(QR | rcode::SERVFAIL).to_be_bytes());
    message
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
            let got = Asked::read(message).and_then(|asked| asked.keep());
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
        let bytes = message(RD, [1, 0, 0, 1], &rest);
        let question = Asked::read(&bytes).unwrap();
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
    fn bare_errors() {
        fn check(message: &[u8], expected: bool) {
            assert_eq!(is_bare_error(message), expected, "{message:?}");
        }
        check(&failure(7), true);
        for code in 0..16 {
            let expected = [1, 2, 4, 5].contains(&code);
            check(&message(QR | code, [0; 4], &[]), expected);
            check(&message(QR | code, [0, 0, 0, 1], &OPT_512_DO), expected);
            check(&message(QR | code, [1, 0, 0, 0], &asked(1, 1)), false);
            check(&message(QR | code, [0, 1, 0, 0], &[]), false);
            check(&message(code, [0; 4], &[]), false);
            check(&message(QR | TC | code, [0; 4], &[]), false);
        }
        check(&failure(7)[..11], false);
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
