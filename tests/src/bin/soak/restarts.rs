//! Restarts, other builds, kills and halts, under thousands of flows.

use anyhow::{Result, ensure};
use clap::Args;
use egressd_tests::lab::{Binaries, Planes, sweep_on_signal};
use egressd_tests::soak::restarts::{Plan, run};
use std::path::PathBuf;
use std::time::Duration;

#[derive(Args)]
pub(crate) struct Options {
    /// How often each.
    #[arg(long, default_value_t = 20)]
    rounds: u32,
    /// Flows that are open all the time.
    #[arg(long, default_value_t = 10_000)]
    flows: u32,
    /// Seconds for which it is halted, once.
    #[arg(long, default_value_t = 60)]
    halt: u64,
    /// Which planes enforce.
    #[arg(long, default_value = "both")]
    planes: Planes,
    /// Where `egressd` and `egressctl` are.
    #[arg(long, env = "EGRESSD_BIN_DIR", default_value = "target/release")]
    binaries: PathBuf,
    /// Where those of another build are.
    #[arg(long)]
    other: Option<PathBuf>,
}

/// How many packets leaked, how many were lost.
pub(crate) fn soak(options: &Options) -> Result<usize> {
    sweep_on_signal()?;
    let plan = Plan {
        rounds: options.rounds,
        flows: options.flows,
        halt: Duration::from_secs(options.halt),
        other: options.other.clone().map(Binaries),
    };
    let seen = run(&Binaries(options.binaries.clone()), options.planes, &plan)?;
    println!(
        "{:<18} {:>5} {:>8} {:>8}",
        "DNS back after", "times", "p50", "max"
    );
    for (way, waits) in &seen.again {
        let [half, _, all] = waits.quantiles();
        println!("{way:<18} {:>5} {half:>8.0?} {all:>8.0?}", waits.count());
    }
    let ([sent, lost], [tried, leaked]) = (seen.flows, seen.denied);
    println!(
        "leaked: {leaked} of {tried}; lost: {lost} of {sent} packets of {} flows, {} of them dead; \
         layouts of maps: {}",
        options.flows,
        seen.dead,
        seen.layouts.len()
    );
    let unchanged = options.planes.ebpf() && options.other.is_some() && seen.layouts.len() < 2;
    ensure!(!unchanged, "the other build has the same layout of maps");
    let failures = usize::try_from(leaked + lost + seen.dead)?;
    if failures > 0 {
        eprintln!("last words of egressd:\n{}", seen.words);
    }
    Ok(failures)
}
