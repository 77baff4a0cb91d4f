//! SIGKILL at random instants, while answers are being committed and while the daemon starts. Nothing that
//! is not granted may pass, nothing that is granted may be lost.
#![expect(
    clippy::disallowed_methods,
    reason = "shell: kills, waits and times itself"
)]

use super::Waits;
use super::chance::Chance;
use super::traffic::{Counts, UDP, ask, authority, denied, granted, learn_others, questions};
use crate::lab::{Binaries, Daemon, Echo, Lab, Planes};
use anyhow::{Context, Result};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

/// One in so many kills comes at any time after the start, also before the daemon is ready.
const EARLY: u32 = 3;

/// What was seen.
#[derive(Debug)]
pub struct Outcome {
    /// How often it was killed, and how often of those within 0.4 s of its start,
    /// ready or not.
    pub kills: [u32; 2],
    /// Granted, lost, denied, leaked packets; answers of new names.
    pub counts: [u64; 5],
    /// From a kill until the next answer, where the daemon was started at once and left alone.
    pub again: Waits,
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
        "[limits]\nlearned = 131072\nper_client = 1000000\nquestions = 0\n\n\
         [[zone]]\nname = \"managed\"\ninterfaces = [\"lan0\"]\nsources = [\"10.20.0.0/16\"]\n\
         [[zone.rule]]\nnames = [\"*.vendor.example\"]\nudp = [{UDP}]\n"
    );
    let mut daemon = Daemon::start(&lab, binaries, planes, &zones)?;
    learn_others(&lab.client)?;
    let (counts, stop) = (Counts::default(), AtomicBool::new(false));
    let mut chance = Chance::new(5);
    let mut kills = [0; 2];
    let mut again = Waits::default();
    let (client, counts, stop) = (&lab.client, &counts, &stop);
    thread::scope(|scope| -> Result<()> {
        let traffic = [granted, denied, questions, questions]
            .map(|work| scope.spawn(move || work(client, counts, stop)));
        let mut rounds = || -> Result<()> {
            while kills[0] < count {
                // Whatever it does then.
                thread::sleep(Duration::from_micros(chance.below(60_000).into()));
                let killed = Instant::now();
                daemon.kill()?;
                kills[0] += 1;
                if chance.below(EARLY) == 0 && kills[0] < count {
                    daemon.relaunch()?;
                    thread::sleep(Duration::from_micros(chance.below(400_000).into()));
                    daemon.kill()?;
                    kills[0] += 1;
                    kills[1] += 1;
                    daemon.restart()?;
                    continue;
                }
                daemon.restart()?;
                ask(client, "x1.vendor.example", Duration::from_secs(20))
                    .with_context(|| daemon.words())?;
                again.add(killed.elapsed());
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
    Ok(Outcome {
        kills,
        counts: counts.read(),
        again,
        words: daemon.words(),
    })
}
