//! Which listings a name meets. A tree of labels, the top-level domain first, whose edges lie in one hash table:
//! a name is found in as many steps as its known labels, however many patterns there are, and one that is not
//! listed ends at its first unknown label.

use super::name::{Name, Pattern};
use std::hash::{BuildHasher as _, BuildHasherDefault, DefaultHasher};

/// Patterns, each with something to remember about it.
#[derive(Clone, Debug)]
pub struct Matcher<T> {
    /// The labels of all nodes, each after its length.
    labels: Vec<u8>,
    /// The root is the first.
    nodes: Vec<Node>,
    /// Open addressing, by a node's parent and label; [`NONE`] where no node is. A power of two, or empty.
    table: Vec<u32>,
    /// What is remembered, in circles: each knows the next of its list, the last one the first.
    listings: Vec<(T, u32)>,
    globs: Vec<(Pattern, T)>,
    /// Globs below a node, in circles as well.
    links: Vec<(u32, u32)>,
}

/// A name that is listed, or the end of one.
#[derive(Clone, Copy, Debug)]
struct Node {
    parent: u32,
    /// Where its label is.
    label: u32,
    /// The last listing of exactly this name.
    exact: u32,
    /// The last listing of the wildcard below it.
    below: u32,
    /// The last glob whose fixed end this is.
    globs: u32,
}

/// No node, no listing.
const NONE: u32 = u32::MAX;

/// Most labels of a name: each takes two bytes of 255 at least.
const DEEPEST: usize = 128;

impl<T> Default for Matcher<T> {
    fn default() -> Self {
        Self {
            labels: Vec::new(),
            nodes: vec![Node::new(NONE, 0)],
            table: Vec::new(),
            listings: Vec::new(),
            globs: Vec::new(),
            links: Vec::new(),
        }
    }
}

impl Node {
    const fn new(parent: u32, label: u32) -> Self {
        Self {
            parent,
            label,
            exact: NONE,
            below: NONE,
            globs: NONE,
        }
    }
}

/// Puts a new last one into a circle whose last one was `last`.
fn append<V>(circle: &mut Vec<(V, u32)>, last: u32, value: V) -> u32 {
    let new = index(circle.len());
    let first = match circle.get_mut(last as usize) {
        Some((_, next)) => std::mem::replace(next, new),
        None => new,
    };
    circle.push((value, first));
    new
}

fn index(length: usize) -> u32 {
    u32::try_from(length)
        .ok()
        .filter(|index| *index < NONE)
        .expect("a policy has fewer than four billion names")
}

impl<T> Matcher<T> {
    /// Adds a listing.
    pub fn insert(&mut self, pattern: &Pattern, listing: T) {
        match pattern {
            Pattern::Exact(name) => {
                let node = self.make(name);
                let last = append(&mut self.listings, self.nodes[node].exact, listing);
                self.nodes[node].exact = last;
            }
            Pattern::Below(parent) => {
                let node = self.make(parent);
                let last = append(&mut self.listings, self.nodes[node].below, listing);
                self.nodes[node].below = last;
            }
            Pattern::Glob(glob) => {
                let node = self.make(&glob.fixed_parent());
                let number = index(self.globs.len());
                self.globs.push((pattern.clone(), listing));
                self.nodes[node].globs = append(&mut self.links, self.nodes[node].globs, number);
            }
        }
    }

    /// The node of `name`, made if it is not there.
    fn make(&mut self, name: &Name) -> usize {
        let mut node = 0;
        for label in name.labels().rev() {
            node = match self.child(node, label) {
                Some(child) => child,
                None => self.add(node, label),
            };
        }
        node as usize
    }

    fn add(&mut self, parent: u32, label: &[u8]) -> u32 {
        // At most half full, so that what is not there is soon seen.
        if (self.nodes.len() + 1) * 2 > self.table.len() {
            self.grow();
        }
        let new = index(self.nodes.len());
        self.nodes.push(Node::new(parent, index(self.labels.len())));
        self.labels
            .push(u8::try_from(label.len()).unwrap_or(u8::MAX));
        self.labels.extend_from_slice(label);
        self.place(new);
        new
    }

    fn grow(&mut self) {
        let size = (self.table.len() * 2).max(16);
        self.table = vec![NONE; size];
        for node in 1..self.nodes.len() {
            self.place(index(node));
        }
    }

    fn place(&mut self, node: u32) {
        let Node { parent, label, .. } = self.nodes[node as usize];
        let mut slot = self.slot(parent, self.label(label));
        while self.table[slot] != NONE {
            slot = (slot + 1) & (self.table.len() - 1);
        }
        self.table[slot] = node;
    }

    /// Where the search for an edge begins. Catalogues choose what is in the table, clients only what is looked
    /// for: nobody who asks makes it slow.
    fn slot(&self, parent: u32, label: &[u8]) -> usize {
        let hash = BuildHasherDefault::<DefaultHasher>::default().hash_one((parent, label));
        usize::try_from(hash & (self.table.len() as u64 - 1)).unwrap_or_default()
    }

    fn label(&self, at: u32) -> &[u8] {
        let at = at as usize;
        let length = usize::from(self.labels[at]);
        &self.labels[at + 1..=at + length]
    }

    fn child(&self, parent: u32, label: &[u8]) -> Option<u32> {
        if self.table.is_empty() {
            return None;
        }
        let mut slot = self.slot(parent, label);
        loop {
            let node = self.table[slot];
            if node == NONE {
                return None;
            }
            let known = &self.nodes[node as usize];
            if known.parent == parent && self.label(known.label) == label {
                return Some(node);
            }
            slot = (slot + 1) & (self.table.len() - 1);
        }
    }

    /// Every listing that `name` meets: the exact ones first, then from the nearest wildcard
    /// outwards.
    pub fn find<'a>(&'a self, name: &'a Name) -> impl Iterator<Item = &'a T> {
        // The nodes on the way down, without the root.
        let mut path = [NONE; DEEPEST];
        let (mut known, mut node, mut whole) = (0, 0, true);
        for label in name.labels().rev() {
            match self.child(node, label) {
                Some(child) => node = child,
                None => {
                    whole = false;
                    break;
                }
            }
            path[known] = node;
            known += 1;
        }
        // A wildcard below the name itself does not mean it.
        let parents = known - usize::from(whole && known > 0);
        let exact = if whole && known > 0 {
            self.nodes[path[known - 1] as usize].exact
        } else {
            NONE
        };
        let upwards = move |at: usize| path[parents - 1 - at] as usize;
        let below =
            (0..parents).flat_map(move |at| circle(&self.listings, self.nodes[upwards(at)].below));
        let globs = (0..parents)
            .flat_map(move |at| circle(&self.links, self.nodes[upwards(at)].globs))
            .map(|glob| &self.globs[*glob as usize])
            .filter(|(glob, _)| glob.matches(name))
            .map(|(_, listing)| listing);
        circle(&self.listings, exact).chain(below).chain(globs)
    }

    /// Whether `name` meets any listing.
    #[must_use]
    pub fn lists(&self, name: &Name) -> bool {
        self.find(name).next().is_some()
    }

    /// Bytes of memory beside what listings and globs themselves point to.
    #[must_use]
    pub fn size(&self) -> usize {
        self.labels.capacity()
            + self.nodes.capacity() * size_of::<Node>()
            + self.table.capacity() * size_of::<u32>()
            + self.listings.capacity() * size_of::<(T, u32)>()
            + self.globs.capacity() * size_of::<(Pattern, T)>()
            + self.links.capacity() * size_of::<(u32, u32)>()
    }
}

/// What a circle holds, the first one first.
fn circle<V>(all: &[(V, u32)], last: u32) -> impl Iterator<Item = &V> {
    let mut next = all.get(last as usize).map(|(_, first)| *first);
    std::iter::from_fn(move || {
        let at = next?;
        let (value, after) = all.get(at as usize)?;
        next = (at != last).then_some(*after);
        Some(value)
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn patterns() -> impl Strategy<Value = Vec<Pattern>> {
        let text = prop_oneof![
            4 => "(\\*\\.)?([abc]\\.){0,3}[ab]\\.example",
            1 => "\\*?[ab]\\*?[ab]?\\.([ab]\\.){0,2}c\\.example",
            1 => "[ab]\\*\\.\\*\\.[ab]\\.example",
        ];
        let pattern = text.prop_filter_map("no pattern", |text| Pattern::parse(&text).ok());
        proptest::collection::vec(pattern, 0..40)
    }

    proptest! {
        #[test]
        fn it_finds_what_each_pattern_says(
            patterns in patterns(),
            names in proptest::collection::vec("([abc]{1,2}\\.){0,5}[abc]\\.example", 20),
        ) {
            let mut matcher = Matcher::default();
            for (number, pattern) in patterns.iter().enumerate() {
                matcher.insert(pattern, number);
            }
            for name in names {
                let name: Name = name.parse().unwrap();
                let mut found: Vec<usize> = matcher.find(&name).copied().collect();
                prop_assert_eq!(matcher.lists(&name), !found.is_empty());
                found.sort_unstable();
                let matching = patterns.iter().enumerate().filter(|(_, pattern)| pattern.matches(&name));
                let expected: Vec<usize> = matching.map(|(number, _)| number).collect();
                prop_assert_eq!(found, expected, "{}", name);
            }
        }
    }

    #[test]
    fn the_nearest_comes_first() {
        let mut matcher = Matcher::default();
        for text in [
            "*.example",
            "*.b.c.example",
            "a.b.c.example",
            "*.c.example",
            "a.b.c.example",
            "a*.c.example",
            "*.c.example",
        ] {
            // At least two labels must follow a star.
            if let Ok(pattern) = Pattern::parse(text) {
                matcher.insert(&pattern, text);
            }
        }
        let name: Name = "a.b.c.example".parse().unwrap();
        let found: Vec<_> = matcher.find(&name).copied().collect();
        assert_eq!(
            found,
            [
                "a.b.c.example",
                "a.b.c.example",
                "*.b.c.example",
                "*.c.example",
                "*.c.example"
            ]
        );
        assert!(!matcher.lists(&Name::root()));
        assert!(!matcher.lists(&"c.example".parse().unwrap()));
        assert!(!Matcher::<()>::default().lists(&name));
    }

    /// What the documentation promises of a million names: at most 100 bytes each.
    #[test]
    fn a_million_names_are_small() {
        let mut matcher = Matcher::default();
        let count = 200_000;
        for number in 0_u32..count {
            let text = format!("host{number}.zone{}.example.com", number % 1000);
            matcher.insert(&Pattern::Exact(text.parse().unwrap()), number);
        }
        let each = matcher.size() / count as usize;
        assert!(each <= 100, "{each} bytes");
        let name: Name = "host199999.zone999.example.com".parse().unwrap();
        assert_eq!(matcher.find(&name).collect::<Vec<_>>(), [&199_999]);
    }

    /// Nanoseconds and bytes at 200, 10,000 and 1,000,000 names, half of them wildcards, beside a map of whole
    /// names that is asked for each parent.
    #[test]
    #[ignore = "a measurement; run it with --release and --nocapture"]
    #[expect(clippy::disallowed_methods, reason = "it measures")]
    fn speed() {
        use std::collections::BTreeMap;
        use std::time::Instant;
        println!(
            "| names | question | ns | map of names ns | bytes a name |\n|---|---|---|---|---|"
        );
        for count in [200_u32, 10_000, 1_000_000] {
            let mut matcher = Matcher::default();
            let mut map: BTreeMap<Box<[u8]>, Vec<u32>> = BTreeMap::new();
            let text = |number: u32| format!("host{number}.zone{}.example.com", number % 5000);
            for number in 0..count {
                let name: Name = text(number).parse().unwrap();
                map.entry(name.wire().into()).or_default().push(number);
                if number % 2 == 0 {
                    matcher.insert(&Pattern::Exact(name), number);
                } else {
                    matcher.insert(&Pattern::Below(name), number);
                }
            }
            for glob in 0..count.min(10_000) {
                let text = format!("*-cdn{glob}.zone{}.example.org", glob % 5000);
                matcher.insert(&Pattern::parse(&text).unwrap(), glob);
            }
            let step = |number: u32| number.wrapping_mul(2_654_435_761) % count;
            for (what, name) in [
                (
                    "listed",
                    Box::new(move |n: u32| text(step(n) & !1)) as Box<dyn Fn(u32) -> String>,
                ),
                (
                    "8 labels",
                    Box::new(move |n: u32| format!("a.b.c.d.{}", text(step(n) | 1))),
                ),
                (
                    "unknown",
                    Box::new(|n: u32| format!("host{n}.elsewhere.example.net")),
                ),
                (
                    "near a glob",
                    Box::new(|n: u32| format!("x-cdn{n}.zone{}.example.org", n % 5000)),
                ),
            ] {
                let names: Vec<Name> = (0..100_000).map(|n| name(n).parse().unwrap()).collect();
                let mut found = 0_usize;
                let began = Instant::now();
                for name in &names {
                    found += matcher.find(name).count();
                }
                let ours = began.elapsed().as_nanos() / names.len() as u128;
                let began = Instant::now();
                for name in &names {
                    found += map.get(name.wire()).map_or(0, Vec::len);
                    found += name.parents().filter_map(|parent| map.get(parent)).count();
                }
                let theirs = began.elapsed().as_nanos() / names.len() as u128;
                let bytes = matcher.size() / count as usize;
                println!("| {count} | {what} | {ours} | {theirs} | {bytes} | {found}");
            }
        }
    }
}
