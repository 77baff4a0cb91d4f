//! Whether a card takes VLAN tags off before XDP sees a frame. Asked over ethtool's netlink (Linux
//! `Documentation/networking/ethtool-netlink.rst`, since 5.6), which needs no capability.

use crate::plane::netlink::{Attributes, messages};
use anyhow::Context as _;
use nix::sys::socket::{
    AddressFamily, MsgFlags, NetlinkAddr, SockFlag, SockProtocol, SockType, bind, connect, recv,
    send, setsockopt, socket, sockopt,
};
use nix::sys::time::TimeVal;
use std::collections::BTreeSet;
use std::os::fd::AsRawFd as _;

/// `GENL_ID_CTRL`, `CTRL_CMD_GETFAMILY`, `CTRL_ATTR_FAMILY_ID`, `CTRL_ATTR_FAMILY_NAME`.
const CONTROL: (u16, u8) = (0x10, 3);
const FAMILY_ID: u16 = 1;
const FAMILY_NAME: u16 = 2;
/// `ETHTOOL_MSG_FEATURES_GET`, and the attributes down to a feature's name: `ETHTOOL_A_FEATURES_HEADER`,
/// `ETHTOOL_A_HEADER_DEV_INDEX`; `ETHTOOL_A_FEATURES_ACTIVE`, `ETHTOOL_A_BITSET_BITS`,
/// `ETHTOOL_A_BITSET_BITS_BIT`, `ETHTOOL_A_BITSET_BIT_NAME`.
const FEATURES_GET: u8 = 11;
const HEADER: u16 = 1;
const DEVICE_INDEX: u16 = 1;
const ACTIVE: u16 = 4;
const BITS: u16 = 3;
const BIT: u16 = 1;
const NAME: u16 = 2;
const NESTED: u16 = 1 << 15;
/// Types of tags, the features that take them off (`NETIF_F_HW_VLAN_CTAG_RX`, `…_STAG_RX`), and what
/// `ethtool -K` calls those.
const STRIP: [(u16, &[u8], &str); 2] = [
    (0x8100, b"rx-vlan-hw-parse", "rxvlan"),
    (0x88a8, b"rx-vlan-stag-hw-parse", "rx-vlan-stag-hw-parse"),
];

/// Longer than the list of all features.
const REPLY: usize = 64 << 10;

/// The feature by which the card of the interface with this index takes tags of one of these types off
/// what it receives, as `ethtool -K` calls it; `None` where it leaves them on.
///
/// # Errors
/// When the kernel does not say.
pub(super) fn strips(index: u32, types: &BTreeSet<u16>) -> anyhow::Result<Option<&'static str>> {
    let name = attribute(FAMILY_NAME, b"ethtool\0");
    let family = ask(CONTROL, &name, |attributes| {
        attributes.get(FAMILY_ID)?.first_chunk().copied()
    });
    let family = family
        .context("look for ethtool's netlink family")?
        .context("the kernel has no netlink for ethtool")?;
    let device = attribute(DEVICE_INDEX, &index.to_ne_bytes());
    let header = attribute(HEADER | NESTED, &device);
    let get = (u16::from_ne_bytes(family), FEATURES_GET);
    ask(get, &header, |reply| Some(stripping(reply, types)))
        .context("ask for the card's features")?
        .context("the kernel says nothing of the card's features")
}

fn stripping(reply: Attributes<'_>, types: &BTreeSet<u16>) -> Option<&'static str> {
    let on: Vec<&[u8]> = names(reply).collect();
    let mut strip = STRIP.into_iter();
    strip
        .find(|(kind, feature, _)| types.contains(kind) && on.contains(feature))
        .map(|(_, _, word)| word)
}

/// The names of the features that are on.
fn names(reply: Attributes<'_>) -> impl Iterator<Item = &[u8]> {
    let bits = reply.nest(ACTIVE).nest(BITS);
    bits.filter(|(kind, _)| *kind == BIT)
        .filter_map(|(_, bit)| Attributes::new(bit).get(NAME)?.strip_suffix(b"\0"))
}

/// Sends one request of generic netlink and reads its one reply.
fn ask<T>(
    (family, command): (u16, u8),
    attributes: &[u8],
    read: impl FnOnce(Attributes<'_>) -> Option<T>,
) -> anyhow::Result<Option<T>> {
    let socket = socket(
        AddressFamily::Netlink,
        SockType::Raw,
        SockFlag::SOCK_CLOEXEC,
        SockProtocol::NetlinkGeneric,
    )?;
    let raw = socket.as_raw_fd();
    bind(raw, &NetlinkAddr::new(0, 0))?;
    connect(raw, &NetlinkAddr::new(0, 0))?;
    setsockopt(&socket, sockopt::ReceiveTimeout, &TimeVal::new(1, 0))?;
    send(
        raw,
        &request(family, command, attributes),
        MsgFlags::empty(),
    )?;
    let mut buffer = vec![0; REPLY];
    let length = recv(raw, &mut buffer, MsgFlags::MSG_TRUNC)?;
    let datagram = buffer.get(..length).context("a longer reply than any")?;
    let message = messages(datagram).next().context("an empty reply")?;
    match message.outcome() {
        Some(Err(refusal)) => Err(refusal.into()),
        Some(Ok(())) => Ok(None),
        None => Ok(read(Attributes::of_netfilter(message.payload))),
    }
}

/// A message: `struct nlmsghdr`, `struct genlmsghdr`, attributes.
fn request(family: u16, command: u8, attributes: &[u8]) -> Vec<u8> {
    let length = u32::try_from(20 + attributes.len()).expect("requests are short");
    let flags = u16::try_from(libc::NLM_F_REQUEST).expect("the flag is 1");
    let mut message = length.to_ne_bytes().to_vec();
    message.extend(family.to_ne_bytes());
    message.extend(flags.to_ne_bytes());
    message.extend([0; 8]);
    message.extend([command, 1, 0, 0]);
    message.extend(attributes);
    message
}

/// An attribute, padded to words.
fn attribute(kind: u16, value: &[u8]) -> Vec<u8> {
    let length = u16::try_from(4 + value.len()).expect("attributes are short");
    let mut attribute = length.to_ne_bytes().to_vec();
    attribute.extend(kind.to_ne_bytes());
    attribute.extend(value);
    attribute.resize(attribute.len().next_multiple_of(4), 0);
    attribute
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn features_are_found_by_name() {
        fn check(on: &[&str], types: &[u16], expected: Option<&str>) {
            let bits: Vec<u8> = on
                .iter()
                .map(|name| attribute(NAME, format!("{name}\0").as_bytes()))
                .flat_map(|name| attribute(BIT | NESTED, &name))
                .collect();
            let active = attribute(ACTIVE | NESTED, &attribute(BITS | NESTED, &bits));
            let types = types.iter().copied().collect();
            let found = stripping(Attributes::new(&active), &types);
            assert_eq!(found, expected, "{on:?}");
        }
        let both = [0x8100, 0x88a8];
        check(&[], &both, None);
        check(
            &["rx-gro", "tx-vlan-hw-insert", "rx-vlan-filter"],
            &both,
            None,
        );
        check(&["rx-gro", "rx-vlan-hw-parse"], &both, Some("rxvlan"));
        check(&["rx-vlan-hw-parse"], &[0x88a8], None);
        let outer = Some("rx-vlan-stag-hw-parse");
        check(&["rx-vlan-stag-hw-parse", "rx-gro"], &both, outer);
        check(&["rx-vlan-stag-hw-parse", "rx-gro"], &[0x8100], None);
    }

    #[test]
    fn the_kernel_tells() {
        // The loopback device has no tags to take off; no device has this number.
        let both = BTreeSet::from([0x8100, 0x88a8]);
        assert_eq!(strips(1, &both).unwrap(), None);
        assert!(strips(u32::MAX >> 1, &both).is_err());
    }
}
