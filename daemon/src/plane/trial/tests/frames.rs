//! The corpus end to end: frames on the client's wire, and what comes out behind the gateway.

use super::super::image;
use super::super::lab::{Lab, Stand, clients};
use super::can_run;
use crate::config::EbpfMode;
use crate::policy::ZoneId;
use crate::policy::image::Image;
use crate::policy::port::{ClassMask, PortSet, Service};
use egressd_common::corpus::{Promise, Vector, World, all, plan};
use std::collections::BTreeMap;

/// What went wrong, by promise: (must arrive, did, may not, did).
type Tally = BTreeMap<Promise, [u64; 4]>;

/// Sends the corpus through a gateway with `image`, and holds what arrives against `world`.
fn through(
    vectors: &[Vector],
    world: World,
    stand: Stand,
    change: impl Fn(&mut Image),
) -> (Tally, Vec<String>) {
    let Some(mut lab) = Lab::new() else {
        return Default::default();
    };
    let mut image = image(world, lab.index("lan0"), lab.index("wan0"));
    change(&mut image);
    lab.stand(stand, &image);
    let arrived = lab
        .wires()
        .through(vectors.iter().map(|vector| vector.frame.as_slice()));
    let (numbers, strange) = clients(&arrived);
    let mut tally = Tally::new();
    let mut words = Vec::new();
    // In audit mode forged sources pass as well.
    for frame in strange.into_iter().filter(|_| !world.audits()) {
        words.push(format!("of nobody: {frame:02x?}"));
    }
    for vector in vectors {
        let Some(must) = vector.rule.within(world).arrives() else {
            continue;
        };
        let did = numbers.contains(&vector.number);
        let counts = tally.entry(vector.promise).or_default();
        let at = if must { 0 } else { 2 };
        counts[at] += 1;
        counts[at + 1] += u64::from(did);
        if did != must {
            words.push(format!("{} {}: arrived {did}", vector.promise, vector.name));
        }
    }
    (tally, words)
}

fn check(world: World, stand: Stand) {
    let vectors = all();
    let (tally, words) = through(&vectors, world, stand, |_| {});
    let sum = |at: usize| -> u64 { tally.values().map(|counts| counts[at]).sum() };
    println!(
        "{world:?}, {stand:?}: {} of {} arrived, {} of {} that may not",
        sum(1),
        sum(0),
        sum(3),
        sum(2)
    );
    let shown = &words[..words.len().min(20)];
    assert!(
        words.is_empty(),
        "{world:?}, {stand:?}: {} wrong: {shown:#?}",
        words.len()
    );
    assert!(
        sum(0) > 250 && (sum(2) > 300 || world.audits()),
        "{tally:?}"
    );
}

#[test]
fn both_planes_forward_what_promises_say() {
    if !can_run("both_planes_forward_what_promises_say") {
        return;
    }
    for world in [
        World::Serving,
        World::Allowing,
        World::Denying,
        World::Trial,
    ] {
        for mode in [EbpfMode::Xdp, EbpfMode::Tc] {
            check(world, Stand::Ebpf { mode, nft: true });
        }
    }
}

#[test]
fn the_ebpf_plane_alone_forwards_what_promises_say() {
    if !can_run("the_ebpf_plane_alone_forwards_what_promises_say") {
        return;
    }
    for mode in [EbpfMode::Xdp, EbpfMode::Tc] {
        check(World::Alone, Stand::Ebpf { mode, nft: false });
    }
}

/// What the tests above would show if a rule were broken: what must be closed is open, once by name and
/// once by protocol.
#[test]
fn a_broken_rule_is_seen() {
    if !can_run("a_broken_rule_is_seen") {
        return;
    }
    let stand = Stand::Ebpf {
        mode: EbpfMode::Xdp,
        nft: true,
    };
    let vectors = all();
    let (tally, words) = through(&vectors, World::Denying, stand, |image| {
        let more = plan::REFUSED.map(|address| (ZoneId(0), address, ClassMask(1)));
        image.grants.extend(more);
    });
    println!("one grant too many: {} wrong, {tally:?}", words.len());
    assert!(
        tally[&Promise::P0][3] > 0 && tally[&Promise::P10][3] > 0,
        "{tally:?}"
    );
    let (tally, words) = through(
        &vectors,
        World::Alone,
        Stand::Ebpf {
            mode: EbpfMode::Tc,
            nft: false,
        },
        |image| {
            let all = (0..=255).filter(|protocol| ![6, 17, 132].contains(protocol));
            image.classes[0].1 = PortSet::new(
                all.map(Service::whole)
                    .chain([Service::tcp(443), Service::udp(443)]),
            );
        },
    );
    println!("all protocols: {} wrong, {tally:?}", words.len());
    assert!(
        tally[&Promise::P6][3] > 0 && tally[&Promise::P10][3] > 0,
        "{tally:?}"
    );
}
