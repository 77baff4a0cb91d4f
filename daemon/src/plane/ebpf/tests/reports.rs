//! What the programs tell of refused packets, and what they leave to nft; that every packet is counted
//! once.

use super::super::generation::Generation;
use super::super::reports::Unreported;
use super::differential::{Dice, Program, frame};
use super::{can_run, image, load};
use crate::policy::image::{Image, Mode};
use egressd_common::layout::{self, REPORTS_PER_ROUND, TOLD_ROUNDS};
use egressd_common::samples;
use egressd_common::verdict::{Action, NO_ZONE, Reason, Verdict};
use std::net::{IpAddr, Ipv4Addr};

const PROGRAMS: [Program; 2] = [Program::Xdp, Program::Tcx];

/// A datagram of the first zone, or of whoever `source` is.
fn datagram(source: [u8; 4], destination: Ipv4Addr, ports: (u16, u16)) -> Vec<u8> {
    let udp = samples::udp(ports.0, ports.1, 0);
    let packet = samples::packet(source.into(), IpAddr::V4(destination), 17, &udp);
    samples::ethernet(&[], &packet)
}

const CLIENT: [u8; 4] = [10, 20, 1, 1];
const STRANGER: Ipv4Addr = Ipv4Addr::new(198, 51, 100, 77);

#[test]
fn a_flow_is_reported_once_and_floods_are_counted() {
    if !can_run("a_flow_is_reported_once_and_floods_are_counted") {
        return;
    }
    let cpus = std::thread::available_parallelism().unwrap().get() as u64;
    for program in PROGRAMS {
        let mut generation = load(&image(), true);
        let send = |generation: &mut Generation, to: Ipv4Addr, ports| {
            let passes = program.passes(generation, &datagram(CLIENT, to, ports));
            assert_eq!(passes, Some(false), "{to} {ports:?}");
        };
        let mut expected = Unreported::default();
        // Each try has another source port.
        for number in 0..1000 {
            send(&mut generation, STRANGER, (20_000 + number, 123));
        }
        assert_eq!(generation.take_reports(2000, false).len(), 1);
        expected.repeated += 999;
        assert_eq!(generation.unreported().unwrap(), expected);
        // Neither another port nor another client is the same flow.
        send(&mut generation, STRANGER, (5000, 4500));
        let other = datagram([10, 20, 1, 2], STRANGER, (5000, 123));
        assert_eq!(program.passes(&mut generation, &other), Some(false));
        assert_eq!(generation.take_reports(10, false).len(), 2);
        // A flood of different flows is reported as far as the limit goes, the rest is lost.
        for number in 0..1000u32 {
            let to = Ipv4Addr::from(0x5000_0000 + number);
            send(&mut generation, to, (5000, 123));
        }
        let told = generation.take_reports(2000, false).len() as u64;
        let most = REPORTS_PER_ROUND * cpus;
        assert!((1..=most).contains(&told), "{told} reports");
        let Unreported { lost, repeated } = generation.unreported().unwrap();
        assert_eq!(told + lost + repeated - expected.repeated, 1000);
        assert!(lost >= 1000 - most - 1, "{lost} lost");
        // After a while it is news again.
        for round in 0..TOLD_ROUNDS {
            assert!(generation.take_reports(10, false).is_empty(), "{round}");
        }
        send(&mut generation, STRANGER, (5000, 123));
        assert_eq!(generation.take_reports(10, false).len(), 1);
    }
}

/// Packets of the first zone by action, for one reason.
fn counted(generation: &Generation, action: Action, reason: Reason) -> u64 {
    let packets = generation.counts().unwrap().packets;
    let index = layout::counter_index(Verdict {
        action,
        reason,
        zone: 0,
    });
    packets[index as usize]
}

fn referring() -> Image {
    Image {
        referred: 10,
        ..image()
    }
}

#[test]
fn so_many_refused_packets_are_left_to_nft() {
    if !can_run("so_many_refused_packets_are_left_to_nft") {
        return;
    }
    // Two CPUs may count at once.
    let cpus = std::thread::available_parallelism().unwrap().get() as u64;
    for program in PROGRAMS {
        let mut generation = load(&referring(), true);
        let flood = |generation: &mut Generation| {
            let sent = (0..100).map(|number| datagram(CLIENT, STRANGER, (20_000 + number, 123)));
            let passed = sent.filter(|frame| program.passes(generation, frame) == Some(true));
            passed.count() as u64
        };
        assert_eq!(flood(&mut generation), 0, "before nft was found in place");
        let mut referred = 0;
        for round in 0..20 {
            generation.take_reports(100, true);
            let passed = flood(&mut generation);
            assert!((1..=cpus).contains(&passed), "{passed} in round {round}");
            // Nobody turns the round any more.
            assert!(flood(&mut generation) < cpus);
            referred = counted(&generation, Action::Refer, Reason::NotGranted);
        }
        assert!((20..=20 * cpus).contains(&referred), "{referred}");
        // A packet left to nft is nothing to report here.
        generation.take_reports(100, false);
        assert_eq!(flood(&mut generation), 0, "nft is gone");
        assert_eq!(flood(&mut generation), 0, "nft is gone");
        generation.take_reports(100, true);
        #[expect(
            clippy::disallowed_methods,
            reason = "nothing tells that time is up but time"
        )]
        std::thread::sleep(std::time::Duration::from_millis(400));
        assert_eq!(flood(&mut generation), 0, "nobody looked for long");
    }
}

#[test]
fn only_what_nft_refuses_for_sure_is_left_to_it() {
    if !can_run("only_what_nft_refuses_for_sure_is_left_to_it") {
        return;
    }
    let tcp = |flags| {
        let segment = samples::tcp(5, 443, flags);
        samples::packet(CLIENT.into(), IpAddr::V4(STRANGER), 6, &segment)
    };
    let options = samples::ipv4(
        (CLIENT.into(), STRANGER),
        0,
        &[1; 4],
        17,
        &samples::udp(5, 123, 0),
    );
    let check = |image: &Image, nft_behind, frame: &[u8], expected: Action| {
        let mut generation = load(image, nft_behind);
        // Loading may take longer than a round lasts.
        let at_first = Program::Xdp.passes(&mut generation, frame).unwrap();
        assert!(!at_first || expected == Action::Audit || expected == Action::Pass);
        generation.take_reports(10, true);
        let before = generation.counts().unwrap().packets;
        let passes = Program::Xdp.passes(&mut generation, frame).unwrap();
        assert_eq!(passes, expected.passes(), "{frame:02x?}");
        let after = generation.counts().unwrap().packets;
        let at = after.iter().zip(&before).position(|(a, b)| a != b);
        let action = at.unwrap() / egressd_common::verdict::REASONS % Action::ALL.len();
        assert_eq!(action, expected as usize, "{frame:02x?}");
    };
    let plain = datagram(CLIENT, STRANGER, (5, 123));
    let on = referring();
    check(&on, true, &plain, Action::Refer);
    check(&on, true, &samples::ethernet(&[], &tcp(2)), Action::Refer);
    let closed = datagram(CLIENT, STRANGER, (5, 9));
    check(&on, true, &closed, Action::Refer);
    let granted = datagram(CLIENT, Ipv4Addr::new(198, 51, 100, 1), (5, 123));
    check(&on, true, &granted, Action::Refer);
    // No nft, no referral, whoever asks for it.
    check(&on, false, &plain, Action::Drop);
    check(&image(), true, &plain, Action::Drop);
    // Of a flow that may be under way, nft may think otherwise.
    let mut strict = on.clone();
    strict.zones[1].sources = strict.zones[0].sources.clone();
    strict.zones.remove(0);
    check(
        &strict,
        true,
        &samples::ethernet(&[], &tcp(2)),
        Action::Refer,
    );
    check(
        &strict,
        true,
        &samples::ethernet(&[], &tcp(0x10)),
        Action::Drop,
    );
    // What is wrong with a header, or with a source, nft does not look for.
    check(&on, true, &samples::ethernet(&[], &options), Action::Drop);
    let forged = datagram([192, 168, 1, 1], STRANGER, (5, 123));
    check(&on, true, &forged, Action::Drop);
    let martian = datagram([127, 0, 0, 1], STRANGER, (5, 123));
    check(&on, true, &martian, Action::Drop);
    let mut trial = on.clone();
    trial.zones[0].mode = Mode::Audit;
    check(&trial, true, &plain, Action::Audit);
}

/// Frames sent through each program.
const FRAMES: u64 = 20_000;

#[test]
fn reasons_sum_to_packets() {
    if !can_run("reasons_sum_to_packets") {
        return;
    }
    for program in PROGRAMS {
        for nft_behind in [true, false] {
            let mut generation = load(&referring(), nft_behind);
            let mut dice = Dice(0x9e37_79b9_7f4a_7c15);
            let (mut sent, mut passed) = (0u64, 0u64);
            for number in 0..FRAMES {
                if number % 100 == 0 {
                    generation.take_reports(1000, nft_behind);
                }
                let frame = frame(&mut dice, true);
                if let Some(passes) = program.passes(&mut generation, &frame) {
                    sent += 1;
                    passed += u64::from(passes);
                }
            }
            let counters = generation.counts().unwrap().packets;
            assert_eq!(counters.iter().sum::<u64>(), sent, "{program:?}");
            // Each counter has an action, a reason and a zone that exist.
            let (mut known, mut went_on, mut referred) = (0, 0, 0);
            for zone in [0, 5, 9, 63, NO_ZONE] {
                for action in Action::ALL {
                    for &reason in Reason::ALL {
                        let index = layout::counter_index(Verdict {
                            action,
                            reason,
                            zone,
                        });
                        let packets = counters[index as usize];
                        known += packets;
                        went_on += if action.passes() { packets } else { 0 };
                        referred += if action == Action::Refer { packets } else { 0 };
                    }
                }
            }
            assert_eq!(known, sent, "{program:?}");
            assert_eq!(went_on, passed, "{program:?}");
            assert_eq!(referred > 0, nft_behind, "{program:?}: {referred}");
            println!("{program:?}, nft behind {nft_behind}: {known} of {sent} packets counted");
        }
    }
}
