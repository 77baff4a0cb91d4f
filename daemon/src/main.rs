//! egressd: the daemon's command line.

use anyhow::Context as _;
use clap::{Parser, Subcommand, ValueEnum};
use egressd::{check, config, daemon, links, lockdown, logging};
use std::io::Write as _;
use std::path::PathBuf;
use std::process::ExitCode;

/// Lets clients of a Linux gateway reach the endpoints of a catalogue, and nothing else.
#[derive(Parser)]
#[command(version, arg_required_else_help = true)]
struct Cli {
    #[command(subcommand)]
    command: Command,
    /// How log lines look; `auto` is journal lines under systemd, else text.
    #[arg(long, global = true, value_enum, default_value = "auto")]
    log: logging::Format,
    /// Least severe lines to log: off, error, warn, info, debug, trace; also per word, such as
    /// `info,question=debug`.
    #[arg(long, global = true, default_value = "info")]
    log_level: logging::Filter,
}

#[derive(Subcommand)]
enum Command {
    /// Enforce the policy until told to stop. Whatever ends it, the last policy stays in force.
    Run {
        /// The configuration file.
        #[arg(long, default_value = "/etc/egressd/egressd.toml")]
        config: PathBuf,
    },
    /// Read the configuration, say what it means and what looks wrong. Exit status 1 if it cannot
    /// be used.
    Check {
        /// The configuration file.
        #[arg(long, default_value = "/etc/egressd/egressd.toml")]
        config: PathBuf,
        /// Print JSON.
        #[arg(long)]
        json: bool,
        /// What makes it fail beside errors, for the tests of a configuration's repository.
        #[arg(long, value_enum)]
        deny: Option<Deny>,
    },
    /// Close the gateway, also to established flows, until `run` has its policy in force.
    ///
    /// Without a usable configuration everything that is forwarded is dropped. Exit status 0: it is closed.
    Lockdown {
        /// The configuration file.
        #[arg(long, default_value = "/etc/egressd/egressd.toml")]
        config: PathBuf,
        /// Only if no daemon was alive for as long as `[service] unattended` says: for the keeper's timer.
        #[arg(long)]
        if_unattended: bool,
    },
    /// Open the gateway: take away everything by which egressd refuses, until it is started again.
    ///
    /// For root alone, while egressd is stopped. Logged, and shown by `egressctl status`.
    Open {
        /// The configuration file.
        #[arg(long, default_value = "/etc/egressd/egressd.toml")]
        config: PathBuf,
        /// Why; everybody who looks will read it.
        #[arg(long)]
        reason: String,
    },
}

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Deny {
    /// Somebody may reach more or less than the operator thinks.
    Warnings,
}

fn main() -> ExitCode {
    let cli = Cli::parse();
    let result = logging::init(cli.log, cli.log_level).and_then(|()| match cli.command {
        Command::Run { config } => daemon::run(&config).map(|()| ExitCode::SUCCESS),
        Command::Check { config, json, deny } => run_check(&config, json, deny),
        Command::Lockdown {
            config,
            if_unattended: false,
        } => lockdown::lock(&config).map(|()| ExitCode::SUCCESS),
        Command::Lockdown {
            config,
            if_unattended: true,
        } => lockdown::lock_if_unattended(&config).map(|()| ExitCode::SUCCESS),
        Command::Open { config, reason } => {
            lockdown::open(&config, &reason).map(|()| ExitCode::SUCCESS)
        }
    });
    log::logger().flush();
    result.unwrap_or_else(|error| {
        eprintln!("egressd: {error:#}");
        ExitCode::FAILURE
    })
}

fn run_check(path: &std::path::Path, json: bool, deny: Option<Deny>) -> anyhow::Result<ExitCode> {
    let settings = config::load(path)?;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    // A configuration can be checked on a machine that is not the gateway.
    let links = runtime.block_on(links::read()).ok();
    let report = check::report(&settings, links.as_ref());
    let text = if json {
        serde_json::to_string_pretty(&report).context("print the report")? + "\n"
    } else {
        report.to_string()
    };
    match std::io::stdout().write_all(text.as_bytes()) {
        // The reader has seen enough.
        Err(error) if error.kind() == std::io::ErrorKind::BrokenPipe => {}
        written => written.context("print the report")?,
    }
    let denied = deny == Some(Deny::Warnings) && report.has_warnings();
    Ok(if report.has_errors() || denied {
        ExitCode::FAILURE
    } else {
        ExitCode::SUCCESS
    })
}
