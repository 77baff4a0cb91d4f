//! Catalogues: named, versioned lists of endpoint sets, with where each fact came from.

use super::name::{Name, Pattern};
use super::port::PortSet;
use ipnet::IpNet;

/// A vendor's list, whatever its format was.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Catalogue {
    /// What selectors call it: `intune`.
    pub name: String,
    /// For people.
    pub title: String,
    /// The version the source gave, or the day it was read.
    pub version: String,
    /// Where it came from, for people.
    pub source: String,
    /// Its rows.
    pub sets: Vec<EndpointSet>,
    /// What became of everything its source says.
    pub account: Account,
}

/// What became of the tokens of a source: its names, networks and ports. None is lost in silence.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Account {
    /// Tokens met.
    pub tokens: usize,
    /// Tokens that sets hold now.
    pub imported: usize,
    /// Tokens that no set holds, and why.
    pub reported: Vec<Reported>,
}

/// A token of a source that was left out.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Reported {
    /// Where it stands: `line 12`, `values[3]`.
    pub origin: String,
    /// As the source writes it.
    pub token: String,
    /// Why, and after a semicolon what to do.
    pub why: String,
}

impl Catalogue {
    /// Adds what another source says: the rows of both, each with its source. Rows of one id add up.
    pub fn join(&mut self, other: Self) {
        let label = |catalogue: &Self| {
            let version = &catalogue.version;
            let gap = if version.is_empty() { "" } else { " " };
            format!("{}{gap}{version}", catalogue.source)
        };
        let (own, more) = (label(self), label(&other));
        let name = |set: &mut EndpointSet, label: &str| {
            if set.source.is_empty() {
                label.clone_into(&mut set.source);
            }
        };
        self.sets.iter_mut().for_each(|set| name(set, &own));
        let sets = other.sets.into_iter();
        self.sets.extend(sets.map(|mut set| {
            name(&mut set, &more);
            set
        }));
        for (into, from) in [
            (&mut self.version, other.version),
            (&mut self.source, other.source),
        ] {
            let gap = if into.is_empty() || from.is_empty() {
                ""
            } else {
                " + "
            };
            *into += &format!("{gap}{from}");
        }
        self.account.tokens += other.account.tokens;
        self.account.imported += other.account.imported;
        self.account.reported.extend(other.account.reported);
    }

    /// Opens `ports` where a row has none, as the formats without ports need it.
    pub fn default_ports(&mut self, ports: &PortSet, told_by: &str) {
        let open = !ports.is_empty();
        for set in self
            .sets
            .iter_mut()
            .filter(|set| open && set.ports.is_empty())
        {
            set.ports = ports.clone();
            set.inferred.push(format!(
                "port: {told_by} says {ports}, the source tells none"
            ));
        }
    }
}

impl Account {
    /// Notes a token that a set holds.
    pub fn import(&mut self) {
        self.tokens += 1;
        self.imported += 1;
    }

    /// Notes a token that no set holds.
    pub fn report(&mut self, origin: &str, token: &str, why: impl Into<String>) {
        self.tokens += 1;
        self.reported.push(Reported {
            origin: origin.to_owned(),
            token: token.to_owned(),
            why: why.into(),
        });
    }
}

/// One row of a catalogue: what may be reached for one purpose, and on which ports.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct EndpointSet {
    /// The vendor's number or name of the row; several rows may share it and add up.
    pub id: String,
    /// The part of the service, as selectors write it: `core`, `remote-help`.
    pub area: String,
    /// What it is for, for people.
    pub service: String,
    /// How traffic should be treated.
    pub category: Category,
    /// Whether the vendor says the service does not work without it.
    pub required: bool,
    /// Whether the vendor routes it over Azure ExpressRoute.
    pub express_route: bool,
    /// Names and wildcards.
    pub patterns: Vec<Pattern>,
    /// Networks. With `patterns` they are alternatives, never both required.
    pub networks: Vec<IpNet>,
    /// Ports open on all of the above.
    pub ports: PortSet,
    /// When the set applies.
    pub scope: Scope,
    /// What the vendor asks of middleboxes.
    pub handling: Handling,
    /// What the source leaves out and we inferred, a phrase each.
    pub inferred: Vec<String>,
    /// For people.
    pub notes: String,
    /// The source and its version, where the catalogue has several; else empty.
    pub source: String,
    /// Where in the source: `lines 32-34`.
    pub origin: String,
}

impl EndpointSet {
    /// Where it stands, with its source where there are several.
    #[must_use]
    pub fn place(&self) -> String {
        let gap = if self.source.is_empty() || self.origin.is_empty() {
            ""
        } else {
            ", "
        };
        format!("{}{gap}{}", self.source, self.origin)
    }

    /// How many names, networks and port ranges it holds.
    #[must_use]
    pub fn tokens(&self) -> usize {
        self.patterns.len() + self.networks.len() + self.ports.services().len()
    }
}

/// Microsoft's endpoint categories.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum Category {
    /// Highest volume, most sensitive.
    Optimize,
    /// Needed, less sensitive.
    Allow,
    /// Like any other internet traffic.
    #[default]
    Default,
}

/// When a set applies. An empty list means always.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Scope {
    /// Tenant regions: `na`, `eu`, `ap`.
    pub regions: Vec<String>,
    /// Azure scale units: `AMSUB0101`.
    pub scale_units: Vec<String>,
    /// Client platforms: `windows`, `ios`, `macos`, `android`.
    pub platforms: Vec<String>,
    /// Optional features: `remote-help`.
    pub features: Vec<String>,
    /// Clouds: `worldwide`, `gcc`.
    pub clouds: Vec<String>,
}

impl Scope {
    /// Whether a set of this scope applies to a zone of scope `wanted`: on every axis one of the
    /// two says nothing, or they share a value. Case does not matter.
    #[must_use]
    pub fn meets(&self, wanted: &Self) -> bool {
        self.unmet(wanted).next().is_none()
    }

    /// The axes on which a set of this scope does not apply to a zone of scope `wanted`.
    pub fn unmet(&self, wanted: &Self) -> impl Iterator<Item = &'static str> {
        let apart = |set: &[String], zone: &[String]| {
            let shared = |s: &String| zone.iter().any(|z| z.eq_ignore_ascii_case(s));
            !set.is_empty() && !zone.is_empty() && !set.iter().any(shared)
        };
        let axes = [
            ("regions", apart(&self.regions, &wanted.regions)),
            ("scale_unit", apart(&self.scale_units, &wanted.scale_units)),
            ("platforms", apart(&self.platforms, &wanted.platforms)),
            ("features", apart(&self.features, &wanted.features)),
            ("clouds", apart(&self.clouds, &wanted.clouds)),
        ];
        axes.into_iter()
            .filter(|(_, apart)| *apart)
            .map(|(axis, _)| axis)
    }
}

/// What the vendor asks of middleboxes. egressd reports it; it neither proxies nor decrypts.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Handling {
    /// TLS inspection breaks it.
    pub no_tls_inspection: bool,
    /// Proxies must let it through without authentication.
    pub no_proxy_authentication: bool,
    /// HTTP range requests must pass.
    pub byte_ranges: bool,
}

/// Domains under which anyone can have a name of their own: a wildcard over one admits strangers.
/// Zones must opt in to each such wildcard.
pub const SHARED_DOMAINS: &[&str] = &[
    "akadns.net",
    "akamai.net",
    "akamaiedge.net",
    "akamaihd.net",
    "akamaized.net",
    "amazonaws.com",
    "appspot.com",
    "azure-api.net",
    "azure-devices.net",
    "azurecontainer.io",
    "azurecr.io",
    "azureedge.net",
    "azurefd.net",
    "azurestaticapps.net",
    "azurewebsites.net",
    "blob.core.windows.net",
    "cloudapp.azure.com",
    "cloudapp.net",
    "cloudflare.net",
    "cloudfront.net",
    "core.windows.net",
    "database.windows.net",
    "edgekey.net",
    "edgesuite.net",
    "fastly.net",
    "github.io",
    "googleusercontent.com",
    "msecnd.net",
    "pages.dev",
    "servicebus.windows.net",
    "trafficmanager.net",
    "vault.azure.net",
    "web.app",
    "webpubsub.azure.com",
    "workers.dev",
];

impl Pattern {
    /// The shared domain under which this wildcard opens names that strangers can create.
    #[must_use]
    pub fn shared_domain(&self) -> Option<&'static str> {
        let fixed = match self {
            Self::Exact(_) => return None,
            Self::Below(parent) => parent.clone(),
            Self::Glob(glob) => glob.fixed_parent(),
        };
        SHARED_DOMAINS.iter().copied().find(|text| {
            let Ok(domain) = text.parse::<Name>() else {
                return false;
            };
            // Some shared domains have a level of their own between them and their customers
            // (`x.westeurope.cloudapp.azure.com`), so a wildcard deeper inside is no safer.
            let inside = fixed == domain || fixed.parents().any(|parent| parent == domain.wire());
            let customer = [&b"x"[..]].into_iter().chain(domain.labels());
            // A parent of a shared domain (`*.windows.net`) opens it as well.
            inside || Name::from_labels(customer).is_ok_and(|customer| self.matches(&customer))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn wildcards_that_admit_strangers() {
        fn check(pattern: &str, expected: Option<&str>) {
            let pattern = Pattern::parse(pattern).unwrap();
            assert_eq!(pattern.shared_domain(), expected, "{pattern}");
        }
        check("*.azureedge.net", Some("azureedge.net"));
        check("intunecdnpeasd.azureedge.net", None);
        check("*.blob.core.windows.net", Some("blob.core.windows.net"));
        check(
            "payloadprod*.blob.core.windows.net",
            Some("blob.core.windows.net"),
        );
        check("*.windows.net", Some("blob.core.windows.net"));
        check("*core.windows.net", Some("blob.core.windows.net"));
        check(
            "*.westeurope.cloudapp.azure.com",
            Some("cloudapp.azure.com"),
        );
        check("static.*.azurefd.net", Some("azurefd.net"));
        check("*.notazureedge.net", None);
        check("*.microsoft.com", None);
        check("*.notify.windows.com", None);
        check("a*.windows.net", None);
        check("*.azureedge.net.example.com", None);
    }

    #[test]
    fn scopes_meet() {
        fn check(set: &[&str], zone: &[&str], expected: bool) {
            let scope = |values: &[&str]| Scope {
                regions: values.iter().map(|value| (*value).to_owned()).collect(),
                ..Scope::default()
            };
            assert_eq!(scope(set).meets(&scope(zone)), expected, "{set:?} {zone:?}");
        }
        check(&[], &[], true);
        check(&["eu"], &[], true);
        check(&[], &["eu"], true);
        check(&["eu", "ap"], &["na", "AP"], true);
        check(&["eu"], &["na", "ap"], false);
    }

    #[test]
    fn every_axis_must_meet() {
        let set = Scope {
            regions: vec!["eu".to_owned()],
            platforms: vec!["ios".to_owned()],
            ..Scope::default()
        };
        let mut zone = set.clone();
        assert!(set.meets(&zone));
        zone.platforms = vec!["windows".to_owned()];
        assert!(!set.meets(&zone));
    }
}
