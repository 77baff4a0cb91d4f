//! The gateway's interfaces and addresses as a value, and patterns that choose among them.

use ipnet::IpNet;
use std::collections::BTreeMap;
use std::fmt;
use std::net::IpAddr;

/// A network interface as the kernel described it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Link {
    /// Kernel name, at most 15 bytes.
    pub name: String,
    /// Administratively and operationally up.
    pub up: bool,
    /// Hardware address; empty where the device has none (tun, WireGuard).
    pub mac: Vec<u8>,
    /// Whether frames begin with an Ethernet header.
    pub ethernet: bool,
    /// The addresses on it with their prefix lengths.
    pub addresses: Vec<IpNet>,
    /// How it stands on other interfaces, or under them.
    pub stack: Stack,
}

/// How an interface stands on others, or under them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Stack {
    /// What it makes of others' frames.
    pub kind: Kind,
    /// The index of the bridge or bond it is a port of.
    pub master: Option<u32>,
}

/// What an interface makes of the frames of others.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Kind {
    /// Nothing that matters here.
    #[default]
    Plain,
    /// It forwards frames between its ports.
    Bridge,
    /// Its ports are one interface: a bond or a team.
    Bond,
    /// It takes the frames with one VLAN tag.
    Vlan(Vlan),
}

/// Which frames a VLAN device takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Vlan {
    /// The index of the interface they enter on, in the same network namespace.
    pub parent: u32,
    /// The id in their outermost tag, 0 to 4094.
    pub id: u16,
    /// The type of that tag: 0x8100 (802.1Q) or 0x88a8 (802.1ad).
    pub protocol: u16,
}

/// Every interface by its index.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Links(pub BTreeMap<u32, Link>);

impl Links {
    /// The index of the interface called `name`.
    #[must_use]
    pub fn index_of(&self, name: &str) -> Option<u32> {
        self.0
            .iter()
            .find(|(_, link)| link.name == name)
            .map(|(index, _)| *index)
    }

    /// Whether `address` is one of the gateway's own.
    #[must_use]
    pub fn is_own(&self, address: IpAddr) -> bool {
        self.own().any(|own| own == address)
    }

    /// Whether `address`, as the source of what entered by the interface with this index, is one of the
    /// gateway's own. A link-local address is one of its link's only: others may have it on theirs.
    #[must_use]
    pub fn is_own_on(&self, interface: u32, address: IpAddr) -> bool {
        let near = matches!(address, IpAddr::V6(v6) if v6.is_unicast_link_local());
        let mut there = self
            .0
            .get(&interface)
            .into_iter()
            .flat_map(|link| &link.addresses);
        if near {
            there.any(|own| own.addr() == address)
        } else {
            self.is_own(address)
        }
    }

    /// The gateway's own addresses.
    pub fn own(&self) -> impl Iterator<Item = IpAddr> {
        self.0
            .values()
            .flat_map(|link| &link.addresses)
            .map(IpNet::addr)
    }

    /// The VLAN devices with their indices.
    pub fn vlans(&self) -> impl Iterator<Item = (u32, Vlan)> {
        self.0
            .iter()
            .filter_map(|(index, link)| match link.stack.kind {
                Kind::Vlan(vlan) => Some((*index, vlan)),
                Kind::Plain | Kind::Bridge | Kind::Bond => None,
            })
    }

    /// Whether `link` is a port of a bridge.
    #[must_use]
    pub fn is_bridge_port(&self, link: &Link) -> bool {
        let master = link.stack.master.and_then(|master| self.0.get(&master));
        master.is_some_and(|master| master.stack.kind == Kind::Bridge)
    }

    /// What of these links a policy bears on: the gateway's own addresses, the interfaces that
    /// `patterns` match, VLAN devices, and where one of those interfaces is a port of a bridge
    /// whatever has a hardware address. Planes need not be told of any other change.
    #[must_use]
    pub fn bearing(&self, patterns: &[InterfacePattern]) -> Self {
        let matched = |name: &str| patterns.iter().any(|pattern| pattern.matches(name));
        let has_ports = self
            .matching(patterns)
            .any(|(_, link)| self.is_bridge_port(link));
        let kept = self.0.iter().filter_map(|(index, link)| {
            let stacked = match link.stack.kind {
                Kind::Vlan(_) => true,
                Kind::Plain | Kind::Bridge | Kind::Bond => has_ports && link.ethernet,
            };
            let bears = stacked || matched(&link.name) || !link.addresses.is_empty();
            bears.then(|| {
                let link = Link {
                    up: true,
                    ..link.clone()
                };
                (*index, link)
            })
        });
        Self(kept.collect())
    }

    /// The interfaces that one of `patterns` matches.
    pub fn matching<'a>(
        &'a self,
        patterns: &'a [InterfacePattern],
    ) -> impl Iterator<Item = (u32, &'a Link)> {
        self.0
            .iter()
            .filter(|(_, link)| patterns.iter().any(|pattern| pattern.matches(&link.name)))
            .map(|(index, link)| (*index, link))
    }
}

/// An interface name, or its beginning followed by `*`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum InterfacePattern {
    /// One name.
    Exact(String),
    /// Every name that begins so: `ppp*` is `Prefix("ppp")`.
    Prefix(String),
}

/// Why a text is no interface pattern.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "`{0}` is not an interface name: write 1 to 15 letters, digits, `.`, `-`, `_` or `@`, with a `*` at the end at most"
)]
pub struct BadInterface(pub String);

impl InterfacePattern {
    /// Reads `lan0` or `lan*`.
    ///
    /// # Errors
    /// When `text` is empty, longer than the kernel allows, or has other characters.
    pub fn parse(text: &str) -> Result<Self, BadInterface> {
        let (stem, wild) = match text.strip_suffix('*') {
            Some(stem) => (stem, true),
            None => (text, false),
        };
        let good = |c: char| c.is_ascii_alphanumeric() || ".-_@".contains(c);
        let bad = stem.len() > 15
            || !stem.chars().all(good)
            || (stem.is_empty() && !wild)
            || stem == "."
            || stem == "..";
        match (bad, wild) {
            (true, _) => Err(BadInterface(text.to_owned())),
            (false, true) => Ok(Self::Prefix(stem.to_owned())),
            (false, false) => Ok(Self::Exact(stem.to_owned())),
        }
    }

    /// Whether an interface of this `name` is meant.
    #[must_use]
    pub fn matches(&self, name: &str) -> bool {
        match self {
            Self::Exact(exact) => exact == name,
            Self::Prefix(prefix) => name.starts_with(prefix.as_str()),
        }
    }
}

impl fmt::Display for InterfacePattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Exact(name) => f.write_str(name),
            Self::Prefix(prefix) => write!(f, "{prefix}*"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_stands_on_what_bears_on_a_policy() {
        let link = |name: &str, kind, master| Link {
            name: name.to_owned(),
            up: true,
            mac: vec![2, 0, 0, 0, 0, 1],
            ethernet: true,
            addresses: Vec::new(),
            stack: Stack { kind, master },
        };
        let vlan = Kind::Vlan(Vlan {
            parent: 1,
            id: 10,
            protocol: 0x8100,
        });
        let mut links = Links(BTreeMap::from([
            (1, link("lan0", Kind::Plain, None)),
            (2, link("br0", Kind::Bridge, None)),
            (3, link("v0", vlan, None)),
            (4, link("mac0", Kind::Plain, None)),
        ]));
        let lan = [InterfacePattern::Exact("lan0".to_owned())];
        let bearing = |links: &Links| links.bearing(&lan).0.into_keys().collect::<Vec<_>>();
        assert_eq!(bearing(&links), [1, 3]);
        // A frame to any of the gateway's hardware addresses is not bridged.
        links.0.get_mut(&1).unwrap().stack.master = Some(2);
        assert_eq!(bearing(&links), [1, 2, 3, 4]);
    }

    #[test]
    fn patterns() {
        fn check(pattern: &str, name: &str, expected: Option<bool>) {
            let got = InterfacePattern::parse(pattern)
                .ok()
                .map(|p| p.matches(name));
            assert_eq!(got, expected, "{pattern} on {name}");
        }
        check("lan0", "lan0", Some(true));
        check("lan0", "lan01", Some(false));
        check("ppp*", "ppp17", Some(true));
        check("ppp*", "xppp1", Some(false));
        check("*", "anything", Some(true));
        check("", "lan0", None);
        check("a*b", "ab", None);
        check("sixteen-letters-", "x", None);
        check("..", "..", None);
    }
}
