//! PURE. Remembers grants that ended and counts who still tries their addresses: clients that keep
//! answers longer than their lifetime. It decides nothing; operators choose their grace by it.

use crate::plane::RefusedPacket;
use crate::policy::answer::Answer;
use crate::policy::grant::Policy;
use crate::policy::name::Name;
use crate::policy::rules::Rules;
use crate::policy::{Moment, ZoneId};
use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;

/// Ended grants remembered, by name and address; the oldest go first. About 30 MiB when full.
const MAX_ENDED: usize = 65_536;

/// Ended names remembered per address, so that an address which many names share stays cheap to look
/// up.
const MAX_SHARING: usize = 64;

/// Names with late clients; the one that was late longest ago goes first.
const MAX_NAMES: usize = 1024;

/// Clients told apart per name.
const MAX_CLIENTS: usize = 256;

/// Clients told apart of all names together.
const MAX_ALL_CLIENTS: usize = 16_384;

/// Seconds that an ended grant, and a name without late packets, is remembered: the longest grace
/// that is ever suggested.
const DAY: u32 = 86_400;

/// Late clients of one name that an operator should hear of without asking.
const MANY: usize = 10;

/// What ended and who is late.
#[derive(Debug, Default)]
pub struct Late {
    ended: BTreeMap<(ZoneId, IpAddr), Vec<Ended>>,
    /// The same by age.
    order: BTreeSet<(Moment, ZoneId, IpAddr, Arc<Name>)>,
    names: BTreeMap<(ZoneId, Arc<Name>), Row>,
    /// Clients in all rows.
    clients: usize,
}

#[derive(Debug)]
struct Ended {
    name: Arc<Name>,
    at: Moment,
}

/// What is known of one name's late clients.
#[derive(Debug, Default)]
struct Row {
    /// Each client's longest delay, in seconds.
    clients: BTreeMap<IpAddr, u64>,
    packets: u64,
    /// The longest delay in seconds, of clients not told apart too.
    max: u64,
    last: Moment,
}

/// Late names and what follows from them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Report {
    /// Most packets first.
    pub names: Vec<LateName>,
    /// All of them together.
    pub all: Summary,
}

/// One name's late clients.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LateName {
    /// Whose clients.
    pub zone: ZoneId,
    /// The asked name.
    pub name: Arc<Name>,
    /// How many and how late.
    pub summary: Summary,
}

/// How many clients were late, and how much. A client's delay is its longest, in seconds, rounded up.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Summary {
    /// Clients that could be told apart.
    pub clients: usize,
    /// Reported packets.
    pub packets: u64,
    /// Delay of half of the clients, at most.
    pub median: u64,
    /// Delay of 99 of 100 clients, at most.
    pub p99: u64,
    /// Longest delay.
    pub max: u64,
    /// The grace in seconds, whole minutes up to a day, that would have covered 99 of 100 clients;
    /// `None` when the present one does, or is longer than a day already.
    pub grace: Option<u32>,
}

impl Late {
    /// `name`'s grant of `address` is over. `at` is when it would have been without use: what a
    /// longer grace prolongs.
    pub fn ended(&mut self, zone: ZoneId, address: IpAddr, name: Arc<Name>, at: Moment) {
        self.forget(zone, address, &name);
        let row = self.ended.entry((zone, address)).or_default();
        let oldest = row.iter().min_by_key(|of| of.at);
        if row.len() >= MAX_SHARING
            && let Some(oldest) = oldest.map(|of| Arc::clone(&of.name))
        {
            self.forget(zone, address, &oldest);
        }
        let row = self.ended.entry((zone, address)).or_default();
        row.push(Ended {
            name: Arc::clone(&name),
            at,
        });
        self.order.insert((at, zone, address, name));
        if self.order.len() > MAX_ENDED {
            self.forget_oldest();
        }
    }

    /// An answer grants its addresses anew: nobody is late there any more.
    pub fn granted(&mut self, zone: ZoneId, answer: &Answer) {
        if self.ended.is_empty() {
            return;
        }
        for &address in &answer.addresses {
            self.forget(zone, address, &answer.name);
        }
    }

    /// Counts the packets that a grant that ended would have let through. Where several names' would
    /// have, each counts it.
    pub fn refused(&mut self, packets: &[RefusedPacket], policy: &Policy, now: Moment) {
        while let Some(&(at, ..)) = self.order.first()
            && at.after_seconds(DAY.into()) < now
        {
            self.forget_oldest();
        }
        for packet in packets {
            let Some(zone) = packet.zone else {
                continue;
            };
            let Some(ended) = self.ended.get(&(zone, packet.destination)) else {
                continue;
            };
            let classes = &policy.numbers().classes;
            let wanted = classes.mask_of(packet.protocol, packet.port);
            let opened = ended
                .iter()
                .filter(|of| policy.rules().mask(zone, &of.name).meets(wanted));
            let opened: Vec<_> = opened.map(|of| (Arc::clone(&of.name), of.at)).collect();
            for (name, at) in opened {
                let delay = now.0.saturating_sub(at.0).div_ceil(1000);
                self.count((zone, name), packet.source, delay, now);
            }
        }
    }

    /// The name whose grant of `address` ended last.
    #[must_use]
    pub fn last_name(&self, zone: ZoneId, address: IpAddr) -> Option<Arc<Name>> {
        let ended = self.ended.get(&(zone, address))?;
        let last = ended.iter().max_by_key(|of| of.at)?;
        Some(Arc::clone(&last.name))
    }

    /// Forgets the zones that are no more: their numbers may come to mean others.
    pub fn retain_zones(&mut self, rules: &Rules) {
        let gone = |zone: ZoneId| rules.zone(zone).is_none();
        self.ended.retain(|(zone, _), _| !gone(*zone));
        self.order.retain(|(_, zone, _, _)| !gone(*zone));
        self.names.retain(|(zone, _), row| {
            if gone(*zone) {
                self.clients -= row.clients.len();
            }
            !gone(*zone)
        });
    }

    /// The names that had late clients within the last day, and what to make of it with the present
    /// `grace` in seconds.
    #[must_use]
    pub fn report(&self, zone: Option<ZoneId>, grace: u32, now: Moment) -> Report {
        let rows = self.recent(now);
        let rows = rows.filter(|((of, _), _)| zone.is_none_or(|zone| zone == *of));
        let mut report = Report::default();
        let mut delays = Vec::new();
        let mut clients = BTreeSet::new();
        for ((zone, name), row) in rows {
            let own = row.clients.values().copied().collect();
            report.names.push(LateName {
                zone: *zone,
                name: Arc::clone(name),
                summary: Summary::new(own, row.packets, row.max, grace),
            });
            delays.extend(row.clients.values().copied());
            clients.extend(row.clients.keys().map(|client| (*zone, *client)));
        }
        let of_all = report.names.iter().map(|of| of.summary);
        let packets = of_all.clone().map(|of| of.packets).sum();
        let max = of_all.map(|of| of.max).max().unwrap_or(0);
        report.all = Summary {
            clients: clients.len(),
            ..Summary::new(delays, packets, max, grace)
        };
        let by_packets = |of: &LateName| std::cmp::Reverse(of.summary.packets);
        report.names.sort_by_key(by_packets);
        report
    }

    /// How many names had more than ten late clients within the last day.
    #[must_use]
    pub fn names_of_many(&self, now: Moment) -> usize {
        self.recent(now)
            .filter(|(_, row)| row.clients.len() > MANY)
            .count()
    }

    fn recent(&self, now: Moment) -> impl Iterator<Item = (&(ZoneId, Arc<Name>), &Row)> {
        let rows = self.names.iter();
        rows.filter(move |(_, row)| row.last.after_seconds(DAY.into()) >= now)
    }

    fn count(&mut self, name: (ZoneId, Arc<Name>), client: IpAddr, delay: u64, now: Moment) {
        if !self.names.contains_key(&name) && self.names.len() >= MAX_NAMES {
            let stalest = self.names.iter().min_by_key(|(_, row)| row.last);
            if let Some(stalest) = stalest.map(|(name, _)| name.clone())
                && let Some(row) = self.names.remove(&stalest)
            {
                self.clients -= row.clients.len();
            }
        }
        let row = self.names.entry(name).or_default();
        if row.last.after_seconds(DAY.into()) < now {
            // Of another day: it would not be told any more.
            self.clients -= row.clients.len();
            *row = Row::default();
        }
        row.packets += 1;
        row.max = row.max.max(delay);
        row.last = now;
        if let Some(longest) = row.clients.get_mut(&client) {
            *longest = delay.max(*longest);
        } else if row.clients.len() < MAX_CLIENTS && self.clients < MAX_ALL_CLIENTS {
            row.clients.insert(client, delay);
            self.clients += 1;
        }
    }

    fn forget(&mut self, zone: ZoneId, address: IpAddr, name: &Name) {
        let Some(row) = self.ended.get_mut(&(zone, address)) else {
            return;
        };
        let Some(index) = row.iter().position(|of| *of.name == *name) else {
            return;
        };
        let Ended { name, at } = row.swap_remove(index);
        if row.is_empty() {
            self.ended.remove(&(zone, address));
        }
        self.order.remove(&(at, zone, address, name));
    }

    fn forget_oldest(&mut self) {
        if let Some((_, zone, address, name)) = self.order.pop_first() {
            self.forget(zone, address, &name);
        }
    }
}

impl Summary {
    fn new(mut delays: Vec<u64>, packets: u64, max: u64, grace: u32) -> Self {
        delays.sort_unstable();
        // Nearest rank.
        let covers = |percent: usize| {
            let rank = (delays.len() * percent).div_ceil(100);
            delays.get(rank.saturating_sub(1)).copied().unwrap_or(max)
        };
        let p99 = covers(99);
        let needed = u64::from(grace)
            .saturating_add(p99)
            .div_ceil(60)
            .saturating_mul(60);
        let needed = u32::try_from(needed).unwrap_or(DAY).min(DAY);
        Self {
            clients: delays.len(),
            packets,
            median: covers(50),
            p99,
            max,
            grace: (p99 > 0 && needed > grace).then_some(needed),
        }
    }
}
