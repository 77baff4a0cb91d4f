//! A zone in audit mode: nothing is refused, everything that would be is told.

use super::*;
use crate::observe::{Happening, subscribe};
use crate::policy::rules::Refusal;
use hickory_proto::rr::rdata::TXT;
use tokio::sync::broadcast::error::TryRecvError;

fn audited(script: Script) -> Stage {
    Stage::in_mode(Mode::Audit, &settings(&[upstream(script)]))
}

#[test]
fn what_would_be_refused_is_told_and_forwarded() {
    fn check(unlisted: Unlisted, name: &str, kind: RecordType, why: Option<Refusal>) {
        let script: Script = |question, _| {
            let asked = &question.queries[0];
            if asked.query_type == RecordType::A {
                return good(question, false);
            }
            let mut reply = reply_to(question);
            let text = RData::TXT(TXT::new(vec!["x".to_owned()]));
            reply.add_answer(Record::from_rdata(asked.name.clone(), 300, text));
            vec![reply.to_vec().unwrap()]
        };
        let stage = Stage::in_mode(
            Mode::Audit,
            &DnsSettings {
                unlisted,
                ..settings(&[upstream(script)])
            },
        );
        let mut happened = subscribe();
        let records = if kind == RecordType::A { 2 } else { 1 };
        let ask = || {
            let reply = stage.ask(name, kind);
            assert_eq!(reply.metadata.response_code, ResponseCode::NoError);
            assert_eq!(reply.answers.len(), records, "{name} {kind}");
            let taught = stage.submitted.try_recv();
            assert!(taught.is_err(), "{name} {kind} must not teach");
        };
        ask();
        assert_eq!(stage.edge.stats().refused, u64::from(why.is_some()));
        let Some(expected) = why else { return };
        let mut heard = || {
            std::iter::from_fn(|| match happened.try_recv() {
                Err(TryRecvError::Empty | TryRecvError::Closed) => None,
                other => Some(other),
            })
            .flatten()
            .any(|happened| {
                matches!(
                    &happened.what,
                    Happening::QuestionRefused { name: asked, why, audited: true, .. }
                        if format!("{asked}.") == name && *why == expected
                )
            })
        };
        // Other tests flood the same bus: ask again until it is heard.
        let told = (0..20).any(|_| {
            ask();
            heard()
        });
        assert!(told, "{name} {kind}: {expected:?}");
    }
    use Refusal::{Denied, Type, Unlisted as NotListed};
    let (a, txt) = (RecordType::A, RecordType::TXT);
    for unlisted in [Unlisted::Refuse, Unlisted::NxDomain] {
        check(unlisted, "audited.example.", a, Some(NotListed));
        check(unlisted, "audited.example.", txt, Some(NotListed));
    }
    check(Unlisted::Forward, "forwarded.audited.example.", a, None);
    for unlisted in [Unlisted::Refuse, Unlisted::NxDomain, Unlisted::Forward] {
        check(unlisted, "bad.a.example.", a, Some(Denied));
        check(unlisted, "audited.a.example.", txt, Some(Type));
        check(unlisted, "audited.a.example.", RecordType::ANY, Some(Type));
    }
}

#[test]
fn unfit_addresses_are_told_and_not_taught() {
    let stage = audited(|question, _| {
        let given = [ip("93.0.0.1"), ip("10.0.0.1"), ip("93.0.0.2")];
        vec![addresses(question, 300, &given).to_vec().unwrap()]
    });
    let client = stage.client();
    client
        .send(&question("www.a.example.", RecordType::A))
        .unwrap();
    let waiting = stage.waiting();
    assert_eq!(waiting.answer.addresses, [ip("93.0.0.1"), ip("93.0.0.2")]);
    stage.release(waiting.token, Ok(()));
    let reply = receive(&client);
    assert_eq!(
        told(&reply),
        [ip("93.0.0.1"), ip("10.0.0.1"), ip("93.0.0.2")]
    );
    assert_eq!(extended(&reply), None);
    assert_eq!(stage.edge.stats().removed, 0);

    let stage = audited(|question, _| {
        vec![
            addresses(question, 300, &[ip("192.168.1.1")])
                .to_vec()
                .unwrap(),
        ]
    });
    let reply = stage.ask("www.a.example.", RecordType::A);
    assert_eq!(told(&reply), [ip("192.168.1.1")]);
    assert!(stage.submitted.try_recv().is_err());
}

#[test]
fn a_chain_that_is_not_followed_is_passed_on() {
    let stage = audited(|question, _| {
        let mut reply = reply_to(question);
        let asked = question.queries[0].name.clone();
        let other = HickoryName::from_ascii("other.example.").unwrap();
        reply.add_answer(alias(&asked, 40, "other.example."));
        reply.add_answer(alias(&other, 40, "WWW.a.example."));
        vec![reply.to_vec().unwrap()]
    });
    let reply = stage.ask("www.a.example.", RecordType::A);
    assert_eq!(reply.metadata.response_code, ResponseCode::NoError);
    assert_eq!(reply.answers.len(), 2);
    assert!(stage.submitted.try_recv().is_err());
}

#[test]
fn answers_are_held_and_leave_when_the_planes_fail() {
    let check = |stage: &Stage, act: fn(&Stage)| {
        let client = stage.client();
        client
            .send(&question("www.a.example.", RecordType::A))
            .unwrap();
        client
            .set_read_timeout(Some(Duration::from_millis(100)))
            .unwrap();
        let early = client.recv(&mut [0; 512]);
        assert!(early.is_err(), "the reply left before the planes' word");
        client.set_read_timeout(Some(PATIENCE)).unwrap();
        act(stage);
        let reply = receive(&client);
        assert_eq!(told(&reply), [ip("93.0.0.1"), ip("93.0.0.2")]);
    };
    let stage = audited(good);
    check(&stage, |stage| {
        stage.release(stage.waiting().token, Err("the set is full"));
    });
    // The loop says nothing at all.
    check(&stage, |_| {});
    let stats = stage.edge.stats();
    assert_eq!((stats.withheld, stats.answers, stats.servfail), (2, 2, 0));
    assert_eq!((stats.waiting, stats.open), (0, 0));

    let stage = Stage::busy(Mode::Audit, &settings(&[upstream(good)]));
    assert_eq!(told(&stage.ask("www.a.example.", RecordType::A)).len(), 2);
}
