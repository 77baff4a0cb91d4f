//! Interfaces come, go and change; counts what gets through, and times XDP.

use anyhow::Result;
use clap::Args;
use egressd_tests::lab::{Binaries, Planes, sweep_on_signal};
use egressd_tests::soak::hotplug::{Plan, run};
use std::path::PathBuf;

#[derive(Args)]
pub(crate) struct Options {
    /// How many changes.
    #[arg(long, default_value_t = 300)]
    changes: u32,
    /// Print one JSON document instead of tables.
    #[arg(long)]
    json: bool,
    /// Which planes enforce.
    #[arg(long, default_value = "both")]
    planes: Planes,
    /// Where `egressd` and `egressctl` are.
    #[arg(long, env = "EGRESSD_BIN_DIR", default_value = "target/release")]
    binaries: PathBuf,
}

/// How much leaked, and how much never came back.
pub(crate) fn soak(options: &Options) -> Result<usize> {
    sweep_on_signal()?;
    let plan = Plan {
        changes: options.changes,
    };
    let seen = run(&Binaries(options.binaries.clone()), options.planes, plan)?;
    if options.json {
        println!("{}", serde_json::to_string_pretty(&seen.json())?);
    } else {
        println!("{}", seen.table());
    }
    if seen.failures() > 0 {
        eprintln!("last words of egressd:\n{}", seen.words);
    }
    Ok(usize::try_from(seen.failures())?)
}
