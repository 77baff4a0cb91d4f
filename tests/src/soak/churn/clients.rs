//! Clients that ask, and send packets to what they were told at any time within its TTL.
#![expect(
    clippy::disallowed_methods,
    reason = "shell: opens sockets and times itself"
)]

use super::super::chance::Chance;
use super::ledger::Ledger;
use super::names::{Subject, forbidden, is_probed};
use crate::lab::{Namespace, plan, wire};
use anyhow::{Result, ensure};
use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, UdpSocket};
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, Sender};
use std::thread::sleep;
use std::time::{Duration, Instant};

pub(super) const PORT: u16 = 9000;
/// How long an echo may take.
const BACK: Duration = Duration::from_millis(1500);
/// Between two questions of a client.
const PAUSE: Duration = Duration::from_millis(8);
const PATIENCE: Duration = Duration::from_millis(400);
/// After one in so many questions a packet goes where none may go.
const FORBIDDEN: u32 = 10;

/// A packet to be sent.
#[derive(Debug)]
pub(super) struct Probe {
    due: Instant,
    /// When the answer ends; `None` if there was none and the packet must not come back.
    end: Option<Instant>,
    address: Ipv4Addr,
}

/// What one client saw.
#[derive(Debug, Default)]
pub(super) struct Seen {
    /// Questions without an answer.
    pub(super) unanswered: u64,
    /// The longest time without any answer.
    pub(super) silence: Duration,
}

/// What became of a zone's packets.
#[derive(Debug, Default)]
pub(super) struct Tally {
    pub(super) passed: u64,
    pub(super) lost: Vec<String>,
    /// Packets that this process was too late to send.
    pub(super) skipped: u64,
    pub(super) refused: u64,
    pub(super) leaked: Vec<String>,
}

/// Asks until `stop`.
pub(super) fn ask(
    namespace: &Namespace,
    zone: usize,
    seed: u64,
    ledger: &Mutex<Ledger>,
    probes: &Sender<Probe>,
    stop: &AtomicBool,
) -> Result<Seen> {
    namespace.join()?;
    let mut chance = Chance::new(seed);
    let mut seen = Seen::default();
    let mut last = Instant::now();
    let socket = UdpSocket::bind("0.0.0.0:0")?;
    socket.connect(SocketAddr::new(plan::GATEWAY[0], 53))?;
    socket.set_read_timeout(Some(PATIENCE))?;
    let mut id = 0_u16;
    while !stop.load(Ordering::Relaxed) {
        id = id.wrapping_add(1);
        let subject = Subject::any(zone, &mut chance);
        if let Ok((ttl, addresses)) = exchange(&socket, id, &subject.name()) {
            let now = Instant::now();
            seen.silence = seen.silence.max(now - last);
            last = now;
            locked(ledger).told(zone, now, ttl, &addresses);
            let probed: Vec<_> = addresses.into_iter().filter(|a| is_probed(*a)).collect();
            let lifetime = Duration::from_secs(ttl.into());
            if let (Ok(count @ 1..), false) = (u32::try_from(probed.len()), lifetime.is_zero()) {
                let address = probed[chance.below(count) as usize];
                let part = f64::from(chance.below(1000)) / 1000.0;
                // The prober outlives those who ask.
                let _ended = probes.send(Probe {
                    due: now + lifetime.mul_f64(part),
                    end: Some(now + lifetime),
                    address,
                });
            }
        } else {
            seen.unanswered += 1;
        }
        if chance.below(FORBIDDEN) == 0 {
            let address = forbidden(zone, &mut chance);
            let due = Instant::now();
            let _ended = probes.send(Probe {
                due,
                end: None,
                address,
            });
        }
        sleep(PAUSE);
    }
    Ok(seen)
}

fn exchange(socket: &UdpSocket, id: u16, name: &str) -> Result<(u32, Vec<Ipv4Addr>)> {
    socket.send(&wire::question(id, name)?)?;
    let mut buffer = [0; 2048];
    loop {
        let length = socket.recv(&mut buffer)?;
        let (of, code, reply) = wire::told(&buffer[..length])?;
        // One that was given up on may still come.
        if of == id {
            ensure!(code == wire::NO_ERROR && !reply.addresses.is_empty());
            return Ok((reply.ttl, reply.addresses));
        }
    }
}

/// A packet under way, on a socket of its own: another one's flow would carry it past the filter.
struct Flight {
    probe: Probe,
    socket: UdpSocket,
    sent: Instant,
}

/// Sends what comes in, each when it is due, until nobody asks any more.
pub(super) fn probe(
    namespace: &Namespace,
    zone: usize,
    ledger: &Mutex<Ledger>,
    probes: &Receiver<Probe>,
    stop: &AtomicBool,
) -> Result<Tally> {
    namespace.join()?;
    let mut tally = Tally::default();
    let mut waiting = BTreeMap::new();
    let mut flying: Vec<Flight> = Vec::new();
    let mut number = 0_u64;
    while !stop.load(Ordering::Relaxed) || !flying.is_empty() {
        for probe in probes.try_iter() {
            number += 1;
            waiting.insert((probe.due, number), probe);
        }
        while let Some(first) = waiting.first_entry() {
            if first.get().due > Instant::now() || stop.load(Ordering::Relaxed) {
                break;
            }
            let probe = first.remove();
            if probe.end.is_some_and(|end| Instant::now() >= end) {
                tally.skipped += 1;
                continue;
            }
            let socket = UdpSocket::bind("0.0.0.0:0")?;
            socket.set_nonblocking(true)?;
            socket.connect(SocketAddr::new(IpAddr::V4(probe.address), PORT))?;
            let sent = Instant::now();
            // A refusal of the network is a loss, and seen as one.
            let _refused = socket.send(b"churn");
            flying.push(Flight {
                probe,
                socket,
                sent,
            });
        }
        flying.retain(|flight| {
            let back = flight.socket.recv(&mut [0; 8]).is_ok();
            let over = flight.sent.elapsed() > BACK;
            if back || over {
                tally.note(zone, flight, back, &locked(ledger));
            }
            !back && !over
        });
        sleep(Duration::from_millis(1));
    }
    Ok(tally)
}

impl Tally {
    fn note(&mut self, zone: usize, flight: &Flight, back: bool, ledger: &Ledger) {
        let text = |about: String| {
            let address = flight.probe.address;
            let when = ledger.circumstances(flight.sent);
            format!("zone {zone} {address}{about}: {when}")
        };
        match (flight.probe.end, back) {
            (Some(_), true) => self.passed += 1,
            (None, false) => self.refused += 1,
            (None, true) => self.leaked.push(text(String::new())),
            (Some(end), false) => {
                let left = (end - flight.sent).as_millis();
                self.lost.push(text(format!(", {left} ms before its end")));
            }
        }
    }
}

/// The ledger, for as long as one statement needs it.
pub(super) fn locked(ledger: &Mutex<Ledger>) -> std::sync::MutexGuard<'_, Ledger> {
    ledger
        .lock()
        .unwrap_or_else(std::sync::PoisonError::into_inner)
}
