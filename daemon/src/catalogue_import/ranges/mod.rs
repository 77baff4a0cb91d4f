//! Lists of networks that clouds publish: Azure's service tags, Amazon's address ranges, GitHub's `/meta`. None
//! of them tells ports.

mod amazon;
mod github;
mod service_tags;

use super::json::Json;
use super::source::Source;
use crate::policy::catalogue::Catalogue;

/// Which of them a document is, by its keys.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    ServiceTags,
    Amazon,
    GitHub,
}

/// Recognises one of them.
pub(super) fn kind(json: &Json) -> Option<Kind> {
    let has = |key: &str| json.get(key).is_some();
    if has("values") && (has("changeNumber") || has("cloud")) {
        return Some(Kind::ServiceTags);
    }
    if has("prefixes") || has("ipv6_prefixes") {
        return Some(Kind::Amazon);
    }
    let entries = json.entries().iter();
    let lists = entries.filter(|(_, value)| matches!(value, Json::List(_)));
    (has("domains") || has("hooks") || has("ssh_keys") && lists.count() > 1).then_some(Kind::GitHub)
}

/// Reads one of them.
pub(super) fn read(json: &Json, kind: Kind) -> Catalogue {
    let mut source = Source::default();
    let word = |key| json.get(key).and_then(Json::word).unwrap_or_default();
    let (name, title, version, sets) = match kind {
        Kind::ServiceTags => {
            let sets = service_tags::read(json, &mut source);
            ("azure", "Azure service tags", word("changeNumber"), sets)
        }
        Kind::Amazon => {
            let sets = amazon::read(json, &mut source);
            ("aws", "AWS address ranges", word("syncToken"), sets)
        }
        Kind::GitHub => ("github", "GitHub meta", "", github::read(json, &mut source)),
    };
    Catalogue {
        name: name.to_owned(),
        title: title.to_owned(),
        version: version.to_owned(),
        source: title.to_owned(),
        sets,
        account: source.account,
    }
}

/// The values of a list; what is none is reported.
fn list<'j>(json: &'j Json, origin: &str, source: &mut Source) -> &'j [Json] {
    match json {
        Json::List(values) => values,
        Json::Null => &[],
        Json::Bool(_) | Json::Number(_) | Json::Text(_) | Json::Object(_) => {
            let why = format!("it is {}, not a list", json.kind());
            source.misplaced(json, origin, &why);
            &[]
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What `text` is, its sets as `area/id targets`, and the tokens reported.
    pub(super) fn check(text: &str, expected: Kind, sets: &[&str], reported: &[&str]) {
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
        let told = account.reported.iter();
        let told: Vec<_> = told.map(|r| format!("{} {}", r.origin, r.token)).collect();
        assert_eq!(told, reported);
        assert_eq!(account.tokens, account.imported + reported.len());
    }
}
