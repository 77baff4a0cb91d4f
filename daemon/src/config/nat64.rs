//! `[dns] nat64` and `dns64`.

use crate::catalogue_import::targets::network;
use crate::document::Table;
use crate::policy::nat64::Prefix;
use ipnet::IpNet;

/// The translators' prefixes, and the one that addresses are made with.
pub(super) fn nat64(table: &mut Table<'_, '_>) -> (Vec<Prefix>, Option<Prefix>) {
    let mut prefixes = Vec::new();
    let noted = table.document.noted();
    for text in table.texts("nat64") {
        let written = text.get_ref();
        let what = match network(written) {
            Ok(IpNet::V6(network)) => match Prefix::new(network) {
                Ok(prefix) if prefixes.contains(&prefix) => {
                    format!("`{written}` stands twice; leave one out")
                }
                Ok(prefix) => {
                    prefixes.push(prefix);
                    continue;
                }
                Err(error) => format!("`{written}` translates nothing: {error}; {EXAMPLE}"),
            },
            Ok(IpNet::V4(_)) => format!("`{written}` is not IPv6; {EXAMPLE}"),
            Err(what) => what,
        };
        table.document.problem(&text.span(), what);
    }
    let Some(value) = table.take("dns64") else {
        return (prefixes, None);
    };
    let span = value.span.clone();
    let first = prefixes.first().copied();
    match value.flag() {
        Some(true) if first.is_none() && table.document.noted() == noted => {
            let what = format!("`dns64` needs the translator's prefix; {EXAMPLE}");
            table.document.problem(&span, what);
            (prefixes, None)
        }
        Some(true) => (prefixes, first),
        Some(false) | None => (prefixes, None),
    }
}

const EXAMPLE: &str = "write one such as nat64 = [\"64:ff9b::/96\"]";
