//! Abuse of the control socket.
#![expect(clippy::disallowed_methods, reason = "shell: starts itself once more")]

use anyhow::Result;
use clap::Args;
use egressd_tests::lab::{Binaries, Planes, sweep_on_signal};
use egressd_tests::soak::control::{MANY, abuse, run};
use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

#[derive(Args)]
pub(crate) struct Options {
    /// How long.
    #[arg(long, default_value_t = 30)]
    seconds: u64,
    /// Which planes enforce.
    #[arg(long, default_value = "both")]
    planes: Planes,
    /// Where `egressd` and `egressctl` are.
    #[arg(long, env = "EGRESSD_BIN_DIR", default_value = "target/release")]
    binaries: PathBuf,
    /// Be the one who means no good, on this socket.
    #[arg(long, hide = true)]
    abuse: Option<PathBuf>,
}

/// How often root was not heard.
pub(crate) fn soak(options: &Options) -> Result<usize> {
    if let Some(socket) = &options.abuse {
        return abuse(socket).map(|()| 0);
    }
    sweep_on_signal()?;
    let own = std::env::current_exe()?;
    let time = Duration::from_secs(options.seconds);
    let seen = run(
        &Binaries(options.binaries.clone()),
        options.planes,
        time,
        |socket| {
            let mut command = Command::new(own);
            command.args(["control", "--abuse"]).arg(socket);
            command
        },
    )?;
    let [made, ended] = seen.connections;
    println!("{made} connections, up to {MANY} at a time, {ended} of them ended by the daemon");
    for (what, waits) in [
        ("answers of new names", &seen.answers),
        ("egressctl status", &seen.asked),
    ] {
        let [half, most, all] = waits.quantiles();
        println!(
            "{what:<22} {:>6}: {half:.1?} p50, {most:.1?} p99, {all:.1?} max",
            waits.count()
        );
    }
    let [before, most] = seen.memory;
    println!(
        "not told: {} of {}; resident: {before} KiB before, {most} KiB at most",
        seen.untold.len(),
        seen.asked.count()
    );
    if let Some(last) = seen.untold.last() {
        eprintln!("egressctl: {last}\nlast words of egressd:\n{}", seen.words);
    }
    Ok(seen.untold.len())
}
