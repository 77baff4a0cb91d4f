//! The redirecting chains, asserted as text.

use super::*;
use crate::plane::ruleset::{Generation, Ruleset};
use crate::policy::ZoneId;
use crate::policy::image::{Inbound, Mode};
use crate::policy::links::{InterfacePattern, Link, Links, Stack};
use std::collections::BTreeMap;

fn zone(id: u16, interface: &str, sources: &[&str], listeners: &[&str]) -> ZoneImage {
    ZoneImage {
        id: ZoneId(id),
        name: format!("zone{id}"),
        interfaces: vec![InterfacePattern::parse(interface).unwrap()],
        sources: sources.iter().map(|net| net.parse().unwrap()).collect(),
        mode: Mode::Enforce,
        inbound: Inbound::Allow,
        refusal: crate::policy::image::Refusal::Drop,
        serves: Vec::new(),
        redirect: listeners.iter().map(|at| at.parse().unwrap()).collect(),
        networks: Vec::new(),
    }
}

fn image(zones: Vec<ZoneImage>) -> Image {
    let link = |name: &str, addresses: &[&str]| Link {
        name: name.to_owned(),
        up: true,
        mac: Vec::new(),
        ethernet: true,
        stack: Stack::default(),
        addresses: addresses.iter().map(|a| a.parse().unwrap()).collect(),
    };
    Image {
        links: Links(BTreeMap::from([
            (2, link("lan0", &["10.1.0.1/24", "2001:db8:1::1/64"])),
            (3, link("lan1", &["10.2.0.1/24"])),
        ])),
        upstream: vec![InterfacePattern::parse("wan*").unwrap()],
        zones,
        ..Image::default()
    }
}

/// The rules of one chain.
fn check(image: &Image, chain: &str, expected: &[&str]) {
    let ruleset = Ruleset::new(image, Generation::B);
    let found = ruleset.chains.iter().find(|known| known.name == chain);
    let text = found
        .unwrap_or_else(|| panic!("no chain {chain} in\n{ruleset}"))
        .to_string();
    let rules: Vec<&str> = text.lines().map(str::trim).collect();
    assert_eq!(rules[1..rules.len() - 1], *expected, "{ruleset}");
    for rule in ruleset.chains.iter().flat_map(|chain| &chain.rules) {
        for part in rule {
            if let Part::Goto(name) = part {
                assert!(ruleset.chains.iter().any(|chain| chain.name == *name));
            } else if let Part::Asked(_, name) = part {
                let known = ruleset.networks.iter().any(|set| set.name == *name);
                assert!(known, "{name}");
            } else if let Part::Count(tally) = part {
                assert!(ruleset.tallies.contains(tally), "{tally}");
            }
        }
    }
}

#[test]
fn without_a_redirect_there_is_no_nat() {
    let ruleset = Ruleset::new(&image(vec![zone(0, "lan0", &[], &[])]), Generation::A);
    assert!(!ruleset.redirects(), "{ruleset}");
    assert!(!ruleset.to_string().contains("nat"), "{ruleset}");
    let mut kept = ruleset.clone();
    kept.keep_translating();
    assert!(kept.redirects());
    let once = kept.clone();
    kept.keep_translating();
    assert_eq!(kept, once);
}

#[test]
fn a_question_goes_to_its_zone_as_a_packet_does() {
    let mut image = image(vec![
        zone(0, "lan*", &["10.0.0.0/8"], &["10.1.0.1:53"]),
        zone(4, "lan0", &["10.1.7.0/24"], &[]),
        zone(9, "lan2", &[], &["10.1.0.1:53"]),
    ]);
    image.internal = vec!["10.0.0.0/8".parse().unwrap()];
    check(
        &image,
        "prerouting",
        &[
            "type nat hook prerouting priority dstnat; policy accept;",
            "meta l4proto 17 ct original proto-dst 53 goto resolver_b",
            "meta l4proto 6 ct original proto-dst 53 goto resolver_b",
        ],
    );
    check(
        &image,
        "resolver_b",
        &[
            "iifname \"wan*\" accept",
            "fib daddr type local accept",
            "fib daddr type broadcast accept",
            "fib daddr type anycast accept",
            "fib daddr type multicast accept",
            "ip6 daddr fe80::/10 accept",
            "ct original ip daddr @internal_4_b accept",
            // The zone that is not redirected comes first: its prefix is longer.
            "iifname \"lan0\" ip saddr 10.1.7.0/24 accept",
            "iifname \"lan*\" ip saddr 10.0.0.0/8 goto z0_resolver_b",
            "iifname \"lan2\" goto z9_resolver_b",
        ],
    );
}

#[test]
fn the_nearest_listener_answers() {
    fn check_zone(interface: &str, listeners: &[&str], expected: &[&str]) {
        let image = image(vec![zone(3, interface, &[], listeners)]);
        let expected: Vec<String> = expected
            .iter()
            .flat_map(|rule| {
                ["17", "6"].map(|protocol| {
                    let count = format!("{protocol} counter name \"z3_pass_redirected\"");
                    rule.replace('#', &format!("meta l4proto {count}"))
                })
            })
            .collect();
        let expected: Vec<&str> = expected.iter().map(String::as_str).collect();
        check(&image, "z3_resolver_b", &expected);
    }
    check_zone(
        "lan0",
        &["10.1.0.1:53"],
        &["meta nfproto ipv4 # dnat ip to 10.1.0.1:53"],
    );
    check_zone(
        "lan*",
        &["10.1.0.1:53", "10.2.0.1:5353", "[2001:db8:1::1]:53"],
        &[
            "iifname \"lan1\" meta nfproto ipv4 # dnat ip to 10.2.0.1:5353",
            "meta nfproto ipv4 # dnat ip to 10.1.0.1:53",
            "meta nfproto ipv6 # dnat ip6 to [2001:db8:1::1]:53",
        ],
    );
    check_zone(
        "lan0",
        &["0.0.0.0:53", "[::]:5353"],
        &[
            "meta nfproto ipv4 # redirect to :53",
            "meta nfproto ipv6 # redirect to :5353",
        ],
    );
    // Nobody who could answer: the forward chain refuses.
    check_zone("lan0", &["10.9.9.9:53", "127.0.0.1:53"], &[]);
}
