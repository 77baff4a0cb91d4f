//! Which of an answer's addresses are taught, forwarded and observed alike. Pure.

use crate::observe::{Happening, record};
use crate::policy::ZoneId;
use crate::policy::answer::{Answer, Reading};
use crate::policy::name::Name;
use crate::policy::rules::Rules;
use std::net::IpAddr;

/// What is left of an answer.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Taught {
    /// The addresses that are told and fit, in order; `None` when there is none. The TTL is the
    /// answer's own.
    pub(super) answer: Option<Answer>,
    /// How many are not taught: unfit (D4), or above `[limits] per_answer`.
    pub(super) unfit: u64,
}

/// Chooses what the answer to `name` teaches `zone`, and records what is unfit. The rest is taken out
/// of `reading`, unless the client is to see it all the same: it is `audited`, or has the answer.
pub(super) fn teach(
    rules: &Rules,
    zone: ZoneId,
    name: &Name,
    reading: &mut Reading<'_>,
    audited: bool,
) -> Taught {
    let most = rules.intent().limits.per_answer;
    let mut fit = Vec::with_capacity(reading.found().len());
    let mut unfit = 0;
    for found in reading.found().to_vec() {
        match rules.fit(zone, name, found.address) {
            Ok(()) if fit.len() < most => {
                fit.push(found);
                continue;
            }
            Ok(()) => {
                log::debug!(target: "answer", "{name}: more addresses than one answer may teach");
            }
            Err(why) => record(Happening::RecordRefused {
                zone,
                name: name.clone(),
                address: found.address,
                why,
                audited,
            }),
        }
        unfit += 1;
        if !audited {
            reading.refuse(&found);
        }
    }
    // A hint leaves with its record's other hints.
    let told = fit.iter().filter(|found| reading.tells(found));
    let mut addresses: Vec<IpAddr> = told.map(|found| found.address).collect();
    addresses.sort_unstable();
    addresses.dedup();
    let answer = (!addresses.is_empty()).then(|| Answer {
        name: name.clone(),
        addresses,
        ttl: reading.ttl(),
    });
    Taught { answer, unfit }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::policy::links::Links;
    use crate::policy::rules::{Intent, Limits, Numbers};
    use hickory_proto::op::{Message, MessageType, OpCode, Query};
    use hickory_proto::rr::rdata::svcb::{IpHint, SVCB, SvcParamKey, SvcParamValue};
    use hickory_proto::rr::rdata::{A, HTTPS};
    use hickory_proto::rr::{self, RData, Record, RecordType};
    use std::sync::Arc;

    const GOOD: &str = "52.96.0.1";
    const ALSO: &str = "52.96.0.2";
    const PRIVATE: &str = "192.168.0.1";

    fn rules() -> Rules {
        let limits = Limits {
            per_answer: 2,
            ..Limits::default()
        };
        let intent = Intent {
            limits,
            ..Intent::default()
        };
        let links = Links::default();
        Rules::compile(Arc::new(intent), links, &mut Numbers::default()).unwrap()
    }

    /// A reply to a question for `kind`, with a record of each of `data` for the asked name.
    fn reply(kind: RecordType, data: Vec<RData>) -> Vec<u8> {
        let name = rr::Name::from_ascii("www.a.example.").unwrap();
        let mut reply = Message::new(1, MessageType::Response, OpCode::Query);
        reply.add_query(Query::query(name.clone(), kind));
        for (ttl, data) in (300..).zip(data) {
            reply.add_answer(Record::from_rdata(name.clone(), ttl, data));
        }
        reply.to_vec().unwrap()
    }

    fn addresses(texts: &[&str]) -> Vec<u8> {
        let data = texts.iter().map(|text| RData::A(A(text.parse().unwrap())));
        reply(RecordType::A, data.collect())
    }

    /// An HTTPS record of each list of hints.
    fn services(hints: &[&[&str]]) -> Vec<u8> {
        let data = hints.iter().map(|hints| {
            let hints = hints.iter().map(|text| A(text.parse().unwrap())).collect();
            let hints = SvcParamValue::Ipv4Hint(IpHint(hints));
            let params = vec![(SvcParamKey::Ipv4Hint, hints)];
            RData::HTTPS(HTTPS(SVCB::new(1, rr::Name::root(), params)))
        });
        reply(RecordType::HTTPS, data.collect())
    }

    /// What is taught, how many are unfit, and how many addresses the client is still told.
    fn check(message: &[u8], audited: bool, taught: &[&str], unfit: u64, told: usize) {
        let mut reading = Reading::of(message).unwrap();
        let name: Name = "www.a.example".parse().unwrap();
        let zone = ZoneId(0);
        let outcome = teach(&rules(), zone, &name, &mut reading, audited);
        let addresses: Vec<IpAddr> = taught.iter().map(|text| text.parse().unwrap()).collect();
        let answer = (!addresses.is_empty()).then_some(Answer {
            name,
            addresses,
            ttl: 300,
        });
        assert_eq!(outcome, Taught { answer, unfit });
        let seen = reading.found().iter().filter(|found| reading.tells(found));
        assert_eq!(seen.count(), told);
    }

    #[test]
    fn what_fits_is_taught_and_the_rest_refused() {
        for audited in [false, true] {
            let told = |strict, all| if audited { all } else { strict };
            check(&addresses(&[]), audited, &[], 0, 0);
            check(&addresses(&[ALSO, GOOD]), audited, &[GOOD, ALSO], 0, 2);
            check(
                &addresses(&[GOOD, PRIVATE]),
                audited,
                &[GOOD],
                1,
                told(1, 2),
            );
            check(&addresses(&[PRIVATE]), audited, &[], 1, told(0, 1));
            // Above per_answer; what is unfit takes no place.
            let many = addresses(&[PRIVATE, ALSO, GOOD, "52.96.0.3"]);
            check(&many, audited, &[GOOD, ALSO], 2, told(2, 4));
        }
    }

    #[test]
    fn a_hint_leaves_with_the_others_of_its_record() {
        let message = services(&[&[GOOD, PRIVATE], &[ALSO]]);
        check(&message, false, &[ALSO], 1, 1);
        check(&message, true, &[GOOD, ALSO], 1, 3);
        // One address twice is one.
        check(&services(&[&[GOOD], &[GOOD]]), false, &[GOOD], 0, 2);
    }
}
