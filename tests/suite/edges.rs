//! The edges of a zone of the gateway itself: neighbours, leases, flows that come back, forged sources (P10, P11).
#![expect(clippy::disallowed_methods, reason = "shell: opens sockets")]

use crate::bench::{Bench, DATA, SURE, TRY, WEB, World, host, host6, zone};
use crate::{Body, Test, Verdict};
use anyhow::{Context, Result, ensure};
use egressd_tests::lab::{Answer, Daemon, Lab, Namespace, Planes, Zone, plan, unbroken};
use hickory_proto::op::ResponseCode;
use hickory_proto::rr::RecordType;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV6, UdpSocket};

pub(crate) const TESTS: &[Test] = &[
    ("p8_local_neighbours_and_leases", Body::Daemon(neighbours)),
    ("p11_datagrams_do_not_revive", Body::Daemon(revived)),
    ("p10_local_older_flows_to_upstreams", Body::Daemon(older)),
    ("p10_local_another_links_address", Body::Daemon(forged)),
];

const ALONE: Verdict = Verdict::NotPromised("without nft nobody knows which flows others began");
/// A port of a service that the zone does not name.
const UNSERVED: u16 = 9001;

const UNSERVED_THERE: &str =
    "[[zone.rule]]\nnetworks = [\"52.96.31.0/24\", \"2603:1000:0:31::/64\"]\nudp = [9001]\n";

fn own(more: &str) -> String {
    with("", more)
}

/// The clients' zone and the gateway's, each with one more rule.
fn with(clients: &str, gateway: &str) -> String {
    zone("", &[("client.vendor.example", &[WEB], &[DATA])])
        + clients
        + "[[zone]]\nname = \"gateway\"\nlocal = true\nserves = [9000]\n\
           [[zone.rule]]\nnames = [\"own.vendor.example\"]\ntcp = [443]\n"
        + gateway
}

fn world() -> Result<World> {
    let mut names = Zone::default();
    names
        .address("own.vendor.example", 600, host(30, 1))
        .address("client.vendor.example", 600, host(30, 2));
    World::new(&names)
}

/// Whether the kernel lets the gateway send this: nft's refusal is told to the sender.
fn sends(from: &Namespace, kind: (socket2::Type, u8), port: u16, to: SocketAddr) -> Result<bool> {
    from.enter(|| -> Result<bool> {
        let domain = socket2::Domain::for_address(to);
        let protocol = socket2::Protocol::from(i32::from(kind.1));
        let socket = socket2::Socket::new(domain, kind.0, Some(protocol))?;
        socket.bind_device(Some(b"wan0"))?;
        socket.set_broadcast(true)?;
        if port != 0 {
            let any: IpAddr = if to.is_ipv6() {
                Ipv6Addr::UNSPECIFIED.into()
            } else {
                Ipv4Addr::UNSPECIFIED.into()
            };
            socket.bind(&SocketAddr::new(any, port).into())?;
        }
        Ok(socket.send_to(&[0; 32], &to.into()).is_ok())
    })?
}

fn neighbours(bench: &Bench) -> Result<Verdict> {
    const UDP: (socket2::Type, u8) = (socket2::Type::DGRAM, 17);
    const VRRP: (socket2::Type, u8) = (socket2::Type::RAW, 112);
    const OSPF: (socket2::Type, u8) = (socket2::Type::RAW, 89);
    if bench.planes == Planes::Ebpf {
        return Ok(ALONE);
    }
    let world = world()?;
    let _daemon = bench.daemon(&world.lab, &own(""))?;
    let gateway = &world.lab.gateway;
    let index = gateway.enter(|| nix::net::if_::if_nametoindex("wan0"))??;
    let check = |kind, port, to: &str, to_port: u16, expected: bool| -> Result<()> {
        let to = match to.parse()? {
            IpAddr::V4(v4) => SocketAddr::new(v4.into(), to_port),
            IpAddr::V6(v6) if (v6.segments()[0] & 0xe000) == 0x2000 => {
                SocketAddr::new(v6.into(), to_port)
            }
            IpAddr::V6(v6) => SocketAddrV6::new(v6, to_port, 0, index).into(),
        };
        let sent = sends(gateway, kind, port, to)?;
        ensure!(
            sent == expected,
            "{kind:?} from port {port} to {to}: {sent}"
        );
        Ok(())
    };
    check(UDP, 5353, "224.0.0.251", 5353, true)?;
    check(UDP, 5353, "ff02::fb", 5353, true)?;
    check(VRRP, 0, "224.0.0.18", 0, true)?;
    check(OSPF, 0, "224.0.0.5", 0, true)?;
    check(OSPF, 0, "ff02::5", 0, true)?;
    // A DHCP server's offers and a client's requests.
    check(UDP, 67, "255.255.255.255", 68, true)?;
    check(UDP, 68, "255.255.255.255", 67, true)?;
    check(UDP, 547, "fe80::1", 546, true)?;
    check(UDP, 546, "ff02::1:2", 547, true)?;
    // What is no lease, and groups that routers forward.
    check(UDP, 67, "255.255.255.255", 69, false)?;
    check(UDP, 5353, "239.255.255.250", 1900, false)?;
    check(UDP, 5353, "ff05::c", 1900, false)?;
    check(OSPF, 0, "203.0.113.2", 0, false)?;
    Ok(Verdict::Held)
}

/// A datagram of its server begins a cut flow anew, the other way round: it must not carry the gateway's answers.
fn revived(bench: &Bench) -> Result<Verdict> {
    if bench.planes == Planes::Ebpf {
        return Ok(ALONE);
    }
    let world = world()?;
    let Lab {
        client,
        gateway,
        internet,
        ..
    } = &world.lab;
    let outside = "2001:db8:ffff::1".parse()?;
    let daemon = bench.daemon(&world.lab, &own(""))?;
    for (from, sources, granted) in [
        (client, plan::CLIENT, with(UNSERVED_THERE, "")),
        (gateway, [plan::OUTSIDE, outside], with("", UNSERVED_THERE)),
    ] {
        for (source, address) in sources.into_iter().zip([host(31, 5), host6(0x31, 5)]) {
            bench.reload(&daemon, &granted)?;
            comes_back(bench, &daemon, from, internet, (source, address))
                .with_context(|| format!("{source} and {address}"))?;
        }
    }
    // What the zone serves is answered.
    let service = gateway.enter(|| UdpSocket::bind(("0.0.0.0", DATA)))??;
    let asker = internet.enter(|| UdpSocket::bind(("0.0.0.0", 0)))??;
    asker.set_read_timeout(Some(SURE))?;
    service.set_read_timeout(Some(SURE))?;
    let mut buffer = [0; 64];
    asker.send_to(b"question", (plan::OUTSIDE, DATA))?;
    let (_, peer) = unbroken(|| service.recv_from(&mut buffer)).context("a question")?;
    service.send_to(b"answer", peer)?;
    unbroken(|| asker.recv_from(&mut buffer)).context("an answer of a service")?;
    Ok(Verdict::Held)
}

fn comes_back(
    bench: &Bench,
    daemon: &Daemon<'_>,
    from: &Namespace,
    internet: &Namespace,
    (source, address): (IpAddr, IpAddr),
) -> Result<()> {
    let there = SocketAddr::new(address, UNSERVED);
    let server = internet.enter(|| UdpSocket::bind(there))??;
    server.set_read_timeout(Some(SURE))?;
    let client = || {
        from.enter(|| -> Result<UdpSocket> {
            let socket = UdpSocket::bind((source, 0))?;
            socket.connect(there)?;
            socket.set_read_timeout(Some(SURE))?;
            Ok(socket)
        })?
    };
    let mut buffer = [0; 64];
    // Granted, whoever sends first.
    let answering = client()?;
    server.send_to(b"first", answering.local_addr()?)?;
    unbroken(|| answering.recv(&mut buffer)).context("first")?;
    answering.send(b"granted")?;
    unbroken(|| server.recv_from(&mut buffer)).context("an answer that is granted")?;
    let client = client()?;
    client.send(b"granted")?;
    let (_, peer) = unbroken(|| server.recv_from(&mut buffer)).context("granted")?;
    bench.reload(daemon, &own(""))?;
    server.set_read_timeout(Some(TRY))?;
    for round in 0..3 {
        server.send_to(b"again", peer)?;
        for socket in [&client, &answering] {
            let _ = socket.send(b"revoked");
        }
        let leaked = unbroken(|| server.recv_from(&mut buffer));
        ensure!(leaked.is_err(), "round {round}: it came back");
    }
    Ok(())
}

/// Of a flow to an upstream that is older than the zone nobody knows who began it.
fn older(bench: &Bench) -> Result<Verdict> {
    if bench.planes == Planes::Ebpf {
        return Ok(ALONE);
    }
    let world = world()?;
    let clients = zone("", &[("client.vendor.example", &[WEB], &[])]);
    let daemon = bench.daemon(&world.lab, &clients)?;
    let gateway = &world.lab.gateway;
    let socket = gateway.enter(|| -> std::io::Result<UdpSocket> {
        let socket = UdpSocket::bind(("0.0.0.0", 0))?;
        socket.connect((plan::UPSTREAM, 53))?;
        Ok(socket)
    })??;
    let asks = |patience| -> Result<Answer> {
        socket.set_read_timeout(Some(patience))?;
        Answer::over(&socket, 7, "own.vendor.example", RecordType::A)
    };
    asks(SURE).context("the canary sings not")?;
    bench.reload(&daemon, &own(""))?;
    for round in 0..3 {
        ensure!(asks(TRY).is_err(), "round {round}: the flow lives on");
        // egressd's own is well.
        let name = ["client.vendor.example", "own.vendor.example"][round % 2];
        let from = [&world.lab.client, gateway][round % 2];
        let to = SocketAddr::new(plan::GATEWAY[0], 53);
        let answer = egressd_tests::lab::ask(from, to, name, SURE)?;
        ensure!(answer.addresses.len() == 1, "{answer:?}");
    }
    Ok(Verdict::Held)
}

/// Whoever has on the LAN what is the gateway's link-local address on another link is no gateway.
fn forged(bench: &Bench) -> Result<Verdict> {
    let world = world()?;
    let local = if bench.planes == Planes::Ebpf {
        return Ok(ALONE);
    } else {
        own("")
    };
    let (gateway, client) = (&world.lab.gateway, &world.lab.client);
    gateway.ip("addr add fe80::abcd/64 dev wan0 nodad")?;
    client.ip("addr add fe80::abcd/64 dev eth0 nodad")?;
    let _daemon = bench.daemon(&world.lab, &local)?;
    let asks = |from: &Namespace, source: SocketAddr, name: &str| -> Result<Answer> {
        let socket = from.enter(|| -> std::io::Result<UdpSocket> {
            let socket = UdpSocket::bind(source)?;
            socket.connect((plan::GATEWAY[1], 53))?;
            Ok(socket)
        })??;
        socket.set_read_timeout(Some(SURE))?;
        Answer::over(&socket, 7, name, RecordType::A)
    };
    let index = client.enter(|| nix::net::if_::if_nametoindex("eth0"))??;
    let near = SocketAddrV6::new("fe80::abcd".parse()?, 0, 0, index).into();
    let answer = asks(client, near, "own.vendor.example")?;
    ensure!(answer.code == ResponseCode::Refused, "{answer:?}");
    for own in ["[::]:0", "[2001:db8:20::1]:0", "[2001:db8:ffff::1]:0"] {
        let answer = asks(gateway, own.parse()?, "own.vendor.example")?;
        ensure!(answer.addresses == [host(30, 1)], "from {own}: {answer:?}");
    }
    Ok(Verdict::Held)
}
