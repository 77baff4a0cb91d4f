//! What may pass, and why: names, zones, answers and grants as pure values and functions.
//! Never does I/O, never reads a clock (time is an argument), never serialises.

pub mod answer;
pub mod catalogue;
pub mod diff;
pub mod exceptions;
pub mod explain;
mod fit;
pub mod grant;
pub mod image;
pub mod impact;
pub mod links;
pub mod lint;
pub mod matcher;
pub mod name;
pub mod nat64;
pub mod nearest;
pub mod observed;
pub mod origin;
pub mod port;
pub mod redirect;
pub mod revoke;
pub mod rules;
pub mod slots;
pub mod special;
pub mod update;
pub mod zone;

#[cfg(test)]
pub(crate) mod tests;

use std::fmt;

/// A point on the boot clock (`CLOCK_BOOTTIME`), in milliseconds. It does not jump with the wall
/// clock and counts time asleep.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Moment(pub u64);

impl Moment {
    /// This moment plus `seconds`, never past the end of time.
    #[must_use]
    pub const fn after_seconds(self, seconds: u64) -> Self {
        Self(self.0.saturating_add(seconds.saturating_mul(1000)))
    }

    /// Whole seconds from `now` until this moment; 0 when it has passed.
    #[must_use]
    pub const fn seconds_from(self, now: Self) -> u64 {
        self.0.saturating_sub(now.0) / 1000
    }
}

/// A zone's number, in 0..[`egressd_common::MAX_ZONES`]. It belongs to the zone's *name* for as long
/// as any plane may hold an entry under it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ZoneId(pub u16);

impl fmt::Display for ZoneId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)
    }
}

/// A count of committed policy states. What was admitted at revision *n* is in force once every
/// plane has applied *n*.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Revision(pub u64);
