//! Catalogues that keep changing: whatever they hold, nothing panics and no token is lost.

use super::Target;
use crate::oracle::generate::Dice;
use egressd::catalogue_import::{detect, read};
use egressd::policy::catalogue::EndpointSet;

/// Pieces of which pages are made.
const TABLES: &[&str] = &[
    "| ID | Category | Addresses | Ports |\n|--|--|--|--|\n",
    "ID | カテゴリ | アドレス | ポート |\n---|---|---|---|\n",
    "| 1 | Allow<BR>Required | `*.a.example.com`<BR>`192.0.2.0/24, 198.51.100.0/24` | **TCP:** 443, 80 |\n",
    "2 | 許可 必須 |\n*.b.example.com 203.0.113.0/24 |\nTCP: 80、443 |\n",
    "| 3 | Default | <tenant>.example.com (from c.example.com) | 443/tcp, 99999 |\n",
    "<table><tr><th>ID</th><th>URL</th><th>Ports</th></tr>\n",
    "<tr><td rowspan=2>4</td><td><code>d.example.com</code>&nbsp;10.0.0.1/8</td><td>UDP: 1-5</td></tr>\n",
    "</table>\n",
    "<!-- e.example.com -->\n",
    "See f.example.com, *.g.example.com and 192.0.2.1.\n",
    "## Heading\n\n",
    "```\n",
];
/// Lines of lists.
const LIST: &[&str] = &[
    "# remark\n",
    "a.example.com\n",
    "*.b.example.com, 192.0.2.0/24\n",
    ".c.example.com\n",
    "2001:db8::/32\n",
    "||d.example.com^\n",
    "0.0.0.0 e.example.com\n",
    "10.0.0.1/8\n",
    "https://f.example.com/x\n",
    "g.example.com ; h\n",
];
/// Rows of comma-separated values.
const CSV: &[&str] = &[
    "1,a.example.com,192.0.2.0/24,443,,yes\n",
    "2,\"*.b.example.com c.example.com\",,\"80,443\",,no\n",
    "3,,10.0.0.1/8,,53,\n",
    "4,<x>.example.com,,0,1-2,d.example.com,more\n",
    "\n",
    "# x\n",
];

/// A text to begin with, if `target` reads catalogues.
pub(super) fn seed(target: Target, dice: &mut Dice) -> Option<Vec<u8>> {
    let (start, pieces) = match target {
        Target::Answers | Target::Question => return None,
        Target::Tables => ("", TABLES),
        Target::List => ("", LIST),
        Target::Csv => ("id,name,cidr,tcp,udp,required\n", CSV),
    };
    let mut text = start.to_owned();
    for _ in 0..=dice.below(8) {
        text += pieces[dice.below(pieces.len())];
    }
    Some(if dice.chance(100) {
        text.encode_utf16().flat_map(u16::to_le_bytes).collect()
    } else {
        text.into_bytes()
    })
}

/// Reads a text as the daemon would.
pub(super) fn judge(text: &[u8]) -> Result<String, String> {
    let format = detect(text);
    let catalogue = match read(text, "fuzz") {
        Ok(catalogue) => catalogue,
        Err(problems) => {
            let Some(first) = problems.list().first() else {
                return Err("refused without a problem".to_owned());
            };
            let words: Vec<_> = first.what.split(' ').take(4).collect();
            return Ok(format!("{format:?} {}", words.join(" ")));
        }
    };
    let account = &catalogue.account;
    let reported = account.reported.len();
    if account.tokens != account.imported + reported {
        return Err(format!(
            "{} tokens, {} imported, {reported} reported",
            account.tokens, account.imported
        ));
    }
    let held: usize = catalogue
        .sets
        .iter()
        .map(|set| set.patterns.len() + set.networks.len())
        .sum();
    if held > account.imported {
        return Err(format!(
            "{held} names and networks, {} imported",
            account.imported
        ));
    }
    let ports = catalogue.sets.iter().filter(|set| !set.ports.is_empty());
    let size = |count: usize| count.checked_ilog2().map_or(0, |log| log + 1);
    let origin = |set: &EndpointSet| set.origin.is_empty();
    if catalogue.sets.iter().any(origin) {
        return Err("a set without origin".to_owned());
    }
    Ok(format!(
        "{format:?} {} {} {} {}",
        size(catalogue.sets.len()),
        size(held),
        size(reported),
        size(ports.count()),
    ))
}
