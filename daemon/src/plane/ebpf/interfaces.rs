//! PURE: which interfaces the kernel's programs must know: those in zones, to which they are attached,
//! and the VLAN devices on them, which they find by tag.

use super::tables::{DoesNotFit, Tables, all_audit, sources, zone};
use crate::policy::image::{Image, Unzoned, ZoneImage};
use crate::policy::links::{Kind, Link, Links, Vlan};
use egressd_common::address::{v4, v6};
use egressd_common::decide::{Interface, Role, SENT, Zone};
use egressd_common::layout::{self, Claim, Entry};
use egressd_common::link::{Mac, mac, tag};
use ipnet::IpNet;
use std::collections::{BTreeMap, BTreeSet};

/// An interface to attach to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Wanted {
    /// Its kernel name.
    pub(super) name: String,
    /// Whether frames begin with an Ethernet header.
    pub(super) ethernet: bool,
    /// What it makes of others' frames.
    pub(super) kind: Kind,
    /// What the gateway itself sends there is judged, and nothing that comes in.
    pub(super) sent: bool,
    /// The types of the tags that VLAN devices on it take, so that those must be seen.
    pub(super) tags: BTreeSet<u16>,
    /// Where its entry is.
    pub(super) slot: u32,
    /// Its entry.
    pub(super) entry: Entry,
}

/// Enters interfaces, VLANs and hardware addresses.
pub(super) fn enter(
    image: &Image,
    nft_behind: bool,
    tables: &mut Tables,
) -> Result<(), DoesNotFit> {
    let vlans = vlans(image);
    let mut taken = BTreeSet::new();
    for (&index, link) in &image.links.0 {
        let here = zones_on(image, link);
        if here.is_empty() && !vlans.contains_key(&index) {
            continue;
        }
        let sole = sole(&here);
        let mut claimed = BTreeMap::new();
        for zone_here in here.iter().filter(|_| sole.is_none()) {
            for net in sources(zone_here) {
                claimed.entry(net.trunc()).or_insert(zone(zone_here));
            }
        }
        let mut slots = (0..layout::PROBES).map(|probe| layout::slot(index, probe));
        let Some(slot) = slots.find(|slot| taken.insert(*slot)) else {
            if here.is_empty() {
                // What comes to it by its tag is dropped: it has no entry.
                log::warn!(target: "ebpf", "{}: no room for this VLAN: its frames are dropped", link.name);
                continue;
            }
            return Err(DoesNotFit::Interfaces);
        };
        let interface = interface(image, link, nft_behind);
        let entry = entry(index, interface, &claimed);
        if here.is_empty() {
            tables.strangers.push((slot, entry));
        } else {
            if interface.port {
                tables.macs = own_macs(&image.links).collect();
            }
            let wanted = Wanted {
                name: link.name.clone(),
                ethernet: link.ethernet,
                kind: link.stack.kind,
                sent: false,
                tags: vlans
                    .values()
                    .filter(|vlan| vlan.parent == index)
                    .map(|vlan| vlan.protocol)
                    .collect(),
                slot,
                entry,
            };
            tables.interfaces.insert(index, wanted);
        }
        for (net, zone) in claimed {
            tables.sources.push(index, net, zone.pack().packed());
        }
    }
    for (&index, link) in &image.links.0 {
        let Some(interface) = sent(image, link) else {
            continue;
        };
        let mut slots = (0..layout::PROBES).map(|probe| layout::slot(index | SENT, probe));
        let Some(slot) = slots.find(|slot| taken.insert(*slot)) else {
            return Err(DoesNotFit::Interfaces);
        };
        let wanted = Wanted {
            name: link.name.clone(),
            ethernet: link.ethernet,
            kind: link.stack.kind,
            sent: true,
            tags: BTreeSet::new(),
            slot,
            entry: entry(index | SENT, interface, &BTreeMap::new()),
        };
        tables.interfaces.insert(index, wanted);
    }
    tables.vlans = vlans
        .into_iter()
        .map(|(index, vlan)| ([vlan.parent, tag(vlan.protocol, vlan.id)], index))
        .collect();
    Ok(())
}

/// The VLAN devices on the zones' interfaces, and those on them.
fn vlans(image: &Image) -> BTreeMap<u32, Vlan> {
    let in_zones = |(_, link): &(&u32, &Link)| !zones_on(image, link).is_empty();
    let mut reached: BTreeSet<u32> = image
        .links
        .0
        .iter()
        .filter(in_zones)
        .map(|(i, _)| *i)
        .collect();
    let mut found = BTreeMap::new();
    loop {
        let before = found.len();
        for (index, vlan) in image.links.vlans() {
            if reached.contains(&vlan.parent) {
                reached.insert(index);
                found.insert(index, vlan);
            }
        }
        if found.len() == before {
            return found;
        }
    }
}

/// The zones of an interface; none where it is upstream.
pub(in crate::plane) fn zones_on<'a>(image: &'a Image, link: &Link) -> Vec<&'a ZoneImage> {
    if is_upstream(image, link) {
        return Vec::new();
    }
    let here = |zone: &&ZoneImage| zone.interfaces.iter().any(|p| p.matches(&link.name));
    image.zones.iter().filter(here).collect()
}

fn is_upstream(image: &Image, link: &Link) -> bool {
    image.upstream.iter().any(|p| p.matches(&link.name))
}

/// An interface as packets meet it.
pub(in crate::plane) fn interface(image: &Image, link: &Link, nft_behind: bool) -> Interface {
    let here = zones_on(image, link);
    let others = match image.unzoned {
        Unzoned::Accept => true,
        // What is a port of a bridge or bond comes in on that, and is judged there.
        Unzoned::Drop => nft_behind || link.stack.master.is_some(),
    };
    Interface {
        role: match (is_upstream(image, link), here.is_empty()) {
            (true, _) => Role::Upstream,
            (false, false) => Role::Zoned,
            (false, true) if others => Role::Unzoned,
            (false, true) => Role::Shut,
        },
        port: image.links.is_bridge_port(link),
        ethernet: link.ethernet,
        audit: !here.is_empty() && all_audit(&here),
        sole: sole(&here),
    }
}

/// An interface as packets meet it that the gateway itself sends; `None` where those are not judged: on the
/// loopback and in zones. What leaves by a port of a bridge or bond left by that first.
pub(in crate::plane) fn sent(image: &Image, link: &Link) -> Option<Interface> {
    let own = image.own.as_ref()?;
    let of_gateway = image.zones.iter().find(|zone| zone.id == own.zone)?;
    let judged =
        link.name != "lo" && link.stack.master.is_none() && zones_on(image, link).is_empty();
    judged.then(|| Interface {
        role: Role::Zoned,
        port: false,
        ethernet: link.ethernet,
        audit: all_audit(&[of_gateway]),
        sole: Some(zone(of_gateway)),
    })
}

/// The one zone that takes every source, if it is alone.
fn sole(here: &[&ZoneImage]) -> Option<Zone> {
    match here {
        [only] if only.sources.is_empty() => Some(zone(only)),
        _ => None,
    }
}

/// Every hardware address to which a frame may be sent that is meant for the gateway: whatever
/// stands on whatever, an interface more is judged, not bridged.
pub(in crate::plane) fn own_macs(links: &Links) -> impl Iterator<Item = Mac> {
    links
        .0
        .values()
        .filter_map(|link| <[u8; 6]>::try_from(link.mac.as_slice()).ok().map(mac))
}

fn entry(index: u32, interface: Interface, claimed: &BTreeMap<IpNet, Zone>) -> Entry {
    let (of_v4, of_v6): (Vec<_>, Vec<_>) = claimed
        .iter()
        .partition(|(net, _)| matches!(net, IpNet::V4(_)));
    let claim = |of: &[(&IpNet, &Zone)]| match of {
        [] => Claim::Nobody,
        [(_, zone)] => Claim::One(zone.pack()),
        _ => Claim::Several,
    };
    let mut entry = Entry::default();
    entry[0] = index;
    entry[1] = interface.pack().0;
    entry[2] = claim(&of_v4).pack();
    entry[5] = claim(&of_v6).pack();
    for (net, _) in claimed.iter() {
        match net {
            IpNet::V4(net) => {
                entry[3..4].copy_from_slice(&v4(net.network()));
                entry[4..5].copy_from_slice(&v4(net.netmask()));
            }
            IpNet::V6(net) => {
                entry[6..10].copy_from_slice(&v6(net.network()));
                entry[10..14].copy_from_slice(&v6(net.netmask()));
            }
        }
    }
    entry
}
