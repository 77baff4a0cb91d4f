//! Maps of another layout under our pins: never adopted, never in force.

use super::super::lab::{Lab, Stand, clients};
use super::super::{Trial, TrialHook, image};
use super::can_run;
use crate::config::EbpfMode;
use crate::policy::ZoneId;
use crate::policy::port::ClassMask;
use aya::maps::MapInfo;
use egressd_common::corpus::{Rule, World, all, plan};
use egressd_common::layout::{self, name};
use std::collections::BTreeMap;
use std::path::Path;

/// Type, key size and value size of every map pinned in a directory.
fn shapes(directory: &Path) -> BTreeMap<String, (String, u32, u32)> {
    let shape = |name: &str| {
        let info = MapInfo::from_pin(directory.join(name)).unwrap();
        let kind = format!("{:?}", info.map_type().unwrap());
        (name.to_owned(), (kind, info.key_size(), info.value_size()))
    };
    name::MAPS
        .iter()
        .filter(|name| directory.join(name).exists())
        .map(|name| shape(name))
        .collect()
}

#[test]
fn maps_of_another_layout_are_never_adopted() {
    if !can_run("maps_of_another_layout_are_never_adopted") {
        return;
    }
    let Some(mut lab) = Lab::new() else { return };
    // Another program's maps, in which far more is granted.
    let mut open = image(World::Alone, lab.index("lan0"), lab.index("wan0"));
    let right = open.clone();
    open.grants
        .extend(plan::REFUSED.map(|address| (ZoneId(0), address, ClassMask(u64::MAX))));
    let other = Trial::new(&open, false, TrialHook::Xdp).unwrap();
    let ours = lab.pins.join(format!("{:016x}", layout::HASH));
    let foreign = lab.pins.join("0123456789abcdef");
    let own = lab.pins.join("own");
    for directory in [&ours, &foreign, &own] {
        std::fs::create_dir_all(directory).unwrap();
    }
    other.pin_maps(&foreign).unwrap();
    other.pin_maps(&own).unwrap();
    let expected = shapes(&own);
    // Under our own hash, each name holds a map of another shape where there is one, as if the layout had
    // changed and the hash had not; the rest are ours in shape, with foreign grants in them.
    let names: Vec<&String> = expected.keys().collect();
    let mut strange = 0;
    for (index, name) in names.iter().enumerate() {
        let fits = |other: &&&String| expected[**other] != expected[*name];
        let donor = names
            .iter()
            .cycle()
            .skip(index + 1)
            .take(names.len())
            .find(fits);
        let donor = donor.unwrap_or(name);
        let scratch = lab.pins.join("scratch");
        std::fs::create_dir(&scratch).unwrap();
        other.pin_maps(&scratch).unwrap();
        std::fs::rename(scratch.join(donor), ours.join(name)).unwrap();
        std::fs::remove_dir_all(&scratch).unwrap();
        strange += usize::from(donor != name);
    }
    assert!(
        strange > 10 && shapes(&ours) != expected,
        "{strange} strange maps"
    );

    lab.stand(
        Stand::Ebpf {
            mode: EbpfMode::Xdp,
            nft: false,
        },
        &right,
    );
    assert_eq!(shapes(&ours), expected, "a map of another layout is pinned");
    assert!(
        !foreign.exists() && !own.exists(),
        "maps of others are left"
    );
    let vectors = all();
    let arrived = lab
        .wires()
        .through(vectors.iter().map(|vector| vector.frame.as_slice()));
    let (numbers, _) = clients(&arrived);
    let must = |rule| vectors.iter().filter(move |vector| vector.rule == rule);
    let closed = must(Rule::Closed)
        .filter(|vector| numbers.contains(&vector.number))
        .count();
    let open = must(Rule::Open)
        .filter(|vector| numbers.contains(&vector.number))
        .count();
    println!(
        "{strange} maps of another shape; {closed} of {} leaked",
        must(Rule::Closed).count()
    );
    assert_eq!((closed, open), (0, must(Rule::Open).count()));
}
