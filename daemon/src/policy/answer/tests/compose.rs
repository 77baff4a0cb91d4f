//! Chains over two responses, and IPv6 addresses made from IPv4 ones.

use super::*;
use crate::policy::nat64::Prefix;
use hickory_proto::rr::rdata::SOA;

const WWW: &str = "www.a.example.";

fn soa(owner: &str, ttl: u32, minimum: u32) -> HickoryRecord {
    let data = SOA::new(name("ns.example."), name("x.example."), 1, 2, 3, 4, minimum);
    record(owner, ttl, RData::SOA(data))
}

fn bytes(asked: &str, kind: RecordType, answers: Vec<HickoryRecord>) -> Vec<u8> {
    response(asked, kind, answers).to_vec().unwrap()
}

#[test]
fn dangling_chains() {
    fn check(message: &Message, expected: Option<&str>) {
        let bytes = message.to_vec().unwrap();
        let got = Reading::of(&bytes).unwrap().dangling();
        let expected = expected.map(|text| name(text).to_bytes().unwrap());
        assert_eq!(got, expected, "{message}");
    }
    let one = |authority: Option<HickoryRecord>| {
        let mut message = response(WWW, RecordType::A, vec![cname(WWW, 9, "x.b.example.")]);
        message.insert_authorities(authority.into_iter().collect());
        message
    };
    check(&one(None), Some("x.b.example."));
    // An SOA speaks for its own zone only.
    check(&one(Some(soa("b.example.", 9, 9))), None);
    check(&one(Some(soa("X.B.example.", 9, 9))), None);
    check(&one(Some(soa(".", 9, 9))), None);
    check(&one(Some(soa("a.example.", 9, 9))), Some("x.b.example."));
    check(&one(Some(soa("y.b.example.", 9, 9))), Some("x.b.example."));
    let mut chaos = soa("b.example.", 9, 9);
    chaos.dns_class = DNSClass::CH;
    check(&one(Some(chaos)), Some("x.b.example."));
    let mut error = one(None);
    error.metadata.response_code = ResponseCode::NXDomain;
    check(&error, None);
    check(&response(WWW, RecordType::A, vec![]), None);
    check(&response(WWW, RecordType::A, vec![a(WWW, 9, 1)]), None);
    let whole = vec![cname(WWW, 9, "b.example."), a("b.example.", 9, 1)];
    check(&response(WWW, RecordType::A, whole), None);
    check(
        &response(WWW, RecordType::CNAME, vec![cname(WWW, 9, "b.example.")]),
        None,
    );
    check(
        &response(WWW, RecordType::A, vec![dname("a.example.", 9, "c.test.")]),
        Some("www.c.test."),
    );
}

#[test]
fn a_chain_in_two_responses_reads_as_in_one() {
    let host = |n: usize| {
        if n == 0 {
            WWW.to_owned()
        } else {
            format!("h{n}.example.")
        }
    };
    let step = |n: usize| cname(&host(n), 50 + n as u32, &host(n + 1));
    for (hops, cut) in (1..=MOST_HOPS + 2).flat_map(|hops| (1..=hops).map(move |cut| (hops, cut))) {
        let end = vec![a(&host(hops), 300, 7), a(&host(hops), 300, 8)];
        let whole: Vec<_> = (0..hops).map(step).chain(end.clone()).collect();
        let whole = bytes(WWW, RecordType::A, whole);
        let first = bytes(WWW, RecordType::A, (0..cut).map(step).collect());
        let second: Vec<_> = (cut..hops).map(step).chain(end).collect();
        let second = bytes(&host(cut), RecordType::A, second);
        let read = |bytes: &[u8]| {
            let reading = Reading::of(bytes)?;
            let found: Vec<_> = reading.found().iter().map(|found| found.address).collect();
            Ok((found, reading.ttl()))
        };
        let spliced = splice(&first, &second);
        assert_eq!(
            spliced.and_then(|bytes| read(&bytes)),
            read(&whole),
            "{hops} {cut}"
        );
    }
}

#[test]
fn what_is_spliced() {
    let first = |flags: [u8; 2]| {
        let answers = vec![
            cname(WWW, 50, "b.example."),
            // Not of the chain: it stays behind.
            cname("b2.example.", 50, "c.test."),
            a("c.test.", 50, 66),
        ];
        let mut bytes = bytes(WWW, RecordType::A, answers);
        bytes[2..4].copy_from_slice(&flags);
        bytes
    };
    let second = |flags: [u8; 2], asked: &str, answers: Vec<HickoryRecord>| {
        let mut message = response(asked, RecordType::A, answers);
        message.add_authority(soa("b.example.", 70, 60));
        message.add_additional(a("b.example.", 50, 67));
        let mut bytes = message.to_vec().unwrap();
        bytes[2..4].copy_from_slice(&flags);
        bytes
    };
    let none = || second([0x81, 0x80], "B.example.", vec![]);
    let spliced = splice(&first([0x81, 0xa0]), &none()).unwrap();
    let back = Message::from_vec(&spliced).unwrap();
    assert_eq!((back.answers.len(), back.authorities.len()), (1, 1));
    assert_eq!((back.additionals.len(), back.queries.len()), (0, 1));
    assert_eq!(back.queries[0].name, name(WWW));
    // One that denies is no longer dangling.
    assert_eq!(Reading::of(&spliced).unwrap().dangling(), None);

    let flags = |one: [u8; 2], two: [u8; 2]| {
        let spliced = splice(&first(one), &second(two, "b.example.", vec![])).unwrap();
        [spliced[2], spliced[3]]
    };
    assert_eq!(flags([0x81, 0xa0], [0x81, 0xa0]), [0x81, 0xa0]);
    assert_eq!(flags([0x81, 0xa0], [0x81, 0x80]), [0x81, 0x80]);
    assert_eq!(flags([0x81, 0x80], [0x81, 0xa0]), [0x81, 0x80]);
    assert_eq!(flags([0x87, 0x80], [0x87, 0x83]), [0x81, 0x83]);

    let back_to_first = vec![cname("b.example.", 9, WWW)];
    let wrong = |second: &[u8]| splice(&first([0x81, 0x80]), second).err();
    assert_eq!(
        wrong(&second([0x81, 0x80], "b.example.", back_to_first)),
        Some(Malformed::Loop)
    );
    assert_eq!(
        wrong(&second([0x81, 0x80], "c.test.", vec![])),
        Some(Malformed::Question)
    );
    assert_eq!(
        wrong(&bytes("b.example.", RecordType::AAAA, vec![])),
        Some(Malformed::Question)
    );
    let many = (0..MOST_RECORDS).map(|_| a("b.example.", 9, 1)).collect();
    assert_eq!(
        wrong(&bytes("b.example.", RecordType::A, many)),
        Some(Malformed::Records)
    );
    let complete = vec![cname(WWW, 9, "b.example."), a("b.example.", 9, 1)];
    assert_eq!(
        splice(&bytes(WWW, RecordType::A, complete), &none()).err(),
        Some(Malformed::Question)
    );
}

fn aaaa(owner: &str, ttl: u32, address: &str) -> HickoryRecord {
    record(owner, ttl, RData::AAAA(AAAA(address.parse().unwrap())))
}

fn translator() -> Prefix {
    Prefix::new("64:ff9b::/96".parse().unwrap()).unwrap()
}

#[test]
fn synthesized_answers() {
    /// Addresses with TTLs.
    fn check(wanted: Message, given: Message, expected: Option<&[(&str, u32)]>) {
        let (wanted, given) = (wanted.to_vec().unwrap(), given.to_vec().unwrap());
        let made = synthesize(&wanted, &given, translator()).unwrap();
        let got = made.map(|bytes| {
            let reading = Reading::of(&bytes).unwrap();
            let told: Vec<_> = reading.found().iter().map(|f| f.address).collect();
            let back = Message::from_vec(&bytes).unwrap();
            assert_eq!(back.queries[0].query_type, RecordType::AAAA);
            assert!(!back.metadata.authentic_data);
            let records = back.answers.iter();
            let records = records.filter_map(|r| Some((r.data.ip_addr()?, r.ttl)));
            let records: Vec<_> = records.collect();
            let addresses: Vec<_> = records.iter().map(|(address, _)| *address).collect();
            assert_eq!(addresses, told);
            records
        });
        let expected = expected.map(|pairs| {
            let pairs = pairs.iter();
            pairs
                .map(|(text, ttl)| (text.parse().unwrap(), *ttl))
                .collect()
        });
        assert_eq!(got, expected);
    }
    let none = |authority: Vec<HickoryRecord>| {
        let mut message = response(WWW, RecordType::AAAA, vec![]);
        message.insert_authorities(authority);
        message
    };
    let given = |answers| {
        let mut message = response(WWW, RecordType::A, answers);
        message.metadata.authentic_data = true;
        message
    };
    let two = || given(vec![a(WWW, 900, 1), a(WWW, 300, 2)]);
    check(
        none(vec![]),
        two(),
        Some(&[("64:ff9b::5d00:1", 600), ("64:ff9b::5d00:2", 300)]),
    );
    check(
        none(vec![soa("a.example.", 400, 200)]),
        two(),
        Some(&[("64:ff9b::5d00:1", 200), ("64:ff9b::5d00:2", 200)]),
    );
    // Along the chain.
    check(
        none(vec![]),
        given(vec![cname(WWW, 50, "b.example."), a("b.example.", 300, 1)]),
        Some(&[("64:ff9b::5d00:1", 300)]),
    );
    let has = |address| response(WWW, RecordType::AAAA, vec![aaaa(WWW, 300, address)]);
    check(has("2600::1"), two(), None);
    check(
        has("::ffff:93.0.0.9"),
        given(vec![a(WWW, 300, 1)]),
        Some(&[("64:ff9b::5d00:1", 300)]),
    );
    // It does not exist, there is nothing, or nothing that may be translated.
    let mut absent = none(vec![]);
    absent.metadata.response_code = ResponseCode::NXDomain;
    check(absent, two(), None);
    let mut failed = none(vec![]);
    failed.metadata.response_code = ResponseCode::ServFail;
    check(
        failed,
        given(vec![a(WWW, 9, 1)]),
        Some(&[("64:ff9b::5d00:1", 9)]),
    );
    check(none(vec![]), given(vec![]), None);
    let private = record(WWW, 300, RData::A(A(Ipv4Addr::new(10, 0, 0, 1))));
    check(none(vec![]), given(vec![private.clone()]), None);
    check(
        none(vec![]),
        given(vec![private, a(WWW, 300, 1)]),
        Some(&[("64:ff9b::5d00:1", 300)]),
    );
    let mut error = two();
    error.metadata.response_code = ResponseCode::ServFail;
    check(none(vec![]), error, None);
}

#[test]
fn synthesis_needs_both_questions() {
    fn check(one: (&str, RecordType), two: (&str, RecordType)) {
        let (one, two) = (bytes(one.0, one.1, vec![]), bytes(two.0, two.1, vec![]));
        let made = synthesize(&one, &two, translator());
        assert_eq!(made, Err(Malformed::Question));
    }
    check((WWW, RecordType::AAAA), ("b.example.", RecordType::A));
    check((WWW, RecordType::A), (WWW, RecordType::A));
    check((WWW, RecordType::AAAA), (WWW, RecordType::AAAA));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1000))]

    /// Whatever two upstreams say, what is spliced teaches only what both together teach.
    #[test]
    fn nothing_new_comes_of_a_splice(first in any_response(), second in any_response()) {
        let (first, mut second) = (first.to_vec().unwrap(), second);
        let Ok(start) = Reading::of(&first) else { return Ok(()) };
        let Some(end) = start.dangling() else { return Ok(()) };
        let query = Message::from_vec(&first).unwrap().queries[0].query_type;
        second.queries.clear();
        second.add_query(Query::query(HickoryName::from_bytes(&end).unwrap(), query));
        let second = second.to_vec().unwrap();
        let Ok(spliced) = splice(&first, &second) else { return Ok(()) };
        let addresses = |reading: &Reading<'_>| -> Vec<_> {
            reading.found().iter().map(|found| found.address).collect()
        };
        let (whole, rest) = (Reading::of(&spliced).unwrap(), Reading::of(&second).unwrap());
        prop_assert_eq!(addresses(&whole), addresses(&rest));
        prop_assert!(whole.ttl() <= start.ttl());
    }
}
