//! SIGKILLs at random instants, under traffic.

use anyhow::Result;
use clap::Args;
use egressd_tests::lab::{Binaries, Planes, sweep_on_signal};
use egressd_tests::soak::kills::run;
use std::path::PathBuf;

#[derive(Args)]
pub(crate) struct Options {
    /// How often it is killed.
    #[arg(long, default_value_t = 1000)]
    count: u32,
    /// Which planes enforce.
    #[arg(long, default_value = "both")]
    planes: Planes,
    /// Where `egressd` and `egressctl` are.
    #[arg(long, env = "EGRESSD_BIN_DIR", default_value = "target/release")]
    binaries: PathBuf,
}

/// How many packets leaked or were lost.
pub(crate) fn soak(options: &Options) -> Result<usize> {
    sweep_on_signal()?;
    let seen = run(
        &Binaries(options.binaries.clone()),
        options.planes,
        options.count,
    )?;
    let [kills, early] = seen.kills;
    let [granted, lost, denied, leaked, answers] = seen.counts;
    let [half, most, all] = seen.again.quantiles();
    println!(
        "{kills} kills ({early} of them within 0.4 s of a start), {answers} answers of new names between\n\
         leaked: {leaked} of {denied}; granted established packets lost: {lost} of {}\n\
         DNS answers again after {half:.0?} p50, {most:.0?} p99, {all:.0?} max of {}",
        granted + lost,
        seen.again.count(),
    );
    let failures = usize::try_from(leaked + lost)?;
    if failures > 0 {
        eprintln!("last words of egressd:\n{}", seen.words);
    }
    Ok(failures)
}
