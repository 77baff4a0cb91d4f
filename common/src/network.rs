//! The IP layer: addresses, header sanity, fragments, extension headers.

use crate::address::{V4, V6};
use crate::frame::{Behind, Frame};
use crate::link::PLAIN;
use crate::transport::{Segment, Transport, transport};
use crate::verdict::Reason;

/// Most IPv6 extension headers that are walked.
pub const MAX_EXTENSIONS: usize = 8;

/// An IP packet: where from, where to, and what it carries or why that cannot be told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Packet<A> {
    /// Source address.
    pub source: A,
    /// Destination address.
    pub destination: A,
    /// What it carries.
    pub transport: Transport,
}

impl<A> Packet<A> {
    #[inline(always)]
    fn new<F: Frame>(
        frame: &F,
        source: A,
        destination: A,
        transport: Result<Transport, Reason>,
    ) -> Self {
        let transport = match transport {
            Ok(transport) => transport,
            Err(reason) => Transport::unknown(reason),
        };
        Self {
            source,
            destination,
            transport: transport.blurred(frame),
        }
    }
}

/// Reads the IPv4 packet (RFC 791) that begins at byte `at`.
///
/// # Errors
/// [`Reason::Truncated`] or [`Reason::Malformed`] where not even the addresses can be told.
#[inline(always)]
pub fn ipv4<F: Frame>(frame: &F, at: usize) -> Result<Packet<V4>, Reason> {
    if at <= PLAIN {
        ipv4_here(frame, at)
    } else {
        ipv4_here(&Behind(frame), frame.blur(at as u64) as usize)
    }
}

#[inline(always)]
fn ipv4_here<F: Frame>(frame: &F, at: usize) -> Result<Packet<V4>, Reason> {
    let Some([first, second, third, source, destination]) = frame.words(at) else {
        return Err(Reason::Truncated);
    };
    let first = u32::from_be(first);
    if first >> 28 != 4 {
        return Err(Reason::Malformed);
    }
    let fragment = u32::from_be(second) as u16;
    let protocol = (u32::from_be(third) >> 16) as u8;
    let transport = ipv4_transport(frame, at, first, fragment, protocol);
    Ok(Packet::new(frame, [source], [destination], transport))
}

#[inline(always)]
fn ipv4_transport<F: Frame>(
    frame: &F,
    at: usize,
    first: u32,
    fragment: u16,
    protocol: u8,
) -> Result<Transport, Reason> {
    let header = (first >> 24 & 0xf) as usize * 4;
    let total = (first & 0xffff) as usize;
    if header < 20 || total < header {
        return Err(Reason::Malformed);
    }
    if !frame.reaches(at + total) {
        return Err(Reason::Truncated);
    }
    if header > 20 {
        return Err(Reason::Options);
    }
    if fragment & 0x1fff != 0 {
        return Err(Reason::LaterFragment);
    }
    let first_fragment = fragment & 0x2000 != 0;
    transport(
        frame,
        Segment {
            at: at + 20,
            length: total - 20,
            first_fragment,
        },
        protocol,
    )
}

/// Reads the IPv6 packet (RFC 8200) that begins at byte `at`.
///
/// # Errors
/// [`Reason::Truncated`] or [`Reason::Malformed`] where not even the addresses can be told.
#[inline(always)]
pub fn ipv6<F: Frame>(frame: &F, at: usize) -> Result<Packet<V6>, Reason> {
    if at <= PLAIN {
        let Some(header) = frame.words(at) else {
            return Err(Reason::Truncated);
        };
        // The verifier goes through every way along a chain of headers: let it do so once.
        if !is_extension(next_header(header[1])) {
            return ipv6_here(
                header,
                |second| {
                    let end = 40 + (second >> 16) as usize;
                    if !frame.reaches(at + end) {
                        return Err(Reason::Truncated);
                    }
                    let segment = Segment {
                        at: at + 40,
                        length: end - 40,
                        first_fragment: false,
                    };
                    transport(frame, segment, next_header(header[1]))
                },
                frame,
            );
        }
    }
    let (frame, at) = (&Behind(frame), frame.blur(at as u64) as usize);
    let Some(header) = frame.words(at) else {
        return Err(Reason::Truncated);
    };
    ipv6_here(header, |second| chain(frame, at, second), frame)
}

/// The packet with this header. `transport` reads what it carries, given the header's second word.
#[inline(always)]
fn ipv6_here<F: Frame>(
    [first, second, s0, s1, s2, s3, d0, d1, d2, d3]: [u32; 10],
    transport: impl FnOnce(u32) -> Result<Transport, Reason>,
    frame: &F,
) -> Result<Packet<V6>, Reason> {
    if u32::from_be(first) >> 28 != 6 {
        return Err(Reason::Malformed);
    }
    let transport = transport(u32::from_be(second));
    Ok(Packet::new(
        frame,
        [s0, s1, s2, s3],
        [d0, d1, d2, d3],
        transport,
    ))
}

/// The protocol in the second word of an IPv6 header, as it lies on the wire.
#[inline(always)]
const fn next_header(second: u32) -> u8 {
    (u32::from_be(second) >> 8) as u8
}

#[inline(always)]
const fn is_extension(protocol: u8) -> bool {
    matches!(
        protocol,
        HOP_BY_HOP | ROUTING | FRAGMENT | AUTHENTICATION | DESTINATION
    )
}

const HOP_BY_HOP: u8 = 0;
const ROUTING: u8 = 43;
const FRAGMENT: u8 = 44;
const AUTHENTICATION: u8 = 51;
const DESTINATION: u8 = 60;

/// Walks the extension headers. The authentication header is one, as for nft and conntrack, which
/// judge by what is behind it (`ipv6_find_hdr`); ESP is a protocol. A jumbogram's payload length of 0 makes any header overrun it.
#[inline(always)]
fn chain<F: Frame>(frame: &F, at: usize, second: u32) -> Result<Transport, Reason> {
    let end = 40 + (second >> 16) as usize;
    if !frame.reaches(at + end) {
        return Err(Reason::Truncated);
    }
    let mut next = (second >> 8) as u8;
    let mut offset = 40;
    let mut fragmented = false;
    let mut first_fragment = false;
    for position in 0..=MAX_EXTENSIONS {
        if !is_extension(next) {
            let segment = Segment {
                at: at + offset,
                length: end - offset,
                first_fragment,
            };
            return transport(frame, segment, next);
        }
        if offset + 8 > end {
            return Err(overrun(first_fragment));
        }
        let Some([word]) = frame.words(at + offset) else {
            return Err(Reason::Truncated);
        };
        let word = u32::from_be(word);
        let mut length = 8;
        if next == FRAGMENT {
            if fragmented {
                return Err(Reason::DoubleFragment);
            }
            if word & 0xfff8 != 0 {
                return Err(Reason::LaterFragment);
            }
            fragmented = true;
            first_fragment = word & 1 != 0;
        } else {
            if next == HOP_BY_HOP && position != 0 {
                return Err(Reason::Malformed);
            }
            if next == ROUTING && word & 0xff != 0 {
                return Err(Reason::SourceRoute);
            }
            let units = (word >> 16 & 0xff) as usize;
            // RFC 4302 §2.2: words less two, and not eights less one.
            length += units * if next == AUTHENTICATION { 4 } else { 8 };
        }
        next = (word >> 24) as u8;
        offset += length;
        if offset > end {
            return Err(overrun(first_fragment));
        }
    }
    Err(Reason::Extensions)
}

#[inline(always)]
const fn overrun(first_fragment: bool) -> Reason {
    if first_fragment {
        Reason::TinyFragment
    } else {
        Reason::Malformed
    }
}
