//! JSON as it is written: in order, and with keys that stand twice.

use crate::document::{Problem, Problems};
use serde::de::{Deserialize, Deserializer, MapAccess, SeqAccess, Visitor};
use std::fmt;

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
    /// Reads a document; at most 128 levels deep, which the library sees to.
    ///
    /// # Errors
    /// With the place of what is no JSON.
    pub(super) fn read(text: &str, file: &str) -> Result<Self, Problems> {
        serde_json::from_str(text).map_err(|error| {
            let what = format!("this is not JSON: {error}");
            Problems::one(Problem {
                file: file.to_owned(),
                place: Some((error.line(), error.column())),
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
        let Self::Object(entries) = self else {
            return None;
        };
        entries
            .iter()
            .find(|(k, _)| k == key)
            .map(|(_, value)| value)
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
                let first = entries.iter().take(5).map(|(key, value)| match value {
                    Self::List(_) | Self::Object(_) => format!("{key}: {}", value.kind()),
                    Self::Null | Self::Bool(_) | Self::Number(_) | Self::Text(_) => {
                        format!("{key}: {}", value.sketch())
                    }
                });
                let more = if entries.len() > 5 { ", …" } else { "" };
                format!("{{{}{more}}}", first.collect::<Vec<_>>().join(", "))
            }
        }
    }
}

impl<'de> Deserialize<'de> for Json {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(Reader)
    }
}

struct Reader;

impl<'de> Visitor<'de> for Reader {
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
        while let Some(value) = values.next_element()? {
            list.push(value);
        }
        Ok(Json::List(list))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut entries: A) -> Result<Json, A::Error> {
        let mut object = Vec::new();
        while let Some(entry) = entries.next_entry()? {
            object.push(entry);
        }
        Ok(Json::Object(object))
    }
}
