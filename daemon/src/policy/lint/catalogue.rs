//! What a catalogue says twice, leaves out, or had added to it.

use super::{Finding, Weight, about};
use crate::policy::catalogue::{Catalogue, EndpointSet};
use crate::policy::name::Pattern;
use std::collections::BTreeMap;

/// Everything worth knowing about one catalogue, whoever may reach it.
#[must_use]
pub fn catalogue(catalogue: &Catalogue) -> Vec<Finding> {
    let mut listings: BTreeMap<&Pattern, Vec<&EndpointSet>> = BTreeMap::new();
    for set in &catalogue.sets {
        for pattern in &set.patterns {
            listings.entry(pattern).or_default().push(set);
        }
    }
    let name = &catalogue.name;
    [
        about(
            "no-ports",
            Weight::Warning,
            format!("Sets of `{name}` list names or networks without a port, and so open nothing."),
            "Ask the vendor which ports they need, and open those with a [[zone.rule]].",
            labels(catalogue, |set| {
                set.ports.is_empty() && has_destination(set)
            }),
        ),
        about(
            "no-destination",
            Weight::Notice,
            format!(
                "Sets of `{name}` list ports without a name or a network, and so open nothing."
            ),
            "Where they are wanted, open their ports to known hosts with a [[zone.rule]].",
            labels(catalogue, |set| {
                !set.ports.is_empty() && !has_destination(set)
            }),
        ),
        about(
            "wide-wildcard",
            Weight::Warning,
            format!("Wildcards of `{name}` cover much of the rest of it and widen its ports."),
            "Allow the sets you need by area or id, or only what is required.",
            wide(&listings),
        ),
        about(
            "repeated-set",
            Weight::Notice,
            format!("Set ids stand several times in `{name}`; a selector means all of them."),
            "",
            repeated_sets(catalogue),
        ),
        about(
            "repeated-name",
            Weight::Notice,
            format!("Names stand in several sets of `{name}`; their ports add up."),
            "",
            repeated_names(&listings),
        ),
        about(
            "covered-name",
            Weight::Notice,
            format!("Names of `{name}` are covered by wildcards beside them; their ports add up."),
            "",
            covered(&listings),
        ),
        about(
            "no-apex",
            Weight::Notice,
            format!(
                "Wildcards of `{name}` do not cover the name they stand under, which is not listed."
            ),
            "Where clients need that name as well, add it with a [[zone.rule]].",
            without_apex(&listings),
        ),
        about(
            "inferred",
            Weight::Notice,
            format!("Facts in `{name}` are not in its source."),
            "",
            inferred(catalogue),
        ),
    ]
    .into_iter()
    .flatten()
    .collect()
}

fn has_destination(set: &EndpointSet) -> bool {
    !set.patterns.is_empty() || !set.networks.is_empty()
}

fn labels(catalogue: &Catalogue, meant: impl Fn(&EndpointSet) -> bool) -> Vec<String> {
    let sets = catalogue.sets.iter().filter(|set| meant(set));
    sets.map(|set| format!("{} ({})", set.id, set.service))
        .collect()
}

fn repeated_sets(catalogue: &Catalogue) -> Vec<String> {
    let mut origins: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
    for set in &catalogue.sets {
        origins.entry(&set.id).or_default().push(&set.origin);
    }
    let several = origins.into_iter().filter(|(_, origins)| origins.len() > 1);
    several
        .map(|(id, origins)| format!("{id} ({})", origins.join("; ")))
        .collect()
}

fn repeated_names(listings: &BTreeMap<&Pattern, Vec<&EndpointSet>>) -> Vec<String> {
    let several = listings.iter().filter(|(_, sets)| sets.len() > 1);
    several
        .map(|(pattern, sets)| {
            let listed = sets.iter().map(|set| format!("{} {}", set.id, set.ports));
            format!("{pattern}: {}", listed.collect::<Vec<_>>().join("; "))
        })
        .collect()
}

fn covered(listings: &BTreeMap<&Pattern, Vec<&EndpointSet>>) -> Vec<String> {
    let mut covered = Vec::new();
    for (narrow, sets) in listings {
        let wide = listings
            .iter()
            .filter(|(wide, _)| *wide != narrow && wide.covers(narrow));
        let by: Vec<_> = wide
            .map(|(wide, sets)| format!("{wide} ({})", ids(sets)))
            .collect();
        if !by.is_empty() {
            covered.push(format!("{narrow} ({}): {}", ids(sets), by.join(", ")));
        }
    }
    covered
}

/// The ids of some sets, each once.
fn ids(sets: &[&EndpointSet]) -> String {
    let mut ids: Vec<&str> = Vec::new();
    for set in sets.iter() {
        if !ids.contains(&&*set.id) {
            ids.push(&set.id);
        }
    }
    ids.join(", ")
}

fn without_apex(listings: &BTreeMap<&Pattern, Vec<&EndpointSet>>) -> Vec<String> {
    let listed = |apex: &Pattern| listings.keys().any(|pattern| pattern.covers(apex));
    let mut lacking = Vec::new();
    for (pattern, sets) in listings {
        if let Pattern::Below(parent) = pattern
            && !listed(&Pattern::Exact(parent.clone()))
        {
            lacking.push(format!("{pattern} ({})", ids(sets)));
        }
    }
    lacking
}

fn inferred(catalogue: &Catalogue) -> Vec<String> {
    let sets = catalogue.sets.iter();
    sets.flat_map(|set| {
        set.inferred
            .iter()
            .map(|fact| format!("{}: {fact}", set.id))
    })
    .collect()
}

/// Wildcards that cover at least a quarter of the other names.
fn wide(listings: &BTreeMap<&Pattern, Vec<&EndpointSet>>) -> Vec<String> {
    let mut wide = Vec::new();
    for (pattern, sets) in listings.iter().filter(|(pattern, _)| pattern.is_wildcard()) {
        let inside = listings
            .keys()
            .filter(|other| *other != pattern && pattern.covers(other));
        let (inside, others) = (inside.count(), listings.len() - 1);
        if inside >= 4 && inside * 4 >= others {
            wide.push(format!(
                "{pattern} ({}): {inside} of {others} other names",
                ids(sets)
            ));
        }
    }
    wide
}
