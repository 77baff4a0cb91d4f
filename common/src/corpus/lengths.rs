//! P7: frames cut at every byte, and lengths that lie in both directions.

use super::fragments::{v4, v6};
use super::matrix::init;
use super::plan::{GRANTED, OWN};
use super::{Client, Promise, Rule, Sheet};
use crate::samples::{self, SYN};
use core::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::boxed::Box;
use std::format;
use std::vec::Vec;

type Build = Box<dyn Fn(Client) -> Vec<u8>>;

/// One frame of each kind, all to be forwarded when whole.
fn kinds(to4: Ipv4Addr, to6: Ipv6Addr) -> [(&'static str, Build); 13] {
    let tcp = samples::tcp(40_000, 443, SYN);
    let udp = samples::udp(40_000, 443, 12);
    let segment = tcp.clone();
    let tagged = move |tags: &'static [u16], six: bool| -> Build {
        let segment = segment.clone();
        Box::new(move |c: Client| {
            let packet = if six {
                samples::ipv6((c.v6, to6), &[], 6, &segment)
            } else {
                samples::ipv4((c.v4, to4), 0, &[], 6, &segment)
            };
            samples::ethernet(tags, &packet)
        })
    };
    let session = |six: bool, payload: Vec<u8>| -> Build {
        Box::new(move |c: Client| {
            let packet = if six {
                samples::ipv6((c.v6, to6), &[], 6, &payload)
            } else {
                samples::ipv4((c.v4, to4), 0, &[], 6, &payload)
            };
            samples::pppoe(&[], &packet)
        })
    };
    let plain =
        |six: bool, protocol: u8, extensions: Vec<(u8, Vec<u8>)>, payload: Vec<u8>| -> Build {
            Box::new(move |c: Client| {
                if six {
                    v6(c, to6, &extensions, protocol, &payload)
                } else {
                    v4(c, to4, 0, protocol, &payload)
                }
            })
        };
    [
        ("tcp4", plain(false, 6, Vec::new(), tcp.clone())),
        ("udp4", plain(false, 17, Vec::new(), udp.clone())),
        ("sctp4", plain(false, 132, Vec::new(), init(40_000, 443))),
        ("tcp6", plain(true, 6, Vec::new(), tcp.clone())),
        ("udp6", plain(true, 17, Vec::new(), udp)),
        ("sctp6", plain(true, 132, Vec::new(), init(40_000, 443))),
        (
            "extended",
            plain(
                true,
                6,
                [(0, samples::padding()), (60, samples::padding())].into(),
                tcp.clone(),
            ),
        ),
        (
            "atomic",
            plain(
                true,
                6,
                [(44, samples::fragment(0, false))].into(),
                tcp.clone(),
            ),
        ),
        ("tag4", tagged(&[0x8100], false)),
        ("tag6", tagged(&[0x8100], true)),
        ("qinq4", tagged(&[0x88a8, 0x8100], false)),
        ("pppoe4", session(false, tcp.clone())),
        ("pppoe6", session(true, tcp)),
    ]
}

pub(super) fn add(sheet: &mut Sheet) {
    let p7 = Promise::P7;
    let [IpAddr::V4(to4), IpAddr::V6(to6)] = GRANTED else {
        return;
    };
    for (word, build) in kinds(to4, to6) {
        let whole = build(Client::of(0)).len();
        for length in 14..whole {
            sheet.add(p7, format!("{word} cut at {length}"), Rule::Closed, |c| {
                let mut frame = build(c);
                frame.truncate(length);
                frame
            });
        }
        for padding in [1, 6, 46] {
            let tagged =
                word.starts_with("tag") || word.starts_with("qinq") || word.starts_with("pppoe");
            let rule = if tagged { Rule::Held } else { Rule::Open };
            sheet.add(p7, format!("{word} padded by {padding}"), rule, |c| {
                let mut frame = build(c);
                frame.resize(whole + padding, 0xa5);
                frame
            });
        }
    }
    let segment = samples::tcp(40_000, 443, SYN);
    let mut put = |name: &str, rule, at: usize, bytes: &[u8], frame: &dyn Fn(Client) -> Vec<u8>| {
        sheet.add(p7, name, rule, |c| {
            let mut frame = frame(c);
            frame[at..at + bytes.len()].copy_from_slice(bytes);
            frame
        });
    };
    let tcp4 = |c| v4(c, to4, 0, 6, &segment);
    for total in [0u16, 1, 19, 20, 21, 28, 39, 41, 44, 1500, 65_535] {
        put(
            &format!("tcp4 says it has {total}"),
            Rule::Closed,
            16,
            &total.to_be_bytes(),
            &tcp4,
        );
    }
    for first in [
        0x40u8, 0x41, 0x42, 0x43, 0x44, 0x46, 0x47, 0x4a, 0x4f, 0x05, 0x15, 0x55, 0x65, 0xf5,
    ] {
        put(
            &format!("tcp4 begins with {first:#04x}"),
            Rule::Closed,
            14,
            &[first],
            &tcp4,
        );
    }
    for offset in [0u8, 1, 2, 3, 4, 6, 7, 10, 15] {
        put(
            &format!("tcp4 header of {offset} words"),
            Rule::Closed,
            46,
            &[offset << 4],
            &tcp4,
        );
    }
    let tcp6 = |c| v6(c, to6, &[], 6, &segment);
    for length in [0u16, 1, 8, 19, 21, 24, 1500, 65_535] {
        put(
            &format!("tcp6 says it has {length}"),
            Rule::Closed,
            18,
            &length.to_be_bytes(),
            &tcp6,
        );
    }
    for first in [0x00u8, 0x10, 0x40, 0x45, 0x50, 0x70, 0xf0] {
        put(
            &format!("tcp6 begins with {first:#04x}"),
            Rule::Closed,
            14,
            &[first],
            &tcp6,
        );
    }
    for offset in [0u8, 1, 4, 6, 15] {
        put(
            &format!("tcp6 header of {offset} words"),
            Rule::Closed,
            66,
            &[offset << 4],
            &tcp6,
        );
    }
    let datagram = samples::udp(40_000, 443, 12);
    let udp4 = |c| v4(c, to4, 0, 17, &datagram);
    let udp6 = |c| v6(c, to6, &[], 17, &datagram);
    for length in [0u16, 1, 7, 21, 1000, 65_535] {
        put(
            &format!("udp4 says it has {length}"),
            Rule::Closed,
            38,
            &length.to_be_bytes(),
            &udp4,
        );
        put(
            &format!("udp6 says it has {length}"),
            Rule::Closed,
            58,
            &length.to_be_bytes(),
            &udp6,
        );
    }
    // A jumbogram (RFC 2675): no payload length, and an option with the real one.
    let jumbo = std::vec![0xc2, 4, 0, 1, 0, 20];
    put("jumbogram", Rule::Closed, 18, &[0, 0], &|c| {
        v6(c, to6, &[(0, jumbo.clone())], 6, &segment)
    });
    // What the gateway itself must answer to is its own business, however it looks.
    if let IpAddr::V4(own) = OWN[0] {
        put("own address, no header", Rule::Stack, 14, &[0x44], &|c| {
            v4(c, own, 0, 6, &segment)
        });
    }
}
