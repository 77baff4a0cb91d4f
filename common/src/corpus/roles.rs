//! P8: sources and destinations that are not forwarded, and what the gateway's own stack must hear.

use super::plan::{GRANTED, REFUSED};
use super::{Client, Promise, Rule, Sheet};
use crate::samples::{self, ACK, SYN};
use core::net::IpAddr;
use std::format;
use std::vec::Vec;

fn ip(text: &str) -> IpAddr {
    text.parse().expect("an address written here")
}

fn frame(from: IpAddr, to: IpAddr, protocol: u8, payload: &[u8]) -> Vec<u8> {
    samples::ethernet(&[], &samples::packet(from, to, protocol, payload))
}

/// Frame types that are not IP.
const OTHERS: [u16; 24] = [
    0x0000, 0x0026, 0x05dc, 0x0600, 0x0801, 0x0805, 0x0806, 0x0807, 0x22f0, 0x8035, 0x809b, 0x80f3,
    0x8137, 0x86dc, 0x86de, 0x8808, 0x8809, 0x8847, 0x8863, 0x888e, 0x88cc, 0x88e5, 0x88f7, 0xffff,
];

pub(super) fn add(sheet: &mut Sheet) {
    sources(sheet);
    destinations(sheet);
    stack(sheet);
}

fn sources(sheet: &mut Sheet) {
    let p8 = Promise::P8;
    let mut put = |from: &str, kinds: [Rule; 3]| {
        let from = ip(from);
        for to in [GRANTED, REFUSED].into_iter().flatten() {
            if from.is_ipv4() != to.is_ipv4() {
                continue;
            }
            for (flags, rule) in [(SYN, kinds[0]), (ACK, kinds[1])] {
                sheet.add(
                    p8,
                    format!("tcp {flags:#04x} from {from} to {to}"),
                    rule,
                    |_| frame(from, to, 6, &samples::tcp(40_000, 443, flags)),
                );
            }
            sheet.add(p8, format!("udp from {from} to {to}"), kinds[2], |_| {
                frame(from, to, 17, &samples::udp(40_000, 443, 4))
            });
        }
    };
    // No packet may come from there (RFC 1122 §3.2.1.3, RFC 6890).
    for martian in [
        "127.0.0.0",
        "127.0.0.1",
        "127.255.255.255",
        "224.0.0.1",
        "239.255.255.255",
        "240.0.0.1",
        "255.255.255.254",
        "255.255.255.255",
        "0.0.0.1",
        "0.1.2.3",
        "0.255.255.255",
        "::1",
        "ff02::1",
        "ff0e::1",
        "ffff::1",
    ] {
        put(martian, [Rule::Closed; 3]);
    }
    // In no zone here: what starts something is dropped, the rest is nft's.
    for forged in [
        "10.19.255.255",
        "10.21.0.0",
        "192.168.1.1",
        "8.8.8.8",
        "198.51.100.1",
        "192.0.2.1",
        "192.0.2.2",
        "203.0.113.77",
        "169.254.3.4",
        "1.0.0.0",
        "223.255.255.255",
        "2001:db8:21::1",
        "2001:db8:a::1",
        "2001:db8:1f:ffff::1",
        "fd00::1",
        "::2",
        "fec0::1",
        "64:ff9b::a00:1",
        "::ffff:10.20.1.1",
    ] {
        put(forged, [Rule::Closed, Rule::Left, Rule::Closed]);
    }
    // Linux forwards nothing from there.
    for bound in ["0.0.0.0", "::", "fe80::1", "fe80::9", "febf::1"] {
        put(bound, [Rule::Stack; 3]);
    }
}

fn destinations(sheet: &mut Sheet) {
    let p8 = Promise::P8;
    let groups = [
        "224.0.0.1",
        "224.0.0.18",
        "224.0.0.251",
        "224.1.1.1",
        "232.1.1.1",
        "239.255.255.250",
        "255.255.255.255",
        "10.20.255.255",
        "ff02::1",
        "ff02::2",
        "ff02::fb",
        "ff05::1:3",
        "ff0e::1",
        "2001:db8:20::",
        "fe80::1",
        "fe80::77",
    ];
    let nowhere = [
        "127.0.0.1",
        "127.255.255.255",
        "0.0.0.0",
        "0.1.2.3",
        "240.0.0.1",
        "255.255.255.254",
        "169.254.169.254",
        "8.8.8.8",
        "::1",
        "::",
        "2001:db8:a::",
        "fec0::1",
    ];
    for (list, rule) in [(&groups[..], Rule::Stack), (&nowhere[..], Rule::Closed)] {
        for to in list.iter().map(|text| ip(text)) {
            for (protocol, payload) in [
                (6, samples::tcp(40_000, 443, SYN)),
                (17, samples::udp(40_000, 443, 4)),
                (132, samples::udp(40_000, 443, 4)),
                (112, std::vec![0x21; 20]),
            ] {
                sheet.add(p8, format!("protocol {protocol} to {to}"), rule, |c| {
                    frame(c.beside(to), to, protocol, &payload)
                });
            }
        }
    }
}

/// One exchange that hosts and routers of a link need: its name and packet.
type Talk = (&'static str, fn(Client) -> (IpAddr, IpAddr, u8, Vec<u8>));

const TALKS: [Talk; 16] = [
    ("dhcp discover", |_| {
        (
            ip("0.0.0.0"),
            ip("255.255.255.255"),
            17,
            samples::udp(68, 67, 240),
        )
    }),
    ("dhcp renewal", |c| {
        (c.v4.into(), ip("10.20.0.1"), 17, samples::udp(68, 67, 240))
    }),
    ("dhcpv6 solicit", |_| {
        (
            ip("fe80::9"),
            ip("ff02::1:2"),
            17,
            samples::udp(546, 547, 60),
        )
    }),
    ("duplicate detection", |_| {
        (ip("::"), ip("ff02::1:ff00:9"), 58, samples::icmp(135))
    }),
    ("neighbour solicitation", |_| {
        (ip("fe80::9"), ip("ff02::1:ff00:1"), 58, samples::icmp(135))
    }),
    ("neighbour solicitation to us", |_| {
        (ip("fe80::9"), ip("fe80::1"), 58, samples::icmp(135))
    }),
    ("neighbour advertisement", |_| {
        (ip("fe80::9"), ip("fe80::1"), 58, samples::icmp(136))
    }),
    ("advertisement to our address", |c| {
        (c.v6.into(), ip("2001:db8:20::1"), 58, samples::icmp(136))
    }),
    ("router solicitation", |_| {
        (ip("fe80::9"), ip("ff02::2"), 58, samples::icmp(133))
    }),
    ("router advertisement", |_| {
        (ip("fe80::9"), ip("ff02::1"), 58, samples::icmp(134))
    }),
    ("listener report", |_| {
        (ip("fe80::9"), ip("ff02::16"), 58, samples::icmp(143))
    }),
    ("listener report before an address", |_| {
        (ip("::"), ip("ff02::16"), 58, samples::icmp(143))
    }),
    ("igmp report", |c| {
        (c.v4.into(), ip("224.0.0.22"), 2, std::vec![0x22; 8])
    }),
    ("vrrp", |c| {
        (c.v4.into(), ip("224.0.0.18"), 112, std::vec![0x21; 20])
    }),
    ("vrrp over ipv6", |_| {
        (ip("fe80::9"), ip("ff02::12"), 112, std::vec![0x31; 20])
    }),
    ("multicast dns", |c| {
        (
            c.v4.into(),
            ip("224.0.0.251"),
            17,
            samples::udp(5353, 5353, 40),
        )
    }),
];

fn stack(sheet: &mut Sheet) {
    for (name, talk) in TALKS {
        sheet.add(Promise::P8, name, Rule::Stack, |c| {
            let (from, to, protocol, payload) = talk(c);
            frame(from, to, protocol, &payload)
        });
    }
    // Behind the hop-by-hop header with a router alert that MLD must have (RFC 3810 §5).
    sheet.add(
        Promise::P8,
        "listener report with router alert",
        Rule::Stack,
        |c| {
            let alert = [(0, std::vec![5, 2, 0, 0, 1, 0])];
            let to = [0xff02, 0, 0, 0, 0, 0, 0, 0x16].into();
            samples::ethernet(
                &[],
                &samples::ipv6((c.v6, to), &alert, 58, &samples::icmp(143)),
            )
        },
    );
    for kind in OTHERS {
        // A shorter frame is on no wire, and counts as truncated.
        for length in [2, 28, 46] {
            let name = format!("frame type {kind:#06x} with {length} bytes");
            sheet.add(Promise::P8, name, Rule::Stack, |_| {
                samples::framed(&[], kind, &std::vec![0x45; length])
            });
        }
    }
}
