//! Proofs before answers, over an upstream that signs what it says, or does not.

use super::*;
use crate::config::{Anchors, DnssecSettings};
use crate::policy::nat64::Prefix;
use hickory_net::proto::dnssec::crypto::Ed25519SigningKey;
use hickory_net::proto::dnssec::rdata::sig::SigInput;
use hickory_net::proto::dnssec::rdata::{DNSKEY, DNSSECRData, DS, NSEC, RRSIG};
use hickory_net::proto::dnssec::{DigestType, SigningKey, TBS};
use std::collections::BTreeMap;
use std::sync::LazyLock;
use std::time::{SystemTime, UNIX_EPOCH};

struct Key {
    private: Ed25519SigningKey,
    public: DNSKEY,
}

impl Key {
    fn new() -> Self {
        let der = Ed25519SigningKey::generate_pkcs8().unwrap();
        let private = Ed25519SigningKey::from_pkcs8(&der).unwrap();
        let public = DNSKEY::from_key(&private.to_public_key().unwrap());
        Self { private, public }
    }
}

/// The keys of the signed zones. Nobody vouches for the last one.
static KEYS: LazyLock<BTreeMap<&str, Key>> = LazyLock::new(|| {
    let zones = [".", "example.", "a.example.", "sub.a.example.", "stranger"];
    zones.into_iter().map(|zone| (zone, Key::new())).collect()
});

/// When a signature is good, in seconds from now.
type Dates = (i64, i64);
const NOW: Dates = (-3600, 3600);

fn name(text: &str) -> HickoryName {
    HickoryName::from_ascii(text).unwrap()
}

/// `records`, all of one owner and type, with a signature of `zone` by the key of `key`. `labels` of
/// the owner are signed; the others are a wildcard's.
fn signed_by(key: &str, zone: &str, dates: Dates, labels: u8, records: Vec<Record>) -> Vec<Record> {
    let key = &KEYS[key];
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
    let date = |off: i64| u32::try_from(now.as_secs().cast_signed() + off).unwrap();
    let input = SigInput {
        type_covered: records[0].record_type(),
        algorithm: key.private.algorithm(),
        num_labels: labels,
        original_ttl: records[0].ttl,
        sig_expiration: date(dates.1).into(),
        sig_inception: date(dates.0).into(),
        key_tag: key.public.calculate_key_tag().unwrap(),
        signer_name: name(zone),
    };
    let owner = records[0].name.clone();
    let tbs = TBS::from_input(&owner, DNSClass::IN, &input, records.iter()).unwrap();
    let rrsig = RRSIG::from_sig(input, key.private.sign(&tbs).unwrap());
    let ttl = records[0].ttl;
    let rrsig = Record::from_rdata(owner, ttl, RData::DNSSEC(DNSSECRData::RRSIG(rrsig)));
    records.into_iter().chain([rrsig]).collect()
}

fn signed(zone: &str, records: Vec<Record>) -> Vec<Record> {
    let labels = records[0].name.num_labels();
    signed_by(zone, zone, NOW, labels, records)
}

fn of(owner: &str, data: impl Into<RData>) -> Vec<Record> {
    vec![Record::from_rdata(name(owner), 300, data.into())]
}

fn dnssec(data: DNSSECRData) -> RData {
    RData::DNSSEC(data)
}

fn a(owner: &str, address: &str) -> Vec<Record> {
    vec![address_record(&name(owner), 300, ip(address))]
}

fn soa(zone: &str) -> Vec<Record> {
    let soa = SOA::new(name("ns.example."), name("h.example."), 1, 2, 3, 4, 60);
    of(zone, RData::SOA(soa))
}

/// What `zone` says of `owner`: it has these types, and nothing is between it and `next`.
fn nsec(zone: &str, owner: &str, next: &str, kinds: &[RecordType]) -> Vec<Record> {
    let nsec = NSEC::new(name(next), kinds.iter().copied());
    signed(zone, of(owner, dnssec(DNSSECRData::NSEC(nsec))))
}

fn ds(zone: &str, of_key: &str) -> Vec<Record> {
    let key = &KEYS[of_key].public;
    let digest = key.to_digest(&name(zone), DigestType::SHA256).unwrap();
    let ds = DS::new(
        key.calculate_key_tag().unwrap(),
        KEYS[of_key].private.algorithm(),
        DigestType::SHA256,
        digest.as_ref().to_vec(),
    );
    of(zone, dnssec(DNSSECRData::DS(ds)))
}

/// The answer and authority sections for a question, whose zones are `a`, `sub.a` (its DS is of
/// another key), `plain.a` and `b` (without keys), all below `example`.
fn says(owner: &str, kind: RecordType) -> (ResponseCode, Vec<Record>, Vec<Record>) {
    use RecordType as Is;
    const A: &str = "a.example.";
    let ok = ResponseCode::NoError;
    let none = ResponseCode::NXDomain;
    let denied = |zone: &str, proof: Vec<Record>| [signed(zone, soa(zone)), proof].concat();
    let unsigned = |zone, next| nsec(A, zone, next, &[Is::NS, Is::NSEC, Is::RRSIG]);
    let found = |records| (ok, records, vec![]);
    let address = || a(owner, "93.0.0.1");
    let labels = name(owner).num_labels();
    match (owner, kind) {
        ("." | "example." | A | "sub.a.example.", Is::DNSKEY) => {
            let key = DNSSECRData::DNSKEY(KEYS[owner].public.clone());
            found(signed(owner, of(owner, dnssec(key))))
        }
        ("example.", Is::DS) => found(signed(".", ds(owner, owner))),
        (A, Is::DS) => found(signed("example.", ds(owner, owner))),
        ("sub.a.example.", Is::DS) => found(signed(A, ds(owner, "stranger"))),
        ("plain.a.example.", Is::DS) => (ok, vec![], denied(A, unsigned(owner, "q.a.example."))),
        ("b.example.", Is::DS) => {
            let proof = nsec(
                "example.",
                owner,
                "c.example.",
                &[Is::NS, Is::NSEC, Is::RRSIG],
            );
            (ok, vec![], denied("example.", proof))
        }
        ("." | "example." | A | "sub.a.example." | "plain.a.example." | "b.example.", Is::NS) => {
            let ns = hickory_proto::rr::rdata::NS(name("ns.example."));
            found(of(owner, RData::NS(ns)))
        }
        ("www.a.example.", Is::A) => found(signed(A, address())),
        ("www.a.example.", Is::AAAA) | ("alias.a.example.", Is::AAAA) => {
            let proof = nsec(
                A,
                "www.a.example.",
                "x.a.example.",
                &[Is::A, Is::NSEC, Is::RRSIG],
            );
            let aliased = owner.starts_with("alias");
            let chain = || signed(A, vec![alias(&name(owner), 300, "www.a.example.")]);
            let chain = if aliased { chain() } else { vec![] };
            (ok, chain, denied(A, proof))
        }
        ("half.a.example.", Is::AAAA) => {
            let proof = nsec(A, owner, "x.a.example.", &[Is::A, Is::NSEC, Is::RRSIG]);
            (ok, vec![], denied(A, proof))
        }
        ("alias.a.example.", Is::A) => found(
            [
                signed(A, vec![alias(&name(owner), 300, "www.a.example.")]),
                signed(A, a("www.a.example.", "93.0.0.1")),
            ]
            .concat(),
        ),
        ("out.a.example.", Is::A) => found(
            [
                signed(A, vec![alias(&name(owner), 300, "b.example.")]),
                a("b.example.", "93.0.0.1"),
            ]
            .concat(),
        ),
        ("hijacked.a.example.", Is::A) => found(
            [
                vec![alias(&name(owner), 300, "b.example.")],
                a("b.example.", "66.6.6.6"),
            ]
            .concat(),
        ),
        ("b.example." | "www.plain.a.example.", Is::A) => found(address()),
        ("stripped.a.example.", Is::A) => found(a(owner, "66.6.6.6")),
        ("tampered.a.example." | "half.a.example.", Is::A) => {
            let mut records = signed(A, address());
            records[0] = a(owner, "66.6.6.6").remove(0);
            found(records)
        }
        ("added.a.example.", Is::A) => {
            let more = a(owner, "66.6.6.6");
            found([signed(A, address()), more].concat())
        }
        ("expired.a.example.", Is::A) => found(signed_by(A, A, (-7200, -3600), labels, address())),
        ("early.a.example.", Is::A) => found(signed_by(A, A, (3600, 7200), labels, address())),
        ("stranger.a.example.", Is::A) => found(signed_by("stranger", A, NOW, labels, address())),
        ("www.sub.a.example.", Is::A) => found(signed("sub.a.example.", address())),
        // A wildcard's signature has one label less than the name.
        ("wild.w.a.example." | "bare.w.a.example." | "loose.w.a.example.", Is::A) => {
            let mut star = a("*.w.a.example.", "93.0.0.1");
            star = signed_by(A, A, NOW, labels - 1, star);
            for record in &mut star {
                record.name = name(owner);
            }
            let proof = match owner {
                "wild.w.a.example." => nsec(
                    A,
                    "*.w.a.example.",
                    "www.a.example.",
                    &[Is::A, Is::NSEC, Is::RRSIG],
                ),
                // Of a zone without keys: no reason to want no proof.
                "loose.w.a.example." => soa("b.example."),
                _ => vec![],
            };
            (ok, star, proof)
        }
        ("gone.a.example.", Is::A) => {
            let wildcard = nsec(A, A, "alias.a.example.", &[Is::SOA, Is::NSEC, Is::RRSIG]);
            let cover = nsec(
                A,
                "f.a.example.",
                "h.a.example.",
                &[Is::A, Is::NSEC, Is::RRSIG],
            );
            (none, vec![], denied(A, [wildcard, cover].concat()))
        }
        ("lie.a.example.", Is::A) => (none, vec![], soa(A)),
        ("trick.a.example.", Is::A) => (none, vec![], soa("b.example.")),
        ("wrong.a.example.", Is::A) => {
            let elsewhere = nsec(
                A,
                "f.a.example.",
                "h.a.example.",
                &[Is::A, Is::NSEC, Is::RRSIG],
            );
            (none, vec![], denied(A, elsewhere))
        }
        ("gone.plain.a.example.", Is::A) => (none, vec![], soa("plain.a.example.")),
        _ => (ok, vec![], vec![]),
    }
}

fn signing(question: &Message, _: bool) -> Vec<Vec<u8>> {
    let asked = &question.queries[0];
    let owner = asked.name.to_lowercase().to_ascii();
    let (mut code, answers, authority) = says(&owner, asked.query_type);
    let mut reply = reply_to(question);
    if owner.starts_with("expired") && !question.metadata.checking_disabled {
        // It validates as well.
        code = ResponseCode::ServFail;
    }
    reply.metadata.response_code = code;
    reply.add_answers(answers);
    reply.add_authorities(authority);
    // Upstreams' opinions count for nothing.
    reply.metadata.authentic_data = true;
    vec![reply.to_vec().unwrap()]
}

fn proofs(insecure: &[&str]) -> Option<DnssecSettings> {
    let root = &KEYS["."].public;
    let anchors = format!(". 300 IN DNSKEY {root}\n");
    Some(DnssecSettings {
        anchors: Anchors::parse(&anchors).unwrap(),
        insecure: insecure.iter().map(|name| name.parse().unwrap()).collect(),
    })
}

fn proving(insecure: &[&str]) -> Stage {
    Stage::new(&DnsSettings {
        dnssec: proofs(insecure),
        ..settings(&[upstream(signing)])
    })
}

/// What a client is told that asks with AD: the code, the addresses, the bit, and the extended error.
type Told = (ResponseCode, Vec<IpAddr>, bool, Option<u16>);

fn ask(stage: &Stage, owner: &str, kind: RecordType) -> Told {
    let mut message = Message::from_vec(&question(owner, kind)).unwrap();
    message.metadata.authentic_data = true;
    let client = stage.client();
    client.send(&message.to_vec().unwrap()).unwrap();
    let reply = stage.release_until(|| receive(&client));
    assert!(
        reply.all_sections().all(|r| !r.record_type().is_dnssec()),
        "nobody asked for signatures: {reply}"
    );
    let code = reply.metadata.response_code;
    let authentic = reply.metadata.authentic_data;
    (code, told(&reply), authentic, extended(&reply))
}

#[test]
fn what_is_proven_is_told_and_taught() {
    let stage = proving(&[]);
    let check = |owner: &str, kind, code, address: Option<&str>, authentic: bool| {
        let addresses = address.map(ip).into_iter().collect();
        let expected = (code, addresses, authentic, None);
        assert_eq!(ask(&stage, owner, kind), expected, "{owner} {kind}");
        // From the cache.
        assert_eq!(ask(&stage, owner, kind), expected, "{owner} {kind}");
    };
    let (ok, none) = (ResponseCode::NoError, ResponseCode::NXDomain);
    check("www.a.example.", RecordType::A, ok, Some("93.0.0.1"), true);
    check("www.a.example.", RecordType::AAAA, ok, None, true);
    check(
        "alias.a.example.",
        RecordType::A,
        ok,
        Some("93.0.0.1"),
        true,
    );
    check("alias.a.example.", RecordType::AAAA, ok, None, true);
    check("out.a.example.", RecordType::A, ok, Some("93.0.0.1"), false);
    check("b.example.", RecordType::A, ok, Some("93.0.0.1"), false);
    check(
        "www.plain.a.example.",
        RecordType::A,
        ok,
        Some("93.0.0.1"),
        false,
    );
    check(
        "wild.w.a.example.",
        RecordType::A,
        ok,
        Some("93.0.0.1"),
        true,
    );
    check("gone.a.example.", RecordType::A, none, None, true);
    check("gone.plain.a.example.", RecordType::A, none, None, false);
    assert_eq!(stage.edge.stats().bogus, 0);
}

#[test]
fn what_is_bogus_is_neither_told_nor_taught() {
    let stage = proving(&[]);
    let check = |owner: &str, extended: u16| {
        let expected = (ResponseCode::ServFail, vec![], false, Some(extended));
        for disabled in [false, true] {
            let mut message = Message::from_vec(&question(owner, RecordType::A)).unwrap();
            message.metadata.checking_disabled = disabled;
            let edns = message.edns.as_mut().unwrap();
            edns.set_dnssec_ok(disabled);
            let client = stage.client();
            client.send(&message.to_vec().unwrap()).unwrap();
            let reply = receive(&client);
            let got = (
                reply.metadata.response_code,
                told(&reply),
                reply.metadata.authentic_data,
                super::extended(&reply),
            );
            assert_eq!(got, expected, "{owner}");
        }
    };
    let names = [
        ("stripped.a.example.", 10),
        ("hijacked.a.example.", 10),
        ("tampered.a.example.", 6),
        ("added.a.example.", 6),
        ("expired.a.example.", 7),
        ("early.a.example.", 8),
        ("stranger.a.example.", 6),
        ("www.sub.a.example.", 6),
        ("bare.w.a.example.", 6),
        ("loose.w.a.example.", 6),
        ("lie.a.example.", 12),
        ("trick.a.example.", 12),
        ("wrong.a.example.", 6),
    ];
    for (owner, code) in names {
        check(owner, code);
    }
    assert!(stage.submitted.try_recv().is_err(), "nothing is learned");
    assert_eq!(stage.edge.stats().bogus, 2 * names.len() as u64);
    // The validator still works.
    let good = ask(&stage, "www.a.example.", RecordType::A);
    assert_eq!(good.1, [ip("93.0.0.1")]);
}

#[test]
fn the_operator_may_exempt_a_domain() {
    let stage = proving(&["a.example"]);
    let got = ask(&stage, "tampered.a.example.", RecordType::A);
    let expected = (ResponseCode::NoError, vec![ip("66.6.6.6")], false, None);
    assert_eq!(got, expected, "the upstream's AD is not passed on");
}

#[test]
fn signatures_for_who_wants_them() {
    let stage = proving(&[]);
    let mut message = Message::from_vec(&question("www.a.example.", RecordType::A)).unwrap();
    message.edns.as_mut().unwrap().set_dnssec_ok(true);
    let client = stage.client();
    client.send(&message.to_vec().unwrap()).unwrap();
    let reply = stage.release_until(|| receive(&client));
    let kinds: Vec<_> = reply.answers.iter().map(Record::record_type).collect();
    assert_eq!(kinds, [RecordType::A, RecordType::RRSIG]);
    assert!(reply.metadata.authentic_data);
}

#[test]
fn ipv6_addresses_are_made_of_proven_ones() {
    let mut settings = settings(&[upstream(signing)]);
    let prefix = Prefix::new("64:ff9b::/96".parse().unwrap()).unwrap();
    settings.dns64 = Some(prefix);
    settings.dnssec = proofs(&[]);
    let stage = Stage::new(&settings);
    // The policy of this stage knows no translator: what is made is not fit, and is removed.
    let expected = (ResponseCode::NoError, vec![], false, Some(18));
    assert_eq!(ask(&stage, "www.a.example.", RecordType::AAAA), expected);
    assert_eq!(stage.edge.stats().removed, 1);
    let expected = (ResponseCode::ServFail, vec![], false, Some(6));
    assert_eq!(ask(&stage, "half.a.example.", RecordType::AAAA), expected);
    assert_eq!(stage.edge.stats().removed, 1);
}

#[test]
fn keys_are_asked_once() {
    let stage = proving(&[]);
    let cost = |owner: &str| {
        let before = stage.edge.stats().asked;
        ask(&stage, owner, RecordType::A);
        stage.edge.stats().asked - before
    };
    assert!(cost("www.a.example.") > 4, "the chain is proven");
    assert_eq!(cost("alias.a.example."), 1, "a known zone costs nothing");
}
