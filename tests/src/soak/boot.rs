//! From a router that is locked to one whose policy is in force, with traffic all the time: nothing passes
//! before the policy, and what it does not grant never does, not even in flows that are older than it.
#![expect(
    clippy::disallowed_methods,
    reason = "shell: opens sockets, starts a command and paces traffic"
)]

use super::traffic::{UDP, address, authority};
use crate::lab::{Binaries, Daemon, Echo, Lab, Namespace, Planes, until};
use anyhow::{Context, Result, ensure};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, UdpSocket};
use std::path::Path;
use std::process::Command;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::Duration;

/// Packets of each kind that are sent in each part.
const EACH: u64 = 300;

const PATIENCE: Duration = Duration::from_secs(30);

/// Kinds of packets, by whom they go to.
const KINDS: [(&str, Ipv4Addr); 3] = [
    // Nobody grants it, and nobody ever reached it.
    ("denied", Ipv4Addr::new(52, 99, 1, 1)),
    // Nobody grants it, but a flow to it is older than the lockdown.
    ("older", Ipv4Addr::new(52, 99, 2, 1)),
    // Granted as a network, from the first commit on.
    ("granted", Ipv4Addr::new(52, 98, 1, 1)),
];

/// The kinds' packets, in their order: sent by the client, arrived on the internet.
#[derive(Clone, Copy, Debug, Default)]
pub struct Counted {
    /// By the client.
    pub sent: [u64; 3],
    /// On the internet, as its kernel counted them.
    pub arrived: [u64; 3],
}

impl Counted {
    fn since(self, before: Self) -> Self {
        let less = |now: [u64; 3], before: [u64; 3]| [0, 1, 2].map(|kind| now[kind] - before[kind]);
        Self {
            sent: less(self.sent, before.sent),
            arrived: less(self.arrived, before.arrived),
        }
    }
}

/// What was seen.
#[derive(Debug)]
pub struct Outcome {
    /// Before the lockdown: everything passes.
    pub router: Counted,
    /// Locked, without a daemon, and while one tries in vain to start.
    pub locked: Counted,
    /// From the start of the daemon on.
    pub started: Counted,
    /// What the daemon said.
    pub words: String,
}

/// Takes a router through it.
///
/// # Errors
/// When the lab or the daemon cannot be had.
pub fn run(binaries: &Binaries, planes: Planes) -> Result<Outcome> {
    let lab = Lab::new()?;
    let _authority = authority(&lab)?;
    let _echo = Echo::start(&lab.internet, &[], &[UDP])?;
    let zones = format!(
        "[[zone]]\nname = \"managed\"\ninterfaces = [\"lan*\"]\nsources = [\"10.20.0.0/16\"]\n\
         [[zone.rule]]\nnames = [\"*.vendor.example\"]\nnetworks = [\"52.98.0.0/16\"]\nudp = [{UDP}]\n"
    );
    let text = Daemon::preamble(&lab, planes) + &zones;
    // Its resolver's address is nobody's: it fails after its policy is in force.
    let broken = text.replace("listen = [\"10.20.0.1:53\"", "listen = [\"10.77.0.1:53\"");
    ensure!(broken != text, "the preamble has such a line");
    // Conntrack works for others too, so that there are established flows.
    lab.gateway.nft(
        "table inet other {
            chain c {
                type filter hook forward priority 10
                ct state established counter
            }
        }",
    )?;
    count(&lab.internet)?;
    let (sent, stop) = (<[AtomicU64; 3]>::default(), AtomicBool::new(false));
    let read = || -> Result<Counted> {
        Ok(Counted {
            sent: [0, 1, 2].map(|kind| sent[kind].load(Ordering::Relaxed)),
            arrived: arrived(&lab.internet)?,
        })
    };
    let further = |from: Counted| {
        until(PATIENCE, "packets are sent", || {
            let counted = read()?;
            let new = counted.since(from);
            Ok(new.sent.iter().all(|sent| *sent >= EACH).then_some(new))
        })
    };
    thread::scope(|scope| {
        let traffic = scope.spawn(|| send(&lab.client, &sent, &stop));
        let rounds = || -> Result<Outcome> {
            let router = further(Counted::default())?;
            lockdown(&lab, binaries, &text)?;
            let locked_at = read()?;
            further(locked_at)?;
            let config = Daemon::configure(&lab, &broken)?;
            if planes.ebpf() {
                std::fs::create_dir_all(lab.pins())?;
            }
            fails_to_start(&lab, binaries, &config)?;
            let locked = further(locked_at)?;
            let started_at = read()?;
            let daemon = Daemon::start_with(&lab, binaries, planes, &text)?;
            further(started_at)?;
            super::traffic::ask(&lab.client, "x1.vendor.example", PATIENCE)?;
            let learned = crate::lab::udp(
                &lab.client,
                SocketAddr::new(address(1).into(), UDP),
                PATIENCE,
            )?;
            ensure!(learned, "a learned address passes\n{}", daemon.words());
            until(PATIENCE, "what is granted passes", || {
                let [_, _, granted] = read()?.since(started_at).arrived;
                Ok((granted >= EACH).then_some(()))
            })?;
            let started = further(started_at)?;
            Ok(Outcome {
                router,
                locked,
                started,
                words: daemon.words(),
            })
        };
        let done = rounds();
        stop.store(true, Ordering::Relaxed);
        traffic.join().expect("traffic does not panic")?;
        done
    })
}

/// Runs `egressd lockdown` in the gateway.
///
/// # Errors
/// When it does not say that it is locked.
pub fn lockdown(lab: &Lab, binaries: &Binaries, text: &str) -> Result<()> {
    let config = Daemon::configure(lab, text)?;
    let mut command = Command::new(binaries.0.join("egressd"));
    let told = lab
        .gateway
        .output(command.args(["lockdown", "--config"]).arg(config))?;
    ensure!(told.starts_with("locked: "), "{told}");
    Ok(())
}

fn fails_to_start(lab: &Lab, binaries: &Binaries, config: &Path) -> Result<()> {
    let mut command = Command::new(binaries.0.join("egressd"));
    command.args(["run", "--config"]).arg(config);
    let output = lab.gateway.enter(|| command.output())??;
    let words = String::from_utf8_lossy(&output.stderr).into_owned();
    ensure!(
        !output.status.success() && words.contains("open the DNS edge"),
        "{words}"
    );
    Ok(())
}

/// One packet of each kind after the other, each kind in one flow, until `stop`.
fn send(client: &Namespace, sent: &[AtomicU64; 3], stop: &AtomicBool) -> Result<()> {
    client.enter(|| -> Result<()> {
        let sockets = [0, 1, 2].map(|_| UdpSocket::bind("0.0.0.0:0"));
        let mut round = 0_u16;
        while !stop.load(Ordering::Relaxed) {
            for (kind, (socket, (name, to))) in sockets.iter().zip(KINDS).enumerate() {
                let socket = socket.as_ref().ok().context("a socket")?;
                // New flows of the first kind all the time.
                let [high, low] = round.to_be_bytes();
                let to = match name {
                    "denied" => Ipv4Addr::new(52, 99, high | 128, low),
                    _ => to,
                };
                if socket
                    .send_to(b"leak", SocketAddr::new(IpAddr::V4(to), UDP))
                    .is_ok()
                {
                    sent[kind].fetch_add(1, Ordering::Relaxed);
                }
            }
            round = round.wrapping_add(1);
            thread::sleep(Duration::from_millis(1));
        }
        Ok(())
    })?
}

fn count(internet: &Namespace) -> Result<()> {
    internet.nft(
        "table inet arrivals {
            counter denied { }
            counter older { }
            counter granted { }
            chain c {
                type filter hook prerouting priority -300;
                iifname eth0 ip daddr 52.99.2.1 counter name older
                iifname eth0 ip daddr 52.99.128.0/17 counter name denied
                iifname eth0 ip daddr 52.98.1.1 counter name granted
            }
        }",
    )
}

fn arrived(internet: &Namespace) -> Result<[u64; 3]> {
    let mut command = Command::new("nft");
    command.args(["-j", "list", "counters", "table", "inet", "arrivals"]);
    let list: serde_json::Value = serde_json::from_str(&internet.output(&mut command)?)?;
    let mut found = [0; 3];
    for item in list["nftables"].as_array().context("nft prints an array")? {
        let counter = &item["counter"];
        for (kind, (name, _)) in KINDS.iter().enumerate() {
            if counter["name"] == **name {
                found[kind] = counter["packets"].as_u64().context("a number")?;
            }
        }
    }
    Ok(found)
}
