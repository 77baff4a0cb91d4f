//! A zone of the gateway itself: what it sends is judged, and nothing else is disturbed (P10).
#![expect(
    clippy::disallowed_methods,
    reason = "shell: opens sockets, runs ping and nft"
)]

use crate::bench::{
    Bench, DATA, NEVER, SURE, TRY, WEB, World, datagram, dies, fails, flow, host, host6, learn,
    passes, zone,
};
use crate::{Body, Test, Verdict};
use anyhow::{Context, Result, ensure};
use egressd_tests::lab::{
    Daemon, Echo, Flow, Lab, Namespace, Planes, Witness, Zone, ask, plan, until,
};
use hickory_proto::op::ResponseCode;
use nix::sys::signal::Signal;
use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::process::Command;
use std::time::Duration;

pub(crate) const TESTS: &[Test] = &[
    ("p10_local_output_is_judged", Body::Daemon(judged)),
    ("p10_local_leaves_the_rest_alone", Body::Daemon(undisturbed)),
    (
        "p10_local_resolvers_are_egressds_alone",
        Body::Daemon(resolvers),
    ),
    ("p10_local_comes_and_goes", Body::Daemon(reloaded)),
    ("p10_local_outlives_the_daemon", Body::Daemon(killed)),
    ("p10_local_revocation_cuts", Body::Daemon(revoked)),
    ("p10_local_holds_without_nft", Body::Daemon(alone)),
];

const ALONE: Verdict = Verdict::NotPromised("without nft nobody knows which flows others began");

const OWN: &str = "[[zone]]\nname = \"gateway\"\nlocal = true\nserves = [9000]\n\
     [[zone.rule]]\nnames = [\"own.vendor.example\"]\ntcp = [443]\nudp = [9000]\nprotocols = [\"icmp\"]\n\
     [[zone.rule]]\nnetworks = [\"52.96.31.0/24\", \"2603:1000:0:31::/64\"]\ntcp = [443]\nudp = [9000]\n\
     protocols = [\"icmp\", \"icmpv6\"]\n";

/// The clients' zone and the gateway's.
fn both() -> String {
    zone("", &[("client.vendor.example", &[WEB], &[DATA])]) + OWN
}

fn world() -> Result<World> {
    let mut names = Zone::default();
    names
        .address("own.vendor.example", 600, host(30, 1))
        .address("client.vendor.example", 600, host(30, 2))
        .address("nobody.vendor.example", 600, host(30, 3));
    World::new(&names)
}

fn resolver() -> SocketAddr {
    SocketAddr::new(plan::GATEWAY[0], 53)
}

fn asks(lab: &Lab, name: &str) -> Result<Vec<IpAddr>> {
    let answer = ask(&lab.gateway, resolver(), name, SURE)?;
    Ok(answer.addresses)
}

fn pings(from: &Namespace, address: IpAddr, must: bool) -> Result<()> {
    let patience = if must { "5" } else { "1" };
    let mut ping = Command::new("ping");
    ping.args(["-c", "1", "-W", patience, "-q", &address.to_string()]);
    let back = from.output(&mut ping).is_ok();
    ensure!(back == must, "ping {address}: came back: {back}");
    Ok(())
}

/// Whether a packet of a protocol without ports may leave: the kernel tells who sends it.
fn leaves(from: &Namespace, address: IpAddr, protocol: u8) -> Result<bool> {
    from.enter(|| -> Result<bool> {
        let domain = socket2::Domain::for_address(SocketAddr::new(address, 0));
        let raw = socket2::Socket::new(
            domain,
            socket2::Type::RAW,
            Some(socket2::Protocol::from(i32::from(protocol))),
        )?;
        let to = socket2::SockAddr::from(SocketAddr::new(address, 0));
        // To SCTP the first chunk is an INIT.
        let mut payload = [0; 32];
        payload[12] = 1;
        Ok(raw.send_to(&payload, &to).is_ok())
    })?
}

/// Every attempt that nothing grants, over TCP, UDP, echo, SCTP and two others, in both families; how
/// many there were.
fn nothing_else(gateway: &Namespace) -> Result<u32> {
    const SCTP: u8 = 132;
    const GRE: u8 = 47;
    const ODD: u8 = 253;
    let mut tried = 0;
    for address in [host(9, 9), host6(9, 9)] {
        for port in [WEB, NEVER] {
            fails(gateway, address, port)?;
            tried += 1;
        }
        for port in [DATA, NEVER] {
            datagram(gateway, address, port, false)?;
            tried += 1;
        }
        pings(gateway, address, false)?;
        tried += 1;
        for protocol in [SCTP, GRE, ODD] {
            ensure!(
                !leaves(gateway, address, protocol)?,
                "protocol {protocol} to {address} left"
            );
            tried += 1;
        }
    }
    for resolver in plan::STRANGERS {
        let answer = ask(
            gateway,
            SocketAddr::new(resolver, 53),
            "own.vendor.example",
            TRY,
        );
        ensure!(
            answer.is_err(),
            "{resolver} answered the gateway: {answer:?}"
        );
        tried += 1;
    }
    Ok(tried)
}

/// What is granted, by name and by network; how many attempts that were.
fn granted(lab: &Lab) -> Result<u32> {
    let gateway = &lab.gateway;
    let learned = asks(lab, "own.vendor.example")?;
    ensure!(learned == [host(30, 1)], "{learned:?}");
    let mut tried = 0;
    for address in [host(30, 1), host(31, 7), host6(0x31, 7)] {
        passes(gateway, address, WEB)?;
        datagram(gateway, address, DATA, true)?;
        pings(gateway, address, true)?;
        fails(gateway, address, NEVER)?;
        tried += 3;
    }
    Ok(tried)
}

fn judged(bench: &Bench) -> Result<Verdict> {
    if bench.planes == Planes::Ebpf {
        return Ok(ALONE);
    }
    let world = world()?;
    // The canary: without the zone all of it passes.
    let daemon = bench.daemon(
        &world.lab,
        &zone("", &[("client.vendor.example", &[WEB], &[DATA])]),
    )?;
    let gateway = &world.lab.gateway;
    for address in [host(9, 9), host6(9, 9)] {
        passes(gateway, address, NEVER)?;
        datagram(gateway, address, NEVER, true)?;
        pings(gateway, address, true)?;
        for protocol in [132, 47, 253] {
            ensure!(
                leaves(gateway, address, protocol)?,
                "protocol {protocol} to {address}"
            );
        }
    }
    bench.reload(&daemon, &both())?;
    let (passed, refused) = (granted(&world.lab)?, nothing_else(gateway)?);
    // What clients may reach the gateway may not, and the other way round.
    learn(&world.lab.client, "client.vendor.example", host(30, 2))?;
    fails(gateway, host(30, 2), WEB)?;
    fails(&world.lab.client, host(30, 1), WEB)?;
    let answer = ask(gateway, resolver(), "nobody.vendor.example", SURE)?;
    ensure!(answer.code == ResponseCode::Refused, "{answer:?}");
    let explained = daemon.ctl(&["explain", "52.96.9.9", "443/tcp", "--zone", "gateway"])?;
    ensure!(explained.text.contains("gateway"), "{}", explained.text);
    println!("{passed} of {passed} granted attempts passed, 0 of {refused} others");
    Ok(Verdict::Held)
}

/// Clients, services of the gateway, neighbours.
fn undisturbed(bench: &Bench) -> Result<Verdict> {
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
    let _service = Echo::start(gateway, &[22], &[DATA])?;
    let daemon = bench.daemon(
        &world.lab,
        &zone("", &[("client.vendor.example", &[WEB], &[DATA])]),
    )?;
    // Conntrack knows it from its beginning.
    let mut before = flow(internet, plan::OUTSIDE, 22)?;
    bench.reload(&daemon, &both())?;
    ensure!(before.echoes(SURE), "a session from before was cut");
    for address in [
        plan::OUTSIDE,
        IpAddr::from([0x2001, 0xdb8, 0xffff, 0, 0, 0, 0, 1]),
    ] {
        let mut session = flow(internet, address, 22)?;
        datagram(internet, address, DATA, true)?;
        pings(internet, address, true)?;
        ensure!(session.echoes(SURE), "{address} stopped answering");
    }
    for address in plan::GATEWAY {
        let mut session = flow(client, address, 22)?;
        datagram(client, address, DATA, true)?;
        pings(client, address, true)?;
        ensure!(session.echoes(SURE), "{address} stopped answering");
    }
    // The gateway reaches its own clients, and itself.
    let _host = Echo::start(client, &[WEB], &[])?;
    for address in plan::CLIENT {
        flow(gateway, address, WEB)?;
    }
    for address in [
        plan::OUTSIDE,
        plan::GATEWAY[0],
        IpAddr::from([127, 0, 0, 1]),
    ] {
        flow(gateway, address, 22)?;
    }
    learn(client, "client.vendor.example", host(30, 2))?;
    let mut through = flow(client, host(30, 2), WEB)?;
    datagram(client, host(30, 2), DATA, true)?;
    fails(client, host(9, 9), WEB)?;
    // Neighbours that must be found anew.
    gateway.ip("neigh flush dev wan0\nneigh flush dev lan0")?;
    ensure!(through.echoes(SURE), "the client's flow stopped");
    passes(gateway, host6(0x31, 7), WEB)?;
    passes(gateway, host(31, 7), WEB)?;
    Ok(Verdict::Held)
}

/// The way to the upstream is egressd's own: no other program has it, whatever its port.
fn resolvers(bench: &Bench) -> Result<Verdict> {
    if bench.planes == Planes::Ebpf {
        return Ok(ALONE);
    }
    let world = world()?;
    let gateway = &world.lab.gateway;
    let upstream = SocketAddr::new(plan::UPSTREAM, 53);
    let daemon = bench.daemon(
        &world.lab,
        &zone("", &[("client.vendor.example", &[WEB], &[])]),
    )?;
    ensure!(
        ask(gateway, upstream, "own.vendor.example", SURE).is_ok(),
        "the canary sings not"
    );
    bench.reload(&daemon, &both())?;
    learn(&world.lab.client, "client.vendor.example", host(30, 2))?;
    let answer = ask(gateway, upstream, "own.vendor.example", TRY);
    ensure!(answer.is_err(), "others reach the upstream: {answer:?}");
    fails(gateway, plan::UPSTREAM, 53)?;
    // With the mark, but elsewhere.
    let marked = |to: SocketAddr| {
        gateway.enter(|| -> Result<bool> {
            let socket = UdpSocket::bind(("0.0.0.0", 0))?;
            socket2::SockRef::from(&socket).set_mark(0x6567_7265)?;
            Ok(socket.send_to(b"x", to).is_ok())
        })?
    };
    ensure!(marked(upstream)?, "the mark opens nothing");
    for (address, port) in [(plan::UPSTREAM, 54), (plan::STRANGERS[0], 53)] {
        ensure!(
            !marked(SocketAddr::new(address, port))?,
            "the mark opens {address}:{port}"
        );
    }
    Ok(Verdict::Held)
}

fn reloaded(bench: &Bench) -> Result<Verdict> {
    if bench.planes == Planes::Ebpf {
        return Ok(ALONE);
    }
    let world = world()?;
    let gateway = &world.lab.gateway;
    let clients = zone("", &[("client.vendor.example", &[WEB], &[DATA])]);
    let daemon = bench.daemon(&world.lab, &clients)?;
    let mut allowed = flow(gateway, host(31, 9), WEB)?;
    for round in 0..5 {
        let mut stray = flow(gateway, host(9, 9), NEVER)?;
        bench.reload(&daemon, &both())?;
        dies(&mut stray, Duration::from_secs(5)).with_context(|| format!("round {round}"))?;
        fails(gateway, host(9, 9), NEVER)?;
        granted(&world.lab)?;
        ensure!(allowed.echoes(SURE), "a flow that is granted was cut");
        bench.reload(&daemon, &clients)?;
        passes(gateway, host(9, 9), NEVER)?;
        ensure!(allowed.echoes(SURE), "a flow that is granted was cut");
    }
    let chains = gateway.output(Command::new("nft").args(["list", "chains"]))?;
    ensure!(
        !chains.contains("hook output") && !chains.contains("hook input"),
        "{chains}"
    );
    Ok(Verdict::Held)
}

fn killed(bench: &Bench) -> Result<Verdict> {
    if bench.planes == Planes::Ebpf {
        return Ok(ALONE);
    }
    let world = world()?;
    let mut daemon = bench.daemon(&world.lab, &both())?;
    let gateway = &world.lab.gateway;
    granted(&world.lab)?;
    let mut live = flow(gateway, host(30, 1), WEB)?;
    for _ in 0..3 {
        daemon.kill()?;
        nothing_else(gateway)?;
        passes(gateway, host(30, 1), WEB)?;
        ensure!(live.echoes(SURE), "a granted flow died with the daemon");
        daemon.restart()?;
        nothing_else(gateway)?;
        granted(&world.lab)?;
        ensure!(live.echoes(SURE), "a granted flow died with the restart");
    }
    Ok(Verdict::Held)
}

fn revoked(bench: &Bench) -> Result<Verdict> {
    if bench.planes == Planes::Ebpf {
        return Ok(ALONE);
    }
    let world = world()?;
    let daemon = bench.daemon(&world.lab, &both())?;
    let gateway = &world.lab.gateway;
    granted(&world.lab)?;
    let mut lost = flow(gateway, host(30, 1), WEB)?;
    let mut kept = flow(gateway, host(31, 1), WEB)?;
    bench.reload(&daemon, &both().replace("own.vendor", "else.vendor"))?;
    dies(&mut lost, Duration::from_secs(5))?;
    fails(gateway, host(30, 1), WEB)?;
    ensure!(kept.echoes(SURE), "a flow that is granted was cut");
    let outcome = daemon.ctl(&[
        "allow",
        "52.96.9.9",
        "443",
        "--zone",
        "gateway",
        "--for",
        "1h",
        "--reason",
        "test",
    ])?;
    ensure!(outcome.status.success(), "{}", outcome.text);
    passes(gateway, host(9, 9), WEB)?;
    Ok(Verdict::Held)
}

/// Somebody deletes the table while the daemon cannot mend it: the programs refuse what they can tell.
fn alone(bench: &Bench) -> Result<Verdict> {
    if bench.planes != Planes::Both {
        return Ok(Verdict::NotPromised("there is no other plane"));
    }
    let world = world()?;
    let lab = &world.lab;
    let open =
        Daemon::preamble(lab, bench.planes).replace("[planes]\n", "[planes]\nown_table = false\n");
    let daemon = bench.daemon_with(lab, &(open.clone() + &both()))?;
    granted(lab)?;
    learn(&lab.client, "client.vendor.example", host(30, 2))?;
    let _service = Echo::start(&lab.gateway, &[22], &[DATA])?;
    let mut session = flow(&lab.internet, plan::OUTSIDE, 22)?;
    let seen = |daemon: &Daemon<'_>| daemon.told(&["status"]);
    let status = seen(&daemon)?;
    ensure!(status.contains("wan0: tcx egress"), "{status}");
    // One that comes later, and in another namespace's hands for a moment.
    lab.gateway
        .ip("link add wan9 type veth peer name wan9p\nlink set wan9 up\nlink set wan9p up")?;
    until(SURE, "the program on wan9", || {
        Ok(seen(&daemon)?.contains("wan9: tcx egress").then_some(()))
    })?;
    let witness = Witness::watch(&lab.internet)?;
    daemon.signal(Signal::SIGSTOP)?;
    let tried = without_table(lab, &witness, &mut session);
    daemon.signal(Signal::SIGCONT)?;
    let (passed, refused) = tried?;
    println!("without nft {passed} of {passed} granted attempts passed, 0 of {refused} others");
    // Without the zone nothing of it stays.
    let clients = zone("", &[("client.vendor.example", &[WEB], &[DATA])]);
    let outcome = daemon.reload_with(&(open + &clients))?;
    ensure!(outcome.status.success(), "{}", outcome.text);
    let status = seen(&daemon)?;
    ensure!(!status.contains("tcx egress"), "{status}");
    passes(&lab.gateway, host(9, 9), NEVER)?;
    Ok(Verdict::Held)
}

fn without_table(lab: &Lab, witness: &Witness<'_>, session: &mut Flow) -> Result<(u32, u32)> {
    let Lab {
        gateway, client, ..
    } = lab;
    gateway.output(Command::new("nft").args(["delete", "table", "inet", "egressd"]))?;
    let mut passed = 0;
    for address in [host(30, 1), host(31, 7), host6(0x31, 7)] {
        passes(gateway, address, WEB)?;
        datagram(gateway, address, DATA, true)?;
        pings(gateway, address, true)?;
        passed += 3;
    }
    ensure!(session.echoes(SURE), "a session to the gateway was cut");
    datagram(&lab.internet, plan::OUTSIDE, DATA, true)?;
    pings(&lab.internet, plan::OUTSIDE, true)?;
    let mut refused = 0;
    for address in [host(9, 9), host6(9, 9)] {
        fails(gateway, address, NEVER)?;
        datagram(gateway, address, NEVER, false)?;
        pings(gateway, address, false)?;
        for protocol in [132, 47, 253] {
            leaves(gateway, address, protocol)?;
        }
        refused += 6;
    }
    let arrived = witness.seen()?;
    ensure!(
        arrived.iter().any(|seen| seen.address == host(31, 7)),
        "the witness sleeps: {arrived:?}"
    );
    let leaked: Vec<_> = arrived
        .iter()
        .filter(|seen| [host(9, 9), host6(9, 9)].contains(&seen.address))
        .collect();
    ensure!(leaked.is_empty(), "{leaked:?}");
    // What is forwarded is judged where it enters, and not once more.
    passes(client, host(30, 2), WEB)?;
    datagram(client, host(30, 2), DATA, true)?;
    Ok((passed, refused))
}
