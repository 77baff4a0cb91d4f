//! Mutated configurations and catalogues are reloaded, under traffic.

use anyhow::Result;
use clap::Args;
use egressd_tests::lab::{Binaries, Planes, sweep_on_signal};
use egressd_tests::soak::reloads::run;
use std::path::PathBuf;

#[derive(Args)]
pub(crate) struct Options {
    /// How often.
    #[arg(long, default_value_t = 10_000)]
    count: u64,
    /// Which planes enforce.
    #[arg(long, default_value = "both")]
    planes: Planes,
    /// Where `egressd` and `egressctl` are.
    #[arg(long, env = "EGRESSD_BIN_DIR", default_value = "target/release")]
    binaries: PathBuf,
}

/// How many were applied by halves or refused without a place, and how much others lost or leaked.
pub(crate) fn soak(options: &Options) -> Result<usize> {
    sweep_on_signal()?;
    let seen = run(
        &Binaries(options.binaries.clone()),
        options.planes,
        options.count,
    )?;
    let [taken, refused] = seen.reloads;
    let [granted, lost, denied, leaked, _] = seen.counts;
    let [taking, refusing] = seen.waits.each_ref().map(|waits| waits.quantiles());
    println!(
        "{taken} reloads taken after {:.1?} p50, {:.1?} p99, {:.1?} max; {refused} refused after {:.1?} p50, \
         {:.1?} p99, {:.1?} max",
        taking[0], taking[1], taking[2], refusing[0], refusing[1], refusing[2],
    );
    println!(
        "half-applied: {} of {}; refused without file, line and column: {} of {refused}; transactions while \
         refusing: {}\n{} verdicts and {} packets compared with the model",
        seen.half.len(),
        taken + refused,
        seen.nowhere,
        seen.transactions,
        seen.probes[0],
        seen.probes[1],
    );
    println!(
        "another zone: {lost} of {} granted packets lost, {leaked} of {denied} denied ones leaked, {} of {} \
         answers lost",
        granted + lost,
        seen.answers[1],
        seen.answers[0],
    );
    if seen.failures() > 0 {
        eprintln!(
            "{}\nlast words of egressd:\n{}",
            seen.half.join("\n"),
            seen.words
        );
    }
    Ok(usize::try_from(seen.failures())?)
}
