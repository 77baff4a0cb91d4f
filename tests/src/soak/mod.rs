//! Proofs with large denominators that need the daemon in the lab. The namespace tests run each with a
//! small one.

mod chance;
pub mod churn;
pub mod first_packets;
pub mod forgeries;
mod quantile;
mod traffic;
pub mod hotplug;
pub mod kills;
pub mod revocations;
pub mod steady;
pub mod tamper;

pub use quantile::Waits;
