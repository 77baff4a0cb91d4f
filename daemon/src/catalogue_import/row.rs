//! A row of a vendor's list being read. Every name, network and port goes through it, and is imported or
//! reported.

use super::endpoint::{self, Word};
use super::json::Json;
use super::ports;
use super::source::{LONGEST_TEXT, Source, shortened};
use crate::policy::catalogue::EndpointSet;
use crate::policy::port::{PortSet, Service};

/// The longest list of ports that is read, in bytes, and the most entries of all lists of a row. A set has a dozen.
const LONGEST_PORTS: usize = 4096;

/// A row being read, and the document it stands in.
#[derive(Debug)]
pub(super) struct Row<'a> {
    pub(super) set: EndpointSet,
    services: Vec<Service>,
    pub(super) source: &'a mut Source,
}

impl<'a> Row<'a> {
    /// A row that has nothing yet. `id` and `area` become words that selectors can hold.
    pub(super) fn new(source: &'a mut Source, id: &str, area: &str, origin: String) -> Self {
        Self {
            set: EndpointSet {
                id: word(id),
                area: word(area).to_lowercase(),
                origin,
                ..EndpointSet::default()
            },
            services: Vec::new(),
            source,
        }
    }

    /// A name, a wildcard, an address or a network.
    pub(super) fn target(&mut self, text: &str, origin: impl FnOnce() -> String) {
        let why = if text.len() > LONGEST_TEXT {
            "it is too long for a name or a network".to_owned()
        } else {
            match endpoint::plain(text.trim()) {
                Word::Name(pattern) => {
                    self.set.patterns.push(pattern);
                    return self.source.account.import();
                }
                Word::Network(network) => {
                    self.set.networks.push(network);
                    return self.source.account.import();
                }
                Word::Refused(why) => why,
                Word::Text => {
                    "it is no name and no network; write it out in a [[set]] if it means one"
                        .to_owned()
                }
            }
        };
        self.source.report(origin, &shortened(text), why);
    }

    /// A list of the above.
    pub(super) fn targets(&mut self, list: &Json, origin: &str) {
        match list {
            Json::Null => {}
            Json::List(values) => {
                for (n, value) in values.iter().enumerate() {
                    self.target_of(value, || format!("{origin}[{n}]"));
                }
            }
            Json::Bool(_) | Json::Number(_) | Json::Text(_) | Json::Object(_) => {
                let why = format!("it is {}, not a list", list.kind());
                self.source.misplaced(list, origin, &why);
            }
        }
    }

    /// One of the above, which must be a text.
    pub(super) fn target_of(&mut self, value: &Json, origin: impl FnOnce() -> String) {
        match value {
            Json::Text(text) => self.target(text, origin),
            Json::Null | Json::Bool(_) | Json::Number(_) | Json::List(_) | Json::Object(_) => {
                let why = format!("it is {}, not a text", value.kind());
                self.source.misplaced(value, &origin(), &why);
            }
        }
    }

    /// Ports of one protocol, as in `80,443` or `50000-59999`.
    pub(super) fn ports(&mut self, text: &str, protocol: u8, origin: &str) {
        if text.len() > LONGEST_PORTS || self.services.len() > LONGEST_PORTS {
            let why =
                "so many ports are no list of ports; write a [[set]] with those that are meant";
            return self
                .source
                .report(|| origin.to_owned(), &shortened(text), why);
        }
        for piece in text.split(',').map(str::trim).filter(|p| !p.is_empty()) {
            let port = |text: &str| {
                let text = text.trim();
                !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit())
            };
            let (first, last) = piece.split_once('-').unwrap_or((piece, piece));
            if self.source.is_full() {
                return;
            }
            if port(first) && port(last) {
                let read = ports::read(piece, &[protocol], origin, &mut self.source.account);
                self.services.extend(read);
            } else {
                let why = "it is no port such as `443` and no range such as `8000-8010`; write a [[set]] with the \
                           ports that are meant";
                self.source.report(|| origin.to_owned(), piece, why);
            }
        }
    }

    /// The row, unless nothing of it could be read.
    pub(super) fn finish(mut self) -> Option<EndpointSet> {
        self.set.ports = PortSet::new(self.services);
        let empty = self.set.patterns.is_empty()
            && self.set.networks.is_empty()
            && self.set.ports.is_empty();
        (!empty).then_some(self.set)
    }
}

/// A word that selectors can hold.
fn word(text: &str) -> String {
    let special = |c: char| c.is_whitespace() || c.is_control() || "/:".contains(c);
    let word = text.trim().replace(special, "-");
    if word.is_empty() {
        "-".to_owned()
    } else {
        word
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::policy::port::TCP;

    #[test]
    fn every_token_is_accounted_for() {
        fn check(targets: &[&str], ports: &str, expected: (&str, usize)) {
            let mut source = Source::default();
            let mut row = Row::new(&mut source, "a/b c", "X", String::new());
            for text in targets {
                row.target(text, String::new);
            }
            row.ports(ports, TCP, "");
            let set = row.finish().unwrap_or_default();
            let names = set.patterns.iter().map(ToString::to_string);
            let nets = set.networks.iter().map(ToString::to_string);
            let all: Vec<_> = names.chain(nets).chain([set.ports.to_string()]).collect();
            let account = &source.account;
            assert_eq!((&*all.join(" "), account.reported.len()), expected);
            assert_eq!(account.tokens, account.imported + account.reported.len());
        }
        check(
            &["A.example ", "198.51.100.0/24"],
            "80,443",
            ("a.example 198.51.100.0/24 tcp/80, tcp/443", 0),
        );
        check(
            &["*.a.example", "*cdn.b.example"],
            "50000-59999",
            ("*.a.example *cdn.b.example tcp/50000-59999", 0),
        );
        check(
            &["", "x y", "198.51.100.7/24", "<t>.a.example"],
            "0",
            ("", 5),
        );
        check(&["https://a.example"], "443", ("a.example tcp/443", 0));
        // Nobody formats data: a `*` is never emphasis.
        check(
            &["*a.example.*", "*a.example*", "'a.example'"],
            "443",
            ("tcp/443", 3),
        );
        check(&["**a.b.example"], "443", ("**a.b.example tcp/443", 0));
        check(&[], "443 a.example, 80-,1-2-3,90", ("tcp/90", 3));
        check(&[], "8000 - 8010,, 9 ", ("tcp/9, tcp/8000-8010", 0));
        check(&[], &"443,".repeat(2000), ("", 1));
        check(&[&"a.".repeat(300)], "", ("", 1));
    }
}
