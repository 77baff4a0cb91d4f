//! Lists of networks that clouds publish: Azure's service tags, Amazon's address ranges, GitHub's `/meta`. None
//! of them tells ports.

use super::json::Json;
use super::row::Row;
use crate::policy::catalogue::{Account, Catalogue, EndpointSet};
use std::collections::BTreeMap;

/// Which of them a document is, by its keys.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    ServiceTags,
    Amazon,
    GitHub,
}

/// Recognises one of them.
pub(super) fn kind(json: &Json) -> Option<Kind> {
    let Json::Object(entries) = json else {
        return None;
    };
    let has = |key: &str| json.get(key).is_some();
    if has("values") && (has("changeNumber") || has("cloud")) {
        return Some(Kind::ServiceTags);
    }
    if has("prefixes") || has("ipv6_prefixes") {
        return Some(Kind::Amazon);
    }
    let lists = entries
        .iter()
        .filter(|(_, value)| matches!(value, Json::List(_)));
    (has("domains") || has("hooks") || has("ssh_keys") && lists.count() > 1).then_some(Kind::GitHub)
}

/// Reads one of them.
pub(super) fn read(json: &Json, kind: Kind) -> Catalogue {
    let mut account = Account::default();
    let word = |key| json.get(key).and_then(Json::word).unwrap_or_default();
    let (name, title, version, sets) = match kind {
        Kind::ServiceTags => {
            let sets = service_tags(json, &mut account);
            ("azure", "Azure service tags", word("changeNumber"), sets)
        }
        Kind::Amazon => {
            let sets = amazon(json, &mut account);
            ("aws", "AWS address ranges", word("syncToken"), sets)
        }
        Kind::GitHub => ("github", "GitHub meta", "", github(json, &mut account)),
    };
    Catalogue {
        name: name.to_owned(),
        title: title.to_owned(),
        version: version.to_owned(),
        source: title.to_owned(),
        sets,
        account,
    }
}

/// The values of a list; what is none is reported.
fn list<'j>(json: Option<&'j Json>, origin: &str, account: &mut Account) -> &'j [Json] {
    match json {
        Some(Json::List(values)) => values,
        None | Some(Json::Null) => &[],
        Some(other @ (Json::Bool(_) | Json::Number(_) | Json::Text(_) | Json::Object(_))) => {
            let why = format!("it is {}, not a list", other.kind());
            account.report(origin, &other.sketch(), why);
            &[]
        }
    }
}

/// Takes a destination that must be a text.
fn target(row: &mut Row<'_>, value: &Json, origin: impl Fn() -> String) {
    match value {
        Json::Text(text) => row.target(text, origin),
        Json::Null | Json::Bool(_) | Json::Number(_) | Json::List(_) | Json::Object(_) => {
            row.report(&value.sketch(), origin, "it is no text");
        }
    }
}

/// A set for each tag, under the tag's name.
fn service_tags(json: &Json, account: &mut Account) -> Vec<EndpointSet> {
    let tags = list(json.get("values"), "values", account);
    let mut sets = Vec::new();
    for (index, tag) in tags.iter().enumerate() {
        let origin = format!("values[{index}]");
        let Some(name) = tag.get("name").and_then(Json::word) else {
            account.report(&origin, &tag.sketch(), "it has no name");
            continue;
        };
        let properties = tag.get("properties");
        let text = |key| {
            properties?
                .get(key)
                .and_then(Json::word)
                .filter(|text| !text.is_empty())
        };
        let area = text("systemService").or_else(|| name.split('.').next());
        let prefixes = list(
            properties.and_then(|properties| properties.get("addressPrefixes")),
            &origin,
            account,
        );
        let mut row = Row::new(account, name, area.unwrap_or(name), origin.clone());
        row.set.service = name.to_owned();
        for (n, prefix) in prefixes.iter().enumerate() {
            target(&mut row, prefix, || {
                format!("{origin}.addressPrefixes[{n}]")
            });
        }
        sets.extend(row.finish());
    }
    sets
}

/// A set for each service in each region: `S3.eu-west-1`.
fn amazon(json: &Json, account: &mut Account) -> Vec<EndpointSet> {
    type Entries<'j> = Vec<(String, &'j Json)>;
    let mut groups: BTreeMap<(&str, &str), Entries<'_>> = BTreeMap::new();
    for (key, field) in [("prefixes", "ip_prefix"), ("ipv6_prefixes", "ipv6_prefix")] {
        for (index, entry) in list(json.get(key), key, account).iter().enumerate() {
            let origin = format!("{key}[{index}]");
            let word = |key| entry.get(key).and_then(Json::word);
            match (word("service"), word("region"), entry.get(field)) {
                (Some(service), Some(region), Some(prefix)) => {
                    let group = groups.entry((service, region)).or_default();
                    group.push((origin, prefix));
                }
                _ => {
                    let why = format!("it lacks one of `service`, `region`, `{field}`");
                    account.report(&origin, &entry.sketch(), why);
                }
            }
        }
    }
    let mut sets = Vec::new();
    for ((service, region), prefixes) in groups {
        let id = format!("{service}.{region}");
        let origin = prefixes.first().map(|(origin, _)| origin.clone());
        let mut row = Row::new(account, &id, service, origin.unwrap_or_default());
        row.set.service = format!("{service} in {region}");
        for (origin, prefix) in prefixes {
            target(&mut row, prefix, || origin.clone());
        }
        sets.extend(row.finish());
    }
    sets
}

/// Keys whose values are no destinations.
const NOT_DESTINATIONS: &[&str] = &[
    "ssh_key_fingerprints",
    "ssh_keys",
    "verifiable_password_authentication",
];

/// A set for each key, and for each key under `domains`: `domains.actions`.
fn github(json: &Json, account: &mut Account) -> Vec<EndpointSet> {
    let Json::Object(entries) = json else {
        return Vec::new();
    };
    let mut sets = Vec::new();
    // (id, what it holds); deeper lists join the queue.
    let mut waiting: Vec<(String, &Json)> = Vec::new();
    for (key, value) in entries.iter().rev() {
        if NOT_DESTINATIONS.contains(&&**key) {
            let why = "it is no destination";
            account.report(key, &value.sketch(), why);
        } else {
            waiting.push((key.clone(), value));
        }
    }
    while let Some((id, value)) = waiting.pop() {
        match value {
            Json::List(values) => {
                let area = id.split('.').next().unwrap_or(&id);
                let mut row = Row::new(account, &id, area, id.clone());
                row.set.service.clone_from(&id);
                for (n, value) in values.iter().enumerate() {
                    target(&mut row, value, || format!("{id}[{n}]"));
                }
                sets.extend(row.finish());
            }
            Json::Object(inner) => {
                let inner = inner.iter().rev();
                waiting.extend(inner.map(|(key, value)| (format!("{id}.{key}"), value)));
            }
            Json::Null | Json::Bool(_) | Json::Number(_) | Json::Text(_) => {
                account.report(&id, &value.sketch(), "it is no list of destinations");
            }
        }
    }
    sets
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(text: &str, expected: Kind, sets: &[&str], reported: &[&str]) {
        let json = Json::read(text, "f").unwrap();
        assert_eq!(kind(&json), Some(expected));
        let catalogue = read(&json, expected);
        let rows = catalogue.sets.iter().map(|set| {
            let networks = set.networks.iter().map(ToString::to_string);
            let names = set.patterns.iter().map(ToString::to_string);
            let all: Vec<_> = networks.chain(names).collect();
            assert!(set.ports.is_empty());
            format!("{}/{} {}", set.area, set.id, all.join(" "))
        });
        assert_eq!(rows.collect::<Vec<_>>(), sets);
        let account = &catalogue.account;
        let told: Vec<_> = account.reported.iter().map(|r| &*r.origin).collect();
        assert_eq!(told, reported);
        assert_eq!(account.tokens, account.imported + reported.len());
    }

    #[test]
    fn tags() {
        check(
            r#"{"changeNumber": 42, "cloud": "Public", "values": [
                {"name": "Front.Web", "id": "Front.Web", "properties": {"systemService": "AzureFront",
                 "addressPrefixes": ["198.51.100.0/24", "2001:db8::/48", "nonsense"]}},
                {"name": "Empty", "properties": {"systemService": "", "addressPrefixes": []}},
                {"id": "nameless"}, {"name": "Odd", "properties": {"addressPrefixes": "198.51.100.0/24"}}]}"#,
            Kind::ServiceTags,
            &["azurefront/Front.Web 198.51.100.0/24 2001:db8::/48"],
            &["values[0].addressPrefixes[2]", "values[2]", "values[3]"],
        );
    }

    #[test]
    fn amazon_ranges() {
        check(
            r#"{"syncToken": "1", "prefixes": [
                {"ip_prefix": "198.51.100.0/25", "region": "eu-west-1", "service": "S3"},
                {"ip_prefix": "198.51.100.128/25", "region": "eu-west-1", "service": "S3"},
                {"ip_prefix": "203.0.113.0/24", "region": "GLOBAL"}],
               "ipv6_prefixes": [{"ipv6_prefix": "2001:db8::/32", "region": "eu-west-1", "service": "S3"}]}"#,
            Kind::Amazon,
            &["s3/S3.eu-west-1 198.51.100.0/25 198.51.100.128/25 2001:db8::/32"],
            &["prefixes[2]"],
        );
    }

    #[test]
    fn github_meta() {
        check(
            r#"{"verifiable_password_authentication": false, "ssh_keys": ["ssh-ed25519 AAAA"],
                "hooks": ["198.51.100.0/24"], "domains": {"website": ["*.a.example"],
                "actions": {"deep": ["b.example", 3]}}}"#,
            Kind::GitHub,
            &[
                "hooks/hooks 198.51.100.0/24",
                "domains/domains.website *.a.example",
                "domains/domains.actions.deep b.example",
            ],
            &[
                "ssh_keys",
                "verifiable_password_authentication",
                "domains.actions.deep[1]",
            ],
        );
    }
}
