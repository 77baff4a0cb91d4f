//! Grants are taken back in every way there is, while others are used: how long new flows and live ones
//! still pass after the operator's word, and what the others lose.
#![expect(
    clippy::disallowed_methods,
    reason = "shell: opens sockets and times itself"
)]

use super::Waits;
use super::traffic::{Counts, TCP, UDP, address, ask, authority, denied, granted, learn_others};
use crate::lab::{Binaries, Daemon, Echo, Lab, Namespace, Planes};
use anyhow::{Context, Result, ensure};
use std::collections::BTreeMap;
use std::fmt;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream, UdpSocket};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

/// A way to take something back.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Way {
    /// `egressctl revoke` of a name.
    Revoke,
    /// `egressctl disallow` of an exception.
    Disallow,
    /// A reload without the rule.
    Rule,
    /// A reload in which another zone has it.
    Zone,
    /// A reload in which the zone's mode is `enforce` and was `audit`.
    Mode,
    /// A reload of a catalogue that no longer lists it.
    Catalogue,
}

/// All of them.
pub const WAYS: [Way; 6] = [
    Way::Revoke,
    Way::Disallow,
    Way::Rule,
    Way::Zone,
    Way::Mode,
    Way::Catalogue,
];

impl fmt::Display for Way {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Revoke => "revoke",
            Self::Disallow => "disallow",
            Self::Rule => "rule removed",
            Self::Zone => "other zone",
            Self::Mode => "mode",
            Self::Catalogue => "catalogue",
        })
    }
}

/// How long flows still passed, from the start of `egressctl` on.
#[derive(Clone, Debug, Default)]
pub struct Tally {
    /// New ones, over UDP.
    pub new: Waits,
    /// A live one over TCP.
    pub live: Waits,
    /// Live ones that still passed at the end.
    pub survived: u32,
}

/// What was seen.
#[derive(Debug)]
pub struct Outcome {
    /// By way.
    pub tallies: BTreeMap<Way, Tally>,
    /// Granted, lost, denied, leaked packets of the others; 0.
    pub counts: [u64; 5],
    /// The daemon's last lines.
    pub words: String,
}

type Work = fn(&Namespace, &Counts, &AtomicBool) -> Result<()>;

/// How long flows are watched after the word.
const WATCHED: Duration = Duration::from_millis(1500);

/// Takes back `count` times each way.
///
/// # Errors
/// When the lab or the daemon cannot be had, or does not do as it is told.
pub fn run(binaries: &Binaries, planes: Planes, count: u32) -> Result<Outcome> {
    let lab = Lab::new()?;
    let _authority = authority(&lab)?;
    let _echo = Echo::start(&lab.internet, &[TCP], &[UDP])?;
    std::fs::write(lab.dir().join("vendor.toml"), catalogue(true))?;
    let daemon = Daemon::start(&lab, binaries, planes, &zones(&lab, Way::Revoke, false))?;
    learn_others(&lab.client)?;
    let (counts, stop) = (Counts::default(), AtomicBool::new(false));
    let mut tallies: BTreeMap<Way, Tally> = BTreeMap::new();
    let (client, counts, stop) = (&lab.client, &counts, &stop);
    thread::scope(|scope| -> Result<()> {
        // In a zone whose mode never changes.
        let others: [(Work, _); 2] = [(granted, client), (denied, &lab.other)];
        let traffic = others.map(|(work, from)| scope.spawn(move || work(from, counts, stop)));
        let mut rounds = || -> Result<()> {
            for round in 0..count {
                for (index, way) in (0..).zip(WAYS) {
                    let number = 100 + round * 6 + index;
                    let seen = once(&lab, &daemon, planes, way, number)
                        .with_context(|| format!("{way}, round {round}"))?;
                    let tally = tallies.entry(way).or_default();
                    tally.new.add(seen.0);
                    tally.live.add(seen.1);
                    tally.survived += u32::from(seen.1 >= WATCHED - Duration::from_millis(100));
                }
            }
            Ok(())
        };
        let done = rounds();
        stop.store(true, Ordering::Relaxed);
        for thread in traffic {
            thread.join().expect("traffic does not panic")?;
        }
        done
    })?;
    Ok(Outcome {
        tallies,
        counts: counts.read(),
        words: daemon.words(),
    })
}

fn catalogue(whole: bool) -> String {
    let names = if whole {
        "\"*.listed.example\", \"*.kept.example\""
    } else {
        "\"*.kept.example\""
    };
    format!(
        "name = \"vendor\"\n[[set]]\nid = \"1\"\narea = \"core\"\nnames = [{names}]\n\
         tcp = [{TCP}]\nudp = [{UDP}]\n"
    )
}

/// The configuration before (`after` false) or after something is taken back that way.
fn zones(lab: &Lab, way: Way, after: bool) -> String {
    let ports = format!("tcp = [{TCP}]\nudp = [{UDP}]\n");
    let zone = |name: &str, interface: &str, net: u8, mode: &str, rules: &[&str]| {
        let rules: String = (rules.iter())
            .map(|names| format!("[[zone.rule]]\nnames = [\"{names}\"]\n{ports}"))
            .collect();
        format!(
            "[[zone]]\nname = \"{name}\"\ninterfaces = [\"{interface}\"]\n\
             sources = [\"10.{net}.0.0/16\"]\nmode = \"{mode}\"\nallow = [\"vendor\"]\n{rules}"
        )
    };
    let file = lab.dir().join("vendor.toml");
    let (mut own, mut guests) = (vec!["*.vendor.example"], vec!["*.guest.example"]);
    match (way, after) {
        (Way::Rule, false) | (Way::Zone, false) => own.push("*.extra.example"),
        (Way::Zone, true) => guests.push("*.extra.example"),
        (Way::Rule, true)
        | (Way::Revoke | Way::Disallow | Way::Mode | Way::Catalogue, false | true) => {}
    }
    let mode = if way == Way::Mode && !after {
        "audit"
    } else {
        "enforce"
    };
    format!(
        "[limits]\nquestions = 0\nper_client = 100000\n\n[[catalogue]]\nname = \"vendor\"\nfile = \"{}\"\n\n{}{}",
        file.display(),
        zone("managed", "lan0", 20, mode, &own),
        zone("guests", "lan1", 30, "enforce", &guests),
    )
}

fn reload(lab: &Lab, daemon: &Daemon<'_>, planes: Planes, way: Way, after: bool) -> Result<()> {
    let listed = !(way == Way::Catalogue && after);
    std::fs::write(lab.dir().join("vendor.toml"), catalogue(listed))?;
    let text = zones(lab, way, after);
    std::fs::write(daemon.config(), Daemon::preamble(lab, planes) + &text)?;
    does(daemon, &["reload", "--force"]).map(drop)
}

fn does(daemon: &Daemon<'_>, args: &[&str]) -> Result<serde_json::Value> {
    let outcome = daemon.ctl(args)?;
    ensure!(outcome.status.success(), "{args:?}: {}", outcome.text);
    Ok(outcome.json)
}

/// Opens it, takes it back, and says how long new flows and the live one still passed.
fn once(
    lab: &Lab,
    daemon: &Daemon<'_>,
    planes: Planes,
    way: Way,
    number: u32,
) -> Result<(Duration, Duration)> {
    let domain = match way {
        Way::Revoke => "vendor",
        Way::Disallow => "excepted",
        Way::Rule | Way::Zone => "extra",
        Way::Mode => "nobody",
        Way::Catalogue => "listed",
    };
    let name = format!("x{number}.{domain}.example");
    let mut id = String::new();
    match way {
        Way::Revoke => {}
        Way::Disallow => {
            let pattern = format!("*.{domain}.example");
            let ports = format!("{TCP},{UDP}/udp");
            let args = [
                "allow", &pattern, &ports, "--zone", "managed", "--for", "1h", "--reason", "soak",
            ];
            id = does(daemon, &args)?["exception"]["id"].to_string();
        }
        Way::Rule | Way::Zone | Way::Mode | Way::Catalogue => {
            reload(lab, daemon, planes, way, false)?;
        }
    }
    ask(&lab.client, &name, Duration::from_secs(5))?;
    let to = address(number);
    let stop = AtomicBool::new(false);
    let ready = AtomicBool::new(false);
    thread::scope(|scope| {
        let watched = scope.spawn(|| watch(&lab.client, to.into(), &ready, &stop));
        while !ready.load(Ordering::Acquire) && !watched.is_finished() {
            thread::sleep(Duration::from_millis(1));
        }
        let word = Instant::now();
        let done = match way {
            Way::Revoke => does(daemon, &["revoke", &name]).map(drop),
            Way::Disallow => does(daemon, &["disallow", &id]).map(drop),
            Way::Rule | Way::Zone | Way::Mode | Way::Catalogue => {
                reload(lab, daemon, planes, way, true)
            }
        };
        thread::sleep(WATCHED.saturating_sub(word.elapsed()));
        stop.store(true, Ordering::Relaxed);
        let (new, live) = watched.join().expect("watching does not panic")?;
        done?;
        Ok((
            new.saturating_duration_since(word),
            live.saturating_duration_since(word),
        ))
    })
}

/// Tries new flows and a live one until `stop`; when the last of each was sent that came back.
fn watch(
    namespace: &Namespace,
    to: std::net::IpAddr,
    ready: &AtomicBool,
    stop: &AtomicBool,
) -> Result<(Instant, Instant)> {
    namespace.enter(|| -> Result<(Instant, Instant)> {
        let mut live =
            TcpStream::connect_timeout(&SocketAddr::new(to, TCP), Duration::from_secs(5))
                .with_context(|| format!("connect to {to}"))?;
        live.set_nodelay(true)?;
        live.set_read_timeout(Some(Duration::from_millis(5)))?;
        let (mut last_new, mut last_live) = (Instant::now(), Instant::now());
        let (mut sequence, mut rounds, mut port) = (0_u32, 0_u32, 1024_u16);
        let mut bytes = Vec::new();
        while !stop.load(Ordering::Relaxed) {
            let sent = Instant::now();
            // Each port once: one used before would belong to a live flow.
            port = port.checked_add(1).context("watched for too long")?;
            let Ok(socket) = UdpSocket::bind(("0.0.0.0", port)) else {
                continue;
            };
            socket.connect(SocketAddr::new(to, UDP))?;
            socket.set_read_timeout(Some(Duration::from_millis(5)))?;
            let mut buffer = [0; 4];
            if socket.send(b"new?").is_ok() && socket.recv(&mut buffer).is_ok() {
                last_new = sent;
            }
            let sent = Instant::now();
            sequence += 1;
            let mut read = [0; 1024];
            if live.write_all(&sequence.to_be_bytes()).is_ok()
                && let Ok(length) = live.read(&mut read)
            {
                bytes.extend_from_slice(&read[..length]);
                if bytes.ends_with(&sequence.to_be_bytes()) {
                    last_live = sent;
                }
                let rest = bytes.len() % 4;
                bytes.drain(..bytes.len() - rest);
            }
            rounds += 1;
            if rounds == 20 {
                ready.store(true, Ordering::Release);
            }
        }
        Ok((last_new, last_live))
    })?
}
