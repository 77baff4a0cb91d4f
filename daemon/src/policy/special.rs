//! Special-purpose addresses (IANA registries) that no public name may teach.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

struct V4(Ipv4Addr, u32, &'static str);
struct V6(Ipv6Addr, u32, &'static str);

const fn v4(a: u8, b: u8, c: u8, d: u8, length: u32, word: &'static str) -> V4 {
    V4(Ipv4Addr::new(a, b, c, d), length, word)
}

const fn v6(head: [u16; 4], length: u32, word: &'static str) -> V6 {
    V6(
        Ipv6Addr::new(head[0], head[1], head[2], head[3], 0, 0, 0, 0),
        length,
        word,
    )
}

/// IANA IPv4 Special-Purpose Address Registry, and multicast (RFC 5771). The narrower prefix comes
/// first.
const IPV4: &[V4] = &[
    v4(0, 0, 0, 0, 32, "unspecified"),
    v4(0, 0, 0, 0, 8, "this-network"),
    v4(10, 0, 0, 0, 8, "private"),
    v4(100, 64, 0, 0, 10, "shared"),
    v4(127, 0, 0, 0, 8, "loopback"),
    v4(169, 254, 0, 0, 16, "link-local"),
    v4(172, 16, 0, 0, 12, "private"),
    v4(192, 0, 2, 0, 24, "documentation"),
    v4(192, 0, 0, 0, 24, "protocol-assignments"),
    v4(192, 31, 196, 0, 24, "as112"),
    v4(192, 52, 193, 0, 24, "amt"),
    v4(192, 88, 99, 0, 24, "6to4-relay"),
    v4(192, 168, 0, 0, 16, "private"),
    v4(192, 175, 48, 0, 24, "as112"),
    v4(198, 18, 0, 0, 15, "benchmarking"),
    v4(198, 51, 100, 0, 24, "documentation"),
    v4(203, 0, 113, 0, 24, "documentation"),
    v4(224, 0, 0, 0, 4, "multicast"),
    v4(255, 255, 255, 255, 32, "broadcast"),
    v4(240, 0, 0, 0, 4, "reserved"),
];

/// IANA IPv6 Special-Purpose Address Registry, and what lies outside global unicast (RFC 4291). The
/// narrower prefix comes first.
const IPV6: &[V6] = &[
    V6(Ipv6Addr::UNSPECIFIED, 128, "unspecified"),
    V6(Ipv6Addr::LOCALHOST, 128, "loopback"),
    V6(Ipv6Addr::new(0, 0, 0, 0, 0, 0xffff, 0, 0), 96, "v4-mapped"),
    v6([0, 0, 0, 0], 96, "v4-compatible"),
    v6([0x64, 0xff9b, 0, 0], 96, "nat64"),
    v6([0x64, 0xff9b, 1, 0], 48, "nat64-local"),
    v6([0x100, 0, 0, 0], 64, "discard-only"),
    v6([0x100, 0, 0, 1], 64, "dummy"),
    v6([0x2001, 0, 0, 0], 32, "teredo"),
    v6([0x2001, 2, 0, 0], 48, "benchmarking"),
    v6([0x2001, 3, 0, 0], 32, "amt"),
    v6([0x2001, 4, 0x112, 0], 48, "as112"),
    v6([0x2001, 0x10, 0, 0], 28, "orchid"),
    v6([0x2001, 0x20, 0, 0], 28, "orchid"),
    v6([0x2001, 0x30, 0, 0], 28, "drone-id"),
    v6([0x2001, 0, 0, 0], 23, "protocol-assignments"),
    v6([0x2001, 0xdb8, 0, 0], 32, "documentation"),
    v6([0x2002, 0, 0, 0], 16, "6to4"),
    v6([0x2620, 0x4f, 0x8000, 0], 48, "as112"),
    v6([0x3fff, 0, 0, 0], 20, "documentation"),
    v6([0x5f00, 0, 0, 0], 16, "segment-routing"),
    v6([0xfc00, 0, 0, 0], 7, "unique-local"),
    v6([0xfe80, 0, 0, 0], 10, "link-local"),
    v6([0xfec0, 0, 0, 0], 10, "site-local"),
    v6([0xff00, 0, 0, 0], 8, "multicast"),
];

/// The word for a special-purpose address, `None` for ordinary public unicast.
///
/// Sources: the IANA IPv4 and IPv6 Special-Purpose Address Registries, RFC 5771 (multicast), RFC
/// 3879 (site-local) and RFC 4291 §2.4: IPv6 outside `2000::/3` is `reserved`.
#[must_use]
pub fn special_purpose(address: IpAddr) -> Option<&'static str> {
    match address {
        IpAddr::V4(address) => {
            let bits = address.to_bits();
            IPV4.iter()
                .find(|V4(prefix, length, _)| (bits ^ prefix.to_bits()) >> (32 - length) == 0)
                .map(|V4(_, _, word)| *word)
        }
        IpAddr::V6(address) => {
            let bits = address.to_bits();
            let listed = IPV6
                .iter()
                .find(|V6(prefix, length, _)| (bits ^ prefix.to_bits()) >> (128 - length) == 0)
                .map(|V6(_, _, word)| *word);
            let global_unicast = bits >> 125 == 0b001;
            listed.or((!global_unicast).then_some("reserved"))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(address: &str, expected: Option<&str>) {
        assert_eq!(
            special_purpose(address.parse().unwrap()),
            expected,
            "{address}"
        );
    }

    #[test]
    fn borders_v4() {
        check("0.0.0.0", Some("unspecified"));
        check("0.0.0.1", Some("this-network"));
        check("0.255.255.255", Some("this-network"));
        check("1.0.0.0", None);
        check("9.255.255.255", None);
        check("10.0.0.0", Some("private"));
        check("10.255.255.255", Some("private"));
        check("11.0.0.0", None);
        check("100.63.255.255", None);
        check("100.64.0.0", Some("shared"));
        check("100.127.255.255", Some("shared"));
        check("100.128.0.0", None);
        check("126.255.255.255", None);
        check("127.0.0.0", Some("loopback"));
        check("127.255.255.255", Some("loopback"));
        check("128.0.0.0", None);
        check("169.253.255.255", None);
        check("169.254.0.0", Some("link-local"));
        check("169.254.255.255", Some("link-local"));
        check("169.255.0.0", None);
        check("172.15.255.255", None);
        check("172.16.0.0", Some("private"));
        check("172.31.255.255", Some("private"));
        check("172.32.0.0", None);
        check("191.255.255.255", None);
        check("192.0.0.0", Some("protocol-assignments"));
        check("192.0.0.255", Some("protocol-assignments"));
        check("192.0.1.0", None);
        check("192.0.2.0", Some("documentation"));
        check("192.0.2.255", Some("documentation"));
        check("192.0.3.0", None);
        check("192.31.195.255", None);
        check("192.31.196.0", Some("as112"));
        check("192.31.197.0", None);
        check("192.52.192.255", None);
        check("192.52.193.255", Some("amt"));
        check("192.52.194.0", None);
        check("192.88.98.255", None);
        check("192.88.99.0", Some("6to4-relay"));
        check("192.88.100.0", None);
        check("192.167.255.255", None);
        check("192.168.0.0", Some("private"));
        check("192.168.255.255", Some("private"));
        check("192.169.0.0", None);
        check("192.175.47.255", None);
        check("192.175.48.0", Some("as112"));
        check("192.175.49.0", None);
        check("198.17.255.255", None);
        check("198.18.0.0", Some("benchmarking"));
        check("198.19.255.255", Some("benchmarking"));
        check("198.20.0.0", None);
        check("198.51.99.255", None);
        check("198.51.100.0", Some("documentation"));
        check("198.51.100.255", Some("documentation"));
        check("198.51.101.0", None);
        check("203.0.112.255", None);
        check("203.0.113.0", Some("documentation"));
        check("203.0.114.0", None);
        check("223.255.255.255", None);
        check("224.0.0.0", Some("multicast"));
        check("239.255.255.255", Some("multicast"));
        check("240.0.0.0", Some("reserved"));
        check("255.255.255.254", Some("reserved"));
        check("255.255.255.255", Some("broadcast"));
    }

    #[test]
    fn borders_v6() {
        check("::", Some("unspecified"));
        check("::1", Some("loopback"));
        check("::2", Some("v4-compatible"));
        check("::ffff:ffff", Some("v4-compatible"));
        check("::1:0:0", Some("reserved"));
        check("::fffe:ffff:ffff", Some("reserved"));
        check("::ffff:0.0.0.0", Some("v4-mapped"));
        check("::ffff:8.8.8.8", Some("v4-mapped"));
        check("::1:0:0:0", Some("reserved"));
        check("64:ff9b::", Some("nat64"));
        check("64:ff9b::ffff:ffff", Some("nat64"));
        check("64:ff9b::1:0:0", Some("reserved"));
        check("64:ff9b:1::", Some("nat64-local"));
        check("64:ff9b:1:ffff:ffff:ffff:ffff:ffff", Some("nat64-local"));
        check("64:ff9b:2::", Some("reserved"));
        check("100::", Some("discard-only"));
        check("100::ffff:ffff:ffff:ffff", Some("discard-only"));
        check("100:0:0:1::", Some("dummy"));
        check("100:0:0:2::", Some("reserved"));
        check("1fff:ffff:ffff:ffff:ffff:ffff:ffff:ffff", Some("reserved"));
        check("2000::", None);
        check("2000:ffff:ffff:ffff:ffff:ffff:ffff:ffff", None);
        check("2001::", Some("teredo"));
        check("2001:0:ffff::", Some("teredo"));
        check("2001:1::1", Some("protocol-assignments"));
        check("2001:2::", Some("benchmarking"));
        check("2001:2:1::", Some("protocol-assignments"));
        check("2001:3::", Some("amt"));
        check("2001:4:112::", Some("as112"));
        check("2001:4:113::", Some("protocol-assignments"));
        check("2001:10::", Some("orchid"));
        check("2001:2f:ffff::", Some("orchid"));
        check("2001:30::", Some("drone-id"));
        check("2001:40::", Some("protocol-assignments"));
        check("2001:1ff:ffff::", Some("protocol-assignments"));
        check("2001:200::", None);
        check("2001:db7:ffff::", None);
        check("2001:db8::", Some("documentation"));
        check("2001:db8:ffff::", Some("documentation"));
        check("2001:db9::", None);
        check("2001:ffff::", None);
        check("2002::", Some("6to4"));
        check("2002:ffff::", Some("6to4"));
        check("2003::", None);
        check("2620:4f:7fff::", None);
        check("2620:4f:8000::", Some("as112"));
        check("2620:4f:8001::", None);
        check("3ffe:ffff::", None);
        check("3fff::", Some("documentation"));
        check("3fff:fff::", Some("documentation"));
        check("3fff:1000::", None);
        check("3fff:ffff::", None);
        check("4000::", Some("reserved"));
        check("5eff:ffff::", Some("reserved"));
        check("5f00::", Some("segment-routing"));
        check("5f01::", Some("reserved"));
        check("fbff:ffff::", Some("reserved"));
        check("fc00::", Some("unique-local"));
        check("fdff:ffff::", Some("unique-local"));
        check("fe00::", Some("reserved"));
        check("fe7f:ffff::", Some("reserved"));
        check("fe80::", Some("link-local"));
        check("febf:ffff::", Some("link-local"));
        check("fec0::", Some("site-local"));
        check("feff:ffff::", Some("site-local"));
        check("ff00::", Some("multicast"));
        check("ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff", Some("multicast"));
    }
}
