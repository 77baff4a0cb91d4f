//! Kernel mechanisms that enforce grants, behind one trait. Planes are ANDed: a packet passes only
//! where every plane lets it, so a partial failure refuses and never leaks.

use crate::policy::ZoneId;
use crate::policy::image::{Change, Image};
use crate::policy::origin::Origin;
use crate::policy::port::ClassMask;
use drift::{Drift, Found, Outcome, Word};
use std::collections::BTreeMap;
use std::net::IpAddr;
use std::os::fd::OwnedFd;

pub mod conntrack;
pub mod copies;
pub mod drift;
pub mod ebpf;
pub mod model;
pub mod netlink;
pub mod nflog;
pub mod nft;
pub mod ruleset;
#[cfg(any(test, feature = "trials"))]
pub mod trial;

/// One kernel mechanism. All calls block; they run on the planes' own thread.
pub trait Plane: Send {
    /// `nft`, `ebpf` or, in tests, `model`.
    fn name(&self) -> &'static str;

    /// Puts `image` in force whole, without a moment in which less is refused than before or after.
    /// On an error the state before stays in force.
    ///
    /// # Errors
    /// When the kernel refuses; nothing changed.
    fn replace(&mut self, image: &Image) -> anyhow::Result<()>;

    /// Applies `changes`. A change the kernel refuses does not take its neighbours with it: the
    /// returned list names the changes that are not in force (empty: all are).
    ///
    /// # Errors
    /// When the state of the kernel is unknown afterwards and the caller must `replace`.
    fn apply(&mut self, changes: &[Change]) -> anyhow::Result<Vec<Change>>;

    /// What the kernel really holds of the learned grants, read back from it.
    ///
    /// # Errors
    /// When it cannot be read.
    fn read(&mut self) -> anyhow::Result<Holdings>;

    /// The open classes the kernel really holds for one address: learned and network grants.
    ///
    /// # Errors
    /// When it cannot be read.
    fn holds(&mut self, zone: ZoneId, address: IpAddr) -> anyhow::Result<ClassMask>;

    /// Whether the mechanism is still in place (cheap: handles, owner, ids; no full read).
    ///
    /// # Errors
    /// Says what is missing or foreign; the caller must `replace`.
    fn verify(&mut self) -> anyhow::Result<()>;

    /// Looks as [`Plane::verify`] does, and puts right what it can from what it remembers itself: within
    /// a few milliseconds, without the other planes. Returns every difference it found. To be called
    /// often, but never before the first [`Plane::replace`] nor while one is due.
    fn mend(&mut self) -> Vec<Drift> {
        let found = self.verify().err();
        let found = found.map(|error| Drift {
            plane: self.name(),
            found: Found::new(Word::Unknown, format!("{error:#}")),
            outcome: Outcome::Replace(String::new()),
        });
        found.into_iter().collect()
    }

    /// The moment (boot clock, ms) a packet last used each of `addresses`, where this plane knows.
    fn last_seen(&mut self, _addresses: &[(ZoneId, IpAddr)]) -> BTreeMap<(ZoneId, IpAddr), u64> {
        BTreeMap::new()
    }

    /// Packet counters since the plane started, for metrics and `status`.
    fn counters(&mut self) -> Vec<Counter> {
        Vec::new()
    }

    /// Packets that learned grants and networks let pass since the plane started, by the zone's name and
    /// by where these come from, if this plane tells them apart.
    fn hits(&mut self) -> BTreeMap<(String, Origin), u64> {
        BTreeMap::new()
    }

    /// The packets refused (or audited) since the last call, as far as this plane reports single
    /// packets; never waits. Call it several times a second.
    fn refused(&mut self) -> Vec<RefusedPacket> {
        Vec::new()
    }

    /// Whether it leaves some of the packets it refuses to the planes before it. Then [`Plane::rely`] is
    /// called several times a second.
    fn refers(&self) -> bool {
        false
    }

    /// Whether it is in place, and nobody can take it away before the next look: then the plane behind it
    /// may leave packets to it.
    fn stands_firm(&mut self) -> bool {
        self.verify().is_ok()
    }

    /// Says whether the planes before this one were just found in place. While they are not, nothing may
    /// be left to them.
    fn rely(&mut self, _in_place: bool) {}

    /// What a service manager may hold while no process of egressd runs, so that what is in force stays this
    /// program's own: to be given to the next process before it opens the plane. Better asked for before the
    /// first replacement; only after it is known whether the kernel makes any use of it.
    fn keepsake(&self) -> Option<OwnedFd> {
        None
    }

    /// How it is attached, in words for `status`, such as `table inet egressd, owned` or
    /// `lan0: xdp native`.
    fn describe(&self) -> Vec<String>;
}

/// Learned grants as a plane holds them.
pub type Holdings = BTreeMap<(ZoneId, IpAddr), ClassMask>;

/// One packet counter.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Counter {
    /// The zone's name, or empty for packets of no zone.
    pub zone: String,
    /// `pass`, `drop` or `audit` (would have been dropped).
    pub action: &'static str,
    /// The one word why.
    pub reason: String,
    /// Packets so far.
    pub packets: u64,
}

/// A packet that a plane refused (or, in audit mode, would have).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RefusedPacket {
    /// The plane that refused it.
    pub plane: &'static str,
    /// Its zone, if it is in one.
    pub zone: Option<ZoneId>,
    /// Ingress interface index.
    pub interface: u32,
    /// Source address.
    pub source: IpAddr,
    /// Destination address, as the client asked for it.
    pub destination: IpAddr,
    /// IANA protocol number.
    pub protocol: u8,
    /// Destination port; 0 where the protocol has none.
    pub port: u16,
    /// The one word why.
    pub reason: String,
    /// Whether it passed all the same, because the zone is in audit mode.
    pub audited: bool,
}
