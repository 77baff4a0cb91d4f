//! Exceptions: what an operator lets a zone reach for some hours, beside the configuration. Pure: an
//! exception is an endpoint set with an end.

use super::catalogue::EndpointSet;
use super::name::Pattern;
use super::port::{PROTOCOLS, PortSet, SCTP, Service, TCP, UDP};
use super::rules::{Ask, Refusal, Rules};
use super::special::special_purpose;
use super::{Moment, ZoneId};
use ipnet::IpNet;
use std::fmt;

/// The catalogue that exceptions stand in. With its space it is no name that a configuration may give a
/// catalogue or a zone.
pub const CATALOGUE: &str = "egressctl allow";

/// Most exceptions at a time.
pub const MOST: usize = 256;

/// Longest life, in seconds: seven days.
pub const LONGEST: u64 = 7 * 86_400;

/// Shortest life, in seconds.
pub const SHORTEST: u64 = 10;

/// Longest reason, in bytes.
pub const LONGEST_REASON: usize = 200;

/// Most port ranges of one exception.
const MOST_SERVICES: usize = 32;

/// What an exception opens.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Destination {
    /// Names, as a rule of the zone would list them: their answers teach.
    Names(Pattern),
    /// A network, as a catalogue would list it.
    Network(IpNet),
}

impl Destination {
    /// Reads a network, an address, a name or a wildcard.
    ///
    /// # Errors
    /// Says what to write instead.
    pub fn parse(text: &str) -> Result<Self, String> {
        if let Ok(net) = network(text) {
            return if net.trunc() == net {
                Ok(Self::Network(net))
            } else {
                Err(format!(
                    "`{net}` has bits set after its prefix; write `{}`",
                    net.trunc()
                ))
            };
        }
        match Pattern::parse(text) {
            Ok(pattern) => Ok(Self::Names(pattern)),
            Err(why) => Err(format!(
                "`{}` is neither a network nor a name: {why}",
                text.escape_debug()
            )),
        }
    }
}

/// An address or a network.
///
/// # Errors
/// When it is neither.
pub fn network(text: &str) -> Result<IpNet, ipnet::AddrParseError> {
    match text.parse::<std::net::IpAddr>() {
        Ok(address) => Ok(address.into()),
        Err(_) => text.parse(),
    }
}

impl fmt::Display for Destination {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Names(pattern) => pattern.fmt(f),
            Self::Network(net) => net.fmt(f),
        }
    }
}

/// Reads ports: `443`, `443/tcp`, `8000-8010/udp`, `tcp/443`, `icmp`, several with commas between. TCP
/// where only a port is given.
///
/// # Errors
/// Says what to write instead.
pub fn ports(text: &str) -> Result<PortSet, String> {
    let bad = |part: &str| {
        format!(
            "`{}` is no port; write 443, 443/tcp, 8000-8010/udp or icmp, with commas between several",
            part.escape_debug()
        )
    };
    let mut services = Vec::new();
    for part in text.split(',').map(str::trim) {
        let number = |word: &str| {
            let named = PROTOCOLS
                .iter()
                .find(|(name, _)| name.eq_ignore_ascii_case(word));
            named.map(|(_, number)| *number)
        };
        let range = |text: &str| -> Option<(u16, u16)> {
            let (first, last) = text.split_once('-').unwrap_or((text, text));
            let (first, last) = (first.parse().ok()?, last.parse().ok()?);
            (0 < first && first <= last).then_some((first, last))
        };
        let service = match part.split_once('/') {
            None => match (range(part), number(part)) {
                (Some((first, last)), _) => Some(Service {
                    protocol: TCP,
                    first,
                    last,
                }),
                (None, protocol) => protocol.map(Service::whole),
            },
            Some((a, b)) => {
                let (range, protocol) = match range(a) {
                    Some(found) => (Some(found), number(b)),
                    None => (range(b), number(a)),
                };
                range.zip(protocol).and_then(|((first, last), protocol)| {
                    [TCP, UDP, SCTP].contains(&protocol).then_some(Service {
                        protocol,
                        first,
                        last,
                    })
                })
            }
        };
        services.push(service.ok_or_else(|| bad(part))?);
        if services.len() > MOST_SERVICES {
            return Err(format!("more than {MOST_SERVICES} ports; write ranges"));
        }
    }
    Ok(PortSet::new(services))
}

/// What an operator asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Wanted {
    /// Name of the zone.
    pub zone: String,
    /// To where.
    pub destination: Destination,
    /// On which ports.
    pub ports: PortSet,
    /// For how long, in seconds.
    pub seconds: u64,
    /// Why, in the operator's words.
    pub reason: String,
}

/// One exception.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Exception {
    /// Its number; never given twice.
    pub id: u32,
    /// What was asked for; the time there is what was granted at first.
    pub wanted: Wanted,
    /// When it is over.
    pub until: Moment,
    /// Whose word it is, for people.
    pub who: String,
    /// When it was given, for people.
    pub since: String,
}

impl Exception {
    /// As an endpoint set of its zone.
    #[must_use]
    pub fn set(&self) -> EndpointSet {
        let (patterns, networks) = match &self.wanted.destination {
            Destination::Names(pattern) => (vec![pattern.clone()], Vec::new()),
            Destination::Network(net) => (Vec::new(), vec![*net]),
        };
        EndpointSet {
            id: self.id.to_string(),
            area: "exception".to_owned(),
            service: self.wanted.reason.clone(),
            patterns,
            networks,
            ports: self.wanted.ports.clone(),
            notes: self.wanted.reason.clone(),
            origin: format!("by {} at {}", self.who, self.since),
            ..EndpointSet::default()
        }
    }
}

/// Why there is no exception.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refused {
    /// There are too many.
    #[error("there are {MOST} exceptions; end some with `egressctl disallow`")]
    Most,
    /// It would last too short or too long.
    #[error(
        "an exception lasts {SHORTEST} seconds to seven days; for longer write a [[zone.rule]]"
    )]
    Time,
    /// No reason, or one that nobody could read in a log.
    #[error("give a reason of 1 to {LONGEST_REASON} bytes without control characters")]
    Reason,
    /// Wider than an exception may be.
    #[error(
        "{0} is too wide; an exception opens an IPv4 network of /16 or an IPv6 network of /32 at most"
    )]
    Wide(IpNet),
    /// A special-purpose network.
    #[error("{0} is a special-purpose network ({1}); only the configuration may open it")]
    Special(IpNet, &'static str),
    /// A `deny` set of the zone vetoes it.
    #[error(
        "a denied endpoint set of the zone lists {0}, and a denial is a veto; take it out of `deny` and reload"
    )]
    Denied(String),
}

/// All exceptions.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Exceptions {
    list: Vec<Exception>,
    /// The highest number ever given.
    last: u32,
}

impl Exceptions {
    /// Those of an earlier run. Of more than there may be, the first are taken.
    #[must_use]
    pub fn restored(mut list: Vec<Exception>, last: u32) -> Self {
        list.truncate(MOST);
        let highest = list.iter().map(|exception| exception.id).max().unwrap_or(0);
        Self {
            list,
            last: last.max(highest),
        }
    }

    /// Every one, oldest first.
    #[must_use]
    pub fn list(&self) -> &[Exception] {
        &self.list
    }

    /// The highest number ever given.
    #[must_use]
    pub fn last(&self) -> u32 {
        self.last
    }

    /// Adds one for `zone` of `rules`, by the word of `who` at `since` (both for people).
    ///
    /// # Errors
    /// Says why not; nothing changed.
    pub fn add(
        &mut self,
        rules: &Rules,
        zone: ZoneId,
        wanted: Wanted,
        (who, since): (String, String),
        now: Moment,
    ) -> Result<&Exception, Refused> {
        if self.list.len() >= MOST {
            return Err(Refused::Most);
        }
        if !(SHORTEST..=LONGEST).contains(&wanted.seconds) {
            return Err(Refused::Time);
        }
        let reason = wanted.reason.trim();
        if reason.is_empty() || reason.len() > LONGEST_REASON || reason.contains(char::is_control) {
            return Err(Refused::Reason);
        }
        sound(rules, zone, &wanted.destination)?;
        self.last = self.last.saturating_add(1);
        self.list.push(Exception {
            id: self.last,
            until: now.after_seconds(wanted.seconds),
            wanted,
            who,
            since,
        });
        Ok(self.list.last().expect("it was just added"))
    }

    /// Ends one.
    pub fn remove(&mut self, id: u32) -> Option<Exception> {
        let at = self.list.iter().position(|exception| exception.id == id)?;
        Some(self.list.remove(at))
    }

    /// Takes out those that are over at `now`.
    pub fn expire(&mut self, now: Moment) -> Vec<Exception> {
        let (over, kept) = std::mem::take(&mut self.list)
            .into_iter()
            .partition(|exception| exception.until <= now);
        self.list = kept;
        over
    }

    /// When [`Exceptions::expire`] next has something.
    #[must_use]
    pub fn next_end(&self) -> Option<Moment> {
        self.list.iter().map(|exception| exception.until).min()
    }
}

/// Whether an exception may open it at all.
fn sound(rules: &Rules, zone: ZoneId, destination: &Destination) -> Result<(), Refused> {
    match destination {
        Destination::Names(Pattern::Exact(name)) => {
            if rules.ask(zone, name) == Ask::Refuse(Refusal::Denied) {
                return Err(Refused::Denied(name.to_string()));
            }
        }
        // Which of its names a denial takes is judged name by name.
        Destination::Names(Pattern::Below(_) | Pattern::Glob(_)) => {}
        Destination::Network(net) => {
            let least = if net.addr().is_ipv4() { 16 } else { 32 };
            if net.prefix_len() < least {
                return Err(Refused::Wide(*net));
            }
            for end in [net.network(), net.broadcast()] {
                if let Some(word) = special_purpose(end) {
                    return Err(Refused::Special(*net, word));
                }
            }
            if rules.denies_network(zone, net) {
                return Err(Refused::Denied(net.to_string()));
            }
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::policy::grant::{Admission, Policy};
    use crate::policy::tests::{answer, intent, ip, links};
    use std::sync::Arc;

    const ZONE: ZoneId = ZoneId(0);

    fn wanted(destination: &str) -> Wanted {
        Wanted {
            zone: "z".to_owned(),
            destination: Destination::parse(destination).unwrap(),
            ports: ports("443").unwrap(),
            seconds: 3600,
            reason: "locked out".to_owned(),
        }
    }

    fn by() -> (String, String) {
        ("uid 0".to_owned(), "2026-11-22T21:40:03Z".to_owned())
    }

    #[test]
    fn what_ports_are() {
        fn check(text: &str, expected: Option<&str>) {
            let got = ports(text).ok().map(|set| set.to_string());
            assert_eq!(got.as_deref(), expected, "{text}");
        }
        check("443", Some("tcp/443"));
        check("443/tcp, 53/udp", Some("tcp/443, udp/53"));
        check("udp/8000-8010,icmp", Some("icmp, udp/8000-8010"));
        check("tcp", Some("tcp"));
        for bad in [
            "", "0", "443,", "9-8", "443/icmp", "https", "65536", "1/2", "tcp/udp",
        ] {
            check(bad, None);
        }
        check(&vec!["1"; 33].join(","), None);
    }

    #[test]
    fn what_may_be_an_exception() {
        fn check(change: impl FnOnce(&mut Wanted), expected: Result<(), &str>) {
            let policy = Policy::new(Arc::new(intent(&["c"], &["c/hole"])), links()).unwrap();
            let mut wanted = wanted("new.example");
            change(&mut wanted);
            let text = format!("{wanted:?}");
            let mut all = Exceptions::default();
            let got = all
                .add(policy.rules(), ZONE, wanted, by(), Moment(0))
                .map(|_| ());
            match (got, expected) {
                (Ok(()), Ok(())) => {}
                (Err(why), Err(word)) => assert!(why.to_string().contains(word), "{text}: {why}"),
                (got, _) => panic!("{text}: {got:?}"),
            }
        }
        let to = |text: &'static str| {
            move |w: &mut Wanted| w.destination = Destination::parse(text).unwrap()
        };
        check(|_| {}, Ok(()));
        check(|w| w.seconds = LONGEST, Ok(()));
        check(|w| w.seconds = LONGEST + 1, Err("seven days"));
        check(|w| w.seconds = 0, Err("seven days"));
        check(|w| w.reason = " ".to_owned(), Err("reason"));
        check(|w| w.reason = "a\nb".to_owned(), Err("reason"));
        check(|w| w.reason = "x".repeat(201), Err("reason"));
        check(to("20.1.0.0/16"), Ok(()));
        check(to("20.0.0.0/8"), Err("too wide"));
        check(to("2001:4860::/31"), Err("too wide"));
        check(to("192.168.0.0/16"), Err("private"));
        check(to("169.254.169.254"), Err("link-local"));
        check(to("bad.a.example"), Err("veto"));
        check(to("52.0.128.0/25"), Err("veto"));
    }

    #[test]
    fn there_are_not_too_many_and_numbers_are_never_given_twice() {
        let policy = Policy::new(Arc::new(intent(&["c"], &[])), links()).unwrap();
        let mut all = Exceptions::default();
        for n in 1..=MOST {
            let added = all
                .add(policy.rules(), ZONE, wanted("n.example"), by(), Moment(0))
                .unwrap();
            assert_eq!(usize::try_from(added.id).unwrap(), n);
        }
        let more = all.add(policy.rules(), ZONE, wanted("n.example"), by(), Moment(0));
        assert_eq!(more.map(|_| ()), Err(Refused::Most));
        assert_eq!(all.remove(256).map(|e| e.id), Some(256));
        assert_eq!(all.remove(256), None);
        let added = all
            .add(policy.rules(), ZONE, wanted("n.example"), by(), Moment(0))
            .unwrap();
        assert_eq!(added.id, 257);
        assert_eq!(all.next_end(), Some(Moment(3_600_000)));
        assert_eq!(all.expire(Moment(3_599_999)), []);
        assert_eq!(all.expire(Moment(3_600_000)).len(), MOST);
        assert_eq!(all.next_end(), None);
    }

    #[test]
    fn a_name_teaches_a_network_is_open_and_both_close() {
        let mut policy = Policy::new(Arc::new(intent(&["c"], &[])), links()).unwrap();
        let mut all = Exceptions::default();
        for destination in ["new.example", "20.1.0.0/16"] {
            all.add(policy.rules(), ZONE, wanted(destination), by(), Moment(0))
                .unwrap();
        }
        let mut with = intent(&["c"], &[]);
        with.exceptions = all.list().to_vec();
        policy.replace(Arc::new(with), links()).unwrap();
        let taught = policy.admit(ZONE, &answer("new.example", &["20.9.0.1"], 60), Moment(0));
        assert!(matches!(taught, Admission::Admitted { .. }), "{taught:?}");
        assert!(!policy.rules().network_mask(ZONE, ip("20.1.2.3")).is_empty());
        // Hygiene stays: an exception's network speaks for no answer.
        let bad = policy.admit(
            ZONE,
            &answer("new.example", &["192.168.0.1"], 60),
            Moment(0),
        );
        assert!(matches!(bad, Admission::Unfit(..)), "{bad:?}");

        let changes = policy
            .replace(Arc::new(intent(&["c"], &[])), links())
            .unwrap();
        assert_eq!(changes.len(), 1);
        assert!(changes[0].now.is_empty());
        assert!(policy.rules().network_mask(ZONE, ip("20.1.2.3")).is_empty());
    }
}
