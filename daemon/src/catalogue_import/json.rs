//! JSON as it is written: in order, and with keys that stand twice.

use crate::document::{Problem, Problems};
use serde::de::{DeserializeSeed, Deserializer, Error, MapAccess, SeqAccess, Visitor};
use std::cell::Cell;
use std::fmt;

/// The most values a document may hold: small ones take ten times their text in memory.
const VALUES: usize = 2_000_000;

/// A JSON value. Numbers are kept as they would be printed.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Json {
    Null,
    Bool(bool),
    Number(String),
    Text(String),
    List(Vec<Json>),
    Object(Vec<(String, Json)>),
}

impl Json {
    /// Reads a document of at most [`VALUES`] values; at most 128 levels deep, which the library sees to.
    ///
    /// # Errors
    /// With the place of what is no JSON.
    pub(super) fn read(text: &str, file: &str) -> Result<Self, Problems> {
        let left = Cell::new(VALUES);
        let mut deserializer = serde_json::Deserializer::from_str(text);
        let read = Reader(&left).deserialize(&mut deserializer);
        let read = read.and_then(|json| deserializer.end().map(|()| json));
        read.map_err(|error| {
            let (line, column) = (error.line(), error.column());
            let said = error.to_string();
            let place = format!(" at line {line} column {column}");
            let said = said.strip_suffix(&place).unwrap_or(&said);
            let what = format!("this is not JSON that can be read: {said}");
            Problems::one(Problem {
                file: file.to_owned(),
                place: Some((line, column)),
                what,
            })
        })
    }

    /// What kind of value it is, for messages.
    pub(super) const fn kind(&self) -> &'static str {
        match self {
            Self::Null => "null",
            Self::Bool(_) => "a boolean",
            Self::Number(_) => "a number",
            Self::Text(_) => "a text",
            Self::List(_) => "a list",
            Self::Object(_) => "an object",
        }
    }

    /// The first value under `key`, where it is an object.
    pub(super) fn get(&self, key: &str) -> Option<&Self> {
        let mut entries = self.entries().iter();
        entries.find(|(k, _)| k == key).map(|(_, value)| value)
    }

    /// Its entries in order, where it is an object; else none.
    pub(super) fn entries(&self) -> &[(String, Self)] {
        match self {
            Self::Object(entries) => entries,
            Self::Null | Self::Bool(_) | Self::Number(_) | Self::Text(_) | Self::List(_) => &[],
        }
    }

    /// The text of a text or a number.
    pub(super) fn word(&self) -> Option<&str> {
        match self {
            Self::Text(text) | Self::Number(text) => Some(text),
            Self::Null | Self::Bool(_) | Self::List(_) | Self::Object(_) => None,
        }
    }

    /// In one line, shortened: what a report shows of it.
    pub(super) fn sketch(&self) -> String {
        match self {
            Self::Null => "null".to_owned(),
            Self::Bool(value) => value.to_string(),
            Self::Number(text) | Self::Text(text) => text.chars().take(80).collect(),
            Self::List(values) => {
                // Not the whole tree: it may be wide and deep.
                let first = values.iter().take(5).map(|value| match value {
                    Self::List(_) | Self::Object(_) => value.kind().to_owned(),
                    Self::Null | Self::Bool(_) | Self::Number(_) | Self::Text(_) => value.sketch(),
                });
                let more = if values.len() > 5 { ", …" } else { "" };
                format!("[{}{more}]", first.collect::<Vec<_>>().join(", "))
            }
            Self::Object(entries) => {
                let first = entries.iter().take(5).map(|(key, value)| {
                    let key: String = key.chars().take(80).collect();
                    match value {
                        Self::List(_) | Self::Object(_) => format!("{key}: {}", value.kind()),
                        Self::Null | Self::Bool(_) | Self::Number(_) | Self::Text(_) => {
                            format!("{key}: {}", value.sketch())
                        }
                    }
                });
                let more = if entries.len() > 5 { ", …" } else { "" };
                format!("{{{}{more}}}", first.collect::<Vec<_>>().join(", "))
            }
        }
    }
}

/// Reads one value; counts down how many there may still be.
#[derive(Clone, Copy)]
struct Reader<'c>(&'c Cell<usize>);

impl<'de> DeserializeSeed<'de> for Reader<'_> {
    type Value = Json;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Json, D::Error> {
        let Some(left) = self.0.get().checked_sub(1) else {
            return Err(Error::custom(format!(
                "it holds more than {VALUES} values; split it"
            )));
        };
        self.0.set(left);
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Reader<'_> {
    type Value = Json;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON value")
    }

    fn visit_unit<E>(self) -> Result<Json, E> {
        Ok(Json::Null)
    }

    fn visit_bool<E>(self, value: bool) -> Result<Json, E> {
        Ok(Json::Bool(value))
    }

    fn visit_i64<E>(self, value: i64) -> Result<Json, E> {
        Ok(Json::Number(value.to_string()))
    }

    fn visit_u64<E>(self, value: u64) -> Result<Json, E> {
        Ok(Json::Number(value.to_string()))
    }

    fn visit_f64<E>(self, value: f64) -> Result<Json, E> {
        Ok(Json::Number(value.to_string()))
    }

    fn visit_str<E>(self, value: &str) -> Result<Json, E> {
        Ok(Json::Text(value.to_owned()))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut values: A) -> Result<Json, A::Error> {
        let mut list = Vec::new();
        while let Some(value) = values.next_element_seed(self)? {
            list.push(value);
        }
        Ok(Json::List(list))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut entries: A) -> Result<Json, A::Error> {
        let mut object = Vec::new();
        while let Some(key) = entries.next_key()? {
            object.push((key, entries.next_value_seed(self)?));
        }
        Ok(Json::Object(object))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_no_json_has_a_place() {
        fn check(text: &str, expected: &str) {
            let got = Json::read(text, "f").map_err(|problems| problems.to_string());
            let expected = format!("f:{expected}");
            assert_eq!(got, Err(expected), "{text}");
        }
        let not = "this is not JSON that can be read";
        check("", &format!("1:0: {not}: EOF while parsing a value"));
        check("[1,\n NaN]", &format!("2:2: {not}: expected value"));
        check("[1e999]", &format!("1:6: {not}: number out of range"));
        check("[1] x", &format!("1:5: {not}: trailing characters"));
        check(
            &"[".repeat(1 << 20),
            &format!("1:128: {not}: recursion limit exceeded"),
        );
        let many = format!("[{}0]", "0,".repeat(VALUES));
        let got = Json::read(&many, "f").map_err(|problems| problems.to_string());
        let problem = got.unwrap_err();
        assert!(
            problem.ends_with("it holds more than 2000000 values; split it"),
            "{problem}"
        );
    }

    #[test]
    fn order_and_repeated_keys_are_kept() {
        let json = Json::read(r#"{"b": 1, "a": [true, null, 1.5], "b": "x"}"#, "f").unwrap();
        let entries = json.entries().iter();
        let told: Vec<_> = entries
            .map(|(key, value)| format!("{key} {}", value.sketch()))
            .collect();
        assert_eq!(told, ["b 1", "a [true, null, 1.5]", "b x"]);
        assert_eq!(json.get("b").and_then(Json::word), Some("1"));
    }
}
