//! Short TTLs, rotating pools, flushes and kills; packets and reads all the while.

use anyhow::Result;
use clap::Args;
use egressd_tests::lab::{Binaries, Planes, sweep_on_signal};
use egressd_tests::soak::churn::{Plan, run};
use std::path::PathBuf;

#[derive(Args)]
pub(crate) struct Options {
    /// How long; a second stands for a minute.
    #[arg(long, default_value_t = 240)]
    seconds: u32,
    /// How many clients of each zone ask at the same time.
    #[arg(long, default_value_t = 3)]
    clients: u32,
    /// Leave the ruleset alone.
    #[arg(long)]
    no_flush: bool,
    /// How many seconds grants outlive their answers.
    #[arg(long, default_value_t = 1)]
    grace: u32,
    /// Which planes enforce.
    #[arg(long, default_value = "both")]
    planes: Planes,
    /// Where `egressd` and `egressctl` are.
    #[arg(long, env = "EGRESSD_BIN_DIR", default_value = "target/release")]
    binaries: PathBuf,
}

/// How much was closed that was told, open that was not, or granted that was never answered.
pub(crate) fn soak(options: &Options) -> Result<usize> {
    sweep_on_signal()?;
    let scale = Plan {
        seconds: options.seconds,
        clients: options.clients,
        flush: !options.no_flush,
        grace: options.grace,
    };
    let seen = run(&Binaries(options.binaries.clone()), options.planes, scale)?;
    let [answers, unanswered] = seen.answers;
    let [flushes, kills] = seen.blows;
    println!(
        "{} s for as many minutes; {flushes} flushes, {kills} kills\n\
         {answers} answers ({} asked upstream), {unanswered} questions without one, at most {:.1?} \
         without any\n\
         packets to told addresses within their TTL: {} of {} lost ({} not sent in time); about {:.2} \
         of {:.0} told seconds closed\n\
         packets to addresses that the zone may not reach: {} of {} came back\n\
         {} reads of the kernel's sets ({} without a table), {} elements; {} of the grants ({} without \
         a daemon), {} elements: {} never answered\n\
         {} elements that nobody used before the first kill: at most {:.1?} beyond the end of the last answer",
        options.seconds,
        seen.upstream,
        seen.silence,
        seen.lost.len(),
        seen.passed + seen.lost.len() as u64,
        seen.skipped,
        seen.closed_seconds(),
        seen.told_seconds,
        seen.leaked.len(),
        seen.refused + seen.leaked.len() as u64,
        seen.reads[0],
        seen.absent[0],
        seen.elements[0],
        seen.reads[1],
        seen.absent[1],
        seen.elements[1],
        seen.extra.len(),
        seen.unused.0,
        seen.unused.1,
    );
    for (what, list) in [
        ("lost", &seen.lost),
        ("came back", &seen.leaked),
        ("never answered", &seen.extra),
    ] {
        for text in list.iter().take(15) {
            println!("  {what}: {text}");
        }
    }
    if let Some(overdue) = &seen.overdue {
        println!("  overdue: {overdue}");
    }
    let failures = seen.lost.len() + seen.leaked.len() + seen.extra.len();
    if failures > 0 {
        eprintln!("last words of egressd:\n{}", seen.words);
    }
    Ok(failures)
}
