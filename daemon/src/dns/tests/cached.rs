//! The cache: what is told again, to whom, and when no more.

use super::*;
use std::sync::atomic::Ordering;

/// Answers with the number of the question as the last byte, so that a second look-up is seen.
fn counted(ttl: u32) -> impl Fn(&Message) -> Vec<Vec<u8>> {
    static ASKED: AtomicU64 = AtomicU64::new(0);
    move |question| {
        let number = ASKED.fetch_add(1, Ordering::Relaxed) as u8;
        let address = Ipv4Addr::new(93, 0, 1, number).into();
        vec![addresses(question, ttl, &[address]).to_vec().unwrap()]
    }
}

fn long(question: &Message, _: bool) -> Vec<Vec<u8>> {
    counted(300)(question)
}

fn brief(question: &Message, _: bool) -> Vec<Vec<u8>> {
    counted(1)(question)
}

fn unkept(question: &Message, _: bool) -> Vec<Vec<u8>> {
    counted(0)(question)
}

fn nothing(question: &Message, _: bool) -> Vec<Vec<u8>> {
    let mut reply = reply_to(question);
    reply.metadata.response_code = ResponseCode::NXDomain;
    let zone = HickoryName::from_ascii("a.example.").unwrap();
    let soa = SOA::new(zone.clone(), zone.clone(), 1, 2, 3, 4, 60);
    reply.add_authority(Record::from_rdata(zone, 900, RData::SOA(soa)));
    vec![reply.to_vec().unwrap()]
}

#[test]
fn an_answer_is_told_again_without_the_loop() {
    let stage = Stage::with(long);
    let first = stage.ask("www.a.example.", RecordType::A);
    let client = stage.client();
    let mut asked = question("wWw.A.example.", RecordType::A);
    asked[..2].copy_from_slice(&[9, 9]);
    client.send(&asked).unwrap();
    let again = receive(&client);
    assert_eq!(told(&again), told(&first));
    assert_eq!(again.metadata.id, 0x0909);
    assert_eq!(again.queries[0].name.to_string(), "wWw.A.example.");
    assert!(again.answers[0].ttl <= 300 && again.answers[0].ttl >= 298);
    assert!(stage.submitted.try_recv().is_err(), "the loop is not asked");
    let stats = stage.edge.stats();
    assert_eq!((stats.asked, stats.cached, stats.answers), (1, 1, 2));
    // Over TCP it is the same.
    assert_eq!(
        told(&stage.ask_tcp("www.a.example.", RecordType::A)),
        told(&first)
    );
    assert_eq!(stage.edge.stats().cached, 2);
}

#[test]
fn a_raised_epoch_sends_the_answer_through_the_loop_again() {
    let stage = Stage::with(long);
    let first = stage.ask("www.a.example.", RecordType::A);
    stage.epoch.fetch_add(1, Ordering::Relaxed);
    let client = stage.client();
    client
        .send(&question("www.a.example.", RecordType::A))
        .unwrap();
    let waiting = stage.waiting();
    assert_eq!(
        waiting.answer.addresses,
        told(&first),
        "upstream is not asked again"
    );
    // The loop changes its mind before the edge hears of the release.
    let stale = stage.epoch.fetch_add(1, Ordering::Relaxed);
    stage.edge.release(Release {
        token: waiting.token,
        outcome: Ok(stale),
    });
    assert_eq!(told(&receive(&client)), told(&first));
    client
        .send(&question("www.a.example.", RecordType::A))
        .unwrap();
    let third = stage.waiting();
    stage.release(third.token, Err("closed"));
    assert_eq!(
        receive(&client).metadata.response_code,
        ResponseCode::ServFail
    );
    assert_eq!(stage.edge.stats().cached, 0);
    assert_eq!(stage.edge.stats().asked, 1);
}

#[test]
fn other_rules_are_asked_again() {
    let stage = Stage::with(long);
    assert_eq!(told(&stage.ask("www.a.example.", RecordType::A)).len(), 1);
    stage.rules.store(Arc::default());
    stage.epoch.fetch_add(1, Ordering::Relaxed);
    let reply = stage.ask("www.a.example.", RecordType::A);
    assert_eq!(reply.metadata.response_code, ResponseCode::Refused);
}

/// Decided by older rules: told once, and never again from the cache.
#[test]
fn what_older_rules_decided_is_not_kept() {
    static ASKED: AtomicU64 = AtomicU64::new(0);
    fn slow(question: &Message, stream: bool) -> Vec<Vec<u8>> {
        // The rules change while the first question is under way.
        let end = Instant::now() + PATIENCE;
        while ASKED.load(Ordering::Relaxed) == 0 && Instant::now() < end {
            std::thread::yield_now();
        }
        nothing(question, stream)
    }
    let stage = Stage::with(slow);
    let client = stage.client();
    let asked = question("www.a.example.", RecordType::A);
    client.send(&asked).unwrap();
    eventually("it is asked", || stage.edge.stats().asked == 1);
    stage.epoch.fetch_add(1, Ordering::Relaxed);
    stage.rules.store(Arc::default());
    stage.epoch.fetch_add(1, Ordering::Relaxed);
    ASKED.store(1, Ordering::Relaxed);
    receive(&client);
    // Another zone's client now, and refused as such: nothing of the old zone's is told.
    stage.rules.store(rules(Mode::Enforce).load_full());
    client.send(&asked).unwrap();
    receive(&client);
    assert_eq!(stage.edge.stats().cached, 0);
    client.send(&asked).unwrap();
    receive(&client);
    assert_eq!(stage.edge.stats().cached, 1, "decided in this epoch");
}

#[test]
fn nothing_outlives_its_ttl() {
    fn check(script: Script, asked: u64) {
        let stage = Stage::with(script);
        let first = stage.ask("www.a.example.", RecordType::A);
        let born = Instant::now();
        while born.elapsed() < Duration::from_millis(1100) {
            let reply = stage.ask("www.a.example.", RecordType::A);
            assert!(reply.answers[0].ttl <= first.answers[0].ttl);
            std::thread::yield_now();
            if asked == 0 {
                break;
            }
        }
        let last = stage.ask("www.a.example.", RecordType::A);
        assert_ne!(told(&last), told(&first));
        assert!(stage.edge.stats().asked >= asked.max(2));
    }
    check(brief, 2);
    check(unkept, 0);
}

#[test]
fn what_is_not_there_is_kept_too() {
    let stage = Stage::with(nothing);
    for cached in 0..3 {
        let reply = stage.ask("www.a.example.", RecordType::A);
        assert_eq!(reply.metadata.response_code, ResponseCode::NXDomain);
        assert_eq!(reply.authorities.len(), 1);
        assert_eq!(stage.edge.stats().cached, cached);
    }
    assert_eq!(stage.edge.stats().asked, 1);
    // Another type is another question.
    stage.ask("www.a.example.", RecordType::AAAA);
    assert_eq!(stage.edge.stats().asked, 2);
}

#[test]
fn the_same_question_is_asked_once() {
    let stage = Stage::with(long);
    let clients: Vec<_> = (0..20).map(|_| stage.client()).collect();
    for client in &clients {
        client
            .send(&question("www.a.example.", RecordType::A))
            .unwrap();
    }
    let end = Instant::now() + PATIENCE;
    while stage.edge.stats().answers < 20 && Instant::now() < end {
        if let Ok(waiting) = stage.submitted.recv_timeout(Duration::from_millis(10)) {
            stage.release(waiting.token, Ok(()));
        }
    }
    let answers: Vec<_> = clients
        .iter()
        .map(|client| told(&receive(client)))
        .collect();
    assert!(answers.iter().all(|answer| *answer == answers[0]));
    assert_eq!(stage.edge.stats().asked, 1);
    assert_eq!(stage.edge.stats().open, 0);
}

#[test]
fn an_old_answer_is_told_when_nobody_answers() {
    static DEAD: std::sync::atomic::AtomicBool = std::sync::atomic::AtomicBool::new(false);
    fn dies(question: &Message, _: bool) -> Vec<Vec<u8>> {
        if DEAD.load(Ordering::Relaxed) {
            return vec![];
        }
        counted(1)(question)
    }
    let stage = Stage::new(&DnsSettings {
        stale: Duration::from_secs(60),
        timeout: Duration::from_millis(100),
        ..settings(&[upstream(dies)])
    });
    let first = stage.ask("www.a.example.", RecordType::A);
    DEAD.store(true, Ordering::Relaxed);
    let mut reply = first.clone();
    eventually("an old answer", || {
        reply = stage.ask("www.a.example.", RecordType::A);
        extended(&reply) == Some(3)
    });
    assert_eq!(told(&reply), told(&first));
    assert_eq!(reply.answers[0].ttl, 30);
    assert!(stage.edge.stats().stale > 0);
    // A name that was never known is an error.
    let reply = stage.ask("new.a.example.", RecordType::A);
    assert_eq!(reply.metadata.response_code, ResponseCode::ServFail);
}

#[test]
fn exact_names_are_looked_up_unasked() {
    let stage = Stage::new(&DnsSettings {
        own_lookups: true,
        ..settings(&[upstream(good)])
    });
    let waiting = stage.waiting();
    assert_eq!(waiting.answer.name.to_string(), "b.example");
    assert_eq!(stage.edge.unresolved().len(), 1);
    stage.release(waiting.token, Ok(()));
    eventually("the name is resolved", || {
        stage.edge.unresolved().is_empty()
    });
    // A client's question is answered from what is known.
    let client = stage.client();
    client.send(&question("b.example.", RecordType::A)).unwrap();
    assert_eq!(told(&receive(&client)).len(), 2);
    assert_eq!(stage.edge.stats().cached, 1);
    // The loop learns that somebody asked, once.
    let heard = stage.waiting();
    assert_eq!(heard.token, Token::TOLD);
    assert_eq!(heard.answer.name.to_string(), "b.example");
    client.send(&question("b.example.", RecordType::A)).unwrap();
    receive(&client);
    client
        .send(&question("new.a.example.", RecordType::A))
        .unwrap();
    assert_eq!(stage.waiting().answer.name.to_string(), "new.a.example");
}
