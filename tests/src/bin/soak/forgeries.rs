//! Forged replies, a great many, each wrong in one thing.

use anyhow::Result;
use clap::Args;
use egressd_tests::lab::{Binaries, Planes, sweep_on_signal};
use egressd_tests::soak::forgeries::{Plan, run};
use std::path::PathBuf;

#[derive(Args)]
pub(crate) struct Options {
    /// How many forged replies, about.
    #[arg(long, default_value_t = 1_000_000)]
    count: u32,
    /// Add forgeries that are right in all, which must be learned: shows that the test would see it.
    #[arg(long)]
    perfect: bool,
    /// Which planes enforce.
    #[arg(long, default_value = "both")]
    planes: Planes,
    /// Where `egressd` and `egressctl` are.
    #[arg(long, env = "EGRESSD_BIN_DIR", default_value = "target/release")]
    binaries: PathBuf,
}

/// How much was learned, told or let through of what was forged, and true answers that were missing.
pub(crate) fn soak(options: &Options) -> Result<usize> {
    sweep_on_signal()?;
    let scale = Plan {
        count: options.count,
        perfect: options.perfect,
    };
    let seen = run(&Binaries(options.binaries.clone()), options.planes, scale)?;
    let all: u64 = seen.forged.values().sum();
    for (field, count) in &seen.forged {
        println!("{field:<16} {count:>9}");
    }
    let [sets, grants, told, passed] = seen.learned;
    let [answers, missing] = seen.answers;
    println!(
        "{all} forged replies ({} reached the daemon and were counted as such): {sets} addresses in the \
         kernel's sets, {grants} granted, {told} told to clients; packets to all 65536 of them: {passed} \
         came back",
        seen.ignored,
    );
    println!("{missing} of {answers} true answers missing");
    for (what, waits) in [
        ("answer without forgeries", &seen.waits[0]),
        ("answer with forgeries", &seen.waits[1]),
        ("of which the forger held the true reply back", &seen.held),
    ] {
        let [half, most, all] = waits.quantiles();
        println!("{what}: {half:.0?} p50, {most:.1?} p99, {all:.1?} max");
    }
    let failures = usize::try_from(sets + grants + told + passed + missing)?;
    if failures > 0 {
        eprintln!("last words of egressd:\n{}", seen.words);
    }
    Ok(failures)
}
