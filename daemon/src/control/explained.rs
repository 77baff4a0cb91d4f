//! PURE. The types of `Explain`.

use super::protocol::Grant;
use serde::{Deserialize, Serialize};
use zlink::introspect::{CustomType, Type};

/// What to explain.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, Type)]
pub struct ExplainParameters {
    /// An IP address or a domain name.
    pub query: String,
    /// Destination port; without it every open port is told.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub port: Option<u16>,
    /// `tcp`, `udp`, `icmp` … or an IANA number; `tcp` where only a port is given.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub protocol: Option<String>,
    /// Only for the zone of this name.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub zone: Option<String>,
}

/// What would happen, and why.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, Type)]
pub struct Explanation {
    /// The address or name that was asked about.
    pub query: String,
    /// The port asked about, such as `tcp/443`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub service: Option<String>,
    /// One entry per zone asked about.
    pub zones: Vec<ZoneExplanation>,
    /// What else bears on it: foreign chains that drop or rewrite, own or internal addresses.
    #[serde(default)]
    pub notes: Vec<String>,
}

/// The answer for one zone.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, CustomType)]
pub struct ZoneExplanation {
    /// Name of the zone.
    pub zone: String,
    /// `enforce` or `audit`.
    pub mode: String,
    /// What becomes of it.
    pub verdict: Verdict,
    /// Why, in a sentence.
    pub why: String,
    /// Each plane's own verdict.
    pub planes: Vec<PlaneVerdict>,
    /// The grants that cover it; for a name, those learned for it.
    pub grants: Vec<Grant>,
    /// The endpoint sets of the zone that list it, whether an answer was seen yet or not.
    pub sets: Vec<SetMatch>,
    /// What would allow it, a phrase each; empty where it is allowed.
    pub would_allow: Vec<String>,
}

/// What becomes of a packet or question.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, CustomType)]
#[serde(rename_all = "lowercase")]
pub enum Verdict {
    /// It passes.
    Allowed,
    /// It does not.
    #[default]
    Refused,
    /// It passes, because the zone is in audit mode; enforcing would refuse it.
    Audited,
    /// The name may be asked, and will pass once an answer was seen.
    Askable,
    /// The planes disagree; the packet is refused until they are reconciled.
    Split,
}

/// One plane's verdict.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, CustomType)]
pub struct PlaneVerdict {
    /// `nft` or `ebpf`.
    pub plane: String,
    /// Whether it lets the flow pass; absent when it could not be read or no port was asked about.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub allowed: Option<bool>,
    /// What it holds for the address, read back from the kernel, or why that failed.
    pub holds: String,
}

/// An endpoint set that lists the name or network.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, CustomType)]
pub struct SetMatch {
    /// The endpoint set, as `catalogue/id`.
    pub set: String,
    /// What it is for.
    pub service: String,
    /// The name, wildcard or network that matches.
    pub pattern: String,
    /// The ports it opens.
    pub ports: String,
    /// Where the catalogue's source says so.
    pub origin: String,
    /// Whether the vendor says the service does not work without it.
    pub required: bool,
    /// Whether it is a `deny` set, which vetoes all others.
    pub denied: bool,
}
