//! Observe mode: clients ask the internet's resolvers, egressd learns from the answers that pass by.

use crate::bench::{Bench, NEVER, SURE, WEB, World, fails, host, host6, passes, zone};
use crate::{Body, Test, Verdict};
use anyhow::{Context, Result, ensure};
use egressd_tests::lab::{Daemon, Lab, Namespace, Planes, Zone, ask, plan, tcp, until};
use hickory_proto::op::ResponseCode;
use std::net::{IpAddr, SocketAddr};
use std::process::Command;

pub(crate) const TESTS: &[Test] = &[
    ("observed_answers_teach", Body::Daemon(teaches)),
    ("a_masquerading_gateway_observes", Body::Daemon(masqueraded)),
];

const RULES: &[(&str, &[u16], &[u16])] = &[("*.vendor.example", &[WEB], &[])];

/// The resolvers of the lab that clients ask.
const RESOLVERS: [IpAddr; 2] = [plan::UPSTREAM, plan::STRANGERS[1]];

/// A configuration without a listener of its own.
fn config(lab: &Lab, planes: Planes, delay: bool, zones: &str) -> String {
    let [v4, v6] = RESOLVERS;
    let observe =
        format!("[dns]\nmode = \"observe\"\nresolvers = [\"{v4}\", \"{v6}\"]\ndelay = {delay}\n");
    let forward: Vec<&str> = vec!["listen", "upstreams"];
    let preamble = Daemon::preamble(lab, planes);
    let kept: String = preamble
        .lines()
        .filter(|line| !forward.iter().any(|key| line.starts_with(key)))
        .map(|line| format!("{line}\n"))
        .collect();
    kept.replace("[dns]\n", &observe) + zones
}

fn names() -> Zone {
    let mut names = Zone::default();
    names
        .address("a.vendor.example", 60, host(20, 1))
        .address("a.vendor.example", 60, host6(20, 1))
        .address("b.vendor.example", 60, host(20, 2))
        .address("c.vendor.example", 60, host(20, 3))
        .alias("alias.vendor.example", 60, "far.other.example")
        .address("far.other.example", 60, host(20, 4))
        .address("www.other.example", 60, host(20, 5))
        .address("bad.vendor.example", 60, IpAddr::from([192, 168, 7, 7]))
        .address("bad.vendor.example", 60, plan::UPSTREAM)
        .address("bad.vendor.example", 60, host(20, 6));
    names
}

/// Asks with dig, which speaks both families and TCP.
fn dig(client: &Namespace, server: IpAddr, name: &str, more: &[&str]) -> Result<String> {
    let mut command = Command::new("dig");
    command
        .args(["+short", "+tries=1", "+time=3", &format!("@{server}"), name])
        .args(more);
    client.output(&mut command)
}

/// Waits until a connection opens: the answer is there before its grant may be.
fn opens(client: &Namespace, address: IpAddr) -> Result<()> {
    until(SURE, "the observed answer is in force", || {
        let to = SocketAddr::new(address, WEB);
        Ok(tcp(client, to, SURE / 5)?.then_some(()))
    })
}

fn unsupported(bench: &Bench) -> Option<Verdict> {
    (!bench.planes.nft()).then_some(Verdict::NotPromised("observe mode needs the nft plane"))
}

fn teaches(bench: &Bench) -> Result<Verdict> {
    if let Some(verdict) = unsupported(bench) {
        return Ok(verdict);
    }
    for delay in [false, true] {
        let world = World::new(&names())?;
        let text = config(&world.lab, bench.planes, delay, &zone("", RULES));
        let daemon = bench.daemon_with(&world.lab, &text)?;
        learns(&world.lab, &daemon, delay).with_context(|| {
            let status = daemon.told(&["status"]).unwrap_or_default();
            format!("delay = {delay}\n{status}\n{}", daemon.words())
        })?;
    }
    Ok(Verdict::Held)
}

fn masqueraded(bench: &Bench) -> Result<Verdict> {
    if let Some(verdict) = unsupported(bench) {
        return Ok(verdict);
    }
    for delay in [false, true] {
        let world = World::new(&names())?;
        world.lab.gateway.nft(
            "table inet nat { chain post { type nat hook postrouting priority srcnat; \
             oifname \"wan0\" masquerade; } }",
        )?;
        let text = config(&world.lab, bench.planes, delay, &zone("", RULES));
        let daemon = bench.daemon_with(&world.lab, &text)?;
        learns(&world.lab, &daemon, delay).with_context(|| {
            let status = daemon.told(&["status"]).unwrap_or_default();
            format!("delay = {delay}\n{status}\n{}", daemon.words())
        })?;
    }
    Ok(Verdict::Held)
}

fn learns(lab: &Lab, daemon: &Daemon<'_>, delay: bool) -> Result<()> {
    let client = &lab.client;
    let [v4, v6] = RESOLVERS;
    for number in 1..=6 {
        fails(client, host(20, number), WEB)?;
    }
    // UDP over IPv4 and IPv6, TCP over both, a chain of aliases.
    for (server, name, more, address) in [
        (v4, "a.vendor.example", &["A"][..], host(20, 1)),
        (v6, "a.vendor.example", &["AAAA"], host6(20, 1)),
        (v4, "b.vendor.example", &["+tcp"], host(20, 2)),
        (v6, "c.vendor.example", &["+tcp"], host(20, 3)),
        (v6, "alias.vendor.example", &["A"], host(20, 4)),
    ] {
        let answer = dig(client, server, name, more)?;
        ensure!(answer.contains(&address.to_string()), "{name}: {answer}");
        opens(client, address).with_context(|| format!("{name} {more:?} from {server}"))?;
        fails(client, address, NEVER)?;
    }
    // What no set lists is answered and not granted; no more is another zone's client taught.
    let answer = dig(client, v4, "www.other.example", &["A"])?;
    ensure!(answer.contains(&host(20, 5).to_string()), "{answer}");
    fails(client, host(20, 5), WEB)?;
    // What may not be taught: held answers lose it, others only teach less.
    let answer = dig(client, v4, "bad.vendor.example", &["A"])?;
    ensure!(answer.contains("192.168.7.7") != delay, "{answer}");
    opens(client, host(20, 6))?;
    fails(client, IpAddr::from([192, 168, 7, 7]), WEB)?;
    fails(client, plan::UPSTREAM, WEB)?;
    // Other resolvers stay closed, and so do other ports of these.
    let other = SocketAddr::new(plan::STRANGERS[0], 53);
    ensure!(ask(client, other, "a.vendor.example", SURE / 10).is_err());
    fails(client, v4, WEB)?;
    let missing = ask(client, SocketAddr::new(v4, 53), "x.vendor.example", SURE)?;
    ensure!(missing.code == ResponseCode::NXDomain, "{missing:?}");

    let explained = daemon.told(&["explain", &v4.to_string(), "53/udp"])?;
    ensure!(explained.contains("resolvers"), "{explained}");
    let status = daemon.ctl(&["status"])?.json;
    let seen = &status["observer"];
    ensure!(seen["taught"] == 6, "{seen}");
    ensure!(
        [&seen["forged"], &seen["malformed"], &seen["unmatched"]].map(|n| n == 0) == [true; 3],
        "{seen}"
    );
    Ok(())
}
