//! Random policies in real planes against the model: new flows of every kind, sent as frames. nft alone
//! must decide as the model does, and so must nft with XDP or TCX in front.

use super::super::image;
use super::super::lab::{Lab, Stand, source};
use super::can_run;
use crate::config::EbpfMode;
use crate::plane::model::ModelPlane;
use crate::policy::ZoneId;
use crate::policy::image::{Image, Inbound, Mode, ZoneImage};
use crate::policy::port::{ClassId, ClassMask, PortSet, Service};
use egressd_common::corpus::{Client, Dice, World, plan};
use egressd_common::samples::{self, SYN};
use egressd_common::verdict::Reason;
use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

/// Policies tried on nft alone; `EGRESSD_POLICIES` asks for another number, everywhere.
const POLICIES: usize = 40;
/// The same where programs are loaded for each.
const WITH_PROGRAMS: usize = 6;
/// Frames for each of them and each stand.
const FRAMES: usize = 150;

const PREFIXES: [&str; 10] = [
    "10.20.0.0/16",
    "10.20.16.0/20",
    "10.20.32.0/19",
    "10.20.64.0/18",
    "10.20.128.0/17",
    "2001:db8:20::/48",
    "2001:db8:20::/64",
    "2001:db8:20::c:0/113",
    "2001:db8:20::c:8000/114",
    "2001:db8:20::c:4000/114",
];
const PLACES: [&str; 12] = [
    "198.51.100.1",
    "198.51.100.2",
    "198.51.100.3",
    "203.0.113.1",
    "203.0.113.200",
    "10.99.1.1",
    "8.8.8.8",
    "2001:db8:a::1",
    "2001:db8:a::2",
    "2001:db8:f::1",
    "2001:db8:f:8000::1",
    "2001:db8:99::1",
];
const NETWORKS: [&str; 7] = [
    "203.0.113.0/24",
    "203.0.113.128/25",
    "198.51.100.2/31",
    "8.0.0.0/7",
    "2001:db8:f::/48",
    "2001:db8:f:8000::/49",
    "2001:db8:a::/120",
];
const PORTS: [u16; 7] = [53, 80, 443, 444, 4500, 8443, 5060];
/// TCP, UDP, SCTP, ICMP, ICMPv6, ESP, GRE, UDP-Lite.
const PROTOCOLS: [u8; 8] = [6, 17, 132, 1, 58, 50, 47, 136];
/// The zone and class of the frames that show that others are there or lost.
const MARKS: (u16, u8) = (40, 60);

fn services(dice: &mut Dice) -> PortSet {
    let some = (0..=dice.roll(3)).map(|_| {
        let protocol = dice.one(&PROTOCOLS);
        let port = dice.one(&PORTS);
        match (protocol, dice.roll(4)) {
            (6 | 17 | 132, 0) => Service {
                protocol,
                first: port,
                last: port.saturating_add(9),
            },
            (6 | 17 | 132, 1..=2) => Service {
                protocol,
                first: port,
                last: port,
            },
            _ => Service::whole(protocol),
        }
    });
    PortSet::new(some.collect::<Vec<_>>())
}

fn policy(dice: &mut Dice, (lan, wan): (u32, u32)) -> Image {
    let mut base = image(World::Serving, lan, wan);
    base.grants.clear();
    let mut ids: Vec<u8> = Vec::new();
    while ids.len() < 2 + dice.roll(4) {
        let id = (dice.roll(64)).to_le_bytes()[0];
        if id != MARKS.1 && !ids.contains(&id) {
            ids.push(id);
        }
    }
    base.classes = ids
        .iter()
        .map(|id| (ClassId(*id), services(dice)))
        .collect();
    let mask =
        |dice: &mut Dice| ClassMask::of(ClassId(dice.one(&ids))).with(ClassId(dice.one(&ids)));
    let mut left: Vec<&str> = PREFIXES.to_vec();
    let template = base.zones.remove(0);
    let mode = |dice: &mut Dice| {
        if dice.roll(4) == 0 {
            Mode::Audit
        } else {
            Mode::Enforce
        }
    };
    for id in 0..=dice.roll(3) {
        let id = u16::try_from(id * 11).unwrap();
        let mut sources = Vec::new();
        for _ in 0..=dice.roll(2) {
            sources.push(left.swap_remove(dice.roll(left.len())).parse().unwrap());
        }
        if id == 0 && dice.roll(5) == 0 {
            sources.clear();
        }
        let networks: BTreeMap<_, _> = (0..dice.roll(4))
            .map(|_| (dice.one(&NETWORKS).parse().unwrap(), mask(dice)))
            .collect();
        base.zones.push(ZoneImage {
            id: ZoneId(id),
            name: format!("zone{id}"),
            sources,
            mode: mode(dice),
            refusal: crate::policy::image::Refusal::Drop,
            inbound: if dice.roll(2) == 0 {
                Inbound::Deny
            } else {
                Inbound::Allow
            },
            serves: if dice.roll(2) == 0 {
                vec![Service::udp(5060)]
            } else {
                Vec::new()
            },
            networks: networks.into_iter().collect(),
            ..template.clone()
        });
        for place in PLACES {
            if dice.roll(3) == 0 {
                base.grants
                    .push((ZoneId(id), place.parse().unwrap(), mask(dice)));
            }
        }
    }
    base.internal = match dice.roll(3) {
        0 => Vec::new(),
        1 => vec!["10.99.0.0/16".parse().unwrap()],
        _ => vec![
            "10.99.0.0/16".parse().unwrap(),
            "2001:db8:99::/48".parse().unwrap(),
        ],
    };
    let (zone, class) = MARKS;
    base.zones.push(ZoneImage {
        id: ZoneId(zone),
        name: "marks".to_owned(),
        sources: vec!["10.20.238.0/23".parse().unwrap()],
        mode: mode(dice),
        networks: Vec::new(),
        ..template
    });
    base.classes
        .push((ClassId(class), PortSet::new([Service::udp(443)])));
    base.grants.push((
        ZoneId(zone),
        plan::GRANTED[0],
        ClassMask::of(ClassId(class)),
    ));
    base
}

/// The first frame of a new flow from the client of this number, or from a forger of that number.
fn opener(dice: &mut Dice, number: u16) -> Vec<u8> {
    let to: IpAddr = dice.one(&PLACES).parse().unwrap();
    let client = Client::of(number);
    let from = match (client.beside(to), dice.roll(10)) {
        (IpAddr::V4(from), 0) => {
            let [a, b, c, d] = from.octets();
            IpAddr::from([a, b + 1, c, d])
        }
        (IpAddr::V6(from), 0) => {
            let mut segments = from.segments();
            segments[2] += 1;
            segments.into()
        }
        (from, _) => from,
    };
    let (source_port, port) = (dice.one(&[40_000u16, 5060]), dice.one(&PORTS));
    let (protocol, payload) = match dice.one(&PROTOCOLS) {
        1 | 58 if to.is_ipv4() => (1, samples::icmp(8)),
        1 | 58 => (58, samples::icmp(128)),
        6 => (6, samples::tcp(source_port, port, SYN)),
        132 => {
            let mut init = samples::udp(source_port, port, 0);
            init[4..].fill(0);
            init.extend([
                0, 0, 0, 0, 1, 0, 0, 20, 0, 0, 0, 1, 0, 1, 0, 0, 0, 1, 0, 1, 0, 0, 0, 1,
            ]);
            (132, init)
        }
        protocol @ (17 | 136) => {
            let mut datagram = samples::udp(source_port, port, 4);
            // UDP-Lite without a checksum is none (RFC 3828 §3.1).
            datagram[7] = 1;
            (protocol, datagram)
        }
        protocol => (protocol, vec![0; 24]),
    };
    let mut frame = samples::ethernet(&[], &samples::packet(from, to, protocol, &payload));
    plan::checksum(&mut frame);
    frame
}

#[derive(Debug, Default)]
struct Tally {
    frames: u64,
    open: u64,
    cut: u64,
    passed: u64,
    words: Vec<String>,
}

/// Random policies in `stand`, which must decide as the model.
fn check(stand: Stand, seed: u64) {
    let Some(mut lab) = Lab::new() else { return };
    let indexes = (lab.index("lan0"), lab.index("wan0"));
    let mut dice = Dice::new(seed);
    let policies = std::env::var("EGRESSD_POLICIES")
        .ok()
        .and_then(|text| text.parse().ok());
    let policies: usize = policies.unwrap_or(match stand {
        Stand::Nft => POLICIES,
        Stand::Ebpf { .. } => WITH_PROGRAMS,
    });
    let mut tally = Tally::default();
    let mut reasons: BTreeMap<Reason, u64> = BTreeMap::new();
    let mut wires = None;
    for round in 0..policies {
        let image = policy(&mut dice, indexes);
        lab.stand(stand, &image);
        let wires = wires.get_or_insert_with(|| lab.wires());
        let model = ModelPlane::of(&image, false);
        let frames: Vec<Vec<u8>> = (0..FRAMES)
            .map(|i| {
                let number = (round * FRAMES + i) * 9973 % 0xd000;
                opener(&mut dice, u16::try_from(number).unwrap())
            })
            .collect();
        let arrived = wires.through(frames.iter().map(Vec::as_slice));
        let arrived: BTreeSet<IpAddr> = arrived.iter().filter_map(|frame| source(frame)).collect();
        for frame in &frames {
            let verdict = model.judge(indexes.0, frame);
            *reasons.entry(verdict.reason).or_default() += 1;
            let (must, did) = (
                verdict.action.passes(),
                arrived.contains(&source(frame).unwrap()),
            );
            tally.frames += 1;
            tally.passed += u64::from(did);
            tally.open += u64::from(did && !must);
            tally.cut += u64::from(must && !did);
            if must != did && tally.words.len() < 5 {
                let zones: Vec<_> = image
                    .zones
                    .iter()
                    .map(|z| (&z.name, &z.sources, z.mode, &z.networks))
                    .collect();
                tally.words.push(format!(
                    "arrived {did}: {verdict:?}\n{frame:02x?}\n{zones:?}\n{:?}\n{:?}",
                    image.classes, image.grants
                ));
            }
        }
    }
    println!(
        "{stand:?}: {policies} policies, {} of {} frames passed; fail-open {}, wrongly cut {}; {reasons:?}",
        tally.passed, tally.frames, tally.open, tally.cut
    );
    assert_eq!(
        (tally.open, tally.cut),
        (0, 0),
        "{stand:?}: {:#?}",
        tally.words
    );
    let some = tally.frames / 10;
    assert!(
        tally.passed > some && tally.passed < tally.frames - some,
        "{tally:?}"
    );
}

#[test]
fn nft_decides_as_the_model() {
    check(Stand::Nft, 1);
}

#[test]
fn both_planes_decide_as_the_model() {
    if !can_run("both_planes_decide_as_the_model") {
        return;
    }
    for (mode, seed) in [(EbpfMode::Xdp, 2), (EbpfMode::Tc, 3)] {
        check(Stand::Ebpf { mode, nft: true }, seed);
    }
}

#[test]
fn the_ebpf_plane_alone_decides_as_the_model() {
    if !can_run("the_ebpf_plane_alone_decides_as_the_model") {
        return;
    }
    let mode = EbpfMode::Xdp;
    check(Stand::Ebpf { mode, nft: false }, 4);
}
