//! Address hints of HTTPS and SVCB records.

use super::*;
use hickory_proto::rr::rdata::svcb::{
    EchConfigList, IpHint, Mandatory, SvcParamKey, SvcParamValue,
};
use hickory_proto::rr::rdata::{HTTPS, SVCB};

const WWW: &str = "www.a.example.";

fn https(
    owner: &str,
    priority: u16,
    parameters: Vec<(SvcParamKey, SvcParamValue)>,
) -> HickoryRecord {
    let data = HTTPS(SVCB::new(priority, HickoryName::root(), parameters));
    record(owner, 300, RData::HTTPS(data))
}

fn v4(last: &[u8]) -> (SvcParamKey, SvcParamValue) {
    let hints = last.iter().map(|n| A(Ipv4Addr::new(93, 0, 0, *n)));
    let value = SvcParamValue::Ipv4Hint(IpHint(hints.collect()));
    (SvcParamKey::Ipv4Hint, value)
}

fn v6(last: u16) -> (SvcParamKey, SvcParamValue) {
    let hint = AAAA(Ipv6Addr::new(0x2600, 0, 0, 0, 0, 0, 0, last));
    (
        SvcParamKey::Ipv6Hint,
        SvcParamValue::Ipv6Hint(IpHint(vec![hint])),
    )
}

fn ech() -> (SvcParamKey, SvcParamValue) {
    let value = SvcParamValue::EchConfigList(EchConfigList(vec![0xbe, 0xef]));
    (SvcParamKey::EchConfigList, value)
}

fn mandatory(key: SvcParamKey) -> (SvcParamKey, SvcParamValue) {
    let value = SvcParamValue::Mandatory(Mandatory(vec![key]));
    (SvcParamKey::Mandatory, value)
}

/// The parameters' keys of each HTTPS record that is written.
fn told(bytes: &[u8], reading: &Reading<'_>, ech: Ech) -> Vec<Vec<u16>> {
    let shape = Shape {
        ceiling: 86_400,
        ech,
        ..Shape::default()
    };
    let out = rewritten(bytes, reading, shape).unwrap();
    let back = Message::from_vec(&out).unwrap();
    let mut keys = Vec::new();
    for record in &back.answers {
        if let RData::HTTPS(HTTPS(service)) = &record.data {
            let parameters = service.svc_params.iter();
            keys.push(parameters.map(|(key, _)| u16::from(*key)).collect());
        }
    }
    keys
}

#[test]
fn hints_are_found_and_refused_record_by_record() {
    fn check(answers: Vec<HickoryRecord>, refused: &str, found: &[&str], expected: &[&[u16]]) {
        let bytes = response(WWW, RecordType::HTTPS, answers).to_vec().unwrap();
        let mut reading = Reading::of(&bytes).unwrap();
        let got: Vec<_> = reading.found().to_vec();
        assert!(got.iter().all(|found| found.hint));
        let texts: Vec<_> = got.iter().map(|found| found.address.to_string()).collect();
        assert_eq!(texts, found);
        for one in &got {
            if one.address.to_string() == refused {
                reading.refuse(one);
            }
        }
        let telling = |found: &&Found| reading.tells(found);
        let kept: Vec<_> = got.iter().filter(telling).map(|f| f.position).collect();
        let told = told(&bytes, &reading, Ech::Keep);
        assert_eq!(told, expected);
        // The address that is told is one of a record that still has hints.
        let hinting = told
            .iter()
            .filter(|keys| keys.iter().any(|k| *k == 4 || *k == 6));
        let mut positions = kept;
        positions.dedup();
        assert_eq!(hinting.count(), positions.len());
    }
    let two = || {
        vec![
            https(WWW, 1, vec![v4(&[1, 2]), ech(), v6(3)]),
            https(WWW, 2, vec![v4(&[4])]),
        ]
    };
    let all = &["93.0.0.1", "93.0.0.2", "2600::3", "93.0.0.4"];
    check(two(), "", all, &[&[4, 5, 6], &[4]]);
    check(two(), "93.0.0.2", all, &[&[5], &[4]]);
    check(two(), "2600::3", all, &[&[5], &[4]]);
    check(two(), "93.0.0.4", all, &[&[4, 5, 6], &[]]);
    // Another owner's record says nothing and is not told.
    check(
        vec![
            https("b.example.", 1, vec![v4(&[1])]),
            https(WWW, 1, vec![v4(&[2])]),
        ],
        "",
        &["93.0.0.2"],
        &[&[4]],
    );
    // Along the chain.
    check(
        vec![
            cname(WWW, 50, "b.example."),
            https("b.example.", 1, vec![v4(&[1])]),
        ],
        "",
        &["93.0.0.1"],
        &[&[4]],
    );
    // A client does not look at an alias's parameters, so neither do we.
    check(vec![https(WWW, 0, vec![v4(&[1]), ech()])], "", &[], &[&[5]]);
    check(
        vec![https(
            WWW,
            1,
            vec![mandatory(SvcParamKey::Ipv4Hint), v4(&[1])],
        )],
        "",
        &["93.0.0.1"],
        &[&[0, 4]],
    );
    check(
        vec![https(
            WWW,
            1,
            vec![mandatory(SvcParamKey::Ipv4Hint), v4(&[1])],
        )],
        "93.0.0.1",
        &["93.0.0.1"],
        &[],
    );
}

#[test]
fn all_hints_and_ech_can_be_stripped() {
    let answers = vec![
        https(WWW, 1, vec![v4(&[1]), ech()]),
        https(WWW, 2, vec![mandatory(SvcParamKey::EchConfigList), ech()]),
    ];
    let bytes = response(WWW, RecordType::HTTPS, answers).to_vec().unwrap();
    let mut reading = Reading::of(&bytes).unwrap();
    assert_eq!(told(&bytes, &reading, Ech::Strip), [[4]]);
    reading.strip_all_hints();
    assert_eq!(reading.found(), []);
    let kept: &[&[u16]] = &[&[5], &[0, 5]];
    assert_eq!(told(&bytes, &reading, Ech::Keep), kept);
    assert_eq!(told(&bytes, &reading, Ech::Strip), [[0u16; 0]]);
    // Addresses of other kinds are still there.
    let bytes = response(WWW, RecordType::A, vec![a(WWW, 9, 1)])
        .to_vec()
        .unwrap();
    let mut reading = Reading::of(&bytes).unwrap();
    reading.strip_all_hints();
    assert_eq!(reading.found().len(), 1);
}

#[test]
fn an_error_tells_no_service() {
    let mut message = response(WWW, RecordType::HTTPS, vec![https(WWW, 1, vec![v4(&[1])])]);
    message.metadata.response_code = ResponseCode::NXDomain;
    let bytes = message.to_vec().unwrap();
    let reading = Reading::of(&bytes).unwrap();
    assert_eq!(reading.found(), []);
    assert!(told(&bytes, &reading, Ech::Keep).is_empty());
}

#[test]
fn more_hints_than_are_found_are_stripped() {
    let many = |count: usize| (0..count).map(|n| n as u8).collect::<Vec<_>>();
    let answers = vec![
        https(WWW, 1, vec![v4(&many(MOST_FOUND - 1))]),
        https(WWW, 2, vec![v4(&many(2))]),
        https(WWW, 3, vec![v4(&many(1))]),
    ];
    let bytes = response(WWW, RecordType::HTTPS, answers).to_vec().unwrap();
    let reading = Reading::of(&bytes).unwrap();
    assert_eq!(reading.found().len(), MOST_FOUND);
    let kept: &[&[u16]] = &[&[4], &[], &[4]];
    assert_eq!(told(&bytes, &reading, Ech::Keep), kept);
}

#[test]
fn malformed_parameters_are_never_passed_on() {
    fn check(old: [u8; 5], new: [u8; 5]) {
        let answers = vec![https(WWW, 1, vec![v4(&[1, 2]), v6(3)])];
        let mut bytes = response(WWW, RecordType::HTTPS, answers).to_vec().unwrap();
        let at = bytes.windows(5).position(|window| window == old).unwrap();
        bytes[at..at + 5].copy_from_slice(&new);
        assert_eq!(Reading::of(&bytes).err(), Some(Malformed::Data), "{new:?}");
    }
    // Keys not ascending, a length that is no whole address, one beyond the end.
    check([0, 4, 0, 8, 93], [0, 7, 0, 8, 93]);
    check([0, 4, 0, 8, 93], [0, 4, 0, 7, 93]);
    check([0, 6, 0, 16, 0x26], [0, 6, 0, 15, 0x26]);
    check([0, 6, 0, 16, 0x26], [0, 6, 0, 17, 0x26]);
}
