//! Domains with resolvers of their own.

use super::*;
use crate::config::Forward;

fn inside(question: &Message, _: bool) -> Vec<Vec<u8>> {
    vec![
        addresses(question, 300, &[ip("10.9.9.9")])
            .to_vec()
            .unwrap(),
    ]
}

#[test]
fn a_domain_has_its_own_resolvers() {
    let forward = |domain: &str, teach| Forward {
        domains: vec![domain.parse().unwrap()],
        upstreams: vec![upstream(inside)],
        teach,
    };
    let stage = Stage::new(&DnsSettings {
        forwards: vec![forward("corp.example", false), forward("c.a.example", true)],
        ..settings(&[upstream(good)])
    });
    let check = |name: &str, code: ResponseCode, expected: &[&str], taught: bool| {
        let client = stage.client();
        client.send(&question(name, RecordType::A)).unwrap();
        let reply = if taught {
            let waiting = stage.waiting();
            stage.release(waiting.token, Ok(()));
            receive(&client)
        } else {
            receive(&client)
        };
        assert_eq!(reply.metadata.response_code, code, "{name}");
        let expected: Vec<_> = expected.iter().map(|text| ip(text)).collect();
        assert_eq!(told(&reply), expected, "{name}");
        assert!(stage.submitted.try_recv().is_err(), "{name}");
    };
    // Unlisted, internal addresses: passed on, and nothing is granted.
    check(
        "dc1.corp.example.",
        ResponseCode::NoError,
        &["10.9.9.9"],
        false,
    );
    check("corp.example.", ResponseCode::NoError, &["10.9.9.9"], false);
    check("xcorp.example.", ResponseCode::Refused, &[], false);
    check(
        "www.a.example.",
        ResponseCode::NoError,
        &["93.0.0.1", "93.0.0.2"],
        true,
    );
    // One that teaches is held to the policy: the address is private.
    check("x.c.a.example.", ResponseCode::NoError, &[], false);
}
