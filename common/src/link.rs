//! The link layer: on which device a frame comes in, whether it is bridged, and where its IP header
//! begins, behind VLAN tags and PPPoE.

use crate::decide::Lookup;
use crate::frame::Frame;
use crate::verdict::Reason;
use core::ops::ControlFlow;

/// Most VLAN tags that are read.
pub const MAX_TAGS: usize = 3;

/// Where the IP header begins in a frame without tags and sessions, at most.
pub(crate) const PLAIN: usize = 14;

const IPV4: u16 = 0x0800;
const IPV6: u16 = 0x86dd;
const PPPOE_SESSION: u16 = 0x8864;
/// 802.1Q, 802.1ad, and the older number some switches use for the outer tag.
const VLAN: [u16; 3] = [0x8100, 0x88a8, 0x9100];

/// Which IP header begins where, in bytes from the frame's first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Network {
    /// IPv4.
    V4(usize),
    /// IPv6.
    V6(usize),
}

/// Finds the IP header of a frame that begins with an Ethernet header.
///
/// # Errors
/// [`Reason::NotIp`], [`Reason::Truncated`] or [`Reason::Tags`].
#[inline(always)]
pub fn ethernet<F: Frame>(frame: &F) -> Result<Network, Reason> {
    // Not a loop: where the verifier looks into speculation it finds no end to it.
    if let Some(network) = behind(frame, 12)? {
        return Ok(network);
    }
    if let Some(network) = behind(frame, 16)? {
        return Ok(network);
    }
    if let Some(network) = behind(frame, 20)? {
        return Ok(network);
    }
    if let Some(network) = behind(frame, 12 + 4 * MAX_TAGS)? {
        return Ok(network);
    }
    Err(Reason::Tags)
}

/// What the frame type at byte `at` announces; `None` for one more tag.
#[inline(always)]
fn behind<F: Frame>(frame: &F, at: usize) -> Result<Option<Network>, Reason> {
    let Some([word]) = frame.words(at) else {
        return Err(Reason::Truncated);
    };
    let kind = (u32::from_be(word) >> 16) as u16;
    if kind == IPV4 {
        return Ok(Some(Network::V4(at + 2)));
    }
    if kind == IPV6 {
        return Ok(Some(Network::V6(at + 2)));
    }
    if kind == PPPOE_SESSION {
        return pppoe(frame, at + 2).map(Some);
    }
    if VLAN.contains(&kind) {
        Ok(None)
    } else {
        Err(Reason::NotIp)
    }
}

/// PPPoE (RFC 2516): six bytes of header, then the PPP protocol, one byte where its lowest bit is
/// set (RFC 1661 §6.5; Linux accepts it unasked).
#[inline(always)]
fn pppoe<F: Frame>(frame: &F, at: usize) -> Result<Network, Reason> {
    let Some([_, word]) = frame.words(at + 2) else {
        return Err(Reason::Truncated);
    };
    let word = u32::from_be(word);
    if word >> 24 & 1 == 1 {
        match word >> 24 {
            0x21 => Ok(Network::V4(at + 7)),
            0x57 => Ok(Network::V6(at + 7)),
            _ => Err(Reason::NotIp),
        }
    } else {
        match word >> 16 {
            0x0021 => Ok(Network::V4(at + 8)),
            0x0057 => Ok(Network::V6(at + 8)),
            _ => Err(Reason::NotIp),
        }
    }
}

/// A VLAN tag as tables have it: its protocol, then the twelve bits of its id. Priority and drop
/// eligibility say nothing of the device.
#[must_use]
#[inline(always)]
pub const fn tag(protocol: u16, control: u16) -> u32 {
    (protocol as u32) << 16 | (control & 0xfff) as u32
}

/// Whether the frame has a VLAN tag at all.
#[inline(always)]
pub fn is_tagged<F: Frame>(frame: &F) -> bool {
    let kind = frame
        .words(12)
        .map(|[word]| (u32::from_be(word) >> 16) as u16);
    frame.stripped().is_some() || kind.is_some_and(|kind| VLAN.contains(&kind))
}

/// The device on which the kernel sees a frame that entered on `index`: the VLAN device that claims
/// its tag, and so on for tags inside it (`vlan_do_receive` in Linux `net/8021q/vlan_core.c`). Where
/// no device claims a tag it is the interface the frame has come to by then; a tag with id 0 says
/// only a priority.
#[inline(always)]
pub fn device<F: Frame, L: Lookup>(frame: &F, index: u32, lookup: &L) -> u32 {
    let outermost = match frame.stripped() {
        Some(tag) => claimed(tag, index, lookup),
        None => ControlFlow::Continue(index),
    };
    // Not a loop, see `ethernet`.
    let (ControlFlow::Break(index) | ControlFlow::Continue(index)) =
        within(frame, 12, outermost, lookup);
    index
}

/// Goes on with the tag at byte `at` and those behind it.
#[inline(always)]
fn within<F: Frame, L: Lookup>(
    frame: &F,
    at: usize,
    so_far: ControlFlow<u32, u32>,
    lookup: &L,
) -> ControlFlow<u32, u32> {
    let first = at_byte(frame, at, so_far?, lookup)?;
    let second = at_byte(frame, at + 4, first, lookup)?;
    at_byte(frame, at + 8, second, lookup)
}

/// The device behind the tag at byte `at`; the end where there is none.
#[inline(always)]
fn at_byte<F: Frame, L: Lookup>(
    frame: &F,
    at: usize,
    index: u32,
    lookup: &L,
) -> ControlFlow<u32, u32> {
    let Some([word]) = frame.words(at) else {
        return ControlFlow::Break(index);
    };
    let word = u32::from_be(word);
    let protocol = (word >> 16) as u16;
    if VLAN.contains(&protocol) {
        claimed(tag(protocol, word as u16), index, lookup)
    } else {
        ControlFlow::Break(index)
    }
}

#[inline(always)]
fn claimed<L: Lookup>(tag: u32, index: u32, lookup: &L) -> ControlFlow<u32, u32> {
    match lookup.vlan(index, tag) {
        Some(device) => ControlFlow::Continue(device),
        None if tag & 0xfff == 0 => ControlFlow::Continue(index),
        None => ControlFlow::Break(index),
    }
}

/// A hardware address as it lies on the wire, the last two bytes zero.
pub type Mac = [u32; 2];

/// The wire words of a hardware address.
#[must_use]
pub const fn mac([a, b, c, d, e, f]: [u8; 6]) -> Mac {
    [
        u32::from_ne_bytes([a, b, c, d]),
        u32::from_ne_bytes([e, f, 0, 0]),
    ]
}

/// Whether a bridge, on one of whose ports the frame entered, hands it on to another host instead of
/// to this one. In doubt it does not: to a group, to an address that routers take from each other
/// (RFC 9568 §7.3), cut short.
#[inline(always)]
pub fn is_bridged<F: Frame, L: Lookup>(frame: &F, lookup: &L) -> bool {
    let Some([first, second]) = frame.words(0) else {
        return false;
    };
    let mac = [first, second & u32::from_ne_bytes([0xff, 0xff, 0, 0])];
    let is_group = u32::from_be(first) >> 24 & 1 == 1;
    let virtual_router =
        first == u32::from_ne_bytes([0, 0, 0x5e, 0]) && matches!(u32::from_be(second) >> 24, 1 | 2);
    !is_group && !virtual_router && !lookup.is_own_mac(mac)
}

/// Finds the IP header of a packet from a device without link-layer header (tun, WireGuard).
///
/// # Errors
/// [`Reason::NotIp`] or [`Reason::Truncated`].
#[inline(always)]
pub fn bare<F: Frame>(frame: &F) -> Result<Network, Reason> {
    let Some([word]) = frame.words(0) else {
        return Err(Reason::Truncated);
    };
    match u32::from_be(word) >> 28 {
        4 => Ok(Network::V4(0)),
        6 => Ok(Network::V6(0)),
        _ => Err(Reason::NotIp),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn headers_are_found_behind_tags_and_pppoe() {
        fn check(after_macs: &[u8], expected: Result<Network, Reason>) {
            let frame = [&[0; 12], after_macs].concat();
            assert_eq!(ethernet(&frame.as_slice()), expected, "{after_macs:02x?}");
        }
        check(&[8, 0, 0, 0], Ok(Network::V4(14)));
        check(&[0x86, 0xdd, 0, 0], Ok(Network::V6(14)));
        check(&[8, 6, 0, 0], Err(Reason::NotIp));
        check(&[8, 0, 0], Err(Reason::Truncated));
        check(&[0x81, 0, 0, 7, 8, 0, 0, 0], Ok(Network::V4(18)));
        check(
            &[0x88, 0xa8, 0, 7, 0x81, 0, 0, 9, 0x86, 0xdd, 0, 0],
            Ok(Network::V6(22)),
        );
        check(
            &[&[0x81, 0, 0, 7].repeat(3)[..], &[8, 0, 0, 0]].concat(),
            Ok(Network::V4(26)),
        );
        check(
            &[&[0x81, 0, 0, 7].repeat(4)[..], &[8, 0, 0, 0]].concat(),
            Err(Reason::Tags),
        );
        check(&[0x81, 0, 0, 7], Err(Reason::Truncated));
        check(&[0x88, 0x63, 0x11, 9, 0, 0], Err(Reason::NotIp));
        check(
            &[0x88, 0x64, 0x11, 0, 0, 1, 0, 40, 0, 0x21, 0x45, 0],
            Ok(Network::V4(22)),
        );
        check(
            &[0x88, 0x64, 0x11, 0, 0, 1, 0, 40, 0, 0x57, 0x60, 0],
            Ok(Network::V6(22)),
        );
        check(
            &[0x88, 0x64, 0x11, 0, 0, 1, 0, 40, 0x21, 0x45, 0, 0],
            Ok(Network::V4(21)),
        );
        check(
            &[0x88, 0x64, 0x11, 0, 0, 1, 0, 40, 0xc0, 0x21, 1, 0],
            Err(Reason::NotIp),
        );
        check(
            &[0x88, 0x64, 0x11, 0, 0, 1, 0, 40, 0, 0x21],
            Err(Reason::Truncated),
        );
    }

    #[test]
    fn bare_packets_say_their_version() {
        fn check(first: u8, expected: Result<Network, Reason>) {
            assert_eq!(bare(&[first, 0, 0, 0].as_slice()), expected);
        }
        check(0x45, Ok(Network::V4(0)));
        check(0x60, Ok(Network::V6(0)));
        check(0x10, Err(Reason::NotIp));
        assert_eq!(bare(&[0x45, 0, 0].as_slice()), Err(Reason::Truncated));
    }
}
