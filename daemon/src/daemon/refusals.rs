//! PURE. What is told of refused packets: each flow once in a while, with the name that its client
//! asked for and the set that comes nearest to allowing it. Strangers cannot make it grow.

use super::late::Late;
use crate::observe::{Happening, Refused};
use crate::plane::RefusedPacket;
use crate::policy::grant::Policy;
use crate::policy::name::Name;
use crate::policy::nearest::Flow;
use crate::policy::rules::Rules;
use crate::policy::{Moment, ZoneId};
use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv6Addr};
use std::sync::Arc;

/// (Client, address) pairs whose name is remembered; the one not told for longest goes first. About
/// 16 MiB when full.
const MOST_ASKED: usize = 65_536;

/// Addresses remembered of one answer. Clients try the first ones.
const MOST_OF_ANSWER: usize = 32;

/// Flows remembered as told.
const MOST_TOLD: usize = 8192;

/// Seconds for which a flow that was told is not told again.
const APART: u64 = 10;

/// Happenings made of one round's reports, which is a tenth of a second. The rest is counted.
const MOST_AT_ONCE: usize = 256;

/// What was told to whom, and of which packets.
#[derive(Debug, Default)]
pub struct Refusals {
    asked: BTreeMap<Asked, (Arc<Name>, u64)>,
    /// The same by the turn in which they were told last.
    turns: BTreeMap<u64, Asked>,
    turn: u64,
    told: BTreeMap<Told, Moment>,
    forget_at: Moment,
    counts: Counts,
}

/// Whose address: a client (over IPv6 its /64), or anyone of the zone.
type Asked = (ZoneId, Option<IpAddr>, IpAddr);

/// Zone, source, destination, protocol and port.
type Told = (Option<ZoneId>, IpAddr, IpAddr, u8, u16);

/// What became of reports of refused packets.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Told.
    pub told: u64,
    /// Not told, because the same flow was shortly before.
    pub repeated: u64,
    /// Not told, because there were too many at once.
    pub lost: u64,
}

impl Refusals {
    /// Takes note that `client` (or the gateway itself, for the zone) was told that `name` is at
    /// `addresses`.
    pub fn answered(
        &mut self,
        zone: ZoneId,
        client: Option<IpAddr>,
        name: &Name,
        addresses: &[IpAddr],
    ) {
        let name = Arc::new(name.clone());
        for &address in addresses.iter().take(MOST_OF_ANSWER) {
            self.note((zone, None, address), &name);
            if let Some(client) = client {
                self.note((zone, Some(owner(client)), address), &name);
            }
        }
    }

    /// What to tell of `packets`.
    pub fn refused(
        &mut self,
        packets: Vec<RefusedPacket>,
        policy: &Policy,
        late: &Late,
        now: Moment,
    ) -> Vec<Happening> {
        let mut happenings = Vec::new();
        for packet in packets {
            let flow = (
                packet.zone,
                packet.source,
                packet.destination,
                packet.protocol,
                packet.port,
            );
            if self.is_told(&flow, now) {
                self.counts.repeated += 1;
            } else if happenings.len() >= MOST_AT_ONCE || !self.remember(flow, now) {
                self.counts.lost += 1;
            } else {
                self.counts.told += 1;
                let refused = self.enrich(packet, policy, late);
                happenings.push(Happening::PacketRefused(Box::new(refused)));
            }
        }
        happenings
    }

    /// What became of reports so far.
    #[must_use]
    pub fn counts(&self) -> Counts {
        self.counts
    }

    /// Forgets the zones that are no more: their numbers may come to mean others.
    pub fn retain_zones(&mut self, rules: &Rules) {
        let lives = |zone: ZoneId| rules.zone(zone).is_some();
        self.asked.retain(|(zone, ..), _| lives(*zone));
        self.turns.retain(|_, (zone, ..)| lives(*zone));
        self.told.retain(|(zone, ..), _| zone.is_none_or(lives));
    }

    fn note(&mut self, key: Asked, name: &Arc<Name>) {
        self.turn += 1;
        if let Some((_, before)) = self.asked.insert(key, (Arc::clone(name), self.turn)) {
            self.turns.remove(&before);
        }
        self.turns.insert(self.turn, key);
        if self.asked.len() > MOST_ASKED
            && let Some((_, oldest)) = self.turns.pop_first()
        {
            self.asked.remove(&oldest);
        }
    }

    /// The name that led `source` to `destination`: what it was told itself, else what its zone was, and
    /// of what is over longer than that, what ended there.
    fn name(
        &self,
        (zone, source, destination): (ZoneId, IpAddr, IpAddr),
        policy: &Policy,
        late: &Late,
    ) -> Option<Arc<Name>> {
        let asked = |client| self.asked.get(&(zone, client, destination));
        let told = asked(Some(owner(source))).or_else(|| asked(None));
        let learned = || {
            let lessons = policy.grant(zone, destination).map(|grant| &grant.lessons);
            let last = lessons.into_iter().flatten().max_by_key(|of| of.lease);
            last.map(|lesson| Arc::clone(&lesson.name))
        };
        told.map(|(name, _)| Arc::clone(name))
            .or_else(learned)
            .or_else(|| late.last_name(zone, destination))
    }

    fn enrich(&self, packet: RefusedPacket, policy: &Policy, late: &Late) -> Refused {
        let rules = policy.rules();
        let interface = rules.links().0.get(&packet.interface);
        let (source, address) = (packet.source, packet.destination);
        let name = packet
            .zone
            .and_then(|zone| self.name((zone, source, address), policy, late));
        let flow = Flow {
            name: name.as_deref(),
            address,
            protocol: packet.protocol,
            port: packet.port,
        };
        // A header or a source that may not be is not a matter of sets.
        let of_grants = GRANTS.contains(&packet.reason.as_str());
        let nearest = packet.zone.filter(|_| of_grants);
        Refused {
            interface: interface.map(|link| link.name.clone()),
            nearest: nearest
                .and_then(|zone| policy.nearest(zone, flow))
                .map(|nearest| nearest.to_string()),
            name: name.map(|name| (*name).clone()),
            packet,
        }
    }

    fn is_told(&self, flow: &Told, now: Moment) -> bool {
        let told = self.told.get(flow);
        told.is_some_and(|at| now < at.after_seconds(APART))
    }

    /// Remembers a flow as told, where there is room.
    fn remember(&mut self, flow: Told, now: Moment) -> bool {
        if self.told.len() >= MOST_TOLD && self.forget_at <= now {
            self.forget_at = now.after_seconds(1);
            self.told.retain(|_, at| now < at.after_seconds(APART));
        }
        if self.told.len() >= MOST_TOLD && !self.told.contains_key(&flow) {
            return false;
        }
        self.told.insert(flow, now);
        true
    }
}

/// The reasons for which more grants would let a packet pass.
const GRANTS: [&str; 3] = [
    egressd_common::verdict::Reason::NotGranted.word(),
    egressd_common::verdict::Reason::PortNotGranted.word(),
    egressd_common::verdict::Reason::PortClosed.word(),
];

/// Whose questions and packets are one client's: over IPv6 a host changes its address as it likes.
fn owner(address: IpAddr) -> IpAddr {
    match address {
        IpAddr::V4(_) => address,
        IpAddr::V6(v6) => Ipv6Addr::from_bits(v6.to_bits() & u128::MAX << 64).into(),
    }
}
