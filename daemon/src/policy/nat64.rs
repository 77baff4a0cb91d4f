//! IPv4 addresses inside IPv6 ones, for translators (RFC 6052). Pure.

use ipnet::Ipv6Net;
use std::fmt;
use std::net::{Ipv4Addr, Ipv6Addr};

/// Bits 64 to 71 of every translated address are zero (RFC 6052 §2.2).
const ZERO_BYTE: usize = 8;

/// A prefix under which a translator reaches IPv4 addresses.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Prefix(Ipv6Net);

/// Why a network is no such prefix.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BadPrefix {
    /// Another length than RFC 6052 §2.2 knows.
    #[error("a NAT64 prefix has 32, 40, 48, 56, 64 or 96 bits")]
    Length,
    /// Bits 64 to 71 are set.
    #[error("bits 64 to 71 of a NAT64 prefix are zero")]
    ZeroByte,
}

impl Prefix {
    /// Takes a network as a prefix.
    ///
    /// # Errors
    /// When RFC 6052 §2.2 does not allow its length, or bits 64 to 71 are not zero.
    pub fn new(network: Ipv6Net) -> Result<Self, BadPrefix> {
        if !matches!(network.prefix_len(), 32 | 40 | 48 | 56 | 64 | 96) {
            return Err(BadPrefix::Length);
        }
        if network.network().octets()[ZERO_BYTE] != 0 {
            return Err(BadPrefix::ZeroByte);
        }
        Ok(Self(network.trunc()))
    }

    /// Whether it holds `address`.
    #[must_use]
    pub fn contains(self, address: Ipv6Addr) -> bool {
        self.0.contains(&address)
    }

    /// The IPv6 address that stands for `address`.
    #[must_use]
    pub fn embed(self, address: Ipv4Addr) -> Ipv6Addr {
        let mut bytes = self.0.network().octets();
        for (place, byte) in self.places().zip(address.octets()) {
            bytes[place] = byte;
        }
        bytes.into()
    }

    /// The IPv4 address that `address` stands for; `None` where it is outside the prefix or no
    /// translator would have made it.
    #[must_use]
    pub fn extract(self, address: Ipv6Addr) -> Option<Ipv4Addr> {
        let bytes = address.octets();
        if !self.contains(address) || bytes[ZERO_BYTE] != 0 {
            return None;
        }
        let mut found = [0; 4];
        for (place, byte) in self.places().zip(&mut found) {
            *byte = bytes[place];
        }
        let found = Ipv4Addr::from(found);
        // The bits behind must be zero as well: one address, one way to write it.
        (self.embed(found) == address).then_some(found)
    }

    /// Where the four bytes stand.
    fn places(self) -> impl Iterator<Item = usize> {
        let first = usize::from(self.0.prefix_len() / 8);
        (first..16).filter(|place| *place != ZERO_BYTE).take(4)
    }
}

impl fmt::Display for Prefix {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn prefix(text: &str) -> Result<Prefix, BadPrefix> {
        Prefix::new(text.parse().unwrap())
    }

    /// The table of RFC 6052 §2.4.
    #[test]
    fn the_examples_of_the_standard() {
        fn check(network: &str, expected: &str) {
            let prefix = prefix(network).unwrap();
            let (v4, v6) = (Ipv4Addr::new(192, 0, 2, 33), expected.parse().unwrap());
            assert_eq!(prefix.embed(v4), v6, "{network}");
            assert_eq!(prefix.extract(v6), Some(v4), "{network}");
        }
        check("2001:db8::/32", "2001:db8:c000:221::");
        check("2001:db8:100::/40", "2001:db8:1c0:2:21::");
        check("2001:db8:122::/48", "2001:db8:122:c000:2:2100::");
        check("2001:db8:122:300::/56", "2001:db8:122:3c0:0:221::");
        check("2001:db8:122:344::/64", "2001:db8:122:344:c0:2:2100::");
        check("2001:db8:122:344::/96", "2001:db8:122:344::192.0.2.33");
        check("64:ff9b::/96", "64:ff9b::192.0.2.33");
    }

    #[test]
    fn what_is_no_prefix() {
        fn check(network: &str, expected: BadPrefix) {
            assert_eq!(prefix(network).err(), Some(expected), "{network}");
        }
        check("2001:db8::/33", BadPrefix::Length);
        check("2001:db8::/128", BadPrefix::Length);
        check("::/0", BadPrefix::Length);
        check("2001:db8:0:0:100::/96", BadPrefix::ZeroByte);
    }

    #[test]
    fn what_no_translator_makes() {
        fn check(network: &str, address: &str) {
            let found = prefix(network).unwrap().extract(address.parse().unwrap());
            assert_eq!(found, None, "{network} {address}");
        }
        check("64:ff9b::/96", "64:ff9c::1.2.3.4");
        // Bits 64 to 71, and the bits behind.
        check("2001:db8::/32", "2001:db8:c000:221:100::");
        check("2001:db8::/32", "2001:db8:c000:221:1::");
        check("2001:db8::/32", "2001:db8:c000:221::1");
    }
}
