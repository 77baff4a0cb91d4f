//! PURE. The types of `ListLate`, and their table for people.

use super::text::{Table, seconds};
use serde::{Deserialize, Serialize};
use std::fmt::Write as _;
use zlink::introspect::{CustomType, Type};

/// Which late names to list. Without any field: all.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, Type)]
pub struct LateParameters {
    /// Only those of the zone of this name.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub zone: Option<String>,
}

/// Who still tries addresses whose grants have ended.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, Type)]
pub struct LateList {
    /// Most packets first.
    pub names: Vec<LateName>,
    /// Clients of all these names together.
    pub clients: u64,
    /// Packets of all these names together.
    pub packets: u64,
    /// `[limits] grace` now, in seconds.
    pub grace: u64,
    /// The grace, in seconds, that would have been enough for 99 of 100 clients, of every name on its
    /// own account; at most a day. Absent when the present one is.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub suggested_grace: Option<u64>,
}

/// One name whose addresses clients keep too long. A client's delay is that of its last packet after
/// the end of the answer's lifetime and grace.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, CustomType)]
pub struct LateName {
    /// Name of the zone.
    pub zone: String,
    /// The asked name.
    pub name: String,
    /// Late clients; no more than 256 are told apart.
    pub clients: u64,
    /// Reported packets of all of them; planes do not report every packet of a flood.
    pub packets: u64,
    /// Delay in seconds of half of the clients, at most.
    pub median: u64,
    /// Delay in seconds of 99 of 100 clients, at most.
    pub p99: u64,
    /// The longest delay in seconds.
    pub max: u64,
    /// As that of the list, for this name alone.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub suggested_grace: Option<u64>,
}

/// `egressctl late`.
#[must_use]
pub fn table(list: &LateList) -> String {
    let now = seconds(list.grace);
    if list.names.is_empty() {
        return format!(
            "no client was late in the last day: [limits] grace = \"{now}\" needs no change\n"
        );
    }
    let suggestion = |grace: Option<u64>| grace.map_or_else(|| "no change".to_owned(), seconds);
    let mut table = Table::new([
        "NAME",
        "ZONE",
        "CLIENTS",
        "PACKETS",
        "MEDIAN",
        "P99",
        "MAX DELAY",
        "SUGGESTED GRACE",
    ]);
    for of in &list.names {
        table.row([
            of.name.clone(),
            of.zone.clone(),
            of.clients.to_string(),
            of.packets.to_string(),
            seconds(of.median),
            seconds(of.p99),
            seconds(of.max),
            suggestion(of.suggested_grace),
        ]);
    }
    let mut text = String::new();
    table.write(&mut text);
    let total = format!("total: {} clients, {} packets", list.clients, list.packets);
    // A configuration's time is one number and one unit.
    let minutes = |seconds: u64| format!("{}m", seconds.div_ceil(60));
    let _ = match list.suggested_grace {
        Some(grace) => writeln!(
            text,
            "\n{total}; [limits] grace is {now}; suggested: grace = \"{}\"",
            minutes(grace)
        ),
        None => writeln!(text, "\n{total}; [limits] grace is {now}: no change"),
    };
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tables() {
        fn check(list: &LateList, expected: &str) {
            assert_eq!(table(list), expected);
        }
        let none = LateList {
            grace: 900,
            ..LateList::default()
        };
        check(
            &none,
            "no client was late in the last day: [limits] grace = \"15m\" needs no change\n",
        );
        let name = LateName {
            zone: "managed".to_owned(),
            name: "a.example\u{1b}".to_owned(),
            clients: 3,
            packets: 40,
            median: 20,
            p99: 3601,
            max: 4000,
            suggested_grace: Some(4560),
        };
        let one = LateList {
            names: vec![name],
            clients: 3,
            packets: 40,
            suggested_grace: Some(4560),
            ..none.clone()
        };
        check(
            &one,
            "\
NAME             ZONE     CLIENTS  PACKETS  MEDIAN  P99    MAX DELAY  SUGGESTED GRACE
a.example\\u{1b}  managed  3        40       20s     1h 1s  1h 6m 40s  1h 16m

total: 3 clients, 40 packets; [limits] grace is 15m; suggested: grace = \"76m\"
",
        );
        let text = table(&LateList {
            suggested_grace: None,
            ..one
        });
        assert!(text.ends_with("grace is 15m: no change\n"), "{text}");
    }
}
