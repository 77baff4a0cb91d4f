//! What is done with a question. Pure.

use super::message::{Extended, Question, rcode};
use crate::config::{DnsSettings, Local, Unlisted};
use crate::policy::ZoneId;
use crate::policy::answer::wire::kind;
use crate::policy::rules::{Ask, Refusal, Rules};

/// What is done with a question.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Course {
    /// Ask upstream; what it says is granted to the zone.
    Teach(ZoneId),
    /// Ask upstream; what it says is passed on and grants nothing.
    Pass,
    /// Reply at once.
    Refuse(Refused),
}

/// A reply without asking.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Refused {
    pub(super) code: u16,
    pub(super) extended: Extended<'static>,
    /// The policy's reason; `None` when only the type of record is not allowed.
    pub(super) why: Option<Refusal>,
}

/// Types asked for listed names. The rest are a way out: data in TXT or NULL goes both ways.
const LISTED_KINDS: [u16; 9] = [
    kind::A,
    kind::AAAA,
    kind::CNAME,
    kind::HTTPS,
    kind::SVCB,
    kind::SRV,
    kind::PTR,
    kind::SOA,
    kind::NS,
];

/// Whether `kind` asks for data: neither a transfer, nor ANY, nor a type of the protocol's own (RFC
/// 6895 §3.1: OPT, and 128 to 255).
fn is_data(kind: u16) -> bool {
    kind != 0 && kind != kind::OPT && !(128..=255).contains(&kind)
}

/// Decides on a question from `zone` (`None`: from no zone, or from the gateway itself).
pub(super) fn decide(
    rules: &Rules,
    settings: &DnsSettings,
    zone: Option<ZoneId>,
    question: &Question,
) -> Course {
    let Some(zone) = zone else {
        return match settings.local {
            Local::Refuse => refuse(
                rcode::REFUSED,
                "the client is in no zone",
                Some(Refusal::Unlisted),
            ),
            Local::Forward => pass(question),
        };
    };
    match (rules.ask(zone, &question.name), settings.unlisted) {
        (Ask::Forward, _) if LISTED_KINDS.contains(&question.kind) => Course::Teach(zone),
        (Ask::Forward, _) => refuse(rcode::REFUSED, TYPE, None),
        (Ask::Refuse(Refusal::Unlisted), Unlisted::Forward) => pass(question),
        (Ask::Refuse(why), Unlisted::NxDomain) => refuse(rcode::NXDOMAIN, text(why), Some(why)),
        (Ask::Refuse(why), Unlisted::Refuse | Unlisted::Forward) => {
            refuse(rcode::REFUSED, text(why), Some(why))
        }
    }
}

const TYPE: &str = "this type of record is not allowed";

fn text(why: Refusal) -> &'static str {
    match why {
        Refusal::Unlisted => "no allowed endpoint set lists this name",
        Refusal::Denied => "a denied endpoint set lists this name",
    }
}

fn pass(question: &Question) -> Course {
    if is_data(question.kind) {
        Course::Pass
    } else {
        refuse(rcode::REFUSED, TYPE, None)
    }
}

fn refuse(code: u16, text: &'static str, why: Option<Refusal>) -> Course {
    Course::Refuse(Refused {
        code,
        extended: Extended::prohibited(text),
        why,
    })
}
