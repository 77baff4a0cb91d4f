//! A table whose keys are taken one by one; what is left at the end is unknown.

use super::{Document, Span, did_you_mean};
use std::time::Duration;
use toml::Spanned;
use toml::de::{DeTable, DeValue};

/// A TOML table being read.
#[derive(Debug)]
pub struct Table<'d, 't> {
    /// The document it stands in.
    pub document: &'d Document<'t>,
    /// Where it begins.
    pub span: Span,
    entries: DeTable<'t>,
    known: Vec<&'static str>,
}

/// A TOML value being read.
#[derive(Debug)]
pub struct Value<'d, 't> {
    /// The document it stands in.
    pub document: &'d Document<'t>,
    /// Where it stands.
    pub span: Span,
    value: DeValue<'t>,
}

impl<'d, 't> Table<'d, 't> {
    pub(super) fn new(document: &'d Document<'t>, span: Span, entries: DeTable<'t>) -> Self {
        Self {
            document,
            span,
            entries,
            known: Vec::new(),
        }
    }

    /// Takes the value of `key`, if there is one. From now on the key is known.
    pub fn take(&mut self, key: &'static str) -> Option<Value<'d, 't>> {
        self.known.push(key);
        let value = self.entries.remove(key)?;
        Some(Value {
            document: self.document,
            span: value.span(),
            value: value.into_inner(),
        })
    }

    /// Takes a value that must be there; `needs` completes "this … has no" and says what to write.
    pub fn require(&mut self, key: &'static str, what: &str, write: &str) -> Option<Value<'d, 't>> {
        let value = self.take(key);
        if value.is_none() {
            self.problem(format!("this {what} has no `{key}`; write {write}"));
        }
        value
    }

    /// Takes a string.
    pub fn text(&mut self, key: &'static str) -> Option<Spanned<String>> {
        self.take(key)?.text()
    }

    /// Whether `key` is there and was not taken.
    #[must_use]
    pub fn has(&self, key: &str) -> bool {
        self.entries.contains_key(key)
    }

    /// Takes `true` or `false`.
    pub fn flag(&mut self, key: &'static str) -> Option<bool> {
        self.take(key)?.flag()
    }

    /// Takes a whole number from `least` to `most`.
    pub fn number(&mut self, key: &'static str, least: u64, most: u64) -> Option<u64> {
        self.take(key)?.number(least, most)
    }

    /// Takes a time such as `"300ms"`, `"2s"`, `"15m"`, `"24h"` or `"30d"`, from `least` to `most`.
    pub fn duration(
        &mut self,
        key: &'static str,
        least: Duration,
        most: Duration,
    ) -> Option<Duration> {
        self.take(key)?.duration(least, most)
    }

    /// Takes one of a few words.
    pub fn choice<T: Copy>(&mut self, key: &'static str, words: &[(&str, T)]) -> Option<T> {
        let text = self.text(key)?;
        let word = text.get_ref();
        let found = words.iter().find(|(known, _)| known == word);
        if found.is_none() {
            let known = words.iter().map(|(known, _)| *known);
            let hint = did_you_mean(word, known);
            self.document
                .problem(&text.span(), format!("`{key}` cannot be `{word}`{hint}"));
        }
        found.map(|(_, value)| *value)
    }

    /// Takes an array; a missing one is empty.
    pub fn list(&mut self, key: &'static str) -> Vec<Value<'d, 't>> {
        self.take(key).map_or_else(Vec::new, Value::list)
    }

    /// Takes an array of strings; a missing one is empty.
    pub fn texts(&mut self, key: &'static str) -> Vec<Spanned<String>> {
        self.list(key).into_iter().filter_map(Value::text).collect()
    }

    /// Takes a table; a missing one is empty and stands where this one does.
    pub fn table(&mut self, key: &'static str) -> Table<'d, 't> {
        let empty = Table::new(self.document, self.span.clone(), DeTable::new());
        self.take(key).and_then(Value::table).unwrap_or(empty)
    }

    /// Takes an array of tables, `[[key]]`; a missing one is empty.
    pub fn tables(&mut self, key: &'static str) -> Vec<Table<'d, 't>> {
        let Some(value) = self.take(key) else {
            return Vec::new();
        };
        if value.value.is_table() {
            let what = format!("`{key}` may stand several times; write [[{key}]] for [{key}]");
            self.document.problem(&value.span, what);
            return value.table().into_iter().collect();
        }
        value.list().into_iter().filter_map(Value::table).collect()
    }

    /// Refuses a key that has a meaning in the design but none yet in this program.
    pub fn not_yet(&mut self, key: &'static str, what: &str) {
        if let Some(value) = self.take(key) {
            self.document
                .problem(&value.span, format!("not supported yet: {what}"));
        }
    }

    /// Notes that something is wrong with the table as a whole.
    pub fn problem(&self, what: impl Into<String>) {
        self.document.problem(&self.span, what);
    }

    /// Ends the reading of this table: every key not taken is unknown.
    pub fn finish(self) {
        for (key, _) in &self.entries {
            let hint = did_you_mean(key.get_ref(), self.known.iter().copied());
            let what = format!("unknown key `{}`{hint}", key.get_ref());
            self.document.problem(&key.span(), what);
        }
    }
}

impl<'d, 't> Value<'d, 't> {
    /// The string it is.
    pub fn text(self) -> Option<Spanned<String>> {
        let Some(text) = self.value.as_str() else {
            return self.expected("a string in quotes");
        };
        Some(Spanned::new(self.span.clone(), text.to_owned()))
    }

    /// The `true` or `false` it is.
    pub fn flag(self) -> Option<bool> {
        let flag = self.value.as_bool();
        flag.or_else(|| self.expected("`true` or `false`"))
    }

    /// The whole number from `least` to `most` it is.
    pub fn number(self, least: u64, most: u64) -> Option<u64> {
        let digits = self.value.as_integer();
        digits
            .and_then(|digits| u64::from_str_radix(digits.as_str(), digits.radix()).ok())
            .filter(|number| (least..=most).contains(number))
            .or_else(|| self.expected(&format!("a whole number from {least} to {most}")))
    }

    /// The time from `least` to `most` it is: a whole number and `ms`, `s`, `m` or `h`.
    pub fn duration(self, least: Duration, most: Duration) -> Option<Duration> {
        let Some(time) = self.value.as_str().and_then(parse_duration) else {
            return self.expected("a time such as \"300ms\", \"2s\", \"15m\", \"24h\" or \"30d\"");
        };
        if (least..=most).contains(&time) {
            return Some(time);
        }
        self.expected(&format!("a time from {least:?} to {most:?}"))
    }

    /// The elements of the array it is.
    pub fn list(self) -> Vec<Value<'d, 't>> {
        let document = self.document;
        let DeValue::Array(items) = self.value else {
            return self.expected("a list in brackets").unwrap_or_default();
        };
        let value = |item: Spanned<DeValue<'t>>| Value {
            document,
            span: item.span(),
            value: item.into_inner(),
        };
        items.into_iter().map(value).collect()
    }

    /// The table it is.
    pub fn table(self) -> Option<Table<'d, 't>> {
        let DeValue::Table(entries) = self.value else {
            return self.expected("a table");
        };
        Some(Table::new(self.document, self.span, entries))
    }

    /// Whether it is a whole number.
    #[must_use]
    pub fn is_number(&self) -> bool {
        self.value.is_integer()
    }

    /// Whether it is a time, however long.
    #[must_use]
    pub fn is_duration(&self) -> bool {
        self.value.as_str().and_then(parse_duration).is_some()
    }

    /// Whether it is this string.
    #[must_use]
    pub fn is(&self, word: &str) -> bool {
        self.value.as_str() == Some(word)
    }

    /// Whether it is an array.
    #[must_use]
    pub fn is_list(&self) -> bool {
        self.value.is_array()
    }

    /// Notes that it is wrong.
    pub fn problem(&self, what: impl Into<String>) {
        self.document.problem(&self.span, what);
    }

    fn expected<T>(&self, what: &str) -> Option<T> {
        let text = self.document.text.get(self.span.clone()).unwrap_or("");
        let short = text.lines().next().unwrap_or_default();
        self.problem(format!("`{short}` does not fit here; write {what}"));
        None
    }
}

fn parse_duration(text: &str) -> Option<Duration> {
    let unit = text.find(|c: char| !c.is_ascii_digit())?;
    let amount: u64 = text[..unit].parse().ok()?;
    let milliseconds = match &text[unit..] {
        "ms" => 1,
        "s" => 1000,
        "m" => 60_000,
        "h" => 3_600_000,
        "d" => 86_400_000,
        _ => return None,
    };
    Some(Duration::from_millis(amount.checked_mul(milliseconds)?))
}
