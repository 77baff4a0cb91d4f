//! An answer, then at once a packet to its address: cold names and cached ones, questions over UDP and
//! TCP, datagrams and connections, from two zones. None of the packets may be lost.
#![expect(
    clippy::disallowed_methods,
    reason = "shell: opens sockets and times itself"
)]

use super::Waits;
use super::chance::Chance;
use crate::lab::wire::{self, Reply};
use crate::lab::{Binaries, Daemon, Echo, Lab, Namespace, Planes, Script, Scripted, plan};
use anyhow::{Context, Result, ensure};
use nix::sys::socket::{setsockopt, sockopt};
use std::collections::BTreeMap;
use std::fmt;
use std::io::{Read, Write};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpStream, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::thread;
use std::time::{Duration, Instant};

/// How much is tried.
#[derive(Clone, Copy, Debug)]
pub struct Plan {
    /// Answers that are followed by a packet: half of them of names never asked before, half of names
    /// that were. At most 1,000,000.
    pub count: u32,
    /// Clients that ask one question after the other, half of them in each zone.
    pub clients: u32,
}

/// One kind of first packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Kind {
    /// Whether the name had been asked before, by anyone.
    pub cached: bool,
    /// Whether the question went over TCP.
    pub stream: bool,
    /// Whether the packet was a TCP SYN instead of a datagram.
    pub connects: bool,
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let word = |yes: bool, this, that| if yes { this } else { that };
        write!(
            f,
            "{:<6} asked over {}, {:<8}",
            word(self.cached, "cached", "cold"),
            word(self.stream, "TCP", "UDP"),
            word(self.connects, "SYN", "datagram"),
        )
    }
}

/// What became of one kind.
#[derive(Clone, Debug, Default)]
pub struct Tally {
    /// How long the answers took.
    pub waits: Waits,
    /// The names whose packet did not come back.
    pub lost: Vec<String>,
    /// Answers without the address, or none at all.
    pub unanswered: u32,
}

/// What was seen.
#[derive(Debug)]
pub struct Outcome {
    /// By kind.
    pub tallies: BTreeMap<Kind, Tally>,
    /// Questions that the upstream saw; beyond one per name they were not the cache's answers.
    pub upstream: u32,
    /// From the first question to the last packet.
    pub took: Duration,
    /// The daemon's last lines.
    pub words: String,
}

impl Outcome {
    /// Answers that did not come or packets that did not come back.
    #[must_use]
    pub fn failures(&self) -> usize {
        let each = |tally: &Tally| tally.lost.len() + tally.unanswered as usize;
        self.tallies.values().map(each).sum()
    }

    /// Answers that were followed by a packet.
    #[must_use]
    pub fn packets(&self) -> usize {
        self.tallies.values().map(|tally| tally.waits.count()).sum()
    }
}

const PORT: u16 = 9000;
/// One in so many first packets opens a connection.
const CONNECTS: u32 = 8;
/// One in so many questions goes over TCP.
const STREAMS: u32 = 4;
/// One in so many names is told over UDP to be asked for over TCP, by the upstream.
const TRUNCATED: u32 = 64;
/// Names of each client that are asked again are among its last so many: the cache holds those.
const RECENT: u32 = 20_000;
/// Longer than any scheduler's pause, shorter than the second after which a SYN is sent again.
const BACK: Duration = Duration::from_millis(900);
const PATIENCE: Duration = Duration::from_secs(5);

/// Runs it.
///
/// # Errors
/// When the lab or the daemon cannot be had.
pub fn run(binaries: &Binaries, planes: Planes, scale: Plan) -> Result<Outcome> {
    ensure!(scale.count <= 1_000_000, "at most 1,000,000");
    ensure!((2..=32).contains(&scale.clients), "2 to 32 clients");
    let lab = Lab::new()?;
    // A full table of flows would lose packets that no filter refused.
    lab.gateway
        .sysctl("net/netfilter/nf_conntrack_udp_timeout", "5")?;
    let asked = Arc::new(AtomicU32::new(0));
    let counter = Arc::clone(&asked);
    let script: Script = Arc::new(move |name: &str| {
        counter.fetch_add(1, Ordering::Relaxed);
        let number = number(name);
        Reply {
            ttl: 3600,
            addresses: number.map(address).into_iter().collect(),
            truncated: number.is_some_and(|number| number.is_multiple_of(TRUNCATED)),
        }
    });
    let _authority = Scripted::start(&lab, &script)?;
    let _echo = Echo::start(&lab.internet, &[PORT], &[PORT])?;
    let zones: String = [("managed", "lan0", 20), ("guests", "lan1", 30)]
        .map(|(zone, interface, net)| {
            format!(
                "[[zone]]\nname = \"{zone}\"\ninterfaces = [\"{interface}\"]\n\
                 sources = [\"10.{net}.0.0/16\"]\n[[zone.rule]]\n\
                 names = [\"*.vendor.example\"]\ntcp = [{PORT}]\nudp = [{PORT}]\n"
            )
        })
        .concat();
    let limits = "[limits]\nlearned = 1000000\nper_client = 1000000\nquestions = 0\n\n";
    let text = Daemon::preamble(&lab, planes).replace("hold = ", "cache_mib = 256\nhold = ");
    let daemon = Daemon::start_with(&lab, binaries, planes, &(text + limits + &zones))?;

    let progress: Vec<AtomicU32> = (0..scale.clients).map(|_| AtomicU32::new(0)).collect();
    let began = Instant::now();
    let tallies = thread::scope(|scope| {
        let run = |index| {
            let namespace = [&lab.client, &lab.other][index as usize % 2];
            let progress = &progress;
            scope.spawn(move || client(namespace, index, scale, progress))
        };
        let running: Vec<_> = (0..scale.clients).map(run).collect();
        let mut all = BTreeMap::<Kind, Tally>::new();
        for client in running {
            let tallies = client
                .join()
                .unwrap_or_else(|panic| std::panic::resume_unwind(panic))?;
            for (kind, tally) in tallies {
                let sum = all.entry(kind).or_default();
                sum.waits.merge(tally.waits);
                sum.lost.extend(tally.lost);
                sum.unanswered += tally.unanswered;
            }
        }
        anyhow::Ok(all)
    })?;
    Ok(Outcome {
        tallies,
        upstream: asked.load(Ordering::Relaxed),
        took: began.elapsed(),
        words: daemon.words(),
    })
}

fn name(number: u32) -> String {
    format!("n{number}.vendor.example")
}

fn number(name: &str) -> Option<u32> {
    name.strip_prefix('n')?
        .strip_suffix(".vendor.example")?
        .parse()
        .ok()
}

fn address(number: u32) -> Ipv4Addr {
    let [_, a, b, c] = number.to_be_bytes();
    [52, 97 + a, b, c].into()
}

/// One client: a cold name, then one that some client has asked before, and so on.
fn client(
    namespace: &Namespace,
    index: u32,
    scale: Plan,
    progress: &[AtomicU32],
) -> Result<BTreeMap<Kind, Tally>> {
    namespace.join()?;
    let mut asker = Asker::new()?;
    let packets = UdpSocket::bind("0.0.0.0:0")?;
    packets.set_read_timeout(Some(BACK))?;
    let mut chance = Chance::new(u64::from(index));
    let share = scale.count / scale.clients / 2;
    let mut tallies = BTreeMap::<Kind, Tally>::new();
    for done in 0..share {
        for cached in [false, true] {
            let number = if cached {
                let other = chance.below(scale.clients);
                let known = progress[other as usize].load(Ordering::Acquire);
                let back = chance.below(known.clamp(1, RECENT));
                // Where that one has asked nothing yet, our own name.
                let (owner, last) = if known == 0 {
                    (index, done)
                } else {
                    (other, known - 1)
                };
                owner * share + last.saturating_sub(back)
            } else {
                index * share + done
            };
            let kind = Kind {
                cached,
                stream: chance.below(STREAMS) == 0,
                connects: chance.below(CONNECTS) == 0,
            };
            let tally = tallies.entry(kind).or_default();
            let began = Instant::now();
            let addresses = asker.ask(&name(number), kind.stream);
            tally.waits.add(began.elapsed());
            match addresses {
                Ok(addresses) if addresses == [address(number)] => {
                    if !comes_back(&packets, addresses[0], number, kind.connects)? {
                        tally.lost.push(name(number));
                    }
                }
                Ok(_) | Err(_) => {
                    tally.unanswered += 1;
                    asker = Asker::new()?;
                }
            }
        }
        progress[index as usize].store(done + 1, Ordering::Release);
    }
    Ok(tallies)
}

fn comes_back(packets: &UdpSocket, to: Ipv4Addr, number: u32, connects: bool) -> Result<bool> {
    let to = SocketAddr::new(IpAddr::V4(to), PORT);
    if connects {
        let Ok(stream) = TcpStream::connect_timeout(&to, BACK) else {
            return Ok(false);
        };
        // Ends with a reset: a million connections in TIME-WAIT would be in each other's way.
        let now = nix::libc::linger {
            l_onoff: 1,
            l_linger: 0,
        };
        setsockopt(&stream, sockopt::Linger, &now)?;
        return Ok(true);
    }
    packets.send_to(&number.to_be_bytes(), to)?;
    let end = Instant::now() + BACK;
    let mut buffer = [0; 4];
    // An echo that was given up on may still come.
    while let Ok((_, from)) = packets.recv_from(&mut buffer) {
        if from == to && buffer == number.to_be_bytes() {
            return Ok(true);
        }
        if Instant::now() > end {
            break;
        }
    }
    Ok(false)
}

/// Asks the gateway, one question after the other.
struct Asker {
    datagrams: UdpSocket,
    stream: Option<TcpStream>,
    id: u16,
}

impl Asker {
    fn new() -> Result<Self> {
        let datagrams = UdpSocket::bind("0.0.0.0:0")?;
        datagrams.connect(resolver())?;
        datagrams.set_read_timeout(Some(PATIENCE))?;
        Ok(Self {
            datagrams,
            stream: None,
            id: 0,
        })
    }

    fn ask(&mut self, name: &str, stream: bool) -> Result<Vec<Ipv4Addr>> {
        self.id = self.id.wrapping_add(1);
        let question = wire::question(self.id, name)?;
        let mut buffer = [0; 4096];
        let length = if stream {
            self.over_stream(&question, &mut buffer)?
        } else {
            self.datagrams.send(&question)?;
            self.datagrams.recv(&mut buffer)?
        };
        let (id, code, reply) = wire::told(&buffer[..length])?;
        ensure!(
            id == self.id && code == wire::NO_ERROR,
            "{name}: code {code}"
        );
        Ok(reply.addresses)
    }

    /// Over a connection that is kept; a server may end it while it is idle.
    fn over_stream(&mut self, question: &[u8], buffer: &mut [u8]) -> Result<usize> {
        for _ in 0..2 {
            let stream = match self.stream.take() {
                Some(stream) => stream,
                None => connect()?,
            };
            if let Ok(length) = exchange(&stream, question, buffer) {
                self.stream = Some(stream);
                return Ok(length);
            }
        }
        anyhow::bail!("no answer over two connections")
    }
}

fn resolver() -> SocketAddr {
    SocketAddr::new(plan::GATEWAY[0], 53)
}

fn connect() -> Result<TcpStream> {
    let stream = TcpStream::connect_timeout(&resolver(), PATIENCE).context("connect over TCP")?;
    stream.set_nodelay(true)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    Ok(stream)
}

fn exchange(mut stream: &TcpStream, question: &[u8], buffer: &mut [u8]) -> Result<usize> {
    let length = u16::try_from(question.len())?.to_be_bytes();
    stream.write_all(&[length.as_slice(), question].concat())?;
    let mut length = [0; 2];
    stream.read_exact(&mut length)?;
    let length = usize::from(u16::from_be_bytes(length));
    let room = buffer.get_mut(..length).context("a short answer")?;
    stream.read_exact(room)?;
    Ok(length)
}
