//! A plane in memory, for tests and for `explain`: the same verdict as the kernel's programs, looked
//! up in the image itself instead of in maps made of it.

use super::ebpf::interfaces::{self, own_macs, zones_on};
use super::ebpf::tables::{inside, local_addresses, sources, zone};
use super::{Holdings, Plane};
use crate::policy::ZoneId;
use crate::policy::image::{Change, Image, ZoneImage};
use crate::policy::links::{Kind, Vlan};
use crate::policy::port::ClassMask;
use egressd_common::address::{V4, V6};
use egressd_common::decide::{
    Lookup, PackedInterface, PackedZone, Place, Role, SENT, Tables, Zone, decide, decide_sent,
    judge,
};
use egressd_common::link::{self, Mac};
use egressd_common::network::Packet;
use egressd_common::transport::Transport;
use egressd_common::verdict::Verdict;
use ipnet::IpNet;
use std::collections::BTreeSet;
use std::net::IpAddr;

/// A plane in memory.
#[derive(Debug, Default)]
pub struct ModelPlane {
    /// Whether it judges as a plane that nft stands behind.
    nft_behind: bool,
    image: Option<Image>,
    learned: Holdings,
    refusals: BTreeSet<IpAddr>,
    fail_replace: bool,
    fail_apply: bool,
    broken: Option<String>,
}

impl ModelPlane {
    /// An empty plane.
    #[must_use]
    pub fn new(nft_behind: bool) -> Self {
        Self {
            nft_behind,
            ..Self::default()
        }
    }

    /// A plane that holds `image`.
    #[must_use]
    pub fn of(image: &Image, nft_behind: bool) -> Self {
        let mut model = Self::new(nft_behind);
        model.hold(image);
        model
    }

    /// Lets the next `replace` fail.
    pub fn fail_next_replace(&mut self) {
        self.fail_replace = true;
    }

    /// Lets the next `apply` fail.
    pub fn fail_next_apply(&mut self) {
        self.fail_apply = true;
    }

    /// From now on refuses changes that would grant one of `addresses`, as a full map does.
    pub fn refuse(&mut self, addresses: impl IntoIterator<Item = IpAddr>) {
        self.refusals = addresses.into_iter().collect();
    }

    /// Lets `verify` fail with `why` until the next `replace`.
    pub fn break_with(&mut self, why: &str) {
        self.broken = Some(why.to_owned());
    }

    /// The verdict on `frame`, which entered on the interface with this index. Before the first
    /// `replace` no interface is known.
    #[must_use]
    pub fn judge(&self, interface_index: u32, frame: &[u8]) -> Verdict {
        decide(&frame, interface_index, self)
    }

    /// The verdict on `frame`, which the gateway itself sends by the interface with this index.
    #[must_use]
    pub fn judge_sent(&self, interface_index: u32, frame: &[u8]) -> Verdict {
        decide_sent(&frame, interface_index, self)
    }

    /// The verdict on a sound packet that is described instead of sent; `None` when the interface
    /// is in no zone or the addresses are of two families.
    #[must_use]
    pub fn judge_flow(
        &self,
        interface_index: u32,
        source: IpAddr,
        destination: IpAddr,
        transport: Transport,
    ) -> Option<Verdict> {
        let interface = self.interface(interface_index)?;
        if interface.role() != Role::Zoned {
            return None;
        }
        match (source, destination) {
            (IpAddr::V4(source), IpAddr::V4(destination)) => {
                let [source, destination] = [source, destination].map(egressd_common::address::v4);
                let packet = Packet {
                    source,
                    destination,
                    transport,
                };
                Some(judge(&packet, interface_index, interface, self))
            }
            (IpAddr::V6(source), IpAddr::V6(destination)) => {
                let [source, destination] = [source, destination].map(egressd_common::address::v6);
                let packet = Packet {
                    source,
                    destination,
                    transport,
                };
                Some(judge(&packet, interface_index, interface, self))
            }
            (IpAddr::V4(_), IpAddr::V6(_)) | (IpAddr::V6(_), IpAddr::V4(_)) => None,
        }
    }

    fn hold(&mut self, image: &Image) {
        self.learned = image
            .grants
            .iter()
            .map(|&(z, address, mask)| ((z, address), mask))
            .collect();
        self.image = Some(image.clone());
        self.broken = None;
    }

    fn zones(&self) -> impl Iterator<Item = &ZoneImage> {
        self.image.iter().flat_map(|image| &image.zones)
    }

    /// The zones of an interface; none where nothing is attached.
    fn zones_on(&self, interface: u32) -> Vec<&ZoneImage> {
        let Some(image) = &self.image else {
            return Vec::new();
        };
        let link = image.links.0.get(&interface);
        link.map_or_else(Vec::new, |link| zones_on(image, link))
    }

    fn zone_of(&self, interface: u32, source: IpAddr) -> Option<Zone> {
        let mut best: Option<(u8, Zone)> = None;
        for candidate in self.zones_on(interface) {
            for net in sources(candidate) {
                let better = best.is_none_or(|(length, _)| net.prefix_len() > length);
                if net.contains(&source) && better {
                    best = Some((net.prefix_len(), zone(candidate)));
                }
            }
        }
        best.map(|(_, zone)| zone)
    }

    fn networks(&self, zone: u8, address: IpAddr) -> u64 {
        self.zones()
            .filter(|candidate| candidate.id.0 == u16::from(zone))
            .flat_map(|zone| &zone.networks)
            .filter(|(net, _)| net.contains(&address))
            .fold(0, |mask, (_, more)| mask | more.0)
    }

    fn place_of(&self, zone: u8, address: IpAddr) -> Place {
        let Some(image) = &self.image else {
            return Place::default();
        };
        let holds = |net: IpNet| net.contains(&address);
        Place {
            kind: 0,
            mask: self.networks(zone, address),
            own: local_addresses(&image.links).any(|own| own == address),
            internal: image.internal.iter().copied().any(holds),
            inside: self.nft_behind && inside(image).any(holds),
        }
    }

    fn grant_of(&self, zone: u8, address: IpAddr) -> u64 {
        self.learned
            .get(&(ZoneId(u16::from(zone)), address))
            .map_or(0, |mask| mask.0)
    }
}

impl Lookup for ModelPlane {
    fn interface(&self, index: u32) -> Option<PackedInterface> {
        let image = self.image.as_ref()?;
        if index & SENT != 0 {
            let link = image.links.0.get(&(index & !SENT))?;
            return interfaces::sent(image, link).map(egressd_common::decide::Interface::pack);
        }
        let link = image.links.0.get(&index)?;
        let interface = interfaces::interface(image, link, self.nft_behind);
        match (interface.role, link.stack.kind) {
            (Role::Zoned, _) | (_, Kind::Vlan(_)) => Some(interface.pack()),
            (Role::Upstream | Role::Unzoned | Role::Shut, _) => None,
        }
    }

    fn vlan(&self, index: u32, tag: u32) -> Option<u32> {
        let image = self.image.as_ref()?;
        let claims = |vlan: &Vlan| vlan.parent == index && link::tag(vlan.protocol, vlan.id) == tag;
        let mut devices = image.links.vlans();
        devices
            .find(|(_, vlan)| claims(vlan))
            .map(|(device, _)| device)
    }

    fn has_vlans(&self) -> bool {
        true
    }

    fn is_own_mac(&self, mac: Mac) -> bool {
        let mut images = self.image.iter();
        images.any(|image| own_macs(&image.links).any(|own| own == mac))
    }

    fn has_ports(&self) -> bool {
        true
    }

    fn classes(&self, protocol: u8, port: u16) -> u64 {
        let classes = self.image.iter().flat_map(|image| &image.classes);
        classes
            .filter(|(_, set)| set.contains(protocol, port))
            .fold(0, |mask, (class, _)| mask | ClassMask::of(*class).0)
    }

    fn serves(&self, zone: u8, protocol: u8, port: u16) -> bool {
        let mut of_zone = self.zones().filter(|z| z.id.0 == u16::from(zone));
        of_zone.any(|z| {
            z.serves
                .iter()
                .any(|served| served.contains(protocol, port))
        })
    }

    fn nft_behind(&self) -> bool {
        self.nft_behind
    }
}

/// The address that wire words are.
fn v4(address: &V4) -> IpAddr {
    address[0].to_ne_bytes().into()
}

/// The address that wire words are.
fn v6(address: &V6) -> IpAddr {
    let mut octets = [0; 16];
    for (bytes, word) in octets.as_chunks_mut::<4>().0.iter_mut().zip(address) {
        *bytes = word.to_ne_bytes();
    }
    octets.into()
}

impl Tables<V4> for ModelPlane {
    fn zone(&self, interface: u32, source: &V4) -> Option<PackedZone> {
        self.zone_of(interface, v4(source)).map(Zone::pack)
    }

    fn grant(&self, zone: u8, destination: &V4, _classes: u64) -> u64 {
        self.grant_of(zone, v4(destination))
    }

    fn place(&self, zone: u8, destination: &V4) -> Place {
        self.place_of(zone, v4(destination))
    }
}

impl Tables<V6> for ModelPlane {
    fn zone(&self, interface: u32, source: &V6) -> Option<PackedZone> {
        self.zone_of(interface, v6(source)).map(Zone::pack)
    }

    fn grant(&self, zone: u8, destination: &V6, _classes: u64) -> u64 {
        self.grant_of(zone, v6(destination))
    }

    fn place(&self, zone: u8, destination: &V6) -> Place {
        self.place_of(zone, v6(destination))
    }
}

impl Plane for ModelPlane {
    fn name(&self) -> &'static str {
        "model"
    }

    fn replace(&mut self, image: &Image) -> anyhow::Result<()> {
        anyhow::ensure!(!std::mem::take(&mut self.fail_replace), "told to fail");
        let refused = image
            .grants
            .iter()
            .find(|(_, address, _)| self.refusals.contains(address));
        if let Some((_, address, _)) = refused {
            anyhow::bail!("told to refuse {address}");
        }
        self.hold(image);
        Ok(())
    }

    fn apply(&mut self, changes: &[Change]) -> anyhow::Result<Vec<Change>> {
        anyhow::ensure!(!std::mem::take(&mut self.fail_apply), "told to fail");
        anyhow::ensure!(self.image.is_some(), "the model plane holds nothing yet");
        let mut refused = Vec::new();
        for change in changes {
            let key = (change.zone, change.address);
            if change.now.is_empty() {
                self.learned.remove(&key);
            } else if self.refusals.contains(&change.address) {
                refused.push(*change);
            } else {
                self.learned.insert(key, change.now);
            }
        }
        Ok(refused)
    }

    fn read(&mut self) -> anyhow::Result<Holdings> {
        Ok(self.learned.clone())
    }

    fn holds(&mut self, zone: ZoneId, address: IpAddr) -> anyhow::Result<ClassMask> {
        let id = super::ebpf::tables::id(zone);
        Ok(ClassMask(
            self.grant_of(id, address) | self.networks(id, address),
        ))
    }

    fn verify(&mut self) -> anyhow::Result<()> {
        anyhow::ensure!(self.image.is_some(), "the model plane holds nothing yet");
        match &self.broken {
            Some(why) => anyhow::bail!("{why}"),
            None => Ok(()),
        }
    }

    fn describe(&self) -> Vec<String> {
        vec!["in memory".to_owned()]
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::policy::image::{Inbound, Mode, Unzoned};
    use crate::policy::links::{InterfacePattern, Link, Stack};
    use egressd_common::transport::{Start, protocol};
    use egressd_common::verdict::{Action, NO_ZONE, Reason};

    /// `lan0` at index 1 has the zone's clients, 10.20/16; nothing is granted.
    fn image() -> Image {
        let link = Link {
            name: "lan0".to_owned(),
            up: true,
            mac: Vec::new(),
            ethernet: true,
            stack: Stack::default(),
            addresses: vec!["10.20.0.1/16".parse().unwrap()],
        };
        let mut image = Image {
            zones: vec![ZoneImage {
                id: ZoneId(0),
                name: "managed".to_owned(),
                interfaces: vec![InterfacePattern::Exact("lan0".to_owned())],
                sources: vec!["10.20.0.0/16".parse().unwrap()],
                mode: Mode::Enforce,
                inbound: Inbound::Allow,
                refusal: crate::policy::image::Refusal::Drop,
                serves: Vec::new(),
                redirect: Vec::new(),
                networks: Vec::new(),
            }],
            ..Image::default()
        };
        image.links.0.insert(1, link);
        image
    }

    fn check(image: &Image, source: &str, expected: (Action, Reason)) {
        let transport = Transport::new(protocol::TCP, 5000, 443, Start::Opens);
        let ends = [source, "198.51.100.1"].map(|text| text.parse().unwrap());
        for nft_behind in [true, false] {
            let verdict = ModelPlane::of(image, nft_behind)
                .judge_flow(1, ends[0], ends[1], transport)
                .unwrap();
            let found = (verdict.action, verdict.reason);
            assert_eq!(found, expected, "{source}, nft behind {nft_behind}");
            let claimed = verdict.reason == Reason::PortClosed;
            assert_eq!(verdict.zone == NO_ZONE, !claimed);
        }
    }

    #[test]
    fn a_forged_source_is_forged_whatever_happens_to_interfaces_in_no_zone() {
        let mut image = image();
        for unzoned in [Unzoned::Drop, Unzoned::Accept] {
            image.unzoned = unzoned;
            // No class holds the port.
            check(&image, "10.20.3.3", (Action::Drop, Reason::PortClosed));
            check(&image, "192.168.1.1", (Action::Drop, Reason::Spoofed));
            check(&image, "0.0.0.0", (Action::Pass, Reason::LinkBound));
        }
    }

    #[test]
    fn audit_drops_nothing_where_every_zone_is_in_audit_mode() {
        let mut image = image();
        image.zones[0].mode = Mode::Audit;
        check(&image, "192.168.1.1", (Action::Audit, Reason::Spoofed));
        let other = ZoneImage {
            id: ZoneId(1),
            sources: vec!["10.30.0.0/16".parse().unwrap()],
            mode: Mode::Enforce,
            ..image.zones[0].clone()
        };
        image.zones.push(other);
        check(&image, "192.168.1.1", (Action::Drop, Reason::Spoofed));
        check(&image, "10.20.3.3", (Action::Audit, Reason::PortClosed));
    }
}
