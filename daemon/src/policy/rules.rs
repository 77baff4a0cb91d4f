//! The operator's intent, compiled: which zone asks, which names it may ask, which addresses an
//! answer may teach. Immutable once built; the edges share it as a snapshot.

use super::ZoneId;
use super::catalogue::Catalogue;
use super::image::Unzoned;
use super::links::{InterfacePattern, Links};
use super::name::Name;
use super::zone::ZoneSpec;
use ipnet::IpNet;
use std::net::IpAddr;

/// Everything the operator decided, before it meets the machine's interfaces.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Intent {
    /// New connections entering here are not judged.
    pub upstream: Vec<InterfacePattern>,
    /// Destinations that are not egress.
    pub internal: Vec<IpNet>,
    /// What happens to packets of no zone.
    pub unzoned: Unzoned,
    /// Every catalogue, the built-in one included.
    pub catalogues: Vec<Catalogue>,
    /// Every zone.
    pub zones: Vec<ZoneSpec>,
    /// Caps on what is learned.
    pub limits: Limits,
}

/// Caps on what is learned, and how long it lives.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Most learned addresses per address family, all zones together.
    pub learned: usize,
    /// Most learned addresses that one name may hold in one zone.
    pub per_name: usize,
    /// Most addresses one answer may teach.
    pub per_answer: usize,
    /// Shortest lifetime an answer gets, in seconds.
    pub ttl_floor: u32,
    /// Longest lifetime an answer gets, in seconds.
    pub ttl_ceiling: u32,
    /// Seconds added to every lifetime, for clients that cache too long.
    pub grace: u32,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            learned: 131_072,
            per_name: 1000,
            per_answer: 256,
            ttl_floor: 60,
            ttl_ceiling: 86_400,
            grace: 900,
        }
    }
}

/// The compiled intent.
#[derive(Debug, Default)]
pub struct Rules {
    links: Links,
}

/// What becomes of a question.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ask {
    /// Some allowed set lists the name.
    Forward,
    /// The client gets no answer.
    Refuse(Refusal),
}

/// Why a question is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// No set that the zone may reach lists the name.
    Unlisted,
    /// A `deny` set lists the name.
    Denied,
}

/// Why an address is taken out of an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unfit {
    /// A special-purpose address, with the registry's word for it.
    Special(&'static str),
    /// One of the gateway's own addresses.
    Own,
    /// An address of a subnet the gateway is connected to.
    Connected,
    /// An address that `[gateway] internal` names.
    Internal,
    /// An address in a network of a `deny` set.
    Denied,
}

impl Rules {
    /// The interfaces these rules were compiled for.
    #[must_use]
    pub fn links(&self) -> &Links {
        &self.links
    }

    /// The zone of a client: by the interface its packet entered and its source address. The most
    /// specific source wins among zones on one interface.
    #[must_use]
    pub fn zone_of(&self, _interface: u32, _source: IpAddr) -> Option<ZoneId> {
        None
    }

    /// The name of a zone.
    #[must_use]
    pub fn zone_name(&self, _zone: ZoneId) -> &str {
        ""
    }

    /// Whether clients of `zone` may ask for `name`.
    #[must_use]
    pub fn ask(&self, _zone: ZoneId, _name: &Name) -> Ask {
        Ask::Refuse(Refusal::Unlisted)
    }

    /// Whether an answer may teach `zone` this address (D4). An address that an allowed catalogue
    /// network of the zone holds is fit whatever registry lists it, unless it is the gateway's own.
    ///
    /// # Errors
    /// Says why not.
    pub fn fit(&self, _zone: ZoneId, _address: IpAddr) -> Result<(), Unfit> {
        Err(Unfit::Own)
    }
}
