//! Proofs with large denominators that need the daemon in the lab. The namespace tests run each with a
//! small one.

pub mod boot;
mod chance;
pub mod churn;
pub mod control;
pub mod faults;
pub mod first_packets;
pub mod forgeries;
pub mod hotplug;
pub mod kept;
pub mod kills;
mod quantile;
pub mod reloads;
pub mod restarts;
pub mod revocations;
pub mod steady;
pub mod tamper;
mod traffic;

pub use quantile::Waits;
pub use traffic::{ask, authority};
