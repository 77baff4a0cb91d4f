//! What a zone's redirect of port 53 takes away, and what it does not reach.

use super::{Finding, Weight, about};
use crate::policy::port::{TCP, UDP};
use crate::policy::redirect::{PORT, target};
use crate::policy::rules::{Rules, ZoneRules};
use ipnet::IpNet;

/// Everything worth knowing about the redirect of one zone of `rules`; nothing where it is off.
pub(super) fn redirect(rules: &Rules, zone: &ZoneRules) -> Vec<Finding> {
    if zone.spec.redirect.is_empty() {
        return Vec::new();
    }
    let name = &zone.spec.name;
    [
        about(
            "redirect-wins",
            Weight::Warning,
            format!("Zone `{name}` redirects port 53 to egressd, so what allows that port to others has no effect there."),
            "Take port 53 out of the rule, or its clients into a zone without `redirect`.",
            without_effect(rules, zone),
        ),
        about(
            "redirect-family",
            Weight::Warning,
            format!("Zone `{name}` redirects port 53, but there is no listener of a family that its clients may use: questions of that family to others are refused."),
            "Add an address of the gateway to `listen` in [dns].",
            unheard(rules, zone),
        ),
    ]
    .into_iter()
    .flatten()
    .collect()
}

fn without_effect(rules: &Rules, zone: &ZoneRules) -> Vec<String> {
    let rows = zone.sets.iter().map(|set| rules.row(*set));
    let opening = rows.filter(|row| {
        let somewhere = !row.set.patterns.is_empty() || !row.set.networks.is_empty();
        let opens = |protocol| row.set.ports.contains(protocol, PORT);
        somewhere && (opens(UDP) || opens(TCP))
    });
    opening.map(|row| row.label()).collect()
}

fn unheard(rules: &Rules, zone: &ZoneRules) -> Vec<String> {
    let uses = |v6| {
        let mut sources = zone.sources.iter();
        let of_family = |net: &IpNet| matches!(net, IpNet::V6(_)) == v6;
        // Without sources and not `connected`, everybody there belongs to it.
        sources.any(of_family) || (zone.sources.is_empty() && !zone.spec.connected)
    };
    let heard = |v6| target(&zone.spec.redirect, rules.links(), None, v6).is_some();
    [(false, "IPv4"), (true, "IPv6")]
        .into_iter()
        .filter(|(v6, _)| uses(*v6) && !heard(*v6))
        .map(|(_, word)| word.to_owned())
        .collect()
}
