//! What an answer that was asked for teaches its zone. Pure.

use super::super::course::audits;
use super::super::message::{self, Question, rcode};
use super::stats::Counters;
use crate::observe::{Happening, record};
use crate::policy::ZoneId;
use crate::policy::answer::wire::kind;
use crate::policy::answer::{Answer, Reading};
use crate::policy::rules::{Ask, Rules};

/// What an answer teaches.
#[derive(Debug)]
pub(super) enum Lesson {
    /// Nothing; it goes on as it is.
    Nothing,
    /// Nothing, and nobody should see it.
    Malformed,
    /// What was left after hygiene.
    Cleaned {
        /// What to teach.
        answer: Option<Answer>,
        /// The message anew, where a held one must not go on as it came.
        message: Option<Vec<u8>>,
    },
}

/// Judges `bytes`, which answer `question` of a client in `zone`. `held` says whether the client does
/// not have it yet.
pub(super) fn judge(
    rules: &Rules,
    zone: ZoneId,
    question: &Question,
    bytes: &[u8],
    held: bool,
    counters: &Counters,
) -> Lesson {
    match rules.ask(zone, &question.name) {
        Ask::Forward => {}
        Ask::Refuse(_) => {
            counters.unlisted.add(1);
            return Lesson::Nothing;
        }
    }
    if message::is_truncated(bytes) {
        counters.truncated.add(1);
        return Lesson::Nothing;
    }
    if message::code(bytes) != rcode::NO_ERROR {
        return Lesson::Nothing;
    }
    let audited = audits(rules, zone);
    let Ok(mut reading) = Reading::of(bytes) else {
        return if audited || !held {
            counters.malformed.add(1);
            Lesson::Nothing
        } else {
            Lesson::Malformed
        };
    };
    let limits = rules.intent().limits;
    let mut addresses = Vec::with_capacity(reading.found().len());
    let mut struck = 0;
    for found in reading.found().to_vec() {
        match rules.fit(zone, found.address) {
            Ok(()) if addresses.len() < limits.per_answer => {
                addresses.push(found.address);
                continue;
            }
            Ok(()) => {
                log::debug!(target: "answer", "{}: more addresses than one answer may teach", question.name);
            }
            Err(why) => record(Happening::RecordRefused {
                zone,
                name: question.name.clone(),
                address: found.address,
                why,
                // A client that has the answer has this record too.
                audited: audited || !held,
            }),
        }
        struck += 1;
        reading.strike(found.position);
    }
    counters.removed.add(struck);
    addresses.sort_unstable();
    addresses.dedup();
    let answer = (!addresses.is_empty()).then(|| Answer {
        name: question.name.clone(),
        addresses,
        ttl: reading.ttl(),
    });
    // Hints of HTTPS and SVCB are addresses that nobody granted.
    let hints = question.kind == kind::HTTPS || question.kind == kind::SVCB;
    if !held || audited || (struck == 0 && !hints && reading.ttl() <= limits.ttl_ceiling) {
        return Lesson::Cleaned {
            answer,
            message: None,
        };
    }
    let mut out = Vec::new();
    let (flags, limit) = (message::flags(bytes), question.udp_limit());
    match question.reply(
        &reading,
        flags,
        struck > 0,
        limits.ttl_ceiling,
        limit,
        &mut out,
    ) {
        Ok(()) => Lesson::Cleaned {
            answer,
            message: Some(out),
        },
        Err(_) => Lesson::Malformed,
    }
}
