//! PURE. The types of `Preview`, and what people read.

use super::text::{Table, clean, seconds};
use serde::{Deserialize, Serialize};
use std::fmt::Write as _;
use zlink::introspect::{CustomType, Type};

/// Longest candidate, in bytes; of all connections together.
pub const MAX_CANDIDATE: usize = 64 << 20;

/// Longest piece of one that a call should carry, in bytes of JSON.
pub const PIECE: usize = 32 << 10;

/// What to judge. Without a catalogue: the configuration that is there to be read.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, Type)]
pub struct PreviewParameters {
    /// The name of a catalogue in force.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub catalogue: Option<String>,
    /// What would take its place, in egressd's own format; or the next piece of it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub text: Option<String>,
    /// Whether another piece follows on this connection. The reply is then empty.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub unfinished: Option<bool>,
}

/// What would end, be cut and open, were it put in force now. Lists hold 200 entries at most; the totals are
/// exact.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, Type)]
pub struct Preview {
    /// Live grants of which nothing would be left.
    pub ends: Vec<PreviewGrant>,
    /// How many.
    pub ends_total: u64,
    /// Live grants that would have other ports.
    pub changes: Vec<PreviewGrant>,
    /// How many.
    pub changes_total: u64,
    /// Live flows that would be cut.
    pub cuts: Vec<PreviewFlow>,
    /// How many.
    pub cuts_total: u64,
    /// What was refused in the last day and would pass.
    pub opens: Vec<PreviewWish>,
    /// How many.
    pub opens_total: u64,
    /// What else an operator should know.
    pub notes: Vec<String>,
}

/// A live grant that ends or changes its ports.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, CustomType)]
pub struct PreviewGrant {
    /// Name of the zone.
    pub zone: String,
    /// Its address.
    pub address: String,
    /// Names whose answers gave it; the first few.
    pub names: Vec<String>,
    /// Ports that close; empty for none.
    pub closes: String,
    /// Ports that open; empty for none.
    pub opens: String,
}

/// A live flow that would be cut.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, CustomType)]
pub struct PreviewFlow {
    /// Name of the zone; empty where it comes from none.
    pub zone: String,
    /// The client.
    pub client: String,
    /// The destination its client asked for.
    pub address: String,
    /// Protocol and port, such as `tcp/443`.
    pub service: String,
    /// Names whose answers gave the address; the first few.
    pub names: Vec<String>,
}

/// What was refused and would pass.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, CustomType)]
pub struct PreviewWish {
    /// Name of the zone.
    pub zone: String,
    /// The asked name; of packets, the one that led there.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// Where packets went.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub address: Option<String>,
    /// Their protocol and port, such as `tcp/443`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub service: Option<String>,
    /// How often it was told; a flow's packets are once in ten seconds.
    pub count: u64,
    /// Seconds since the last time.
    pub ago: u64,
}

/// Where the first piece of `text` ends: within [`PIECE`] bytes once they are a JSON string.
#[must_use]
pub fn piece(text: &str) -> usize {
    let mut long = 0;
    for (at, letter) in text.char_indices() {
        long += match letter {
            '"' | '\\' | '\n' | '\t' | '\r' => 2,
            letter if letter < ' ' => 6,
            letter => letter.len_utf8(),
        };
        if long > PIECE {
            return at;
        }
    }
    text.len()
}

/// One sentence: `3 live grants end, 1 live flow is cut`.
#[must_use]
pub fn sentence(preview: &Preview) -> String {
    let parts = [
        counted(preview.ends_total, "live grant ends", "live grants end"),
        counted(
            preview.changes_total,
            "live grant changes its ports",
            "live grants change their ports",
        ),
        counted(preview.cuts_total, "live flow is cut", "live flows are cut"),
        counted(
            preview.opens_total,
            "thing refused in the last day opens",
            "things refused in the last day open",
        ),
    ];
    let said: Vec<String> = parts.into_iter().flatten().collect();
    if said.is_empty() {
        "nothing that is open or was refused in the last day changes".to_owned()
    } else {
        said.join(", ")
    }
}

fn counted(number: u64, one: &str, many: &str) -> Option<String> {
    match number {
        0 => None,
        1 => Some(format!("1 {one}")),
        _ => Some(format!("{number} {many}")),
    }
}

/// For people: the sentence, then the lists.
#[must_use]
pub fn text(preview: &Preview) -> String {
    let mut text = format!("{}\n", sentence(preview));
    for (title, grants, total) in [
        ("live grants that end", &preview.ends, preview.ends_total),
        (
            "live grants that change their ports",
            &preview.changes,
            preview.changes_total,
        ),
    ] {
        let mut table = Table::new(["ADDRESS", "ZONE", "CLOSES", "OPENS", "NAMES"]);
        for of in grants {
            let names = names(&of.names);
            let dash = |ports: &str| if ports.is_empty() { "-" } else { ports }.to_owned();
            table.row([
                of.address.clone(),
                of.zone.clone(),
                dash(&of.closes),
                dash(&of.opens),
                names,
            ]);
        }
        list(&mut text, title, &table, grants.len(), total);
    }
    let mut table = Table::new(["CLIENT", "ADDRESS", "SERVICE", "ZONE", "NAMES"]);
    for of in &preview.cuts {
        table.row([
            of.client.clone(),
            of.address.clone(),
            of.service.clone(),
            of.zone.clone(),
            names(&of.names),
        ]);
    }
    let title = "live flows that are cut";
    list(
        &mut text,
        title,
        &table,
        preview.cuts.len(),
        preview.cuts_total,
    );
    let mut table = Table::new(["NAME", "ADDRESS", "SERVICE", "ZONE", "TIMES", "LAST"]);
    for of in &preview.opens {
        let dash = |field: &Option<String>| field.clone().unwrap_or_else(|| "-".to_owned());
        table.row([
            dash(&of.name),
            dash(&of.address),
            dash(&of.service),
            of.zone.clone(),
            of.count.to_string(),
            format!("{} ago", seconds(of.ago)),
        ]);
    }
    let title = "refused in the last day, and open then";
    list(
        &mut text,
        title,
        &table,
        preview.opens.len(),
        preview.opens_total,
    );
    for note in &preview.notes {
        let _ = writeln!(text, "note: {}", clean(note));
    }
    text
}

fn names(names: &[String]) -> String {
    if names.is_empty() {
        "-".to_owned()
    } else {
        names.join(", ")
    }
}

fn list<const N: usize>(
    text: &mut String,
    title: &str,
    table: &Table<N>,
    shown: usize,
    total: u64,
) {
    if shown == 0 {
        return;
    }
    let mut lines = String::new();
    table.write(&mut lines);
    let _ = write!(text, "\n{title}:\n{lines}");
    let shown = u64::try_from(shown).unwrap_or(u64::MAX);
    if total > shown {
        let _ = writeln!(text, "… and {} more", total - shown);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pieces_fit_into_a_call() {
        fn check(text: &str) {
            let first = &text[..piece(text)];
            assert!(!first.is_empty() || text.is_empty());
            let json = serde_json::to_string(first).unwrap();
            assert!(json.len() <= PIECE + 2, "{}", json.len());
            assert!(first == text || json.len() > PIECE - 6, "{}", json.len());
        }
        for letter in ["a", "\"", "\n", "\u{1}", "ü", "\u{85}", "🦀"] {
            check(&letter.repeat(3));
            check(&letter.repeat(2 * PIECE));
        }
        check("");
    }

    #[test]
    fn texts() {
        fn check(preview: &Preview, expected: &str) {
            assert_eq!(text(preview), expected);
        }
        check(
            &Preview::default(),
            "nothing that is open or was refused in the last day changes\n",
        );
        let preview = Preview {
            ends: vec![PreviewGrant {
                zone: "z".to_owned(),
                address: "20.0.0.1".to_owned(),
                names: vec!["a.example".to_owned(), "b.example\u{1b}".to_owned()],
                closes: "tcp/443".to_owned(),
                opens: String::new(),
            }],
            ends_total: 3,
            cuts: vec![PreviewFlow {
                zone: "z".to_owned(),
                client: "10.0.0.1".to_owned(),
                address: "20.0.0.1".to_owned(),
                service: "tcp/443".to_owned(),
                names: Vec::new(),
            }],
            cuts_total: 1,
            opens: vec![PreviewWish {
                zone: "z".to_owned(),
                name: Some("c.example".to_owned()),
                count: 7,
                ago: 61,
                ..PreviewWish::default()
            }],
            opens_total: 1,
            notes: vec!["x\u{1b}".to_owned()],
            ..Preview::default()
        };
        check(
            &preview,
            "\
3 live grants end, 1 live flow is cut, 1 thing refused in the last day opens

live grants that end:
ADDRESS   ZONE  CLOSES   OPENS  NAMES
20.0.0.1  z     tcp/443  -      a.example, b.example\\u{1b}
… and 2 more

live flows that are cut:
CLIENT    ADDRESS   SERVICE  ZONE  NAMES
10.0.0.1  20.0.0.1  tcp/443  z     -

refused in the last day, and open then:
NAME       ADDRESS  SERVICE  ZONE  TIMES  LAST
c.example  -        -        z     7      1m 1s ago
note: x\\u{1b}
",
        );
    }
}
