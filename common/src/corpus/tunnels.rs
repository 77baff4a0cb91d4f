//! P6: the outer header alone is judged, and never opens by what is inside.

use super::plan::{GRANTED, REFUSED, TUNNEL};
use super::{Client, Promise, Rule, Sheet};
use crate::samples::{self, SYN};
use core::net::IpAddr;
use std::format;
use std::vec::Vec;

/// The packet inside: to a granted address, or to one that is not.
fn inside(client: Client, to: IpAddr) -> Vec<u8> {
    samples::packet(client.beside(to), to, 6, &samples::tcp(40_000, 443, SYN))
}

pub(super) fn add(sheet: &mut Sheet) {
    for outer in [GRANTED, TUNNEL, REFUSED].into_iter().flatten() {
        for inner in [GRANTED, REFUSED].into_iter().flatten() {
            let number = if inner.is_ipv4() { 4 } else { 41 };
            let ether: [u8; 2] = if inner.is_ipv4() {
                [8, 0]
            } else {
                [0x86, 0xdd]
            };
            // Protocol, what precedes the inner packet, and whether `TUNNEL` has it open.
            let cases: [(&str, u8, Vec<u8>, bool); 6] = [
                ("ip in ip", number, [].into(), false),
                ("gre", 47, [&[0, 0][..], &ether].concat(), true),
                ("esp", 50, std::vec![7; 8], true),
                (
                    "authentication",
                    51,
                    [number, 4, 0, 0].iter().copied().chain([7; 20]).collect(),
                    false,
                ),
                ("l2tp", 115, std::vec![0, 0, 0, 9], false),
                ("ethernet in ip", 97, std::vec![0x30, 0], false),
            ];
            for (word, protocol, before, open) in cases {
                let rule = if open && TUNNEL.contains(&outer) {
                    Rule::Open
                } else {
                    Rule::Closed
                };
                sheet.add(
                    Promise::P6,
                    format!("{word} to {outer} with {inner}"),
                    rule,
                    |c| {
                        let payload = [before, inside(c, inner)].concat();
                        let packet = samples::packet(c.beside(outer), outer, protocol, &payload);
                        samples::ethernet(&[], &packet)
                    },
                );
            }
            for (word, port) in [
                ("teredo", 3544),
                ("vxlan", 4789),
                ("geneve", 6081),
                ("l2tp over udp", 1701),
                ("wireguard", 51_820),
                ("gtp", 2152),
                ("gue", 6080),
                ("openvpn", 1194),
                ("esp over udp", 4500),
                ("masque", 443),
            ] {
                let rule = match port {
                    443 if GRANTED.contains(&outer) => Rule::Open,
                    4500 if TUNNEL.contains(&outer) => Rule::Open,
                    _ => Rule::Closed,
                };
                sheet.add(
                    Promise::P6,
                    format!("{word} to {outer} with {inner}"),
                    rule,
                    |c| {
                        let inner = inside(c, inner);
                        let mut payload = samples::udp(
                            40_000,
                            port,
                            8 + u16::try_from(inner.len()).expect("small"),
                        );
                        payload[16..].copy_from_slice(&inner);
                        let packet = samples::packet(c.beside(outer), outer, 17, &payload);
                        samples::ethernet(&[], &packet)
                    },
                );
            }
        }
    }
}
