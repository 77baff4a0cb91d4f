use super::*;
use crate::policy::port::Service;
use proptest::prelude::*;
use std::fmt::Write as _;

const DAY: u64 = 86_400_000;

fn rules() -> Rules {
    Rules {
        hold: 30 * DAY,
        shrink_percent: 30,
        needs: None,
    }
}

/// The same, for lists that are too short to lose anything.
fn loose() -> Rules {
    Rules {
        shrink_percent: 100,
        ..rules()
    }
}

/// Rows as `id area ports: destinations`; a `!` behind the ports means required.
fn catalogue(text: &str) -> Catalogue {
    let sets = text.lines().map(str::trim).filter(|line| !line.is_empty());
    let sets = sets.map(|line| {
        let (head, tail) = line.split_once(':').expect("a row");
        let mut head = head.split(' ');
        let mut set = EndpointSet {
            id: head.next().unwrap().to_owned(),
            area: head.next().unwrap().to_owned(),
            ..EndpointSet::default()
        };
        let ports = head.next().unwrap_or_default();
        set.required = ports.ends_with('!');
        let ports = ports
            .trim_end_matches('!')
            .split(',')
            .filter(|port| !port.is_empty());
        set.ports = PortSet::new(ports.map(|port| Service::tcp(port.parse().unwrap())));
        for word in tail.split_ascii_whitespace() {
            match word.split_once('@') {
                Some(("eu", _)) => set.scope.regions.push("eu".to_owned()),
                _ => match word.parse() {
                    Ok(network) => set.networks.push(network),
                    Err(_) => set.patterns.push(Pattern::parse(word).unwrap()),
                },
            }
        }
        set
    });
    Catalogue {
        sets: sets.collect(),
        ..Catalogue::default()
    }
}

fn version(name: &str, text: &str) -> Version {
    Version {
        name: name.to_owned(),
        print: text.to_owned(),
        catalogue: catalogue(text),
    }
}

/// Which (id, destination, port) a catalogue opens, covered ones not.
fn opens(catalogue: &Catalogue) -> BTreeSet<String> {
    let mut all = BTreeSet::new();
    for set in &catalogue.sets {
        for destination in of_row(set) {
            for service in set.ports.services() {
                for port in service.first..=service.last {
                    all.insert(format!("{} {destination} {port}", set.id));
                }
            }
            if set.ports.is_empty() {
                all.insert(format!("{} {destination}", set.id));
            }
        }
    }
    all
}

/// What stays in force and is held after `old` became `new`.
fn check(old: &str, new: &str, held: &[&str]) {
    let mut standing = Standing::default();
    standing
        .take(version("1", old), (0, 0), &rules(), true)
        .unwrap();
    let taken = standing
        .take(version("2", new), (DAY, DAY), &rules(), true)
        .unwrap();
    let expected: BTreeSet<String> = held.iter().map(|text| (*text).to_owned()).collect();
    let kept = Catalogue {
        sets: standing.held.iter().map(|held| held.set.clone()).collect(),
        ..Catalogue::default()
    };
    assert_eq!(opens(&kept), expected, "{old} → {new}");
    assert_eq!(taken.gone == 0, held.is_empty());
    let both = opens(&standing.in_force(DAY));
    assert!(both.is_superset(&opens(&catalogue(new))) && both.is_superset(&expected));
    // What is held ends, and nothing else with it.
    assert_eq!(standing.next_end().is_some(), !held.is_empty());
    standing.expire(31 * DAY);
    assert_eq!(opens(&standing.in_force(31 * DAY)), opens(&catalogue(new)));
}

#[test]
fn what_is_gone_is_held() {
    check(
        "1 a 443: x.v.example y.v.example",
        "1 a 443: x.v.example",
        &["1 y.v.example 443"],
    );
    check(
        "1 a 443: x.v.example",
        "1 a 443: x.v.example y.v.example",
        &[],
    );
    check(
        "1 a 80,443: x.v.example",
        "1 a 443: x.v.example",
        &["1 x.v.example 80"],
    );
    check("1 a 443: x.v.example", "1 a 80,443: x.v.example", &[]);
    check("1 a 443: 192.0.2.0/24", "1 a 443: 192.0.0.0/16", &[]);
    check(
        "1 a 443: 192.0.0.0/16",
        "1 a 443: 192.0.2.0/24",
        &["1 192.0.0.0/16 443"],
    );
    check(
        "1 a 443: x.v.example w.x.v.example",
        "1 a 443: *.v.example",
        &[],
    );
    check("1 a 443: *.x.v.example", "1 a 443: *.v.example", &[]);
    check(
        "1 a 443: *.v.example",
        "1 a 443: x.v.example",
        &["1 *.v.example 443"],
    );
    check(
        "1 a 80,443: x.v.example",
        "1 a 443: *.v.example",
        &["1 x.v.example 80"],
    );
    // Whoever has only what is required, or asks by id or area, loses it.
    check(
        "1 a 443!: x.v.example",
        "1 a 443: x.v.example",
        &["1 x.v.example 443"],
    );
    check("1 a 443: x.v.example", "1 a 443!: x.v.example", &[]);
    check(
        "1 a 443: x.v.example",
        "2 a 443: x.v.example",
        &["1 x.v.example 443"],
    );
    check(
        "1 a 443: x.v.example",
        "1 b 443: x.v.example",
        &["1 x.v.example 443"],
    );
    check(
        "1 a 443: x.v.example",
        "1 a 443: x.v.example eu@",
        &["1 x.v.example 443"],
    );
    check("1 a 443: x.v.example eu@", "1 a 443: x.v.example", &[]);
    // Several rows of one id add up, whichever says it.
    check(
        "1 a 80,443: x.v.example",
        "1 a 80: x.v.example\n1 a 443: x.v.example",
        &[],
    );
    // Lists without ports.
    check(
        "1 a: 192.0.2.0/24 198.51.100.0/24",
        "1 a: 192.0.2.0/24",
        &["1 198.51.100.0/24"],
    );
}

#[test]
fn what_comes_back_is_no_longer_held() {
    let mut standing = Standing::default();
    let both = "1 a 80,443: x.v.example y.v.example";
    standing
        .take(version("1", both), (0, 0), &rules(), false)
        .unwrap();
    standing
        .take(
            version("2", "1 a 80,443: x.v.example"),
            (DAY, DAY),
            &rules(),
            true,
        )
        .unwrap();
    standing
        .take(
            version("3", "1 a 443: x.v.example y.v.example"),
            (2 * DAY, 2 * DAY),
            &rules(),
            true,
        )
        .unwrap();
    let held: Vec<_> = standing
        .held
        .iter()
        .map(|held| (held.since, &*held.version))
        .collect();
    assert_eq!(
        held,
        [(DAY, "2"), (2 * DAY, "3")],
        "y on 80 since version 2, x on 80 since 3"
    );
    let taken = standing
        .take(version("4", both), (3 * DAY, 3 * DAY), &rules(), true)
        .unwrap();
    assert_eq!((taken.returned, standing.held.len()), (2, 0));
    assert_eq!(
        taken.to_string(),
        "version 4 after 3: 0 added, 0 gone and held, 2 listed again"
    );
}

#[test]
fn bad_versions_are_refused() {
    fn check(new: &str, needs: Option<&str>, expected: &str) {
        let old =
            "1 mem 443: a.v.example b.v.example c.v.example e.v.example\n2 x 443: 192.0.2.0/24";
        let rules = Rules {
            needs: needs.map(str::to_owned),
            ..rules()
        };
        let mut standing = Standing::default();
        standing
            .take(version("1", old), (0, 0), &rules, false)
            .unwrap();
        let before = standing.clone();
        let got = standing.take(version("2", new), (0, 0), &rules, false);
        match got {
            Ok(_) => assert_eq!(expected, ""),
            Err(refused) => {
                assert_eq!(refused.to_string(), expected);
                assert_eq!(standing, before);
                let forced = standing.take(version("2", new), (0, 0), &rules, true);
                assert_eq!(forced.is_err(), matches!(refused, Refused::Empty(_)));
            }
        }
    }
    check("", None, "version 2 lists nothing");
    check("1 mem 443:", None, "version 2 lists nothing");
    check(
        "1 mem 443: a.v.example b.v.example\n2 x 443: 192.0.2.0/24",
        None,
        "version 2 lists 2 of the 4 names of the one before; if that is meant, update with --force",
    );
    check(
        "1 mem 443: a.v.example b.v.example c.v.example e.v.example",
        None,
        "version 2 lists 0 of the 1 networks of the one before; if that is meant, update with --force",
    );
    check(
        "1 y 443: a.v.example b.v.example c.v.example e.v.example\n2 x 443: 192.0.2.0/24",
        Some("mem"),
        "version 2 has no set of area `mem`; if that is meant, update with --force",
    );
    let whole = "1 mem 443: a.v.example b.v.example c.v.example d.v.example\n2 x 443: 192.0.2.0/24";
    check(whole, Some("mem"), "");
    for wide in ["0.0.0.0/0", "16.0.0.0/7", "2600::/15", "::/0"] {
        check(
            &format!("{whole} {wide}"),
            None,
            &format!("version 2 opens {wide}; if that is meant, update with --force"),
        );
    }
    check(&format!("{whole} 17.0.0.0/8 2600::/16"), None, "");
}

#[test]
fn an_operator_goes_back_pins_and_confirms() {
    let mut standing = Standing::default();
    let (one, two) = (
        "1 a 443: x.v.example y.v.example",
        "1 a 443: x.v.example z.v.example",
    );
    standing
        .take(version("1", one), (0, 0), &loose(), false)
        .unwrap();
    standing
        .take(version("2", two), (DAY, DAY), &loose(), false)
        .unwrap();
    let mut pinned = standing.clone();
    pinned.pinned = Some(version("1", one));
    assert_eq!(opens(&pinned.in_force(DAY)), opens(&catalogue(one)));

    let mut back = standing.clone();
    back.roll_back(version("1", one));
    assert_eq!(opens(&back.in_force(DAY)), opens(&catalogue(one)));
    let again = back.take(version("2", two), (2 * DAY, 2 * DAY), &loose(), false);
    assert_eq!(again, Err(Refused::Barred("2".to_owned())));
    back.take(
        version("3", "1 a 443: x.v.example"),
        (2 * DAY, 2 * DAY),
        &rules(),
        true,
    )
    .unwrap();
    assert!(
        back.take(version("2", two), (3 * DAY, 3 * DAY), &loose(), false)
            .is_ok(),
        "once another came"
    );

    let unknown = standing.confirm(&["w.v.example".to_owned()]);
    assert_eq!(
        unknown,
        Err("`w.v.example` is not held; these are, among others: `y.v.example`".to_owned())
    );
    assert_eq!(standing.confirm(&["Y.v.example".to_owned()]), Ok(1));
    assert_eq!(opens(&standing.in_force(DAY)), opens(&catalogue(two)));
    assert_eq!(standing.confirm(&[]), Ok(0));
    let without_hold = Rules { hold: 0, ..rules() };
    standing
        .take(
            version("4", "1 a 443: z.v.example"),
            (DAY, DAY),
            &without_hold,
            true,
        )
        .unwrap();
    assert_eq!(
        opens(&standing.in_force(DAY)),
        opens(&catalogue("1 a 443: z.v.example"))
    );
}

#[test]
fn large_lists_take_no_square_of_time() {
    let list = |from: u32, to: u32| {
        let mut text = String::new();
        for row in 0..100 {
            write!(text, "{row} a 443:").unwrap();
            for name in from..to {
                write!(
                    text,
                    " n{name}.r{row}.v.example 10.{row}.{}.{}/32",
                    name / 256,
                    name % 256
                )
                .unwrap();
            }
            text.push('\n');
        }
        text
    };
    let mut standing = Standing::default();
    standing
        .take(version("1", &list(0, 500)), (0, 0), &loose(), false)
        .unwrap();
    let taken = standing
        .take(version("2", &list(100, 600)), (0, 0), &loose(), false)
        .unwrap();
    assert_eq!((taken.added, taken.gone), (20_000, 20_000));
}

/// Each step looks at what one name is in, not at all rows that list it.
#[test]
fn many_rows_of_the_same_take_no_square_of_time() {
    fn check(row: impl Fn(u32) -> String) {
        let text: String = (0..20_000).map(row).collect();
        let mut standing = Standing::default();
        let version = version("1", &text);
        standing
            .take(version.clone(), (0, 0), &loose(), false)
            .unwrap();
        let taken = standing.take(version, (0, 0), &loose(), false).unwrap();
        assert_eq!((taken.added, taken.gone), (0, 0));
    }
    check(|row| format!("{row} a 443: x.v.example 192.0.2.0/24\n"));
    check(|row| format!("1 a {}: x.v.example\n", row % 9 + 1));
    check(|row| format!("{row} a 443: *.v.example n{row}.v.example\n"));
}

#[test]
fn what_is_held_has_a_bound() {
    let mut standing = Standing::default();
    standing
        .take(
            version("1", "1 a 443: x.v.example y.v.example"),
            (0, 0),
            &loose(),
            false,
        )
        .unwrap();
    standing
        .take(
            version("2", "1 a 443: z.v.example w.v.example"),
            (0, 0),
            &loose(),
            false,
        )
        .unwrap();
    let names = &mut standing.held[0].set.patterns;
    *names = vec![names[0].clone(); MOST_HELD - 1];
    let before = standing.clone();
    let incoming = version("3", "1 a 443: u.v.example v.v.example");
    let refused = standing.take(incoming.clone(), (0, 0), &loose(), false);
    assert_eq!(
        refused,
        Err(Refused::HoldsMany("3".to_owned(), MOST_HELD + 1))
    );
    assert!(standing == before, "what was held is changed");
    standing.confirm(&[]).unwrap();
    assert!(standing.take(incoming, (0, 0), &loose(), false).is_ok());
}

/// A server whose copies lag gives now the one, now the other.
#[test]
fn what_an_operator_went_back_from_stays_out() {
    let (one, two) = ("1 a 443: x.v.example", "1 a 443: x.v.example evil.example");
    let mut standing = Standing::default();
    standing
        .take(version("1", one), (0, 0), &loose(), false)
        .unwrap();
    standing
        .take(version("2", two), (0, 0), &loose(), false)
        .unwrap();
    standing.roll_back(version("1", one));
    for _ in 0..3 {
        standing
            .take(version("1", one), (DAY, DAY), &loose(), false)
            .unwrap();
        let again = standing.take(version("2", two), (DAY, DAY), &loose(), false);
        assert_eq!(again, Err(Refused::Barred("2".to_owned())));
        assert_eq!(opens(&standing.in_force(DAY)), opens(&catalogue(one)));
    }
}

/// What came after the version that an operator goes back to, and went again, is not held on.
#[test]
fn far_back() {
    let texts = [
        "1 a 443: x.v.example z.v.example",
        "1 a 443: x.v.example",
        "1 a 443: x.v.example evil.example",
        "1 a 443: x.v.example",
    ];
    let mut standing = Standing::default();
    for (n, text) in texts.iter().enumerate() {
        standing
            .take(version(&n.to_string(), text), (DAY, DAY), &rules(), true)
            .unwrap();
    }
    standing.roll_back(version("1", texts[1]));
    standing.forget(&["2", "3"].into());
    let open = opens(&standing.in_force(DAY));
    assert_eq!(
        open,
        opens(&catalogue(texts[0])),
        "z is held since version 1"
    );
}

fn any_version() -> impl Strategy<Value = String> {
    let names = [
        "x.v.example",
        "y.v.example",
        "*.v.example",
        "w.x.v.example",
        "192.0.2.0/24",
        "192.0.0.0/16",
    ];
    let row = (
        0..3,
        prop::sample::subsequence(names.to_vec(), 0..6),
        prop::sample::subsequence(vec!["80", "443"], 1..=2),
        any::<bool>(),
    );
    prop::collection::vec(row, 1..4).prop_map(|rows| {
        let mut text = "9 a 443: always.v.example\n".to_owned();
        for (id, names, ports, required) in rows {
            let required = if required { "!" } else { "" };
            writeln!(
                text,
                "{id} a {}{required}: {}",
                ports.join(","),
                names.join(" ")
            )
            .unwrap();
        }
        text
    })
}

proptest! {
    /// Nothing that is listed all the time is ever missing, nothing is in force that nobody says, and once all
    /// holds ended the newest version is what is in force.
    #[test]
    fn whatever_comes(versions in prop::collection::vec(any_version(), 1..8), days in prop::collection::vec(0_u64..40, 8)) {
        let mut standing = Standing::default();
        let (mut now, mut said) = (0, BTreeSet::new());
        for (index, text) in versions.iter().enumerate() {
            now += days[index] * DAY;
            standing.expire(now);
            let before = standing.in_force(now);
            standing.take(version(&index.to_string(), text), (now, now), &rules(), true).unwrap();
            said.extend(opens(&catalogue(text)));
            let open = opens(&standing.in_force(now));
            prop_assert!(open.contains("9 always.v.example 443"));
            prop_assert!(open.is_superset(&opens(&catalogue(text))));
            prop_assert!(open.is_subset(&said), "{open:?} beyond {said:?}");
            // Nothing that was open is closed by the version itself: all of it is listed or held.
            let after = standing.in_force(now);
            let listed = Listed::of(&after);
            for row in &before.sets {
                prop_assert!(listed.gone(row).is_empty(), "{row:?} lost in {after:?}");
            }
        }
        standing.expire(now + 31 * DAY);
        let newest = catalogue(versions.last().unwrap());
        prop_assert_eq!(standing.in_force(now + 31 * DAY).sets, newest.sets);
    }

    /// The order of rows tells nothing.
    #[test]
    fn rows_in_any_order(text in any_version()) {
        let mut standing = Standing::default();
        standing.take(version("1", &text), (0, 0), &rules(), true).unwrap();
        let mut lines: Vec<_> = text.lines().collect();
        lines.reverse();
        let taken = standing.take(version("2", &lines.join("\n")), (0, 0), &rules(), true).unwrap();
        prop_assert_eq!((taken.added, taken.gone, standing.held.len()), (0, 0, 0));
    }
}
