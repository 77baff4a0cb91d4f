//! Frames for tests, built by hand from their parts. Checksums are left zero: nothing here reads
//! them.

use core::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::vec::Vec;

/// TCP flag SYN.
pub const SYN: u8 = 0x02;
/// TCP flag ACK.
pub const ACK: u8 = 0x10;

/// A TCP segment without data.
#[must_use]
pub fn tcp(source_port: u16, port: u16, flags: u8) -> Vec<u8> {
    let mut segment = [source_port.to_be_bytes(), port.to_be_bytes()].concat();
    segment.extend([0; 8]);
    segment.extend([5 << 4, flags, 1, 0, 0, 0, 0, 0]);
    segment
}

/// A UDP datagram with `data` zero bytes.
#[must_use]
pub fn udp(source_port: u16, port: u16, data: u16) -> Vec<u8> {
    let length = (8 + data).to_be_bytes();
    let mut datagram = [
        source_port.to_be_bytes(),
        port.to_be_bytes(),
        length,
        [0; 2],
    ]
    .concat();
    datagram.extend(core::iter::repeat_n(0, usize::from(data)));
    datagram
}

/// An ICMP or ICMPv6 message of this type.
#[must_use]
pub fn icmp(kind: u8) -> Vec<u8> {
    Vec::from([kind, 0, 0, 0, 0, 0, 0, 1])
}

/// An IPv4 packet. `fragment` is the flags-and-offset field, `options` a multiple of four bytes.
#[must_use]
pub fn ipv4(
    (source, destination): (Ipv4Addr, Ipv4Addr),
    fragment: u16,
    options: &[u8],
    protocol: u8,
    payload: &[u8],
) -> Vec<u8> {
    let header = 20 + options.len();
    let total = u16::try_from(header + payload.len()).expect("samples are small");
    let mut packet = Vec::from([
        0x40 | u8::try_from(header / 4).expect("at most 60 bytes"),
        0,
    ]);
    packet.extend(total.to_be_bytes());
    packet.extend([0, 7]);
    packet.extend(fragment.to_be_bytes());
    packet.extend([64, protocol, 0, 0]);
    packet.extend(source.octets());
    packet.extend(destination.octets());
    packet.extend(options);
    packet.extend(payload);
    packet
}

/// An IPv6 packet. Each extension header is its protocol number and its bytes from the third on.
#[must_use]
pub fn ipv6(
    (source, destination): (Ipv6Addr, Ipv6Addr),
    extensions: &[(u8, Vec<u8>)],
    protocol: u8,
    payload: &[u8],
) -> Vec<u8> {
    let numbers: Vec<u8> = extensions
        .iter()
        .map(|(number, _)| *number)
        .chain([protocol])
        .collect();
    let mut body = Vec::new();
    for (i, (number, rest)) in extensions.iter().enumerate() {
        // A fragment header has no length.
        let units = if *number == 44 {
            0
        } else {
            (rest.len() + 2) / 8 - 1
        };
        body.extend([
            numbers[i + 1],
            u8::try_from(units).expect("samples are small"),
        ]);
        body.extend(rest);
    }
    body.extend(payload);
    let mut packet = Vec::from([0x60, 0, 0, 0]);
    packet.extend(
        u16::try_from(body.len())
            .expect("samples are small")
            .to_be_bytes(),
    );
    packet.extend([numbers[0], 64]);
    packet.extend(source.octets());
    packet.extend(destination.octets());
    packet.extend(body);
    packet
}

/// The rest of an extension header of eight bytes.
#[must_use]
pub fn padding() -> Vec<u8> {
    Vec::from([1, 4, 0, 0, 0, 0])
}

/// The rest of a fragment header; `offset` in units of eight bytes.
#[must_use]
pub fn fragment(offset: u16, more: bool) -> Vec<u8> {
    let [high, low] = (offset << 3 | u16::from(more)).to_be_bytes();
    Vec::from([high, low, 0, 0, 0, 7])
}

/// A packet without extras between two addresses of one family.
///
/// # Panics
/// When the families differ.
#[must_use]
pub fn packet(source: IpAddr, destination: IpAddr, protocol: u8, payload: &[u8]) -> Vec<u8> {
    match (source, destination) {
        (IpAddr::V4(s), IpAddr::V4(d)) => ipv4((s, d), 0, &[], protocol, payload),
        (IpAddr::V6(s), IpAddr::V6(d)) => ipv6((s, d), &[], protocol, payload),
        (IpAddr::V4(_), IpAddr::V6(_)) | (IpAddr::V6(_), IpAddr::V4(_)) => {
            panic!("{source} and {destination} are of two families")
        }
    }
}

/// `packet` in an Ethernet frame behind VLAN tags of these types.
#[must_use]
pub fn ethernet(tags: &[u16], packet: &[u8]) -> Vec<u8> {
    let kind: u16 = if packet.first().is_some_and(|first| first >> 4 == 6) {
        0x86dd
    } else {
        0x0800
    };
    framed(tags, kind, packet)
}

/// `packet` in an Ethernet frame behind these VLAN tags: protocol, then priority and id.
#[must_use]
pub fn tagged(tags: &[(u16, u16)], packet: &[u8]) -> Vec<u8> {
    let types: Vec<u16> = tags.iter().map(|(protocol, _)| *protocol).collect();
    let mut frame = ethernet(&types, packet);
    for (at, (_, control)) in (14..).step_by(4).zip(tags) {
        frame[at..at + 2].copy_from_slice(&control.to_be_bytes());
    }
    frame
}

/// `packet` in a PPPoE session.
#[must_use]
pub fn pppoe(tags: &[u16], packet: &[u8]) -> Vec<u8> {
    let protocol: u8 = if packet.first().is_some_and(|first| first >> 4 == 6) {
        0x57
    } else {
        0x21
    };
    let length = u16::try_from(packet.len() + 2)
        .expect("samples are small")
        .to_be_bytes();
    let session = [&[0x11, 0, 0, 9][..], &length, &[0, protocol], packet].concat();
    framed(tags, 0x8864, &session)
}

/// `payload` in an Ethernet frame of this type.
#[must_use]
pub fn framed(tags: &[u16], kind: u16, payload: &[u8]) -> Vec<u8> {
    let mut frame = Vec::from([2, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 2]);
    for tag in tags {
        frame.extend(tag.to_be_bytes());
        frame.extend([0, 7]);
    }
    frame.extend(kind.to_be_bytes());
    frame.extend(payload);
    frame
}
