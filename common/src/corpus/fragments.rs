//! P2: ports are read only from first, complete fragments (RFC 1858, 3128, 7112, 8200 §4.5).

use super::matrix::init;
use super::plan::{GRANTED, REFUSED};
use super::{Client, Promise, Rule, Sheet};
use crate::samples::{self, SYN};
use core::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::format;
use std::vec::Vec;

/// More fragments follow.
const MORE: u16 = 0x2000;

pub(super) fn v4(
    client: Client,
    to: Ipv4Addr,
    fragment: u16,
    protocol: u8,
    payload: &[u8],
) -> Vec<u8> {
    let packet = samples::ipv4((client.v4, to), fragment, &[], protocol, payload);
    samples::ethernet(&[], &packet)
}

pub(super) fn v6(
    client: Client,
    to: Ipv6Addr,
    extensions: &[(u8, Vec<u8>)],
    protocol: u8,
    payload: &[u8],
) -> Vec<u8> {
    let packet = samples::ipv6((client.v6, to), extensions, protocol, payload);
    samples::ethernet(&[], &packet)
}

fn one(
    client: Client,
    to: IpAddr,
    offset: u16,
    more: bool,
    protocol: u8,
    payload: &[u8],
) -> Vec<u8> {
    match to {
        IpAddr::V4(to) => {
            let field = offset | if more { MORE } else { 0 };
            v4(client, to, field, protocol, payload)
        }
        IpAddr::V6(to) => {
            let header = (44, samples::fragment(offset, more));
            v6(client, to, &[header], protocol, payload)
        }
    }
}

/// A transport header and the least that a first fragment must hold of it.
fn kinds() -> [(u8, usize, Vec<u8>); 4] {
    let mut long = samples::tcp(40_000, 443, SYN);
    long[12] = 15 << 4;
    long.resize(1280, 0);
    let mut short = samples::tcp(40_000, 443, SYN);
    short.resize(1280, 0);
    let datagram = samples::udp(40_000, 443, 1272);
    let mut chunks = init(40_000, 443);
    chunks.resize(1280, 0);
    [
        (6, 20, short),
        (6, 60, long),
        (17, 8, datagram),
        (132, 16, chunks),
    ]
}

pub(super) fn add(sheet: &mut Sheet) {
    let p2 = Promise::P2;
    for (granted, to) in GRANTED
        .map(|to| (true, to))
        .into_iter()
        .chain(REFUSED.map(|to| (false, to)))
    {
        for (number, (protocol, needed, whole)) in kinds().iter().enumerate() {
            // First fragments of every size up to what they need, and the size of a small link.
            for length in (0..=64).step_by(8).chain([1272, 1280]) {
                let rule = if granted && length >= *needed {
                    Rule::Held
                } else {
                    Rule::Closed
                };
                let name = format!("first fragment {number} of {length} to {to}");
                sheet.add(p2, name, rule, |c| {
                    one(c, to, 0, true, *protocol, &whole[..length])
                });
            }
            // Later ones, the first of which may overlap the ports.
            for offset in [1, 2, 3, 100, 160, 8189, 8191] {
                for more in [true, false] {
                    let name = format!("fragment {number} at {offset}, more {more}, to {to}");
                    sheet.add(p2, name, Rule::Left, |c| {
                        one(c, to, offset, more, *protocol, &whole[..8])
                    });
                }
            }
        }
        let rule = if granted { Rule::Open } else { Rule::Closed };
        let segment = samples::tcp(40_000, 443, SYN);
        match to {
            IpAddr::V4(to) => {
                let name = format!("no fragment, not to be fragmented, to {to}");
                sheet.add(p2, name, rule, |c| v4(c, to, 0x4000, 6, &segment));
            }
            IpAddr::V6(to) => headers(sheet, to, granted, &segment),
        }
    }
}

/// A chain of extension headers, and what must become of a packet behind it.
type Case = (&'static str, Vec<(u8, Vec<u8>)>, Rule);

/// IPv6 fragment headers alone and among others.
fn headers(sheet: &mut Sheet, to: Ipv6Addr, granted: bool, segment: &[u8]) {
    let p2 = Promise::P2;
    let whole = if granted { Rule::Open } else { Rule::Closed };
    let first = if granted { Rule::Held } else { Rule::Closed };
    let fragment = |offset, more| (44, samples::fragment(offset, more));
    let padding = |number| (number, samples::padding());
    let cases: [Case; 12] = [
        ("atomic", [fragment(0, false)].into(), whole),
        (
            "atomic behind hop-by-hop",
            [padding(0), fragment(0, false)].into(),
            whole,
        ),
        (
            "atomic before destination",
            [fragment(0, false), padding(60)].into(),
            whole,
        ),
        (
            "first behind hop-by-hop",
            [padding(0), fragment(0, true)].into(),
            first,
        ),
        (
            "first before destination",
            [fragment(0, true), padding(60)].into(),
            first,
        ),
        (
            "first between destinations",
            [padding(60), fragment(0, true), padding(60)].into(),
            first,
        ),
        (
            "later behind hop-by-hop",
            [padding(0), fragment(3, true)].into(),
            Rule::Left,
        ),
        (
            "later behind destination",
            [padding(60), fragment(3, false)].into(),
            Rule::Left,
        ),
        (
            "double atomic",
            [fragment(0, false), fragment(0, false)].into(),
            Rule::Closed,
        ),
        (
            "double first",
            [fragment(0, true), fragment(0, true)].into(),
            Rule::Closed,
        ),
        (
            "double, later inside",
            [fragment(0, true), fragment(3, true)].into(),
            Rule::Closed,
        ),
        (
            "double apart",
            [fragment(0, false), padding(60), fragment(0, true)].into(),
            Rule::Closed,
        ),
    ];
    for (name, extensions, rule) in cases {
        let name = format!("fragment header {name} to {to}");
        sheet.add(p2, name, rule, |c| v6(c, to, &extensions, 6, segment));
    }
    // Headers that hide the ports in a later fragment (RFC 7112).
    for number in [0, 43, 60] {
        let mut frame = samples::padding();
        frame.resize(6 + 8 * 7, 0);
        let hidden = [&[6u8, 7][..], &frame[..6]].concat();
        let extensions = [(44, samples::fragment(0, true))];
        let rule = Rule::Closed;
        let name = format!("first fragment that ends in header {number} to {to}");
        sheet.add(p2, name, rule, |c| v6(c, to, &extensions, number, &hidden));
    }
}
