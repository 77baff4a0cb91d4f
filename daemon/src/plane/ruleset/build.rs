//! From an image to the description of its table.

use super::{
    Action, Chain, FORWARD, Family, LearnedSet, MapKey, NetworkSet, Part, Rule, Ruleset, Tally,
    VerdictMap, Way, Word, observed, output, redirect,
};
use crate::policy::ZoneId;
use crate::policy::image::{Image, Inbound, Mode, Refusal, Unzoned, ZoneImage};
use crate::policy::links::InterfacePattern;
use crate::policy::port::{ClassId, ClassMask, ICMP, ICMPV6, PortSet, SCTP, Service, TCP, UDP};
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

/// Protocols whose packets themselves tell an answer from a beginning.
const TELLING: [u8; 4] = [TCP, SCTP, ICMP, ICMPV6];

pub(super) fn ruleset(image: &Image) -> Ruleset {
    let mut ruleset = Ruleset::default();
    // Jumping into a chain of no rules costs a packet more than not jumping.
    let guarded = image.zones.iter().any(|zone| zone.inbound == Inbound::Deny);
    ruleset.chain(FORWARD, forward(image, guarded));
    observed::add(&mut ruleset, image);
    if guarded {
        ruleset.chain(&into(None), inbound(image, None));
    }
    ruleset.network_set("internal", &image.internal);
    for zone in &image.zones {
        ruleset.zone(image, zone);
    }
    ruleset.chains.extend(redirect::chains(image));
    output::add(&mut ruleset, image);
    ruleset.learned.sort_unstable();
    ruleset.tallies = ruleset.counted();
    ruleset
}

/// What goes on in a flow that was let through, the way it began.
pub(super) fn began() -> Rule {
    established(&[Part::Way(Way::Original)])
}

/// Both ways of such a flow of a protocol that tells them apart. Others come back after they were cut, with the
/// next datagram of their server, as a flow that began outside: their answers are judged.
pub(super) fn telling() -> [Rule; 4] {
    TELLING.map(|protocol| established(&[Part::Protocol(protocol)]))
}

/// Answers of a service.
pub(super) fn served(service: &Service) -> Rule {
    let protocol = Part::Protocol(service.protocol);
    let port = (service.protocol == UDP).then_some(Part::SourcePort(service.first));
    let matches: Vec<Part> = [protocol].into_iter().chain(port).collect();
    established(&matches)
}

fn established(matches: &[Part]) -> Rule {
    let end = [count(None, Action::Pass, "established"), Part::Accept];
    [&[Part::Established], matches, &end].concat()
}

/// Messages of this protocol about such a flow.
pub(super) fn related(protocol: u8) -> Rule {
    vec![
        Part::Related,
        Part::Protocol(protocol),
        count(None, Action::Pass, "related"),
        Part::Accept,
    ]
}

fn forward(image: &Image, guarded: bool) -> Vec<Rule> {
    let mut rules = vec![began()];
    let upstream = |interface: &InterfacePattern| established(&[Part::Entered(interface.clone())]);
    rules.extend(image.upstream.iter().map(upstream));
    rules.extend(telling());
    rules.extend([ICMP, ICMPV6].map(related));
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
        // The same with a question that was cut to be redirected: the late answer of the resolver it went
        // to would begin a flow into the zone, and every further question would belong to that.
        if image.zones.iter().any(|zone| !zone.redirect.is_empty()) {
            rules.push(vec![
                Part::Entered(interface.clone()),
                Part::Protocol(UDP),
                Part::SourcePort(crate::policy::redirect::PORT),
                count(None, Action::Drop, "midstream"),
                Part::Drop,
            ]);
        }
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
    rules.push(established(&[]));
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
pub(super) fn doors(image: &Image) -> Vec<(&InterfacePattern, Option<IpNet>, &ZoneImage)> {
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
        // A flow that began outside asked for this zone: what answers goes to whoever began it.
        let back = End::Present.chain(id, "");
        let mut rules = vec![vec![Part::Way(Way::Reply), Part::Goto(back.clone())]];
        let foreign = |other: &ZoneImage| other.inbound == Inbound::Deny && other.id != id;
        let guarded = image.zones.iter().any(foreign);
        // Before anything of this zone's own: what it may reach is no way into another zone.
        if guarded {
            self.chain(&into(Some(id)), inbound(image, Some(id)));
            rules.push(vec![Part::Jump(into(Some(id)))]);
        }
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
        rules.extend(self.open(image, id, End::Asked));
        self.chain(&chain(id, ""), rules);
        let mut answers: Vec<Rule> = zone.serves.iter().map(served).collect();
        answers.extend(self.open(image, id, End::Present));
        self.chain(&back, answers);
        let refused = match zone.mode {
            Mode::Enforce => Action::Drop,
            Mode::Audit => Action::Audit,
        };
        for (suffix, reason) in [("_refuse_port", PORT), ("_refuse_address", ADDRESS)] {
            let tally = tally(Some(id), refused, reason);
            let mut rules = refuse(&[], tally.clone());
            if zone.mode == Mode::Enforce {
                let told = tell(zone.refusal, &tally);
                // Reported and counted as what is dropped is.
                rules.splice(1..1, told);
            }
            self.chain(&chain(id, suffix), rules);
        }
    }

    /// What is open to a zone, and the way on of what is not.
    fn open(&mut self, image: &Image, id: ZoneId, end: End) -> Vec<Rule> {
        let mut rules = Vec::new();
        for family in Family::ALL {
            let set = format!("internal_{}", family.digit());
            if !self.networks.iter().any(|known| known.name == set) {
                continue;
            }
            rules.push(vec![
                end.is_in(family, set),
                count(Some(id), Action::Pass, INTERNAL),
                Part::Accept,
            ]);
        }
        rules.extend(self.services(image, id, end));
        rules.push(vec![Part::Goto(chain(id, "_refuse_port"))]);
        rules
    }

    /// The maps from protocol and port to the chain of the classes that hold them.
    fn services(&mut self, image: &Image, id: ZoneId, end: End) -> Option<Rule> {
        let mut protocols = Vec::new();
        let mut masks = BTreeSet::new();
        for (protocol, ranges) in segments(&image.classes) {
            // Of these no answer comes here.
            if end == End::Present && TELLING.contains(&protocol) {
                continue;
            }
            masks.extend(ranges.iter().map(|(.., mask)| *mask));
            let target = match ranges[..] {
                [(0, u16::MAX, mask)] => end.classes(id, mask),
                _ => {
                    let ports = |(first, last, mask)| (first, last, end.classes(id, mask));
                    let entries = ranges.into_iter().map(ports).collect();
                    let name = end.chain(id, &format!("_p{protocol}"));
                    let key = end.port();
                    self.maps.push(VerdictMap {
                        name: name.clone(),
                        key,
                        entries,
                    });
                    let refuse = vec![Part::Goto(chain(id, "_refuse_port"))];
                    self.chain(&name, vec![vec![Part::Map(key, name.clone())], refuse]);
                    name
                }
            };
            protocols.push((u16::from(protocol), u16::from(protocol), target));
        }
        for mask in masks {
            self.classes(id, mask, end);
        }
        if protocols.is_empty() {
            return None;
        }
        let name = end.chain(id, "_protocols");
        let map = VerdictMap {
            name: name.clone(),
            key: MapKey::Protocol,
            entries: protocols,
        };
        self.maps.push(map);
        Some(vec![Part::Map(MapKey::Protocol, name)])
    }

    /// The chain that asks the sets of every class of `mask`.
    fn classes(&mut self, zone: ZoneId, mask: ClassMask, end: End) {
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
                rules.push(vec![end.is_in(family, learned), granted, Part::Accept]);
                let set = format!("{}_{}", networks(zone, class), family.digit());
                if self.networks.iter().any(|known| known.name == set) {
                    let network = count(Some(zone), Action::Pass, NETWORK);
                    rules.push(vec![end.is_in(family, set), network, Part::Accept]);
                }
            }
        }
        rules.push(vec![Part::Goto(chain(zone, "_refuse_address"))]);
        self.chain(&end.classes(zone, mask), rules);
    }

    pub(super) fn chain(&mut self, name: &str, rules: Vec<Rule>) {
        self.chains.push(Chain {
            name: name.to_owned(),
            rules,
        });
    }

    /// One interval set per family that has networks at all.
    pub(super) fn network_set(&mut self, stem: &str, networks: &[IpNet]) {
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

pub(super) fn count(zone: Option<ZoneId>, action: Action, reason: &'static str) -> Part {
    Part::Count(tally(zone, action, reason))
}

/// Counts and ends refused packets whose sender is told (within the rate).
fn tell(refusal: Refusal, tally: &Tally) -> Vec<Rule> {
    let tell = |matches: &[Part], word: Word| {
        let end = [Part::Seldom, Part::Count(tally.clone()), Part::Reject(word)];
        [matches, &end].concat()
    };
    const QUIC: u16 = 443;
    match refusal {
        Refusal::Drop => Vec::new(),
        Refusal::Quic => {
            let quic = [Part::Protocol(UDP), Part::Port(QUIC)];
            vec![tell(&quic, Word::Prohibited)]
        }
        Refusal::Reject => vec![
            tell(&[Part::Protocol(TCP)], Word::Reset),
            tell(&[], Word::Prohibited),
        ],
    }
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

/// Which end of its flow a packet is judged by.
#[derive(Clone, Copy, PartialEq, Eq)]
enum End {
    /// The one that the flow's first packet asked for, whatever translates it since.
    Asked,
    /// The one that the packet goes to now: it answers, in a flow that began there.
    Present,
}

impl End {
    fn is_in(self, family: Family, set: String) -> Part {
        match self {
            Self::Asked => Part::Asked(family, set),
            Self::Present => Part::To(family, set),
        }
    }

    const fn port(self) -> MapKey {
        match self {
            Self::Asked => MapKey::Port,
            Self::Present => MapKey::PresentPort,
        }
    }

    fn chain(self, zone: ZoneId, suffix: &str) -> String {
        match self {
            Self::Asked => chain(zone, suffix),
            Self::Present => chain(zone, &format!("_back{suffix}")),
        }
    }

    fn classes(self, zone: ZoneId, mask: ClassMask) -> String {
        self.chain(zone, &format!("_m{:x}", mask.0))
    }
}

pub(super) fn chain(zone: ZoneId, suffix: &str) -> String {
    format!("z{zone}{suffix}")
}

fn into(zone: Option<ZoneId>) -> String {
    zone.map_or_else(|| "inbound".to_owned(), |zone| chain(zone, "_inbound"))
}

fn networks(zone: ZoneId, class: ClassId) -> String {
    format!("z{zone}_n{}", class.0)
}

#[cfg(test)]
mod tests;
