//! PURE: the kinds of learned grants, which are what their entries name instead of a mask: distinct
//! zones, masks, origins and reasons, each with its users and the packets it let pass.

use crate::policy::origin::Origin;
use crate::policy::port::ClassMask;
use egressd_common::grants::KINDS;
use egressd_common::verdict::{NO_ZONE, Reason};
use std::collections::{BTreeMap, VecDeque};
use std::sync::atomic::{AtomicU64, Ordering};

/// Numbers that kinds of places leave to entries.
const FOR_ENTRIES: usize = KINDS / 2;

/// Numbers kept for kinds that are not counted by their origin.
const SPARE: usize = KINDS / 4;

/// Numbers kept for kinds that are not counted by their zone either: as many as there may be masks.
const LAST: usize = KINDS / 8;

/// What the grants of one kind have in common.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Kind {
    /// Whose they are.
    pub(super) zone: u8,
    /// What they open.
    pub(super) mask: ClassMask,
    /// Where that comes from.
    pub(super) origin: Origin,
    /// Why their packets pass.
    pub(super) reason: Reason,
}

#[derive(Clone, Copy, Debug)]
struct Used {
    kind: Kind,
    users: u32,
    /// What the packets of this number were when it became this kind.
    before: u64,
}

/// The kinds in use, by number.
#[derive(Debug)]
pub(super) struct Kinds<M> {
    masks: M,
    numbers: BTreeMap<Kind, u16>,
    used: Vec<Option<Used>>,
    /// Numbers without users, the longest free one first: a program that just read an entry with such
    /// a number is done with it before it means something else.
    free: VecDeque<u16>,
    /// Packets of kinds that gave up their number.
    past: BTreeMap<Kind, u64>,
}

impl<M: AsRef<[AtomicU64]>> Kinds<M> {
    /// No kind yet; `masks` is memory for the mask of every number, zeros.
    pub(super) fn new(masks: M) -> Self {
        let count = u16::try_from(KINDS).expect("numbers of kinds have ten bits");
        Self {
            masks,
            numbers: BTreeMap::new(),
            used: vec![None; KINDS],
            free: (1..count).collect(),
            past: BTreeMap::new(),
        }
    }

    /// The number of a kind for one more user; `None` where all are taken by others. `packets` tells
    /// how many packets of a number were counted so far; it is asked only where the number had another
    /// meaning.
    pub(super) fn take(&mut self, mut kind: Kind, packets: impl Fn(u16) -> u64) -> Option<u16> {
        // Numbers may run out for counting apart, not for granting.
        if self.free.len() <= SPARE && !self.numbers.contains_key(&kind) {
            kind.origin = Origin::default();
        }
        if self.free.len() <= LAST && !self.numbers.contains_key(&kind) {
            kind.zone = NO_ZONE;
        }
        if let Some(&number) = self.numbers.get(&kind) {
            let used = self.used[usize::from(number)].as_mut()?;
            if used.users == 0 {
                self.free.retain(|free| *free != number);
            }
            used.users += 1;
            return Some(number);
        }
        let number = self.free.pop_front()?;
        let place = &mut self.used[usize::from(number)];
        let mut counted = 0;
        if let Some(used) = place.take() {
            counted = packets(number);
            self.numbers.remove(&used.kind);
            *self.past.entry(used.kind).or_default() += counted.saturating_sub(used.before);
        }
        *place = Some(Used {
            kind,
            users: 1,
            before: counted,
        });
        self.numbers.insert(kind, number);
        self.masks.as_ref()[usize::from(number)].store(kind.mask.0, Ordering::Release);
        Some(number)
    }

    /// The number of a kind that a place names, for good: what such a kind opens no program asks for.
    /// `None` where the rest is left to entries.
    pub(super) fn take_for_place(&mut self, zone: u8, origin: Origin) -> Option<u16> {
        let kind = Kind {
            zone,
            mask: ClassMask::NONE,
            origin,
            reason: Reason::Network,
        };
        let there_is_room = self.free.len() > FOR_ENTRIES || self.numbers.contains_key(&kind);
        there_is_room.then(|| self.take(kind, |_| 0)).flatten()
    }

    /// One user less.
    pub(super) fn release(&mut self, number: u16) {
        let Some(Some(used)) = self.used.get_mut(usize::from(number)) else {
            return;
        };
        used.users = used.users.saturating_sub(1);
        if used.users == 0 {
            self.free.push_back(number);
        }
    }

    /// What entries with this number open.
    pub(super) fn mask(&self, number: u16) -> ClassMask {
        let used = self.used.get(usize::from(number)).copied().flatten();
        used.map_or(ClassMask::NONE, |used| used.kind.mask)
    }

    /// The packets of every kind there was, given those of each number.
    pub(super) fn packets(&self, counted: impl Fn(u16) -> u64) -> BTreeMap<Kind, u64> {
        let mut packets = self.past.clone();
        for (number, used) in (0..).zip(&self.used) {
            if let Some(used) = used {
                *packets.entry(used.kind).or_default() +=
                    counted(number).saturating_sub(used.before);
            }
        }
        packets
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn kinds() -> Kinds<Vec<AtomicU64>> {
        Kinds::new((0..KINDS).map(|_| AtomicU64::new(0)).collect())
    }

    fn kind(zone: u8, mask: u64) -> Kind {
        Kind {
            zone,
            mask: ClassMask(mask),
            origin: Origin(0),
            reason: Reason::Granted,
        }
    }

    fn number_of(kinds: &mut Kinds<Vec<AtomicU64>>, kind: Kind) -> u16 {
        kinds.take(kind, |_| 0).unwrap()
    }

    #[test]
    fn kinds_share_numbers_and_the_kernel_knows_their_masks() {
        let mut kinds = kinds();
        let number = number_of(&mut kinds, kind(1, 6));
        assert_ne!(number, 0);
        assert_eq!(number_of(&mut kinds, kind(1, 6)), number);
        assert_ne!(number_of(&mut kinds, kind(2, 6)), number);
        assert_eq!(kinds.masks[usize::from(number)].load(Ordering::Acquire), 6);
        assert_eq!(kinds.mask(number), ClassMask(6));
        assert_eq!(kinds.mask(0), ClassMask::NONE);
    }

    #[test]
    fn a_number_without_users_comes_back_after_all_others() {
        let mut kinds = kinds();
        let first = number_of(&mut kinds, kind(0, 1));
        kinds.release(first);
        let others: Vec<u16> = (2..KINDS as u64)
            .map(|n| number_of(&mut kinds, kind(0, n)))
            .collect();
        assert!(!others.contains(&first));
        // Nothing else had its number: it is the same kind still.
        assert_eq!(number_of(&mut kinds, kind(0, 1)), first);
        assert_eq!(kinds.take(kind(9, 1), |_| 0), None);
        kinds.release(first);
        assert_eq!(number_of(&mut kinds, kind(9, 1)), first);
        assert_eq!(kinds.take(kind(9, 2), |_| 0), None);
    }

    #[test]
    fn counting_apart_never_takes_the_last_numbers() {
        let mut kinds = kinds();
        let apart = |n: u16| Kind {
            origin: Origin(n),
            ..kind(0, 1)
        };
        let numbers: Vec<u16> = (1..=1000)
            .map(|n| number_of(&mut kinds, apart(n)))
            .collect();
        let together = number_of(&mut kinds, kind(0, 1));
        let most = KINDS - 1 - SPARE;
        assert!(!numbers[..most].contains(&together));
        assert!(numbers[most..].iter().all(|number| *number == together));
        for n in 2..SPARE as u64 {
            number_of(&mut kinds, kind(0, n));
        }
    }

    #[test]
    fn places_and_zones_never_take_the_last_numbers() {
        let mut kinds = kinds();
        let of_places = (0..64)
            .flat_map(|zone| (0..20).map(move |origin| (zone, Origin(origin))))
            .filter(|&(zone, origin)| kinds.take_for_place(zone, origin).is_some())
            .count();
        assert_eq!(of_places, KINDS - 1 - FOR_ENTRIES);
        // Every zone has room for every mask that there may be.
        for mask in 1..=LAST as u64 {
            for zone in 0..64 {
                let number = number_of(&mut kinds, kind(zone, mask));
                assert_eq!(kinds.mask(number), ClassMask(mask));
            }
        }
    }

    #[test]
    fn packets_stay_with_the_kind_that_let_them_pass() {
        let mut kinds = kinds();
        let first = number_of(&mut kinds, kind(0, 1));
        kinds.release(first);
        for n in 2..KINDS as u64 {
            number_of(&mut kinds, kind(0, n));
        }
        assert_eq!(kinds.take(kind(3, 3000), |_| 10), Some(first));
        let packets = kinds.packets(|number| if number == first { 14 } else { 0 });
        assert_eq!(packets[&kind(0, 1)], 10);
        assert_eq!(packets[&kind(NO_ZONE, 3000)], 4);
    }
}
