//! The names of the churn and their pools: every look-up gives the next few addresses.

use super::super::chance::Chance;
use crate::lab::wire::Reply;
use std::net::Ipv4Addr;

/// Whose name it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Family {
    /// Both zones list it through a wildcard; two names share one pool.
    Shared,
    /// Only the first zone lists it, through a wildcard.
    First,
    /// Only the first zone lists it, by its exact name: egressd looks it up itself.
    Exact,
}

/// One name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Subject {
    pub(super) family: Family,
    pub(super) number: u8,
}

const SHARED: u8 = 60;
const FIRST: u8 = 20;
pub(super) const EXACT: u8 = 10;
/// Addresses in one answer.
const TOLD: u32 = 4;
/// The longest TTL, in seconds.
pub(super) const LONGEST: u32 = 5;
/// Below this are the last bytes of what pools hold.
const LARGEST: u8 = 200;

impl Family {
    const ALL: [Self; 3] = [Self::Shared, Self::First, Self::Exact];

    fn suffix(self) -> &'static str {
        match self {
            Self::Shared => ".shared.example",
            Self::First => ".first.example",
            Self::Exact => ".exact.example",
        }
    }

    fn block(self) -> u8 {
        match self {
            Self::Shared => 110,
            Self::First => 111,
            Self::Exact => 112,
        }
    }

    /// Whether `zone` may reach it.
    pub(super) fn is_of(self, zone: usize) -> bool {
        match self {
            Self::Shared => true,
            Self::First | Self::Exact => zone == 0,
        }
    }
}

impl Subject {
    /// One that `zone` may ask for.
    pub(super) fn any(zone: usize, chance: &mut Chance) -> Self {
        let all = u32::from(SHARED + FIRST + EXACT);
        let number = chance.below(if zone == 0 { all } else { u32::from(SHARED) });
        let number = u8::try_from(number).expect("there are fewer than 256 names");
        let (family, number) = match number {
            0..SHARED => (Family::Shared, number),
            SHARED..80 => (Family::First, number - SHARED),
            80.. => (Family::Exact, number - SHARED - FIRST),
        };
        Self { family, number }
    }

    pub(super) fn read(name: &str) -> Option<Self> {
        Family::ALL.into_iter().find_map(|family| {
            let number = name.strip_suffix(family.suffix())?.strip_prefix('n')?;
            let number = number.parse().ok()?;
            Some(Self { family, number })
        })
    }

    pub(super) fn name(self) -> String {
        format!("n{}{}", self.number, self.family.suffix())
    }

    /// What it says when it is asked for the `turn`th time.
    pub(super) fn reply(self, turn: u32) -> Reply {
        let (pool, start) = match self.family {
            Family::Shared => (self.number / 2, u32::from(self.number % 2) * 25),
            Family::First | Family::Exact => (self.number, 0),
        };
        let size = 50 + 10 * (u32::from(pool) % 16);
        let at = |index| {
            let last = (start + turn * TOLD + index) % size;
            let last = u8::try_from(last).expect("pools end below 256");
            Ipv4Addr::new(52, self.family.block(), pool, last)
        };
        Reply {
            ttl: 1 + (turn + u32::from(self.number)) % LONGEST,
            addresses: (0..TOLD).map(at).collect(),
            truncated: false,
        }
    }
}

/// Which names' pools hold `address`.
pub(super) fn family(address: Ipv4Addr) -> Option<Family> {
    let [_, block, _, _] = address.octets();
    Family::ALL
        .into_iter()
        .find(|family| family.block() == block)
}

/// Whether packets are sent to it: to every other one, so that the rest end unused.
pub(super) fn is_probed(address: Ipv4Addr) -> bool {
    address.octets()[3].is_multiple_of(2)
}

/// An address that `zone` may not reach, whatever was answered.
pub(super) fn forbidden(zone: usize, chance: &mut Chance) -> Ipv4Addr {
    let byte = |below, chance: &mut Chance| {
        u8::try_from(chance.below(below)).expect("an argument below 256")
    };
    if zone == 1 && chance.below(2) == 0 {
        // Of another zone's pools, and often open there.
        return Ipv4Addr::new(52, 111, byte(u32::from(FIRST), chance), byte(50, chance));
    }
    let last = LARGEST + byte(50, chance);
    Ipv4Addr::new(52, 110, byte(30, chance), last)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    #[test]
    fn pools_rotate_and_come_round() {
        let subject = Subject::read("n3.shared.example").unwrap();
        assert_eq!(subject.name(), "n3.shared.example");
        let all: BTreeSet<Ipv4Addr> = (0..100)
            .flat_map(|turn| subject.reply(turn).addresses)
            .collect();
        assert_eq!(all.len(), 60);
        assert!(all.iter().all(|a| family(*a) == Some(Family::Shared)));
        assert!(subject.reply(0).addresses[0] != subject.reply(1).addresses[0]);
        assert_eq!(Subject::read("n3.other.example"), None);
    }

    #[test]
    fn what_is_forbidden_is_in_no_pool_of_the_zone() {
        let mut chance = Chance::new(1);
        for zone in [0, 1].repeat(500) {
            let address = forbidden(zone, &mut chance);
            let family = family(address).unwrap();
            assert!(
                !family.is_of(zone) || address.octets()[3] >= LARGEST,
                "{zone} {address}"
            );
        }
    }
}
