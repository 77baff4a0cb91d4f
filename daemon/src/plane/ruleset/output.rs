//! PURE: the rules for what the gateway itself sends. They are reached from hooks of their own, which are
//! there only while a zone is `local`, and end in that zone's chain.

use super::build::{began, chain, count, related, served, telling};
use super::{Action, Family, INPUT, OUTPUT, Part, Rule, Ruleset};
use crate::policy::image::{Image, Resolver};
use crate::policy::links::InterfacePattern;
use crate::policy::port::{ICMP, ICMPV6, Service, UDP};
use egressd_common::OWN_MARK;
use egressd_common::decide::{DHCP, DHCP_V6};
use egressd_common::verdict::Reason;
use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use std::collections::BTreeMap;
use std::net::{Ipv4Addr, Ipv6Addr};

/// The chain of what leaves by an interface that is in no zone.
const OWN: &str = "own";
const LOOPBACK: &str = "lo";
/// What an interface needs to be one at all: neighbours, routers, groups, leases.
const LINK: &str = Reason::LinkBound.word();
const IGMP: u8 = 2;
const MLD_REPORT: u8 = 131;
const LINK_LOCAL: Ipv6Addr = Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 0);
/// Groups of one link.
const NEAR_GROUPS: Ipv6Net = Ipv6Net::new_assert(Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 0), 16);
/// The word for what egressd itself asks.
const RESOLVER: &str = "resolver";
/// The chain of what comes back to the gateway by an interface that is in no zone.
const RETURNED: &str = "returned";

/// Adds to `ruleset` what `image` says about the gateway's own packets.
pub(super) fn add(ruleset: &mut Ruleset, image: &Image) {
    let Some(own) = &image.own else {
        return;
    };
    let sets = resolvers(ruleset, &own.resolvers);
    let by_interface = |part: fn(InterfacePattern) -> Part, upstream: &str| {
        let mut rules = vec![vec![
            part(InterfacePattern::Exact(LOOPBACK.to_owned())),
            Part::Accept,
        ]];
        // Upstream is never a zone, however wide a zone's pattern is.
        for interface in &image.upstream {
            rules.push(vec![
                part(interface.clone()),
                Part::Goto(upstream.to_owned()),
            ]);
        }
        for interface in image.zones.iter().flat_map(|zone| &zone.interfaces) {
            rules.push(vec![part(interface.clone()), Part::Accept]);
        }
        rules.push(vec![Part::Goto(upstream.to_owned())]);
        rules
    };
    let mut judged = vec![began()];
    judged.extend(telling());
    judged.extend([ICMP, ICMPV6].map(related));
    judged.extend(neighbours());
    judged.extend(leases());
    judged.extend(sets);
    judged.push(vec![Part::Goto(chain(own.zone, ""))]);
    ruleset.chain(OUTPUT, by_interface(Part::Leaves, OWN));
    ruleset.chain(OWN, judged);
    ruleset.chain(INPUT, by_interface(Part::Entered, RETURNED));
    ruleset.chain(RETURNED, returned(&own.resolvers));
}

/// Conntrack takes a TCP flow up from its middle: one that was cut would come back as a connection to
/// the gateway with the next segment of its server. So would a question to an upstream with its late answer.
fn returned(resolvers: &[Resolver]) -> Vec<Rule> {
    let late = || [count(None, Action::Drop, "midstream"), Part::Drop];
    let mut rules = vec![
        vec![Part::Established, Part::Accept],
        [&[Part::Midstream], &late()[..]].concat(),
    ];
    for ((protocol, port), hosts) in by_port(resolvers) {
        if protocol != UDP {
            continue;
        }
        for (family, set) in families(protocol, port, &hosts) {
            let from = [
                Part::Protocol(protocol),
                Part::SourcePort(port),
                Part::From(family, set),
            ];
            rules.push([&from[..], &late()].concat());
        }
    }
    rules
}

fn accept(matches: Vec<Part>) -> Rule {
    let end = [count(None, Action::Pass, LINK), Part::Accept];
    [&matches[..], &end].concat()
}

/// Neighbour discovery, which is that of routers as well (RFC 4861), and groups that no router forwards:
/// reports of groups, routing and redundancy protocols, names and services on the link (RFC 5771 §4, RFC 4291
/// §2.7).
fn neighbours() -> Vec<Rule> {
    const ROUTER_SOLICITATION: u8 = 133;
    const ROUTER_ADVERTISEMENT: u8 = 134;
    const SOLICITATION: u8 = 135;
    const ADVERTISEMENT: u8 = 136;
    const REDIRECT: u8 = 137;
    // Routers forward none of them on: they take away from the hop limit, and receivers want all of it.
    let discovery = [
        ROUTER_SOLICITATION,
        ROUTER_ADVERTISEMENT,
        SOLICITATION,
        ADVERTISEMENT,
        REDIRECT,
    ]
    .map(|kind| {
        accept(vec![
            Part::Protocol(ICMPV6),
            Part::MessageType(kind),
            Part::Version(Family::V6),
            Part::HopLimit(u8::MAX),
        ])
    });
    let near = Ipv4Net::new_assert(Ipv4Addr::new(224, 0, 0, 0), 24);
    let groups = [IpNet::V4(near), NEAR_GROUPS.into()];
    let groups = groups.map(|net| accept(vec![Part::Destination(net)]));
    // Reports go to the group that they are about, whichever it is (RFC 2236 §3, RFC 2710 §4).
    let all = Ipv4Net::new_assert(Ipv4Addr::new(224, 0, 0, 0), 4);
    let igmp = accept(vec![
        Part::Protocol(IGMP),
        Part::Destination(IpNet::V4(all)),
    ]);
    let mld = accept(vec![
        Part::Protocol(ICMPV6),
        Part::MessageType(MLD_REPORT),
        Part::Version(Family::V6),
        Part::HopLimit(1),
    ]);
    let rules = discovery.into_iter().chain(groups);
    rules.chain([igmp, mld]).collect()
}

/// Leases, both ways (RFC 2131 §4.1, RFC 9915 §7.2): the gateway may be a client or a server. All these ports
/// are such that only privileged programs have them.
fn leases() -> Vec<Rule> {
    let lease = |(from, to), place: Part| {
        let matches = vec![
            Part::Protocol(UDP),
            Part::SourcePort(from),
            Part::Port(to),
            place,
        ];
        accept(matches)
    };
    let (request, answer) = (DHCP, (DHCP.1, DHCP.0));
    let (request_v6, answer_v6) = (DHCP_V6, (DHCP_V6.1, DHCP_V6.0));
    let to_known = [DHCP.1, DHCP_V6.1].map(|port| served(&Service::udp(port)));
    let link = || Part::Destination(Ipv6Net::new_assert(LINK_LOCAL, 10).into());
    let mut rules = vec![
        // Renewed with the server, wherever that is.
        lease(request, Part::Version(Family::V4)),
        lease(answer, Part::Version(Family::V4)),
        lease(request_v6, link()),
        lease(answer_v6, link()),
    ];
    rules.extend(to_known);
    rules
}

/// What egressd's own sockets may reach, each by its exact address, protocol and port. What else it will
/// have to fetch (catalogues) is to be listed among [`crate::policy::image::Own::resolvers`] as well.
fn resolvers(ruleset: &mut Ruleset, all: &[Resolver]) -> Vec<Rule> {
    let mut rules = Vec::new();
    for ((protocol, port), hosts) in by_port(all) {
        ruleset.network_set(&stem(protocol, port), &hosts);
        for (family, set) in families(protocol, port, &hosts) {
            rules.push(vec![
                Part::Marked(OWN_MARK),
                Part::Protocol(protocol),
                Part::Port(port),
                Part::Asked(family, set.clone()),
                // Nobody else's translation leads it elsewhere.
                Part::To(family, set),
                count(None, Action::Pass, RESOLVER),
                Part::Accept,
            ]);
        }
    }
    rules
}

fn by_port(all: &[Resolver]) -> BTreeMap<(u8, u16), Vec<IpNet>> {
    let mut by_port: BTreeMap<_, Vec<_>> = BTreeMap::new();
    for resolver in all {
        let hosts = by_port.entry((resolver.protocol, resolver.port));
        hosts.or_default().push(IpNet::from(resolver.address));
    }
    by_port
}

fn stem(protocol: u8, port: u16) -> String {
    format!("resolvers_{protocol}_{port}")
}

/// The sets that [`resolvers`] makes of hosts, with their families.
fn families(
    protocol: u8,
    port: u16,
    hosts: &[IpNet],
) -> impl Iterator<Item = (Family, String)> + use<> {
    let used = Family::ALL.map(|family| {
        let any = hosts.iter().any(|host| Family::of_net(*host) == family);
        (any, family)
    });
    let used = used.into_iter().filter(|(any, _)| *any);
    used.map(move |(_, family)| {
        let set = format!("{}_{}", stem(protocol, port), family.digit());
        (family, set)
    })
}

#[cfg(test)]
mod tests;
