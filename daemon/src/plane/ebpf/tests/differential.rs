//! The programs and the model on the same frames: verdict by verdict, and reason by reason in the
//! sum. `BPF_PROG_TEST_RUN` calls the loopback device, whose index is 1, the ingress interface.

use super::super::generation::Generation;
use super::stacked::{port, stacked};
use super::world::{has_xdp, kernel};
use super::{can_run, image, load};
use crate::plane::model::ModelPlane;
use crate::policy::ZoneId;
use crate::policy::image::{Change, Image, Mode, Own};
use crate::policy::origin::Origin;
use crate::policy::port::{ClassId, ClassMask};
use aya::programs::{TestRun as _, TestRunOptions};
use egressd_common::layout::{COUNTERS, counter_index};
use egressd_common::samples;
use egressd_common::verdict::Reason;
use std::net::IpAddr;

/// Frames per image and program.
const FRAMES: usize = 6000;

/// A small generator of numbers, the same in every run (xorshift64*).
pub(super) struct Dice(pub(super) u64);

impl Dice {
    fn roll(&mut self, sides: usize) -> usize {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        ((self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 33) as usize) % sides
    }

    fn one<T: Copy>(&mut self, of: &[T]) -> T {
        of[self.roll(of.len())]
    }

    fn chance(&mut self, one_in: usize) -> bool {
        self.roll(one_in) == 0
    }
}

const SOURCES_V4: &[&str] = &[
    "10.20.1.1",
    "10.20.1.1",
    "10.20.7.7",
    "10.20.8.8",
    "10.30.0.9",
    "192.168.1.1",
    "0.0.0.0",
    "127.0.0.1",
    "169.254.3.4",
    "224.1.1.1",
    "10.20.255.255",
];
const DESTINATIONS_V4: &[&str] = &[
    "198.51.100.1",
    "198.51.100.1",
    "198.51.100.2",
    "198.51.100.3",
    "198.51.100.4",
    "203.0.113.1",
    "203.0.113.200",
    "10.20.0.1",
    "10.20.255.255",
    "10.20.3.3",
    "10.30.0.7",
    "10.99.1.1",
    "10.5.5.5",
    "192.0.2.1",
    "192.0.2.9",
    "8.8.8.8",
    "224.0.0.18",
    "255.255.255.255",
    "169.254.169.254",
    "127.0.0.1",
    "0.0.0.0",
];
const SOURCES_V6: &[&str] = &[
    "2001:db8:20::5",
    "2001:db8:20:8::5",
    "2001:db8:77::1",
    "fe80::9",
    "::",
    "::1",
    "ff02::1",
];
const DESTINATIONS_V6: &[&str] = &[
    "2001:db8:a::1",
    "2001:db8:a::2",
    "2001:db8:a::3",
    "2001:db8:f::7",
    "2001:db8:20::1",
    "2001:db8:20::",
    "2001:db8:20:0:1::",
    "2001:db8:99::1",
    "fe80::1",
    "fe80::77",
    "ff02::1",
    "2001:db8:f1::7",
    "::1",
];
const PORTS: &[u16] = &[
    443, 443, 80, 123, 400, 499, 500, 501, 4500, 53, 5060, 0, 65535,
];

fn transport(dice: &mut Dice) -> (u8, Vec<u8>) {
    let (from, to) = (dice.one(PORTS), dice.one(PORTS));
    let (protocol, mut payload) = match dice.roll(12) {
        0..=3 => (
            6,
            samples::tcp(from, to, dice.one(&[2, 2, 0x12, 0x10, 0, 4, 0x11, 0xff])),
        ),
        4..=6 => (17, samples::udp(from, to, dice.one(&[0, 1, 40]))),
        7 => (1, samples::icmp(dice.roll(20) as u8)),
        8 => (
            58,
            samples::icmp(dice.one(&[1, 2, 3, 4, 127, 128, 129, 130, 133, 135, 136, 143, 200])),
        ),
        9 => {
            let chunk = [dice.one(&[0, 1, 1, 2, 6]), 0, 0, 4];
            (132, [&samples::udp(from, to, 4)[..], &chunk].concat())
        }
        10 => (dice.one(&[4, 41, 47, 50, 51, 59, 2, 33, 136]), vec![7; 24]),
        _ => (dice.roll(256) as u8, vec![0; 24]),
    };
    if dice.chance(12) {
        payload.truncate(dice.roll(payload.len() + 1));
    }
    if protocol == 6 && dice.chance(12) {
        payload.resize(payload.len().max(13), 0);
        payload[12] = (dice.roll(16) << 4) as u8;
    }
    if protocol == 17 && dice.chance(12) {
        payload.resize(payload.len().max(6), 0);
        payload[5] = dice.roll(256) as u8;
    }
    (protocol, payload)
}

fn address<T: std::str::FromStr>(dice: &mut Dice, pool: &[&str]) -> T
where
    T::Err: std::fmt::Debug,
{
    dice.one(pool).parse().unwrap()
}

fn packet_v4(dice: &mut Dice) -> Vec<u8> {
    let (protocol, payload) = transport(dice);
    let fragment = if dice.chance(6) {
        dice.one(&[0x2000, 1, 0x2001, 0x4000, 0x1fff, 0x8000])
    } else {
        0
    };
    let options: &[u8] = if dice.chance(10) {
        dice.one(&[&[1; 4][..], &[7, 4, 0, 0, 0, 0, 0, 0], &[0; 40]])
    } else {
        &[]
    };
    let ends = (address(dice, SOURCES_V4), address(dice, DESTINATIONS_V4));
    samples::ipv4(ends, fragment, options, protocol, &payload)
}

fn packet_v6(dice: &mut Dice) -> Vec<u8> {
    let (protocol, payload) = transport(dice);
    let count = if dice.chance(2) { 0 } else { dice.roll(11) };
    let mut extensions = Vec::new();
    for i in 0..count {
        let kind = if i == 0 {
            dice.one(&[0, 43, 44, 60, 51])
        } else {
            dice.one(&[60, 60, 60, 51, 43, 44, 0])
        };
        let rest = match kind {
            44 => samples::fragment(dice.one(&[0, 0, 0, 1, 8191]), dice.chance(2)),
            43 => vec![0, dice.one(&[0, 0, 0, 1]), 0, 0, 0, 0],
            _ if dice.chance(4) => vec![0; 8 * dice.roll(6) + 6],
            _ => samples::padding(),
        };
        extensions.push((kind as u8, rest));
    }
    let ends = (address(dice, SOURCES_V6), address(dice, DESTINATIONS_V6));
    samples::ipv6(ends, &extensions, protocol, &payload)
}

/// A VLAN tag's protocol, priority and id: any, or one that [`super::stacked::stacked`] has a device for.
fn tag(dice: &mut Dice) -> (u16, u16) {
    let any = dice.one(&[0x8100u16, 0x88a8, 0x9100]);
    let id = dice.one(&[0, 7, 10, 20, 30, 40, 50]);
    let device = dice.one(&[(0x8100, 10), (0x8100, 30), (0x88a8, 40), (0x8100, 50)]);
    let (protocol, id) = dice.one(&[(any, id), device]);
    (protocol, id | dice.one(&[0, 0xe000]))
}

pub(super) fn frame(dice: &mut Dice, ethernet: bool) -> Vec<u8> {
    let packet = if dice.chance(2) {
        packet_v4(dice)
    } else {
        packet_v6(dice)
    };
    let mut frame = if !ethernet {
        packet
    } else if dice.chance(10) {
        samples::framed(
            &[],
            dice.one(&[0x0806, 0x88cc, 0x8863, 0x888e, 0x8847]),
            &packet,
        )
    } else {
        let mut tags = Vec::new();
        if dice.chance(5) {
            tags.extend((0..dice.roll(5)).map(|_| tag(dice)));
        }
        let types: Vec<u16> = tags.iter().map(|(protocol, _)| *protocol).collect();
        let mut frame = if dice.chance(8) {
            samples::pppoe(&types, &packet)
        } else {
            samples::ethernet(&types, &packet)
        };
        for (at, (_, control)) in (14..).step_by(4).zip(tags) {
            frame[at..at + 2].copy_from_slice(&control.to_be_bytes());
        }
        frame
    };
    if ethernet && dice.chance(8) {
        let mac = dice.one(&[
            [2, 0, 0, 0, 0, 9],
            [0xff; 6],
            [0, 0, 0x5e, 0, 1, 3],
            [2, 2, 2, 2, 2, 2],
        ]);
        frame[..6].copy_from_slice(&mac);
    }
    if dice.chance(4) {
        for _ in 0..=dice.roll(3) {
            let at = dice.roll(frame.len());
            frame[at] = match dice.roll(3) {
                0 => dice.roll(256) as u8,
                1 => frame[at] ^ 1 << dice.roll(8),
                _ => dice.one(&[0, 0xff, 0x21, 0x57, 0x45, 0x60, 44, 60]),
            };
        }
    }
    if dice.chance(5) {
        frame.truncate(dice.roll(frame.len()));
    }
    if dice.chance(5) {
        frame.extend(vec![0; dice.roll(30)]);
    }
    frame.resize(frame.len().max(14), 0);
    frame
}

#[derive(Clone, Copy, Debug)]
pub(super) enum Program {
    Xdp,
    Tcx,
    /// What the gateway itself sends.
    Sent,
}

impl Program {
    /// Whether the program lets `frame` pass; `None` where the kernel cannot make a socket buffer of
    /// it (a type of IP with less than an IP header behind).
    pub(super) fn passes(self, generation: &mut Generation, frame: &[u8]) -> Option<bool> {
        let mut options = TestRunOptions::new();
        options.data_in = Some(frame);
        let result = match self {
            Self::Xdp => generation.xdp().unwrap().test_run(options),
            Self::Tcx => generation.tcx().unwrap().test_run(options),
            Self::Sent => generation.sent().unwrap().test_run(options),
        };
        let code = match (self, result) {
            (_, Ok(result)) => result.return_value,
            (Self::Tcx | Self::Sent, Err(_)) if frame.len() < 14 + 40 => return None,
            (_, Err(error)) => panic!("{self:?}: {error:#?}\n{frame:02x?}"),
        };
        Some(match self {
            Self::Xdp => match code {
                1 => false,
                2 => true,
                other => panic!("XDP returned {other}"),
            },
            Self::Tcx | Self::Sent => match code as i32 {
                2 => false,
                -1 => true,
                other => panic!("TCX returned {other}"),
            },
        })
    }
}

fn check(image: &Image, nft_behind: bool, program: Program, seed: u64) {
    let mut generation = load(image, nft_behind);
    let model = ModelPlane::of(image, nft_behind);
    let ethernet = image.links.0[&1].ethernet;
    let mut dice = Dice(seed);
    let mut expected = vec![0u64; COUNTERS];
    let mut judged = 0;
    for number in 0..FRAMES {
        let frame = frame(&mut dice, ethernet);
        let verdict = match program {
            Program::Xdp | Program::Tcx => model.judge(1, &frame),
            Program::Sent => model.judge_sent(1, &frame),
        };
        let Some(passes) = program.passes(&mut generation, &frame) else {
            continue;
        };
        judged += 1;
        // That one is the VLAN device's own program's to count.
        if verdict.reason != Reason::Vlan {
            expected[counter_index(verdict) as usize] += 1;
        }
        assert_eq!(
            passes,
            verdict.action.passes(),
            "{program:?}, nft behind {nft_behind}, frame {number}: model {verdict:?}\n{frame:02x?}"
        );
    }
    assert!(judged > FRAMES * 9 / 10, "only {judged} frames were judged");
    assert_eq!(
        generation.counts().unwrap().packets,
        expected,
        "{program:?}: reasons differ"
    );
    let reasons = expected.iter().filter(|packets| **packets > 0).count();
    assert!(reasons > 15, "the frames reach only {reasons} counters");
}

fn images() -> Vec<Image> {
    let base = image();
    let mut sole = base.clone();
    sole.zones[0].redirect = base.zones[1].redirect.clone();
    sole.zones.remove(1);
    sole.zones.remove(1);
    sole.zones[0].sources.clear();
    let mut trial = base.clone();
    trial
        .zones
        .iter_mut()
        .for_each(|zone| zone.mode = Mode::Audit);
    let mut bare = base.clone();
    bare.links.0.get_mut(&1).unwrap().ethernet = false;
    let mut single = base.clone();
    single.zones.retain(|zone| zone.name == "managed");
    vec![base, sole, trial, bare, single, stacked(), port()]
}

/// The interface with index 1 is in no zone, and what the gateway sends there is judged.
fn own() -> Image {
    let mut own = image();
    let zone = &mut own.zones[0];
    (zone.interfaces, zone.sources) = (Vec::new(), Vec::new());
    own.own = Some(Own {
        zone: zone.id,
        resolvers: Vec::new(),
    });
    own.zones
        .retain(|zone| zone.id == ZoneId(0) || zone.name == "guests");
    own
}

#[test]
fn the_program_for_what_is_sent_and_the_model_agree() {
    if !can_run("the_program_for_what_is_sent_and_the_model_agree") || kernel() < (6, 6) {
        return;
    }
    let mut audit = own();
    audit.zones[0].mode = Mode::Audit;
    let mut bare = own();
    bare.links.0.get_mut(&1).unwrap().ethernet = false;
    for (seed, image) in (1..).zip([own(), audit, bare]) {
        check(&image, true, Program::Sent, 0x51_7cc1 * seed);
    }
}

#[test]
fn programs_and_model_agree() {
    if !can_run("programs_and_model_agree") {
        return;
    }
    let programs: &[Program] = if has_xdp("the XDP program against the model") {
        &[Program::Xdp, Program::Tcx]
    } else {
        &[Program::Tcx]
    };
    for (seed, image) in (1..).zip(&images()) {
        for nft_behind in [true, false] {
            for &program in programs {
                check(
                    image,
                    nft_behind,
                    program,
                    0x9e37_79b9 * seed + u64::from(nft_behind),
                );
            }
        }
    }
}

/// Version and patch level of the kernels on which CAP_PERFMON is not needed.
const TWO_ARE_ENOUGH: (u32, u32) = (6, 18);

/// Without CAP_PERFMON and CAP_SYS_ADMIN the verifier looks into speculation and refuses much: before
/// [`TWO_ARE_ENOUGH`] also this, as too complex.
#[test]
fn two_capabilities_are_enough_to_load() {
    use caps::{Capability, CapsHashSet};
    if !can_run("two_capabilities_are_enough_to_load") {
        return;
    }
    // Before 5.11 maps count as locked memory; the unit raises the limit.
    use nix::sys::resource::{RLIM_INFINITY, Resource, setrlimit};
    // Where this is not allowed, it is not needed, or loading says so.
    let _raised = setrlimit(Resource::RLIMIT_MEMLOCK, RLIM_INFINITY, RLIM_INFINITY);
    let few = CapsHashSet::from_iter([Capability::CAP_BPF, Capability::CAP_NET_ADMIN]);
    let Err(error) = load_with(few.clone()) else {
        return;
    };
    assert!(kernel() < TWO_ARE_ENOUGH, "{error:#}");
    eprintln!("SKIPPED two capabilities: this kernel needs CAP_PERFMON, too: {error:#}");
    let mut three = few;
    three.insert(Capability::CAP_PERFMON);
    load_with(three).unwrap();
}

/// Loads the programs of several policies with these capabilities and no others.
fn load_with(capabilities: caps::CapsHashSet) -> anyhow::Result<()> {
    // Capabilities belong to the thread.
    let loaded = std::thread::spawn(move || {
        caps::set(None, caps::CapSet::Effective, &capabilities).unwrap();
        for image in [image(), stacked(), port(), own()] {
            let mut generation = load(&image, true);
            if kernel() >= (6, 6) {
                generation.sent()?;
            }
            if has_xdp("the XDP program with few capabilities") {
                generation.xdp()?;
            }
            generation.tcx()?;
        }
        anyhow::Ok(())
    });
    loaded.join().unwrap()
}

#[test]
fn what_is_used_is_seen_and_what_is_refused_is_reported() {
    if !can_run("what_is_used_is_seen_and_what_is_refused_is_reported") {
        return;
    }
    let program = if has_xdp("reports of the XDP program") {
        Program::Xdp
    } else {
        Program::Tcx
    };
    let mut generation = load(&image(), true);
    let ends = |to: &str| (IpAddr::from([10, 20, 1, 1]), to.parse::<IpAddr>().unwrap());
    let send = |generation: &mut Generation, to: &str, port| {
        let (from, to) = ends(to);
        let packet = samples::packet(from, to, 17, &samples::udp(9999, port, 0));
        program
            .passes(generation, &samples::ethernet(&[], &packet))
            .unwrap()
    };
    assert!(send(&mut generation, "198.51.100.2", 123));
    assert!(!send(&mut generation, "198.51.100.2", 124));
    assert!(!send(&mut generation, "198.51.100.77", 123));
    let reports: Vec<_> = generation
        .take_reports(10, false)
        .iter()
        .filter_map(super::super::refused_packet)
        .collect();
    let told: Vec<_> = reports
        .iter()
        .map(|r| (r.destination, r.port, r.reason.as_str()))
        .collect();
    assert_eq!(
        told,
        [
            ("198.51.100.2".parse().unwrap(), 124, "port-closed"),
            ("198.51.100.77".parse().unwrap(), 123, "not-granted"),
        ]
    );
}

#[test]
fn packets_are_counted_by_the_sets_that_let_them_pass() {
    if !can_run("packets_are_counted_by_the_sets_that_let_them_pass") {
        return;
    }
    let mut image = image();
    let managed = ZoneId(0);
    image.origins = vec![Origin(3), Origin(4), Origin(3)];
    let network = "203.0.113.0/24".parse().unwrap();
    image.network_origins.insert((managed, network), Origin(5));
    let mut generation = load(&image, true);
    let mut send = |to: &str, port: u16, times: usize| {
        let packet = samples::packet(
            [10, 20, 1, 1].into(),
            to.parse().unwrap(),
            6,
            &samples::tcp(9999, port, 2),
        );
        let frame = samples::ethernet(&[], &packet);
        for _ in 0..times {
            Program::Xdp.passes(&mut generation, &frame).unwrap();
        }
    };
    send("198.51.100.1", 443, 3);
    send("203.0.113.1", 443, 2);
    // The longer prefix has no sets of its own: those around it let the packet pass.
    send("203.0.113.200", 443, 1);
    send("198.51.100.9", 443, 7);
    let changed = Change {
        zone: managed,
        address: "198.51.100.9".parse().unwrap(),
        was: ClassMask::NONE,
        now: ClassMask::of(ClassId(0)),
        origin: Origin(4),
    };
    assert_eq!(generation.apply([changed]).unwrap(), []);
    let again = samples::packet(
        [10, 20, 1, 1].into(),
        "198.51.100.9".parse().unwrap(),
        6,
        &samples::tcp(9999, 80, 2),
    );
    assert!(
        Program::Xdp
            .passes(&mut generation, &samples::ethernet(&[], &again))
            .unwrap()
    );
    let hits: Vec<_> = generation.counts().unwrap().hits.into_iter().collect();
    let nothing = hits.iter().filter(|(_, packets)| *packets == 0).count();
    assert_eq!(
        hits.iter()
            .filter(|(_, packets)| *packets > 0)
            .collect::<Vec<_>>(),
        [
            &((0, Origin(3)), 3),
            &((0, Origin(4)), 1),
            &((0, Origin(5)), 3)
        ],
        "and {nothing} without packets"
    );
}
