//! The lab itself, and that it sees a leak: without a filter, every forbidden attempt passes.

use crate::bench::{DATA, NEVER, TRY, WEB, World, datagram, host, host6, passes};
use crate::{Body, Test};
use anyhow::{Result, ensure};
use egressd_tests::lab::{Sighting, Witness, Zone, ask, plan};
use std::net::SocketAddr;

pub(crate) const TESTS: &[Test] = &[
    ("a_plain_router_leaks_everywhere", Body::Lab(leaks)),
    (
        "the_authority_follows_aliases_and_changes",
        Body::Lab(names),
    ),
];

fn leaks() -> Result<()> {
    let world = World::new(&Zone::default())?;
    let witness = Witness::watch(&world.lab.internet)?;
    for client in [&world.lab.client, &world.lab.other] {
        for address in [host(9, 9), host6(9, 9)] {
            passes(client, address, WEB)?;
            passes(client, address, NEVER)?;
            datagram(client, address, DATA, true)?;
        }
    }
    let seen = witness.seen()?;
    for (address, protocol, port) in [
        (host(9, 9), 6, WEB),
        (host6(9, 9), 6, NEVER),
        (host6(9, 9), 17, DATA),
    ] {
        let sighting = Sighting {
            address,
            protocol,
            port,
        };
        ensure!(seen.contains(&sighting), "{sighting:?} is not in {seen:?}");
    }
    ensure!(
        !seen.iter().any(|sighting| sighting.port == 1),
        "nobody went to port 1"
    );
    Ok(())
}

fn names() -> Result<()> {
    let mut zone = Zone::default();
    zone.alias("a.example", 60, "b.example")
        .alias("b.example", 60, "c.example.net")
        .address("c.example.net", 60, host(1, 1));
    let mut world = World::new(&zone)?;
    for resolver in plan::STRANGERS {
        let server = SocketAddr::new(resolver, 53);
        let answer = ask(&world.lab.client, server, "a.example", TRY * 4)?;
        ensure!(answer.addresses == [host(1, 1)], "{answer:?}");
    }
    let mut other = Zone::default();
    other.address("a.example", 60, host(1, 2));
    world.authority.publish(&world.lab, &other)?;
    let server = SocketAddr::new(plan::UPSTREAM, 53);
    let answer = ask(&world.lab.client, server, "a.example", TRY * 4)?;
    ensure!(answer.addresses == [host(1, 2)], "{answer:?}");
    Ok(())
}
