//! Traffic that runs while something happens to the daemon: what is granted must go on, what is not must
//! never come back.
#![expect(
    clippy::disallowed_methods,
    reason = "shell: opens sockets and times itself"
)]

use crate::lab::wire::{self, Reply};
use crate::lab::{Lab, Namespace, Script, Scripted, plan, unbroken};
use anyhow::{Context, Result};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::sleep;
use std::time::{Duration, Instant};

pub(super) const TCP: u16 = 443;
pub(super) const UDP: u16 = 9000;
/// The names whose flows must never be touched.
const OTHERS: u32 = 4;
/// Between two packets of a kind.
const PAUSE: Duration = Duration::from_millis(2);
/// Longer than any scheduler's pause.
const BACK: Duration = Duration::from_secs(1);

/// Packets of all clients.
#[derive(Debug, Default)]
pub(super) struct Counts {
    /// Datagrams of established flows that came back, and that did not.
    pub(super) granted: [AtomicU64; 2],
    /// Datagrams to addresses that nothing grants: sent, and come back.
    pub(super) denied: [AtomicU64; 2],
    /// Answers of new names.
    pub(super) answers: AtomicU64,
}

impl Counts {
    /// As plain numbers: granted, lost, denied, leaked, answers.
    #[must_use]
    pub(super) fn read(&self) -> [u64; 5] {
        let [granted, lost] = &self.granted;
        let [denied, leaked] = &self.denied;
        [granted, lost, denied, leaked, &self.answers].map(|count| count.load(Ordering::Relaxed))
    }
}

/// The address of the names `x{number}.…`.
pub(super) fn address(number: u32) -> Ipv4Addr {
    let [.., c, d] = number.to_be_bytes();
    Ipv4Addr::new(52, 100, c, d)
}

/// Knows every name `x{number}.…`, each with an address of its own.
///
/// # Errors
/// When port 53 is taken.
pub fn authority(lab: &Lab) -> Result<Scripted> {
    let script: Script = Arc::new(|name: &str| {
        let label = name.split('.').next().unwrap_or_default();
        let number = label.get(1..).and_then(|text| text.parse().ok());
        Reply {
            ttl: 3600,
            addresses: number.map(address).into_iter().collect(),
            truncated: false,
        }
    });
    Scripted::start(lab, &script)
}

/// Asks the gateway until there is an answer, for at most `patience`.
///
/// # Errors
/// When there is none.
pub fn ask(namespace: &Namespace, name: &str, patience: Duration) -> Result<()> {
    let begun = Instant::now();
    namespace.enter(|| -> Result<()> {
        let socket = UdpSocket::bind("0.0.0.0:0")?;
        socket.connect(SocketAddr::new(plan::GATEWAY[0], 53))?;
        socket.set_read_timeout(Some(Duration::from_millis(20)))?;
        let mut id = 0;
        loop {
            id += 1;
            if answered(&socket, id, name) {
                return Ok(());
            }
            anyhow::ensure!(begun.elapsed() < patience, "no answer for {name}");
            sleep(Duration::from_millis(1));
        }
    })?
}

fn answered(socket: &UdpSocket, id: u16, name: &str) -> bool {
    let mut buffer = [0; 512];
    let Ok(question) = wire::question(id, name) else {
        return false;
    };
    // Refused while nobody listens.
    if socket.send(&question).is_err() {
        return false;
    }
    while let Ok(length) = unbroken(|| socket.recv(&mut buffer)) {
        // Another id: the late answer to an earlier question.
        if length > 8 && buffer[..2] == id.to_be_bytes() {
            return buffer[3] & 15 == 0 && buffer[7] > 0;
        }
    }
    false
}

/// Established flows, one packet after the other, until `stop`.
pub(super) fn granted(namespace: &Namespace, counts: &Counts, stop: &AtomicBool) -> Result<()> {
    namespace.enter(|| -> Result<()> {
        let mut sockets = Vec::new();
        for number in 0..OTHERS {
            let socket = UdpSocket::bind("0.0.0.0:0")?;
            socket.connect(SocketAddr::new(address(number).into(), UDP))?;
            socket.set_read_timeout(Some(BACK))?;
            sockets.push(socket);
        }
        let mut sequence = 0_u64;
        while !stop.load(Ordering::Relaxed) {
            for socket in &sockets {
                sequence += 1;
                let mut buffer = [0; 8];
                let back = socket.send(&sequence.to_be_bytes()).is_ok()
                    && unbroken(|| socket.recv(&mut buffer)).is_ok()
                    && buffer == sequence.to_be_bytes();
                counts.granted[usize::from(!back)].fetch_add(1, Ordering::Relaxed);
            }
            sleep(PAUSE);
        }
        Ok(())
    })?
}

/// Learns the names of [`granted`]'s flows.
pub(super) fn learn_others(namespace: &Namespace) -> Result<()> {
    (0..OTHERS).try_for_each(|n| ask(namespace, &format!("x{n}.vendor.example"), BACK * 5))
}

/// Datagrams to addresses that nothing grants, until `stop`.
pub(super) fn denied(namespace: &Namespace, counts: &Counts, stop: &AtomicBool) -> Result<()> {
    namespace.enter(|| -> Result<()> {
        let socket = UdpSocket::bind("0.0.0.0:0")?;
        socket.set_nonblocking(true)?;
        let mut number = 0_u8;
        while !stop.load(Ordering::Relaxed) {
            number = number.wrapping_add(1);
            let to = IpAddr::from([52, 99, 1, number]);
            if socket.send_to(b"leak", SocketAddr::new(to, UDP)).is_ok() {
                counts.denied[0].fetch_add(1, Ordering::Relaxed);
            }
            let mut buffer = [0; 16];
            while socket.recv_from(&mut buffer).is_ok() {
                counts.denied[1].fetch_add(1, Ordering::Relaxed);
            }
            sleep(PAUSE / 2);
        }
        Ok(())
    })?
}

/// New names without end, so that there is always something to commit.
pub(super) fn questions(namespace: &Namespace, counts: &Counts, stop: &AtomicBool) -> Result<()> {
    namespace.enter(|| -> Result<()> {
        let socket = UdpSocket::bind("0.0.0.0:0")?;
        socket.connect(SocketAddr::new(plan::GATEWAY[0], 53))?;
        socket.set_read_timeout(Some(Duration::from_millis(20)))?;
        let mut number = 1000_u32;
        while !stop.load(Ordering::Relaxed) {
            number = 1000 + (number + 1) % 60_000;
            let id = u16::try_from(number % 65_536).context("below 65,536")?;
            if answered(&socket, id, &format!("x{number}.vendor.example")) {
                counts.answers.fetch_add(1, Ordering::Relaxed);
            }
        }
        Ok(())
    })?
}
