//! PURE: the rules for what the gateway itself sends. They are reached from hooks of their own, which are
//! there only while a zone is `local`, and end in that zone's chain.

use super::build::{chain, count, known};
use super::{Action, Family, INPUT, OUTPUT, Part, Rule, Ruleset};
use crate::policy::image::{Image, Resolver};
use crate::policy::links::InterfacePattern;
use crate::policy::port::{ICMPV6, UDP};
use egressd_common::OWN_MARK;
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
    let mut judged = Vec::from(known());
    judged.extend(neighbours());
    judged.extend(leases());
    judged.extend(sets);
    judged.push(vec![Part::Goto(chain(own.zone, ""))]);
    ruleset.chain(OUTPUT, by_interface(Part::Leaves, OWN));
    ruleset.chain(OWN, judged);
    ruleset.chain(INPUT, by_interface(Part::Entered, RETURNED));
    ruleset.chain(RETURNED, returned());
}

/// Conntrack takes a TCP flow up from its middle: one that was cut would come back as a connection to
/// the gateway with the next segment of its server.
fn returned() -> Vec<Rule> {
    vec![
        vec![Part::Established, Part::Accept],
        vec![
            Part::Midstream,
            count(None, Action::Drop, "midstream"),
            Part::Drop,
        ],
    ]
}

fn accept(matches: Vec<Part>) -> Rule {
    let end = [count(None, Action::Pass, LINK), Part::Accept];
    [&matches[..], &end].concat()
}

/// Neighbour discovery, which is that of routers as well (RFC 4861), reports of groups (RFC 2236, RFC 3376,
/// RFC 2710, RFC 3810).
fn neighbours() -> Vec<Rule> {
    const ROUTER_SOLICITATION: u8 = 133;
    const ROUTER_ADVERTISEMENT: u8 = 134;
    const SOLICITATION: u8 = 135;
    const ADVERTISEMENT: u8 = 136;
    const REDIRECT: u8 = 137;
    const REPORT: u8 = 131;
    const DONE: u8 = 132;
    const REPORT_V2: u8 = 143;
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
    let reports = [REPORT, DONE, REPORT_V2].map(|kind| {
        accept(vec![
            Part::Protocol(ICMPV6),
            Part::MessageType(kind),
            Part::Version(Family::V6),
            Part::HopLimit(1),
        ])
    });
    let groups = Ipv4Net::new_assert(Ipv4Addr::new(224, 0, 0, 0), 4);
    let igmp = accept(vec![
        Part::Protocol(IGMP),
        Part::Destination(IpNet::V4(groups)),
    ]);
    discovery.into_iter().chain(reports).chain([igmp]).collect()
}

/// Requests of a DHCP client (RFC 2131 §4.1, RFC 9915 §7.2). Both ports are such that only privileged
/// programs have them.
fn leases() -> Vec<Rule> {
    let client = |from, to, place: Part| {
        let matches = vec![
            Part::Protocol(UDP),
            Part::SourcePort(from),
            Part::Port(to),
            place,
        ];
        accept(matches)
    };
    let near = |first, length| {
        let net = Ipv6Net::new_assert(Ipv6Addr::new(first, 0, 0, 0, 0, 0, 0, 0), length);
        Part::Destination(IpNet::V6(net))
    };
    vec![
        // Renewed with the server, wherever that is.
        client(68, 67, Part::Version(Family::V4)),
        client(546, 547, near(0xfe80, 10)),
        client(546, 547, near(0xff02, 16)),
    ]
}

/// What egressd's own sockets may reach, each by its exact address, protocol and port. What else it will
/// have to fetch (catalogues) is to be listed among [`crate::policy::image::Own::resolvers`] as well.
fn resolvers(ruleset: &mut Ruleset, all: &[Resolver]) -> Vec<Rule> {
    let mut by_port: BTreeMap<(u8, u16), Vec<IpNet>> = BTreeMap::new();
    for resolver in all {
        let hosts = by_port
            .entry((resolver.protocol, resolver.port))
            .or_default();
        hosts.push(IpNet::from(resolver.address));
    }
    let mut rules = Vec::new();
    for ((protocol, port), hosts) in by_port {
        let stem = format!("resolvers_{protocol}_{port}");
        ruleset.network_set(&stem, &hosts);
        for family in Family::ALL {
            if !hosts.iter().any(|host| Family::of_net(*host) == family) {
                continue;
            }
            let set = format!("{stem}_{}", family.digit());
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

#[cfg(test)]
mod tests;
