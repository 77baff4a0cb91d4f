//! Observe mode: clients ask the internet's resolvers, egressd learns from the answers that pass by.
#![expect(
    clippy::disallowed_methods,
    reason = "shell: opens sockets, some in others' names"
)]

use crate::bench::{Bench, NEVER, SURE, TRY, WEB, World, fails, host, host6, passes, zone};
use crate::{Body, Test, Verdict};
use anyhow::{Context, Result, ensure};
use egressd_tests::lab::{Daemon, Lab, Namespace, Planes, Zone, ask, plan, tcp, until};
use hickory_proto::op::{Message, MessageType, OpCode, Query, ResponseCode};
use hickory_proto::rr::rdata::A;
use hickory_proto::rr::{Name, RData, Record, RecordType};
use std::io::{Read, Write};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::process::Command;

pub(crate) const TESTS: &[Test] = &[
    ("observed_answers_teach", Body::Daemon(teaches)),
    ("a_masquerading_gateway_observes", Body::Daemon(masqueraded)),
    ("forged_answers_teach_nothing", Body::Daemon(forged)),
    ("fragments_and_segments_teach", Body::Daemon(pieces)),
    (
        "observing_survives_restart_and_reload",
        Body::Daemon(restarted),
    ),
];

const RULES: &[(&str, &[u16], &[u16])] = &[("*.vendor.example", &[WEB], &[])];

/// The resolvers of the lab that clients ask.
const RESOLVERS: [IpAddr; 2] = [plan::UPSTREAM, plan::STRANGERS[1]];

/// A resolver that a test plays itself.
const PLAYED: IpAddr = IpAddr::V4(Ipv4Addr::new(192, 0, 2, 77));

/// A configuration without a listener of its own.
fn config(lab: &Lab, planes: Planes, delay: bool, zones: &str) -> String {
    let [v4, v6] = RESOLVERS;
    let observe = format!(
        "[dns]\nmode = \"observe\"\nresolvers = [\"{v4}\", \"{v6}\", \"{PLAYED}\"]\ndelay = {delay}\n"
    );
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
             oifname \"wan0\" masquerade\n }\n }",
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

/// A socket in `namespace` that speaks from any address at all.
fn from_any(namespace: &Namespace, address: SocketAddr) -> Result<UdpSocket> {
    namespace.enter(|| -> Result<UdpSocket> {
        use nix::sys::socket::{self as s, setsockopt, sockopt};
        let any = s::socket(
            s::AddressFamily::Inet,
            s::SockType::Datagram,
            s::SockFlag::SOCK_CLOEXEC,
            None,
        )?;
        setsockopt(&any, sockopt::IpTransparent, &true)?;
        setsockopt(&any, sockopt::ReuseAddr, &true)?;
        let SocketAddr::V4(address) = address else {
            anyhow::bail!("IPv4 only");
        };
        let bound = s::SockaddrIn::from(address);
        s::bind(std::os::fd::AsRawFd::as_raw_fd(&any), &bound)?;
        let socket = UdpSocket::from(any);
        socket.set_read_timeout(Some(SURE))?;
        Ok(socket)
    })?
}

fn question(id: u16, name: &str) -> Result<Message> {
    let mut message = Message::new(id, MessageType::Query, OpCode::Query);
    message.add_query(Query::query(Name::from_ascii(name)?, RecordType::A));
    Ok(message)
}

fn answer(id: u16, name: &str, addresses: &[IpAddr]) -> Result<Vec<u8>> {
    let mut message = Message::response(id, OpCode::Query);
    let owner = Name::from_ascii(name)?;
    message.add_query(Query::query(owner.clone(), RecordType::A));
    for address in addresses {
        let IpAddr::V4(v4) = address else { continue };
        message.add_answer(Record::from_rdata(owner.clone(), 60, RData::A(A(*v4))));
    }
    Ok(message.to_vec()?)
}

/// The second zone, whose client asks while a host of the first one forges.
fn two_zones() -> String {
    zone("", RULES)
        + &zone("", RULES)
            .replace("managed", "second")
            .replace("lan0", "lan1")
            .replace("10.20", "10.30")
            .replace("db8:20", "db8:30")
}

fn forged(bench: &Bench) -> Result<Verdict> {
    if let Some(verdict) = unsupported(bench) {
        return Ok(verdict);
    }
    const NAME: &str = "f.vendor.example";
    for delay in [false, true] {
        let world = World::new(&Zone::default())?;
        let lab = &world.lab;
        let daemon = bench.daemon_with(lab, &config(lab, bench.planes, delay, &two_zones()))?;
        let asked = SocketAddr::new(PLAYED, 53);
        let resolver = from_any(&lab.internet, asked)?;
        let client = lab.other.enter(|| UdpSocket::bind("0.0.0.0:0"))??;
        client.set_read_timeout(Some(SURE))?;
        client.send_to(&question(7, NAME)?.to_vec()?, asked)?;
        let mut buffer = [0; 512];
        let (_, there) = resolver.recv_from(&mut buffer)?;

        let lie = [host(21, 9)];
        let good = answer(7, NAME, &lie)?;
        let stranger = from_any(
            &lab.internet,
            SocketAddr::new(IpAddr::from([192, 0, 2, 78]), 53),
        )?;
        let configured = from_any(&lab.internet, "192.0.2.53:5353".parse()?)?;
        let port = from_any(&lab.internet, SocketAddr::new(PLAYED, 54))?;
        let inside = from_any(&lab.client, asked)?;
        let elsewhere = SocketAddr::new(there.ip(), there.port() ^ 1);
        resolver.send_to(&answer(8, NAME, &lie)?, there)?;
        resolver.send_to(&answer(7, "g.vendor.example", &lie)?, there)?;
        resolver.send_to(&answer(7, "F.vendor.example", &lie)?, there)?;
        resolver.send_to(&question(7, NAME)?.to_vec()?, there)?;
        resolver.send_to(&good[..good.len() - 20], elsewhere)?;
        resolver.send_to(&good, elsewhere)?;
        stranger.send_to(&good, there)?;
        configured.send_to(&good, there)?;
        port.send_to(&good, there)?;
        inside.send_to(&good, there)?;
        // The true one, and with it everything before has been judged.
        resolver.send_to(&answer(7, NAME, &[host(21, 1)])?, there)?;
        opens(&lab.other, host(21, 1)).with_context(|| daemon.words())?;
        for namespace in [&lab.client, &lab.other] {
            fails(namespace, host(21, 9), WEB)?;
        }
        // What one zone learned is not the other's.
        fails(&lab.client, host(21, 1), WEB)?;
        let seen = daemon.ctl(&["status"])?.json["observer"].clone();
        ensure!(seen["taught"] == 1, "{seen}");
        ensure!(seen["forged"] == 3, "{seen}");
        // The same answer once more was not asked for.
        resolver.send_to(&good, there)?;
        fails(&lab.other, host(21, 9), WEB)?;
    }
    Ok(Verdict::Held)
}

/// Datagrams that come in fragments, and messages whose segments hold a byte each.
fn pieces(bench: &Bench) -> Result<Verdict> {
    if let Some(verdict) = unsupported(bench) {
        return Ok(verdict);
    }
    for delay in [false, true] {
        let world = World::new(&Zone::default())?;
        let lab = &world.lab;
        let daemon = bench.daemon_with(lab, &config(lab, bench.planes, delay, &zone("", RULES)))?;
        let asked = SocketAddr::new(PLAYED, 53);
        let many: Vec<IpAddr> = (1..=200).map(|number| host(22, number)).collect();

        let resolver = from_any(&lab.internet, asked)?;
        let client = lab.client.enter(|| UdpSocket::bind("0.0.0.0:0"))??;
        client.set_read_timeout(Some(SURE))?;
        client.send_to(&question(7, "f.vendor.example")?.to_vec()?, asked)?;
        let mut buffer = [0; 8192];
        let (_, there) = resolver.recv_from(&mut buffer)?;
        let large = answer(7, "f.vendor.example", &many)?;
        ensure!(large.len() > 1500, "{}", large.len());
        resolver.send_to(&large, there)?;
        let (length, from) = client.recv_from(&mut buffer)?;
        ensure!(
            (&buffer[..length], from) == (&large[..], asked),
            "another answer"
        );
        opens(&lab.client, host(22, 200)).with_context(|| daemon.words())?;

        let listener = lab.internet.enter(|| TcpListener::bind(asked))??;
        let mut client = lab
            .client
            .enter(|| TcpStream::connect_timeout(&asked, SURE))??;
        let (mut served, _) = listener.accept()?;
        for stream in [&client, &served] {
            stream.set_nodelay(true)?;
            stream.set_read_timeout(Some(SURE))?;
        }
        let framed = |message: &[u8]| -> Result<Vec<u8>> {
            Ok([&u16::try_from(message.len())?.to_be_bytes()[..], message].concat())
        };
        for (id, name) in [(1, "s.vendor.example"), (2, "t.vendor.example")] {
            let asked = framed(&question(id, name)?.to_vec()?)?;
            client.write_all(&asked)?;
            served.read_exact(&mut buffer[..asked.len()])?;
            let address = host(23, u8::try_from(id)?);
            let told = framed(&answer(id, name, &[address])?)?;
            for byte in told.chunks(1) {
                served.write_all(byte)?;
            }
            client.read_exact(&mut buffer[..told.len()])?;
            opens(&lab.client, address).with_context(|| daemon.words())?;
        }
    }
    Ok(Verdict::Held)
}

fn restarted(bench: &Bench) -> Result<Verdict> {
    if let Some(verdict) = unsupported(bench) {
        return Ok(verdict);
    }
    let world = World::new(&names())?;
    let (lab, client) = (&world.lab, &world.lab.client);
    let zones = zone("", RULES);
    let mut daemon = bench.daemon_with(lab, &config(lab, bench.planes, false, &zones))?;
    dig(client, plan::UPSTREAM, "a.vendor.example", &["A"])?;
    opens(client, host(20, 1))?;
    daemon.kill()?;
    passes(client, host(20, 1), WEB)?;
    // Nobody learns, and nothing opens.
    dig(client, plan::UPSTREAM, "b.vendor.example", &["A"])?;
    fails(client, host(20, 2), WEB)?;
    daemon.restart()?;
    passes(client, host(20, 1), WEB)?;
    dig(client, plan::UPSTREAM, "b.vendor.example", &["A"])?;
    opens(client, host(20, 2))?;

    let reload = |text: &str| -> Result<()> {
        let outcome = daemon.reload_with(text)?;
        ensure!(
            outcome.status.success(),
            "{}\n{}",
            outcome.text,
            daemon.words()
        );
        Ok(())
    };
    reload(&config(lab, bench.planes, true, &zones))?;
    let server = SocketAddr::new(plan::UPSTREAM, 53);
    let told = ask(client, server, "c.vendor.example", SURE)?;
    ensure!(told.addresses == [host(20, 3)], "{told:?}");
    // Held until it was in force: the first packet passes.
    passes(client, host(20, 3), WEB)?;

    // In forward mode the resolver is closed, and answers of the gateway teach.
    reload(&(Daemon::preamble(lab, bench.planes) + &zones))?;
    ensure!(ask(client, server, "c.vendor.example", TRY).is_err());
    passes(client, host(20, 1), WEB)?;
    let gateway = SocketAddr::new(plan::GATEWAY[0], 53);
    let told = ask(client, gateway, "alias.vendor.example", SURE)?;
    ensure!(told.addresses == [host(20, 4)], "{told:?}");
    passes(client, host(20, 4), WEB)?;

    // Back, and killed while answers are held: none leaves.
    reload(&config(lab, bench.planes, true, &zones))?;
    ask(client, server, "c.vendor.example", SURE)?;
    daemon.kill()?;
    ensure!(ask(client, server, "c.vendor.example", TRY).is_err());
    daemon.restart()?;
    ask(client, server, "c.vendor.example", SURE)?;
    let table = lab
        .gateway
        .output(Command::new("nft").args(["list", "tables"]))?;
    ensure!(table.contains("egressd"), "{table}");
    Ok(Verdict::Held)
}
