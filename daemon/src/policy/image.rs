//! What planes enforce, as plain values: the whole of it (`Image`) and one step (`Change`).

use super::links::{InterfacePattern, Links};
use super::observed::Observed;
use super::origin::Origin;
use super::port::{ClassId, ClassMask, PortSet, Service};
use super::{Revision, ZoneId};
use ipnet::IpNet;
use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};

/// Everything a plane must enforce. Two planes given the same image admit the same new flows.
#[derive(Clone, Debug, Default)]
pub struct Image {
    /// The policy state this is.
    pub revision: Revision,
    /// The interfaces and addresses the gateway has now.
    pub links: Links,
    /// New connections entering here are not judged.
    pub upstream: Vec<InterfacePattern>,
    /// Destinations that are not egress.
    pub internal: Vec<IpNet>,
    /// What happens to packets forwarded from an interface in no zone (and not upstream).
    pub unzoned: Unzoned,
    /// What each class bit means.
    pub classes: Vec<(ClassId, PortSet)>,
    /// The zones, by id.
    pub zones: Vec<ZoneImage>,
    /// What the gateway itself may send; `None` where its own packets are not judged.
    pub own: Option<Own>,
    /// Refused packets per second and zone that a plane may leave to the one behind it, which refuses and
    /// reports them.
    pub referred: u32,
    /// Whose answers are copied on their way to clients; `None` in forward mode.
    pub observed: Option<Observed>,
    /// What was learned: the open classes of each address, never empty.
    pub grants: Vec<(ZoneId, IpAddr, ClassMask)>,
    /// Where each of the grants comes from, in the same order; those without one are not counted apart.
    pub origins: Vec<Origin>,
    /// Where what is open of a zone's networks comes from.
    pub network_origins: BTreeMap<(ZoneId, IpNet), Origin>,
}

/// How the gateway's own packets are judged: those it sends by an interface that is neither the loopback
/// nor in a zone.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Own {
    /// The zone that they belong to.
    pub zone: ZoneId,
    /// What egressd itself, and nobody else on the gateway, may reach without a grant.
    pub resolvers: Vec<Resolver>,
}

/// One place that egressd itself talks to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Resolver {
    /// IANA protocol number: TCP or UDP.
    pub protocol: u8,
    /// Its port.
    pub port: u16,
    /// Its address.
    pub address: IpAddr,
}

/// `[gateway] unzoned`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Unzoned {
    /// Drop what no zone claims.
    #[default]
    Drop,
    /// Other tables' business.
    Accept,
}

/// One zone as the planes see it.
#[derive(Clone, Debug)]
pub struct ZoneImage {
    /// Its number.
    pub id: ZoneId,
    /// Its name, for counters and log prefixes: ASCII letters, digits, `-`, `_`.
    pub name: String,
    /// Where its clients' packets enter.
    pub interfaces: Vec<InterfacePattern>,
    /// Its clients' addresses, `connected` already resolved; empty means every source on its
    /// interfaces. Among zones on one interface the most specific prefix wins.
    pub sources: Vec<IpNet>,
    /// Drop, or only count and report.
    pub mode: Mode,
    /// Whether others may open connections into the zone.
    pub inbound: Inbound,
    /// What its clients are told of refused packets.
    pub refusal: Refusal,
    /// In what the zone's hosts answer strangers: single UDP ports, and whole protocols that have no ports.
    pub serves: Vec<Service>,
    /// The listeners that answer what the zone's clients send to port 53 of others; empty where that
    /// is not redirected.
    pub redirect: Vec<SocketAddr>,
    /// Catalogue networks with their open classes: disjoint or nested prefixes, denied parts
    /// already cut out. A prefix's mask already includes those of the prefixes that contain it.
    pub networks: Vec<(IpNet, ClassMask)>,
}

/// `mode` of a zone.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Mode {
    /// Refused packets are dropped.
    #[default]
    Enforce,
    /// Refused packets pass, are counted and reported.
    Audit,
}

/// `inbound` of a zone.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Inbound {
    /// Connections into the zone are other tables' business.
    #[default]
    Allow,
    /// Nothing may open a connection into the zone.
    Deny,
}

/// `refuse` of a zone: what its clients are told of what is dropped. Only nft tells, and seldom.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Refusal {
    /// Nothing.
    Drop,
    /// That UDP port 443 is prohibited: browsers then try TCP at once instead of waiting for QUIC.
    #[default]
    Quic,
    /// That it is prohibited, whatever it was.
    Reject,
}

/// One address whose open classes change. `now` empty means the grant is gone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Change {
    /// Whose grant.
    pub zone: ZoneId,
    /// To where.
    pub address: IpAddr,
    /// The classes open before.
    pub was: ClassMask,
    /// The classes open from now on.
    pub now: ClassMask,
    /// Where they come from, as known when they changed.
    pub origin: Origin,
}
