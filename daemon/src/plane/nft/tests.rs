//! The plane against the real kernel, in namespaces of its own.
#![expect(clippy::disallowed_methods, reason = "shell: tests measure and wait")]

use super::lab::{Lab, Place, carries};
use super::*;
use crate::plane::conntrack::Conntrack;
use crate::policy::image::{Inbound, Mode, Unzoned, ZoneImage};
use crate::policy::links::InterfacePattern;
use crate::policy::port::{ClassId, PortSet, Service};
use std::time::{Duration, Instant};

const ZONE: ZoneId = ZoneId(0);
const WEB: ClassId = ClassId(0);
const RANGE: ClassId = ClassId(1);
const PING: ClassId = ClassId(2);

fn image() -> Image {
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
            serves: Vec::new(),
            networks: vec![
                ("203.0.113.4/31".parse().unwrap(), ClassMask::of(WEB)),
                ("203.0.113.5/32".parse().unwrap(), ClassMask::of(WEB)),
                ("2001:db8:ff::8/125".parse().unwrap(), ClassMask::of(WEB)),
            ],
        }],
        ..Image::default()
    }
}

fn grant(address: &str, classes: &[ClassId]) -> (ZoneId, IpAddr, ClassMask) {
    let mask = classes
        .iter()
        .fold(ClassMask::NONE, |mask, class| mask.with(*class));
    (ZONE, address.parse().unwrap(), mask)
}

fn change(address: &str, classes: &[ClassId]) -> Change {
    let (zone, address, now) = grant(address, classes);
    Change {
        zone,
        address,
        was: ClassMask::NONE,
        now,
    }
}

/// The plane in the gateway. Its socket stays in the namespace whichever thread uses it.
fn plane(lab: &Lab) -> NftPlane {
    lab.within(Place::Gateway, || NftPlane::open(5).unwrap())
}

#[test]
fn granted_passes_and_the_rest_does_not() {
    let Some(lab) = Lab::new() else { return };
    for address in ["0.0.0.0:443", "0.0.0.0:8005", "0.0.0.0:8011", "[::]:80"] {
        lab.serve(Place::Internet, &address.replace("0.0.0.0:443", "[::]:443"));
    }
    let mut plane = plane(&lab);
    let mut image = image();
    image.grants = vec![
        grant("203.0.113.1", &[WEB]),
        grant("203.0.113.2", &[RANGE]),
        grant("2001:db8:ff::1", &[WEB]),
    ];
    plane.replace(&image).unwrap();
    plane.verify().unwrap();
    lab.tcp("203.0.113.1:443", true);
    lab.udp("203.0.113.1:443", true);
    lab.tcp("203.0.113.1:80", false);
    lab.tcp("203.0.113.1:8005", false);
    lab.tcp("203.0.113.3:443", false);
    lab.tcp("203.0.113.2:8005", true);
    lab.tcp("203.0.113.2:8011", false);
    lab.tcp("203.0.113.4:443", true);
    lab.tcp("203.0.113.5:443", true);
    lab.tcp("203.0.113.6:443", false);
    lab.tcp("[2001:db8:ff::1]:443", true);
    lab.tcp("[2001:db8:ff::2]:443", false);
    lab.tcp("[2001:db8:ff::1]:80", false);
    lab.tcp("[2001:db8:ff::9]:443", true);
    lab.udp("[2001:db8:ff::1]:443", true);

    plane
        .apply(&[change("203.0.113.3", &[WEB]), change("203.0.113.1", &[])])
        .unwrap();
    lab.tcp("203.0.113.3:443", true);
    lab.tcp("203.0.113.1:443", false);

    let counters = plane.counters();
    let packets = |action: &str, reason: &str| -> u64 {
        let of = |c: &&Counter| c.action == action && c.reason == reason;
        counters.iter().filter(of).map(|c| c.packets).sum()
    };
    assert!(packets("pass", "granted") >= 5, "{counters:?}");
    assert!(packets("pass", "network") >= 3, "{counters:?}");
    assert!(packets("drop", "port") >= 3, "{counters:?}");
    assert!(packets("drop", "address") >= 3, "{counters:?}");
    let deadline = Instant::now() + Duration::from_secs(5);
    let mut reports = Vec::new();
    while reports.len() < 8 && Instant::now() < deadline {
        reports.extend(plane.refused());
    }
    let seen = |destination: &str, port: u16, reason: &str| {
        let destination: IpAddr = destination.parse().unwrap();
        reports.iter().any(|packet| {
            (packet.destination, packet.port, packet.reason.as_str()) == (destination, port, reason)
                && packet.zone == Some(ZONE)
                && packet.source
                    == (if destination.is_ipv4() {
                        "10.20.0.2"
                    } else {
                        "2001:db8:20::2"
                    })
                    .parse::<IpAddr>()
                    .unwrap()
                && !packet.audited
        })
    };
    assert!(seen("203.0.113.1", 80, "port"), "{reports:#?}");
    assert!(seen("203.0.113.2", 8011, "port"), "{reports:#?}");
    assert!(seen("203.0.113.6", 443, "address"), "{reports:#?}");
    assert!(seen("2001:db8:ff::2", 443, "address"), "{reports:#?}");
}
