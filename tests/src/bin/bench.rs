//! `cargo xtask bench`: figures beside a peer's, taken in the same run.

use anyhow::{Result, ensure};
use clap::Parser;
use egressd_tests::bench::{Bench, Measure, cores, table};
use egressd_tests::lab::{Binaries, sweep_on_signal};
use std::path::PathBuf;
use std::process::ExitCode;

/// Measures egressd and its peers turn by turn.
#[derive(Parser)]
struct Options {
    /// What to measure, with or without `-v4` or `-v6`; everything if none is named.
    ids: Vec<String>,
    /// Print an array of figures; all else goes to standard error.
    #[arg(long)]
    json: bool,
    /// Print what can be measured.
    #[arg(long)]
    list: bool,
    /// Rounds of every measure instead of its own number (5 or 7).
    #[arg(long)]
    rounds: Option<usize>,
    /// Where `egressd` and `egressctl` are.
    #[arg(long, env = "EGRESSD_BIN_DIR", default_value = "target/release")]
    binaries: PathBuf,
    /// The object that makes and counts frames.
    #[arg(
        long,
        default_value = "target/bpf/bpfel-unknown-none/bpf/egressd-generator"
    )]
    generator: PathBuf,
    /// What `cost_of_a_verdict` measured; `cargo xtask bench` has it measure before.
    #[arg(long)]
    verdicts: Option<PathBuf>,
}

fn main() -> ExitCode {
    match bench(&Options::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("bench: {error:#}");
            ExitCode::from(2)
        }
    }
}

fn bench(options: &Options) -> Result<()> {
    let measures = Measure::chosen(&options.ids)?;
    if options.list {
        for measure in measures {
            println!("{:<32} {}", measure.id(), measure.about);
        }
        return Ok(());
    }
    ensure!(options.rounds != Some(0), "at least one round");
    sweep_on_signal()?;
    let bench = Bench {
        binaries: Binaries(options.binaries.clone()),
        generator: options.generator.clone(),
        verdicts: options.verdicts.clone(),
        rounds: options.rounds,
    };
    let figures = bench.run(&measures, &|line| eprintln!("{line}"))?;
    if options.json {
        println!("{}", serde_json::to_string_pretty(&figures)?);
    } else {
        print!("{}{}", table(&figures), cores(&figures));
    }
    Ok(())
}
