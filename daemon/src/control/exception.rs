//! PURE. The types of `Allow`, `Disallow` and `ListExceptions`, and what people read.

use super::text::{Table, clean, seconds};
use serde::{Deserialize, Serialize};
use zlink::introspect::{CustomType, Type};

/// What to allow for a while.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, Type)]
pub struct AllowParameters {
    /// A domain name, a wildcard, an IP address, or a network in CIDR form.
    pub what: String,
    /// `443`, `443/tcp`, `8000-8010/udp`, `icmp`, with commas between several.
    pub ports: String,
    /// Name of the zone.
    pub zone: String,
    /// For how long, in seconds: ten to seven days.
    pub seconds: u64,
    /// Why: 1 to 200 bytes.
    pub reason: String,
}

/// Which exception to end.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, Type)]
pub struct DisallowParameters {
    /// Its number.
    pub id: u32,
}

/// One exception.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, CustomType)]
pub struct Exception {
    /// Its number.
    pub id: u32,
    /// Name of the zone.
    pub zone: String,
    /// Name, wildcard or network.
    pub what: String,
    /// Open ports, such as `tcp/443`.
    pub ports: String,
    /// Seconds until it is over.
    pub ends: u64,
    /// Why, in the operator's words.
    pub reason: String,
    /// Whose word it is.
    pub who: String,
    /// When it was given, RFC 3339 in UTC.
    pub since: String,
}

/// An exception that began or ended, and is in force.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, Type)]
pub struct ExceptionChange {
    /// Which.
    pub exception: Exception,
    /// Policy revision in force.
    pub revision: u64,
    /// Live flows that were cut since.
    pub cut: u64,
    /// What an operator should know.
    pub notes: Vec<String>,
}

/// Every exception.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, Type)]
pub struct ExceptionList {
    /// Oldest first.
    pub exceptions: Vec<Exception>,
}

/// One exception as a line.
#[must_use]
pub fn line(of: &Exception) -> String {
    format!(
        "exception {}: zone {} may reach {} on {} for another {} ({}, {})",
        of.id,
        of.zone,
        of.what,
        of.ports,
        seconds(of.ends),
        of.who,
        of.reason
    )
}

/// `egressctl allow`.
#[must_use]
pub fn allowed(change: &ExceptionChange) -> String {
    said("in force", change)
}

/// `egressctl disallow`.
#[must_use]
pub fn disallowed(change: &ExceptionChange) -> String {
    said("ended", change)
}

fn said(word: &str, change: &ExceptionChange) -> String {
    let mut text = format!(
        "{word}, revision {}: {}\n",
        change.revision,
        clean(&line(&change.exception))
    );
    if change.cut > 0 {
        text.push_str(&format!("live flows cut: {}\n", change.cut));
    }
    for note in &change.notes {
        text.push_str(&format!("note: {}\n", clean(note)));
    }
    text
}

/// `egressctl allow --list`.
#[must_use]
pub fn table(list: &ExceptionList) -> String {
    if list.exceptions.is_empty() {
        return "no exceptions\n".to_owned();
    }
    let mut table = Table::new([
        "ID", "ZONE", "WHAT", "PORTS", "ENDS IN", "BY", "SINCE", "REASON",
    ]);
    for of in &list.exceptions {
        table.row([
            of.id.to_string(),
            of.zone.clone(),
            of.what.clone(),
            of.ports.clone(),
            seconds(of.ends),
            of.who.clone(),
            of.since.clone(),
            of.reason.clone(),
        ]);
    }
    let mut text = String::new();
    table.write(&mut text);
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tables() {
        fn check(list: Vec<Exception>, expected: &str) {
            assert_eq!(table(&ExceptionList { exceptions: list }), expected);
        }
        check(vec![], "no exceptions\n");
        let one = Exception {
            id: 3,
            zone: "managed".to_owned(),
            what: "a.example".to_owned(),
            ports: "tcp/443".to_owned(),
            ends: 3599,
            reason: "locked\u{1b} out".to_owned(),
            who: "uid 0".to_owned(),
            since: "2026-11-22T21:40:03Z".to_owned(),
        };
        check(
            vec![one],
            "\
ID  ZONE     WHAT       PORTS    ENDS IN  BY     SINCE                 REASON
3   managed  a.example  tcp/443  59m 59s  uid 0  2026-11-22T21:40:03Z  locked\\u{1b} out
",
        );
    }
}
