//! The gateway of the corpus: its addresses, and what its one zone may reach.

use core::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// An IPv6 address below 2001:db8::/32.
const fn v6(net: u16, host: u16) -> IpAddr {
    IpAddr::V6(Ipv6Addr::new(0x2001, 0xdb8, net, 0, 0, 0, 0, host))
}

const fn v4(a: u8, b: u8, c: u8, d: u8) -> IpAddr {
    IpAddr::V4(Ipv4Addr::new(a, b, c, d))
}

/// The zone's sources, on `lan0`; the gateway has the first address of each there.
pub const SOURCES: [&str; 2] = ["10.20.0.0/16", "2001:db8:20::/48"];
/// The gateway's addresses on `lan0`.
pub const LAN: [&str; 3] = ["10.20.0.1/16", "2001:db8:20::1/64", "fe80::1/64"];
/// The gateway's addresses on `wan0`.
pub const WAN: [&str; 2] = ["192.0.2.1/24", "2001:db8:ff::1/64"];
/// The hardware address of `lan0`, to which every frame goes.
pub const MAC: [u8; 6] = [2, 0, 0, 0, 0, 1];
/// Learned, with TCP 80 and 443, UDP 443 and SCTP 443 open.
pub const GRANTED: [IpAddr; 2] = [v4(198, 51, 100, 1), v6(0xa, 1)];
/// Learned, with UDP 4500 and any ICMP, ICMPv6, ESP and GRE open.
pub const TUNNEL: [IpAddr; 2] = [v4(198, 51, 100, 2), v6(0xa, 2)];
/// Nothing is open there.
pub const REFUSED: [IpAddr; 2] = [v4(198, 51, 100, 9), v6(0xa, 9)];
/// Networks open as [`GRANTED`] is.
pub const NETWORKS: [&str; 2] = ["203.0.113.0/24", "2001:db8:f::/48"];
/// In [`NETWORKS`].
pub const NETWORK: [IpAddr; 2] = [v4(203, 0, 113, 77), v6(0xf, 0x77)];
/// What the configuration calls internal.
pub const INTERNALS: [&str; 2] = ["10.99.0.0/16", "2001:db8:99::/48"];
/// In [`INTERNALS`].
pub const INTERNAL: [IpAddr; 2] = [v4(10, 99, 1, 1), v6(0x99, 1)];
/// The gateway's own, on both sides.
pub const OWN: [IpAddr; 4] = [v4(10, 20, 0, 1), v4(192, 0, 2, 1), v6(0x20, 1), v6(0xff, 1)];
/// The UDP port that the zone serves in worlds that serve one.
pub const SERVED: u16 = 5060;
/// Port of DNS and the like that is open to nobody.
pub const CLOSED: u16 = 8443;

/// The host behind one vector: addresses in the zone that no other vector has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Client {
    /// 10.20.16.0 and what follows.
    pub v4: Ipv4Addr,
    /// 2001:db8:20::c:0 and what follows.
    pub v6: Ipv6Addr,
}

impl Client {
    /// The client of the vector with this number, below 57,344.
    #[must_use]
    pub const fn of(number: u16) -> Self {
        let [high, low] = number.to_be_bytes();
        Self {
            v4: Ipv4Addr::new(10, 20, 16 + high, low),
            v6: Ipv6Addr::new(0x2001, 0xdb8, 0x20, 0, 0, 0, 0xc, number),
        }
    }

    /// The number of the vector whose client has this address.
    #[must_use]
    pub fn number(address: IpAddr) -> Option<u16> {
        match address {
            IpAddr::V4(address) => match address.octets() {
                [10, 20, high, low] => Some(u16::from_be_bytes([high.checked_sub(16)?, low])),
                _ => None,
            },
            IpAddr::V6(address) => match address.segments() {
                [0x2001, 0xdb8, 0x20, 0, 0, 0, 0xc, number] => Some(number),
                _ => None,
            },
        }
    }

    /// Its address of the family of `other`.
    #[must_use]
    pub const fn beside(self, other: IpAddr) -> IpAddr {
        match other {
            IpAddr::V4(_) => IpAddr::V4(self.v4),
            IpAddr::V6(_) => IpAddr::V6(self.v6),
        }
    }
}

/// Writes the checksum of the IPv4 header (RFC 1071) of an untagged frame, if it has one.
pub fn checksum(frame: &mut [u8]) {
    if frame.get(12..14) != Some(&[8, 0]) {
        return;
    }
    let Some(length) = frame.get(14).map(|first| usize::from(first & 0xf) * 4) else {
        return;
    };
    let Some(header) = frame.get_mut(14..14 + length.max(12)) else {
        return;
    };
    header[10..12].fill(0);
    let words = header.as_chunks::<2>().0;
    let mut sum: u32 = words
        .iter()
        .map(|word| u32::from(u16::from_be_bytes(*word)))
        .sum();
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    header[10..12].copy_from_slice(&(!(sum as u16)).to_be_bytes());
}
