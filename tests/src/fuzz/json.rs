//! JSON that keeps changing and stays JSON, and a scan of it that shares nothing with the readers.

use crate::oracle::generate::Dice;
use egressd::policy::catalogue::Catalogue;
use ipnet::IpNet;
use serde_json::{Map, Value, json};
use std::collections::BTreeSet;

/// Changes a few values of a document; `None` where it is no JSON.
pub(super) fn change(text: &[u8], dice: &mut Dice) -> Option<Vec<u8>> {
    let mut document: Value = serde_json::from_slice(text).ok()?;
    for _ in 0..=dice.below(3) {
        let count = count(&document);
        let mut at = dice.below(count);
        let other = pick(&document, &mut dice.below(count)).cloned();
        if let Some(value) = pick_mut(&mut document, &mut at) {
            alter(value, other.unwrap_or_default(), dice);
        }
    }
    let mut text = serde_json::to_string(&document).ok()?;
    if dice.chance(200) {
        // The same keys once more, which a `Value` cannot hold.
        let entries = [
            r#""urls":["y.example.com"],"#,
            r#""values":[],"#,
            r#""addressPrefixes":["192.0.2.128/25"],"#,
            r#""ip_prefix":"192.0.2.64/26","#,
            r#""hooks":["198.51.100.0/25"],"#,
        ];
        let entry = entries[dice.below(entries.len())];
        if let Some((at, _)) = text.match_indices("{\"").nth(dice.below(4)) {
            text.insert_str(at + 1, entry);
        }
    }
    Some(text.into_bytes())
}

fn alter(value: &mut Value, other: Value, dice: &mut Dice) {
    match (dice.below(8), value) {
        (0, Value::Array(values)) if !values.is_empty() => {
            drop(values.remove(dice.below(values.len())))
        }
        (1, Value::Array(values)) => values.push(other),
        (2, Value::Array(values)) => values.reverse(),
        (0, Value::Object(entries)) => {
            let keys: Vec<_> = entries.keys().cloned().collect();
            if !keys.is_empty() {
                entries.remove(&keys[dice.below(keys.len())]);
            }
        }
        (1, Value::Object(entries)) => {
            let keys = [
                "urls",
                "ips",
                "id",
                "name",
                "properties",
                "region",
                "x.example.com",
                "",
            ];
            entries.insert(keys[dice.below(keys.len())].to_owned(), other);
        }
        (3, value) => *value = json!([value.take()]),
        (4, value) => *value = Value::Object(Map::from_iter([("k".to_owned(), value.take())])),
        (5, value) => *value = other,
        (_, value) => {
            *value = match dice.below(8) {
                0 => Value::Null,
                1 => json!(true),
                2 => json!(-1.5e300),
                3 => json!(443),
                4 => json!("*.z.example.com"),
                5 => json!("203.0.113.77/25"),
                6 => json!("\u{1b}[2J\u{202e} 1-2-3, 65536"),
                _ => json!([]),
            };
        }
    }
}

fn children(value: &Value) -> Box<dyn Iterator<Item = &Value> + '_> {
    match value {
        Value::Array(values) => Box::new(values.iter()),
        Value::Object(entries) => Box::new(entries.values()),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {
            Box::new(std::iter::empty())
        }
    }
}

fn count(value: &Value) -> usize {
    1 + children(value).map(count).sum::<usize>()
}

fn pick<'v>(value: &'v Value, at: &mut usize) -> Option<&'v Value> {
    if *at == 0 {
        return Some(value);
    }
    *at -= 1;
    children(value).find_map(|child| pick(child, at))
}

fn pick_mut<'v>(value: &'v mut Value, at: &mut usize) -> Option<&'v mut Value> {
    if *at == 0 {
        return Some(value);
    }
    *at -= 1;
    match value {
        Value::Array(values) => values.iter_mut().find_map(|child| pick_mut(child, at)),
        Value::Object(entries) => entries.values_mut().find_map(|child| pick_mut(child, at)),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => None,
    }
}

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
    "regionId",
    "platform",
    "service",
    "systemService",
    "network_border_group",
    "syncToken",
    "createDate",
];

/// A name or a network of a document that its catalogue neither holds nor reports.
pub(super) fn lost(text: &[u8], catalogue: &Catalogue) -> Option<String> {
    let document: Value = serde_json::from_slice(text).ok()?;
    let mut found = BTreeSet::new();
    texts(&document, "", &mut found);
    let sets = || catalogue.sets.iter();
    let mut held: BTreeSet<String> = sets()
        .flat_map(|set| set.patterns.iter().map(ToString::to_string))
        .collect();
    held.extend(sets().flat_map(|set| set.networks.iter().map(ToString::to_string)));
    let told = |text: &str| {
        catalogue
            .account
            .reported
            .iter()
            .any(|one| one.token.contains(text))
    };
    let canonical = |text: &str| match text.parse::<IpNet>() {
        Ok(network) => network.to_string(),
        Err(_) => text.to_lowercase(),
    };
    let lost = |text: &&str| !held.contains(&canonical(text)) && !told(text);
    found.into_iter().find(lost).map(str::to_owned)
}

fn texts<'v>(value: &'v Value, key: &str, found: &mut BTreeSet<&'v str>) {
    match value {
        Value::String(text) if !DESCRIPTIVE.contains(&key) && destination(text) => {
            found.insert(text);
        }
        Value::Array(values) => values.iter().for_each(|value| texts(value, "", found)),
        Value::Object(entries) => entries
            .iter()
            .for_each(|(key, value)| texts(value, key, found)),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
    }
}

fn destination(text: &str) -> bool {
    let plain = |c: char| c.is_ascii_alphanumeric() || c == '-' || c == '*';
    let label = |label: &str| !label.is_empty() && label.chars().all(plain);
    let last = text.rsplit('.').next().unwrap_or_default();
    let top = last.len() > 1 && last.chars().all(|c| c.is_ascii_alphabetic());
    text.len() < 250
        && (text.parse::<IpNet>().is_ok()
            || top && text.contains('.') && text.split('.').all(label))
}

#[cfg(test)]
mod tests {
    use super::*;
    use egressd::catalogue_import::read;

    #[test]
    fn the_scan_finds_what_is_missing() {
        let text = br#"[{"urls": ["a.example.com", "*.B.example.com"], "ips": ["192.0.2.0/24"], "id": "c.example"}]"#;
        let mut catalogue = read(text, "f").unwrap();
        assert_eq!(lost(text, &catalogue), None);
        catalogue.sets[0].patterns.pop();
        assert_eq!(lost(text, &catalogue).as_deref(), Some("*.B.example.com"));
    }

    #[test]
    fn changes_stay_json() {
        let mut dice = Dice::new(3);
        let mut text =
            br#"{"values": [{"name": "A", "properties": {"addressPrefixes": ["192.0.2.0/24"]}}]}"#
                .to_vec();
        let first = text.clone();
        for _ in 0..200 {
            text = change(&first, &mut dice).unwrap();
            assert!(serde_json::from_slice::<Value>(&text).is_ok());
        }
        assert_ne!(text, first);
    }
}
