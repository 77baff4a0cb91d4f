//! PURE: every measure there is.

use anyhow::{Result, bail};

/// The address family of the traffic.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Family {
    /// IPv4, A records.
    V4,
    /// IPv6, AAAA records.
    V6,
}

/// A gateway that packets are sent through.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    /// egressd with XDP in front of nft.
    Both,
    /// egressd with `ebpf = "off"`.
    NftOnly,
    /// xdp-filter of the xdp-tools.
    XdpFilter,
    /// An XDP program that drops without looking.
    BareDrop,
    /// A router.
    Unfiltered,
}

/// A resolver that caches.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Resolver {
    /// dnsmasq with `nftset`.
    Dnsmasq,
    /// unbound with one thread.
    Unbound,
}

impl Resolver {
    /// As people call it.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Dnsmasq => "dnsmasq",
            Self::Unbound => "unbound",
        }
    }
}

/// What is measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Need {
    /// New names per second, beside dnsmasq with `nftset`.
    Cold,
    /// CPU time of the server for a question that its cache answers.
    Hot(Resolver),
    /// What a resolver adds to a cold question, at this percentile, beside dnsmasq with `nftset`.
    Latency(usize),
    /// Refused packets per second, beside another gateway's.
    Deny(Kind),
    /// Packets per second of granted flows, beside another gateway's.
    Allow(Kind),
    /// Time that a verdict takes.
    Verdict,
}

/// One measure.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Measure {
    name: &'static str,
    /// What it tells.
    pub about: &'static str,
    /// What is measured.
    pub need: Need,
    /// Over which family.
    pub family: Family,
}

/// Ids without their family, what is measured, what that tells.
const MEASURES: [(&str, Need, &str); 11] = [
    (
        "dns-cold-vs-dnsmasq-nftset",
        Need::Cold,
        "new names per second, each with a new address that the kernel holds before the answer leaves",
    ),
    (
        "dns-hot-vs-dnsmasq",
        Need::Hot(Resolver::Dnsmasq),
        "CPU time of the server per question that the cache answers; peer: dnsmasq with nftset",
    ),
    (
        "dns-hot-vs-unbound",
        Need::Hot(Resolver::Unbound),
        "the same; peer: unbound with one thread, which enforces nothing",
    ),
    (
        "dns-added-latency",
        Need::Latency(50),
        "median time that a cold question takes longer than straight at the upstream; peer: dnsmasq with nftset",
    ),
    (
        "dns-added-latency-p99",
        Need::Latency(99),
        "the same at the 99th percentile",
    ),
    (
        "deny-vs-nft-only",
        Need::Deny(Kind::NftOnly),
        "refused packets per second, 60,000 destinations beside 100,000 grants; peer: egressd with ebpf = \"off\"",
    ),
    (
        "deny-vs-xdp-filter",
        Need::Deny(Kind::XdpFilter),
        "the same; peer: xdp-filter in deny mode with the 10,000 addresses it can hold",
    ),
    (
        "deny-vs-bare-drop",
        Need::Deny(Kind::BareDrop),
        "the same; peer: an XDP program that drops without looking",
    ),
    (
        "allow-vs-nft-only",
        Need::Allow(Kind::NftOnly),
        "packets per second of 60,000 established, granted flows; peer: egressd with ebpf = \"off\"",
    ),
    (
        "allow-vs-unfiltered",
        Need::Allow(Kind::Unfiltered),
        "the same; peer: a router that filters nothing and tracks no connections",
    ),
    (
        "verdict-cost",
        Need::Verdict,
        "time of the XDP program per packet by kind and number of destinations; peer: one that decides nothing",
    ),
];

impl Measure {
    /// Every measure, IPv4 before IPv6.
    #[must_use]
    pub fn all() -> Vec<Self> {
        let both = [Family::V4, Family::V6];
        let each = MEASURES.iter().flat_map(|&(name, need, about)| {
            both.map(|family| Self {
                name,
                about,
                need,
                family,
            })
        });
        each.collect()
    }

    /// Its id: `deny-vs-nft-only-v4`.
    #[must_use]
    pub fn id(&self) -> String {
        let family = match self.family {
            Family::V4 => "v4",
            Family::V6 => "v6",
        };
        format!("{}-{family}", self.name)
    }

    /// Those that `ids` name, with or without their family; all if there are none.
    ///
    /// # Errors
    /// When an id is none.
    pub fn chosen(ids: &[String]) -> Result<Vec<Self>> {
        let all = Self::all();
        let fits = |measure: &Self, id: &String| *id == measure.id() || id == measure.name;
        for id in ids {
            if !all.iter().any(|measure| fits(measure, id)) {
                let known: Vec<&str> = MEASURES.iter().map(|(name, ..)| *name).collect();
                bail!("`{id}` is no measure; there are {}", known.join(", "));
            }
        }
        let wanted = |measure: &Self| ids.is_empty() || ids.iter().any(|id| fits(measure, id));
        Ok(all.into_iter().filter(wanted).collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_choose() {
        fn check(ids: &[&str], expected: Option<&[&str]>) {
            let ids: Vec<String> = ids.iter().map(|id| (*id).to_owned()).collect();
            let chosen: Option<Vec<String>> = Measure::chosen(&ids)
                .ok()
                .map(|some| some.iter().map(Measure::id).collect());
            let expected = expected.map(|ids| ids.iter().map(|id| (*id).to_owned()).collect());
            assert_eq!(chosen, expected, "{ids:?}");
        }
        check(
            &["deny-vs-nft-only"],
            Some(&["deny-vs-nft-only-v4", "deny-vs-nft-only-v6"]),
        );
        // The longer id is not chosen with the shorter one.
        check(&["dns-added-latency-v4"], Some(&["dns-added-latency-v4"]));
        check(
            &["allow-vs-unfiltered-v6", "dns-added-latency"],
            Some(&[
                "dns-added-latency-v4",
                "dns-added-latency-v6",
                "allow-vs-unfiltered-v6",
            ]),
        );
        check(&["deny"], None);
        assert_eq!(Measure::chosen(&[]).unwrap().len(), 2 * MEASURES.len());
    }
}
