//! Origins: which endpoint sets a grant comes from, as small numbers that planes can count packets by.
//! A number means the same sets for as long as the process lives.

use super::rules::{Rules, SetId};
use std::collections::BTreeMap;

/// A number for some endpoint sets; 0 stands for sets that nobody counts apart.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Origin(pub u16);

/// Most origins; whatever comes after shares number 0. Names make up few: each is some sets together.
const MOST: usize = 4096;

/// Every origin there was.
#[derive(Clone, Debug, Default)]
pub struct Origins {
    /// The sets of origin *n* + 1, as `catalogue/id`, in order.
    labels: Vec<Vec<String>>,
    numbers: BTreeMap<Vec<String>, Origin>,
    /// The same by the numbers of the present rules.
    known: BTreeMap<Vec<SetId>, Origin>,
}

impl Origins {
    /// The origin of what `sets` of `rules` allow together.
    pub fn of(&mut self, rules: &Rules, mut sets: Vec<SetId>) -> Origin {
        sets.sort_unstable();
        sets.dedup();
        if let Some(origin) = self.known.get(&sets) {
            return *origin;
        }
        let labels = sets.iter().map(|set| rules.row(*set).label()).collect();
        let origin = self.number(labels);
        self.known.insert(sets, origin);
        origin
    }

    /// The origin of what has several.
    pub fn union(&mut self, origins: impl IntoIterator<Item = Origin>) -> Origin {
        let mut origins = origins.into_iter();
        let Some(first) = origins.next() else {
            return Origin::default();
        };
        let mut labels: Option<Vec<String>> = None;
        for other in origins.filter(|other| *other != first) {
            let labels = labels.get_or_insert_with(|| self.labels(first).to_vec());
            labels.extend_from_slice(self.labels(other));
        }
        labels.map_or(first, |labels| self.number(labels))
    }

    /// The sets of an origin, as `catalogue/id`.
    #[must_use]
    pub fn labels(&self, origin: Origin) -> &[String] {
        let before = usize::from(origin.0).checked_sub(1);
        before
            .and_then(|index| self.labels.get(index))
            .map_or(&[], Vec::as_slice)
    }

    /// Other rules number their sets differently.
    pub fn renumber(&mut self) {
        self.known.clear();
    }

    fn number(&mut self, mut labels: Vec<String>) -> Origin {
        labels.sort_unstable();
        labels.dedup();
        if let Some(origin) = self.numbers.get(&labels) {
            return *origin;
        }
        let Some(number) = u16::try_from(self.labels.len() + 1)
            .ok()
            .filter(|number| usize::from(*number) <= MOST && !labels.is_empty())
        else {
            return Origin::default();
        };
        self.labels.push(labels.clone());
        self.numbers.insert(labels, Origin(number));
        Origin(number)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn labels(texts: &[&str]) -> Vec<String> {
        texts.iter().map(|text| (*text).to_owned()).collect()
    }

    #[test]
    fn the_same_sets_have_the_same_number() {
        let mut origins = Origins::default();
        let a = origins.number(labels(&["intune/163"]));
        let b = origins.number(labels(&["lan/updates"]));
        assert_ne!(a, b);
        assert_eq!(origins.union([a]), a);
        assert_eq!(origins.union([a, a]), a);
        let both = origins.union([b, a]);
        assert_eq!(origins.union([a, b, both]), both);
        assert_eq!(origins.labels(both), labels(&["intune/163", "lan/updates"]));
        assert_eq!(origins.union([]), Origin::default());
        assert_eq!(origins.labels(Origin::default()), labels(&[]));
    }

    #[test]
    fn there_is_an_end_to_them() {
        let mut origins = Origins::default();
        for n in 0..2 * MOST {
            let origin = origins.number(vec![format!("rules/{n}")]);
            assert_eq!(origin.0 == 0, n >= MOST, "{n}");
        }
        assert_eq!(origins.labels(Origin(1)), labels(&["rules/0"]));
    }
}
