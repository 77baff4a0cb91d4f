//! Zones as the operator wrote them: who their clients are and which sets they may reach.

use super::catalogue::{EndpointSet, Scope};
use super::image::{Inbound, Mode};
use super::links::InterfacePattern;
use ipnet::IpNet;
use std::fmt;

/// A `[[zone]]`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ZoneSpec {
    /// Its name: 1 to 32 ASCII letters, digits, `-`, `_`.
    pub name: String,
    /// Where its clients' packets enter; not empty.
    pub interfaces: Vec<InterfacePattern>,
    /// Its clients' addresses; empty (and not `connected`) means every source there.
    pub sources: Vec<IpNet>,
    /// Whether the subnets connected to its interfaces count as sources.
    pub connected: bool,
    /// Drop, or only count and report.
    pub mode: Mode,
    /// Whether others may open connections into the zone.
    pub inbound: Inbound,
    /// UDP ports on which its hosts answer strangers.
    pub serves: Vec<u16>,
    /// What it may reach.
    pub allow: Vec<Selector>,
    /// A veto on names and networks, whatever else allows them.
    pub deny: Vec<Selector>,
    /// Which sets apply.
    pub scope: Scope,
    /// Wildcards under shared domains that the operator accepts, as the catalogue writes them.
    pub shared: Vec<String>,
    /// The operator's own endpoint sets.
    pub rules: Vec<EndpointSet>,
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
