//! Configurations and what is said about them.

use super::*;
use crate::policy::image::{Inbound, Mode, Unzoned};
use crate::policy::links::InterfacePattern;

fn no_file(_: &Path) -> io::Result<Vec<u8>> {
    Err(io::Error::new(io::ErrorKind::NotFound, "no such file"))
}

/// A configuration that is good, before `{}` is put where it stands.
const GOOD: &str = "\
[dns]
listen = ['10.0.0.1:53']
upstreams = ['udp://192.0.2.53']
[[zone]]
name = 'a'
interfaces = ['lan0']
allow = ['intune']
";

fn check(text: &str, expected: &str) {
    let got = match parse(text, "e.toml", &no_file) {
        Ok(_) => String::new(),
        Err(problems) => problems.to_string(),
    };
    assert_eq!(got, expected, "in\n{text}");
}

/// `GOOD` with one line put in another's place.
fn check_line(old: &str, new: &str, expected: &str) {
    assert!(GOOD.contains(old), "{old}");
    check(&GOOD.replacen(old, new, 1), expected);
}

#[test]
fn the_example_says_what_it_shows() {
    let text = include_str!("../../../config/egressd.toml");
    let settings = parse(text, "egressd.toml", &no_file).unwrap();
    let zone = &settings.intent.zones[0];
    assert_eq!(settings.intent.unzoned, Unzoned::Drop);
    assert_eq!(
        settings.intent.upstream,
        [
            InterfacePattern::Exact("wan0".to_owned()),
            InterfacePattern::Prefix("ppp".to_owned())
        ]
    );
    assert_eq!(zone.scope.scale_units, ["AMSUB0101"]);
    assert_eq!(zone.rules[0].id, "packages");
    assert_eq!(
        zone.rules[0].ports.to_string(),
        "icmp, tcp/443, tcp/8000-8010"
    );
    assert_eq!(zone.rules[0].origin.split(':').next(), Some("egressd.toml"));
}

#[test]
fn the_example_writes_the_defaults() {
    let example = include_str!("../../../config/egressd.toml");
    let example = parse(example, "egressd.toml", &no_file).unwrap();
    let bare = parse(GOOD, "e.toml", &no_file).unwrap();
    assert_eq!(example.planes, bare.planes);
    assert_eq!(example.control, bare.control);
    assert_eq!((example.state, example.pins), (bare.state, bare.pins));
    assert_eq!(example.intent.limits, bare.intent.limits);
    let dns = |dns: DnsSettings| (dns.timeout, dns.race, dns.hold, dns.unlisted, dns.local);
    assert_eq!(dns(example.dns), dns(bare.dns));
    let (example, bare) = (&example.intent.zones[0], &bare.intent.zones[0]);
    assert_eq!((example.mode, example.inbound), (bare.mode, bare.inbound));
}

#[test]
fn values_reach_the_settings() {
    let text = format!(
        "{}mode = 'audit'\ninbound = 'deny'\nserves = [9, 53, 9]\nsources = ['connected', '10.0.0.0/8']\n\
         shared = ['*.AzureEdge.net']\ndeny = ['intune/179']\nscope = {{ platforms = ['Windows'] }}\n\
         [[zone.rule]]\nnetworks = ['192.0.2.1']\nudp = [123]\n\
         [gateway]\nunzoned = 'accept'\ninternal = ['10.0.0.0/8']\n\
         [planes]\nnft = false\nebpf = 'tc'\nlog_group = 5\n\
         [control]\nsocket = '/s'\ngroup = 'wheel'\n[service]\nstate = '/st'\nbpf = '/b'\n\
         [limits]\nttl_floor = 5\ngrace = '2m'\nlearned = 10\nidle = '9s'\n\
         [[catalogue]]\nname = 'intune'\nrequired_only = true\n",
        GOOD.replace(
            "'udp://192.0.2.53'",
            "'tcp://[2001:db8::1]:5353', 'udp://2001:db8::2'"
        )
        .replace(
            "[[zone]]",
            "timeout = '1s'\nhold = '5ms'\nunlisted = 'nxdomain'\nlocal = 'forward'\n[[zone]]"
        )
    );
    let settings = parse(&text, "e.toml", &no_file).unwrap_or_else(|problems| panic!("{problems}"));
    let zone = &settings.intent.zones[0];
    assert_eq!((zone.mode, zone.inbound), (Mode::Audit, Inbound::Deny));
    assert_eq!((&*zone.serves, zone.connected), (&[9, 53][..], true));
    assert_eq!(zone.sources, ["10.0.0.0/8".parse().unwrap()]);
    assert_eq!(zone.shared, ["*.azureedge.net"]);
    assert_eq!(zone.scope.platforms, ["windows"]);
    assert_eq!(zone.rules[0].id, "rule-1");
    assert_eq!(settings.intent.unzoned, Unzoned::Accept);
    assert_eq!(
        settings.planes,
        PlaneSettings {
            nft: false,
            ebpf: EbpfMode::Tc,
            log_group: 5
        }
    );
    assert_eq!(settings.control.group.as_deref(), Some("wheel"));
    assert_eq!((settings.state, settings.pins), ("/st".into(), "/b".into()));
    let limits = settings.intent.limits;
    assert_eq!(
        (limits.ttl_floor, limits.grace, limits.learned, limits.idle),
        (5, 120, 10, 9)
    );
    let upstreams = settings.dns.upstreams;
    assert_eq!(upstreams[0].address.to_string(), "[2001:db8::1]:5353");
    assert_eq!(upstreams[0].transport, Transport::Tcp);
    assert_eq!(upstreams[1].address.to_string(), "[2001:db8::2]:53");
    assert_eq!(
        (settings.dns.timeout, settings.dns.hold),
        (Duration::from_secs(1), Duration::from_millis(5))
    );
    assert_eq!(
        (settings.dns.unlisted, settings.dns.local),
        (Unlisted::NxDomain, Local::Forward)
    );
    let intune = &settings.intent.catalogues[0];
    assert!(
        intune
            .sets
            .iter()
            .all(|set| set.required && set.id != "150")
    );
}
