//! A copied packet, read as far as its UDP datagram or TCP segment. Pure; what is in the least
//! unusual is nothing.

use std::net::{IpAddr, SocketAddr};

const TCP: u8 = 6;
const UDP: u8 = 17;

/// A datagram or segment with where it comes from and goes to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Packet<'p> {
    pub(super) source: SocketAddr,
    pub(super) destination: SocketAddr,
    pub(super) body: Body<'p>,
}

/// What a packet carries.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Body<'p> {
    /// A whole UDP datagram.
    Datagram(&'p [u8]),
    /// A TCP segment.
    Segment(Segment<'p>),
}

/// A TCP segment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Segment<'p> {
    pub(super) sequence: u32,
    pub(super) begins: bool,
    pub(super) ends: bool,
    pub(super) resets: bool,
    pub(super) payload: &'p [u8],
}

/// Reads a packet from its IP header on. Fragments (the kernel reassembles before it copies),
/// extension headers, cut packets and lying lengths are `None`. Checksums are conntrack's business.
pub(super) fn read(packet: &[u8]) -> Option<Packet<'_>> {
    let (source, destination, protocol, transport) = match packet.first()? >> 4 {
        4 => v4(packet)?,
        6 => v6(packet)?,
        _ => return None,
    };
    let &[s0, s1, d0, d1, ..] = transport else {
        return None;
    };
    let (from, to) = (u16::from_be_bytes([s0, s1]), u16::from_be_bytes([d0, d1]));
    let body = match protocol {
        UDP => {
            let length = usize::from(short(transport, 4)?);
            Body::Datagram(transport.get(8..length)?)
        }
        TCP => Body::Segment(segment(transport)?),
        _ => return None,
    };
    Some(Packet {
        source: SocketAddr::new(source, from),
        destination: SocketAddr::new(destination, to),
        body,
    })
}

type Carried<'p> = (IpAddr, IpAddr, u8, &'p [u8]);

fn v4(packet: &[u8]) -> Option<Carried<'_>> {
    const MORE_AND_OFFSET: u16 = 0x3fff;
    let header: &[u8; 20] = packet.first_chunk()?;
    let (length, total) = (
        usize::from(header[0] & 15) * 4,
        usize::from(short(header, 2)?),
    );
    if length < 20 || short(header, 6)? & MORE_AND_OFFSET != 0 {
        return None;
    }
    let address = |at: usize| Some(IpAddr::from(*header.get(at..)?.first_chunk::<4>()?));
    Some((
        address(12)?,
        address(16)?,
        header[9],
        packet.get(length..total)?,
    ))
}

fn v6(packet: &[u8]) -> Option<Carried<'_>> {
    const HEADER: usize = 40;
    let header: &[u8; HEADER] = packet.first_chunk()?;
    let end = HEADER + usize::from(short(header, 4)?);
    let address = |at: usize| Some(IpAddr::from(*header.get(at..)?.first_chunk::<16>()?));
    Some((
        address(8)?,
        address(24)?,
        header[6],
        packet.get(HEADER..end)?,
    ))
}

fn segment(transport: &[u8]) -> Option<Segment<'_>> {
    const FIN: u8 = 1;
    const SYN: u8 = 2;
    const RST: u8 = 4;
    let header: &[u8; 20] = transport.first_chunk()?;
    let length = usize::from(header[12] >> 4) * 4;
    if length < 20 {
        return None;
    }
    let flags = header[13];
    Some(Segment {
        sequence: u32::from_be_bytes(*header[4..].first_chunk()?),
        begins: flags & SYN != 0,
        ends: flags & FIN != 0,
        resets: flags & RST != 0,
        payload: transport.get(length..)?,
    })
}

fn short(bytes: &[u8], at: usize) -> Option<u16> {
    let bytes = bytes.get(at..)?.first_chunk()?;
    Some(u16::from_be_bytes(*bytes))
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    /// A packet of `protocol` around `transport`.
    pub(in crate::dns::observer) fn around(
        source: IpAddr,
        destination: IpAddr,
        protocol: u8,
        transport: &[u8],
    ) -> Vec<u8> {
        let length = u16::try_from(transport.len()).unwrap();
        let mut packet = match (source, destination) {
            (IpAddr::V4(source), IpAddr::V4(destination)) => {
                let mut packet = vec![0x45, 0];
                packet.extend((length + 20).to_be_bytes());
                packet.extend([0, 0, 0x40, 0, 64, protocol, 0, 0]);
                packet.extend(source.octets());
                packet.extend(destination.octets());
                packet
            }
            (IpAddr::V6(source), IpAddr::V6(destination)) => {
                let mut packet = vec![0x60, 0, 0, 0];
                packet.extend(length.to_be_bytes());
                packet.extend([protocol, 64]);
                packet.extend(source.octets());
                packet.extend(destination.octets());
                packet
            }
            _ => panic!("one family"),
        };
        packet.extend(transport);
        packet
    }

    /// A UDP packet.
    pub(in crate::dns::observer) fn datagram(
        source: &str,
        destination: &str,
        data: &[u8],
    ) -> Vec<u8> {
        let (source, destination): (SocketAddr, SocketAddr) =
            (source.parse().unwrap(), destination.parse().unwrap());
        let mut transport = source.port().to_be_bytes().to_vec();
        transport.extend(destination.port().to_be_bytes());
        transport.extend(u16::try_from(data.len() + 8).unwrap().to_be_bytes());
        transport.extend([0, 0]);
        transport.extend(data);
        around(source.ip(), destination.ip(), UDP, &transport)
    }

    /// A TCP packet; `flags` as in the header.
    pub(in crate::dns::observer) fn stream(
        source: &str,
        destination: &str,
        (sequence, flags): (u32, u8),
        data: &[u8],
    ) -> Vec<u8> {
        let (source, destination): (SocketAddr, SocketAddr) =
            (source.parse().unwrap(), destination.parse().unwrap());
        let mut transport = source.port().to_be_bytes().to_vec();
        transport.extend(destination.port().to_be_bytes());
        transport.extend(sequence.to_be_bytes());
        transport.extend([0, 0, 0, 0, 0x50, flags, 0, 0, 0, 0, 0, 0]);
        transport.extend(data);
        around(source.ip(), destination.ip(), TCP, &transport)
    }

    #[test]
    fn packets() {
        for (source, destination) in [
            ("10.0.0.2:4000", "9.9.9.9:53"),
            ("[2001:db8::2]:4000", "[2620:fe::fe]:53"),
        ] {
            let whole = datagram(source, destination, b"question");
            let read_back = read(&whole).unwrap();
            assert_eq!(read_back.source, source.parse().unwrap());
            assert_eq!(read_back.destination, destination.parse().unwrap());
            assert_eq!(read_back.body, Body::Datagram(b"question"));
            // Trailing bytes are no part of it; cut packets are nothing.
            assert_eq!(read(&[&whole[..], b"pad"].concat()), Some(read_back));
            for end in 0..whole.len() {
                assert_eq!(read(&whole[..end]), None, "cut at {end}");
            }
            let segment = stream(source, destination, (7, 0x12), b"answer");
            let Some(Packet {
                body: Body::Segment(read_back),
                ..
            }) = read(&segment)
            else {
                panic!("a segment")
            };
            assert_eq!((read_back.sequence, read_back.payload), (7, &b"answer"[..]));
            assert_eq!((read_back.begins, read_back.ends), (true, false));
            for end in 0..segment.len() {
                assert_eq!(read(&segment[..end]), None, "cut at {end}");
            }
        }
    }

    #[test]
    fn unusual_packets_are_nothing() {
        let good = datagram("10.0.0.2:4000", "9.9.9.9:53", b"question");
        let check = |at: usize, value: u8| {
            let mut packet = good.clone();
            packet[at] = value;
            assert_eq!(read(&packet), None, "{value:#x} at {at}");
        };
        check(0, 0x55);
        check(0, 0x44);
        check(0, 0x4f);
        check(6, 0x20);
        check(7, 1);
        check(9, 1);
        // UDP's own length.
        check(25, 7);
        check(25, 17);
        let mut v6 = datagram("[2001:db8::2]:4000", "[2620:fe::fe]:53", b"question");
        v6[6] = 60;
        assert_eq!(read(&v6), None);
    }
}
