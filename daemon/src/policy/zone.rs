//! Zones as the operator wrote them: who their clients are and which sets they may reach.

use super::catalogue::{EndpointSet, Scope};
use super::image::{Inbound, Mode, Refusal};
use super::links::InterfacePattern;
use super::name::Pattern;
use super::port::Service;
use ipnet::IpNet;
use std::fmt;
use std::net::SocketAddr;

/// A `[[zone]]`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ZoneSpec {
    /// Its name: 1 to 32 ASCII letters, digits, `-`, `_`.
    pub name: String,
    /// Its one client is the gateway itself. Such a zone has no interfaces and no sources, and there is
    /// one at most.
    pub local: bool,
    /// Where its clients' packets enter; empty for the gateway's own zone alone.
    pub interfaces: Vec<InterfacePattern>,
    /// Its clients' addresses; empty (and not `connected`) means every source there.
    pub sources: Vec<IpNet>,
    /// Whether the subnets connected to its interfaces count as sources.
    pub connected: bool,
    /// Drop, or only count and report.
    pub mode: Mode,
    /// Whether others may open connections into the zone.
    pub inbound: Inbound,
    /// What its clients are told of refused packets.
    pub refusal: Refusal,
    /// In what its hosts answer strangers: single UDP ports, whole protocols without ports.
    pub serves: Vec<Service>,
    /// The listeners that answer what its clients send to port 53 of others; empty where that is not
    /// redirected.
    pub redirect: Vec<SocketAddr>,
    /// What it may reach.
    pub allow: Vec<Selector>,
    /// A veto on names and networks, whatever else allows them.
    pub deny: Vec<Selector>,
    /// Which sets apply.
    pub scope: Scope,
    /// Wildcards under shared domains that the operator accepts, as the catalogue writes them.
    pub shared: Vec<String>,
    /// Names whose answers may hold addresses of private, internal and connected networks.
    pub private: Vec<Pattern>,
    /// The operator's own endpoint sets.
    pub rules: Vec<EndpointSet>,
}

impl ZoneSpec {
    /// Whether a catalogue's pattern takes effect: one that admits strangers' names does only when
    /// `shared` names it.
    #[must_use]
    pub fn accepts(&self, pattern: &Pattern) -> bool {
        pattern.shared_domain().is_none()
            || self
                .shared
                .iter()
                .any(|text| text.eq_ignore_ascii_case(&pattern.to_string()))
    }
}

/// `catalogue[/area or id][:required]`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Selector {
    /// Name of a catalogue.
    pub catalogue: String,
    /// An area or an id; `None` is every set.
    pub part: Option<String>,
    /// Only sets the vendor calls required.
    pub required: bool,
}

/// Why a text is no selector.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "`{0}` is not a selector: write `catalogue`, `catalogue/area`, `catalogue/id`, or one of them followed by `:required`"
)]
pub struct BadSelector(pub String);

impl Selector {
    /// Reads `intune`, `intune/core`, `intune/163` or `m365:required`.
    ///
    /// # Errors
    /// When a part is empty or has a space or another `/` or `:`.
    pub fn parse(text: &str) -> Result<Self, BadSelector> {
        let bad = || BadSelector(text.to_owned());
        let (path, required) = match text.split_once(':') {
            Some((path, "required")) => (path, true),
            Some(_) => return Err(bad()),
            None => (text, false),
        };
        let (catalogue, part) = match path.split_once('/') {
            Some((catalogue, part)) => (catalogue, Some(part)),
            None => (path, None),
        };
        let good = |s: &str| {
            !s.is_empty() && !s.contains(|c: char| c.is_whitespace() || c == '/' || c == ':')
        };
        if !good(catalogue) || part.is_some_and(|part| !good(part)) {
            return Err(bad());
        }
        Ok(Self {
            catalogue: catalogue.to_owned(),
            part: part.map(str::to_owned),
            required,
        })
    }

    /// Whether a set of the named catalogue is meant.
    #[must_use]
    pub fn selects(&self, catalogue: &str, set: &EndpointSet) -> bool {
        self.catalogue == catalogue
            && self
                .part
                .as_ref()
                .is_none_or(|part| *part == set.id || *part == set.area)
            && (set.required || !self.required)
    }
}

impl fmt::Display for Selector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.catalogue)?;
        if let Some(part) = &self.part {
            write!(f, "/{part}")?;
        }
        f.write_str(if self.required { ":required" } else { "" })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn selectors() {
        fn check(text: &str, expected: Option<[bool; 4]>) {
            let set = |id: &str, area: &str, required| EndpointSet {
                id: id.to_owned(),
                area: area.to_owned(),
                required,
                ..EndpointSet::default()
            };
            let sets = [
                ("intune", set("163", "core", true)),
                ("intune", set("150", "authentication", false)),
                ("intune", set("core", "other", true)),
                ("m365", set("163", "core", true)),
            ];
            let got = Selector::parse(text).ok().map(|selector| {
                assert_eq!(selector.to_string(), text);
                sets.each_ref()
                    .map(|(catalogue, set)| selector.selects(catalogue, set))
            });
            assert_eq!(got, expected, "{text}");
        }
        check("intune", Some([true, true, true, false]));
        check("intune:required", Some([true, false, true, false]));
        check("intune/163", Some([true, false, false, false]));
        check("intune/core", Some([true, false, true, false]));
        check("intune/authentication", Some([false, true, false, false]));
        check("intune/150:required", Some([false, false, false, false]));
        check("Intune", Some([false, false, false, false]));
        check("", None);
        check("intune/", None);
        check("/core", None);
        check("intune/a/b", None);
        check("intune:optional", None);
        check("intune core", None);
    }

    #[test]
    fn shared_wildcards_need_an_opt_in() {
        fn check(pattern: &str, shared: &[&str], expected: bool) {
            let zone = ZoneSpec {
                shared: shared.iter().map(|text| (*text).to_owned()).collect(),
                ..ZoneSpec::default()
            };
            let pattern = Pattern::parse(pattern).unwrap();
            assert_eq!(zone.accepts(&pattern), expected, "{pattern} {shared:?}");
        }
        check("*.microsoft.com", &[], true);
        check("a.azureedge.net", &[], true);
        check("*.azureedge.net", &[], false);
        check("*.azureedge.net", &["*.AzureEdge.net"], true);
        check("*.azureedge.net", &["*.azurefd.net"], false);
    }
}
