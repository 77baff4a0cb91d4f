//! Address hints and ECH of HTTPS records, on their way to a client.

use super::*;
use crate::config::Hints;
use crate::policy::answer::Ech;
use hickory_proto::rr::rdata::svcb::EchConfigList;

/// Two records with two hints each; one hint of the second is private.
fn services(question: &Message, _: bool) -> Vec<Vec<u8>> {
    let mut reply = reply_to(question);
    let asked = question.queries[0].name.clone();
    for (priority, second) in [(1, [66, 6, 6, 2]), (2, [10, 6, 6, 6])] {
        let hint = |bytes: [u8; 4]| A(Ipv4Addr::from(bytes));
        let hints = vec![hint([66, 6, 6, priority]), hint(second)];
        let parameters = vec![
            (
                SvcParamKey::Ipv4Hint,
                SvcParamValue::Ipv4Hint(IpHint(hints)),
            ),
            (
                SvcParamKey::EchConfigList,
                SvcParamValue::EchConfigList(EchConfigList(vec![1, 2])),
            ),
        ];
        let https = HTTPS(SVCB::new(priority.into(), HickoryName::root(), parameters));
        reply.add_answer(Record::from_rdata(asked.clone(), 300, RData::HTTPS(https)));
    }
    vec![reply.to_vec().unwrap()]
}

fn keys(reply: &Message) -> Vec<Vec<u16>> {
    let mut keys = Vec::new();
    for record in &reply.answers {
        if let RData::HTTPS(HTTPS(service)) = &record.data {
            let parameters = service.svc_params.iter();
            keys.push(parameters.map(|(key, _)| u16::from(*key)).collect());
        }
    }
    keys
}

#[test]
fn hints_are_told_once_they_are_in_force() {
    let stage = Stage::with(services);
    let client = stage.client();
    client
        .send(&question("www.a.example.", RecordType::HTTPS))
        .unwrap();
    let waiting = stage.waiting();
    assert_eq!(waiting.answer.addresses, [ip("66.6.6.1"), ip("66.6.6.2")]);
    stage.release(waiting.token, Ok(()));
    assert_eq!(keys(&receive(&client)), [vec![4, 5], vec![5]]);
}

#[test]
fn the_operator_strips_hints_and_ech() {
    let settings = DnsSettings {
        hints: Hints::Strip,
        ech: Ech::Strip,
        ..settings(&[upstream(services)])
    };
    let stage = Stage::new(&settings);
    let reply = stage.ask("www.a.example.", RecordType::HTTPS);
    assert_eq!(keys(&reply), [[0u16; 0], []]);
    assert!(stage.submitted.try_recv().is_err());
}
