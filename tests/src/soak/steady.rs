//! Granted and forbidden datagrams that go on and on while something else happens, and a count of both.
#![expect(
    clippy::disallowed_methods,
    reason = "shell: opens sockets and times itself"
)]

use crate::lab::{Lab, Namespace};
use anyhow::{Context, Result};
use serde::Serialize;
use std::net::{Ipv4Addr, SocketAddr, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

/// One datagram of each kind follows the other after this time.
const PACE: Duration = Duration::from_millis(2);

/// How long an echo may take.
const PATIENCE: Duration = Duration::from_millis(500);

/// What was sent, and what became of it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Counts {
    /// Granted datagrams of one flow that goes on.
    pub granted: u64,
    /// Those of them that did not come back.
    pub lost: u64,
    /// Forbidden datagrams, each of a flow of its own.
    pub forbidden: u64,
    /// Forbidden datagrams that arrived.
    pub leaked: u64,
}

/// The traffic; it ends when it is dropped, or with [`Steady::stop`].
#[derive(Debug)]
pub struct Steady {
    stop: Arc<AtomicBool>,
    leaked: Arc<AtomicU64>,
    forbidden: Arc<AtomicU64>,
    arrivals: Option<JoinHandle<()>>,
    senders: Vec<JoinHandle<[u64; 2]>>,
}

impl Steady {
    /// Counts whatever arrives at `forbidden`'s port anywhere on the internet.
    ///
    /// # Errors
    /// When the port is taken.
    pub fn new(lab: &Lab, forbidden: SocketAddr) -> Result<Self> {
        let stop = Arc::new(AtomicBool::new(false));
        let leaked = Arc::new(AtomicU64::new(0));
        let any = SocketAddr::from((Ipv4Addr::UNSPECIFIED, forbidden.port()));
        let socket = lab.internet.enter(|| UdpSocket::bind(any))??;
        socket.set_read_timeout(Some(Duration::from_millis(50)))?;
        let (until, count) = (Arc::clone(&stop), Arc::clone(&leaked));
        let arrivals = thread::spawn(move || {
            let mut buffer = [0; 64];
            while !until.load(Ordering::Relaxed) {
                if socket.recv(&mut buffer).is_ok() {
                    count.fetch_add(1, Ordering::Relaxed);
                }
            }
        });
        Ok(Self {
            stop,
            leaked,
            forbidden: Arc::default(),
            arrivals: Some(arrivals),
            senders: Vec::new(),
        })
    }

    /// From `namespace`, forbidden datagrams without end; those that no interface took do not count.
    ///
    /// # Errors
    /// When the namespace cannot be entered.
    pub fn forbidden(&self, namespace: &Namespace, to: SocketAddr) -> Result<()> {
        let (stop, count) = (Arc::clone(&self.stop), Arc::clone(&self.forbidden));
        namespace.enter(move || {
            thread::spawn(move || {
                while !stop.load(Ordering::Relaxed) {
                    let sent = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0))
                        .and_then(|socket| socket.send_to(b"forbidden", to));
                    count.fetch_add(u64::from(sent.is_ok()), Ordering::Relaxed);
                    thread::sleep(PACE);
                }
            });
        })
    }

    /// From `namespace`, a flow of datagrams to an echo.
    ///
    /// # Errors
    /// When the namespace cannot be entered or no socket be had.
    pub fn granted(&mut self, namespace: &Namespace, to: SocketAddr) -> Result<()> {
        let stop = Arc::clone(&self.stop);
        let sender = namespace.enter(move || -> Result<JoinHandle<[u64; 2]>> {
            let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0))?;
            socket.connect(to)?;
            socket.set_nonblocking(true)?;
            Ok(thread::spawn(move || flow(&socket, &stop)))
        })??;
        self.senders.push(sender);
        Ok(())
    }

    /// Ends it and counts.
    ///
    /// # Errors
    /// When a thread panicked.
    pub fn stop(mut self) -> Result<Counts> {
        let mut counts = Counts::default();
        self.stop.store(true, Ordering::Relaxed);
        for sender in self.senders.drain(..) {
            let [sent, back] = sender.join().ok().context("a sender panicked")?;
            counts.granted += sent;
            counts.lost += sent - back;
        }
        if let Some(arrivals) = self.arrivals.take() {
            arrivals.join().ok().context("the counter panicked")?;
        }
        counts.forbidden = self.forbidden.load(Ordering::Relaxed);
        counts.leaked = self.leaked.load(Ordering::Relaxed);
        Ok(counts)
    }

    /// How many forbidden datagrams arrived so far.
    #[must_use]
    pub fn leaked(&self) -> u64 {
        self.leaked.load(Ordering::Relaxed)
    }
}

impl Drop for Steady {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
    }
}

/// Datagrams sent, and echoes that came.
fn flow(socket: &UdpSocket, stop: &AtomicBool) -> [u64; 2] {
    let (mut sent, mut back) = (0_u64, 0_u64);
    let mut buffer = [0; 64];
    while !stop.load(Ordering::Relaxed) {
        sent += u64::from(socket.send(&sent.to_be_bytes()).is_ok());
        thread::sleep(PACE);
        while socket.recv(&mut buffer).is_ok() {
            back += 1;
        }
    }
    let end = Instant::now() + PATIENCE;
    while back < sent && Instant::now() < end {
        back += u64::from(socket.recv(&mut buffer).is_ok());
        thread::sleep(PACE / 10);
    }
    [sent, back.min(sent)]
}
