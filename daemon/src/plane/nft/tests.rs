//! The plane against the real kernel, in namespaces of its own.
#![expect(clippy::disallowed_methods, reason = "shell: tests measure and wait")]

use super::lab::{Lab, Place, carries};
use super::*;
use crate::plane::conntrack::Conntrack;
use crate::plane::ruleset::Generation;
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

/// Lines without indentation and blanks.
fn lines(text: &str) -> Vec<&str> {
    text.lines()
        .map(str::trim)
        .filter(|line| !line.is_empty())
        .collect()
}

fn table(lab: &Lab) -> String {
    lab.gateway("nft -s list table inet egressd", "")
}

#[test]
fn the_kernel_lists_what_the_description_says() {
    let Some(lab) = Lab::new() else { return };
    let mut plane = plane(&lab);
    let mut image = image();
    image.grants = vec![
        grant("203.0.113.2", &[RANGE]),
        grant("2001:db8:ff::1", &[WEB]),
    ];
    plane.replace(&image).unwrap();
    let listed = table(&lab);
    let chains_from = |text: &str| text[text.find("chain forward").unwrap()..].to_owned();
    // nft names protocols, and shows what the description leaves to the plane.
    let described = chains_from(&Ruleset::new(&image, Generation::A).to_string())
        .replace("l4proto 1 ", "l4proto icmp ")
        .replace("l4proto 58 ", "l4proto ipv6-icmp ")
        .lines()
        .map(|line| {
            let log = if line.contains(" log ") {
                " group 5 snaplen 128"
            } else {
                ""
            };
            format!("{line}{log}\n")
        })
        .collect::<String>();
    assert_eq!(lines(&chains_from(&listed)), lines(&described));
    for expected in [
        "elements = { 203.0.113.2 }",
        "elements = { 2001:db8:ff::1 }",
        "elements = { 10.0.0.0/8 }",
        "elements = { 203.0.113.4/31 }",
        "elements = { 2001:db8:ff::8/125 }",
        "elements = { 443 : goto z0_m1_a, 8000-8010 : goto z0_m2_a }",
        "elements = { icmp : goto z0_m4_a, tcp : goto z0_p6_a, udp : goto z0_p17_a, ipv6-icmp : goto z0_m4_a }",
    ] {
        assert!(
            lines(&listed).contains(&expected),
            "{expected} is not in\n{listed}"
        );
    }
}

#[test]
fn the_original_destination_is_judged() {
    let Some(lab) = Lab::new() else { return };
    lab.serve(Place::Internet, "[::]:443");
    lab.serve(Place::Client, "10.20.0.2:80");
    lab.gateway(
        "nft -f -",
        "table inet nat {\n chain pre { type nat hook prerouting priority dstnat;
            ip daddr 203.0.113.7 dnat ip to 203.0.113.1
            ip daddr 203.0.113.8 dnat ip to 203.0.113.9
            tcp dport 444 dnat to :443
            iifname wan0 tcp dport 8080 dnat ip to 10.20.0.2:80
        }
        }\n",
    );
    let mut plane = plane(&lab);
    let mut image = image();
    image.grants = vec![grant("203.0.113.7", &[WEB]), grant("203.0.113.9", &[WEB])];
    plane.replace(&image).unwrap();
    // Granted as asked, whatever the address behind it is; and the other way round.
    lab.tcp("203.0.113.7:443", true);
    lab.tcp("203.0.113.8:443", false);
    lab.tcp("203.0.113.9:443", true);
    lab.tcp("203.0.113.9:444", false);
    // The answer of a client that was reached from outside belongs to that flow.
    let mut inbound = |plane: &mut NftPlane, mode, expected| {
        image.zones[0].inbound = mode;
        plane.replace(&image).unwrap();
        let patience = Duration::from_millis(if expected { 3000 } else { 250 });
        let got = lab.connect(
            Place::Internet,
            "198.51.100.2",
            "198.51.100.1:8080",
            patience,
        );
        assert_eq!(got.is_some(), expected, "{mode:?}");
        got
    };
    let open = inbound(&mut plane, Inbound::Allow, true).unwrap();
    inbound(&mut plane, Inbound::Deny, false);
    lab.tcp("203.0.113.9:443", true);
    assert!(carries(&open), "an established flow was cut by the plane");
    let drops = plane
        .counters()
        .into_iter()
        .find(|c| c.reason == "inbound")
        .unwrap();
    assert!(drops.packets > 0 && drops.zone == "managed");
}

#[test]
fn audit_passes_counts_and_reports() {
    let Some(lab) = Lab::new() else { return };
    lab.serve(Place::Internet, "[::]:80");
    let mut plane = plane(&lab);
    let mut image = image();
    image.zones[0].mode = Mode::Audit;
    plane.replace(&image).unwrap();
    lab.tcp("203.0.113.1:80", true);
    lab.tcp("[2001:db8:ff::1]:80", true);
    let would = plane
        .counters()
        .into_iter()
        .find(|c| c.action == "audit" && c.reason == "port");
    assert_eq!(would.unwrap().packets, 2);
    let deadline = Instant::now() + Duration::from_secs(5);
    let mut reports = Vec::new();
    while reports.len() < 2 && Instant::now() < deadline {
        reports.extend(plane.refused());
    }
    assert!(
        reports.len() == 2 && reports.iter().all(|packet| packet.audited),
        "{reports:?}"
    );
}

#[test]
fn zones_are_chosen_by_interface_and_most_specific_source() {
    let Some(lab) = Lab::new() else { return };
    lab.serve(Place::Internet, "[::]:443");
    let mut plane = plane(&lab);
    let mut image = image();
    image.unzoned = Unzoned::Accept;
    let wide = image.zones[0].clone();
    image.zones.push(ZoneImage {
        id: ZoneId(1),
        name: "narrow".to_owned(),
        interfaces: vec![InterfacePattern::Prefix("lan".to_owned())],
        sources: vec!["10.20.0.3/32".parse().unwrap()],
        networks: Vec::new(),
        ..wide
    });
    image.grants = vec![
        grant("203.0.113.1", &[WEB]),
        (
            ZoneId(1),
            "203.0.113.2".parse().unwrap(),
            ClassMask::of(WEB),
        ),
    ];
    plane.replace(&image).unwrap();
    let check = |from: &str, to: &str, expected: bool| {
        let patience = Duration::from_millis(if expected { 3000 } else { 250 });
        let got = lab.connect(Place::Client, from, &format!("{to}:443"), patience);
        assert_eq!(got.is_some(), expected, "from {from} to {to}");
    };
    check("10.20.0.2", "203.0.113.1", true);
    check("10.20.0.2", "203.0.113.2", false);
    check("10.20.0.3", "203.0.113.1", false);
    check("10.20.0.3", "203.0.113.2", true);
    // No zone claims this source, but zones claim its interface.
    check("10.99.0.2", "203.0.113.1", false);
    // An interface that no zone claims is others' business, or nobody's.
    image.zones.iter_mut().for_each(|zone| {
        zone.interfaces = vec![InterfacePattern::Exact("lan7".to_owned())];
    });
    plane.replace(&image).unwrap();
    check("10.99.0.2", "203.0.113.9", true);
    image.unzoned = Unzoned::Drop;
    plane.replace(&image).unwrap();
    check("10.99.0.2", "203.0.113.9", false);
}

#[test]
fn a_replace_keeps_what_was_learned_and_changes_the_rest() {
    let Some(lab) = Lab::new() else { return };
    let mut plane = plane(&lab);
    let mut image = image();
    plane.replace(&image).unwrap();
    let handle = plane.standing.as_ref().unwrap().table.handle;
    let learned = [
        change("203.0.113.1", &[WEB]),
        change("203.0.113.2", &[WEB, RANGE]),
    ];
    assert_eq!(plane.apply(&learned).unwrap(), []);

    // Another class, another zone, one class gone; grants as policy holds them.
    let push = ClassId(9);
    image.classes.retain(|(class, _)| *class != RANGE);
    image
        .classes
        .push((push, PortSet::new([Service::tcp(5223)])));
    image.zones.push(ZoneImage {
        id: ZoneId(3),
        name: "guests".to_owned(),
        interfaces: vec![InterfacePattern::Exact("lan9".to_owned())],
        ..image.zones[0].clone()
    });
    image.grants = vec![
        grant("203.0.113.1", &[WEB]),
        grant("203.0.113.2", &[WEB]),
        grant("203.0.113.3", &[push]),
        (
            ZoneId(3),
            "203.0.113.1".parse().unwrap(),
            ClassMask::of(push),
        ),
    ];
    plane.replace(&image).unwrap();
    assert_eq!(
        plane.standing.as_ref().unwrap().table.handle,
        handle,
        "the table was made anew"
    );
    let expected = |image: &Image| -> Holdings {
        image
            .grants
            .iter()
            .map(|&(zone, address, mask)| ((zone, address), mask))
            .collect()
    };
    assert_eq!(plane.read().unwrap(), expected(&image));
    plane.verify().unwrap();
    let text = table(&lab);
    assert!(
        !text.contains("z0_c1_") && text.contains("z3_c9_4") && !text.contains("8000"),
        "{text}"
    );

    // And back: the zone, its sets, chains and counters are gone.
    image.zones.pop();
    image.grants.pop();
    plane.replace(&image).unwrap();
    assert_eq!(plane.read().unwrap(), expected(&image));
    plane.verify().unwrap();
    assert!(!table(&lab).contains("z3"));
    // The same image again changes elements alone.
    image.grants.pop();
    plane.replace(&image).unwrap();
    assert_eq!(plane.read().unwrap(), expected(&image));
    assert_eq!(plane.standing.as_ref().unwrap().table.handle, handle);
}

#[test]
fn a_refused_element_takes_no_neighbour_along() {
    let Some(lab) = Lab::new() else { return };
    let mut plane = plane(&lab);
    plane.replace(&image()).unwrap();
    // The class of the bad ones has no set in the kernel.
    let unknown = ClassId(40);
    let mut changes: Vec<Change> = (1..=200u32)
        .map(|n| {
            change(
                &std::net::Ipv4Addr::from(0xcb00_7100 + n).to_string(),
                &[WEB],
            )
        })
        .collect();
    changes[17] = change("198.18.0.1", &[unknown]);
    changes[151] = change("198.18.0.2", &[WEB, unknown]);
    let bad = [changes[17], changes[151]];
    assert_eq!(plane.apply(&changes).unwrap(), bad);
    let held = plane.read().unwrap();
    assert_eq!(held.len(), 199, "198 neighbours, and the good half of one");
    assert_eq!(
        held,
        plane.standing.as_ref().unwrap().held,
        "what is remembered is what is there"
    );
    // An element that somebody else took out: closed is closed, but the caller hears of it.
    let gone: IpAddr = "192.0.2.1".parse().unwrap();
    let standing = plane.standing.as_mut().unwrap();
    standing.held.insert((ZONE, gone), ClassMask::of(WEB));
    let also = change("203.0.113.201", &[WEB]);
    assert_eq!(plane.apply(&[change("192.0.2.1", &[]), also]).unwrap(), []);
    assert_eq!(plane.holds(ZONE, also.address).unwrap(), ClassMask::of(WEB));
    assert!(
        plane
            .verify()
            .unwrap_err()
            .to_string()
            .contains("lacked an element")
    );
    plane.replace(&image()).unwrap();
    plane.verify().unwrap();
    assert_eq!(plane.read().unwrap(), Holdings::new());
}

#[test]
fn batches_of_any_size_read_back_equal() {
    let Some(lab) = Lab::new() else { return };
    let mut plane = plane(&lab);
    plane.replace(&image()).unwrap();
    let mut next = 0u32;
    for size in [1, 1_000, 5_000, 100_000] {
        let changes: Vec<Change> = (next..next + size)
            .map(|n| {
                let v4 = IpAddr::from((0x0800_0000 + n).to_be_bytes());
                let v6 = IpAddr::from((0x2001_0db8_u128 << 96 | u128::from(n)).to_be_bytes());
                let address = if n % 2 == 0 { v4 } else { v6 };
                let now = ClassMask::of(if n % 3 == 0 { RANGE } else { WEB });
                Change {
                    zone: ZONE,
                    address,
                    was: ClassMask::NONE,
                    now,
                }
            })
            .collect();
        next += size;
        let start = Instant::now();
        assert_eq!(plane.apply(&changes).unwrap(), []);
        let applied = start.elapsed();
        let held = plane.read().unwrap();
        println!(
            "{size} elements: applied in {applied:?}, all read in {:?}",
            start.elapsed() - applied
        );
        assert_eq!(held.len(), next as usize);
        for change in changes {
            assert_eq!(held.get(&(ZONE, change.address)), Some(&change.now));
        }
    }
    // A new table with all of it, in one transaction.
    let mut image = image();
    image.grants = plane
        .read()
        .unwrap()
        .into_iter()
        .map(|((z, a), mask)| (z, a, mask))
        .collect();
    plane.standing = None;
    let start = Instant::now();
    plane.replace(&image).unwrap();
    println!("a new table with {next} elements: {:?}", start.elapsed());
    assert_eq!(plane.read().unwrap().len(), next as usize);
}

#[test]
fn networks_and_learned_addresses_are_held_alike() {
    let Some(lab) = Lab::new() else { return };
    let mut plane = plane(&lab);
    let mut image = image();
    image.grants = vec![grant("203.0.113.4", &[RANGE])];
    plane.replace(&image).unwrap();
    let mut check = |address: &str, expected: &[ClassId]| {
        let (_, address, mask) = grant(address, expected);
        assert_eq!(plane.holds(ZONE, address).unwrap(), mask, "{address}");
    };
    check("203.0.113.3", &[]);
    check("203.0.113.4", &[WEB, RANGE]);
    check("203.0.113.5", &[WEB]);
    check("203.0.113.6", &[]);
    check("2001:db8:ff::7", &[]);
    check("2001:db8:ff::8", &[WEB]);
    check("2001:db8:ff::f", &[WEB]);
    check("2001:db8:ff::10", &[]);
}

#[test]
fn other_tables_of_our_name() {
    let Some(lab) = Lab::new() else { return };
    // A plain table is nobody's.
    lab.gateway("nft add table inet egressd", "");
    let mut first = plane(&lab);
    first.replace(&image()).unwrap();
    first.verify().unwrap();
    // A living process keeps its own.
    let refused = lab.within(Place::Gateway, || {
        NftPlane::open(5).unwrap_err().to_string()
    });
    assert!(refused.contains("another running process"), "{refused}");
    let owned = first.standing.as_ref().unwrap().table.owner.is_some();
    if !owned {
        eprintln!("SKIPPED: the kernel is older than 6.9, nothing is owned");
        return;
    }
    // What a dead one leaves stands, and is nobody's.
    drop(first);
    assert!(
        table(&lab).contains("policy drop"),
        "the table went with its process"
    );
    let mut second = plane(&lab);
    second.replace(&image()).unwrap();
    second.verify().unwrap();
    assert!(
        second.describe()[0].contains("owned"),
        "{:?}",
        second.describe()
    );
    // A table that went missing is noticed, and comes back.
    let mut transaction = Transaction::new(&mut second.scratch);
    transaction.remove_table();
    transaction.commit(&mut second.socket).unwrap();
    assert!(second.verify().unwrap_err().to_string().contains("is gone"));
    assert!(second.apply(&[change("203.0.113.1", &[WEB])]).is_err());
    second.replace(&image()).unwrap();
    second.verify().unwrap();
    second.remove().unwrap();
    assert_eq!(lab.gateway("nft list tables", ""), "");
}

#[test]
fn an_unowned_table_is_checked_by_its_rules() {
    let Some(lab) = Lab::new() else { return };
    let mut plane = plane(&lab);
    // As on a kernel before 6.9.
    plane.ownable = Some(false);
    plane.replace(&image()).unwrap();
    plane.verify().unwrap();
    assert!(plane.describe()[0].contains("not owned"));
    lab.gateway("nft add table inet other", "");
    plane.verify().unwrap();
    for edit in [
        "nft insert rule inet egressd forward accept",
        "nft add chain inet egressd other",
        "nft flush chain inet egressd z0_a",
        "nft delete table inet egressd",
        "nft flush ruleset",
    ] {
        lab.gateway(edit, "");
        assert!(plane.verify().is_err(), "{edit}");
        plane.replace(&image()).unwrap();
        plane.verify().unwrap();
    }
}

#[test]
fn a_replace_neither_opens_nor_closes_for_a_moment() {
    use std::net::UdpSocket;
    use std::sync::atomic::{AtomicBool, Ordering};
    let Some(lab) = Lab::new() else { return };
    let mut plane = plane(&lab);
    let mut image = image();
    image.grants = vec![grant("203.0.113.1", &[WEB])];
    plane.replace(&image).unwrap();
    let bind = |address: &str| {
        let socket = lab.within(Place::Internet, || UdpSocket::bind(address).unwrap());
        socket
            .set_read_timeout(Some(Duration::from_millis(300)))
            .unwrap();
        socket
    };
    let (granted, denied) = (bind("203.0.113.1:443"), bind("203.0.113.2:443"));
    // Neighbours are known before the measurement begins.
    lab.udp("203.0.113.4:443", true);
    let done = AtomicBool::new(false);
    let (sent, got, leaked) = std::thread::scope(|scope| {
        let sender = scope.spawn(|| {
            lab.within(Place::Client, || {
                let mut sent = 0;
                while !done.load(Ordering::Relaxed) {
                    // A new socket each time, so that each packet is the first of its flow.
                    let socket = UdpSocket::bind("10.20.0.2:0").unwrap();
                    socket.send_to(b"x", "203.0.113.1:443").unwrap();
                    socket.send_to(b"x", "203.0.113.2:443").unwrap();
                    sent += 1;
                    std::thread::yield_now();
                }
                sent
            })
        });
        let count = |socket: UdpSocket, done: &AtomicBool| {
            let mut got = 0;
            loop {
                match socket.recv(&mut [0; 8]) {
                    Ok(_) => got += 1,
                    Err(_) if done.load(Ordering::Relaxed) => return got,
                    Err(_) => {}
                }
            }
        };
        let done = &done;
        let counter = scope.spawn(move || count(granted, done));
        let leaks = scope.spawn(move || count(denied, done));
        for round in 0..100u16 {
            // Another static part each time.
            image.classes[1].1 = PortSet::new([Service::tcp(9000 + round)]);
            plane.replace(&image).unwrap();
        }
        done.store(true, Ordering::Relaxed);
        (
            sender.join().unwrap(),
            counter.join().unwrap(),
            leaks.join().unwrap(),
        )
    });
    println!("100 replaces; granted {got} of {sent} arrived, denied {leaked} of {sent}");
    assert_eq!((got, leaked), (sent, 0));
}

#[test]
fn flows_are_listed_and_cut() {
    let Some(lab) = Lab::new() else { return };
    lab.serve(Place::Internet, "[::]:443");
    let mut plane = plane(&lab);
    let mut image = image();
    image.grants = vec![
        grant("203.0.113.1", &[WEB]),
        grant("2001:db8:ff::1", &[WEB]),
    ];
    plane.replace(&image).unwrap();
    let patience = Duration::from_secs(3);
    let v4 = lab
        .connect(Place::Client, "10.20.0.2", "203.0.113.1:443", patience)
        .unwrap();
    let v6 = lab
        .connect(
            Place::Client,
            "2001:db8:20::2",
            "[2001:db8:ff::1]:443",
            patience,
        )
        .unwrap();
    let mut conntrack = lab.within(Place::Gateway, || Conntrack::open().unwrap());
    for (stream, address) in [(v4, "203.0.113.1"), (v6, "2001:db8:ff::1")] {
        let mut found = Vec::new();
        conntrack
            .flows(|flow| {
                if flow.original.destination == address.parse::<IpAddr>().unwrap() {
                    found.push(flow);
                }
            })
            .unwrap();
        let [flow] = found[..] else {
            panic!("{found:?}")
        };
        assert_eq!(
            flow.original.source_port,
            stream.local_addr().unwrap().port()
        );
        assert_eq!(
            (flow.original.destination_port, flow.original.protocol),
            (443, 6)
        );
        assert_eq!(flow.reply.source, flow.original.destination);
        assert!(flow.seen_reply && flow.assured && flow.timeout > 0);
        // Closing the grant leaves the live flow; cutting ends it.
        plane.apply(&[change(address, &[])]).unwrap();
        assert!(carries(&stream));
        assert!(conntrack.cut(&flow).unwrap());
        assert!(!conntrack.cut(&flow).unwrap(), "it was cut twice");
        stream
            .set_read_timeout(Some(Duration::from_millis(250)))
            .unwrap();
        assert!(!carries(&stream), "the flow to {address} lives on");
    }
}

/// `cargo test -p egressd --release commit_latency -- --ignored --nocapture`
#[test]
#[ignore = "a measurement"]
fn commit_latency() {
    let Some(lab) = Lab::new() else { return };
    let mut plane = plane(&lab);
    let mut image = image();
    image.grants = (0..60_000u32)
        .map(|n| {
            (
                ZONE,
                IpAddr::from((0x0800_0000 + n).to_be_bytes()),
                ClassMask::of(WEB),
            )
        })
        .collect();
    plane.replace(&image).unwrap();
    for (size, rounds) in [(1u32, 2000), (100, 500), (1000, 100)] {
        let mut times = Vec::new();
        for _ in 0..rounds {
            let changes = |mask| -> Vec<Change> {
                (0..size)
                    .map(|n| {
                        let address = IpAddr::from((0x0900_0000 + n).to_be_bytes());
                        Change {
                            zone: ZONE,
                            address,
                            was: ClassMask::NONE,
                            now: mask,
                        }
                    })
                    .collect()
            };
            let (open, close) = (changes(ClassMask::of(WEB)), changes(ClassMask::NONE));
            let start = Instant::now();
            assert_eq!(plane.apply(&open).unwrap(), []);
            times.push(start.elapsed());
            assert_eq!(plane.apply(&close).unwrap(), []);
        }
        times.sort_unstable();
        let at = |share: usize| times[(times.len() - 1) * share / 100];
        println!(
            "{size} elements: p50 {:?}, p99 {:?} of {rounds}",
            at(50),
            at(99)
        );
    }
}
