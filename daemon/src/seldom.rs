//! Whom to name in the log, and when: everybody at fault once a minute at most, with a count. Pure:
//! time is an argument, and strangers cannot make it grow.

use std::collections::BTreeMap;

/// Culprits remembered at once. One more is only counted until another has been quiet for a while.
const MOST: usize = 256;

/// Milliseconds between two lines about the same culprit.
const APART: u64 = 60_000;

/// Those at fault in the last minute.
#[derive(Debug)]
pub(crate) struct Seldom<K> {
    culprits: BTreeMap<K, Culprit>,
    /// Not before this moment is anyone forgotten, so that a full list is not searched each time.
    forget_at: u64,
}

#[derive(Debug)]
struct Culprit {
    untold: u64,
    tell_at: u64,
}

impl<K> Default for Seldom<K> {
    fn default() -> Self {
        Self {
            culprits: BTreeMap::new(),
            forget_at: 0,
        }
    }
}

impl<K: Ord> Seldom<K> {
    /// Takes note of one more fault of `culprit` at `now`, in milliseconds. When it is time for a line:
    /// how many there were since the last one, this one included.
    pub(crate) fn note(&mut self, culprit: K, now: u64) -> Option<u64> {
        if let Some(known) = self.culprits.get_mut(&culprit) {
            known.untold += 1;
            if now < known.tell_at {
                return None;
            }
            known.tell_at = now + APART;
            return Some(std::mem::take(&mut known.untold));
        }
        if self.culprits.len() >= MOST {
            if now < self.forget_at {
                return None;
            }
            self.forget_at = now + APART / 60;
            self.culprits.retain(|_, known| now < known.tell_at);
            if self.culprits.len() >= MOST {
                return None;
            }
        }
        let tell_at = now + APART;
        self.culprits
            .insert(culprit, Culprit { untold: 0, tell_at });
        Some(1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_line_a_minute_each() {
        let mut seldom = Seldom::default();
        let mut check = |culprit: u32, now: u64, expected: Option<u64>| {
            assert_eq!(seldom.note(culprit, now), expected, "{culprit} at {now}");
        };
        check(1, 0, Some(1));
        check(1, 1, None);
        check(2, 1, Some(1));
        check(1, APART - 1, None);
        check(1, APART, Some(3));
        check(1, APART + 1, None);
        check(2, APART + 1, Some(1));
    }

    #[test]
    fn many_culprits_are_bounded() {
        let mut seldom = Seldom::default();
        let told = (0..10 * MOST).filter(|culprit| seldom.note(*culprit, 0).is_some());
        assert_eq!(told.count(), MOST);
        assert_eq!(seldom.culprits.len(), MOST);
        // Room again, once the others were quiet.
        assert_eq!(seldom.note(usize::MAX, APART), Some(1));
    }
}
