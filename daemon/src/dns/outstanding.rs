//! What upstreams have been asked and may still answer, by line and message id. Pure: time is an
//! argument.

use super::Token;
use super::upstream::Line;
use std::collections::{BTreeMap, VecDeque};

/// A line, and the message id of a question on it.
pub(super) type Key = (Line, u16);

/// Most ids of one line that wait for a reply, and most that are kept only to know late replies by.
/// Together half of the 65,536, so that a free one is soon drawn.
const MOST_AWAITED: usize = 16_384;
const MOST_SETTLED: usize = 16_384;

/// Ids drawn before a line counts as full. With half of them free it fails once in 2⁶⁴.
const MOST_DRAWS: usize = 64;

/// What is known of an id.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Known {
    /// The question waits for its reply.
    Awaited(Token),
    /// The question was settled otherwise: a reply is late, not forged.
    Settled,
}

/// The ids in use on every line.
#[derive(Default)]
pub(super) struct Outstanding {
    ids: BTreeMap<Key, Known>,
    lines: BTreeMap<Line, Load>,
    /// When settled ids are forgotten, soonest first.
    forget: VecDeque<(u64, Key)>,
}

/// How many ids of a line are in use.
#[derive(Default)]
struct Load {
    awaited: usize,
    settled: usize,
}

impl Outstanding {
    /// Takes an id on `line` for a question, from what `draw` gives; `None` when the line is full.
    pub(super) fn take(
        &mut self,
        line: Line,
        token: Token,
        mut draw: impl FnMut() -> u16,
    ) -> Option<Key> {
        let load = self.lines.get(&line);
        if load.is_some_and(|load| load.awaited >= MOST_AWAITED) {
            return None;
        }
        let key = (0..MOST_DRAWS)
            .map(|_| (line, draw()))
            .find(|key| !self.ids.contains_key(key))?;
        self.ids.insert(key, Known::Awaited(token));
        self.lines.entry(line).or_default().awaited += 1;
        Some(key)
    }

    pub(super) fn get(&self, key: Key) -> Option<Known> {
        self.ids.get(&key).copied()
    }

    /// Frees an id; gives what was known of it.
    pub(super) fn remove(&mut self, key: Key) -> Option<Known> {
        let known = self.ids.remove(&key)?;
        let Some(load) = self.lines.get_mut(&key.0) else {
            return Some(known);
        };
        match known {
            Known::Awaited(_) => load.awaited -= 1,
            Known::Settled => load.settled -= 1,
        }
        if load.awaited + load.settled == 0 {
            self.lines.remove(&key.0);
        }
        Some(known)
    }

    /// Stops waiting for a reply, and knows a late one by its id until `until`. Calls must come with
    /// ascending times. A line with too many of these frees the id at once.
    pub(super) fn settle(&mut self, key: Key, until: u64) {
        let Some(Known::Awaited(_)) = self.get(key) else {
            return;
        };
        self.remove(key);
        let load = self.lines.entry(key.0).or_default();
        if load.settled < MOST_SETTLED {
            load.settled += 1;
            self.ids.insert(key, Known::Settled);
            self.forget.push_back((until, key));
        }
    }

    /// Frees every id of `line`; gives those that were waited for.
    pub(super) fn end(&mut self, line: Line) -> Vec<(Key, Token)> {
        let keys: Vec<_> = self
            .ids
            .range((line, 0)..=(line, u16::MAX))
            .map(|(key, _)| *key)
            .collect();
        keys.into_iter()
            .filter_map(|key| match self.remove(key)? {
                Known::Awaited(token) => Some((key, token)),
                Known::Settled => None,
            })
            .collect()
    }

    /// When [`Outstanding::expire`] has something to do.
    pub(super) fn due(&self) -> Option<u64> {
        self.forget.front().map(|(due, _)| *due)
    }

    /// Forgets the settled ids whose time is over.
    pub(super) fn expire(&mut self, now: u64) {
        while let Some((due, key)) = self.forget.front().copied()
            && due <= now
        {
            self.forget.pop_front();
            if self.get(key) == Some(Known::Settled) {
                self.remove(key);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::chance::Chance;
    use super::*;

    const ALL: usize = MOST_AWAITED + MOST_SETTLED;

    fn fill(asked: &mut Outstanding, line: Line, chance: &mut Chance, how_many: usize) -> Vec<Key> {
        (0..how_many)
            .map_while(|_| asked.take(line, Token(7), || chance.id()))
            .collect()
    }

    #[test]
    fn a_line_is_never_full_of_settled_ids() {
        let (line, other) = (Line::of_test(1), Line::of_test(2));
        let (mut asked, mut chance) = (Outstanding::default(), Chance::new());
        for round in 0..8 {
            let keys = fill(&mut asked, line, &mut chance, 20_000);
            assert_eq!(keys.len(), MOST_AWAITED, "round {round}");
            assert_eq!(fill(&mut asked, other, &mut chance, 1).len(), 1);
            for key in keys {
                asked.settle(key, round);
            }
            assert!(asked.ids.len() <= ALL);
        }
        assert_eq!(asked.lines[&line].settled, MOST_SETTLED);
        asked.expire(8);
        assert_eq!(asked.due(), None);
        // Only what waits on the other line is left, and nothing is counted twice.
        assert_eq!((asked.ids.len(), asked.lines.len()), (8, 1));
        assert_eq!(asked.end(other).len(), 8);
        assert!(asked.ids.is_empty() && asked.lines.is_empty());
    }

    #[test]
    fn draws_are_bounded() {
        let line = Line::of_test(1);
        let mut asked = Outstanding::default();
        let mut draws = 0;
        let mut same = |asked: &mut Outstanding| {
            asked.take(line, Token(7), || {
                draws += 1;
                5
            })
        };
        assert_eq!(same(&mut asked), Some((line, 5)));
        assert_eq!(same(&mut asked), None);
        assert_eq!(draws, 1 + MOST_DRAWS);
    }

    #[test]
    fn a_late_reply_is_known_until_it_is_forgotten() {
        let key = (Line::of_test(1), 5);
        let mut asked = Outstanding::default();
        asked.take(key.0, Token(7), || key.1);
        assert_eq!(asked.get(key), Some(Known::Awaited(Token(7))));
        asked.settle(key, 100);
        asked.settle(key, 200);
        assert_eq!(
            (asked.get(key), asked.due()),
            (Some(Known::Settled), Some(100))
        );
        asked.expire(99);
        assert_eq!(asked.get(key), Some(Known::Settled));
        asked.expire(100);
        assert_eq!((asked.get(key), asked.due()), (None, None));
    }
}
