//! Which clients opened connections over TCP and asked nothing in them, and how many. Pure: time is an
//! argument.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

/// After how many milliseconds without more of it a client's waste is forgotten.
const FORGIVEN: u64 = 10_000;

/// As many may be bad luck: a connection ended to make room for others before it could ask.
const BAD_LUCK: usize = 2;

/// More is not told apart.
const WORST: usize = 1000;

/// What each client wasted lately. The clients are those that [`super::shares::owner`] names.
pub(super) struct Waste {
    most: usize,
    clients: BTreeMap<IpAddr, (usize, u64)>,
    oldest: BTreeSet<(u64, IpAddr)>,
}

impl Waste {
    /// Remembers `most` clients; above that, those that wasted last.
    pub(super) fn new(most: usize) -> Self {
        Self {
            most,
            clients: BTreeMap::new(),
            oldest: BTreeSet::new(),
        }
    }

    /// What `client` wasted, beyond bad luck.
    pub(super) fn of(&self, client: IpAddr) -> usize {
        let wasted = self.clients.get(&client).map_or(0, |(wasted, _)| *wasted);
        wasted.saturating_sub(BAD_LUCK)
    }

    /// A connection of `client` ended in which it had asked nothing. [`Waste::forget`] has to follow.
    pub(super) fn add(&mut self, client: IpAddr, now: u64) {
        self.clients.entry(client).or_insert((0, now));
        self.change(client, now, |wasted| (wasted + 1).min(WORST));
    }

    /// `client` goes on: what it wasted is not forgotten yet.
    pub(super) fn keep(&mut self, client: IpAddr, now: u64) {
        self.change(client, now, |wasted| wasted);
    }

    /// `client` asked in a connection, which makes up for one that it wasted.
    pub(super) fn redeem(&mut self, client: IpAddr) {
        let Some(&(_, last)) = self.clients.get(&client) else {
            return;
        };
        self.change(client, last, |wasted| wasted.saturating_sub(1));
    }

    fn change(&mut self, client: IpAddr, now: u64, change: impl FnOnce(usize) -> usize) {
        let Some((wasted, last)) = self.clients.get_mut(&client) else {
            return;
        };
        self.oldest.remove(&(*last, client));
        (*wasted, *last) = (change(*wasted), now);
        if *wasted == 0 {
            self.clients.remove(&client);
        } else {
            self.oldest.insert((now, client));
        }
    }

    /// Forgets one client that wasted nothing for a while, or one too many to remember, and names it.
    pub(super) fn forget(&mut self, now: u64) -> Option<IpAddr> {
        let (last, client) = self.oldest.first().copied()?;
        if last + FORGIVEN > now && self.clients.len() <= self.most {
            return None;
        }
        self.oldest.remove(&(last, client));
        self.clients.remove(&client);
        Some(client)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ip(last: u8) -> IpAddr {
        [192, 0, 2, last].into()
    }

    #[test]
    fn what_goes_beyond_bad_luck_counts() {
        fn check(added: usize, redeemed: usize, expected: usize) {
            let mut waste = Waste::new(4);
            (0..added).for_each(|_| waste.add(ip(1), 0));
            (0..redeemed).for_each(|_| waste.redeem(ip(1)));
            assert_eq!(waste.of(ip(1)), expected, "{added} {redeemed}");
            assert_eq!(waste.clients.len(), waste.oldest.len());
            assert_eq!(waste.clients.is_empty(), added <= redeemed);
        }
        check(0, 1, 0);
        check(BAD_LUCK, 0, 0);
        check(BAD_LUCK + 3, 0, 3);
        check(BAD_LUCK + 3, 1, 2);
        check(BAD_LUCK + 3, 9, 0);
        check(WORST + 9, 0, WORST - BAD_LUCK);
    }

    #[test]
    fn it_is_forgotten_in_time_and_bounded() {
        let mut waste = Waste::new(2);
        for (now, client) in [(0, 1), (1, 2)] {
            waste.add(ip(client), now);
        }
        assert_eq!(waste.forget(FORGIVEN - 1), None);
        waste.keep(ip(1), 2);
        waste.keep(ip(9), 2);
        assert_eq!(waste.forget(FORGIVEN + 1), Some(ip(2)));
        assert_eq!(waste.forget(FORGIVEN + 1), None);
        waste.add(ip(3), 3);
        waste.add(ip(4), 4);
        assert_eq!(waste.forget(5), Some(ip(1)));
        assert_eq!(waste.forget(5), None);
        assert_eq!(waste.forget(u64::MAX), Some(ip(3)));
        assert_eq!(waste.forget(u64::MAX), Some(ip(4)));
        assert!(waste.clients.is_empty() && waste.oldest.is_empty());
    }
}
