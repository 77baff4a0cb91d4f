//! Domains with upstreams of their own: who is asked, who gets an answer, and what it teaches.

use super::*;
use crate::config::Forward;

fn corporate(question: &Message, _: bool) -> Vec<Vec<u8>> {
    let reply = addresses(question, 300, &[ip("93.0.7.7"), ip("10.0.0.7")]);
    vec![reply.to_vec().unwrap()]
}

/// `own` is a domain with an upstream that gives 93.0.7.7 and 10.0.0.7; all others give 93.0.0.1 and
/// 93.0.0.2.
fn stage(own: &str, teach: bool) -> Stage {
    Stage::new(&DnsSettings {
        forwards: vec![Forward {
            domains: vec![own.parse().unwrap()],
            upstreams: vec![upstream(corporate)],
            teach,
        }],
        ..settings(&[upstream(good)])
    })
}

#[test]
fn forwards_answer_and_teach_as_they_are_told() {
    use ResponseCode::{NoError, Refused};
    const RAW: &[&str] = &["93.0.7.7", "10.0.0.7"];
    const CLEAN: &[&str] = &["93.0.7.7"];
    const OTHERS: &[&str] = &["93.0.0.1", "93.0.0.2"];
    fn check(own: &str, teach: bool, name: &str, code: ResponseCode, expected: &[&str]) {
        let stage = stage(own, teach);
        let client = stage.client();
        client.send(&question(name, RecordType::A)).unwrap();
        // An answer is either submitted, or it is there at once.
        let waiting = stage.submitted.recv_timeout(Duration::from_millis(200));
        if let Ok(waiting) = &waiting {
            stage.release(waiting.token, Ok(()));
        }
        let reply = receive(&client);
        assert_eq!(reply.metadata.response_code, code, "{own} {teach} {name}");
        let expected: Vec<IpAddr> = expected.iter().map(|text| ip(text)).collect();
        assert_eq!(told(&reply), expected, "{own} {teach} {name}");
        let teaches = !expected.is_empty() && !expected.contains(&ip("10.0.0.7"));
        assert_eq!(waiting.is_ok(), teaches, "{own} {teach} {name}");
    }
    // Where nothing teaches every name is answered; else only listed ones, as everywhere.
    check("corp.example", false, "dc.corp.example.", NoError, RAW);
    check("corp.example", true, "dc.corp.example.", Refused, &[]);
    check("sub.a.example", false, "www.sub.a.example.", NoError, RAW);
    check("sub.a.example", true, "www.sub.a.example.", NoError, CLEAN);
    // A veto stands, and the rest goes where it always went.
    check("a.example", false, "bad.a.example.", Refused, &[]);
    check("sub.a.example", false, "www.a.example.", NoError, OTHERS);
    check("sub.a.example", false, "xsub.a.example.", NoError, OTHERS);
    check("corp.example", false, "other.example.", Refused, &[]);
}

#[test]
fn the_default_upstreams_are_never_asked_for_a_domain_of_its_own() {
    let stage = Stage::new(&DnsSettings {
        forwards: vec![Forward {
            domains: vec!["corp.example".parse().unwrap()],
            upstreams: vec![upstream(|_, _| vec![])],
            teach: false,
        }],
        timeout: Duration::from_millis(100),
        ..settings(&[upstream(good)])
    });
    let reply = stage.ask("dc.corp.example.", RecordType::A);
    assert_eq!(reply.metadata.response_code, ResponseCode::ServFail);
    let asked: Vec<_> = stage
        .edge
        .upstreams()
        .iter()
        .map(|u| (u.group, u.asked))
        .collect();
    assert_eq!(asked, [(0, 0), (1, 3)]);
}
