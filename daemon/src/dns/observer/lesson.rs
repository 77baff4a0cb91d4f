//! What an answer that was asked for teaches its zone. Pure.

use super::super::course::audits;
use super::super::message::{self, Question, rcode};
use super::super::taught::{Taught, teach};
use super::super::view::View;
use super::Handling;
use super::stats::Counters;
use crate::config::Hints;
use crate::policy::ZoneId;
use crate::policy::answer::wire::kind;
use crate::policy::answer::{Answer, Reading, Shape};
use crate::policy::rules::{Ask, Rules};

/// What an answer teaches.
#[derive(Debug)]
pub(super) enum Lesson {
    /// Nothing; it goes on as it is.
    Nothing,
    /// The same: its name is not listed, or denied.
    Unlisted,
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

/// Judges `bytes`, which answer `question` of a client in `zone`. `handling` says how the answer is
/// handled if the client does not have it yet.
pub(super) fn judge(
    rules: &Rules,
    zone: ZoneId,
    question: &Question,
    bytes: &[u8],
    handling: Option<&Handling>,
    counters: &Counters,
) -> Lesson {
    match rules.ask(zone, &question.name) {
        Ask::Forward => {}
        Ask::Refuse(_) => {
            counters.unlisted.add(1);
            return Lesson::Unlisted;
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
        return if audited || handling.is_none() {
            counters.malformed.add(1);
            Lesson::Nothing
        } else {
            Lesson::Malformed
        };
    };
    let held = handling.filter(|_| !audited);
    if held.is_some_and(|handling| handling.hints == Hints::Strip) {
        reading.strip_all_hints();
    }
    let limits = rules.intent().limits;
    // A client that has the answer has all its records.
    let Taught { answer, unfit } = teach(rules, zone, &question.name, &mut reading, held.is_none());
    counters.removed.add(unfit);
    // HTTPS and SVCB records that cannot be read may hold addresses that nobody granted.
    let service = question.kind == kind::HTTPS || question.kind == kind::SVCB;
    let Some(handling) =
        held.filter(|_| unfit > 0 || service || reading.ttl() > limits.ttl_ceiling)
    else {
        return Lesson::Cleaned {
            answer,
            message: None,
        };
    };
    let asked = question.asked();
    let shape = Shape {
        dnssec: asked.dnssec(),
        ceiling: limits.ttl_ceiling,
        ech: handling.ech,
    };
    let Ok(view) = View::taught(&reading, bytes, asked.wire.len(), unfit > 0, shape) else {
        return Lesson::Malformed;
    };
    let mut out = Vec::new();
    view.write(&asked, 0, asked.udp_limit(), &mut out);
    Lesson::Cleaned {
        answer,
        message: Some(out),
    }
}
