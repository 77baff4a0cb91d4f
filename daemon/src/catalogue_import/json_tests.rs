//! JSON of vendors, damaged and whole: nothing panics, and nothing is lost in silence.

use super::read;
use crate::policy::catalogue::Catalogue;
use crate::policy::name::Pattern;
use ipnet::IpNet;

const SETS: &str = r#"[
 {"id": 1, "serviceArea": "Exchange", "serviceAreaDisplayName": "Exchange Online",
  "urls": ["outlook.a.example", "*.b.example", "autodiscover.*.c.example", "autodiscover-*.d.example",
           "<tenant>.e.example", "*-files.f.example", "*cdn.g.example", "https://h.example/i"],
  "ips": ["198.51.100.0/24", "2001:db8::/32", "203.0.113.7/24", "127.0.0.0/8"],
  "tcpPorts": "80, 443", "udpPorts": "3478-3481,50000-59999", "expressRoute": true, "category": "Optimize",
  "required": true},
 {"id": 2, "serviceArea": "MEM", "urls": ["*.j.example", "*.com", "k"], "tcpPorts": "443,0", "category": "Best",
  "required": false, "notes": "see l.example"},
 {"category": "Default", "tcpPorts": "25", "more": ["m.example"]}]"#;
const TAGS: &str = r#"{"changeNumber": 5, "cloud": "Public", "values": [
 {"name": "Front.Web", "properties": {"systemService": "Front", "addressPrefixes": ["198.51.100.0/24", "x.example"]}},
 {"name": "B", "properties": {"addressPrefixes": ["2001:db8::/48", "10.0.0.1/8"]}}]}"#;
const AWS: &str = r#"{"prefixes": [{"ip_prefix": "198.51.100.0/24", "region": "eu-west-1", "service": "S3"},
 {"ip_prefix": "203.0.113.0/24", "service": "S3"}],
 "ipv6_prefixes": [{"ipv6_prefix": "2001:db8::/32", "region": "eu-west-1", "service": "EC2"}]}"#;
const GITHUB: &str = r#"{"hooks": ["198.51.100.0/24", "2001:db8::/32"], "web": "203.0.113.0/24",
 "domains": {"website": ["*.a.example"], "actions": {"full": ["b.example", "c.example:443"]}}}"#;

/// Keys whose texts describe, whatever they look like.
const DESCRIPTIVE: &[&str] = &[
    "id",
    "serviceArea",
    "serviceAreaDisplayName",
    "category",
    "notes",
    "changeNumber",
    "cloud",
    "name",
    "region",
    "service",
    "systemService",
];

/// A text of a document, and whether it is known to describe only.
struct Found {
    text: String,
    key: Option<String>,
}

/// Every text of a document as it stands there, keys too: a scan that knows neither JSON's structure nor a format,
/// and so sees what stands twice.
fn texts(document: &str) -> Vec<Found> {
    let mut found: Vec<Found> = Vec::new();
    let (mut rest, mut key) = (document, None);
    while let Some(start) = rest.find('"') {
        let between = rest[..start].trim();
        let mut escaped = false;
        let end = rest[start + 1..].find(|c| {
            let ends = c == '"' && !escaped;
            escaped = c == '\\' && !escaped;
            ends
        });
        let Some(end) = end.map(|end| start + 1 + end) else {
            break;
        };
        let Ok(text) = serde_json::from_str::<String>(&rest[start..=end]) else {
            break;
        };
        let of = (between == ":").then(|| key.take()).flatten();
        key = Some(text.clone());
        found.push(Found { text, key: of });
        rest = &rest[end + 1..];
    }
    found
}

fn looks_like_a_destination(text: &str) -> bool {
    let host = |text: &str| {
        let labels: Vec<_> = text.split('.').collect();
        let plain = |c: char| c.is_ascii_alphanumeric() || "-*".contains(c);
        let last = labels
            .last()
            .is_some_and(|l| l.len() > 1 && l.chars().all(|c| c.is_ascii_alphabetic()));
        labels.len() > 1 && last && labels.iter().all(|l| !l.is_empty() && l.chars().all(plain))
    };
    text.parse::<IpNet>().is_ok() || host(text)
}

/// What of a document its catalogue neither holds nor reports.
fn lost(document: &str, catalogue: &Catalogue) -> Vec<String> {
    let sets = || catalogue.sets.iter();
    let reported = |text: &str| {
        catalogue
            .account
            .reported
            .iter()
            .any(|one| one.token.contains(text))
    };
    let listed = |text: &str| {
        let text = text.to_lowercase();
        let network = text.parse::<IpNet>();
        sets().any(|set| {
            set.patterns
                .iter()
                .any(|pattern| pattern.to_string() == text)
                || network
                    .as_ref()
                    .is_ok_and(|network| set.networks.contains(network))
        })
    };
    let port = |text: &str| {
        let mut ends = text
            .splitn(2, '-')
            .map(|end| end.trim().parse::<u16>().ok());
        let (first, last) = (ends.next().flatten(), ends.next());
        let (Some(first), Some(last)) = (first, last.unwrap_or(first)) else {
            return false;
        };
        let mut services = sets().flat_map(|set| set.ports.services().iter());
        services.any(|service| service.first <= first && last <= service.last)
    };
    let mut lost = Vec::new();
    for Found { text, key } in texts(document) {
        let key = key.unwrap_or_default();
        if key == "tcpPorts" || key == "udpPorts" {
            let pieces = text
                .split(',')
                .map(str::trim)
                .filter(|piece| !piece.is_empty());
            lost.extend(
                pieces
                    .filter(|piece| !port(piece) && !reported(piece))
                    .map(str::to_owned),
            );
        } else if looks_like_a_destination(&text)
            && !DESCRIPTIVE.contains(&&*key)
            && !listed(&text)
            && !reported(&text)
        {
            lost.push(text);
        }
    }
    lost
}

#[test]
fn nothing_is_lost() {
    fn check(text: &str, tokens: usize, reported: usize) {
        let catalogue = read(text.as_bytes(), "f").unwrap();
        let account = &catalogue.account;
        let counts = (account.tokens, account.reported.len());
        assert_eq!(counts, (tokens, reported), "{:#?}", account.reported);
        assert_eq!(account.tokens, account.imported + account.reported.len());
        assert_eq!(lost(text, &catalogue), [] as [&str; 0]);
    }
    check(SETS, 24, 9);
    check(TAGS, 4, 1);
    check(AWS, 4, 2);
    check(GITHUB, 6, 2);
}

#[test]
fn the_scan_finds_what_is_missing() {
    let mut catalogue = read(SETS.as_bytes(), "f").unwrap();
    catalogue.sets[0].patterns.remove(1);
    catalogue.sets[0].networks.pop();
    catalogue
        .account
        .reported
        .retain(|one| one.token != "<tenant>.e.example" && one.token != "*.com");
    assert_eq!(
        lost(SETS, &catalogue),
        ["*.b.example", "2001:db8::/32", "*.com"]
    );
    let twice = r#"[{"urls": ["a.example"], "urls": ["b.example"]}]"#;
    assert_eq!(
        lost(twice, &Catalogue::default()),
        ["a.example", "b.example"]
    );
}

/// A pseudo-random sequence (splitmix64): the same in every run.
struct Dice(u64);

impl Dice {
    fn roll(&mut self, below: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        usize::try_from((z ^ (z >> 31)) % below as u64).unwrap_or_default()
    }
}

/// What may stand in a list.
const VALUES: &[&str] = &[
    "null",
    "7",
    "1e3",
    "true",
    "\"\"",
    "\"n.example\"",
    "\"N.Example.\"",
    "\"*.com\"",
    "\"2001:db8:1::/48\"",
    "\"192.0.2.1/24\"",
    "[\"o.example\"]",
    "{\"p.example\":\"q.example\"}",
    "{\"name\":\"T\",\"properties\":{\"addressPrefixes\":[\"192.0.2.0/25\"]}}",
    "{\"ip_prefix\":\"192.0.2.0/26\",\"region\":\"r\"}",
    "{\"urls\":[\"s.example\"]}",
    "[[[[[]]]]]",
];
/// Keys that may stand in an object.
const KEYS: &[&str] = &[
    "urls",
    "ips",
    "tcpPorts",
    "udpPorts",
    "id",
    "name",
    "category",
    "required",
    "values",
    "properties",
    "addressPrefixes",
    "systemService",
    "prefixes",
    "ip_prefix",
    "ipv6_prefixes",
    "ipv6_prefix",
    "region",
    "service",
    "hooks",
    "domains",
    "ssh_keys",
    "r.example",
    "else",
];

/// Puts more into a document, also keys that it has already, and changes bytes of every fourth.
fn mutate(seed: &str, dice: &mut Dice) -> Vec<u8> {
    let mut text = seed.to_owned();
    for _ in 0..=dice.roll(3) {
        let places: Vec<_> = text.match_indices(['[', '{']).collect();
        let (at, open) = places[dice.roll(places.len())];
        let (list, value) = (open == "[", VALUES[dice.roll(VALUES.len())]);
        let empty = text[at + 1..].trim_start().starts_with([']', '}']);
        let comma = if empty { "" } else { "," };
        let more = if list {
            format!("{value}{comma}")
        } else {
            format!("\"{}\":{value}{comma}", KEYS[dice.roll(KEYS.len())])
        };
        text.insert_str(at + 1, &more);
    }
    let mut bytes = text.into_bytes();
    if dice.roll(4) == 0 {
        let at = dice.roll(bytes.len());
        match dice.roll(3) {
            0 => bytes.truncate(at),
            1 => bytes[at] ^= 1 << dice.roll(8),
            _ => drop(bytes.remove(at)),
        }
    }
    bytes
}

/// 10,000 changes of a document: nothing panics, nothing is lost, what is held can be written and read again, and
/// reading twice gives the same.
fn damage(seed: &str) {
    let mut dice = Dice(11);
    let (mut imported, mut refused) = (0, 0);
    for round in 0..10_000 {
        let bytes = mutate(seed, &mut dice);
        let shown = String::from_utf8_lossy(&bytes);
        let first = read(&bytes, "f");
        if round % 8 == 0 {
            assert_eq!(first, read(&bytes, "f"), "{shown}");
        }
        let Ok(catalogue) = first else {
            refused += 1;
            continue;
        };
        imported += 1;
        let account = &catalogue.account;
        assert_eq!(
            account.tokens,
            account.imported + account.reported.len(),
            "{shown}"
        );
        if let Ok(text) = str::from_utf8(&bytes) {
            assert_eq!(lost(text, &catalogue), [] as [&str; 0], "{shown}");
        }
        for set in &catalogue.sets {
            for pattern in &set.patterns {
                assert_eq!(
                    Pattern::parse(&pattern.to_string()).as_ref(),
                    Ok(pattern),
                    "{shown}"
                );
            }
            assert!(
                !set.id.contains([' ', '/', ':']) && !set.origin.is_empty(),
                "{shown}"
            );
        }
    }
    assert!(imported > 5000 && refused > 500, "{imported} {refused}");
}

#[test]
fn damaged_web_service() {
    damage(SETS);
}

#[test]
fn damaged_service_tags() {
    damage(TAGS);
}

#[test]
fn damaged_aws_ranges() {
    damage(AWS);
}

#[test]
fn damaged_github_meta() {
    damage(GITHUB);
}

/// Much of one thing: it is read in one pass and refused before it fills the memory.
#[test]
fn huge_documents_take_one_pass() {
    fn check(text: &str, imports: bool) {
        let got = read(text.as_bytes(), "f");
        assert_eq!(got.is_ok(), imports, "{}", &text[..40]);
        if let Ok(catalogue) = got {
            let account = &catalogue.account;
            assert_eq!(account.tokens, account.imported + account.reported.len());
        }
    }
    const MANY: usize = 150_000;
    let keys: Vec<_> = (0..MANY).map(|n| format!("\"k{n}\":0")).collect();
    check(
        &format!(
            "[{{\"urls\":[\"a.example\"],{}}}]",
            keys[..60_000].join(",")
        ),
        true,
    );
    check(
        &format!("[{{\"urls\":[\"a.example\"],{}}}]", keys.join(",")),
        false,
    );
    check(
        &format!("[{}{{\"urls\":[\"a.example\"]}}]", "0,".repeat(MANY)),
        false,
    );
    check(
        &format!("[{{\"urls\":[{}\"a.example\"]}}]", "\"x\",".repeat(MANY)),
        false,
    );
    check(
        &format!(
            "[{{\"urls\":[\"a.example\"],\"tcpPorts\":\"{}1\"}}]",
            "0,".repeat(MANY)
        ),
        true,
    );
    let domains: Vec<_> = (0..1000)
        .map(|n| format!("\"{n}\":[\"a.example\"]"))
        .collect();
    let key = "k".repeat(MANY);
    check(
        &format!(
            "{{\"hooks\":[\"192.0.2.0/24\"],\"domains\":{{\"{key}\":{{{}}}}}}}",
            domains.join(",")
        ),
        true,
    );
}

/// Service tags as large as Azure's: `cargo test --release -p egressd --lib json_tests::speed -- --ignored --nocapture`.
#[test]
#[ignore = "a measurement"]
#[expect(clippy::disallowed_methods, reason = "a measurement reads a clock")]
fn speed() {
    let prefix = |n: usize| format!("\"{}.{}.{}.0/24\"", 11 + n / 65_536, n / 256 % 256, n % 256);
    let tag = |tag: usize| {
        let prefixes: Vec<_> = (tag * 30..tag * 30 + 30).map(prefix).collect();
        let (prefixes, region) = (prefixes.join(","), tag % 60);
        format!(
            "{{\"name\":\"Tag{tag}.Region{region}\",\"id\":\"Tag{tag}\",\"properties\":{{\"changeNumber\":1,\
             \"systemService\":\"Tag{tag}\",\"addressPrefixes\":[{prefixes}],\"networkFeatures\":[\"API\"]}}}}"
        )
    };
    let tags: Vec<_> = (0..3000).map(tag).collect();
    let text = format!(
        "{{\"changeNumber\":1,\"cloud\":\"Public\",\"values\":[{}]}}",
        tags.join(",")
    );
    let mut best = std::time::Duration::MAX;
    for _ in 0..5 {
        let began = std::time::Instant::now();
        let catalogue = read(text.as_bytes(), "f").unwrap();
        best = best.min(began.elapsed());
        assert_eq!(
            (catalogue.sets.len(), catalogue.account.imported),
            (3000, 90_000)
        );
    }
    println!(
        "{} bytes, 3,000 tags, 90,000 prefixes: {best:?}",
        text.len()
    );
}
