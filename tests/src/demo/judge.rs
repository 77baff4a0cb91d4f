//! Whether what happened is what had to happen, and the sums per group.

use super::client::Event;
use super::plan::Group;
use crate::lab::Sighting;
use serde::Serialize;
use std::collections::BTreeSet;

/// One group's sums.
#[derive(Clone, Debug, Default, Serialize, PartialEq, Eq)]
pub struct Tally {
    /// Questions answered or refused as they had to be.
    pub questions: Sum,
    /// Attempts that had to pass, and those that did.
    pub granted: Sum,
    /// Attempts that had to fail, and those that did.
    pub forbidden: Sum,
}

/// `good` of `all`.
#[derive(Clone, Copy, Debug, Default, Serialize, PartialEq, Eq)]
pub struct Sum {
    /// As they had to be.
    pub good: usize,
    /// All.
    pub all: usize,
}

impl Sum {
    fn add(&mut self, good: bool) {
        self.good += usize::from(good);
        self.all += 1;
    }

    /// Adds another sum.
    pub fn join(&mut self, other: Self) {
        self.good += other.good;
        self.all += other.all;
    }

    /// Whether all were as they had to be.
    #[must_use]
    pub fn whole(self) -> bool {
        self.good == self.all
    }
}

impl std::fmt::Display for Sum {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        if self.all == 0 {
            f.pad("-")
        } else {
            f.pad(&format!("{} of {}", self.good, self.all))
        }
    }
}

impl Tally {
    /// Adds up `events`, each judged already.
    #[must_use]
    pub fn of<'a>(events: impl IntoIterator<Item = &'a Judged>) -> Self {
        let mut tally = Self::default();
        for judged in events {
            let event = &judged.event;
            match (event.is_question, event.must_pass) {
                (true, _) => tally.questions.add(judged.good),
                (false, true) => tally.granted.add(judged.good),
                (false, false) => tally.forbidden.add(judged.good),
            }
        }
        tally
    }

    /// Whether everything was as it had to be.
    #[must_use]
    pub fn whole(&self) -> bool {
        self.questions.whole() && self.granted.whole() && self.forbidden.whole()
    }
}

/// An event and the judgement on it.
#[derive(Clone, Debug, Serialize)]
pub struct Judged {
    /// Title of its group.
    pub group: String,
    /// What happened.
    #[serde(flatten)]
    pub event: Event,
    /// Whether that is right.
    pub good: bool,
}

/// Judges `event` by what the client got and by what `seen` says arrived.
#[must_use]
pub fn judge(group: &Group, mut event: Event, seen: &BTreeSet<Sighting>) -> Judged {
    let arrived = event.trace.is_some_and(|(address, protocol, port)| {
        seen.contains(&Sighting {
            address,
            protocol,
            port,
        })
    });
    if !event.must_pass && !event.passed && arrived {
        event.wrong = Some("the client got nothing, but a packet arrived".to_owned());
    }
    let good = event.passed == event.must_pass && event.wrong.is_none();
    Judged {
        group: group.title.clone(),
        event,
        good,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_the_client_and_the_witness_count() {
        let there = "52.96.0.1".parse().unwrap();
        let seen = BTreeSet::from([Sighting {
            address: there,
            protocol: 6,
            port: 8443,
        }]);
        let group = Group {
            title: "t".to_owned(),
            about: String::new(),
            is_set: true,
        };
        let check = |must_pass: bool, passed: bool, port: u16, wrong: Option<&str>, good: bool| {
            let event = Event {
                group: 0,
                tried: String::new(),
                must_pass,
                passed,
                detail: String::new(),
                took: 0,
                is_question: false,
                trace: Some((there, 6, port)),
                wrong: wrong.map(str::to_owned),
            };
            let judged = judge(&group, event, &seen);
            assert_eq!(
                judged.good, good,
                "must {must_pass} did {passed} on {port}, {wrong:?}"
            );
        };
        check(true, true, 443, None, true);
        check(true, false, 443, None, false);
        check(false, true, 443, None, false);
        check(false, false, 443, None, true);
        check(false, false, 8443, None, false);
        check(false, false, 443, Some("not tried"), false);
        check(true, true, 443, Some("answered 10.0.0.1"), false);
    }
}
