//! Refused packets as the kernel reports them: an NFLOG group's packets, parsed. Never decides.

use super::RefusedPacket;
use super::netlink::{Attributes, Failure, Message, Request, Socket, number};
use super::ruleset::TABLE;
use crate::policy::ZoneId;
use nix::errno::Errno;
use std::net::IpAddr;

const SUBSYSTEM: u8 = libc::NFNL_SUBSYS_ULOG as u8;
pub(super) const PACKET: u16 =
    (libc::NFNL_SUBSYS_ULOG as u16) << 8 | libc::NFULNL_MSG_PACKET as u16;
const CONFIG: u8 = libc::NFULNL_MSG_CONFIG as u8;
/// How a group's packets are wanted.
pub(super) struct Manner {
    /// The most bytes of each packet.
    pub(super) bytes: u32,
    /// Packets that the kernel gathers before it sends them; it sends fewer after `flush`.
    pub(super) together: u32,
    /// In hundredths of a second.
    pub(super) flush: u32,
}

const REFUSED: Manner = Manner {
    bytes: 128,
    together: 32,
    flush: 5,
};
/// The most that one call returns, so that a flood of reports does not hold up the planes' thread.
const AT_ONCE: usize = 1000;
// Attributes of a conntrack tuple (`uapi/linux/netfilter/nfnetlink_conntrack.h`).
const FLOW_ORIGINAL: u16 = 1;

/// Where refused packets are reported.
#[derive(Debug)]
pub(super) enum Reports {
    /// To this process.
    Here {
        /// The NFLOG group.
        group: u16,
        /// The socket that is bound to it.
        socket: Socket,
    },
    /// To the group, which another process reads.
    Elsewhere {
        /// The NFLOG group.
        group: u16,
        /// Why not to this process.
        why: Errno,
    },
    /// Nowhere: the kernel has no NFLOG.
    Nowhere,
}

impl Reports {
    /// Binds to `group` in the calling thread's network namespace.
    pub(super) fn open(group: u16) -> Self {
        match bind(group, &REFUSED) {
            Ok(socket) => Self::Here { group, socket },
            // Without nfnetlink_log nobody answers for the subsystem.
            Err(Errno::EINVAL | Errno::EOPNOTSUPP | Errno::EPROTONOSUPPORT) => Self::Nowhere,
            Err(why) => Self::Elsewhere { group, why },
        }
    }

    /// The group that rules log to.
    pub(super) fn group(&self) -> Option<u16> {
        match self {
            Self::Here { group, .. } | Self::Elsewhere { group, .. } => Some(*group),
            Self::Nowhere => None,
        }
    }

    pub(super) fn describe(&self) -> String {
        match self {
            Self::Here { group, .. } => format!("refused packets reported by log group {group}"),
            Self::Elsewhere { group, why } => {
                format!(
                    "refused packets go to log group {group}, which cannot be read here: {}",
                    why.desc()
                )
            }
            Self::Nowhere => {
                "refused packets are only counted: the kernel lacks nfnetlink_log".to_owned()
            }
        }
    }

    /// What was reported since the last call.
    pub(super) fn take(&mut self) -> Vec<RefusedPacket> {
        let mut packets = Vec::new();
        let Self::Here { socket, .. } = self else {
            return packets;
        };
        while packets.len() < AT_ONCE {
            let received = socket.receive(|message| {
                packets.extend(refused(message));
                Ok(())
            });
            match received {
                Ok(()) => {}
                // Reports were lost to a full buffer; the counters have them.
                Err(Failure::Unknown(Errno::ENOBUFS)) => {}
                Err(Failure::Unknown(_) | Failure::Refused(_)) => break,
            }
        }
        packets
    }
}

/// Binds a socket to `group` in the calling thread's network namespace.
pub(super) fn bind(group: u16, manner: &Manner) -> Result<Socket, Errno> {
    let mut socket = Socket::open(1)?;
    let config = || Request::new(SUBSYSTEM, CONFIG, libc::AF_UNSPEC as u8, group);
    let bind = [libc::NFULNL_CFG_CMD_BIND as u8];
    // struct nfulnl_msg_config_mode: copy range, copy mode, padding.
    let mut mode = manner.bytes.to_be_bytes().to_vec();
    mode.extend([libc::NFULNL_COPY_PACKET as u8, 0]);
    ask(
        &mut socket,
        config().with(libc::NFULA_CFG_CMD as u16, &bind),
    )?;
    ask(
        &mut socket,
        config()
            .with(libc::NFULA_CFG_MODE as u16, &mode)
            .with(
                libc::NFULA_CFG_QTHRESH as u16,
                &manner.together.to_be_bytes(),
            )
            .with(libc::NFULA_CFG_TIMEOUT as u16, &manner.flush.to_be_bytes()),
    )?;
    // With the flow the kernel tells what the client asked for, before NAT; not every kernel can.
    let flags = (libc::NFULNL_CFG_F_CONNTRACK as u16).to_be_bytes();
    let _without = ask(
        &mut socket,
        config().with(libc::NFULA_CFG_FLAGS as u16, &flags),
    );
    socket.never_wait()?;
    Ok(socket)
}

fn ask(socket: &mut Socket, request: Request) -> Result<(), Errno> {
    socket
        .request(request, |_| {})
        .map_err(|failure| match failure {
            Failure::Refused(refusal) => refusal.errno,
            Failure::Unknown(errno) => errno,
        })
}

/// A report as a refused packet; `None` for what is not one of ours or no whole IP header.
fn refused(message: &Message<'_>) -> Option<RefusedPacket> {
    if message.kind != PACKET {
        return None;
    }
    let attributes = Attributes::of_netfilter(message.payload);
    let prefix = attributes.get(libc::NFULA_PREFIX as u16)?;
    let prefix = std::str::from_utf8(prefix).ok()?.trim_end_matches('\0');
    let mut words = prefix.split(' ');
    if words.next() != Some(TABLE) {
        return None;
    }
    let zone = words.next()?.parse().ok().map(ZoneId);
    let audited = words.next()? == "audit";
    let reason = words.next()?.to_owned();
    let interface = attributes
        .get(libc::NFULA_IFINDEX_INDEV as u16)
        .and_then(number)
        .unwrap_or(0);
    let mut headers = headers(attributes.get(libc::NFULA_PAYLOAD as u16)?)?;
    let flow = attributes.nest(libc::NFULA_CT as u16).nest(FLOW_ORIGINAL);
    if let Some(tuple) = super::conntrack::tuple(flow) {
        (headers.destination, headers.port) = (
            tuple.destination,
            asked_port(headers.protocol, tuple.destination_port),
        );
    }
    let Headers {
        source,
        destination,
        protocol,
        port,
    } = headers;
    Some(RefusedPacket {
        plane: "nft",
        zone,
        interface,
        source,
        destination,
        protocol,
        port,
        reason,
        audited,
    })
}

struct Headers {
    source: IpAddr,
    destination: IpAddr,
    protocol: u8,
    port: u16,
}

/// The addresses, protocol and destination port of an IP packet.
fn headers(packet: &[u8]) -> Option<Headers> {
    let (source, destination, protocol, transport) = match packet.first()? >> 4 {
        4 => {
            let header: &[u8; 20] = packet.first_chunk()?;
            let length = usize::from(header[0] & 15) * 4;
            // A later fragment has no ports; defragmentation makes them rare here.
            let first = u16::from_be_bytes([header[6], header[7]]) & 0x1fff == 0;
            let transport = if first { packet.get(length..) } else { None };
            let address = |at: usize| {
                IpAddr::from([header[at], header[at + 1], header[at + 2], header[at + 3]])
            };
            (address(12), address(16), header[9], transport)
        }
        6 => {
            let header: &[u8; 40] = packet.first_chunk()?;
            let address = |at: usize| -> Option<IpAddr> {
                header
                    .get(at..at + 16)?
                    .first_chunk::<16>()
                    .map(|octets| IpAddr::from(*octets))
            };
            let (protocol, transport) = after_extensions(header[6], packet.get(40..)?);
            (address(8)?, address(24)?, protocol, transport)
        }
        _ => return None,
    };
    let port =
        transport.and_then(|header| Some(u16::from_be_bytes([*header.get(2)?, *header.get(3)?])));
    Some(Headers {
        source,
        destination,
        protocol,
        port: asked_port(protocol, port.unwrap_or(0)),
    })
}

/// Steps over hop-by-hop, routing, destination and fragment headers (RFC 8200 §4).
fn after_extensions(mut protocol: u8, mut rest: &[u8]) -> (u8, Option<&[u8]>) {
    const FRAGMENT: u8 = 44;
    for _ in 0..8 {
        if ![0, 43, FRAGMENT, 60].contains(&protocol) {
            return (protocol, Some(rest));
        }
        let [next, length, high, low, ..] = *rest else {
            return (protocol, None);
        };
        let fragment = protocol == FRAGMENT;
        let length = if fragment {
            8
        } else {
            (usize::from(length) + 1) * 8
        };
        if fragment && u16::from_be_bytes([high, low]) & 0xfff8 != 0 {
            return (next, None);
        }
        protocol = next;
        let Some(after) = rest.get(length..) else {
            return (protocol, None);
        };
        rest = after;
    }
    (protocol, None)
}

fn asked_port(protocol: u8, port: u16) -> u16 {
    // TCP, UDP, DCCP, SCTP, UDP-Lite.
    if [6, 17, 33, 132, 136].contains(&protocol) {
        port
    } else {
        0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn headers_of_packets() {
        fn check(packet: &[&[u8]], expected: Option<(u8, u16)>) {
            let packet = packet.concat();
            let found = headers(&packet).map(|found| (found.protocol, found.port));
            assert_eq!(found, expected, "{packet:?}");
            // Cut anywhere, nothing panics.
            for end in 0..packet.len() {
                let _cut = headers(&packet[..end]);
            }
        }
        let v4 = |first: u8, fragment: [u8; 2], protocol: u8| -> Vec<u8> {
            let mut header = vec![
                first,
                0,
                0,
                40,
                0,
                0,
                fragment[0],
                fragment[1],
                64,
                protocol,
                0,
                0,
            ];
            header.extend([10, 0, 0, 1, 203, 0, 113, 1]);
            header
        };
        let v6 = |next: u8| [&[0x60, 0, 0, 0, 0, 8, next, 64][..], &[0x20; 32]].concat();
        let ports = [0x30, 0x39, 0x01, 0xbb];
        check(&[&v4(0x45, [0x40, 0], 6), &ports], Some((6, 443)));
        check(&[&v4(0x46, [0, 0], 17), &[1; 4], &ports], Some((17, 443)));
        check(&[&v4(0x45, [0, 7], 6), &ports], Some((6, 0)));
        check(&[&v4(0x45, [0, 0], 1), &ports], Some((1, 0)));
        check(&[&v6(6), &ports], Some((6, 443)));
        check(
            &[&v6(60), &[6, 0, 0, 0, 0, 0, 0, 0], &ports],
            Some((6, 443)),
        );
        check(
            &[&v6(44), &[17, 0, 0, 1, 0, 0, 0, 0], &ports],
            Some((17, 443)),
        );
        check(
            &[&v6(44), &[17, 0, 0, 8, 0, 0, 0, 0], &ports],
            Some((17, 0)),
        );
        check(&[&[0x50; 40]], None);
        check(&[&[]], None);
    }
}
