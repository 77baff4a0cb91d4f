//! Proofs with large denominators, and the fuzzer.

use crate::build::{self, OBJECT, object};
use crate::lab::{Planes, program};
use crate::setup::{Group, bpffs, packages};
use crate::shell::{as_root, cargo, command, run as must, succeeds, target};
use anyhow::{Context, Result};
use clap::{Args, Subcommand};

/// What is proved.
#[derive(Subcommand)]
pub(crate) enum Soak {
    /// An answer, then at once a packet to its address, of new names and known ones: none may be lost.
    FirstPackets {
        /// How many times.
        #[arg(long, default_value_t = 1_000_000)]
        count: u32,
        /// Which planes enforce.
        #[arg(long, value_enum, default_value_t = Planes::Both)]
        planes: Planes,
    },
    /// Short TTLs and rotating pools, while the ruleset is flushed and the daemon killed: what is told is
    /// open, and nothing else.
    Churn {
        /// How long; a second stands for a minute.
        #[arg(long, default_value_t = 240)]
        seconds: u32,
        /// Which planes enforce.
        #[arg(long, value_enum, default_value_t = Planes::Both)]
        planes: Planes,
    },
    /// Forged replies, each wrong in one thing: none may teach.
    Forgeries {
        /// How many.
        #[arg(long, default_value_t = 1_000_000)]
        count: u32,
        /// Which planes enforce.
        #[arg(long, value_enum, default_value_t = Planes::Both)]
        planes: Planes,
    },
    /// Generated responses teach what an independent oracle says, no more and no less.
    Answers {
        /// How many responses.
        #[arg(long, default_value_t = 1_000_000)]
        count: u64,
    },
    /// Slow connections, a client that asks without end, a million new names: what the others lose.
    Floods {
        /// New names.
        #[arg(long, default_value_t = 1_000_000)]
        names: u32,
        /// Seconds that each of the other floods lasts.
        #[arg(long, default_value_t = 15)]
        seconds: u64,
        /// Which planes enforce.
        #[arg(long, value_enum, default_value_t = Planes::Both)]
        planes: Planes,
    },
    /// SIGKILLs at random instants, with granted and forbidden traffic all the time: none may leak, none be
    /// lost.
    Kills {
        /// How many.
        #[arg(long, default_value_t = 1000)]
        count: u32,
        /// Which planes enforce.
        #[arg(long, value_enum, default_value_t = Planes::Both)]
        planes: Planes,
    },
    /// Restarts, upgrades to a build with other maps and back, kills, and one halt (SIGSTOP), under 10,000
    /// flows: none may be lost, nothing leak.
    Restarts {
        /// How often each.
        #[arg(long, default_value_t = 20)]
        rounds: u32,
        /// Seconds of the halt.
        #[arg(long, default_value_t = 60)]
        halt: u64,
        /// Which planes enforce.
        #[arg(long, value_enum, default_value_t = Planes::Both)]
        planes: Planes,
    },
    /// Grants are taken back in every way there is, while others are used: how long flows still pass.
    Revoke {
        /// How often each way.
        #[arg(long, default_value_t = 40)]
        count: u32,
        /// Which planes enforce.
        #[arg(long, value_enum, default_value_t = Planes::Both)]
        planes: Planes,
    },
    /// A thousand connections to the control socket that mean no good: DNS answers, root is heard, memory stays.
    Control {
        /// How long.
        #[arg(long, default_value_t = 30)]
        seconds: u32,
        /// Which planes enforce.
        #[arg(long, value_enum, default_value_t = Planes::Both)]
        planes: Planes,
    },
    /// Responses made to be slow or large: time and memory of each.
    Hostile {
        /// How often each is read.
        #[arg(long, default_value_t = 2000)]
        count: u64,
    },
    /// Mutated frames of the packet corpus on the kernel's programs and on the model: no verdict and no
    /// reason may differ.
    Packets {
        /// How many, over all programs and worlds.
        #[arg(long, default_value_t = 10_000_000)]
        count: u64,
        /// Print one JSON document at the end; all else goes to standard error.
        #[arg(long)]
        json: bool,
    },
    /// Somebody takes away what enforces, in every way there is, under granted and forbidden traffic: none
    /// of the one may pass, and all comes back within 100 ms.
    Tamper {
        /// How long, for each of three ways to set the planes up.
        #[arg(long, default_value_t = 60)]
        seconds: u64,
        /// Print one JSON document instead of tables.
        #[arg(long)]
        json: bool,
        /// Which planes enforce.
        #[arg(long, value_enum, default_value_t = Planes::Both)]
        planes: Planes,
    },
    /// Interfaces come, go and change under traffic: nothing forbidden passes, and XDP is back within
    /// 100 ms.
    Hotplug {
        /// How many changes.
        #[arg(long, default_value_t = 300)]
        changes: u64,
        /// Print one JSON document instead of tables.
        #[arg(long)]
        json: bool,
        /// Which planes enforce.
        #[arg(long, value_enum, default_value_t = Planes::Both)]
        planes: Planes,
    },
    /// Every call of bpf(2) and of netlink that the planes make fails once, with each error that fits, under
    /// granted and forbidden traffic: nothing may leak or be lost, and all is well within 5 s.
    Faults {
        /// At most so many calls of each kind, spread over all there are.
        #[arg(long, default_value_t = 200)]
        most: u32,
        /// Print one JSON document instead of a table.
        #[arg(long)]
        json: bool,
        /// Which planes enforce.
        #[arg(long, value_enum, default_value_t = Planes::Both)]
        planes: Planes,
    },
    /// Reloads of mutated configurations and catalogues under traffic: each is in force whole, or refused
    /// with file, line and column and nothing changed.
    Reloads {
        /// How many.
        #[arg(long, default_value_t = 10_000)]
        count: u32,
        /// Which planes enforce.
        #[arg(long, value_enum, default_value_t = Planes::Both)]
        planes: Planes,
    },
    /// The programs are replaced again and again under granted and forbidden traffic: none of the one
    /// may be lost, none of the other pass.
    Swaps {
        /// How many times.
        #[arg(long, default_value_t = 1000)]
        count: u32,
    },
}

/// Runs a proof; whether it holds.
///
/// # Errors
/// When it could not be run.
pub(crate) fn run(soak: &Soak) -> Result<bool> {
    match soak {
        Soak::Floods {
            names,
            seconds,
            planes,
        } => {
            packages(&[Group::Bench])?;
            let (names, seconds) = (names.to_string(), seconds.to_string());
            let args = [
                "floods",
                "--planes",
                planes.word(),
                "--names",
                &names,
                "--seconds",
                &seconds,
            ];
            program("soak", &args.map(str::to_owned))
        }
        Soak::FirstPackets { count, planes } => in_lab("first-packets", "--count", *count, *planes),
        Soak::Control { seconds, planes } => in_lab("control", "--seconds", *seconds, *planes),
        Soak::Churn { seconds, planes } => in_lab("churn", "--seconds", *seconds, *planes),
        Soak::Forgeries { count, planes } => in_lab("forgeries", "--count", *count, *planes),
        Soak::Kills { count, planes } => in_lab("kills", "--count", *count, *planes),
        Soak::Revoke { count, planes } => in_lab("revoke", "--count", *count, *planes),
        Soak::Restarts {
            rounds,
            halt,
            planes,
        } => {
            packages(&[Group::Build])?;
            let other = crate::other::layout()?;
            let (rounds, halt) = (rounds.to_string(), halt.to_string());
            let other = other
                .to_str()
                .context("the target folder's path is UTF-8")?;
            let args = [
                "restarts",
                "--planes",
                planes.word(),
                "--rounds",
                &rounds,
                "--halt",
                &halt,
                "--other",
                other,
            ];
            program("soak", &args.map(str::to_owned))
        }
        Soak::Answers { count } => alone("soak", &["answers", "--count", &count.to_string()]),
        Soak::Hostile { count } => alone("soak", &["hostile", "--count", &count.to_string()]),
        Soak::Packets { count, json } => packets_on_programs(*count, *json),
        Soak::Swaps { count } => swaps(*count),
        Soak::Tamper {
            seconds,
            json,
            planes,
        } => told(["tamper", "--seconds"], *seconds, *planes, *json),
        Soak::Hotplug {
            changes,
            json,
            planes,
        } => told(["hotplug", "--changes"], *changes, *planes, *json),
        Soak::Faults { most, json, planes } => {
            build::shim()?;
            told(["faults", "--most"], (*most).into(), *planes, *json)
        }
        Soak::Reloads { count, planes } => in_lab("reloads", "--count", *count, *planes),
    }
}

/// The soak that holds the kernel's programs in its hands, and needs no daemon.
fn packets_on_programs(count: u64, json: bool) -> Result<bool> {
    packages(&[Group::Lab])?;
    bpffs()?;
    let object = object()?;
    let mut build = cargo();
    build.env(OBJECT, object).args([
        "build",
        "--release",
        "--package",
        "egressd-tests",
        "--bin",
        "soak",
    ]);
    must(&mut build)?;
    let soak = target().join("release/soak");
    let mut program = as_root(soak, "loading kernel programs")?;
    program.args(["packets", "--count", &count.to_string()]);
    if json {
        program.arg("--json");
    }
    succeeds(&mut program)
}

/// The daemon's own test of replacements, with a larger number of them.
fn swaps(count: u32) -> Result<bool> {
    packages(&[Group::Lab])?;
    bpffs()?;
    let object = object()?;
    let mut test = cargo();
    test.env(OBJECT, object)
        .env("EGRESSD_SWAPS", count.to_string())
        .args(["test", "--package", "egressd", "--lib"])
        .args(["plane::trial::tests::swaps", "--", "--nocapture"]);
    succeeds(&mut test)
}

/// A soak in the lab that can print JSON.
fn told(words: [&str; 2], size: u64, planes: Planes, json: bool) -> Result<bool> {
    let size = size.to_string();
    let mut args = vec![words[0], words[1], &size, "--planes", planes.word()];
    if json {
        args.push("--json");
    }
    program(
        "soak",
        &args.into_iter().map(str::to_owned).collect::<Vec<_>>(),
    )
}

fn in_lab(soak: &str, measure: &str, size: u32, planes: Planes) -> Result<bool> {
    let size = size.to_string();
    let args = [soak, measure, &size, "--planes", planes.word()];
    program("soak", &args.map(str::to_owned))
}

/// Options of the fuzzer.
#[derive(Args)]
pub(crate) struct Fuzz {
    /// `answers` or `question`; both one after the other if none is named.
    target: Option<String>,
    /// How long each is fuzzed.
    #[arg(long, default_value_t = 60)]
    seconds: u64,
}

/// Fuzzes; whether nothing was found.
///
/// # Errors
/// When it could not be run.
pub(crate) fn fuzz(options: &Fuzz) -> Result<bool> {
    let seconds = options.seconds.to_string();
    let mut args = vec!["--seconds", &seconds];
    args.extend(options.target.as_deref());
    alone("fuzz", &args)
}

/// A program that needs speed, and neither root nor the daemon.
fn alone(name: &str, args: &[&str]) -> Result<bool> {
    let mut build = cargo();
    must(build.args([
        "build",
        "--release",
        "--package",
        "egressd-tests",
        "--bin",
        name,
    ]))?;
    succeeds(command(target().join("release").join(name)).args(args))
}
