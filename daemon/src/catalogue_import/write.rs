//! A catalogue in egressd's own format: what `read` makes of it is the same again.

use crate::policy::catalogue::{Catalogue, Category, EndpointSet};
use crate::policy::port::{PROTOCOLS, Service, TCP, UDP};
use std::fmt::Write as _;

/// The text of a catalogue in egressd's own format.
#[must_use]
pub fn write(catalogue: &Catalogue) -> String {
    let mut text = String::new();
    for (key, value) in [
        ("name", &catalogue.name),
        ("title", &catalogue.title),
        ("version", &catalogue.version),
        ("source", &catalogue.source),
    ] {
        if key == "name" || !value.is_empty() {
            line(&mut text, key, &quoted(value));
        }
    }
    catalogue.sets.iter().for_each(|one| set(&mut text, one));
    text
}

fn set(text: &mut String, set: &EndpointSet) {
    text.push_str("\n[[set]]\n");
    line(text, "id", &quoted(&set.id));
    line(text, "area", &quoted(&set.area));
    optional(text, "service", &set.service);
    let category = match set.category {
        Category::Optimize => "optimize",
        Category::Allow => "allow",
        Category::Default => "default",
    };
    line(text, "category", &quoted(category));
    for (key, flag) in [
        ("required", set.required),
        ("express_route", set.express_route),
    ] {
        if flag {
            line(text, key, "true");
        }
    }
    list(
        text,
        "names",
        set.patterns.iter().map(|name| quoted(&name.to_string())),
    );
    list(
        text,
        "networks",
        set.networks.iter().map(|net| quoted(&net.to_string())),
    );
    let of = |protocol: u8| {
        set.ports
            .services()
            .iter()
            .filter(move |one| one.protocol == protocol)
    };
    for (key, protocol) in [("tcp", TCP), ("udp", UDP)] {
        let ports = of(protocol).filter(|one| !whole(one));
        list(text, key, ports.map(ports_of));
    }
    let protocols = set.ports.services().iter().filter(|one| whole(one));
    let word = |one: &Service| PROTOCOLS.iter().find(|(_, number)| *number == one.protocol);
    list(
        text,
        "protocols",
        protocols.filter_map(word).map(|(word, _)| quoted(word)),
    );
    let scope = &set.scope;
    let axes = [
        ("regions", &scope.regions),
        ("scale_units", &scope.scale_units),
        ("platforms", &scope.platforms),
        ("features", &scope.features),
        ("clouds", &scope.clouds),
    ];
    table(
        text,
        "scope",
        axes.into_iter()
            .filter(|(_, values)| !values.is_empty())
            .map(|(key, values)| {
                let values: Vec<_> = values.iter().map(|value| quoted(value)).collect();
                format!("{key} = [{}]", values.join(", "))
            }),
    );
    let handling = [
        ("no_tls_inspection", set.handling.no_tls_inspection),
        (
            "no_proxy_authentication",
            set.handling.no_proxy_authentication,
        ),
        ("byte_ranges", set.handling.byte_ranges),
    ];
    table(
        text,
        "handling",
        handling
            .into_iter()
            .filter(|(_, flag)| *flag)
            .map(|(key, _)| format!("{key} = true")),
    );
    list(
        text,
        "inferred",
        set.inferred.iter().map(|fact| quoted(fact)),
    );
    optional(text, "notes", &set.notes);
    let gap = if set.source.is_empty() || set.origin.is_empty() {
        ""
    } else {
        ", "
    };
    optional(
        text,
        "origin",
        &format!("{}{gap}{}", set.source, set.origin),
    );
}

const fn whole(service: &Service) -> bool {
    service.first == 0 && service.last == u16::MAX
}

fn ports_of(service: &Service) -> String {
    let Service { first, last, .. } = service;
    if first == last {
        first.to_string()
    } else {
        format!("\"{first}-{last}\"")
    }
}

fn line(text: &mut String, key: &str, value: &str) {
    writeln!(text, "{key} = {value}").expect("a String takes everything");
}

fn optional(text: &mut String, key: &str, value: &str) {
    if !value.is_empty() {
        line(text, key, &quoted(value));
    }
}

/// Short lists in one line, long ones an entry a line.
fn list(text: &mut String, key: &str, values: impl Iterator<Item = String>) {
    let values: Vec<String> = values.collect();
    let short = values.iter().map(String::len).sum::<usize>() < 80;
    match (values.is_empty(), short) {
        (true, _) => {}
        (false, true) => line(text, key, &format!("[{}]", values.join(", "))),
        (false, false) => line(text, key, &format!("[\n    {},\n]", values.join(",\n    "))),
    }
}

fn table(text: &mut String, key: &str, entries: impl Iterator<Item = String>) {
    let entries: Vec<String> = entries.collect();
    if !entries.is_empty() {
        line(text, key, &format!("{{ {} }}", entries.join(", ")));
    }
}

/// A TOML basic string.
fn quoted(text: &str) -> String {
    toml::Value::String(text.to_owned()).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::catalogue_import::{builtin, read};

    #[test]
    fn what_is_written_is_read_as_the_same() {
        let check = |catalogue: &Catalogue| {
            let text = write(catalogue);
            let again =
                read(text.as_bytes(), "again.toml").map_err(|problems| problems.to_string());
            assert_eq!(again.as_ref(), Ok(catalogue), "{text}");
        };
        check(&builtin());
        let mut odd = builtin();
        odd.title = "\"quotes\", \\ and\nlines \u{1f600}\u{7}".to_owned();
        odd.sets.truncate(1);
        odd.sets[0].ports = crate::policy::port::PortSet::new([
            Service::whole(50),
            Service::whole(UDP),
            Service {
                protocol: TCP,
                first: 8000,
                last: 8010,
            },
        ]);
        let tokens = odd.sets[0].tokens();
        (odd.account.tokens, odd.account.imported) = (tokens, tokens);
        check(&odd);
    }
}
