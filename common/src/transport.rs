//! The transport layer: protocol, ports, and whether a segment starts something.

use crate::frame::Frame;
use crate::verdict::Reason;

/// IANA protocol numbers that have a meaning of their own here.
pub mod protocol {
    /// ICMP.
    pub const ICMP: u8 = 1;
    /// TCP.
    pub const TCP: u8 = 6;
    /// UDP.
    pub const UDP: u8 = 17;
    /// ICMPv6.
    pub const ICMPV6: u8 = 58;
    /// SCTP.
    pub const SCTP: u8 = 132;
}

/// What a packet carries, as far as the verdict needs it, or why that cannot be told. One word: so
/// it can be hidden from the verifier at once, see [`Frame::blur`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Transport(u64);

/// The first bits of a [`Transport`]'s parts. The lowest are a [`Start`].
const PROTOCOL: u32 = 8;
const DESTINATION_PORT: u32 = 16;
const SOURCE_PORT: u32 = 32;
/// One more than a reason's number.
const TROUBLE: u32 = 48;

/// What a packet may mean to a flow.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Start {
    /// It can be the first one: a lone SYN of TCP, an INIT of SCTP, a request of ICMP, any packet of
    /// protocols that do not tell.
    Opens,
    /// It cannot: other segments and chunks, replies of ICMP, neighbour discovery.
    Follows,
    /// It is an ICMP error, which belongs to the flow of the packet it quotes.
    Reports,
}

impl Start {
    /// The one with this number, of which the last two bits count.
    #[inline(always)]
    const fn of(number: u8) -> Self {
        match number & 3 {
            0 => Self::Opens,
            1 => Self::Follows,
            _ => Self::Reports,
        }
    }

    #[inline(always)]
    const fn if_opens(opens: bool) -> Self {
        if opens { Self::Opens } else { Self::Follows }
    }
}

impl Transport {
    /// Ports are 0 where the protocol, by its IANA number, has none.
    #[must_use]
    #[inline(always)]
    pub const fn new(protocol: u8, source_port: u16, port: u16, start: Start) -> Self {
        let ports = (source_port as u32) << 16 | port as u32;
        Self::with_ports(protocol, ports, start)
    }

    /// Both ports as they follow each other in a header, in the host's byte order.
    #[inline(always)]
    const fn with_ports(protocol: u8, ports: u32, start: Start) -> Self {
        let ports = (ports as u64) << DESTINATION_PORT;
        Self(ports | (protocol as u64) << PROTOCOL | start as u64)
    }

    /// Of a packet of which it cannot be told.
    #[must_use]
    #[inline(always)]
    pub const fn unknown(why: Reason) -> Self {
        Self((why as u64 + 1) << TROUBLE)
    }

    /// IANA protocol number.
    #[must_use]
    #[inline(always)]
    pub const fn protocol(self) -> u8 {
        (self.0 >> PROTOCOL) as u8
    }

    /// Source port; 0 where the protocol has none.
    #[must_use]
    #[inline(always)]
    pub const fn source_port(self) -> u16 {
        (self.0 >> SOURCE_PORT) as u16
    }

    /// Destination port; 0 where the protocol has none.
    #[must_use]
    #[inline(always)]
    pub const fn port(self) -> u16 {
        (self.0 >> DESTINATION_PORT) as u16
    }

    /// Whether it can be the first packet of a flow.
    #[must_use]
    #[inline(always)]
    pub const fn start(self) -> Start {
        Start::of(self.0 as u8)
    }

    /// Why nothing else here can be told. [`Reason::LaterFragment`] is not wrong by itself.
    #[must_use]
    #[inline(always)]
    pub const fn trouble(self) -> Option<Reason> {
        match (self.0 >> TROUBLE) as u8 {
            0 => None,
            // `blurred` lets the compiler believe that any number may stand here.
            number => match Reason::of(number - 1) {
                None => Some(Reason::Malformed),
                known => known,
            },
        }
    }

    /// The same, see [`Frame::blur`].
    #[inline(always)]
    pub(crate) fn blurred<F: Frame>(self, frame: &F) -> Self {
        Self(frame.blur(self.0))
    }
}

/// Where the transport header lies.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Segment {
    /// Its offset in the frame.
    pub(crate) at: usize,
    /// Bytes from there to the end of the IP packet, all of them in the frame.
    pub(crate) length: usize,
    /// Whether more fragments follow, so that lengths inside speak of a larger whole.
    pub(crate) first_fragment: bool,
}

/// Reads the header of `protocol` in `segment`.
///
/// # Errors
/// [`Reason::TinyFragment`] where a first fragment ends inside the header (RFC 1858, RFC 7112),
/// [`Reason::Malformed`] where a whole packet does, [`Reason::Truncated`] where the frame does.
#[inline(always)]
pub(crate) fn transport<F: Frame>(
    frame: &F,
    segment: Segment,
    protocol: u8,
) -> Result<Transport, Reason> {
    let short = if segment.first_fragment {
        Reason::TinyFragment
    } else {
        Reason::Malformed
    };
    match protocol {
        protocol::TCP => {
            if segment.length < 20 {
                return Err(short);
            }
            let Some([ports, _, _, offset]) = frame.words(segment.at) else {
                return Err(Reason::Truncated);
            };
            let offset = u32::from_be(offset);
            let header = (offset >> 28) as usize * 4;
            if header < 20 {
                return Err(Reason::Malformed);
            }
            if header > segment.length {
                return Err(short);
            }
            const SYN: u32 = 0x02 << 16;
            const ACK: u32 = 0x10 << 16;
            Ok(with_ports(protocol, ports, offset & (SYN | ACK) == SYN))
        }
        protocol::UDP => {
            if segment.length < 8 {
                return Err(short);
            }
            let Some([ports, length]) = frame.words(segment.at) else {
                return Err(Reason::Truncated);
            };
            let length = (u32::from_be(length) >> 16) as usize;
            if length < 8 || (length > segment.length && !segment.first_fragment) {
                return Err(Reason::Malformed);
            }
            Ok(with_ports(protocol, ports, true))
        }
        protocol::SCTP => {
            // The common header and that of the first chunk (RFC 9260 §3).
            if segment.length < 16 {
                return Err(short);
            }
            let Some([ports, _, _, chunk]) = frame.words(segment.at) else {
                return Err(Reason::Truncated);
            };
            const INIT: u32 = 1;
            Ok(with_ports(
                protocol,
                ports,
                u32::from_be(chunk) >> 24 == INIT,
            ))
        }
        protocol::ICMP | protocol::ICMPV6 => {
            if segment.length < 4 {
                return Err(short);
            }
            let Some([word]) = frame.words(segment.at) else {
                return Err(Reason::Truncated);
            };
            let kind = u32::from_be(word) >> 24;
            let start = if protocol == protocol::ICMP {
                // The errors are those that conntrack relates (nf_conntrack_proto_icmp.c).
                match kind {
                    3 | 4 | 5 | 11 | 12 => Start::Reports,
                    0 | 14 | 16 | 18 => Start::Follows,
                    _ => Start::Opens,
                }
            } else {
                // Errors; echo replies, MLD and neighbour discovery (RFC 4443 §2.1).
                match kind {
                    1..=127 => Start::Reports,
                    129..=137 | 143 => Start::Follows,
                    _ => Start::Opens,
                }
            };
            Ok(Transport::with_ports(protocol, 0, start))
        }
        _ => Ok(Transport::with_ports(protocol, 0, Start::Opens)),
    }
}

#[inline(always)]
fn with_ports(protocol: u8, ports: u32, opens: bool) -> Transport {
    let ports = u32::from_be(ports);
    Transport::with_ports(protocol, ports, Start::if_opens(opens))
}
