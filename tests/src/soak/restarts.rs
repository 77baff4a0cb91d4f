//! The daemon is restarted, replaced by another build and back, killed and halted, while thousands of flows
//! go on. None of them may be lost, and nothing that is not granted may pass.
#![expect(
    clippy::disallowed_methods,
    reason = "shell: opens sockets, waits and times itself"
)]

use super::Waits;
use super::traffic::{Counts, UDP, address, ask, authority, denied};
use crate::lab::{Binaries, Daemon, Echo, Lab, Namespace, Planes, allow_sockets, unbroken};
use anyhow::{Context, Result, ensure};
use nix::sys::signal::Signal;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::net::{SocketAddr, UdpSocket};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

/// What is done.
#[derive(Clone, Debug)]
pub struct Plan {
    /// How often each way of [`Way`].
    pub rounds: u32,
    /// Flows that are open all the time.
    pub flows: u32,
    /// How long the daemon is halted.
    pub halt: Duration,
    /// Another build; this one once more where there is none.
    pub other: Option<Binaries>,
}

/// A way to make the daemon begin again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Way {
    /// SIGTERM, the same build.
    Restart,
    /// SIGTERM, the other build.
    Upgrade,
    /// SIGTERM, back to the first build.
    Downgrade,
    /// SIGKILL, the same build.
    Kill,
    /// SIGSTOP, and SIGCONT after the time of the plan.
    Halt,
}

impl fmt::Display for Way {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Restart => "restart",
            Self::Upgrade => "other build",
            Self::Downgrade => "and back",
            Self::Kill => "SIGKILL",
            Self::Halt => "SIGSTOP, SIGCONT",
        })
    }
}

/// What was seen.
#[derive(Debug)]
pub struct Outcome {
    /// Until DNS answered again: from the signal, or from SIGCONT.
    pub again: BTreeMap<Way, Waits>,
    /// Datagrams of the flows that were sent, and that did not come back.
    pub flows: [u64; 2],
    /// Flows of which the last datagram did not come back.
    pub dead: u64,
    /// Datagrams to addresses that nothing grants, and that came back.
    pub denied: [u64; 2],
    /// Layouts of maps that were pinned one after the other.
    pub layouts: BTreeSet<String>,
    /// The daemon's last lines.
    pub words: String,
}

/// The flows are to so many names.
const NAMES: u32 = 50;

/// Flows between two pauses of their sender.
const BURST: usize = 16;
const PAUSE: Duration = Duration::from_millis(1);

/// Longer than any pause of the machine.
const BACK: Duration = Duration::from_secs(1);

/// Does all of it.
///
/// # Errors
/// When the lab or the daemon cannot be had, or it does not come back.
pub fn run(binaries: &Binaries, planes: Planes, plan: &Plan) -> Result<Outcome> {
    allow_sockets(u64::from(plan.flows) + 512)?;
    let lab = Lab::new()?;
    let _authority = authority(&lab)?;
    let _echo = Echo::start(&lab.internet, &[], &[UDP])?;
    let zones = format!(
        "[limits]\nper_client = 1000000\nquestions = 0\n\n\
         [[zone]]\nname = \"managed\"\ninterfaces = [\"lan0\"]\nsources = [\"10.20.0.0/16\"]\n\
         [[zone.rule]]\nnames = [\"*.vendor.example\"]\nudp = [{UDP}]\n"
    );
    let mut daemon = Daemon::start(&lab, binaries, planes, &zones)?;
    for number in 0..NAMES {
        ask(&lab.client, &format!("x{number}.vendor.example"), BACK * 5)?;
    }
    let (counts, stop) = (Counts::default(), AtomicBool::new(false));
    let lost = [AtomicU64::new(0), AtomicU64::new(0)];
    let client = &lab.client;
    let mut again: BTreeMap<Way, Waits> = BTreeMap::new();
    let mut layouts = BTreeSet::new();
    let dead = thread::scope(|scope| -> Result<u64> {
        let flows = scope.spawn(|| flows(client, plan.flows, &lost, &stop));
        let leaks = scope.spawn(|| denied(client, &counts, &stop));
        let mut rounds = || -> Result<()> {
            let mut fresh = NAMES;
            for round in 0..plan.rounds {
                for way in [
                    Way::Restart,
                    Way::Upgrade,
                    Way::Downgrade,
                    Way::Kill,
                    Way::Halt,
                ] {
                    if way == Way::Halt && round > 0 {
                        continue;
                    }
                    thread::sleep(BACK / 2);
                    let other = plan.other.as_ref().unwrap_or(binaries);
                    let from = blow(&mut daemon, way, (binaries, other), plan.halt)?;
                    fresh += 1;
                    ask(client, &format!("x{fresh}.vendor.example"), BACK * 20)
                        .with_context(|| format!("{way}, round {round}\n{}", daemon.words()))?;
                    again.entry(way).or_default().add(from.elapsed());
                    layouts.extend(pinned(&lab));
                }
            }
            thread::sleep(BACK);
            Ok(())
        };
        let done = rounds();
        stop.store(true, Ordering::Relaxed);
        leaks.join().expect("traffic does not panic")?;
        let dead = flows.join().expect("traffic does not panic")?;
        done.map(|()| dead)
    })?;
    let [.., sent, leaked, _] = counts.read();
    Ok(Outcome {
        again,
        flows: lost.map(AtomicU64::into_inner),
        dead,
        denied: [sent, leaked],
        layouts,
        words: daemon.words(),
    })
}

/// Does it; since when DNS is waited for.
fn blow(
    daemon: &mut Daemon<'_>,
    way: Way,
    (this, other): (&Binaries, &Binaries),
    halt: Duration,
) -> Result<Instant> {
    let begun = Instant::now();
    match way {
        Way::Restart | Way::Upgrade | Way::Downgrade => {
            let status = daemon.terminate()?;
            ensure!(status.success(), "{way}: {status}\n{}", daemon.words());
        }
        Way::Kill => daemon.kill()?,
        Way::Halt => {
            daemon.signal(Signal::SIGSTOP)?;
            thread::sleep(halt);
            let begun = Instant::now();
            daemon.signal(Signal::SIGCONT)?;
            return Ok(begun);
        }
    }
    match way {
        Way::Upgrade => daemon.replace(other),
        Way::Downgrade => daemon.replace(this),
        Way::Restart | Way::Kill | Way::Halt => {}
    }
    daemon.restart().with_context(|| format!("{way}"))?;
    Ok(begun)
}

/// The names of directories under the pins that are hashes of layouts.
fn pinned(lab: &Lab) -> Vec<String> {
    let Ok(entries) = std::fs::read_dir(lab.pins()) else {
        return Vec::new();
    };
    let names = entries.filter_map(|entry| entry.ok()?.file_name().into_string().ok());
    names.filter(|name| name.len() == 16).collect()
}

/// Keeps `many` flows going until `stop`, and counts datagrams sent and lost; how many are dead at the end.
fn flows(
    namespace: &Namespace,
    many: u32,
    [sent, lost]: &[AtomicU64; 2],
    stop: &AtomicBool,
) -> Result<u64> {
    struct Flow {
        socket: UdpSocket,
        sent: u64,
        back: u64,
    }
    namespace.enter(|| -> Result<u64> {
        let mut flows = Vec::new();
        for number in 0..many {
            let socket = UdpSocket::bind("0.0.0.0:0")?;
            socket.connect(SocketAddr::new(address(number % NAMES).into(), UDP))?;
            socket.set_nonblocking(true)?;
            let (sent, back) = (0, 0);
            flows.push(Flow { socket, sent, back });
        }
        let collect = |flow: &mut Flow| {
            let mut buffer = [0; 8];
            while flow.socket.recv(&mut buffer).is_ok() {
                flow.back += 1;
            }
        };
        while !stop.load(Ordering::Relaxed) {
            for burst in flows.chunks_mut(BURST) {
                for flow in burst {
                    collect(flow);
                    flow.sent += u64::from(flow.socket.send(b"flow").is_ok());
                }
                thread::sleep(PAUSE);
            }
        }
        thread::sleep(BACK);
        flows.iter_mut().for_each(collect);
        let all: u64 = flows.iter().map(|flow| flow.sent).sum();
        let missing: u64 = flows.iter().map(|flow| flow.sent - flow.back).sum();
        sent.store(all, Ordering::Relaxed);
        lost.store(missing, Ordering::Relaxed);
        // One more each, for which there is time.
        let mut dead = 0;
        for flow in &mut flows {
            flow.socket.set_nonblocking(false)?;
            flow.socket.set_read_timeout(Some(BACK))?;
            let lives = flow.socket.send(b"last").is_ok()
                && unbroken(|| flow.socket.recv(&mut [0; 8])).is_ok();
            dead += u64::from(!lives);
        }
        Ok(dead)
    })?
}
