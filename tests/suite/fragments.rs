//! Datagrams larger than the links: judged whole where nft reassembles them, dropped where it is not there (P2).
#![expect(clippy::disallowed_methods, reason = "shell: opens a socket")]

use crate::bench::{Bench, DATA, NEVER, SURE, TRY, World, host, host6, learn, zone};
use crate::{Body, Test, Verdict};
use anyhow::{Result, ensure};
use egressd_tests::lab::{Answer, Namespace, Zone, plan, udp_of};
use hickory_proto::rr::RecordType;
use std::net::{IpAddr, SocketAddr, UdpSocket};

pub(crate) const TESTS: &[Test] = &[("fragments_are_judged_by_the_whole", Body::Daemon(fragments))];

/// Bytes of a datagram that takes three frames of 1,500.
const LARGE: usize = 4000;

fn fragments(bench: &Bench) -> Result<Verdict> {
    let mut names = Zone::default();
    names
        .address("data.vendor.example", 600, host(14, 1))
        .address("data.vendor.example", 600, host6(14, 1));
    let world = World::new(&names)?;
    let rules = zone("", &[("*.vendor.example", &[], &[DATA])]);
    let _daemon = bench.daemon(&world.lab, &rules)?;
    let client = &world.lab.client;
    learn(client, "data.vendor.example", host(14, 1))?;
    client.enter(|| -> Result<()> {
        let socket = UdpSocket::bind("0.0.0.0:0")?;
        socket.set_read_timeout(Some(SURE))?;
        socket.connect((plan::GATEWAY[0], 53))?;
        Answer::over(&socket, 1, "data.vendor.example", RecordType::AAAA).map(drop)
    })??;
    for (granted, other) in [(host(14, 1), host(14, 2)), (host6(14, 1), host6(14, 2))] {
        comes_back(client, granted, DATA, 40, true)?;
        comes_back(client, granted, DATA, LARGE, bench.planes.nft())?;
        for (address, port) in [(granted, NEVER), (other, DATA)] {
            comes_back(client, address, port, 40, false)?;
            comes_back(client, address, port, LARGE, false)?;
        }
    }
    Ok(Verdict::Held)
}

fn comes_back(
    client: &Namespace,
    address: IpAddr,
    port: u16,
    length: usize,
    must: bool,
) -> Result<()> {
    let limit = if must { SURE } else { TRY };
    let back = udp_of(client, SocketAddr::new(address, port), length, limit)?;
    ensure!(
        back == must,
        "{length} bytes to {address}:{port}: came back: {back}"
    );
    Ok(())
}
