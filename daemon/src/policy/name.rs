//! DNS names in canonical wire form, and the patterns that catalogues write. Matching is exact on
//! labels: no text is ever compared where an escape or a NUL could play a trick.

use std::fmt;
use std::str::FromStr;

/// A domain name in uncompressed wire form (RFC 1035 §3.1), ASCII letters in lower case. At most
/// 255 bytes with the root label, each label at most 63 bytes.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Name(Box<[u8]>);

/// Why something is not a name.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BadName {
    /// A label without bytes in the middle, or no label at all.
    #[error("it has an empty label")]
    Empty,
    /// A label over 63 bytes (RFC 1035 §2.3.4).
    #[error("a label is longer than 63 bytes")]
    LongLabel,
    /// Over 255 bytes in wire form (RFC 1035 §2.3.4).
    #[error("it is longer than 255 bytes")]
    Long,
    /// A character that no host name has.
    #[error("`{0}` is not allowed in it; write international names as A-labels (xn--…)")]
    Character(char),
    /// Bytes that do not end with the root label where they should.
    #[error("it is not well-formed on the wire")]
    Wire,
}

impl Name {
    /// The root, `.`.
    #[must_use]
    pub fn root() -> Self {
        Self(Box::new([0]))
    }

    /// Takes uncompressed wire form and folds ASCII case.
    ///
    /// # Errors
    /// When a length byte is over 63, the root label is missing, or bytes follow it.
    pub fn from_wire(wire: &[u8]) -> Result<Self, BadName> {
        if wire.len() > 255 {
            return Err(BadName::Long);
        }
        let mut at = 0;
        loop {
            let length = usize::from(*wire.get(at).ok_or(BadName::Wire)?);
            match length {
                0 if at + 1 == wire.len() => break,
                0 => return Err(BadName::Wire),
                64.. => return Err(BadName::LongLabel),
                _ => at += 1 + length,
            }
        }
        // Length bytes are below 64 and so are not letters: folding the whole buffer is safe.
        Ok(Self(wire.to_ascii_lowercase().into()))
    }

    /// Builds a name from labels, leftmost first.
    ///
    /// # Errors
    /// When a label is empty or too long, or the whole is.
    pub fn from_labels<'a>(labels: impl IntoIterator<Item = &'a [u8]>) -> Result<Self, BadName> {
        let mut wire = Vec::with_capacity(64);
        for label in labels {
            if label.is_empty() {
                return Err(BadName::Empty);
            }
            let length = u8::try_from(label.len()).ok().filter(|n| *n < 64);
            wire.push(length.ok_or(BadName::LongLabel)?);
            wire.extend(label.iter().map(u8::to_ascii_lowercase));
        }
        wire.push(0);
        if wire.len() > 255 {
            Err(BadName::Long)
        } else {
            Ok(Self(wire.into()))
        }
    }

    /// The uncompressed wire form, root label included.
    #[must_use]
    pub fn wire(&self) -> &[u8] {
        &self.0
    }

    /// The labels, leftmost first, without the root label.
    pub fn labels(&self) -> impl DoubleEndedIterator<Item = &[u8]> + Clone {
        let mut labels = Vec::with_capacity(8);
        let mut at = 0;
        while let Some(&length) = self.0.get(at)
            && length > 0
        {
            let end = at + 1 + usize::from(length);
            labels.push(&self.0[at + 1..end]);
            at = end;
        }
        labels.into_iter()
    }

    /// The wire forms of all its parents, nearest first, without itself and without the root:
    /// `a.b.c` gives `b.c`, `c`.
    pub fn parents(&self) -> impl Iterator<Item = &[u8]> {
        let mut at = 0;
        std::iter::from_fn(move || {
            let length = usize::from(*self.0.get(at)?);
            if length == 0 {
                return None;
            }
            at += 1 + length;
            (self.0.get(at).copied()? != 0).then(|| &self.0[at..])
        })
    }
}

/// Whether a character may stand in a label of a configured name: letters, digits, hyphen and the
/// underscore that service names use.
fn plain(c: char) -> bool {
    c.is_ascii_alphanumeric() || c == '-' || c == '_'
}

impl FromStr for Name {
    type Err = BadName;

    /// Reads a host name as people write it; a final dot is allowed.
    fn from_str(text: &str) -> Result<Self, BadName> {
        let text = text.strip_suffix('.').unwrap_or(text);
        if let Some(c) = text.chars().find(|c| !plain(*c) && *c != '.') {
            return Err(BadName::Character(c));
        }
        Self::from_labels(text.split('.').map(str::as_bytes))
    }
}

impl fmt::Display for Name {
    /// Presentation form (RFC 1035 §5.1) without the final dot: what is not plain is escaped, so
    /// that a hostile name cannot forge a log line.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0.len() == 1 {
            return f.write_str(".");
        }
        for (i, label) in self.labels().enumerate() {
            if i > 0 {
                f.write_str(".")?;
            }
            for &byte in label {
                match char::from(byte) {
                    c if plain(c) || c == '*' => write!(f, "{c}")?,
                    c if byte.is_ascii_graphic() => write!(f, "\\{c}")?,
                    _ => write!(f, "\\{byte:03}")?,
                }
            }
        }
        Ok(())
    }
}

impl fmt::Debug for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self}")
    }
}

/// What a catalogue or a rule lists: one name, or a wildcard.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Pattern {
    /// Exactly this name.
    Exact(Name),
    /// `*.parent`: one or more labels before `parent`, never `parent` itself.
    Below(Name),
    /// A `*` elsewhere.
    Glob(Glob),
}

/// A wildcard of another shape. `*foo.example` stands for any characters, dots included, before
/// `foo.example`; a `*` inside or after stands for one or more characters of one label.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Glob {
    text: String,
}

/// Why a text is no pattern.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BadPattern {
    /// The text without its `*` is no name.
    #[error("`{0}` is not a name or a wildcard: {1}")]
    Name(String, BadName),
    /// Matches every name, or every name of a top-level domain.
    #[error("`{0}` would match far too much: at least two labels must follow the `*`")]
    TooWide(String),
}

impl Pattern {
    /// Reads a pattern as catalogues write it. Case does not matter, a final dot is stripped.
    ///
    /// # Errors
    /// When it is no name, or so wide that it would open the gateway.
    pub fn parse(text: &str) -> Result<Self, BadPattern> {
        let bad = |error| BadPattern::Name(text.to_owned(), error);
        if !text.contains('*') {
            return text.parse().map(Self::Exact).map_err(bad);
        }
        // A `*` counts as one character of its label, so that the limits hold for what it matches.
        let folded = text.strip_suffix('.').unwrap_or(text).to_ascii_lowercase();
        let stand_in: Name = folded.replace('*', "x").parse().map_err(bad)?;
        let last_star = folded.rfind('*').unwrap_or_default();
        let literal_tail = folded[last_star..].split('.').skip(1).count();
        // `*.com` and `foo*.com` would open what anybody can register, `*` everything.
        if literal_tail < 2 {
            return Err(BadPattern::TooWide(text.to_owned()));
        }
        match folded.strip_prefix("*.") {
            Some(parent) if !parent.contains('*') => {
                let parent = Name::from_labels(stand_in.labels().skip(1)).map_err(bad)?;
                Ok(Self::Below(parent))
            }
            _ => Ok(Self::Glob(Glob { text: folded })),
        }
    }

    /// Whether `name` is meant.
    #[must_use]
    pub fn matches(&self, name: &Name) -> bool {
        match self {
            Self::Exact(exact) => exact == name,
            Self::Below(parent) => name.parents().any(|wire| wire == parent.wire()),
            Self::Glob(glob) => glob.matches(name),
        }
    }

    /// Whether it matches every name that `other` matches. Between two globs the answer may be no
    /// where it is yes in truth.
    #[must_use]
    pub fn covers(&self, other: &Self) -> bool {
        let below = |name: &Name, parent: &Name| {
            name == parent || name.parents().any(|wire| wire == parent.wire())
        };
        match (self, other) {
            (_, Self::Exact(name)) => self.matches(name),
            (Self::Exact(_), Self::Below(_) | Self::Glob(_)) => false,
            (Self::Below(wide), Self::Below(narrow)) => below(narrow, wide),
            (Self::Below(wide), Self::Glob(narrow)) => below(&narrow.fixed_parent(), wide),
            (Self::Glob(wide), Self::Below(narrow)) => wide.covers_ending(&format!(".{narrow}")),
            (Self::Glob(wide), Self::Glob(narrow)) => {
                let last = narrow.text.rfind('*').map_or(0, |star| star + 1);
                wide == narrow || wide.covers_ending(&narrow.text[last..])
            }
        }
    }

    /// Whether it can match more than one name.
    #[must_use]
    pub fn is_wildcard(&self) -> bool {
        !matches!(self, Self::Exact(_))
    }

    /// Some name it matches, made with `label`, which must be a plain non-empty label. For examples
    /// and tests.
    ///
    /// # Errors
    /// When the result would be too long.
    pub fn example(&self, label: &str) -> Result<Name, BadName> {
        match self {
            Self::Exact(name) => Ok(name.clone()),
            Self::Below(parent) => {
                Name::from_labels(std::iter::once(label.as_bytes()).chain(parent.labels()))
            }
            Self::Glob(glob) => glob.text.replace('*', label).parse(),
        }
    }
}

impl fmt::Display for Pattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Exact(name) => write!(f, "{name}"),
            Self::Below(parent) => write!(f, "*.{parent}"),
            Self::Glob(glob) => f.write_str(&glob.text),
        }
    }
}

impl Glob {
    /// Whether it matches everything that ends so and has something before it.
    fn covers_ending(&self, ending: &str) -> bool {
        let after = self.text.strip_prefix('*');
        after.is_some_and(|after| !after.contains('*') && ending.ends_with(after))
    }

    /// The labels after the last one that holds a `*`.
    #[must_use]
    pub fn fixed_parent(&self) -> Name {
        let last = self.text.rfind('*').map_or(0, |star| star + 1);
        let labels = self.text[last..].split('.').skip(1).map(str::as_bytes);
        Name::from_labels(labels).expect("parsing a pattern checked its labels")
    }

    fn matches(&self, name: &Name) -> bool {
        // Only plain characters can match, so the dots of this text are real label borders.
        let mut text = String::with_capacity(name.wire().len());
        for label in name.labels() {
            if !text.is_empty() {
                text.push('.');
            }
            for &byte in label {
                let c = char::from(byte);
                if !plain(c) {
                    return false;
                }
                text.push(c);
            }
        }
        glob(self.text.as_bytes(), text.as_bytes())
    }
}

/// Matches `*` in `pattern` against one or more characters: of one label, or of several where it
/// stands first. Takes `pattern` × `text` steps whatever they are, for both may be hostile.
fn glob(pattern: &[u8], text: &[u8]) -> bool {
    // Whether the pattern so far can end after so many characters of the text.
    let mut ends = vec![false; text.len() + 1];
    ends[0] = true;
    for (index, &p) in pattern.iter().enumerate() {
        let mut next = vec![false; text.len() + 1];
        for (at, &t) in text.iter().enumerate() {
            next[at + 1] = match p {
                b'*' => (ends[at] || next[at]) && (index == 0 || t != b'.'),
                _ => ends[at] && p == t,
            };
        }
        ends = next;
    }
    ends[text.len()]
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn name(text: &str) -> Name {
        text.parse().unwrap()
    }

    #[test]
    fn d9_matching_is_exact_on_labels() {
        fn check(pattern: &str, asked: &str, expected: bool) {
            let pattern = Pattern::parse(pattern).unwrap();
            assert_eq!(pattern.matches(&name(asked)), expected, "{pattern} {asked}");
        }
        check("manage.microsoft.com", "manage.microsoft.com", true);
        check("manage.microsoft.com", "MANAGE.Microsoft.COM.", true);
        check("Manage.Microsoft.com.", "manage.microsoft.com", true);
        check("manage.microsoft.com", "x.manage.microsoft.com", false);
        check("manage.microsoft.com", "microsoft.com", false);

        check("*.manage.microsoft.com", "a.manage.microsoft.com", true);
        check(
            "*.manage.microsoft.com",
            "d.c.b.a.manage.microsoft.com",
            true,
        );
        check("*.MANAGE.microsoft.com", "A.manage.MICROSOFT.com", true);
        check("*.manage.microsoft.com", "manage.microsoft.com", false);
        check("*.manage.microsoft.com", "xmanage.microsoft.com", false);
        check("*.manage.microsoft.com", "x-manage.microsoft.com", false);
        check(
            "*.manage.microsoft.com",
            "manage.microsoft.com.evil.example",
            false,
        );
        check(
            "*.manage.microsoft.com",
            "a.manage.microsoft.com.evil.example",
            false,
        );
        check("*.manage.microsoft.com", "a.manage.microsoft.co", false);
        check("*.manage.microsoft.com", "com", false);

        check("*cdn.onenote.net", "site-cdn.onenote.net", true);
        check("*cdn.onenote.net", "a.b.cdn.onenote.net", true);
        check("*cdn.onenote.net", "cdn.onenote.net", false);
        check("*cdn.onenote.net", "cdn.onenote.net.evil.example", false);
        check(
            "*-files.sharepoint.com",
            "contoso-files.sharepoint.com",
            true,
        );
        check(
            "*-files.sharepoint.com",
            "a.contoso-files.sharepoint.com",
            true,
        );
        check("*-files.sharepoint.com", "files.sharepoint.com", false);
        check("*-files.sharepoint.com", "-files.sharepoint.com", false);
        check(
            "autodiscover.*.onmicrosoft.com",
            "autodiscover.contoso.onmicrosoft.com",
            true,
        );
        check(
            "autodiscover.*.onmicrosoft.com",
            "autodiscover.a.b.onmicrosoft.com",
            false,
        );
        check(
            "autodiscover.*.onmicrosoft.com",
            "autodiscover.onmicrosoft.com",
            false,
        );
        check(
            "autodiscover-*.outlook.com",
            "autodiscover-s.outlook.com",
            true,
        );
        check(
            "autodiscover-*.outlook.com",
            "autodiscover-.outlook.com",
            false,
        );
        check(
            "autodiscover-*.outlook.com",
            "autodiscover-a.b.outlook.com",
            false,
        );
        check(
            "payloadprod*.blob.core.windows.net",
            "payloadprod1.blob.core.windows.net",
            true,
        );
        check(
            "payloadprod*.blob.core.windows.net",
            "payloadprod.blob.core.windows.net",
            false,
        );
        check(
            "payloadprod*.blob.core.windows.net",
            "x.payloadprod1.blob.core.windows.net",
            false,
        );
        check("*.a.*.example.com", "x.y.a.b.example.com", true);
        check("*.a.*.example.com", "a.b.example.com", false);
        check("*.a.*.example.com", "x.a.b.c.example.com", false);
    }

    #[test]
    fn covering() {
        fn check(wide: &str, narrow: &str, expected: bool) {
            let pattern = |text| Pattern::parse(text).unwrap();
            assert_eq!(
                pattern(wide).covers(&pattern(narrow)),
                expected,
                "{wide} {narrow}"
            );
        }
        check("a.example.com", "a.example.com", true);
        check("a.example.com", "*.example.com", false);
        check("*.example.com", "a.example.com", true);
        check("*.example.com", "example.com", false);
        check("*.example.com", "*.example.com", true);
        check("*.example.com", "*.a.example.com", true);
        check("*.a.example.com", "*.example.com", false);
        check("*.example.com", "*.xexample.com", false);
        check("*.example.com", "a*.example.com", true);
        check("*.example.com", "*a.example.com", true);
        check("*.example.com", "*example.com.net", false);
        check("*a.example.com", "*.a.example.com", true);
        check("*a.example.com", "*.example.com", false);
        check("*a.example.com", "*ba.example.com", true);
        check("*a.example.com", "*.b*a.example.com", true);
        check("b*a.example.com", "b*a.example.com", true);
        check("*a*.example.com", "*.a.example.com", false);
    }

    /// Labels that text cannot write: dots, NULs, backslashes, spaces inside them.
    #[test]
    fn d9_escapes_play_no_trick() {
        fn check(pattern: &str, labels: &[&[u8]], expected: bool) {
            let pattern = Pattern::parse(pattern).unwrap();
            let asked = Name::from_labels(labels.iter().copied()).unwrap();
            assert_eq!(pattern.matches(&asked), expected, "{pattern} {asked}");
        }
        check("a.example.com", &[b"a.example", b"com"], false);
        check("a.example.com", &[b"a.example.com"], false);
        check("a.example.com", &[b"a", b"example", b"com\0"], false);
        check("a.example.com", &[b"a\0", b"example", b"com"], false);
        check("*.example.com", &[b"a.example.com"], false);
        check("*.example.com", &[b"a", b"example.com"], false);
        check("*.example.com", &[b"a.example", b"com"], false);
        check(
            "*.example.com",
            &[b"a", b"example", b"com\0", b"evil", b"example"],
            false,
        );
        check("*.example.com", &[b"a\\", b"example", b"com"], true);
        check("*.example.com", &[b"*", b"example", b"com"], true);
        check("*x.example.com", &[b"a.x", b"example", b"com"], false);
        check("*x.example.com", &[b"a\0x", b"example", b"com"], false);
        check("*x.example.com", &[b"*x", b"example", b"com"], false);
    }

    #[test]
    fn d9_limits_of_names() {
        fn check(text: &str, expected: Result<usize, BadName>) {
            let got = text.parse::<Name>().map(|name| name.wire().len());
            assert_eq!(got, expected, "{text}");
        }
        let label = |length| "a".repeat(length);
        check(&format!("{}.example", label(63)), Ok(73));
        check(&format!("{}.example", label(64)), Err(BadName::LongLabel));
        let long = [label(63), label(63), label(63), label(61)].join(".");
        check(&long, Ok(255));
        check(&format!("{long}."), Ok(255));
        check(&format!("{long}a"), Err(BadName::Long));
        check("", Err(BadName::Empty));
        check(".", Err(BadName::Empty));
        check("a..b", Err(BadName::Empty));
        check(".a", Err(BadName::Empty));
        check("a b", Err(BadName::Character(' ')));
        check("a\\.b", Err(BadName::Character('\\')));
        check("münchen.example", Err(BadName::Character('ü')));
        check("_dmarc.x-1.example", Ok(20));
    }

    #[test]
    fn wire_form() {
        fn check(wire: &[u8], expected: Result<&str, BadName>) {
            let got = Name::from_wire(wire).map(|name| name.to_string());
            assert_eq!(got, expected.map(str::to_owned), "{wire:?}");
        }
        check(b"\x01A\x02bC\0", Ok("a.bc"));
        check(b"\0", Ok("."));
        check(b"", Err(BadName::Wire));
        check(b"\x01a", Err(BadName::Wire));
        check(b"\x01a\0\0", Err(BadName::Wire));
        check(b"\x02a\0", Err(BadName::Wire));
        check(b"\xc0\x0c", Err(BadName::LongLabel));
        check(&[b'a'; 256], Err(BadName::Long));
        check(b"\x04a.\0\n\x03com\0", Ok("a\\.\\000\\010.com"));
        check(b"\x02\\\xff\0", Ok("\\\\\\255"));
    }

    #[test]
    fn parents_are_nearest_first() {
        let name = name("a.b.c");
        let parents: Vec<_> = name.parents().collect();
        assert_eq!(parents, [&b"\x01b\x01c\0"[..], b"\x01c\0"]);
        assert_eq!(Name::root().parents().count(), 0);
    }

    #[test]
    fn patterns_that_are_none() {
        fn check(text: &str, expected: &str) {
            let got = Pattern::parse(text).map_err(|error| error.to_string());
            assert_eq!(got.err().unwrap_or_default(), expected, "{text}");
        }
        let wide = |text| {
            format!("`{text}` would match far too much: at least two labels must follow the `*`")
        };
        for text in [
            "*", "*.", "*.com", "*com", "*foo.com", "foo*.com", "a.*.com", "a.*", "a*", "*.b.*",
        ] {
            check(text, &wide(text));
        }
        check(
            "*..com",
            "`*..com` is not a name or a wildcard: it has an empty label",
        );
        check("", "`` is not a name or a wildcard: it has an empty label");
        check(
            "<tenant>.sharepoint.com",
            "`<tenant>.sharepoint.com` is not a name or a wildcard: `<` is not allowed in it; write international names as A-labels (xn--…)",
        );
        let long = format!("*.{}.example.com", "a".repeat(64));
        check(
            &long,
            &format!("`{long}` is not a name or a wildcard: a label is longer than 63 bytes"),
        );
        for text in [
            "a",
            "*.example.com",
            "*foo.example.com",
            "a.*.example.com",
            "a*b*c.example.com",
        ] {
            check(text, "");
        }
    }

    #[test]
    fn a_hostile_glob_takes_no_time() {
        let stars =
            Pattern::parse(&format!("{}.{}.x.y", "a*".repeat(31), "*a".repeat(31))).unwrap();
        let label = "a".repeat(63);
        // The recursive way would try some 10^30 divisions of these labels.
        assert!(!stars.matches(&name(&format!("{label}.{label}.x.z"))));
        assert!(stars.matches(&name(&format!("{label}.{label}.x.y"))));
    }

    /// The meaning, spelt out: some way to fill in each `*` gives the name. A filling is some part of
    /// the name, and only the first `*` of all, at the very beginning, may be filled with dots.
    fn oracle(pattern: &str, asked: &str) -> bool {
        let Some((before, after)) = pattern.split_once('*') else {
            return pattern == asked;
        };
        let parts = (0..asked.len())
            .flat_map(|from| (from + 1..=asked.len()).map(move |to| &asked[from..to]));
        let fits = |part: &&str| before.is_empty() || !part.contains('.');
        parts.filter(fits).any(|part| {
            let filled = format!("{before}{part}");
            asked.starts_with(&filled) && oracle(&format!("{filled}{after}"), asked)
        })
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(2000))]

        #[test]
        fn d9_globs_agree_with_the_meaning(
            stars in "[ab*]{1,3}(\\.[ab*]{1,3}){0,2}",
            asked in "[ab]{1,3}(\\.[ab]{1,3}){0,3}",
            fill in "[ab]{1,2}",
            from_pattern: bool,
        ) {
            let written = format!("{stars}.x.y");
            let asked = if from_pattern { stars.replace('*', &fill) } else { asked };
            let asked = format!("{asked}.x.y");
            let pattern = Pattern::parse(&written).unwrap();
            prop_assert_eq!(pattern.matches(&name(&asked)), oracle(&written, &asked), "{} {}", written, asked);
            let behind = name(&format!("{asked}.evil"));
            prop_assert!(!pattern.matches(&behind));
        }

        #[test]
        fn what_covers_matches_all_the_other_matches(
            wide in "[ab*]{1,2}(\\.[ab*]{1,2}){0,2}",
            narrow in "[ab*]{1,2}(\\.[ab*]{1,2}){0,2}",
            label in "[ab]{1,2}(\\.[ab]{1,2}){0,1}",
        ) {
            let wide = Pattern::parse(&format!("{wide}.x.y")).unwrap();
            let narrow = Pattern::parse(&format!("{narrow}.x.y")).unwrap();
            let example = name(&narrow.to_string().replace('*', &label));
            prop_assert!(!wide.covers(&narrow) || !narrow.matches(&example) || wide.matches(&example));
        }

        #[test]
        fn an_example_matches_its_pattern(stars in "[ab*]{1,3}(\\.[ab*]{1,3}){0,2}", label in "[ab]{1,9}") {
            let pattern = Pattern::parse(&format!("{stars}.x.y")).unwrap();
            prop_assert!(pattern.matches(&pattern.example(&label).unwrap()));
        }

        #[test]
        fn labels_of_any_bytes_survive(
            labels in proptest::collection::vec(proptest::collection::vec(any::<u8>(), 1..70), 0..6)
        ) {
            let long = labels.iter().any(|label| label.len() > 63);
            let whole: usize = labels.iter().map(|label| label.len() + 1).sum();
            let name = Name::from_labels(labels.iter().map(Vec::as_slice));
            prop_assert_eq!(name.is_ok(), !long && whole < 255);
            if let Ok(name) = name {
                prop_assert_eq!(&Name::from_wire(name.wire()).unwrap(), &name);
                prop_assert_eq!(name.labels().count(), labels.len());
                prop_assert!(name.to_string().chars().all(|c| c.is_ascii_graphic()));
                prop_assert!(!name.wire().iter().any(u8::is_ascii_uppercase));
            }
        }
    }
}
