//! The upstream, and on the same wire one who answers in its name before and after it does.
#![expect(
    clippy::disallowed_methods,
    reason = "shell: opens sockets and times itself"
)]

use super::super::Waits;
use super::super::chance::Chance;
use super::field::Field;
use super::{number, truth};
use crate::lab::{Lab, plan, wire};
use anyhow::Result;
use std::collections::{BTreeMap, VecDeque};
use std::net::{Ipv4Addr, SocketAddr, UdpSocket};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

/// What is sent for each question.
#[derive(Clone, Copy, Debug)]
pub(super) struct Orders {
    /// Forgeries of each of [`Field::MANY`].
    pub(super) each: u32,
    /// Whether one of them is right in all.
    pub(super) perfect: bool,
}

/// What was sent.
#[derive(Debug, Default)]
pub(super) struct Sent {
    pub(super) forged: BTreeMap<Field, u64>,
    /// How long the true reply was held back by the forgeries before it.
    pub(super) held: Waits,
}

/// One question in this many meets a truncated forgery: the rest of it happens over TCP.
const TRUNCATED: u32 = 16;
/// Ports of the daemon's that are remembered.
const PORTS: usize = 64;

struct Forger {
    /// The upstream's own.
    upstream: UdpSocket,
    stranger: UdpSocket,
    port: UdpSocket,
    chance: Chance,
    /// Where other questions came from.
    ports: VecDeque<SocketAddr>,
    baits: u16,
    sent: Sent,
}

/// An address that no true answer has.
pub(super) fn bait(number: u16) -> Ipv4Addr {
    let [high, low] = number.to_be_bytes();
    Ipv4Addr::new(52, 200, high, low)
}

/// Answers until `stop`.
pub(super) fn answer(
    lab: &Lab,
    orders: Orders,
    ready: &AtomicBool,
    stop: &AtomicBool,
) -> Result<Sent> {
    lab.internet.join()?;
    let bound = |address, port| UdpSocket::bind(SocketAddr::new(address, port));
    let mut forger = Forger {
        upstream: bound(plan::UPSTREAM, 53)?,
        stranger: bound(plan::STRANGERS[0], 53)?,
        port: bound(plan::UPSTREAM, 5353)?,
        chance: Chance::new(1),
        ports: VecDeque::new(),
        baits: 0,
        sent: Sent::default(),
    };
    let glance = Duration::from_millis(50);
    forger.upstream.set_read_timeout(Some(glance))?;
    ready.store(true, Ordering::Relaxed);
    let mut buffer = [0; 2048];
    while !stop.load(Ordering::Relaxed) {
        if let Ok((length, from)) = forger.upstream.recv_from(&mut buffer) {
            forger.question(&buffer[..length], from, orders)?;
        }
    }
    Ok(forger.sent)
}

impl Forger {
    fn question(&mut self, question: &[u8], from: SocketAddr, orders: Orders) -> Result<()> {
        let (name, kind, end) = wire::asked(question)?;
        let began = Instant::now();
        let subject = number(&name).filter(|_| kind == wire::A);
        let reply = wire::Reply {
            ttl: 3600,
            addresses: subject
                .map(|(number, _)| truth(number))
                .into_iter()
                .collect(),
            truncated: false,
        };
        let mut reply = wire::response(question, end, &reply, false);
        if !subject.is_some_and(|(_, forged)| forged) {
            self.upstream.send_to(&reply, from)?;
            return Ok(());
        }
        for field in Field::MANY {
            if field != Field::Late {
                self.burst(field, question, end, from, orders.each)?;
            }
        }
        if orders.perfect {
            self.burst(Field::Nothing, question, end, from, 1)?;
        }
        if self.chance.below(TRUNCATED) == 0 {
            // It ends the question over UDP; the true reply comes over TCP.
            self.burst(Field::Truncated, question, end, from, 1)?;
        } else {
            // One record of the authority section, one of the additional.
            reply[9] = 1;
            reply[11] = 1;
            for _ in 0..2 {
                let address = self.next_bait();
                wire::record(&mut reply, 3600, address);
            }
            self.upstream.send_to(&reply, from)?;
            *self.sent.forged.entry(Field::Bait).or_default() += 1;
        }
        self.sent.held.add(began.elapsed());
        self.burst(Field::Late, question, end, from, orders.each)?;
        if !self.ports.contains(&from) {
            self.ports.push_back(from);
        }
        if self.ports.len() > PORTS {
            self.ports.pop_front();
        }
        Ok(())
    }

    fn next_bait(&mut self) -> Ipv4Addr {
        self.baits = self.baits.wrapping_add(1);
        bait(self.baits)
    }

    fn burst(
        &mut self,
        field: Field,
        question: &[u8],
        end: usize,
        from: SocketAddr,
        count: u32,
    ) -> Result<()> {
        for _ in 0..count {
            let address = self.next_bait();
            let message = field.forge(question, end, address, &mut self.chance);
            let to = if matches!(field, Field::Socket | Field::Blind) {
                self.other_port(from, field == Field::Blind)
            } else {
                Some(from)
            };
            let Some(to) = to else { continue };
            let socket = if field == Field::SourceAddress {
                &self.stranger
            } else if field == Field::SourcePort {
                &self.port
            } else {
                &self.upstream
            };
            match socket.send_to(&message, to) {
                Ok(_) => *self.sent.forged.entry(field).or_default() += 1,
                // What was sent before met a closed port.
                Err(error) if error.kind() == std::io::ErrorKind::ConnectionRefused => {}
                Err(error) => return Err(error.into()),
            }
        }
        Ok(())
    }

    /// A port that other questions came from; with `any` it may be this one's, and half of the time is
    /// just any.
    fn other_port(&mut self, from: SocketAddr, any: bool) -> Option<SocketAddr> {
        if any && self.chance.below(2) == 0 {
            let port = u16::try_from(1024 + self.chance.below(64_512)).expect("below 65,536");
            return Some(SocketAddr::new(from.ip(), port));
        }
        let count = u32::try_from(self.ports.len()).ok().filter(|n| *n > 0)?;
        let port = self.ports[self.chance.below(count) as usize];
        (any || port != from).then_some(port)
    }
}
