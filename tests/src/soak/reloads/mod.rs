//! Reloads of mutated configurations and catalogues, under traffic: each is in force whole, or refused
//! with a place and nothing changed. What is whole, the model plane says of what the product's own reader
//! makes of the files.
#![expect(
    clippy::disallowed_methods,
    reason = "shell: writes configurations, opens sockets and times itself"
)]

mod mutate;

use super::Waits;
use super::chance::Chance;
use super::traffic::{Counts, UDP, ask, authority, denied, granted};
use crate::lab::{Binaries, Daemon, Echo, Lab, Planes, plan, udp};
use anyhow::{Context, Result, ensure};
use egressd::config;
use egressd::control::client::{Client, ClientError};
use egressd::control::protocol::{ExplainParameters, Failure, GrantsParameters};
use egressd::links;
use egressd::plane::model::ModelPlane;
use egressd::plane::netlink::{Attributes, Request, Socket, number};
use egressd::policy::grant::Policy;
use egressd::policy::links::Links;
use egressd_common::transport::{Start, Transport};
use egressd_common::verdict::Action;
use mutate::mutated;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};
use tokio::runtime::Runtime;

/// What was seen.
#[derive(Debug, Default)]
pub struct Outcome {
    /// Reloads that were taken, and that were refused.
    pub reloads: [u64; 2],
    /// Refusals that name no file, line and column.
    pub nowhere: u64,
    /// Refused, but something changed; taken, but not whole; taken by one reader, refused by another.
    pub half: Vec<String>,
    /// Probes whose verdict was compared, and packets sent to see.
    pub probes: [u64; 2],
    /// Transactions of nft while refusals were told.
    pub transactions: u64,
    /// Granted, lost, denied, leaked packets of another zone; 0.
    pub counts: [u64; 5],
    /// Its questions, and those without an answer.
    pub answers: [u64; 2],
    /// From the word to the outcome: taken, refused.
    pub waits: [Waits; 2],
    /// The daemon's last lines.
    pub words: String,
}

impl Outcome {
    /// What must not be.
    #[must_use]
    pub fn failures(&self) -> u64 {
        let [_, lost, _, leaked, _] = self.counts;
        self.nowhere + self.half.len() as u64 + lost + leaked + self.answers[1]
    }
}

/// Every so many reloads packets are sent, not only verdicts read.
const SENT: u64 = 8;

/// The daemon answers within this.
const SOON: Duration = Duration::from_secs(5);

/// Where a client of the mutated zone may or may not go.
const PROBES: [(Ipv4Addr, u16); 6] = [
    (Ipv4Addr::new(52, 98, 0, 1), UDP),
    (Ipv4Addr::new(52, 98, 0, 1), UDP + 1),
    (Ipv4Addr::new(52, 97, 0, 1), UDP),
    (Ipv4Addr::new(52, 97, 200, 1), UDP),
    (Ipv4Addr::new(52, 96, 0, 1), UDP),
    (Ipv4Addr::new(52, 96, 0, 1), UDP + 1),
];

/// Reloads `count` times.
///
/// # Errors
/// When the lab or the daemon cannot be had, or it ends.
pub fn run(binaries: &Binaries, planes: Planes, count: u64) -> Result<Outcome> {
    let lab = Lab::new()?;
    let _authority = authority(&lab)?;
    let _echo = Echo::start(&lab.internet, &[], &[UDP, UDP + 1])?;
    std::fs::write(lab.dir().join("vendor.toml"), CATALOGUE)?;
    let text = whole(&lab, planes, MANAGED.as_bytes());
    let text = String::from_utf8(text).context("the unmutated text")?;
    let daemon = Daemon::start_with(&lab, binaries, planes, &text)?;
    let (counts, stop) = (Counts::default(), AtomicBool::new(false));
    let answers = [AtomicU64::new(0), AtomicU64::new(0)];
    let mut outcome = Outcome::default();
    let (other, counts, stop, answers) = (&lab.other, &counts, &stop, &answers);
    ask(other, "x5.vendor.example", SOON)?;
    thread::scope(|scope| -> Result<()> {
        let traffic = [granted, denied].map(|work| scope.spawn(move || work(other, counts, stop)));
        let asking = scope.spawn(move || {
            while !stop.load(Ordering::Relaxed) {
                let lost = ask(other, "x5.vendor.example", SOON).is_err();
                answers[usize::from(lost)].fetch_add(1, Ordering::Relaxed);
                thread::sleep(Duration::from_millis(5));
            }
        });
        let done = sweep(&lab, &daemon, planes, count, &mut outcome);
        stop.store(true, Ordering::Relaxed);
        asking.join().expect("asking does not panic");
        for thread in traffic {
            thread.join().expect("traffic does not panic")?;
        }
        done.with_context(|| daemon.words())
    })?;
    outcome.counts = counts.read();
    let [told, lost] = [0, 1].map(|at: usize| answers[at].load(Ordering::Relaxed));
    outcome.answers = [told + lost, lost];
    outcome.words = daemon.words();
    Ok(outcome)
}

fn sweep(
    lab: &Lab,
    daemon: &Daemon<'_>,
    planes: Planes,
    count: u64,
    outcome: &mut Outcome,
) -> Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    let links = lab.gateway.enter(|| -> Result<Links> {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()?;
        runtime.block_on(links::read())
    })??;
    let client = runtime.block_on(Client::connect(&lab.dir().join("control.sock")))?;
    let mut stage = Stage {
        lab,
        planes,
        path: daemon.config(),
        links,
        runtime,
        client,
        netlink: lab.gateway.enter(|| Socket::open(5))??,
        last: None,
        outcome,
    };
    let mut chance = Chance::new(7);
    for number in 0..count {
        let (mut configuration, mut catalogue) =
            (MANAGED.as_bytes().to_vec(), CATALOGUE.as_bytes().to_vec());
        match chance.below(8) {
            // As it is: what was mutated before goes.
            0 => {}
            1..=5 => configuration = mutated(MANAGED, &mut chance),
            _ => catalogue = mutated(CATALOGUE, &mut chance),
        }
        std::fs::write(lab.dir().join("vendor.toml"), &catalogue)?;
        std::fs::write(stage.path, whole(lab, planes, &configuration))?;
        stage
            .once(number, &mut chance)
            .with_context(|| String::from_utf8_lossy(&configuration).into_owned())?;
    }
    Ok(())
}

/// Everything but the mutated zone stays.
fn whole(lab: &Lab, planes: Planes, managed: &[u8]) -> Vec<u8> {
    let before = Daemon::preamble(lab, planes)
        + "[limits]\nquestions = 0\nper_client = 1000000\n\n\
           [[zone]]\nname = \"guests\"\ninterfaces = [\"lan1\"]\nsources = [\"10.30.0.0/16\"]\n";
    let rule = format!(
        "[[zone.rule]]\nnames = [\"*.vendor.example\"]\nnetworks = [\"52.100.0.0/16\"]\nudp = [{UDP}]\n\n"
    );
    [before.as_bytes(), rule.as_bytes(), managed].concat()
}

const MANAGED: &str = r#"[[catalogue]]
name = "vendor"
file = "vendor.toml"

[[zone]]
name = "managed"
interfaces = ["lan0"]
sources = ["10.20.0.0/16"]
mode = "enforce"
inbound = "allow"
allow = ["vendor"]
deny = []

[[zone.rule]]
names = ["*.updates.example", "time.example"]
networks = ["52.98.0.0/24", "2600:98::/32"]
tcp = [443, "8000-8010"]
udp = [9000]

[[zone.rule]]
networks = ["52.94.0.0/16"]
protocols = ["icmp"]
udp = [123]
"#;

const CATALOGUE: &str = r#"name = "vendor"
version = "1"

[[set]]
id = "1"
area = "core"
names = ["*.listed.example"]
networks = ["52.97.0.0/24"]
tcp = [443]
udp = [9000]

[[set]]
id = "2"
area = "more"
names = ["a.more.example", "b.more.example"]
networks = ["52.95.0.0/24"]
udp = [9001]
"#;

struct Stage<'a> {
    lab: &'a Lab,
    planes: Planes,
    path: &'a Path,
    links: Links,
    runtime: Runtime,
    client: Client,
    netlink: Socket,
    /// After the last reload; only reloads change it.
    last: Option<Present>,
    outcome: &'a mut Outcome,
}

/// Everything that a refused reload must leave as it is.
#[derive(Debug, PartialEq)]
struct Present {
    revision: u64,
    zones: String,
    grants: String,
    transactions: u32,
}

impl Stage<'_> {
    fn once(&mut self, number: u64, chance: &mut Chance) -> Result<()> {
        let before = match self.last.take() {
            Some(last) => last,
            None => self.present()?,
        };
        let force = chance.below(2) == 0;
        let began = Instant::now();
        let told = self.runtime.block_on(self.client.reload(force));
        let took = began.elapsed();
        match told {
            Ok(reloaded) => {
                self.outcome.reloads[0] += 1;
                self.outcome.waits[0].add(took);
                if reloaded.revision < before.revision {
                    self.half(format!(
                        "revision {} after {}",
                        reloaded.revision, before.revision
                    ));
                }
                self.taken(number)?;
                self.last = Some(self.present()?);
                Ok(())
            }
            Err(ClientError::Failed(Failure::ConfigRefused { text })) => {
                self.outcome.reloads[1] += 1;
                self.outcome.waits[1].add(took);
                self.refused(&before, &text, force)
            }
            Err(other) => Err(other).context("reload"),
        }
    }

    fn half(&mut self, what: String) {
        eprintln!("half: {what}");
        self.outcome.half.push(what);
    }

    fn present(&mut self) -> Result<Present> {
        let (runtime, client) = (&self.runtime, &mut self.client);
        let revision = runtime.block_on(client.status())?.revision;
        let mut zones = runtime.block_on(client.zones())?;
        for zone in &mut zones.zones {
            // Traffic goes on.
            zone.counters.clear();
            zone.hits.clear();
        }
        let grants = runtime.block_on(client.grants(&GrantsParameters::default()))?;
        let mut held: Vec<String> = (grants.grants.iter())
            .map(|grant| format!("{} {} {}", grant.zone, grant.address, grant.ports))
            .collect();
        held.sort_unstable();
        let mut transactions = 0;
        if self.planes.nft() {
            const NFTABLES: u8 = 10;
            const GET_GENERATION: u8 = 16;
            let request = Request::new(NFTABLES, GET_GENERATION, 0, 0);
            self.netlink.request(request, |payload| {
                let read = Attributes::of_netfilter(payload).get(1).and_then(number_of);
                transactions = read.unwrap_or(transactions);
            })?;
        }
        Ok(Present {
            revision,
            zones: format!("{:?}", zones.zones),
            grants: held.join("\n"),
            transactions,
        })
    }

    fn refused(&mut self, before: &Present, text: &str, force: bool) -> Result<()> {
        let after = self.present()?;
        self.outcome.transactions +=
            u64::from(after.transactions.wrapping_sub(before.transactions));
        if after != *before {
            self.half(format!("refused ({text}), but {before:?} became {after:?}"));
        }
        let shrank = !force && text.contains("--force");
        // Of another vendor's format nothing can be said but that.
        let foreign = text.contains("a catalogue in another format");
        if !shrank && !foreign && !has_place(text) {
            eprintln!("nowhere: {text}");
            self.outcome.nowhere += 1;
        }
        if !shrank && self.policy().is_ok() {
            self.half(format!("refused, and could be read: {text}"));
        }
        self.last = Some(after);
        Ok(())
    }

    /// What the files say, as the product's own reader understands them.
    fn policy(&self) -> Result<Policy> {
        let settings = config::load(self.path)?;
        Ok(Policy::new(Arc::new(settings.intent), self.links.clone())?)
    }

    fn taken(&mut self, round: u64) -> Result<()> {
        let status = self.runtime.block_on(self.client.status())?;
        if !status.planes.iter().all(|plane| plane.in_force) {
            self.half(format!("taken, but not in force: {:?}", status.planes));
        }
        let policy = match self.policy() {
            Ok(policy) => policy,
            Err(error) => {
                self.half(format!("taken, but cannot be read: {error:#}"));
                return Ok(());
            }
        };
        let model = ModelPlane::of(&policy.image(), false);
        let entered = self.links.0.iter().find(|(_, link)| link.name == "lan0");
        let (&entered, _) = entered.context("lan0")?;
        let [client, _] = plan::CLIENT;
        for (address, port) in PROBES {
            let transport = Transport::new(17, 40_000, port, Start::Opens);
            let verdict = model.judge_flow(entered, client, address.into(), transport);
            let open = verdict.is_some_and(|verdict| match verdict.action {
                Action::Pass | Action::Audit => true,
                Action::Drop | Action::Refer => false,
            });
            self.outcome.probes[0] += 1;
            self.verdicts(&policy, (entered, client), (address, port), open)?;
            if round.is_multiple_of(SENT) {
                self.outcome.probes[1] += 1;
                let patience = Duration::from_millis(if open { 1000 } else { 40 });
                let to = SocketAddr::new(address.into(), port);
                if udp(&self.lab.client, to, patience)? != open {
                    self.half(format!(
                        "{to} must be {}",
                        if open { "open" } else { "closed" }
                    ));
                }
            }
        }
        Ok(())
    }

    /// Whether every plane holds what the model holds.
    fn verdicts(
        &mut self,
        policy: &Policy,
        (entered, client): (u32, IpAddr),
        (address, port): (Ipv4Addr, u16),
        open: bool,
    ) -> Result<()> {
        let Some(zone) = policy.rules().zone_of(entered, client) else {
            return Ok(());
        };
        let what = ExplainParameters {
            query: address.to_string(),
            port: Some(port),
            protocol: Some("udp".to_owned()),
            zone: Some(policy.rules().zone_name(zone).to_owned()),
        };
        let told = self.runtime.block_on(self.client.explain(&what))?;
        let told = told.zones.first().context("a zone's explanation")?;
        // In audit mode planes let pass what they do not hold.
        let audits = told.mode == "audit";
        let wrong: Vec<&str> = (told.planes.iter())
            .filter(|plane| !audits && plane.allowed != Some(open))
            .map(|plane| plane.plane.as_str())
            .collect();
        if !wrong.is_empty() {
            self.half(format!(
                "{address}:{port} open {open}, but not so in {wrong:?}: {told:?}"
            ));
        }
        ensure!(told.planes.len() == if self.planes == Planes::Both { 2 } else { 1 });
        Ok(())
    }
}

fn number_of(value: &[u8]) -> Option<u32> {
    number(value)
}

/// Whether a refusal names file, line and column.
fn has_place(text: &str) -> bool {
    text.match_indices(".toml:").any(|(at, mark)| {
        let mut parts = text[at + mark.len()..].splitn(3, ':');
        let mut number = || parts.next().is_some_and(|part| part.parse::<u32>().is_ok());
        number() && number()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places() {
        fn check(text: &str, expected: bool) {
            assert_eq!(has_place(text), expected, "{text}");
        }
        check("/etc/egressd.toml:3:8: no", true);
        check("/etc/egressd.toml: it cannot be read", false);
        check("zone `a`: /etc/vendor.toml:12:1: no", true);
        check("/etc/egressd.toml:3: no", false);
    }
}
