//! Answers that are put together from several replies.

use super::*;
use crate::policy::nat64::Prefix;

/// `www` leads to `cdn`, `cdn` to `edge`, each in a reply of its own; `edge` has the address.
fn stepwise(question: &Message, _: bool) -> Vec<Vec<u8>> {
    let asked = &question.queries[0].name;
    let lower = asked.to_lowercase().to_string();
    let mut reply = reply_to(question);
    match lower.as_str() {
        "www.a.example." => {
            reply.add_answer(alias(asked, 300, "cdn.vendor.example."));
        }
        "cdn.vendor.example." => {
            reply.add_answer(alias(asked, 200, "edge.vendor.example."));
        }
        "edge.vendor.example." => {
            reply.add_answer(address_record(asked, 100, ip("93.0.0.7")));
        }
        "loop.a.example." => {
            reply.add_answer(alias(asked, 300, "loop.a.example."));
        }
        // Every name leads on to the next.
        _ => {
            let next = format!("x{}.vendor.example.", lower.len());
            let next = format!("{}.{next}", "y".repeat(lower.len() % 60 + 1));
            reply.add_answer(alias(asked, 300, &next));
        }
    }
    vec![reply.to_vec().unwrap()]
}

#[test]
fn a_chain_in_several_replies_is_one_answer() {
    let stage = Stage::with(stepwise);
    let client = stage.client();
    client
        .send(&question("www.a.example.", RecordType::A))
        .unwrap();
    let waiting = stage.waiting();
    assert_eq!(waiting.answer.name.to_string(), "www.a.example");
    assert_eq!(waiting.answer.addresses, [ip("93.0.0.7")]);
    assert_eq!(waiting.answer.ttl, 100);
    stage.release(waiting.token, Ok(()));
    let reply = receive(&client);
    assert_eq!(reply.answers.len(), 3);
    assert_eq!(told(&reply), [ip("93.0.0.7")]);
    assert_eq!(stage.edge.stats().asked, 3);
}

#[test]
fn a_chain_without_end_teaches_nothing() {
    let stage = Stage::with(stepwise);
    for name in ["loop.a.example.", "endless.a.example."] {
        let reply = stage.ask(name, RecordType::A);
        assert!(told(&reply).is_empty(), "{name}");
    }
    assert!(stage.submitted.try_recv().is_err());
    assert!(stage.edge.stats().asked < 40);
}

/// Only IPv4 addresses, one of them not to be translated.
fn old(question: &Message, _: bool) -> Vec<Vec<u8>> {
    let mut reply = reply_to(question);
    let asked = &question.queries[0].name;
    if question.queries[0].query_type() == RecordType::A {
        reply.add_answer(address_record(asked, 50, ip("93.0.0.9")));
        reply.add_answer(address_record(asked, 50, ip("10.0.0.9")));
    }
    vec![reply.to_vec().unwrap()]
}

#[test]
fn ipv6_addresses_are_made_from_ipv4_ones() {
    let prefix = Prefix::new("64:ff9b::/96".parse().unwrap()).unwrap();
    let stage = Stage::new(&DnsSettings {
        dns64: Some(prefix),
        ..settings(&[upstream(old)])
    });
    let made = ip("64:ff9b::5d00:9");
    let reply = stage.ask("www.a.example.", RecordType::AAAA);
    // The policy of this stage knows no translator: what is made is not fit, and is removed.
    assert!(told(&reply).is_empty());
    let mut intent = (**stage.rules.load().intent()).clone();
    intent.nat64 = vec![prefix];
    let links = stage.rules.load().links().clone();
    let numbers = &mut crate::policy::rules::Numbers::default();
    let rules = Rules::compile(Arc::new(intent), links, numbers).unwrap();
    stage.rules.store(Arc::new(rules));
    let reply = stage.ask("other.a.example.", RecordType::AAAA);
    assert_eq!(told(&reply), [made]);
    assert_eq!(
        told(&stage.ask("other.a.example.", RecordType::A)),
        [ip("93.0.0.9")]
    );
}
