//! Where questions go that a zone's clients send to other resolvers, when the zone's port 53 is
//! redirected: which listener answers, and which live flows evade it. Pure.

use super::links::{Link, Links};
use super::port::{TCP, UDP};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

/// The port of DNS over UDP and TCP (RFC 1035 §4.2).
pub const PORT: u16 = 53;

/// Who answers redirected questions of one address family.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Target {
    /// The listener on this address.
    Listener(SocketAddr),
    /// The listener on every address: it is asked at the address of the interface that the question
    /// entered, on this port.
    Here(u16),
}

/// What a redirect has to do with a live flow.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fate {
    /// Nothing: another port, or a family that nobody answers in.
    Untouched,
    /// A listener answers it.
    Answered,
    /// Somebody else does: it is older than the redirect.
    Evades,
}

/// Whether a listener can answer redirected questions. Loopback addresses get no packets from
/// outside, and link-local ones exist once per link.
#[must_use]
pub fn can_answer(listener: SocketAddr) -> bool {
    let linked = match listener.ip() {
        IpAddr::V4(address) => address.is_link_local(),
        IpAddr::V6(address) => address.is_unicast_link_local(),
    };
    !linked && !listener.ip().is_loopback() && !listener.ip().is_multicast()
}

/// Who answers questions that entered on `entered` (`None`: any interface), over IPv6 or IPv4: a
/// listener on that interface's own address, else the listener on every address, else the first that
/// is there at all. `None` when nobody listens in this family: its questions are not redirected.
#[must_use]
pub fn target(
    listeners: &[SocketAddr],
    links: &Links,
    entered: Option<&Link>,
    v6: bool,
) -> Option<Target> {
    let usable = || {
        let family = listeners.iter().filter(move |at| at.is_ipv6() == v6);
        family.copied().filter(|at| can_answer(*at))
    };
    let there = entered.and_then(|link| {
        usable().find(|at| link.addresses.iter().any(|net| net.addr() == at.ip()))
    });
    let anywhere = || usable().find(|at| at.ip().is_unspecified());
    let other = || usable().find(|at| links.is_own(at.ip()));
    there
        .map(Target::Listener)
        .or_else(|| anywhere().map(|at| Target::Here(at.port())))
        .or_else(|| other().map(Target::Listener))
}

/// What the redirect to `listeners` has to do with a live flow of its zone that leaves the internal
/// networks: `protocol` and `asked` are what its first packet carried, `answering` is who answers it.
#[must_use]
pub fn fate(
    listeners: &[SocketAddr],
    links: &Links,
    protocol: u8,
    asked: SocketAddr,
    answering: SocketAddr,
) -> Fate {
    let question = matches!(protocol, UDP | TCP) && asked.port() == PORT;
    if !question || target(listeners, links, None, asked.is_ipv6()).is_none() {
        return Fate::Untouched;
    }
    let every: [IpAddr; 2] = [Ipv4Addr::UNSPECIFIED.into(), Ipv6Addr::UNSPECIFIED.into()];
    let listens = |address| listeners.contains(&SocketAddr::new(address, answering.port()));
    let everywhere = every[usize::from(answering.is_ipv6())];
    if links.is_own(answering.ip()) && (listens(answering.ip()) || listens(everywhere)) {
        Fate::Answered
    } else {
        Fate::Evades
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::policy::links::Stack;
    use std::collections::BTreeMap;

    fn links() -> Links {
        let link = |name: &str, addresses: &[&str]| Link {
            name: name.to_owned(),
            up: true,
            mac: Vec::new(),
            ethernet: true,
            stack: Stack::default(),
            addresses: addresses.iter().map(|a| a.parse().unwrap()).collect(),
        };
        Links(BTreeMap::from([
            (1, link("lo", &["127.0.0.1/8"])),
            (2, link("lan0", &["10.1.0.1/24", "2001:db8:1::1/64"])),
            (3, link("lan1", &["10.2.0.1/24"])),
        ]))
    }

    fn listeners(texts: &[&str]) -> Vec<SocketAddr> {
        texts.iter().map(|text| text.parse().unwrap()).collect()
    }

    #[test]
    fn the_listener_of_the_interface_answers_if_there_is_one() {
        fn check(texts: &[&str], entered: &str, v6: bool, expected: Option<&str>) {
            let links = links();
            let link = links.0.values().find(|link| link.name == entered);
            let found = target(&listeners(texts), &links, link, v6).map(|target| match target {
                Target::Listener(at) => at.to_string(),
                Target::Here(port) => format!("here:{port}"),
            });
            assert_eq!(found.as_deref(), expected, "{texts:?} {entered} {v6}");
        }
        let both = ["10.1.0.1:53", "10.2.0.1:5353", "[2001:db8:1::1]:53"];
        check(&both, "lan0", false, Some("10.1.0.1:53"));
        check(&both, "lan1", false, Some("10.2.0.1:5353"));
        check(&both, "ppp0", false, Some("10.1.0.1:53"));
        check(&both, "lan0", true, Some("[2001:db8:1::1]:53"));
        check(&both, "lan1", true, Some("[2001:db8:1::1]:53"));
        check(&both[..2], "lan0", true, None);
        check(&["0.0.0.0:53"], "lan1", false, Some("here:53"));
        check(&["0.0.0.0:53"], "lan1", true, None);
        check(
            &["0.0.0.0:53", "10.1.0.1:54"],
            "lan0",
            false,
            Some("10.1.0.1:54"),
        );
        check(&["127.0.0.1:53", "[::1]:53"], "lan0", false, None);
        check(&["[fe80::1]:53"], "lan0", true, None);
        // An address that the gateway does not have (now).
        check(&["10.9.0.1:53"], "lan0", false, None);
        check(
            &["10.9.0.1:53", "10.2.0.1:53"],
            "lan0",
            false,
            Some("10.2.0.1:53"),
        );
    }

    #[test]
    fn flows() {
        fn check(listen: &[&str], protocol: u8, asked: &str, answering: &str, expected: Fate) {
            let [asked, answering] = [asked, answering].map(|text| text.parse().unwrap());
            let found = fate(&listeners(listen), &links(), protocol, asked, answering);
            assert_eq!(found, expected, "{listen:?} {asked} {answering}");
        }
        let one = ["10.1.0.1:53"];
        check(&one, UDP, "9.9.9.9:53", "10.1.0.1:53", Fate::Answered);
        check(&one, TCP, "9.9.9.9:53", "10.1.0.1:53", Fate::Answered);
        check(&one, UDP, "9.9.9.9:53", "9.9.9.9:53", Fate::Evades);
        check(&one, TCP, "9.9.9.9:53", "9.9.9.9:53", Fate::Evades);
        // Of an earlier configuration: nobody listens there any more.
        check(&one, UDP, "9.9.9.9:53", "10.2.0.1:53", Fate::Evades);
        check(&one, UDP, "9.9.9.9:53", "10.1.0.1:54", Fate::Evades);
        check(&one, UDP, "9.9.9.9:853", "9.9.9.9:853", Fate::Untouched);
        check(&one, 132, "9.9.9.9:53", "9.9.9.9:53", Fate::Untouched);
        let asked = "[2620:fe::fe]:53";
        check(&one, UDP, asked, asked, Fate::Untouched);
        check(&["[::]:53"], UDP, asked, asked, Fate::Evades);
        check(
            &["[::]:53"],
            UDP,
            asked,
            "[2001:db8:1::1]:53",
            Fate::Answered,
        );
        check(&[], UDP, "9.9.9.9:53", "9.9.9.9:53", Fate::Untouched);
    }
}
