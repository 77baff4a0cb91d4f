//! The Microsoft 365 endpoints web service (<https://learn.microsoft.com/microsoft-365/enterprise/microsoft-365-ip-web-service>):
//! `/endpoints`, and the small documents beside it.

use super::json::Json;
use super::row::Row;
use super::source::{Source, shortened};
use crate::document::Problems;
use crate::policy::catalogue::{Catalogue, Category, EndpointSet};
use crate::policy::port::{TCP, UDP};
use std::collections::BTreeSet;

/// Whether this is what `/endpoints` answers.
pub(super) fn is(json: &Json) -> bool {
    let Json::List(sets) = json else { return false };
    let keys = ["serviceArea", "urls", "ips", "tcpPorts", "udpPorts"];
    sets.iter()
        .any(|set| keys.iter().any(|key| set.get(key).is_some()))
}

/// Reads what `/endpoints` answers.
pub(super) fn read(json: &Json) -> Catalogue {
    let mut source = Source::default();
    let sets = match json {
        Json::List(sets) => sets.as_slice(),
        Json::Null | Json::Bool(_) | Json::Number(_) | Json::Text(_) | Json::Object(_) => &[],
    };
    let rows = sets
        .iter()
        .enumerate()
        .filter_map(|(index, json)| set(json, index, &mut source));
    Catalogue {
        name: "m365".to_owned(),
        title: "Microsoft 365 endpoints".to_owned(),
        source: "Microsoft 365 endpoints web service".to_owned(),
        sets: rows.collect(),
        account: source.account,
        ..Catalogue::default()
    }
}

fn set(json: &Json, index: usize, source: &mut Source) -> Option<EndpointSet> {
    let Json::Object(entries) = json else {
        let why = format!("it is {}, not a set", json.kind());
        source.misplaced(json, &format!("[{index}]"), &why);
        return None;
    };
    let text = |key| json.get(key).and_then(Json::word);
    let id = text("id").map_or_else(|| format!("row-{index}"), str::to_owned);
    let area = text("serviceArea").unwrap_or("unknown");
    let mut row = Row::new(source, &id, area, format!("[{index}]"));
    let mut seen = BTreeSet::new();
    for (key, value) in entries {
        let origin = || format!("[{index}].{key}");
        if !KEYS.contains(&&**key) {
            row.source
                .unknown(key, value, &format!("[{index}].{}", shortened(key)));
            continue;
        }
        let again = !seen.insert(&**key);
        let wrong = match (&**key, value) {
            (_, Json::Null) => None,
            // What stands twice adds up.
            ("urls" | "ips", _) => {
                row.targets(value, &origin());
                None
            }
            ("tcpPorts" | "udpPorts", Json::Text(ports) | Json::Number(ports)) => {
                let protocol = if key == "tcpPorts" { TCP } else { UDP };
                row.ports(ports, protocol, &origin());
                None
            }
            _ if again => Some("the key stands twice; the first one counts"),
            ("id" | "serviceArea", Json::Text(_) | Json::Number(_)) => None,
            ("serviceAreaDisplayName", Json::Text(text)) => {
                row.set.service.clone_from(text);
                None
            }
            ("notes", Json::Text(text)) => {
                row.set.notes.clone_from(text);
                None
            }
            ("required", Json::Bool(required)) => {
                row.set.required = *required;
                None
            }
            ("expressRoute", Json::Bool(express_route)) => {
                row.set.express_route = *express_route;
                None
            }
            ("category", Json::Text(text)) => match category(text) {
                Some(category) => {
                    row.set.category = category;
                    None
                }
                None => Some("it is no category: Optimize, Allow or Default"),
            },
            _ => Some("it is of another kind than this key has"),
        };
        if let Some(why) = wrong {
            row.source.misplaced(value, &origin(), why);
        }
    }
    if text("id").is_none() {
        row.set
            .inferred
            .push(format!("id: the set has none, it is called {id}"));
    }
    row.finish()
}

/// What a set may say.
const KEYS: &[&str] = &[
    "id",
    "serviceArea",
    "serviceAreaDisplayName",
    "urls",
    "ips",
    "tcpPorts",
    "udpPorts",
    "required",
    "expressRoute",
    "category",
    "notes",
];

/// Microsoft's word for a category.
pub(super) fn category(text: &str) -> Option<Category> {
    let words = [
        ("optimize", Category::Optimize),
        ("allow", Category::Allow),
        ("default", Category::Default),
    ];
    let text = text.trim();
    let known = words
        .iter()
        .find(|(word, _)| text.eq_ignore_ascii_case(word));
    known.map(|(_, category)| *category)
}

/// The latest version that `/version` or `/version/{instance}` tells for `instance` (`Worldwide`; case does not
/// matter): ten digits, which grow.
///
/// # Errors
/// When it tells none.
pub fn version(text: &str, instance: &str, file: &str) -> Result<String, Problems> {
    let json = Json::read(text, file)?;
    let one = std::slice::from_ref(&json);
    let entries = match &json {
        Json::List(entries) => entries.as_slice(),
        Json::Null | Json::Bool(_) | Json::Number(_) | Json::Text(_) | Json::Object(_) => one,
    };
    let named = |entry: &&Json| {
        let name = entry.get("instance").and_then(Json::word);
        name.is_some_and(|name| name.eq_ignore_ascii_case(instance))
    };
    let latest = entries
        .iter()
        .find(named)
        .and_then(|entry| entry.get("latest"));
    let digits = |text: &&str| text.len() == 10 && text.bytes().all(|byte| byte.is_ascii_digit());
    match latest.and_then(Json::word).filter(digits) {
        Some(version) => Ok(version.to_owned()),
        None => Err(Problems::with_file(
            file,
            format!("it tells no version of instance `{instance}`; ten digits were expected"),
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn import(text: &str) -> Catalogue {
        let json = Json::read(text, "f").unwrap();
        assert!(is(&json), "{text}");
        let catalogue = read(&json);
        let account = &catalogue.account;
        assert_eq!(account.tokens, account.imported + account.reported.len());
        catalogue
    }

    #[test]
    fn sets_are_read_whole() {
        let catalogue = import(
            r#"[{"required": true, "category": "Optimize", "expressRoute": true, "udpPorts": "3478, 3479-3481",
                "tcpPorts": "443,80", "ips": ["198.51.100.0/24", "2001:db8::/32"],
                "urls": ["*.a.example", "autodiscover.*.b.example"], "serviceAreaDisplayName": "Mail",
                "serviceArea": "Exchange", "notes": "n", "id": 7},
               {"id": 8, "serviceArea": "MEM", "serviceAreaDisplayName": "Intune", "urls": ["x.example"],
                "tcpPorts": "443", "expressRoute": false, "category": "Default", "required": false}]"#,
        );
        let [mail, intune] = &catalogue.sets[..] else {
            panic!("{catalogue:?}")
        };
        assert_eq!(
            (&*mail.id, &*mail.area, &*mail.service),
            ("7", "exchange", "Mail")
        );
        assert_eq!(mail.ports.to_string(), "tcp/80, tcp/443, udp/3478-3481");
        assert_eq!((mail.patterns.len(), mail.networks.len()), (2, 2));
        assert!(mail.required && mail.express_route && !intune.required);
        assert_eq!((mail.category, &*mail.notes), (Category::Optimize, "n"));
        assert_eq!((&*intune.area, &*intune.origin), ("mem", "[1]"));
        assert_eq!(
            (catalogue.account.tokens, catalogue.account.imported),
            (10, 10)
        );
    }

    #[test]
    fn what_cannot_be_held_is_reported() {
        fn check(set: &str, expected: &[&str]) {
            let catalogue = import(&format!(r#"[{{"id": 1, "urls": ["a.example"], {set}}}]"#));
            let reported = catalogue.account.reported.iter();
            let reported: Vec<_> = reported
                .map(|r| format!("{} {}", r.origin, r.token))
                .collect();
            assert_eq!(reported, expected, "{set}");
            assert_eq!(catalogue.sets.len(), 1, "the rest is imported");
        }
        check(r#""tcpPorts": 443"#, &[]);
        check(r#""ips": null"#, &[]);
        check(r#""urls": ["b.example"]"#, &[]);
        check(r#""urls": "b.example""#, &["[0].urls b.example"]);
        check(
            r#""ips": ["1.2.3.4/8", 7]"#,
            &["[0].ips[0] 1.2.3.4/8", "[0].ips[1] 7"],
        );
        check(
            r#""urls": ["<tenant>.b.example"]"#,
            &["[0].urls[0] <tenant>.b.example"],
        );
        check(r#""tcpPorts": "443,65536""#, &["[0].tcpPorts 65536"]);
        check(r#""tcpPorts": ["443"]"#, &["[0].tcpPorts[0] 443"]);
        check(r#""required": "yes""#, &["[0].required yes"]);
        check(r#""category": "Best""#, &["[0].category Best"]);
        check(r#""id": 2"#, &["[0].id 2"]);
        check(r#""sctpPorts": "9""#, &["[0].sctpPorts 9"]);
    }

    #[test]
    fn versions() {
        fn check(text: &str, expected: Option<&str>) {
            assert_eq!(
                version(text, "Worldwide", "f").ok().as_deref(),
                expected,
                "{text}"
            );
        }
        check(
            r#"[{"instance": "China", "latest": "2025010100"}, {"instance": "worldwide", "latest": "2025112800"}]"#,
            Some("2025112800"),
        );
        check(
            r#"{"instance": "Worldwide", "latest": "2025112800", "versions": []}"#,
            Some("2025112800"),
        );
        check(r#"{"instance": "China", "latest": "2025112800"}"#, None);
        check(r#"{"instance": "Worldwide", "latest": "new"}"#, None);
        check("[]", None);
        check("<html>", None);
    }
}
