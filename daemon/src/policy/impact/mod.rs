//! What other rules would end, cut or open, were they put in force now: a replacement of the policy, told
//! before it happens. Changes nothing.

#[cfg(test)]
mod tests;

use super::ZoneId;
use super::grant::Grant;
use super::image::Mode;
use super::name::Name;
use super::port::{ClassMask, PortSet};
use super::rules::{Ask, Numbers, Rules};
use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;

/// Most entries of one list; its total tells the rest.
pub const MOST: usize = 200;

/// Rules, and what the numbers in them mean.
#[derive(Clone, Copy, Debug)]
pub struct View<'a> {
    /// The rules.
    pub rules: &'a Rules,
    /// Made with them.
    pub numbers: &'a Numbers,
}

/// A live grant: what was learned of one address for one zone.
#[derive(Clone, Debug)]
pub struct Held {
    /// For whom.
    pub zone: ZoneId,
    /// To where.
    pub address: IpAddr,
    /// The names whose answers gave the address.
    pub names: Vec<Arc<Name>>,
    /// What is open.
    pub mask: ClassMask,
}

impl Held {
    /// What is held of one of [`Policy::grants`](super::grant::Policy::grants).
    #[must_use]
    pub fn of((zone, address, grant): (ZoneId, IpAddr, &Grant)) -> Self {
        let lessons = grant.lessons.iter();
        Self {
            zone,
            address,
            names: lessons.map(|lesson| Arc::clone(&lesson.name)).collect(),
            mask: grant.mask,
        }
    }
}

/// A live connection, placed as the candidate's rules place it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LiveFlow {
    /// Its zone; `None` where it came from an interface of no zone and those are dropped.
    pub zone: Option<ZoneId>,
    /// Its client.
    pub source: IpAddr,
    /// The destination its client asked for.
    pub destination: IpAddr,
    /// IANA protocol number.
    pub protocol: u8,
    /// Destination port; 0 where the protocol has none.
    pub port: u16,
    /// Whether the zone's redirect wants it for itself, and so cut.
    pub evades: bool,
}

/// Something that was refused of late: a question, or the packets of a flow.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Wish {
    /// Whose.
    pub zone: ZoneId,
    /// The asked name; of packets, the name that led there, where it is known.
    pub name: Option<Name>,
    /// Where packets went; `None` of a question.
    pub target: Option<Target>,
}

/// Where packets went.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Target {
    /// To which address.
    pub address: IpAddr,
    /// IANA protocol number.
    pub protocol: u8,
    /// Destination port; 0 where the protocol has none.
    pub port: u16,
}

/// How often something was refused, and when last.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Times {
    /// How often it was told: of packets once in ten seconds for each flow.
    pub count: u64,
    /// Seconds since the last time.
    pub ago: u64,
}

/// The first of something, and how many there are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Bounded<T> {
    /// At most [`MOST`].
    pub list: Vec<T>,
    /// All of them.
    pub total: usize,
}

impl<T> Default for Bounded<T> {
    fn default() -> Self {
        Self {
            list: Vec::new(),
            total: 0,
        }
    }
}

impl<T> Bounded<T> {
    fn push(&mut self, make: impl FnOnce() -> T) {
        self.total += 1;
        if self.list.len() < MOST {
            self.list.push(make());
        }
    }
}

/// A live grant that ends or changes its ports.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Regrant {
    /// For whom, by name: the zone may not be there any more.
    pub zone: String,
    /// To where.
    pub address: IpAddr,
    /// The names that gave it.
    pub names: Vec<Arc<Name>>,
    /// Ports that close.
    pub closes: PortSet,
    /// Ports that open.
    pub opens: PortSet,
}

/// A live flow that is cut.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cut {
    /// Name of its zone; empty where it comes from no zone.
    pub zone: String,
    /// The flow.
    pub flow: LiveFlow,
    /// The names that gave its destination.
    pub names: Vec<Arc<Name>>,
}

/// Something refused that passes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Opened {
    /// Name of the zone.
    pub zone: String,
    /// What.
    pub wish: Wish,
    /// How often it was refused.
    pub times: Times,
}

/// What other rules would do, were they put in force now.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Impact {
    /// Live grants of which nothing is left.
    pub ends: Bounded<Regrant>,
    /// Live grants that go on with other ports.
    pub changes: Bounded<Regrant>,
    /// Live flows that nothing would grant.
    pub cuts: Bounded<Cut>,
    /// What was refused of late and would pass.
    pub opens: Bounded<Opened>,
    /// Zones that get a policy of their own, or lose it.
    pub zones: Vec<String>,
}

/// What [`Policy::replace`](super::grant::Policy::replace) with the candidate's intent would end, cut and open. `now` is in force, both were
/// compiled for the same links, the candidate's numbers continue the present ones.
#[must_use]
pub fn impact(
    now: View<'_>,
    candidate: View<'_>,
    grants: &[Held],
    flows: &[LiveFlow],
    wishes: &[(Wish, Times)],
) -> Impact {
    let mut impact = Impact {
        zones: zones(now.rules, candidate.rules),
        ..Impact::default()
    };
    let mut before: BTreeMap<(ZoneId, IpAddr), &Held> = BTreeMap::new();
    let mut after: BTreeMap<(ZoneId, IpAddr), ClassMask> = BTreeMap::new();
    let mut pairs = Pairs::default();
    for held in grants {
        let key = (held.zone, held.address);
        before.insert(key, held);
        let left = candidate.mask_of(held);
        if !left.is_empty() {
            after.insert(key, left);
        }
        let (closes, opens) = pairs.difference(now, held.mask, candidate, left);
        if closes.is_empty() && opens.is_empty() {
            continue;
        }
        let list = if left.is_empty() {
            &mut impact.ends
        } else {
            &mut impact.changes
        };
        list.push(|| Regrant {
            zone: now.rules.zone_name(held.zone).to_owned(),
            address: held.address,
            names: held.names.clone(),
            closes: closes.clone(),
            opens: opens.clone(),
        });
    }
    let learned = |zone, address| after.get(&(zone, address)).copied().unwrap_or_default();
    for flow in flows {
        let stays = !flow.evades
            && flow.zone.is_some_and(|zone| {
                let to = Target {
                    address: flow.destination,
                    protocol: flow.protocol,
                    port: flow.port,
                };
                candidate.is_audited(zone)
                    || candidate.passes(zone, to, learned(zone, flow.destination))
            });
        if !stays {
            impact.cuts.push(|| Cut {
                zone: flow
                    .zone
                    .map(|zone| candidate.rules.zone_name(zone).to_owned())
                    .unwrap_or_default(),
                flow: *flow,
                names: flow
                    .zone
                    .and_then(|zone| before.get(&(zone, flow.destination)))
                    .map(|held| held.names.clone())
                    .unwrap_or_default(),
            });
        }
    }
    for (wish, times) in wishes {
        let held = |zone, address| {
            let held = before.get(&(zone, address));
            held.map_or(ClassMask::NONE, |held| held.mask)
        };
        if candidate.grants(wish, learned) && !now.grants(wish, held) {
            impact.opens.push(|| Opened {
                zone: candidate.rules.zone_name(wish.zone).to_owned(),
                wish: wish.clone(),
                times: *times,
            });
        }
    }
    impact
}

impl View<'_> {
    /// What would be left of a grant: as [`Policy::replace`](super::grant::Policy::replace) carries it over.
    fn mask_of(self, held: &Held) -> ClassMask {
        let fits = |name: &&Arc<Name>| {
            self.rules.ask(held.zone, name) == Ask::Forward
                && self.rules.fit(held.zone, name, held.address).is_ok()
        };
        let names = held.names.iter().filter(fits);
        names.fold(ClassMask::NONE, |mask, name| {
            mask.union(self.rules.mask(held.zone, name))
        })
    }

    /// Whether a flow passes, of which `learned` is learned.
    fn passes(self, zone: ZoneId, to: Target, learned: ClassMask) -> bool {
        let open = learned.union(self.rules.network_mask(zone, to.address));
        open.meets(self.numbers.classes.mask_of(to.protocol, to.port))
    }

    /// Whether what was refused would pass, once its client has asked for the name.
    fn grants(self, wish: &Wish, learned: impl Fn(ZoneId, IpAddr) -> ClassMask) -> bool {
        let Wish { zone, name, target } = wish;
        let listed = |name: &Name| self.rules.ask(*zone, name) == Ask::Forward;
        let Some(to) = target else {
            return name.as_ref().is_some_and(listed);
        };
        let told = name
            .as_ref()
            .filter(|name| listed(name) && self.rules.fit(*zone, name, to.address).is_ok());
        let taught = told.map_or(ClassMask::NONE, |name| self.rules.mask(*zone, name));
        self.passes(*zone, *to, taught.union(learned(*zone, to.address)))
    }

    fn is_audited(self, zone: ZoneId) -> bool {
        let zone = self.rules.zone(zone);
        zone.is_some_and(|zone| zone.spec.mode == Mode::Audit)
    }

    fn ports(self, mask: ClassMask) -> PortSet {
        let classes = &self.numbers.classes;
        let sets = mask.classes().filter_map(|class| classes.ports(class));
        PortSet::new(sets.flat_map(|set| set.services().iter().copied()))
    }
}

/// What masks of the one view and the other differ in; worked out once for each pair.
#[derive(Debug, Default)]
struct Pairs(BTreeMap<(u64, u64), (PortSet, PortSet)>);

impl Pairs {
    /// The ports that close, and those that open.
    fn difference(
        &mut self,
        now: View<'_>,
        before: ClassMask,
        candidate: View<'_>,
        after: ClassMask,
    ) -> (PortSet, PortSet) {
        let key = (before.0, after.0);
        let made = self.0.entry(key).or_insert_with(|| {
            let (before, after) = (now.ports(before), candidate.ports(after));
            (before.without(&after), after.without(&before))
        });
        made.clone()
    }
}

/// The zones that only one side has, told in words.
fn zones(now: &Rules, candidate: &Rules) -> Vec<String> {
    let names = |rules: &Rules| -> Vec<String> {
        let zones = rules.zones();
        zones.map(|(_, zone)| zone.spec.name.clone()).collect()
    };
    let (before, after) = (names(now), names(candidate));
    let gone = before.iter().filter(|name| !after.contains(name));
    let new = after.iter().filter(|name| !before.contains(name));
    let gone = gone.map(|name| format!("zone {name} is gone"));
    gone.chain(new.map(|name| format!("zone {name} is new")))
        .collect()
}
