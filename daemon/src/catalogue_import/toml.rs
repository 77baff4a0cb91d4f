//! egressd's own format.

use super::targets::Targets;
use crate::document::{Document, Problems, Table};
use crate::policy::catalogue::{Account, Catalogue, Category, EndpointSet, Handling, Scope};

/// Reads a catalogue in egressd's own format. Problems call it `file`.
///
/// # Errors
/// With everything wrong in it, unknown keys too.
pub fn toml(text: &str, file: &str) -> Result<Catalogue, Problems> {
    let document = Document::new(text, file);
    let catalogue = catalogue(document.root());
    document.finish(catalogue)
}

fn catalogue(mut root: Table<'_, '_>) -> Catalogue {
    let noted = root.document.noted();
    let mut catalogue = Catalogue {
        name: word(&mut root, "name", "catalogue"),
        title: prose(&mut root, "title"),
        version: prose(&mut root, "version"),
        source: prose(&mut root, "source"),
        sets: root.tables("set").into_iter().map(set).collect(),
        account: Account::default(),
    };
    // What cannot be read is a problem with its place, and the whole file is refused.
    let tokens = catalogue.sets.iter().map(EndpointSet::tokens).sum();
    catalogue.account.tokens = tokens;
    catalogue.account.imported = tokens;
    if catalogue.sets.is_empty() && root.document.noted() == noted {
        root.problem("this catalogue has no endpoint set; write [[set]] tables");
    }
    root.finish();
    catalogue
}

fn set(mut table: Table<'_, '_>) -> EndpointSet {
    let id = word(&mut table, "id", "set");
    let area = word(&mut table, "area", "set");
    let noted = table.document.noted();
    let Targets {
        patterns,
        networks,
        ports,
    } = Targets::take(&mut table);
    let set = EndpointSet {
        id,
        area,
        service: prose(&mut table, "service"),
        category: table
            .choice(
                "category",
                &[
                    ("optimize", Category::Optimize),
                    ("allow", Category::Allow),
                    ("default", Category::Default),
                ],
            )
            .unwrap_or_default(),
        required: table.flag("required").unwrap_or_default(),
        express_route: table.flag("express_route").unwrap_or_default(),
        patterns,
        networks,
        ports,
        scope: scope(table.table("scope")),
        handling: handling(table.table("handling")),
        inferred: strings(&mut table, "inferred"),
        notes: prose(&mut table, "notes"),
        source: String::new(),
        origin: prose(&mut table, "origin"),
    };
    if set.ports.is_empty() && table.document.noted() == noted {
        table.problem("this set has no port; write `tcp`, `udp` or `protocols`");
    }
    table.finish();
    set
}

fn scope(mut table: Table<'_, '_>) -> Scope {
    let scope = Scope {
        regions: strings(&mut table, "regions"),
        scale_units: strings(&mut table, "scale_units"),
        platforms: strings(&mut table, "platforms"),
        features: strings(&mut table, "features"),
        clouds: strings(&mut table, "clouds"),
    };
    table.finish();
    scope
}

fn handling(mut table: Table<'_, '_>) -> Handling {
    let handling = Handling {
        no_tls_inspection: table.flag("no_tls_inspection").unwrap_or_default(),
        no_proxy_authentication: table.flag("no_proxy_authentication").unwrap_or_default(),
        byte_ranges: table.flag("byte_ranges").unwrap_or_default(),
    };
    table.finish();
    handling
}

/// A word that selectors use: it must be there and hold none of the characters they are made with.
fn word(table: &mut Table<'_, '_>, key: &'static str, what: &str) -> String {
    let example = format!("{key} = \"…\"");
    let Some(text) = table
        .require(key, what, &example)
        .and_then(|value| value.text())
    else {
        return String::new();
    };
    let special = |c: char| c.is_whitespace() || c.is_control() || "/:".contains(c);
    if text.get_ref().is_empty() || text.get_ref().contains(special) {
        let what = format!(
            "`{key}` cannot be `{}`; write it without spaces, `/` and `:`",
            text.get_ref()
        );
        table.document.problem(&text.span(), what);
    }
    text.into_inner()
}

fn prose(table: &mut Table<'_, '_>, key: &'static str) -> String {
    table
        .text(key)
        .map(toml::Spanned::into_inner)
        .unwrap_or_default()
}

fn strings(table: &mut Table<'_, '_>, key: &'static str) -> Vec<String> {
    let texts = table.texts(key).into_iter();
    texts.map(toml::Spanned::into_inner).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_wrong_is_said_with_its_place() {
        fn check(text: &str, expected: &str) {
            let got = toml(text, "c.toml").map_err(|problems| problems.to_string());
            assert_eq!(got.err().unwrap_or_default(), expected, "{text}");
        }
        let good = "name = \"x\"\n[[set]]\nid = \"1\"\narea = \"core\"\nnames = [\"a.example\"]\ntcp = [443]\n";
        check(good, "");
        check(
            &good.replace("tcp", "tpc"),
            "c.toml:2:1: this set has no port; write `tcp`, `udp` or `protocols`\n\
             c.toml:6:1: unknown key `tpc`; did you mean `tcp`?",
        );
        check(
            &good.replace("\"core\"", "\"a/b\""),
            "c.toml:4:8: `area` cannot be `a/b`; write it without spaces, `/` and `:`",
        );
        check(
            "name = \"x\"",
            "c.toml:1:1: this catalogue has no endpoint set; write [[set]] tables",
        );
        check(
            "[[set]]\nid = 1\ntcp = [443]",
            "c.toml:1:1: this catalogue has no `name`; write name = \"…\"\n\
             c.toml:1:1: this set has no `area`; write area = \"…\"\n\
             c.toml:2:6: `1` does not fit here; write a string in quotes",
        );
        check(
            &format!("{good}category = \"allowed\""),
            "c.toml:7:12: `category` cannot be `allowed`; did you mean `allow`?",
        );
        check(
            &format!("{good}scope = {{ region = [\"eu\"] }}\nhandling = 3"),
            "c.toml:7:11: unknown key `region`; did you mean `regions`?\n\
             c.toml:8:12: `3` does not fit here; write a table",
        );
    }
}
