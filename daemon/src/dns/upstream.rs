//! Lines to the upstream resolvers: a pool of connected UDP sockets on changing random ports, one
//! connection each where needed, and which upstream to ask first.
#![expect(clippy::disallowed_methods, reason = "shell: sockets to the upstreams")]

use super::Shared;
use super::chance::Chance;
use super::connection::{Carrier, Trust, hold};
use super::health::Health;
use super::padding::pad;
use super::remote::Remote;
use super::trouble::Trouble;
use crate::config::{Authority, Transport, Upstream};
use nix::sys::socket::{MsgFlags, recv, send};
use std::collections::BTreeMap;
use std::io;
use std::net::IpAddr;
use std::ops::Range;
use std::os::fd::AsRawFd;
use std::rc::{Rc, Weak};
use std::sync::Arc;
use std::time::Duration;
use tokio::io::Interest;
use tokio::net::UdpSocket;
use tokio::sync::mpsc::{UnboundedSender, unbounded_channel};
use tokio::task::{AbortHandle, spawn_local};

/// UDP sockets, spread over the upstreams of `[dns] upstreams`, and over those of each forward.
const SOCKETS: usize = 64;
const SOCKETS_OF_FORWARD: usize = 16;

/// A socket is replaced, and with it its port, after so many questions or milliseconds.
const MOST_ASKED: u32 = 4096;
const MOST_AGE: u64 = 60_000;

/// Failures in a row after which an upstream is asked last.
const MOST_FAILURES: u32 = 3;

/// How often an upstream that fails is tried all the same, in milliseconds.
const PROBE_EVERY: u64 = 2000;

/// Upstreams of one group that are asked: a round has one bit for each.
const MOST_IN_ROUND: usize = 64;

/// Datagrams taken per wake-up before other sockets have their turn.
const PER_WAKE: usize = 32;

/// One socket to an upstream, for as long as it lives.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Line {
    stream: bool,
    number: u64,
}

impl Line {
    #[cfg(test)]
    pub(super) fn of_test(number: u64) -> Self {
        Self {
            stream: true,
            number,
        }
    }

    /// Whether it is a connection.
    pub(super) fn is_stream(self) -> bool {
        self.stream
    }
}

/// How to ask.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Way {
    Datagram,
    Stream,
}

/// Where to write a question.
pub(super) struct Path {
    pub(super) line: Line,
    to: To,
    padded: bool,
}

enum To {
    Datagram(Rc<UdpSocket>),
    Stream(Queue),
}

/// Where questions wait for a connection.
type Queue = UnboundedSender<Box<[u8]>>;

impl Path {
    /// Whether it was taken.
    pub(super) fn send(&self, message: &[u8]) -> bool {
        match &self.to {
            // Not tokio's `try_send`: it refuses until the driver has seen a new socket once.
            To::Datagram(socket) => {
                send(socket.as_raw_fd(), message, MsgFlags::MSG_DONTWAIT).is_ok()
            }
            To::Stream(queue) if self.padded => queue.send(pad(message).into()).is_ok(),
            To::Stream(queue) => queue.send(message.into()).is_ok(),
        }
    }
}

/// The upstreams, in groups. An index names one of them over all groups.
pub(super) struct Pool {
    peers: Vec<Peer>,
    groups: Vec<Range<usize>>,
    health: Arc<Health>,
    lines: BTreeMap<Line, usize>,
    next_line: u64,
    /// How long an old socket stays open for what was asked over it, in milliseconds.
    linger: u64,
    /// Whether sockets bear the daemon's mark.
    marked: bool,
    shared: WeakShared,
}

struct Peer {
    upstream: Upstream,
    /// `None` when nothing can carry questions there.
    carrier: Option<Carrier>,
    failures: u32,
    probe_at: u64,
    sockets: Vec<Option<Socket>>,
    stream: Option<(Line, Queue)>,
}

struct Socket {
    line: Line,
    socket: Rc<UdpSocket>,
    asked: u32,
    opened: u64,
    reader: AbortHandle,
}

type WeakShared = Weak<std::cell::RefCell<super::engine::Engine>>;

/// Tells the pool whom its sockets' tasks report to.
pub(super) fn wire_up(shared: &Shared) {
    shared.engine.borrow_mut().lookups.pool.shared = Rc::downgrade(&shared.engine);
}

impl Pool {
    /// Group 0 is `[dns] upstreams`, further ones are one for each `[[dns.forward]]`. Of one group at
    /// most 64 are asked. Who may certify the encrypted ones is in `authorities`; `linger` is how long
    /// one of them may take, in milliseconds.
    pub(super) fn new(
        groups: &[Vec<Upstream>],
        authorities: &[Authority<'static>],
        health: Arc<Health>,
        linger: u64,
    ) -> Self {
        let trust = Trust::new(groups, authorities);
        let mut peers = Vec::new();
        let mut ranges = Vec::with_capacity(groups.len());
        for (number, upstreams) in groups.iter().enumerate() {
            let sockets = if number == 0 {
                SOCKETS
            } else {
                SOCKETS_OF_FORWARD
            };
            let each = sockets.div_ceil(upstreams.len().max(1));
            let first = peers.len();
            let peer = |upstream: &Upstream| Peer {
                upstream: upstream.clone(),
                carrier: trust.carrier(upstream),
                failures: 0,
                probe_at: 0,
                sockets: (0..each).map(|_| None).collect(),
                stream: None,
            };
            peers.extend(upstreams.iter().take(MOST_IN_ROUND).map(peer));
            ranges.push(first..peers.len());
        }
        Self {
            peers,
            groups: ranges,
            health,
            lines: BTreeMap::new(),
            next_line: 0,
            linger,
            marked: false,
            shared: Weak::new(),
        }
    }

    /// The same, with sockets that bear the daemon's mark.
    pub(super) fn marked(mut self, marked: bool) -> Self {
        self.marked = marked;
        self
    }

    fn group(&self, group: usize) -> Range<usize> {
        self.groups.get(group).cloned().unwrap_or_default()
    }

    /// How many upstreams `group` has.
    pub(super) fn len(&self, group: usize) -> usize {
        self.group(group).len()
    }

    /// Whether every upstream of `group` is in `round`.
    pub(super) fn all_in(&self, group: usize, round: u64) -> bool {
        round.count_ones() as usize >= self.len(group)
    }

    /// The best upstream of `group` that is not in `round`: one that answers, else the first; and the
    /// round with it. When all are in it a new round begins. `None` for a group of nobody.
    pub(super) fn choose(&mut self, group: usize, round: u64, now: u64) -> Option<(usize, u64)> {
        let round = if self.all_in(group, round) { 0 } else { round };
        let range = self.group(group);
        let bit = |index: usize| 1 << (index - range.start);
        let candidates = || range.clone().filter(|index| round & bit(*index) == 0);
        let well = candidates().find(|index| {
            let peer = &self.peers[*index];
            peer.failures < MOST_FAILURES || peer.probe_at <= now
        });
        let index = well.or_else(|| candidates().next())?;
        self.peers[index].probe_at = now + PROBE_EVERY;
        Some((index, round | bit(index)))
    }

    /// How an upstream is asked first.
    pub(super) fn way(&self, index: usize) -> Way {
        match self.peers.get(index).map(|peer| &peer.upstream.transport) {
            Some(Transport::Tcp | Transport::Tls { .. } | Transport::Https { .. }) => Way::Stream,
            Some(Transport::Udp) | None => Way::Datagram,
        }
    }

    /// A line to the upstream, opened if need be; `None` when that fails.
    pub(super) fn path(
        &mut self,
        index: usize,
        way: Way,
        chance: &mut Chance,
        now: u64,
    ) -> Option<Path> {
        if index >= self.peers.len() {
            return None;
        }
        let path = match way {
            Way::Datagram => self.datagram(index, chance, now),
            Way::Stream => self.stream(index),
        }?;
        self.health.asked(index);
        Some(path)
    }

    fn datagram(&mut self, index: usize, chance: &mut Chance, now: u64) -> Option<Path> {
        let slot = chance.below(self.peers[index].sockets.len());
        let worn = |socket: &Socket| {
            socket.asked >= MOST_ASKED || now.saturating_sub(socket.opened) >= MOST_AGE
        };
        if self.peers[index].sockets[slot].as_ref().is_none_or(worn) {
            let fresh = self.open(index, now);
            if let Err(error) = &fresh {
                self.health.trouble(index, &error.to_string());
            }
            let old = self.peers[index].sockets[slot].replace(fresh.ok()?);
            if let Some(old) = old {
                self.retire(old);
            }
        }
        let socket = self.peers[index].sockets[slot].as_mut()?;
        socket.asked += 1;
        Some(Path {
            line: socket.line,
            to: To::Datagram(Rc::clone(&socket.socket)),
            padded: false,
        })
    }

    fn remote(&self, index: usize) -> Remote {
        Remote {
            address: self.peers[index].upstream.address,
            marked: self.marked,
        }
    }

    fn open(&mut self, index: usize, now: u64) -> io::Result<Socket> {
        let socket = Rc::new(UdpSocket::from_std(self.remote(index).datagrams()?)?);
        let line = self.line(index, false);
        let task = spawn_local(receive(self.shared.clone(), Rc::clone(&socket), line));
        Ok(Socket {
            line,
            socket,
            asked: 0,
            opened: now,
            reader: task.abort_handle(),
        })
    }

    fn line(&mut self, index: usize, stream: bool) -> Line {
        let line = Line {
            stream,
            number: self.next_line,
        };
        self.next_line += 1;
        self.lines.insert(line, index);
        line
    }

    /// Closes a socket once nothing that was asked over it can come any more.
    fn retire(&self, old: Socket) {
        let (shared, linger) = (self.shared.clone(), Duration::from_millis(self.linger));
        spawn_local(async move {
            tokio::time::sleep(linger).await;
            old.reader.abort();
            if let Some(engine) = shared.upgrade() {
                engine.borrow_mut().lookups.pool.lines.remove(&old.line);
            }
        });
    }

    fn stream(&mut self, index: usize) -> Option<Path> {
        let carrier = self.peers[index].carrier.clone()?;
        let padded = carrier.is_encrypted();
        if let Some((line, queue)) = &self.peers[index].stream
            && !queue.is_closed()
        {
            return Some(Path {
                line: *line,
                to: To::Stream(queue.clone()),
                padded,
            });
        }
        let line = self.line(index, true);
        let (queue, messages) = unbounded_channel();
        let remote = self.remote(index);
        let patience = Duration::from_millis(self.linger);
        let shared = self.shared.clone();
        spawn_local(async move {
            let outcome = hold(carrier, remote, messages, patience, |reply| {
                if let Some(engine) = shared.upgrade() {
                    engine.borrow_mut().reply(line, reply);
                }
            })
            .await;
            let Some(engine) = shared.upgrade() else {
                return;
            };
            let mut engine = engine.borrow_mut();
            match outcome {
                Ok(()) => engine.ended(line),
                Err(trouble) => {
                    engine.lookups.pool.trouble(line, &trouble);
                    engine.broken(line);
                }
            }
        });
        self.peers[index].stream = Some((line, queue.clone()));
        Some(Path {
            line,
            to: To::Stream(queue),
            padded,
        })
    }

    /// A connection failed: keeps why. One that cannot be told from an impostor's is out at once.
    fn trouble(&mut self, line: Line, trouble: &Trouble) {
        let Some(index) = self.index(line) else {
            return;
        };
        let what = trouble.to_string();
        log::debug!(target: "upstream", "{}: {what}", self.peers[index].upstream.address);
        self.health.trouble(index, &what);
        if let Trouble::Certificate(_) = trouble {
            self.peers[index].failures = MOST_FAILURES;
        }
    }

    pub(super) fn address(&self, line: Line) -> Option<IpAddr> {
        let index = self.lines.get(&line)?;
        Some(self.peers.get(*index)?.upstream.address.ip())
    }

    /// The upstream answered.
    pub(super) fn answered(&mut self, index: usize) {
        if let Some(peer) = self.peers.get_mut(index) {
            peer.failures = 0;
            self.health.answered(index);
        }
    }

    /// The upstream did not answer in time, or cannot be reached.
    pub(super) fn failed(&mut self, index: usize, now: u64) {
        if let Some(peer) = self.peers.get_mut(index) {
            peer.failures = peer.failures.saturating_add(1);
            peer.probe_at = now + PROBE_EVERY;
            self.health.failed(index, peer.failures >= MOST_FAILURES);
        }
    }

    /// A line ended: a connection that closed, or a socket that the upstream's host refuses.
    pub(super) fn broken(&mut self, line: Line) {
        if line.stream {
            let index = self.lines.remove(&line);
            if let Some(peer) = index.and_then(|index| self.peers.get_mut(index))
                && peer
                    .stream
                    .as_ref()
                    .is_some_and(|(current, _)| *current == line)
            {
                peer.stream = None;
            }
        }
    }

    /// Which upstream a line leads to.
    pub(super) fn index(&self, line: Line) -> Option<usize> {
        self.lines.get(&line).copied()
    }
}

/// Hands what arrives on a socket to the engine.
async fn receive(shared: WeakShared, socket: Rc<UdpSocket>, line: Line) {
    // Upstreams were told 1,232; one that sends more is cut, and so does not parse.
    let mut buffer = [0; 4096];
    loop {
        // A port-unreachable message alone makes a socket erroneous, not readable.
        let Ok(ready) = socket.ready(Interest::READABLE | Interest::ERROR).await else {
            return;
        };
        // Tokio forgets one kind of readiness at a time.
        let interest = if ready.is_readable() {
            Interest::READABLE
        } else {
            Interest::ERROR
        };
        let Some(engine) = shared.upgrade() else {
            return;
        };
        for _ in 0..PER_WAKE {
            let received = socket.try_io(interest, || {
                Ok(recv(
                    socket.as_raw_fd(),
                    &mut buffer,
                    MsgFlags::MSG_DONTWAIT,
                )?)
            });
            match received {
                Ok(length) => engine.borrow_mut().reply(line, &buffer[..length]),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                Err(_) => engine.borrow_mut().broken(line),
            }
        }
    }
}
