//! What a catalogue says twice, leaves out, or had added to it.

use super::{Finding, Weight, about};
use crate::policy::catalogue::{Catalogue, EndpointSet};
use crate::policy::matcher::Matcher;
use crate::policy::name::Pattern;
use crate::policy::special::special_purpose;
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
            "special-listed",
            Weight::Warning,
            format!("Networks of `{name}` are special-purpose ones, which no public service has."),
            "Take them out, or list them under [gateway] internal if they are yours.",
            special(catalogue),
        ),
        about(
            "shared-wildcard",
            Weight::Notice,
            format!("Anyone can create names under these wildcards of `{name}`."),
            "They have no effect until a zone opts in with `shared`; list the names you need instead.",
            shared(&listings),
        ),
        about(
            "names-and-networks",
            Weight::Notice,
            format!("Sets of `{name}` list names and networks; vendors mean either, and both are open."),
            "",
            labels(catalogue, |set| {
                !set.patterns.is_empty() && !set.networks.is_empty()
            }),
        ),
        about(
            "rows-differ",
            Weight::Notice,
            format!("Rows of one id of `{name}` say different things; they add up."),
            "",
            differing(catalogue, false),
        ),
        about(
            "sources-disagree",
            Weight::Notice,
            format!("The sources of `{name}` say different things of the same set; the union counts."),
            "",
            differing(catalogue, true),
        ),
        about(
            "not-imported",
            Weight::Notice,
            format!("Parts of the source of `{name}` could not be imported."),
            "Add what is needed with a [[zone.rule]] or a catalogue of your own.",
            not_imported(catalogue),
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

/// The wildcards, to be found by what they stand for: comparing each with each takes minutes where there are many.
fn wildcards<'a>(listings: &BTreeMap<&'a Pattern, Vec<&EndpointSet>>) -> Matcher<&'a Pattern> {
    let mut wildcards = Matcher::default();
    for pattern in listings.keys().filter(|pattern| pattern.is_wildcard()) {
        wildcards.insert(pattern, *pattern);
    }
    wildcards
}

/// Those of `wildcards` that stand for all that `narrow` does, itself not among them, in order.
fn over<'a>(narrow: &Pattern, wildcards: &Matcher<&'a Pattern>) -> Vec<&'a Pattern> {
    let Ok(example) = narrow.example("x") else {
        return Vec::new();
    };
    let found = wildcards.find(&example);
    let mut over: Vec<&Pattern> = found
        .copied()
        .filter(|wide| *wide != narrow && wide.covers(narrow))
        .collect();
    over.sort_unstable();
    over
}

fn special(catalogue: &Catalogue) -> Vec<String> {
    let mut items = Vec::new();
    for set in &catalogue.sets {
        for network in &set.networks {
            if let Some(word) = special_purpose(network.network()) {
                items.push(format!("{network} ({}): {word}", set.id));
            }
        }
    }
    items
}

fn shared(listings: &BTreeMap<&Pattern, Vec<&EndpointSet>>) -> Vec<String> {
    let shared = listings.iter().filter_map(|(pattern, sets)| {
        let domain = pattern.shared_domain()?;
        Some(format!("{pattern} ({}): under {domain}", ids(sets)))
    });
    shared.collect()
}

/// Ids whose rows differ in ports, category or flag: those of several sources, or of one.
fn differing(catalogue: &Catalogue, several: bool) -> Vec<String> {
    let mut rows: BTreeMap<&str, Vec<&EndpointSet>> = BTreeMap::new();
    for set in &catalogue.sets {
        rows.entry(&set.id).or_default().push(set);
    }
    let facts = |set: &EndpointSet| (set.ports.to_string(), set.category, set.required);
    let differing = rows.into_iter().filter(|(_, rows)| {
        let sources = rows.iter().any(|row| row.source != rows[0].source);
        sources == several && rows.iter().any(|row| facts(row) != facts(rows[0]))
    });
    differing
        .map(|(id, rows)| {
            let told = rows.iter().map(|row| {
                let required = if row.required { "required" } else { "optional" };
                let category = format!("{:?}", row.category).to_lowercase();
                format!("{}, {category}, {required} ({})", row.ports, row.place())
            });
            format!("{id}: {}", told.collect::<Vec<_>>().join("; "))
        })
        .collect()
}

fn not_imported(catalogue: &Catalogue) -> Vec<String> {
    let reported = catalogue.account.reported.iter();
    reported
        .map(|one| format!("{}: {}: {}", one.origin, one.token, one.why))
        .collect()
}

fn covered(listings: &BTreeMap<&Pattern, Vec<&EndpointSet>>) -> Vec<String> {
    let wildcards = wildcards(listings);
    let mut covered = Vec::new();
    for (narrow, sets) in listings {
        let wide = over(narrow, &wildcards).into_iter();
        let by: Vec<_> = wide
            .map(|wide| {
                format!(
                    "{wide} ({})",
                    ids(listings.get(wide).map_or(&[], Vec::as_slice))
                )
            })
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
    let wildcards = wildcards(listings);
    let listed = |apex: &Pattern| listings.contains_key(apex) || !over(apex, &wildcards).is_empty();
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
    let wildcards = wildcards(listings);
    let mut insides: BTreeMap<&Pattern, usize> = BTreeMap::new();
    for narrow in listings.keys() {
        for wide in over(narrow, &wildcards) {
            *insides.entry(wide).or_default() += 1;
        }
    }
    let mut wide = Vec::new();
    for (pattern, inside) in insides {
        let sets = listings.get(pattern).map_or(&[][..], Vec::as_slice);
        let others = listings.len() - 1;
        if inside >= 4 && inside * 4 >= others {
            wide.push(format!(
                "{pattern} ({}): {inside} of {others} other names",
                ids(sets)
            ));
        }
    }
    wide
}
