//! Types of records beside addresses.

use super::*;
use hickory_proto::rr::rdata::{MX, TXT};

fn mail(question: &Message, _: bool) -> Vec<Vec<u8>> {
    let asked = &question.queries[0].name;
    let mut reply = reply_to(question);
    let data = if question.queries[0].query_type() == RecordType::MX {
        RData::MX(MX::new(
            10,
            HickoryName::from_ascii("mx.a.example.").unwrap(),
        ))
    } else {
        RData::TXT(TXT::new(vec!["v=1".to_owned()]))
    };
    reply.add_answer(Record::from_rdata(asked.clone(), 60, data));
    vec![reply.to_vec().unwrap()]
}

#[test]
fn other_types_only_where_they_are_allowed() {
    fn check(types: Vec<u16>, kind: RecordType, code: ResponseCode, answers: usize) {
        let stage = Stage::new(&DnsSettings {
            types,
            ..settings(&[upstream(mail)])
        });
        // The second time from the cache.
        for _ in 0..2 {
            let reply = stage.ask("www.a.example.", kind);
            assert_eq!(reply.metadata.response_code, code, "{kind}");
            assert_eq!(reply.answers.len(), answers, "{kind}");
            if let Some(RData::MX(mx)) = reply.answers.first().map(|record| &record.data) {
                assert_eq!(mx.exchange.to_string(), "mx.a.example.");
            }
        }
    }
    check(vec![], RecordType::TXT, ResponseCode::Refused, 0);
    check(vec![16], RecordType::TXT, ResponseCode::NoError, 1);
    check(vec![16], RecordType::MX, ResponseCode::Refused, 0);
    check(vec![15], RecordType::MX, ResponseCode::NoError, 1);
}
