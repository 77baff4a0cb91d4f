//! PURE: the corpus's gateway, zone and grants as an image.

use crate::policy::ZoneId;
use crate::policy::image::{Image, Inbound, Mode, ZoneImage};
use crate::policy::links::{InterfacePattern, Link, Links, Stack};
use crate::policy::port::{ClassId, ClassMask, PortSet, Service};
use egressd_common::corpus::{World, plan};
use ipnet::IpNet;
use std::collections::BTreeMap;

fn nets(texts: &[&str]) -> Vec<IpNet> {
    let parse = |text: &&str| text.parse().expect("the corpus's plan is right");
    texts.iter().map(parse).collect()
}

/// The gateway of the corpus in `world`, with `lan0` and `wan0` at these indexes.
#[must_use]
pub fn image(world: World, lan: u32, wan: u32) -> Image {
    let exact = |name: &str| vec![InterfacePattern::Exact(name.to_owned())];
    let link = |name: &str, addresses: &[&str]| Link {
        name: name.to_owned(),
        up: true,
        mac: plan::MAC.to_vec(),
        ethernet: world.ethernet(),
        addresses: nets(addresses),
        stack: Stack::default(),
    };
    let web = [Service::tcp(80), Service::tcp(443), Service::udp(443)];
    let sctp = Service {
        protocol: 132,
        first: 443,
        last: 443,
    };
    let tunnel = [1, 58, 47, 50].map(Service::whole);
    let (web_class, tunnel_class) = (ClassId(0), ClassId(1));
    let granted = ClassMask::of(web_class);
    Image {
        links: Links(BTreeMap::from([
            (lan, link("lan0", &plan::LAN)),
            (wan, link("wan0", &plan::WAN)),
        ])),
        upstream: exact("wan0"),
        internal: nets(&plan::INTERNALS),
        classes: vec![
            (web_class, PortSet::new(web.into_iter().chain([sctp]))),
            (
                tunnel_class,
                PortSet::new(tunnel.into_iter().chain([Service::udp(4500)])),
            ),
        ],
        zones: vec![ZoneImage {
            id: ZoneId(0),
            name: "managed".to_owned(),
            interfaces: exact("lan0"),
            sources: nets(&plan::SOURCES),
            mode: if world.audits() {
                Mode::Audit
            } else {
                Mode::Enforce
            },
            refusal: crate::policy::image::Refusal::Drop,
            inbound: if world.denies() {
                Inbound::Deny
            } else {
                Inbound::Allow
            },
            serves: world
                .serves()
                .then_some(Service::udp(plan::SERVED))
                .into_iter()
                .collect(),
            redirect: Vec::new(),
            networks: nets(&plan::NETWORKS)
                .into_iter()
                .map(|net| (net, granted))
                .collect(),
        }],
        grants: plan::GRANTED
            .map(|address| (ZoneId(0), address, granted))
            .into_iter()
            .chain(plan::TUNNEL.map(|address| (ZoneId(0), address, ClassMask::of(tunnel_class))))
            .collect(),
        ..Image::default()
    }
}
