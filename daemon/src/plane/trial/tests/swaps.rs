#![expect(
    clippy::disallowed_methods,
    reason = "shell: measures how long it takes"
)]
//! Programs replaced under load: no granted frame is lost, no other passes.

use super::super::image;
use super::super::lab::{Lab, Stand, clients};
use super::can_run;
use crate::config::EbpfMode;
use crate::policy::image::Image;
use crate::policy::port::{ClassId, ClassMask};
use egressd_common::corpus::{Client, World, plan};
use egressd_common::samples::{self, SYN};
use std::collections::BTreeSet;
use std::net::IpAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

/// Replacements in each mode; `EGRESSD_SWAPS` asks for another number.
const SWAPS: u32 = 6;
/// Clients of one burst: some send what is granted, the others what is not.
const BURST: u16 = 80;

/// The same policy with the bits of its classes exchanged: grants of the one read with the ports of the
/// other would open what is closed and close what is open.
fn exchanged(image: &Image) -> Image {
    let mut other = image.clone();
    let swap = |class: ClassId| ClassId(1 - class.0);
    let turn = |mask: ClassMask| {
        let classes = mask.classes().map(swap);
        classes.fold(ClassMask::NONE, ClassMask::with)
    };
    for (class, _) in &mut other.classes {
        *class = swap(*class);
    }
    other.classes.reverse();
    for (_, mask) in &mut other.zones[0].networks {
        *mask = turn(*mask);
    }
    for (.., mask) in &mut other.grants {
        *mask = turn(*mask);
    }
    other
}

/// Even clients send what is granted; odd ones to nowhere granted, or to a port of the other class.
fn frame(number: u16) -> Vec<u8> {
    let family = usize::from(number / 2 % 2);
    let (to, port): (IpAddr, u16) = match (number % 2, number / 4 % 3) {
        (0, 0) => (plan::NETWORK[family], 443),
        (0, _) => (plan::GRANTED[family], 443),
        (_, 0) => (plan::REFUSED[family], 443),
        (_, 1) => (plan::TUNNEL[family], 443),
        (_, _) => (plan::GRANTED[family], 4500),
    };
    let (protocol, payload) = if port == 4500 || number % 8 > 3 {
        (17, samples::udp(40_000, port, 8))
    } else {
        (6, samples::tcp(40_000, port, SYN))
    };
    let packet = samples::packet(Client::of(number).beside(to), to, protocol, &payload);
    let mut frame = samples::ethernet(&[], &packet);
    plan::checksum(&mut frame);
    frame
}

#[derive(Debug, Default)]
struct Tally {
    granted: u64,
    lost: u64,
    forbidden: u64,
    leaked: u64,
}

fn swaps(mode: EbpfMode) {
    let Some(mut lab) = Lab::new() else { return };
    let first = image(World::Alone, lab.index("lan0"), lab.index("wan0"));
    let second = exchanged(&first);
    lab.stand(Stand::Ebpf { mode, nft: false }, &first);
    let mut wires = lab.wires();
    let count = std::env::var("EGRESSD_SWAPS")
        .ok()
        .and_then(|text| text.parse().ok());
    let count: u32 = count.unwrap_or(SWAPS);
    let done = AtomicBool::new(false);
    let began = Instant::now();
    let tally = std::thread::scope(|scope| {
        let load = scope.spawn(|| {
            let mut tally = Tally::default();
            let mut base = 0;
            while !done.load(Ordering::Relaxed) {
                let numbers: Vec<u16> = (base..base + BURST).collect();
                let frames: Vec<Vec<u8>> = numbers.iter().map(|number| frame(*number)).collect();
                let arrived = wires.through(frames.iter().map(Vec::as_slice));
                let (arrived, _): (BTreeSet<u16>, _) = clients(&arrived);
                for number in numbers {
                    let there = arrived.contains(&number);
                    if number % 2 == 0 {
                        tally.granted += 1;
                        tally.lost += u64::from(!there);
                    } else {
                        tally.forbidden += 1;
                        tally.leaked += u64::from(there);
                    }
                }
                base = (base + BURST) % 40_000;
            }
            tally
        });
        for round in 0..count {
            lab.replace(if round % 2 == 0 { &second } else { &first });
            if round % 100 == 99 {
                eprintln!("{mode:?}: {} of {count} replacements", round + 1);
            }
        }
        done.store(true, Ordering::Relaxed);
        load.join().unwrap()
    });
    println!(
        "{mode:?}: {count} replacements in {:.1} s under load: {} of {} granted frames lost, {} of {} forbidden ones leaked",
        began.elapsed().as_secs_f64(),
        tally.lost,
        tally.granted,
        tally.leaked,
        tally.forbidden
    );
    assert_eq!((tally.lost, tally.leaked), (0, 0), "{tally:?}");
    assert!(tally.granted > u64::from(count), "{tally:?}");
}

#[test]
fn nothing_is_lost_or_leaked_while_programs_are_replaced() {
    if !can_run("nothing_is_lost_or_leaked_while_programs_are_replaced") {
        return;
    }
    for mode in [EbpfMode::Xdp, EbpfMode::Tc] {
        swaps(mode);
    }
}
