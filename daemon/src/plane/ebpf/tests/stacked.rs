//! Interfaces that stand on others: VLAN devices and ports of bridges.

use super::{can_run, image, lan, load};
use crate::policy::ZoneId;
use crate::policy::image::{Image, ZoneImage};
use crate::policy::links::{Kind, Link, Stack, Vlan};

/// A gateway on whose `lan0` stand VLAN devices: 10 in a zone of its own, 20 upstream, 30 in no zone,
/// 40 (802.1ad) in no zone and on it 50, which is in a zone that has more than one prefix.
pub(super) fn stacked() -> Image {
    let mut image = image();
    let mut add = |index, name: &str, parent, protocol, id| {
        let kind = Kind::Vlan(Vlan {
            parent,
            id,
            protocol,
        });
        let link = Link {
            name: name.into(),
            addresses: Vec::new(),
            stack: Stack { kind, master: None },
            ..image.links.0[&1].clone()
        };
        image.links.0.insert(index, link);
    };
    add(11, "lan0.10", 1, 0x8100, 10);
    add(12, "lan0.20", 1, 0x8100, 20);
    add(13, "lan0.30", 1, 0x8100, 30);
    add(14, "lan0.40", 1, 0x88a8, 40);
    add(15, "lan0.40.50", 14, 0x8100, 50);
    image.upstream.extend(lan("lan0.20"));
    let guests = &image.zones[3];
    let zone = |id, interface: &str, sources: &[&str]| ZoneImage {
        id: ZoneId(id),
        name: format!("z{id}"),
        interfaces: lan(interface),
        sources: sources.iter().map(|net| net.parse().unwrap()).collect(),
        ..guests.clone()
    };
    let (ten, fifty) = (
        zone(10, "lan0.10", &[]),
        zone(11, "lan0.40.50", &["10.20.0.0/20", "10.30.0.0/16"]),
    );
    image.zones.extend([ten, fifty]);
    let [(_, address, mask), ..] = image.grants[..] else {
        unreachable!("image() has grants")
    };
    image.grants.push((ZoneId(10), address, mask));
    image.grants.push((ZoneId(11), address, mask));
    image
}

/// A gateway whose `lan0` is a port of a bridge.
pub(super) fn port() -> Image {
    let mut image = image();
    let lan0 = image.links.0.get_mut(&1).expect("image() has it");
    lan0.stack.master = Some(4);
    let bridge = Link {
        name: "br0".into(),
        mac: vec![2, 0, 0, 0, 0, 9],
        stack: Stack {
            kind: Kind::Bridge,
            master: None,
        },
        ..lan0.clone()
    };
    image.links.0.insert(4, bridge);
    image
}

/// What the verifier looked at, with all capabilities and with two. Ignored by default: it measures.
#[test]
#[ignore = "measures"]
fn size_of_the_programs() {
    use caps::{CapSet, Capability, CapsHashSet};
    if !can_run("size_of_the_programs") {
        return;
    }
    let measure = || {
        for (nft_behind, image) in [
            (true, image()),
            (false, image()),
            (true, stacked()),
            (true, port()),
        ] {
            println!("{} VLANs", image.links.vlans().count());
            let mut generation = load(&image, nft_behind);
            let xdp = generation.xdp().map(|p| p.info().unwrap());
            match xdp {
                Ok(i) => println!(
                    "behind {nft_behind}: xdp {:?} insns verified, {:?} B xlated, {} B jited",
                    i.verified_instruction_count(),
                    i.size_translated(),
                    i.size_jitted()
                ),
                Err(_) => println!("xdp refused"),
            }
            let tcx = generation.tcx().map(|p| p.info().unwrap());
            match tcx {
                Ok(i) => println!(
                    "behind {nft_behind}: tcx {:?} insns verified, {:?} B xlated, {} B jited",
                    i.verified_instruction_count(),
                    i.size_translated(),
                    i.size_jitted()
                ),
                Err(_) => println!("tcx refused"),
            }
        }
    };
    measure();
    std::thread::spawn(move || {
        let two = CapsHashSet::from_iter([Capability::CAP_BPF, Capability::CAP_NET_ADMIN]);
        caps::set(None, CapSet::Effective, &two).unwrap();
        println!("two capabilities");
        measure();
    })
    .join()
    .unwrap();
}
