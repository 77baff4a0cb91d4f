//! The kernel's programs for real: against the model, and on interfaces in namespaces. Where the
//! object or the rights are missing they say so and are skipped.

mod cost;
mod differential;
mod kernel;
mod mend;
mod reports;
mod stacked;
mod trunk;
mod world;

use super::generation::Generation;
use super::tables;
use crate::policy::image::{Image, Inbound, Mode, ZoneImage};
use crate::policy::links::{InterfacePattern, Link, Links, Stack};
use crate::policy::port::{ClassId, ClassMask, PortSet, Service};
use crate::policy::{Revision, ZoneId};
use std::collections::BTreeMap;

/// Whether the kernel's programs can be loaded here; says loudly if not.
fn can_run(test: &str) -> bool {
    let why = if super::generation::object().is_err() {
        "built without the eBPF object (EGRESSD_EBPF_OBJECT)"
    } else if !nix::unistd::geteuid().is_root() {
        "not root"
    } else {
        return true;
    };
    eprintln!("SKIPPED {test}: {why}");
    false
}

fn lan(name: &str) -> Vec<InterfacePattern> {
    vec![InterfacePattern::parse(name).unwrap()]
}

/// A gateway with `lan0` at index 1 and `lan1` at index 2, two zones, some grants and networks.
fn image() -> Image {
    let link = |name: &str, addresses: &[&str]| Link {
        name: name.into(),
        up: true,
        mac: vec![2, 0, 0, 0, 0, 1],
        ethernet: true,
        stack: Stack::default(),
        addresses: addresses.iter().map(|text| text.parse().unwrap()).collect(),
    };
    let links = Links(BTreeMap::from([
        (
            1,
            link("lan0", &["10.20.0.1/16", "2001:db8:20::1/64", "fe80::1/64"]),
        ),
        (2, link("lan1", &["10.30.0.1/24"])),
        (3, link("wan0", &["192.0.2.1/24"])),
    ]));
    let web = PortSet::new([Service::tcp(443), Service::tcp(80)]);
    let time = PortSet::new([Service::udp(123)]);
    let tunnel = PortSet::new([Service::whole(50), Service::whole(1), Service::udp(4500)]);
    let range = PortSet::new([Service {
        protocol: 6,
        first: 400,
        last: 500,
    }]);
    let mask = |bits: &[u8]| {
        bits.iter()
            .fold(ClassMask::NONE, |m, b| m.with(ClassId(*b)))
    };
    let zone = |id, name: &str| ZoneImage {
        id: ZoneId(id),
        name: name.into(),
        interfaces: lan("lan0"),
        sources: Vec::new(),
        mode: Mode::Enforce,
        inbound: Inbound::Allow,
        refusal: crate::policy::image::Refusal::Drop,
        serves: Vec::new(),
        redirect: Vec::new(),
        networks: Vec::new(),
    };
    Image {
        revision: Revision(1),
        links,
        upstream: lan("wan0"),
        internal: vec![
            "10.99.0.0/16".parse().unwrap(),
            "2001:db8:99::/48".parse().unwrap(),
        ],
        classes: vec![
            (ClassId(0), web),
            (ClassId(1), time),
            (ClassId(2), tunnel),
            (ClassId(63), range),
        ],
        zones: vec![
            ZoneImage {
                sources: vec![
                    "10.20.0.0/16".parse().unwrap(),
                    "2001:db8:20::/48".parse().unwrap(),
                ],
                serves: vec![Service::udp(53), Service::udp(5060), Service::whole(47)],
                networks: vec![
                    ("203.0.113.0/24".parse().unwrap(), mask(&[0])),
                    ("203.0.113.128/25".parse().unwrap(), mask(&[0, 1])),
                    ("10.0.0.0/8".parse().unwrap(), mask(&[63])),
                    ("2001:db8:f::/48".parse().unwrap(), mask(&[0])),
                ],
                ..zone(0, "managed")
            },
            ZoneImage {
                sources: vec!["10.20.7.0/24".parse().unwrap()],
                inbound: Inbound::Deny,
                refusal: crate::policy::image::Refusal::Drop,
                redirect: vec!["10.20.0.1:53".parse().unwrap()],
                ..zone(5, "strict")
            },
            ZoneImage {
                sources: vec![
                    "10.20.8.0/24".parse().unwrap(),
                    "2001:db8:20:8::/64".parse().unwrap(),
                ],
                mode: Mode::Audit,
                ..zone(63, "trial")
            },
            ZoneImage {
                interfaces: lan("lan1"),
                ..zone(9, "guests")
            },
        ],
        grants: vec![
            (ZoneId(0), "198.51.100.1".parse().unwrap(), mask(&[0])),
            (ZoneId(0), "198.51.100.2".parse().unwrap(), mask(&[1, 2])),
            (ZoneId(5), "198.51.100.1".parse().unwrap(), mask(&[0])),
            (ZoneId(5), "198.51.100.3".parse().unwrap(), mask(&[63])),
            (ZoneId(9), "198.51.100.1".parse().unwrap(), mask(&[0])),
            (ZoneId(0), "2001:db8:a::1".parse().unwrap(), mask(&[0])),
            (ZoneId(63), "2001:db8:a::2".parse().unwrap(), mask(&[63])),
        ],
        ..Image::default()
    }
}

fn load(image: &Image, nft_behind: bool) -> Generation {
    let compiled = tables::compile(image, nft_behind).unwrap();
    Generation::load(image, &compiled, 1000, nft_behind).unwrap()
}
