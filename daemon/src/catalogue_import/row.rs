//! A row of a vendor's list being read. Every name, network and port goes through it, and is imported or
//! reported.

use super::endpoint::{self, Word};
use super::ports;
use crate::policy::catalogue::{Account, EndpointSet};
use crate::policy::port::{PortSet, Service};

/// A row being read, and the account of its source.
#[derive(Debug)]
pub(super) struct Row<'a> {
    pub(super) set: EndpointSet,
    services: Vec<Service>,
    account: &'a mut Account,
}

impl<'a> Row<'a> {
    /// A row that has nothing yet. `id` and `area` become words that selectors can hold.
    pub(super) fn new(account: &'a mut Account, id: &str, area: &str, origin: String) -> Self {
        Self {
            set: EndpointSet {
                id: word(id),
                area: word(area).to_lowercase(),
                origin,
                ..EndpointSet::default()
            },
            services: Vec::new(),
            account,
        }
    }

    /// A name, a wildcard, an address or a network.
    pub(super) fn target(&mut self, text: &str, origin: impl Fn() -> String) {
        match endpoint::read(text.trim()) {
            Word::Name(pattern) => self.set.patterns.push(pattern),
            Word::Network(network) => self.set.networks.push(network),
            Word::Refused(why) => return self.account.report(&origin(), text, why),
            Word::Text => {
                let why = "it is no name and no network; write it out in a [[set]] if it means one";
                return self.account.report(&origin(), text, why);
            }
        }
        self.account.import();
    }

    /// Ports of one protocol, as in `80,443` or `50000-59999`.
    pub(super) fn ports(&mut self, text: &str, protocol: u8, origin: impl Fn() -> String) {
        let read = ports::read(text, &[protocol], &origin(), self.account);
        self.services.extend(read);
    }

    /// A token that no set can hold.
    pub(super) fn report(&mut self, token: &str, origin: impl Fn() -> String, why: &str) {
        self.account.report(&origin(), token, why);
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
            let mut account = Account::default();
            let mut row = Row::new(&mut account, "a/b c", "X", String::new());
            for text in targets {
                row.target(text, String::new);
            }
            row.ports(ports, TCP, String::new);
            let set = row.finish().unwrap_or_default();
            let names = set.patterns.iter().map(ToString::to_string);
            let nets = set.networks.iter().map(ToString::to_string);
            let all: Vec<_> = names.chain(nets).chain([set.ports.to_string()]).collect();
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
    }
}
