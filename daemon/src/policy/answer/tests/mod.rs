//! Responses and what they teach; the helpers of every test here.

mod compose;
mod hints;

use super::*;
use hickory_proto::op::{Message, MessageType, OpCode, Query, ResponseCode};
use hickory_proto::rr::rdata::{A, AAAA, CNAME, NS, NULL, SRV, TXT};
use hickory_proto::rr::{
    DNSClass, Name as HickoryName, RData, Record as HickoryRecord, RecordType,
};
use hickory_proto::serialize::binary::{BinDecodable, BinEncodable};
use proptest::prelude::*;
use std::net::{Ipv4Addr, Ipv6Addr};

/// A few names near each other, so that random records meet.
const NAMES: [&str; 8] = [
    "www.a.example.",
    "WWW.A.example.",
    "b.example.",
    "x.b.example.",
    "a.example.",
    "c.test.",
    "www.c.test.",
    "example.",
];

pub(super) fn name(text: &str) -> HickoryName {
    HickoryName::from_ascii(text).unwrap()
}

pub(super) fn record(owner: &str, ttl: u32, data: RData) -> HickoryRecord {
    HickoryRecord::from_rdata(name(owner), ttl, data)
}

pub(super) fn cname(owner: &str, ttl: u32, target: &str) -> HickoryRecord {
    record(owner, ttl, RData::CNAME(CNAME(name(target))))
}

pub(super) fn dname(owner: &str, ttl: u32, target: &str) -> HickoryRecord {
    record(owner, ttl, dname_data(target))
}

fn dname_data(target: &str) -> RData {
    let rdata = NULL::with(name(target).to_bytes().unwrap());
    RData::Unknown {
        code: RecordType::from(kind::DNAME),
        rdata,
    }
}

fn dname_target(record: &HickoryRecord) -> Option<HickoryName> {
    let RData::Unknown { code, rdata } = &record.data else {
        return None;
    };
    (u16::from(*code) == kind::DNAME).then(|| HickoryName::from_bytes(&rdata.anything).unwrap())
}

pub(super) fn a(owner: &str, ttl: u32, last: u8) -> HickoryRecord {
    record(owner, ttl, RData::A(A(Ipv4Addr::new(93, 0, 0, last))))
}

pub(super) fn response(asked: &str, kind: RecordType, answers: Vec<HickoryRecord>) -> Message {
    let mut message = Message::new(7, MessageType::Response, OpCode::Query);
    message.add_query(Query::query(name(asked), kind));
    message.insert_answers(answers);
    message
}

/// The last bytes of the addresses found and the smallest TTL.
fn taught(message: &Message) -> Result<(Vec<u8>, u32), Malformed> {
    let bytes = message.to_vec().unwrap();
    let reading = Reading::of(&bytes)?;
    let last = |found: &Found| match found.address {
        IpAddr::V4(address) => address.octets()[3],
        IpAddr::V6(address) => address.octets()[15],
    };
    Ok((reading.found().iter().map(last).collect(), reading.ttl()))
}

#[test]
fn chains() {
    fn check(answers: Vec<HickoryRecord>, expected: Result<(&[u8], u32), Malformed>) {
        let message = response("www.a.example.", RecordType::A, answers);
        let expected = expected.map(|(last, ttl)| (last.to_vec(), ttl));
        assert_eq!(taught(&message), expected, "{message}");
    }
    let www = "www.a.example.";
    check(vec![], Ok((&[], 0)));
    check(vec![a(www, 300, 1), a(www, 200, 2)], Ok((&[1, 2], 200)));
    check(vec![a("WWW.a.EXAMPLE.", 300, 1)], Ok((&[1], 300)));
    check(vec![a("b.example.", 300, 1)], Ok((&[], 0)));
    check(
        vec![cname(www, 50, "b.example."), a("b.example.", 300, 1)],
        Ok((&[1], 50)),
    );
    // Out of order.
    check(
        vec![a("b.example.", 300, 1), cname(www, 50, "b.example.")],
        Ok((&[1], 50)),
    );
    // A name with a CNAME has no other data.
    check(
        vec![
            a(www, 300, 9),
            cname(www, 50, "b.example."),
            a("b.example.", 300, 1),
        ],
        Ok((&[1], 50)),
    );
    // A TTL with the high bit set is 0.
    check(vec![a(www, 0x8000_0000, 1)], Ok((&[1], 0)));
    check(vec![a(www, 0x7fff_ffff, 1)], Ok((&[1], 0x7fff_ffff)));
    check(vec![cname(www, 50, www)], Err(Malformed::Loop));
    check(
        vec![
            cname(www, 50, "b.example."),
            cname("B.example.", 50, "WWW.a.example."),
        ],
        Err(Malformed::Loop),
    );
    check(
        vec![dname("a.example.", 60, "c.test."), a("www.c.test.", 300, 1)],
        Ok((&[1], 60)),
    );
    check(
        vec![
            dname("a.example.", 60, "c.test."),
            cname(www, 70, "www.c.test."),
            a("www.c.test.", 300, 1),
        ],
        Ok((&[1], 60)),
    );
    // A DNAME says nothing about its own owner.
    check(
        vec![dname(www, 60, "c.test."), a("c.test.", 300, 1)],
        Ok((&[], 0)),
    );
    let mut chaos = a(www, 300, 1);
    chaos.dns_class = DNSClass::CH;
    check(vec![chaos], Ok((&[], 0)));
    let chain = |hops: u32| -> Vec<HickoryRecord> {
        let step = |n: u32| {
            if n == 0 {
                www.to_owned()
            } else {
                format!("h{n}.example.")
            }
        };
        let mut records: Vec<_> = (0..hops)
            .map(|n| cname(&step(n), 50, &step(n + 1)))
            .collect();
        records.push(a(&step(hops), 300, 1));
        records
    };
    check(chain(16), Ok((&[1], 50)));
    check(chain(17), Err(Malformed::Hops));
    check(chain(40), Err(Malformed::Hops));
    let many = |count: usize| (0..count).map(|_| a(www, 300, 1)).collect();
    assert_eq!(
        taught(&response(www, RecordType::A, many(512)))
            .unwrap()
            .0
            .len(),
        512
    );
    check(many(513), Err(Malformed::Records));
}

#[test]
fn only_the_answer_section_without_error_teaches() {
    let www = "www.a.example.";
    let mut message = response(www, RecordType::A, vec![]);
    message.add_authority(a(www, 300, 1));
    message.add_additional(a(www, 300, 2));
    assert_eq!(taught(&message), Ok((vec![], 0)));
    let mut message = response(www, RecordType::A, vec![a(www, 300, 1)]);
    message.metadata.response_code = ResponseCode::NXDomain;
    assert_eq!(taught(&message), Ok((vec![], 0)));
    let message = response(www, RecordType::AAAA, vec![a(www, 300, 1)]);
    assert_eq!(taught(&message), Ok((vec![], 0)));
}

#[test]
fn truncation_at_every_byte() {
    let answers = vec![
        cname("www.a.example.", 50, "b.example."),
        a("b.example.", 300, 1),
    ];
    let bytes = response("www.a.example.", RecordType::A, answers)
        .to_vec()
        .unwrap();
    assert!(Reading::of(&bytes).is_ok());
    for cut in 0..bytes.len() {
        assert_eq!(
            Reading::of(&bytes[..cut]).err(),
            Some(Malformed::Short),
            "{cut}"
        );
    }
}

#[test]
fn hostile_names() {
    fn check(name: &[u8], expected: Malformed) {
        let mut message = vec![0, 7, 0x80, 0, 0, 1, 0, 0, 0, 0, 0, 0];
        message.extend(name);
        message.extend([0, 1, 0, 1]);
        assert_eq!(Reading::of(&message).err(), Some(expected), "{name:?}");
    }
    check(&[0xc0, 12], Malformed::Pointer);
    check(&[0xc0, 0], Malformed::Pointer);
    check(&[0xc0, 40], Malformed::Pointer);
    check(&[1, b'a', 0xc0, 12], Malformed::Pointer);
    check(&[0x40, 0], Malformed::Name);
    check(&[0x80, 0], Malformed::Name);
    check(&[63], Malformed::Short);
    check(
        &[&[1, b'a'].repeat(127)[..], &[1, b'a', 0]].concat(),
        Malformed::Name,
    );
}

#[test]
fn long_walks_end() {
    // 512 owners, each a chain of pointers as long as fits before it.
    let mut message = vec![
        0, 7, 0x80, 0, 0, 1, 2, 0, 0, 0, 0, 0, 1, b'a', 0, 0, 1, 0, 1,
    ];
    let mut last = 12u16;
    for _ in 0..512 {
        let at = u16::try_from(message.len()).unwrap();
        message.extend((0xc000 | last).to_be_bytes());
        message.extend([0, 1, 0, 1, 0, 0, 0, 9, 0, 4, 93, 0, 0, 1]);
        last = at;
    }
    assert_eq!(Reading::of(&message).err(), Some(Malformed::Pointer));
}

/// What a response teaches, by another way: parsed into a tree, the chain walked by definition.
fn oracle(bytes: &[u8]) -> Option<(Vec<IpAddr>, u32)> {
    let message = Message::from_vec(bytes).ok()?;
    let query = message.queries.first()?;
    let lower = |name: &HickoryName| name.to_lowercase();
    let records: Vec<_> = message
        .answers
        .iter()
        .filter(|r| r.dns_class == DNSClass::IN)
        .collect();
    let seconds = |ttl: u32| if ttl >= 1 << 31 { 0 } else { ttl };
    let mut ttls = Vec::new();
    let mut current = lower(&query.name);
    let mut seen = vec![current.clone()];
    loop {
        let mut next = None;
        for record in &records {
            if let RData::CNAME(target) = &record.data
                && lower(&record.name) == current
                && next.is_none()
            {
                next = Some(lower(&target.0));
                ttls.push(seconds(record.ttl));
            }
        }
        for record in &records {
            let owner = lower(&record.name);
            if let Some(target) = dname_target(record)
                && owner != current
                && owner.zone_of(&current)
            {
                ttls.push(seconds(record.ttl));
                let labels = usize::from(current.num_labels() - owner.num_labels());
                let prefix = HickoryName::from_labels(current.iter().take(labels)).ok()?;
                next = next.or(Some(lower(&prefix.append_domain(&target).ok()?)));
            }
        }
        let Some(next) = next else { break };
        if seen.contains(&next) || seen.len() > MOST_HOPS {
            return None;
        }
        seen.push(next.clone());
        current = next;
    }
    let mut addresses = Vec::new();
    for record in &records {
        if lower(&record.name) == current && record.record_type() == query.query_type {
            // An error with addresses contradicts itself: they do not count.
            if message.metadata.response_code.low() != 0 && record.data.ip_addr().is_some() {
                continue;
            }
            ttls.push(seconds(record.ttl));
            addresses.extend(record.data.ip_addr());
        }
    }
    Some((addresses, ttls.into_iter().min().unwrap_or(0)))
}

fn any_record() -> impl Strategy<Value = HickoryRecord> {
    let owner = 0..NAMES.len();
    let data = prop_oneof![
        4 => any::<u8>().prop_map(|last| RData::A(A(Ipv4Addr::new(93, 0, 0, last)))),
        2 => any::<u8>().prop_map(|last| {
            RData::AAAA(AAAA(Ipv6Addr::new(0x2600, 0, 0, 0, 0, 0, 0, last.into())))
        }),
        4 => (0..NAMES.len()).prop_map(|n| RData::CNAME(CNAME(name(NAMES[n])))),
        1 => (0..NAMES.len()).prop_map(|n| dname_data(NAMES[n])),
        1 => (0..NAMES.len()).prop_map(|n| RData::NS(NS(name(NAMES[n])))),
        1 => (0..NAMES.len()).prop_map(|n| RData::SRV(SRV::new(1, 2, 3, name(NAMES[n])))),
        1 => Just(RData::TXT(TXT::new(vec!["text".to_owned()]))),
    ];
    (owner, prop_oneof![0..400u32, any::<u32>()], data, 0..12u8).prop_map(
        |(owner, ttl, data, class)| {
            let mut record = record(NAMES[owner], ttl, data);
            if class == 0 {
                record.dns_class = DNSClass::CH;
            }
            record
        },
    )
}

pub(super) fn any_response() -> impl Strategy<Value = Message> {
    let kind = prop_oneof![
        4 => Just(RecordType::A),
        1 => Just(RecordType::AAAA),
        1 => Just(RecordType::SRV),
        1 => Just(RecordType::NS),
    ];
    let records = || proptest::collection::vec(any_record(), 0..10);
    (
        kind,
        records(),
        proptest::collection::vec(any_record(), 0..3),
        any::<bool>(),
    )
        .prop_map(|(kind, answers, others, error)| {
            let mut message = response(NAMES[0], kind, answers);
            if error && others.len() == 2 {
                message.metadata.response_code = ResponseCode::NXDomain;
            }
            message.insert_authorities(others.clone());
            message.insert_additionals(others);
            message
        })
}

const DAY: Shape = Shape {
    dnssec: false,
    ceiling: 86_400,
    ech: Ech::Keep,
};

const SIGNED: Shape = Shape {
    dnssec: true,
    ..DAY
};

/// Writes what a client may see, after its header and question.
pub(super) fn rewritten(
    bytes: &[u8],
    reading: &Reading<'_>,
    shape: Shape,
) -> Result<Vec<u8>, Malformed> {
    let end = expand(bytes, HEADER)?.1 + 4;
    let mut out = bytes[..end].to_vec();
    let written = reading.write(&mut out, shape)?;
    out[6..8].copy_from_slice(&written.answers.to_be_bytes());
    out[8..10].copy_from_slice(&written.authority.to_be_bytes());
    out[10..12].fill(0);
    Ok(out)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    #[test]
    fn teaches_what_the_oracle_says(message in any_response()) {
        let bytes = message.to_vec().unwrap();
        let got = Reading::of(&bytes).ok().map(|reading| {
            (reading.found().iter().map(|f| f.address).collect::<Vec<_>>(), reading.ttl())
        });
        prop_assert_eq!(got, oracle(&bytes));
    }

    /// Another reader understands what is written; the addresses in it are those found and not
    /// struck, at their place, and nothing else; no TTL is above the chain's.
    #[test]
    fn what_is_written_reads_back(message in any_response(), strikes in any::<u16>()) {
        let bytes = message.to_vec().unwrap();
        let Ok(mut reading) = Reading::of(&bytes) else { return Ok(()) };
        let mut expected = Vec::new();
        for (n, found) in reading.found().to_vec().into_iter().enumerate() {
            if strikes & (1 << (n % 16)) == 0 {
                expected.push(found.address);
            } else {
                reading.strike(found.position);
            }
        }
        let out = rewritten(&bytes, &reading, DAY).unwrap();
        let back = Message::from_vec(&out).unwrap();
        let told: Vec<IpAddr> = back.answers.iter().filter_map(|r| r.data.ip_addr()).collect();
        prop_assert_eq!(&told, &expected);
        prop_assert!(back.authorities.iter().all(|r| r.data.ip_addr().is_none()));
        prop_assert!(back.answers.iter().all(|r| r.ttl <= reading.ttl().min(86_400)));
        // Every record is one that the upstream sent, name and data intact.
        for record in &back.answers {
            prop_assert!(message.answers.iter().any(|sent| {
                sent.name.to_lowercase() == record.name.to_lowercase() && sent.data == record.data
            }), "{}", record);
        }
        // It is a fixed point: the same addresses are found in it again.
        let again = Reading::of(&out).unwrap();
        prop_assert_eq!(again.found().iter().map(|f| f.address).collect::<Vec<_>>(), expected);
    }

    #[test]
    fn nothing_makes_it_panic(bytes in proptest::collection::vec(any::<u8>(), 0..600)) {
        if let Ok(reading) = Reading::of(&bytes) {
            let _ = rewritten(&bytes, &reading, SIGNED);
        }
        let _ = wire::answers_end(&bytes);
    }

    #[test]
    fn no_mutation_makes_it_panic(
        message in any_response(),
        changes in proptest::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..6),
        cut in any::<prop::sample::Index>(),
    ) {
        let mut bytes = message.to_vec().unwrap();
        for (at, byte) in changes {
            let at = at.index(bytes.len());
            bytes[at] = byte;
        }
        for bytes in [&bytes[..], &bytes[..cut.index(bytes.len())]] {
            if let Ok(reading) = Reading::of(bytes) {
                let _ = rewritten(bytes, &reading, SIGNED);
            }
            let _ = wire::answers_end(bytes);
        }
    }
}
