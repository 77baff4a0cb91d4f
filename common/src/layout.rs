//! How the kernel's maps look: names, keys, values and sizes, as plain arrays of integers that
//! both sides build and read with the functions here. Addresses are wire words, numbers are in the
//! host's byte order.

use crate::decide::{Inbound, Interface, Place, Role, Zone};
use crate::grants::{Bucket, KINDS};
use crate::transport::protocol;
use crate::verdict::{Action, REASONS, Verdict};
use crate::{MAX_CLASSES, MAX_ZONES};

/// Names of maps and globals in the object.
pub mod name {
    /// Slot → entry of an interface. Array.
    pub const INTERFACES: &str = "INTERFACES";
    /// (interface index, source) → packed zone. Trie.
    pub const SOURCES_V4: &str = "SOURCES_V4";
    /// As [`SOURCES_V4`].
    pub const SOURCES_V6: &str = "SOURCES_V6";
    /// Buckets of learned grants, see [`crate::grants`]. Array, mapped into user space.
    pub const GRANTS_V4: &str = "GRANTS_V4";
    /// As [`GRANTS_V4`].
    pub const GRANTS_V6: &str = "GRANTS_V6";
    /// Words of the filter before [`GRANTS_V4`]. Array, mapped into user space.
    pub const FILTER_V4: &str = "FILTER_V4";
    /// As [`FILTER_V4`].
    pub const FILTER_V6: &str = "FILTER_V6";
    /// Kind → the classes that a learned grant of this kind opens. Array, mapped into user space.
    pub const KINDS: &str = "KINDS";
    /// Kind → packets that learned grants and networks of this kind let pass. Array per CPU.
    pub const HITS: &str = "HITS";
    /// (zone, destination) → place. Trie.
    pub const PLACES_V4: &str = "PLACES_V4";
    /// As [`PLACES_V4`].
    pub const PLACES_V6: &str = "PLACES_V6";
    /// (zone, protocol, port) that a zone serves. Hash.
    pub const SERVES: &str = "SERVES";
    /// Packets by zone, action and reason. Array per CPU.
    pub const COUNTERS: &str = "COUNTERS";
    /// Reports of refused packets. Ring buffer.
    pub const REFUSED: &str = "REFUSED";
    /// What keeps reports rare. Array per CPU with one entry.
    pub const THROTTLE: &str = "THROTTLE";
    /// (TCP, UDP or SCTP, port) → index into [`MASKS`], one byte each, eight to an entry. Array.
    pub const PORTS: &str = "PORTS";
    /// Bits of the parts of the address space that have places at all. Array.
    pub const HINTS_V4: &str = "HINTS_V4";
    /// As [`HINTS_V4`].
    pub const HINTS_V6: &str = "HINTS_V6";
    /// The distinct class masks of ports, the first one empty, then one for each protocol without
    /// ports. Array.
    pub const MASKS: &str = "MASKS";
    /// How often user space took reports. Array with one entry.
    pub const ROUND: &str = "ROUND";
    /// (interface index, tag) → index of the VLAN device that claims it. Hash.
    pub const VLANS: &str = "VLANS";
    /// The gateway's hardware addresses. Hash.
    pub const MACS: &str = "MACS";
    /// Every map.
    pub const MAPS: [&str; 22] = [
        VLANS, MACS, INTERFACES, SOURCES_V4, SOURCES_V6, GRANTS_V4, GRANTS_V6, FILTER_V4,
        FILTER_V6, KINDS, HITS, PLACES_V4, PLACES_V6, SERVES, COUNTERS, REFUSED, THROTTLE, PORTS,
        HINTS_V4, HINTS_V6, MASKS, ROUND,
    ];

    /// Global: [`crate::grants::Seed::add`].
    pub const SEED_ADD: &str = "SEED_ADD";
    /// Global: [`crate::grants::Seed::multiply`].
    pub const SEED_MULTIPLY: &str = "SEED_MULTIPLY";
    /// Global: buckets of [`GRANTS_V4`].
    pub const BUCKETS_V4: &str = "BUCKETS_V4";
    /// Global: buckets of [`GRANTS_V6`].
    pub const BUCKETS_V6: &str = "BUCKETS_V6";
    /// Global: words of each filter less one; a power of two less one.
    pub const FILTER_MASK: &str = "FILTER_MASK";
    /// Global: 1 where nft judges what passes.
    pub const NFT_BEHIND: &str = "NFT_BEHIND";
    /// Global: 1 where [`VLANS`] is not empty.
    pub const HAS_VLANS: &str = "HAS_VLANS";
    /// Global: 1 where an interface is a port of a bridge.
    pub const HAS_PORTS: &str = "HAS_PORTS";
}

/// Entry point for XDP.
pub const XDP_PROGRAM: &str = "egressd_xdp";

/// Entry point for TCX.
pub const TCX_PROGRAM: &str = "egressd_tcx";

/// Raised whenever the meaning of an entry changes while its size does not.
const VERSION: u64 = 4;

/// Slots for interfaces; a power of two. An entry is at its index's slot or shortly after.
pub const SLOTS: u32 = 4096;

/// Slots in which an entry may be.
pub const PROBES: u32 = 8;

/// Words of the hints of one family: a bit for each of 65,536 parts of the address space.
pub const HINTS: usize = 1024;

/// Distinct class masks that the port table can tell apart.
pub const PORT_MASKS: usize = 256;

/// Entries of [`name::MASKS`]: those of ports, then one per protocol.
pub const MASKS: usize = PORT_MASKS + 256;

/// Bytes of the port table: one per port of TCP, UDP and SCTP.
pub const PORTS: usize = 3 << 16;

/// Reports of refused packets per CPU between two times that user space takes them. It does so
/// ten times a second; a clock in the kernel would cost every refused packet a tenth of its time.
pub const REPORTS_PER_ROUND: u64 = 20;

/// Bytes of the ring buffer of reports: a round's worth of them on 200 CPUs.
pub const REFUSED_BYTES: u32 = 256 * 1024;

/// Most learned addresses per family unless configured otherwise.
pub const DEFAULT_LEARNED: u32 = 131_072;

/// Key of a hash or data of a trie for IPv4: zone or interface index, then the address.
pub type KeyV4 = [u32; 2];

/// Key of a hash or data of a trie for IPv6: zone or interface index, then the address.
pub type KeyV6 = [u32; 5];

/// An address that can follow a number in a key.
pub trait Keyed: Sized {
    /// The key.
    type Key;

    /// `number` and this address as a key.
    fn after(&self, number: u32) -> Self::Key;

    /// The part of the address space it lies in: the upper 16 bits of an IPv4 address, a hash of
    /// the upper 32 bits of an IPv6 address.
    fn part(&self) -> u16;
}

impl Keyed for crate::address::V4 {
    type Key = KeyV4;

    #[inline(always)]
    fn after(&self, number: u32) -> KeyV4 {
        [number, self[0]]
    }

    #[inline(always)]
    fn part(&self) -> u16 {
        (u32::from_be(self[0]) >> 16) as u16
    }
}

impl Keyed for crate::address::V6 {
    type Key = KeyV6;

    #[inline(always)]
    fn after(&self, number: u32) -> KeyV6 {
        [number, self[0], self[1], self[2], self[3]]
    }

    #[inline(always)]
    fn part(&self) -> u16 {
        (u32::from_be(self[0]).wrapping_mul(0x9e37_79b1) >> 16) as u16
    }
}

/// Bits of a trie's data before the address.
pub const KEY_PREFIX: u32 = 32;

/// An interface in the kernel: its index (0: a free slot), the packed interface, then for IPv4 and
/// for IPv6 a claim, a network and a mask.
pub type Entry = [u32; 14];

/// Who claims the sources of one family on an interface.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Claim {
    /// No zone.
    Nobody,
    /// One zone, with the one prefix in the entry.
    One(Zone),
    /// Several prefixes: look in the trie.
    Several,
}

const ONE: u32 = 1 << 29;
const SEVERAL: u32 = 1 << 28;

impl Claim {
    /// As a word of an entry.
    #[must_use]
    pub const fn pack(self) -> u32 {
        match self {
            Self::Nobody => 0,
            Self::One(zone) => ONE | zone.pack(),
            Self::Several => SEVERAL,
        }
    }

    /// From a word of an entry.
    #[must_use]
    #[inline(always)]
    pub const fn unpack(packed: u32) -> Self {
        if packed & ONE != 0 {
            Self::One(Zone::unpack(packed))
        } else if packed & SEVERAL != 0 {
            Self::Several
        } else {
            Self::Nobody
        }
    }
}

/// The slot in which to look for an interface at the given probe.
#[must_use]
#[inline(always)]
pub const fn slot(index: u32, probe: u32) -> u32 {
    index.wrapping_add(probe) & (SLOTS - 1)
}

const AUDIT: u32 = 1 << 8;
const INBOUND_DENY: u32 = 1 << 9;
const SERVES: u32 = 1 << 10;
const REDIRECT: u32 = 1 << 11;
const PORT: u32 = 1 << 12;
/// Two bits.
const ROLE: u32 = 13;
const ALL_AUDIT: u32 = 1 << 27;
const SOLE: u32 = 1 << 30;
const ETHERNET: u32 = 1 << 31;

impl Zone {
    /// As a map's value.
    #[must_use]
    pub const fn pack(self) -> u32 {
        let mut packed = self.id as u32;
        if self.audit {
            packed |= AUDIT;
        }
        match self.inbound {
            Inbound::Deny => packed |= INBOUND_DENY,
            Inbound::Allow => {}
            Inbound::Serve => packed |= SERVES,
        }
        if self.redirect {
            packed |= REDIRECT;
        }
        packed
    }

    /// From a map's value.
    #[must_use]
    #[inline(always)]
    pub const fn unpack(packed: u32) -> Self {
        Self {
            id: packed as u8,
            audit: packed & AUDIT != 0,
            inbound: if packed & INBOUND_DENY != 0 {
                Inbound::Deny
            } else if packed & SERVES != 0 {
                Inbound::Serve
            } else {
                Inbound::Allow
            },
            redirect: packed & REDIRECT != 0,
        }
    }
}

impl Interface {
    /// As a map's value.
    #[must_use]
    pub const fn pack(self) -> u32 {
        let mut packed = match self.sole {
            Some(zone) => SOLE | zone.pack(),
            None => 0,
        };
        if self.audit {
            packed |= ALL_AUDIT;
        }
        if self.ethernet {
            packed |= ETHERNET;
        }
        if self.port {
            packed |= PORT;
        }
        let role = match self.role {
            Role::Zoned => 0,
            Role::Upstream => 1,
            Role::Unzoned => 2,
            Role::Shut => 3,
        };
        packed | role << ROLE
    }

    /// From a map's value.
    #[must_use]
    #[inline(always)]
    pub const fn unpack(packed: u32) -> Self {
        Self {
            role: match packed >> ROLE & 3 {
                0 => Role::Zoned,
                1 => Role::Upstream,
                2 => Role::Unzoned,
                _ => Role::Shut,
            },
            port: packed & PORT != 0,
            ethernet: packed & ETHERNET != 0,
            audit: packed & ALL_AUDIT != 0,
            sole: if packed & SOLE != 0 {
                Some(Zone::unpack(packed))
            } else {
                None
            },
        }
    }
}

impl Place {
    /// As a map's value.
    #[must_use]
    pub const fn pack(self) -> [u64; 2] {
        [
            self.mask,
            self.own as u64
                | (self.internal as u64) << 1
                | (self.inside as u64) << 2
                | (self.kind as u64) << 16,
        ]
    }

    /// From a map's value.
    #[must_use]
    #[inline(always)]
    pub const fn unpack([mask, flags]: [u64; 2]) -> Self {
        Self {
            mask,
            own: flags & 1 != 0,
            internal: flags & 2 != 0,
            inside: flags & 4 != 0,
            kind: (flags >> 16) as u16,
        }
    }
}

/// Where the port table speaks of `port`, in bytes; `None` for protocols that it does not hold.
#[must_use]
#[inline(always)]
pub const fn port_index(protocol: u8, port: u16) -> Option<usize> {
    let table = match protocol {
        protocol::TCP => 0,
        protocol::UDP => 1,
        protocol::SCTP => 2,
        _ => return None,
    };
    Some(table << 16 | port as usize)
}

/// The index into [`name::MASKS`] that an entry of [`name::PORTS`] holds for a port.
#[must_use]
#[inline(always)]
pub const fn port_class(entry: u64, port: u16) -> u8 {
    (entry >> ((port & 7) * 8)) as u8
}

/// Key of [`name::SERVES`]. The port is 0 for protocols without ports.
#[must_use]
#[inline(always)]
pub const fn serves_key(zone: u8, protocol: u8, port: u16) -> u32 {
    (zone as u32) << 24 | (protocol as u32) << 16 | port as u32
}

/// Entries of [`name::COUNTERS`]: for each zone and for none, each action, each reason.
pub const COUNTERS: usize = (MAX_ZONES + 1) * Action::ALL.len() * REASONS;

/// Where packets with this verdict are counted.
#[must_use]
#[inline(always)]
pub const fn counter_index(verdict: Verdict) -> u32 {
    let zone = if (verdict.zone as usize) < MAX_ZONES {
        verdict.zone as usize
    } else {
        MAX_ZONES
    };
    let row = zone * Action::ALL.len() + verdict.action as usize;
    (row * REASONS + verdict.reason as usize) as u32
}

/// What keeps reports rare, per CPU: the round it is about, reports in it, reports lost so far.
pub type Throttle = [u64; 3];

/// A report of a refused packet: interface; zone, action, reason, protocol; port and IP version;
/// nothing; source; destination. IPv4 addresses are in the first of four words.
pub type Report = [u32; 12];

/// Builds a report. `version` is 4 or 6.
#[must_use]
#[inline(always)]
pub const fn report(
    interface: u32,
    verdict: Verdict,
    (protocol, port): (u8, u16),
    version: u8,
    source: [u32; 4],
    destination: [u32; 4],
) -> Report {
    let why = u32::from_ne_bytes([
        verdict.zone,
        verdict.action as u8,
        verdict.reason as u8,
        protocol,
    ]);
    let what = port as u32 | (version as u32) << 16;
    let ([a, b, c, d], [e, f, g, h]) = (source, destination);
    [interface, why, what, 0, a, b, c, d, e, f, g, h]
}

/// A hash of everything above that both sides must agree on. Pins live under its name.
pub const HASH: u64 = {
    let sizes = [
        VERSION,
        MAX_CLASSES as u64,
        MAX_ZONES as u64,
        size_of::<KeyV4>() as u64,
        size_of::<KeyV6>() as u64,
        size_of::<Bucket>() as u64,
        KINDS as u64,
        size_of::<Entry>() as u64,
        SLOTS as u64,
        size_of::<Throttle>() as u64,
        size_of::<Report>() as u64,
        MASKS as u64,
        PORTS as u64,
        COUNTERS as u64,
    ];
    let mut hash = 0xcbf2_9ce4_8422_2325;
    let mut i = 0;
    while i < sizes.len() {
        hash = fnv(hash, &sizes[i].to_le_bytes());
        i += 1;
    }
    let mut i = 0;
    while i < name::MAPS.len() {
        hash = fnv(hash, name::MAPS[i].as_bytes());
        i += 1;
    }
    hash
};

/// FNV-1a over `bytes`, going on from `hash`.
const fn fnv(mut hash: u64, bytes: &[u8]) -> u64 {
    let mut i = 0;
    while i < bytes.len() {
        hash = (hash ^ bytes[i] as u64).wrapping_mul(0x0000_0100_0000_01b3);
        i += 1;
    }
    hash
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::verdict::{NO_ZONE, Reason};

    #[test]
    fn packing_loses_nothing() {
        for bits in 0..12u8 {
            let flag = |n: u8| bits >> n & 1 == 1;
            let zone = Zone {
                id: 63 - bits,
                audit: flag(0),
                inbound: [Inbound::Deny, Inbound::Allow, Inbound::Serve][usize::from(bits / 4)],
                redirect: flag(1),
            };
            assert_eq!(Zone::unpack(zone.pack()), zone);
            for sole in [None, Some(zone)] {
                let interface = Interface {
                    role: [Role::Zoned, Role::Upstream, Role::Unzoned, Role::Shut]
                        [usize::from(bits % 4)],
                    port: flag(2),
                    ethernet: flag(0),
                    audit: flag(1),
                    sole,
                };
                assert_eq!(Interface::unpack(interface.pack()), interface);
            }
            for claim in [Claim::Nobody, Claim::One(zone), Claim::Several] {
                assert_eq!(Claim::unpack(claim.pack()), claim);
            }
            let place = Place {
                mask: 1 << 63 | 5,
                own: flag(0),
                internal: flag(1),
                inside: flag(2),
                kind: 1023 - u16::from(bits),
            };
            assert_eq!(Place::unpack(place.pack()), place);
        }
    }

    #[test]
    fn every_verdict_has_its_own_counter() {
        let mut seen = vec![false; COUNTERS];
        for zone in (0..64).chain([NO_ZONE]) {
            for action in Action::ALL {
                for &reason in Reason::ALL {
                    let index = counter_index(Verdict {
                        action,
                        reason,
                        zone,
                    }) as usize;
                    assert!(!std::mem::replace(&mut seen[index], true));
                }
            }
        }
    }
}
