//! PURE. The types of `ListUnseen`.

use serde::{Deserialize, Serialize};
use zlink::introspect::{CustomType, Type};

/// Most patterns that one reply carries.
pub const MOST: usize = 2000;

/// Whose patterns.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, Type)]
pub struct UnseenParameters {
    /// The name of a catalogue in force.
    pub catalogue: String,
}

/// Names and wildcards that no client was ever told an address of.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, Type)]
pub struct UnseenList {
    /// The catalogue.
    pub catalogue: String,
    /// Seconds for which egressd has watched, all its runs together.
    pub seconds: u64,
    /// Patterns of the catalogue that are watched; each is counted for each zone that it is open to.
    pub watched: u64,
    /// Patterns of all catalogues for which there is no room, and of which nothing is known.
    pub unwatched: u64,
    /// Those that nobody asked for, 2000 at most.
    pub unseen: Vec<Unseen>,
    /// All of them.
    pub total: u64,
}

/// A name or wildcard of a zone that no client of it was ever told an address of.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, CustomType)]
pub struct Unseen {
    /// Name of the zone.
    pub zone: String,
    /// The name or wildcard.
    pub pattern: String,
    /// Whole days for which it is watched.
    pub days: u64,
}
