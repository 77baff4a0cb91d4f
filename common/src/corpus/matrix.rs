//! P0: every combination of TCP's flags, and what is no first packet. P10: protocols and ports of both
//! families.

use super::plan::{CLOSED, GRANTED, INTERNAL, NETWORK, OWN, REFUSED, SERVED, TUNNEL};
use super::{Promise, Rule, Sheet};
use crate::samples::{self, ACK, SYN};
use core::net::IpAddr;
use std::format;
use std::vec::Vec;

const FROM: u16 = 40_000;

fn frame(client: super::Client, to: IpAddr, protocol: u8, payload: &[u8]) -> Vec<u8> {
    samples::ethernet(
        &[],
        &samples::packet(client.beside(to), to, protocol, payload),
    )
}

/// The type of an ICMP message decides whether it can be a first packet.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    Query,
    Reply,
    Error,
}

/// RFC 792, 950, 1256, and the errors that a flow may be related to.
const fn kind_v4(kind: u8) -> Kind {
    match kind {
        0 | 14 | 16 | 18 => Kind::Reply,
        3 | 4 | 5 | 11 | 12 => Kind::Error,
        _ => Kind::Query,
    }
}

/// RFC 4443 §2.1: below 128 errors. Neighbour discovery and MLD start nothing.
const fn kind_v6(kind: u8) -> Kind {
    match kind {
        1..=127 => Kind::Error,
        129..=137 | 143 => Kind::Reply,
        _ => Kind::Query,
    }
}

/// TCP segments with every combination of flags, chunks of SCTP, and every type of ICMP.
pub(super) fn states(sheet: &mut Sheet) {
    chunks(sheet);
    for flags in 0..=255u8 {
        let starts = flags & (SYN | ACK) == SYN;
        for to in GRANTED {
            // With FIN or RST it is nothing that conntrack knows.
            let sound = starts && flags & 0x05 == 0;
            let rule = if sound { Rule::Open } else { Rule::Held };
            segment(sheet, to, flags, rule);
        }
        for to in REFUSED {
            let rule = if starts {
                Rule::Closed
            } else {
                Rule::Continues
            };
            segment(sheet, to, flags, rule);
        }
    }
    for kind in 0..=255u8 {
        for (of, protocol) in [kind_v4(kind), kind_v6(kind)].into_iter().zip([1, 58]) {
            let family = usize::from(protocol == 58);
            let (granted, refused) = match of {
                // Other queries are none to conntrack, so that nft has no flow to judge.
                Kind::Query if matches!((protocol, kind), (1, 8 | 13 | 15 | 17) | (58, 128)) => {
                    (Rule::Open, Rule::Closed)
                }
                Kind::Query => (Rule::Held, Rule::Closed),
                Kind::Reply => (Rule::Held, Rule::Continues),
                // Whatever flow it tells of, the zone may have opened it.
                Kind::Error => (Rule::Held, Rule::Left),
            };
            for (to, rule) in [(TUNNEL[family], granted), (REFUSED[family], refused)] {
                let name = format!("icmp {protocol} type {kind} to {to}");
                sheet.add(Promise::P0, name, rule, |c| {
                    frame(c, to, protocol, &samples::icmp(kind))
                });
            }
        }
    }
}

/// SCTP by the first chunk, of which INIT alone begins an association.
fn chunks(sheet: &mut Sheet) {
    for chunk in (0..=14u8).filter(|chunk| *chunk != 1) {
        for (to, rule) in GRANTED
            .map(|to| (to, Rule::Held))
            .into_iter()
            .chain(REFUSED.map(|to| (to, Rule::Continues)))
        {
            let name = format!("sctp chunk {chunk} to {to}");
            sheet.add(Promise::P0, name, rule, |c| {
                let mut packet = init(FROM, 443);
                packet[12] = chunk;
                frame(c, to, 132, &packet)
            });
        }
    }
}

fn segment(sheet: &mut Sheet, to: IpAddr, flags: u8, rule: Rule) {
    let name = format!("tcp flags {flags:#04x} to {to}");
    sheet.add(Promise::P0, name, rule, |c| {
        frame(c, to, 6, &samples::tcp(FROM, 443, flags))
    });
}

/// Whether [`GRANTED`] and [`NETWORK`] have a port open.
const fn open(protocol: u8, port: u16) -> bool {
    matches!((protocol, port), (6, 80 | 443) | (17 | 132, 443))
}

/// An SCTP packet of one INIT chunk (RFC 9260 §3.3.2), which begins an association.
pub(super) fn init(from: u16, port: u16) -> Vec<u8> {
    let mut packet = [from.to_be_bytes(), port.to_be_bytes()].concat();
    packet.extend([0; 8]);
    packet.extend([1, 0, 0, 20, 0, 0, 0, 1, 0, 1, 0, 0, 0, 1, 0, 1, 0, 0, 0, 1]);
    packet
}

/// Every protocol, and the ports that matter.
pub(super) fn services(sheet: &mut Sheet) {
    let places: Vec<(IpAddr, bool, Option<Rule>)> = [GRANTED, NETWORK]
        .into_iter()
        .flatten()
        .map(|to| (to, true, None))
        .chain(REFUSED.map(|to| (to, false, None)))
        .chain(TUNNEL.map(|to| (to, false, None)))
        .chain(INTERNAL.map(|to| (to, false, Some(Rule::Open))))
        .chain(OWN.map(|to| (to, false, Some(Rule::Stack))))
        .collect();
    for (to, granted, always) in places {
        for port in [
            0, 1, 22, 53, 79, 80, 81, 123, 442, 443, 444, 853, 4500, CLOSED, 65_535,
        ] {
            for (protocol, payload) in [
                (6, samples::tcp(FROM, port, SYN)),
                (17, samples::udp(FROM, port, 4)),
                (132, init(FROM, port)),
            ] {
                let granted = granted && open(protocol, port)
                    || TUNNEL.contains(&to) && (protocol, port) == (17, 4500);
                let rule = always.unwrap_or(if granted { Rule::Open } else { Rule::Closed });
                let name = format!("protocol {protocol} to {to} port {port}");
                sheet.add(Promise::P10, name, rule, |c| {
                    frame(c, to, protocol, &payload)
                });
            }
        }
    }
    for to in REFUSED {
        for (from, rule) in [(SERVED, Rule::Served), (SERVED + 1, Rule::Closed)] {
            let name = format!("udp to {to} from port {from}");
            sheet.add(Promise::P0, name, rule, |c| {
                frame(c, to, 17, &samples::udp(from, CLOSED, 4))
            });
            // A port that is served over UDP is served over nothing else.
            let name = format!("tcp to {to} from port {from}");
            sheet.add(Promise::P0, name, Rule::Closed, |c| {
                frame(c, to, 6, &samples::tcp(from, CLOSED, SYN))
            });
        }
    }
    // Protocols without ports, UDP-Lite and DCCP whose ports nobody grants, extension headers that
    // nobody defined. What has rules of its own is elsewhere.
    for protocol in 0..=255u8 {
        for to in [GRANTED, TUNNEL, REFUSED].into_iter().flatten() {
            let elsewhere = match to {
                IpAddr::V4(_) => matches!(protocol, 1 | 6 | 17 | 132),
                IpAddr::V6(_) => matches!(protocol, 0 | 6 | 17 | 43 | 44 | 58 | 60 | 132),
            };
            if elsewhere {
                continue;
            }
            // ICMP in IPv6 and ICMPv6 in IPv4 are protocols without meaning, yet granted by number.
            let granted = TUNNEL.contains(&to) && matches!(protocol, 47 | 50);
            let rule = match protocol {
                1 | 58 if TUNNEL.contains(&to) => Rule::Held,
                // Type 0 is a reply of ICMP, and nothing of ICMPv6.
                1 => Rule::Continues,
                58 => Rule::Closed,
                _ if granted => Rule::Open,
                _ => Rule::Closed,
            };
            let name = format!("protocol {protocol} to {to}");
            sheet.add(Promise::P10, name, rule, |c| {
                frame(c, to, protocol, &[0; 24])
            });
        }
    }
}
