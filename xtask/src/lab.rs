//! Runs the lab's programs as root, with everything they need built.

use crate::build::{self, Built, OBJECT};
use crate::setup::{Group, bpffs, packages};
use crate::shell::{as_root, cargo, command, run, say, succeeds, target};
use crate::suite::executable;
use anyhow::Result;
use clap::{Args, ValueEnum};
use std::path::PathBuf;

/// Options of the demo.
#[derive(Args)]
pub(crate) struct Demo {
    /// Leave everything running afterwards, until Ctrl-C, and say how to look around.
    #[arg(long)]
    keep: bool,
    /// Print one JSON document at the end; all else goes to standard error.
    #[arg(long)]
    json: bool,
    /// Show every attempt.
    #[arg(long, short)]
    verbose: bool,
    /// Which planes enforce. `plain` is a router without egressd: everything must then be reported.
    #[arg(long, value_enum, default_value_t = Planes::Both)]
    planes: Planes,
}

/// Options of the bench.
#[derive(Args)]
pub(crate) struct Bench {
    /// What to measure, with or without `-v4` or `-v6`; everything if none is named.
    ids: Vec<String>,
    /// Print an array of `{id, unit, subject, peer, ratio, runs, spread}`; all else goes to standard
    /// error.
    #[arg(long)]
    json: bool,
    /// Print what can be measured.
    #[arg(long)]
    list: bool,
    /// Rounds of every measure instead of its own number.
    #[arg(long)]
    rounds: Option<usize>,
}

/// Which planes enforce.
#[derive(Clone, Copy, Debug, ValueEnum)]
pub(crate) enum Planes {
    /// nft alone.
    Nft,
    /// ebpf alone.
    Ebpf,
    /// Both.
    Both,
    /// None: a plain router.
    Plain,
}

impl Planes {
    /// As the lab's programs write it.
    pub(crate) fn word(self) -> &'static str {
        match self {
            Self::Nft => "nft",
            Self::Ebpf => "ebpf",
            Self::Both => "both",
            Self::Plain => "plain",
        }
    }
}

/// Runs the demo; whether all was as it must be.
///
/// # Errors
/// When it could not be run.
pub(crate) fn demo(options: &Demo) -> Result<bool> {
    let mut args = vec!["--planes".to_owned(), options.planes.word().to_owned()];
    for (flag, set) in [
        ("--keep", options.keep),
        ("--json", options.json),
        ("--verbose", options.verbose),
    ] {
        if set {
            args.push(flag.to_owned());
        }
    }
    program("demo", &args)
}

/// Runs the bench; whether it could be run to its end.
///
/// # Errors
/// When something cannot be had or does not compile.
pub(crate) fn bench(options: &Bench) -> Result<bool> {
    let mut args = options.ids.clone();
    if options.list {
        args.push("--list".to_owned());
        run(cargo().args(["build", "--package", "egressd-tests", "--bin", "bench"]))?;
        return succeeds(command(target().join("debug/bench")).args(args));
    }
    packages(&[Group::Bench])?;
    if options.json {
        args.push("--json".to_owned());
    }
    if let Some(rounds) = options.rounds {
        args.extend(["--rounds".to_owned(), rounds.to_string()]);
    }
    let generator = build::generator()?;
    args.extend(["--generator".to_owned(), generator.display().to_string()]);
    if options.ids.is_empty() || options.ids.iter().any(|id| id.starts_with("verdict-cost")) {
        args.extend(["--verdicts".to_owned(), verdicts()?.display().to_string()]);
    }
    program("bench", &args)
}

/// Has the plane's own test measure what a verdict costs; where it wrote what it found.
fn verdicts() -> Result<PathBuf> {
    bpffs()?;
    let (object, cost) = (build::object()?, build::cost()?);
    let report = target().join("verdicts.json");
    say("measuring what a verdict costs");
    let tests = executable(
        cargo()
            .env(OBJECT, object)
            .args(["test", "--package", "egressd", "--lib"]),
        "egressd",
    )?;
    run(as_root(tests, "loading kernel programs")?
        .env("EGRESSD_COST_OBJECT", cost)
        .env("EGRESSD_COST_REPORT", &report)
        .args(["cost_of_a_verdict", "--ignored", "--nocapture"]))?;
    Ok(report)
}

/// Everything that the lab's programs need.
///
/// # Errors
/// When something cannot be had or does not compile.
pub(crate) fn ready() -> Result<Built> {
    packages(&[Group::Lab])?;
    bpffs()?;
    build::all()
}

/// Runs one of the lab's programs as root; whether it ended well.
///
/// # Errors
/// When it could not be built or run.
pub(crate) fn program(name: &str, args: &[String]) -> Result<bool> {
    let Built { binaries, .. } = ready()?;
    run(cargo().args(["build", "--package", "egressd-tests", "--bin", name]))?;
    let mut program = as_root(
        target().join("debug").join(name),
        "making network namespaces",
    )?;
    succeeds(program.env("EGRESSD_BIN_DIR", binaries).args(args))
}
