//! Copies in, lessons out.

use super::packet::tests::{datagram, stream};
use super::*;
use crate::policy::links::{InterfacePattern, Link, Links, Stack};
use crate::policy::observed::Observed;
use crate::policy::port::{PortSet, Service};
use crate::policy::rules::{Intent, Numbers};
use crate::policy::zone::ZoneSpec;
use crate::policy::{catalogue::EndpointSet, name::Pattern};
use hickory_proto::op::{Message, MessageType, OpCode, Query};
use hickory_proto::rr::rdata::A;
use hickory_proto::rr::{Name, RData, Record, RecordType};
use std::net::Ipv4Addr;

const CLIENT: &str = "10.1.0.9:4000";
const RESOLVER: &str = "192.0.2.53:53";
const LAN: u32 = 2;
const WAN: u32 = 3;
const OTHER_LAN: u32 = 4;
const HOLD: u64 = 250_000;
const GOOD: Ipv4Addr = Ipv4Addr::new(52, 96, 0, 1);
const REBOUND: Ipv4Addr = Ipv4Addr::new(192, 168, 0, 1);

fn rules() -> Rules {
    let link = |name: &str, address: &str| Link {
        name: name.to_owned(),
        up: true,
        mac: vec![2, 0, 0, 0, 0, 1],
        ethernet: true,
        stack: Stack::default(),
        addresses: vec![address.parse().unwrap()],
    };
    let links = Links(BTreeMap::from([
        (LAN, link("lan0", "10.1.0.1/16")),
        (WAN, link("wan0", "9.9.9.2/30")),
        (OTHER_LAN, link("lan1", "10.2.0.1/16")),
    ]));
    let zone = |name: &str, interface: &str, sources: &[&str]| ZoneSpec {
        name: name.to_owned(),
        interfaces: vec![InterfacePattern::parse(interface).unwrap()],
        sources: sources.iter().map(|s| s.parse().unwrap()).collect(),
        rules: vec![EndpointSet {
            patterns: vec![Pattern::parse(&format!("*.{name}.example")).unwrap()],
            ports: PortSet::new([Service::tcp(443)]),
            ..EndpointSet::default()
        }],
        ..ZoneSpec::default()
    };
    let intent = Intent {
        upstream: vec![InterfacePattern::parse("wan*").unwrap()],
        zones: vec![zone("a", "lan0", &["10.1.0.0/16"]), zone("b", "lan1", &[])],
        observed: Some(Observed {
            resolvers: vec!["192.0.2.53".parse().unwrap(), "192.0.2.54".parse().unwrap()],
            ..Observed::default()
        }),
        ..Intent::default()
    };
    Rules::compile(Arc::new(intent), links, &mut Numbers::default()).unwrap()
}

struct Scene {
    observer: Observer,
    counters: Arc<Counters>,
}

impl Scene {
    fn new(delay: bool) -> Self {
        let counters = Arc::new(Counters::default());
        let rules = Arc::new(ArcSwap::from_pointee(rules()));
        let handling = Handling {
            delay,
            hold: HOLD,
            ..Handling::default()
        };
        let observer = Observer::new(rules, Arc::clone(&counters), handling);
        Self { observer, counters }
    }

    /// Copies a packet that entered at `interface`; what it taught and what it sent.
    fn copy(&mut self, question: bool, interface: u32, packet: &[u8]) -> Outcome {
        let copy = Copy {
            question,
            interface,
            packet,
        };
        self.observer.copy(&copy, 0);
        self.outcome()
    }

    fn outcome(&mut self) -> Outcome {
        let mut outcome = Outcome::default();
        for effect in self.observer.take_effects() {
            match effect {
                Effect::Teach(waiting) => outcome.taught.push(waiting),
                Effect::Untaught(untaught) => outcome.untaught.push(untaught),
                Effect::Send(delivery) => outcome.sent.push(delivery),
            }
        }
        outcome
    }
}

#[derive(Debug, Default)]
struct Outcome {
    taught: Vec<Waiting>,
    untaught: Vec<Untaught>,
    sent: Vec<Delivery>,
}

impl Outcome {
    fn addresses(&self) -> Vec<IpAddr> {
        let answers = self.taught.iter().map(|waiting| &waiting.answer.addresses);
        answers.flatten().copied().collect()
    }
}

fn question(name: &str) -> Vec<u8> {
    let mut message = Message::new(7, MessageType::Query, OpCode::Query);
    message.add_query(Query::query(Name::from_ascii(name).unwrap(), RecordType::A));
    message.to_vec().unwrap()
}

fn answer(name: &str, addresses: &[Ipv4Addr]) -> Vec<u8> {
    let mut message = Message::response(7, OpCode::Query);
    let name = Name::from_ascii(name).unwrap();
    message.add_query(Query::query(name.clone(), RecordType::A));
    for address in addresses {
        message.add_answer(Record::from_rdata(name.clone(), 60, RData::A(A(*address))));
    }
    message.to_vec().unwrap()
}

const NAME: &str = "www.a.example.";

#[test]
fn an_answer_that_was_asked_for_teaches_once() {
    let mut scene = Scene::new(false);
    let reply = datagram(RESOLVER, CLIENT, &answer(NAME, &[GOOD, REBOUND, GOOD]));
    assert!(scene.copy(false, WAN, &reply).taught.is_empty(), "unasked");
    let ask = datagram(CLIENT, RESOLVER, &question(NAME));
    assert!(scene.copy(true, LAN, &ask).taught.is_empty());
    let outcome = scene.copy(false, WAN, &reply);
    assert_eq!(outcome.addresses(), [GOOD]);
    assert!(outcome.sent.is_empty(), "the client has it already");
    assert_eq!(outcome.taught[0].zone, ZoneId(0));
    assert!(is_observed(outcome.taught[0].token));
    assert!(scene.copy(false, WAN, &reply).taught.is_empty(), "twice");
    let seen = scene.counters.read();
    assert_eq!((seen.taught, seen.removed, seen.unmatched), (1, 1, 2));
}

/// A reply with one thing wrong teaches nothing, and the right one still does afterwards.
#[test]
fn forged_replies_teach_nothing() {
    let good = answer(NAME, &[GOOD]);
    let edit = |at: usize, value: u8| {
        let mut message = good.clone();
        message[at] ^= value;
        message
    };
    let whole = |message: &[u8]| datagram(RESOLVER, CLIENT, message);
    let mut wrong: Vec<(&str, u32, Vec<u8>)> = vec![
        ("id", WAN, whole(&edit(1, 1))),
        ("a question, not a reply", WAN, whole(&edit(2, 0x80))),
        ("opcode", WAN, whole(&edit(2, 0x08))),
        ("two questions", WAN, whole(&edit(5, 3))),
        ("no question", WAN, whole(&edit(5, 1))),
        ("another name", WAN, whole(&edit(13, 1))),
        ("another case", WAN, whole(&edit(13, 0x20))),
        ("another type", WAN, whole(&edit(12 + 15 + 1, 1))),
        ("another class", WAN, whole(&edit(12 + 15 + 3, 2))),
        ("from inside the zone", LAN, whole(&good)),
        ("from another zone", OTHER_LAN, whole(&good)),
        ("from no interface", 99, whole(&good)),
        (
            "another port",
            WAN,
            datagram("192.0.2.53:54", CLIENT, &good),
        ),
        (
            "another resolver",
            WAN,
            datagram("192.0.2.54:53", CLIENT, &good),
        ),
        ("a stranger", WAN, datagram("8.8.8.8:53", CLIENT, &good)),
        (
            "another client",
            WAN,
            datagram(RESOLVER, "10.1.0.8:4000", &good),
        ),
        (
            "another client port",
            WAN,
            datagram(RESOLVER, "10.1.0.9:4001", &good),
        ),
        ("over TCP", WAN, stream(RESOLVER, CLIENT, (1, 0x10), &good)),
        ("empty", WAN, whole(&[])),
    ];
    wrong.extend((1..31).map(|end| ("cut", WAN, whole(&good[..end]))));
    for (what, interface, packet) in wrong {
        let mut scene = Scene::new(true);
        let ask = datagram(CLIENT, RESOLVER, &question(NAME));
        scene.copy(true, LAN, &ask);
        let outcome = scene.copy(false, interface, &packet);
        assert!(outcome.taught.is_empty(), "{what}");
        assert!(outcome.sent.is_empty(), "{what}");
        let outcome = scene.copy(false, WAN, &whole(&good));
        assert_eq!(outcome.addresses(), [GOOD], "after {what}");
    }
}

#[test]
fn a_zone_learns_from_its_own_questions() {
    fn check(interface: u32, source: &str, name: &str, expected: Option<u16>) {
        let mut scene = Scene::new(false);
        let ask = datagram(source, RESOLVER, &question(name));
        scene.copy(true, interface, &ask);
        let reply = datagram(RESOLVER, source, &answer(name, &[GOOD]));
        let outcome = scene.copy(false, WAN, &reply);
        let zones = outcome.taught.iter().map(|waiting| waiting.zone.0).next();
        assert_eq!(zones, expected, "{name} from {source}");
    }
    check(LAN, CLIENT, NAME, Some(0));
    check(LAN, CLIENT, "www.b.example.", None);
    check(LAN, CLIENT, "a.example.", None);
    check(OTHER_LAN, "10.2.0.9:4000", "www.b.example.", Some(1));
    check(OTHER_LAN, "10.2.0.9:4000", NAME, None);
    // Zone b takes every source: one that is forged teaches b and nobody else.
    check(OTHER_LAN, CLIENT, NAME, None);
    check(OTHER_LAN, CLIENT, "www.b.example.", Some(1));
    check(LAN, "10.2.0.9:4000", NAME, None);
    check(WAN, CLIENT, NAME, None);
}

#[test]
fn a_forged_question_of_another_zone_does_not_take_the_place() {
    let mut scene = Scene::new(false);
    scene.copy(true, LAN, &datagram(CLIENT, RESOLVER, &question(NAME)));
    let other = datagram(CLIENT, RESOLVER, &question("www.b.example."));
    scene.copy(true, OTHER_LAN, &other);
    let reply = datagram(RESOLVER, CLIENT, &answer(NAME, &[GOOD]));
    assert_eq!(scene.copy(false, WAN, &reply).addresses(), [GOOD]);
}

#[test]
fn held_answers_leave_when_they_are_in_force() {
    fn check(
        addresses: &[Ipv4Addr],
        outcome: Option<Result<(), &str>>,
        expected: Option<&[Ipv4Addr]>,
    ) {
        let mut scene = Scene::new(true);
        scene.copy(true, LAN, &datagram(CLIENT, RESOLVER, &question(NAME)));
        let message = answer(NAME, addresses);
        let copied = scene.copy(false, WAN, &datagram(RESOLVER, CLIENT, &message));
        assert!(copied.sent.is_empty(), "before its commit");
        let token = copied.taught[0].token;
        scene.observer.tick(HOLD - 1);
        assert!(scene.outcome().sent.is_empty());
        match outcome {
            Some(outcome) => {
                let outcome = outcome.map(|()| 0).map_err(str::to_owned);
                scene.observer.release(&Release { token, outcome }, 100);
            }
            None => scene.observer.tick(HOLD),
        }
        let sent = scene.outcome().sent;
        assert_eq!(sent.len(), 1);
        assert_eq!(sent[0].client, CLIENT.parse().unwrap());
        let reply = Message::from_vec(&sent[0].message).unwrap();
        assert_eq!((reply.metadata.id, reply.queries.len()), (7, 1));
        let told: Vec<Ipv4Addr> = (reply.answers.iter())
            .filter_map(|record| {
                let RData::A(a) = &record.data else {
                    return None;
                };
                Some(a.0)
            })
            .collect();
        match expected {
            Some(expected) => assert_eq!(told, expected),
            None => assert_eq!(reply.metadata.response_code.low(), 2),
        }
        if expected == Some(addresses) {
            assert_eq!(sent[0].message, message, "the very same message");
        }
        // Said once.
        scene.observer.tick(u64::MAX);
        assert!(scene.outcome().sent.is_empty());
        assert_eq!(scene.counters.read().waiting, 0);
        assert!(scene.observer.due().is_none() && scene.observer.held.is_empty());
    }
    check(&[GOOD], Some(Ok(())), Some(&[GOOD]));
    check(&[REBOUND, GOOD], Some(Ok(())), Some(&[GOOD]));
    check(&[GOOD], Some(Err("no")), None);
    check(&[GOOD], None, None);
}

#[test]
fn answers_for_unlisted_names_are_told_to_name_addresses_by() {
    let mut scene = Scene::new(false);
    let mut check = |name: &str, addresses: &[Ipv4Addr], told: bool| {
        scene.copy(true, LAN, &datagram(CLIENT, RESOLVER, &question(name)));
        let reply = datagram(RESOLVER, CLIENT, &answer(name, addresses));
        let outcome = scene.copy(false, WAN, &reply);
        assert!(outcome.addresses().is_empty() || name == NAME);
        let [untaught] = outcome.untaught.as_slice() else {
            return assert!(!told && outcome.untaught.is_empty(), "{outcome:?}");
        };
        assert!(told, "{outcome:?}");
        assert_eq!(untaught.name.to_string() + ".", name);
        assert_eq!(untaught.client.to_string() + ":4000", CLIENT);
        assert_eq!(untaught.addresses, addresses);
    };
    check("other.example.", &[GOOD], true);
    check("other.example.", &[], false);
    check(NAME, &[GOOD], false);
    // More of them within a second are not read.
    for _ in 2..1000 {
        check("other.example.", &[GOOD], true);
    }
    check("other.example.", &[GOOD], false);
}

#[test]
fn with_delay_what_teaches_nothing_goes_on_at_once() {
    fn check(ask: &[u8], interface: u32, reply: &[u8], expected: &[u8]) {
        let mut scene = Scene::new(true);
        scene.copy(true, interface, &datagram(CLIENT, RESOLVER, ask));
        let outcome = scene.copy(false, WAN, &datagram(RESOLVER, CLIENT, reply));
        assert!(outcome.taught.is_empty());
        assert_eq!(outcome.sent.len(), 1, "{reply:?}");
        assert_eq!(outcome.sent[0].message, expected);
    }
    let unlisted = answer("other.example.", &[GOOD]);
    check(&question("other.example."), LAN, &unlisted, &unlisted);
    // From no zone: not ours to hold back.
    let listed = answer(NAME, &[GOOD]);
    check(&question(NAME), 99, &listed, &listed);
    let empty = answer(NAME, &[]);
    check(&question(NAME), LAN, &empty, &empty);
    let mut truncated = answer(NAME, &[GOOD]);
    truncated[2] |= 2;
    check(&question(NAME), LAN, &truncated, &truncated);
    let mut failed = answer(NAME, &[GOOD]);
    failed[3] |= 2;
    check(&question(NAME), LAN, &failed, &failed);
    // An update, say: no question.
    let mut update = question(NAME);
    update[2] |= 5 << 3;
    check(&update, LAN, b"\0\x07whatever", b"\0\x07whatever");
}

#[test]
fn answers_over_tcp() {
    let framed = |message: &[u8]| {
        let length = u16::try_from(message.len()).unwrap().to_be_bytes();
        [&length[..], message].concat()
    };
    let mut scene = Scene::new(true);
    scene.copy(true, LAN, &stream(CLIENT, RESOLVER, (10, 2), &[]));
    scene.copy(false, WAN, &stream(RESOLVER, CLIENT, (20, 0x12), &[]));
    let names = [NAME, "mail.a.example."];
    let asked = names.map(|name| framed(&question(name))).concat();
    scene.copy(true, LAN, &stream(CLIENT, RESOLVER, (11, 0x18), &asked));
    let mut told = names.map(|name| framed(&answer(name, &[GOOD]))).concat();
    // One id for two questions: the second took the first one's place.
    let second = told.split_off(told.len() / 2 - 1);
    let mut found = Vec::new();
    for (at, byte) in (21..).zip(&[&told[..], &second].concat()) {
        let outcome = scene.copy(false, WAN, &stream(RESOLVER, CLIENT, (at, 0x18), &[*byte]));
        assert!(outcome.sent.is_empty(), "TCP is not held back");
        found.extend(outcome.taught);
    }
    assert_eq!(found.len(), 1);
    assert_eq!(found[0].answer.name.to_string(), "mail.a.example");
    // Its client has it: a release sends nothing.
    let release = Release {
        token: found[0].token,
        outcome: Ok(0),
    };
    scene.observer.release(&release, 50);
    assert!(scene.outcome().sent.is_empty());
    assert_eq!(scene.counters.read().half_within, 55);
}

#[test]
fn lost_copies_end_connections() {
    let mut scene = Scene::new(false);
    scene.copy(true, LAN, &stream(CLIENT, RESOLVER, (10, 2), &[]));
    scene.copy(false, WAN, &stream(RESOLVER, CLIENT, (20, 0x12), &[]));
    scene.observer.lost();
    let ask = [&[0, 31][..], &question(NAME)].concat();
    scene.copy(true, LAN, &stream(CLIENT, RESOLVER, (11, 0x18), &ask));
    let seen = scene.counters.read();
    assert_eq!((seen.questions, seen.lost), (0, 1));
}

#[test]
fn what_the_loop_does_not_take_is_served_no_answer() {
    let mut scene = Scene::new(true);
    scene.copy(true, LAN, &datagram(CLIENT, RESOLVER, &question(NAME)));
    let reply = datagram(RESOLVER, CLIENT, &answer(NAME, &[GOOD]));
    let token = scene.copy(false, WAN, &reply).taught[0].token;
    scene.observer.refused(token);
    let sent = scene.outcome().sent;
    let reply = Message::from_vec(&sent[0].message).unwrap();
    assert_eq!(reply.metadata.response_code.low(), 2);
    assert_eq!(scene.counters.read().withheld, 1);
}

proptest::proptest! {
    #[test]
    fn no_packet_panics(
        start in 0usize..4,
        edits in proptest::collection::vec((0usize..120, proptest::prelude::any::<u8>()), 0..6),
        cut in 0usize..140,
    ) {
        let packets = [
            datagram(CLIENT, RESOLVER, &question(NAME)),
            datagram(RESOLVER, CLIENT, &answer(NAME, &[GOOD])),
            stream(CLIENT, RESOLVER, (1, 2), &question(NAME)),
            stream(RESOLVER, CLIENT, (1, 0x10), &answer(NAME, &[GOOD])),
        ];
        let mut packet = packets[start].clone();
        for (at, value) in edits {
            if let Some(byte) = packet.get_mut(at) {
                *byte = value;
            }
        }
        packet.truncate(cut);
        let mut scene = Scene::new(true);
        scene.copy(true, LAN, &packets[0]);
        scene.copy(true, LAN, &packet);
        scene.copy(false, WAN, &packet);
        scene.observer.tick(u64::MAX);
    }
}
