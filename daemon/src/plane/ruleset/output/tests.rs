use crate::plane::ruleset::{Generation, Ruleset};
use crate::policy::ZoneId;
use crate::policy::image::{Image, Own, Resolver, ZoneImage};
use crate::policy::links::InterfacePattern;
use crate::policy::port::{TCP, UDP};

fn zone(id: u16, name: &str, interfaces: &[&str]) -> ZoneImage {
    ZoneImage {
        id: ZoneId(id),
        name: name.to_owned(),
        interfaces: interfaces
            .iter()
            .map(|text| InterfacePattern::parse(text).unwrap())
            .collect(),
        sources: Vec::new(),
        mode: crate::policy::image::Mode::Enforce,
        inbound: crate::policy::image::Inbound::Allow,
        refusal: crate::policy::image::Refusal::Drop,
        serves: Vec::new(),
        redirect: Vec::new(),
        networks: Vec::new(),
    }
}

fn image(own: Option<Own>) -> Image {
    Image {
        upstream: vec![InterfacePattern::parse("wan0").unwrap()],
        zones: vec![zone(0, "managed", &["lan*"]), zone(1, "gateway", &[])],
        own,
        ..Image::default()
    }
}

/// The lines of one chain.
fn chain<'a>(text: &'a str, name: &str) -> Vec<&'a str> {
    let head = format!("\tchain {name} {{");
    let mut lines = text.lines().skip_while(|line| **line != *head).skip(1);
    let rules = lines.by_ref().take_while(|line| *line != "\t}");
    rules.map(str::trim).collect()
}

fn resolver(protocol: u8, port: u16, address: &str) -> Resolver {
    Resolver {
        protocol,
        port,
        address: address.parse().unwrap(),
    }
}

#[test]
fn without_a_zone_of_its_own_nothing_is_hooked() {
    let text = Ruleset::new(&image(None), Generation::A).to_string();
    for word in ["hook output", "hook input", "chain own", "meta mark"] {
        assert!(!text.contains(word), "{word} in {text}");
    }
}

#[test]
fn what_leaves_the_gateway_is_judged() {
    let own = Own {
        zone: ZoneId(1),
        resolvers: vec![
            resolver(TCP, 853, "2001:db8::53"),
            resolver(UDP, 53, "192.0.2.53"),
            resolver(UDP, 53, "192.0.2.54"),
        ],
    };
    let text = Ruleset::new(&image(Some(own)), Generation::A).to_string();
    let check = |name: &str, expected: &[&str]| {
        assert_eq!(chain(&text, name), expected, "{name} in {text}");
    };
    check(
        "output_a",
        &[
            "type filter hook output priority filter; policy accept;",
            "oifname \"lo\" accept",
            "oifname \"wan0\" goto own_a",
            "oifname \"lan*\" accept",
            "goto own_a",
        ],
    );
    check(
        "input_a",
        &[
            "type filter hook input priority filter; policy accept;",
            "iifname \"lo\" accept",
            "iifname \"wan0\" goto returned_a",
            "iifname \"lan*\" accept",
            "goto returned_a",
        ],
    );
    check(
        "returned_a",
        &[
            "ct state established accept",
            "tcp flags != syn / fin,syn,rst,ack counter name \"any_drop_midstream\" drop",
            "meta l4proto 17 th sport 53 ip saddr @resolvers_17_53_4_a counter name \"any_drop_midstream\" drop",
        ],
    );
    let link = "counter name \"any_pass_link-bound\" accept";
    let discovery = [133, 134, 135, 136, 137].map(|kind| {
        format!("meta l4proto 58 @th,0,8 {kind} meta nfproto ipv6 ip6 hoplimit 255 {link}")
    });
    let known = "counter name \"any_pass_established\" accept";
    let before = [
        format!("ct state established ct direction original {known}"),
        format!("ct state established meta l4proto 6 {known}"),
        format!("ct state established meta l4proto 132 {known}"),
        format!("ct state established meta l4proto 1 {known}"),
        format!("ct state established meta l4proto 58 {known}"),
        "ct state related meta l4proto 1 counter name \"any_pass_related\" accept".to_owned(),
        "ct state related meta l4proto 58 counter name \"any_pass_related\" accept".to_owned(),
    ];
    let lease = |from, to, place| {
        format!("meta l4proto 17 th sport {from} ct original proto-dst {to} {place} {link}")
    };
    let others = [
        format!("ip daddr 224.0.0.0/24 {link}"),
        format!("ip6 daddr ff02::/16 {link}"),
        format!("meta l4proto 2 ip daddr 224.0.0.0/4 {link}"),
        format!("meta l4proto 58 @th,0,8 131 meta nfproto ipv6 ip6 hoplimit 1 {link}"),
        lease(68, 67, "meta nfproto ipv4"),
        lease(67, 68, "meta nfproto ipv4"),
        lease(546, 547, "ip6 daddr fe80::/10"),
        lease(547, 546, "ip6 daddr fe80::/10"),
        format!("ct state established meta l4proto 17 th sport 67 {known}"),
        format!("ct state established meta l4proto 17 th sport 547 {known}"),
    ];
    let mut expected: Vec<&str> = before.iter().map(|rule| &**rule).collect();
    expected.extend(discovery.iter().chain(&others).map(|rule| &**rule));
    expected.extend([
        "meta mark 0x65677265 meta l4proto 6 ct original proto-dst 853 ct original ip6 daddr @resolvers_6_853_6_a ip6 daddr @resolvers_6_853_6_a counter name \"any_pass_resolver\" accept",
        "meta mark 0x65677265 meta l4proto 17 ct original proto-dst 53 ct original ip daddr @resolvers_17_53_4_a ip daddr @resolvers_17_53_4_a counter name \"any_pass_resolver\" accept",
        "goto z1_a",
    ]);
    check("own_a", &expected);
    assert!(text.contains("resolvers_17_53_4_a { type ipv4_addr; flags interval; elements = { 192.0.2.53-192.0.2.54 } }"), "{text}");
    // Its policy is that of any other zone, and ends.
    assert_eq!(chain(&text, "z1_a").last(), Some(&"goto z1_refuse_port_a"));
}
