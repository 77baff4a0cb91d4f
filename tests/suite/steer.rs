//! Port 53 of a redirected zone (D15): whoever the client asks, egressd answers, and nobody else.
#![expect(clippy::disallowed_methods, reason = "shell: runs dig, opens sockets")]

use crate::bench::{Bench, SURE, TRY, WEB, World, fails, host, host6, passes, zone};
use crate::{Body, Test, Verdict};
use anyhow::{Context, Result, ensure};
use egressd_tests::lab::{
    Answer, Daemon, Echo, Namespace, Planes, Zone, plan, udp, unbroken, until,
};
use hickory_proto::op::{Edns, Message, MessageType, OpCode, Query, ResponseCode};
use hickory_proto::rr::rdata::opt::EdnsOption;
use hickory_proto::rr::{Name, RecordType};
use std::io::{Read, Write};
use std::net::{IpAddr, SocketAddr, TcpStream, UdpSocket};
use std::process::Command;

pub(crate) const TESTS: &[Test] = &[
    ("a_redirect_answers_for_any_resolver", Body::Daemon(answers)),
    ("a_redirect_is_the_zones_own", Body::Daemon(per_zone)),
    ("a_redirect_takes_over_live_flows", Body::Daemon(live)),
    (
        "a_redirect_stands_over_a_reload",
        Body::Daemon(over_a_reload),
    ),
    ("a_redirect_leaks_nothing", Body::Daemon(leaks)),
];

const UNLISTED: &str = "www.other.example";
const LISTED: &[(&str, &[u16], &[u16])] = &[("*.vendor.example", &[WEB], &[])];
const REFUSED: &str = "REFUSED";
const GOOD: &str = "NOERROR";
/// The kinds of a question: over UDP and over TCP.
const BOTH: [bool; 2] = [false, true];

/// Why a test says nothing of these planes.
fn unpromised(bench: &Bench) -> Option<Verdict> {
    (bench.planes == Planes::Ebpf).then_some(Verdict::NotPromised("the nft plane redirects"))
}

/// What dig reports: the status and the addresses; `None` when nobody answered. It takes an answer
/// from the asked address only.
fn dig(
    client: &Namespace,
    from: Option<IpAddr>,
    server: IpAddr,
    question: (&str, &str),
    tcp: bool,
) -> Result<Option<(String, Vec<IpAddr>)>> {
    let (name, kind) = question;
    let mut command = Command::new("dig");
    command.args(["+tries=1", "+time=2", "+noedns", "-t", kind, "-q", name]);
    command.arg(format!("@{server}"));
    command.args(from.iter().flat_map(|from| ["-b".into(), from.to_string()]));
    command.arg(if tcp { "+tcp" } else { "+notcp" });
    // It fails when nobody answers.
    let Ok(text) = client.output(&mut command) else {
        return Ok(None);
    };
    let status = text
        .lines()
        .find_map(|line| line.split_once("status: ")?.1.split(',').next())
        .with_context(|| format!("no status in\n{text}"))?;
    let answers = text.lines().filter(|line| !line.starts_with(';'));
    let addresses = answers.filter_map(|line| line.split_whitespace().last()?.parse().ok());
    Ok(Some((status.to_owned(), addresses.collect())))
}

/// Insists on the status of a question's answer; "" stands for no answer.
fn says(
    client: &Namespace,
    from: Option<IpAddr>,
    server: IpAddr,
    name: &str,
    expected: &str,
) -> Result<()> {
    for tcp in BOTH {
        let answer = dig(client, from, server, (name, "A"), tcp)?;
        let status = answer.as_ref().map_or("", |(status, _)| status);
        ensure!(
            status == expected,
            "{from:?} asked {server} for {name} (TCP: {tcp}): {answer:?} instead of {expected:?}"
        );
    }
    Ok(())
}

fn answers(bench: &Bench) -> Result<Verdict> {
    if let Some(verdict) = unpromised(bench) {
        return Ok(verdict);
    }
    let ways = || {
        let servers = plan::STRANGERS.into_iter().zip([1u8, 2]);
        servers.flat_map(|(server, n)| BOTH.map(|tcp| (server, tcp, 2 * n + u8::from(tcp))))
    };
    let mut names = Zone::default();
    names.address(UNLISTED, 60, host(20, 1));
    for (.., n) in ways() {
        names
            .address(&format!("w{n}.vendor.example"), 60, host(21, n))
            .address(&format!("w{n}.vendor.example"), 60, host6(21, n.into()));
    }
    let world = World::new(&names)?;
    let _encrypted = Echo::start(&world.lab.internet, &[853], &[853])?;
    let daemon = bench.daemon(&world.lab, &zone("redirect = true", LISTED))?;
    let client = &world.lab.client;
    for (server, tcp, n) in ways() {
        let name = format!("w{n}.vendor.example");
        for (kind, address) in [("A", host(21, n)), ("AAAA", host6(21, n.into()))] {
            let answer = dig(client, None, server, (&name, kind), tcp)?;
            ensure!(
                answer == Some((GOOD.to_owned(), vec![address])),
                "{server} said {answer:?} of {name} {kind}, TCP: {tcp}\n{}",
                daemon.words()
            );
            // The answer taught: the first packet passes.
            passes(client, address, WEB)?;
        }
    }
    for server in plan::STRANGERS {
        says(client, None, server, UNLISTED, REFUSED)?;
        for port in [853, 443] {
            fails(client, server, port)?;
        }
        ensure!(!udp(client, SocketAddr::new(server, 853), TRY)?, "UDP 853");
    }
    // Any resolver, also one that does not exist; and the gateway itself as before.
    says(
        client,
        None,
        [198, 18, 0, 1].into(),
        "w2.vendor.example",
        GOOD,
    )?;
    says(client, None, plan::GATEWAY[0], "w2.vendor.example", GOOD)?;
    let told = daemon.ctl(&["explain", "9.9.9.9", "53/udp", "--zone", "managed"])?;
    let zone = &told.json["zones"][0];
    ensure!(
        zone["why"]
            .as_str()
            .is_some_and(|why| why.contains("redirected")),
        "{}",
        told.text
    );
    one_socket_for_two_resolvers(client)?;
    Ok(Verdict::Held)
}

/// A stub that asks two resolvers at once from one socket gets both answers, each from whom it asked.
fn one_socket_for_two_resolvers(client: &Namespace) -> Result<()> {
    let socket = client.enter(|| UdpSocket::bind("0.0.0.0:0"))??;
    socket.set_read_timeout(Some(SURE))?;
    let servers: [SocketAddr; 2] = ["9.9.9.9:53".parse()?, "8.8.8.8:53".parse()?];
    let question = message(7, UNLISTED, 0)?;
    for server in servers {
        socket.send_to(&question, server)?;
    }
    let mut from = Vec::new();
    let mut buffer = [0; 1500];
    for _ in servers {
        let (_, peer) = unbroken(|| socket.recv_from(&mut buffer))
            .with_context(|| format!("answers from {from:?} alone"))?;
        from.push(peer);
    }
    ensure!(
        servers.iter().all(|server| from.contains(server)),
        "answers from {from:?}"
    );
    Ok(())
}

/// A question for the A records of `name`, with `padding` bytes of EDNS padding (RFC 7830).
fn message(id: u16, name: &str, padding: usize) -> Result<Vec<u8>> {
    let mut message = Message::new(id, MessageType::Query, OpCode::Query);
    message.metadata.recursion_desired = true;
    message.add_query(Query::query(Name::from_ascii(name)?, RecordType::A));
    if padding > 0 {
        let mut edns = Edns::new();
        edns.set_max_payload(1232);
        edns.options_mut()
            .insert(EdnsOption::Unknown(12, vec![0; padding]));
        message.edns = Some(edns);
    }
    Ok(message.to_vec()?)
}

/// Three zones by source on one interface, of which one is not redirected, and one on an interface
/// without a listener of its own.
fn per_zone(bench: &Bench) -> Result<Verdict> {
    if let Some(verdict) = unpromised(bench) {
        return Ok(verdict);
    }
    let mut names = Zone::default();
    names.address("x.vendor.example", 600, host(22, 1)).address(
        "y.partner.example",
        600,
        host(22, 2),
    );
    let world = World::new(&names)?;
    let [stranger, stranger6] = plan::STRANGERS;
    world.lab.client.ip("addr add 10.20.7.7/16 dev eth0
         addr add 10.20.8.8/16 dev eth0")?;
    let more = |name: &str, interface: &str, keys: &str, rule: &str| {
        format!(
            "[[zone]]\nname = \"{name}\"\ninterfaces = [\"{interface}\"]\n{keys}\n\
             [[zone.rule]]\nnames = [\"*.{rule}.example\"]\ntcp = [443]\n"
        )
    };
    let zones = zone("redirect = true", LISTED)
        + &more(
            "narrow",
            "lan0",
            "sources = [\"10.20.7.0/24\"]\nredirect = true",
            "partner",
        )
        + &more("plain", "lan0", "sources = [\"10.20.8.0/24\"]", "vendor")
        + &more("guests", "lan1", "redirect = true", "partner");
    let _daemon = bench.daemon(&world.lab, &zones)?;
    let client = &world.lab.client;
    let [wide, narrow, plain] = [2, 7, 8].map(|n| {
        let third = if n == 2 { 0 } else { n };
        Some(IpAddr::from([10, 20, third, n]))
    });
    says(client, wide, stranger, "x.vendor.example", GOOD)?;
    says(client, wide, stranger, "y.partner.example", REFUSED)?;
    // From the cache of the other zone's question, this one gets nothing.
    says(client, narrow, stranger, "x.vendor.example", REFUSED)?;
    says(client, narrow, stranger, "y.partner.example", GOOD)?;
    says(client, plain, stranger, "x.vendor.example", "")?;
    says(client, plain, plan::GATEWAY[0], "x.vendor.example", GOOD)?;
    for server in [stranger, stranger6] {
        says(&world.lab.other, None, server, "y.partner.example", GOOD)?;
        says(&world.lab.other, None, server, "x.vendor.example", REFUSED)?;
    }
    passes(&world.lab.other, host(22, 2), WEB)?;
    fails(&world.lab.other, host(22, 1), WEB)?;
    Ok(Verdict::Held)
}

/// A UDP socket of the client, connected to the v4 stranger.
fn connected(client: &Namespace) -> Result<UdpSocket> {
    let socket = client.enter(|| UdpSocket::bind("0.0.0.0:0"))??;
    socket.connect(SocketAddr::new(plan::STRANGERS[0], 53))?;
    Ok(socket)
}

/// The response code of one question over `socket`; `None` when nobody answers.
fn code(socket: &UdpSocket, name: &str) -> Result<Option<ResponseCode>> {
    socket.set_read_timeout(Some(TRY))?;
    Ok(Answer::over(socket, 9, name, RecordType::A)
        .ok()
        .map(|answer| answer.code))
}

/// Insists that `socket` gets egressd's word on an unlisted name soon, and never again another's.
fn taken_over(socket: &UdpSocket, daemon: &Daemon<'_>) -> Result<()> {
    until(SURE, "egressd answers the old flow", || {
        Ok((code(socket, UNLISTED)? == Some(ResponseCode::Refused)).then_some(()))
    })
    .with_context(|| daemon.words())?;
    for _ in 0..20 {
        let code = code(socket, UNLISTED)?;
        ensure!(code == Some(ResponseCode::Refused), "then {code:?}");
    }
    Ok(())
}

fn live(bench: &Bench) -> Result<Verdict> {
    if let Some(verdict) = unpromised(bench) {
        return Ok(verdict);
    }
    let mut names = Zone::default();
    names.address(UNLISTED, 60, host(23, 1));
    let world = World::new(&names)?;
    world.lab.gateway.nft(
        "table inet before { chain c { type filter hook forward priority 0; ct state new accept; }; }",
    )?;
    let client = &world.lab.client;
    // Older than egressd.
    let oldest = connected(client)?;
    until(SURE, "the stranger answers", || {
        Ok((code(&oldest, UNLISTED)? == Some(ResponseCode::NoError)).then_some(()))
    })?;
    let on = |redirect: bool, granted: bool| {
        let rule = "[[zone.rule]]\nnetworks = [\"9.9.9.9/32\"]\ntcp = [53]\nudp = [53]\n";
        zone(&format!("redirect = {redirect}"), LISTED) + if granted { rule } else { "" }
    };
    let daemon = bench.daemon(&world.lab, &on(true, false))?;
    taken_over(&oldest, &daemon)?;

    // Redirected flows must not reach the other resolver when that ends: nobody answers any more.
    bench.reload(&daemon, &on(false, false))?;
    for _ in 0..10 {
        let code = code(&oldest, UNLISTED)?;
        ensure!(
            code != Some(ResponseCode::NoError),
            "the end of the redirect let the old flow out"
        );
    }
    says(client, None, plan::STRANGERS[0], UNLISTED, "")?;

    // Granted, and older than the redirect: the redirect wins.
    bench.reload(&daemon, &on(false, true))?;
    let granted = connected(client)?;
    ensure!(
        code(&granted, UNLISTED)? == Some(ResponseCode::NoError),
        "the rule does not grant the resolver"
    );
    let check = daemon.told(&["explain", "9.9.9.9", "53/udp"])?;
    ensure!(!check.contains("redirected"), "{check}");
    bench.reload(&daemon, &on(true, true))?;
    taken_over(&granted, &daemon)?;
    Ok(Verdict::Held)
}

/// Flows that are redirected go on while the rules are replaced, and are not cut for it.
fn over_a_reload(bench: &Bench) -> Result<Verdict> {
    if let Some(verdict) = unpromised(bench) {
        return Ok(verdict);
    }
    let mut names = Zone::default();
    names.address("x.vendor.example", 600, host(24, 1));
    let world = World::new(&names)?;
    let daemon = bench.daemon(&world.lab, &zone("redirect = true", LISTED))?;
    let server = SocketAddr::new(plan::STRANGERS[0], 53);
    let mut stream = (world.lab.client).enter(|| TcpStream::connect_timeout(&server, SURE))??;
    stream.set_read_timeout(Some(SURE))?;
    let question = message(5, "x.vendor.example", 0)?;
    let mut framed = u16::try_from(question.len())?.to_be_bytes().to_vec();
    framed.extend(question);
    for extra in ["", "inbound = \"deny\"", "mode = \"audit\"", ""] {
        stream.write_all(&framed)?;
        let mut length = [0; 2];
        stream
            .read_exact(&mut length)
            .with_context(|| format!("before {extra:?}: {}", daemon.words()))?;
        let mut reply = vec![0; usize::from(u16::from_be_bytes(length))];
        stream.read_exact(&mut reply)?;
        let reply = Message::from_vec(&reply)?;
        ensure!(reply.metadata.response_code == ResponseCode::NoError);
        let zones = zone(&format!("redirect = true\n{extra}"), LISTED);
        let outcome = daemon.reload(bench.planes, &zones)?;
        ensure!(outcome.json["cut"] == 0, "{}", outcome.text);
    }
    Ok(Verdict::Held)
}

/// What the redirect does not take is refused: a family without a listener. Fragments are taken.
fn leaks(bench: &Bench) -> Result<Verdict> {
    if let Some(verdict) = unpromised(bench) {
        return Ok(verdict);
    }
    let mut names = Zone::default();
    names
        .address(UNLISTED, 60, host(25, 1))
        .address("x.vendor.example", 60, host(25, 2));
    let world = World::new(&names)?;
    let redirected = zone("redirect = true", LISTED);
    let daemon = bench.daemon(&world.lab, &redirected)?;
    let client = &world.lab.client;
    let [stranger, stranger6] = plan::STRANGERS;
    says(client, None, stranger6, "x.vendor.example", GOOD)?;
    let preamble = Daemon::preamble(&world.lab, bench.planes);
    let only_v4 = preamble.replace(&format!(", \"[{}]:53\"", plan::GATEWAY[1]), "");
    ensure!(only_v4 != preamble, "{preamble}");
    std::fs::write(daemon.config(), only_v4 + &redirected)?;
    let reloaded = daemon.ctl(&["reload"])?;
    ensure!(reloaded.status.success(), "{}", reloaded.text);
    says(client, None, stranger6, "x.vendor.example", "")?;
    says(client, None, stranger6, UNLISTED, "")?;
    says(client, None, stranger, "x.vendor.example", GOOD)?;

    client.ip("link set eth0 mtu 400")?;
    let socket = connected(client)?;
    socket.set_read_timeout(Some(SURE))?;
    socket.send(&message(11, UNLISTED, 700)?)?;
    let mut buffer = [0; 1500];
    let length = socket
        .recv(&mut buffer)
        .context("a question in fragments")?;
    let reply = Message::from_vec(&buffer[..length])?;
    let code = reply.metadata.response_code;
    ensure!(code == ResponseCode::Refused, "{code:?}");
    Ok(Verdict::Held)
}
