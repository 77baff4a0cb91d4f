//! What passes and what does not: real sockets through the gateway.
#![expect(
    clippy::disallowed_methods,
    reason = "shell: tests open sockets and wait"
)]

use super::*;
use crate::plane::conntrack::Conntrack;
use std::net::UdpSocket;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

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
    assert!(packets("drop", "port-closed") >= 3, "{counters:?}");
    assert!(packets("drop", "not-granted") >= 3, "{counters:?}");
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
    assert!(seen("203.0.113.1", 80, "port-closed"), "{reports:#?}");
    assert!(seen("203.0.113.2", 8011, "port-closed"), "{reports:#?}");
    assert!(seen("203.0.113.6", 443, "not-granted"), "{reports:#?}");
    assert!(seen("2001:db8:ff::2", 443, "not-granted"), "{reports:#?}");
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
fn a_grant_is_no_way_into_a_zone_that_denies_it() {
    let Some(lab) = Lab::new() else { return };
    lab.serve(Place::Internet, "[::]:443");
    lab.gateway(
        "nft -f -",
        "table inet nat {\n chain pre { type nat hook prerouting priority dstnat;
            ip daddr 192.0.2.1 dnat ip to 203.0.113.1
        }
        }\n",
    );
    let mut plane = plane(&lab);
    let mut image = image();
    // What is beyond `wan0` is another zone now.
    image.upstream.clear();
    image.zones.push(ZoneImage {
        id: ZoneId(1),
        name: "closed".to_owned(),
        interfaces: vec![InterfacePattern::Exact("wan0".to_owned())],
        sources: vec!["203.0.113.0/30".parse().unwrap()],
        networks: Vec::new(),
        ..image.zones[0].clone()
    });
    image.grants = ["203.0.113.1", "203.0.113.7", "192.0.2.1", "2001:db8:ff::1"]
        .map(|address| grant(address, &[WEB]))
        .to_vec();
    for (mode, inbound) in [
        (Mode::Enforce, Inbound::Allow),
        (Mode::Enforce, Inbound::Deny),
        (Mode::Audit, Inbound::Deny),
    ] {
        image.zones[0].mode = mode;
        image.zones[1].inbound = inbound;
        plane.replace(&image).unwrap();
        let open = inbound == Inbound::Allow;
        lab.tcp("203.0.113.1:443", open);
        lab.tcp("192.0.2.1:443", open);
        // A catalogue network, an address that no zone claims, and the other family.
        lab.tcp("203.0.113.4:443", open);
        lab.tcp("203.0.113.7:443", open);
        lab.tcp("[2001:db8:ff::1]:443", open);
    }
    let drops = plane
        .counters()
        .into_iter()
        .find(|c| c.reason == "inbound")
        .unwrap();
    assert!(drops.packets >= 10 && drops.zone == "closed", "{drops:?}");
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
        .find(|c| c.action == "audit" && c.reason == "port-closed");
    assert_eq!(would.unwrap().packets, 2);
    // A source that no zone of the interface claims.
    let patience = Duration::from_secs(3);
    let forged = lab.connect(Place::Client, "10.99.0.2", "203.0.113.1:80", patience);
    assert!(forged.is_some(), "audit dropped a packet");
    let deadline = Instant::now() + Duration::from_secs(5);
    let mut reports = Vec::new();
    while reports.len() < 3 && Instant::now() < deadline {
        reports.extend(plane.refused());
    }
    assert!(
        reports.len() == 3 && reports.iter().all(|packet| packet.audited),
        "{reports:?}"
    );
    let spoofed = reports.iter().find(|packet| packet.reason == "spoofed");
    assert_eq!(spoofed.unwrap().zone, None);
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
fn a_replace_neither_opens_nor_closes_for_a_moment() {
    const ROUNDS: u16 = 100;
    const PACKETS: u64 = 3000;
    let Some(lab) = Lab::new() else { return };
    let mut plane = plane(&lab);
    let mut image = image();
    image.grants = vec![grant("203.0.113.1", &[WEB])];
    plane.replace(&image).unwrap();
    let denied = lab.within(Place::Internet, || {
        UdpSocket::bind("203.0.113.2:443").unwrap()
    });
    denied.set_nonblocking(true).unwrap();
    let (sent, done) = (AtomicU64::new(0), AtomicBool::new(false));
    let outcome = std::thread::scope(|scope| {
        scope.spawn(|| {
            lab.within(Place::Client, || {
                while !done.load(Ordering::Relaxed) {
                    // A new socket each time, so that each packet is the first of its flow.
                    let socket = UdpSocket::bind("10.20.0.2:0").unwrap();
                    socket.send_to(b"x", "203.0.113.1:443").unwrap();
                    socket.send_to(b"x", "203.0.113.2:443").unwrap();
                    sent.fetch_add(1, Ordering::Relaxed);
                }
            });
        });
        let mut round = 0;
        let mut outcome = Ok(());
        while outcome.is_ok() && (round < ROUNDS || sent.load(Ordering::Relaxed) < PACKETS) {
            // Another static part each time.
            image.classes[1].1 = PortSet::new([Service::tcp(9000 + round % 1000)]);
            outcome = plane.replace(&image);
            round += 1;
        }
        done.store(true, Ordering::Relaxed);
        outcome.map(|()| round)
    });
    let rounds = outcome.unwrap();
    let sent = sent.into_inner();
    let counters = plane.counters();
    let packets = |reason| {
        counters
            .iter()
            .find(|c| c.reason == reason)
            .unwrap()
            .packets
    };
    println!("{rounds} replaces under {sent} granted and {sent} denied new flows: {counters:?}");
    assert_eq!(
        (
            packets("granted"),
            packets("not-granted"),
            packets("port-closed")
        ),
        (sent, sent, 0)
    );
    assert!(denied.recv(&mut [0]).is_err(), "a denied packet passed");
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
        // What has ended already is no error, nor does it keep the others.
        let mut flows = [flow; 200];
        flows[..150].iter_mut().for_each(|gone| gone.id ^= 1);
        conntrack.cut_all(&flows).unwrap();
        conntrack.cut_all(&flows).unwrap();
        stream
            .set_read_timeout(Some(Duration::from_millis(250)))
            .unwrap();
        assert!(!carries(&stream), "the flow to {address} lives on");
    }
}
