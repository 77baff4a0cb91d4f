//! A year of a source's versions, replayed: what each would have cut at once, what was cut, and whether anything was
//! lost that the source always listed. What must be in force is told by a model that knows pairs only.

use super::*;
use crate::policy::port::Service;

const DAY: u64 = 86_400_000;
const HOLD: u64 = 30;

/// Of a row: id, area, whether it is required, destinations and TCP ports.
#[derive(Clone)]
struct Line {
    id: u16,
    area: &'static str,
    required: bool,
    to: BTreeSet<String>,
    ports: BTreeSet<u16>,
}

/// What one row opens: id, destination, port, and whether to those who ask for required rows only as well.
type Pair = (u16, String, u16, bool);

fn pairs(list: &[Line]) -> BTreeSet<Pair> {
    let mut all = BTreeSet::new();
    for line in list {
        for to in &line.to {
            for port in &line.ports {
                all.insert((line.id, to.clone(), *port, false));
                if line.required {
                    all.insert((line.id, to.clone(), *port, true));
                }
            }
        }
    }
    all
}

/// The same of what is in force.
fn open(catalogue: &Catalogue) -> BTreeSet<Pair> {
    let lines = catalogue.sets.iter().map(|set| Line {
        id: set.id.parse().unwrap(),
        area: "",
        required: set.required,
        to: of_row(set).map(|one| one.to_string()).collect(),
        ports: set
            .ports
            .services()
            .iter()
            .flat_map(|one| one.first..=one.last)
            .collect(),
    });
    pairs(&lines.collect::<Vec<_>>())
}

/// Whether a wildcard of the same row opens it too. The year knows `*.` only.
fn covered(pair: &Pair, open: &BTreeSet<Pair>) -> bool {
    let (id, to, port, required) = pair;
    let dots = to
        .match_indices('.')
        .map(|(at, _)| format!("*{}", &to[at..]));
    dots.into_iter()
        .any(|wide| wide != *to && open.contains(&(*id, wide, *port, *required)))
}

fn version(name: &str, list: &[Line], backwards: bool) -> Version {
    let mut sets: Vec<EndpointSet> = list
        .iter()
        .map(|line| {
            let mut set = EndpointSet {
                id: line.id.to_string(),
                area: line.area.to_owned(),
                required: line.required,
                ports: PortSet::new(line.ports.iter().map(|port| Service::tcp(*port))),
                ..EndpointSet::default()
            };
            for to in &line.to {
                match to.parse() {
                    Ok(network) => set.networks.push(network),
                    Err(_) => set.patterns.push(Pattern::parse(to).unwrap()),
                }
            }
            set
        })
        .collect();
    if backwards {
        sets.reverse();
    }
    Version {
        name: name.to_owned(),
        print: format!("{:?}", pairs(list)),
        catalogue: Catalogue {
            sets,
            ..Catalogue::default()
        },
    }
}

/// Numbers that look like chance and are the same in every run.
struct Chance(u64);

impl Chance {
    fn below(&mut self, end: usize) -> usize {
        self.0 = self
            .0
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        usize::try_from(self.0 >> 33).unwrap() % end
    }
}

/// The list on the first day: 60 rows of five names and, each third, two networks.
fn first() -> Vec<Line> {
    let line = |id: u16| {
        let mut to: BTreeSet<String> = (0..5).map(|n| format!("n{n}.r{id}.v.example")).collect();
        if id.is_multiple_of(3) {
            to.extend([format!("10.{id}.0.0/16"), format!("2001:db8:{id}::/48")]);
        }
        Line {
            id,
            area: ["mem", "common", "exchange"][usize::from(id % 3)],
            required: !id.is_multiple_of(4),
            to,
            ports: if id.is_multiple_of(2) {
                [443].into()
            } else {
                [80, 443].into()
            },
        }
    };
    (1..=60).map(line).collect()
}

/// What a vendor does between two versions.
fn change(list: &mut [Line], at: usize, chance: &mut Chance) {
    for n in 0..1 + chance.below(4) {
        let line = &mut list[chance.below(60)];
        line.to.insert(format!("a{at}-{n}.r{}.v.example", line.id));
    }
    for _ in 0..chance.below(4) {
        let line = &mut list[chance.below(60)];
        // The first two stay all year.
        if let Some(gone) = line
            .to
            .iter()
            .rev()
            .find(|to| !to.starts_with("n0") && !to.starts_with("n1"))
            .cloned()
        {
            line.to.remove(&gone);
        }
    }
    match at % 6 {
        1 => drop(list[chance.below(60)].ports.insert(8443)),
        2 => drop(
            list.iter_mut()
                .find(|line| line.ports.contains(&8443))
                .map(|line| line.ports.remove(&8443)),
        ),
        3 => {
            // A wildcard instead of names.
            let line = &mut list[chance.below(60)];
            line.to.retain(|to| !to.ends_with(".v.example"));
            line.to.insert(format!("*.r{}.v.example", line.id));
        }
        4 => list[chance.below(60)].required ^= true,
        _ => {}
    }
}

#[derive(Default)]
struct Sums {
    false_drops: usize,
    beyond: usize,
    cut_by_versions: usize,
    naive: usize,
    returned: usize,
    refused: usize,
    taken: usize,
}

/// Replays it; `check` sees the sums.
fn replay(seed: u64) -> Sums {
    let rules = Rules {
        hold: HOLD * DAY,
        shrink_percent: 30,
        needs: Some("mem".to_owned()),
    };
    let (mut standing, mut list, mut chance) = (Standing::default(), first(), Chance(seed));
    let mut sums = Sums::default();
    // By the model: what is listed, and since when the rest is gone.
    let (mut listed, mut gone) = (BTreeSet::new(), BTreeMap::<Pair, u64>::new());
    let vanishing = list[6].to.first().unwrap().clone();
    println!(
        "day version        verdict  added  gone back  held  pairs: would cut   cut  cut by ends of holds"
    );
    for day in 0..=400_u64 {
        let before = open(&standing.in_force(day * DAY - u64::from(day > 0)));
        let ended = standing.expire(day * DAY);
        gone.retain(|_, since| day < *since + HOLD);
        let kept = open(&standing.in_force(day * DAY));
        let ends = before
            .difference(&kept)
            .filter(|pair| !covered(pair, &kept))
            .count();
        let publishes = day % 14 == 0 && day <= 364;
        if publishes {
            let at = usize::try_from(day / 14).unwrap();
            if at > 0 {
                change(&mut list, at, &mut chance);
            }
            let mut now = list.clone();
            if (10..12).contains(&at) {
                now[6].to.remove(&vanishing);
            }
            match at {
                8 => now.truncate(24),
                16 => now.retain(|line| line.area != "mem"),
                20 => now.clear(),
                _ => {}
            }
            let name = format!("2026{day:04}00");
            let incoming = version(&name, &now, at % 2 == 1);
            let plain = pairs(&now);
            let would = listed
                .difference(&plain)
                .filter(|pair| !covered(pair, &plain))
                .count();
            let outcome = standing.take(incoming, (day * DAY, day), &rules, false);
            let after = open(&standing.in_force(day * DAY));
            let cut = kept
                .difference(&after)
                .filter(|pair| !covered(pair, &after))
                .count();
            sums.cut_by_versions += cut;
            let held = standing.held.iter().flat_map(Held::destinations).count();
            let line = match &outcome {
                Ok(taken) => {
                    for pair in listed
                        .difference(&plain)
                        .filter(|pair| !covered(pair, &plain))
                    {
                        gone.entry(pair.clone()).or_insert(day);
                    }
                    gone.retain(|pair, _| !plain.contains(pair) && !covered(pair, &plain));
                    listed = plain;
                    sums.taken += 1;
                    sums.returned += taken.returned;
                    sums.naive += would;
                    format!(
                        "taken    {:5} {:5} {:4}",
                        taken.added, taken.gone, taken.returned
                    )
                }
                Err(_) => {
                    sums.refused += 1;
                    "refused      -     -    -".to_owned()
                }
            };
            println!("{day:3} {name} {line} {held:5} {would:17} {cut:5} {ends:5}");
        } else if ended > 0 {
            println!("{day:3} holds end {:37} {:17} {:5} {ends:5}", "", "", "");
        }
        let now = open(&standing.in_force(day * DAY));
        let must = listed.iter().chain(gone.keys());
        sums.false_drops += must
            .filter(|pair| !now.contains(pair) && !covered(pair, &now))
            .count();
        // A row that is held for those who want required rows only opens to all, as it did.
        let may = |pair: &&Pair| listed.contains(pair) || gone.contains_key(*pair);
        let required = |pair: &&Pair| {
            let (id, to, port, _) = *pair;
            gone.contains_key(&(*id, to.clone(), *port, true))
        };
        sums.beyond += now
            .iter()
            .filter(|pair| !may(pair) && !required(pair))
            .count();
    }
    assert_eq!(
        open(&standing.in_force(401 * DAY)),
        listed,
        "after all holds the newest alone is in force"
    );
    assert_eq!(standing.next_end(), None);
    sums
}

#[test]
fn a_year_of_versions() {
    for seed in 1..=5 {
        let sums = replay(seed);
        println!(
            "seed {seed}: {} taken, {} refused; false drops {}, beyond {}; cut at once {}, without holding {}; \
             listed again while held {}",
            sums.taken,
            sums.refused,
            sums.false_drops,
            sums.beyond,
            sums.cut_by_versions,
            sums.naive,
            sums.returned
        );
        assert_eq!(
            (sums.false_drops, sums.beyond, sums.cut_by_versions),
            (0, 0, 0)
        );
        assert_eq!((sums.taken, sums.refused), (24, 3));
        assert!(
            sums.naive > 0 && sums.returned > 0,
            "the year holds nothing to lose"
        );
    }
}
