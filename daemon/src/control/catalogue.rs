//! PURE. The types of the calls about catalogues that are fetched.

use serde::{Deserialize, Serialize};
use std::fmt;
use zlink::introspect::{CustomType, Type};

/// What an operator wants with a catalogue that is fetched.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CatalogueAct {
    /// Ask its servers now.
    Update {
        /// Which; all without.
        name: Option<String>,
        /// Take what comes although it lost much.
        force: bool,
    },
    /// Keep a version in force whatever comes.
    Pin {
        /// Which catalogue.
        name: String,
        /// Which version.
        version: String,
    },
    /// Follow the newest version again.
    Unpin {
        /// Which catalogue.
        name: String,
    },
    /// Go back to a version, until another one than the newest comes.
    RollBack {
        /// Which catalogue.
        name: String,
        /// Which version; the one before without.
        version: Option<String>,
    },
    /// End what is held of it.
    Confirm {
        /// Which catalogue.
        name: String,
        /// Names, networks and ids; everything if empty.
        entries: Vec<String>,
    },
}

impl CatalogueAct {
    /// The catalogue that it is about; `None` for all.
    #[must_use]
    pub fn name(&self) -> Option<&str> {
        match self {
            Self::Update { name, .. } => name.as_deref(),
            Self::Pin { name, .. }
            | Self::Unpin { name }
            | Self::RollBack { name, .. }
            | Self::Confirm { name, .. } => Some(name),
        }
    }
}

impl fmt::Display for CatalogueAct {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Update { force: false, .. } => f.write_str("catalogue update"),
            Self::Update { force: true, .. } => f.write_str("catalogue update, forced"),
            Self::Pin { version, .. } => write!(f, "catalogue pinned to version {version:?}"),
            Self::Unpin { .. } => f.write_str("catalogue unpinned"),
            Self::RollBack { version: None, .. } => f.write_str("catalogue rolled back"),
            Self::RollBack {
                version: Some(version),
                ..
            } => write!(f, "catalogue rolled back to version {version:?}"),
            Self::Confirm { entries, .. } if entries.is_empty() => {
                f.write_str("all removals confirmed")
            }
            Self::Confirm { entries, .. } => write!(f, "removals confirmed: {entries:?}"),
        }
    }
}

/// What to update.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, Type)]
pub struct UpdateParameters {
    /// Which catalogue; all that are fetched without it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// Take what comes although it lost much, or was rolled back from.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub force: Option<bool>,
}

/// What to pin, or to roll back to.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, Type)]
pub struct VersionParameters {
    /// Which catalogue.
    pub name: String,
    /// Which version: without it `PinCatalogue` unpins, and `RollBackCatalogue` takes the one before.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub version: Option<String>,
}

/// What to confirm.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, Type)]
pub struct ConfirmParameters {
    /// Which catalogue.
    pub name: String,
    /// Names, networks and ids; everything that is held if empty.
    pub entries: Vec<String>,
}

/// A source of a catalogue that is fetched.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, CustomType)]
pub struct SourceStatus {
    /// Where it is.
    pub url: String,
    /// The newest version that was taken; empty if there was none yet.
    pub version: String,
    /// The version that is in force instead.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pinned: Option<String>,
    /// Seconds since the server last said what it has.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub age: Option<u64>,
    /// Seconds until it is asked again.
    pub next: u64,
    /// Names and networks that it no longer lists and that are in force for a while longer.
    pub held: u64,
    /// Versions that can be gone back to, the newest first.
    pub versions: Vec<String>,
    /// Why the last attempt gave nothing.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
}
