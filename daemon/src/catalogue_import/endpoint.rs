//! One word of a source: a name, a network, something that means one and cannot be had, or text.

use super::targets;
use crate::policy::name::Pattern;
use ipnet::IpNet;
use std::net::IpAddr;

/// What a word is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Word {
    /// A name or a wildcard.
    Name(Pattern),
    /// A network or an address.
    Network(IpNet),
    /// It means a name or a network that no set can hold: why, and what to do.
    Refused(String),
    /// Anything else.
    Text,
}

/// Marks around a word that are no part of it.
const MARKS: &[char] = &[
    '\'', '"', '`', '\u{201c}', '\u{201d}', '\u{201e}', '\u{2018}', '\u{2019}', '\u{201a}', '«',
    '»', '‹', '›', '(', ')', '[', ']', '「', '」', '『', '』', '（', '）',
];

/// Reads a word of a text that people format, already folded and without blanks in it.
#[must_use]
pub(super) fn read(word: &str) -> Word {
    plain(bare(word))
}

/// Reads a word of data: nothing around it is a mark, a `*` at its end would match something.
#[must_use]
pub(super) fn plain(word: &str) -> Word {
    let (scheme, rest) = match word.split_once("://") {
        Some((scheme, rest)) if scheme.chars().all(|c| c.is_ascii_alphabetic() || c == '*') => {
            (true, rest)
        }
        Some(_) => return Word::Text,
        None => (false, word),
    };
    if let Some(network) = network(rest) {
        return network;
    }
    let end = rest.find(['/', '?', '#']).unwrap_or(rest.len());
    let (host, path) = rest.split_at(end);
    if scheme || !path.is_empty() {
        if !host_like(&without_blanks_to_fill(
            host.split(':').next().unwrap_or(host),
        )) {
            return Word::Text;
        }
        if !matches!(path, "" | "/" | "/*") {
            return Word::Refused(format!(
                "egressd sees no paths; add `{host}` to a [[set]] if all of it may be reached"
            ));
        }
    }
    name(host)
}

/// A word without quotes, emphasis and the punctuation of a sentence.
fn bare(word: &str) -> &str {
    let mut word = word.trim_matches(MARKS);
    for mark in ["**", "__", "*", "_"] {
        if let Some(inner) = word
            .strip_prefix(mark)
            .and_then(|rest| rest.strip_suffix(mark))
            && !inner.is_empty()
        {
            word = inner;
        }
    }
    if word.parse::<IpAddr>().is_ok() {
        return word;
    }
    word.trim_end_matches(['.', ',', ':', ';', '!', '?'])
        .trim_end_matches(MARKS)
}

fn network(word: &str) -> Option<Word> {
    let digits = |c: char| c.is_ascii_digit() || c == '.';
    let hex = |c: char| c.is_ascii_hexdigit() || c == ':' || c == '.';
    let (address, _) = word.split_once('/').unwrap_or((word, ""));
    let known = word.parse::<IpNet>().is_ok() || word.parse::<IpAddr>().is_ok();
    // `::` alone is punctuation of programs.
    if known && word.contains(|c: char| c.is_ascii_hexdigit()) {
        return Some(match targets::destination(word) {
            Ok(net) => Word::Network(net),
            Err(why) => Word::Refused(why),
        });
    }
    let four = address.matches('.').count() == 3 && address.chars().all(digits);
    let six = address.matches(':').count() > 1
        && address.chars().all(hex)
        && (word.contains('/') || address.contains("::"))
        && address.contains(|c: char| c.is_ascii_hexdigit());
    if let Some((first, last)) = word.split_once('-')
        && first.parse::<IpAddr>().is_ok()
        && last.parse::<IpAddr>().is_ok()
    {
        return Some(Word::Refused(format!(
            "`{word}` is a range of addresses; write it as networks in a [[set]]"
        )));
    }
    (four || six).then(|| match targets::network(word) {
        Ok(net) => Word::Network(net),
        Err(why) => Word::Refused(why),
    })
}

fn name(word: &str) -> Word {
    if word.contains('.') && (word.contains('@') || !host_like(word)) {
        let filled = without_blanks_to_fill(word);
        if filled != word && host_like(&filled) {
            return Word::Refused(format!(
                "`{word}` leaves a part to fill in; add the name that is yours to a [[set]]"
            ));
        }
        if let Some((host, port)) = word.split_once(':')
            && host_like(host)
            && !port.is_empty()
        {
            return Word::Refused(format!(
                "`{word}` has a port with it; add `{host}` with its port to a [[set]]"
            ));
        }
        if let Some(rest) = word.strip_prefix('.')
            && rest.contains('.')
            && host_like(rest)
        {
            return Word::Refused(format!(
                "`{word}` begins with a dot; add `*.{rest}` to a [[set]] if that is meant"
            ));
        }
        return Word::Text;
    }
    if !host_like(word) {
        return Word::Text;
    }
    match Pattern::parse(word) {
        Ok(pattern) => Word::Name(pattern),
        Err(error) => Word::Refused(error.to_string()),
    }
}

/// Whether a word has the shape of a host name: labels with a dot, the last of letters.
fn host_like(word: &str) -> bool {
    let word = word.strip_suffix('.').unwrap_or(word);
    let Some((front, last)) = word.rsplit_once('.') else {
        return false;
    };
    let top = last == "*"
        || last.starts_with("xn--")
        || (last.chars().count() > 1 && last.chars().all(char::is_alphabetic));
    let label = |label: &str| {
        !label.is_empty()
            && label.contains(|c: char| c.is_alphanumeric() || c == '*')
            && label
                .chars()
                .all(|c| c.is_alphanumeric() || matches!(c, '-' | '_' | '*'))
    };
    top && front.split('.').all(label)
}

/// `<tenant>.example` as `x.example`: what is between brackets is for the reader to fill in.
fn without_blanks_to_fill(word: &str) -> String {
    let mut filled = String::with_capacity(word.len());
    let mut inside = None;
    for c in word.chars() {
        match (inside, c) {
            (None, '<' | '＜') => inside = Some('>'),
            (None, '{') => inside = Some('}'),
            (None, '[') => inside = Some(']'),
            (None, '%') => inside = Some('%'),
            (None, '$') => {}
            (None, other) => filled.push(other),
            (Some(end), c) if c == end || (end == '>' && c == '＞') => {
                filled.push('x');
                inside = None;
            }
            (Some(_), _) => {}
        }
    }
    filled
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words() {
        fn check(word: &str, expected: &str) {
            let got = match read(word) {
                Word::Name(pattern) => pattern.to_string(),
                Word::Network(net) => net.to_string(),
                Word::Refused(why) => format!("! {why}"),
                Word::Text => "-".to_owned(),
            };
            assert_eq!(got, expected, "{word}");
        }
        check("Manage.Example.com", "manage.example.com");
        check("*.example.com.", "*.example.com");
        check("*cdn.example.net,", "*cdn.example.net");
        check("**a.example.com**", "a.example.com");
        check("*a.example.com*", "a.example.com");
        check("'https://a.example.com'", "a.example.com");
        check("https://a.example.com/*", "a.example.com");
        check("`a.example.com`", "a.example.com");
        check("autodiscover.*.example.com", "autodiscover.*.example.com");
        check(
            "https://a.example.com/x?y",
            "! egressd sees no paths; add `a.example.com` to a [[set]] if all of it may be reached",
        );
        check(
            "a.example.com:8443",
            "! `a.example.com:8443` has a port with it; add `a.example.com` with its port to a [[set]]",
        );
        for blank in ["<tenant>", "{tenant}", "%TENANT%", "<tenant>-my", "x[n]"] {
            let word = format!("{blank}.example.com");
            check(
                &word,
                &format!(
                    "! `{word}` leaves a part to fill in; add the name that is yours to a [[set]]"
                ),
            );
        }
        check(
            ".example.com",
            "! `.example.com` begins with a dot; add `*.example.com` to a [[set]] if that is meant",
        );
        check(
            "*.com",
            "! `*.com` would match far too much: at least two labels must follow the `*`",
        );
        check(
            "bücher.example",
            "! `bücher.example` is not a name or a wildcard: `ü` is not allowed in it; write international names as A-labels (xn--…)",
        );
        check("10.1.2.0/24", "10.1.2.0/24");
        check("192.0.2.1", "192.0.2.1/32");
        check("2001:db8::/32", "2001:db8::/32");
        check("2001:db8::", "2001:db8::/128");
        check(
            "10.1.2.3/24",
            "! `10.1.2.3/24` has bits set after its prefix; write `10.1.2.0/24`",
        );
        check(
            "10.1.2.0/33",
            "! `10.1.2.0/33` is not a network; write one such as `198.51.100.0/24` or `2001:db8::/32`",
        );
        check(
            "127.0.0.1",
            "! `127.0.0.1` lies in 127.0.0.0/8 (loopback), which no gateway forwards to; leave it out",
        );
        check(
            "10.0.0.1-10.0.0.9",
            "! `10.0.0.1-10.0.0.9` is a range of addresses; write it as networks in a [[set]]",
        );
        for text in [
            "and", "e.g.", "::", ".NET", "1.5", "v10.0", "TCP:", "443", "<tenant>", "and/or",
            "_.ips", "-", "", "*", "**", "std::io", "://", "http://", "a..b", "10:30",
        ] {
            check(text, "-");
        }
    }
}
