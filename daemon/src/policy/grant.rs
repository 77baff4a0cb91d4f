//! Grants: what each zone may reach now, and why. A grant's mask is always recomputed from its live
//! lessons, never edited bit by bit.

use super::answer::Answer;
use super::image::{Change, Image};
use super::links::Links;
use super::name::Name;
use super::origin::{Origin, Origins};
use super::port::ClassMask;
use super::rules::{Ask, CompileError, Intent, Limits, Numbers, Refusal, Rules, SetId, Unfit};
use super::{Moment, Revision, ZoneId};
use ipnet::IpNet;
use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::ops::Bound;
use std::sync::Arc;

/// Lessons of one address from which on a new one takes the place of an older one that opens the
/// same.
const MAX_LESSONS: usize = 64;

/// The one owner of what is granted. Every operation returns its outcome; the caller carries the
/// changes to the planes.
#[derive(Debug, Default)]
pub struct Policy {
    rules: Arc<Rules>,
    numbers: Numbers,
    grants: BTreeMap<(ZoneId, IpAddr), Grant>,
    /// The addresses each name holds; the key is the one copy of the name.
    names: BTreeMap<(ZoneId, Arc<Name>), BTreeSet<IpAddr>>,
    /// Not before these moments is anything to do; an entry may be early, never late.
    deadlines: BTreeSet<(Moment, ZoneId, IpAddr)>,
    families: [usize; 2],
    zones: BTreeMap<ZoneId, [usize; 2]>,
    origins: Origins,
    network_origins: BTreeMap<(ZoneId, IpNet), Origin>,
    revision: Revision,
}

/// What was learned of one address for one zone.
#[derive(Clone, Debug)]
pub struct Grant {
    /// Why it exists; never empty.
    pub lessons: Vec<Lesson>,
    /// The union of the lessons' classes.
    pub mask: ClassMask,
    /// The sets that opened its present classes, as far as known when they changed.
    pub origin: Origin,
    /// The state in which it got its present classes.
    pub revision: Revision,
    deadline: Moment,
}

/// One name's answer that gave an address.
#[derive(Clone, Debug)]
pub struct Lesson {
    /// The asked name.
    pub name: Arc<Name>,
    /// The classes of the sets that list the name.
    pub mask: ClassMask,
    /// Those sets.
    pub origin: Origin,
    /// When the name first gave the address.
    pub since: Moment,
    /// When the last answer's lifetime, grace included, is over; later while the address is in use.
    pub end: Moment,
    /// When it would be over had nobody used the address.
    pub lease: Moment,
}

/// The outcome of an answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Admission {
    /// Its addresses are granted; it may leave once `revision` is in force.
    Admitted {
        /// What the planes must do.
        changes: Vec<Change>,
        /// The state the answer's addresses belong to, also where nothing changed.
        revision: Revision,
    },
    /// The name is not (or no longer) listed.
    Refused(Refusal),
    /// Some address must not be taught; nothing was.
    Unfit(IpAddr, Unfit),
    /// Too much is learned already; nothing was.
    Full(Cap),
}

/// A limit that an answer met.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Cap {
    /// `[limits] per_answer`.
    #[error("the answer has more addresses than [limits] per_answer allows")]
    Answer,
    /// `[limits] per_name`.
    #[error("the name holds as many addresses as [limits] per_name allows")]
    Name,
    /// `[limits] learned`.
    #[error("as many addresses are learned as [limits] learned allows")]
    Total,
    /// `[limits] per_zone`.
    #[error("the zone holds as many addresses as [limits] per_zone allows")]
    Zone,
    /// `[limits] per_client`: the loop's to judge, for it takes a clock.
    #[error("the client adds more addresses a second than [limits] per_client allows")]
    Client,
}

impl Cap {
    /// The configuration key that sets it.
    #[must_use]
    pub const fn key(self) -> &'static str {
        match self {
            Self::Answer => "per_answer",
            Self::Name => "per_name",
            Self::Total => "learned",
            Self::Zone => "per_zone",
            Self::Client => "per_client",
        }
    }
}

/// How full a cap is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fill {
    /// Which: [`Cap::Total`] or [`Cap::Zone`].
    pub cap: Cap,
    /// How many addresses are learned, of the family of which there are more.
    pub learned: usize,
    /// How many may be.
    pub most: usize,
}

impl Fill {
    /// How full, in percent, rounded down.
    #[must_use]
    pub fn percent(&self) -> usize {
        self.learned.saturating_mul(100) / self.most.max(1)
    }
}

impl Policy {
    /// A policy that grants nothing yet.
    ///
    /// # Errors
    /// When the intent does not compile.
    pub fn new(intent: Arc<Intent>, links: Links) -> Result<Self, CompileError> {
        let mut numbers = Numbers::default();
        let rules = Arc::new(Rules::compile(intent, links, &mut numbers)?);
        let mut origins = Origins::default();
        Ok(Self {
            network_origins: network_origins(&rules, &mut origins),
            origins,
            rules,
            numbers,
            revision: Revision(1),
            ..Self::default()
        })
    }

    /// The compiled intent, for the edges' snapshot.
    #[must_use]
    pub fn rules(&self) -> &Arc<Rules> {
        &self.rules
    }

    /// The meaning of class bits.
    #[must_use]
    pub fn numbers(&self) -> &Numbers {
        &self.numbers
    }

    /// What the origins of changes mean.
    #[must_use]
    pub fn origins(&self) -> &Origins {
        &self.origins
    }

    /// The newest state.
    #[must_use]
    pub fn revision(&self) -> Revision {
        self.revision
    }

    /// Every grant.
    pub fn grants(&self) -> impl Iterator<Item = (ZoneId, IpAddr, &Grant)> {
        self.grants
            .iter()
            .map(|((zone, address), grant)| (*zone, *address, grant))
    }

    /// The grants that follow `last` in the order of [`Policy::grants`]; all of them without one.
    pub fn grants_after(
        &self,
        last: Option<(ZoneId, IpAddr)>,
    ) -> impl Iterator<Item = (ZoneId, IpAddr, &Grant)> {
        let after = last.map_or(Bound::Unbounded, Bound::Excluded);
        self.grants
            .range((after, Bound::Unbounded))
            .map(|((zone, address), grant)| (*zone, *address, grant))
    }

    /// The grant of one address.
    #[must_use]
    pub fn grant(&self, zone: ZoneId, address: IpAddr) -> Option<&Grant> {
        self.grants.get(&(zone, address))
    }

    /// The addresses that `name` holds in `zone`.
    pub fn addresses_of(&self, zone: ZoneId, name: &Name) -> impl Iterator<Item = IpAddr> {
        self.names
            .get(&(zone, Arc::new(name.clone())))
            .into_iter()
            .flatten()
            .copied()
    }

    /// How many addresses are learned: IPv4, IPv6.
    #[must_use]
    pub fn learned(&self) -> [usize; 2] {
        self.families
    }

    /// How full the cap of `zone` is, or the one for all zones.
    #[must_use]
    pub fn fill(&self, zone: Option<ZoneId>) -> Fill {
        let limits = self.limits();
        let (cap, held, most) = match zone {
            None => (Cap::Total, self.families, limits.learned),
            Some(zone) => (Cap::Zone, self.held_by(zone), limits.per_zone),
        };
        let learned = held[0].max(held[1]);
        Fill { cap, learned, most }
    }

    fn held_by(&self, zone: ZoneId) -> [usize; 2] {
        self.zones.get(&zone).copied().unwrap_or_default()
    }

    /// How many addresses of `answer` are not granted to `zone` yet.
    #[must_use]
    pub fn fresh(&self, zone: ZoneId, answer: &Answer) -> usize {
        let granted = |address: &&IpAddr| !self.grants.contains_key(&(zone, **address));
        answer.addresses.iter().filter(granted).count()
    }

    /// Everything a plane must enforce.
    #[must_use]
    pub fn image(&self) -> Image {
        Image {
            revision: self.revision,
            grants: self
                .grants()
                .map(|(zone, address, grant)| (zone, address, grant.mask))
                .collect(),
            origins: self.grants.values().map(|grant| grant.origin).collect(),
            network_origins: self.network_origins.clone(),
            ..self.rules.image(&self.numbers)
        }
    }

    /// Learns an answer, or says why not. An answer is learned whole or not at all.
    pub fn admit(&mut self, zone: ZoneId, answer: &Answer, now: Moment) -> Admission {
        if let Ask::Refuse(why) = self.rules.ask(zone, &answer.name) {
            return Admission::Refused(why);
        }
        for &address in &answer.addresses {
            if let Err(why) = self.rules.fit(zone, &answer.name, address) {
                return Admission::Unfit(address, why);
            }
        }
        if let Err(cap) = self.within_caps(zone, answer) {
            return Admission::Full(cap);
        }
        let limits = self.limits();
        let ttl = answer
            .ttl
            .clamp(limits.ttl_floor, limits.ttl_ceiling.max(limits.ttl_floor));
        let end = now.after_seconds(u64::from(ttl) + u64::from(limits.grace));
        self.teach(zone, &answer.name, &answer.addresses, now, end)
    }

    fn limits(&self) -> Limits {
        self.rules.intent().limits
    }

    fn within_caps(&self, zone: ZoneId, answer: &Answer) -> Result<(), Cap> {
        let limits = self.limits();
        if answer.addresses.len() > limits.per_answer {
            return Err(Cap::Answer);
        }
        let held = self.names.get(&(zone, Arc::new(answer.name.clone())));
        let fresh = answer
            .addresses
            .iter()
            .filter(|a| held.is_none_or(|held| !held.contains(a)))
            .count();
        if fresh > 0 && held.map_or(0, BTreeSet::len) + fresh > limits.per_name {
            return Err(Cap::Name);
        }
        let (mut families, mut of_zone) = (self.families, self.held_by(zone));
        for address in &answer.addresses {
            if !self.grants.contains_key(&(zone, *address)) {
                let family = family(*address);
                families[family] += 1;
                of_zone[family] += 1;
                if of_zone[family] > limits.per_zone {
                    return Err(Cap::Zone);
                }
                if families[family] > limits.learned {
                    return Err(Cap::Total);
                }
            }
        }
        Ok(())
    }

    fn teach(
        &mut self,
        zone: ZoneId,
        name: &Name,
        addresses: &[IpAddr],
        now: Moment,
        end: Moment,
    ) -> Admission {
        let mut sets = Vec::new();
        let mask = self.rules.reach_of(zone, name, |set| sets.push(set));
        let origin = self.origins.of(&self.rules, sets);
        let next = Revision(self.revision.0 + 1);
        let mut revision = Revision(0);
        let mut changes = Vec::new();
        let key = (zone, Arc::new(name.clone()));
        let name = match self.names.get_key_value(&key) {
            Some(((_, name), _)) => Arc::clone(name),
            None => Arc::clone(&key.1),
        };
        for &address in addresses {
            let grant = self.grants.entry((zone, address)).or_insert_with(|| {
                self.families[family(address)] += 1;
                self.zones.entry(zone).or_default()[family(address)] += 1;
                self.deadlines.insert((end, zone, address));
                Grant {
                    lessons: Vec::new(),
                    mask: ClassMask::NONE,
                    origin,
                    revision: next,
                    deadline: end,
                }
            });
            match grant.lessons.iter_mut().find(|lesson| lesson.name == name) {
                Some(lesson) => {
                    lesson.mask = mask;
                    lesson.origin = origin;
                    lesson.end = lesson.end.max(end);
                    lesson.lease = lesson.lease.max(end);
                }
                None => {
                    if let Some(spare) = grant.spare_lesson(mask, end) {
                        let lesson = grant.lessons.swap_remove(spare);
                        unlink(&mut self.names, zone, lesson.name, address);
                    }
                    grant.lessons.push(Lesson {
                        name: Arc::clone(&name),
                        mask,
                        origin,
                        since: now,
                        end,
                        lease: end,
                    });
                    self.names
                        .entry((zone, Arc::clone(&name)))
                        .or_default()
                        .insert(address);
                }
            }
            if end < grant.deadline {
                self.deadlines.remove(&(grant.deadline, zone, address));
                self.deadlines.insert((end, zone, address));
                grant.deadline = end;
            }
            if let Some(change) = grant.settle(zone, address, &mut self.origins) {
                grant.revision = next;
                changes.push(change);
            }
            revision = revision.max(grant.revision);
        }
        if !changes.is_empty() {
            self.revision = next;
        }
        Admission::Admitted { changes, revision }
    }

    /// When [`Policy::due`] may next have something.
    #[must_use]
    pub fn next_deadline(&self) -> Option<Moment> {
        self.deadlines.first().map(|(at, _, _)| *at)
    }

    /// The grants of which some reason is over at `now`. Those still in use the caller keeps
    /// ([`Policy::keep`]) before it lets the rest go ([`Policy::expire`]).
    pub fn due(&mut self, now: Moment) -> Vec<(ZoneId, IpAddr)> {
        let mut due = Vec::new();
        while let Some(&(at, zone, address)) = self.deadlines.first()
            && at <= now
        {
            self.deadlines.remove(&(at, zone, address));
            let Some(grant) = self.grants.get_mut(&(zone, address)) else {
                continue;
            };
            if grant.first_end() <= now {
                due.push((zone, address));
            } else {
                // Renewed since; the list holds the early date to spare a write per renewal.
                grant.deadline = grant.first_end();
                self.deadlines.insert((grant.deadline, zone, address));
            }
        }
        for &(zone, address) in &due {
            self.deadlines.insert((now, zone, address));
            if let Some(grant) = self.grants.get_mut(&(zone, address)) {
                grant.deadline = now;
            }
        }
        due
    }

    /// Lets every reason of a grant that is in use live until `end` at least.
    pub fn keep(&mut self, zone: ZoneId, address: IpAddr, end: Moment) {
        let Some(grant) = self.grants.get_mut(&(zone, address)) else {
            return;
        };
        for lesson in &mut grant.lessons {
            lesson.end = lesson.end.max(end);
        }
        self.deadlines.remove(&(grant.deadline, zone, address));
        grant.deadline = grant.first_end();
        self.deadlines.insert((grant.deadline, zone, address));
    }

    /// Ends the reasons that are over at `now`. A class closes only when no reason for it is left.
    pub fn expire(&mut self, now: Moment) -> Vec<Change> {
        self.expire_telling(now, |_, _, _| {})
    }

    /// As [`Policy::expire`], and tells every reason that ended.
    pub fn expire_telling(
        &mut self,
        now: Moment,
        ended: impl FnMut(ZoneId, IpAddr, Lesson),
    ) -> Vec<Change> {
        let due = self.due(now);
        self.prune(&due, |lesson| lesson.end > now, ended)
    }

    /// Takes back what no plane could put in force: the grants are gone, whatever their reasons.
    pub fn withdraw(&mut self, addresses: &[(ZoneId, IpAddr)]) -> Vec<Change> {
        self.prune(addresses, |_| false, |_, _, _| {})
    }

    /// Ends the lessons that `live` refuses among the given grants, and tells them to `ended`.
    pub(super) fn prune(
        &mut self,
        grants: &[(ZoneId, IpAddr)],
        live: impl Fn(&Lesson) -> bool,
        mut ended: impl FnMut(ZoneId, IpAddr, Lesson),
    ) -> Vec<Change> {
        let next = Revision(self.revision.0 + 1);
        let mut changes = Vec::new();
        for &(zone, address) in grants {
            let Some(grant) = self.grants.get_mut(&(zone, address)) else {
                continue;
            };
            self.deadlines.remove(&(grant.deadline, zone, address));
            let (kept, over) = std::mem::take(&mut grant.lessons)
                .into_iter()
                .partition(&live);
            grant.lessons = kept;
            for lesson in over {
                unlink(&mut self.names, zone, Arc::clone(&lesson.name), address);
                ended(zone, address, lesson);
            }
            changes.extend(grant.settle(zone, address, &mut self.origins));
            if grant.lessons.is_empty() {
                self.grants.remove(&(zone, address));
                self.families[family(address)] -= 1;
                if let Some(held) = self.zones.get_mut(&zone) {
                    held[family(address)] -= 1;
                }
            } else {
                grant.deadline = grant.first_end();
                self.deadlines.insert((grant.deadline, zone, address));
            }
        }
        if !changes.is_empty() {
            self.revision = next;
        }
        changes
    }

    /// Puts another intent or other links in the old ones' place. What was learned stays as far as
    /// the new rules list the names; the returned changes say what opened and what closed.
    ///
    /// # Errors
    /// When the intent does not compile; nothing changed.
    pub fn replace(
        &mut self,
        intent: Arc<Intent>,
        links: Links,
    ) -> Result<Vec<Change>, CompileError> {
        let mut numbers = self.numbers.clone();
        let rules = Rules::compile(intent, links, &mut numbers)?;
        let was: BTreeMap<_, _> = self
            .grants
            .iter()
            .map(|(key, grant)| (*key, grant.mask))
            .collect();
        let old = std::mem::take(self);
        *self = Self {
            rules: Arc::new(rules),
            numbers,
            origins: old.origins,
            revision: Revision(old.revision.0 + 1),
            ..Self::default()
        };
        self.origins.renumber();
        self.network_origins = network_origins(&self.rules, &mut self.origins);
        for ((zone, address), grant) in old.grants {
            let (mask, revision) = (grant.mask, grant.revision);
            for lesson in grant.lessons {
                if self.rules.ask(zone, &lesson.name) == Ask::Forward
                    && self.rules.fit(zone, &lesson.name, address).is_ok()
                {
                    self.restore(zone, address, lesson);
                }
            }
            // What stays as it was is in force before and after: its answers need not wait.
            let current = self.revision;
            if let Some(grant) = self.grants.get_mut(&(zone, address)) {
                grant.revision = if grant.mask == mask {
                    revision
                } else {
                    current
                };
            }
        }
        let keys: BTreeSet<_> = was.keys().chain(self.grants.keys()).copied().collect();
        let changes = keys.into_iter().map(|key| Change {
            zone: key.0,
            address: key.1,
            was: was.get(&key).copied().unwrap_or_default(),
            now: self
                .grants
                .get(&key)
                .map(|grant| grant.mask)
                .unwrap_or_default(),
            origin: self
                .grants
                .get(&key)
                .map(|grant| grant.origin)
                .unwrap_or_default(),
        });
        Ok(changes.filter(|change| change.was != change.now).collect())
    }

    /// Takes links on which nothing that is in force depends: the state stays the one it was.
    ///
    /// # Errors
    /// As [`Policy::replace`].
    pub fn relink(&mut self, links: Links) -> Result<(), CompileError> {
        let revision = self.revision;
        let changes = self.replace(Arc::clone(self.rules.intent()), links)?;
        if changes.is_empty() {
            self.revision = revision;
        }
        Ok(())
    }

    fn restore(&mut self, zone: ZoneId, address: IpAddr, lesson: Lesson) {
        let revision = self.revision;
        let admission = self.teach(zone, &lesson.name, &[address], lesson.since, lesson.end);
        debug_assert!(matches!(admission, Admission::Admitted { .. }));
        // Carrying over is part of one replacement, not a state of its own.
        self.revision = revision;
        let taught = self.grants.get_mut(&(zone, address)).into_iter();
        if let Some(taught) = taught
            .flat_map(|grant| &mut grant.lessons)
            .find(|taught| taught.name == lesson.name)
        {
            taught.lease = lesson.lease;
        }
    }

    /// Learns an answer of an earlier run again: judged by today's rules, at its old end.
    pub fn recall(&mut self, zone: ZoneId, answer: &Answer, now: Moment, end: Moment) -> Admission {
        if let Ask::Refuse(why) = self.rules.ask(zone, &answer.name) {
            return Admission::Refused(why);
        }
        if let Some((address, why)) = answer.addresses.iter().find_map(|a| {
            self.rules
                .fit(zone, &answer.name, *a)
                .err()
                .map(|why| (*a, why))
        }) {
            return Admission::Unfit(address, why);
        }
        match self.within_caps(zone, answer) {
            Ok(()) => self.teach(zone, &answer.name, &answer.addresses, now, end),
            Err(cap) => Admission::Full(cap),
        }
    }
}

impl Grant {
    /// Recomputes the mask; says what changed.
    fn settle(&mut self, zone: ZoneId, address: IpAddr, origins: &mut Origins) -> Option<Change> {
        let now = self
            .lessons
            .iter()
            .fold(ClassMask::NONE, |mask, lesson| mask.union(lesson.mask));
        let was = std::mem::replace(&mut self.mask, now);
        if was == now {
            return None;
        }
        self.origin = origins.union(self.lessons.iter().map(|lesson| lesson.origin));
        Some(Change {
            zone,
            address,
            was,
            now,
            origin: self.origin,
        })
    }

    /// A lesson that a new one of the same classes and a later end makes needless, once there are
    /// many: an address that thousands of names share must not cost memory for each.
    fn spare_lesson(&self, mask: ClassMask, end: Moment) -> Option<usize> {
        if self.lessons.len() < MAX_LESSONS {
            return None;
        }
        let same = self.lessons.iter().enumerate();
        same.filter(|(_, lesson)| lesson.mask == mask && lesson.end <= end)
            .min_by_key(|(_, lesson)| lesson.end)
            .map(|(index, _)| index)
    }

    fn first_end(&self) -> Moment {
        self.lessons
            .iter()
            .map(|lesson| lesson.end)
            .min()
            .unwrap_or_default()
    }
}

/// Where the classes that `rules` open of networks come from, by network: the sets that list it or one
/// around it.
fn network_origins(rules: &Rules, origins: &mut Origins) -> BTreeMap<(ZoneId, IpNet), Origin> {
    let mut of_networks = BTreeMap::new();
    for (id, zone) in rules.zones() {
        let mut sets: BTreeMap<IpNet, Vec<SetId>> = BTreeMap::new();
        for listing in &zone.networks {
            sets.entry(listing.network).or_default().push(listing.set);
        }
        // In `IpNet`'s order a prefix stands before everything inside it.
        let mut around: Vec<(IpNet, Vec<SetId>)> = Vec::new();
        for (net, mut own) in sets {
            while around
                .last()
                .is_some_and(|(outer, _)| !outer.contains(&net))
            {
                around.pop();
            }
            own.extend(around.last().iter().flat_map(|(_, sets)| sets));
            of_networks.insert((id, net), origins.of(rules, own.clone()));
            around.push((net, own));
        }
    }
    of_networks
}

fn family(address: IpAddr) -> usize {
    usize::from(address.is_ipv6())
}

fn unlink(
    names: &mut BTreeMap<(ZoneId, Arc<Name>), BTreeSet<IpAddr>>,
    zone: ZoneId,
    name: Arc<Name>,
    address: IpAddr,
) {
    let key = (zone, name);
    if let Some(held) = names.get_mut(&key) {
        held.remove(&address);
        if held.is_empty() {
            names.remove(&key);
        }
    }
}
