//! The verdict: a pure function of a frame and the tables it is looked up in. Everything that may
//! pass or must not is decided here and nowhere else.

use crate::address::{Address, V4, V6};
use crate::frame::Frame;
use crate::link::{Mac, Network, bare, ethernet, is_bridged, is_tagged};
use crate::network::{Packet, ipv4, ipv6};
use crate::transport::{Start, Transport, protocol};
use crate::verdict::{Action, NO_ZONE, Reason, Verdict};
use core::num::NonZeroU32;

/// The port of DNS over UDP and TCP (RFC 1035 §4.2).
const DNS: u16 = 53;

/// The ports of a DHCP client and its servers (RFC 2131 §4.1).
pub const DHCP: (u16, u16) = (68, 67);
/// Those of DHCPv6 (RFC 9915 §7.2).
pub const DHCP_V6: (u16, u16) = (546, 547);

/// A zone as a packet meets it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Zone {
    /// Its number, below [`crate::MAX_ZONES`].
    pub id: u8,
    /// Refused packets pass and are counted.
    pub audit: bool,
    /// Who may open connections into it.
    pub inbound: Inbound,
    /// What it sends to port 53 of others is redirected to the gateway, by nft.
    pub redirect: bool,
}

/// A [`Zone`] in one word, as maps hold it. The verdict reads its bits where they lie. It is never 0, so
/// that none is one word as well: the verifier refuses programs that so much as move an unset one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PackedZone(pub(crate) NonZeroU32);

/// Who may open connections into a zone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Inbound {
    /// Nobody, so that every packet out of it is judged.
    Deny,
    /// Whoever others let in.
    Allow,
    /// As `Allow`, and its hosts serve UDP ports or protocols without ports, see [`Lookup::serves`].
    Serve,
}

/// An interface as a packet meets it. Only zones' interfaces and the VLAN devices on them have one: a
/// source that no zone claims on a zone's interface is forged, whatever becomes of packets from
/// interfaces in no zone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Interface {
    /// What becomes of its packets.
    pub role: Role,
    /// It is a port of a bridge.
    pub port: bool,
    /// Frames begin with an Ethernet header.
    pub ethernet: bool,
    /// Every zone here is in audit mode, so that packets of none of them pass as well.
    pub audit: bool,
    /// The one zone that takes every source here; `None` means that the source decides.
    pub sole: Option<Zone>,
}

/// An [`Interface`] in one word, as maps hold it. Its bits are those of its sole zone as well.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PackedInterface(pub u32);

/// What becomes of the packets of an interface. Only VLAN devices on a zone's interface, which packets
/// come to by their tag, can be other than `Zoned`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// Its zones' policies say. What comes to such a VLAN device by its tag and passes is judged once
    /// more by the device's own program, and counted there: so a tag that the card takes off unseen
    /// takes nothing past the judgement.
    Zoned,
    /// It is upstream: everything passes.
    Upstream,
    /// It is in no zone: everything is left to nft, or to whatever the configuration trusts.
    Unzoned,
    /// It is in no zone, and nothing behind would drop what no zone claims.
    Shut,
}

/// What is known of a destination beside its learned grant.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Place {
    /// The classes that catalogue networks open there.
    pub mask: u64,
    /// It is one of the gateway's own addresses.
    pub own: bool,
    /// It is in `internal`.
    pub internal: bool,
    /// It is among a zone's sources or in a subnet connected to a zone's interface. Never set
    /// where nft is not behind.
    pub inside: bool,
    /// By which number [`Lookup::reached`] counts what those classes let pass.
    pub kind: u16,
}

/// Tables by address family.
pub trait Tables<A> {
    /// The zone of a packet from `source` on `interface`, by the most specific prefix.
    fn zone(&self, interface: u32, source: &A) -> Option<PackedZone>;

    /// The classes learned for `destination`. Where they meet `classes`, the use is remembered.
    fn grant(&self, zone: u8, destination: &A, classes: u64) -> u64;

    /// What else is known of `destination`; `zone` may be [`NO_ZONE`].
    fn place(&self, zone: u8, destination: &A) -> Place;

    /// Called once for each refused packet whose addresses are known. Says whether it is left to nft
    /// instead, which `may_refer` says is behind and refuses it as well; it is then counted as one.
    fn refused(
        &self,
        _interface: u32,
        _packet: &Packet<A>,
        _verdict: Verdict,
        _may_refer: bool,
    ) -> bool {
        false
    }
}

/// Everything the verdict is looked up in.
pub trait Lookup: Tables<V4> + Tables<V6> {
    /// The entry of an interface.
    fn interface(&self, index: u32) -> Option<PackedInterface>;

    /// The VLAN device on interface `index` that claims this [`crate::link::tag`].
    fn vlan(&self, index: u32, tag: u32) -> Option<u32>;

    /// Whether there are any VLAN devices to ask [`Self::vlan`] for.
    fn has_vlans(&self) -> bool;

    /// Whether a hardware address is one of the gateway's.
    fn is_own_mac(&self, mac: Mac) -> bool;

    /// Whether any interface is a port of a bridge.
    fn has_ports(&self) -> bool;

    /// The classes that hold `port` of `protocol` (0 where the protocol has no ports).
    fn classes(&self, protocol: u8, port: u16) -> u64;

    /// Whether the zone's hosts answer strangers from this UDP port, or in this protocol without
    /// ports (port 0).
    fn serves(&self, zone: u8, protocol: u8, port: u16) -> bool;

    /// Whether what passes here is judged again by nft, which knows flows.
    fn nft_behind(&self) -> bool;

    /// Called once for each packet that the classes of a place let pass.
    fn reached(&self, _place: Place) {}
}

/// The verdict on `frame`, which entered on the interface with this index.
#[inline(always)]
pub fn decide<F: Frame, L: Lookup>(frame: &F, entered: u32, lookup: &L) -> Verdict {
    let index = if lookup.has_vlans() {
        frame.device(entered, lookup)
    } else {
        entered
    };
    let Some(interface) = lookup.interface(index) else {
        return unzoned(Action::Drop, Reason::NoInterface);
    };
    if lookup.has_vlans() {
        match interface.role() {
            Role::Upstream => return unzoned(Action::Pass, Reason::Upstream),
            Role::Unzoned => return unzoned(Action::Pass, Reason::Unzoned),
            Role::Zoned | Role::Shut => {}
        }
    }
    let verdict = decide_at(frame, index, interface, lookup);
    let again = lookup.has_vlans() && index != entered && interface.role() == Role::Zoned;
    if again && verdict.action.passes() {
        return Verdict {
            action: Action::Pass,
            reason: Reason::Vlan,
            ..verdict
        };
    }
    verdict
}

/// The bit that tells the entry of what leaves by an interface from that of what comes in there. Indices
/// are below it.
pub const SENT: u32 = 1 << 31;

/// The verdict on `frame`, which the gateway itself sends by the interface with this index. nft has let it
/// pass already: so nothing is left to it, and what may belong to a flow that it knows passes.
#[inline(always)]
pub fn decide_sent<F: Frame, L: Lookup>(frame: &F, index: u32, lookup: &L) -> Verdict {
    let Some(interface) = lookup.interface(index | SENT) else {
        return unzoned(Action::Pass, Reason::Unzoned);
    };
    // It left a VLAN device, whose own program judges it if anyone does.
    if interface.is_ethernet() && is_tagged(frame) {
        return unzoned(Action::Pass, Reason::Vlan);
    }
    let network = if interface.is_ethernet() {
        ethernet(frame)
    } else {
        bare(frame)
    };
    let reason = match network {
        Ok(Network::V4(at)) => match ipv4(frame, at) {
            Ok(packet) => return judge_sent(&packet, index, interface, lookup),
            Err(reason) => reason,
        },
        Ok(Network::V6(at)) => match ipv6(frame, at) {
            Ok(packet) => return judge_sent(&packet, index, interface, lookup),
            Err(reason) => reason,
        },
        Err(Reason::NotIp) => return conclude(Ok(Reason::NotIp), None, interface),
        Err(reason) => reason,
    };
    conclude(Err(reason), interface.sole(), interface)
}

/// Whether a datagram from the first port to the second belongs to a lease, whichever way it goes.
#[must_use]
#[inline(always)]
pub fn is_lease((from, to): (u16, u16)) -> bool {
    let either = |ports| ports == (from, to) || ports == (to, from);
    either(DHCP) || either(DHCP_V6)
}

#[inline(always)]
fn judge_sent<A: Address, L: Lookup + Tables<A>>(
    packet: &Packet<A>,
    index: u32,
    interface: PackedInterface,
    lookup: &L,
) -> Verdict {
    let zone = interface.sole();
    let transport = packet.transport;
    let ports = (transport.source_port(), transport.port());
    let lease =
        transport.trouble().is_none() && transport.protocol() == protocol::UDP && is_lease(ports);
    let outcome = if lease {
        Ok(Reason::LinkBound)
    } else {
        admit(packet, zone, lookup)
    };
    let verdict = conclude(outcome, zone, interface);
    match verdict.action {
        Action::Pass | Action::Refer => {}
        Action::Drop | Action::Audit => {
            lookup.refused(index, packet, verdict, false);
        }
    }
    verdict
}

/// The verdict on `frame`, which comes in on `interface`.
#[inline(always)]
fn decide_at<F: Frame, L: Lookup>(
    frame: &F,
    index: u32,
    interface: PackedInterface,
    lookup: &L,
) -> Verdict {
    if lookup.has_ports() && interface.is_port() && is_bridged(frame, lookup) {
        return conclude(Ok(Reason::Bridged), None, interface);
    }
    let network = if interface.is_ethernet() {
        ethernet(frame)
    } else {
        bare(frame)
    };
    let reason = match network {
        Ok(Network::V4(at)) => match ipv4(frame, at) {
            Ok(packet) => return judge(&packet, index, interface, lookup),
            Err(reason) => reason,
        },
        Ok(Network::V6(at)) => match ipv6(frame, at) {
            Ok(packet) => return judge(&packet, index, interface, lookup),
            Err(reason) => reason,
        },
        Err(Reason::NotIp) => return conclude(Ok(Reason::NotIp), None, interface),
        Err(reason) => reason,
    };
    conclude(Err(reason), interface.sole(), interface)
}

/// The verdict on a packet already read, for `explain` too.
#[inline(always)]
pub fn judge<A: Address, L: Lookup + Tables<A>>(
    packet: &Packet<A>,
    index: u32,
    interface: PackedInterface,
    lookup: &L,
) -> Verdict {
    let zone = match interface.sole() {
        Some(zone) => Some(zone),
        None => lookup.zone(index, &packet.source),
    };
    let verdict = conclude(admit(packet, zone, lookup), zone, interface);
    let may_refer = match verdict.action {
        Action::Pass | Action::Refer => return verdict,
        // What enters by a port of a bridge may go on there, where nft's forward chain does not see it.
        Action::Drop => !interface.is_port() && nft_refuses_too(packet, verdict, lookup),
        Action::Audit => false,
    };
    if lookup.refused(index, packet, verdict, may_refer) {
        return Verdict {
            action: Action::Refer,
            ..verdict
        };
    }
    verdict
}

/// A verdict in which no zone has part.
const fn unzoned(action: Action, reason: Reason) -> Verdict {
    Verdict {
        action,
        reason,
        zone: NO_ZONE,
    }
}

/// Whether nft refuses a packet that is dropped here. It does where the zone's grants alone decided, on
/// a packet that starts something: of a flow that is under way nft may think otherwise, and what is
/// wrong with a header it does not look for.
#[inline(always)]
fn nft_refuses_too<A: Address, L: Lookup + Tables<A>>(
    packet: &Packet<A>,
    verdict: Verdict,
    lookup: &L,
) -> bool {
    let of_grants = match verdict.reason {
        Reason::NotGranted | Reason::PortNotGranted | Reason::PortClosed => true,
        Reason::NotIp
        | Reason::Group
        | Reason::Local
        | Reason::LinkBound
        | Reason::Internal
        | Reason::Inside
        | Reason::Granted
        | Reason::Network
        | Reason::Continues
        | Reason::Serves
        | Reason::LaterFragment
        | Reason::Unzoned
        | Reason::Redirected
        | Reason::Bridged
        | Reason::Upstream
        | Reason::Vlan
        | Reason::Spoofed
        | Reason::Martian
        | Reason::Truncated
        | Reason::Malformed
        | Reason::Options
        | Reason::SourceRoute
        | Reason::Extensions
        | Reason::DoubleFragment
        | Reason::TinyFragment
        | Reason::Tags
        | Reason::NoInterface => false,
    };
    of_grants && packet.transport.start() == Start::Opens && lookup.nft_behind()
}

#[inline(always)]
fn conclude(
    outcome: Result<Reason, Reason>,
    zone: Option<PackedZone>,
    interface: PackedInterface,
) -> Verdict {
    let (id, audit) = match zone {
        Some(zone) => (zone.id(), zone.is_audit()),
        None => (NO_ZONE, interface.is_audit()),
    };
    let (action, reason) = match outcome {
        Ok(reason) => (Action::Pass, reason),
        Err(reason) if audit => (Action::Audit, reason),
        Err(reason) => (Action::Drop, reason),
    };
    Verdict {
        action,
        reason,
        zone: id,
    }
}

/// Passes or refuses. The gateway's own addresses come before header sanity, but are looked up
/// only where the packet would be refused.
#[inline(always)]
fn admit<A: Address, L: Lookup + Tables<A>>(
    packet: &Packet<A>,
    zone: Option<PackedZone>,
    lookup: &L,
) -> Result<Reason, Reason> {
    let Packet {
        source,
        destination,
        transport,
    } = packet;
    if destination.is_group() {
        return Ok(Reason::Group);
    }
    if source.is_bound_to_link() || destination.is_link_local() {
        return Ok(Reason::LinkBound);
    }
    let trouble = match transport.trouble() {
        Some(Reason::LaterFragment) if lookup.nft_behind() => return Ok(Reason::LaterFragment),
        None if source.is_martian_source() => Some(Reason::Martian),
        trouble => trouble,
    };
    if let (None, Some(zone)) = (trouble, zone) {
        return admit_from(zone, destination, *transport, lookup);
    }
    if lookup
        .place(zone.map_or(NO_ZONE, PackedZone::id), destination)
        .own
    {
        return Ok(Reason::Local);
    }
    match trouble {
        Some(reason) => Err(reason),
        None if lookup.nft_behind() && transport.start() != Start::Opens => Ok(Reason::Continues),
        None => Err(Reason::Spoofed),
    }
}

/// A sound packet of a zone.
#[inline(always)]
fn admit_from<A: Address, L: Lookup + Tables<A>>(
    zone: PackedZone,
    destination: &A,
    transport: Transport,
    lookup: &L,
) -> Result<Reason, Reason> {
    let classes = lookup.classes(transport.protocol(), transport.port());
    let mut open = 0;
    if classes != 0 {
        open = lookup.grant(zone.id(), destination, classes);
        if open & classes != 0 {
            return Ok(Reason::Granted);
        }
    }
    let place = lookup.place(zone.id(), destination);
    if place.own {
        return Ok(Reason::Local);
    }
    if place.internal {
        return Ok(Reason::Internal);
    }
    if place.inside {
        return Ok(Reason::Inside);
    }
    if place.mask & classes != 0 {
        lookup.reached(place);
        return Ok(Reason::Network);
    }
    // XDP and TCX come before the redirect; what is not redirected ends in nft's forward chain.
    if zone.redirects()
        && lookup.nft_behind()
        && transport.port() == DNS
        && matches!(transport.protocol(), protocol::UDP | protocol::TCP)
    {
        return Ok(Reason::Redirected);
    }
    // An error belongs to whatever flow it tells of, also to one that the zone opened.
    if lookup.nft_behind() && transport.start() == Start::Reports {
        return Ok(Reason::Continues);
    }
    if lookup.nft_behind() && !zone.denies_inbound() {
        if transport.start() != Start::Opens {
            return Ok(Reason::Continues);
        }
        if zone.serves()
            && transport.protocol() != protocol::TCP
            && lookup.serves(zone.id(), transport.protocol(), transport.source_port())
        {
            return Ok(Reason::Serves);
        }
    }
    Err(if classes == 0 {
        Reason::PortClosed
    } else if open | place.mask != 0 {
        Reason::PortNotGranted
    } else {
        Reason::NotGranted
    })
}
