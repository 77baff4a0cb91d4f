//! Grants follow answers, name by name and port by port, and end with them.
#![expect(clippy::disallowed_methods, reason = "shell: opens sockets")]

use crate::bench::{
    ALT, Bench, DATA, NEVER, SHORT, SURE, WEB, World, datagram, fails, forgotten, host, host6,
    learn, passes, question, zone,
};
use crate::{Body, Test, Verdict};
use anyhow::{Context, Result, ensure};
use egressd_tests::lab::{Answer, Zone, ask, plan, unbroken, until};
use hickory_proto::op::ResponseCode;
use hickory_proto::rr::RecordType;
use std::net::{SocketAddr, UdpSocket};
use std::time::Duration;

pub(crate) const TESTS: &[Test] = &[
    ("grants_follow_answers", Body::Daemon(follow)),
    ("unlisted_names_are_refused", Body::Daemon(unlisted)),
    ("grants_expire", Body::Daemon(expire)),
    ("two_names_on_one_address", Body::Daemon(share)),
    ("exact_names_open_unasked", Body::Daemon(unasked)),
    ("no_first_packet_is_lost", Body::Daemon(first_packets)),
    ("private_addresses_are_not_learned", Body::Daemon(rebinding)),
];

fn follow(bench: &Bench) -> Result<Verdict> {
    let mut names = Zone::default();
    names
        .alias("www.vendor.example", 1, "edge.cdn.example.net")
        .address("edge.cdn.example.net", 1, host(1, 1))
        .address("edge.cdn.example.net", 1, host6(1, 1));
    let mut world = World::new(&names)?;
    let rules = zone("", &[("*.vendor.example", &[WEB], &[DATA])]);
    let _daemon = bench.daemon(&world.lab, &(SHORT.to_owned() + &rules))?;
    let client = &world.lab.client;
    fails(client, host(1, 1), WEB)?;
    learn(client, "www.vendor.example", host(1, 1))?;
    passes(client, host(1, 1), WEB)?;
    datagram(client, host(1, 1), DATA, true)?;
    fails(client, host(1, 1), NEVER)?;
    datagram(client, host(1, 1), NEVER, false)?;
    fails(client, host(1, 2), WEB)?;
    // The name moves, as names on content networks do: the next answer opens its new address.
    names = Zone::default();
    names.address("www.vendor.example", 1, host(1, 3));
    world.authority.publish(&world.lab, &names)?;
    fails(client, host(1, 3), WEB)?;
    until(SURE, "the new address is answered", || {
        Ok(learn(client, "www.vendor.example", host(1, 3)).ok())
    })?;
    passes(client, host(1, 3), WEB)?;
    Ok(Verdict::Held)
}

fn unlisted(bench: &Bench) -> Result<Verdict> {
    let mut names = Zone::default();
    for (at, name) in STRANGE.iter().enumerate() {
        names.address(name, 60, host(2, u8::try_from(at)?));
    }
    let world = World::new(&names)?;
    let _daemon = bench.daemon(&world.lab, &zone("", &[("*.vendor.example", &[WEB], &[])]))?;
    for (at, name) in STRANGE.iter().enumerate() {
        let answer = question(&world.lab.client, name)?;
        ensure!(answer.code == ResponseCode::Refused, "{name}: {answer:?}");
        fails(&world.lab.client, host(2, u8::try_from(at)?), WEB)?;
    }
    for resolver in plan::STRANGERS {
        let other = SocketAddr::new(resolver, 53);
        let answer = ask(
            &world.lab.client,
            other,
            STRANGE[0],
            Duration::from_millis(500),
        );
        ensure!(answer.is_err(), "{resolver} answered: {answer:?}");
    }
    Ok(Verdict::Held)
}

const STRANGE: [&str; 5] = [
    "vendor.example",
    "xvendor.example",
    "www.vendor.example.evil.test",
    "vendor.example.net",
    "other.test",
];

fn expire(bench: &Bench) -> Result<Verdict> {
    let mut names = Zone::default();
    names
        .address("a.vendor.example", 1, host(3, 1))
        .address("b.vendor.example", 600, host(3, 2));
    let world = World::new(&names)?;
    let rules = zone("", &[("*.vendor.example", &[WEB], &[])]);
    let daemon = bench.daemon(&world.lab, &(SHORT.to_owned() + &rules))?;
    let client = &world.lab.client;
    learn(client, "a.vendor.example", host(3, 1))?;
    learn(client, "b.vendor.example", host(3, 2))?;
    passes(client, host(3, 1), WEB)?;
    forgotten(&daemon, host(3, 1), Duration::from_secs(60))?;
    fails(client, host(3, 1), WEB)?;
    passes(client, host(3, 2), WEB)?;
    learn(client, "a.vendor.example", host(3, 1))?;
    passes(client, host(3, 1), WEB)?;
    Ok(Verdict::Held)
}

fn share(bench: &Bench) -> Result<Verdict> {
    let mut names = Zone::default();
    names.address("x.a.vendor.example", 1, host(4, 1)).address(
        "x.b.vendor.example",
        600,
        host(4, 1),
    );
    let world = World::new(&names)?;
    let rules = zone(
        "",
        &[
            ("*.a.vendor.example", &[WEB], &[]),
            ("*.b.vendor.example", &[ALT], &[]),
        ],
    );
    let daemon = bench.daemon(&world.lab, &(SHORT.to_owned() + &rules))?;
    let client = &world.lab.client;
    learn(client, "x.a.vendor.example", host(4, 1))?;
    passes(client, host(4, 1), WEB)?;
    fails(client, host(4, 1), ALT)?;
    learn(client, "x.b.vendor.example", host(4, 1))?;
    passes(client, host(4, 1), ALT)?;
    passes(client, host(4, 1), WEB)?;
    until(
        Duration::from_secs(60),
        "the first name's reason ends",
        || {
            let text = daemon.ctl(&["grants"])?.text;
            Ok((!text.contains("x.a.vendor.example")).then_some(()))
        },
    )
    .with_context(|| daemon.words())?;
    fails(client, host(4, 1), WEB)?;
    passes(client, host(4, 1), ALT)?;
    Ok(Verdict::Held)
}

/// Exact names are looked up without a client asking: one that knows its address from before, or asks
/// elsewhere, finds it open, and it stays open beyond its TTL. Wildcards teach through clients only.
fn unasked(bench: &Bench) -> Result<Verdict> {
    let mut names = Zone::default();
    names
        .address("exact.vendor.example", 1, host(5, 1))
        .address("any.wild.vendor.example", 1, host(5, 2));
    let world = World::new(&names)?;
    let rules = zone(
        "",
        &[
            ("exact.vendor.example", &[WEB], &[]),
            ("gone.vendor.example", &[WEB], &[]),
            ("*.wild.vendor.example", &[WEB], &[]),
        ],
    );
    let daemon = bench.daemon(&world.lab, &rules)?;
    let client = &world.lab.client;
    let named = |text: &str| -> Result<bool> { Ok(daemon.ctl(&["status"])?.text.contains(text)) };
    until(SURE, "the name is looked up", || {
        Ok((!named("\"exact.vendor.example\"")?).then_some(()))
    })?;
    passes(client, host(5, 1), WEB)?;
    fails(client, host(5, 2), WEB)?;
    anyhow::ensure!(
        named("\"gone.vendor.example\"")?,
        "the status names what has no address:\n{}",
        daemon.ctl(&["status"])?.text
    );
    Ok(Verdict::Held)
}

/// Names asked, each answered by an address of its own.
const FIRST: u16 = 1000;

fn first_packets(bench: &Bench) -> Result<Verdict> {
    let mut names = Zone::default();
    for number in 0..FIRST {
        let [a, b] = number.to_be_bytes();
        names.address(&format!("n{number}.vendor.example"), 600, host(100 + a, b));
    }
    let world = World::new(&names)?;
    let _daemon = bench.daemon(&world.lab, &zone("", &[("*.vendor.example", &[], &[DATA])]))?;
    let lost = world.lab.client.enter(|| -> Result<Vec<u16>> {
        let resolver = UdpSocket::bind("0.0.0.0:0")?;
        resolver.connect(SocketAddr::new(plan::GATEWAY[0], 53))?;
        resolver.set_read_timeout(Some(SURE))?;
        let packets = UdpSocket::bind("0.0.0.0:0")?;
        packets.set_read_timeout(Some(Duration::from_secs(1)))?;
        let mut lost = Vec::new();
        for number in 0..FIRST {
            let name = format!("n{number}.vendor.example");
            let answer = Answer::over(&resolver, number, &name, RecordType::A)?;
            let address = answer
                .addresses
                .first()
                .with_context(|| format!("{name}: {answer:?}"))?;
            packets.send_to(&number.to_be_bytes(), SocketAddr::new(*address, DATA))?;
            let mut buffer = [0; 2];
            let back = unbroken(|| packets.recv_from(&mut buffer))
                .is_ok_and(|(_, from)| from.ip() == *address);
            if !back {
                lost.push(number);
            }
        }
        Ok(lost)
    })??;
    ensure!(
        lost.is_empty(),
        "{} of {FIRST} first packets lost: {lost:?}",
        lost.len()
    );
    println!("0 of {FIRST} first packets lost");
    Ok(Verdict::Held)
}

fn rebinding(bench: &Bench) -> Result<Verdict> {
    let mut names = Zone::default();
    let bad = [
        "192.168.7.7",
        "100.64.0.7",
        "169.254.169.254",
        "10.20.0.1",
        "127.0.0.1",
    ];
    names.address("a.vendor.example", 60, host(5, 1));
    for address in bad {
        names.address("a.vendor.example", 60, address.parse()?);
    }
    let world = World::new(&names)?;
    let _daemon = bench.daemon(&world.lab, &zone("", &[("*.vendor.example", &[WEB], &[])]))?;
    let answer = question(&world.lab.client, "a.vendor.example")?;
    ensure!(answer.addresses == [host(5, 1)], "{answer:?}");
    passes(&world.lab.client, host(5, 1), WEB)?;
    for address in &bad[..3] {
        fails(&world.lab.client, address.parse()?, WEB)?;
    }
    Ok(Verdict::Held)
}
