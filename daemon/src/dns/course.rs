//! What is done with a question. Pure.

use super::message::{Extended, Question, rcode};
use crate::config::{DnsSettings, Local, Unlisted};
use crate::policy::ZoneId;
use crate::policy::answer::wire::kind;
use crate::policy::image::Mode;
use crate::policy::rules::{Ask, Refusal, Rules};

/// What is done with a question.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Course {
    /// Ask upstream; what it says is granted to the zone.
    Teach(ZoneId),
    /// Ask upstream; what it says is passed on and grants nothing.
    Pass,
    /// As [`Course::Pass`], and tell that it would have been refused: the zone is in audit mode.
    Audit(Refusal),
    /// Reply at once.
    Refuse(Refused),
}

/// A reply without asking.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Refused {
    pub(super) code: u16,
    pub(super) extended: Extended<'static>,
    /// The policy's reason.
    pub(super) why: Refusal,
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

/// Whether one reply of an upstream's can answer `kind`: data, or ANY.
fn is_relayed(kind: u16) -> bool {
    const ANY: u16 = 255;
    is_data(kind) || kind == ANY
}

/// Decides on a question from `zone` (`None`: from no zone, or from the gateway itself).
pub(super) fn decide(
    rules: &Rules,
    settings: &DnsSettings,
    zone: Option<ZoneId>,
    question: &Question,
) -> Course {
    let course = judge(rules, settings, zone, question);
    let Course::Refuse(refused) = course else {
        return course;
    };
    if zone.is_some_and(|zone| audits(rules, zone)) && is_relayed(question.kind) {
        return Course::Audit(refused.why);
    }
    course
}

/// Whether `zone` is in audit mode; a zone that is gone is not.
pub(super) fn audits(rules: &Rules, zone: ZoneId) -> bool {
    rules
        .zone(zone)
        .is_some_and(|zone| zone.spec.mode == Mode::Audit)
}

/// Decides as for a zone in enforce mode.
fn judge(
    rules: &Rules,
    settings: &DnsSettings,
    zone: Option<ZoneId>,
    question: &Question,
) -> Course {
    let Some(zone) = zone else {
        return match settings.local {
            Local::Refuse => Course::Refuse(Refused {
                code: rcode::REFUSED,
                extended: Extended::prohibited("the client is in no zone"),
                why: Refusal::Unlisted,
            }),
            Local::Forward => pass(question),
        };
    };
    let (_, forward) = settings.route(&question.name);
    let untaught = forward.is_some_and(|forward| !forward.teach);
    match (rules.ask(zone, &question.name), settings.unlisted) {
        // A domain with resolvers of its own: answered, granted nothing.
        (Ask::Forward | Ask::Refuse(Refusal::Unlisted), _) if untaught => pass(question),
        (Ask::Forward, _) if may_be_asked(settings, question.kind) => Course::Teach(zone),
        (Ask::Forward, _) => refuse(rcode::REFUSED, Refusal::Type),
        (Ask::Refuse(Refusal::Unlisted), Unlisted::Forward) => pass(question),
        (Ask::Refuse(why), Unlisted::NxDomain) => refuse(rcode::NXDOMAIN, why),
        (Ask::Refuse(why), Unlisted::Refuse | Unlisted::Forward) => refuse(rcode::REFUSED, why),
    }
}

fn may_be_asked(settings: &DnsSettings, kind: u16) -> bool {
    LISTED_KINDS.contains(&kind) || settings.types.contains(&kind)
}

fn text(why: Refusal) -> &'static str {
    match why {
        Refusal::Unlisted => "no allowed endpoint set lists this name",
        Refusal::Denied => "a denied endpoint set lists this name",
        Refusal::Type => "this type of record is not allowed",
    }
}

fn pass(question: &Question) -> Course {
    if is_data(question.kind) {
        Course::Pass
    } else {
        refuse(rcode::REFUSED, Refusal::Type)
    }
}

fn refuse(code: u16, why: Refusal) -> Course {
    Course::Refuse(Refused {
        code,
        extended: Extended::prohibited(text(why)),
        why,
    })
}
