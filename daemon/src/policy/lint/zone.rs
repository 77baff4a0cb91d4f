//! What a zone's clients can reach without the operator having thought of it, or cannot.

use super::{Finding, Weight, about, redirect::redirect};
use crate::policy::catalogue::EndpointSet;
use crate::policy::image::{Mode, Unzoned};
use crate::policy::links::{InterfacePattern, Link, Links};
use crate::policy::name::Pattern;
use crate::policy::rules::{Row, Rules, SetId, ZoneRules};
use crate::policy::special::special_purpose;
use ipnet::IpNet;

/// Everything worth knowing about one zone of `rules`.
#[must_use]
pub fn zone(rules: &Rules, zone: &ZoneRules) -> Vec<Finding> {
    let name = &zone.spec.name;
    let inert = zone
        .inert
        .iter()
        .map(|(set, pattern)| format!("{pattern} ({})", rules.row(*set).label()));
    let mut findings: Vec<Finding> = [
        about(
            "shared-inert",
            Weight::Warning,
            format!("Zone `{name}` may not use wildcards under which anyone can create a name; they have no effect."),
            "Where clients need them, accept each with `shared` in the zone, or list the names in use with a [[zone.rule]].",
            inert.collect(),
        ),
        about(
            "shared-open",
            Weight::Warning,
            format!("Zone `{name}` accepts wildcards under which anyone can create a name: its clients can reach strangers."),
            "List the names in use with a [[zone.rule]] instead, where they are known.",
            shared_open(rules, zone),
        ),
        about(
            "shared-unused",
            Weight::Warning,
            format!("Zone `{name}` accepts wildcards that no set it may reach lists."),
            "Take them out of `shared`, or write them as the catalogue does.",
            shared_unused(rules, zone),
        ),
        about(
            "private-names",
            Weight::Warning,
            format!("Zone `{name}` believes answers that send these names to private, internal or connected addresses: whoever answers for them can point clients at those hosts, on the ports the names have."),
            "Keep the list to names whose servers you run.",
            private_names(rules, zone, true),
        ),
        about(
            "private-unused",
            Weight::Warning,
            format!("Zone `{name}` has names in `private` that no set it may reach lists."),
            "Take them out of `private`, or list them in a [[zone.rule]].",
            private_names(rules, zone, false),
        ),
        about(
            "special-network",
            Weight::Warning,
            format!("Zone `{name}` may reach special-purpose networks, so answers with their addresses are believed."),
            "Name the hosts' own addresses instead of the whole network, where they are known.",
            special_networks(rules, zone),
        ),
        about(
            "wide-network",
            Weight::Warning,
            format!("Zone `{name}` may reach very large networks, whatever name their addresses have."),
            "List the names in use instead, where there are any.",
            wide_networks(rules, zone),
        ),
    ]
    .into_iter()
    .flatten()
    .collect();
    findings.extend(redirect(rules, zone));
    let alone = |id, sentence: String, remedy: &str| Finding {
        id,
        weight: Weight::Warning,
        sentence,
        remedy: remedy.to_owned(),
        items: Vec::new(),
    };
    let opens = |set: &EndpointSet| {
        let destinations = set.patterns.len() + set.networks.len();
        destinations > 0 && !set.ports.is_empty()
    };
    if !zone.sets.iter().any(|set| opens(&rules.row(*set).set)) {
        findings.push(alone(
            "reaches-nothing",
            format!("Zone `{name}` may reach nothing."),
            "Write `allow` or a [[zone.rule]], or loosen its scope.",
        ));
    }
    if zone.spec.mode == Mode::Audit {
        findings.push(alone(
            "audit",
            format!("Zone `{name}` is in audit mode: nothing is dropped."),
            "Write mode = \"enforce\" once what it reports is as it should be.",
        ));
    }
    findings
}

/// Whether `deny` takes away every name that `pattern` matches.
#[must_use]
pub fn denies(rules: &Rules, zone: &ZoneRules, pattern: &Pattern) -> bool {
    denied_sets(rules, zone).any(|(_, set)| set.patterns.iter().any(|p| p.covers(pattern)))
}

/// What `deny` takes away from what `zone` would reach: each denied name or network with its set, and
/// the sets that allow it.
#[must_use]
pub fn taken_away(rules: &Rules, zone: &ZoneRules) -> Vec<String> {
    let mut taken = Vec::new();
    for (catalogue, set) in denied_sets(rules, zone) {
        let by = format!("{catalogue}/{}", set.id);
        for pattern in &set.patterns {
            let meets = |set: SetId, other: &Pattern| {
                (other.covers(pattern) || pattern.covers(other)) && !is_inert(zone, set, other)
            };
            let rows = zone.sets.iter().filter(|set| {
                let mut patterns = rules.row(**set).set.patterns.iter();
                patterns.any(|other| meets(**set, other))
            });
            note(
                &mut taken,
                &pattern.to_string(),
                &by,
                rows.map(|set| rules.row(*set)),
            );
        }
        for network in &set.networks {
            let rows = zone.sets.iter().map(|set| rules.row(*set)).filter(|row| {
                let mut networks = row.set.networks.iter();
                networks.any(|other| other.contains(network) || network.contains(other))
            });
            note(&mut taken, &network.to_string(), &by, rows);
        }
    }
    taken
}

/// Whether a wildcard of a set has no effect in `zone`, for want of an opt-in.
#[must_use]
pub fn is_inert(zone: &ZoneRules, set: SetId, pattern: &Pattern) -> bool {
    zone.inert
        .iter()
        .any(|(of, inert)| *of == set && inert == pattern)
}

/// The sets of a zone's `deny`, each with its catalogue's name.
fn denied_sets<'a>(
    rules: &'a Rules,
    zone: &'a ZoneRules,
) -> impl Iterator<Item = (&'a str, &'a EndpointSet)> {
    rules.intent().catalogues.iter().flat_map(|catalogue| {
        let denied = |set: &&EndpointSet| {
            let mut selectors = zone.spec.deny.iter();
            selectors.any(|selector| selector.selects(&catalogue.name, set))
        };
        let sets = catalogue.sets.iter().filter(denied);
        sets.map(|set| (&*catalogue.name, set))
    })
}

fn note<'a>(
    taken: &mut Vec<String>,
    what: &str,
    by: &str,
    allowing: impl Iterator<Item = &'a Row>,
) {
    let mut sets: Vec<String> = allowing.map(Row::label).collect();
    sets.dedup();
    if !sets.is_empty() {
        let line = format!("{what} ({by}), else allowed by {}", sets.join(", "));
        if !taken.contains(&line) {
            taken.push(line);
        }
    }
}

fn shared_open(rules: &Rules, zone: &ZoneRules) -> Vec<String> {
    let mut open = Vec::new();
    for set in &zone.sets {
        for pattern in &rules.row(*set).set.patterns {
            let domain = pattern.shared_domain();
            if let Some(domain) = domain.filter(|_| !is_inert(zone, *set, pattern)) {
                open.push(format!(
                    "{pattern} ({}), under {domain}",
                    rules.row(*set).label()
                ));
            }
        }
    }
    open
}

fn shared_unused(rules: &Rules, zone: &ZoneRules) -> Vec<String> {
    let listed = |text: &&String| {
        let mut sets = zone
            .sets
            .iter()
            .flat_map(|set| &rules.row(*set).set.patterns);
        sets.any(|pattern| pattern.to_string().eq_ignore_ascii_case(text))
    };
    zone.spec
        .shared
        .iter()
        .filter(|text| !listed(text))
        .cloned()
        .collect()
}

/// The patterns of `private` of which some name is listed, or those of which none is.
fn private_names(rules: &Rules, zone: &ZoneRules, listed: bool) -> Vec<String> {
    let meets = |private: &&Pattern| {
        let mut sets = zone.sets.iter();
        sets.any(|set| {
            let mut patterns = rules.row(*set).set.patterns.iter();
            patterns.any(|pattern| pattern.covers(private) || private.covers(pattern))
        })
    };
    let private = zone.spec.private.iter();
    private
        .filter(|pattern| meets(pattern) == listed)
        .map(Pattern::to_string)
        .collect()
}

fn special_networks(rules: &Rules, zone: &ZoneRules) -> Vec<String> {
    let special =
        |net: IpNet| special_purpose(net.network()).or_else(|| special_purpose(net.broadcast()));
    let listings = zone.networks.iter();
    let named = listings.filter_map(|listing| {
        let word = special(listing.network)?;
        Some(format!(
            "{} ({}), {word}",
            listing.network,
            rules.row(listing.set).label()
        ))
    });
    named.collect()
}

fn wide_networks(rules: &Rules, zone: &ZoneRules) -> Vec<String> {
    let wide = |net: &IpNet| net.prefix_len() <= if net.max_prefix_len() == 32 { 8 } else { 24 };
    let listings = zone
        .networks
        .iter()
        .filter(|listing| wide(&listing.network));
    let named =
        listings.map(|listing| format!("{} ({})", listing.network, rules.row(listing.set).label()));
    named.collect()
}

/// What is worth knowing about the machine's interfaces under `rules`, which were compiled for them.
#[must_use]
pub fn links(rules: &Rules) -> Vec<Finding> {
    let (intent, links) = (rules.intent(), rules.links());
    let (sentence, remedy) = match intent.unzoned {
        Unzoned::Drop => (
            "Interfaces are up and in no zone, not upstream and not internal: what enters there is not forwarded.",
            "Put them into a zone, or into `upstream` where they lead to the internet.",
        ),
        Unzoned::Accept => (
            "Interfaces are up and in no zone, not upstream and not internal: what enters there is not judged.",
            "Put them into a zone if clients are behind them.",
        ),
    };
    [
        about(
            "unclaimed-interface",
            Weight::Warning,
            sentence,
            remedy,
            unclaimed(rules, links),
        ),
        about(
            "missing-interface",
            Weight::Warning,
            "Interfaces that the configuration names do not exist now.",
            "Correct the name, unless they come later.",
            missing(rules, links),
        ),
    ]
    .into_iter()
    .flatten()
    .collect()
}

fn unclaimed(rules: &Rules, links: &Links) -> Vec<String> {
    let intent = rules.intent();
    let claimed = |link: &Link| {
        let zones = intent.zones.iter().flat_map(|zone| &zone.interfaces);
        zones
            .chain(&intent.upstream)
            .any(|pattern| pattern.matches(&link.name))
    };
    let inside = |net: &IpNet| {
        net.addr().is_loopback()
            || intent
                .internal
                .iter()
                .any(|internal| internal.contains(net))
    };
    // Link-local addresses are on every interface and say nothing about it.
    let local = |net: &&IpNet| !matches!(net, IpNet::V6(net) if net.addr().is_unicast_link_local());
    let internal = |link: &Link| {
        let mut addresses = link.addresses.iter().filter(local).peekable();
        addresses.peek().is_some() && addresses.all(inside)
    };
    let links = links.0.values();
    let unclaimed = links.filter(|link| link.up && !claimed(link) && !internal(link));
    unclaimed.map(|link| link.name.clone()).collect()
}

fn missing(rules: &Rules, links: &Links) -> Vec<String> {
    let intent = rules.intent();
    let exists =
        |pattern: &InterfacePattern| links.0.values().any(|link| pattern.matches(&link.name));
    let mut missing = Vec::new();
    for zone in &intent.zones {
        let absent = zone.interfaces.iter().filter(|pattern| !exists(pattern));
        missing.extend(absent.map(|pattern| format!("{pattern} (zone `{}`)", zone.name)));
    }
    let absent = intent.upstream.iter().filter(|pattern| !exists(pattern));
    missing.extend(absent.map(|pattern| format!("{pattern} (upstream)")));
    missing
}
