//! A document of data being read: what becomes of everything in it, also of what no importer understands.

use super::json::Json;
use super::{TOO_MANY, endpoint};
use crate::policy::catalogue::Account;
use std::collections::BTreeSet;

/// How long the place of a token may become: keys are the vendor's, and deep ones would repeat each other.
const LONGEST_ORIGIN: usize = 200;

/// The account of a document, and which unknown keys were told of.
#[derive(Debug, Default)]
pub(super) struct Source {
    pub(super) account: Account,
    unknown: BTreeSet<String>,
}

impl Source {
    /// Whether so much was reported that the document will be refused: nothing more need be read of it.
    pub(super) fn is_full(&self) -> bool {
        self.account.reported.len() > TOO_MANY
    }

    /// Notes a token that no set can hold.
    pub(super) fn report(
        &mut self,
        origin: impl FnOnce() -> String,
        token: &str,
        why: impl Into<String>,
    ) {
        if !self.is_full() {
            self.account.report(&origin(), token, why);
        }
    }

    /// Reports a value that cannot be used where it stands: each text and number in it, or all of it where there
    /// is none.
    pub(super) fn misplaced(&mut self, value: &Json, origin: &str, why: &str) {
        if self.leaves(value, origin, why, &|_| true) == 0 {
            self.report(|| origin.to_owned(), &value.sketch(), why);
        }
    }

    /// Reports a key that the format does not have, as [`Self::aside`].
    pub(super) fn unknown(&mut self, key: &str, value: &Json, origin: &str) {
        let why = "the key is not known, and holds no name and no network; it is told of once";
        self.aside(key, value, origin, why);
    }

    /// Reports a key whose value is not used: each destination in it, or else the key, once in a document.
    pub(super) fn aside(&mut self, key: &str, value: &Json, origin: &str, why: &str) {
        let found = self.key(key, origin) + self.described(value, origin);
        if found == 0 && self.unknown.insert(shortened(key)) {
            self.report(|| origin.to_owned(), &value.sketch(), why);
        }
    }

    /// Reports each destination in a value that should hold none; tells how many that were.
    pub(super) fn described(&mut self, value: &Json, origin: &str) -> usize {
        let why =
            "no destination is meant to stand there; write it out in a [[set]] if it is wanted";
        self.leaves(value, origin, why, &destination)
    }

    /// Reports a key that is a destination, which no format means; tells how many that was.
    pub(super) fn key(&mut self, key: &str, origin: &str) -> usize {
        let found = destination(key);
        if found {
            let why = "it stands where a key does; write it out in a [[set]] if it is meant";
            self.report(|| origin.to_owned(), &shortened(key), why);
        }
        usize::from(found)
    }

    /// Reports what `pick` says in a value, and tells how much that was.
    fn leaves(
        &mut self,
        value: &Json,
        origin: &str,
        why: &str,
        pick: &dyn Fn(&str) -> bool,
    ) -> usize {
        if self.is_full() {
            return 1;
        }
        match value {
            Json::Null | Json::Bool(_) => 0,
            Json::Number(text) | Json::Text(text) => {
                let picked = pick(text);
                if picked {
                    self.report(|| origin.to_owned(), &shortened(text), why);
                }
                usize::from(picked)
            }
            Json::List(values) => {
                let mut found = 0;
                for (n, value) in values.iter().enumerate() {
                    found += self.leaves(value, &inside(origin, &format!("[{n}]")), why, pick);
                }
                found
            }
            Json::Object(entries) => {
                let mut found = 0;
                for (key, value) in entries {
                    let origin = inside(origin, &format!(".{}", shortened(key)));
                    found += self.key(key, &origin);
                    found += self.leaves(value, &origin, why, pick);
                }
                found
            }
        }
    }
}

/// Whether a text has a word in it that is a name or a network, or means one.
fn destination(text: &str) -> bool {
    let mut words = text.split(|c: char| c.is_whitespace() || c == ',' || c == ';');
    words.any(|word| endpoint::read(word) != endpoint::Word::Text)
}

/// What a report shows of a text. Nothing longer is a name.
pub(super) fn shortened(text: &str) -> String {
    text.chars().take(LONGEST_TEXT).collect()
}

/// The most characters of a text that can be read, and that are shown of it.
pub(super) const LONGEST_TEXT: usize = 400;

fn inside(origin: &str, step: &str) -> String {
    if origin.len() + step.len() > LONGEST_ORIGIN {
        format!("{}…", origin.trim_end_matches('…'))
    } else {
        format!("{origin}{step}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(read: impl Fn(&mut Source, &Json), text: &str, expected: &[&str]) {
        let json = Json::read(text, "f").unwrap();
        let mut source = Source::default();
        read(&mut source, &json);
        let reported = source.account.reported.iter();
        let told: Vec<_> = reported
            .map(|r| format!("{} {}", r.origin, r.token))
            .collect();
        assert_eq!(told, expected, "{text}");
        assert_eq!(source.account.tokens, expected.len());
    }

    #[test]
    fn what_is_misplaced_is_told_leaf_by_leaf() {
        let misplaced = |source: &mut Source, json: &Json| source.misplaced(json, "x", "why");
        check(misplaced, "null", &["x null"]);
        check(misplaced, "[]", &["x []"]);
        check(
            misplaced,
            r#"{"a": {"b": ["c", 7, true]}}"#,
            &["x.a.b[0] c", "x.a.b[1] 7"],
        );
        check(
            misplaced,
            r#"{"d.example": null}"#,
            &["x.d.example d.example"],
        );
    }

    #[test]
    fn an_unknown_key_is_told_once_and_its_destinations_each_time() {
        let twice = |source: &mut Source, json: &Json| {
            source.unknown("k", json, "[0].k");
            source.unknown("k", json, "[1].k");
        };
        check(twice, r#"["a", 7]"#, &["[0].k [a, 7]"]);
        check(
            twice,
            r#""see a.example.com""#,
            &["[0].k see a.example.com", "[1].k see a.example.com"],
        );
        check(
            twice,
            r#"{"v": ["198.51.100.0/24", "b"]}"#,
            &["[0].k.v[0] 198.51.100.0/24", "[1].k.v[0] 198.51.100.0/24"],
        );
    }

    #[test]
    fn places_and_reports_are_bounded() {
        let deep = (0..100).fold("1".to_owned(), |inner, _| {
            format!(r#"{{"{}": {inner}}}"#, "k".repeat(100))
        });
        let json = Json::read(&deep, "f").unwrap();
        let mut source = Source::default();
        source.misplaced(&json, "x", "why");
        assert!(source.account.reported[0].origin.len() <= LONGEST_ORIGIN + '…'.len_utf8());
        let wide = Json::List(vec![Json::Number("1".to_owned()); TOO_MANY + 10]);
        source.misplaced(&wide, "x", "why");
        assert_eq!(source.account.reported.len(), TOO_MANY + 1);
    }
}
