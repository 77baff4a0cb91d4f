//! Forged replies, each wrong in one thing, before and after the true ones. None may teach anything,
//! and the true ones must win.
#![expect(
    clippy::disallowed_methods,
    reason = "shell: opens sockets and times itself"
)]

mod field;
mod forger;

pub use field::Field;

use super::Waits;
use crate::lab::wire::{self, Reply};
use crate::lab::{Binaries, Daemon, Echo, Lab, Planes, Script, Scripted, plan, until};
use anyhow::{Result, ensure};
use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, UdpSocket};
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

/// How much is tried.
#[derive(Clone, Copy, Debug)]
pub struct Plan {
    /// Forged replies, about.
    pub count: u32,
    /// Adds to each question a forgery that is right in all: it must be seen to be learned.
    pub perfect: bool,
}

/// What was seen.
#[derive(Debug)]
pub struct Outcome {
    /// Forged replies sent, by what was wrong with them.
    pub forged: BTreeMap<Field, u64>,
    /// Those that the daemon says it saw and ignored. Wrong sources and closed ports do not reach it.
    pub ignored: u64,
    /// Forged addresses that nft's sets hold, that the daemon calls granted, that clients were told of,
    /// and that let a packet through (of all 65,536 that forgeries told of).
    pub learned: [u64; 4],
    /// Questions, and those whose true answer did not come.
    pub answers: [u64; 2],
    /// How long answers took without forgeries, and with them.
    pub waits: [Waits; 2],
    /// How long the true reply was held back while forgeries were sent.
    pub held: Waits,
    /// The daemon's last lines.
    pub words: String,
}

const PORT: u16 = 9000;
/// Forgeries of each kind for one question: together they fit into the socket's buffer.
const EACH: u32 = 8;
const CLIENTS: u32 = 4;
const PATIENCE: Duration = Duration::from_secs(8);

/// Runs it.
///
/// # Errors
/// When the lab or the daemon cannot be had.
pub fn run(binaries: &Binaries, planes: Planes, scale: Plan) -> Result<Outcome> {
    let lab = Lab::new()?;
    let script: Script = Arc::new(|name: &str| Reply {
        ttl: 3600,
        addresses: number(name)
            .map(|(number, _)| truth(number))
            .into_iter()
            .collect(),
        truncated: false,
    });
    let _streams = Scripted::streams(&lab, &script)?;
    let _echo = Echo::start(&lab.internet, &[], &[PORT])?;
    let rules = format!(
        "[limits]\nper_client = 1000000\nquestions = 0\n\n[[zone]]\nname = \"managed\"\ninterfaces = [\"lan0\"]\nsources = [\"10.20.0.0/16\"]\n\
         [[zone.rule]]\nnames = [\"*.victim.example\"]\nudp = [{PORT}]\n"
    );
    let orders = forger::Orders {
        each: EACH,
        perfect: scale.perfect,
    };
    let (ready, stop) = (AtomicBool::new(false), AtomicBool::new(false));
    thread::scope(|scope| {
        let forging = scope.spawn(|| forger::answer(&lab, orders, &ready, &stop));
        let seen = until(PATIENCE, "the upstream listens", || {
            Ok(ready.load(Ordering::Relaxed).then_some(()))
        })
        .and_then(|()| Daemon::start(&lab, binaries, planes, &rules))
        .and_then(|daemon| asking(&lab, &daemon, planes, scale));
        stop.store(true, Ordering::Relaxed);
        let sent = forging
            .join()
            .unwrap_or_else(|panic| std::panic::resume_unwind(panic))?;
        let seen = seen?;
        Ok(Outcome {
            forged: sent.forged,
            held: sent.held,
            ..seen
        })
    })
}

fn asking(lab: &Lab, daemon: &Daemon<'_>, planes: Planes, scale: Plan) -> Result<Outcome> {
    let kinds = u32::try_from(Field::MANY.len())?;
    let share = scale.count.div_ceil(EACH * kinds * CLIENTS);
    let mut outcome = Outcome {
        forged: BTreeMap::new(),
        ignored: 0,
        learned: [0; 4],
        answers: [0; 2],
        waits: [Waits::default(), Waits::default()],
        held: Waits::default(),
        words: String::new(),
    };
    for (phase, letter) in ['q', 'v'].into_iter().enumerate() {
        let asked = thread::scope(|scope| {
            let clients: Vec<_> = (0..CLIENTS)
                .map(|index| scope.spawn(move || client(lab, letter, index * share, share)))
                .collect();
            let joined = clients.into_iter().map(|client| {
                client
                    .join()
                    .unwrap_or_else(|panic| std::panic::resume_unwind(panic))
            });
            joined.collect::<Result<Vec<_>>>()
        })?;
        for seen in asked {
            outcome.waits[phase].merge(seen.waits);
            outcome.answers[0] += u64::from(share);
            outcome.answers[1] += seen.missing;
            outcome.learned[2] += seen.forged;
        }
    }
    let count = |text: &str| text.matches("\"52.200.").count() as u64;
    if planes.nft() {
        let mut list = Command::new("nft");
        list.args(["-j", "list", "table", "inet", "egressd"]);
        let text = lab.gateway.output(&mut list)?;
        ensure!(
            text.contains("\"52.97.0.1\""),
            "nft does not list what is true"
        );
        outcome.learned[0] = count(&text);
    }
    let told = daemon.ctl(&["grants"])?;
    ensure!(told.text.contains("\"52.97.0.1\""), "{}", told.text);
    outcome.learned[1] = count(&told.text);
    outcome.learned[3] = lab.client.enter(passing)??;
    outcome.ignored = daemon.ctl(&["status"])?.json["dns"]["forgeries"]
        .as_u64()
        .unwrap_or_default();
    outcome.words = daemon.words();
    Ok(outcome)
}

fn truth(number: u32) -> Ipv4Addr {
    let [_, a, b, c] = number.to_be_bytes();
    Ipv4Addr::new(52, 97 + a, b, c)
}

/// The number in a name, and whether forgeries meet the question for it.
fn number(name: &str) -> Option<(u32, bool)> {
    let label = name.strip_suffix(".victim.example")?;
    let forged = label.starts_with('v');
    let number = label.strip_prefix(['v', 'q'])?.parse().ok()?;
    Some((number, forged))
}

#[derive(Default)]
struct Seen {
    waits: Waits,
    missing: u64,
    forged: u64,
}

fn client(lab: &Lab, letter: char, first: u32, count: u32) -> Result<Seen> {
    lab.client.join()?;
    let socket = UdpSocket::bind("0.0.0.0:0")?;
    socket.connect(SocketAddr::new(plan::GATEWAY[0], 53))?;
    socket.set_read_timeout(Some(PATIENCE))?;
    let mut seen = Seen::default();
    let mut buffer = [0; 2048];
    for number in first..first + count {
        let id = u16::try_from(number % 0x1_0000)?;
        let question = wire::question(id, &format!("{letter}{number}.victim.example"))?;
        let began = Instant::now();
        socket.send(&question)?;
        let told = socket.recv(&mut buffer).map(|n| wire::told(&buffer[..n]));
        seen.waits.add(began.elapsed());
        let addresses = match told {
            Ok(Ok((of, wire::NO_ERROR, reply))) if of == id => reply.addresses,
            Ok(_) | Err(_) => Vec::new(),
        };
        if addresses != [truth(number)] {
            seen.missing += 1;
        }
        let forged = addresses.iter().filter(|a| a.octets()[1] == 200);
        seen.forged += forged.count() as u64;
    }
    Ok(seen)
}

/// How many of all forged addresses let a packet through.
fn passing() -> Result<u64> {
    let socket = UdpSocket::bind("0.0.0.0:0")?;
    socket.set_read_timeout(Some(Duration::from_millis(500)))?;
    let mut buffer = [0; 8];
    let control = SocketAddr::new(IpAddr::V4(truth(1)), PORT);
    socket.send_to(b"true", control)?;
    ensure!(
        socket
            .recv_from(&mut buffer)
            .is_ok_and(|(_, from)| from == control),
        "a true address does not let packets through"
    );
    socket.set_nonblocking(true)?;
    let mut passed = 0;
    for number in 0..=u16::MAX {
        // Refusals may come back as errors of any call.
        let _refused = socket.send_to(b"forged", (forger::bait(number), PORT));
        passed += u64::from(socket.recv_from(&mut buffer).is_ok());
    }
    socket.set_nonblocking(false)?;
    while socket.recv_from(&mut buffer).is_ok() {
        passed += 1;
    }
    Ok(passed)
}
