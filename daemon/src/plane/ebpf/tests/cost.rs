//! What a packet costs in the program itself, with 60,000 grants loaded. Ignored by default: it
//! measures, it cannot fail. `cargo test -p egressd --release cost -- --ignored --nocapture`.

use super::super::generation::Generation;
use super::{can_run, image, tables};
use crate::policy::ZoneId;
use crate::policy::port::{ClassId, ClassMask};
use aya::programs::{TestRun as _, TestRunOptions, Xdp};
use egressd_common::samples;
use std::net::IpAddr;
use std::time::Duration;

const GRANTS: u32 = 60_000;
const RUNS: usize = 7;

fn granted(number: u32) -> IpAddr {
    IpAddr::from((0x3000_0000 + number.wrapping_mul(40_503) % 0x00ff_ffff).to_be_bytes())
}

fn frame(destination: IpAddr) -> Vec<u8> {
    let packet = samples::packet(
        [10, 20, 1, 1].into(),
        destination,
        6,
        &samples::tcp(5, 443, 2),
    );
    let mut frame = samples::ethernet(&[], &packet);
    frame.resize(60, 0);
    frame
}

fn one(program: &Xdp, frame: &[u8], repeat: u32) -> Duration {
    let mut options = TestRunOptions::new();
    options.data_in = Some(frame);
    options.repeat = repeat;
    program.test_run(options).unwrap().duration
}

/// Nanoseconds a packet: the same frame over and over, and a different one each time.
fn cost(program: &Xdp, frames: &[Vec<u8>]) -> (u128, f64) {
    let hot = one(program, &frames[0], 1_000_000).as_nanos();
    let cold: u128 = frames
        .iter()
        .map(|frame| one(program, frame, 1).as_nanos())
        .sum();
    (hot, cold as f64 / frames.len() as f64)
}

#[test]
#[ignore = "measures"]
fn cost_of_a_packet() {
    if !can_run("cost_of_a_packet") {
        return;
    }
    let mut image = image();
    image.zones[1].sources.clear();
    image.zones.remove(2);
    image.zones.remove(1);
    let class = ClassMask::of(ClassId(0));
    image.grants = (0..GRANTS)
        .map(|n| (ZoneId(0), granted(n), class))
        .collect();
    let compiled = tables::compile(&image, true).unwrap();
    let mut generation = Generation::load(&image, &compiled, 131_072, true).unwrap();
    let program = generation.xdp().unwrap();
    let allowed: Vec<Vec<u8>> = (0..GRANTS)
        .map(|n| frame(granted(n * 7 % GRANTS)))
        .collect();
    let denied: Vec<Vec<u8>> = (0..GRANTS)
        .map(|n| {
            frame(IpAddr::from(
                (0x5000_0000 + n.wrapping_mul(2_654_435) % 0x00ff_ffff).to_be_bytes(),
            ))
        })
        .collect();
    let other = vec![samples::framed(&[], 0x0806, &[0; 46]); 1000];
    for _ in 0..RUNS {
        println!(
            "allowed {:?} denied {:?} arp {:?}",
            cost(program, &allowed),
            cost(program, &denied),
            cost(program, &other)
        );
    }
}
