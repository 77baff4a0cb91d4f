//! Which listings a name meets: exact names and `*.` wildcards by their wire form, other shapes one
//! by one.

use super::name::{Name, Pattern};
use std::collections::BTreeMap;

/// Patterns, each with something to remember about it.
#[derive(Clone, Debug)]
pub struct Matcher<T> {
    exact: BTreeMap<Box<[u8]>, Vec<T>>,
    below: BTreeMap<Box<[u8]>, Vec<T>>,
    globs: Vec<(Pattern, T)>,
}

impl<T> Default for Matcher<T> {
    fn default() -> Self {
        Self {
            exact: BTreeMap::new(),
            below: BTreeMap::new(),
            globs: Vec::new(),
        }
    }
}

impl<T> Matcher<T> {
    /// Adds a listing.
    pub fn insert(&mut self, pattern: &Pattern, listing: T) {
        let (map, name) = match pattern {
            Pattern::Exact(name) => (&mut self.exact, name),
            Pattern::Below(parent) => (&mut self.below, parent),
            Pattern::Glob(_) => return self.globs.push((pattern.clone(), listing)),
        };
        map.entry(name.wire().into()).or_default().push(listing);
    }

    /// Every listing that `name` meets: the exact ones first, then from the nearest wildcard
    /// outwards.
    pub fn find<'a>(&'a self, name: &'a Name) -> impl Iterator<Item = &'a T> {
        let exact = self.exact.get(name.wire()).into_iter().flatten();
        let below = name
            .parents()
            .filter_map(|parent| self.below.get(parent))
            .flatten();
        let globs = self
            .globs
            .iter()
            .filter(|(glob, _)| glob.matches(name))
            .map(|(_, listing)| listing);
        exact.chain(below).chain(globs)
    }

    /// Whether `name` meets any listing.
    #[must_use]
    pub fn lists(&self, name: &Name) -> bool {
        self.find(name).next().is_some()
    }
}
