#![expect(
    clippy::disallowed_methods,
    reason = "shell: runs ip, bpftool and mount, and measures"
)]
//! What others take away from the plane comes back.

use super::can_run;
use super::world::{World, has_xdp};
use crate::config::EbpfMode;
use crate::plane::Plane as _;
use crate::plane::drift::{Outcome, Word};
use std::process::Command;
use std::time::Instant;

/// Pins that are removed, links that are detached: the plane sees to it alone.
#[test]
fn links_mend_themselves() {
    let test = "mend";
    if !can_run(test) || !has_xdp(test) {
        return;
    }
    let world = World::new(test);
    for (mode, hook, detached) in [
        (EbpfMode::Xdp, "xdp", Word::XdpDetached),
        (EbpfMode::Tc, "tcx", Word::TcxDetached),
    ] {
        let mut plane = world.open(mode);
        world.inside("gateway", || plane.replace(&world.image(0)).unwrap());
        assert_eq!(plane.mend(), []);
        let pin = world.pins.join(format!("links/lan0:{hook}"));
        let mut check = |word: Word| {
            let drifts = world.inside("gateway", || plane.mend());
            let found: Vec<_> = drifts.iter().map(|d| (d.found.word, &d.outcome)).collect();
            assert_eq!(found, [(word, &Outcome::Mended)]);
            assert_eq!(world.inside("gateway", || plane.mend()), []);
            world.inside("gateway", || plane.verify().unwrap());
        };
        std::fs::remove_file(&pin).unwrap();
        check(Word::PinMissing);
        assert!(pin.exists());
        let mut detach = Command::new("bpftool");
        let detach = detach.args(["link", "detach", "pinned"]).arg(&pin);
        match detach.status() {
            Ok(status) if status.success() => check(detached),
            Ok(_) | Err(_) => eprintln!("skipped: no bpftool that detaches links"),
        }
    }
}

/// Where pins cannot be made the program stays, and the next bpffs gets the pins.
#[test]
fn without_a_bpffs_the_program_stays() {
    let test = "unmount";
    if !can_run(test) || !has_xdp(test) {
        return;
    }
    let world = World::new(test);
    let folder = tempfile::tempdir().unwrap();
    let mount = |arguments: &[&str]| {
        let mut command = Command::new(arguments[0]);
        let status = command.args(&arguments[1..]).arg(folder.path()).status();
        assert!(status.unwrap().success(), "{arguments:?}");
    };
    mount(&["mount", "-t", "bpf", "bpf"]);
    let mut plane = world.open_at(EbpfMode::Xdp, folder.path().to_str().unwrap());
    world.inside("gateway", || plane.replace(&world.image(0)).unwrap());
    mount(&["umount"]);
    for _ in 0..3 {
        let drifts = world.inside("gateway", || plane.mend());
        assert_eq!(drifts.len(), 1, "{drifts:?}");
        assert_eq!(drifts[0].found.word, Word::PinMissing);
        assert!(
            matches!(&drifts[0].outcome, Outcome::Waits(_)),
            "{drifts:?}"
        );
        // Not even a replacement of everything takes it off.
        for class in [1, 0] {
            world.inside("gateway", || plane.replace(&world.image(class)).unwrap());
        }
        assert!(shown(&world).contains("xdp"), "the program is gone");
    }
    mount(&["mount", "-t", "bpf", "bpf"]);
    let drifts = world.inside("gateway", || plane.mend());
    assert_eq!(drifts[0].outcome, Outcome::Mended, "{drifts:?}");
    assert_eq!(world.inside("gateway", || plane.mend()), []);
    drop(plane);
    mount(&["umount"]);
}

fn shown(world: &World) -> String {
    let mut show = Command::new("ip");
    show.args(["link", "show", "dev", "lan0"]);
    let output = world.inside("gateway", || show.output().unwrap());
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// Other interfaces and addresses are followed in place: the program that runs stays.
#[test]
fn interfaces_are_followed_without_a_new_program() {
    let test = "follow";
    if !can_run(test) || !has_xdp(test) {
        return;
    }
    let world = World::new(test);
    let mut plane = world.open(EbpfMode::Xdp);
    world.inside("gateway", || plane.replace(&world.image(0)).unwrap());
    let program = |world: &World| {
        let shown = shown(world);
        let (_, id) = shown.split_once("prog/xdp id ").expect("a program");
        id.split(' ').next().unwrap().to_owned()
    };
    let first = program(&world);
    let more = world.image_with(0, &[("lan0", "10.21.0.1/16"), ("wan0", "192.0.2.7/24")]);
    world.inside("gateway", || plane.replace(&more).unwrap());
    assert_eq!(program(&world), first);
    let own = |plane: &crate::plane::ebpf::EbpfPlane, address: &str| {
        let current = plane.current.as_ref().unwrap();
        let place = current.place(crate::policy::ZoneId(0), address.parse().unwrap());
        place.unwrap().own
    };
    let found = ["10.20.0.1", "10.21.0.1", "192.0.2.1", "192.0.2.7"].map(|a| own(&plane, a));
    assert_eq!(found, [false, true, false, true]);
    // The same once more is a replacement: nobody asks for it without a reason.
    world.inside("gateway", || plane.replace(&more).unwrap());
    assert_ne!(program(&world), first);
    world.inside("gateway", || plane.verify().unwrap());
}

/// `cargo test -p egressd --release cost_of_a_look -- --ignored --nocapture`
#[test]
#[ignore = "a measurement"]
fn cost_of_a_look() {
    const LOOKS: u32 = 2000;
    let test = "look";
    if !can_run(test) || !has_xdp(test) {
        return;
    }
    let world = World::new(test);
    let mut plane = world.open(EbpfMode::Xdp);
    world.inside("gateway", || plane.replace(&world.image(0)).unwrap());
    let began = Instant::now();
    world.inside("gateway", || {
        (0..LOOKS).for_each(|_| assert_eq!(plane.mend(), []))
    });
    println!("ebpf, one link: {:?} a look", began.elapsed() / LOOKS);
    let nft = || {
        let mut plane = crate::plane::nft::NftPlane::open(0).unwrap();
        plane.replace(&world.image(0)).unwrap();
        let began = Instant::now();
        (0..LOOKS).for_each(|_| assert_eq!(plane.mend(), []));
        println!("nft: {:?} a look", began.elapsed() / LOOKS);
    };
    world.inside("gateway", nft);
}
