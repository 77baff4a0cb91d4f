//! What was found changed in the planes, counted, and how much of it is told. PURE. One drift is one
//! line; somebody who changes things again and again is one alarm.

use crate::observe::Happening;
use crate::plane::drift::{Drift, Outcome, Word};
use crate::policy::Moment;
use std::collections::{BTreeMap, VecDeque};

/// So many checks that found drifts within [`WINDOW`] are tampering.
const MANY: usize = 10;

/// In seconds. As long without any, and the alarm is over.
const WINDOW: u64 = 60;

/// While the alarm lasts, seconds from one telling to the next.
const PACE: u64 = 10;

/// How often a plane was found changed in one way.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Count {
    /// Times that it was found.
    pub found: u64,
    /// Times that it was right again at once.
    pub mended: u64,
}

/// What was found changed since the daemon started.
#[derive(Debug, Default)]
pub struct Drifts {
    counts: BTreeMap<(&'static str, Word), Count>,
    /// When the last ones were found, at most [`MANY`].
    recent: VecDeque<Moment>,
    alarm: Option<Alarm>,
    /// What cannot be put right now.
    waiting: Vec<Drift>,
}

#[derive(Debug)]
struct Alarm {
    since: Moment,
    drifts: u64,
    told_at: Moment,
    untold: u64,
}

impl Drifts {
    /// Takes what one check found, and returns what the operator is to be told.
    pub fn take(&mut self, found: &[Drift], now: Moment) -> Vec<Happening> {
        let waits = |drift: &&Drift| matches!(drift.outcome, Outcome::Waits(_));
        let waiting: Vec<Drift> = found.iter().filter(waits).cloned().collect();
        let before = std::mem::replace(&mut self.waiting, waiting);
        let mut fresh = Vec::new();
        for drift in found {
            // Nothing new: it still waits.
            let same = |known: &Drift| known.plane == drift.plane && known.found == drift.found;
            if waits(&drift) && before.iter().any(same) {
                continue;
            }
            fresh.push(drift);
            let count = self
                .counts
                .entry((drift.plane, drift.found.word))
                .or_default();
            count.found += 1;
            count.mended += u64::from(drift.outcome == Outcome::Mended);
        }
        self.tell(&fresh, now)
    }

    /// What one check found for the first time is one step of somebody's, however many links it meets.
    fn tell(&mut self, drifts: &[&Drift], now: Moment) -> Vec<Happening> {
        let Some(first) = drifts.first() else {
            return Vec::new();
        };
        self.end_alarm(now);
        self.recent.push_back(now);
        if self.recent.len() > MANY {
            self.recent.pop_front();
        }
        let Some(alarm) = &mut self.alarm else {
            let mut told: Vec<Happening> = drifts.iter().map(|drift| happening(drift, 0)).collect();
            let since = self.recent.front().copied().unwrap_or(now);
            if self.recent.len() == MANY && now <= since.after_seconds(WINDOW) {
                told.push(Happening::Tampering {
                    drifts: MANY as u64,
                    seconds: now.seconds_from(since).max(1),
                });
                self.alarm = Some(Alarm {
                    since,
                    drifts: MANY as u64,
                    told_at: now,
                    untold: 0,
                });
            }
            return told;
        };
        alarm.drifts += 1;
        if now < alarm.told_at.after_seconds(PACE) {
            alarm.untold += 1;
            return Vec::new();
        }
        alarm.told_at = now;
        vec![happening(first, std::mem::take(&mut alarm.untold))]
    }

    fn end_alarm(&mut self, now: Moment) {
        let last = self.recent.back().copied();
        if last.is_none_or(|last| last.after_seconds(WINDOW) < now) {
            self.alarm = None;
            self.recent.clear();
        }
    }

    /// How often each plane was found changed, in each way that it was.
    pub fn counts(&self) -> impl Iterator<Item = (&'static str, Word, Count)> {
        self.counts
            .iter()
            .map(|(&(plane, word), &count)| (plane, word, count))
    }

    /// What an operator should look at.
    #[must_use]
    pub fn warnings(&self, now: Moment) -> Vec<String> {
        let lasting = |last: &Moment| now <= last.after_seconds(WINDOW);
        let alarm = self.alarm.as_ref();
        let alarm = alarm.filter(|_| self.recent.back().is_some_and(lasting));
        let tampering = alarm.map(|alarm| {
            format!(
                "somebody changes what egressd enforces again and again: {} times in {} seconds; each was \
                 repaired or is being",
                alarm.drifts,
                now.seconds_from(alarm.since)
            )
        });
        let waiting = self.waiting.iter().map(|drift| {
            let Outcome::Waits(why) = &drift.outcome else {
                return drift.found.what.clone();
            };
            format!("{}: {}: {why}", drift.plane, drift.found.what)
        });
        tampering.into_iter().chain(waiting).collect()
    }
}

fn happening(drift: &Drift, before: u64) -> Happening {
    let outcome = match &drift.outcome {
        Outcome::Mended => "repaired".to_owned(),
        Outcome::Replace(why) if why.is_empty() => "everything is replaced".to_owned(),
        Outcome::Replace(why) => format!("everything is replaced, because {why}"),
        Outcome::Waits(why) => format!("cannot be repaired now: {why}"),
    };
    let more = match before {
        0 => String::new(),
        _ => format!(" ({before} more since the last line)"),
    };
    Happening::Drift {
        plane: drift.plane,
        word: drift.found.word,
        what: format!("{}; {outcome}{more}", drift.found.what),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plane::drift::Found;

    fn drift(word: Word, outcome: Outcome) -> Drift {
        Drift {
            plane: "nft",
            found: Found::new(word, "the table is gone"),
            outcome,
        }
    }

    fn words(told: &[Happening]) -> Vec<&'static str> {
        let word = |happening: &Happening| {
            if let Happening::Drift { word, .. } = happening {
                word.text()
            } else {
                assert!(matches!(happening, Happening::Tampering { .. }));
                "tampering"
            }
        };
        told.iter().map(word).collect()
    }

    #[test]
    fn much_is_one_alarm() {
        let mut drifts = Drifts::default();
        let gone = [drift(Word::MissingTable, Outcome::Mended)];
        let mut lines = Vec::new();
        for step in 0..1200 {
            lines.extend(drifts.take(&gone, Moment(50 * step)));
        }
        let alarms = words(&lines)
            .into_iter()
            .filter(|word| *word == "tampering");
        assert_eq!(alarms.count(), 1);
        assert!(lines.len() <= 10 + 1 + 6, "{}", lines.len());
        let counted: Vec<_> = drifts.counts().collect();
        let count = Count {
            found: 1200,
            mended: 1200,
        };
        assert_eq!(counted, [("nft", Word::MissingTable, count)]);
        let end = Moment(60_000);
        assert_eq!(drifts.warnings(end).len(), 1);
        assert!(drifts.warnings(end)[0].contains("1200 times"));
        let later = end.after_seconds(70);
        assert_eq!(drifts.warnings(later), [""; 0]);
        // The next one is a line of its own again.
        assert_eq!(words(&drifts.take(&gone, later)), ["missing-table"]);
    }

    #[test]
    fn a_burst_of_one_check_is_no_alarm() {
        let mut drifts = Drifts::default();
        let many = vec![drift(Word::PinMissing, Outcome::Mended); 30];
        assert_eq!(words(&drifts.take(&many, Moment(0))), ["pin-missing"; 30]);
        assert_eq!(drifts.warnings(Moment(1)), [""; 0]);
    }

    #[test]
    fn few_are_no_alarm() {
        let mut drifts = Drifts::default();
        let gone = [drift(Word::MissingTable, Outcome::Mended)];
        for step in 0..100 {
            let told = drifts.take(&gone, Moment(0).after_seconds(10 * step));
            assert_eq!(words(&told), ["missing-table"], "{step}");
        }
    }

    #[test]
    fn what_waits_is_told_once_and_warned_of_until_it_is_over() {
        let mut drifts = Drifts::default();
        let waits = [drift(
            Word::PinMissing,
            Outcome::Waits("no bpffs".to_owned()),
        )];
        assert_eq!(words(&drifts.take(&waits, Moment(0))), ["pin-missing"]);
        for step in 1..100 {
            assert_eq!(drifts.take(&waits, Moment(50 * step)), []);
        }
        assert_eq!(
            drifts.warnings(Moment(9000)),
            ["nft: the table is gone: no bpffs"]
        );
        drifts.take(&[], Moment(9000));
        assert_eq!(drifts.warnings(Moment(9000)), [""; 0]);
        assert_eq!(words(&drifts.take(&waits, Moment(9001))), ["pin-missing"]);
    }
}
