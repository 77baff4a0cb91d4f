//! A DNS response reduced to what it teaches: the addresses reachable from the asked name.

use super::name::Name;
use std::net::IpAddr;

/// What a response gives for the asked name, after hygiene.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answer {
    /// The name the client asked for.
    pub name: Name,
    /// The addresses at the end of its CNAME chain, without repetition.
    pub addresses: Vec<IpAddr>,
    /// The smallest TTL along the way, in seconds; a TTL with the high bit set is 0 (RFC 2181 §8).
    pub ttl: u32,
}
