//! Refused packets are told once, with the name that led there and the set that comes nearest; those
//! that XDP leaves to nft are refused by it.
#![expect(clippy::disallowed_methods, reason = "shell: opens sockets, asks nft")]

use crate::bench::{
    Bench, NEVER, SURE, WEB, World, datagram, fails, host, host6, learn, passes, zone,
};
use crate::{Body, Test, Verdict};
use anyhow::{Context, Result, ensure};
use egressd_tests::lab::{Daemon, Namespace, Process, Witness, Zone, until};
use serde_json::Value;
use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::time::Duration;

pub(crate) const TESTS: &[Test] = &[
    ("refused_flows_are_told", Body::Daemon(told)),
    (
        "referred_packets_are_refused_by_nft",
        Body::Daemon(referred),
    ),
];

const RULES: &[(&str, &[u16], &[u16])] = &[("*.vendor.example", &[WEB], &[])];

fn told(bench: &Bench) -> Result<Verdict> {
    let mut names = Zone::default();
    names.address("x.vendor.example", 600, host(20, 1)).address(
        "www.other.example",
        600,
        host(20, 9),
    );
    let world = World::new(&names)?;
    let daemon = bench.daemon(&world.lab, &zone("", RULES))?;
    let client = &world.lab.client;
    let watch = daemon.watch()?;
    until(SURE, "the watcher is there", || {
        Ok(watch.log()?.contains("watching").then_some(()))
    })?;
    learn(client, "x.vendor.example", host(20, 1))?;
    for _ in 0..3 {
        fails(client, host(20, 1), NEVER)?;
    }
    fails(client, host(20, 2), WEB)?;
    fails(client, host6(20, 2), WEB)?;
    datagram(client, host(20, 1), WEB, false)?;
    let line = |address: IpAddr, service: &str| {
        until(SURE, &format!("{address} {service} is told"), || {
            let mut lines = of(&watch, address, service)?;
            Ok(lines.pop())
        })
        .with_context(|| format!("{}\n{}", watch.words(), daemon.words()))
    };
    let check = |line: &Value, name: Option<&str>, reasons: &[&str], nearest: Option<&str>| {
        let client = line["client"].as_str().unwrap_or_default();
        ensure!(
            line["zone"] == "managed"
                && line["interface"] == "lan0"
                && (client.starts_with("10.20.") || client.starts_with("2001:db8:20:"))
                && line["audited"] == false
                && line["name"].as_str() == name
                && line["nearest"].as_str() == nearest
                && line["reason"]
                    .as_str()
                    .is_some_and(|of| reasons.contains(&of)),
            "{line}"
        );
        Ok(())
    };
    let name = Some("x.vendor.example");
    let only = Some("set managed/rule-1 allows tcp/443 only");
    check(
        &line(host(20, 1), "tcp/2222")?,
        name,
        &["port-closed"],
        only,
    )?;
    check(&line(host(20, 1), "udp/443")?, name, &["port-closed"], only)?;
    let strange = &["not-granted"];
    check(&line(host(20, 2), "tcp/443")?, None, strange, None)?;
    check(&line(host6(20, 2), "tcp/443")?, None, strange, None)?;
    // Three connections, each tried again by the client: one line.
    let lines = of(&watch, host(20, 1), "tcp/2222")?;
    ensure!(lines.len() == 1, "{lines:?}");
    let status = status(&daemon)?;
    let counts = &status["refusals"];
    ensure!(counts["told"].as_u64() >= Some(4), "{counts}");
    let repeated = counts["repeated"].as_u64() > Some(0);
    let in_kernel = status.to_string().contains("repeated, 0 lost");
    ensure!(repeated || in_kernel, "{status}");
    if bench.planes.ebpf() && !bench.planes.nft() {
        ensure!(in_kernel, "{status}");
    }
    // In audit mode clients are told addresses that nothing grants.
    bench.reload(&daemon, &zone("mode = \"audit\"", RULES))?;
    learn(client, "www.other.example", host(20, 9))?;
    passes(client, host(20, 9), NEVER)?;
    let line = line(host(20, 9), "tcp/2222")?;
    ensure!(
        line["name"] == "www.other.example" && line["audited"] == true && line["nearest"].is_null(),
        "{line}"
    );
    Ok(Verdict::Held)
}

/// The packets told of a destination.
fn of(watch: &Process, address: IpAddr, service: &str) -> Result<Vec<Value>> {
    let address = address.to_string();
    let log = watch.log()?;
    let lines = log
        .lines()
        .filter_map(|line| serde_json::from_str(line).ok());
    Ok(lines
        .filter(|line: &Value| {
            line["kind"] == "packet" && line["address"] == *address && line["service"] == service
        })
        .collect())
}

fn status(daemon: &Daemon<'_>) -> Result<Value> {
    let outcome = daemon.ctl(&["status"])?;
    ensure!(outcome.status.success(), "{}", outcome.text);
    Ok(outcome.json)
}

/// Datagrams of each flood; each to another address, from another port.
const FLOOD: u32 = 3000;

fn referred(bench: &Bench) -> Result<Verdict> {
    if !(bench.planes.nft() && bench.planes.ebpf()) {
        return Ok(Verdict::NotPromised("nothing is left to nft by one plane"));
    }
    let world = World::new(&Zone::default())?;
    let witness = Witness::watch(&world.lab.internet)?;
    let client = &world.lab.client;
    let limit = |referred: u32| format!("[limits]\nquestions = 0\nreferred = {referred}\n\n");
    let text = limit(100) + &zone("", RULES);
    let mut daemon = bench.daemon(&world.lab, &text)?;
    let before = Counts::read(&daemon)?;
    let mut sent = 0;
    // Until some rounds have passed.
    let after = until(SURE * 4, "packets are left to nft", || {
        flood(client)?;
        sent += u64::from(FLOOD);
        let now = Counts::read(&daemon)?;
        Ok((now.referred >= before.referred + 20).then_some(now))
    })
    .with_context(|| daemon.words())?;
    let (dropped, referred) = (
        after.dropped - before.dropped,
        after.referred - before.referred,
    );
    ensure!(
        dropped + referred == sent,
        "{dropped} dropped and {referred} left to nft of {sent}"
    );
    let by_nft = after.by_nft - before.by_nft;
    ensure!(by_nft == referred, "nft dropped {by_nft} of {referred}");
    println!("{referred} of {sent} refused packets left to nft, which dropped {by_nft}");

    bench.reload(&daemon, &(limit(0) + &zone("", RULES)))?;
    let before = Counts::read(&daemon)?;
    for _ in 0..5 {
        flood(client)?;
    }
    let after = Counts::read(&daemon)?;
    ensure!(after.referred == before.referred, "{after:?}");
    ensure!(after.by_nft == before.by_nft, "{after:?}");
    ensure!(after.dropped == before.dropped + 5 * u64::from(FLOOD));

    // A dead daemon leaves nothing to a table that anyone may take away now, and somebody does.
    bench.reload(&daemon, &text)?;
    let rounds = 8;
    for _ in 0..rounds {
        until(SURE * 4, "packets are left to nft again", || {
            let before = Counts::read(&daemon)?.referred;
            flood(client)?;
            Ok((Counts::read(&daemon)?.referred > before).then_some(()))
        })?;
        // Into a round of which nothing is spent.
        std::thread::sleep(Duration::from_millis(150));
        daemon.kill()?;
        world.lab.gateway.nft("flush ruleset")?;
        flood(client)?;
        daemon.restart()?;
    }
    println!("{rounds} times killed and flushed, then {FLOOD} packets");
    let arrived: Vec<_> = witness
        .seen()?
        .into_iter()
        .filter(|sighting| sighting.port == NEVER)
        .collect();
    ensure!(arrived.is_empty(), "arrived: {arrived:?}");
    println!("0 refused packets arrived");
    Ok(Verdict::Held)
}

/// Packets refused for want of a grant, as the planes count them.
#[derive(Clone, Copy, Debug)]
struct Counts {
    dropped: u64,
    referred: u64,
    by_nft: u64,
}

impl Counts {
    fn read(daemon: &Daemon<'_>) -> Result<Self> {
        let zones = daemon.ctl(&["zones"])?.json;
        let counters = zones["zones"][0]["counters"].as_array();
        let counters = counters.context("the zone has counters")?;
        let sum = |plane: &str, action: &str| {
            let those = counters.iter().filter(|of| {
                of["plane"] == plane && of["action"] == action && of["reason"] == "port-closed"
            });
            those.filter_map(|of| of["packets"].as_u64()).sum()
        };
        Ok(Self {
            dropped: sum("ebpf", "drop"),
            referred: sum("ebpf", "refer"),
            by_nft: sum("nft", "drop"),
        })
    }
}

/// Sends datagrams that nothing grants.
fn flood(client: &Namespace) -> Result<()> {
    client.enter(|| -> Result<()> {
        let socket = UdpSocket::bind("0.0.0.0:0")?;
        for number in 0..FLOOD {
            let [.., a, b] = number.to_be_bytes();
            socket.send_to(b"refuse me", SocketAddr::new(host(a, b), NEVER))?;
        }
        Ok(())
    })?
}
