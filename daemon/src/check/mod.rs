//! `egressd check`: what a configuration would let pass, and what is worth knowing about it. Reads
//! nothing and prints nothing itself.

pub mod catalogue;
mod text;

#[cfg(test)]
mod tests;

use crate::config::{EbpfMode, Settings};
use crate::policy::catalogue::{Catalogue, EndpointSet};
use crate::policy::image::Mode;
use crate::policy::links::Links;
use crate::policy::lint;
use crate::policy::name::Pattern;
use crate::policy::port::PortSet;
use crate::policy::rules::{Numbers, Rules, ZoneRules};
use ipnet::IpNet;
use serde::Serialize;
use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::sync::Arc;

/// What there is to say about a configuration. Displays as text for people; `{:#}` leaves nothing out.
#[derive(Clone, Debug, Serialize)]
pub struct Report {
    /// Every catalogue, the built-in one included.
    pub catalogues: Vec<CatalogueSummary>,
    /// The distinct port sets in use.
    pub classes: Vec<String>,
    /// Every zone.
    pub zones: Vec<ZoneSummary>,
    /// What is worth knowing, warnings first.
    pub findings: Vec<Finding>,
}

/// One catalogue in numbers.
#[derive(Clone, Debug, Serialize)]
pub struct CatalogueSummary {
    /// What selectors call it.
    pub name: String,
    /// For people.
    pub title: String,
    /// The version the source gave.
    pub version: String,
    /// Where it came from.
    pub source: String,
    /// Rows.
    pub sets: usize,
    /// Distinct names, wildcards among them.
    pub names: usize,
    /// Distinct wildcards.
    pub wildcards: usize,
    /// Distinct networks.
    pub networks: usize,
}

/// What one zone may reach.
#[derive(Clone, Debug, Serialize)]
pub struct ZoneSummary {
    /// Its name.
    pub name: String,
    /// Where its clients' packets enter.
    pub interfaces: Vec<String>,
    /// Their sources; empty means all.
    pub sources: Vec<String>,
    /// `enforce` or `audit`.
    pub mode: &'static str,
    /// The labels of the sets it may reach.
    pub sets: Vec<String>,
    /// What is open on each distinct set of ports.
    pub opens: Vec<Opening>,
    /// Sets that `allow` selects and its scope leaves out, with the axes why.
    pub out_of_scope: Vec<String>,
    /// What `deny` takes away.
    pub denied: Vec<String>,
}

/// What is open on one set of ports.
#[derive(Clone, Debug, Serialize)]
pub struct Opening {
    /// The ports.
    pub ports: String,
    /// Exact names.
    pub names: Vec<String>,
    /// Wildcards.
    pub wildcards: Vec<String>,
    /// Networks, denied parts cut out.
    pub networks: Vec<String>,
}

/// Something worth knowing.
#[derive(Clone, Debug, Serialize)]
pub struct Finding {
    /// Its name, which stays the same between releases.
    pub id: &'static str,
    /// `error`, `warning` or `notice`.
    pub weight: &'static str,
    /// What is so.
    pub sentence: String,
    /// What to do about it; empty where nothing needs doing.
    pub remedy: String,
    /// What it is about, one thing each.
    pub items: Vec<String>,
}

impl From<lint::Finding> for Finding {
    fn from(finding: lint::Finding) -> Self {
        Self {
            id: finding.id,
            weight: match finding.weight {
                lint::Weight::Warning => "warning",
                lint::Weight::Notice => "notice",
            },
            sentence: finding.sentence,
            remedy: finding.remedy,
            items: finding.items,
        }
    }
}

/// Reports on `settings`; on the machine's interfaces as well where `links` are known.
#[must_use]
pub fn report(settings: &Settings, links: Option<&Links>) -> Report {
    let mut report = Report {
        catalogues: settings.intent.catalogues.iter().map(summary).collect(),
        classes: Vec::new(),
        zones: Vec::new(),
        findings: Vec::new(),
    };
    let mut numbers = Numbers::default();
    let intent = Arc::new(settings.intent.clone());
    match Rules::compile(intent, links.cloned().unwrap_or_default(), &mut numbers) {
        Ok(rules) => {
            let classes = numbers.classes.iter();
            report.classes = classes.map(|(_, ports)| ports.to_string()).collect();
            for (_, zone) in rules.zones() {
                report.zones.push(zone_summary(&rules, zone));
                report.add(lint::zone(&rules, zone));
            }
            if links.is_some() {
                report.add(lint::links(&rules));
            }
        }
        Err(error) => report.findings.push(Finding {
            id: "does-not-fit",
            weight: "error",
            sentence: format!("The policy cannot be enforced: {error}."),
            remedy: String::new(),
            items: Vec::new(),
        }),
    }
    report.add(planes(settings));
    report.add(listeners(settings, links));
    for catalogue in &settings.intent.catalogues {
        report.add(lint::catalogue(catalogue));
    }
    let rank = |finding: &Finding| match finding.weight {
        "error" => 0,
        "warning" => 1,
        _ => 2,
    };
    report.findings.sort_by_key(rank);
    report
}

impl Report {
    /// Whether the configuration cannot be used.
    #[must_use]
    pub fn has_errors(&self) -> bool {
        self.findings
            .iter()
            .any(|finding| finding.weight == "error")
    }

    /// Whether somebody may reach more or less than the operator thinks.
    #[must_use]
    pub fn has_warnings(&self) -> bool {
        self.findings
            .iter()
            .any(|finding| finding.weight == "warning")
    }

    fn add(&mut self, findings: impl IntoIterator<Item = lint::Finding>) {
        self.findings
            .extend(findings.into_iter().map(Finding::from));
    }
}

fn summary(catalogue: &Catalogue) -> CatalogueSummary {
    let sets = &catalogue.sets;
    let names: BTreeSet<_> = sets.iter().flat_map(|set| &set.patterns).collect();
    let networks: BTreeSet<_> = sets.iter().flat_map(|set| &set.networks).collect();
    CatalogueSummary {
        name: catalogue.name.clone(),
        title: catalogue.title.clone(),
        version: catalogue.version.clone(),
        source: catalogue.source.clone(),
        sets: sets.len(),
        names: names.len(),
        wildcards: names.iter().filter(|pattern| pattern.is_wildcard()).count(),
        networks: networks.len(),
    }
}

fn zone_summary(rules: &Rules, zone: &ZoneRules) -> ZoneSummary {
    let spec = &zone.spec;
    let connected = spec.connected.then(|| "connected".to_owned());
    let selected = rules.intent().catalogues.iter().flat_map(|catalogue| {
        let chosen = |set: &&EndpointSet| {
            spec.allow
                .iter()
                .any(|selector| selector.selects(&catalogue.name, set))
        };
        catalogue
            .sets
            .iter()
            .filter(chosen)
            .map(|set| (&catalogue.name, set))
    });
    let out_of_scope = selected.filter_map(|(catalogue, set)| {
        let axes: Vec<&str> = set.scope.unmet(&spec.scope).collect();
        (!axes.is_empty()).then(|| format!("{catalogue}/{} ({})", set.id, axes.join(", ")))
    });
    ZoneSummary {
        name: spec.name.clone(),
        interfaces: spec.interfaces.iter().map(ToString::to_string).collect(),
        sources: connected
            .into_iter()
            .chain(spec.sources.iter().map(ToString::to_string))
            .collect(),
        mode: match spec.mode {
            Mode::Enforce => "enforce",
            Mode::Audit => "audit",
        },
        sets: zone
            .sets
            .iter()
            .map(|set| rules.row(*set).label())
            .collect(),
        opens: openings(rules, zone),
        out_of_scope: out_of_scope.collect(),
        denied: lint::taken_away(rules, zone),
    }
}

/// What is open on each distinct set of ports. A name has the ports of every set that lists it, be it
/// by a wildcard.
fn openings(rules: &Rules, zone: &ZoneRules) -> Vec<Opening> {
    let mut patterns: BTreeMap<&Pattern, Vec<&PortSet>> = BTreeMap::new();
    for id in &zone.sets {
        let set = &rules.row(*id).set;
        for pattern in set.patterns.iter().filter(|_| !set.ports.is_empty()) {
            if !lint::is_inert(zone, *id, pattern) && !lint::denies(rules, zone, pattern) {
                patterns.entry(pattern).or_default().push(&set.ports);
            }
        }
    }
    let wildcards: Vec<_> = patterns
        .iter()
        .filter(|(pattern, _)| pattern.is_wildcard())
        .collect();
    let mut openings: BTreeMap<PortSet, Opening> = BTreeMap::new();
    for (pattern, own) in &patterns {
        let covering = wildcards
            .iter()
            .filter(|(wildcard, _)| wildcard.covers(pattern));
        let inherited = covering.flat_map(|(_, ports)| ports.iter());
        let opening = opening(&mut openings, own.iter().chain(inherited).copied());
        let list = if pattern.is_wildcard() {
            &mut opening.wildcards
        } else {
            &mut opening.names
        };
        list.push(pattern.to_string());
    }
    let mut networks: BTreeMap<IpNet, Vec<&PortSet>> = BTreeMap::new();
    for listing in &zone.networks {
        let ports = &rules.row(listing.set).set.ports;
        networks.entry(listing.network).or_default().push(ports);
    }
    for (network, ports) in networks {
        opening(&mut openings, ports.into_iter())
            .networks
            .push(network.to_string());
    }
    openings.into_values().collect()
}

/// The opening of some sets' ports together.
fn opening<'a, 'p>(
    openings: &'a mut BTreeMap<PortSet, Opening>,
    sets: impl Iterator<Item = &'p PortSet>,
) -> &'a mut Opening {
    let ports = PortSet::new(sets.flat_map(PortSet::services).copied());
    let text = ports.to_string();
    openings.entry(ports).or_insert_with(|| Opening {
        ports: text,
        names: Vec::new(),
        wildcards: Vec::new(),
        networks: Vec::new(),
    })
}

fn planes(settings: &Settings) -> Option<lint::Finding> {
    let (sentence, remedy) = match (settings.planes.nft, settings.planes.ebpf) {
        (false, _) => (
            "The eBPF plane works alone: interfaces in no zone are not judged, connections into a \
             zone are not supported, and nothing else refuses where XDP is taken off.",
            "Write nft = true.",
        ),
        (true, EbpfMode::XdpGeneric) => (
            "Generic XDP is slower than nftables alone.",
            "Write ebpf = \"auto\".",
        ),
        (true, EbpfMode::Auto | EbpfMode::Xdp | EbpfMode::Tc | EbpfMode::Off) => return None,
    };
    Some(lint::Finding {
        id: if settings.planes.nft {
            "generic-xdp"
        } else {
            "ebpf-alone"
        },
        weight: lint::Weight::Warning,
        sentence: sentence.to_owned(),
        remedy: remedy.to_owned(),
        items: Vec::new(),
    })
}

fn listeners(settings: &Settings, links: Option<&Links>) -> Option<lint::Finding> {
    let links = links?;
    let foreign = |listen: &&SocketAddr| {
        let ip = listen.ip();
        !ip.is_unspecified() && !ip.is_loopback() && !links.is_own(ip)
    };
    let items: Vec<String> = settings
        .dns
        .listen
        .iter()
        .filter(foreign)
        .map(ToString::to_string)
        .collect();
    (!items.is_empty()).then(|| lint::Finding {
        id: "listen-elsewhere",
        weight: lint::Weight::Warning,
        sentence: "The gateway does not have addresses it should listen on now.".to_owned(),
        remedy: "Correct them, unless they come later.".to_owned(),
        items,
    })
}
