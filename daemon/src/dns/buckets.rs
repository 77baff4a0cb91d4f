//! Which questions over UDP are dropped unread because their client asks too many: a token bucket for
//! each client, in a table of fixed size. Pure: time and chance are arguments.

use super::shares;
use std::net::IpAddr;

/// Clients remembered, in groups that a client's address chooses. A new one takes the place of the
/// fullest bucket of its group, of which least is forgotten: who floods has an empty one.
const GROUPS: usize = 16_384;
const GROUP: usize = 4;

/// How many clients' worth an IPv6 /64 may ask: one host can use all its addresses, but many may live
/// in it.
const NETWORK: u32 = 4;

/// The buckets of all clients.
pub(super) struct Buckets {
    /// Questions per second and client; 0 for no limit.
    rate: u32,
    secrets: [u64; 2],
    slots: Box<[Slot]>,
}

/// A bucket with `tokens` thousandths of a question in it at `at`, in milliseconds that wrap around.
#[derive(Clone, Copy, Default)]
struct Slot {
    /// Who; 0 for nobody.
    tag: u64,
    tokens: u32,
    at: u32,
}

impl Buckets {
    /// Buckets for `rate` questions (at most 1,000,000) per second and client; 0 for no limit. Who
    /// knows the `secrets` can share another client's bucket.
    pub(super) fn new(rate: u32, secrets: [u64; 2]) -> Self {
        let slots = if rate == 0 { 0 } else { GROUPS * GROUP };
        Self {
            rate: rate.min(1_000_000),
            // An even factor would lose bits.
            secrets: secrets.map(|secret| secret | 1),
            slots: vec![Slot::default(); slots].into(),
        }
    }

    /// Whether a question of `client` may be read at `now`, in milliseconds.
    pub(super) fn admit(&mut self, client: IpAddr, now: u64) -> bool {
        if self.rate == 0 {
            return true;
        }
        let network = shares::network(client);
        self.pour(client, self.rate, now)
            && network.is_none_or(|network| self.pour(network, self.rate * NETWORK, now))
    }

    /// Takes one question out of a bucket that `rate` fills.
    fn pour(&mut self, who: IpAddr, rate: u32, now: u64) -> bool {
        const QUESTION: u32 = 1000;
        // A quarter of a second's worth, and never less than one question.
        let brim = (rate.saturating_mul(QUESTION) / 4).max(QUESTION);
        #[expect(clippy::cast_possible_truncation, reason = "only differences count")]
        let now = now as u32;
        let level = |slot: &Slot| {
            let poured = now.wrapping_sub(slot.at).saturating_mul(rate);
            slot.tokens.saturating_add(poured).min(brim)
        };
        let tag = self.tag(who, rate);
        let group = usize::try_from(tag >> 32).unwrap_or_default() % GROUPS;
        let Some(slots) = self.slots.get_mut(group * GROUP..(group + 1) * GROUP) else {
            return true;
        };
        let slot = match slots.iter().position(|slot| slot.tag == tag) {
            Some(known) => &mut slots[known],
            None => {
                let fullest = |slot: &&mut Slot| (slot.tag == 0, level(slot));
                let Some(slot) = slots.iter_mut().max_by_key(fullest) else {
                    return true;
                };
                *slot = Slot {
                    tag,
                    tokens: brim,
                    at: now,
                };
                slot
            }
        };
        let tokens = level(slot);
        slot.at = now;
        slot.tokens = tokens.saturating_sub(QUESTION);
        if tokens < QUESTION {
            slot.tokens = tokens;
        }
        tokens >= QUESTION
    }

    /// Names `who` among buckets of this `rate`; never 0.
    fn tag(&self, who: IpAddr, rate: u32) -> u64 {
        let bits = match who {
            IpAddr::V4(address) => u128::from(address.to_bits()),
            IpAddr::V6(address) => address.to_bits() | 1 << 127,
        };
        let [first, second] = self.secrets.map(u128::from);
        let half = u128::from(u64::MAX);
        let fold = |product: u128| (product >> 64) ^ (product & half);
        let mixed = fold(((bits >> 64) ^ first ^ u128::from(rate) << 32) * second);
        let mixed = fold((mixed ^ bits & half ^ second) * first);
        // Once more, or neighbours would share few groups.
        let mixed = fold((mixed ^ first) * second);
        u64::try_from(mixed).unwrap_or_default().max(1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;
    use std::net::Ipv4Addr;

    const SECRETS: [u64; 2] = [0x9e37_79b9_7f4a_7c15, 0xd1b5_4a32_d192_ed03];

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    #[test]
    fn a_burst_and_then_the_rate() {
        fn check(rate: u32, questions: u64, span: u64, expected: u64) {
            let mut buckets = Buckets::new(rate, SECRETS);
            let from = u64::from(u32::MAX) - span / 2;
            let admitted = (0..questions)
                .filter(|n| buckets.admit(ip("192.0.2.1"), from + n * span / questions));
            let admitted = u64::try_from(admitted.count()).unwrap();
            assert!(
                admitted.abs_diff(expected) <= expected / 100 + 1,
                "{admitted}, {expected} expected"
            );
        }
        // 0 is no limit; a second of a flood gets the burst and the rate.
        check(0, 100_000, 0, 100_000);
        check(1000, 100_000, 0, 250);
        check(1000, 100_000, 1000, 1250);
        check(20_000, 100_000, 1000, 25_000);
        check(1, 1000, 10_000, 11);
        check(1000, 900, 1000, 900);
    }

    #[test]
    fn nobody_pays_for_another() {
        let mut buckets = Buckets::new(100, SECRETS);
        let (culprit, other) = (ip("192.0.2.1"), ip("192.0.2.2"));
        for now in 0..1000 {
            for _ in 0..100 {
                buckets.admit(culprit, now);
            }
            if now % 20 == 0 {
                assert!(buckets.admit(other, now), "{now}");
            }
        }
        assert!(!buckets.admit(culprit, 999));
    }

    #[test]
    fn a_network_has_more_than_one_host_but_not_without_end() {
        let mut buckets = Buckets::new(1000, SECRETS);
        let admitted = (0..100_000u128).filter(|n| {
            let host = std::net::Ipv6Addr::from_bits((0x2001_0db8 << 96) + n);
            buckets.admit(host.into(), 0)
        });
        assert_eq!(admitted.count(), 1000);
        assert!(buckets.admit(ip("2001:db8:0:1::1"), 0));
    }

    #[test]
    fn strangers_do_not_refill_an_empty_bucket() {
        let mut buckets = Buckets::new(100, SECRETS);
        let culprit = ip("192.0.2.1");
        while buckets.admit(culprit, 0) {}
        for number in 0..1_000_000 {
            buckets.admit(Ipv4Addr::from_bits(0x0a00_0000 + number).into(), 0);
        }
        assert!(!buckets.admit(culprit, 0));
        assert_eq!(buckets.slots.len(), GROUPS * GROUP);
    }

    #[test]
    fn tags_differ() {
        let buckets = Buckets::new(100, SECRETS);
        let tags: BTreeSet<u64> = (0..100_000)
            .map(|n| buckets.tag(Ipv4Addr::from_bits(n).into(), 100))
            .collect();
        assert_eq!(tags.len(), 100_000);
        let groups: BTreeSet<_> = tags.iter().map(|tag| (tag >> 32) % 16_384).collect();
        assert!(groups.len() > 16_000, "{}", groups.len());
        let near = ["::", "::1", "1::", "1::1", "0.0.0.0", "0.0.0.1"].map(ip);
        let tags: BTreeSet<u64> = near.iter().map(|who| buckets.tag(*who, 100)).collect();
        assert_eq!(tags.len(), near.len());
    }
}
