//! What the toy internet holds: a chain of aliases and rotating addresses for every name.

use crate::lab::Zone;
use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// How a name is hosted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Host {
    /// Aliases between the name and its addresses.
    pub hops: usize,
    /// Its addresses, v4 first.
    pub addresses: Vec<IpAddr>,
}

/// Every name there is.
#[derive(Clone, Debug, Default)]
pub struct World {
    hosts: BTreeMap<String, Host>,
}

/// Domains that chains lead through; no catalogue lists them.
const CDNS: [&str; 4] = [
    "edge.lab-cdn.net",
    "t.lab-traffic.net",
    "fd.lab-frontdoor.net",
    "g.lab-akadns.com",
];

/// Seconds. Long, so that nothing expires within the demo.
const TTL: u32 = 300;

impl World {
    /// The host of `name`, made on first use. No two hosts share an address.
    pub fn host(&mut self, name: &str) -> &Host {
        let name = name.to_ascii_lowercase();
        let number = u16::try_from(self.hosts.len()).expect("the demo has a few hundred names");
        self.hosts.entry(name).or_insert_with(|| invent(number))
    }

    /// Adds addresses that a careful resolver must not hand out to `name`.
    pub fn rebind(&mut self, name: &str, addresses: &[IpAddr]) {
        self.host(name);
        let host = self
            .hosts
            .get_mut(&name.to_ascii_lowercase())
            .expect("made one line above");
        host.addresses.extend(addresses);
    }

    /// Everything as a zone.
    #[must_use]
    pub fn zone(&self) -> Zone {
        let mut zone = Zone::default();
        for (number, (name, host)) in self.hosts.iter().enumerate() {
            let mut owner = name.clone();
            for hop in 0..host.hops {
                let target = format!("h{hop}-{number}.{}", CDNS[(number + hop) % CDNS.len()]);
                zone.alias(&owner, TTL, &target);
                owner = target;
            }
            for address in &host.addresses {
                zone.address(&owner, TTL, *address);
            }
        }
        zone
    }
}

/// Odd last bytes only: the even ones between are addresses that no answer ever held.
fn invent(number: u16) -> Host {
    let [high, low] = number.to_be_bytes();
    let many = usize::from(number);
    let v4 = (0..1 + many % 8).map(|i| {
        let last = u8::try_from(2 * i + 1).expect("below 16");
        IpAddr::V4(Ipv4Addr::new(52, 96 + high, low, last))
    });
    let v6 = (0..1 + many % 5).map(|i| {
        let last = u16::try_from(2 * i + 1).expect("below 10");
        IpAddr::V6(Ipv6Addr::new(0x2603, 0x1000, 0, number, 0, 0, 0, last))
    });
    Host {
        hops: 1 + many % 6,
        addresses: v4.chain(v6).collect(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    #[test]
    fn hosts_are_stable_and_share_nothing() {
        let mut world = World::default();
        let mut all = BTreeSet::new();
        for number in 0..600 {
            let host = world.host(&format!("n{number}.example")).clone();
            assert!((1..=6).contains(&host.hops));
            assert!(host.addresses.iter().any(IpAddr::is_ipv4));
            assert!(host.addresses.iter().any(IpAddr::is_ipv6));
            for address in &host.addresses {
                assert!(all.insert(*address), "{address} twice");
            }
        }
        assert_eq!(world.host("N3.example"), &invent(3));
    }
}
