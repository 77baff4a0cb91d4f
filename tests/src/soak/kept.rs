//! SIGKILL, again and again, under a service manager that keeps the socket that owns the nft table: the owner
//! stays the same, and nobody can take the table away meanwhile.
#![expect(
    clippy::disallowed_methods,
    reason = "shell: kills, and tries to take tables away"
)]

use super::traffic::{Counts, UDP, authority, denied, granted, learn_others};
use crate::lab::{Binaries, Daemon, Echo, Lab, Planes};
use anyhow::{Context, Result, ensure};
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

/// What was seen.
#[derive(Debug)]
pub struct Outcome {
    /// The owner's port, after each start.
    pub owners: Vec<u64>,
    /// How often somebody tried to take the table away while no daemon ran, and how often the kernel let them.
    pub attacks: [u32; 2],
    /// Granted, lost, denied, leaked packets.
    pub counts: [u64; 4],
    /// The daemon's last lines.
    pub words: String,
}

/// Kills it `count` times.
///
/// # Errors
/// When the lab or the daemon cannot be had, or it does not start again.
pub fn run(binaries: &Binaries, planes: Planes, count: u32) -> Result<Outcome> {
    let lab = Lab::new()?;
    let _authority = authority(&lab)?;
    let _echo = Echo::start(&lab.internet, &[], &[UDP])?;
    let zones = format!(
        "[[zone]]\nname = \"managed\"\ninterfaces = [\"lan0\"]\nsources = [\"10.20.0.0/16\"]\n\
         [[zone.rule]]\nnames = [\"*.vendor.example\"]\nudp = [{UDP}]\n"
    );
    let mut daemon = Daemon::start_kept(&lab, binaries, planes, &zones)?;
    learn_others(&lab.client)?;
    let (counts, stop) = (Counts::default(), AtomicBool::new(false));
    let mut owners = vec![owner(&daemon)?];
    let mut attacks = [0; 2];
    let (client, counts, stop) = (&lab.client, &counts, &stop);
    thread::scope(|scope| -> Result<()> {
        let traffic = [granted, denied].map(|work| scope.spawn(move || work(client, counts, stop)));
        let mut rounds = || -> Result<()> {
            for _ in 0..count {
                daemon.kill()?;
                for attack in [
                    ["flush", "ruleset", "", ""],
                    ["delete", "table", "inet", "egressd"],
                ] {
                    let mut nft = Command::new("nft");
                    nft.args(attack.iter().filter(|word| !word.is_empty()));
                    // The first succeeds and leaves the table alone.
                    let _refused = lab.gateway.output(&mut nft);
                    attacks[0] += 1;
                    let mut list = Command::new("nft");
                    list.args(["list", "tables"]);
                    let tables = lab.gateway.output(&mut list)?;
                    attacks[1] +=
                        u32::from(!tables.lines().any(|line| line == "table inet egressd"));
                }
                daemon.restart()?;
                owners.push(owner(&daemon)?);
                // However quick the machine is, there is traffic to lose in each round.
                thread::sleep(Duration::from_millis(200));
            }
            Ok(())
        };
        let done = rounds();
        stop.store(true, Ordering::Relaxed);
        for thread in traffic {
            thread.join().expect("traffic does not panic")?;
        }
        done
    })?;
    let [granted, lost, denied, leaked, _] = counts.read();
    Ok(Outcome {
        owners,
        attacks,
        counts: [granted, lost, denied, leaked],
        words: daemon.words(),
    })
}

/// The port of the socket that owns the table, as `status` tells it.
fn owner(daemon: &Daemon<'_>) -> Result<u64> {
    let status = daemon.ctl(&["status"])?;
    ensure!(status.status.success(), "{}", status.text);
    let planes = status.json["planes"].as_array().context("planes")?;
    let lines = planes
        .iter()
        .filter_map(|plane| plane["attached"].as_array())
        .flatten()
        .filter_map(|line| line.as_str());
    let owner = lines
        .filter_map(|line| line.split_once(", owned by port "))
        .find_map(|(_, rest)| rest.split(';').next()?.parse().ok());
    owner.with_context(|| format!("the table has an owner: {}", status.text))
}
