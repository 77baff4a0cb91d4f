//! P4: IPv6 extension headers are walked to a bound (RFC 8200 §4, RFC 8504 §5.3).

use super::fragments::v6;
use super::plan::{GRANTED, REFUSED};
use super::{Promise, Rule, Sheet};
use crate::samples::{self, SYN};
use core::net::IpAddr;
use std::format;
use std::vec::Vec;

/// Most headers that must be walked.
const WALKED: usize = 8;

/// The rest of a header of `units` × 8 bytes beyond the first 8.
fn long(units: usize) -> Vec<u8> {
    let mut rest = [1, 4].to_vec();
    rest.resize(6 + 8 * units, 0);
    rest
}

/// The rest of a routing header of this type.
fn routing(kind: u8, left: u8) -> Vec<u8> {
    [kind, left, 0, 0, 0, 0].to_vec()
}

pub(super) fn add(sheet: &mut Sheet) {
    for (to, granted) in [(GRANTED[1], true), (REFUSED[1], false)] {
        let IpAddr::V6(to) = to else { continue };
        let open = if granted { Rule::Open } else { Rule::Closed };
        let segment = samples::tcp(40_000, 443, SYN);
        let mut put = |name: &str, extensions: &[(u8, Vec<u8>)], protocol: u8, rule| {
            let name = format!("{name} to {to}");
            sheet.add(Promise::P4, name, rule, |c| {
                v6(c, to, extensions, protocol, &segment)
            });
        };
        for count in 0..=10 {
            let rule = if count <= WALKED { open } else { Rule::Closed };
            let chain = std::vec![(60, samples::padding()); count];
            put(&format!("{count} destination headers"), &chain, 6, rule);
            let mut chain = chain;
            chain.insert(0, (0, samples::padding()));
            let rule = if count < WALKED { open } else { Rule::Closed };
            put(
                &format!("hop-by-hop, {count} destination headers"),
                &chain,
                6,
                rule,
            );
            if count > 0 {
                chain.swap(0, count);
                put(
                    &format!("hop-by-hop behind {count}"),
                    &chain,
                    6,
                    Rule::Closed,
                );
            }
        }
        put(
            "two hop-by-hop",
            &std::vec![(0, samples::padding()); 2],
            6,
            Rule::Closed,
        );
        for units in [1, 2, 5, 17] {
            put(
                &format!("destination header of {units}"),
                &[(60, long(units))],
                6,
                open,
            );
            // The kernel takes no more than seven bytes of padding there (`ip6_parse_tlv`).
            let rule = if granted { Rule::Held } else { Rule::Closed };
            put(
                &format!("hop-by-hop header of {units}"),
                &[(0, long(units))],
                6,
                rule,
            );
        }
        for kind in 0..=6 {
            for left in [0, 1, 2, 255] {
                let rule = if left == 0 { open } else { Rule::Closed };
                put(
                    &format!("routing {kind}, {left} left"),
                    &[(43, routing(kind, left))],
                    6,
                    rule,
                );
                let behind = [(60, samples::padding()), (43, routing(kind, left))];
                put(
                    &format!("routing {kind}, {left} left, behind"),
                    &behind,
                    6,
                    rule,
                );
            }
        }
        // Extension headers that nothing here walks, experimental ones among them, and none at all.
        for number in [51, 59, 135, 139, 140, 253, 254, 200, 0x2d] {
            let chain = [(60, samples::padding())];
            put(
                &format!("header {number} behind another"),
                &chain,
                number,
                Rule::Closed,
            );
        }
        // Headers that end beyond the packet.
        for number in [0, 43, 60] {
            for units in [3u8, 4, 100, 255] {
                let name = format!("header {number} of {units} overruns, to {to}");
                sheet.add(Promise::P4, name, Rule::Closed, |c| {
                    let mut frame = v6(c, to, &[(number, samples::padding())], 6, &segment);
                    frame[14 + 41] = units;
                    frame
                });
            }
        }
    }
}
