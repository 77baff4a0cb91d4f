//! What enforces is taken away, and comes back: L6, L7, L9 with small denominators.

use crate::bench::Bench;
use crate::{Body, Test, Verdict};
use anyhow::{Result, ensure};
use egressd_tests::soak::{hotplug, tamper};
use std::time::Duration;

pub(crate) const TESTS: &[Test] = &[
    ("l6_tampering_with_an_owned_table", Body::Daemon(owned)),
    (
        "l6_tampering_with_a_table_open_to_others",
        Body::Daemon(open),
    ),
    ("l6_tampering_with_traffic_control", Body::Daemon(tc)),
    ("l7_interfaces_come_and_go", Body::Daemon(plugged)),
];

fn owned(bench: &Bench) -> Result<Verdict> {
    tampered(bench, true, false)
}

fn open(bench: &Bench) -> Result<Verdict> {
    if !bench.planes.ebpf() {
        return Ok(Verdict::NotPromised(
            "between a flush and the repair only the other plane refuses",
        ));
    }
    tampered(bench, false, false)
}

fn tc(bench: &Bench) -> Result<Verdict> {
    if !bench.planes.ebpf() {
        return Ok(Verdict::NotPromised("there are no programs"));
    }
    tampered(bench, true, true)
}

fn tampered(bench: &Bench, owned: bool, tc: bool) -> Result<Verdict> {
    let plan = tamper::Plan {
        time: Duration::from_secs(4),
        owned,
        tc,
    };
    let seen = tamper::run(bench.binaries(), bench.planes, plan)?;
    println!("{}", seen.table());
    // Alone, the ebpf plane is gone while it is detached.
    let leaked = if bench.planes.nft() {
        seen.counts.leaked
    } else {
        0
    };
    ensure!(leaked == 0, "{}\n{}", seen.table(), seen.words);
    for (attack, fared) in &seen.fared {
        ensure!(
            fared.never == 0,
            "{}: {fared:?}\n{}",
            attack.text(),
            seen.words
        );
    }
    ensure!(
        seen.counts.forbidden > 500 && seen.counts.granted > 500,
        "{:?}",
        seen.counts
    );
    let effective = seen
        .fared
        .iter()
        .any(|(_, fared)| fared.repaired.count() > 0);
    ensure!(
        effective == (bench.planes.ebpf() || !owned),
        "{}",
        seen.table()
    );
    let named = seen
        .drifts
        .as_array()
        .is_some_and(|drifts| !drifts.is_empty());
    ensure!(named == effective, "{}", seen.drifts);
    Ok(Verdict::Held)
}

fn plugged(bench: &Bench) -> Result<Verdict> {
    if !bench.planes.nft() {
        return Ok(Verdict::NotPromised("nft closes what has no program yet"));
    }
    let plan = hotplug::Plan { changes: 18 };
    let seen = hotplug::run(bench.binaries(), bench.planes, plan)?;
    println!("{}", seen.table());
    ensure!(seen.failures() == 0, "{}\n{}", seen.table(), seen.words);
    ensure!(
        seen.counts.forbidden > 100 && seen.counts.granted > 100,
        "{:?}",
        seen.counts
    );
    Ok(Verdict::Held)
}
