//! Texts of a vendor made safe to print: catalogues come from outside, and their words reach terminals, logs and
//! selectors.

use crate::policy::catalogue::{Catalogue, EndpointSet, Reported};
use std::borrow::Cow;

/// Escapes what could move a cursor, hide or turn what follows, or begin a line, in every text of a catalogue. Notes
/// keep their lines.
pub(super) fn clean(mut catalogue: Catalogue) -> Catalogue {
    let Catalogue {
        name,
        title,
        version,
        source,
        sets,
        account,
    } = &mut catalogue;
    [name, title, version, source].into_iter().for_each(text);
    sets.iter_mut().for_each(set);
    for Reported { origin, token, why } in &mut account.reported {
        [origin, token, why].into_iter().for_each(text);
    }
    catalogue
}

fn set(set: &mut EndpointSet) {
    let EndpointSet {
        id,
        area,
        service,
        category: _,
        required: _,
        express_route: _,
        patterns: _,
        networks: _,
        ports: _,
        scope,
        handling: _,
        inferred,
        notes,
        source,
        origin,
    } = set;
    [id, area, service, source, origin]
        .into_iter()
        .for_each(text);
    let mut lines: Vec<_> = notes.split('\n').map(str::to_owned).collect();
    lines.iter_mut().for_each(text);
    *notes = lines.join("\n");
    inferred.iter_mut().for_each(text);
    let axes = [
        &mut scope.regions,
        &mut scope.scale_units,
        &mut scope.platforms,
        &mut scope.features,
        &mut scope.clouds,
    ];
    axes.into_iter().flatten().for_each(text);
}

fn text(text: &mut String) {
    if let Cow::Owned(cleaned) = printable(text) {
        *text = cleaned;
    }
}

/// `text` in one line, with what could move a cursor, or hide or turn what follows, escaped.
#[must_use]
pub fn printable(text: &str) -> Cow<'_, str> {
    if text.chars().all(harmless) {
        return Cow::Borrowed(text);
    }
    let mut cleaned = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            c if harmless(c) => cleaned.push(c),
            '\n' | '\r' | '\t' => cleaned.push(' '),
            c => cleaned.extend(c.escape_default()),
        }
    }
    Cow::Owned(cleaned)
}

/// Not a control character, nor one that is not seen or changes the direction (Unicode's general category Cf).
fn harmless(c: char) -> bool {
    let unseen = matches!(
        c,
        '\u{ad}'
            | '\u{61c}'
            | '\u{180e}'
            | '\u{200b}'..='\u{200f}'
            | '\u{2028}'..='\u{202e}'
            | '\u{2060}'..='\u{206f}'
            | '\u{feff}'
            | '\u{fff9}'..='\u{fffb}'
            | '\u{e0000}'..='\u{e007f}'
    );
    !c.is_control() && !unseen
}

#[cfg(test)]
mod tests {
    use crate::catalogue_import::read;

    /// Hostile texts wherever a format takes one.
    const HOSTILE: &[&str] = &[
        "[{\"id\": \"1\\u001b[2J\", \"serviceArea\": \"\\u202ea\", \"serviceAreaDisplayName\": \"x\\ny\\u0007\",\
           \"notes\": \"\\u009b31m\", \"urls\": [\"a.example\", \"\\u001b]0;t\\u0007\"], \"k\\u001b.example\": 1}]",
        "{\"changeNumber\": \"\\u001b[1m\", \"cloud\": \"x\", \"values\": [{\"name\": \"\\u200bA\", \
           \"properties\": {\"addressPrefixes\": [\"192.0.2.0/24\", \"\\u202e\"]}}]}",
        "{\"hooks\\u001b[0m\": [\"192.0.2.0/24\", \"\\u001b\"], \"domains\": {\"\\r\": [\"a.example\"]}}",
        "{\"prefixes\": [{\"service\": \"S\\u2028\", \"region\": \"\\u0000\", \"ip_prefix\": \"192.0.2.0/24\"}]}",
        "id,name,tcp,notes\n1,a.example,443,\u{1b}[2J\n2,\u{202e}b.example,443,\n",
        "a.example\n\u{1b}[2Jb.example\n",
    ];

    #[test]
    fn nothing_of_a_vendor_reaches_a_terminal_raw() {
        for text in HOSTILE {
            let catalogue = read(text.as_bytes(), "f").unwrap();
            let mut texts = vec![catalogue.version.clone(), catalogue.title.clone()];
            for set in &catalogue.sets {
                texts.extend(
                    [
                        &set.id,
                        &set.area,
                        &set.service,
                        &set.notes.replace('\n', " "),
                        &set.origin,
                    ]
                    .map(String::clone),
                );
            }
            for one in &catalogue.account.reported {
                texts.extend([&one.origin, &one.token, &one.why].map(String::clone));
            }
            for text in texts {
                let raw = text.chars().find(|c| !super::harmless(*c));
                assert_eq!(raw, None, "{text:?}");
            }
        }
    }

    #[test]
    fn texts() {
        fn check(text: &str, expected: &str) {
            let mut text = text.to_owned();
            super::text(&mut text);
            assert_eq!(text, expected);
        }
        check("Grüße, 東京 🙂", "Grüße, 東京 🙂");
        check("a\r\nb\tc", "a  b c");
        check(
            "\u{1b}[2J\u{9b}m\u{202e}x\u{200b}",
            "\\u{1b}[2J\\u{9b}m\\u{202e}x\\u{200b}",
        );
    }
}
