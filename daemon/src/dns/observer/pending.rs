//! Questions that were seen going out and are not answered yet. Pure: time is an argument; bounded.

use super::super::message::Question;
use super::super::shares::owner;
use crate::policy::ZoneId;
use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};

/// How long a question waits for its answer, in microseconds.
const PATIENCE: u64 = 10_000_000;

/// Most questions that wait at once; the oldest makes room.
const MOST: usize = 16_384;

/// Most of them from one client (over IPv6: one /64); more are not waited for.
const MOST_PER_CLIENT: usize = 4096;

/// What a reply must match beside its question.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Key {
    /// Whether it went over TCP.
    pub(super) stream: bool,
    pub(super) client: SocketAddr,
    pub(super) resolver: IpAddr,
    pub(super) id: u16,
}

/// A question under way.
#[derive(Debug)]
pub(super) struct Asked {
    /// Whose client asked; `None` for clients in no zone, whom nothing teaches.
    pub(super) zone: Option<ZoneId>,
    /// `None` for messages that are no plain question: their replies teach nothing.
    pub(super) question: Option<Question>,
    due: u64,
    serial: u64,
}

/// The questions under way.
#[derive(Debug, Default)]
pub(super) struct Pending {
    asked: BTreeMap<Key, Asked>,
    /// By age.
    order: BTreeMap<u64, Key>,
    per_client: BTreeMap<IpAddr, usize>,
    next: u64,
}

impl Pending {
    /// Notes a question; `false` where its client has too many. The same client's next question
    /// under the same key takes the place of the first; another zone's does not.
    pub(super) fn note(
        &mut self,
        key: Key,
        zone: Option<ZoneId>,
        question: Option<Question>,
        now: u64,
    ) -> bool {
        self.expire(now);
        if let Some(before) = self.asked.get(&key) {
            if before.zone != zone {
                return false;
            }
            self.take(key);
        }
        let owner = owner(key.client.ip());
        let of_client = self.per_client.get(&owner).copied().unwrap_or_default();
        if of_client >= MOST_PER_CLIENT {
            return false;
        }
        if self.asked.len() >= MOST
            && let Some((_, oldest)) = self.order.first_key_value()
        {
            self.take(*oldest);
        }
        *self.per_client.entry(owner).or_default() += 1;
        self.next += 1;
        self.order.insert(self.next, key);
        let asked = Asked {
            zone,
            question,
            due: now + PATIENCE,
            serial: self.next,
        };
        self.asked.insert(key, asked);
        true
    }

    /// The question that `key` waits for, if it still does.
    pub(super) fn get(&self, key: Key, now: u64) -> Option<&Asked> {
        self.asked.get(&key).filter(|asked| now < asked.due)
    }

    /// Takes it out.
    pub(super) fn take(&mut self, key: Key) -> Option<Asked> {
        let asked = self.asked.remove(&key)?;
        self.order.remove(&asked.serial);
        let owner = owner(key.client.ip());
        if let Some(count) = self.per_client.get_mut(&owner) {
            *count -= 1;
            if *count == 0 {
                self.per_client.remove(&owner);
            }
        }
        Some(asked)
    }

    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        self.asked.len()
    }

    fn expire(&mut self, now: u64) {
        while let Some((_, key)) = self.order.first_key_value()
            && self.asked.get(key).is_none_or(|asked| asked.due <= now)
        {
            let key = *key;
            self.order.pop_first();
            self.take(key);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(client: u32, port: u16, id: u16) -> Key {
        Key {
            stream: false,
            client: SocketAddr::new(std::net::Ipv4Addr::from_bits(client).into(), port),
            resolver: "9.9.9.9".parse().unwrap(),
            id,
        }
    }

    #[test]
    fn one_client_cannot_have_all() {
        let mut pending = Pending::default();
        for id in 0..5000 {
            let noted = pending.note(key(1, 4000, id), None, None, 0);
            assert_eq!(noted, usize::from(id) < MOST_PER_CLIENT);
        }
        assert!(pending.note(key(2, 4000, 1), None, None, 0));
        assert!(pending.take(key(1, 4000, 0)).is_some());
        assert!(pending.note(key(1, 4001, 0), None, None, 0));
        assert!(!pending.note(key(1, 4001, 1), None, None, 0));
    }

    #[test]
    fn the_oldest_makes_room() {
        let mut pending = Pending::default();
        for client in 0..40_000 {
            assert!(pending.note(key(client, 4000, 1), None, None, client.into()));
            assert!(pending.len() <= MOST);
        }
        assert!(pending.get(key(39_999, 4000, 1), 40_000).is_some());
        assert!(pending.get(key(39_999 - 16_384, 4000, 1), 40_000).is_none());
        assert_eq!(pending.order.len(), MOST);
        assert_eq!(pending.per_client.len(), MOST);
    }

    #[test]
    fn patience_ends() {
        let mut pending = Pending::default();
        assert!(pending.note(key(1, 1, 1), None, None, 5));
        assert!(pending.get(key(1, 1, 1), PATIENCE + 4).is_some());
        assert!(pending.get(key(1, 1, 1), PATIENCE + 5).is_none());
        assert!(pending.note(key(2, 1, 1), None, None, PATIENCE + 5));
        assert_eq!((pending.len(), pending.order.len()), (1, 1));
        assert_eq!(pending.per_client.len(), 1);
    }

    #[test]
    fn another_zone_does_not_take_a_place() {
        let mut pending = Pending::default();
        assert!(pending.note(key(1, 1, 1), Some(ZoneId(1)), None, 0));
        assert!(!pending.note(key(1, 1, 1), Some(ZoneId(2)), None, 0));
        assert!(!pending.note(key(1, 1, 1), None, None, 0));
        assert!(pending.note(key(1, 1, 1), Some(ZoneId(1)), None, 7));
        assert_eq!(pending.get(key(1, 1, 1), 8).unwrap().due, 7 + PATIENCE);
    }
}
