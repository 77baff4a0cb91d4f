//! Upstreams over TLS and HTTPS: what they may teach, and what their connections survive.

use super::server::{Certifier, Manners, Response, Seen, https, mute, tls};
use super::*;
use crate::config::Upstream;
use hickory_proto::op::ResponseCode;
use std::sync::atomic::Ordering;

const FUTURE: i32 = 2099;
const NAME: &str = "dns.example";

fn patient(script: Script) -> Manners {
    Manners {
        script,
        closes_after: usize::MAX,
    }
}

fn stage(certifier: &Certifier, upstreams: &[Upstream]) -> Stage {
    Stage::new(&DnsSettings {
        authorities: vec![certifier.certificate.clone()],
        ..settings(upstreams)
    })
}

fn count(number: &std::sync::atomic::AtomicUsize) -> usize {
    number.load(Ordering::Relaxed)
}

/// The edge answers `times` questions, all over one connection, all padded.
fn answers(stage: &Stage, seen: &Seen, times: usize) {
    for number in 0..times {
        let reply = stage.ask(&format!("n{number}.a.example."), RecordType::A);
        assert_eq!(told(&reply), [ip("93.0.0.1"), ip("93.0.0.2")]);
    }
    let state = &stage.edge.upstreams()[0];
    assert_eq!(
        (state.answered, state.failed),
        (times as u64, 0),
        "{state:?}"
    );
    assert_eq!(
        (count(&seen.connections), count(&seen.questions)),
        (1, times)
    );
    assert_eq!(count(&seen.unpadded), 0);
}

#[test]
fn tls_answers_over_one_connection() {
    let certifier = Certifier::new();
    for (certified, server) in [(NAME, NAME), ("127.0.0.1", "127.0.0.1")] {
        let config = certifier.server(&[certified], FUTURE, &[]);
        let (upstream, seen) = tls(config, patient(good), server);
        answers(&stage(&certifier, &[upstream]), &seen, 20);
    }
}

fn good_response(question: &Message) -> (u16, &'static str, Vec<u8>) {
    (
        200,
        "application/dns-message",
        good(question, true).remove(0),
    )
}

#[test]
fn https_answers_over_one_connection() {
    let certifier = Certifier::new();
    let config = certifier.server(&[NAME], FUTURE, &["h2"]);
    let (upstream, seen) = https(config, good_response, NAME);
    answers(&stage(&certifier, &[upstream]), &seen, 20);
}

/// The client gets SERVFAIL, nothing is learned, and `trouble` is told of the upstream.
fn fails(certifier: &Certifier, upstream: Upstream, trouble: &str) {
    let stage = stage(certifier, &[upstream]);
    let reply = stage.ask("www.a.example.", RecordType::A);
    assert_eq!(reply.metadata.response_code, ResponseCode::ServFail);
    assert!(reply.answers.is_empty() && stage.submitted.try_recv().is_err());
    let state = &stage.edge.upstreams()[0];
    assert!(!state.well && state.answered == 0, "{state:?}");
    let told = state
        .trouble
        .as_ref()
        .map_or("", |trouble| trouble.as_str());
    assert!(told.contains(trouble), "{state:?}");
}

#[test]
fn a_certificate_that_is_not_good_teaches_nothing() {
    let (ours, theirs) = (Certifier::new(), Certifier::new());
    let check = |certifier: &Certifier, name, until, trouble| {
        let config = certifier.server(&[name], until, &[]);
        let (upstream, seen) = tls(config, patient(good), NAME);
        fails(&ours, upstream, trouble);
        let config = certifier.server(&[name], until, &["h2"]);
        let (upstream, https_seen) = https(config, good_response, NAME);
        fails(&ours, upstream, trouble);
        assert_eq!(count(&seen.questions) + count(&https_seen.questions), 0);
    };
    check(&ours, "other.example", FUTURE, "not for `dns.example`");
    check(&ours, NAME, 2001, "expired");
    check(&theirs, NAME, FUTURE, "[dns] ca");
}

#[test]
fn the_others_are_asked_at_once_when_a_certificate_is_bad() {
    let (ours, theirs) = (Certifier::new(), Certifier::new());
    let (bad, _) = tls(theirs.server(&[NAME], FUTURE, &[]), patient(good), NAME);
    let stage = stage(&ours, &[bad, upstream(good)]);
    for number in 0..3 {
        let reply = stage.ask(&format!("n{number}.a.example."), RecordType::A);
        assert_eq!(told(&reply).len(), 2);
    }
    let states = stage.edge.upstreams();
    assert_eq!((states[0].well, states[1].well), (false, true));
    assert_eq!((states[0].failed, states[1].answered), (1, 3));
}

#[test]
fn forgeries_over_tls_are_ignored() {
    let certifier = Certifier::new();
    let config = certifier.server(&[NAME], FUTURE, &[]);
    let script: Script = |question, _| {
        let forged = |change: fn(&mut Message)| {
            let mut reply = addresses(question, 300, &[ip("66.6.6.6")]);
            change(&mut reply);
            reply.to_vec().unwrap()
        };
        let mut replies = vec![
            forged(|reply| reply.metadata.id ^= 1),
            forged(|reply| reply.queries[0].query_type = RecordType::AAAA),
            forged(|reply| reply.queries.clear()),
            forged(|reply| reply.queries.push(reply.queries[0].clone())),
            forged(|reply| reply.queries[0].name = reply.queries[0].name.to_lowercase()),
            vec![],
            vec![0xff; 512],
        ];
        replies.extend(good(question, true));
        replies
    };
    let (upstream, _) = tls(config, patient(script), NAME);
    let stage = stage(&certifier, &[upstream]);
    let reply = stage.ask("long-enough-name-to-draw.a.example.", RecordType::A);
    assert_eq!(told(&reply), [ip("93.0.0.1"), ip("93.0.0.2")]);
    assert_eq!(stage.edge.stats().forged, 7);
}

#[test]
fn a_connection_that_closes_fails_no_question() {
    let certifier = Certifier::new();
    let config = certifier.server(&[NAME], FUTURE, &[]);
    let manners = Manners {
        script: good,
        closes_after: 3,
    };
    let (upstream, seen) = tls(config, manners, NAME);
    let stage = stage(&certifier, &[upstream]);
    // All at once, so that questions are under way whenever it closes.
    let clients: Vec<_> = (0..30).map(|_| stage.client()).collect();
    for (number, client) in clients.iter().enumerate() {
        let name = format!("n{number}.a.example.");
        client.send(&question(&name, RecordType::A)).unwrap();
    }
    for _ in &clients {
        stage.release(stage.waiting().token, Ok(()));
    }
    for client in &clients {
        assert_eq!(told(&receive(client)).len(), 2);
    }
    assert_eq!(count(&seen.questions), 30);
    assert_eq!(count(&seen.connections), 10);
    let state = &stage.edge.upstreams()[0];
    assert_eq!((state.answered, state.failed), (30, 0), "{state:?}");
    assert_eq!(stage.edge.stats().asked, 30);
}

#[test]
fn a_connection_that_stalls_is_dropped() {
    let certifier = Certifier::new();
    let mut upstream = tls(certifier.server(&[NAME], FUTURE, &[]), patient(good), NAME).0;
    upstream.address = mute(certifier.server(&[NAME], FUTURE, &[]));
    let stage = Stage::new(&DnsSettings {
        authorities: vec![certifier.certificate.clone()],
        timeout: Duration::from_millis(300),
        ..settings(&[upstream])
    });
    let reply = stage.ask("www.a.example.", RecordType::A);
    assert_eq!(reply.metadata.response_code, ResponseCode::ServFail);
    eventually("the connection is given up", || {
        let state = &stage.edge.upstreams()[0];
        state
            .trouble
            .as_ref()
            .is_some_and(|why| why.contains("stopped answering"))
    });
}

#[test]
fn http_that_is_no_answer_is_servfail() {
    fn check(respond: Response) {
        let certifier = Certifier::new();
        let config = certifier.server(&[NAME], FUTURE, &["h2"]);
        let (upstream, seen) = https(config, respond, NAME);
        let stage = stage(&certifier, &[upstream]);
        let reply = stage.ask("www.a.example.", RecordType::A);
        assert_eq!(reply.metadata.response_code, ResponseCode::ServFail);
        assert!(stage.submitted.try_recv().is_err());
        let state = &stage.edge.upstreams()[0];
        assert_eq!((state.answered, state.failed), (0, 1), "{state:?}");
        // The connection is as good as before.
        stage.ask("www.a.example.", RecordType::A);
        assert_eq!(count(&seen.connections), 1);
    }
    check(|question| (500, "application/dns-message", good_response(question).2));
    check(|question| (200, "text/plain", good_response(question).2));
    check(|question| {
        let mut body = good_response(question).2;
        body.resize(65_536, 0);
        (200, "application/dns-message", body)
    });
}

#[test]
fn without_http_2_nobody_is_asked() {
    let certifier = Certifier::new();
    let config = certifier.server(&[NAME], FUTURE, &[]);
    let (upstream, seen) = https(config, good_response, NAME);
    let stage = stage(&certifier, &[upstream]);
    let reply = stage.ask("www.a.example.", RecordType::A);
    assert_eq!(reply.metadata.response_code, ResponseCode::ServFail);
    let state = &stage.edge.upstreams()[0];
    assert!(
        state
            .trouble
            .as_ref()
            .is_some_and(|why| why.contains("HTTP/2")),
        "{state:?}"
    );
    assert_eq!(count(&seen.questions), 0);
}

#[test]
fn an_error_without_a_question_is_a_failure_at_once() {
    fn check(script: Script, is_error: bool) {
        let stage = Stage::with(script);
        let begin = Instant::now();
        let reply = stage.ask("www.a.example.", RecordType::A);
        assert_eq!(reply.metadata.response_code, ResponseCode::ServFail);
        assert!(stage.submitted.try_recv().is_err());
        let stats = stage.edge.stats();
        if is_error {
            assert!(begin.elapsed() < Duration::from_millis(500));
            assert_eq!((stats.forged, stats.asked), (0, 1));
            assert_eq!(stage.edge.upstreams()[0].failed, 1);
        } else {
            assert_eq!((stats.forged, stats.timeouts), (3, 1));
        }
    }
    fn bare(question: &Message, code: ResponseCode) -> Vec<Vec<u8>> {
        let mut reply = reply_to(question);
        reply.queries.clear();
        reply.metadata.response_code = code;
        vec![reply.to_vec().unwrap()]
    }
    check(|question, _| bare(question, ResponseCode::FormErr), true);
    check(|question, _| bare(question, ResponseCode::Refused), true);
    check(|question, _| bare(question, ResponseCode::NoError), false);
}
