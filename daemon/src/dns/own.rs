//! Our own look-ups: the exact names of every zone are asked for from the start on, so that clients
//! that never ask (or asked long ago) find their addresses granted. Pure: time is an argument.

use crate::policy::ZoneId;
use crate::policy::answer::Answer;
use crate::policy::answer::wire::kind;
use crate::policy::name::{Name, Pattern};
use crate::policy::rules::{Ask, Rules};
use std::collections::{BTreeMap, BTreeSet};

/// Most of them under way at once.
const MOST_UNDER_WAY: usize = 16;

/// A name that cannot be resolved is asked again after this long, and after so many failures in a
/// row less often. Milliseconds.
const RETRY: u64 = 5_000;
const MOST_RETRIES: u32 = 10;
const SLOW_RETRY: u64 = 120_000;

/// Milliseconds between look-ups of a name at least.
const FLOOR: u64 = 30_000;

/// How long the last good answer of a name keeps its grants while upstreams fail, in milliseconds.
const LAST_GOOD: u64 = 24 * 3_600_000;

/// One thing to look up.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Target {
    pub(super) zone: ZoneId,
    pub(super) name: Name,
    pub(super) kind: u16,
}

/// How a look-up ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Outcome {
    /// Its answer is in force.
    Granted(Answer),
    /// The name has no such address, so say the upstreams.
    Nothing,
    /// Nobody could say, or the planes did not take it.
    Failed,
}

#[derive(Default)]
struct State {
    due: u64,
    under_way: bool,
    failures: u32,
    /// The last good answer, and when it came.
    last: Option<(Answer, u64)>,
}

/// The names and when each is asked next.
#[derive(Default)]
pub(super) struct Own {
    targets: BTreeMap<Target, State>,
    due: BTreeSet<(u64, Target)>,
    under_way: usize,
    changed: bool,
}

impl Own {
    /// Takes the exact names of `rules` in the old ones' place. What is known of a name that stays
    /// is kept.
    pub(super) fn follow(&mut self, rules: &Rules, now: u64) {
        let mut old = std::mem::take(&mut self.targets);
        self.due.clear();
        self.under_way = 0;
        self.changed = true;
        for (zone, spec) in rules.zones() {
            for set in &spec.sets {
                for pattern in &rules.row(*set).set.patterns {
                    let Pattern::Exact(name) = pattern else {
                        continue;
                    };
                    if rules.ask(zone, name) != Ask::Forward {
                        continue;
                    }
                    for kind in [kind::A, kind::AAAA] {
                        let name = name.clone();
                        let target = Target { zone, name, kind };
                        if self.targets.contains_key(&target) {
                            continue;
                        }
                        let state = old.remove(&target).unwrap_or(State {
                            due: now,
                            ..State::default()
                        });
                        if state.under_way {
                            self.under_way += 1;
                        } else {
                            self.due.insert((state.due, target.clone()));
                        }
                        self.targets.insert(target, state);
                    }
                }
            }
        }
    }

    /// When [`Own::next`] may have something.
    pub(super) fn due(&self) -> Option<u64> {
        let first = self.due.first().map(|(due, _)| *due);
        first.filter(|_| self.under_way < MOST_UNDER_WAY)
    }

    /// The next name to look up at `now`. Its end must be told with [`Own::settle`].
    pub(super) fn next(&mut self, now: u64) -> Option<Target> {
        if self.due()? > now {
            return None;
        }
        let (_, target) = self.due.pop_first()?;
        if let Some(state) = self.targets.get_mut(&target) {
            state.under_way = true;
            self.under_way += 1;
        }
        Some(target)
    }

    /// Takes the end of a look-up. `chance` spreads the next one over a tenth of its time. Gives the
    /// last good answer where that must be renewed because nobody answers.
    pub(super) fn settle(
        &mut self,
        target: &Target,
        outcome: Outcome,
        now: u64,
        chance: u16,
    ) -> Option<Answer> {
        // Gone: the rules do not list it any more.
        let state = self.targets.get_mut(target).filter(|s| s.under_way)?;
        state.under_way = false;
        self.under_way -= 1;
        let known = state.last.is_some();
        let mut renew = None;
        let wait = match outcome {
            Outcome::Granted(answer) => {
                state.failures = 0;
                let wait = u64::from(answer.ttl) * 800;
                state.last = Some((answer, now));
                wait.max(FLOOR)
            }
            Outcome::Nothing => {
                state.failures = 0;
                state.last = None;
                SLOW_RETRY
            }
            Outcome::Failed => {
                state.failures = state.failures.saturating_add(1);
                let last = state.last.as_ref();
                renew = last
                    .filter(|(_, came)| now < came + LAST_GOOD)
                    .map(|(answer, _)| Answer {
                        ttl: 0,
                        ..answer.clone()
                    });
                if state.failures <= MOST_RETRIES {
                    RETRY
                } else {
                    SLOW_RETRY
                }
            }
        };
        self.changed |= known != state.last.is_some();
        state.due = now + wait - wait / 10 * u64::from(chance) / u64::from(u16::MAX);
        self.due.insert((state.due, target.clone()));
        renew
    }

    /// The names that have no address, if that changed since the last call.
    pub(super) fn unresolved(&mut self) -> Option<Vec<(ZoneId, Name)>> {
        if !std::mem::take(&mut self.changed) {
            return None;
        }
        let mut names: BTreeMap<(ZoneId, &Name), bool> = BTreeMap::new();
        for (target, state) in &self.targets {
            let resolved = names.entry((target.zone, &target.name)).or_default();
            *resolved |= state.last.is_some();
        }
        let unresolved = names.into_iter().filter(|(_, resolved)| !resolved);
        Some(
            unresolved
                .map(|((zone, name), _)| (zone, name.clone()))
                .collect(),
        )
    }
}
