//! GitHub's `/meta` (<https://docs.github.com/rest/meta/meta>): a set for each key, and for each key under
//! `domains`: `domains.actions`.

use crate::catalogue_import::json::Json;
use crate::catalogue_import::row::Row;
use crate::catalogue_import::source::{Source, shortened};
use crate::policy::catalogue::EndpointSet;

/// Keys whose values are no destinations.
const NOT_DESTINATIONS: &[&str] = &[
    "ssh_key_fingerprints",
    "ssh_keys",
    "verifiable_password_authentication",
];

/// The longest id of a set, in bytes. Every set under a key repeats the key, so that a long one would become as
/// many times longer as it has sets.
const LONGEST_ID: usize = 100;

pub(super) fn read(json: &Json, source: &mut Source) -> Vec<EndpointSet> {
    let mut sets = Vec::new();
    for (key, value) in json.entries() {
        if NOT_DESTINATIONS.contains(&&**key) || matches!(value, Json::Bool(_) | Json::Null) {
            source.aside(key, value, &shortened(key), "it is no destination");
        } else {
            source.key(key, &shortened(key));
            group(key, value, source, &mut sets);
        }
    }
    sets
}

/// A list is a set; an object has more of them.
fn group(id: &str, json: &Json, source: &mut Source, sets: &mut Vec<EndpointSet>) {
    if id.len() > LONGEST_ID {
        let why = "its keys are too long for the id of a set";
        return source.misplaced(json, &shortened(id), why);
    }
    match json {
        Json::List(_) => {
            let area = id.split('.').next().unwrap_or(id);
            let origin = if id.is_empty() { "\"\"" } else { id };
            let mut row = Row::new(source, id, area, origin.to_owned());
            id.clone_into(&mut row.set.service);
            row.targets(json, origin);
            sets.extend(row.finish());
        }
        Json::Object(entries) => {
            for (key, value) in entries {
                source.key(key, id);
                group(&format!("{id}.{key}"), value, source, sets);
            }
        }
        Json::Null | Json::Bool(_) | Json::Number(_) | Json::Text(_) => {
            source.misplaced(json, id, "it is no list of destinations");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::Kind;
    use super::super::tests::check;

    #[test]
    fn meta() {
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
                "verifiable_password_authentication false",
                "ssh_keys [ssh-ed25519 AAAA]",
                "domains.actions.deep[1] 3",
            ],
        );
    }

    #[test]
    fn a_key_may_be_empty() {
        let text = r#"{"hooks": [], "": ["198.51.100.0/24", "x"]}"#;
        check(text, Kind::GitHub, &["-/- 198.51.100.0/24"], &["\"\"[1] x"]);
    }

    #[test]
    fn what_stands_twice_or_elsewhere_is_not_lost() {
        let long = "k".repeat(150);
        check(
            &format!(
                r#"{{"hooks": ["198.51.100.0/24"], "hooks": ["203.0.113.0/24"], "web": "192.0.2.0/24",
                    "ssh_keys": ["a.example.com"], "domains": {{"{long}": {{"x": ["b.example"]}}}}}}"#
            ),
            Kind::GitHub,
            &["hooks/hooks 198.51.100.0/24", "hooks/hooks 203.0.113.0/24"],
            &[
                "web 192.0.2.0/24",
                "ssh_keys[0] a.example.com",
                &format!("domains.{long}.x[0] b.example"),
            ],
        );
    }
}
