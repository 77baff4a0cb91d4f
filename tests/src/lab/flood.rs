//! Clients that want everything, and one that wants little and says how it fared.
#![expect(
    clippy::disallowed_methods,
    reason = "shell: opens sockets and times itself"
)]

use super::{Answer, Namespace};
use anyhow::{Context, Result, ensure};
use hickory_proto::op::{Message, MessageType, OpCode, Query};
use hickory_proto::rr::{Name, RecordType};
use nix::errno::Errno;
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use nix::sys::socket::{
    AddressFamily, MsgFlags, SockFlag, SockType, SockaddrStorage, bind, connect, recv, send, socket,
};
use std::io::{Read, Write};
use std::net::{IpAddr, SocketAddr, TcpStream, UdpSocket};
use std::os::fd::{AsRawFd, OwnedFd};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::sleep;
use std::time::{Duration, Instant};

/// A message that asks for the A records of `name`.
///
/// # Errors
/// When it is no name.
pub fn question(id: u16, name: &str) -> Result<Vec<u8>> {
    let mut message = Message::new(id, MessageType::Query, OpCode::Query);
    message.metadata.recursion_desired = true;
    message.add_query(Query::query(Name::from_ascii(name)?, RecordType::A));
    Ok(message.to_vec()?)
}

/// Lets this process have `many` sockets open.
///
/// # Errors
/// When it may not.
pub fn allow_sockets(many: u64) -> Result<()> {
    let (soft, hard) = getrlimit(Resource::RLIMIT_NOFILE)?;
    let wanted = many + 256;
    if soft < wanted {
        setrlimit(Resource::RLIMIT_NOFILE, wanted, hard.max(wanted))
            .with_context(|| format!("{wanted} open files"))?;
    }
    Ok(())
}

/// Holds `count` TCP connections to `server` open until `stop`, evenly from `sources` (addresses of
/// this namespace), each with half a message sent, and opens anew those that are closed. Counts in
/// `opened` how often one was opened.
///
/// # Errors
/// When no socket can be had.
pub fn hold_slowly(
    server: SocketAddr,
    sources: &[IpAddr],
    count: usize,
    opened: &AtomicU64,
    stop: &AtomicBool,
) -> Result<()> {
    let to = SockaddrStorage::from(server);
    let mut slots: Vec<Option<(OwnedFd, bool)>> = Vec::new();
    slots.resize_with(count, || None);
    while !stop.load(Ordering::Relaxed) {
        for (slot, source) in slots.iter_mut().zip(sources.iter().cycle()) {
            let Some((fd, told)) = slot else {
                let family = if source.is_ipv4() {
                    AddressFamily::Inet
                } else {
                    AddressFamily::Inet6
                };
                let fd = socket(family, SockType::Stream, SockFlag::SOCK_NONBLOCK, None)?;
                bind(
                    fd.as_raw_fd(),
                    &SockaddrStorage::from(SocketAddr::new(*source, 0)),
                )?;
                match connect(fd.as_raw_fd(), &to) {
                    Ok(()) | Err(Errno::EINPROGRESS) => *slot = Some((fd, false)),
                    // Out of ports, or too many waiting: in the next round.
                    Err(_) => {}
                }
                continue;
            };
            if !*told {
                // A length of 40 bytes, and never those bytes.
                match send(fd.as_raw_fd(), &[0, 40, 1], MsgFlags::MSG_NOSIGNAL) {
                    Ok(_) => {
                        *told = true;
                        opened.fetch_add(1, Ordering::Relaxed);
                    }
                    Err(Errno::EAGAIN | Errno::ENOTCONN) => {}
                    Err(_) => *slot = None,
                }
                continue;
            }
            match recv(fd.as_raw_fd(), &mut [0; 16], MsgFlags::MSG_DONTWAIT) {
                Err(Errno::EAGAIN) => {}
                Ok(_) | Err(_) => *slot = None,
            }
        }
        sleep(Duration::from_millis(5));
    }
    Ok(())
}

/// Sends `rate` questions for `name` a second to `server` until `stop`, from `source`, whatever comes
/// back. Gives how many it sent.
///
/// # Errors
/// When no socket can be had.
pub fn ask_madly(
    server: SocketAddr,
    source: IpAddr,
    name: &str,
    rate: u64,
    stop: &AtomicBool,
) -> Result<u64> {
    let socket = UdpSocket::bind(SocketAddr::new(source, 0))?;
    socket.connect(server)?;
    let message = question(7, name)?;
    let began = Instant::now();
    let mut sent = 0;
    while !stop.load(Ordering::Relaxed) {
        let millis = u64::try_from(began.elapsed().as_millis())?;
        // What it is behind by more than a tenth of a second it leaves out.
        let due = millis * rate / 1000;
        for _ in 0..due.saturating_sub(sent).min(rate / 10) {
            // A full queue of its own is as good as sent: the next round makes up for it.
            if socket.send(&message).is_ok() {
                sent += 1;
            }
        }
        sleep(Duration::from_millis(1));
    }
    Ok(sent)
}

/// How questions fared.
#[derive(Clone, Debug, Default)]
pub struct Fared {
    /// How many were asked.
    pub asked: usize,
    /// How many were not answered well within the patience.
    pub lost: usize,
    /// Why the last of them was not.
    pub why: Option<String>,
    /// How long the others took, sorted.
    pub waits: Vec<Duration>,
}

impl Fared {
    /// The wait that `part` of a thousand do not exceed.
    #[must_use]
    pub fn quantile(&self, part: usize) -> Duration {
        let last = self.waits.len().saturating_sub(1);
        let wait = self.waits.get(last * part / 1000);
        wait.copied().unwrap_or_default()
    }

    fn took(&mut self, wait: Result<Duration>) {
        self.asked += 1;
        match wait {
            Ok(wait) => self.waits.push(wait),
            Err(error) => {
                self.lost += 1;
                self.why = Some(format!("{error:#}"));
            }
        }
    }
}

/// How long the polite client waits for an answer.
const PATIENCE: Duration = Duration::from_secs(3);

/// Asks for `name` over UDP and, where `tcp`, over a new TCP connection each time, every `pause` for
/// `time`, from inside `namespace`. What it gives is in this order.
///
/// # Errors
/// When the namespace cannot be entered.
pub fn ask_politely(
    namespace: &Namespace,
    server: SocketAddr,
    name: &str,
    pause: Duration,
    time: Duration,
    tcp: bool,
) -> Result<[Fared; 2]> {
    namespace.enter(|| {
        let [mut over_udp, mut over_tcp] = [Fared::default(), Fared::default()];
        let end = Instant::now() + time;
        let mut next = Instant::now();
        while Instant::now() < end {
            over_udp.took(udp_once(server, name));
            if tcp {
                over_tcp.took(tcp_once(server, name));
            }
            next += pause;
            sleep(next.saturating_duration_since(Instant::now()));
        }
        over_udp.waits.sort_unstable();
        over_tcp.waits.sort_unstable();
        [over_udp, over_tcp]
    })
}

fn udp_once(server: SocketAddr, name: &str) -> Result<Duration> {
    let any = if server.is_ipv4() {
        "0.0.0.0:0"
    } else {
        "[::]:0"
    };
    let socket = UdpSocket::bind(any)?;
    socket.connect(server)?;
    socket.set_read_timeout(Some(PATIENCE))?;
    let began = Instant::now();
    let answer = Answer::over(&socket, 4711, name, RecordType::A)?;
    ensure!(!answer.addresses.is_empty(), "{answer:?}");
    Ok(began.elapsed())
}

fn tcp_once(server: SocketAddr, name: &str) -> Result<Duration> {
    let began = Instant::now();
    let mut stream = TcpStream::connect_timeout(&server, PATIENCE)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.set_nodelay(true)?;
    let message = question(4711, name)?;
    let length = u16::try_from(message.len())?.to_be_bytes();
    stream.write_all(&[&length[..], &message].concat())?;
    let mut length = [0; 2];
    stream.read_exact(&mut length)?;
    let mut reply = vec![0; usize::from(u16::from_be_bytes(length))];
    stream.read_exact(&mut reply)?;
    let reply = Message::from_vec(&reply)?;
    ensure!(!reply.answers.is_empty(), "no answer");
    Ok(began.elapsed())
}
