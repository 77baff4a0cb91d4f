//! The static closed table, beside whatever the plane holds.

use super::*;
use crate::plane::nft::lockdown::{lift, lock, locked};
use crate::plane::ruleset::{LOCKDOWN_TABLE, Scope};

fn scopes() -> [Scope; 2] {
    let exact = |name: &str| InterfacePattern::Exact(name.to_owned());
    let zones = Scope::Zones {
        interfaces: vec![InterfacePattern::parse("lan*").unwrap()],
        upstream: vec![exact("wan0")],
    };
    [Scope::Everything, zones]
}

#[test]
fn it_closes_to_established_flows_too_until_it_is_lifted() {
    let Some(lab) = Lab::new() else { return };
    lab.serve(Place::Internet, "203.0.113.1:443");
    let mut plane = plane(&lab);
    let mut image = image();
    image.grants = vec![grant("203.0.113.1", &[WEB])];
    plane.replace(&image).unwrap();
    for scope in scopes() {
        let flow = lab
            .connect(
                Place::Client,
                "10.20.0.2",
                "203.0.113.1:443",
                Duration::from_secs(3),
            )
            .expect("it is granted");
        let before = lab.within(Place::Gateway, || lock(&scope).unwrap());
        assert!(!before, "{scope}");
        assert!(!carries(&flow), "established: {scope}");
        lab.tcp("203.0.113.1:443", false);
        assert!(lab.within(Place::Gateway, || lock(&scope).unwrap()));
        let dropped = lab.within(Place::Gateway, || locked().unwrap());
        lab.tcp("203.0.113.1:443", false);
        let more = lab.within(Place::Gateway, || locked().unwrap());
        assert!(more > dropped, "{more:?} {dropped:?}");
        // What a plane does to its own table, or switched off, leaves it alone.
        plane.replace(&image).unwrap();
        let removed = lab.within(Place::Gateway, || remove_left_behind(None).unwrap());
        assert!(!removed || plane.verify().is_err());
        lab.tcp("203.0.113.1:443", false);
        assert!(lab.within(Place::Gateway, || lift().unwrap()));
        assert!(!lab.within(Place::Gateway, || lift().unwrap()));
        assert_eq!(lab.within(Place::Gateway, || locked().unwrap()), None);
        plane.replace(&image).unwrap();
        lab.tcp("203.0.113.1:443", true);
    }
}

#[test]
fn the_kernel_lists_what_the_description_says() {
    let Some(lab) = Lab::new() else { return };
    for scope in scopes() {
        lab.within(Place::Gateway, || lock(&scope).unwrap());
        let listed = lab.gateway(&format!("nft -s list table inet {LOCKDOWN_TABLE}"), "");
        let chains_from = |text: &str| text[text.find("chain forward").unwrap()..].to_owned();
        let described = scope.ruleset().to_string();
        assert_eq!(
            lines(&chains_from(&listed)),
            lines(&chains_from(&described)),
            "{listed}"
        );
    }
}

#[test]
fn others_share_a_gateway_whose_zones_are_locked() {
    let Some(lab) = Lab::new() else { return };
    lab.serve(Place::Internet, "203.0.113.1:443");
    let exact = |name: &str| InterfacePattern::Exact(name.to_owned());
    let scope = |interface: &str| Scope::Zones {
        interfaces: vec![exact(interface)],
        upstream: vec![exact("wan0")],
    };
    lab.within(Place::Gateway, || lock(&scope("lan9")).unwrap());
    lab.tcp("203.0.113.1:443", true);
    // However wide a zone's pattern is, upstream is not in it.
    let wide = Scope::Zones {
        interfaces: vec![InterfacePattern::parse("wan*").unwrap()],
        upstream: vec![exact("wan0")],
    };
    lab.within(Place::Gateway, || lock(&wide).unwrap());
    lab.tcp("203.0.113.1:443", true);
    lab.within(Place::Gateway, || lock(&scope("lan0")).unwrap());
    lab.tcp("203.0.113.1:443", false);
}
