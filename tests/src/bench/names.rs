//! PURE: the names of the bench and their addresses; no two names share one.

use super::measure::Family;
use crate::lab::Zone;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// How many names there are, and so how many addresses are granted.
pub(super) const NAMES: u32 = 100_000;

/// The domain of all names.
pub(super) const DOMAIN: &str = "bench.example";

/// Every name, with one address per family.
pub(super) fn zone() -> Zone {
    let mut zone = Zone::default();
    for number in 0..NAMES {
        for family in [Family::V4, Family::V6] {
            zone.address(&name(number), 3600, granted(family, number));
        }
    }
    zone
}

pub(super) fn name(number: u32) -> String {
    format!("n{number}.{DOMAIN}")
}

/// The address of a name. Consecutive numbers have consecutive addresses.
pub(super) fn granted(family: Family, number: u32) -> IpAddr {
    address(family, 0, number)
}

/// An address that no answer holds.
pub(super) fn refused(family: Family, number: u32) -> IpAddr {
    address(family, 1, number)
}

fn address(family: Family, block: u16, number: u32) -> IpAddr {
    match family {
        Family::V4 => {
            let base = u32::from(Ipv4Addr::new(52, 97, 0, 0)) + (u32::from(block) << 17);
            Ipv4Addr::from(base + number).into()
        }
        Family::V6 => {
            let base = u128::from(Ipv6Addr::new(0x2603, 0x1000, 0, block, 0, 0, 0, 0));
            Ipv6Addr::from(base + u128::from(number)).into()
        }
    }
}

/// Questions for `numbers`, as dnsperf reads them.
pub(super) fn questions(family: Family, numbers: std::ops::Range<u32>) -> String {
    let kind = match family {
        Family::V4 => "A",
        Family::V6 => "AAAA",
    };
    numbers
        .map(|number| format!("{} {kind}\n", name(number)))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    #[test]
    fn nothing_is_shared_and_nothing_refused_is_granted() {
        for family in [Family::V4, Family::V6] {
            let mut all = BTreeSet::new();
            for number in 0..NAMES {
                assert!(all.insert(granted(family, number)));
                assert!(all.insert(refused(family, number)));
            }
        }
        assert_eq!(granted(Family::V4, 257).to_string(), "52.97.1.1");
        assert_eq!(refused(Family::V6, 1).to_string(), "2603:1000:0:1::1");
        assert_eq!(
            questions(Family::V6, 3..5),
            "n3.bench.example AAAA\nn4.bench.example AAAA\n"
        );
    }
}
