//! What another version of a catalogue changes: what widens, what narrows, and which wildcards now stand for what.

use super::catalogue::{Catalogue, EndpointSet};
use super::matcher::Matcher;
use super::name::Pattern;
use super::port::PortSet;
use ipnet::IpNet;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

/// A name, a wildcard or a network.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Destination {
    /// A name or a wildcard.
    Name(Pattern),
    /// A network.
    Network(IpNet),
}

impl fmt::Display for Destination {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Name(pattern) => pattern.fmt(f),
            Self::Network(network) => network.fmt(f),
        }
    }
}

/// One change of what may be reached.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Change {
    /// What it is about.
    pub destination: Destination,
    /// The ports that opened or closed on it.
    pub ports: PortSet,
    /// Ids of the sets that list it, of the version that has it.
    pub sets: Vec<String>,
    /// Wildcards of that same list that stand for it as well, on any port.
    pub covered_by: Vec<Pattern>,
}

/// A change of a set as a whole.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SetChange {
    /// Its id.
    pub id: String,
    /// What changed, as `required: yes → no`.
    pub what: String,
}

/// A wildcard of the new version that stands for names which the old one listed one by one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Shadow {
    /// The wildcard.
    pub wildcard: Pattern,
    /// Names and wildcards of the old version inside it.
    pub inside: Vec<Pattern>,
}

/// Everything that two versions differ in. Empty where they open the same.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Difference {
    /// Destinations and ports that the new version opens beyond the old one.
    pub widens: Vec<Change>,
    /// Destinations and ports that the new version closes.
    pub narrows: Vec<Change>,
    /// Ids that are new, ids that are gone, and what is said otherwise of those that stay.
    pub sets: Vec<SetChange>,
    /// New wildcards over old names.
    pub shadows: Vec<Shadow>,
}

impl Difference {
    /// Whether nothing differs.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }
}

/// What one version lists.
#[derive(Default)]
struct Listed<'a> {
    /// Of each destination its ports, and the sets that list it.
    destinations: BTreeMap<Destination, (Vec<&'a PortSet>, BTreeSet<&'a str>)>,
    wildcards: Matcher<&'a Pattern>,
    sets: BTreeMap<&'a str, Vec<&'a EndpointSet>>,
}

impl<'a> Listed<'a> {
    fn of(catalogue: &'a Catalogue) -> Self {
        let mut listed = Self::default();
        for set in &catalogue.sets {
            listed.sets.entry(&set.id).or_default().push(set);
            let names = set.patterns.iter().cloned().map(Destination::Name);
            let networks = set.networks.iter().copied().map(Destination::Network);
            for destination in names.chain(networks) {
                let (ports, sets) = listed.destinations.entry(destination).or_default();
                ports.push(&set.ports);
                sets.insert(&set.id);
            }
        }
        let patterns: BTreeSet<&Pattern> = catalogue
            .sets
            .iter()
            .flat_map(|set| &set.patterns)
            .collect();
        for pattern in patterns.into_iter().filter(|pattern| pattern.is_wildcard()) {
            listed.wildcards.insert(pattern, pattern);
        }
        listed
    }

    fn ports(&self, destination: &Destination) -> PortSet {
        let known = self.destinations.get(destination);
        let services = known.iter().flat_map(|(ports, _)| ports.iter());
        PortSet::new(services.flat_map(|ports| ports.services().iter().copied()))
    }

    /// The wildcards that stand for everything that `pattern` does, itself not among them.
    fn covering(&self, pattern: &Pattern) -> Vec<Pattern> {
        let Ok(example) = pattern.example("x") else {
            return Vec::new();
        };
        let found = self.wildcards.find(&example);
        let mut covering: Vec<Pattern> = found
            .filter(|wide| **wide != pattern && wide.covers(pattern))
            .map(|wide| (*wide).clone())
            .collect();
        covering.sort();
        covering
    }

    fn change(&self, destination: &Destination, ports: PortSet) -> Change {
        let sets = self.destinations.get(destination);
        Change {
            destination: destination.clone(),
            ports,
            sets: sets
                .iter()
                .flat_map(|(_, sets)| sets.iter().map(|id| (*id).to_owned()))
                .collect(),
            covered_by: match destination {
                Destination::Name(pattern) => self.covering(pattern),
                Destination::Network(_) => Vec::new(),
            },
        }
    }
}

/// Compares two versions of a catalogue.
#[must_use]
pub fn diff(old: &Catalogue, new: &Catalogue) -> Difference {
    let (old, new) = (Listed::of(old), Listed::of(new));
    Difference {
        widens: beyond(&new, &old),
        narrows: beyond(&old, &new),
        sets: sets(&old, &new),
        shadows: shadows(&old, &new),
    }
}

/// What `one` opens and `other` does not, by name. A destination without ports opens nothing.
fn beyond(one: &Listed<'_>, other: &Listed<'_>) -> Vec<Change> {
    let mut changes = Vec::new();
    for destination in one.destinations.keys() {
        let more = one.ports(destination).without(&other.ports(destination));
        if !more.is_empty() {
            changes.push(one.change(destination, more));
        }
    }
    changes
}

fn sets(old: &Listed<'_>, new: &Listed<'_>) -> Vec<SetChange> {
    let mut changes = Vec::new();
    let mut add = |id: &str, what: String| {
        changes.push(SetChange {
            id: id.to_owned(),
            what,
        });
    };
    for (id, rows) in &new.sets {
        match old.sets.get(id) {
            None => add(id, "new".to_owned()),
            Some(before) => {
                for (word, facts) in [
                    ("required", [required(before), required(rows)]),
                    ("category", [category(before), category(rows)]),
                ] {
                    if facts[0] != facts[1] {
                        add(id, format!("{word}: {} → {}", facts[0], facts[1]));
                    }
                }
            }
        }
    }
    for id in old.sets.keys().filter(|id| !new.sets.contains_key(**id)) {
        add(id, "gone".to_owned());
    }
    changes
}

fn required(rows: &[&EndpointSet]) -> String {
    let any = rows.iter().any(|row| row.required);
    if any { "yes" } else { "no" }.to_owned()
}

fn category(rows: &[&EndpointSet]) -> String {
    let all: BTreeSet<_> = rows.iter().map(|row| row.category).collect();
    let all: Vec<_> = all
        .iter()
        .map(|category| format!("{category:?}").to_lowercase())
        .collect();
    all.join(", ")
}

fn shadows(old: &Listed<'_>, new: &Listed<'_>) -> Vec<Shadow> {
    let mut inside: BTreeMap<Pattern, Vec<Pattern>> = BTreeMap::new();
    for destination in old.destinations.keys() {
        let Destination::Name(pattern) = destination else {
            continue;
        };
        for wide in new.covering(pattern) {
            let known = Destination::Name(wide.clone());
            if !old.destinations.contains_key(&known) {
                inside.entry(wide).or_default().push(pattern.clone());
            }
        }
    }
    let shadows = inside.into_iter();
    shadows
        .map(|(wildcard, inside)| Shadow { wildcard, inside })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::policy::port::Service;

    fn catalogue(sets: &[(&str, &[&str], &[u16], bool)]) -> Catalogue {
        let sets = sets.iter().map(|(id, targets, ports, required)| {
            let mut set = EndpointSet {
                id: (*id).to_owned(),
                required: *required,
                ports: PortSet::new(ports.iter().map(|port| Service::tcp(*port))),
                ..EndpointSet::default()
            };
            for text in *targets {
                match text.parse() {
                    Ok(network) => set.networks.push(network),
                    Err(_) => set.patterns.push(Pattern::parse(text).unwrap()),
                }
            }
            set
        });
        Catalogue {
            sets: sets.collect(),
            ..Catalogue::default()
        }
    }

    fn check(
        old: &[(&str, &[&str], &[u16], bool)],
        new: &[(&str, &[&str], &[u16], bool)],
        expected: &[&str],
    ) {
        let difference = diff(&catalogue(old), &catalogue(new));
        let line = |sign: &str, change: &Change| {
            let by: Vec<_> = change.covered_by.iter().map(ToString::to_string).collect();
            let by = if by.is_empty() {
                String::new()
            } else {
                format!(" in {}", by.join(" "))
            };
            format!(
                "{sign}{} {} ({}){by}",
                change.destination,
                change.ports,
                change.sets.join(" ")
            )
        };
        let widens = difference.widens.iter().map(|change| line("+", change));
        let narrows = difference.narrows.iter().map(|change| line("-", change));
        let sets = difference
            .sets
            .iter()
            .map(|set| format!("{}: {}", set.id, set.what));
        let shadows = difference.shadows.iter().map(|shadow| {
            let inside: Vec<_> = shadow.inside.iter().map(ToString::to_string).collect();
            format!("{} over {}", shadow.wildcard, inside.join(" "))
        });
        let all: Vec<_> = widens.chain(narrows).chain(sets).chain(shadows).collect();
        assert_eq!(all, expected);
        assert_eq!(difference.is_empty(), expected.is_empty());
    }

    #[test]
    fn what_two_versions_differ_in() {
        let old: &[(&str, &[&str], &[u16], bool)] =
            &[("1", &["a.example.com", "198.51.100.0/24"], &[80, 443], true)];
        check(old, old, &[]);
        check(
            old,
            &[],
            &[
                "-a.example.com tcp/80, tcp/443 (1)",
                "-198.51.100.0/24 tcp/80, tcp/443 (1)",
                "1: gone",
            ],
        );
        // Ports move, a row is split, a flag changes.
        check(
            old,
            &[
                ("1", &["a.example.com"], &[443, 8443], false),
                ("2", &["198.51.100.0/24"], &[80, 443], true),
            ],
            &[
                "+a.example.com tcp/8443 (1)",
                "-a.example.com tcp/80 (1)",
                "1: required: yes → no",
                "2: new",
            ],
        );
        // A wildcard in the place of what it covers.
        check(
            old,
            &[("1", &["*.example.com", "198.51.100.0/24"], &[80, 443], true)],
            &[
                "+*.example.com tcp/80, tcp/443 (1)",
                "-a.example.com tcp/80, tcp/443 (1)",
                "*.example.com over a.example.com",
            ],
        );
        // A name that a wildcard covered before.
        check(
            &[("1", &["*.example.com"], &[443], true)],
            &[("1", &["*.example.com", "b.example.com"], &[443], true)],
            &["+b.example.com tcp/443 (1) in *.example.com"],
        );
    }
}
