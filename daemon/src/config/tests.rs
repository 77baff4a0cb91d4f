//! Configurations and what is said about them.

use super::*;
use crate::policy::image::{Inbound, Mode, Refusal, Unzoned};
use crate::policy::links::InterfacePattern;
use crate::policy::port::Service;
use proptest::prelude::*;

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
    assert_eq!(
        (example.unattended, bare.unattended),
        (Some(DEFAULT_UNATTENDED), Some(DEFAULT_UNATTENDED))
    );
    assert_eq!(example.intent.limits, bare.intent.limits);
    let dns = |dns: DnsSettings| (dns.timeout, dns.race, dns.hold, dns.unlisted, dns.local);
    let services = |dns: &DnsSettings| (dns.hints, dns.ech);
    assert_eq!(services(&example.dns), (Hints::Admit, Ech::Keep));
    assert_eq!(services(&example.dns), services(&bare.dns));
    assert_eq!(dns(example.dns), dns(bare.dns));
    let (example, bare) = (&example.intent.zones[0], &bare.intent.zones[0]);
    assert_eq!((example.mode, example.inbound), (bare.mode, bare.inbound));
    assert_eq!(
        (example.refusal, bare.refusal),
        (bare.refusal, Refusal::Quic)
    );
}

#[test]
fn values_reach_the_settings() {
    let text = format!(
        "{}mode = 'audit'\ninbound = 'deny'\nrefuse = 'reject'\nserves = [9, 'gre', 53, 9]\nsources = ['connected', '10.0.0.0/8']\n\
         shared = ['*.AzureEdge.net']\ndeny = ['intune/179']\nscope = {{ platforms = ['Windows'] }}\n\
         [[zone.rule]]\nnetworks = ['192.0.2.1']\nudp = [123]\n\
         [gateway]\nunzoned = 'accept'\ninternal = ['10.0.0.0/8']\n\
         [planes]\nnft = false\nebpf = 'tc'\nown_table = false\nlog_group = 5\n\
         [control]\nsocket = '/s'\ngroup = 'wheel'\n[service]\nstate = '/st'\nbpf = '/b'\nunattended = 'never'\n\
         [limits]\nttl_floor = 5\ngrace = '2m'\nlearned = 10\nidle = '9s'\nper_client = 7\nreferred = 0\n\
         questions = 0\nconnections = 100\nconnections_per_client = 3\n\
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
    assert_eq!(zone.refusal, Refusal::Reject);
    let served = [Service::udp(9), Service::udp(53), Service::whole(47)];
    assert_eq!((&*zone.serves, zone.connected), (&served[..], true));
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
            own_table: false,
            log_group: 5
        }
    );
    assert_eq!(settings.control.group.as_deref(), Some("wheel"));
    assert_eq!(settings.runtime(), Path::new("/"));
    assert_eq!((settings.state, settings.pins), ("/st".into(), "/b".into()));
    assert_eq!(settings.unattended, None);
    let limits = settings.intent.limits;
    assert_eq!((limits.per_zone, limits.per_client), (10, 7));
    assert_eq!(limits.referred, 0);
    let clients = settings.dns.clients;
    assert_eq!(
        (
            clients.questions,
            clients.connections,
            clients.connections_per_client
        ),
        (0, 100, 3)
    );
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

#[test]
fn keys_and_types() {
    check(GOOD, "");
    check_line(
        "interfaces",
        "interface",
        "e.toml:4:1: this zone has no interface; write interfaces = [\"lan0\"]\n\
         e.toml:6:1: unknown key `interface`; did you mean `interfaces`?",
    );
    check_line(
        "[dns]",
        "[dsn]",
        "e.toml:1:1: zone `a` lists names and its clients have nobody to ask for them; write [dns] listen = [\"…:53\"]\n\
         e.toml:1:1: zone `a` lists names and there is nobody to ask for them; write [dns] upstreams = [\"udp://…\"]\n\
         e.toml:1:2: unknown key `dsn`; did you mean `dns`?",
    );
    check_line(
        "name = 'a'",
        "name = 7",
        "e.toml:5:8: `7` does not fit here; write a string in quotes",
    );
    check_line(
        "['lan0']",
        "'lan0'",
        "e.toml:6:14: `'lan0'` does not fit here; write a list in brackets",
    );
    check_line(
        "[[zone]]",
        "[zone]",
        "e.toml:4:1: `zone` may stand several times; write [[zone]] for [zone]",
    );
    check_line(
        "name = 'a'",
        "name = 'a",
        "e.toml:5:10: this is not TOML: invalid literal string, expected `'`",
    );
    check_line(
        "[dns]",
        "[dns]\nhold = '1 s'\nrace = 5\ntimeout = '1h'",
        "e.toml:2:8: `'1 s'` does not fit here; write a time such as \"300ms\", \"2s\", \"15m\", \"24h\" or \"30d\"\n\
         e.toml:3:8: `5` does not fit here; write a time such as \"300ms\", \"2s\", \"15m\", \"24h\" or \"30d\"\n\
         e.toml:4:11: `'1h'` does not fit here; write a time from 10ms to 30s",
    );
    check(
        &format!(
            "{GOOD}[limits]\nper_answer = 0\nttl_floor = '2h'\nttl_ceiling = '1h'\ngrace = -1\nreferred = 'x'"
        ),
        "e.toml:8:1: `ttl_floor` is above `ttl_ceiling`; write a shorter `ttl_floor`\n\
         e.toml:9:14: `0` does not fit here; write a whole number from 1 to 4096\n\
         e.toml:12:9: `-1` does not fit here; write a whole number from 0 to 31536000\n\
         e.toml:13:12: `'x'` does not fit here; write a whole number from 0 to 100",
    );
}

#[test]
fn resolvers() {
    check_line(
        "'10.0.0.1:53'",
        "'lan0', '10.0.0.1', '::1', '10.0.0.1:0', '10.0.0.2:53', '10.0.0.2:53'",
        "e.toml:2:11: `lan0` is not an address; write an address and a port, such as `10.20.0.1:53` or `[2001:db8::1]:53`\n\
         e.toml:2:19: `10.0.0.1` has no port; write `10.0.0.1:53`\n\
         e.toml:2:31: `::1` has no port; write `[::1]:53`\n\
         e.toml:2:38: `10.0.0.1:0` has port 0; write an address and a port, such as `10.20.0.1:53` or `[2001:db8::1]:53`\n\
         e.toml:2:67: `10.0.0.2:53` stands twice; leave one out",
    );
    check_line(
        "'udp://192.0.2.53'",
        "'192.0.2.53', 'dns.example', 'ftp://192.0.2.1', 'udp://dns.example', 'udp://0.0.0.0', 'udp://10.0.0.1'",
        "e.toml:3:14: `192.0.2.53` does not say how to ask; write `udp://192.0.2.53`\n\
         e.toml:3:28: `dns.example` is not an upstream; write one such as `udp://192.0.2.53` or `tls://192.0.2.54#dns.example`\n\
         e.toml:3:43: `ftp` is not a way to ask; write one such as `udp://192.0.2.53` or `tls://192.0.2.54#dns.example`\n\
         e.toml:3:62: `dns.example` is not an address; write one such as `udp://192.0.2.53` or `tls://192.0.2.54#dns.example`\n\
         e.toml:3:83: nobody can be asked at `0.0.0.0`; write one such as `udp://192.0.2.53` or `tls://192.0.2.54#dns.example`\n\
         e.toml:3:100: egressd listens on 10.0.0.1:53 itself; write another resolver's address",
    );
    check_line(
        "upstreams = ['udp://192.0.2.53']",
        "",
        "e.toml:1:1: zone `a` lists names and there is nobody to ask for them; write [dns] upstreams = [\"udp://…\"]",
    );
    check(
        "[[zone]]\nname = 'a'\ninterfaces = ['lan0']\n[[zone.rule]]\nnetworks = ['192.0.2.1']\ntcp = [22]",
        "",
    );
}

#[test]
fn planes_and_paths() {
    check_line(
        "[dns]",
        "[planes]\nnft = false\nebpf = 'off'\n[dns]",
        "e.toml:1:1: both planes are off, so nothing would be enforced; write `nft = true`",
    );
    check_line(
        "[dns]",
        "[planes]\nebpf = 'xpd'\nlog_group = 65536\n[dns]",
        "e.toml:2:8: `ebpf` cannot be `xpd`; did you mean `xdp`?\n\
         e.toml:3:13: `65536` does not fit here; write a whole number from 0 to 65535",
    );
    check_line(
        "[dns]",
        "[control]\nsocket = 'run/s'\n[dns]",
        "e.toml:2:10: `run/s` depends on where egressd is started; write a path that begins with `/`",
    );
    check_line(
        "[dns]",
        "[gateway]\nupstream = ['wan 0']\nunzoned = 'reject'\ninternal = ['10.0.0.1/8']\n[dns]",
        "e.toml:2:13: `wan 0` is not an interface name: write 1 to 15 letters, digits, `.`, `-`, `_` or `@`, with a `*` at the end at most\n\
         e.toml:3:11: `unzoned` cannot be `reject`; write `accept` or `drop`\n\
         e.toml:4:13: `10.0.0.1/8` has bits set after its prefix; write `10.0.0.0/8`",
    );
}

#[test]
fn selectors_and_scopes() {
    check_line(
        "'intune'",
        "'intun', 'office', 'intune/cor', 'intune/13', 'intune/150:required', 'intune/150:optional', '10.0.0.0/8', 'www.example.com', 'intune/56'",
        "e.toml:7:10: there is no catalogue `intun`; did you mean `intune`?\n\
         e.toml:7:19: there is no catalogue `office`; write `intune`\n\
         e.toml:7:29: `intune` has no set and no area `cor`; did you mean `intune/core`?\n\
         e.toml:7:43: `intune` has no set and no area `13`; did you mean `intune/163`?\n\
         e.toml:7:56: `intune/150:required` selects nothing: no set of it is required; write `intune/150`\n\
         e.toml:7:79: `intune/150:optional` is not a selector: write `catalogue`, `catalogue/area`, `catalogue/id`, or one of them followed by `:required`\n\
         e.toml:7:102: `10.0.0.0/8` is a network, not a selector; write it under `networks` of a [[zone.rule]]\n\
         e.toml:7:116: `www.example.com` is no catalogue; write names under `names` of a [[zone.rule]]",
    );
    check(
        &format!(
            "{GOOD}scope = {{ regions = ['e'], scale_unit = 'Europe 0202', platforms = ['window'], \
             feature = ['x'], clouds = 'dod' }}"
        ),
        "e.toml:8:22: no set has `e` in its regions; did you mean `eu`?\n\
         e.toml:8:41: no set has `Europe 0202` in its scale_unit; write `AMSUB0202`\n\
         e.toml:8:69: no set has `window` in its platforms; did you mean `windows`?\n\
         e.toml:8:80: unknown key `feature`; did you mean `features`?\n\
         e.toml:8:106: no set has `dod` in its clouds; write `gcc` or `worldwide`",
    );
    check(
        &format!("{GOOD}shared = ['*.microsoft.com', 'a.azureedge.net', '*', '*.azureedge.net']"),
        "e.toml:8:11: `*.microsoft.com` is not under a domain that strangers share and needs no opt-in; leave it out\n\
         e.toml:8:30: `a.azureedge.net` is not a wildcard and needs no opt-in; leave it out\n\
         e.toml:8:49: `*` would match far too much: at least two labels must follow the `*`",
    );
}

#[test]
fn private_names() {
    check(
        &format!("{GOOD}private = ['*.corp.example.com', 'nas.example.com']"),
        "",
    );
    check(
        &format!("{GOOD}private = ['*.azureedge.net', 'a b', '*']"),
        "e.toml:8:12: anyone can create a name that `*.azureedge.net` matches, and so reach private hosts; \
         write the names in use\n\
         e.toml:8:31: `a b` is not a name or a wildcard: ` ` is not allowed in it; \
         write international names as A-labels (xn--…)\n\
         e.toml:8:38: `*` would match far too much: at least two labels must follow the `*`",
    );
}

#[test]
fn services_and_translators() {
    let with = |line: &str| GOOD.replacen("[dns]\n", &format!("[dns]\n{line}\n"), 1);
    let text = with(
        "nat64 = ['2001:db8:64::/48', '64:ff9b::/96']\ndns64 = true\nhints = 'strip'\nech = 'strip'",
    );
    let settings = parse(&text, "e.toml", &no_file).unwrap();
    assert_eq!(settings.dns.dns64, Some(settings.intent.nat64[0]));
    assert_eq!(settings.intent.nat64.len(), 2);
    assert_eq!(
        (settings.dns.hints, settings.dns.ech),
        (Hints::Strip, Ech::Strip)
    );
    let settings = parse(&with("nat64 = ['64:ff9b::/96']"), "e.toml", &no_file).unwrap();
    assert_eq!((settings.dns.dns64, settings.intent.nat64.len()), (None, 1));
    check(
        &with("dns64 = true"),
        "e.toml:2:9: `dns64` needs the translator's prefix; write one such as nat64 = [\"64:ff9b::/96\"]",
    );
    check(
        &with("nat64 = ['64:ff9b::/95', '10.0.0.0/8', '2001:db8:0:0:100::/96']\ndns64 = true"),
        "e.toml:2:10: `64:ff9b::/95` translates nothing: a NAT64 prefix has 32, 40, 48, 56, 64 or 96 bits; \
         write one such as nat64 = [\"64:ff9b::/96\"]\n\
         e.toml:2:26: `10.0.0.0/8` is not IPv6; write one such as nat64 = [\"64:ff9b::/96\"]\n\
         e.toml:2:40: `2001:db8:0:0:100::/96` translates nothing: bits 64 to 71 of a NAT64 prefix are zero; \
         write one such as nat64 = [\"64:ff9b::/96\"]",
    );
    check(
        &with("hints = 'admitt'\nech = 'drop'\ndns64 = 1"),
        "e.toml:2:9: `hints` cannot be `admitt`; did you mean `admit`?\n\
         e.toml:3:7: `ech` cannot be `drop`; write `keep` or `strip`\n\
         e.toml:4:9: `1` does not fit here; write `true` or `false`",
    );
}

#[test]
fn zones_against_each_other() {
    let two = |first: &str, second: &str| {
        format!("[[zone]]\nname = 'a'\n{first}\n[[zone]]\nname = 'b'\n{second}\n")
    };
    check(
        &two("interfaces = ['lan0']", "interfaces = ['lan0']"),
        "e.toml:4:1: zones `a` and `b` both take every source on `lan0`; write different `sources`",
    );
    check(
        &two("interfaces = ['lan*']", "interfaces = ['wifi0', 'lan0']"),
        "e.toml:4:1: zones `a` and `b` both take every source on `lan0`; write different `sources`",
    );
    check(
        &two(
            "interfaces = ['lan0']\nsources = ['10.0.0.0/8', '10.1.0.0/16']",
            "interfaces = ['lan*']\nsources = ['10.1.0.0/16']",
        ),
        "e.toml:5:1: zones `a` and `b` both have source 10.1.0.0/16 on `lan0`; write different `sources`",
    );
    check(
        &two(
            "interfaces = ['lan0']\nsources = ['connected']",
            "interfaces = ['lan0']\nsources = ['connected']",
        ),
        "e.toml:5:1: zones `a` and `b` both take the connected sources on `lan0`; write different `sources`",
    );
    check(
        &two(
            "interfaces = ['lan0']",
            "interfaces = ['lan0']\nsources = ['10.1.0.0/16']",
        ),
        "",
    );
    check(&two("interfaces = ['lan0']", "interfaces = ['lan1']"), "");
    check(
        &two("interfaces = ['lan0']", "interfaces = ['lan1']").replace("'b'", "'a'"),
        "e.toml:4:1: zone `a` stands twice; give one another name",
    );
    check(
        &format!(
            "[gateway]\nupstream = ['lan*']\n{}",
            two("interfaces = ['lan0']", "interfaces = ['l*']")
        ),
        "e.toml:3:1: interface `lan0` of zone `a` is upstream (`lan*`), where nothing is judged; take it out of one of the two\n\
         e.toml:6:1: zones `a` and `b` both take every source on `lan0`; write different `sources`",
    );
    check(
        "",
        "e.toml:1:1: there is no zone, so nobody may pass; write a [[zone]]",
    );
    check(
        "[[zone]]\nname = 'a b'\ninterfaces = []\nsources = ['conected', '10.0.0.0/33', '10.0.0.0/8', '10.0.0.0/8']",
        "e.toml:1:1: this zone has no interface; write interfaces = [\"lan0\"]\n\
         e.toml:2:8: `a b` cannot name a zone; write 1 to 32 ASCII letters, digits, `-` or `_`\n\
         e.toml:4:12: `conected` is not a source; did you mean `connected`?\n\
         e.toml:4:24: `10.0.0.0/33` is not a network; write one such as `198.51.100.0/24` or `2001:db8::/32`\n\
         e.toml:4:53: `10.0.0.0/8` stands twice; leave one out",
    );
}

#[test]
fn rules() {
    let rule = |lines: &str| format!("{GOOD}[[zone.rule]]\n{lines}");
    check(&rule("names = ['a.example']\ntcp = [443]"), "");
    check(
        &rule("tcp = [443]"),
        "e.toml:8:1: this rule has no destination; write `names` or `networks`",
    );
    check(
        &rule("names = ['a.example']\nports = [443]"),
        "e.toml:8:1: this rule opens no port; write `tcp`, `udp` or `protocols`\n\
         e.toml:10:1: unknown key `ports`; write `name`, `names`, `networks`, `notes`, `protocols`, `tcp` or `udp`",
    );
    check(
        &rule("names = ['a.example']\ntcp = [0, '9-3']\nnetworks = ['127.0.0.0/8']"),
        "e.toml:10:8: `0` does not fit here; write a whole number from 1 to 65535\n\
         e.toml:10:11: the range `9-3` runs backwards; write \"3-9\"\n\
         e.toml:11:13: `127.0.0.0/8` lies in 127.0.0.0/8 (loopback), which no gateway forwards to; leave it out",
    );
}

#[test]
fn numbers_that_run_out() {
    let zone = |n: usize| format!("[[zone]]\nname = 'z{n}'\ninterfaces = ['lan{n}']\n");
    let zones = |count| (0..count).map(zone).collect::<String>();
    check(&zones(64), "");
    check(
        &zones(65),
        "e.toml:193:1: there are 65 zones and room for 64; put clients under the same policy into one zone",
    );
    let rule = |port: usize| {
        format!(
            "[[zone.rule]]\nnetworks = ['192.0.2.1']\ntcp = [{port}, '2-{}']\n",
            port + 9
        )
    };
    let rules = |count: usize| zone(0) + &(1..=count).map(|n| rule(n * 100)).collect::<String>();
    check(&rules(64), "");
    check(
        &rules(65),
        "e.toml:196:1: the zones need 65 different sets of ports and there is room for 64; \
         give `z0/rule-1` (tcp/2-109) and `z0/rule-2` (tcp/2-209) the same ports",
    );
}

#[test]
fn catalogue_files() {
    let good =
        "name = 'vendor'\n[[set]]\nid = '1'\narea = 'core'\nnames = ['a.example']\ntcp = [443]\n";
    let with = |catalogue: &str, bytes: &str| {
        let bytes = bytes.as_bytes().to_vec();
        let text = format!(
            "{}[[catalogue]]\n{catalogue}",
            GOOD.replace("'intune'", "'v'")
        );
        let read = move |path: &Path| {
            assert_eq!(path, Path::new("v.toml"));
            Ok(bytes.clone())
        };
        match parse(&text, "e.toml", &read) {
            Ok(settings) => settings.intent.catalogues.last().unwrap().name.clone(),
            Err(problems) => problems.to_string(),
        }
    };
    let file = "name = 'v'\nfile = 'v.toml'";
    assert_eq!(with(file, good), "v");
    assert_eq!(
        with(file, &good.replace("443", "0")),
        "v.toml:6:8: `0` does not fit here; write a whole number from 1 to 65535"
    );
    assert_eq!(
        with(file, "{}"),
        "v.toml: this JSON is none that is known; what is read are the sets of the Microsoft 365 endpoints web \
         service, Azure service tags, AWS ip-ranges.json and GitHub meta"
    );
    assert_eq!(
        with("name = 'v'", good),
        "e.toml:8:1: catalogue `v` has neither `file` nor `url`, and is not built in"
    );
    assert_eq!(
        with(&format!("{file}\nrequired_only = true"), good),
        "e.toml:7:10: `v` selects nothing: it has no set"
    );
    check(
        &format!(
            "{}[[catalogue]]\n{file}",
            GOOD.replace("'intune'", "'v/core'")
        ),
        "e.toml:10:8: `v.toml` cannot be read: no such file",
    );
    check(
        &format!(
            "{GOOD}[[catalogue]]\nfile = 'v.toml'\n[[catalogue]]\nname = 'a/b'\nfile = 'v.toml'"
        ),
        "e.toml:8:1: this catalogue has no `name`; write name = \"…\"\n\
         e.toml:11:8: `a/b` cannot name a catalogue; write it without spaces, `/` and `:`\n\
         e.toml:12:8: `v.toml` cannot be read: no such file",
    );
}

#[test]
fn tables_of_one_name_add_up() {
    let own = "name = 'x'\nversion = '7'\nsource = 'us'\n[[set]]\nid = '163'\narea = 'core'\nnames = ['a.example']\ntcp = [9]\nrequired = true\n";
    let read = |path: &Path| {
        Ok(match path.to_str().unwrap_or_default() {
            "own.toml" => own.as_bytes().to_vec(),
            "list" => b"b.example\n198.51.100.0/24\n".to_vec(),
            _ => panic!("{path:?}"),
        })
    };
    let sets = |catalogue: &str| -> Vec<String> {
        let settings = parse(&format!("{GOOD}{catalogue}"), "e.toml", &read).unwrap();
        let intune = settings.intent.catalogues.iter();
        let intune = intune.filter(|catalogue| catalogue.name == "intune");
        let sets = intune.flat_map(|catalogue| catalogue.sets.clone());
        let foreign = sets.filter(|set| !set.source.contains("Microsoft Learn"));
        foreign
            .map(|set| {
                format!(
                    "{} {} {} from {}",
                    set.id,
                    set.patterns.len(),
                    set.ports,
                    set.source
                )
            })
            .collect()
    };
    let file = "[[catalogue]]\nname = 'intune'\nfile = 'own.toml'\n";
    let list =
        "[[catalogue]]\nname = 'intune'\nfile = 'list'\ntcp = [443, '8000-8010']\nudp = [1]\n";
    let rows = builtin_rows(&parse(&format!("{GOOD}{file}"), "e.toml", &read).unwrap());
    assert!(rows > 20, "the built-in one is there as well: {rows}");
    assert_eq!(sets(file), ["163 1 tcp/9 from us 7"]);
    let both = sets(&format!("{file}{list}"));
    assert_eq!(both.len(), 2, "{both:?}");
    assert!(
        both[1].contains("tcp/443, tcp/8000-8010, udp/1 from "),
        "{both:?}"
    );
    let alone = format!("{file}builtin = false\n");
    assert_eq!(
        builtin_rows(&parse(&format!("{GOOD}{alone}"), "e.toml", &read).unwrap()),
        0
    );
    let wrong = parse(
        &format!("{GOOD}[[catalogue]]\nname = 'v'\nfile = 'list'\nbuiltin = true\n"),
        "e.toml",
        &read,
    );
    assert!(
        wrong
            .unwrap_err()
            .to_string()
            .contains("built in are `intune`, `apple`, ")
    );
}

#[test]
fn the_library_is_there_for_who_asks() {
    let names = |text: &str| -> Vec<String> {
        let settings = parse(text, "e.toml", &|_| panic!("no file")).unwrap();
        settings
            .intent
            .catalogues
            .into_iter()
            .map(|catalogue| catalogue.name)
            .collect()
    };
    assert_eq!(names(GOOD), ["intune"]);
    assert_eq!(
        names(&GOOD.replace("'intune'", "'intune', 'apple/push'")),
        ["intune", "apple"]
    );
    let named = format!("{GOOD}[[catalogue]]\nname = 'google'\nrequired_only = true\n");
    assert_eq!(names(&named), ["intune", "google"]);
    check(
        &GOOD.replace("'intune'", "'apple/pus'"),
        "e.toml:7:10: `apple` has no set and no area `pus`; did you mean `apple/push`?",
    );
}

fn builtin_rows(settings: &Settings) -> usize {
    let sets = settings
        .intent
        .catalogues
        .iter()
        .flat_map(|catalogue| &catalogue.sets);
    sets.filter(|set| set.source.contains("Microsoft Learn"))
        .count()
}

#[test]
fn of_broken_text_only_that_is_said() {
    check(
        "[[zone]]\nname = 'a\nbanana = 1\ninterfaces = ['lan0'\n",
        "e.toml:2:10: this is not TOML: invalid literal string, expected `'`\n\
         e.toml:4:21: this is not TOML: unclosed array, expected `]`",
    );
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    /// Whatever is written: an answer, and every problem with a place inside the file.
    #[test]
    fn any_text_gets_an_answer(at in 0.0..1.0f64, cut in 0usize..40, put in "[\\[\\]{}='\"a-z0-9.*ü\n/:,-]{0,12}") {
        let text = include_str!("../../../config/egressd.toml");
        let chars: Vec<char> = text.chars().collect();
        let from = (chars.len() as f64 * at) as usize;
        let to = (from + cut).min(chars.len());
        let broken: String =
            chars[..from].iter().copied().chain(put.chars()).chain(chars[to..].iter().copied()).collect();
        if let Err(problems) = parse(&broken, "e.toml", &no_file) {
            prop_assert!(!problems.list().is_empty());
            for problem in problems.list() {
                let (line, column) = problem.place.unwrap();
                let lines: Vec<&str> = broken.split('\n').collect();
                prop_assert!(line <= lines.len() && column <= lines[line - 1].chars().count() + 1, "{}", problem);
            }
        }
    }
}

#[test]
fn an_absence_is_a_time_or_never() {
    fn check(text: &str, expected: Result<Option<u64>, &str>) {
        let text = format!("{GOOD}[service]\nunattended = {text}\n");
        let found = parse(&text, "e.toml", &no_file);
        let found = found.map(|settings| settings.unattended.map(|time| time.as_secs()));
        match (found, expected) {
            (Ok(found), Ok(expected)) => assert_eq!(found, expected, "{text}"),
            (Err(problems), Err(expected)) => {
                let problems = problems.to_string();
                assert!(problems.contains(expected), "{problems}");
            }
            (found, expected) => panic!("{text}: {found:?}, {expected:?}"),
        }
    }
    check("'24h'", Ok(Some(86_400)));
    check("'5m'", Ok(Some(300)));
    check("'never'", Ok(None));
    check(
        "'4m'",
        Err("`'4m'` does not fit here; write a time from 300s"),
    );
    check(
        "'nver'",
        Err("e.toml:9:14: `unattended` is no time; write one such as \"24h\", or \"never\""),
    );
    check("0", Err("or \"never\""));
}

#[test]
fn the_gateway_itself_may_be_a_zone() {
    let own = "[[zone]]\nname = 'gateway'\nlocal = true\nallow = ['intune']\n";
    let good = GOOD.replace(
        "'udp://192.0.2.53'",
        "'udp://192.0.2.53', 'tls://[2001:db8::1]:853#dns.example'",
    );
    let settings = parse(&format!("{good}{own}"), "e.toml", &no_file).unwrap();
    let zone = &settings.intent.zones[1];
    assert!(zone.local && zone.interfaces.is_empty() && settings.dns.marked);
    let found: Vec<_> = (settings.intent.resolvers.iter())
        .map(|to| (to.protocol, to.port, to.address.to_string()))
        .collect();
    let at = |protocol, port, address: &str| (protocol, port, address.to_owned());
    let expected = [
        at(6, 53, "192.0.2.53"),
        at(6, 853, "2001:db8::1"),
        at(17, 53, "192.0.2.53"),
    ];
    assert_eq!(found, expected);
    // Without one nothing is made ready for it.
    let settings = parse(&format!("{good}local = false\n"), "e.toml", &no_file).unwrap();
    assert!(settings.intent.resolvers.is_empty() && !settings.dns.marked);

    let check = |more: &str, expected: &str| check(&format!("{GOOD}{own}{more}"), expected);
    check(
        "interfaces = ['wan0']\n",
        "e.toml:12:14: a zone with `local = true` is what leaves by interfaces in no zone; leave `interfaces` out",
    );
    check(
        "sources = ['10.0.0.1']\n",
        "e.toml:12:11: a zone with `local = true` has every address of the gateway; leave `sources` out",
    );
    check(
        "inbound = 'deny'\n",
        "e.toml:12:11: a zone with `local = true` is about what the gateway sends; connections to it are the input chain's business; leave `inbound` out",
    );
    check(
        "redirect = true\n",
        "e.toml:12:12: a zone with `local = true` asks the resolver of its own configuration; name egressd there; leave `redirect` out",
    );
    check(
        "[[zone]]\nname = 'again'\nlocal = true\n",
        "e.toml:14:9: zone `again` is the gateway itself, and so is `gateway`; put both into one zone",
    );
    check(
        "[planes]\nnft = false\n",
        "e.toml:10:9: zone `gateway` judges what the gateway itself sends, which takes the nft plane; write nft = true in [planes], or leave the zone out",
    );
}
