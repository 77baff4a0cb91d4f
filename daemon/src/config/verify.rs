//! What no single key can be blamed for: zones against each other, against the gateway, against the
//! limits.

use super::DnsSettings;
use super::catalogues::Catalogues;
use super::sections::Gateway;
use super::zone::ZoneRead;
use crate::document::{Span, Table};
use crate::policy::catalogue::EndpointSet;
use crate::policy::links::InterfacePattern;
use crate::policy::port::PortSet;
use crate::policy::zone::ZoneSpec;
use egressd_common::{MAX_CLASSES, MAX_ZONES};

pub(super) fn zones(
    root: &Table<'_, '_>,
    zones: &[ZoneRead],
    gateway: &Gateway,
    catalogues: &Catalogues,
) {
    let document = root.document;
    if zones.is_empty() {
        root.problem("there is no zone, so nobody may pass; write a [[zone]]");
    }
    if let Some(extra) = zones.get(MAX_ZONES) {
        let what = format!(
            "there are {} zones and room for {MAX_ZONES}; put clients under the same policy into one zone",
            zones.len()
        );
        document.problem(&extra.span, what);
    }
    for (index, zone) in zones.iter().enumerate() {
        for other in &zones[..index] {
            if let Some(what) = clash(&other.spec, &zone.spec) {
                document.problem(&zone.span, what);
            }
        }
        for interface in &zone.spec.interfaces {
            if let Some(upstream) = gateway.upstream.iter().find(|up| covers(up, interface)) {
                let what = format!(
                    "interface `{interface}` of zone `{}` is upstream (`{upstream}`), where nothing is judged; \
                     take it out of one of the two",
                    zone.spec.name
                );
                document.problem(&zone.span, what);
            }
        }
    }
    classes(root, zones, catalogues);
}

/// Why a client could not tell in which of two zones it is.
fn clash(a: &ZoneSpec, b: &ZoneSpec) -> Option<String> {
    if a.name == b.name {
        return Some(format!(
            "zone `{}` stands twice; give one another name",
            a.name
        ));
    }
    let shared = a.interfaces.iter().find_map(|one| {
        b.interfaces
            .iter()
            .find_map(|other| match (covers(one, other), covers(other, one)) {
                (true, _) => Some(other),
                (false, true) => Some(one),
                (false, false) => None,
            })
    })?;
    let all = |zone: &ZoneSpec| zone.sources.is_empty() && !zone.connected;
    let same = if all(a) && all(b) {
        "take every source".to_owned()
    } else if a.connected && b.connected {
        "take the connected sources".to_owned()
    } else {
        let source = a.sources.iter().find(|source| b.sources.contains(source))?;
        format!("have source {source}")
    };
    Some(format!(
        "zones `{}` and `{}` both {same} on `{shared}`; write different `sources`",
        a.name, b.name
    ))
}

/// Whether every interface that `inner` can mean is also one of `outer`.
fn covers(outer: &InterfacePattern, inner: &InterfacePattern) -> bool {
    match (outer, inner) {
        (_, InterfacePattern::Exact(name)) => outer.matches(name),
        (InterfacePattern::Prefix(_), InterfacePattern::Prefix(stem)) => outer.matches(stem),
        (InterfacePattern::Exact(_), InterfacePattern::Prefix(_)) => false,
    }
}

/// A distinct set of ports, with who needs it first.
struct Class<'a> {
    ports: &'a PortSet,
    label: String,
    span: Span,
}

fn classes(root: &Table<'_, '_>, zones: &[ZoneRead], catalogues: &Catalogues) {
    let mut classes: Vec<Class<'_>> = Vec::new();
    for zone in zones {
        let rules = zone.spec.rules.iter().zip(&zone.rules);
        let own = rules.map(|(set, span)| (set, format!("{}/{}", zone.spec.name, set.id), span));
        let listed = chosen(&zone.spec, catalogues)
            .map(|(catalogue, set)| (set, format!("{catalogue}/{}", set.id), &zone.span));
        for (set, label, span) in listed.chain(own) {
            let opens = !set.patterns.is_empty() || !set.networks.is_empty();
            if opens && !set.ports.is_empty() && classes.iter().all(|c| *c.ports != set.ports) {
                classes.push(Class {
                    ports: &set.ports,
                    label,
                    span: span.clone(),
                });
            }
        }
    }
    let Some(extra) = classes.get(MAX_CLASSES) else {
        return;
    };
    let what = format!(
        "the zones need {} different sets of ports and there is room for {MAX_CLASSES}; give {} the same ports",
        classes.len(),
        nearest_pair(&classes)
    );
    root.document.problem(&extra.span, what);
}

/// The two classes that differ in the fewest ports.
fn nearest_pair(classes: &[Class<'_>]) -> String {
    let size = |set: &PortSet| -> u32 {
        let services = set.services().iter();
        services
            .map(|service| u32::from(service.last - service.first) + 1)
            .sum()
    };
    let apart = |a: &PortSet, b: &PortSet| {
        let both = PortSet::new(a.services().iter().chain(b.services()).copied());
        2 * size(&both) - size(a) - size(b)
    };
    let pairs = classes.iter().enumerate().flat_map(|(index, a)| {
        classes[..index]
            .iter()
            .map(move |b| (apart(a.ports, b.ports), b, a))
    });
    match pairs.min_by_key(|(apart, ..)| *apart) {
        Some((_, a, b)) => format!(
            "`{}` ({}) and `{}` ({})",
            a.label, a.ports, b.label, b.ports
        ),
        None => "some of them".to_owned(),
    }
}

/// The catalogue sets that a zone may reach, each with its catalogue's name.
fn chosen<'a>(
    spec: &'a ZoneSpec,
    catalogues: &'a Catalogues,
) -> impl Iterator<Item = (&'a str, &'a EndpointSet)> {
    catalogues.list.iter().flat_map(move |catalogue| {
        let chosen = |set: &&EndpointSet| {
            spec.allow
                .iter()
                .any(|selector| selector.selects(&catalogue.name, set))
                && set.scope.meets(&spec.scope)
        };
        catalogue
            .sets
            .iter()
            .filter(chosen)
            .map(|set| (&*catalogue.name, set))
    })
}

/// Names need a resolver that clients can reach and that can ask somebody.
pub(super) fn resolver(
    root: &Table<'_, '_>,
    dns: &DnsSettings,
    zones: &[ZoneRead],
    catalogues: &Catalogues,
) {
    let lists_names = |zone: &&ZoneRead| {
        let own = zone.spec.rules.iter();
        let mut sets = chosen(&zone.spec, catalogues)
            .map(|(_, set)| set)
            .chain(own);
        sets.any(|set| !set.patterns.is_empty())
    };
    let Some(zone) = zones.iter().find(lists_names) else {
        return;
    };
    let name = &zone.spec.name;
    if dns.upstreams.is_empty() {
        root.problem(format!(
            "zone `{name}` lists names and there is nobody to ask for them; \
             write [dns] upstreams = [\"udp://…\"]"
        ));
    }
    if dns.listen.is_empty() {
        root.problem(format!(
            "zone `{name}` lists names and its clients have nobody to ask for them; \
             write [dns] listen = [\"…:53\"]"
        ));
    }
}
