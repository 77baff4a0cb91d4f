//! Whether a card takes VLAN tags off before XDP sees a frame. Asked over ethtool's netlink (Linux
//! `Documentation/networking/ethtool-netlink.rst`, since 5.6), which needs no capability.

use crate::plane::netlink::{Attributes, messages};
use anyhow::Context as _;
use nix::sys::socket::{
    AddressFamily, MsgFlags, NetlinkAddr, SockFlag, SockProtocol, SockType, bind, connect, recv,
    send, setsockopt, socket, sockopt,
};
use nix::sys::time::TimeVal;
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
/// `NETIF_F_HW_VLAN_CTAG_RX` and `NETIF_F_HW_VLAN_STAG_RX`.
const STRIP: [&[u8]; 2] = [b"rx-vlan-hw-parse", b"rx-vlan-stag-hw-parse"];

/// Longer than the list of all features.
const REPLY: usize = 64 << 10;

/// Whether the card of the interface with this index takes VLAN tags off what it receives.
///
/// # Errors
/// When the kernel does not say.
pub(super) fn strips_tags(index: u32) -> anyhow::Result<bool> {
    let name = attribute(FAMILY_NAME, b"ethtool\0");
    let family = ask(CONTROL, &name, |attributes| {
        attributes.get(FAMILY_ID)?.first_chunk().copied()
    });
    let family = family
        .context("look for ethtool's netlink family")?
        .context("the kernel has no netlink for ethtool")?;
    let device = attribute(DEVICE_INDEX, &index.to_ne_bytes());
    let header = attribute(HEADER | NESTED, &device);
    ask(
        (u16::from_ne_bytes(family), FEATURES_GET),
        &header,
        |reply| Some(names(reply).any(|name| STRIP.contains(&name))),
    )
    .context("ask for the card's features")?
    .context("the kernel says nothing of the card's features")
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
        fn check(on: &[&str], expected: bool) {
            let bits: Vec<u8> = on
                .iter()
                .map(|name| attribute(NAME, format!("{name}\0").as_bytes()))
                .flat_map(|name| attribute(BIT | NESTED, &name))
                .collect();
            let active = attribute(ACTIVE | NESTED, &attribute(BITS | NESTED, &bits));
            let found = names(Attributes::new(&active)).any(|name| STRIP.contains(&name));
            assert_eq!(found, expected, "{on:?}");
        }
        check(&[], false);
        check(&["rx-gro", "tx-vlan-hw-insert", "rx-vlan-filter"], false);
        check(&["rx-gro", "rx-vlan-hw-parse"], true);
        check(&["rx-vlan-stag-hw-parse", "rx-gro"], true);
    }

    #[test]
    fn the_kernel_tells() {
        // The loopback device has no tags to take off; no device has this number.
        assert!(!strips_tags(1).unwrap());
        assert!(strips_tags(u32::MAX >> 1).is_err());
    }
}
