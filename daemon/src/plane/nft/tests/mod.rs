//! The plane against the real kernel, in namespaces of its own.

use super::lab::{Lab, Place, carries};
use super::*;
use crate::policy::image::{Inbound, Mode, Unzoned, ZoneImage};
use crate::policy::links::InterfacePattern;
use crate::policy::origin::Origin;
use crate::policy::port::{ClassId, PortSet, Service};
use std::time::{Duration, Instant};

mod lockdown;
mod ownership;
mod packets;
mod redirect;
mod state;

pub(super) const ZONE: ZoneId = ZoneId(0);
pub(super) const WEB: ClassId = ClassId(0);
pub(super) const RANGE: ClassId = ClassId(1);
pub(super) const PING: ClassId = ClassId(2);

pub(super) fn image() -> Image {
    let exact = |name: &str| InterfacePattern::Exact(name.to_owned());
    Image {
        upstream: vec![exact("wan0")],
        internal: vec!["10.0.0.0/8".parse().unwrap()],
        classes: vec![
            (WEB, PortSet::new([Service::tcp(443), Service::udp(443)])),
            (
                RANGE,
                PortSet::new([Service {
                    protocol: 6,
                    first: 8000,
                    last: 8010,
                }]),
            ),
            (PING, PortSet::new([Service::whole(1), Service::whole(58)])),
        ],
        zones: vec![ZoneImage {
            id: ZONE,
            name: "managed".to_owned(),
            interfaces: vec![exact("lan0")],
            sources: vec![
                "10.20.0.0/16".parse().unwrap(),
                "2001:db8:20::/48".parse().unwrap(),
            ],
            mode: Mode::Enforce,
            inbound: Inbound::Allow,
            refusal: crate::policy::image::Refusal::Drop,
            serves: Vec::new(),
            redirect: Vec::new(),
            networks: vec![
                ("203.0.113.4/31".parse().unwrap(), ClassMask::of(WEB)),
                ("203.0.113.5/32".parse().unwrap(), ClassMask::of(WEB)),
                ("2001:db8:ff::8/125".parse().unwrap(), ClassMask::of(WEB)),
            ],
        }],
        ..Image::default()
    }
}

pub(super) fn grant(address: &str, classes: &[ClassId]) -> (ZoneId, IpAddr, ClassMask) {
    let mask = classes
        .iter()
        .fold(ClassMask::NONE, |mask, class| mask.with(*class));
    (ZONE, address.parse().unwrap(), mask)
}

pub(super) fn change(address: &str, classes: &[ClassId]) -> Change {
    let (zone, address, now) = grant(address, classes);
    Change {
        zone,
        address,
        was: ClassMask::NONE,
        now,
        origin: Origin::default(),
    }
}

/// The plane in the gateway. Its socket stays in the namespace whichever thread uses it.
pub(super) fn plane(lab: &Lab) -> NftPlane {
    lab.within(Place::Gateway, || NftPlane::open(5).unwrap())
}

/// Lines without indentation and blanks.
pub(super) fn lines(text: &str) -> Vec<&str> {
    text.lines()
        .map(str::trim)
        .filter(|line| !line.is_empty())
        .collect()
}

pub(super) fn table(lab: &Lab) -> String {
    lab.gateway("nft -s list table inet egressd", "")
}
