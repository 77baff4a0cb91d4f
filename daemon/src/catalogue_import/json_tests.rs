//! JSON of vendors, damaged and whole: nothing panics, and nothing is lost in silence.

use super::read;
use crate::policy::catalogue::Catalogue;
use ipnet::IpNet;
use serde_json::Value;

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

/// Every text of a document, however deep: what a reader that knows no format finds.
fn texts(value: &Value, found: &mut Vec<String>) {
    match value {
        Value::String(text) => found.push(text.clone()),
        Value::Array(values) => values.iter().for_each(|value| texts(value, found)),
        Value::Object(entries) => entries.values().for_each(|value| texts(value, found)),
        Value::Null | Value::Bool(_) | Value::Number(_) => {}
    }
}

/// Which texts of a document that look like destinations its catalogue neither holds nor reports.
fn lost(text: &str, catalogue: &Catalogue) -> Vec<String> {
    let mut found = Vec::new();
    texts(&serde_json::from_str(text).unwrap(), &mut found);
    let destination = |text: &String| {
        let spaced = text.contains(char::is_whitespace);
        text.parse::<IpNet>().is_ok() || !spaced && text.contains('.') && !text.starts_with('.')
    };
    let sets = catalogue.sets.iter();
    let held: Vec<String> = sets
        .flat_map(|set| {
            let names = set.patterns.iter().map(ToString::to_string);
            names.chain(set.networks.iter().map(ToString::to_string))
        })
        .collect();
    let reported = &catalogue.account.reported;
    found.retain(destination);
    // A tag's own name, which has a dot as well.
    let named = |text: &String| catalogue.sets.iter().any(|set| set.id == *text);
    let told = |text: &String| reported.iter().any(|one| one.token.contains(&**text));
    found.retain(|text| !held.contains(text) && !told(text) && !named(text));
    found
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
    check(AWS, 3, 1);
    check(GITHUB, 6, 2);
    // The scan finds what is missing.
    let mut catalogue = read(SETS.as_bytes(), "f").unwrap();
    catalogue.sets[0].patterns.remove(1);
    assert_eq!(lost(SETS, &catalogue), ["*.b.example"]);
}

#[test]
fn damaged_documents() {
    super::tables::tests::robust::check(&[SETS, TAGS, AWS, GITHUB]);
}
