//! The chains that redirect the zones' port 53 to egressd's listeners. Judges nothing: what they do
//! not redirect goes on to the forward chain.

use super::build::{chain, count, doors};
use super::{Action, Chain, Delivery, Family, PREROUTING, Part, Rule};
use crate::policy::image::{Image, ZoneImage};
use crate::policy::port::{TCP, UDP};
use crate::policy::redirect::{self, Target};
use egressd_common::verdict::Reason;
use ipnet::{IpNet, Ipv6Net};
use std::net::Ipv6Addr;

const REDIRECTED: &str = Reason::Redirected.word();
/// The chain of every question that is not to upstream.
const RESOLVER: &str = "resolver";

/// The chains of every redirected zone; none where no zone is redirected, so that a table without
/// redirects asks nothing of NAT.
pub(super) fn chains(image: &Image) -> Vec<Chain> {
    let redirected = |zone: &&ZoneImage| !zone.redirect.is_empty();
    if !image.zones.iter().any(|zone| redirected(&zone)) {
        return Vec::new();
    }
    let own = image.zones.iter().filter(redirected).map(|zone| Chain {
        name: chain(zone.id, "_resolver"),
        rules: answered(image, zone),
    });
    [
        Chain {
            name: PREROUTING.to_owned(),
            rules: [UDP, TCP].map(question).into(),
        },
        Chain {
            name: RESOLVER.to_owned(),
            rules: questions(image),
        },
    ]
    .into_iter()
    .chain(own)
    .collect()
}

fn question(protocol: u8) -> Rule {
    vec![
        Part::Protocol(protocol),
        Part::Port(redirect::PORT),
        Part::Goto(RESOLVER.to_owned()),
    ]
}

/// From a question to its zone, by the same doors as in the forward chain.
fn questions(image: &Image) -> Vec<Rule> {
    let accept = |part: Part| vec![part, Part::Accept];
    let mut rules: Vec<Rule> = Vec::new();
    for interface in &image.upstream {
        rules.push(accept(Part::Entered(interface.clone())));
    }
    // The gateway's own, and what is never forwarded.
    rules.extend(Delivery::ALL.map(|delivery| accept(Part::Delivered(delivery))));
    let link_local = Ipv6Net::new_assert(Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 0), 10);
    rules.push(accept(Part::Destination(IpNet::V6(link_local))));
    // Internal destinations are not egress, resolvers neither.
    for family in Family::ALL {
        if image
            .internal
            .iter()
            .any(|net| Family::of_net(*net) == family)
        {
            let set = format!("internal_{}", family.digit());
            rules.push(accept(Part::Asked(family, set)));
        }
    }
    for (interface, source, zone) in doors(image) {
        let mut rule = vec![Part::Entered(interface.clone())];
        rule.extend(source.map(Part::Source));
        rule.push(if zone.redirect.is_empty() {
            Part::Accept
        } else {
            Part::Goto(chain(zone.id, "_resolver"))
        });
        rules.push(rule);
    }
    rules
}

/// Who answers a zone's questions, by interface and family.
fn answered(image: &Image, zone: &ZoneImage) -> Vec<Rule> {
    let mut rules = Vec::new();
    for family in Family::ALL {
        let v6 = family == Family::V6;
        let target = |entered| redirect::target(&zone.redirect, &image.links, entered, v6);
        let rest = target(None);
        for (_, link) in image.links.matching(&zone.interfaces) {
            let own = target(Some(link));
            if let Some(target) = own.filter(|_| own != rest) {
                let name = crate::policy::links::InterfacePattern::Exact(link.name.clone());
                rules.extend(to(zone, family, Some(Part::Entered(name)), target));
            }
        }
        if let Some(target) = rest {
            rules.extend(to(zone, family, None, target));
        }
    }
    rules
}

/// Counts the flow and gives it to `target`. The kernel takes a port only behind a protocol that has
/// some.
fn to(zone: &ZoneImage, family: Family, entered: Option<Part>, target: Target) -> [Rule; 2] {
    [UDP, TCP].map(|protocol| {
        let mut rule = Vec::from_iter(entered.clone());
        rule.extend([
            Part::Version(family),
            Part::Protocol(protocol),
            count(Some(zone.id), Action::Pass, REDIRECTED),
            match target {
                Target::Listener(listener) => Part::Redirect(listener),
                Target::Here(port) => Part::RedirectHere(port),
            },
        ]);
        rule
    })
}

#[cfg(test)]
mod tests;
