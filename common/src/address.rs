//! IPv4 and IPv6 addresses as wire words, and which of them the kernel never forwards.

/// An address as it lies on the wire.
pub trait Address: Copy {
    /// Whether it names a group: multicast, or the limited broadcast 255.255.255.255.
    fn is_group(&self) -> bool;

    /// Whether Linux never forwards a packet *from* here: `0.0.0.0` (`ip_route_input_slow`), `::` and
    /// `fe80::/10` (`ip6_forward`). 169.254.0.0/16 is forwarded and so is not among them; nor is the
    /// rest of 0.0.0.0/8, since Linux 5.3.
    fn is_bound_to_link(&self) -> bool;

    /// Whether a packet *to* here stays on the link: `fe80::/10`.
    fn is_link_local(&self) -> bool;

    /// Whether no packet may come *from* here: 0.0.0.0/8, loopback, multicast, reserved (RFC 6890).
    fn is_martian_source(&self) -> bool;
}

/// An IPv4 address.
pub type V4 = [u32; 1];

/// An IPv6 address.
pub type V6 = [u32; 4];

impl Address for V4 {
    #[inline(always)]
    fn is_group(&self) -> bool {
        let address = u32::from_be(self[0]);
        address >> 28 == 0xe || address == u32::MAX
    }

    #[inline(always)]
    fn is_bound_to_link(&self) -> bool {
        self[0] == 0
    }

    #[inline(always)]
    fn is_link_local(&self) -> bool {
        false
    }

    #[inline(always)]
    fn is_martian_source(&self) -> bool {
        let first = u32::from_be(self[0]) >> 24;
        first == 0 || first == 127 || first >= 224
    }
}

impl Address for V6 {
    #[inline(always)]
    fn is_group(&self) -> bool {
        u32::from_be(self[0]) >> 24 == 0xff
    }

    #[inline(always)]
    fn is_bound_to_link(&self) -> bool {
        self.is_link_local() || *self == [0; 4]
    }

    #[inline(always)]
    fn is_link_local(&self) -> bool {
        u32::from_be(self[0]) >> 22 == 0xfe80 >> 6
    }

    #[inline(always)]
    fn is_martian_source(&self) -> bool {
        self.is_group() || *self == [0, 0, 0, 1u32.to_be()]
    }
}

/// The wire words of an IPv4 address.
#[must_use]
pub const fn v4(address: core::net::Ipv4Addr) -> V4 {
    [u32::from_ne_bytes(address.octets())]
}

/// The wire words of an IPv6 address.
#[must_use]
pub fn v6(address: core::net::Ipv6Addr) -> V6 {
    let mut words = [0; 4];
    for (word, bytes) in words.iter_mut().zip(address.octets().as_chunks::<4>().0) {
        *word = u32::from_ne_bytes(*bytes);
    }
    words
}

#[cfg(test)]
mod tests {
    use super::*;
    use core::net::IpAddr;

    #[test]
    fn roles() {
        /// `expected`: letters of group, bound to link, link-local, martian source.
        fn check(address: &str, expected: &str) {
            fn letters(a: impl Address) -> String {
                [
                    (a.is_group(), 'g'),
                    (a.is_bound_to_link(), 'b'),
                    (a.is_link_local(), 'l'),
                    (a.is_martian_source(), 'm'),
                ]
                .into_iter()
                .filter_map(|(is, letter)| is.then_some(letter))
                .collect()
            }
            let got = match address.parse().unwrap() {
                IpAddr::V4(a) => letters(v4(a)),
                IpAddr::V6(a) => letters(v6(a)),
            };
            assert_eq!(got, expected, "{address}");
        }
        check("0.0.0.0", "bm");
        check("0.1.2.3", "m");
        check("0.255.255.255", "m");
        check("1.0.0.0", "");
        check("127.0.0.1", "m");
        check("169.254.169.254", "");
        check("223.255.255.255", "");
        check("224.0.0.18", "gm");
        check("239.255.255.255", "gm");
        check("240.0.0.0", "m");
        check("255.255.255.255", "gm");
        check("::", "b");
        check("::1", "m");
        check("::2", "");
        check("fe7f:ffff::1", "");
        check("fe80::1", "bl");
        check("febf::1", "bl");
        check("fec0::1", "");
        check("ff02::1", "gm");
        check("2001:db8::1", "");
    }
}
