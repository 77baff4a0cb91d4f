//! What a verdict costs: nanoseconds of the XDP program per packet, less those of a program that
//! decides nothing, each packet to another destination. Ignored by default: it measures.
//! `cargo xtask bench verdict-cost` builds what it needs, runs it and prints its table.
#![expect(
    clippy::disallowed_methods,
    reason = "shell: times the loading, reads an object, writes what it measured"
)]

use super::super::generation::Generation;
use super::{can_run, image, tables};
use crate::policy::ZoneId;
use crate::policy::image::Image;
use crate::policy::port::{ClassId, ClassMask};
use aya::programs::{TestRun as _, TestRunOptions, Xdp};
use egressd_common::{layout, samples};
use std::net::IpAddr;
use std::time::Instant;

/// Frames of a reading, and readings of a figure.
const REPEAT: u32 = 2_000_000;
const READINGS: usize = 7;

const FIRST_V4: [u8; 4] = [0x30, 0, 0, 0];
const FIRST_V6: [u16; 8] = [0x2603, 0x1000, 0, 0, 0, 0, 0, 0];

/// Destinations of a row.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    /// Learned addresses, of which there are as many.
    Granted,
    /// Addresses without a grant, beside as many with one.
    Refused,
    /// Addresses in a catalogue network.
    Network,
}

fn address(v4: bool, number: u32) -> IpAddr {
    if v4 {
        (u32::from_be_bytes(FIRST_V4) + number).to_be_bytes().into()
    } else {
        let first = u128::from(std::net::Ipv6Addr::from(FIRST_V6));
        std::net::Ipv6Addr::from(first + u128::from(number)).into()
    }
}

/// One zone without sources on the interface, as most gateways have it, and `count` grants of it.
fn world(v4: bool, kind: Kind, count: u32) -> Image {
    let mut image = image();
    image.zones.truncate(1);
    image.zones[0].sources.clear();
    let class = ClassMask::of(ClassId(0));
    let from = match kind {
        Kind::Granted => 0,
        Kind::Refused | Kind::Network => count,
    };
    image.grants = (from..from + count)
        .map(|number| (ZoneId(0), address(v4, number), class))
        .collect();
    if kind == Kind::Network {
        let length = if v4 { 8 } else { 32 };
        let network = ipnet::IpNet::new_assert(address(v4, 0), length).trunc();
        image.zones[0].networks.push((network, class));
    }
    image
}

fn frame(v4: bool) -> Vec<u8> {
    let source: IpAddr = if v4 {
        [10, 20, 1, 1].into()
    } else {
        "2001:db8:20::5".parse().unwrap()
    };
    let packet = samples::packet(source, address(v4, 0), 6, &samples::tcp(5, 443, 2));
    let mut frame = samples::ethernet(&[], &packet);
    frame.resize(frame.len().max(60), 0);
    frame
}

/// Nanoseconds per frame.
fn reading(program: &Xdp, frame: &[u8]) -> f64 {
    let mut options = TestRunOptions::new();
    options.data_in = Some(frame);
    options.repeat = REPEAT;
    // The kernel stops this clock while another task has the core.
    program.test_run(options).unwrap().duration.as_secs_f64() * 1e9
}

fn median(mut readings: Vec<f64>) -> f64 {
    readings.sort_by(f64::total_cmp);
    readings[readings.len() / 2]
}

fn row(object: &[u8], v4: bool, kind: Kind, count: u32) -> serde_json::Value {
    let image = world(v4, kind, count);
    let compiled = tables::compile(&image, true).unwrap();
    let first = if v4 { u32::from_be_bytes(FIRST_V4) } else { 0 };
    let version = if v4 { 4 } else { 6 };
    let constants = [("FIRST", first), ("SPAN", count), ("VERSION", version)];
    let learned = count.max(layout::DEFAULT_LEARNED);
    let began = Instant::now();
    let mut generation =
        Generation::load_other((object, &constants), &image, &compiled, learned, true).unwrap();
    let loaded = began.elapsed();
    let nothing: &mut Xdp = generation.program("nothing").unwrap().try_into().unwrap();
    nothing.load().unwrap();
    generation.xdp().unwrap();
    let frame = frame(v4);
    let mut readings = Vec::new();
    for _ in 0..READINGS {
        let nothing: &mut Xdp = generation.program("nothing").unwrap().try_into().unwrap();
        let without = reading(nothing, &frame);
        readings.push([reading(generation.xdp().unwrap(), &frame), without]);
    }
    let kind = format!("{kind:?}").to_lowercase();
    println!(
        "cost v{version} {kind:<8} {count:>8} {:4.0} ns, {:.0} bytes of maps per grant; loaded in {loaded:.0?}",
        median(
            readings
                .iter()
                .map(|[with, without]| with - without)
                .collect()
        ),
        generation.bytes().unwrap() as f64 / f64::from(count),
    );
    serde_json::json!({"version": version, "kind": kind, "count": count, "readings": readings})
}

#[test]
#[ignore = "measures"]
fn cost_of_a_verdict() {
    if !can_run("cost_of_a_verdict") {
        return;
    }
    let path = std::env::var_os("EGRESSD_COST_OBJECT");
    let path = path.expect("EGRESSD_COST_OBJECT names the object");
    let object = std::fs::read(path).unwrap();
    let counts: &[u32] = match std::env::var_os("EGRESSD_COST_QUICK") {
        Some(_) => &[1, 1 << 16],
        None => &[1, 1000, 1 << 16, 100_000, 1 << 20],
    };
    let mut rows = Vec::new();
    for v4 in [true, false] {
        for kind in [Kind::Granted, Kind::Refused] {
            for &count in counts {
                rows.push(row(&object, v4, kind, count));
            }
        }
        rows.push(row(&object, v4, Kind::Network, 1 << 16));
    }
    if let Some(path) = std::env::var_os("EGRESSD_COST_REPORT") {
        std::fs::write(path, serde_json::to_vec(&rows).unwrap()).unwrap();
    }
}
