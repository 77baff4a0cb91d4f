//! The chains that redirect, in the kernel: that they are what they say, and how they come and go.

use super::*;
use crate::plane::ruleset::Generation;
use crate::policy::links::{Link, Links, Stack};
use std::collections::BTreeMap;

fn redirecting(listeners: &[&str]) -> Image {
    let mut image = image();
    image.links = Links(BTreeMap::from([(
        2,
        Link {
            name: "lan0".to_owned(),
            up: true,
            mac: Vec::new(),
            ethernet: true,
            stack: Stack::default(),
            addresses: vec![
                "10.20.0.1/16".parse().unwrap(),
                "2001:db8:20::1/64".parse().unwrap(),
            ],
        },
    )]));
    image.zones[0].redirect = listeners.iter().map(|at| at.parse().unwrap()).collect();
    image
}

/// The listing of the chains that redirect, as nft writes it, each with its lines.
fn chains(text: &str) -> BTreeMap<String, Vec<String>> {
    let text = text
        .replace("l4proto 6 ", "l4proto tcp ")
        .replace("l4proto 17 ", "l4proto udp ");
    let chains = text.split("chain ").skip(1).map(|chain| {
        let mut lines = lines(chain).into_iter().map(str::to_owned);
        (
            lines.next().unwrap_or_default(),
            lines.take_while(|line| line != "}").collect(),
        )
    });
    let chains: BTreeMap<String, Vec<String>> = chains
        .filter(|(name, _)| name.starts_with("prerouting") || name.contains("resolver"))
        .collect();
    assert_eq!(chains.len(), 3, "{text}");
    chains
}

#[test]
fn the_kernel_lists_the_redirect_as_described() {
    let Some(lab) = Lab::new() else { return };
    let mut plane = plane(&lab);
    for (listeners, generation) in [
        (
            &["10.20.0.1:53", "[2001:db8:20::1]:5353"][..],
            Generation::A,
        ),
        (&["0.0.0.0:53", "[::]:5353"], Generation::B),
        (&["10.20.0.1:53", "[::]:53"], Generation::A),
    ] {
        let image = redirecting(listeners);
        plane.replace(&image).unwrap();
        let described = Ruleset::new(&image, generation).to_string();
        assert_eq!(chains(&table(&lab)), chains(&described), "{listeners:?}");
        plane.verify().unwrap();
    }
}

/// Packets of redirected flows are translated for as long as a NAT chain is there, and are established
/// flows to somebody else when none is.
#[test]
fn the_kernel_goes_on_translating_when_a_redirect_ends() {
    let Some(lab) = Lab::new() else { return };
    lab.serve(Place::Gateway, "[::]:53");
    let mut plane = plane(&lab);
    let on = redirecting(&["10.20.0.1:53"]);
    let off = redirecting(&[]);
    plane.replace(&off).unwrap();
    assert!(!table(&lab).contains("nat"));
    plane.replace(&on).unwrap();
    let patience = Duration::from_secs(3);
    let flow = lab.connect(Place::Client, "10.20.0.2", "203.0.113.77:53", patience);
    let flow = flow.expect("redirected to the gateway");
    assert!(carries(&flow));
    plane.replace(&off).unwrap();
    let text = table(&lab);
    assert!(!text.contains("dnat"), "{text}");
    assert!(carries(&flow), "its packets went elsewhere");
    // A new process finds the table as it was left.
    drop(plane);
    let mut plane = super::plane(&lab);
    plane.replace(&off).unwrap();
    assert!(carries(&flow), "its packets went elsewhere");
    let fresh = lab.connect(Place::Client, "10.20.0.2", "203.0.113.77:53", patience / 10);
    assert!(fresh.is_none(), "still redirected");
}
