//! Which addresses an answer may teach (D4).

use super::ZoneId;
use super::exceptions;
use super::name::Name;
use super::observed;
use super::rules::{Rules, Unfit};
use super::special::special_purpose;
use ipnet::IpNet;
use std::net::IpAddr;

/// Registries' words for addresses that `private` allows: hosts of the operator's own networks.
/// Nothing else that is special is ever a host behind a router.
const PRIVATE: [&str; 3] = ["private", "shared", "unique-local"];

impl Rules {
    /// Whether an answer for `name` may teach `zone` this address (D4). A special-purpose, internal
    /// or connected address is fit only where an allowed network inside that same range holds it, or
    /// where the zone's `private` lists the name and the address is one of private networks; the
    /// gateway's own never is, nor one of a denied network. An address under a NAT64 prefix is as
    /// fit as the IPv4 address in it.
    ///
    /// # Errors
    /// Says why not.
    pub fn fit(&self, zone: ZoneId, name: &Name, address: IpAddr) -> Result<(), Unfit> {
        if self.links().is_own(address) {
            return Err(Unfit::Own);
        }
        let denies = |net: &IpNet| net.contains(&address);
        if let Some(zone) = self.zone(zone)
            && zone.denied_networks.iter().any(denies)
        {
            return Err(Unfit::Denied);
        }
        if let IpAddr::V6(v6) = address
            && let mut prefixes = self.intent().nat64.iter()
            && let Some(prefix) = prefixes.find(|prefix| prefix.contains(v6))
        {
            return match prefix.extract(v6) {
                Some(embedded) => self.fit(zone, name, embedded.into()),
                None => Err(Unfit::Special("nat64")),
            };
        }
        let private = || self.zone(zone).is_some_and(|zone| zone.private.lists(name));
        if let Some(word) = special_purpose(address)
            && !self.lists_within(zone, address, |net| {
                special_purpose(net.network()) == Some(word)
                    && special_purpose(net.broadcast()) == Some(word)
            })
            && !(PRIVATE.contains(&word) && private())
        {
            return Err(Unfit::Special(word));
        }
        let mut internal = self.intent().internal.iter();
        if let Some(around) = internal.find(|net| net.contains(&address))
            && !self.lists_within(zone, address, |net| around.contains(net))
            && !private()
        {
            return Err(Unfit::Internal);
        }
        let mut connected = self.links().0.values().flat_map(|link| &link.addresses);
        if let Some(around) = connected.find(|net| net.prefix_len() > 0 && net.contains(&address))
            && !self.lists_within(zone, address, |net| around.contains(net))
            && !private()
        {
            return Err(Unfit::Connected);
        }
        Ok(())
    }

    /// Whether an allowed network of the zone holds `address` and is itself `inside`: one that only
    /// happens to be wide enough does not speak for the addresses an answer must not teach.
    fn lists_within(&self, zone: ZoneId, address: IpAddr, inside: impl Fn(&IpNet) -> bool) -> bool {
        let networks = self.zone(zone).map_or(&[][..], |zone| &zone.networks);
        networks
            .iter()
            // The resolvers may be asked; that they are listed for it makes them nobody's answer. Nor does
            // an exception loosen what answers may hold.
            .filter(|listing| {
                let catalogue = &self.row(listing.set).catalogue;
                ![observed::CATALOGUE, exceptions::CATALOGUE].contains(&catalogue.as_str())
            })
            .any(|listing| listing.network.contains(&address) && inside(&listing.written))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::policy::grant::{Admission, Policy};
    use crate::policy::name::Pattern;
    use crate::policy::nat64::Prefix;
    use crate::policy::rules::Intent;
    use crate::policy::tests::{answer, intent, ip, links, name};
    use crate::policy::{Moment, Revision};
    use std::sync::Arc;

    fn with(private: &[&str], nat64: &[&str]) -> Arc<Intent> {
        let mut intent = intent(&["c"], &["c/hole"]);
        let patterns = private.iter().map(|text| Pattern::parse(text).unwrap());
        intent.zones[0].private = patterns.collect();
        let prefixes = nat64.iter().map(|text| text.parse().unwrap());
        intent.nat64 = prefixes.map(|net| Prefix::new(net).unwrap()).collect();
        Arc::new(intent)
    }

    fn policy(private: &[&str], nat64: &[&str]) -> Policy {
        Policy::new(with(private, nat64), links()).unwrap()
    }

    #[test]
    fn private_names() {
        fn check(asked: &str, address: &str, expected: Result<(), Unfit>) {
            let policy = policy(&["*.corp.a.example", "nas.a.example"], &[]);
            let got = policy.rules().fit(ZoneId(0), &name(asked), ip(address));
            assert_eq!(got, expected, "{asked} {address}");
        }
        let special = |word| Err(Unfit::Special(word));
        for asked in ["x.corp.a.example", "nas.a.example"] {
            // Private, shared, unique local, internal, connected.
            check(asked, "192.168.7.9", Ok(()));
            check(asked, "172.16.0.9", Ok(()));
            check(asked, "100.64.0.9", Ok(()));
            check(asked, "fd00::9", Ok(()));
            check(asked, "10.9.9.9", Ok(()));
            check(asked, "10.20.7.7", Ok(()));
            check(asked, "51.1.1.1", Ok(()));
            check(asked, "20.1.2.3", Ok(()));
            // Whatever the name: the gateway, denied networks, and what is no host of a network.
            check(asked, "10.20.0.1", Err(Unfit::Own));
            check(asked, "51.1.1.2", Err(Unfit::Own));
            check(asked, "52.0.128.9", Err(Unfit::Denied));
            check(asked, "127.0.0.1", special("loopback"));
            check(asked, "169.254.169.254", special("link-local"));
            check(asked, "0.0.0.0", special("unspecified"));
            check(asked, "224.0.0.1", special("multicast"));
            check(asked, "255.255.255.255", special("broadcast"));
            check(asked, "240.0.0.1", special("reserved"));
            check(asked, "192.0.2.1", special("documentation"));
            check(asked, "198.18.0.1", special("benchmarking"));
            check(asked, "192.88.99.1", special("6to4-relay"));
            check(asked, "::1", special("loopback"));
            check(asked, "fe80::1", special("link-local"));
            check(asked, "ff02::1", special("multicast"));
            check(asked, "::ffff:10.9.9.9", special("v4-mapped"));
            check(asked, "::10.9.9.9", special("v4-compatible"));
            check(asked, "2002:a09:909::", special("6to4"));
            check(asked, "2001::1", special("teredo"));
            check(asked, "2001:db8:20::9", special("documentation"));
            check(asked, "64:ff9b::10.9.9.9", special("nat64"));
            check(asked, "4000::1", special("reserved"));
        }
        for asked in ["corp.a.example", "www.a.example", "x.nas.a.example"] {
            check(asked, "192.168.7.9", special("private"));
            check(asked, "100.64.0.9", special("shared"));
            check(asked, "fd00::9", special("unique-local"));
            check(asked, "51.1.1.1", Err(Unfit::Connected));
            check(asked, "20.1.2.3", Ok(()));
        }
    }

    #[test]
    fn the_allowance_is_the_names_own_and_ends_with_it() {
        let mut policy = policy(&["nas.a.example"], &[]);
        let private = |asked| answer(asked, &["192.168.7.9"], 300);
        let refused = policy.admit(ZoneId(0), &private("www.a.example"), Moment(0));
        let unfit = Admission::Unfit(ip("192.168.7.9"), Unfit::Special("private"));
        assert_eq!(refused, unfit);
        let admitted = policy.admit(ZoneId(0), &private("nas.a.example"), Moment(0));
        assert!(matches!(admitted, Admission::Admitted { revision, .. } if revision > Revision(0)));
        let end = Moment(1_000_000_000);
        let recalled = policy.recall(ZoneId(0), &private("www.a.example"), Moment(0), end);
        assert_eq!(recalled, unfit);
        assert_eq!(
            policy
                .replace(with(&["nas.a.example"], &[]), links())
                .unwrap(),
            []
        );
        assert!(policy.grant(ZoneId(0), ip("192.168.7.9")).is_some());
        assert_eq!(policy.replace(with(&[], &[]), links()).unwrap().len(), 1);
        assert!(policy.grant(ZoneId(0), ip("192.168.7.9")).is_none());
    }

    #[test]
    fn translated_addresses() {
        fn check(nat64: &[&str], asked: &str, address: &str, expected: Result<(), Unfit>) {
            let policy = policy(&["nas.a.example"], nat64);
            let got = policy.rules().fit(ZoneId(0), &name(asked), ip(address));
            assert_eq!(got, expected, "{nat64:?} {asked} {address}");
        }
        let (known, www) = (&["64:ff9b::/96", "2001:db8:64::/48"][..], "www.a.example");
        check(&[], www, "64:ff9b::20.1.2.3", Err(Unfit::Special("nat64")));
        check(known, www, "64:ff9b::20.1.2.3", Ok(()));
        check(known, www, "2001:db8:64:1401:2:300::", Ok(()));
        check(
            known,
            www,
            "2001:db8:64:1401:2:300::1",
            Err(Unfit::Special("nat64")),
        );
        check(known, www, "64:ff9b::10.20.0.1", Err(Unfit::Own));
        check(known, www, "64:ff9b::52.0.128.9", Err(Unfit::Denied));
        check(known, www, "64:ff9b::51.1.1.1", Err(Unfit::Connected));
        check(
            known,
            www,
            "64:ff9b::127.0.0.1",
            Err(Unfit::Special("loopback")),
        );
        check(
            known,
            www,
            "64:ff9b::192.168.1.1",
            Err(Unfit::Special("private")),
        );
        check(known, "nas.a.example", "64:ff9b::192.168.1.1", Ok(()));
        check(
            known,
            "nas.a.example",
            "64:ff9b::127.0.0.1",
            Err(Unfit::Special("loopback")),
        );
        check(
            known,
            www,
            "64:ff9b:1::20.1.2.3",
            Err(Unfit::Special("nat64-local")),
        );
    }
}
