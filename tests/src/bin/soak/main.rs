//! `cargo xtask soak`: proofs with large denominators, one module each.

mod answers;
mod churn;
mod control;
mod faults;
mod first_packets;
mod floods;
mod forgeries;
mod hostile;
mod hotplug;
mod kills;
mod packets;
mod reloads;
mod restarts;
mod revoke;
mod tamper;

use clap::{Parser, Subcommand};
use std::process::ExitCode;

#[derive(Parser)]
struct Options {
    #[command(subcommand)]
    soak: Soak,
}

#[derive(Subcommand)]
enum Soak {
    /// An answer, then at once a packet to its new address; counts packets that are lost.
    FirstPackets(first_packets::Options),
    /// Short TTLs and rotating pools while the ruleset is flushed and the daemon killed; counts what was
    /// told and closed, and what is open and was never answered.
    Churn(churn::Options),
    /// Forged replies, each wrong in one thing; counts what they teach.
    Forgeries(forgeries::Options),
    /// Generated responses, read by the daemon's reducer and by an oracle; counts differences.
    Answers(answers::Options),
    /// Clients that want everything; counts what the others lose.
    Floods(floods::Options),
    /// Responses made to be slow or large; measures time and memory of each.
    Hostile(hostile::Options),
    /// SIGKILLs at random instants under traffic; counts what leaks and what is lost.
    Kills(kills::Options),
    /// Restarts, other builds, kills and halts under thousands of flows; counts what leaks and what is lost.
    Restarts(restarts::Options),
    /// Grants taken back in every way under traffic; measures how long flows still pass.
    Revoke(revoke::Options),
    /// A thousand bad connections to the control socket; measures what DNS and root notice.
    Control(control::Options),
    /// Mutated frames on the kernel's programs and on the model; counts differences.
    Packets(packets::Options),
    /// Somebody takes away what enforces, in every way there is; counts what gets through.
    Tamper(tamper::Options),
    /// Calls to the kernel fail, each in its turn; counts what gets through and what stays closed.
    Faults(faults::Options),
    /// Mutated configurations and catalogues are reloaded; counts what is in force by halves.
    Reloads(reloads::Options),
    /// Interfaces come, go and change; counts what gets through and times XDP.
    Hotplug(hotplug::Options),
}

fn main() -> ExitCode {
    let failures = match Options::parse().soak {
        Soak::FirstPackets(options) => first_packets::soak(&options),
        Soak::Churn(options) => churn::soak(&options),
        Soak::Forgeries(options) => forgeries::soak(&options),
        Soak::Answers(options) => Ok(answers::soak(&options)),
        Soak::Floods(options) => floods::soak(&options),
        Soak::Hostile(options) => Ok(hostile::soak(&options)),
        Soak::Kills(options) => kills::soak(&options),
        Soak::Restarts(options) => restarts::soak(&options),
        Soak::Revoke(options) => revoke::soak(&options),
        Soak::Control(options) => control::soak(&options),
        Soak::Packets(options) => packets::soak(&options),
        Soak::Tamper(options) => tamper::soak(&options),
        Soak::Faults(options) => faults::soak(&options),
        Soak::Reloads(options) => reloads::soak(&options),
        Soak::Hotplug(options) => hotplug::soak(&options),
    };
    match failures {
        Ok(0) => ExitCode::SUCCESS,
        Ok(_) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("soak: {error:#}");
            ExitCode::from(2)
        }
    }
}
