//! TTL churn: rotating pools, cache hits, own look-ups and prefetch, while the ruleset is flushed and
//! the daemon killed. Is everything that was told let through for as long as it was told, and is
//! nothing there that was never answered?
#![expect(
    clippy::disallowed_methods,
    reason = "shell: kills, flushes and times itself"
)]

mod clients;
mod kernel;
mod ledger;
mod names;

use crate::lab::{Binaries, Daemon, Echo, Lab, Planes, Script, Scripted};
use anyhow::Result;
use clients::locked;
use kernel::Comparison;
use ledger::{Event, Ledger};
use std::collections::BTreeMap;
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, mpsc};
use std::thread;
use std::time::{Duration, Instant};

/// How much is tried. TTLs are 1 to 5 s, a sixtieth of 1 to 5 minutes, so a second stands for a minute.
#[derive(Clone, Copy, Debug)]
pub struct Plan {
    /// How long, in seconds. The daemon is killed three times in the last quarter.
    pub seconds: u32,
    /// Clients per zone that ask without pause.
    pub clients: u32,
    /// Whether `nft flush ruleset` is run every second.
    pub flush: bool,
    /// `[limits] grace`, in seconds.
    pub grace: u32,
}

/// What was seen.
#[derive(Debug)]
pub struct Outcome {
    /// Answers that clients got, and questions that got none.
    pub answers: [u64; 2],
    /// Questions that the authority saw.
    pub upstream: u64,
    /// The longest time a client went without an answer.
    pub silence: Duration,
    /// Seconds for which an address was told to a client, summed up.
    pub told_seconds: f64,
    /// Packets to told addresses that came back.
    pub passed: u64,
    /// Those that did not, with what went on.
    pub lost: Vec<String>,
    /// Packets that were not sent in time by this process.
    pub skipped: u64,
    /// Packets to addresses that the zone may not reach and that did not come back.
    pub refused: u64,
    /// Those that did, with what went on.
    pub leaked: Vec<String>,
    /// Reads of the kernel's sets, and of the daemon's grants.
    pub reads: [u64; 2],
    /// Reads that found no table, and no daemon.
    pub absent: [u64; 2],
    /// Elements in those reads.
    pub elements: [u64; 2],
    /// Those that were never answered.
    pub extra: Vec<String>,
    /// Elements that no packet used in reads before the first kill, and the longest that one of them
    /// outlived the last answer with it.
    pub unused: (u64, Duration),
    /// What the daemon says of the first that stayed far too long.
    pub overdue: Option<String>,
    /// Flushes and kills.
    pub blows: [u32; 2],
    /// The daemon's last lines.
    pub words: String,
}

impl Outcome {
    /// Seconds for which told addresses were closed, as far as the packets are a fair sample.
    #[expect(clippy::cast_precision_loss, reason = "an estimate")]
    #[must_use]
    pub fn closed_seconds(&self) -> f64 {
        let lost = self.lost.len() as f64;
        self.told_seconds * lost / (lost + self.passed as f64).max(1.0)
    }
}

/// Name, interface and network of each.
const ZONES: [(&str, &str, u8); 2] = [("first", "lan0", 20), ("second", "lan1", 30)];
/// Stands for a minute.
const MINUTE: Duration = Duration::from_secs(1);
/// Between two reads of what is granted.
const LOOK: Duration = Duration::from_millis(400);

/// Runs it.
///
/// # Errors
/// When the lab or the daemon cannot be had, or the daemon does not come back.
pub fn run(binaries: &Binaries, planes: Planes, scale: Plan) -> Result<Outcome> {
    let lab = Lab::new()?;
    let ledger = Arc::new(Mutex::new(Ledger::default()));
    let _authority = Scripted::start(&lab, &script(Arc::clone(&ledger)))?;
    let _echo = Echo::start(&lab.internet, &[], &[clients::PORT])?;
    let mut daemon = Daemon::start(&lab, binaries, planes, &rules(scale.grace))?;
    locked(&ledger).happened(Instant::now(), Event::Start);
    let (stop, settled) = (AtomicBool::new(false), AtomicBool::new(false));
    let mut comparison = Comparison::default();
    let mut blows = [0, 0];
    let (seen, tallies) = thread::scope(|scope| {
        let (ledger, stop, settled) = (&*ledger, &stop, &settled);
        let (mut asking, mut probing) = (Vec::new(), Vec::new());
        for (zone, namespace) in [&lab.client, &lab.other].into_iter().enumerate() {
            let (sender, receiver) = mpsc::channel();
            probing.push(
                scope.spawn(move || clients::probe(namespace, zone, ledger, &receiver, settled)),
            );
            for number in 0..scale.clients {
                let (sender, seed) = (sender.clone(), u64::from(number) * 2 + zone as u64);
                asking.push(
                    scope.spawn(move || clients::ask(namespace, zone, seed, ledger, &sender, stop)),
                );
            }
        }
        let worked = trouble(
            &lab,
            &mut daemon,
            scale,
            ledger,
            &mut comparison,
            &mut blows,
        );
        // First those who ask, so that a packet is not counted whose answer was the last.
        stop.store(true, Ordering::Relaxed);
        let seen = asking.into_iter().map(joined).collect::<Result<Vec<_>>>();
        settled.store(true, Ordering::Relaxed);
        let tallies = probing.into_iter().map(joined).collect::<Result<Vec<_>>>();
        worked?;
        anyhow::Ok((seen?, tallies?))
    })?;
    let ledger = locked(&ledger);
    let sum = |part: fn(&clients::Tally) -> u64| tallies.iter().map(part).sum();
    let texts = |part: fn(&clients::Tally) -> &Vec<String>| tallies.iter().flat_map(part).cloned();
    Ok(Outcome {
        answers: [ledger.answers, seen.iter().map(|one| one.unanswered).sum()],
        upstream: ledger.upstream,
        silence: seen.iter().map(|one| one.silence).max().unwrap_or_default(),
        told_seconds: ledger.seconds,
        passed: sum(|tally| tally.passed),
        lost: texts(|tally| &tally.lost).collect(),
        skipped: sum(|tally| tally.skipped),
        refused: sum(|tally| tally.refused),
        leaked: texts(|tally| &tally.leaked).collect(),
        reads: comparison.reads,
        absent: comparison.absent,
        elements: comparison.elements,
        extra: comparison.extra.into_iter().collect(),
        unused: (comparison.unused, comparison.overstay),
        overdue: comparison.example,
        blows,
        words: daemon.words(),
    })
}

fn joined<T>(running: thread::ScopedJoinHandle<'_, Result<T>>) -> Result<T> {
    running
        .join()
        .unwrap_or_else(|panic| std::panic::resume_unwind(panic))
}

fn script(ledger: Arc<Mutex<Ledger>>) -> Script {
    let turns = Mutex::new(BTreeMap::new());
    Arc::new(move |name: &str| {
        let Some(subject) = names::Subject::read(name) else {
            return crate::lab::wire::Reply::default();
        };
        let turn = {
            let mut turns = turns
                .lock()
                .unwrap_or_else(std::sync::PoisonError::into_inner);
            let turn = turns.entry(subject).or_insert(0);
            *turn += 1;
            *turn
        };
        let reply = subject.reply(turn);
        locked(&ledger).answered(Instant::now(), reply.ttl, &reply.addresses);
        reply
    })
}

fn rules(grace: u32) -> String {
    let mut text =
        format!("[limits]\nttl_floor = 1\ngrace = {grace}\nidle = 1\nper_client = 1000000\n\n");
    for (zone, interface, net) in ZONES {
        text += &format!(
            "[[zone]]\nname = \"{zone}\"\ninterfaces = [\"{interface}\"]\n\
             sources = [\"10.{net}.0.0/16\"]\n[[zone.rule]]\n\
             names = [\"*.shared.example\"]\nudp = [{}]\n",
            clients::PORT
        );
        if zone == ZONES[0].0 {
            let exact: String = (0..names::EXACT)
                .map(|number| format!(", \"n{number}.exact.example\""))
                .collect();
            text += &format!(
                "[[zone.rule]]\nnames = [\"*.first.example\"{exact}]\nudp = [{}]\n",
                clients::PORT
            );
        }
    }
    text
}

/// Flushes and kills at their times, and looks at what is granted in between.
fn trouble(
    lab: &Lab,
    daemon: &mut Daemon<'_>,
    scale: Plan,
    ledger: &Mutex<Ledger>,
    comparison: &mut Comparison,
    [flushes, kills]: &mut [u32; 2],
) -> Result<()> {
    let began = Instant::now();
    let whole = Duration::from_secs(scale.seconds.into());
    let flush = || -> Result<()> {
        locked(ledger).happened(Instant::now(), Event::Flush);
        lab.gateway
            .output(Command::new("nft").args(["flush", "ruleset"]))?;
        Ok(())
    };
    let mut next_flush = MINUTE;
    // On a slow machine the kills come late, but they come.
    while began.elapsed() < whole || *kills < 3 {
        if *kills < 3 && began.elapsed() > whole / 12 * (9 + *kills) {
            *kills += 1;
            locked(ledger).happened(Instant::now(), Event::Kill);
            daemon.kill()?;
            // The second time nobody is there to repair it.
            if scale.flush && *kills == 2 {
                flush()?;
                *flushes += 1;
                thread::sleep(MINUTE / 2);
            }
            daemon.restart()?;
            locked(ledger).happened(Instant::now(), Event::Ready);
        }
        if scale.flush && began.elapsed() >= next_flush {
            next_flush += MINUTE;
            flush()?;
            *flushes += 1;
        }
        comparison.read(lab, daemon, ledger)?;
        let rest = if scale.flush {
            next_flush.saturating_sub(began.elapsed())
        } else {
            LOOK
        };
        thread::sleep(rest.min(LOOK));
    }
    Ok(())
}
