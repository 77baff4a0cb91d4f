//! Live flows as the kernel's connection tracking knows them: read them, cut them. Never judges.

use super::netlink::{Attributes, Nest, Request, Socket, number};
use crate::policy::port::{ICMP, ICMPV6};
use anyhow::Context as _;
use nix::errno::Errno;
use std::net::IpAddr;

const SUBSYSTEM: u8 = libc::NFNL_SUBSYS_CTNETLINK as u8;
// `uapi/linux/netfilter/nfnetlink_conntrack.h`.
const GET: u8 = 1;
const DELETE: u8 = 2;
const ORIGINAL: u16 = 1;
const REPLY: u16 = 2;
const STATUS: u16 = 3;
const TIMEOUT: u16 = 7;
const ID: u16 = 12;
const ZONE: u16 = 18;
const TUPLE_IP: u16 = 1;
const TUPLE_PROTOCOL: u16 = 2;
const PROTOCOL_NUMBER: u16 = 1;
const PORTS: [u16; 2] = [2, 3];
const ICMP_PARTS: [u16; 3] = [4, 5, 6];
const ICMPV6_PARTS: [u16; 3] = [7, 8, 9];
// `uapi/linux/netfilter/nf_conntrack_common.h`.
const SEEN_REPLY: u32 = 1 << 1;
const ASSURED: u32 = 1 << 2;
/// How long one answer of the kernel may take, in seconds.
const PATIENCE: i64 = 10;

/// Flows that are cut with one system call: their requests fit into any send buffer, the answers into any receive
/// buffer.
const AT_ONCE: usize = 64;

/// The connection tracking of one network namespace.
#[derive(Debug)]
pub struct Conntrack(Socket);

/// One direction of a flow.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Tuple {
    /// Source address.
    pub source: IpAddr,
    /// Destination address.
    pub destination: IpAddr,
    /// IANA protocol number.
    pub protocol: u8,
    /// Source port; of ICMP the identifier, 0 of other protocols without ports.
    pub source_port: u16,
    /// Destination port; of ICMP type × 256 + code, 0 of other protocols without ports.
    pub destination_port: u16,
}

/// A live flow.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Flow {
    /// The kernel's number of it; another flow with the same addresses has another one.
    pub id: u32,
    /// What its first packet carried: whom the client asked for.
    pub original: Tuple,
    /// What answers carry; differs from the reverse of `original` where NAT rewrites.
    pub reply: Tuple,
    /// Whether packets have been seen both ways.
    pub seen_reply: bool,
    /// Whether the kernel takes it for a lasting one.
    pub assured: bool,
    /// Seconds until the kernel forgets it if nothing more comes.
    pub timeout: u32,
    /// Its conntrack zone (not ours), mostly 0.
    pub zone: u16,
}

impl Conntrack {
    /// Opens it for the calling thread's network namespace.
    ///
    /// # Errors
    /// When the kernel has no netlink, or the process no `CAP_NET_ADMIN`.
    pub fn open() -> anyhow::Result<Self> {
        Socket::open(PATIENCE)
            .map(Self)
            .context("open a conntrack socket")
    }

    /// Shows `visit` every live flow, IPv4 and IPv6, as they come from the kernel. A flow that
    /// changes meanwhile may be missed or shown twice.
    ///
    /// # Errors
    /// When the kernel refuses or the dump breaks off.
    pub fn flows(&mut self, mut visit: impl FnMut(Flow)) -> anyhow::Result<()> {
        let request = Request::new(SUBSYSTEM, GET, libc::AF_UNSPEC as u8, 0);
        self.0
            .dump(request, |payload| {
                if let Some(flow) = flow(Attributes::of_netfilter(payload)) {
                    visit(flow);
                }
            })
            .context("read the live flows")?;
        Ok(())
    }

    /// Ends flows, many with one system call, for there may be thousands: their next packets are new ones. Those that
    /// had ended already do not matter.
    ///
    /// # Errors
    /// When the kernel refuses one for another reason; the others are cut all the same, as far as it can be told.
    pub fn cut_all(&mut self, flows: &[Flow]) -> anyhow::Result<()> {
        let mut refused = Ok(());
        for chunk in flows.chunks(AT_ONCE) {
            let requests = chunk.iter().map(Self::deletion).collect();
            let cut = self.0.requests(requests, |outcome| match outcome {
                Err(refusal) if refusal.errno != Errno::ENOENT => refused = Err(refusal),
                Ok(()) | Err(_) => {}
            });
            cut.context("cut flows")?;
        }
        refused.context("cut a flow")
    }

    fn deletion(flow: &Flow) -> Request {
        let family = match flow.original.source {
            IpAddr::V4(_) => libc::AF_INET,
            IpAddr::V6(_) => libc::AF_INET6,
        };
        let mut request = Request::new(SUBSYSTEM, DELETE, family as u8, 0)
            .with_nest(ORIGINAL, nest(&flow.original))
            .with(ID, &flow.id.to_be_bytes());
        if flow.zone != 0 {
            request = request.with(ZONE, &flow.zone.to_be_bytes());
        }
        request
    }
}

fn flow(attributes: Attributes<'_>) -> Option<Flow> {
    let read = |kind| attributes.get(kind).and_then(number);
    let status = read(STATUS).unwrap_or(0);
    Some(Flow {
        id: read(ID)?,
        original: tuple(attributes.nest(ORIGINAL))?,
        reply: tuple(attributes.nest(REPLY))?,
        seen_reply: status & SEEN_REPLY != 0,
        assured: status & ASSURED != 0,
        timeout: read(TIMEOUT).unwrap_or(0),
        zone: attributes.get(ZONE).and_then(short).unwrap_or(0),
    })
}

/// Reads a conntrack tuple.
pub(super) fn tuple(attributes: Attributes<'_>) -> Option<Tuple> {
    let addresses = attributes.nest(TUPLE_IP);
    let address = |v4, v6| match addresses.get(v4) {
        Some(octets) => octets
            .first_chunk::<4>()
            .map(|octets| IpAddr::from(*octets)),
        None => addresses
            .get(v6)?
            .first_chunk::<16>()
            .map(|octets| IpAddr::from(*octets)),
    };
    let parts = attributes.nest(TUPLE_PROTOCOL);
    let byte = |kind| parts.get(kind).and_then(|value| value.first()).copied();
    let port = |kind| parts.get(kind).and_then(short);
    let protocol = byte(PROTOCOL_NUMBER)?;
    let (source_port, destination_port) = match icmp_parts(protocol) {
        Some([id, kind, code]) => (
            port(id).unwrap_or(0),
            u16::from_be_bytes([byte(kind)?, byte(code)?]),
        ),
        None => (port(PORTS[0]).unwrap_or(0), port(PORTS[1]).unwrap_or(0)),
    };
    Some(Tuple {
        source: address(1, 3)?,
        destination: address(2, 4)?,
        protocol,
        source_port,
        destination_port,
    })
}

fn nest(tuple: &Tuple) -> Nest {
    let addresses = match (tuple.source, tuple.destination) {
        (IpAddr::V4(source), IpAddr::V4(destination)) => Nest::default()
            .with(1, &source.octets())
            .with(2, &destination.octets()),
        (IpAddr::V6(source), IpAddr::V6(destination)) => Nest::default()
            .with(3, &source.octets())
            .with(4, &destination.octets()),
        // The kernel knows no such flow and will say so.
        (IpAddr::V4(_), IpAddr::V6(_)) | (IpAddr::V6(_), IpAddr::V4(_)) => Nest::default(),
    };
    let mut parts = Nest::default().with(PROTOCOL_NUMBER, &[tuple.protocol]);
    let [first, second] = tuple.destination_port.to_be_bytes();
    parts = match icmp_parts(tuple.protocol) {
        Some([id, kind, code]) => parts
            .with(id, &tuple.source_port.to_be_bytes())
            .with(kind, &[first])
            .with(code, &[second]),
        None => parts
            .with(PORTS[0], &tuple.source_port.to_be_bytes())
            .with(PORTS[1], &tuple.destination_port.to_be_bytes()),
    };
    Nest::default()
        .with_nest(TUPLE_IP, addresses)
        .with_nest(TUPLE_PROTOCOL, parts)
}

fn icmp_parts(protocol: u8) -> Option<[u16; 3]> {
    match protocol {
        ICMP => Some(ICMP_PARTS),
        ICMPV6 => Some(ICMPV6_PARTS),
        _ => None,
    }
}

fn short(value: &[u8]) -> Option<u16> {
    value.try_into().ok().map(u16::from_be_bytes)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plane::netlink::messages;

    #[test]
    fn tuples_read_back_as_written() {
        fn check(source: &str, destination: &str, protocol: u8, ports: (u16, u16)) {
            let written = Tuple {
                source: source.parse().unwrap(),
                destination: destination.parse().unwrap(),
                protocol,
                source_port: ports.0,
                destination_port: ports.1,
            };
            let bytes = Request::new(SUBSYSTEM, GET, 0, 0).with_nest(ORIGINAL, nest(&written));
            let bytes = bytes.finish(1, 0);
            let message = messages(&bytes).next().unwrap();
            let read = tuple(Attributes::of_netfilter(message.payload).nest(ORIGINAL));
            assert_eq!(read, Some(written));
        }
        check("10.0.0.1", "203.0.113.1", 6, (40_000, 443));
        check("2001:db8::1", "2001:db8::2", 17, (1, 65_535));
        check("10.0.0.1", "203.0.113.1", ICMP, (77, 8 << 8));
        check("2001:db8::1", "2001:db8::2", ICMPV6, (77, 128 << 8));
        check("10.0.0.1", "203.0.113.1", 50, (0, 0));
    }
}
