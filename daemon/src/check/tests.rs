//! Configurations and what is reported about them.

use super::*;
use crate::policy::links::{Link, Stack};
use std::io;

const VENDOR: &str = "\
name = 'v'
title = 'A vendor'
version = '7'
source = 'a test'
[[set]]
id = '1'
area = 'core'
names = ['*.a.example', 'a.example']
networks = ['52.0.2.0/24', '52.51.100.0/24']
tcp = [80, 443]
[[set]]
id = '2'
area = 'core'
names = ['x.a.example', 'y.b.example']
tcp = [8443]
[[set]]
id = '3'
area = 'other'
names = ['*.azureedge.net']
networks = ['52.0.2.0/25']
tcp = [443]
[[set]]
id = '4'
area = 'other'
names = ['c.example']
udp = [123]
scope = { regions = ['ap'] }
";

fn settings(more: &str) -> Settings {
    let text = format!(
        "[dns]\nlisten = ['10.0.0.1:53']\nupstreams = ['udp://192.0.2.53']\n\
         [[catalogue]]\nname = 'v'\nfile = 'v.toml'\n\
         [[zone]]\nname = 'a'\ninterfaces = ['lan0']\n{more}"
    );
    let read = |_: &std::path::Path| -> io::Result<Vec<u8>> { Ok(VENDOR.into()) };
    crate::config::parse(&text, "e.toml", &read).unwrap_or_else(|problems| panic!("{problems}"))
}

#[test]
fn text_for_people() {
    let mut settings = settings(
        "sources = ['connected', '10.0.0.0/8']\nallow = ['v']\ndeny = ['v/3']\nscope = { regions = ['eu'] }",
    );
    settings
        .intent
        .catalogues
        .retain(|catalogue| catalogue.name == "v");
    let expected = "\
Catalogues
  v: A vendor, version 7
    4 sets, 6 names (2 wildcards), 3 networks
    from a test

Zones
  a: enforce, lan0, from connected, 10.0.0.0/8
    may reach 3 sets
      tcp/80, tcp/443: 2 names (1 wildcard), 2 networks
      tcp/80, tcp/443, tcp/8443: 1 name
      tcp/8443: 1 name
    left out by its scope:
      - v/4 (regions)
    taken away by deny:
      - 52.0.2.0/25 (v/3), else allowed by v/1, v/3

Port classes: 3 of 64

Findings
  warning [shared-inert] Zone `a` may not use wildcards under which anyone can create a name; they have no effect.
    - *.azureedge.net (v/3)
    Where clients need them, accept each with `shared` in the zone, or list the names in use with a [[zone.rule]].
  notice [covered-name] Names of `v` are covered by wildcards beside them; their ports add up.
    - x.a.example (2): *.a.example (1)
  notice [no-apex] Wildcards of `v` do not cover the name they stand under, which is not listed.
    - *.azureedge.net (3)
    Where clients need that name as well, add it with a [[zone.rule]].
  notice [shared-wildcard] Anyone can create names under these wildcards of `v`.
    - *.azureedge.net (3): under azureedge.net
    They have no effect until a zone opts in with `shared`; list the names you need instead.
  notice [names-and-networks] Sets of `v` list names and networks; vendors mean either, and both are open.
    - 1 ()
    - 3 ()
";
    assert_eq!(report(&settings, None).to_string(), expected);
}

#[test]
fn long_notices_are_cut_for_people_only() {
    let report = report(&settings("allow = ['intune']"), None);
    let (short, long) = (report.to_string(), format!("{report:#}"));
    assert!(short.contains("\n    - and 35 more\n"), "{short}");
    assert!(!long.contains(" more\n"), "{long}");
    assert!(
        long.contains("- trouter-azsc-usea-0-a.trouter.skype.com (181): *.trouter.skype.com (181)")
    );
    let json = serde_json::to_value(&report).unwrap();
    let covered = json["findings"]
        .as_array()
        .unwrap()
        .iter()
        .find(|f| f["id"] == "covered-name");
    assert_eq!(covered.unwrap()["items"].as_array().unwrap().len(), 40);
}

#[test]
fn the_builtin_catalogue_needs_two_opt_ins() {
    let report = report(&settings("allow = ['intune']"), None);
    let warnings: Vec<_> = report
        .findings
        .iter()
        .filter(|f| f.weight == "warning")
        .collect();
    assert_eq!(warnings.len(), 1, "{warnings:?}");
    assert_eq!(warnings[0].id, "shared-inert");
    assert_eq!(
        warnings[0].items,
        [
            "*.azureedge.net (intune/shared-cdn)",
            "*.webpubsub.azure.com (intune/187)"
        ]
    );
    let opens = &report.zones[0].opens;
    let names: usize = opens.iter().map(|open| open.names.len()).sum();
    let wildcards: usize = opens.iter().map(|open| open.wildcards.len()).sum();
    assert_eq!((names, wildcards), (87, 23), "112 names without the two");
    assert_eq!(report.classes.len(), 4);
    assert!(!report.has_errors());
}

#[test]
fn a_name_has_the_ports_of_the_wildcards_over_it() {
    let report = report(&settings("allow = ['intune']"), None);
    let ports = |name: &str| {
        let opens = report.zones[0].opens.iter();
        let mut with = opens.filter(|open| open.names.iter().any(|other| other == name));
        with.next().map(|open| open.ports.as_str())
    };
    assert_eq!(
        ports("swda01-mscdn.manage.microsoft.com"),
        Some("tcp/80, tcp/443")
    );
    assert_eq!(ports("graph.microsoft.com"), Some("tcp/443"));
    assert_eq!(ports("time.windows.com"), Some("udp/123"));
}

#[test]
fn planes_and_the_machine() {
    fn check(more: &str, address: Option<&str>, expected: &[&str]) {
        let links = address.map(|address| {
            let lan = Link {
                name: "lan0".to_owned(),
                up: true,
                mac: Vec::new(),
                ethernet: true,
                stack: Stack::default(),
                addresses: vec![address.parse().unwrap()],
            };
            Links([(1, lan)].into())
        });
        let report = report(
            &settings(&format!("allow = ['v/2']\n{more}")),
            links.as_ref(),
        );
        let warnings = report.findings.iter().filter(|f| f.weight == "warning");
        assert_eq!(
            warnings.map(|f| f.id).collect::<Vec<_>>(),
            expected,
            "{more}"
        );
    }
    check("", None, &[]);
    check("[planes]\nnft = false", None, &["ebpf-alone"]);
    check("[planes]\nebpf = 'xdp-generic'", None, &["generic-xdp"]);
    check("", Some("10.0.0.1/24"), &[]);
    check("", Some("10.0.0.2/24"), &["listen-elsewhere"]);
}

/// What a feed says cannot forge a line or move the cursor of who reads about it.
#[test]
fn findings_are_printed_in_one_line() {
    let finding = Finding {
        id: "not-imported",
        weight: "notice",
        sentence: "Parts.".to_owned(),
        remedy: String::new(),
        items: vec!["a\n  left out: \u{1b}[2J\u{202e}b".to_owned()],
    };
    let expected = "  notice [not-imported] Parts.\n    - a   left out: \\u{1b}[2J\\u{202e}b\n";
    assert_eq!(finding.to_string(), expected);
}
