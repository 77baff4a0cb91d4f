//! What the kernel holds after each operation, read back from it.
#![expect(clippy::disallowed_methods, reason = "shell: tests measure")]

use super::*;
use crate::plane::drift::{Outcome, Word};
use crate::plane::ruleset::Generation;

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
    // It does so where the machine has a list of them.
    let numbered = listed
        .replace("l4proto tcp ", "l4proto 6 ")
        .replace("l4proto sctp ", "l4proto 132 ")
        .replace("l4proto icmp ", "l4proto 1 ")
        .replace("l4proto ipv6-icmp ", "l4proto 58 ");
    assert_eq!(lines(&chains_from(&numbered)), lines(&described));
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

/// What the kernel holds once it is `count` elements. A dump is many messages, each of which walks the
/// hash table anew and skips what was sent; while the kernel still grows the table after a large
/// batch (a worker of its own does that, see `nft_rhash_walk`), elements are passed over.
fn settled(plane: &mut NftPlane, count: u32) -> Holdings {
    let end = Instant::now() + Duration::from_secs(10);
    loop {
        let held = plane.read().unwrap();
        if held.len() == count as usize {
            return held;
        }
        assert!(Instant::now() < end, "{} of {count} read back", held.len());
    }
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
                    origin: Origin::default(),
                }
            })
            .collect();
        next += size;
        let start = Instant::now();
        assert_eq!(plane.apply(&changes).unwrap(), []);
        let applied = start.elapsed();
        let held = settled(&mut plane, next);
        println!(
            "{size} elements: applied in {applied:?}, all read in {:?}",
            start.elapsed() - applied
        );
        for change in changes {
            assert_eq!(held.get(&(ZONE, change.address)), Some(&change.now));
        }
    }
    // A new table with all of it, in one transaction.
    let mut image = image();
    image.grants = settled(&mut plane, next)
        .into_iter()
        .map(|((z, a), mask)| (z, a, mask))
        .collect();
    plane.standing = None;
    let start = Instant::now();
    plane.replace(&image).unwrap();
    println!("a new table with {next} elements: {:?}", start.elapsed());
    settled(&mut plane, next);
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
    let owned = first.standing.as_ref().unwrap().table.owner.is_some();
    if !owned {
        eprintln!("SKIPPED: the kernel is older than 6.9, nothing is owned");
        return;
    }
    // A living process keeps its own.
    let refused = lab.within(Place::Gateway, || {
        NftPlane::open(5).unwrap_err().to_string()
    });
    assert!(refused.contains("another running process"), "{refused}");
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
fn what_an_earlier_run_left_behind_is_removed() {
    let Some(lab) = Lab::new() else { return };
    let remove = || lab.within(Place::Gateway, || remove_left_behind(None).unwrap());
    assert!(!remove(), "there was nothing");
    let mut plane = plane(&lab);
    plane.replace(&image()).unwrap();
    if plane.standing.as_ref().unwrap().table.owner.is_some() {
        assert!(!remove(), "it was a living process's");
        plane.verify().unwrap();
    }
    drop(plane);
    lab.tcp("203.0.113.1:80", false);
    lab.gateway("nft add table inet other", "");
    assert!(remove());
    assert_eq!(
        lab.gateway("nft list tables", "").trim(),
        "table inet other"
    );
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
fn an_unowned_table_mends_itself() {
    let Some(lab) = Lab::new() else { return };
    let mut plane = plane(&lab).open_to_others();
    plane.replace(&image()).unwrap();
    plane.apply(&[change("203.0.113.1", &[WEB])]).unwrap();
    assert_eq!(plane.mend(), []);
    for (edit, word) in [
        (
            "nft insert rule inet egressd forward accept",
            Word::ForeignEdit,
        ),
        ("nft add chain inet egressd other", Word::ForeignEdit),
        ("nft flush chain inet egressd z0_a", Word::ForeignEdit),
        ("nft delete table inet egressd", Word::MissingTable),
        ("nft flush ruleset", Word::MissingTable),
    ] {
        lab.gateway(edit, "");
        let drifts = plane.mend();
        assert_eq!(drifts.len(), 1, "{edit}");
        assert_eq!(drifts[0].outcome, Outcome::Mended, "{edit}");
        assert_eq!(drifts[0].found.word, word, "{edit}");
        assert_eq!(plane.mend(), [], "{edit}");
        let held = plane.read().unwrap();
        assert_eq!(held.len(), 1, "{edit}: {held:?}");
        assert!(!plane.stands_firm(), "another flush takes it away");
    }
    // Another's table of the same name is ours again afterwards.
    lab.gateway("nft flush ruleset", "");
    lab.gateway("nft add table inet egressd", "");
    assert_eq!(plane.mend()[0].found.word, Word::ForeignTable);
    assert_eq!(plane.mend(), []);
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
                            origin: Origin::default(),
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
