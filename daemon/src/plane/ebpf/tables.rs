//! PURE: what the kernel's maps and globals must hold for an image.

use super::interfaces::{self, Wanted};
use crate::policy::ZoneId;
use crate::policy::image::{Image, Inbound, Mode, ZoneImage};
use crate::policy::links::Links;
use crate::policy::origin::Origin;
use crate::policy::port::{SCTP, TCP, UDP};
use egressd_common::address::{v4, v6};
use egressd_common::decide::{self, Place, Zone};
use egressd_common::layout::{self, Entry, KEY_PREFIX, KeyV4, KeyV6, Keyed};
use egressd_common::link::Mac;
use egressd_common::verdict::NO_ZONE;
use ipnet::IpNet;
use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

/// Everything one generation of maps and globals holds, but for the learned grants.
#[derive(Debug)]
pub(super) struct Tables {
    /// One byte per port of TCP, UDP and SCTP: an index into `masks`.
    pub(super) ports: Vec<u8>,
    /// The distinct masks of ports, the first one empty, then one for each protocol.
    pub(super) masks: Vec<u64>,
    /// Each mask of ports is at its own number.
    pub(super) few_classes: bool,
    /// The interfaces to attach to, with their packed entries.
    pub(super) interfaces: BTreeMap<u32, Wanted>,
    /// Packed zones by interface and source.
    pub(super) sources: Prefixes<u32>,
    /// Bits of the parts of the address space in which there are places, IPv4 and IPv6.
    pub(super) hints: [Vec<u64>; 2],
    /// Places by zone and destination, and where their classes come from.
    pub(super) places: Prefixes<(Place, Origin)>,
    /// [`layout::serves_key`]s.
    pub(super) serves: Vec<u32>,
    /// Slots and entries of VLAN devices on those interfaces that are in no zone.
    pub(super) strangers: Vec<(u32, Entry)>,
    /// (interface, tag) and the VLAN device that claims it.
    pub(super) vlans: Vec<([u32; 2], u32)>,
    /// The gateway's hardware addresses, where an interface is a port of a bridge.
    pub(super) macs: BTreeSet<Mac>,
}

impl Tables {
    /// What the interfaces are called.
    pub(super) fn names(&self) -> Vec<&str> {
        let wanted = self.interfaces.values();
        wanted.map(|wanted| wanted.name.as_str()).collect()
    }
}

/// Entries of the two tries of one kind: prefix length in bits (number included), data, value.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Prefixes<V> {
    pub(super) v4: Vec<(u32, KeyV4, V)>,
    pub(super) v6: Vec<(u32, KeyV6, V)>,
}

impl<V> Prefixes<V> {
    pub(super) fn push(&mut self, number: u32, net: IpNet, value: V) {
        let bits = KEY_PREFIX + u32::from(net.prefix_len());
        match net {
            IpNet::V4(net) => self.v4.push((bits, v4(net.network()).after(number), value)),
            IpNet::V6(net) => self.v6.push((bits, v6(net.network()).after(number), value)),
        }
    }
}

impl<V> Default for Prefixes<V> {
    fn default() -> Self {
        Self {
            v4: Vec::new(),
            v6: Vec::new(),
        }
    }
}

/// Why an image does not fit into the kernel's tables.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum DoesNotFit {
    #[error(
        "the classes of ports combine in more than {} ways; give rules with nearly equal ports the same list",
        layout::PORT_MASKS - 1
    )]
    Masks,
    #[error("zones match too many interfaces: there is room for {}", layout::SLOTS)]
    Interfaces,
}

/// What the kernel must hold for `image`.
pub(super) fn compile(image: &Image, nft_behind: bool) -> Result<Tables, DoesNotFit> {
    let (ports, masks) = port_table(image)?;
    let of_ports = masks[..layout::PORT_MASKS].iter();
    let few_classes = of_ports.zip(0..).all(|(mask, number)| *mask == number);
    let mut tables = Tables {
        ports,
        masks,
        few_classes,
        interfaces: BTreeMap::new(),
        sources: Prefixes::default(),
        places: Prefixes::default(),
        hints: [vec![0; layout::HINTS], vec![0; layout::HINTS]],
        serves: Vec::new(),
        strangers: Vec::new(),
        vlans: Vec::new(),
        macs: BTreeSet::new(),
    };
    interfaces::enter(image, nft_behind, &mut tables)?;

    let exempt = exempt(image, nft_behind);
    for zone in image.zones.iter().map(Some).chain([None]) {
        let number = u32::from(zone.map_or(NO_ZONE, |zone| id(zone.id)));
        let networks = zone.map_or(&[][..], |zone| &zone.networks);
        let origin = |net: IpNet| {
            let listed = zone.and_then(|zone| image.network_origins.get(&(zone.id, net)));
            listed.copied()
        };
        for (net, place, origin) in places(networks, &exempt, origin) {
            tables.places.push(number, net, (place, origin));
            hint(&mut tables.hints, net);
        }
    }
    for zone in &image.zones {
        let keys = zone
            .serves
            .iter()
            .map(|served| layout::serves_key(id(zone.id), served.protocol, served.first));
        tables.serves.extend(keys);
    }
    Ok(tables)
}

/// A zone's id as maps hold it.
pub(in crate::plane) fn id(zone: ZoneId) -> u8 {
    u8::try_from(zone.0).expect("zone ids are below MAX_ZONES")
}

/// A zone as packets meet it.
pub(in crate::plane) fn zone(zone: &ZoneImage) -> Zone {
    Zone {
        id: id(zone.id),
        audit: match zone.mode {
            Mode::Audit => true,
            Mode::Enforce => false,
        },
        inbound: match zone.inbound {
            Inbound::Deny => decide::Inbound::Deny,
            Inbound::Allow if zone.serves.is_empty() => decide::Inbound::Allow,
            Inbound::Allow => decide::Inbound::Serve,
        },
        redirect: !zone.redirect.is_empty(),
    }
}

/// Whether all of the zones of an interface are in audit mode.
pub(in crate::plane) fn all_audit(zones: &[&ZoneImage]) -> bool {
    zones.iter().all(|zone| zone.mode == Mode::Audit)
}

/// The gateway's own addresses and the broadcast and router-anycast addresses (RFC 4291 §2.6.1) of
/// its subnets: what the kernel delivers to itself.
pub(in crate::plane) fn local_addresses(links: &Links) -> impl Iterator<Item = IpAddr> {
    links
        .0
        .values()
        .flat_map(|link| &link.addresses)
        .flat_map(|net| {
            let subnet = match net {
                IpNet::V4(v4) if v4.prefix_len() < 31 => Some(net.broadcast()),
                IpNet::V6(v6) if v6.prefix_len() < 127 => Some(net.network()),
                IpNet::V4(_) | IpNet::V6(_) => None,
            };
            [Some(net.addr()), subnet].into_iter().flatten()
        })
}

/// The prefixes that nft must judge alone: sources of zones and subnets connected to their
/// interfaces. A default route is no such prefix: it would exempt everything.
pub(in crate::plane) fn inside(image: &Image) -> impl Iterator<Item = IpNet> {
    let connected = image
        .zones
        .iter()
        .flat_map(|zone| image.links.matching(&zone.interfaces))
        .flat_map(|(_, link)| &link.addresses);
    let sources = image.zones.iter().flat_map(|zone| &zone.sources);
    connected
        .chain(sources)
        .filter(|net| net.prefix_len() > 0)
        .map(IpNet::trunc)
}

fn exempt(image: &Image, nft_behind: bool) -> Vec<(IpNet, Place)> {
    let nothing = Place::default();
    let own = local_addresses(&image.links).map(|address| {
        (
            IpNet::from(address),
            Place {
                own: true,
                ..nothing
            },
        )
    });
    let internal = image.internal.iter().map(|net| {
        (
            net.trunc(),
            Place {
                internal: true,
                ..nothing
            },
        )
    });
    let inside = inside(image).filter(|_| nft_behind).map(|net| {
        (
            net,
            Place {
                inside: true,
                ..nothing
            },
        )
    });
    own.chain(internal).chain(inside).collect()
}

/// The trie's entries for one zone. A longest match hides the shorter ones, so each entry holds
/// all that the prefixes around it say.
fn places(
    networks: &[(IpNet, crate::policy::port::ClassMask)],
    exempt: &[(IpNet, Place)],
    origin: impl Fn(IpNet) -> Option<Origin>,
) -> Vec<(IpNet, Place, Origin)> {
    let mut entries: BTreeMap<IpNet, Place> = BTreeMap::new();
    let networks = networks.iter().map(|(net, mask)| {
        (
            net.trunc(),
            Place {
                mask: mask.0,
                ..Place::default()
            },
        )
    });
    for (net, place) in networks.chain(exempt.iter().copied()) {
        let entry = entries.entry(net).or_default();
        *entry = union(*entry, place);
    }
    // In this order a prefix follows those that contain it.
    let mut around: Vec<(IpNet, Place, Origin)> = Vec::new();
    let mut filled = Vec::with_capacity(entries.len());
    for (net, place) in entries {
        while around
            .last()
            .is_some_and(|(outer, ..)| !outer.contains(&net))
        {
            around.pop();
        }
        let (place, outer) = around
            .last()
            .map_or((place, Origin::default()), |(_, outer, origin)| {
                (union(place, *outer), *origin)
            });
        let origin = origin(net).unwrap_or(outer);
        around.push((net, place, origin));
        filled.push((net, place, origin));
    }
    filled
}

fn union(a: Place, b: Place) -> Place {
    Place {
        mask: a.mask | b.mask,
        own: a.own || b.own,
        internal: a.internal || b.internal,
        inside: a.inside || b.inside,
        kind: 0,
    }
}

/// Sets the bits of all parts of the address space that `net` touches.
fn hint(hints: &mut [Vec<u64>; 2], net: IpNet) {
    let [of_v4, of_v6] = hints;
    match net {
        IpNet::V4(net) => {
            let parts = 1u32 << 16u8.saturating_sub(net.prefix_len());
            let first = u32::from(v4(net.network()).part());
            (first..first + parts).for_each(|part| set(of_v4, part));
        }
        IpNet::V6(net) if net.prefix_len() < 20 => of_v6.fill(u64::MAX),
        IpNet::V6(net) => {
            let spread = 1u32 << 32u8.saturating_sub(net.prefix_len());
            let first = u32::from_be(v6(net.network())[0]);
            let tops = (0..spread).map(|offset| [(first + offset).to_be(), 0, 0, 0]);
            tops.for_each(|top| set(of_v6, u32::from(top.part())));
        }
    }
}

fn set(bits: &mut [u64], bit: u32) {
    bits[bit as usize / 64] |= 1 << (bit % 64);
}

/// A zone's sources; without any it takes all.
pub(in crate::plane) fn sources(zone: &ZoneImage) -> Vec<IpNet> {
    if zone.sources.is_empty() {
        let all = [IpAddr::from([0; 4]), IpAddr::from([0; 16])];
        all.map(|address| IpNet::new_assert(address, 0)).to_vec()
    } else {
        zone.sources.clone()
    }
}

/// The masks that ports point to by a byte each, and behind them those of the protocols.
fn port_table(image: &Image) -> Result<(Vec<u8>, Vec<u64>), DoesNotFit> {
    let mut by_port = vec![0u64; layout::PORTS];
    let mut by_protocol = vec![0u64; 256];
    for (class, set) in &image.classes {
        let bit = 1u64 << class.0;
        for service in set.services() {
            let first = layout::port_index(service.protocol, service.first);
            let last = layout::port_index(service.protocol, service.last);
            if let (Some(first), Some(last)) = (first, last) {
                by_port[first..=last]
                    .iter_mut()
                    .for_each(|mask| *mask |= bit);
            } else if service.contains(service.protocol, 0) {
                by_protocol[usize::from(service.protocol)] |= bit;
            }
        }
    }
    debug_assert!(
        [TCP, UDP, SCTP]
            .iter()
            .all(|p| by_protocol[usize::from(*p)] == 0)
    );
    if let Ok(ports) = by_port.iter().map(|mask| u8::try_from(*mask)).collect() {
        let masks = (0..layout::PORT_MASKS as u64).chain(by_protocol).collect();
        return Ok((ports, masks));
    }
    let mut index_of: BTreeMap<u64, u8> = BTreeMap::from([(0, 0)]);
    let mut masks = vec![0u64];
    let mut index = |mask: u64| -> Result<u8, DoesNotFit> {
        if let Some(index) = index_of.get(&mask) {
            return Ok(*index);
        }
        let next = u8::try_from(masks.len()).map_err(|_| DoesNotFit::Masks)?;
        masks.push(mask);
        index_of.insert(mask, next);
        Ok(next)
    };
    let ports = by_port
        .into_iter()
        .map(&mut index)
        .collect::<Result<_, _>>()?;
    masks.resize(layout::PORT_MASKS, 0);
    masks.extend(by_protocol);
    Ok((ports, masks))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::policy::port::{ClassId, ClassMask, PortSet, Service};

    fn net(text: &str) -> IpNet {
        text.parse().unwrap()
    }

    #[test]
    fn a_longer_prefix_knows_what_the_shorter_ones_around_it_say() {
        let networks = [
            (net("10.0.0.0/8"), ClassMask(1)),
            (net("10.1.0.0/16"), ClassMask(3)),
            (net("11.0.0.0/8"), ClassMask(4)),
        ];
        let nothing = Place::default();
        let internal = Place {
            internal: true,
            ..nothing
        };
        let own = Place {
            own: true,
            ..nothing
        };
        let exempt = [(net("10.1.2.0/24"), internal), (net("10.1.2.3/32"), own)];
        let filled: BTreeMap<IpNet, Place> = places(&networks, &exempt, |_| None)
            .into_iter()
            .map(|(net, place, _)| (net, place))
            .collect();
        let check = |prefix: &str, mask, own, internal| {
            let expected = Place {
                mask,
                own,
                internal,
                inside: false,
                kind: 0,
            };
            assert_eq!(filled[&net(prefix)], expected, "{prefix}");
        };
        check("10.0.0.0/8", 1, false, false);
        check("10.1.0.0/16", 3, false, false);
        check("10.1.2.0/24", 3, false, true);
        check("10.1.2.3/32", 3, true, true);
        check("11.0.0.0/8", 4, false, false);
    }

    #[test]
    fn every_part_of_a_prefix_is_hinted() {
        fn check(prefix: &str, inside: &[&str], parts: u32) {
            let mut hints = [vec![0; layout::HINTS], vec![0; layout::HINTS]];
            hint(&mut hints, net(prefix));
            for address in inside {
                let (bits, part) = match address.parse().unwrap() {
                    IpAddr::V4(a) => (&hints[0], v4(a).part()),
                    IpAddr::V6(a) => (&hints[1], v6(a).part()),
                };
                let part = usize::from(part);
                assert_eq!(
                    bits[part / 64] >> (part % 64) & 1,
                    1,
                    "{address} in {prefix}"
                );
            }
            let set: u32 = hints.iter().flatten().map(|word| word.count_ones()).sum();
            assert_eq!(set, parts, "{prefix}");
        }
        check("203.0.113.7/32", &["203.0.113.7"], 1);
        check(
            "10.0.0.0/8",
            &["10.0.0.0", "10.77.0.1", "10.255.255.255"],
            256,
        );
        check("0.0.0.0/0", &["0.0.0.0", "255.255.255.255"], 65_536);
        check("2001:db8:5::/48", &["2001:db8:5::1"], 1);
        check("2001:db8::/31", &["2001:db8::1", "2001:db9::1"], 2);
        check("2000::/3", &["2001:db8::1", "3fff::"], 65_536);
    }

    #[test]
    fn ports_lead_to_masks() {
        fn check(classes: &[(u8, PortSet)], few: bool, expected: &[(u8, u16, u64)]) {
            let classes = classes.iter().map(|(id, set)| (ClassId(*id), set.clone()));
            let image = Image {
                classes: classes.collect(),
                ..Image::default()
            };
            let tables = compile(&image, true).unwrap();
            assert_eq!(tables.few_classes, few);
            assert_eq!(tables.masks.len(), layout::MASKS);
            for &(protocol, port, expected) in expected {
                let index = match layout::port_index(protocol, port) {
                    Some(index) => usize::from(tables.ports[index]),
                    None => layout::PORT_MASKS + usize::from(protocol),
                };
                assert_eq!(tables.masks[index], expected, "{protocol}/{port}");
            }
        }
        let range = Service {
            protocol: TCP,
            first: 400,
            last: 500,
        };
        let mut classes = vec![
            (0, PortSet::new([range])),
            (5, PortSet::new([Service::tcp(443), Service::whole(50)])),
            (7, PortSet::new([Service::whole(UDP)])),
        ];
        let mut expected = vec![
            (TCP, 399, 0),
            (TCP, 400, 1),
            (TCP, 443, 1 | 1 << 5),
            (TCP, 500, 1),
            (TCP, 501, 0),
            (UDP, 0, 1 << 7),
            (UDP, 65535, 1 << 7),
            (SCTP, 443, 0),
            (50, 0, 1 << 5),
            (51, 0, 0),
        ];
        check(&classes, true, &expected);
        classes.push((8, PortSet::new([Service::tcp(80), Service::whole(51)])));
        expected[9] = (51, 0, 1 << 8);
        expected.push((TCP, 80, 1 << 8));
        check(&classes, false, &expected);
    }
}
