//! An answer, then at once a packet to its address, a great many times.

use anyhow::Result;
use clap::Args;
use egressd_tests::lab::{Binaries, Planes, sweep_on_signal};
use egressd_tests::soak::first_packets::{Plan, run};
use std::path::PathBuf;

#[derive(Args)]
pub(crate) struct Options {
    /// How many answers are followed by a packet: half of new names, half of names asked before.
    #[arg(long, default_value_t = 100_000)]
    count: u32,
    /// How many clients ask at the same time, in two zones.
    #[arg(long, default_value_t = 8)]
    clients: u32,
    /// Which planes enforce.
    #[arg(long, default_value = "both")]
    planes: Planes,
    /// Where `egressd` and `egressctl` are.
    #[arg(long, env = "EGRESSD_BIN_DIR", default_value = "target/release")]
    binaries: PathBuf,
}

/// How many first packets were lost, or not even answered for.
pub(crate) fn soak(options: &Options) -> Result<usize> {
    sweep_on_signal()?;
    let scale = Plan {
        count: options.count,
        clients: options.clients,
    };
    let outcome = run(&Binaries(options.binaries.clone()), options.planes, scale)?;
    for (kind, tally) in &outcome.tallies {
        let [half, most, all] = tally.waits.quantiles();
        println!(
            "{kind}: {} of {} lost, {} not answered; answer after {half:.0?} p50, {most:.1?} p99, \
             {all:.1?} max",
            tally.lost.len(),
            tally.waits.count(),
            tally.unanswered,
        );
        if !tally.lost.is_empty() {
            println!(
                "  first lost: {:?}",
                &tally.lost[..tally.lost.len().min(20)]
            );
        }
    }
    let packets = u32::try_from(outcome.packets())?;
    println!(
        "{} of {packets} in all; {:.0} a second; the upstream was asked {} times",
        outcome.failures(),
        f64::from(packets) / outcome.took.as_secs_f64(),
        outcome.upstream,
    );
    if outcome.failures() > 0 {
        eprintln!("last words of egressd:\n{}", outcome.words);
    }
    Ok(outcome.failures())
}
