//! Somebody takes away what enforces; counts what gets through and times the repairs.

use anyhow::Result;
use clap::Args;
use egressd_tests::lab::{Binaries, Planes, sweep_on_signal};
use egressd_tests::soak::tamper::{Plan, run};
use serde_json::json;
use std::path::PathBuf;
use std::time::Duration;

#[derive(Args)]
pub(crate) struct Options {
    /// How long, for each way the planes can be set up.
    #[arg(long, default_value_t = 60)]
    seconds: u64,
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
    let mut failures = 0;
    let mut all = Vec::new();
    for (owned, tc) in [(true, false), (false, false), (true, true)] {
        let plan = Plan {
            time: Duration::from_secs(options.seconds),
            owned,
            tc,
        };
        let seen = run(&Binaries(options.binaries.clone()), options.planes, plan)?;
        let what = format!(
            "nft table {}, {}",
            if owned { "owned" } else { "open to others" },
            if tc { "tcx" } else { "xdp" }
        );
        if options.json {
            all.push(json!({"planes": what, "outcome": seen.json()}));
        } else {
            println!("{what}\n{}", seen.table());
        }
        if seen.failures() > 0 {
            eprintln!("last words of egressd:\n{}", seen.words);
        }
        failures += usize::try_from(seen.failures())?;
    }
    if options.json {
        println!("{}", serde_json::to_string_pretty(&all)?);
    }
    Ok(failures)
}
