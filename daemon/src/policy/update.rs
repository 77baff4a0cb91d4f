//! What is in force of a source that changes: what it adds at once, what it no longer lists for a while longer, and
//! what is too bad to be taken at all. Pure: times are milliseconds of the caller's clock.

use super::catalogue::{Catalogue, EndpointSet, Scope};
use super::diff::Destination;
use super::matcher::Matcher;
use super::name::Pattern;
use super::port::PortSet;
use ipnet::IpNet;
use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};

/// One version of a source.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Version {
    /// As the source calls it, or what its content is told by.
    pub name: String,
    /// Tells its content from others'.
    pub print: String,
    /// What it lists.
    pub catalogue: Catalogue,
}

/// How many names and networks are held at most: a source that lists others each time must not fill the memory.
const MOST_HELD: usize = 1 << 20;

/// Part of a row that a source no longer lists, and that stays in force for a while.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Held {
    /// The row as it was, with what is gone of it and nothing else.
    pub set: EndpointSet,
    /// Since when it is gone, in seconds since 1970: for people, whose clocks may have been wrong.
    pub since: u64,
    /// Until when it stays, by the caller's clock.
    pub until: u64,
    /// The first version that lacked it.
    pub version: String,
}

/// How changes are taken.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rules {
    /// How long removals are held, in milliseconds; 0 takes them at once.
    pub hold: u64,
    /// Of names and of networks, a version that lists less than the one before by more than this is refused.
    pub shrink_percent: usize,
    /// An area that must have a row.
    pub needs: Option<String>,
}

/// What is in force of one source.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Standing {
    /// The last version that was taken.
    pub newest: Version,
    /// What is in force instead of it, by an operator's word.
    pub pinned: Option<Version>,
    /// What it lacks of versions before.
    pub held: Vec<Held>,
    /// The content that an operator went back from: it is not taken again.
    pub barred: Option<String>,
}

/// What a new version changed. Displays as a line for people.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Taken {
    /// Its name, and that of the one before.
    pub version: (String, String),
    /// Names and networks that were not listed before.
    pub added: usize,
    /// Those that it no longer lists, wholly or on some ports.
    pub gone: usize,
    /// Those that are listed again.
    pub returned: usize,
    /// Whether `gone` stays in force for now.
    pub holds: bool,
}

impl std::fmt::Display for Taken {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let (now, before) = &self.version;
        write!(f, "version {now}")?;
        if !before.is_empty() {
            write!(f, " after {before}")?;
        }
        write!(f, ": {} added, {} ", self.added, self.gone)?;
        f.write_str(if self.holds {
            "gone and held"
        } else {
            "removed"
        })?;
        write!(f, ", {} listed again", self.returned)
    }
}

/// Why a version is not taken. What was in force stays.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refused {
    /// It lists nothing.
    #[error("version {0} lists nothing")]
    Empty(String),
    /// It lost too much to be meant.
    #[error(
        "version {version} lists {after} of the {before} {what} of the one before; if that is meant, update with --force"
    )]
    Shrunk {
        /// Its name.
        version: String,
        /// `names` or `networks`.
        what: &'static str,
        /// How many the version before lists.
        before: usize,
        /// How many of those it lists, or something that they are inside of.
        after: usize,
    },
    /// An area has no row.
    #[error("version {version} has no set of area `{area}`; if that is meant, update with --force")]
    Lacks {
        /// Its name.
        version: String,
        /// The area.
        area: String,
    },
    /// A network of it is so wide that hardly a vendor has it.
    #[error("version {version} opens {network}; if that is meant, update with --force")]
    Wide {
        /// Its name.
        version: String,
        /// The network.
        network: IpNet,
    },
    /// With it more would be held than there is room for.
    #[error(
        "with version {0} there are {1} names and networks that are gone and held, more than {MOST_HELD}; confirm what \
         is gone, or update with --force"
    )]
    HoldsMany(String, usize),
    /// An operator went back from it.
    #[error("version {0} was rolled back from; update with --force to take it again")]
    Barred(String),
}

impl Standing {
    /// Takes a version that came at `now`, which is `wall` for people; with `force` all but an empty one.
    ///
    /// # Errors
    /// When it must not be taken; nothing changed.
    pub fn take(
        &mut self,
        incoming: Version,
        (now, wall): (u64, u64),
        rules: &Rules,
        force: bool,
    ) -> Result<Taken, Refused> {
        self.guard(&incoming, rules, force)?;
        let listed = Listed::of(&incoming.catalogue);
        let (mut held, returned) = listed.still_gone(&self.held);
        let mut gone = 0;
        for row in &self.newest.catalogue.sets {
            for set in listed.gone(row) {
                gone += set.patterns.len() + set.networks.len();
                if rules.hold > 0 {
                    held.push(Held {
                        set,
                        since: wall,
                        until: now.saturating_add(rules.hold),
                        version: incoming.name.clone(),
                    });
                }
            }
        }
        let many = held
            .iter()
            .map(|held| held.set.patterns.len() + held.set.networks.len());
        let many = many.sum();
        if many > MOST_HELD && !force {
            return Err(Refused::HoldsMany(incoming.name, many));
        }
        let before = destinations(&self.newest.catalogue);
        let added = destinations(&incoming.catalogue)
            .difference(&before)
            .count();
        drop(listed);
        let taken = Taken {
            version: (incoming.name.clone(), self.newest.name.clone()),
            added,
            gone,
            returned,
            holds: rules.hold > 0,
        };
        // A server that gives what stands already, from a copy that lags, has nothing new to say.
        if incoming.print != self.newest.print || force {
            self.barred = None;
        }
        self.held = held;
        self.newest = incoming;
        Ok(taken)
    }

    fn guard(&self, incoming: &Version, rules: &Rules, force: bool) -> Result<(), Refused> {
        let version = || incoming.name.clone();
        if incoming
            .catalogue
            .sets
            .iter()
            .all(|set| of_row(set).next().is_none())
        {
            return Err(Refused::Empty(version()));
        }
        if force {
            return Ok(());
        }
        if self.barred.as_ref() == Some(&incoming.print) {
            return Err(Refused::Barred(version()));
        }
        if let Some(area) = &rules.needs
            && !incoming.catalogue.sets.iter().any(|set| set.area == *area)
        {
            return Err(Refused::Lacks {
                version: version(),
                area: area.clone(),
            });
        }
        if let Some(network) = self.too_wide(&incoming.catalogue) {
            return Err(Refused::Wide {
                version: version(),
                network,
            });
        }
        // Not how many it lists: as many others in their place are no less suspicious.
        let listed = Listed::of(&incoming.catalogue);
        let known = destinations(&incoming.catalogue);
        let (names, networks): (Vec<_>, Vec<_>) = destinations(&self.newest.catalogue)
            .into_iter()
            .partition(|one| matches!(one, Destination::Name(_)));
        for (what, all) in [("names", names), ("networks", networks)] {
            let stays =
                |one: &&Destination| listed.wider(one).iter().any(|one| known.contains(one));
            let (before, after) = (all.len(), all.iter().filter(stays).count());
            let least = before.saturating_mul(100_usize.saturating_sub(rules.shrink_percent));
            if after.saturating_mul(100) < least {
                return Err(Refused::Shrunk {
                    version: version(),
                    what,
                    before,
                    after,
                });
            }
        }
        Ok(())
    }

    /// A network that was not listed before and is wider than any that a vendor was given: /8 and /16 are the widest
    /// (IANA IPv4 and IPv6 unicast address space registries).
    fn too_wide(&self, incoming: &Catalogue) -> Option<IpNet> {
        let known = |network: &IpNet| {
            let mut networks = self
                .newest
                .catalogue
                .sets
                .iter()
                .flat_map(|set| &set.networks);
            networks.any(|one| one == network)
        };
        let networks = incoming.sets.iter().flat_map(|set| &set.networks);
        let wide = networks.filter(|network| match network {
            IpNet::V4(network) => network.prefix_len() < 8,
            IpNet::V6(network) => network.prefix_len() < 16,
        });
        wide.copied().find(|network| !known(network))
    }

    /// What is in force at `now`: the version that is pinned, or the newest and what is held beside it.
    #[must_use]
    pub fn in_force(&self, now: u64) -> Catalogue {
        if let Some(pinned) = &self.pinned {
            return pinned.catalogue.clone();
        }
        let mut catalogue = self.newest.catalogue.clone();
        let held = self.held.iter().filter(|held| held.until > now);
        catalogue.sets.extend(held.map(|held| EndpointSet {
            origin: format!("held: gone since version {}", held.version),
            ..held.set.clone()
        }));
        catalogue
    }

    /// Ends what is held until `now`; gives how much that was.
    pub fn expire(&mut self, now: u64) -> usize {
        let before = self.held.len();
        self.held.retain(|held| held.until > now);
        before - self.held.len()
    }

    /// Lets what should have ended by `now` stay until `later`: the policy could not follow.
    pub fn postpone(&mut self, now: u64, later: u64) {
        let over = self.held.iter_mut().filter(|held| held.until <= now);
        over.for_each(|held| held.until = later);
    }

    /// When the next hold ends.
    #[must_use]
    pub fn next_end(&self) -> Option<u64> {
        self.held.iter().map(|held| held.until).min()
    }

    /// Ends holds at an operator's word: of these names, networks and ids, or all if none is given. Gives how many
    /// names and networks that ended.
    ///
    /// # Errors
    /// When one of them is not held; nothing changed. Says what is.
    pub fn confirm(&mut self, entries: &[String]) -> Result<usize, String> {
        let is = |destination: String, entry: &String| destination.eq_ignore_ascii_case(entry);
        for entry in entries {
            let known = self.held.iter().any(|held| {
                held.set.id == *entry || held.destinations().any(|one| is(one.to_string(), entry))
            });
            if !known {
                let all = self.held.iter().flat_map(Held::destinations);
                let some: Vec<String> = all.take(5).map(|one| format!("`{one}`")).collect();
                let some = if some.is_empty() {
                    "nothing is".to_owned()
                } else {
                    format!("these are, among others: {}", some.join(", "))
                };
                return Err(format!("`{entry}` is not held; {some}"));
            }
        }
        let mut ended = 0;
        for held in &mut self.held {
            let whole = entries.is_empty() || entries.contains(&held.set.id);
            let before = held.destinations().count();
            let stays =
                |text: String| !whole && !entries.iter().any(|entry| is(text.clone(), entry));
            held.set.patterns.retain(|one| stays(one.to_string()));
            held.set.networks.retain(|one| stays(one.to_string()));
            ended += before - held.destinations().count();
        }
        self.held
            .retain(|held| held.destinations().next().is_some());
        Ok(ended)
    }

    /// Goes back to an earlier version. What only the newest lists ends at once, and its content is barred.
    pub fn roll_back(&mut self, to: Version) {
        let listed = Listed::of(&to.catalogue);
        (self.held, _) = listed.still_gone(&self.held);
        drop(listed);
        let left = std::mem::replace(&mut self.newest, to);
        self.barred = Some(left.print);
    }

    /// Ends what is held since one of these versions, those behind the one that an operator goes back to: what they
    /// lack came after it, or it lists it.
    pub fn forget(&mut self, versions: &BTreeSet<&str>) {
        self.held.retain(|held| !versions.contains(&*held.version));
    }
}

impl Held {
    fn destinations(&self) -> impl Iterator<Item = Destination> {
        of_row(&self.set)
    }
}

fn of_row(set: &EndpointSet) -> impl Iterator<Item = Destination> {
    let names = set.patterns.iter().cloned().map(Destination::Name);
    names.chain(set.networks.iter().copied().map(Destination::Network))
}

fn destinations(catalogue: &Catalogue) -> BTreeSet<Destination> {
    catalogue.sets.iter().flat_map(of_row).collect()
}

/// What a version lists, by what covers it.
#[derive(Default)]
struct Listed<'a> {
    /// By id, area and destination, whom it is open to. Many rows may list the same: no step may look at all of them.
    open: BTreeMap<(&'a str, &'a str, Destination), Vec<Open<'a>>>,
    wildcards: Matcher<&'a Pattern>,
}

/// What rows that are open to the same zones open together.
struct Open<'a> {
    required: bool,
    scope: &'a Scope,
    ports: Cow<'a, PortSet>,
}

impl<'a> Listed<'a> {
    fn of(catalogue: &'a Catalogue) -> Self {
        let mut listed = Self::default();
        let mut wildcards = BTreeSet::new();
        for set in &catalogue.sets {
            for destination in of_row(set) {
                let open = listed
                    .open
                    .entry((&set.id, &set.area, destination))
                    .or_default();
                let same =
                    |one: &&mut Open<'_>| one.required == set.required && *one.scope == set.scope;
                match open.iter_mut().find(same) {
                    Some(one) => one.add(&set.ports),
                    None => open.push(Open {
                        required: set.required,
                        scope: &set.scope,
                        ports: Cow::Borrowed(&set.ports),
                    }),
                }
            }
            wildcards.extend(set.patterns.iter().filter(|pattern| pattern.is_wildcard()));
        }
        for pattern in wildcards {
            listed.wildcards.insert(pattern, pattern);
        }
        listed
    }

    /// What opens `destination` where it is listed: itself, and what it is inside of.
    fn wider(&self, destination: &Destination) -> Vec<Destination> {
        let mut wide = vec![destination.clone()];
        match destination {
            Destination::Name(pattern) => {
                if let Ok(example) = pattern.example("x") {
                    let found = self.wildcards.find(&example);
                    let found = found.filter(|wide| **wide != pattern && wide.covers(pattern));
                    wide.extend(found.map(|wide| Destination::Name((*wide).clone())));
                }
            }
            Destination::Network(network) => {
                let above = std::iter::successors(network.supernet(), IpNet::supernet);
                wide.extend(above.map(|net| Destination::Network(net.trunc())));
            }
        }
        wide
    }

    /// The ports on which `destination` of `row` is open to all that had it; none where it is not listed.
    fn ports(&self, destination: &Destination, row: &EndpointSet) -> Option<PortSet> {
        let wide = self.wider(destination);
        let open = wide
            .into_iter()
            .filter_map(|one| self.open.get(&(&*row.id, &*row.area, one)));
        let mut open = open.flatten().filter(|one| one.serves(row)).peekable();
        open.peek()?;
        let services = open.flat_map(|one| one.ports.services()).copied();
        Some(PortSet::new(services))
    }

    /// What is gone of a row: one row for each set of ports that closed.
    fn gone(&self, row: &EndpointSet) -> Vec<EndpointSet> {
        let mut gone: BTreeMap<PortSet, EndpointSet> = BTreeMap::new();
        for destination in of_row(row) {
            let ports = self.ports(&destination, row);
            let listed = ports.is_some();
            let closed = row.ports.without(&ports.unwrap_or_default());
            // A list that tells no ports lists all the same.
            if closed.is_empty() && (listed || !row.ports.is_empty()) {
                continue;
            }
            let set = gone.entry(closed.clone()).or_insert_with(|| EndpointSet {
                patterns: Vec::new(),
                networks: Vec::new(),
                ports: closed,
                ..row.clone()
            });
            match destination {
                Destination::Name(pattern) => set.patterns.push(pattern),
                Destination::Network(network) => set.networks.push(network),
            }
        }
        gone.into_values().collect()
    }

    /// What is still gone of what is held, and how many names and networks are not.
    fn still_gone(&self, held: &[Held]) -> (Vec<Held>, usize) {
        let mut returned = 0;
        let mut still = Vec::new();
        for held in held {
            let sets = self.gone(&held.set);
            let left: BTreeSet<Destination> = sets.iter().flat_map(of_row).collect();
            returned += held
                .destinations()
                .filter(|one| !left.contains(one))
                .count();
            still.extend(sets.into_iter().map(|set| Held {
                set,
                since: held.since,
                until: held.until,
                version: held.version.clone(),
            }));
        }
        (still, returned)
    }
}

impl Open<'_> {
    fn add(&mut self, ports: &PortSet) {
        let more = ports.without(&self.ports);
        if !more.is_empty() {
            let both = self.ports.services().iter().chain(more.services());
            self.ports = Cow::Owned(PortSet::new(both.copied()));
        }
    }

    /// Whether whoever had `old` has this as well, on the ports that it opens.
    fn serves(&self, old: &EndpointSet) -> bool {
        (self.required || !old.required) && is_as_wide(self.scope, &old.scope)
    }
}

fn is_as_wide(new: &Scope, old: &Scope) -> bool {
    let axis = |new: &[String], old: &[String]| {
        let known = |value: &String| new.iter().any(|one| one.eq_ignore_ascii_case(value));
        new.is_empty() || (!old.is_empty() && old.iter().all(known))
    };
    axis(&new.regions, &old.regions)
        && axis(&new.scale_units, &old.scale_units)
        && axis(&new.platforms, &old.platforms)
        && axis(&new.features, &old.features)
        && axis(&new.clouds, &old.clouds)
}

#[cfg(test)]
mod tests;
#[cfg(test)]
mod year;
