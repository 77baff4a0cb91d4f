//! What the eBPF programs, the model plane and `explain` share: limits, map layouts, packet
//! parsing and the verdict. Nothing here does I/O, allocates or knows a clock.
#![cfg_attr(not(any(test, feature = "samples")), no_std)]

pub mod address;
#[cfg(any(test, feature = "samples"))]
pub mod corpus;
pub mod decide;
pub mod frame;
pub mod grants;
pub mod layout;
pub mod link;
pub mod network;
#[cfg(any(test, feature = "samples"))]
pub mod samples;
#[cfg(test)]
mod tests;
pub mod transport;
pub mod verdict;

/// Most port classes that may exist at once: one bit each of a 64-bit mask.
pub const MAX_CLASSES: usize = 64;

/// The mark of the daemon's own sockets to its upstreams (`SO_MARK`), where a zone judges what the gateway
/// itself sends: "egre" in ASCII. Setting one takes `CAP_NET_ADMIN`, and who has that needs no grant.
pub const OWN_MARK: u32 = 0x6567_7265;

/// Most zones that may exist at once; a zone's id is below this.
pub const MAX_ZONES: usize = 64;
