//! The edge over real sockets on loopback, against an upstream that plays a script.
#![expect(
    clippy::disallowed_methods,
    reason = "tests open sockets and read the clock"
)]

mod audit;
mod cached;
mod dnssec;
mod encrypted;
mod forwards;
mod parts;
mod server;
mod services;
mod split;
mod stage;
mod types;

use super::*;
use crate::config::{Local, Transport, Unlisted, Upstream};
use crate::policy::image::Mode;
use hickory_proto::op::{Message, ResponseCode};
use hickory_proto::rr::rdata::SOA;
use hickory_proto::rr::rdata::svcb::{Alpn, IpHint, SVCB, SvcParamKey, SvcParamValue};
use hickory_proto::rr::rdata::{A, HTTPS};
use hickory_proto::rr::{DNSClass, Name as HickoryName, RData, Record, RecordType};
use stage::*;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, UdpSocket};

fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

fn good(question: &Message, _: bool) -> Vec<Vec<u8>> {
    vec![
        addresses(question, 300, &[ip("93.0.0.1"), ip("93.0.0.2")])
            .to_vec()
            .unwrap(),
    ]
}

/// Waits until `condition` holds.
fn eventually(what: &str, mut condition: impl FnMut() -> bool) {
    let end = Instant::now() + PATIENCE;
    while !condition() {
        assert!(Instant::now() < end, "{what} does not come true");
        std::thread::yield_now();
    }
}

#[test]
fn an_answer_waits_for_its_release() {
    let stage = Stage::with(|question, _| {
        let mut reply = reply_to(question);
        let asked = question.queries[0].name.clone();
        let target = HickoryName::from_ascii("edge.cdn.example.").unwrap();
        reply.add_answer(alias(&asked, 40, "edge.cdn.example."));
        reply.add_answer(address_record(&target, 300, ip("93.0.0.1")));
        reply.add_answer(address_record(&target, 300, ip("93.0.0.1")));
        let other = HickoryName::from_ascii("other.example.").unwrap();
        reply.add_answer(address_record(&other, 300, ip("93.0.0.9")));
        reply.add_additional(address_record(&asked, 300, ip("93.0.0.8")));
        vec![reply.to_vec().unwrap()]
    });
    let client = stage.client();
    client
        .send(&question("WwW.a.Example.", RecordType::A))
        .unwrap();
    let waiting = stage.waiting();
    assert_eq!(waiting.answer.name.to_string(), "www.a.example");
    assert_eq!(waiting.answer.addresses, [ip("93.0.0.1")]);
    assert_eq!(waiting.answer.ttl, 40);
    client
        .set_read_timeout(Some(Duration::from_millis(100)))
        .unwrap();
    assert!(
        client.recv(&mut [0; 512]).is_err(),
        "the reply left before its release"
    );
    assert_eq!(stage.edge.stats().waiting, 1);

    client.set_read_timeout(Some(PATIENCE)).unwrap();
    stage.release(waiting.token, Ok(()));
    let reply = receive(&client);
    assert_eq!(reply.metadata.id, 4711);
    assert!(reply.metadata.recursion_available && !reply.metadata.authoritative);
    assert_eq!(reply.queries[0].name.to_ascii(), "WwW.a.Example.");
    assert_eq!(told(&reply), [ip("93.0.0.1"), ip("93.0.0.1")]);
    assert!(reply.answers.iter().all(|record| record.ttl == 40));
    assert!(reply.additionals.is_empty());
    let stats = stage.edge.stats();
    assert_eq!(
        (stats.answers, stats.waiting, stats.open, stats.forged),
        (1, 0, 0, 0)
    );
    stage.edge.stop();
}

#[test]
fn forgeries_are_counted_and_ignored() {
    let stage = Stage::with(|question, _| {
        let forged = |change: fn(&mut Message)| {
            let mut reply = addresses(question, 300, &[ip("66.6.6.6")]);
            change(&mut reply);
            reply.to_vec().unwrap()
        };
        let mut replies = vec![
            forged(|reply| reply.metadata.id ^= 1),
            forged(|reply| reply.queries[0].query_type = RecordType::AAAA),
            forged(|reply| reply.queries[0].query_class = DNSClass::CH),
            forged(|reply| reply.queries.clear()),
            forged(|reply| reply.queries.push(reply.queries[0].clone())),
            forged(|reply| {
                // All in one case: of 25 letters at least one differs, or one in 2²⁵ runs fails.
                reply.queries[0].name = reply.queries[0].name.to_lowercase();
            }),
            forged(|reply| {
                reply.metadata.message_type = hickory_proto::op::MessageType::Query;
            }),
            vec![],
            vec![0; 11],
            vec![0xff; 512],
        ];
        // The right id, then nothing.
        replies.push(question.metadata.id.to_be_bytes().to_vec());
        replies.extend(good(question, false));
        replies
    });
    let reply = stage.ask("long-enough-name-to-draw.a.example.", RecordType::A);
    assert_eq!(told(&reply), [ip("93.0.0.1"), ip("93.0.0.2")]);
    assert_eq!(stage.edge.stats().forged, 11);
}

#[test]
fn only_forgeries_teach_nothing() {
    let stage = Stage::with(|question, _| {
        let mut reply = addresses(question, 300, &[ip("66.6.6.6")]);
        reply.metadata.id ^= 0x5555;
        vec![reply.to_vec().unwrap(); 20]
    });
    let reply = stage.ask("www.a.example.", RecordType::A);
    assert_eq!(reply.metadata.response_code, ResponseCode::ServFail);
    assert_eq!(extended(&reply), Some(22));
    assert!(stage.submitted.try_recv().is_err());
    let stats = stage.edge.stats();
    assert!(
        stats.forged >= 20 && stats.timeouts == 1 && stats.asked == 3,
        "{stats:?}"
    );
}

#[test]
fn a_late_answer_teaches_nothing() {
    let stage = Stage::with(|question, _| {
        std::thread::park_timeout(Duration::from_millis(1700));
        good(question, false)
    });
    let client = stage.client();
    client
        .send(&question("www.a.example.", RecordType::A))
        .unwrap();
    assert_eq!(
        receive(&client).metadata.response_code,
        ResponseCode::ServFail
    );
    eventually("the late reply", || stage.edge.stats().late > 0);
    assert!(stage.submitted.try_recv().is_err());
    assert_eq!(stage.edge.stats().forged, 0);
}

#[test]
fn unfit_addresses_are_removed() {
    fn check(given: &[&str], expected: &[&str]) {
        // A script is a plain function: it finds its addresses in the asked name.
        let stage = Stage::with(|question, _| {
            let name = question.queries[0].name.to_ascii();
            let first = name.split('.').next().unwrap().to_ascii_lowercase();
            let given: Vec<IpAddr> = first
                .split('_')
                .map(|text| {
                    ip(&text
                        .replace("-", if text.contains('x') { ":" } else { "." })
                        .replace('x', ""))
                })
                .collect();
            vec![addresses(question, 300, &given).to_vec().unwrap()]
        });
        let kind = if given[0].contains(':') {
            RecordType::AAAA
        } else {
            RecordType::A
        };
        let label = given
            .iter()
            .map(|g| {
                if g.contains(':') {
                    format!("x{}", g.replace(':', "-"))
                } else {
                    g.replace('.', "-")
                }
            })
            .collect::<Vec<_>>()
            .join("_");
        let reply = stage.ask(&format!("{label}.a.example."), kind);
        assert_eq!(reply.metadata.response_code, ResponseCode::NoError);
        let expected: Vec<IpAddr> = expected.iter().map(|e| ip(e)).collect();
        assert_eq!(told(&reply), expected, "{given:?}");
        let removed = u64::try_from(given.len() - expected.len()).unwrap();
        assert_eq!(stage.edge.stats().removed, removed);
        assert_eq!(extended(&reply), (removed > 0).then_some(18));
    }
    check(
        &["93.0.0.1", "10.0.0.1", "93.0.0.2"],
        &["93.0.0.1", "93.0.0.2"],
    );
    check(&["192.168.1.1", "127.0.0.1", "224.0.0.1"], &[]);
    check(&["2600:0:0:0:0:0:0:1", "fe80:0:0:0:0:0:0:1"], &["2600::1"]);
}

#[test]
fn large_answers_go_over_tcp() {
    let script: Script = |question, tcp| {
        if !tcp {
            let mut reply = reply_to(question);
            reply.metadata.truncation = true;
            return vec![reply.to_vec().unwrap()];
        }
        let many: Vec<IpAddr> = (0..300u32)
            .map(|n| Ipv4Addr::from_bits(0x5d00_0000 + n).into())
            .collect();
        vec![addresses(question, 300, &many).to_vec().unwrap()]
    };
    let stage = Stage::with(script);
    let reply = stage.ask("www.a.example.", RecordType::A);
    assert!(reply.metadata.truncation && reply.answers.is_empty());
    let reply = stage.ask_tcp("www.a.example.", RecordType::A);
    // Those beyond the cap are neither taught nor told.
    assert_eq!(told(&reply).len(), 256);
    let over_tcp = Upstream {
        transport: Transport::Tcp,
        ..upstream(script)
    };
    let stage = Stage::new(&settings(&[over_tcp]));
    assert_eq!(
        told(&stage.ask_tcp("www.a.example.", RecordType::A)).len(),
        256
    );
}

#[test]
fn malformed_answers_are_servfail() {
    fn check(script: Script) {
        let stage = Stage::with(script);
        let reply = stage.ask("www.a.example.", RecordType::A);
        assert_eq!(reply.metadata.response_code, ResponseCode::ServFail);
        assert_eq!(extended(&reply), Some(0));
        assert!(stage.submitted.try_recv().is_err());
    }
    check(|question, _| {
        let mut reply = reply_to(question);
        let asked = question.queries[0].name.clone();
        let other = HickoryName::from_ascii("other.example.").unwrap();
        reply.add_answer(alias(&asked, 40, "other.example."));
        reply.add_answer(alias(&other, 40, "WWW.a.example."));
        vec![reply.to_vec().unwrap()]
    });
    check(|question, _| {
        let mut reply = addresses(question, 300, &[ip("93.0.0.1")])
            .to_vec()
            .unwrap();
        reply.pop();
        vec![reply]
    });
    check(|question, _| {
        let mut reply = addresses(question, 300, &[ip("93.0.0.1")])
            .to_vec()
            .unwrap();
        let count = reply.len();
        reply[7] = 200;
        reply.extend(vec![0x41; count]);
        vec![reply]
    });
}

#[test]
fn questions_are_refused_by_policy() {
    fn check(
        unlisted: Unlisted,
        name: &str,
        kind: RecordType,
        code: ResponseCode,
        why: Option<u16>,
    ) {
        let stage = Stage::new(&DnsSettings {
            unlisted,
            ..settings(&[upstream(good)])
        });
        let reply = stage.ask(name, kind);
        let got = (reply.metadata.response_code, extended(&reply));
        assert_eq!(got, (code, why), "{name} {kind}");
    }
    use ResponseCode::{NXDomain, NoError, Refused};
    check(
        Unlisted::Refuse,
        "www.a.example.",
        RecordType::A,
        NoError,
        None,
    );
    check(
        Unlisted::Refuse,
        "a.example.",
        RecordType::A,
        Refused,
        Some(18),
    );
    check(
        Unlisted::Refuse,
        "xb.example.",
        RecordType::A,
        Refused,
        Some(18),
    );
    check(
        Unlisted::Refuse,
        "bad.a.example.",
        RecordType::A,
        Refused,
        Some(18),
    );
    check(
        Unlisted::Refuse,
        "www.a.example.",
        RecordType::TXT,
        Refused,
        Some(18),
    );
    check(
        Unlisted::Refuse,
        "www.a.example.",
        RecordType::ANY,
        Refused,
        Some(18),
    );
    check(
        Unlisted::Refuse,
        "www.a.example.",
        RecordType::AXFR,
        Refused,
        Some(18),
    );
    check(
        Unlisted::Refuse,
        "1.0.0.10.in-addr.arpa.",
        RecordType::PTR,
        Refused,
        Some(18),
    );
    check(
        Unlisted::NxDomain,
        "a.example.",
        RecordType::A,
        NXDomain,
        Some(18),
    );
    check(
        Unlisted::NxDomain,
        "bad.a.example.",
        RecordType::A,
        NXDomain,
        Some(18),
    );
    check(
        Unlisted::Forward,
        "a.example.",
        RecordType::A,
        NoError,
        None,
    );
    check(
        Unlisted::Forward,
        "bad.a.example.",
        RecordType::A,
        Refused,
        Some(18),
    );
    check(
        Unlisted::Forward,
        "a.example.",
        RecordType::AXFR,
        Refused,
        Some(18),
    );
}

#[test]
fn what_is_only_forwarded_teaches_nothing() {
    let settings = settings(&[upstream(good)]);
    let stage = Stage::new(&DnsSettings {
        unlisted: Unlisted::Forward,
        ..settings.clone()
    });
    let reply = stage.ask("unlisted.example.", RecordType::A);
    assert_eq!(told(&reply), [ip("93.0.0.1"), ip("93.0.0.2")]);
    assert!(stage.submitted.try_recv().is_err());
    let untaught = stage.untaught.recv_timeout(PATIENCE).unwrap();
    assert_eq!(untaught.name.to_string(), "unlisted.example");
    assert_eq!(untaught.addresses, [ip("93.0.0.1"), ip("93.0.0.2")]);

    // A client of no zone: the rules know nothing of this interface.
    let submit = |_: Vec<Waiting>| -> Result<(), Busy> { panic!("nothing may be taught") };
    let nowhere = Arc::new(ArcSwap::from_pointee(Rules::default()));
    for (local, code) in [
        (Local::Refuse, ResponseCode::Refused),
        (Local::Forward, ResponseCode::NoError),
    ] {
        let settings = DnsSettings {
            local,
            ..settings.clone()
        };
        let edge = start(
            &settings,
            Arc::clone(&nowhere),
            Arc::default(),
            submit,
            |_| (),
        )
        .unwrap();
        let client = UdpSocket::bind("127.0.0.1:0").unwrap();
        client.set_read_timeout(Some(PATIENCE)).unwrap();
        client.connect(edge.addresses()[0]).unwrap();
        client
            .send(&question("www.a.example.", RecordType::A))
            .unwrap();
        assert_eq!(receive(&client).metadata.response_code, code);
        edge.stop();
    }
}

#[test]
fn what_the_planes_do_not_take_is_servfail() {
    let check = |stage: &Stage, act: fn(&Stage), code: u16| {
        let client = stage.client();
        client
            .send(&question("www.a.example.", RecordType::A))
            .unwrap();
        act(stage);
        let reply = receive(&client);
        assert_eq!(reply.metadata.response_code, ResponseCode::ServFail);
        assert!(reply.answers.is_empty());
        assert_eq!(extended(&reply), Some(code));
    };
    let stage = Stage::with(good);
    check(
        &stage,
        |stage| stage.release(stage.waiting().token, Err("the set is full")),
        0,
    );
    // Held too long, and then released too late.
    check(&stage, |_| {}, 0);
    let late = stage.waiting();
    stage.release(late.token, Ok(()));
    assert_eq!(stage.edge.stats().withheld, 2);
    assert_eq!(stage.edge.stats().waiting, 0);

    let busy = Stage::busy(Mode::Enforce, &settings(&[upstream(good)]));
    check(&busy, |_| {}, 0);
}

#[test]
fn unfit_hints_are_stripped_and_negative_answers_pass() {
    let stage = Stage::with(|question, _| {
        let mut reply = reply_to(question);
        let asked = question.queries[0].name.clone();
        if question.queries[0].query_type == RecordType::HTTPS {
            let hints = SvcParamValue::Ipv4Hint(IpHint(vec![A(Ipv4Addr::new(10, 6, 6, 6))]));
            let alpn = SvcParamValue::Alpn(Alpn(vec!["h3".to_owned()]));
            let parameters = vec![(SvcParamKey::Alpn, alpn), (SvcParamKey::Ipv4Hint, hints)];
            let https = HTTPS(SVCB::new(1, HickoryName::root(), parameters));
            reply.add_answer(Record::from_rdata(asked, 300, RData::HTTPS(https)));
        } else {
            reply.metadata.response_code = ResponseCode::NXDomain;
            let zone = HickoryName::from_ascii("a.example.").unwrap();
            let soa = SOA::new(zone.clone(), zone.clone(), 1, 2, 3, 4, 60);
            reply.add_authority(Record::from_rdata(zone.clone(), 300, RData::SOA(soa)));
            reply.add_authority(address_record(&zone, 300, ip("66.6.6.6")));
        }
        vec![reply.to_vec().unwrap()]
    });
    let reply = stage.ask("www.a.example.", RecordType::HTTPS);
    let RData::HTTPS(https) = &reply.answers[0].data else {
        panic!("{reply:?}")
    };
    assert_eq!(https.svc_params.len(), 1);
    let reply = stage.ask("www.a.example.", RecordType::A);
    assert_eq!(reply.metadata.response_code, ResponseCode::NXDomain);
    assert_eq!(reply.authorities.len(), 1);
    assert!(matches!(reply.authorities[0].data, RData::SOA(_)));
    assert!(stage.submitted.try_recv().is_err());
}

#[test]
fn the_next_upstream_is_asked() {
    // One that is not there, one that is silent, one that reports an error, one that answers.
    let gone = UdpSocket::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap();
    let gone = Upstream {
        transport: Transport::Udp,
        address: gone,
    };
    let silent: Script = |_, _| vec![];
    let failing: Script = |question, _| {
        let mut reply = reply_to(question);
        reply.metadata.response_code = ResponseCode::ServFail;
        vec![reply.to_vec().unwrap()]
    };
    let stage = Stage::new(&settings(&[
        gone.clone(),
        upstream(silent),
        upstream(failing),
        upstream(good),
    ]));
    for _ in 0..6 {
        assert_eq!(told(&stage.ask("www.a.example.", RecordType::A)).len(), 2);
    }
    let stage = Stage::new(&settings(&[upstream(failing)]));
    let reply = stage.ask("www.a.example.", RecordType::A);
    assert_eq!(reply.metadata.response_code, ResponseCode::ServFail);
    assert_eq!(extended(&reply), Some(22));
    assert_eq!(
        stage.edge.stats().asked,
        1,
        "the same upstream would only say it again"
    );
    let stage = Stage::new(&settings(&[gone]));
    let reply = stage.ask("www.a.example.", RecordType::A);
    assert_eq!(extended(&reply), Some(23), "{:?}", stage.edge.stats());
}

#[test]
fn streams_are_pipelined_and_bounded() {
    let stage = Stage::with(good);
    let mut stream = stage.connect();
    for id in 0..20u16 {
        let mut asked = question(&format!("www{id}.a.example."), RecordType::A);
        asked[..2].copy_from_slice(&id.to_be_bytes());
        write_frame(&mut stream, &asked);
    }
    let waiting: Vec<_> = (0..20).map(|_| stage.waiting()).collect();
    let releases = waiting.iter().rev().map(|w| Release {
        token: w.token,
        outcome: Ok(7),
    });
    stage.edge.release_all(releases.collect());
    let mut ids: Vec<u16> = (0..20)
        .map(|_| {
            Message::from_vec(&read_frame(&mut stream).unwrap())
                .unwrap()
                .metadata
                .id
        })
        .collect();
    ids.sort_unstable();
    assert_eq!(ids, (0..20).collect::<Vec<_>>());

    // For more connections than one client may have those are closed that are quiet longest: the
    // first one, and four of the others.
    let mut more: Vec<_> = (0..20).map(|_| stage.connect()).collect();
    let closed = more.iter_mut().map(|stream| {
        stream
            .set_read_timeout(Some(Duration::from_millis(50)))
            .unwrap();
        let error = read_frame(stream).unwrap_err();
        usize::from(error.kind() != std::io::ErrorKind::WouldBlock)
    });
    let closed: usize = closed.sum();
    assert_eq!(closed, 4);
    let error = read_frame(&mut stream).unwrap_err();
    assert_eq!(error.kind(), std::io::ErrorKind::UnexpectedEof);
    // One that sends half a message is closed.
    let mut stream = more.pop().unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    std::io::Write::write_all(&mut stream, &[0]).unwrap();
    let error = read_frame(&mut stream).unwrap_err();
    assert_eq!(error.kind(), std::io::ErrorKind::UnexpectedEof);
}

#[test]
fn the_reply_comes_from_the_asked_address() {
    fn check(listen: &str, client: &str, asked: &str) {
        let listen = vec![listen.parse().unwrap()];
        let stage = Stage::new(&DnsSettings {
            listen,
            ..settings(&[upstream(good)])
        });
        let port = stage.edge.addresses()[0].port();
        let socket = UdpSocket::bind((ip(client), 0)).unwrap();
        socket.set_read_timeout(Some(PATIENCE)).unwrap();
        let asked = SocketAddr::new(ip(asked), port);
        socket
            .send_to(&question("www.a.example.", RecordType::A), asked)
            .unwrap();
        stage.release(stage.waiting().token, Ok(()));
        let (_, from) = socket.recv_from(&mut [0; 1500]).unwrap();
        assert_eq!(from, asked);
    }
    check("127.0.0.1:0", "127.0.0.1", "127.0.0.1");
    check("0.0.0.0:0", "127.0.0.1", "127.0.0.3");
    check("0.0.0.0:0", "127.0.0.7", "127.0.0.1");
    check("[::1]:0", "::1", "::1");
    check("[::]:0", "::1", "::1");
}

#[test]
fn what_cannot_be_listened_on_is_named() {
    let taken = UdpSocket::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap();
    let settings = DnsSettings {
        listen: vec![address],
        ..settings(&[])
    };
    let error = start(
        &settings,
        rules(Mode::Enforce),
        Arc::default(),
        |_| Ok(()),
        |_| (),
    )
    .err()
    .expect("the port is taken");
    assert!(
        format!("{error:#}").contains(&address.to_string()),
        "{error:#}"
    );
}
