//! What was answered, told and done, and when.

use super::names::{Family, family};
use std::collections::BTreeMap;
use std::net::Ipv4Addr;
use std::time::{Duration, Instant};

/// Something that was done to the gateway.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Event {
    Start,
    Flush,
    Kill,
    Ready,
}

#[derive(Debug, Default)]
pub(super) struct Ledger {
    events: Vec<(Instant, Event)>,
    /// Until when the authority's last answer with it may be kept.
    answered: BTreeMap<Ipv4Addr, Instant>,
    /// Until when the last answer that told a zone's client of it may be kept.
    told: BTreeMap<(usize, Ipv4Addr), Instant>,
    /// Answers that clients got.
    pub(super) answers: u64,
    /// Seconds for which addresses were told, of all answers and addresses.
    pub(super) seconds: f64,
    /// Questions that the authority saw.
    pub(super) upstream: u64,
}

impl Ledger {
    pub(super) fn happened(&mut self, now: Instant, event: Event) {
        self.events.push((now, event));
    }

    pub(super) fn answered(&mut self, now: Instant, ttl: u32, addresses: &[Ipv4Addr]) {
        self.upstream += 1;
        let end = now + Duration::from_secs(ttl.into());
        for address in addresses {
            let last = self.answered.entry(*address).or_insert(end);
            *last = end.max(*last);
        }
    }

    pub(super) fn told(&mut self, zone: usize, now: Instant, ttl: u32, addresses: &[Ipv4Addr]) {
        self.answers += 1;
        let end = now + Duration::from_secs(ttl.into());
        for address in addresses {
            self.seconds += f64::from(ttl);
            let last = self.told.entry((zone, *address)).or_insert(end);
            *last = end.max(*last);
        }
    }

    /// Whether the authority ever answered with `address` for a name that `zone` may reach.
    pub(super) fn knows(&self, zone: usize, address: Ipv4Addr) -> bool {
        let listed = family(address).is_some_and(|family| family.is_of(zone));
        listed && self.answered.contains_key(&address)
    }

    /// How long at `now` the last answer with `address` has been over, whoever got it. `None` if it
    /// is not, or for names that egressd keeps by its own look-ups.
    pub(super) fn over(&self, zone: usize, address: Ipv4Addr, now: Instant) -> Option<Duration> {
        match family(address)? {
            Family::Exact => return None,
            Family::Shared | Family::First => {}
        }
        let answered = *self.answered.get(&address)?;
        let told = self.told.get(&(zone, address)).copied();
        now.checked_duration_since(told.map_or(answered, |told| told.max(answered)))
    }

    /// How long ago each kind of event last happened.
    pub(super) fn circumstances(&self, now: Instant) -> String {
        let ago = |event| {
            let before = |(at, what): &&(Instant, Event)| *what == event && *at <= now;
            let last = self.events.iter().rev().find(before);
            last.map_or_else(
                || format!("no {event:?} yet"),
                |(at, _)| format!("{event:?} {} ms ago", (now - *at).as_millis()),
            )
        };
        [Event::Flush, Event::Kill, Event::Ready]
            .map(ago)
            .join(", ")
    }

    /// Whether grants end by their answers alone: what a restart restores lives ten minutes at least,
    /// so that clients can confirm it.
    pub(super) fn strict(&self) -> bool {
        self.events.iter().all(|(_, event)| *event != Event::Kill)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn knows_what_was_answered_and_to_whom() {
        let (shared, first) = (Ipv4Addr::new(52, 110, 0, 1), Ipv4Addr::new(52, 111, 0, 1));
        let start = Instant::now();
        let mut ledger = Ledger::default();
        ledger.answered(start, 5, &[shared, first]);
        ledger.told(1, start, 3, &[shared]);
        let known = |address| [0, 1].map(|zone| ledger.knows(zone, address));
        assert_eq!(known(shared), [true, true]);
        assert_eq!(known(first), [true, false]);
        assert_eq!(known(Ipv4Addr::new(52, 110, 0, 2)), [false, false]);
        let at = |seconds| start + Duration::from_secs(seconds);
        assert_eq!(ledger.over(1, shared, at(4)), None);
        assert_eq!(ledger.over(1, shared, at(7)), Some(Duration::from_secs(2)));
    }
}
