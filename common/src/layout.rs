//! How the kernel's maps look: names, keys, values and sizes, as plain arrays of integers that
//! both sides build and read with the functions here. Addresses are wire words, numbers are in the
//! host's byte order.

use crate::decide::{Inbound, Interface, PackedInterface, PackedZone, Place, Role, Zone};
use crate::grants::{Bucket, KINDS};
use crate::transport::protocol;
use crate::verdict::{Action, REASONS, Verdict};
use crate::{MAX_CLASSES, MAX_ZONES};
use core::num::NonZeroU32;

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
    /// Which refused flows were reported lately, see [`super::is_told`]. Array.
    pub const TOLD: &str = "TOLD";
    /// Zone → the round it is about, packets left to nft in it. Array.
    pub const REFERRED: &str = "REFERRED";
    /// (TCP, UDP or SCTP, port) → index into [`MASKS`], one byte each, eight to an entry. Array.
    pub const PORTS: &str = "PORTS";
    /// Bits of the parts of the address space that have places at all. Array.
    pub const HINTS_V4: &str = "HINTS_V4";
    /// As [`HINTS_V4`].
    pub const HINTS_V6: &str = "HINTS_V6";
    /// The distinct class masks of ports, the first one empty, then one for each protocol without
    /// ports. Array.
    pub const MASKS: &str = "MASKS";
    /// The object's only variables: a [`super::Round`]. Array with one entry.
    pub const ROUND: &str = ".bss";
    /// (interface index, tag) → index of the VLAN device that claims it. Hash.
    pub const VLANS: &str = "VLANS";
    /// The gateway's hardware addresses. Hash.
    pub const MACS: &str = "MACS";
    /// Every map.
    pub const MAPS: [&str; 24] = [
        VLANS, MACS, INTERFACES, SOURCES_V4, SOURCES_V6, GRANTS_V4, GRANTS_V6, FILTER_V4,
        FILTER_V6, KINDS, HITS, PLACES_V4, PLACES_V6, SERVES, COUNTERS, REFUSED, THROTTLE, TOLD,
        REFERRED, PORTS, HINTS_V4, HINTS_V6, MASKS, ROUND,
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
    /// Global: what strangers do not know of [`super::flow_hash`], so that no flow can hide behind
    /// another.
    pub const FLOW_SECRET: &str = "FLOW_SECRET";
    /// Global: 1 where nft judges what passes.
    pub const NFT_BEHIND: &str = "NFT_BEHIND";
    /// Global: 1 where a port's byte in [`PORTS`] is its mask.
    pub const FEW_CLASSES: &str = "FEW_CLASSES";
    /// Global: 1 where [`VLANS`] is not empty.
    pub const HAS_VLANS: &str = "HAS_VLANS";
    /// Global: 1 where an interface is a port of a bridge.
    pub const HAS_PORTS: &str = "HAS_PORTS";
    /// Global: the UDP port of [`super::SIGN_OF_LIFE`].
    pub const SIGN_PORT: &str = "SIGN_PORT";
    /// Whether the kernel has a coarse clock for its programs (Linux 5.11).
    pub const COARSE_CLOCK: &str = "COARSE_CLOCK";
}

/// Entry point for XDP.
pub const XDP_PROGRAM: &str = "egressd_xdp";

/// Entry point for TCX.
pub const TCX_PROGRAM: &str = "egressd_tcx";

/// The IPv4 address, 127.0.0.1, of a socket that the daemon has open while it lives. Nobody sends to it; the programs
/// look whether it is there.
pub const SIGN_OF_LIFE: u32 = 0x7f00_0001;

/// Entry point for TCX at egress: what the gateway itself sends.
pub const SENT_PROGRAM: &str = "egressd_sent";

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

/// What user space says ten times a second: how often it took reports, then in the last bits how many
/// refused packets of each zone may be left to nft until it does again, below 2²⁰; the nanosecond of
/// `CLOCK_MONOTONIC` until which they may; a 0.
pub type Round = [u64; 3];

/// The first word of a [`Round`]: so no program sees one part of it without the other.
#[must_use]
pub const fn round(number: u64, referred: u64) -> u64 {
    number << REFERRED_BITS | referred
}

const REFERRED_BITS: u32 = 20;

/// The two parts of the first word of a [`Round`].
#[must_use]
#[inline(always)]
pub const fn round_parts(word: u64) -> (u64, u64) {
    (word >> REFERRED_BITS, word & ((1 << REFERRED_BITS) - 1))
}

/// Rounds for which a refused flow is not reported again: ten seconds.
pub const TOLD_ROUNDS: u32 = 100;

/// Entries of [`name::TOLD`]; a power of two.
pub const TOLD_SLOTS: u32 = 8192;

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
    One(PackedZone),
    /// Several prefixes: look in the trie.
    Several,
}

const SEVERAL: u32 = 1 << 28;

impl Claim {
    /// As a word of an entry.
    #[must_use]
    pub const fn pack(self) -> u32 {
        match self {
            Self::Nobody => 0,
            Self::One(zone) => zone.packed(),
            Self::Several => SEVERAL,
        }
    }

    /// From a word of an entry.
    #[must_use]
    #[inline(always)]
    pub const fn unpack(packed: u32) -> Self {
        match PackedZone::unpack(packed) {
            Some(zone) => Self::One(zone),
            None if packed & SEVERAL != 0 => Self::Several,
            None => Self::Nobody,
        }
    }
}

/// The slot in which to look for an interface at the given probe.
#[must_use]
#[inline(always)]
pub const fn slot(index: u32, probe: u32) -> u32 {
    // Multiplied, because indices come in runs, and one run modulo the slots would lie on another.
    let first = index.wrapping_mul(0x9e37_79b1) >> (32 - SLOTS.trailing_zeros());
    (first + probe) & (SLOTS - 1)
}

const AUDIT: u32 = 1 << 8;
const INBOUND_DENY: u32 = 1 << 9;
const SERVES: u32 = 1 << 10;
const REDIRECT: u32 = 1 << 11;
const PORT: u32 = 1 << 12;
/// Two bits.
const ROLE: u32 = 13;
const ALL_AUDIT: u32 = 1 << 27;
/// Set in every packed zone, and in an interface whose bits are those of its sole zone.
const ZONE: u32 = 1 << 30;
const ETHERNET: u32 = 1 << 31;

impl Zone {
    /// As a map's value.
    #[must_use]
    pub const fn pack(self) -> PackedZone {
        let mut packed = ZONE | self.id as u32;
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
        PackedZone(NonZeroU32::new(packed).expect("a bit is set"))
    }
}

impl PackedZone {
    /// From a map's value, if that is a zone.
    #[must_use]
    #[inline(always)]
    pub const fn unpack(packed: u32) -> Option<Self> {
        let packed = if packed & ZONE != 0 { packed } else { 0 };
        match NonZeroU32::new(packed) {
            Some(packed) => Some(Self(packed)),
            None => None,
        }
    }

    /// As a map's value.
    #[must_use]
    #[inline(always)]
    pub const fn packed(self) -> u32 {
        self.0.get()
    }

    /// [`Zone::id`].
    #[must_use]
    #[inline(always)]
    pub const fn id(self) -> u8 {
        self.0.get() as u8
    }

    /// [`Zone::audit`].
    #[must_use]
    #[inline(always)]
    pub const fn is_audit(self) -> bool {
        self.0.get() & AUDIT != 0
    }

    /// [`Inbound::Deny`].
    #[must_use]
    #[inline(always)]
    pub const fn denies_inbound(self) -> bool {
        self.0.get() & INBOUND_DENY != 0
    }

    /// [`Inbound::Serve`].
    #[must_use]
    #[inline(always)]
    pub const fn serves(self) -> bool {
        self.0.get() & SERVES != 0
    }

    /// [`Zone::redirect`].
    #[must_use]
    #[inline(always)]
    pub const fn redirects(self) -> bool {
        self.0.get() & REDIRECT != 0
    }
}

impl Interface {
    /// As a map's value.
    #[must_use]
    pub const fn pack(self) -> PackedInterface {
        let mut packed = match self.sole {
            Some(zone) => zone.pack().packed(),
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
        PackedInterface(packed | role << ROLE)
    }
}

impl PackedInterface {
    /// [`Interface::role`].
    #[must_use]
    #[inline(always)]
    pub const fn role(self) -> Role {
        match self.0 >> ROLE & 3 {
            0 => Role::Zoned,
            1 => Role::Upstream,
            2 => Role::Unzoned,
            _ => Role::Shut,
        }
    }

    /// [`Interface::port`].
    #[must_use]
    #[inline(always)]
    pub const fn is_port(self) -> bool {
        self.0 & PORT != 0
    }

    /// [`Interface::ethernet`].
    #[must_use]
    #[inline(always)]
    pub const fn is_ethernet(self) -> bool {
        self.0 & ETHERNET != 0
    }

    /// [`Interface::audit`].
    #[must_use]
    #[inline(always)]
    pub const fn is_audit(self) -> bool {
        self.0 & ALL_AUDIT != 0
    }

    /// [`Interface::sole`].
    #[must_use]
    #[inline(always)]
    pub const fn sole(self) -> Option<PackedZone> {
        PackedZone::unpack(self.0)
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

/// What keeps reports rare, per CPU, by [`throttle`].
pub type Throttle = [u64; 5];

/// Parts of a [`Throttle`].
pub mod throttle {
    /// The round it is about.
    pub const ROUND: usize = 0;
    /// Reports in it.
    pub const REPORTS: usize = 1;
    /// Refused packets of all rounds that were not reported because there were too many.
    pub const LOST: usize = 2;
    /// Refused packets of all rounds that were not reported because their flow was told lately.
    pub const REPEATED: usize = 3;
    /// Bits of the zones of which no more packets are left to nft in this round.
    pub const SPENT: usize = 4;
}

/// What left packets of a zone to nft: the round it is about, packets in it. CPUs share it and do not
/// wait for each other: there may be one packet more for each of them.
pub type Referred = [u64; 2];

/// What a refused flow is known by: a hash of its zone, protocol, destination port (the source port is
/// another one with each try) and addresses.
#[must_use]
#[inline(always)]
pub const fn flow_hash(
    secret: u64,
    zone: u8,
    (protocol, port): (u8, u16),
    source: [u32; 4],
    destination: [u32; 4],
) -> u64 {
    let what = (zone as u64) << 24 | (protocol as u64) << 16 | port as u64;
    let [a, b, c, d] = source;
    let [e, f, g, h] = destination;
    let mut hash = mix(secret ^ what);
    hash = mix(hash ^ (a as u64 | (e as u64) << 32));
    hash = mix(hash ^ (b as u64 | (f as u64) << 32));
    hash = mix(hash ^ (c as u64 | (g as u64) << 32));
    mix(hash ^ (d as u64 | (h as u64) << 32))
}

/// Each bit of `word` moves about half of the outcome's.
#[inline(always)]
const fn mix(word: u64) -> u64 {
    let word = (word ^ word >> 32).wrapping_mul(0xd6e8_feb8_6659_fd93);
    let word = (word ^ word >> 32).wrapping_mul(0xd6e8_feb8_6659_fd93);
    word ^ word >> 32
}

/// Where [`name::TOLD`] speaks of a flow.
#[must_use]
#[inline(always)]
pub const fn told_slot(hash: u64) -> u32 {
    hash as u32 & (TOLD_SLOTS - 1)
}

/// The entry of a flow that is reported in this round.
#[must_use]
#[inline(always)]
pub const fn told(hash: u64, round: u64) -> u64 {
    hash & 0xffff_ffff_0000_0000 | round & 0xffff_ffff
}

/// Whether `entry` says that the flow was reported less than [`TOLD_ROUNDS`] ago. It may be wrong about
/// one flow in 2³², of which a report is then lost.
#[must_use]
#[inline(always)]
pub const fn is_told(entry: u64, hash: u64, round: u64) -> bool {
    (entry ^ hash) >> 32 == 0 && (round as u32).wrapping_sub(entry as u32) < TOLD_ROUNDS
}

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
        size_of::<Referred>() as u64,
        TOLD_SLOTS as u64,
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
            let packed = zone.pack();
            assert_eq!(packed.id(), zone.id);
            assert_eq!(packed.is_audit(), zone.audit);
            assert_eq!(packed.denies_inbound(), zone.inbound == Inbound::Deny);
            assert_eq!(packed.serves(), zone.inbound == Inbound::Serve);
            assert_eq!(packed.redirects(), zone.redirect);
            for sole in [None, Some(zone)] {
                let interface = Interface {
                    role: [Role::Zoned, Role::Upstream, Role::Unzoned, Role::Shut]
                        [usize::from(bits % 4)],
                    port: flag(2),
                    ethernet: flag(0),
                    audit: flag(1),
                    sole,
                };
                let packed = interface.pack();
                assert_eq!(packed.role(), interface.role);
                assert_eq!(packed.is_port(), interface.port);
                assert_eq!(packed.is_ethernet(), interface.ethernet);
                assert_eq!(packed.is_audit(), interface.audit);
                let unpacked = packed.sole().map(|zone| {
                    let flags = [zone.is_audit(), zone.denies_inbound(), zone.serves()];
                    (zone.id(), flags, zone.redirects())
                });
                let expected = sole.map(|zone| {
                    let deny = zone.inbound == Inbound::Deny;
                    let flags = [zone.audit, deny, zone.inbound == Inbound::Serve];
                    (zone.id, flags, zone.redirect)
                });
                assert_eq!(unpacked, expected);
            }
            for claim in [Claim::Nobody, Claim::One(zone.pack()), Claim::Several] {
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
    fn a_round_is_one_word() {
        for parts in [(0, 0), (1, 0xf_ffff), (u64::MAX >> REFERRED_BITS, 7)] {
            assert_eq!(round_parts(round(parts.0, parts.1)), parts);
        }
    }

    #[test]
    fn a_flow_is_told_again_after_a_while() {
        let hash = |zone, what, source, destination| {
            flow_hash(7, zone, what, [source, 0, 0, 0], [destination, 0, 0, 0])
        };
        let flow = hash(1, (6, 443), 10, 20);
        let check = |at: u64, now: u64, other: u64, expected| {
            let entry = told(flow, at);
            assert_eq!(is_told(entry, other, now), expected, "{at} {now} {other:x}");
        };
        check(5, 5, flow, true);
        check(5, 104, flow, true);
        check(5, 105, flow, false);
        // The round's lower half comes round after 13 years.
        check(0xffff_ffff, 0x1_0000_0001, flow, true);
        check(0xffff_ffff, 0x1_0000_0063, flow, false);
        for other in [
            hash(2, (6, 443), 10, 20),
            hash(1, (17, 443), 10, 20),
            hash(1, (6, 444), 10, 20),
            hash(1, (6, 443), 11, 20),
            hash(1, (6, 443), 10, 21),
            hash(1, (6, 443), 20, 10),
            flow_hash(8, 1, (6, 443), [10, 0, 0, 0], [20, 0, 0, 0]),
            flow_hash(7, 1, (6, 443), [10, 1, 0, 0], [20, 0, 0, 0]),
            flow_hash(7, 1, (6, 443), [10, 0, 1, 0], [20, 0, 0, 0]),
            flow_hash(7, 1, (6, 443), [10, 0, 0, 1], [20, 0, 0, 0]),
            flow_hash(7, 1, (6, 443), [10, 0, 0, 0], [20, 1, 0, 0]),
            flow_hash(7, 1, (6, 443), [10, 0, 0, 0], [20, 0, 1, 0]),
            flow_hash(7, 1, (6, 443), [10, 0, 0, 0], [20, 0, 0, 1]),
        ] {
            check(5, 5, other, false);
        }
    }

    #[test]
    fn flows_spread_over_the_slots() {
        let mut slots = std::collections::BTreeSet::new();
        for destination in 0..TOLD_SLOTS {
            let to = [(0xc633_0000 + destination).to_be(), 0, 0, 0];
            slots.insert(told_slot(flow_hash(1, 0, (6, 443), [10, 0, 0, 0], to)));
        }
        // A perfect hash fills 63 of 100.
        let spread = slots.len() * 100 / TOLD_SLOTS as usize;
        assert!((60..67).contains(&spread), "{spread} %");
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
