//! Names and networks in running text: no set holds them, and each is said.

use super::TOO_MANY;
use super::endpoint::{self, Word};
use crate::policy::catalogue::Account;

/// Whether a character may be part of a name, a network or an address of the web.
fn part(c: char) -> bool {
    c.is_ascii_alphanumeric()
        || "._-*:/@%?=&#+~<>{}".contains(c)
        || (c.is_alphabetic() && c < '\u{2e80}')
}

/// The words of a text that mean names or networks, with how many lines precede each.
pub(super) fn words(text: &str) -> impl Iterator<Item = (usize, &str)> {
    let mut rest = text;
    let mut lines = 0;
    std::iter::from_fn(move || {
        loop {
            let start = rest.find(part)?;
            lines += rest[..start].matches('\n').count();
            let behind = &rest[start..];
            let end = behind.find(|c| !part(c)).unwrap_or(behind.len());
            let word;
            (word, rest) = behind.split_at(end);
            if is_endpoint(word) {
                return Some((lines, word));
            }
        }
    })
}

fn is_endpoint(word: &str) -> bool {
    if !word.contains(['.', ':']) {
        return false;
    }
    match endpoint::read(word) {
        Word::Name(_) | Word::Network(_) | Word::Refused(_) => true,
        Word::Text => false,
    }
}

/// Reports what a text that begins in line `line` names.
pub(super) fn report(text: &str, line: usize, why: &str, account: &mut Account) {
    for (lines, word) in words(text) {
        if account.reported.len() > TOO_MANY {
            return;
        }
        account.report(&format!("line {}", line + lines), word, why);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_in_sentences() {
        fn check(text: &str, expected: &[(usize, &str)]) {
            assert_eq!(words(text).collect::<Vec<_>>(), expected, "{text}");
        }
        check(
            "manage.example.com、*.example.net、および graph.example.com への",
            &[
                (0, "manage.example.com"),
                (0, "*.example.net"),
                (0, "graph.example.com"),
            ],
        );
        check(
            "See\nhttps://a.example/x?y=1, or 192.0.2.0/24.\n",
            &[(1, "https://a.example/x?y=1"), (1, "192.0.2.0/24.")],
        );
        check("([GUID]::NewGuid()).Guid | ?{$_.ips}, e.g. 1.5", &[]);
        check("'https://b.example.net'", &[(0, "https://b.example.net")]);
        check("", &[]);
    }
}
