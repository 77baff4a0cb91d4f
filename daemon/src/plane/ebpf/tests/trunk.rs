//! Which hook an interface gets, and what happens where it gets none.

use super::super::{EbpfPlane, sweep_pins};
use super::can_run;
use super::world::{World, hooks, kernel, run};
use crate::config::EbpfMode;
use crate::plane::Plane as _;
use crate::policy::ZoneId;
use crate::policy::image::Image;
use crate::policy::links::{InterfacePattern, Kind, Stack, Vlan};

/// `lan0` with a VLAN device for id 10 that is another wire in truth: this kernel need not have any.
fn trunk(world: &World) -> Image {
    world.wire("client", "eth1", "gateway", "lan10");
    let mut image = world.image_with(0, &[("lan0", "10.20.0.1/16"), ("lan10", "10.30.0.1/16")]);
    let (trunk, device) = (world.index("lan0"), world.index("lan10"));
    image.links.0.get_mut(&device).unwrap().stack = Stack {
        kind: Kind::Vlan(Vlan {
            parent: trunk,
            id: 10,
            protocol: 0x8100,
        }),
        master: None,
    };
    let mut inside = image.zones[0].clone();
    inside.id = ZoneId(1);
    inside.name = "inside".into();
    inside.interfaces = vec![InterfacePattern::Exact("lan10".into())];
    image.zones[0].sources.clear();
    inside.sources.clear();
    image.zones.push(inside);
    image
}

fn offload(world: &World, state: &str) {
    let space = world.name("gateway");
    run(&format!(
        "nsenter --net=/run/netns/{space} ethtool -K lan0 rxvlan {state}"
    ));
}

#[test]
fn a_trunk_whose_card_takes_tags_off_gets_tcx() {
    let test = "trunk";
    if !can_run(test) {
        return;
    }
    let world = World::new(test);
    let image = trunk(&world);
    let replace = |plane: &mut EbpfPlane| world.inside("gateway", || plane.replace(&image));
    offload(&world, "on");
    let mut plane = world.open(EbpfMode::Auto);
    replace(&mut plane).unwrap();
    let device = "lan10: tcx (a VLAN device has no XDP)";
    let stripped = "lan0: tcx (its card takes VLAN tags off before XDP)";
    assert_eq!(hooks(&plane), [stripped, device]);
    drop(plane);
    let mut plane = world.open(EbpfMode::Xdp);
    let error = replace(&mut plane).unwrap_err().to_string();
    assert!(error.contains("`ethtool -K lan0 rxvlan off`"), "{error}");

    offload(&world, "off");
    let mut plane = world.open(EbpfMode::Xdp);
    replace(&mut plane).unwrap();
    assert_eq!(hooks(&plane), ["lan0: xdp native", device]);
    world.inside("gateway", || plane.verify().unwrap());

    // Someone turns it on again: noticed, and mended where the mode allows it.
    drop(plane);
    let mut plane = world.open(EbpfMode::Auto);
    replace(&mut plane).unwrap();
    assert_eq!(hooks(&plane), ["lan0: xdp native", device]);
    offload(&world, "on");
    let error = world.inside("gateway", || plane.verify().unwrap_err().to_string());
    assert!(error.contains("its card takes VLAN tags off"), "{error}");
    replace(&mut plane).unwrap();
    assert_eq!(hooks(&plane), [stripped, device]);
    world.inside("gateway", || plane.verify().unwrap());
    let pins = std::fs::read_dir(world.pins.join("links")).unwrap().count();
    assert_eq!(pins, 2, "the XDP link is gone");
}

#[test]
fn what_cannot_be_attached_is_left_to_nft_alone() {
    let test = "missing";
    if !can_run(test) {
        return;
    }
    let world = World::new(test);
    let mut image = world.image_with(0, &[("lan0", "10.20.0.1/16"), ("wan0", "192.0.2.1/24")]);
    let mut theirs = world.open_at(EbpfMode::Xdp, "theirs");
    world.inside("gateway", || theirs.replace(&image).unwrap());

    // Both are in the zone now, and on one of them is another's program.
    image.upstream.clear();
    image.zones[0]
        .interfaces
        .push(InterfacePattern::Exact("wan0".into()));
    let mut plane = world.open_with(EbpfMode::Auto, "ours", true);
    world.inside("gateway", || plane.replace(&image).unwrap());
    let [attached, missing] = &hooks(&plane)[..] else {
        panic!("{:?}", hooks(&plane))
    };
    assert_eq!(attached, "wan0: xdp native");
    assert!(
        missing.starts_with("lan0: not attached, left to nft alone: ")
            && missing.contains("another program is there"),
        "{missing}"
    );
    world.inside("gateway", || plane.verify().unwrap());
    assert_eq!(hooks(&plane).len(), 2);

    // Once it is gone the next check attaches. The kernel detaches a link a moment later.
    drop(theirs);
    sweep_pins(&world.pins.join("theirs")).unwrap();
    let mut checks = 0;
    while hooks(&plane) != ["lan0: xdp native", "wan0: xdp native"] {
        checks += 1;
        assert!(checks < 100_000, "{:?}", hooks(&plane));
        world.inside("gateway", || plane.verify().unwrap());
    }
}

#[test]
fn a_renamed_interface_keeps_its_program_beside_a_new_one_of_its_name() {
    let test = "renamed";
    if !can_run(test) {
        return;
    }
    let world = World::new(test);
    let lans = vec![InterfacePattern::Prefix("lan".into())];
    let image = |interfaces: &[(&str, &str)]| {
        let mut image = world.image_with(0, interfaces);
        image.zones[0].interfaces.clone_from(&lans);
        image
    };
    let mut plane = world.open(EbpfMode::Xdp);
    let before = image(&[("lan0", "10.20.0.1/16")]);
    world.inside("gateway", || plane.replace(&before).unwrap());
    if kernel() < (6, 2) {
        // Only what is down can be renamed there.
        world.ip("gateway", "link set lan0 down");
    }
    world.ip("gateway", "link set lan0 name lan9");
    world.ip("gateway", "link set lan9 up");
    world.wire("client", "eth1", "gateway", "lan0");
    let after = image(&[("lan9", "10.20.0.1/16"), ("lan0", "10.30.0.1/16")]);
    world.inside("gateway", || plane.replace(&after).unwrap());
    plane.verify().unwrap();
    assert_eq!(hooks(&plane), ["lan9: xdp native", "lan0: xdp native"]);
    // Each of them has a pin of its own, so that both outlive the process.
    drop(plane);
    let mut plane = world.open(EbpfMode::Xdp);
    world.inside("gateway", || plane.replace(&after).unwrap());
    plane.verify().unwrap();
    assert_eq!(hooks(&plane), ["lan9: xdp native", "lan0: xdp native"]);
}
