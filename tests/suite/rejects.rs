//! What clients are told of refused packets (`refuse`), with nft alone and behind XDP.
#![expect(clippy::disallowed_methods, reason = "shell: opens sockets")]

use crate::bench::{Bench, NEVER, SURE, TRY, WEB, World, host, host6, passes, zone};
use crate::{Body, Test, Verdict};
use anyhow::{Result, ensure};
use egressd_tests::lab::{Namespace, Planes, Zone, unbroken, until};
use std::io::ErrorKind;
use std::net::{IpAddr, SocketAddr, TcpStream, UdpSocket};

pub(crate) const TESTS: &[Test] = &[(
    "clients_are_told_what_is_refused",
    Body::Daemon(clients_are_told),
)];

/// What a client hears of a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Heard {
    /// Nothing within [`TRY`].
    Nothing,
    /// An error, at once.
    Refusal,
    /// What it asked for.
    Answer,
}

fn clients_are_told(bench: &Bench) -> Result<Verdict> {
    if bench.planes == Planes::Ebpf {
        return Ok(Verdict::NotPromised("the nft plane tells"));
    }
    let world = World::new(&Zone::default())?;
    let client = &world.lab.client;
    let rules = |refuse: &str| {
        let networks = "[[zone.rule]]\nnetworks = [\"52.96.30.0/24\"]\ntcp = [443]\n";
        zone(&format!("refuse = \"{refuse}\""), &[]) + networks
    };
    let daemon = bench.daemon(&world.lab, &rules("quic"))?;
    for (refuse, quic, other, connection) in [
        ("quic", Heard::Refusal, Heard::Nothing, Heard::Nothing),
        ("reject", Heard::Refusal, Heard::Refusal, Heard::Refusal),
        ("drop", Heard::Nothing, Heard::Nothing, Heard::Nothing),
    ] {
        bench.reload(&daemon, &rules(refuse))?;
        for address in [host(9, 9), host6(9, 9)] {
            for (what, expected, port) in [("quic", quic, WEB), ("udp", other, NEVER)] {
                let told = |got| got == expected;
                hears(refuse, what, told, || datagram(client, address, port))?;
            }
            let told = |got| got == connection;
            hears(refuse, "tcp", told, || connect(client, address, WEB))?;
        }
        // A wrong port of an address that is granted.
        let told = |got| got == connection;
        hears(refuse, "port", told, || connect(client, host(30, 1), NEVER))?;
        passes(client, host(30, 1), WEB)?;
    }
    Ok(Verdict::Held)
}

/// Tries until it is as expected: XDP leaves ten refused packets a second to nft.
fn hears(
    refuse: &str,
    what: &str,
    expected: impl Fn(Heard) -> bool,
    attempt: impl Fn() -> Result<Heard>,
) -> Result<()> {
    let mut last = Heard::Answer;
    let outcome = until(SURE, "the client hears what it should", || {
        last = attempt()?;
        ensure!(last != Heard::Answer, "it passed");
        Ok(expected(last).then_some(()))
    });
    outcome.map_err(|error| error.context(format!("refuse = {refuse}: {what} heard {last:?}")))
}

fn datagram(client: &Namespace, address: IpAddr, port: u16) -> Result<Heard> {
    client.enter(|| {
        let any = if address.is_ipv4() {
            "0.0.0.0:0"
        } else {
            "[::]:0"
        };
        let socket = UdpSocket::bind(any)?;
        socket.set_read_timeout(Some(TRY))?;
        socket.connect((address, port))?;
        socket.send(b"hello")?;
        let mut buffer = [0; 16];
        Ok(match unbroken(|| socket.recv(&mut buffer)) {
            Ok(_) => Heard::Answer,
            Err(error) => heard(&error),
        })
    })?
}

fn connect(client: &Namespace, address: IpAddr, port: u16) -> Result<Heard> {
    let to = SocketAddr::new(address, port);
    let connected = client.enter(|| TcpStream::connect_timeout(&to, TRY))?;
    Ok(match connected {
        Ok(_) => Heard::Answer,
        Err(error) => heard(&error),
    })
}

fn heard(error: &std::io::Error) -> Heard {
    if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) {
        Heard::Nothing
    } else {
        Heard::Refusal
    }
}
