//! Flows that others opened, flows between zones, and flows older than the policy.

use crate::bench::{
    Bench, DATA, NEVER, SURE, WEB, World, datagram, dies, fails, flow, host, learn, passes, zone,
};
use crate::{Body, Test, Verdict};
use anyhow::{Result, ensure};
use egressd_tests::lab::{Echo, Planes, Zone, plan};
use std::net::IpAddr;
use std::time::Duration;

pub(crate) const TESTS: &[Test] = &[
    ("inbound_connections_pass", Body::Daemon(inbound)),
    ("zones_reach_each_other", Body::Daemon(between)),
    ("a_live_ungranted_flow_is_cut_at_start", Body::Daemon(cut)),
    ("what_no_zone_claims_is_dropped", Body::Daemon(unzoned)),
    ("planes_agree", Body::Daemon(agree)),
];

/// A service of the LAN, published on the gateway's outside by another table.
fn inbound(bench: &Bench) -> Result<Verdict> {
    if bench.planes == Planes::Ebpf {
        return Ok(Verdict::NotPromised(
            "ebpf alone judges every packet: no inbound service",
        ));
    }
    let world = World::new(&Zone::default())?;
    let _service = Echo::start(&world.lab.client, &[8080], &[DATA])?;
    world.lab.gateway.nft(
        "table ip published { chain in { type nat hook prerouting priority dstnat; \
         iifname wan0 tcp dport 8080 dnat to 10.20.0.2:8080;          iifname wan0 udp dport 9000 dnat to 10.20.0.2:9000; }; }",
    )?;
    let rules = zone("serves = [9000]", &[("*.vendor.example", &[WEB], &[])]);
    let _daemon = bench.daemon(&world.lab, &rules)?;
    let internet = &world.lab.internet;
    for address in [plan::OUTSIDE, plan::CLIENT[1]] {
        let mut visitor = flow(internet, address, 8080)?;
        ensure!(visitor.echoes(SURE), "{address} stopped answering");
        datagram(internet, address, DATA, true)?;
    }
    // The client itself gains nothing by it.
    fails(&world.lab.client, host(9, 9), WEB)?;
    Ok(Verdict::Held)
}

/// Two zones whose addresses are `internal`: connections between them are nobody's egress.
fn between(bench: &Bench) -> Result<Verdict> {
    let world = World::new(&Zone::default())?;
    let _service = Echo::start(&world.lab.other, &[WEB], &[DATA])?;
    let _back = Echo::start(&world.lab.client, &[WEB], &[DATA])?;
    let rules = zone("", &[("*.vendor.example", &[WEB], &[])])
        + "[[zone]]\nname = \"guests\"\ninterfaces = [\"lan1\"]\n\
           [[zone.rule]]\nnames = [\"guest.example\"]\ntcp = [443]\n";
    let _daemon = bench.daemon(&world.lab, &rules)?;
    for (from, to) in [
        (&world.lab.client, plan::OTHER),
        (&world.lab.other, plan::CLIENT),
    ] {
        for address in to {
            let mut flow = flow(from, address, WEB)?;
            ensure!(flow.echoes(SURE), "{address} stopped answering");
            datagram(from, address, DATA, true)?;
        }
        fails(from, host(9, 9), WEB)?;
    }
    Ok(Verdict::Held)
}

/// A flow that was there before the gateway filtered, to an address that nothing grants.
fn cut(bench: &Bench) -> Result<Verdict> {
    let world = World::new(&Zone::default())?;
    // Conntrack sees it from its beginning, as on a gateway that already did NAT.
    world.lab.gateway.nft(
        "table inet before { chain c { type filter hook forward priority 0; ct state new accept; }; }",
    )?;
    let mut old = flow(&world.lab.client, host(9, 9), NEVER)?;
    let _daemon = bench.daemon(&world.lab, &zone("", &[("*.vendor.example", &[WEB], &[])]))?;
    dies(&mut old, Duration::from_secs(5))?;
    Ok(Verdict::Held)
}

fn unzoned(bench: &Bench) -> Result<Verdict> {
    if bench.planes == Planes::Ebpf {
        return Ok(Verdict::NotPromised(
            "ebpf alone sees only the zones' interfaces",
        ));
    }
    let mut names = Zone::default();
    names.address("a.vendor.example", 60, host(6, 1));
    let world = World::new(&names)?;
    let _daemon = bench.daemon(&world.lab, &zone("", &[("*.vendor.example", &[WEB], &[])]))?;
    learn(&world.lab.client, "a.vendor.example", host(6, 1))?;
    passes(&world.lab.client, host(6, 1), WEB)?;
    fails(&world.lab.other, host(6, 1), WEB)?;
    Ok(Verdict::Held)
}

/// The same flows at every choice of planes: this table is the judge of each.
fn agree(bench: &Bench) -> Result<Verdict> {
    let mut names = Zone::default();
    names
        .address("web.vendor.example", 600, host(7, 1))
        .address("data.vendor.example", 600, host(7, 2))
        .address("wide.vendor.example", 600, host(7, 3));
    let world = World::new(&names)?;
    let rules = zone(
        "",
        &[
            ("web.vendor.example", &[WEB], &[]),
            ("data.vendor.example", &[], &[DATA]),
            ("wide.vendor.example", &[WEB, 8443], &[DATA]),
        ],
    ) + "[[zone.rule]]\nnetworks = [\"52.97.0.0/24\", \"2603:1000:7::/48\"]\ntcp = [443]\n";
    let daemon = bench.daemon(&world.lab, &rules)?;
    let client = &world.lab.client;
    for (name, last) in [("web", 1), ("data", 2), ("wide", 3)] {
        learn(client, &format!("{name}.vendor.example"), host(7, last))?;
    }
    let network: IpAddr = [52, 97, 0, 77].into();
    let network6: IpAddr = [0x2603, 0x1000, 7, 0, 0, 0, 0, 77].into();
    let table: [(IpAddr, [bool; 4]); 6] = [
        (host(7, 1), [true, false, false, false]),
        (host(7, 2), [false, false, false, true]),
        (host(7, 3), [true, true, false, true]),
        (host(7, 4), [false; 4]),
        (network, [true, false, false, false]),
        (network6, [true, false, false, false]),
    ];
    for (address, [web, alt, never, data]) in table {
        for (port, must) in [(WEB, web), (8443, alt), (NEVER, never)] {
            if must {
                passes(client, address, port)?
            } else {
                fails(client, address, port)?
            }
            explained(&daemon, bench.planes, address, &format!("{port}/tcp"), must)?;
        }
        datagram(client, address, DATA, data)?;
        explained(&daemon, bench.planes, address, &format!("{DATA}/udp"), data)?;
    }
    Ok(Verdict::Held)
}

/// Insists that each plane says of itself what the packets said.
fn explained(
    daemon: &egressd_tests::lab::Daemon<'_>,
    planes: Planes,
    address: IpAddr,
    service: &str,
    must: bool,
) -> Result<()> {
    let text = address.to_string();
    let outcome = daemon.ctl(&["explain", &text, service, "--zone", "managed"])?;
    let zone = &outcome.json["zones"][0];
    let planes_say = zone["planes"].as_array().cloned().unwrap_or_default();
    let wanted = usize::from(planes.nft()) + usize::from(planes.ebpf());
    ensure!(
        planes_say.len() == wanted,
        "{wanted} verdicts on {text} {service}: {}",
        outcome.text
    );
    for plane in planes_say {
        ensure!(
            plane["allowed"] == must,
            "{text} {service} must be {must}: {plane}"
        );
    }
    let word = if must { "allowed" } else { "refused" };
    ensure!(
        zone["verdict"] == word,
        "{text} {service} must be {word}: {zone}"
    );
    Ok(())
}
