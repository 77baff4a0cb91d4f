//! From an image to the description of its table.

use super::{
    Action, Chain, FORWARD, Family, LearnedSet, MapKey, NetworkSet, Part, Rule, Ruleset, Tally,
    VerdictMap,
};
use crate::policy::ZoneId;
use crate::policy::image::{Image, Inbound, Mode, Unzoned, ZoneImage};
use crate::policy::links::InterfacePattern;
use crate::policy::port::{ClassId, ClassMask, ICMP, ICMPV6, PortSet, SCTP, TCP, UDP};
use egressd_common::verdict::Reason;
use ipnet::IpNet;
use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

// One word for one reason in every plane; where nft has reasons of its own they stand below.
const GRANTED: &str = Reason::Granted.word();
const NETWORK: &str = Reason::Network.word();
const INTERNAL: &str = Reason::Internal.word();
const SPOOFED: &str = Reason::Spoofed.word();
const UNZONED: &str = Reason::Unzoned.word();
const PORT: &str = Reason::PortClosed.word();
// Whether the address is open on other ports is not asked for a word's sake.
const ADDRESS: &str = Reason::NotGranted.word();

/// Protocols whose port conntrack knows (DCCP is 33, UDP-Lite 136).
const WITH_PORTS: [u8; 5] = [TCP, UDP, 33, SCTP, 136];

pub(super) fn ruleset(image: &Image) -> Ruleset {
    let mut ruleset = Ruleset::default();
    // Jumping into a chain of no rules costs a packet more than not jumping.
    let guarded = image.zones.iter().any(|zone| zone.inbound == Inbound::Deny);
    ruleset.chain(FORWARD, forward(image, guarded));
    if guarded {
        ruleset.chain(&into(None), inbound(image, None));
    }
    ruleset.network_set("internal", &image.internal);
    for zone in &image.zones {
        ruleset.zone(image, zone);
    }
    ruleset.learned.sort_unstable();
    ruleset.tallies = ruleset.counted();
    ruleset
}

fn forward(image: &Image, guarded: bool) -> Vec<Rule> {
    let mut rules = vec![
        vec![
            Part::Established,
            count(None, Action::Pass, "established"),
            Part::Accept,
        ],
        vec![
            Part::Related,
            Part::Protocol(ICMP),
            count(None, Action::Pass, "related"),
            Part::Accept,
        ],
        vec![
            Part::Related,
            Part::Protocol(ICMPV6),
            count(None, Action::Pass, "related"),
            Part::Accept,
        ],
    ];
    // Upstream is never a zone, however wide a zone's pattern is.
    for interface in &image.upstream {
        // Conntrack takes a TCP flow up from its middle: one that was cut would come back as an inbound
        // connection with the next segment of its server.
        rules.push(vec![
            Part::Entered(interface.clone()),
            Part::Midstream,
            count(None, Action::Drop, "midstream"),
            Part::Drop,
        ]);
        if guarded {
            rules.push(vec![
                Part::Entered(interface.clone()),
                Part::Jump(into(None)),
            ]);
        }
        rules.push(vec![
            Part::Entered(interface.clone()),
            count(None, Action::Pass, "upstream"),
            Part::Accept,
        ]);
    }
    for (interface, source, zone) in doors(image) {
        let mut rule = vec![Part::Entered(interface.clone())];
        rule.extend(source.map(Part::Source));
        rule.push(Part::Goto(chain(zone.id, "")));
        rules.push(rule);
    }
    // A source that no zone of its interface claims is forged, whatever `unzoned` says.
    let interfaces: BTreeSet<_> = (image.zones.iter())
        .flat_map(|zone| &zone.interfaces)
        .collect();
    let mut interfaces: Vec<_> = interfaces.into_iter().collect();
    interfaces.sort_by_key(|interface| Reverse(exactness(interface)));
    for interface in interfaces {
        let open =
            |zone: &ZoneImage| zone.sources.is_empty() && zone.interfaces.contains(interface);
        if image.zones.iter().any(open) {
            continue;
        }
        let entered = Part::Entered(interface.clone());
        let action = if all_audit(image, interface) {
            if guarded {
                rules.push(vec![entered.clone(), Part::Jump(into(None))]);
            }
            Action::Audit
        } else {
            Action::Drop
        };
        rules.extend(refuse(&[entered], tally(None, action, SPOOFED)));
    }
    match image.unzoned {
        Unzoned::Drop => rules.extend(refuse(&[], tally(None, Action::Drop, UNZONED))),
        Unzoned::Accept => {
            if guarded {
                rules.push(vec![Part::Jump(into(None))]);
            }
            rules.push(vec![count(None, Action::Pass, UNZONED), Part::Accept]);
        }
    }
    rules
}

/// Every (interface, source, zone), the most specific first: longest source, then exact before
/// pattern, then the longer pattern.
fn doors(image: &Image) -> Vec<(&InterfacePattern, Option<IpNet>, &ZoneImage)> {
    let mut doors: Vec<_> = image
        .zones
        .iter()
        .flat_map(|zone| {
            zone.interfaces
                .iter()
                .map(move |interface| (interface, zone))
        })
        .flat_map(|(interface, zone)| {
            let open = zone.sources.is_empty().then_some(None);
            let sources = zone.sources.iter().copied().map(Some).chain(open);
            sources.map(move |source| (interface, source, zone))
        })
        .collect();
    doors.sort_by_key(|(interface, source, zone)| {
        (
            Reverse(source.map(|net| net.prefix_len())),
            Reverse(exactness(interface)),
            zone.id,
            *source,
        )
    });
    doors
}

/// Larger for the pattern that is matched by fewer interfaces.
const fn exactness(interface: &InterfacePattern) -> usize {
    match interface {
        InterfacePattern::Exact(_) => usize::MAX,
        InterfacePattern::Prefix(stem) => stem.len(),
    }
}

/// Whether every zone is in audit mode that has all the interfaces `interface` matches. Zones that
/// have only some of them have patterns of their own, which are asked before this one.
fn all_audit(image: &Image, interface: &InterfacePattern) -> bool {
    let covers = |known: &InterfacePattern| match interface {
        InterfacePattern::Exact(name) => known.matches(name),
        InterfacePattern::Prefix(stem) => match known {
            InterfacePattern::Exact(_) => false,
            InterfacePattern::Prefix(known) => stem.starts_with(known),
        },
    };
    (image.zones.iter())
        .filter(|zone| zone.interfaces.iter().any(covers))
        .all(|zone| zone.mode == Mode::Audit)
}

/// Connections into zones that refuse them. A zone's own clients (`of`) reach each other.
fn inbound(image: &Image, of: Option<ZoneId>) -> Vec<Rule> {
    let refuses = |zone: &ZoneImage| match zone.inbound {
        Inbound::Deny => of != Some(zone.id),
        Inbound::Allow => false,
    };
    let refuse = |zone: &ZoneImage, matches: &[Part]| {
        refuse(matches, tally(Some(zone.id), Action::Drop, "inbound"))
    };
    let mut rules: Vec<Rule> = image
        .upstream
        .iter()
        .map(|interface| vec![Part::Leaves(interface.clone()), Part::Return])
        .collect();
    for (interface, source, zone) in doors(image) {
        let mut rule = vec![Part::Leaves(interface.clone())];
        rule.extend(source.map(Part::Destination));
        if refuses(zone) {
            rules.extend(refuse(zone, &rule));
        } else {
            rule.push(Part::Return);
            rules.push(rule);
        }
    }
    // Destinations that no zone claims: who is behind the interface all the same.
    for zone in image.zones.iter().filter(|zone| refuses(zone)) {
        for interface in zone.interfaces.iter().filter(|_| !zone.sources.is_empty()) {
            rules.extend(refuse(zone, &[Part::Leaves(interface.clone())]));
        }
    }
    rules
}

impl Ruleset {
    fn zone(&mut self, image: &Image, zone: &ZoneImage) {
        let id = zone.id;
        self.zones.insert(id, zone.name.clone());
        let mut rules = Vec::new();
        let foreign = |other: &ZoneImage| other.inbound == Inbound::Deny && other.id != id;
        let guarded = image.zones.iter().any(foreign);
        // Before anything of this zone's own: what it may reach is no way into another zone.
        if guarded {
            self.chain(&into(Some(id)), inbound(image, Some(id)));
            rules.push(vec![Part::Jump(into(Some(id)))]);
        }
        for family in Family::ALL {
            let set = format!("internal_{}", family.digit());
            if !self.networks.iter().any(|known| known.name == set) {
                continue;
            }
            let asked = Part::Asked(family, set);
            rules.push(vec![
                asked,
                count(Some(id), Action::Pass, INTERNAL),
                Part::Accept,
            ]);
        }
        rules.extend(self.services(image, zone));
        rules.push(vec![Part::Goto(chain(id, "_refuse_port"))]);
        self.chain(&chain(id, ""), rules);
        let refused = match zone.mode {
            Mode::Enforce => Action::Drop,
            Mode::Audit => Action::Audit,
        };
        self.chain(
            &chain(id, "_refuse_port"),
            refuse(&[], tally(Some(id), refused, PORT)),
        );
        self.chain(
            &chain(id, "_refuse_address"),
            refuse(&[], tally(Some(id), refused, ADDRESS)),
        );
    }

    /// The maps from protocol and port to the chain of the classes that hold them.
    fn services(&mut self, image: &Image, zone: &ZoneImage) -> Option<Rule> {
        let id = zone.id;
        for (class, _) in &image.classes {
            for family in Family::ALL {
                self.learned.push(LearnedSet {
                    zone: id,
                    class: *class,
                    family,
                });
            }
            self.network_set(&networks(id, *class), &zone.open_to(*class));
        }
        let mut protocols = Vec::new();
        let mut masks = BTreeSet::new();
        for (protocol, ranges) in segments(&image.classes) {
            masks.extend(ranges.iter().map(|(.., mask)| *mask));
            let target = match ranges[..] {
                [(0, u16::MAX, mask)] => classes(id, mask),
                _ => {
                    let ports = |(first, last, mask)| (first, last, classes(id, mask));
                    let entries = ranges.into_iter().map(ports).collect();
                    let name = chain(id, &format!("_p{protocol}"));
                    self.maps.push(VerdictMap {
                        name: name.clone(),
                        key: MapKey::Port,
                        entries,
                    });
                    let refuse = vec![Part::Goto(chain(id, "_refuse_port"))];
                    self.chain(
                        &name,
                        vec![vec![Part::Map(MapKey::Port, name.clone())], refuse],
                    );
                    name
                }
            };
            protocols.push((u16::from(protocol), u16::from(protocol), target));
        }
        for mask in masks {
            self.classes(id, mask);
        }
        if protocols.is_empty() {
            return None;
        }
        let name = chain(id, "_protocols");
        let map = VerdictMap {
            name: name.clone(),
            key: MapKey::Protocol,
            entries: protocols,
        };
        self.maps.push(map);
        Some(vec![Part::Map(MapKey::Protocol, name)])
    }

    /// The chain that asks the sets of every class of `mask`.
    fn classes(&mut self, zone: ZoneId, mask: ClassMask) {
        let mut rules = Vec::new();
        for class in mask.classes() {
            for family in Family::ALL {
                let learned = LearnedSet {
                    zone,
                    class,
                    family,
                }
                .to_string();
                let granted = count(Some(zone), Action::Pass, GRANTED);
                rules.push(vec![Part::Asked(family, learned), granted, Part::Accept]);
                let set = format!("{}_{}", networks(zone, class), family.digit());
                if self.networks.iter().any(|known| known.name == set) {
                    let network = count(Some(zone), Action::Pass, NETWORK);
                    rules.push(vec![Part::Asked(family, set), network, Part::Accept]);
                }
            }
        }
        rules.push(vec![Part::Goto(chain(zone, "_refuse_address"))]);
        self.chain(&classes(zone, mask), rules);
    }

    fn chain(&mut self, name: &str, rules: Vec<Rule>) {
        self.chains.push(Chain {
            name: name.to_owned(),
            rules,
        });
    }

    /// One interval set per family that has networks at all.
    fn network_set(&mut self, stem: &str, networks: &[IpNet]) {
        for family in Family::ALL {
            let ranges = ranges(networks, family);
            if !ranges.is_empty() {
                let name = format!("{stem}_{}", family.digit());
                self.networks.push(NetworkSet {
                    name,
                    family,
                    ranges,
                });
            }
        }
    }

    fn counted(&self) -> Vec<Tally> {
        let parts = self
            .chains
            .iter()
            .flat_map(|chain| chain.rules.iter().flatten());
        let tallies: BTreeSet<Tally> = parts
            .filter_map(|part| {
                if let Part::Count(tally) = part {
                    Some(tally.clone())
                } else {
                    None
                }
            })
            .collect();
        tallies.into_iter().collect()
    }
}

impl ZoneImage {
    fn open_to(&self, class: ClassId) -> Vec<IpNet> {
        let open = |(_, mask): &&(IpNet, ClassMask)| mask.meets(ClassMask::of(class));
        self.networks
            .iter()
            .filter(open)
            .map(|(net, _)| *net)
            .collect()
    }
}

/// Per protocol, disjoint port ranges with the classes that hold all of the range. A protocol
/// without ports has at most the whole range.
fn segments(classes: &[(ClassId, PortSet)]) -> BTreeMap<u8, Vec<(u16, u16, ClassMask)>> {
    let services = classes.iter().flat_map(|(_, ports)| ports.services());
    let protocols: BTreeSet<u8> = services.map(|service| service.protocol).collect();
    protocols
        .into_iter()
        .map(|protocol| {
            let holding = |port| {
                classes
                    .iter()
                    .filter(|(_, ports)| ports.contains(protocol, port))
                    .fold(ClassMask::NONE, |mask, (class, _)| mask.with(*class))
            };
            if !WITH_PORTS.contains(&protocol) {
                return (protocol, vec![(0, u16::MAX, holding(0))]);
            }
            let mut starts: BTreeSet<u16> = BTreeSet::from([0]);
            for service in classes.iter().flat_map(|(_, ports)| ports.services()) {
                if service.protocol == protocol {
                    starts.insert(service.first);
                    starts.extend(service.last.checked_add(1));
                }
            }
            let mut ranges: Vec<(u16, u16, ClassMask)> = Vec::new();
            for &start in starts.iter().rev() {
                let last = ranges.last().map_or(u16::MAX, |(next, ..)| next - 1);
                ranges.push((start, last, holding(start)));
            }
            ranges.reverse();
            ranges.retain(|(.., mask)| !mask.is_empty());
            (protocol, ranges)
        })
        .filter(|(_, ranges)| ranges.iter().any(|(.., mask)| !mask.is_empty()))
        .collect()
}

/// The addresses of `networks` as sorted ranges that neither overlap nor touch.
fn ranges(networks: &[IpNet], family: Family) -> Vec<(IpAddr, IpAddr)> {
    let mut sorted: Vec<(IpAddr, IpAddr)> = networks
        .iter()
        .filter(|net| Family::of_net(**net) == family)
        .map(|net| (net.network(), net.broadcast()))
        .collect();
    sorted.sort_unstable();
    let mut merged: Vec<(IpAddr, IpAddr)> = Vec::with_capacity(sorted.len());
    for (first, last) in sorted {
        match merged.last_mut() {
            Some((_, end)) if after(*end).is_none_or(|next| first <= next) => *end = last.max(*end),
            Some(_) | None => merged.push((first, last)),
        }
    }
    merged
}

/// The address after this one in its family, if there is one.
pub(in crate::plane) fn after(address: IpAddr) -> Option<IpAddr> {
    match address {
        IpAddr::V4(v4) => v4
            .to_bits()
            .checked_add(1)
            .map(|n| Ipv4Addr::from_bits(n).into()),
        IpAddr::V6(v6) => v6
            .to_bits()
            .checked_add(1)
            .map(|n| Ipv6Addr::from_bits(n).into()),
    }
}

fn tally(zone: Option<ZoneId>, action: Action, reason: &'static str) -> Tally {
    Tally {
        zone,
        action,
        reason,
    }
}

fn count(zone: Option<ZoneId>, action: Action, reason: &'static str) -> Part {
    Part::Count(tally(zone, action, reason))
}

/// Reports (within the rate), counts and ends every packet that matches `matches`.
fn refuse(matches: &[Part], tally: Tally) -> Vec<Rule> {
    let end = match tally.action {
        Action::Drop => Part::Drop,
        Action::Audit | Action::Pass => Part::Accept,
    };
    vec![
        [matches, &[Part::Report(tally.clone())]].concat(),
        [matches, &[Part::Count(tally), end]].concat(),
    ]
}

fn chain(zone: ZoneId, suffix: &str) -> String {
    format!("z{zone}{suffix}")
}

fn into(zone: Option<ZoneId>) -> String {
    zone.map_or_else(|| "inbound".to_owned(), |zone| chain(zone, "_inbound"))
}

fn networks(zone: ZoneId, class: ClassId) -> String {
    format!("z{zone}_n{}", class.0)
}

fn classes(zone: ZoneId, mask: ClassMask) -> String {
    format!("z{zone}_m{:x}", mask.0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plane::ruleset::Generation;
    use crate::policy::port::Service;

    fn zone(id: u16, interface: &str, sources: &[&str]) -> ZoneImage {
        ZoneImage {
            id: ZoneId(id),
            name: format!("zone{id}"),
            interfaces: vec![InterfacePattern::parse(interface).unwrap()],
            sources: sources
                .iter()
                .map(|source| source.parse().unwrap())
                .collect(),
            mode: Mode::Enforce,
            inbound: Inbound::Allow,
            serves: Vec::new(),
            networks: Vec::new(),
        }
    }

    fn image(zones: Vec<ZoneImage>) -> Image {
        Image {
            upstream: vec![InterfacePattern::parse("wan*").unwrap()],
            classes: vec![(ClassId(0), PortSet::new([Service::tcp(443)]))],
            zones,
            ..Image::default()
        }
    }

    /// The rules of one chain, without those that only report.
    fn check(image: &Image, chain: &str, expected: &[&str]) {
        let ruleset = Ruleset::new(image, Generation::A);
        let found = ruleset.chains.iter().find(|known| known.name == chain);
        let text = found
            .unwrap_or_else(|| panic!("no chain {chain} in\n{ruleset}"))
            .to_string();
        let rules: Vec<&str> = text
            .lines()
            .map(str::trim)
            .filter(|line| !line.contains(" log ") && !line.starts_with("limit"))
            .collect();
        assert_eq!(rules[1..rules.len() - 1], *expected, "{ruleset}");
    }

    const HEAD: [&str; 4] = [
        "type filter hook forward priority filter; policy drop;",
        "ct state established counter name \"any_pass_established\" accept",
        "ct state related meta l4proto 1 counter name \"any_pass_related\" accept",
        "ct state related meta l4proto 58 counter name \"any_pass_related\" accept",
    ];
    const MIDSTREAM: &str = "iifname \"wan*\" tcp flags != syn / fin,syn,rst,ack counter name \"any_drop_midstream\" drop";
    const UPSTREAM: &str = "iifname \"wan*\" counter name \"any_pass_upstream\" accept";
    const REST: &str = "counter name \"any_drop_unzoned\" drop";

    /// `doors` are the rules behind those of upstream.
    fn forward(image: &Image, doors: &[&str]) {
        let (upstream, doors): (Vec<&str>, Vec<&str>) = doors
            .iter()
            .partition(|rule| rule.starts_with("iifname \"wan*\""));
        check(
            image,
            FORWARD,
            &[&HEAD[..], &[MIDSTREAM], &upstream, &doors].concat(),
        );
    }

    #[test]
    fn the_most_specific_source_comes_first() {
        let wide = zone(0, "lan0", &["10.0.0.0/8"]);
        let narrow = zone(1, "lan*", &["10.1.0.0/16", "2001:db8::/32"]);
        let all = zone(2, "lan*", &[]);
        forward(
            &image(vec![wide.clone(), narrow.clone(), all]),
            &[
                UPSTREAM,
                "iifname \"lan*\" ip6 saddr 2001:db8::/32 goto z1_a",
                "iifname \"lan*\" ip saddr 10.1.0.0/16 goto z1_a",
                "iifname \"lan0\" ip saddr 10.0.0.0/8 goto z0_a",
                "iifname \"lan*\" goto z2_a",
                "iifname \"lan0\" counter name \"any_drop_spoofed\" drop",
                REST,
            ],
        );
        // Equal sources: the interface that is named exactly comes first.
        forward(
            &image(vec![
                zone(0, "lan*", &["10.0.0.0/8"]),
                zone(1, "lan0", &["10.0.0.0/8"]),
            ]),
            &[
                UPSTREAM,
                "iifname \"lan0\" ip saddr 10.0.0.0/8 goto z1_a",
                "iifname \"lan*\" ip saddr 10.0.0.0/8 goto z0_a",
                "iifname \"lan0\" counter name \"any_drop_spoofed\" drop",
                "iifname \"lan*\" counter name \"any_drop_spoofed\" drop",
                REST,
            ],
        );
    }

    #[test]
    fn a_forged_source_is_dropped_even_where_others_may_pass() {
        let mut image = image(vec![zone(0, "lan0", &["10.0.0.0/8"])]);
        image.unzoned = Unzoned::Accept;
        forward(
            &image,
            &[
                UPSTREAM,
                "iifname \"lan0\" ip saddr 10.0.0.0/8 goto z0_a",
                "iifname \"lan0\" counter name \"any_drop_spoofed\" drop",
                "counter name \"any_pass_unzoned\" accept",
            ],
        );
    }

    #[test]
    fn a_forged_source_passes_where_every_zone_is_in_audit_mode() {
        let mut zones = vec![
            zone(0, "lan*", &["10.0.0.0/8"]),
            zone(1, "lan0", &["10.1.0.0/16"]),
            zone(2, "lab*", &["10.2.0.0/16"]),
            zone(3, "l*", &["10.3.0.0/16"]),
        ];
        for id in [0, 2, 3] {
            zones[id].mode = Mode::Audit;
        }
        let mut image = image(zones);
        let doors = [
            UPSTREAM,
            "iifname \"lan0\" ip saddr 10.1.0.0/16 goto z1_a",
            "iifname \"lab*\" ip saddr 10.2.0.0/16 goto z2_a",
            "iifname \"l*\" ip saddr 10.3.0.0/16 goto z3_a",
            "iifname \"lan*\" ip saddr 10.0.0.0/8 goto z0_a",
        ];
        let spoofed = [
            "iifname \"lan0\" counter name \"any_drop_spoofed\" drop",
            "iifname \"lab*\" counter name \"any_audit_spoofed\" accept",
            "iifname \"lan*\" counter name \"any_audit_spoofed\" accept",
            "iifname \"l*\" counter name \"any_audit_spoofed\" accept",
            REST,
        ];
        forward(&image, &[&doors[..], &spoofed].concat());
        // A zone around all of them that enforces.
        image.zones[3].mode = Mode::Enforce;
        let dropped: Vec<String> = spoofed
            .iter()
            .map(|rule| rule.replace("audit_spoofed\" accept", "drop_spoofed\" drop"))
            .collect();
        let dropped: Vec<&str> = dropped.iter().map(String::as_str).collect();
        forward(&image, &[&doors[..], &dropped].concat());
        // Audit of one zone is no way into another.
        let mut image = self::image(vec![zone(0, "lan0", &["10.0.0.0/8"]), zone(1, "dmz", &[])]);
        image.zones[0].mode = Mode::Audit;
        image.zones[1].inbound = Inbound::Deny;
        forward(
            &image,
            &[
                "iifname \"wan*\" jump inbound_a",
                UPSTREAM,
                "iifname \"lan0\" ip saddr 10.0.0.0/8 goto z0_a",
                "iifname \"dmz\" goto z1_a",
                "iifname \"lan0\" jump inbound_a",
                "iifname \"lan0\" counter name \"any_audit_spoofed\" accept",
                REST,
            ],
        );
    }

    #[test]
    fn upstream_is_upstream_whatever_zones_match() {
        let mut everywhere = zone(0, "*", &[]);
        everywhere.inbound = Inbound::Deny;
        let image = image(vec![everywhere, zone(1, "lan0", &["10.0.0.0/8"])]);
        forward(
            &image,
            &[
                "iifname \"wan*\" jump inbound_a",
                UPSTREAM,
                "iifname \"lan0\" ip saddr 10.0.0.0/8 goto z1_a",
                "iifname \"*\" goto z0_a",
                "iifname \"lan0\" counter name \"any_drop_spoofed\" drop",
                REST,
            ],
        );
        // What leaves there is not on its way into the zone.
        check(
            &image,
            "z1_inbound_a",
            &[
                "oifname \"wan*\" return",
                "oifname \"lan0\" ip daddr 10.0.0.0/8 return",
                "oifname \"*\" counter name \"z0_drop_inbound\" drop",
            ],
        );
    }

    #[test]
    fn nothing_opens_connections_into_a_zone_that_denies_it() {
        let mut closed = zone(0, "lan0", &["10.0.0.0/8"]);
        closed.inbound = Inbound::Deny;
        let mut image = image(vec![closed, zone(1, "lan0", &["10.1.0.0/16"])]);
        image.internal = vec!["10.0.0.0/8".parse().unwrap()];
        forward(
            &image,
            &[
                "iifname \"wan*\" jump inbound_a",
                UPSTREAM,
                "iifname \"lan0\" ip saddr 10.1.0.0/16 goto z1_a",
                "iifname \"lan0\" ip saddr 10.0.0.0/8 goto z0_a",
                "iifname \"lan0\" counter name \"any_drop_spoofed\" drop",
                REST,
            ],
        );
        let upstream = "oifname \"wan*\" return";
        let open = "oifname \"lan0\" ip daddr 10.1.0.0/16 return";
        let closed = "oifname \"lan0\" ip daddr 10.0.0.0/8 counter name \"z0_drop_inbound\" drop";
        // What is behind its interface and in no zone is as closed.
        let unclaimed = "oifname \"lan0\" counter name \"z0_drop_inbound\" drop";
        let rules = [upstream, open, closed, unclaimed];
        check(&image, "inbound_a", &rules);
        check(&image, "z1_inbound_a", &rules);
        check(
            &image,
            "z1_a",
            &[
                "jump z1_inbound_a",
                "ct original ip daddr @internal_4_a counter name \"z1_pass_internal\" accept",
                "meta l4proto vmap @z1_protocols_a",
                "goto z1_refuse_port_a",
            ],
        );
        // Its own clients reach each other.
        check(
            &image,
            "z0_a",
            &[
                "ct original ip daddr @internal_4_a counter name \"z0_pass_internal\" accept",
                "meta l4proto vmap @z0_protocols_a",
                "goto z0_refuse_port_a",
            ],
        );
    }

    #[test]
    fn audit_only_counts() {
        let mut zone = zone(0, "lan0", &[]);
        zone.mode = Mode::Audit;
        let image = image(vec![zone]);
        check(
            &image,
            "z0_refuse_port_a",
            &["counter name \"z0_audit_port-closed\" accept"],
        );
        check(
            &image,
            "z0_refuse_address_a",
            &["counter name \"z0_audit_not-granted\" accept"],
        );
    }

    #[test]
    fn a_zone_without_anything_refuses_everything() {
        let mut image = image(vec![zone(0, "lan0", &[])]);
        image.classes.clear();
        check(&image, "z0_a", &["goto z0_refuse_port_a"]);
    }

    #[test]
    fn ports_become_disjoint_ranges() {
        fn check(classes: &[&[Service]], expected: &str) {
            let classes: Vec<_> = (0u8..)
                .zip(classes)
                .map(|(bit, services)| (ClassId(bit), PortSet::new(services.iter().copied())))
                .collect();
            let text: Vec<String> = segments(&classes)
                .into_iter()
                .flat_map(|(protocol, ranges)| {
                    ranges.into_iter().map(move |(first, last, mask)| {
                        format!("{protocol}:{first}-{last}={:x}", mask.0)
                    })
                })
                .collect();
            assert_eq!(text.join(" "), expected);
        }
        let range = |first, last| Service {
            protocol: TCP,
            first,
            last,
        };
        check(&[&[range(443, 443)]], "6:443-443=1");
        check(
            &[&[range(80, 90)], &[range(85, 100)]],
            "6:80-84=1 6:85-90=3 6:91-100=2",
        );
        check(
            &[&[range(0, 65535)], &[range(443, 443)]],
            "6:0-442=1 6:443-443=3 6:444-65535=1",
        );
        check(
            &[&[range(65535, 65535)], &[range(0, 0)]],
            "6:0-0=2 6:65535-65535=1",
        );
        check(
            &[&[Service::udp(53)], &[Service::tcp(53)]],
            "6:53-53=2 17:53-53=1",
        );
        check(
            &[&[Service::whole(50)], &[Service::whole(50)]],
            "50:0-65535=3",
        );
        // A port of a protocol that has none matches no packet.
        check(
            &[&[Service {
                protocol: 50,
                first: 7,
                last: 9,
            }]],
            "",
        );
        check(&[], "");
    }

    #[test]
    fn networks_become_disjoint_ranges() {
        fn check(networks: &[&str], family: Family, expected: &str) {
            let networks: Vec<IpNet> = networks.iter().map(|net| net.parse().unwrap()).collect();
            let text: Vec<String> = ranges(&networks, family)
                .into_iter()
                .map(|(first, last)| format!("{first}-{last}"))
                .collect();
            assert_eq!(text.join(" "), expected);
        }
        check(
            &["10.0.0.0/8", "10.1.0.0/16"],
            Family::V4,
            "10.0.0.0-10.255.255.255",
        );
        check(
            &["10.0.2.0/24", "10.0.1.0/24"],
            Family::V4,
            "10.0.1.0-10.0.2.255",
        );
        check(&["10.0.0.1/24"], Family::V4, "10.0.0.0-10.0.0.255");
        check(
            &["255.255.255.255/32", "0.0.0.0/32"],
            Family::V4,
            "0.0.0.0-0.0.0.0 255.255.255.255-255.255.255.255",
        );
        check(
            &["0.0.0.0/0", "1.0.0.0/8"],
            Family::V4,
            "0.0.0.0-255.255.255.255",
        );
        check(&["::/0"], Family::V4, "");
        check(
            &["2001:db8::/33", "2001:db8:8000::/33"],
            Family::V6,
            "2001:db8::-2001:db8:ffff:ffff:ffff:ffff:ffff:ffff",
        );
    }

    #[test]
    fn every_name_that_is_used_exists() {
        let mut zones = vec![zone(0, "lan0", &["10.0.0.0/8"]), zone(7, "*", &[])];
        zones[1].inbound = Inbound::Deny;
        zones[0].networks = vec![("192.0.2.0/24".parse().unwrap(), ClassMask(3))];
        let mut image = image(zones);
        image.internal = vec!["fd00::/8".parse().unwrap()];
        image.classes.push((
            ClassId(1),
            PortSet::new([Service::udp(53), Service::whole(47)]),
        ));
        for generation in [Generation::A, Generation::B] {
            let ruleset = Ruleset::new(&image, generation);
            let chains: BTreeSet<String> = ruleset.chains.iter().map(|c| c.name.clone()).collect();
            let sets: BTreeSet<String> = (ruleset.networks.iter().map(|set| set.name.clone()))
                .chain(ruleset.learned.iter().map(LearnedSet::to_string))
                .collect();
            let maps: BTreeSet<String> = ruleset.maps.iter().map(|map| map.name.clone()).collect();
            for part in ruleset
                .chains
                .iter()
                .flat_map(|chain| chain.rules.iter().flatten())
            {
                match part {
                    Part::Goto(name) | Part::Jump(name) => assert!(chains.contains(name), "{name}"),
                    Part::Asked(_, name) => assert!(sets.contains(name), "{name}"),
                    Part::Map(_, name) => assert!(maps.contains(name), "{name}"),
                    Part::Count(tally) => assert!(ruleset.tallies.contains(tally), "{tally}"),
                    Part::Established
                    | Part::Related
                    | Part::Protocol(_)
                    | Part::Midstream
                    | Part::Entered(_)
                    | Part::Leaves(_)
                    | Part::Source(_)
                    | Part::Destination(_)
                    | Part::Report(_)
                    | Part::Return
                    | Part::Accept
                    | Part::Drop => {}
                }
            }
            for (.., chain) in ruleset.maps.iter().flat_map(|map| &map.entries) {
                assert!(chains.contains(chain), "{chain}");
            }
        }
    }
}
