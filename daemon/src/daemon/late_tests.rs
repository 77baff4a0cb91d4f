//! Who counts as late, and what it says about the grace.

use super::engine::{Engine, Event};
use super::late::{Late, Report, Summary};
use crate::dns::{Token, Waiting};
use crate::plane::RefusedPacket;
use crate::policy::grant::Policy;
use crate::policy::name::Name;
use crate::policy::port::{TCP, UDP};
use crate::policy::tests::{answer, intent, ip, links};
use crate::policy::{Moment, ZoneId};
use std::net::{IpAddr, Ipv6Addr};
use std::sync::Arc;

const ZONE: ZoneId = ZoneId(0);
const GRACE: u32 = 900;
const END: Moment = Moment(1_000_000);

fn policy() -> Policy {
    Policy::new(Arc::new(intent(&["c"], &[])), links()).unwrap()
}

fn name(text: &str) -> Arc<Name> {
    Arc::new(text.parse().unwrap())
}

fn packet(source: IpAddr, destination: &str, protocol: u8, port: u16) -> RefusedPacket {
    RefusedPacket {
        plane: "nft",
        zone: Some(ZONE),
        interface: 2,
        source,
        destination: ip(destination),
        protocol,
        port,
        reason: "unlisted".to_owned(),
        audited: false,
    }
}

fn client(number: u16) -> IpAddr {
    Ipv6Addr::new(0x2001, 0xdb8, 0x20, 0, 0, 0, 0, number).into()
}

fn report(late: &Late, now: Moment) -> Report {
    late.report(None, GRACE, now)
}

/// Packets of late clients, as (client, delay in seconds), all for one name.
fn summary(packets: &[(u16, u64)]) -> Summary {
    let (mut late, policy) = (Late::default(), policy());
    late.ended(ZONE, ip("20.0.0.1"), name("x.a.example"), END);
    for &(number, delay) in packets {
        let packet = packet(client(number), "20.0.0.1", TCP, 443);
        late.refused(&[packet], &policy, END.after_seconds(delay));
    }
    report(&late, END).all
}

#[test]
fn a_grace_that_covers_the_late() {
    fn check(packets: &[(u16, u64)], expected: (usize, u64, [u64; 3], Option<u32>)) {
        let Summary {
            clients,
            packets: count,
            median,
            p99,
            max,
            grace,
        } = summary(packets);
        let got = (clients, count, [median, p99, max], grace);
        assert_eq!(got, expected, "{packets:?}");
    }
    check(&[], (0, 0, [0, 0, 0], None));
    check(&[(1, 1)], (1, 1, [1, 1, 1], Some(960)));
    check(&[(1, 60)], (1, 1, [60, 60, 60], Some(960)));
    check(&[(1, 61)], (1, 1, [61, 61, 61], Some(1020)));
    // A client is as late as its latest packet.
    check(
        &[(1, 5), (1, 600), (2, 30)],
        (2, 3, [30, 600, 600], Some(1500)),
    );
    // One of a hundred may be left out, but not one of ninety-nine.
    let of = |number: u16| -> Vec<(u16, u64)> {
        (1..number).map(|n| (n, 60)).chain([(0, 7200)]).collect()
    };
    check(&of(100), (100, 100, [60, 60, 7200], Some(960)));
    check(&of(99), (99, 99, [60, 7200, 7200], Some(8100)));
    // Clients beyond those told apart still count by their packets.
    let many: Vec<_> = (0..300).map(|n| (n, u64::from(n) + 1)).collect();
    check(&many, (256, 300, [128, 254, 300], Some(1200)));
    // Nothing is suggested beyond a day, and nothing is late after one.
    check(
        &[(1, 86_400)],
        (1, 1, [86_400, 86_400, 86_400], Some(86_400)),
    );
    check(&[(1, 86_401)], (0, 0, [0, 0, 0], None));
}

#[test]
fn only_what_the_grant_would_let_through_is_late() {
    fn check(packet: &RefusedPacket, expected: &[&str]) {
        let (mut late, policy) = (Late::default(), policy());
        for of in ["x.a.example", "t.a.example", "gone.example"] {
            late.ended(ZONE, ip("20.0.0.1"), name(of), END);
        }
        late.refused(std::slice::from_ref(packet), &policy, END);
        let report = report(&late, END);
        let names: Vec<_> = report.names.iter().map(|of| of.name.to_string()).collect();
        assert_eq!(names, expected, "{packet:?}");
    }
    let from = client(1);
    check(&packet(from, "20.0.0.1", TCP, 22), &[]);
    check(&packet(from, "20.0.0.2", TCP, 443), &[]);
    check(&packet(from, "20.0.0.1", UDP, 123), &["t.a.example"]);
    check(
        &packet(from, "20.0.0.1", TCP, 443),
        &["t.a.example", "x.a.example"],
    );
    let stranger = RefusedPacket {
        zone: None,
        ..packet(from, "20.0.0.1", TCP, 443)
    };
    check(&stranger, &[]);
    let other = RefusedPacket {
        zone: Some(ZoneId(1)),
        ..packet(from, "20.0.0.1", TCP, 443)
    };
    check(&other, &[]);
}

#[test]
fn a_name_that_is_granted_anew_is_not_late() {
    let (mut late, policy) = (Late::default(), policy());
    let try_both = |late: &mut Late| {
        let packets = ["20.0.0.1", "20.0.0.2"].map(|to| packet(client(1), to, TCP, 443));
        late.refused(&packets, &policy, END);
        report(late, END).all.packets
    };
    late.ended(ZONE, ip("20.0.0.1"), name("x.a.example"), END);
    late.ended(ZONE, ip("20.0.0.2"), name("x.a.example"), END);
    assert_eq!(try_both(&mut late), 2);
    late.granted(ZONE, &answer("y.a.example", &["20.0.0.2"], 60));
    assert_eq!(try_both(&mut late), 4);
    late.granted(ZONE, &answer("x.a.example", &["20.0.0.2"], 60));
    assert_eq!(try_both(&mut late), 5, "the other address stays late");
}

#[test]
fn memory_is_bounded() {
    let (mut late, policy) = (Late::default(), policy());
    let address = |number: u32| IpAddr::from((0x1400_0000 + number).to_be_bytes());
    let of = name("x.a.example");
    for number in 0..70_000 {
        let end = END.after_seconds(number.into());
        late.ended(ZONE, address(number), Arc::clone(&of), end);
    }
    let now = END.after_seconds(70_000);
    let tries = |late: &mut Late, number| {
        let to = address(number).to_string();
        late.refused(&[packet(client(1), &to, TCP, 443)], &policy, now);
        report(late, now).all.packets
    };
    assert_eq!(tries(&mut late, 69_999), 1);
    assert_eq!(tries(&mut late, 70_000 - 65_536), 2);
    assert_eq!(tries(&mut late, 70_000 - 65_537), 2, "the oldest is gone");
    // Of many names that share an address the newest stay.
    let mut late = Late::default();
    for number in 0..2000 {
        let shared = name(&format!("n{number}.a.example"));
        late.ended(ZONE, ip("20.0.0.1"), shared, END.after_seconds(number));
    }
    late.refused(
        &[packet(client(1), "20.0.0.1", TCP, 443)],
        &policy,
        END.after_seconds(2000),
    );
    let names = report(&late, END).names;
    assert_eq!(names.len(), 64);
    let newest = names.iter().all(|of| of.summary.max <= 64);
    assert!(newest, "{names:?}");
    // Nor do names with late clients pile up.
    let mut late = Late::default();
    for number in 0..2000 {
        let own = name(&format!("n{number}.a.example"));
        late.ended(ZONE, address(number), own, END);
        let to = address(number).to_string();
        let now = END.after_seconds(number.into());
        late.refused(&[packet(client(1), &to, TCP, 443)], &policy, now);
    }
    let names = report(&late, END).names;
    assert_eq!(names.len(), 1024);
    assert!(names.iter().all(|of| of.summary.max >= 2000 - 1024));
}

#[test]
fn many_clients_of_a_name_are_worth_a_warning() {
    let (mut late, policy) = (Late::default(), policy());
    late.ended(ZONE, ip("20.0.0.1"), name("x.a.example"), END);
    for (number, expected) in (1..).zip([0; 10].into_iter().chain([1])) {
        let packet = packet(client(number), "20.0.0.1", TCP, 443);
        late.refused(&[packet], &policy, END);
        assert_eq!(late.names_of_many(END), expected, "{number} clients");
    }
    let next_day = END.after_seconds(86_401);
    assert_eq!(late.names_of_many(next_day), 0);
    assert_eq!(report(&late, next_day), Report::default());
}

/// An engine whose only grant, of x.a.example at 20.0.0.1, was used until 600 seconds after its end.
fn engine_after_use() -> (Engine, Moment) {
    let mut engine = Engine::new(policy(), Moment(0));
    let answer = answer("x.a.example", &["20.0.0.1"], 60);
    let token = Token(1);
    engine.handle(
        Event::Answered(vec![Waiting {
            zone: ZONE,
            answer,
            token,
            client: None,
        }]),
        Moment(0),
    );
    let end = Moment(0).after_seconds(60 + u64::from(GRACE));
    let used = end.after_seconds(600);
    engine.tick(end);
    engine.handle(Event::InUse(vec![(ZONE, ip("20.0.0.1"), used)]), end);
    assert!(engine.policy().grant(ZONE, ip("20.0.0.1")).is_some());
    engine.tick(used);
    engine.handle(Event::InUse(Vec::new()), used);
    assert!(engine.policy().grant(ZONE, ip("20.0.0.1")).is_none());
    (engine, end)
}

#[test]
fn the_engine_counts_from_where_a_longer_grace_would_prolong() {
    let (mut engine, end) = engine_after_use();
    let late = packet(client(1), "20.0.0.1", TCP, 443);
    engine.handle(Event::Refused(vec![late]), end.after_seconds(660));
    let all = report(engine.late(), end).all;
    assert_eq!((all.max, all.grace), (660, Some(1560)));
}

#[test]
fn what_a_reload_makes_meaningless_is_forgotten() {
    fn check(change: impl Fn(&mut crate::policy::rules::Intent), expected: usize) {
        let (mut engine, end) = engine_after_use();
        let late = packet(client(1), "20.0.0.1", TCP, 443);
        engine.handle(Event::Refused(vec![late]), end.after_seconds(660));
        let mut intent = intent(&["c"], &[]);
        change(&mut intent);
        engine.replace(Arc::new(intent), links()).unwrap();
        assert_eq!(report(engine.late(), end).names.len(), expected);
    }
    check(|_| {}, 1);
    check(|intent| intent.limits.idle += 1, 1);
    check(|intent| intent.limits.grace += 1, 0);
    check(|intent| intent.zones.clear(), 0);
}

#[test]
fn an_answer_ends_the_lateness_of_its_name() {
    let (mut engine, end) = engine_after_use();
    let now = end.after_seconds(660);
    let answer = answer("x.a.example", &["20.0.0.1"], 60);
    let token = Token(2);
    engine.handle(
        Event::Answered(vec![Waiting {
            zone: ZONE,
            answer,
            token,
            client: None,
        }]),
        now,
    );
    let refused = packet(client(1), "20.0.0.1", TCP, 443);
    engine.handle(Event::Refused(vec![refused]), now);
    assert_eq!(report(engine.late(), now), Report::default());
}
