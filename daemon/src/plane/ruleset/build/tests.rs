//! The description of the table, asserted as text.

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
        refusal: Refusal::Drop,
        serves: Vec::new(),
        redirect: Vec::new(),
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

const HEAD: [&str; 9] = [
    "type filter hook forward priority filter; policy drop;",
    "ct state established ct direction original counter name \"any_pass_established\" accept",
    "ct state established iifname \"wan*\" counter name \"any_pass_established\" accept",
    "ct state established meta l4proto 6 counter name \"any_pass_established\" accept",
    "ct state established meta l4proto 132 counter name \"any_pass_established\" accept",
    "ct state established meta l4proto 1 counter name \"any_pass_established\" accept",
    "ct state established meta l4proto 58 counter name \"any_pass_established\" accept",
    "ct state related meta l4proto 1 counter name \"any_pass_related\" accept",
    "ct state related meta l4proto 58 counter name \"any_pass_related\" accept",
];
/// What belongs to a flow between interfaces that are in no zone.
const OTHERS: &str = "ct state established counter name \"any_pass_established\" accept";
const MIDSTREAM: &str =
    "iifname \"wan*\" tcp flags != syn / fin,syn,rst,ack counter name \"any_drop_midstream\" drop";
const UPSTREAM: &str = "iifname \"wan*\" counter name \"any_pass_upstream\" accept";
const REST: &str = "counter name \"any_drop_unzoned\" drop";

/// `doors` are the rules behind those of upstream.
fn forward(image: &Image, doors: &[&str]) {
    let (upstream, doors): (Vec<&str>, Vec<&str>) = doors
        .iter()
        .partition(|rule| rule.starts_with("iifname \"wan*\""));
    let (last, doors) = doors.split_last().expect("what becomes of the rest");
    check(
        image,
        FORWARD,
        &[&HEAD[..], &[MIDSTREAM], &upstream, doors, &[OTHERS, last]].concat(),
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
            "ct direction reply goto z1_back_a",
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
            "ct direction reply goto z0_back_a",
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
    let rules = ["ct direction reply goto z0_back_a", "goto z0_refuse_port_a"];
    check(&image, "z0_a", &rules);
    check(&image, "z0_back_a", &rules[1..]);
}

#[test]
fn answers_to_datagrams_from_outside_are_judged_by_where_they_go() {
    let mut zone = zone(0, "lan0", &[]);
    zone.serves = vec![Service::udp(51820), Service::whole(47)];
    let mut image = image(vec![zone]);
    let ports = PortSet::new([Service::tcp(443), Service::udp(443)]);
    image.classes = vec![(ClassId(0), ports)];
    let known = "counter name \"any_pass_established\" accept";
    check(
        &image,
        "z0_back_a",
        &[
            &format!("ct state established meta l4proto 17 th sport 51820 {known}"),
            &format!("ct state established meta l4proto 47 {known}"),
            "meta l4proto vmap @z0_back_protocols_a",
            "goto z0_refuse_port_a",
        ],
    );
    check(
        &image,
        "z0_back_p17_a",
        &["th dport vmap @z0_back_p17_a", "goto z0_refuse_port_a"],
    );
    check(
        &image,
        "z0_back_m1_a",
        &[
            "ip daddr @z0_c0_4 counter name \"z0_pass_granted\" accept",
            "ip6 daddr @z0_c0_6 counter name \"z0_pass_granted\" accept",
            "goto z0_refuse_address_a",
        ],
    );
    // TCP tells its answers by itself.
    let ruleset = Ruleset::new(&image, Generation::A).to_string();
    assert!(ruleset.contains("chain z0_p6_a") && !ruleset.contains("chain z0_back_p6_a"));
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
fn who_sends_what_is_refused_is_told() {
    const DROP: &str = "counter name \"z0_drop_not-granted\" drop";
    const TOLD: &str = "limit rate 100/second burst 100 packets counter name \"z0_drop_not-granted\" \
         reject with";
    fn told(refusal: Refusal, mode: Mode, expected: &[String]) {
        let mut zone = zone(0, "lan0", &[]);
        (zone.refusal, zone.mode) = (refusal, mode);
        let ruleset = Ruleset::new(&image(vec![zone]), Generation::A);
        let mut chains = ruleset.chains.iter();
        let chain = chains.find(|chain| chain.name == "z0_refuse_address_a");
        let text = chain.unwrap().to_string();
        let lines: Vec<&str> = text.lines().map(str::trim).collect();
        // Reported first, whatever becomes of it.
        assert!(lines[1].contains(" log "), "{text}");
        assert_eq!(lines[2..lines.len() - 1], *expected, "{text}");
    }
    let prohibited = format!("{TOLD} icmpx admin-prohibited");
    let quic = format!("meta l4proto 17 ct original proto-dst 443 {prohibited}");
    let reset = format!("meta l4proto 6 {TOLD} tcp reset");
    told(Refusal::Drop, Mode::Enforce, &[DROP.to_owned()]);
    told(Refusal::Quic, Mode::Enforce, &[quic, DROP.to_owned()]);
    told(
        Refusal::Reject,
        Mode::Enforce,
        &[reset, prohibited, DROP.to_owned()],
    );
    let audit = "counter name \"z0_audit_not-granted\" accept".to_owned();
    told(Refusal::Reject, Mode::Audit, &[audit]);
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
                Part::Asked(_, name) | Part::From(_, name) | Part::To(_, name) => {
                    assert!(sets.contains(name), "{name}")
                }
                Part::Map(_, name) => assert!(maps.contains(name), "{name}"),
                Part::Count(tally) => assert!(ruleset.tallies.contains(tally), "{tally}"),
                Part::Established
                | Part::Related
                | Part::Protocol(_)
                | Part::Midstream
                | Part::Way(_)
                | Part::SourcePort(_)
                | Part::Copy(..)
                | Part::MessageType(_)
                | Part::HopLimit(_)
                | Part::Marked(_)
                | Part::Untracked
                | Part::Entered(_)
                | Part::Port(_)
                | Part::Version(_)
                | Part::Delivered(_)
                | Part::Redirect(_)
                | Part::RedirectHere(_)
                | Part::Leaves(_)
                | Part::Source(_)
                | Part::Destination(_)
                | Part::Report(_)
                | Part::Return
                | Part::Accept
                | Part::Drop
                | Part::Seldom
                | Part::Reject(_) => {}
            }
        }
        for (.., chain) in ruleset.maps.iter().flat_map(|map| &map.entries) {
            assert!(chains.contains(chain), "{chain}");
        }
    }
}
