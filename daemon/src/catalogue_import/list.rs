//! Plain lists: names, wildcards, networks and addresses, one a line or with commas and blanks between.
//! Lists of what to block are not taken for lists of what to allow.

use super::endpoint::{self, Word};
use super::{TOO_MANY, fold};
use crate::document::Problems;
use crate::policy::catalogue::{Catalogue, EndpointSet};
use std::collections::BTreeSet;

/// Whether the first line with something in it has nothing but endpoints, or is a line of a block list.
#[must_use]
pub(super) fn is_list(text: &str) -> bool {
    let folded = text.lines().map(|line| fold::fold(content(line)));
    let Some(line) = { folded }.find(|line| !line.trim().is_empty()) else {
        return false;
    };
    if blocks(&line) {
        return true;
    }
    let mut words = words(&line).take(1000);
    words.all(|word| match read(word) {
        Word::Name(_) | Word::Network(_) | Word::Refused(_) => true,
        Word::Text => false,
    })
}

/// Reads a list into one set without ports.
///
/// # Errors
/// When nothing of it can be had, as of a list of what to block.
pub fn list(text: &str, file: &str) -> Result<Catalogue, Problems> {
    let mut catalogue = Catalogue {
        source: file.to_owned(),
        ..Catalogue::default()
    };
    let mut set = EndpointSet {
        id: "list".to_owned(),
        area: "list".to_owned(),
        required: true,
        inferred: vec![
            "category: a list gives none".to_owned(),
            "required: a list does not say".to_owned(),
        ],
        ..EndpointSet::default()
    };
    let mut names = BTreeSet::new();
    let mut networks = BTreeSet::new();
    let account = &mut catalogue.account;
    let mut blocking = 0_usize;
    for (at, line) in text.lines().enumerate() {
        let origin = || format!("line {}", at + 1);
        let line = fold::fold(content(line));
        if blocks(&line) {
            blocking += 1;
            let why = "it is a line of a block list; egressd denies what is not allowed, \
                       leave such lists out";
            account.report(&origin(), line.trim(), why);
        } else {
            for word in words(&line) {
                if account.reported.len() > TOO_MANY {
                    break;
                }
                match read(word) {
                    Word::Name(pattern) if names.insert(pattern.clone()) => {
                        account.import();
                        set.patterns.push(pattern);
                    }
                    Word::Network(network) if networks.insert(network) => {
                        account.import();
                        set.networks.push(network);
                    }
                    Word::Name(_) | Word::Network(_) => {
                        account.report(&origin(), word, "it is listed twice; nothing to do");
                    }
                    Word::Refused(why) => account.report(&origin(), word, why),
                    Word::Text => {
                        let why = "it is neither a name nor a network; put # before remarks";
                        account.report(&origin(), word, why);
                    }
                }
            }
        }
        if account.reported.len() > TOO_MANY {
            let what = format!(
                "more than {TOO_MANY} of its entries cannot be used; is it a list of what to allow?"
            );
            return Err(Problems::with_file(file, what));
        }
    }
    if set.patterns.is_empty() && set.networks.is_empty() {
        let what = if blocking > 0 {
            "it is a block list; egressd denies what is not allowed, so that it needs none"
        } else {
            "it lists no name and no network; write one a line"
        };
        return Err(Problems::with_file(file, what.to_owned()));
    }
    set.origin = format!("lines 1-{}", text.lines().count());
    catalogue.sets.push(set);
    Ok(catalogue)
}

/// A line without its remark.
fn content(line: &str) -> &str {
    let mut before = ' ';
    for (at, c) in line.char_indices() {
        if matches!(c, '#' | ';' | '!') && before.is_whitespace() && (c != '!' || at == 0) {
            return &line[..at];
        }
        before = c;
    }
    line
}

/// The words of a folded line.
fn words(line: &str) -> impl Iterator<Item = &str> {
    let separates = |c: char| c.is_whitespace() || matches!(c, ',' | ';');
    line.split(separates).filter(|word| !word.is_empty())
}

fn read(word: &str) -> Word {
    let word = word.trim_matches(['"', '\'', '`']);
    // Squid, dnsmasq and others write the names below a name so.
    match word.strip_prefix('.') {
        Some(parent) if parent.contains('.') && !parent.starts_with(['.', '*']) => {
            endpoint::read(&format!("*.{parent}"))
        }
        Some(_) | None => endpoint::read(word),
    }
}

/// Whether a line says what to block: of a hosts file, or of an ad blocker.
fn blocks(line: &str) -> bool {
    let line = line.trim();
    if line.starts_with("||") || line.starts_with("@@") || line.ends_with('^') {
        return true;
    }
    let mut words = line.split_whitespace();
    let sinks = ["0.0.0.0", "127.0.0.1", "::", "::1", "0"];
    words.next().is_some_and(|first| sinks.contains(&first)) && words.next().is_some()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists() {
        fn check(text: &str, expected: &str, reported: &[(&str, &str)]) {
            assert!(is_list(text), "{text}");
            let catalogue = list(text, "l").unwrap();
            let set = &catalogue.sets[0];
            let names = set.patterns.iter().map(ToString::to_string);
            let networks = set.networks.iter().map(ToString::to_string);
            let got: Vec<_> = names.chain(networks).collect();
            assert_eq!(got.join(" "), expected, "{text}");
            let account = &catalogue.account;
            let got: Vec<_> = account
                .reported
                .iter()
                .map(|reported| (&*reported.origin, &*reported.token))
                .collect();
            assert_eq!(got, reported, "{text}");
            assert_eq!(account.imported, set.tokens(), "{text}");
            assert_eq!(account.tokens, account.imported + reported.len(), "{text}");
        }
        check(
            "# what phones need\n\na.example.com ; mail\n*.b.example.com, 192.0.2.0/24 2001:db8::1\r\n.c.example.com\n",
            "a.example.com *.b.example.com *.c.example.com 192.0.2.0/24 2001:db8::1/128",
            &[],
        );
        check(
            "a.example.com\nA.example.com\nfoo\n10.0.0.1/8\n||x.example.com^\n0.0.0.0 y.example.com\nhttps://b.example.com/x",
            "a.example.com",
            &[
                ("line 2", "A.example.com"),
                ("line 3", "foo"),
                ("line 4", "10.0.0.1/8"),
                ("line 5", "||x.example.com^"),
                ("line 6", "0.0.0.0 y.example.com"),
                ("line 7", "https://b.example.com/x"),
            ],
        );
        check(
            "\"a.example.com\",\"b.example.com\"",
            "a.example.com b.example.com",
            &[],
        );
    }

    #[test]
    fn lists_without_an_endpoint() {
        fn check(text: &str, expected: &str) {
            let got = list(text, "l").map_err(|problems| problems.to_string());
            assert_eq!(got.err().unwrap_or_default(), expected, "{text}");
        }
        let blocks =
            "l: it is a block list; egressd denies what is not allowed, so that it needs none";
        check("! Title\n||ads.example.com^\n", blocks);
        check("127.0.0.1 localhost\n0.0.0.0 ads.example.com\n", blocks);
        check(
            "foo\nbar",
            "l: it lists no name and no network; write one a line",
        );
        check(
            &"x\n".repeat(TOO_MANY + 1),
            "l: more than 100000 of its entries cannot be used; is it a list of what to allow?",
        );
    }

    #[test]
    fn what_is_no_list() {
        for text in [
            "",
            "# a.example.com",
            "Hello, world",
            "a.example.com and more",
            "{}",
        ] {
            assert!(!is_list(text), "{text}");
        }
    }
}
