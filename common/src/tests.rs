//! The verdict on whole frames, over a small world of tables.

use crate::address::{V4, V6, v4, v6};
use crate::decide::{
    Inbound, Interface, Lookup, PackedInterface, PackedZone, Place, Role, Tables, Zone, decide,
};
use crate::frame::Frame;
use crate::link::{Mac, tag};
use crate::network::Packet;
use crate::samples::{ACK, SYN, ethernet, fragment, icmp, padding, pppoe, tcp, udp};
use crate::samples::{framed, ipv4, ipv6, tagged};
use crate::verdict::{Action, Reason, Verdict};
use proptest::prelude::*;
use std::net::{Ipv4Addr, Ipv6Addr};

/// Interface 1 belongs to the zone, whose clients are 10.20/16 and 2001:db8:20::/48. TCP 443 and
/// protocol 50 are open to 198.51.100.1 and 2001:db8:a::1, TCP 443 to 203.0.113/24, nothing else.
#[derive(Clone, Copy, Debug)]
struct World {
    nft_behind: bool,
    audit: bool,
    /// So is every other zone of the interface.
    all_audit: bool,
    inbound_deny: bool,
    redirect: bool,
    /// There are VLAN devices on interface 1: 2 is in the zone, 3 upstream, 4 and 5 in no zone, 6 in
    /// the zone and behind a second tag.
    vlans: bool,
    /// Interfaces are ports of a bridge.
    port: bool,
    /// Whatever may be left to nft is.
    refers: bool,
}

const ZONED: u32 = tag(0x8100, 10);
const UPSTREAM: u32 = tag(0x8100, 20);
const STRANGER: u32 = tag(0x8100, 30);
const OUTER: u32 = tag(0x88a8, 40);
const INNER: u32 = tag(0x8100, 50);

const BEHIND: World = World {
    nft_behind: true,
    audit: false,
    all_audit: false,
    inbound_deny: false,
    redirect: false,
    vlans: false,
    port: false,
    refers: false,
};
const ALONE: World = World {
    nft_behind: false,
    ..BEHIND
};

impl World {
    fn zone(self) -> PackedZone {
        let zone = Zone {
            id: 3,
            audit: self.audit,
            inbound: if self.inbound_deny {
                Inbound::Deny
            } else {
                Inbound::Serve
            },
            redirect: self.redirect,
        };
        zone.pack()
    }
}

impl Lookup for World {
    fn interface(&self, index: u32) -> Option<PackedInterface> {
        let role = match index {
            1 | 2 | 6 => Role::Zoned,
            3 => Role::Upstream,
            4 | 5 if self.nft_behind => Role::Unzoned,
            4 | 5 => Role::Shut,
            _ => return None,
        };
        let interface = Interface {
            role,
            port: self.port,
            ethernet: true,
            audit: self.all_audit && role == Role::Zoned,
            sole: None,
        };
        Some(interface.pack())
    }

    fn vlan(&self, index: u32, tag: u32) -> Option<u32> {
        match (index, tag) {
            (1, ZONED) => Some(2),
            (1, UPSTREAM) => Some(3),
            (1, STRANGER) => Some(4),
            (1, OUTER) => Some(5),
            (5, INNER) => Some(6),
            _ => None,
        }
    }

    fn has_vlans(&self) -> bool {
        self.vlans
    }

    fn is_own_mac(&self, mac: Mac) -> bool {
        mac == crate::link::mac([2, 0, 0, 0, 0, 1])
    }

    fn has_ports(&self) -> bool {
        self.port
    }

    fn classes(&self, protocol: u8, port: u16) -> u64 {
        match (protocol, port) {
            (6, 443) => 1,
            (50, 0) => 2,
            (17, 123) => 4,
            _ => 0,
        }
    }

    fn serves(&self, zone: u8, protocol: u8, port: u16) -> bool {
        zone == 3 && matches!((protocol, port), (17 | 6, 53) | (47, 0))
    }

    fn nft_behind(&self) -> bool {
        self.nft_behind
    }
}

impl Tables<V4> for World {
    fn zone(&self, interface: u32, source: &V4) -> Option<PackedZone> {
        (matches!(interface, 1 | 2 | 6) && matches!(source[0].to_ne_bytes(), [10, 20, ..]))
            .then(|| World::zone(*self))
    }

    fn grant(&self, _: u8, destination: &V4, _: u64) -> u64 {
        if destination[0].to_ne_bytes() == [198, 51, 100, 1] {
            3
        } else {
            0
        }
    }

    fn place(&self, zone: u8, destination: &V4) -> Place {
        let bytes = destination[0].to_ne_bytes();
        Place {
            kind: 0,
            mask: u64::from(zone == 3 && bytes[..3] == [203, 0, 113]),
            own: bytes == [10, 20, 0, 1],
            internal: bytes[..2] == [10, 99],
            inside: self.nft_behind && bytes[..2] == [10, 20],
        }
    }

    fn refused(&self, _: u32, _: &Packet<V4>, verdict: Verdict, may_refer: bool) -> bool {
        assert!(!may_refer || verdict.zone == 3, "a packet of no zone");
        may_refer && self.refers
    }
}

impl Tables<V6> for World {
    fn zone(&self, _: u32, source: &V6) -> Option<PackedZone> {
        let ours = source[..2] == v6("2001:db8:20::".parse().unwrap())[..2];
        ours.then(|| World::zone(*self))
    }

    fn grant(&self, _: u8, destination: &V6, _: u64) -> u64 {
        if *destination == v6("2001:db8:a::1".parse().unwrap()) {
            3
        } else {
            0
        }
    }

    fn place(&self, _: u8, destination: &V6) -> Place {
        let own = *destination == v6("2001:db8:20::1".parse().unwrap());
        Place {
            own,
            ..Place::default()
        }
    }

    fn refused(&self, _: u32, _: &Packet<V6>, verdict: Verdict, may_refer: bool) -> bool {
        assert!(!may_refer || verdict.zone == 3, "a packet of no zone");
        may_refer && self.refers
    }
}

fn from_to(destination: &str) -> (Ipv4Addr, Ipv4Addr) {
    (Ipv4Addr::new(10, 20, 1, 1), destination.parse().unwrap())
}

fn from_to_v6(destination: &str) -> (Ipv6Addr, Ipv6Addr) {
    (
        "2001:db8:20::5".parse().unwrap(),
        destination.parse().unwrap(),
    )
}

fn web_to(destination: &str) -> Vec<u8> {
    ipv4(from_to(destination), 0, &[], 6, &tcp(5, 443, SYN))
}

const GRANTED: &str = "198.51.100.1";
const DENIED: &str = "198.51.100.9";
const GRANTED_V6: &str = "2001:db8:a::1";

fn verdict(world: World, frame: &[u8]) -> (Action, Reason) {
    let Verdict { action, reason, .. } = decide(&frame, 1, &world);
    (action, reason)
}

use Action::{Audit, Drop, Pass};

#[track_caller]
fn check(world: World, frame: &[u8], expected: (Action, Reason)) {
    assert_eq!(verdict(world, frame), expected, "{world:?}\n{frame:02x?}");
}

/// The same verdict whether nft is behind or not.
#[track_caller]
fn check_both(frame: &[u8], expected: (Action, Reason)) {
    check(BEHIND, frame, expected);
    check(ALONE, frame, expected);
}

#[test]
fn destinations() {
    let to = |destination: &str| ethernet(&[], &web_to(destination));
    check_both(&to(GRANTED), (Pass, Reason::Granted));
    check_both(&to("203.0.113.77"), (Pass, Reason::Network));
    check_both(&to(DENIED), (Drop, Reason::NotGranted));
    check_both(&to("10.20.0.1"), (Pass, Reason::Local));
    check_both(&to("10.99.4.4"), (Pass, Reason::Internal));
    check_both(&to("224.0.0.18"), (Pass, Reason::Group));
    check_both(&to("255.255.255.255"), (Pass, Reason::Group));
    check_both(&to("169.254.169.254"), (Drop, Reason::NotGranted));
    check(BEHIND, &to("10.20.3.3"), (Pass, Reason::Inside));
    check(ALONE, &to("10.20.3.3"), (Drop, Reason::NotGranted));
    let to = |destination| {
        ethernet(
            &[],
            &ipv6(from_to_v6(destination), &[], 6, &tcp(5, 443, SYN)),
        )
    };
    check_both(&to(GRANTED_V6), (Pass, Reason::Granted));
    check_both(&to("2001:db8:a::9"), (Drop, Reason::NotGranted));
    check_both(&to("2001:db8:20::1"), (Pass, Reason::Local));
    check_both(&to("ff02::1"), (Pass, Reason::Group));
    check_both(&to("fe80::1"), (Pass, Reason::LinkBound));
}

#[test]
fn ports_and_protocols() {
    fn carry(protocol: u8, payload: &[u8]) -> Vec<u8> {
        ethernet(&[], &ipv4(from_to(GRANTED), 0, &[], protocol, payload))
    }
    check_both(&carry(6, &tcp(5, 80, SYN)), (Drop, Reason::PortClosed));
    check_both(&carry(17, &udp(5, 123, 8)), (Drop, Reason::PortNotGranted));
    check_both(&carry(17, &udp(5, 443, 8)), (Drop, Reason::PortClosed));
    check_both(&carry(50, &[0; 8]), (Pass, Reason::Granted));
    check(ALONE, &carry(47, &[0; 8]), (Drop, Reason::PortClosed));
    // SCTP without a whole header of a chunk is no packet.
    for length in [12, 15] {
        check_both(&carry(132, &vec![0; length]), (Drop, Reason::Malformed));
    }
    // Encapsulations are judged by the outer header, whatever is inside.
    let inner = web_to(GRANTED);
    for protocol in [4, 41, 51, 59] {
        check_both(&carry(protocol, &inner), (Drop, Reason::PortClosed));
    }
}

#[test]
fn only_what_starts_something_is_dropped_before_nft() {
    fn check_rule(protocol: u8, payload: &[u8], behind: (Action, Reason)) {
        let frame = ethernet(&[], &ipv4(from_to(DENIED), 0, &[], protocol, payload));
        check(BEHIND, &frame, behind);
        assert_eq!(verdict(ALONE, &frame).0, Drop);
        assert_eq!(
            verdict(
                World {
                    inbound_deny: true,
                    ..BEHIND
                },
                &frame
            )
            .0,
            Drop
        );
        let audited = verdict(
            World {
                audit: true,
                ..ALONE
            },
            &frame,
        );
        assert_eq!(audited, (Audit, verdict(ALONE, &frame).1));
    }
    let continues = (Pass, Reason::Continues);
    let refused = (Drop, Reason::NotGranted);
    let closed = (Drop, Reason::PortClosed);
    for flags in [SYN, SYN | 0x01, SYN | 0x04, SYN | 0xc0] {
        check_rule(6, &tcp(5, 443, flags), refused);
    }
    for flags in [0, ACK, SYN | ACK, 0x01, 0x04, 0x29] {
        check_rule(6, &tcp(5, 443, flags), continues);
    }
    check_rule(17, &udp(5, 123, 0), refused);
    check_rule(17, &udp(53, 123, 0), (Pass, Reason::Serves));
    check_rule(17, &udp(53, 9999, 0), (Pass, Reason::Serves));
    for kind in [0, 14, 16, 18] {
        check_rule(1, &icmp(kind), continues);
    }
    for kind in [8, 13, 15, 17, 42] {
        check_rule(1, &icmp(kind), closed);
    }
    // What is served has no opener of its own; TCP has one.
    check_rule(47, &[0; 8], (Pass, Reason::Serves));
    check_rule(6, &tcp(53, 443, SYN), refused);
    check_rule(4, &[0; 8], closed);
    check_rule(51, &[0; 8], closed);
    // SCTP: INIT opens; INIT ACK, ABORT, DATA do not.
    let sctp = |chunk: u8| [&udp(5, 443, 4)[..], &[chunk, 0, 0, 4]].concat();
    check_rule(132, &sctp(1), closed);
    for chunk in [0, 2, 6, 255] {
        check_rule(132, &sctp(chunk), continues);
    }
}

#[test]
fn errors_go_to_whom_knows_their_flow() {
    fn check_errors(protocol: u8, errors: &[u8], v6: bool) {
        for &kind in errors {
            let frame = if v6 {
                let ends = from_to_v6("2001:db8:a::9");
                ethernet(&[], &ipv6(ends, &[], protocol, &icmp(kind)))
            } else {
                ethernet(&[], &ipv4(from_to(DENIED), 0, &[], protocol, &icmp(kind)))
            };
            for inbound_deny in [false, true] {
                let behind = World {
                    inbound_deny,
                    ..BEHIND
                };
                check(behind, &frame, (Pass, Reason::Continues));
                let alone = World {
                    inbound_deny,
                    ..ALONE
                };
                check(alone, &frame, (Drop, Reason::PortClosed));
            }
        }
    }
    check_errors(1, &[3, 4, 5, 11, 12], false);
    check_errors(58, &[1, 2, 3, 4, 127], true);
}

#[test]
fn what_nft_refuses_too_may_be_left_to_it() {
    fn check_left(inbound_deny: bool, protocol: u8, payload: &[u8], options: &[u8], left: bool) {
        let packet = ipv4(from_to(DENIED), 0, options, protocol, payload);
        let frame = ethernet(&[], &packet);
        let world = World {
            inbound_deny,
            ..BEHIND
        };
        let (action, reason) = verdict(world, &frame);
        let all = World {
            refers: true,
            ..world
        };
        let expected = if left { Action::Refer } else { action };
        check(all, &frame, (expected, reason));
        assert_eq!(
            action == Drop,
            left || reason == Reason::Options || inbound_deny
        );
    }
    for deny in [true, false] {
        check_left(deny, 6, &tcp(5, 443, SYN), &[], true);
        check_left(deny, 6, &tcp(5, 22, SYN), &[], true);
        check_left(deny, 17, &udp(5, 123, 0), &[], true);
        check_left(deny, 1, &icmp(8), &[], true);
        check_left(deny, 4, &[0; 8], &[], true);
        // Of a flow that is under way nft may think otherwise.
        check_left(deny, 6, &tcp(5, 443, ACK), &[], false);
        check_left(deny, 1, &icmp(0), &[], false);
        check_left(deny, 17, &udp(5, 123, 0), &[1; 4], false);
    }
}

#[test]
fn a_redirected_port_passes_to_nft() {
    fn check_port(world: World, protocol: u8, payload: &[u8], redirected: bool) {
        let frame = ethernet(&[], &ipv4(from_to(DENIED), 0, &[], protocol, payload));
        let expected = if redirected {
            (Pass, Reason::Redirected)
        } else {
            verdict(BEHIND, &frame)
        };
        check(
            World {
                redirect: true,
                ..world
            },
            &frame,
            expected,
        );
        // Where nft is not behind nothing would redirect it.
        let alone = World {
            redirect: true,
            ..ALONE
        };
        check(alone, &frame, verdict(ALONE, &frame));
    }
    let deny = World {
        inbound_deny: true,
        ..BEHIND
    };
    for flags in [SYN, ACK] {
        check_port(BEHIND, 6, &tcp(5, 53, flags), true);
        check_port(deny, 6, &tcp(5, 53, flags), true);
    }
    check_port(BEHIND, 17, &udp(5, 53, 8), true);
    check_port(deny, 17, &udp(5, 53, 8), true);
    check_port(BEHIND, 17, &udp(5, 853, 8), false);
    check_port(BEHIND, 6, &tcp(5, 853, SYN), false);
    check_port(BEHIND, 132, &udp(5, 53, 8), false);
    check_port(BEHIND, 1, &icmp(8), false);
    let over_v6 = ethernet(
        &[],
        &ipv6(from_to_v6("2001:db8:a::9"), &[], 17, &udp(5, 53, 8)),
    );
    let redirect = World {
        redirect: true,
        ..BEHIND
    };
    check(redirect, &over_v6, (Pass, Reason::Redirected));
    check(BEHIND, &over_v6, (Drop, Reason::PortClosed));
}

#[test]
fn icmpv6() {
    fn check_kind(kind: u8, expected: (Action, Reason)) {
        let frame = ethernet(
            &[],
            &ipv6(from_to_v6("2001:db8:a::9"), &[], 58, &icmp(kind)),
        );
        check(BEHIND, &frame, expected);
        check(ALONE, &frame, (Drop, Reason::PortClosed));
    }
    for kind in [1, 2, 3, 4, 129, 133, 135, 136, 143] {
        check_kind(kind, (Pass, Reason::Continues));
    }
    for kind in [128, 144, 200, 255] {
        check_kind(kind, (Drop, Reason::PortClosed));
    }
    // From link-local addresses it is never forwarded.
    let ends = (
        "fe80::5".parse().unwrap(),
        "2001:db8:20::1".parse().unwrap(),
    );
    check_both(
        &ethernet(&[], &ipv6(ends, &[], 58, &icmp(135))),
        (Pass, Reason::LinkBound),
    );
}

#[test]
fn sources() {
    fn check_source(source: [u8; 4], flags: u8, behind: (Action, Reason), alone: (Action, Reason)) {
        let ends = (source.into(), GRANTED.parse().unwrap());
        let frame = ethernet(&[], &ipv4(ends, 0, &[], 6, &tcp(5, 443, flags)));
        check(BEHIND, &frame, behind);
        check(ALONE, &frame, alone);
    }
    let spoofed = (Drop, Reason::Spoofed);
    let bound = (Pass, Reason::LinkBound);
    let martian = (Drop, Reason::Martian);
    check_source([192, 168, 1, 1], SYN, spoofed, spoofed);
    check_source([192, 168, 1, 1], ACK, (Pass, Reason::Continues), spoofed);
    check_source([169, 254, 1, 1], SYN, spoofed, spoofed);
    check_source([0, 0, 0, 0], SYN, bound, bound);
    check_source([127, 0, 0, 1], ACK, martian, martian);
    check_source([224, 0, 0, 1], SYN, martian, martian);
    check_source([255, 255, 255, 255], SYN, martian, martian);

    let ends = (Ipv4Addr::new(192, 168, 1, 1), DENIED.parse().unwrap());
    let frame = ethernet(&[], &ipv4(ends, 0, &[], 6, &tcp(5, 443, SYN)));
    check(
        World {
            audit: true,
            ..ALONE
        },
        &frame,
        (Drop, Reason::Spoofed),
    );
    let all_audit = World {
        audit: true,
        all_audit: true,
        ..ALONE
    };
    check(all_audit, &frame, (Audit, Reason::Spoofed));
    check(all_audit, &frame[..30], (Audit, Reason::Truncated));
    let ends = (Ipv4Addr::new(192, 168, 1, 1), Ipv4Addr::new(10, 20, 0, 1));
    check_both(
        &ethernet(&[], &ipv4(ends, 0, &[], 6, &tcp(5, 22, SYN))),
        (Pass, Reason::Local),
    );
}

#[test]
fn fragments() {
    fn check_fragment(
        field: u16,
        payload: &[u8],
        behind: (Action, Reason),
        alone: (Action, Reason),
    ) {
        let frame = ethernet(&[], &ipv4(from_to(GRANTED), field, &[], 6, payload));
        check(BEHIND, &frame, behind);
        check(ALONE, &frame, alone);
    }
    let web = tcp(5, 443, SYN);
    let granted = (Pass, Reason::Granted);
    let tiny = (Drop, Reason::TinyFragment);
    let (later, later_alone) = ((Pass, Reason::LaterFragment), (Drop, Reason::LaterFragment));
    check_fragment(0x4000, &web, granted, granted);
    check_fragment(0x2000, &web, granted, granted);
    check_fragment(0x2000, &web[..16], tiny, tiny);
    check_fragment(
        0x2000,
        &tcp(5, 80, SYN),
        (Drop, Reason::PortClosed),
        (Drop, Reason::PortClosed),
    );
    check_fragment(0x2001, &web, later, later_alone);
    check_fragment(0x0001, &web, later, later_alone);
    check_fragment(0x1fff, &[0; 8], later, later_alone);
    let to_gateway = ethernet(&[], &ipv4(from_to("10.20.0.1"), 1, &[], 6, &web));
    check(ALONE, &to_gateway, (Pass, Reason::Local));

    fn check_v6(
        headers: &[(u8, Vec<u8>)],
        payload: &[u8],
        behind: (Action, Reason),
        alone: (Action, Reason),
    ) {
        let frame = ethernet(&[], &ipv6(from_to_v6(GRANTED_V6), headers, 6, payload));
        check(BEHIND, &frame, behind);
        check(ALONE, &frame, alone);
    }
    let (atomic, first, next) = (fragment(0, false), fragment(0, true), fragment(3, true));
    check_v6(&[(44, atomic.clone())], &web, granted, granted);
    check_v6(&[(44, first.clone())], &web, granted, granted);
    check_v6(&[(44, first.clone())], &web[..8], tiny, tiny);
    check_v6(&[(44, first.clone()), (60, padding())], &[], tiny, tiny);
    check_v6(&[(44, next)], &web, later, later_alone);
    let double = (Drop, Reason::DoubleFragment);
    check_v6(&[(44, atomic.clone()), (44, atomic)], &web, double, double);
    check_v6(
        &[(44, first.clone()), (60, padding()), (44, first)],
        &web,
        double,
        double,
    );
}

#[test]
fn headers_are_sane() {
    let options = |options: &[u8], destination| {
        ethernet(
            &[],
            &ipv4(from_to(destination), 0, options, 6, &tcp(5, 443, SYN)),
        )
    };
    check_both(&options(&[7, 4, 0, 0], GRANTED), (Drop, Reason::Options));
    check_both(&options(&[0; 40], GRANTED), (Drop, Reason::Options));
    // Router alert (IGMP, VRRP) to a group, and options to the gateway itself, are the stack's.
    check_both(
        &options(&[0x94, 4, 0, 0], "224.0.0.22"),
        (Pass, Reason::Group),
    );
    check_both(&options(&[7, 4, 0, 0], "10.20.0.1"), (Pass, Reason::Local));

    /// Byte `at` of the IP packet becomes `byte`.
    fn check_byte(at: usize, byte: u8, expected: Reason) {
        let mut frame = ethernet(&[], &web_to(GRANTED));
        frame[14 + at] = byte;
        check_both(&frame, (Drop, expected));
    }
    check_byte(0, 0x65, Reason::Malformed);
    check_byte(0, 0x44, Reason::Malformed);
    check_byte(0, 0x46, Reason::Options);
    check_byte(3, 19, Reason::Malformed);
    check_byte(3, 39, Reason::Malformed);
    check_byte(3, 41, Reason::Truncated);
    check_byte(2, 0xff, Reason::Truncated);
    check_byte(32, 0x40, Reason::Malformed);
    check_byte(32, 0x60, Reason::Malformed);

    let mut lying = udp(5, 123, 8);
    lying[5] = 17;
    check_both(
        &ethernet(&[], &ipv4(from_to(GRANTED), 0, &[], 17, &lying)),
        (Drop, Reason::Malformed),
    );
    lying[5] = 7;
    check_both(
        &ethernet(&[], &ipv4(from_to(GRANTED), 0, &[], 17, &lying)),
        (Drop, Reason::Malformed),
    );
}

#[test]
fn extension_headers() {
    fn check_chain(headers: &[(u8, Vec<u8>)], expected: (Action, Reason)) {
        let web = tcp(5, 443, SYN);
        let frame = ethernet(&[], &ipv6(from_to_v6(GRANTED_V6), headers, 6, &web));
        check_both(&frame, expected);
    }
    let granted = (Pass, Reason::Granted);
    let option = |kind: u8| (kind, padding());
    check_chain(&[option(0), option(60)], granted);
    check_chain(&vec![option(60); 8], granted);
    check_chain(&vec![option(60); 9], (Drop, Reason::Extensions));
    check_chain(&[(60, vec![0; 8 * 250 + 6])], granted);
    check_chain(&[option(60), option(0)], (Drop, Reason::Malformed));
    check_chain(&[(43, vec![0, 1, 0, 0, 0, 0])], (Drop, Reason::SourceRoute));
    check_chain(&[(43, vec![4, 0, 0, 0, 0, 0])], granted);
    // What is not walked is a protocol, and no set opens it.
    for unknown in [135, 139, 140, 253] {
        check_chain(&[option(unknown)], (Drop, Reason::PortClosed));
    }
    // Behind an authentication header nft sees what it carries; its length counts in words.
    let authentication = |words: u8| {
        let mut rest = vec![0; (usize::from(words) + 2) * 4 - 2];
        rest[0] = 0;
        (51, rest)
    };
    for words in [4, 5, 10] {
        let web = tcp(5, 443, SYN);
        let mut packet = ipv6(from_to_v6(GRANTED_V6), &[authentication(words)], 6, &web);
        packet[41] = words;
        check_both(&ethernet(&[], &packet), granted);
        packet[41] = words + 1;
        assert_ne!(verdict(BEHIND, &ethernet(&[], &packet)), granted, "{words}");
    }
}

#[test]
fn tags_and_sessions_change_nothing() {
    for packet in [
        web_to(GRANTED),
        web_to(DENIED),
        ipv6(from_to_v6(GRANTED_V6), &[], 6, &tcp(5, 443, SYN)),
    ] {
        let plain = verdict(ALONE, &ethernet(&[], &packet));
        for tags in [&[0x8100][..], &[0x88a8, 0x8100], &[0x8100, 0x8100, 0x8100]] {
            check(ALONE, &ethernet(tags, &packet), plain);
            check(ALONE, &pppoe(tags, &packet), plain);
        }
        check_both(&ethernet(&[0x8100; 4], &packet), (Drop, Reason::Tags));
    }
    check_both(&framed(&[], 0x0806, &[0; 46]), (Pass, Reason::NotIp));
    let frame = ethernet(&[], &web_to(GRANTED));
    let elsewhere = decide(&frame.as_slice(), 9, &ALONE);
    assert_eq!(
        (elsewhere.action, elsewhere.reason),
        (Drop, Reason::NoInterface)
    );
}

/// A frame whose outermost tag was taken off.
struct Stripped<'a>(u32, &'a [u8]);

impl Frame for Stripped<'_> {
    fn words<const N: usize>(&self, offset: usize) -> Option<[u32; N]> {
        self.1.words(offset)
    }

    fn reaches(&self, length: usize) -> bool {
        self.1.reaches(length)
    }

    fn stripped(&self) -> Option<u32> {
        Some(self.0)
    }
}

#[test]
fn a_tag_leads_to_its_vlan_device() {
    fn check_tags(tags: &[u32], packet: &[u8], behind: (Action, Reason), alone: (Action, Reason)) {
        let wire: Vec<(u16, u16)> = tags
            .iter()
            .map(|tag| ((tag >> 16) as u16, 0xe000 | *tag as u16))
            .collect();
        let frame = tagged(&wire, packet);
        for (world, expected) in [(BEHIND, behind), (ALONE, alone)] {
            let world = World {
                vlans: true,
                ..world
            };
            check(world, &frame, expected);
            if let [outermost, rest @ ..] = tags {
                let frame = tagged(&wire[1..], packet);
                let verdict = decide(&Stripped(*outermost, &frame), 1, &world);
                let found = (verdict.action, verdict.reason);
                assert_eq!(found, expected, "{outermost:x} stripped, then {rest:x?}");
            }
        }
    }
    const PRIORITY: u32 = tag(0x8100, 0);
    const NOBODYS: u32 = tag(0x8100, 77);
    let (granted, refused) = ((Pass, Reason::Granted), (Drop, Reason::PortClosed));
    let (vlan, upstream) = ((Pass, Reason::Vlan), (Pass, Reason::Upstream));
    let unzoned = (Pass, Reason::Unzoned);
    let shut = (Drop, Reason::Spoofed);
    let web = web_to(GRANTED);
    let denied = ipv4(from_to(DENIED), 0, &[], 6, &tcp(5, 80, SYN));
    let own = web_to("10.20.0.1");
    for (tags, of_granted, of_denied) in [
        (&[][..], granted, refused),
        (&[PRIORITY], granted, refused),
        (&[NOBODYS], granted, refused),
        // Inside a tag that nobody takes there are no devices.
        (&[NOBODYS, ZONED], granted, refused),
        (&[tag(0x9100, 10)], granted, refused),
        (&[tag(0x88a8, 10)], granted, refused),
        (&[ZONED], vlan, refused),
        (&[PRIORITY, ZONED], vlan, refused),
        (&[ZONED, NOBODYS], vlan, refused),
        (&[UPSTREAM], upstream, upstream),
        (&[OUTER, INNER], vlan, refused),
        (&[OUTER, PRIORITY, INNER], vlan, refused),
    ] {
        check_tags(tags, &web, of_granted, of_granted);
        check_tags(tags, &denied, of_denied, of_denied);
    }
    for tags in [
        &[STRANGER][..],
        &[OUTER],
        &[STRANGER, INNER],
        &[OUTER, OUTER],
    ] {
        check_tags(tags, &web, unzoned, shut);
        check_tags(tags, &own, unzoned, (Pass, Reason::Local));
    }
    // Without any devices tags say nothing.
    check_both(&tagged(&[(0x8100, 30)], &web), granted);
    // The device's program reports what passes only there.
    let audit = World {
        audit: true,
        vlans: true,
        ..ALONE
    };
    check(audit, &tagged(&[(0x8100, 10)], &denied), vlan);
    check(audit, &tagged(&[], &denied), (Audit, Reason::PortClosed));
}

#[test]
fn what_is_bridged_is_not_judged() {
    fn check_mac(mac: [u8; 6], expected: (Action, Reason)) {
        let mut frame = ethernet(&[], &web_to(DENIED));
        frame[..6].copy_from_slice(&mac);
        for world in [BEHIND, ALONE] {
            check(world, &frame, judged);
            check(
                World {
                    port: true,
                    ..world
                },
                &frame,
                expected,
            );
        }
    }
    #[expect(non_upper_case_globals, reason = "reads as the other verdicts do")]
    const judged: (Action, Reason) = (Drop, Reason::NotGranted);
    let bridged = (Pass, Reason::Bridged);
    check_mac([2, 0, 0, 0, 0, 1], judged);
    check_mac([2, 0, 0, 0, 0, 2], bridged);
    check_mac([2, 0, 0, 0, 1, 1], bridged);
    check_mac([0, 0, 0x5e, 0, 1, 7], judged);
    check_mac([0, 0, 0x5e, 0, 2, 7], judged);
    check_mac([0, 0, 0x5e, 0, 3, 7], bridged);
    check_mac([0xff; 6], judged);
    check_mac([1, 0, 0x5e, 0, 0, 1], judged);
}

#[test]
fn a_frame_cut_anywhere_is_dropped() {
    let whole = [
        ethernet(&[], &web_to(GRANTED)),
        ethernet(&[0x8100], &ipv4(from_to(GRANTED), 0, &[], 50, &[0; 20])),
        pppoe(&[0x88a8, 0x8100], &web_to("203.0.113.5")),
        ethernet(
            &[],
            &ipv6(
                from_to_v6(GRANTED_V6),
                &[(0, padding()), (44, fragment(0, false))],
                6,
                &tcp(5, 443, SYN),
            ),
        ),
    ];
    for frame in &whole {
        assert_eq!(verdict(BEHIND, frame).0, Pass);
        for length in 0..frame.len() {
            check_both(&frame[..length], (Drop, Reason::Truncated));
        }
        // Padding after the packet is no harm.
        assert_eq!(verdict(BEHIND, &[&frame[..], &[0; 9]].concat()).0, Pass);
    }
}

proptest! {
    /// Whatever surrounds it: what starts something from the zone to an address without a grant
    /// does not pass.
    #[test]
    fn nothing_starts_without_a_grant(
        destination in any::<[u8; 4]>(),
        port in any::<u16>(),
        udp_from in 1024u16..,
        kind in 0usize..5,
        tags in proptest::collection::vec(proptest::sample::select(vec![0x8100u16, 0x88a8]), 0..5),
        session: bool,
        nft_behind: bool,
        inbound_deny: bool,
    ) {
        let world = World { nft_behind, inbound_deny, ..ALONE };
        let address = v4(destination.into());
        let place = world.place(3, &address);
        prop_assume!(destination[0] < 224 && !place.own && !place.internal && !place.inside);
        let (protocol, payload) = match kind {
            0 => (6, tcp(5, port, SYN)),
            1 => (17, udp(udp_from, port, 4)),
            2 => (1, icmp(8)),
            3 => (4, vec![0; 8]),
            _ => (132, [&udp(5, port, 4)[..], &[1, 0, 0, 4]].concat()),
        };
        let classes = world.classes(protocol, if kind == 2 || kind == 3 { 0 } else { port });
        prop_assume!((world.grant(3, &address, 0) | place.mask) & classes == 0);
        let ends = ([10, 20, 9, 9].into(), destination.into());
        let packet = ipv4(ends, 0, &[], protocol, &payload);
        let frame = if session { pppoe(&tags, &packet) } else { ethernet(&tags, &packet) };
        prop_assert_eq!(verdict(world, &frame).0, Drop);
    }

    /// What is left to nft would have been dropped here, for want of a grant, where nft is behind; all else
    /// is as it was.
    #[test]
    fn only_what_lacks_a_grant_is_left_to_nft(
        mut frame in proptest::collection::vec(any::<u8>(), 0..80),
        destination in any::<[u8; 4]>(),
        source in proptest::sample::select(vec![[10u8, 20, 9, 9], [192, 168, 0, 1], [127, 0, 0, 1]]),
        protocol in proptest::sample::select(vec![1u8, 6, 17, 47, 50, 132]),
        fragment in proptest::sample::select(vec![0u16, 0, 0, 0x2000, 1]),
        header: bool,
        nft_behind: bool,
        inbound_deny: bool,
        audit: bool,
    ) {
        if header {
            let ends = (source.into(), destination.into());
            frame = ethernet(&[], &ipv4(ends, fragment, &[], protocol, &frame));
        }
        let world = World { nft_behind, inbound_deny, audit, ..ALONE };
        let (action, reason) = verdict(world, &frame);
        let referred = verdict(World { refers: true, ..world }, &frame);
        let lacks = [Reason::NotGranted, Reason::PortNotGranted, Reason::PortClosed].contains(&reason);
        if referred.0 == Action::Refer {
            prop_assert!(nft_behind && lacks && !audit);
            prop_assert_eq!((action, reason), (Drop, referred.1));
        } else {
            prop_assert_eq!(referred, (action, reason));
            // Nothing is kept back that starts something.
            prop_assert!(!(nft_behind && action == Drop && lacks && !inbound_deny));
        }
    }

    /// Any bytes at all: a verdict, and where it is a pass by grant the destination has one.
    #[test]
    fn any_bytes_get_a_verdict(mut frame in proptest::collection::vec(any::<u8>(), 0..200), version in 0usize..3) {
        if let Some(kind) = frame.get_mut(12..15) {
            kind.copy_from_slice(&[[8, 0, 0x45], [0x86, 0xdd, 0x60], [0x81, 0, 0]][version]);
        }
        let (action, reason) = verdict(ALONE, &frame);
        prop_assert!(action == Drop || reason != Reason::Continues);
        if reason == Reason::Granted && version == 0 {
            prop_assert_eq!(&frame[30..34], &[198, 51, 100, 1]);
        }
    }
}
