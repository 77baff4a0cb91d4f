//! Pages of our own with every trap of real ones, and the built-in catalogue written as a page.

mod pages;
mod rendered;
pub(in crate::catalogue_import) mod robust;

use super::super::read;
use crate::policy::catalogue::{Catalogue, EndpointSet};
use std::collections::BTreeMap;

/// A set as one line.
fn shown(set: &EndpointSet) -> String {
    let names: Vec<_> = set.patterns.iter().map(ToString::to_string).collect();
    let networks: Vec<_> = set.networks.iter().map(ToString::to_string).collect();
    format!(
        "{} [{}] [{}] {} {:?}{}{}",
        set.id,
        names.join(" "),
        networks.join(" "),
        set.ports,
        set.category,
        if set.required { " required" } else { "" },
        if set.express_route { " er" } else { "" },
    )
}

/// Checks that every name and network of a text is in a set or in a report, as often as the text has
/// it; finds them by cutting, with nothing of the importer.
fn nothing_is_lost(text: &str, catalogue: &Catalogue) {
    let account = &catalogue.account;
    assert_eq!(account.tokens, account.imported + account.reported.len());
    let mut left: BTreeMap<String, i64> = BTreeMap::new();
    for token in scan(text) {
        *left.entry(token).or_default() += 1;
    }
    assert!(!left.is_empty());
    for set in &catalogue.sets {
        let names = set.patterns.iter().map(ToString::to_string);
        let networks = set.networks.iter().map(ToString::to_string);
        for token in names.chain(networks) {
            *left
                .entry(token.trim_end_matches("/32").to_owned())
                .or_default() -= 1;
        }
    }
    for reported in &account.reported {
        for token in scan(&reported.token) {
            *left.entry(token).or_default() -= 1;
        }
    }
    left.retain(|_, count| *count != 0);
    assert_eq!(left, BTreeMap::new(), "more or fewer than in the text");
}

/// Names of the tests' domains and IPv4 networks in a text.
fn scan(text: &str) -> Vec<String> {
    let mut text = text.replace('\r', "").to_lowercase();
    for (from, to) in [("<!--", "-->"), ("<script", "</script>")] {
        while let Some(start) = text.find(from) {
            let end = text[start..]
                .find(to)
                .map_or(text.len(), |end| start + end + to.len());
            text.replace_range(start..end, " ");
        }
    }
    for (from, to) in [
        ("&#46;", "."),
        ("&nbsp;", " "),
        ("&lt;", "<"),
        ("&gt;", ">"),
        ("&#x2a;", "*"),
        ("\\*", "*"),
        ("\\_", "_"),
        ("\u{200b}", ""),
        ("\u{ad}", ""),
        ("<wbr>", ""),
        ("<b>", ""),
        ("</b>", ""),
        ("**", ""),
        ("&shy;", ""),
    ] {
        text = text.replace(from, to);
    }
    text.split(|c: char| !(c.is_ascii_alphanumeric() || "._-*/".contains(c)))
        .flat_map(|piece| {
            let digits = piece.starts_with(|c: char| c.is_ascii_digit())
                && piece
                    .chars()
                    .all(|c| c.is_ascii_digit() || "./".contains(c));
            let parts: Vec<&str> = if digits {
                vec![piece]
            } else {
                piece.split('/').collect()
            };
            parts.into_iter().map(str::to_owned).collect::<Vec<_>>()
        })
        .map(|piece| {
            piece
                .trim_end_matches(['.', '/'])
                .trim_end_matches("/32")
                .to_owned()
        })
        .filter(|piece| {
            let top = piece.rsplit('.').next().unwrap_or_default();
            let name = ["com", "net", "us", "example"].contains(&top) && piece.contains('.');
            name && !piece.starts_with('.')
                || piece.matches('.').count() == 3
                    && piece
                        .chars()
                        .all(|c| c.is_ascii_digit() || "./".contains(c))
        })
        .collect()
}
