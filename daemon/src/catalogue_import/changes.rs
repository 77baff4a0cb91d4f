//! What `/changes` of the Microsoft 365 endpoints web service answers: which sets changed, and when that takes
//! effect. It is advice: it has told of no change where `/endpoints` had one.

use super::json::Json;
use super::row::Row;
use super::source::Source;
use crate::document::Problems;
use crate::policy::catalogue::Reported;
use crate::policy::name::Pattern;
use ipnet::IpNet;

/// What happened to a set.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Disposition {
    /// The set is new.
    Add,
    /// Names, networks or attributes of the set changed.
    Change,
    /// The set is gone.
    Remove,
}

/// A change of one set.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Change {
    /// The set's id.
    pub set: String,
    /// What happened to it.
    pub disposition: Disposition,
    /// Microsoft's word for what it means for a network: `AddedIp`, `RemovedIpOrUrl`; empty if it gave none.
    pub impact: String,
    /// The version that brought it: ten digits.
    pub version: String,
    /// The day from which what is added is used, as `20260131`; empty if the change names none.
    pub effective: String,
    /// Names and networks added.
    pub added: Endpoints,
    /// Names and networks removed.
    pub removed: Endpoints,
}

/// Names and networks of a change.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Endpoints {
    /// Names and wildcards.
    pub patterns: Vec<Pattern>,
    /// Networks.
    pub networks: Vec<IpNet>,
    /// What is neither, and why.
    pub reported: Vec<Reported>,
}

/// Reads what `/changes` answers. Attributes that changed are not among it: `/endpoints` tells them.
///
/// # Errors
/// When it is no list of changes, or one has no set, disposition or version.
pub fn changes(text: &str, file: &str) -> Result<Vec<Change>, Problems> {
    let json = Json::read(text, file)?;
    let Json::List(entries) = &json else {
        let what = format!("it is {}, not a list of changes", json.kind());
        return Err(Problems::with_file(file, what));
    };
    let changes = entries.iter().enumerate().map(|(index, entry)| {
        change(entry, index).map_err(|what| Problems::with_file(file, format!("[{index}]{what}")))
    });
    changes.collect()
}

fn change(json: &Json, index: usize) -> Result<Change, String> {
    let word = |key: &str| json.get(key).and_then(Json::word);
    let set = word("endpointSetId").ok_or(" names no set: it has no `endpointSetId`")?;
    let disposition = match word("disposition").map(str::to_lowercase).as_deref() {
        Some("add") => Disposition::Add,
        Some("change") => Disposition::Change,
        Some("remove") => Disposition::Remove,
        Some(_) | None => {
            return Err(".disposition is none of `Add`, `Change` and `Remove`".to_owned());
        }
    };
    let digits = |length: usize| {
        move |text: &&str| text.len() == length && text.bytes().all(|b| b.is_ascii_digit())
    };
    let version = word("version").filter(digits(10));
    let effective = json.get("add").and_then(|add| add.get("effectiveDate"));
    let effective = effective.and_then(Json::word).filter(digits(8));
    Ok(Change {
        set: set.to_owned(),
        disposition,
        impact: word("impact").unwrap_or_default().to_owned(),
        version: version.ok_or(".version is not ten digits")?.to_owned(),
        effective: effective.unwrap_or_default().to_owned(),
        added: endpoints(json, "add", index),
        removed: endpoints(json, "remove", index),
    })
}

fn endpoints(json: &Json, side: &str, index: usize) -> Endpoints {
    let mut source = Source::default();
    let mut row = Row::new(&mut source, "", "", String::new());
    for (key, value) in json.entries().iter().filter(|(key, _)| key == side) {
        let origin = format!("[{index}].{key}");
        if value.entries().is_empty() && *value != Json::Null {
            row.source
                .misplaced(value, &origin, "it holds no `urls` and no `ips`");
        }
        for (key, value) in value.entries() {
            let origin = format!("{origin}.{key}");
            match &**key {
                "urls" | "ips" => row.targets(value, &origin),
                "effectiveDate" if value.word().is_some() => {}
                _ => row.source.unknown(key, value, &origin),
            }
        }
    }
    let set = row.finish().unwrap_or_default();
    Endpoints {
        patterns: set.patterns,
        networks: set.networks,
        reported: source.account.reported,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn changes_are_read() {
        let text = r#"[
            {"id": 2, "endpointSetId": 33, "disposition": "Change", "version": "2026010100", "impact": "AddedUrl",
             "add": {"effectiveDate": "20260131", "urls": ["*.a.example", "<t>.b.example"], "ips": ["198.51.100.0/24"]},
             "remove": {"urls": ["c.example"]}, "previous": {"category": "Allow"}, "current": {"category": "Default"}},
            {"id": "1", "endpointSetId": "7", "disposition": "remove", "version": 2025120100, "add": null}]"#;
        let changes = changes(text, "f").unwrap();
        let [first, second] = &changes[..] else {
            panic!("{changes:?}")
        };
        assert_eq!(
            (
                &*first.set,
                first.disposition,
                &*first.impact,
                &*first.version
            ),
            ("33", Disposition::Change, "AddedUrl", "2026010100")
        );
        assert_eq!(first.effective, "20260131");
        assert_eq!(
            first.added.patterns,
            [Pattern::parse("*.a.example").unwrap()]
        );
        assert_eq!(first.added.networks, ["198.51.100.0/24".parse().unwrap()]);
        assert_eq!(first.added.reported[0].origin, "[0].add.urls[1]");
        assert_eq!(
            first.removed.patterns,
            [Pattern::parse("c.example").unwrap()]
        );
        assert_eq!(
            (&*second.set, second.disposition),
            ("7", Disposition::Remove)
        );
        assert_eq!(second.added, Endpoints::default());
    }

    #[test]
    fn what_is_no_change_is_refused_with_its_place() {
        fn check(text: &str, expected: &str) {
            let got = changes(text, "f").map_err(|problems| problems.to_string());
            assert_eq!(got, Err(expected.to_owned()), "{text}");
        }
        assert_eq!(changes("[]", "f"), Ok(Vec::new()));
        check("{}", "f: it is an object, not a list of changes");
        check("[7]", "f: [0] names no set: it has no `endpointSetId`");
        check(
            r#"[{"endpointSetId": 1}]"#,
            "f: [0].disposition is none of `Add`, `Change` and `Remove`",
        );
        check(
            r#"[{"endpointSetId": 1, "disposition": "Add", "version": "new"}]"#,
            "f: [0].version is not ten digits",
        );
    }
}
