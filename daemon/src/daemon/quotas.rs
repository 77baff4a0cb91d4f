//! What each client adds to what is learned, and who is named when a cap is met. Pure: time is an
//! argument.

use crate::policy::{Moment, ZoneId};
use crate::seldom::Seldom;
use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

/// From how full on a cap is warned of, in percent, and below what that may happen again.
pub(super) const FILLING: usize = 80;
const CALM: usize = 70;

/// Clients counted within one second; more have to wait for the next.
const MOST_CLIENTS: usize = 65_536;

/// Who met which cap where.
type Culprit = (Option<IpAddr>, ZoneId, &'static str);

/// The counts of the current second, and what was told lately.
#[derive(Debug, Default)]
pub(super) struct Quotas {
    second: u64,
    fresh: BTreeMap<IpAddr, usize>,
    culprits: Seldom<Culprit>,
    warned: BTreeSet<Option<ZoneId>>,
}

impl Quotas {
    /// Whether `client` may add `fresh` more addresses in the second of `now`, `most` being what one
    /// may add. The first answer of a second is always within: else one with more addresses than that
    /// could never be learned. The gateway itself has no quota.
    pub(super) fn allows(
        &mut self,
        client: Option<IpAddr>,
        fresh: usize,
        most: usize,
        now: Moment,
    ) -> bool {
        let second = now.0 / 1000;
        if self.second != second {
            self.second = second;
            self.fresh.clear();
        }
        let Some(client) = client else {
            return true;
        };
        match self.fresh.get(&client) {
            None => self.fresh.len() < MOST_CLIENTS,
            Some(added) => added + fresh <= most,
        }
    }

    /// Counts what `client` added.
    pub(super) fn charge(&mut self, client: Option<IpAddr>, fresh: usize) {
        if let Some(client) = client {
            *self.fresh.entry(client).or_default() += fresh;
        }
    }

    /// Takes note of an answer that met a cap: how many `culprit` had since the last line about it, or
    /// 0 when it is too soon for another.
    pub(super) fn blame(&mut self, culprit: Culprit, now: Moment) -> u64 {
        self.culprits.note(culprit, now.0).unwrap_or_default()
    }

    /// Whether to warn of the cap of `zone`, or of the one for all zones, that is so full.
    pub(super) fn alarms(&mut self, zone: Option<ZoneId>, percent: usize) -> bool {
        if percent < CALM {
            self.warned.remove(&zone);
        }
        percent >= FILLING && self.warned.insert(zone)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn so_many_addresses_a_second() {
        let mut quotas = Quotas::default();
        let [a, b] = ["192.0.2.1", "192.0.2.2"].map(|client| Some(client.parse().unwrap()));
        let mut check = |client, fresh, at, expected| {
            let allowed = quotas.allows(client, fresh, 10, Moment(at));
            assert_eq!(allowed, expected, "{client:?} {fresh} at {at}");
            if allowed {
                quotas.charge(client, fresh);
            }
        };
        check(a, 8, 0, true);
        check(a, 3, 1, false);
        check(a, 2, 999, true);
        check(a, 1, 999, false);
        check(b, 10, 999, true);
        check(None, 1000, 999, true);
        check(a, 1, 1000, true);
        // More than a second's quota, but the first of one.
        check(b, 50, 1000, true);
        check(b, 1, 1001, false);
        check(b, 1, 2000, true);
    }

    #[test]
    fn clients_of_one_second_are_bounded() {
        let mut quotas = Quotas::default();
        let allowed = (0..100_000u32).filter(|number| {
            let client = Some(IpAddr::from(number.to_be_bytes()));
            let allowed = quotas.allows(client, 1, 10, Moment(0));
            if allowed {
                quotas.charge(client, 1);
            }
            allowed
        });
        assert_eq!(allowed.count(), MOST_CLIENTS);
    }

    #[test]
    fn a_cap_that_fills_is_told_once() {
        let mut quotas = Quotas::default();
        let mut check = |zone, percent, expected| {
            assert_eq!(quotas.alarms(zone, percent), expected, "{zone:?} {percent}");
        };
        check(None, 79, false);
        check(None, 80, true);
        check(None, 100, false);
        check(Some(ZoneId(1)), 90, true);
        check(None, 75, false);
        check(None, 80, false);
        check(None, 69, false);
        check(None, 80, true);
    }
}
