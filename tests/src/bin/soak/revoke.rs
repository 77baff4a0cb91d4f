//! Grants are taken back, under traffic.

use anyhow::Result;
use clap::Args;
use egressd_tests::lab::{Binaries, Planes, sweep_on_signal};
use egressd_tests::soak::revocations::run;
use std::path::PathBuf;

#[derive(Args)]
pub(crate) struct Options {
    /// How often each way.
    #[arg(long, default_value_t = 40)]
    count: u32,
    /// Which planes enforce.
    #[arg(long, default_value = "both")]
    planes: Planes,
    /// Where `egressd` and `egressctl` are.
    #[arg(long, env = "EGRESSD_BIN_DIR", default_value = "target/release")]
    binaries: PathBuf,
}

/// How many others' packets were lost, and how many flows were not cut.
pub(crate) fn soak(options: &Options) -> Result<usize> {
    sweep_on_signal()?;
    let seen = run(
        &Binaries(options.binaries.clone()),
        options.planes,
        options.count,
    )?;
    let mut failures = 0;
    for (way, tally) in &seen.tallies {
        let [new, live] = [&tally.new, &tally.live].map(|waits| waits.quantiles());
        println!(
            "{way:<12}: new flows pass for {:.1?} p50, {:.1?} p99, {:.1?} max; live ones for {:.1?} p50, \
             {:.1?} p99, {:.1?} max; not cut {} of {}",
            new[0],
            new[1],
            new[2],
            live[0],
            live[1],
            live[2],
            tally.survived,
            tally.live.count(),
        );
        failures += usize::try_from(tally.survived)?;
    }
    let [granted, lost, denied, leaked, _] = seen.counts;
    println!(
        "others: {lost} of {} granted packets lost, {leaked} of {denied} denied ones came back",
        granted + lost
    );
    failures += usize::try_from(lost + leaked)?;
    if failures > 0 {
        eprintln!("last words of egressd:\n{}", seen.words);
    }
    Ok(failures)
}
