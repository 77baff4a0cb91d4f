//! The soaks with small denominators, so that every test run holds what they prove.

use crate::bench::Bench;
use crate::{Body, Test, Verdict};
use anyhow::{Result, ensure};
use egressd_tests::soak::{churn, first_packets, forgeries, kills, restarts, revocations};
use std::time::Duration;

pub(crate) const TESTS: &[Test] = &[
    ("d1_forgeries_teach_nothing", Body::Daemon(forged)),
    ("d1_a_perfect_forgery_is_seen", Body::Daemon(perfect)),
    ("d5_churn_keeps_what_is_told", Body::Daemon(churned)),
    ("d6_first_packets_of_all_kinds", Body::Daemon(first)),
    ("l2_kills_leak_and_lose_nothing", Body::Daemon(killed)),
    ("l3_restarts_leak_and_lose_nothing", Body::Daemon(restarted)),
    ("l10_taken_back_in_every_way", Body::Daemon(taken_back)),
];

fn forged(bench: &Bench) -> Result<Verdict> {
    let scale = forgeries::Plan {
        count: 20_000,
        perfect: false,
    };
    let seen = forgeries::run(bench.binaries(), bench.planes, scale)?;
    let all: u64 = seen.forged.values().sum();
    let [answers, missing] = seen.answers;
    // Half of the fields reach the daemon whatever the timing.
    ensure!(all >= 20_000 && seen.ignored >= all / 2, "{seen:?}");
    ensure!(seen.learned == [0; 4], "{:?}\n{}", seen.learned, seen.words);
    ensure!(
        missing == 0,
        "{missing} of {answers} missing\n{}",
        seen.words
    );
    println!("0 of {all} forged replies taught, 0 of {answers} true ones missing");
    Ok(Verdict::Held)
}

/// What the other test would show if a forgery taught.
fn perfect(bench: &Bench) -> Result<Verdict> {
    let scale = forgeries::Plan {
        count: 1000,
        perfect: true,
    };
    let seen = forgeries::run(bench.binaries(), bench.planes, scale)?;
    let unseen = usize::from(!bench.planes.nft());
    ensure!(
        seen.learned[unseen..].iter().all(|count| *count > 0),
        "{:?}",
        seen.learned
    );
    Ok(Verdict::Held)
}

fn churned(bench: &Bench) -> Result<Verdict> {
    if !bench.planes.nft() {
        return Ok(Verdict::NotPromised("it reads nft's sets"));
    }
    let scale = churn::Plan {
        seconds: 12,
        clients: 1,
        // While nobody repairs it, only the other plane refuses.
        flush: bench.planes.ebpf(),
        grace: 1,
    };
    let seen = churn::run(bench.binaries(), bench.planes, scale)?;
    let words = &seen.words;
    ensure!(seen.passed > 300, "only {} packets\n{words}", seen.passed);
    ensure!(seen.elements.iter().all(|count| *count > 0), "{seen:?}");
    ensure!(seen.blows[1] == 3, "{} kills", seen.blows[1]);
    ensure!(seen.lost.is_empty(), "closed: {:#?}\n{words}", seen.lost);
    ensure!(seen.leaked.is_empty(), "open: {:#?}\n{words}", seen.leaked);
    ensure!(seen.extra.is_empty(), "extra: {:#?}\n{words}", seen.extra);
    // An answer's end, the grace, the daemon's second, and a busy machine.
    ensure!(seen.unused.1 < Duration::from_secs(15), "{:?}", seen.unused);
    println!(
        "0 of {} packets lost, 0 of {:?} elements extra",
        seen.passed, seen.elements
    );
    Ok(Verdict::Held)
}

fn first(bench: &Bench) -> Result<Verdict> {
    let scale = first_packets::Plan {
        count: 4000,
        clients: 4,
    };
    let seen = first_packets::run(bench.binaries(), bench.planes, scale)?;
    ensure!(seen.packets() == 4000, "{} packets", seen.packets());
    ensure!(seen.tallies.len() == 8, "{:?}", seen.tallies.keys());
    ensure!(
        seen.failures() == 0,
        "{} of 4000: {:?}\n{}",
        seen.failures(),
        seen.tallies,
        seen.words
    );
    // Each name once, and those over TCP that are truncated: nothing else left the cache.
    ensure!(seen.upstream <= 2000 + 2000 / 50, "{} asked", seen.upstream);
    println!("0 of {} first packets lost", seen.packets());
    Ok(Verdict::Held)
}

fn killed(bench: &Bench) -> Result<Verdict> {
    let seen = kills::run(bench.binaries(), bench.planes, 12)?;
    let [granted, lost, denied, leaked, answers] = seen.counts;
    ensure!(seen.kills[0] >= 12 && answers > 100, "{seen:?}");
    ensure!(granted > 500 && denied > 500, "{seen:?}");
    ensure!(leaked == 0, "{leaked} of {denied} leaked\n{}", seen.words);
    ensure!(
        lost == 0,
        "{lost} of {} lost\n{}",
        granted + lost,
        seen.words
    );
    println!("0 of {denied} leaked, 0 of {granted} lost");
    Ok(Verdict::Held)
}

fn restarted(bench: &Bench) -> Result<Verdict> {
    let scale = restarts::Plan {
        rounds: 1,
        flows: 1000,
        halt: Duration::from_secs(3),
        other: None,
    };
    let seen = restarts::run(bench.binaries(), bench.planes, &scale)?;
    let ([sent, lost], [denied, leaked]) = (seen.flows, seen.denied);
    ensure!(
        sent > 5000 && denied > 1000 && seen.again.len() == 5,
        "{seen:?}"
    );
    ensure!(leaked == 0, "{leaked} of {denied} leaked\n{}", seen.words);
    ensure!(
        lost + seen.dead == 0,
        "{lost} of {sent} lost, {} flows dead\n{}",
        seen.dead,
        seen.words
    );
    println!("0 of {denied} leaked, 0 of {sent} lost of 1000 flows");
    Ok(Verdict::Held)
}

/// The promised times are for a gateway, not for a busy machine with many labs: the soak tells them.
fn taken_back(bench: &Bench) -> Result<Verdict> {
    let seen = revocations::run(bench.binaries(), bench.planes, 2)?;
    let [granted, lost, denied, leaked, _] = seen.counts;
    ensure!(granted > 500 && denied > 500, "{seen:?}");
    ensure!(lost + leaked == 0, "{:?}\n{}", seen.counts, seen.words);
    for (way, tally) in &seen.tallies {
        ensure!(tally.survived == 0, "{way}: {tally:?}\n{}", seen.words);
        let [_, _, new] = tally.new.quantiles();
        ensure!(new < Duration::from_secs(1), "{way}: {tally:?}");
    }
    Ok(Verdict::Held)
}
