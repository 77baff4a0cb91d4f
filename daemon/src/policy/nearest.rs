//! What comes nearest to allowing a flow that is refused: the endpoint set that needs the least to be
//! changed, and what that is.

use super::ZoneId;
use super::catalogue::EndpointSet;
use super::grant::Policy;
use super::name::Name;
use super::rules::{SetId, ZoneRules};
use std::fmt;
use std::net::IpAddr;

/// A flow that was refused.
#[derive(Clone, Copy, Debug)]
pub struct Flow<'a> {
    /// The name that its client asked for and that led there, if it is known.
    pub name: Option<&'a Name>,
    /// Where it goes.
    pub address: IpAddr,
    /// IANA protocol number.
    pub protocol: u8,
    /// Destination port; 0 where the protocol has none.
    pub port: u16,
}

/// The nearest set. As text a phrase that names sets and zones, never domain names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Nearest {
    /// The set, as `catalogue/id`.
    pub set: String,
    /// What is in its way.
    pub hurdle: Hurdle,
}

/// What keeps a set from allowing a flow. The lower the nearer.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Hurdle {
    /// The zone denies the set, which vetoes all others.
    Denied,
    /// Nothing but an answer: the client keeps an address from before, or has it from elsewhere.
    Unasked,
    /// The name is under a wildcard over a shared domain that the zone did not accept.
    Shared,
    /// The zone of this name allows the set, but these axes of its scope keep it out.
    Scope(String, Vec<&'static str>),
    /// The zone of this name does not allow the set.
    NotAllowed(String),
    /// The set is allowed, on these ports.
    Ports(String),
    /// The zone of this name does not allow the set, which has these ports only.
    NotAllowedNorPorts(String, String),
}

impl fmt::Display for Nearest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { set, hurdle } = self;
        match hurdle {
            Hurdle::Denied => write!(f, "set {set} is denied, which vetoes all others"),
            Hurdle::Unasked => write!(
                f,
                "set {set} would, once the client asks egressd for the name again"
            ),
            Hurdle::Shared => write!(
                f,
                "set {set} would, under a wildcard that the zone's `shared` does not name"
            ),
            Hurdle::Scope(zone, axes) => {
                write!(f, "set {set} would, zone {zone} has another scope: ")?;
                f.write_str(&axes.join(", "))
            }
            Hurdle::NotAllowed(zone) => {
                write!(f, "set {set} would, zone {zone} does not allow it")
            }
            Hurdle::Ports(ports) => write!(f, "set {set} allows {ports} only"),
            Hurdle::NotAllowedNorPorts(zone, ports) => write!(
                f,
                "set {set} has {ports} only, and zone {zone} does not allow it"
            ),
        }
    }
}

impl Policy {
    /// What comes nearest to allowing `flow` to `zone`; `None` where no set of any catalogue speaks of
    /// its name or address. Costs a look at every set: not for every packet.
    #[must_use]
    pub fn nearest(&self, zone: ZoneId, flow: Flow<'_>) -> Option<Nearest> {
        let rules = self.rules();
        let compiled = rules.zone(zone)?;
        let denied_name = flow
            .name
            .and_then(|name| rules.denials(zone, name).next())
            .map(|set| rules.row(set).label());
        if let Some(set) = denied_name.or_else(|| self.denied_network(compiled, flow.address)) {
            return Some(Nearest {
                set,
                hurdle: Hurdle::Denied,
            });
        }
        let reached = compiled.sets.iter().filter_map(|id| {
            let row = rules.row(*id);
            let hurdle = self.of_reached(compiled, *id, flow)?;
            Some((hurdle, row.label()))
        });
        let elsewhere = rules.intent().catalogues.iter().flat_map(|catalogue| {
            let others = catalogue.sets.iter().filter_map(|set| {
                let hurdle = of_unreached(compiled, &catalogue.name, set, flow)?;
                let is_it = |id: &SetId| {
                    let row = rules.row(*id);
                    row.catalogue == catalogue.name && row.set.id == set.id
                };
                let reached = compiled.sets.iter().any(is_it);
                (!reached).then(|| (hurdle, label(&catalogue.name, set)))
            });
            others.collect::<Vec<_>>()
        });
        let (hurdle, set) = reached.chain(elsewhere).min()?;
        Some(Nearest { set, hurdle })
    }

    /// The `deny` set of the zone that has a network around `address`.
    fn denied_network(&self, zone: &ZoneRules, address: IpAddr) -> Option<String> {
        if !zone
            .denied_networks
            .iter()
            .any(|net| net.contains(&address))
        {
            return None;
        }
        let catalogues = self.rules().intent().catalogues.iter();
        let mut sets =
            catalogues.flat_map(|catalogue| catalogue.sets.iter().map(move |set| (catalogue, set)));
        let (catalogue, set) = sets.find(|(catalogue, set)| {
            let denied = |s: &super::zone::Selector| s.selects(&catalogue.name, set);
            zone.spec.deny.iter().any(denied)
                && set.networks.iter().any(|net| net.contains(&address))
        })?;
        Some(label(&catalogue.name, set))
    }

    fn of_reached(&self, zone: &ZoneRules, id: SetId, flow: Flow<'_>) -> Option<Hurdle> {
        let set = &self.rules().row(id).set;
        if !covers(set, flow) {
            return None;
        }
        if !set.ports.contains(flow.protocol, flow.port) {
            return (!set.ports.is_empty()).then(|| Hurdle::Ports(set.ports.to_string()));
        }
        let lists = |name: &Name| {
            let accepted = |pattern| !zone.inert.contains(&(id, pattern));
            let mut patterns = set.patterns.iter();
            patterns.any(|pattern| pattern.matches(name) && accepted(pattern.clone()))
        };
        Some(if flow.name.is_some_and(lists) {
            Hurdle::Unasked
        } else if flow.name.is_some_and(|name| matches(set, name)) {
            Hurdle::Shared
        } else {
            // A network on an open port that was refused all the same: the planes lag behind.
            return None;
        })
    }
}

fn of_unreached(
    zone: &ZoneRules,
    catalogue: &str,
    set: &EndpointSet,
    flow: Flow<'_>,
) -> Option<Hurdle> {
    if !covers(set, flow) || set.ports.is_empty() {
        return None;
    }
    let name = zone.spec.name.clone();
    if !set.ports.contains(flow.protocol, flow.port) {
        return Some(Hurdle::NotAllowedNorPorts(name, set.ports.to_string()));
    }
    let allows = |selector: &super::zone::Selector| selector.selects(catalogue, set);
    if zone.spec.allow.iter().any(allows) {
        let axes = set.scope.unmet(&zone.spec.scope).collect();
        return Some(Hurdle::Scope(name, axes));
    }
    Some(Hurdle::NotAllowed(name))
}

/// As [`super::rules::Row::label`].
fn label(catalogue: &str, set: &EndpointSet) -> String {
    format!("{catalogue}/{}", set.id)
}

fn covers(set: &EndpointSet, flow: Flow<'_>) -> bool {
    set.networks.iter().any(|net| net.contains(&flow.address))
        || flow.name.is_some_and(|name| matches(set, name))
}

fn matches(set: &EndpointSet, name: &Name) -> bool {
    set.patterns.iter().any(|pattern| pattern.matches(name))
}

#[cfg(test)]
mod tests {
    use super::super::port::{TCP, UDP};
    use super::super::tests::{intent, ip, links};
    use super::*;
    use std::sync::Arc;

    #[test]
    fn what_comes_nearest() {
        let check =
            |allow: &[&str], deny: &[&str], name: &str, to: &str, service, expected: &str| {
                let mut intent = intent(allow, deny);
                intent.zones[0].scope.regions = vec!["eu".to_owned()];
                let sets = &mut intent.catalogues[0].sets;
                let mut far = sets[1].clone();
                far.id = "far".to_owned();
                far.patterns = vec![super::super::name::Pattern::parse("f.far.example").unwrap()];
                far.scope.regions = vec!["ap".to_owned()];
                sets.push(far);
                let policy = Policy::new(Arc::new(intent), links()).unwrap();
                let name: Option<Name> = (!name.is_empty()).then(|| name.parse().unwrap());
                let (protocol, port) = service;
                let flow = Flow {
                    name: name.as_ref(),
                    address: ip(to),
                    protocol,
                    port,
                };
                let found = policy.nearest(ZoneId(0), flow);
                let found = found.map_or(String::new(), |nearest| nearest.to_string());
                assert_eq!(found, expected, "{allow:?} {deny:?} {flow:?}");
            };
        const WEB: (u8, u16) = (TCP, 443);
        const SSH: (u8, u16) = (TCP, 22);
        const TIME: (u8, u16) = (UDP, 123);
        let ports = "set c/web allows tcp/443 only";
        check(&["c"], &[], "x.a.example", "20.0.0.1", SSH, ports);
        check(&["c"], &[], "", "52.0.0.1", SSH, ports);
        let again = "set c/web would, once the client asks egressd for the name again";
        check(&["c"], &[], "x.a.example", "20.0.0.1", WEB, again);
        // A set that needs only to be allowed is nearer than one with other ports.
        let not = "set c/time would, zone z does not allow it";
        check(&["c/web"], &[], "t.a.example", "20.0.0.1", TIME, not);
        let neither = "set c/web has tcp/443 only, and zone z does not allow it";
        check(&["c/shared"], &[], "b.example", "20.0.0.1", SSH, neither);
        check(
            &["c/time"],
            &[],
            "",
            "52.0.0.1",
            WEB,
            "set c/web would, zone z does not allow it",
        );
        let shared = "set c/shared would, under a wildcard that the zone's `shared` does not name";
        check(&["c"], &[], "x.azureedge.net", "20.0.0.1", WEB, shared);
        let denied = "set c/hole is denied, which vetoes all others";
        check(
            &["c"],
            &["c/hole"],
            "bad.a.example",
            "20.0.0.1",
            WEB,
            denied,
        );
        check(&["c"], &["c/hole"], "", "52.0.128.1", WEB, denied);
        let scope = "set c/far would, zone z has another scope: regions";
        check(&["c"], &[], "f.far.example", "20.0.0.1", TIME, scope);
        check(&["c"], &[], "other.example", "20.0.0.1", WEB, "");
        check(&["c"], &[], "", "20.0.0.1", WEB, "");
    }
}
