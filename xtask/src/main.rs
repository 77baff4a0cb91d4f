//! `cargo xtask`: sets up, builds, tests, demonstrates, measures. A table of contents; each command does all the
//! set-up it needs, says each thing it does, and asks for root only where it must.

mod build;
mod ci;
mod lab;
mod other;
mod setup;
mod shell;
mod soak;
mod suite;
mod vm;

use clap::{Parser, Subcommand};
use std::process::ExitCode;

#[derive(Parser)]
#[command(
    name = "cargo xtask",
    about = "Builds, tests, demonstrates and measures egressd; does its own set-up."
)]
struct Options {
    #[command(subcommand)]
    task: Task,
}

#[derive(Subcommand)]
enum Task {
    /// Build the kernel programs and a release `egressd` and `egressctl` that embed them.
    Build,
    /// Unit and property tests, then the namespace tests with nft alone, ebpf alone, and both.
    Test(suite::Options),
    /// Watch a gateway let the Intune catalogue through, and nothing else.
    Demo(lab::Demo),
    /// Proofs with large denominators, too long for `test`.
    #[command(subcommand)]
    Soak(soak::Soak),
    /// Mutated messages against the reader of questions and the reducer of answers.
    Fuzz(soak::Fuzz),
    /// Figures beside a peer's, taken in the same run.
    Bench(lab::Bench),
    /// The kernel programs and their tests on other kernels, in virtual machines.
    Vm(vm::Options),
    /// What a change must pass: formatting, lints, dependency rules, `test`, `vm --quick`.
    Ci,
}

fn main() -> ExitCode {
    let done = match Options::parse().task {
        Task::Build => build::all().map(|_built| true),
        Task::Test(options) => suite::run(&options),
        Task::Demo(options) => lab::demo(&options),
        Task::Soak(options) => soak::run(&options),
        Task::Fuzz(options) => soak::fuzz(&options),
        Task::Bench(options) => lab::bench(&options),
        Task::Vm(options) => vm::run(&options),
        Task::Ci => ci::run_all(),
    };
    match done {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("xtask: {error:#}");
            ExitCode::from(2)
        }
    }
}
