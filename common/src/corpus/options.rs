//! P3: IPv4 options are dropped from packets to be forwarded, whichever they are (RFC 7126).

use super::plan::{GRANTED, OWN, REFUSED};
use super::{Promise, Rule, Sheet};
use crate::samples::{self, SYN};
use core::net::{IpAddr, Ipv4Addr};
use std::format;
use std::vec::Vec;

pub(super) fn add(sheet: &mut Sheet) {
    let p3 = Promise::P3;
    let mut put = |name: &str, to: Ipv4Addr, options: &[u8], rule| {
        sheet.add(p3, name, rule, |c| {
            let segment = samples::tcp(40_000, 443, SYN);
            samples::ethernet(&[], &samples::ipv4((c.v4, to), 0, options, 6, &segment))
        });
    };
    let v4 = |address| match address {
        IpAddr::V4(address) => Some(address),
        IpAddr::V6(_) => None,
    };
    let ends: Vec<(Ipv4Addr, Rule)> = [(GRANTED[0], Rule::Closed), (OWN[0], Rule::Stack)]
        .into_iter()
        .filter_map(|(to, rule)| Some((v4(to)?, rule)))
        .collect();
    for (to, rule) in ends {
        for kind in 0..=255u8 {
            let length = if kind < 2 { kind } else { 4 };
            put(
                &format!("option {kind} to {to}"),
                to,
                &[kind, length, 0, 0],
                rule,
            );
        }
        // Source routes and records with room for addresses, a whole header of padding, an option that
        // ends beyond the header.
        for (name, options) in [
            ("loose source route", [131, 7, 4, 198, 51, 100, 9, 0]),
            ("strict source route", [137, 7, 4, 198, 51, 100, 9, 0]),
            ("record route", [7, 7, 4, 0, 0, 0, 0, 0]),
            ("time stamp", [68, 8, 5, 0, 0, 0, 0, 0]),
            ("router alert", [148, 4, 0, 0, 0, 0, 0, 0]),
            ("overlong", [7, 200, 4, 0, 0, 0, 0, 0]),
            ("of length 0", [7, 0, 0, 0, 0, 0, 0, 0]),
        ] {
            put(&format!("option {name} to {to}"), to, &options, rule);
        }
        for words in 1..=10 {
            put(
                &format!("{words} words of padding to {to}"),
                to,
                &[1; 40][..4 * words],
                rule,
            );
        }
    }
    if let Some(to) = v4(REFUSED[0]) {
        put(&format!("padding to {to}"), to, &[1; 4], Rule::Closed);
    }
    // Routers must hear these (RFC 2113, 3376, 2236).
    for (group, protocol) in [
        ([224, 0, 0, 22], 2),
        ([224, 0, 0, 2], 2),
        ([239, 1, 2, 3], 2),
    ] {
        sheet.add(
            p3,
            format!("igmp with router alert to {group:?}"),
            Rule::Stack,
            |c| {
                let ends = (c.v4, group.into());
                samples::ethernet(
                    &[],
                    &samples::ipv4(ends, 0, &[148, 4, 0, 0], protocol, &[0x22; 8]),
                )
            },
        );
    }
}
