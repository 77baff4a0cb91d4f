//! Which zone a client on a TCP connection belongs to. Pure.

use crate::policy::ZoneId;
use crate::policy::rules::Rules;
use std::net::IpAddr;

/// The zone of a TCP client. A connection does not tell the interface it came in on, but a finished
/// handshake proves that replies to `peer` reach it. So: the interface whose subnet holds `peer`; for
/// clients behind a router the interface that has the `local` address, unless another interface
/// would put the same source into another zone. In doubt, none.
pub(super) fn of_stream(rules: &Rules, peer: IpAddr, local: IpAddr) -> Option<ZoneId> {
    let links = &rules.links().0;
    let longest = links
        .values()
        .flat_map(|link| &link.addresses)
        .filter(|net| net.prefix_len() > 0 && net.contains(&peer))
        .map(ipnet::IpNet::prefix_len)
        .max();
    let near = |net: &ipnet::IpNet| match longest {
        Some(length) => net.prefix_len() == length && net.contains(&peer),
        None => net.addr() == local,
    };
    let mut zones = links
        .iter()
        .filter(|(_, link)| link.addresses.iter().any(near))
        .map(|(index, _)| rules.zone_of(*index, peer));
    let zone = zones.next()??;
    if zones.any(|other| other != Some(zone)) {
        return None;
    }
    let contested = longest.is_none()
        && links
            .keys()
            .filter_map(|index| rules.zone_of(*index, peer))
            .any(|other| other != zone);
    (!contested).then_some(zone)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::policy::links::{InterfacePattern, Link, Links, Stack};
    use crate::policy::rules::{Intent, Numbers};
    use crate::policy::zone::ZoneSpec;
    use std::collections::BTreeMap;
    use std::sync::Arc;

    fn rules() -> Rules {
        let link = |name: &str, addresses: &[&str]| Link {
            name: name.to_owned(),
            up: true,
            mac: vec![2, 0, 0, 0, 0, 1],
            ethernet: true,
            stack: Stack::default(),
            addresses: addresses.iter().map(|a| a.parse().unwrap()).collect(),
        };
        let links = Links(BTreeMap::from([
            (1, link("lo", &["127.0.0.1/8"])),
            (2, link("lan0", &["10.1.0.1/24"])),
            (3, link("lan1", &["10.2.0.1/24"])),
            (4, link("dmz", &["10.3.0.1/24"])),
            (5, link("wan0", &["9.9.9.2/30"])),
        ]));
        let zone = |name: &str, interface: &str, sources: &[&str]| ZoneSpec {
            name: name.to_owned(),
            interfaces: vec![InterfacePattern::parse(interface).unwrap()],
            sources: sources.iter().map(|s| s.parse().unwrap()).collect(),
            ..ZoneSpec::default()
        };
        let intent = Intent {
            zones: vec![
                zone("a", "lan0", &["10.1.0.0/16"]),
                zone("b", "lan1", &["10.2.0.0/16", "10.1.128.0/17"]),
            ],
            ..Intent::default()
        };
        Rules::compile(Arc::new(intent), links, &mut Numbers::default()).unwrap()
    }

    #[test]
    fn streams() {
        let rules = rules();
        let check = |peer: &str, local: &str, expected: Option<&str>| {
            let zone = of_stream(&rules, peer.parse().unwrap(), local.parse().unwrap());
            assert_eq!(
                zone.map(|z| rules.zone_name(z)),
                expected,
                "{peer} to {local}"
            );
        };
        check("10.1.0.9", "10.1.0.1", Some("a"));
        check("10.2.0.9", "10.2.0.1", Some("b"));
        // To the address of another interface: still judged by its own.
        check("10.2.0.9", "10.1.0.1", Some("b"));
        check("10.3.0.9", "10.1.0.1", None);
        check("9.9.9.1", "10.1.0.1", None);
        check("127.0.0.1", "127.0.0.1", None);
        // Behind a router.
        check("10.1.5.9", "10.1.0.1", Some("a"));
        check("10.2.5.9", "10.2.0.1", Some("b"));
        check("8.8.8.8", "9.9.9.2", None);
        // Both zones would claim it.
        check("10.1.200.9", "10.1.0.1", None);
        check("10.1.200.9", "10.2.0.1", None);
    }
}
