//! Answers kept for the next who asks: what upstreams said, by question, and replies made ready, by
//! zone and question. Bounded in bytes. Pure: time is an argument.

use super::message::{Asked, MOST_NAME, Variant};
use super::view::View;
use crate::policy::ZoneId;
use crate::policy::answer::Answer;
use crate::policy::rules::Limits;
use quick_cache::Weighter;
use quick_cache::unsync::Cache as Bounded;
use std::cell::Cell;
use std::collections::BTreeSet;
use std::rc::Rc;

/// A reply that is asked for in the last tenth of its life is fetched anew meanwhile.
const PREFETCH_PART: u64 = 10;

/// Bytes that an entry takes beside its key and content, about.
const OVERHEAD: u64 = 128;

/// Bytes of an average entry, for the tables' first size.
const USUAL: u64 = 512;

/// What a reply depends on: the client's zone, the variant, the name in lower case, and the type.
pub(super) struct Key {
    bytes: [u8; ZONE + 1 + MOST_NAME + 2],
    length: u16,
}

/// Bytes of the zone at a key's beginning.
const ZONE: usize = 2;

/// In place of the variant: an unproven message.
const RAW: u8 = 4;

/// The zone of clients that are in none.
const NO_ZONE: u16 = u16::MAX;

impl Key {
    pub(super) fn new(zone: Option<ZoneId>, asked: &Asked<'_>) -> Self {
        let mut key = Self {
            bytes: [0; ZONE + 1 + MOST_NAME + 2],
            length: 0,
        };
        let zone = zone.map_or(NO_ZONE, |zone| zone.0);
        key.bytes[..ZONE].copy_from_slice(&zone.to_be_bytes());
        let variant = variant(asked);
        key.bytes[ZONE] = u8::from(variant.dnssec) | u8::from(variant.checking_disabled) << 1;
        // Without the class, which is always IN. Length bytes and types that look like letters fold
        // alike on both sides, so the type goes in untouched.
        let (name, kind) = asked.wire.split_at(asked.wire.len() - 4);
        let end = ZONE + 1 + name.len();
        for (to, from) in key.bytes[ZONE + 1..end].iter_mut().zip(name) {
            *to = from.to_ascii_lowercase();
        }
        key.bytes[end..end + 2].copy_from_slice(&kind[..2]);
        key.length = u16::try_from(end + 2).expect("a name is at most 255 bytes");
        key
    }

    /// The key of what an upstream said and nobody proved. No client's question has it.
    pub(super) fn raw(asked: &Asked<'_>) -> Self {
        let mut key = Self::new(None, asked);
        key.bytes[ZONE] = RAW;
        key
    }

    fn whole(&self) -> &[u8] {
        &self.bytes[..usize::from(self.length)]
    }

    /// For longer than a question is looked at.
    pub(super) fn keep(&self) -> Kept {
        Kept(self.whole().into())
    }
}

/// A key that is shared by all that is done for one question.
#[derive(Clone, PartialEq, Eq)]
pub(super) struct Kept(Rc<[u8]>);

impl Kept {
    /// Without the zone: the variant, the name and the type.
    pub(super) fn question(&self) -> &[u8] {
        &self.0[ZONE..]
    }
}

/// Until when the grants of an answer last that is told at `now` with a TTL of `ttl` seconds.
pub(super) fn lease(now: u64, ttl: u32, limits: Limits) -> u64 {
    now + 1000 * (u64::from(ttl.max(limits.ttl_floor)) + u64::from(limits.grace))
}

/// What of a client's question changes what an upstream says.
pub(super) fn variant(asked: &Asked<'_>) -> Variant {
    Variant {
        dnssec: asked.dnssec(),
        checking_disabled: asked.checking_disabled(),
        proven: false,
    }
}

/// What an upstream said, as it said it but for the question's letter case.
pub(super) struct Stored {
    pub(super) message: Box<[u8]>,
    /// When it came and when it is over, in milliseconds of the edge's clock.
    pub(super) born: u64,
    pub(super) until: u64,
}

/// A reply that may be told without asking the loop: its addresses are granted while `epoch` lasts.
pub(super) struct Ready {
    pub(super) view: View,
    pub(super) born: u64,
    pub(super) epoch: u64,
    /// What it teaches, if anything.
    pub(super) answer: Option<Answer>,
    /// Until when its grants are known to last.
    pub(super) leased: Cell<u64>,
    /// Whether it is being fetched anew.
    pub(super) refreshing: Cell<bool>,
    /// Whether the loop knows that a client was told it.
    pub(super) told: Cell<bool>,
}

impl Ready {
    fn life(&self) -> u64 {
        u64::from(self.view.lifetime()) * 1000
    }

    /// Its age in whole seconds, the begun one included: no client keeps it beyond its end.
    pub(super) fn age(&self, now: u64) -> u32 {
        u32::try_from(now.saturating_sub(self.born).div_ceil(1000)).unwrap_or(u32::MAX)
    }

    /// Whether it should be fetched anew; says so once.
    pub(super) fn wants_refresh(&self, now: u64) -> bool {
        let left = (self.born + self.life()).saturating_sub(now);
        left * PREFETCH_PART <= self.life() && !self.refreshing.replace(true)
    }

    /// What renews its grants, where telling it now makes them last longer than they are known to
    /// by a second or more.
    pub(super) fn renewal(&self, now: u64, limits: Limits) -> Option<Answer> {
        let answer = self.answer.as_ref()?;
        let left = self.view.lifetime().saturating_sub(self.age(now));
        let lease = lease(now, left, limits);
        // Of a look-up that no client asked for, the first who does.
        let told = self.told.replace(true);
        if told && lease < self.leased.get() + 1000 {
            return None;
        }
        self.leased.set(lease.max(self.leased.get()));
        Some(Answer {
            ttl: left,
            ..answer.clone()
        })
    }
}

#[derive(Clone)]
struct Bytes;

impl Weighter<Rc<[u8]>, Stored> for Bytes {
    fn weight(&self, key: &Rc<[u8]>, stored: &Stored) -> u64 {
        (key.len() + stored.message.len()) as u64 + OVERHEAD
    }
}

impl Weighter<Rc<[u8]>, Ready> for Bytes {
    fn weight(&self, key: &Rc<[u8]>, ready: &Ready) -> u64 {
        let answer = ready.answer.as_ref();
        let addresses = answer.map_or(0, |answer| answer.addresses.len() * 17 + 64);
        (key.len() + ready.view.size() + addresses) as u64 + OVERHEAD
    }
}

/// The cache.
pub(super) struct Cache {
    said: Bounded<Rc<[u8]>, Stored, Bytes>,
    ready: Bounded<Rc<[u8]>, Ready, Bytes>,
    /// How long after its end an answer may still be told, in milliseconds.
    stale: u64,
}

impl Cache {
    /// A cache of at most `bytes`; 0 keeps nothing. Answers stay for `stale` milliseconds beyond
    /// their end.
    pub(super) fn new(bytes: u64, stale: u64) -> Self {
        let half = bytes / 2;
        let entries = usize::try_from(half / USUAL).unwrap_or_default();
        Self {
            said: Bounded::with_weighter(entries, half, Bytes),
            ready: Bounded::with_weighter(entries, half, Bytes),
            stale,
        }
    }

    /// The reply for `key`, if it may be told now.
    pub(super) fn ready(&self, key: &Key, epoch: u64, now: u64) -> Option<&Ready> {
        let ready = self.ready.get(key.whole())?;
        (ready.epoch == epoch && now < ready.born + ready.life()).then_some(ready)
    }

    pub(super) fn make_ready(&mut self, key: &Kept, ready: Ready) {
        if ready.life() > 0 {
            self.ready.insert(Rc::clone(&key.0), ready);
        }
    }

    /// What an upstream said to the question of `key`, not older than its TTL.
    pub(super) fn fresh(&self, key: &Kept, now: u64) -> Option<&Stored> {
        self.said
            .get(key.question())
            .filter(|said| now < said.until)
    }

    /// The same, also when it is too old, as far as stale answers are allowed.
    pub(super) fn stale(&self, key: &Kept, now: u64) -> Option<&Stored> {
        let said = self.said.get(key.question());
        said.filter(|said| now < said.until + self.stale)
    }

    /// Drops all that is kept of these names in wire form, whoever asked. Looks at every entry.
    pub(super) fn forget(&mut self, names: &BTreeSet<&[u8]>) {
        // After the variant the name, then two bytes of type.
        let stays = |question: &[u8]| {
            let name = question
                .get(1..question.len().saturating_sub(2))
                .unwrap_or_default();
            !names.contains(name)
        };
        self.said.retain(|key, _| stays(key));
        self.ready
            .retain(|key, _| stays(key.get(ZONE..).unwrap_or_default()));
    }

    /// Keeps what an upstream said for `seconds`.
    pub(super) fn keep(&mut self, question: Rc<[u8]>, message: Vec<u8>, seconds: u32, now: u64) {
        if seconds == 0 {
            return;
        }
        let stored = Stored {
            message: message.into(),
            born: now,
            until: now + u64::from(seconds) * 1000,
        };
        self.said.insert(question, stored);
    }
}
