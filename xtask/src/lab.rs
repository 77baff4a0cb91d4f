//! Runs the lab's programs as root, with everything they need built.

use crate::build::{self, Built};
use crate::setup::{Group, bpffs, packages};
use crate::shell::{as_root, cargo, run, succeeds, target};
use anyhow::Result;
use clap::{Args, ValueEnum};

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

/// Options of the soak.
#[derive(Args)]
pub(crate) struct Soak {
    /// How many times an answer is followed at once by a packet.
    #[arg(long, default_value_t = 100_000)]
    count: u32,
    /// Which planes enforce.
    #[arg(long, value_enum, default_value_t = Planes::Both)]
    planes: Planes,
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

/// Runs the soak; whether nothing was lost.
///
/// # Errors
/// When it could not be run.
pub(crate) fn soak(options: &Soak) -> Result<bool> {
    let planes = options.planes.word().to_owned();
    program(
        "soak",
        &[
            "--planes".to_owned(),
            planes,
            "--count".to_owned(),
            options.count.to_string(),
        ],
    )
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

fn program(name: &str, args: &[String]) -> Result<bool> {
    let Built { binaries, .. } = ready()?;
    run(cargo().args(["build", "--package", "egressd-tests", "--bin", name]))?;
    let mut program = as_root(
        target().join("debug").join(name),
        "making network namespaces",
    )?;
    succeeds(program.env("EGRESSD_BIN_DIR", binaries).args(args))
}
