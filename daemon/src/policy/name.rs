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
        // `*.com` and `*com` would open a whole top-level domain, `*` everything.
        if literal_tail < 2 && (folded.starts_with('*') || literal_tail == 0) {
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
        glob(self.text.as_bytes(), text.as_bytes(), true)
    }
}

/// Matches `*` in `pattern` against one or more characters: of one label, or of several where it is
/// the leading one.
fn glob(pattern: &[u8], text: &[u8], leading: bool) -> bool {
    match (pattern.split_first(), text.split_first()) {
        (None, rest) => rest.is_none(),
        (Some((b'*', after)), _) => {
            // `*.a.*.b`: a leading star that is a whole label takes whole labels.
            let across = leading;
            let reach = if across {
                text.len()
            } else {
                text.iter()
                    .position(|byte| *byte == b'.')
                    .unwrap_or(text.len())
            };
            (1..=reach).any(|taken| glob(after, &text[taken..], false))
        }
        (Some((p, after)), Some((t, rest))) => p == t && glob(after, rest, false),
        (Some(_), None) => false,
    }
}
