//! Catalogues: named, versioned lists of endpoint sets, with where each fact came from.

use super::name::Pattern;
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
    /// Where in the source: `lines 32-34`.
    pub origin: String,
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
        fn axis(set: &[String], zone: &[String]) -> bool {
            set.is_empty()
                || zone.is_empty()
                || set
                    .iter()
                    .any(|s| zone.iter().any(|z| z.eq_ignore_ascii_case(s)))
        }
        axis(&self.regions, &wanted.regions)
            && axis(&self.scale_units, &wanted.scale_units)
            && axis(&self.platforms, &wanted.platforms)
            && axis(&self.features, &wanted.features)
            && axis(&self.clouds, &wanted.clouds)
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
    "akamaiedge.net",
    "akamaihd.net",
    "amazonaws.com",
    "azure-api.net",
    "azurecontainer.io",
    "azureedge.net",
    "azurefd.net",
    "azurewebsites.net",
    "blob.core.windows.net",
    "cloudapp.azure.com",
    "cloudapp.net",
    "cloudflare.net",
    "cloudfront.net",
    "core.windows.net",
    "edgesuite.net",
    "fastly.net",
    "github.io",
    "googleusercontent.com",
    "servicebus.windows.net",
    "trafficmanager.net",
    "vault.azure.net",
    "webpubsub.azure.com",
];

impl Pattern {
    /// The shared domain under which this wildcard opens names that strangers can create.
    #[must_use]
    pub fn shared_domain(&self) -> Option<&'static str> {
        if !self.is_wildcard() {
            return None;
        }
        // A parent of a shared domain (`*.windows.net`) opens it as well.
        SHARED_DOMAINS.iter().copied().find(|domain| {
            [format!("x.{domain}"), format!("x.x.{domain}")]
                .iter()
                .filter_map(|name| name.parse().ok())
                .any(|name| self.matches(&name))
        })
    }
}
