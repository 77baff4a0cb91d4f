//! Which names and wildcards of each zone's rules were ever asked for, and since when that is watched. Time here
//! is time that the daemon ran, in days: no clock that jumps and no pause counts as watching.

use super::state;
use crate::policy::Moment;
use crate::policy::ZoneId;
use crate::policy::name::{Name, Pattern};
use crate::policy::rules::{Intent, Rules};
use anyhow::Context as _;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// Most (zone, pattern)s that are watched; about 16 MiB when full.
const MOST: usize = 65_536;

const DAY: u64 = 86_400;
const NAME: &str = "seen.json";
const VERSION: u32 = 1;

/// What was asked for.
#[derive(Debug, Default)]
pub struct Seen {
    /// By the zone's name, which outlives its number.
    zones: BTreeMap<String, BTreeMap<Pattern, Watched>>,
    /// Patterns for which there is no room.
    unwatched: usize,
    intent: Option<Arc<Intent>>,
    /// Seconds watched when this run began, and when that was.
    before: u64,
    began: Moment,
}

/// One pattern.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Watched {
    /// The day from which on it is watched.
    #[serde(rename = "f")]
    from: u32,
    /// The day when it was last asked for.
    #[serde(rename = "l", skip_serializing_if = "Option::is_none")]
    last: Option<u32>,
}

/// A pattern that no client ever asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Never {
    /// Name of the zone.
    pub zone: String,
    /// The pattern.
    pub pattern: Pattern,
    /// Whole days for which it is watched.
    pub days: u32,
}

/// What is known of one catalogue.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Report {
    /// Patterns of it that no client asked for, zone by zone.
    pub never: Vec<Never>,
    /// Patterns of it that are watched, counted for each zone.
    pub watched: usize,
    /// Patterns that are not, of all catalogues.
    pub unwatched: usize,
    /// Seconds for which egressd watches at all.
    pub seconds: u64,
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Kept {
    version: u32,
    seconds: u64,
    zones: BTreeMap<String, BTreeMap<String, Watched>>,
}

impl Seen {
    /// Seconds watched in all.
    fn seconds(&self, now: Moment) -> u64 {
        self.before.saturating_add(now.seconds_from(self.began))
    }

    fn day(&self, now: Moment) -> u32 {
        u32::try_from(self.seconds(now) / DAY).unwrap_or(u32::MAX)
    }

    /// Watches what `rules` list, and forgets what they do not.
    pub fn follow(&mut self, rules: &Rules, now: Moment) {
        if self
            .intent
            .as_ref()
            .is_some_and(|old| Arc::ptr_eq(old, rules.intent()))
        {
            return;
        }
        self.intent = Some(Arc::clone(rules.intent()));
        let day = self.day(now);
        let mut old = std::mem::take(&mut self.zones);
        let (mut room, mut left) = (MOST, 0);
        for (_, zone) in rules.zones() {
            let name = &zone.spec.name;
            let before = old.remove(name).unwrap_or_default();
            let watched = self.zones.entry(name.clone()).or_default();
            let patterns = zone
                .sets
                .iter()
                .flat_map(|set| &rules.row(*set).set.patterns);
            for pattern in patterns {
                if watched.contains_key(pattern) {
                    continue;
                }
                if room == 0 {
                    left += 1;
                    continue;
                }
                room -= 1;
                let new = Watched {
                    from: day,
                    last: None,
                };
                let kept = before.get(pattern).copied().unwrap_or(new);
                watched.insert(pattern.clone(), kept);
            }
        }
        self.unwatched = left;
    }

    /// Takes note that a client of `zone` was told where `name` is.
    pub fn note(&mut self, rules: &Rules, zone: ZoneId, name: &Name, now: Moment) {
        let day = self.day(now);
        let Some(watched) = self.zones.get_mut(rules.zone_name(zone)) else {
            return;
        };
        for listing in rules.listings(zone, name) {
            if let Some(of) = watched.get_mut(&listing.pattern) {
                of.last = Some(day);
            }
        }
    }

    /// What no client ever asked for, of the catalogue called `catalogue`.
    #[must_use]
    pub fn report(&self, rules: &Rules, catalogue: &str, now: Moment) -> Report {
        let day = self.day(now);
        let mut report = Report {
            unwatched: self.unwatched,
            seconds: self.seconds(now),
            ..Report::default()
        };
        for (_, zone) in rules.zones() {
            let Some(watched) = self.zones.get(&zone.spec.name) else {
                continue;
            };
            let rows = zone
                .sets
                .iter()
                .filter(|set| rules.row(**set).catalogue == catalogue);
            let mut of_zone: BTreeMap<&Pattern, Watched> = BTreeMap::new();
            for set in rows {
                for pattern in &rules.row(*set).set.patterns {
                    if let Some(of) = watched.get(pattern).filter(|_| zone.spec.accepts(pattern)) {
                        of_zone.insert(pattern, *of);
                    }
                }
            }
            report.watched += of_zone.len();
            let never = of_zone.into_iter().filter(|(_, of)| of.last.is_none());
            report.never.extend(never.map(|(pattern, of)| Never {
                zone: zone.spec.name.clone(),
                pattern: pattern.clone(),
                days: day.saturating_sub(of.from),
            }));
        }
        report
    }

    /// A copy to be written off the loop.
    fn kept(&self, now: Moment) -> Kept {
        let zones = self.zones.iter();
        Kept {
            version: VERSION,
            seconds: self.seconds(now),
            zones: zones
                .map(|(name, watched)| {
                    let watched = watched.iter();
                    let text = watched.map(|(pattern, of)| (pattern.to_string(), *of));
                    (name.clone(), text.collect())
                })
                .collect(),
        }
    }
}

/// Goes on watching where an earlier run ended. A file that cannot be used is set aside: watching begins anew.
#[must_use]
pub(super) fn load(directory: &Path, now: Moment) -> Seen {
    let path = directory.join(NAME);
    match read(&path, now) {
        Ok(seen) => seen,
        Err(why) => {
            log::warn!(target: "daemon", "which names were asked for is watched anew: {why:#}");
            state::set_aside(&path);
            Seen {
                began: now,
                ..Seen::default()
            }
        }
    }
}

fn read(path: &Path, now: Moment) -> anyhow::Result<Seen> {
    let mut seen = Seen {
        began: now,
        ..Seen::default()
    };
    let Some(bytes) = state::read(path)? else {
        return Ok(seen);
    };
    let kept: Kept = state::unseal(&bytes, VERSION)
        .with_context(|| format!("{} cannot be used", path.display()))?;
    seen.before = kept.seconds;
    for (zone, patterns) in kept.zones {
        let patterns = patterns.into_iter();
        let known = patterns.filter_map(|(text, of)| Some((Pattern::parse(&text).ok()?, of)));
        seen.zones.insert(zone, known.collect());
    }
    Ok(seen)
}

/// What writes the present state, off the loop.
pub(super) fn writer(seen: &Seen, directory: &Path, now: Moment) -> impl FnOnce() + Send + use<> {
    let (kept, path): (Kept, PathBuf) = (seen.kept(now), directory.join(NAME));
    move || {
        let written = state::seal(&kept).and_then(|bytes| state::replace(&path, &bytes));
        if let Err(why) = written {
            log::warn!(target: "daemon", "which names were asked for is not kept: {why:#}");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::policy::grant::Policy;
    use crate::policy::tests::{intent, links, name};
    use std::fs;

    const ZONE: ZoneId = ZoneId(0);

    fn rules(allow: &[&str]) -> Arc<Rules> {
        let policy = Policy::new(Arc::new(intent(allow, &[])), links()).unwrap();
        Arc::clone(policy.rules())
    }

    fn never(seen: &Seen, rules: &Rules, now: Moment) -> Vec<String> {
        let report = seen.report(rules, "c", now);
        let never = report.never.iter();
        let mut lines: Vec<String> = never
            .map(|of| format!("{} {} {}", of.zone, of.pattern, of.days))
            .collect();
        lines.sort();
        lines
    }

    const fn day(number: u64) -> Moment {
        Moment(number * DAY * 1000)
    }

    #[test]
    fn what_is_asked_for_is_seen_and_the_rest_is_not() {
        let rules = rules(&["c"]);
        let mut seen = Seen::default();
        seen.follow(&rules, day(0));
        // `*.azureedge.net` has no effect in this zone, so nobody could have asked for it.
        let all = [
            "z *.a.example 3",
            "z b.example 3",
            "z bad.a.example 3",
            "z t.a.example 3",
        ];
        assert_eq!(never(&seen, &rules, day(3)), all);
        // Of a wildcard and a name within it, both.
        seen.note(&rules, ZONE, &name("t.a.example"), day(3));
        seen.note(&rules, ZONE, &name("other.example"), day(3));
        seen.note(&rules, ZoneId(7), &name("b.example"), day(3));
        let two = ["z b.example 4", "z bad.a.example 4"];
        assert_eq!(never(&seen, &rules, day(4)), two);
        let report = seen.report(&rules, "c", day(4));
        assert_eq!(
            (report.watched, report.unwatched, report.seconds),
            (4, 0, 4 * DAY)
        );
        assert_eq!(seen.report(&rules, "d", day(4)).never, []);
    }

    #[test]
    fn what_is_new_is_watched_from_its_day_on() {
        let mut seen = Seen::default();
        seen.follow(&rules(&["c/time"]), day(0));
        let more = rules(&["c/web", "c/time"]);
        seen.follow(&more, day(10));
        let expected = ["z *.a.example 2", "z b.example 12", "z t.a.example 12"];
        assert_eq!(never(&seen, &more, day(12)), expected);
        let less = rules(&["c/web"]);
        seen.follow(&less, day(12));
        seen.follow(&more, day(13));
        assert!(never(&seen, &more, day(13)).contains(&"z t.a.example 0".to_owned()));
    }

    #[test]
    fn it_survives_a_restart_and_counts_no_pause() {
        let folder = tempfile::tempdir().unwrap();
        let rules = rules(&["c/time"]);
        let mut seen = load(folder.path(), day(5));
        seen.follow(&rules, day(5));
        seen.note(&rules, ZONE, &name("t.a.example"), day(6));
        writer(&seen, folder.path(), day(7))();
        let mut back = load(folder.path(), day(1));
        back.follow(&rules, day(1));
        assert_eq!(never(&back, &rules, day(4)), ["z b.example 5"]);
        // A damaged file is no reason not to start.
        fs::write(folder.path().join(NAME), b"{}\n").unwrap();
        let mut anew = load(folder.path(), day(1));
        anew.follow(&rules, day(1));
        assert_eq!(
            never(&anew, &rules, day(1)),
            ["z b.example 0", "z t.a.example 0"]
        );
        assert!(!folder.path().join(NAME).exists());
    }

    #[test]
    fn memory_is_bounded() {
        let mut intent = intent(&["c"], &[]);
        let patterns = (0..MOST + 10).map(|n| Pattern::parse(&format!("n{n}.example")).unwrap());
        intent.catalogues[0].sets[0].patterns = patterns.collect();
        let policy = Policy::new(Arc::new(intent), links()).unwrap();
        let mut seen = Seen::default();
        seen.follow(policy.rules(), day(0));
        let report = seen.report(policy.rules(), "c", day(0));
        assert_eq!(report.watched, MOST);
        assert!(report.unwatched >= 10, "{}", report.unwatched);
    }
}
