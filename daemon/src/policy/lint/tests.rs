//! Policies and what there is to say about them.

use super::*;
use crate::policy::catalogue::{Catalogue, EndpointSet};
use crate::policy::image::{Mode, Unzoned};
use crate::policy::links::{InterfacePattern, Link, Links, Stack};
use crate::policy::name::Pattern;
use crate::policy::port::{PortSet, Service};
use crate::policy::rules::{Intent, Numbers, Rules};
use crate::policy::zone::{Selector, ZoneSpec};
use std::sync::Arc;

fn set(id: &str, names: &[&str], networks: &[&str], ports: &[u16]) -> EndpointSet {
    EndpointSet {
        id: id.to_owned(),
        service: "test".to_owned(),
        origin: format!("row {id}"),
        patterns: names
            .iter()
            .map(|name| Pattern::parse(name).unwrap())
            .collect(),
        networks: networks.iter().map(|net| net.parse().unwrap()).collect(),
        ports: PortSet::new(ports.iter().map(|port| Service::tcp(*port))),
        ..EndpointSet::default()
    }
}

fn vendor(sets: &[EndpointSet]) -> Catalogue {
    Catalogue {
        name: "v".to_owned(),
        sets: sets.to_vec(),
        ..Catalogue::default()
    }
}

/// The findings as `id: item | item`.
fn lines(findings: Vec<Finding>) -> Vec<String> {
    let line = |finding: Finding| format!("{}: {}", finding.id, finding.items.join(" | "));
    findings.into_iter().map(line).collect()
}

#[test]
fn catalogues() {
    fn check(sets: &[EndpointSet], expected: &[&str]) {
        assert_eq!(lines(catalogue(&vendor(sets))), expected, "{sets:?}");
    }
    check(&[set("1", &["a.example"], &[], &[443])], &[]);
    check(
        &[
            set("1", &["a.example"], &[], &[]),
            set("2", &[], &[], &[7680]),
        ],
        &["no-ports: 1 (test)", "no-destination: 2 (test)"],
    );
    check(
        &[
            set("1", &["a.example"], &[], &[80]),
            set("1", &["a.example"], &[], &[443]),
        ],
        &[
            "repeated-set: 1 (row 1; row 1)",
            "repeated-name: a.example: 1 tcp/80; 1 tcp/443",
            "rows-differ: 1: tcp/80, default, optional (row 1); tcp/443, default, optional (row 1)",
        ],
    );
    check(
        &[
            set("1", &["a.example"], &["10.0.0.0/8", "52.0.0.0/8"], &[443]),
            set("2", &["*.azureedge.net", "azureedge.net"], &[], &[443]),
        ],
        &[
            "special-listed: 10.0.0.0/8 (1): private",
            "shared-wildcard: *.azureedge.net (2): under azureedge.net",
            "names-and-networks: 1 (test)",
        ],
    );
    let mut sources = [
        set("1", &["a.example"], &[], &[443]),
        set("1", &["a.example"], &[], &[443]),
    ];
    sources[1].required = true;
    for (set, source) in sources.iter_mut().zip(["page 1", "service 2"]) {
        source.clone_into(&mut set.source);
    }
    check(
        &sources,
        &[
            "repeated-set: 1 (row 1; row 1)",
            "repeated-name: a.example: 1 tcp/443; 1 tcp/443",
            "sources-disagree: 1: tcp/443, default, optional (page 1, row 1); tcp/443, default, required \
             (service 2, row 1)",
        ],
    );
    let mut partly = vendor(&[set("1", &["a.example"], &[], &[443])]);
    partly.account.report("line 3", "10.0.0.1/8", "host bits");
    assert_eq!(
        lines(catalogue(&partly)),
        ["not-imported: line 3: 10.0.0.1/8: host bits"]
    );
    check(
        &[
            set("1", &["*.b.example", "b.example"], &[], &[443]),
            set("2", &["x.b.example", "xb.example"], &[], &[443]),
        ],
        &["covered-name: x.b.example (2): *.b.example (1)"],
    );
    check(
        &[set("1", &["*.b.example"], &[], &[443])],
        &["no-apex: *.b.example (1)"],
    );
    check(
        &[
            set(
                "1",
                &[
                    "a.m.example",
                    "b.m.example",
                    "c.m.example",
                    "d.m.example",
                    "m.example",
                ],
                &[],
                &[443],
            ),
            set("2", &["*.m.example"], &[], &[443]),
        ],
        &[
            "wide-wildcard: *.m.example (2): 4 of 5 other names",
            "covered-name: a.m.example (1): *.m.example (2) | b.m.example (1): *.m.example (2) | \
             c.m.example (1): *.m.example (2) | d.m.example (1): *.m.example (2)",
        ],
    );
    let mut guessed = set("1", &["a.example"], &[], &[443]);
    guessed.inferred = vec!["port: 443".to_owned()];
    check(&[guessed], &["inferred: 1: port: 443"]);
}

fn compile(spec: ZoneSpec, catalogue: Catalogue, links: Links, unzoned: Unzoned) -> Rules {
    let intent = Intent {
        upstream: vec![InterfacePattern::parse("wan*").unwrap()],
        internal: vec!["10.0.0.0/8".parse().unwrap()],
        unzoned,
        catalogues: vec![catalogue],
        zones: vec![spec],
        ..Intent::default()
    };
    Rules::compile(Arc::new(intent), links, &mut Numbers::default()).unwrap()
}

#[test]
fn redirects() {
    let catalogue = vendor(&[
        set("1", &["a.example"], &[], &[443]),
        set("2", &["dns.example"], &["9.9.9.9/32"], &[53, 853]),
        set("3", &[], &[], &[53]),
    ]);
    let links = Links(std::collections::BTreeMap::from([(
        2,
        Link {
            name: "lan0".to_owned(),
            up: true,
            mac: Vec::new(),
            ethernet: true,
            stack: Stack::default(),
            addresses: vec!["10.20.0.1/16".parse().unwrap()],
        },
    )]));
    let check = |listeners: &[&str], sources: &[&str], expected: &[&str]| {
        let spec = ZoneSpec {
            name: "z".to_owned(),
            allow: vec![Selector::parse("v").unwrap()],
            sources: sources.iter().map(|net| net.parse().unwrap()).collect(),
            redirect: listeners.iter().map(|at| at.parse().unwrap()).collect(),
            ..ZoneSpec::default()
        };
        let rules = compile(spec, catalogue.clone(), links.clone(), Unzoned::Drop);
        let (_, compiled) = rules.zones().next().unwrap();
        assert_eq!(lines(zone(&rules, compiled)), expected, "{listeners:?}");
    };
    check(&[], &[], &[]);
    let wins = "redirect-wins: v/2";
    check(&["10.20.0.1:53"], &["10.20.0.0/16"], &[wins]);
    check(&["10.20.0.1:53"], &[], &[wins, "redirect-family: IPv6"]);
    check(
        &["10.9.9.9:53", "[::]:53"],
        &["10.20.0.0/16", "2001:db8::/32"],
        &[wins, "redirect-family: IPv4"],
    );
}

#[test]
fn zones() {
    let catalogue = vendor(&[
        set("1", &["*.azureedge.net"], &[], &[443]),
        set("2", &["a.azureedge.net"], &["17.0.0.0/8"], &[443]),
        set("3", &[], &[], &[7680]),
    ]);
    let check = |spec: ZoneSpec, expected: &[&str]| {
        let rules = compile(
            spec.clone(),
            catalogue.clone(),
            Links::default(),
            Unzoned::Drop,
        );
        let (_, compiled) = rules.zones().next().unwrap();
        assert_eq!(lines(zone(&rules, compiled)), expected, "{spec:?}");
    };
    let allowing = |text: &str| ZoneSpec {
        name: "z".to_owned(),
        allow: vec![Selector::parse(text).unwrap()],
        ..ZoneSpec::default()
    };
    check(allowing("v/1"), &["shared-inert: *.azureedge.net (v/1)"]);
    let shared = vec!["*.azureedge.net".to_owned()];
    check(
        ZoneSpec {
            shared: shared.clone(),
            ..allowing("v/1")
        },
        &["shared-open: *.azureedge.net (v/1), under azureedge.net"],
    );
    check(
        ZoneSpec {
            shared,
            ..allowing("v/2")
        },
        &[
            "shared-unused: *.azureedge.net",
            "wide-network: 17.0.0.0/8 (v/2)",
        ],
    );
    check(allowing("v/3"), &["reaches-nothing: "]);
    check(
        ZoneSpec {
            rules: vec![set("r", &[], &["10.1.0.0/16", "52.1.0.0/16"], &[443])],
            ..allowing("v/3")
        },
        &["special-network: 10.1.0.0/16 (z/r), private"],
    );
    let private = ["*.corp.a.example", "nas.b.example"];
    check(
        ZoneSpec {
            rules: vec![set("r", &["*.a.example"], &[], &[443])],
            private: private.map(|text| Pattern::parse(text).unwrap()).into(),
            ..allowing("v/3")
        },
        &[
            "private-names: *.corp.a.example",
            "private-unused: nas.b.example",
        ],
    );
    check(
        ZoneSpec {
            mode: Mode::Audit,
            ..allowing("v/2")
        },
        &["wide-network: 17.0.0.0/8 (v/2)", "audit: "],
    );
    check(
        ZoneSpec {
            rules: vec![set("r", &["*.pages.dev"], &[], &[443])],
            ..allowing("v/3")
        },
        &["shared-open: *.pages.dev (z/r), under pages.dev"],
    );
}

#[test]
fn what_deny_takes_away() {
    let catalogue = vendor(&[
        set("wide", &["*.a.example"], &["192.0.2.0/24"], &[443]),
        set(
            "one",
            &["x.a.example", "y.b.example"],
            &["192.0.2.128/25"],
            &[443],
        ),
        set("other", &["*.azureedge.net"], &["198.51.100.0/24"], &[443]),
    ]);
    let check = |allow: &str, deny: &str, expected: &[&str]| {
        let selector = |text| vec![Selector::parse(text).unwrap()];
        let spec = ZoneSpec {
            allow: selector(allow),
            deny: selector(deny),
            ..ZoneSpec::default()
        };
        let rules = compile(spec, catalogue.clone(), Links::default(), Unzoned::Drop);
        let (_, compiled) = rules.zones().next().unwrap();
        assert_eq!(taken_away(&rules, compiled), expected, "{allow} {deny}");
    };
    check(
        "v/wide",
        "v/one",
        &[
            "x.a.example (v/one), else allowed by v/wide",
            "192.0.2.128/25 (v/one), else allowed by v/wide",
        ],
    );
    check(
        "v/one",
        "v/wide",
        &[
            "*.a.example (v/wide), else allowed by v/one",
            "192.0.2.0/24 (v/wide), else allowed by v/one",
        ],
    );
    check("v/one", "v/other", &[]);
    // Its wildcard has no effect, so there is nothing to take away from it.
    check(
        "v/other",
        "v/other",
        &["198.51.100.0/24 (v/other), else allowed by v/other"],
    );
}

#[test]
fn interfaces() {
    let links = |list: &[(&str, bool, &[&str])]| {
        let link = |(name, up, addresses): &(&str, bool, &[&str])| Link {
            name: (*name).to_owned(),
            up: *up,
            mac: Vec::new(),
            ethernet: true,
            stack: Stack::default(),
            addresses: addresses
                .iter()
                .map(|address| address.parse().unwrap())
                .collect(),
        };
        Links((1..).zip(list.iter().map(link)).collect())
    };
    let check = |list: &[(&str, bool, &[&str])], expected: &[&str]| {
        let spec = ZoneSpec {
            interfaces: vec![InterfacePattern::parse("lan0").unwrap()],
            name: "z".to_owned(),
            ..ZoneSpec::default()
        };
        let rules = compile(spec, vendor(&[]), links(list), Unzoned::Drop);
        assert_eq!(lines(super::links(&rules)), expected, "{list:?}");
    };
    let lan: (&str, bool, &[&str]) = ("lan0", true, &["192.0.2.1/24"]);
    let wan: (&str, bool, &[&str]) = ("wan0", true, &["198.51.100.1/24"]);
    let lo: (&str, bool, &[&str]) = ("lo", true, &["127.0.0.1/8", "::1/128"]);
    check(&[lan, wan, lo], &[]);
    check(
        &[lan, wan, ("tun0", true, &["203.0.113.1/32"])],
        &["unclaimed-interface: tun0"],
    );
    check(&[lan, wan, ("tun0", false, &["203.0.113.1/32"])], &[]);
    check(
        &[lan, wan, ("mgmt", true, &["10.1.0.1/24", "fe80::1/64"])],
        &[],
    );
    check(
        &[lan, wan, ("mgmt", true, &["10.1.0.1/24", "203.0.113.1/24"])],
        &["unclaimed-interface: mgmt"],
    );
    check(
        &[lan, wan, ("new0", true, &["fe80::1/64"])],
        &["unclaimed-interface: new0"],
    );
    check(
        &[lo],
        &["missing-interface: lan0 (zone `z`) | wan* (upstream)"],
    );
}

/// Ids are for people to look up.
#[test]
fn every_id_is_documented() {
    let documented = include_str!("../../../../docs/lint.md");
    let sources = [
        include_str!("catalogue.rs"),
        include_str!("zone.rs"),
        include_str!("redirect.rs"),
        include_str!("../../check/mod.rs"),
    ];
    let mut ids = 0;
    for source in sources {
        // In an `about(` or an `alone(` the id is the first argument.
        let lines = source.lines().map(str::trim);
        let quoted = lines.filter_map(|line| {
            let word = line.rsplit_once("alone(").map_or(line, |(_, rest)| rest);
            let word = word.strip_prefix("id: ").unwrap_or(word);
            word.strip_prefix('"')?
                .split_once('"')
                .map(|(word, _)| word)
        });
        let id = |word: &&str| {
            word.contains('-')
                && word
                    .bytes()
                    .all(|byte| byte.is_ascii_lowercase() || byte == b'-')
        };
        for word in quoted.filter(id) {
            assert!(documented.contains(&format!("| `{word}` |")), "{word}");
            ids += 1;
        }
    }
    assert!(ids > 20, "{ids}");
}
