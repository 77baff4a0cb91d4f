//! Special-purpose addresses (IANA registries) that no public name may teach.

use std::net::IpAddr;

/// The registry's word for a special-purpose address.
#[must_use]
pub fn special_purpose(_address: IpAddr) -> Option<&'static str> {
    None
}
