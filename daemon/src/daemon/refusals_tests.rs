//! What is told of refused packets, and how often.

use super::late::Late;
use super::refusals::{Counts, Refusals};
use crate::observe::{Happening, Refused};
use crate::plane::RefusedPacket;
use crate::policy::grant::Policy;
use crate::policy::port::{TCP, UDP};
use crate::policy::tests::{answer, intent, ip, links};
use crate::policy::{Moment, ZoneId};
use std::sync::Arc;

const ZONE: ZoneId = ZoneId(0);
const NOW: Moment = Moment(1_000_000);

fn policy() -> Policy {
    Policy::new(Arc::new(intent(&["c/web"], &[])), links()).unwrap()
}

fn packet(source: &str, destination: &str, protocol: u8, port: u16) -> RefusedPacket {
    RefusedPacket {
        plane: "ebpf",
        zone: Some(ZONE),
        interface: 2,
        source: ip(source),
        destination: ip(destination),
        protocol,
        port,
        reason: "not-granted".to_owned(),
        audited: false,
    }
}

/// Everything told of `packets` at once.
fn tell(refusals: &mut Refusals, packets: Vec<RefusedPacket>, now: Moment) -> Vec<Refused> {
    let happenings = refusals.refused(packets, &policy(), &Late::default(), now);
    let refused = |happening| {
        let Happening::PacketRefused(refused) = happening else {
            panic!("{happening:?}");
        };
        *refused
    };
    happenings.into_iter().map(refused).collect()
}

/// The name told of a packet from `source` to `destination`.
fn name(refusals: &mut Refusals, source: &str, destination: &str) -> Option<String> {
    let told = tell(refusals, vec![packet(source, destination, TCP, 22)], NOW);
    told[0].name.as_ref().map(ToString::to_string)
}

#[test]
fn a_packet_is_told_with_the_name_that_led_there() {
    let mut refusals = Refusals::default();
    let mut asked = |client: Option<&str>, of: &str, to: &[&str]| {
        let given = answer(of, to, 60);
        refusals.answered(ZONE, client.map(ip), &given.name, &given.addresses);
    };
    asked(Some("10.20.0.7"), "old.a.example", &["20.0.0.1"]);
    asked(Some("10.20.0.7"), "x.a.example", &["20.0.0.1", "20.0.0.2"]);
    asked(Some("10.20.0.8"), "y.a.example", &["20.0.0.1"]);
    asked(Some("2001:db8:20::8"), "six.a.example", &["2600::1"]);
    asked(None, "own.a.example", &["20.0.0.3"]);
    let mut check = |source: &str, destination: &str, expected: Option<&str>| {
        let name = name(&mut refusals, source, destination);
        assert_eq!(name.as_deref(), expected, "{source} to {destination}");
    };
    check("10.20.0.7", "20.0.0.1", Some("x.a.example"));
    check("10.20.0.8", "20.0.0.1", Some("y.a.example"));
    // It has the address from somebody of its zone, who asked last.
    check("10.20.0.9", "20.0.0.1", Some("y.a.example"));
    check("10.20.0.8", "20.0.0.2", Some("x.a.example"));
    check("10.20.0.9", "20.0.0.3", Some("own.a.example"));
    check("10.20.0.9", "20.0.0.4", None);
    // A host changes its address within its /64.
    check("2001:db8:20::99", "2600::1", Some("six.a.example"));
}

#[test]
fn names_are_remembered_beyond_their_grants() {
    let (mut refusals, mut policy) = (Refusals::default(), policy());
    let mut late = Late::default();
    late.ended(
        ZONE,
        ip("20.0.0.1"),
        Arc::new("gone.a.example".parse().unwrap()),
        NOW,
    );
    policy.admit(ZONE, &answer("live.a.example", &["20.0.0.2"], 60), NOW);
    let mut check = |destination: &str, expected: &str| {
        let packets = vec![packet("10.20.0.7", destination, TCP, 22)];
        let told = refusals.refused(packets, &policy, &late, NOW);
        let [Happening::PacketRefused(refused)] = told.as_slice() else {
            panic!("{told:?}");
        };
        let name = refused.name.as_ref().map(ToString::to_string);
        assert_eq!(name.as_deref(), Some(expected));
    };
    check("20.0.0.1", "gone.a.example");
    check("20.0.0.2", "live.a.example");
}

#[test]
fn the_nearest_set_is_told_where_a_set_would_help() {
    let mut refusals = Refusals::default();
    let given = answer("x.a.example", &["20.0.0.1"], 60);
    refusals.answered(ZONE, None, &given.name, &given.addresses);
    let mut check = |packet: RefusedPacket, expected: Option<&str>| {
        let told = tell(&mut refusals, vec![packet.clone()], NOW);
        assert_eq!(told[0].nearest.as_deref(), expected, "{packet:?}");
        assert_eq!(told[0].packet, packet);
    };
    let only = Some("set c/web allows tcp/443 only");
    check(packet("10.20.0.7", "20.0.0.1", TCP, 22), only);
    let stranger = RefusedPacket {
        zone: None,
        ..packet("10.20.0.7", "20.0.0.1", TCP, 23)
    };
    check(stranger, None);
    let forged = RefusedPacket {
        reason: "options".to_owned(),
        ..packet("10.20.0.7", "20.0.0.1", TCP, 24)
    };
    check(forged, None);
    // The interface has a name while it is there.
    let told = tell(
        &mut refusals,
        vec![
            RefusedPacket {
                interface: 3,
                ..packet("10.20.0.7", "20.0.0.9", UDP, 1)
            },
            RefusedPacket {
                interface: 77,
                ..packet("10.20.0.7", "20.0.0.9", UDP, 2)
            },
        ],
        NOW,
    );
    let names: Vec<_> = told.iter().map(|of| of.interface.as_deref()).collect();
    assert_eq!(names, [Some("wan0"), None]);
}

#[test]
fn a_flow_is_told_once_in_a_while() {
    let mut refusals = Refusals::default();
    let flow = || packet("10.20.0.7", "20.0.0.1", TCP, 443);
    let mut check = |packets: Vec<RefusedPacket>, seconds, expected: (usize, Counts)| {
        let told = tell(&mut refusals, packets, NOW.after_seconds(seconds)).len();
        assert_eq!((told, refusals.counts()), expected);
    };
    let counts = |told, repeated, lost| Counts {
        told,
        repeated,
        lost,
    };
    check(vec![flow(), flow()], 0, (1, counts(1, 1, 0)));
    // Another plane tells of the same packet.
    let by_nft = RefusedPacket {
        plane: "nft",
        ..flow()
    };
    check(vec![by_nft], 9, (0, counts(1, 2, 0)));
    check(vec![flow()], 10, (1, counts(2, 2, 0)));
    let others = vec![
        packet("10.20.0.8", "20.0.0.1", TCP, 443),
        packet("10.20.0.7", "20.0.0.2", TCP, 443),
        packet("10.20.0.7", "20.0.0.1", UDP, 443),
        packet("10.20.0.7", "20.0.0.1", TCP, 444),
        RefusedPacket {
            zone: None,
            ..flow()
        },
    ];
    check(others, 10, (5, counts(7, 2, 0)));
    // However many there are, so many are told at once.
    let flood = |from: u32| -> Vec<_> {
        (from..from + 1000)
            .map(|n| RefusedPacket {
                destination: std::net::Ipv4Addr::from(0x3000_0000 + n).into(),
                ..flow()
            })
            .collect()
    };
    check(flood(0), 20, (256, counts(263, 2, 744)));
    // And so many are remembered: 8192 flows.
    for round in 1..31 {
        tell(&mut refusals, flood(round * 1000), NOW.after_seconds(20));
    }
    tell(&mut refusals, flood(31_000), NOW.after_seconds(20));
    let told = |refusals: &mut Refusals, seconds| {
        tell(refusals, flood(40_000), NOW.after_seconds(seconds)).len()
    };
    assert_eq!(refusals.counts().told, 7 + 8192);
    assert_eq!(told(&mut refusals, 29), 0);
    assert_eq!(told(&mut refusals, 30), 256);
}

#[test]
fn memory_is_bounded() {
    let mut refusals = Refusals::default();
    for number in 0..70_000u32 {
        let address = std::net::Ipv4Addr::from(0x3000_0000 + number).into();
        let given = answer("x.a.example", &[], 60);
        refusals.answered(ZONE, None, &given.name, &[address]);
    }
    let to = |number: u32| std::net::Ipv4Addr::from(0x3000_0000 + number).to_string();
    let mut known = |number| name(&mut refusals, "10.20.0.7", &to(number)).is_some();
    assert!(known(69_999));
    assert!(known(70_000 - 65_536));
    assert!(!known(70_000 - 65_537));
}

#[test]
fn zones_that_are_gone_are_forgotten() {
    let mut refusals = Refusals::default();
    let given = answer("x.a.example", &["20.0.0.1"], 60);
    refusals.answered(ZONE, None, &given.name, &given.addresses);
    let mut none = intent(&[], &[]);
    none.zones.clear();
    let empty = Policy::new(Arc::new(none), links()).unwrap();
    refusals.retain_zones(policy().rules());
    assert!(name(&mut refusals, "10.20.0.7", "20.0.0.1").is_some());
    refusals.retain_zones(empty.rules());
    assert!(name(&mut refusals, "10.20.0.8", "20.0.0.1").is_none());
}
