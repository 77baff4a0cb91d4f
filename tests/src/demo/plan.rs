//! Everything the demo attempts, as values: per endpoint set what must pass and what must not, and
//! the ways around the gateway, which must all fail.

use super::catalogue::{Catalogue, Set, TCP, UDP};
use super::world::World;
use crate::lab::plan as lab;
use anyhow::Result;
use ipnet::IpNet;
use std::net::IpAddr;

/// A row of the final table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Group {
    /// An endpoint set's id and area, or a way around.
    pub title: String,
    /// What it is, for people.
    pub about: String,
    /// Whether it is an endpoint set of the catalogue.
    pub is_set: bool,
}

/// Things one client does one after the other.
#[derive(Clone, Debug)]
pub struct Job {
    /// Index of its group.
    pub group: usize,
    /// The question it begins with.
    pub question: Option<Question>,
    /// What follows.
    pub attempts: Vec<Attempt>,
}

/// A question to a resolver, for A and AAAA.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Question {
    /// Who is asked.
    pub resolver: IpAddr,
    /// Over TCP instead of UDP.
    pub tcp: bool,
    /// The name.
    pub name: String,
    /// Whether an answer must come.
    pub must_answer: bool,
    /// Addresses that no answer may hold.
    pub never: Vec<IpAddr>,
}

/// An attempt to reach something.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Attempt {
    /// Where to.
    pub to: Target,
    /// How.
    pub by: Means,
    /// Whether it must pass; else it must fail.
    pub must_pass: bool,
}

/// Where an attempt goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Target {
    /// The first v4 address of the job's answer.
    Answered4,
    /// The first v6 address of the job's answer.
    Answered6,
    /// This address, whatever was answered.
    Fixed(IpAddr),
}

/// How an attempt is made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Means {
    /// curl over HTTP or HTTPS, as the port has it.
    Web(u16),
    /// A datagram to an echo.
    Datagram(u16),
    /// An ICMP echo request.
    Ping,
}

/// The whole demo.
#[derive(Debug, Default)]
pub struct Plan {
    /// The rows.
    pub groups: Vec<Group>,
    /// The work, in order.
    pub jobs: Vec<Job>,
    /// What the authority must serve.
    pub world: World,
}

/// A TCP port that no catalogue set grants.
const OTHER_PORT: u16 = 8443;

impl Plan {
    /// Derives it from `catalogue`.
    ///
    /// # Errors
    /// When a set's ports are not readable.
    pub fn new(catalogue: &Catalogue) -> Result<Self> {
        let mut plan = Self::default();
        for (number, set) in catalogue.sets.iter().enumerate() {
            plan.set(catalogue, set, number)?;
        }
        let networks: Vec<IpNet> = catalogue
            .sets
            .iter()
            .flat_map(|set| set.networks.iter().copied())
            .collect();
        plan.strange_names(catalogue);
        plan.poisoned_answers(catalogue);
        plan.bare_addresses(&networks);
        plan.other_resolvers(catalogue);
        plan.other_protocols(catalogue)?;
        Ok(plan)
    }

    fn group(&mut self, title: String, about: &str, is_set: bool) -> usize {
        self.groups.push(Group {
            title,
            about: about.to_owned(),
            is_set,
        });
        self.groups.len() - 1
    }

    /// Every exact name and one invented name per wildcard: on each port of the set, over both
    /// families; then on ports that nobody grants.
    fn set(&mut self, catalogue: &Catalogue, set: &Set, number: usize) -> Result<()> {
        let title = if set.area == set.id {
            set.id.clone()
        } else {
            format!("{} ({})", set.id, set.area)
        };
        let group = self.group(title, &set.service, true);
        let services = set.services()?;
        for (at, pattern) in set.names.iter().enumerate() {
            let name = match pattern.strip_prefix('*') {
                Some(suffix) => format!("demo-{number}-{at}{suffix}"),
                None => pattern.clone(),
            };
            self.world.host(&name);
            let both = [Target::Answered4, Target::Answered6];
            let granted = services.iter().flat_map(|&(protocol, port)| {
                both.map(|to| Attempt {
                    to,
                    by: Means::of(protocol, port),
                    must_pass: true,
                })
            });
            let mut attempts: Vec<Attempt> = granted.collect();
            for (protocol, port) in [(TCP, OTHER_PORT), (TCP, 22), (UDP, 443)] {
                if !catalogue.opens(&name, protocol, port)? {
                    let by = Means::of(protocol, port);
                    attempts.extend(both.map(|to| Attempt {
                        to,
                        by,
                        must_pass: false,
                    }));
                }
            }
            let question = Some(Question {
                resolver: lab::GATEWAY[usize::from(at % 3 == 2)],
                tcp: at % 5 == 4,
                name,
                must_answer: true,
                never: Vec::new(),
            });
            self.jobs.push(Job {
                group,
                question,
                attempts,
            });
        }
        for network in &set.networks {
            let attempts = services
                .iter()
                .map(|&(protocol, port)| {
                    let to = Target::Fixed(inside(network));
                    Attempt {
                        to,
                        by: Means::of(protocol, port),
                        must_pass: true,
                    }
                })
                .collect();
            self.jobs.push(Job {
                group,
                question: None,
                attempts,
            });
        }
        Ok(())
    }

    /// Names that look like listed ones, and names that do not even try.
    fn strange_names(&mut self, catalogue: &Catalogue) {
        const UNLISTED: [&str; 8] = [
            "www.example.com",
            "files.example.org",
            "evil.example",
            "www.github.com",
            "pastebin.com",
            "dns.google",
            "microsoft.com",
            "www.microsoft.com.tracker.example",
        ];
        let group = self.group(
            "unlisted names".to_owned(),
            "asked, then tried by address",
            false,
        );
        for name in UNLISTED {
            self.refused(catalogue, group, name.to_owned());
        }
        let group = self.group("look-alike names".to_owned(), "nearly a listed name", false);
        let mut names = vec![
            "manage.microsoft.com.evil.example".to_owned(),
            "xmanage.microsoft.com".to_owned(),
            "manage-microsoft.com".to_owned(),
            "manage.microsoft.co".to_owned(),
            "manage.microsoft.comx".to_owned(),
            "manage.microsoft.com.manage.example".to_owned(),
        ];
        // The parent of a wildcard is not covered by it, nor is a name that only ends alike.
        for pattern in catalogue.sets.iter().flat_map(|set| &set.names) {
            if let Some(parent) = pattern.strip_prefix("*.") {
                names.push(parent.to_owned());
                names.push(format!("x{parent}"));
            }
        }
        names.sort_unstable();
        names.dedup();
        for name in names {
            self.refused(catalogue, group, name);
        }
    }

    fn refused(&mut self, catalogue: &Catalogue, group: usize, name: String) {
        if catalogue.lists(&name) {
            return;
        }
        let addresses = self.world.host(&name).addresses.clone();
        let attempts = one_of_each(&addresses)
            .map(|address| Attempt::fixed(address, Means::Web(443)))
            .collect();
        let resolver = lab::GATEWAY[0];
        let question = Some(Question {
            resolver,
            tcp: false,
            name,
            must_answer: false,
            never: Vec::new(),
        });
        self.jobs.push(Job {
            group,
            question,
            attempts,
        });
    }

    /// Listed names whose owner (or whoever forged the answer) points them at private addresses.
    fn poisoned_answers(&mut self, catalogue: &Catalogue) {
        let about = "the good ones pass on, the private ones neither resolve nor connect";
        let group = self.group("private addresses in answers".to_owned(), about, false);
        let private: [IpAddr; 7] = [
            IpAddr::from([192, 168, 7, 7]),
            IpAddr::from([172, 16, 9, 9]),
            IpAddr::from([100, 64, 0, 7]),
            IpAddr::from([169, 254, 169, 254]),
            IpAddr::from([198, 18, 0, 7]),
            IpAddr::from([0xfd00, 0xbad, 0, 0, 0, 0, 0, 7]),
            IpAddr::from([0x64, 0xff9b, 0, 0, 0, 0, 0xa14, 2]),
        ];
        // Not worth a connection: they never leave the client's own network.
        let local: [IpAddr; 4] = [
            lab::GATEWAY[0],
            IpAddr::from([127, 0, 0, 1]),
            IpAddr::from([0xfe80, 0, 0, 0, 0, 0, 0, 7]),
            IpAddr::from([0, 0, 0, 0, 0, 0, 0, 1]),
        ];
        let wildcard = catalogue
            .sets
            .iter()
            .flat_map(|set| &set.names)
            .find(|n| n.starts_with("*."));
        let Some(parent) = wildcard.and_then(|pattern| pattern.strip_prefix("*.")) else {
            return;
        };
        for (at, bad) in private.chunks(2).enumerate() {
            let name = format!("rebind-{at}.{parent}");
            let never: Vec<IpAddr> = bad.iter().chain(&local).copied().collect();
            self.world.rebind(&name, &never);
            let attempts = bad
                .iter()
                .map(|address| Attempt::fixed(*address, Means::Web(443)))
                .collect();
            let resolver = lab::GATEWAY[at % 2];
            let question = Some(Question {
                resolver,
                tcp: false,
                name,
                must_answer: true,
                never,
            });
            self.jobs.push(Job {
                group,
                question,
                attempts,
            });
        }
    }

    /// Addresses that no answer held: neighbours of those that one did, and of granted networks.
    fn bare_addresses(&mut self, networks: &[IpNet]) {
        let about = "never answered: neighbours of granted hosts and networks";
        let group = self.group("bare addresses".to_owned(), about, false);
        let mut addresses: Vec<IpAddr> = Vec::new();
        for number in 0..20_u8 {
            addresses.push(IpAddr::from([52, 96, number, 2]));
            addresses.push(IpAddr::from([
                0x2603,
                0x1000,
                0,
                u16::from(number),
                0,
                0,
                0,
                2,
            ]));
        }
        addresses.push(IpAddr::from([8, 8, 8, 8]));
        addresses.push(IpAddr::from([0x2606, 0x4700, 0, 0, 0, 0, 0, 0x1111]));
        addresses.extend(networks.iter().filter_map(after));
        addresses.retain(|address| !networks.iter().any(|network| network.contains(address)));
        for address in addresses {
            let attempts = [443, 80]
                .map(|port| Attempt::fixed(address, Means::Web(port)))
                .into();
            self.jobs.push(Job {
                group,
                question: None,
                attempts,
            });
        }
    }

    fn other_resolvers(&mut self, catalogue: &Catalogue) {
        let about = "DNS over UDP and TCP elsewhere, DoH, DoT and DoQ by address";
        let group = self.group("other resolvers".to_owned(), about, false);
        let listed = catalogue
            .sets
            .iter()
            .flat_map(|set| &set.names)
            .find(|n| !n.starts_with('*'));
        for resolver in lab::STRANGERS {
            for tcp in [false, true] {
                for name in listed
                    .into_iter()
                    .cloned()
                    .chain(["evil.example".to_owned()])
                {
                    let question = Question {
                        resolver,
                        tcp,
                        name,
                        must_answer: false,
                        never: vec![],
                    };
                    self.jobs.push(Job {
                        group,
                        question: Some(question),
                        attempts: Vec::new(),
                    });
                }
            }
            let means = [
                Means::Web(443),
                Means::Web(853),
                Means::Datagram(853),
                Means::Datagram(443),
            ];
            let attempts = means.map(|by| Attempt::fixed(resolver, by)).into();
            self.jobs.push(Job {
                group,
                question: None,
                attempts,
            });
        }
    }

    /// Ports and protocols that a granted address does not have.
    fn other_protocols(&mut self, catalogue: &Catalogue) -> Result<()> {
        let about = "QUIC, Teredo, peer-to-peer and ping to granted addresses";
        let group = self.group("other protocols".to_owned(), about, false);
        let exact = catalogue
            .sets
            .iter()
            .flat_map(|set| &set.names)
            .filter(|n| !n.starts_with('*'));
        for name in exact.take(4) {
            let mut attempts = Vec::new();
            for to in [Target::Answered4, Target::Answered6] {
                for (protocol, port) in [(UDP, 443), (UDP, 3544), (UDP, 123), (TCP, 7680)] {
                    if !catalogue.opens(name, protocol, port)? {
                        let by = Means::of(protocol, port);
                        attempts.push(Attempt {
                            to,
                            by,
                            must_pass: false,
                        });
                    }
                }
                attempts.push(Attempt {
                    to,
                    by: Means::Ping,
                    must_pass: false,
                });
            }
            let question = Some(Question {
                resolver: lab::GATEWAY[0],
                tcp: false,
                name: name.clone(),
                must_answer: true,
                never: Vec::new(),
            });
            self.jobs.push(Job {
                group,
                question,
                attempts,
            });
        }
        Ok(())
    }
}

impl Means {
    fn of(protocol: u8, port: u16) -> Self {
        if protocol == TCP {
            Self::Web(port)
        } else {
            Self::Datagram(port)
        }
    }

    /// What the internet's witness writes down: IANA protocol number and port.
    #[must_use]
    pub fn trace(self, to: IpAddr) -> (u8, u16) {
        match (self, to) {
            (Self::Web(port), _) => (TCP, port),
            (Self::Datagram(port), _) => (UDP, port),
            (Self::Ping, IpAddr::V4(_)) => (1, 0),
            (Self::Ping, IpAddr::V6(_)) => (58, 0),
        }
    }
}

impl Attempt {
    /// One that must fail.
    fn fixed(address: IpAddr, by: Means) -> Self {
        Self {
            to: Target::Fixed(address),
            by,
            must_pass: false,
        }
    }
}

fn one_of_each(addresses: &[IpAddr]) -> impl Iterator<Item = IpAddr> {
    let four = addresses.iter().find(|address| address.is_ipv4());
    let six = addresses.iter().find(|address| address.is_ipv6());
    four.into_iter().chain(six).copied()
}

/// An address within `network` that is not its first, where it has more than one.
fn inside(network: &IpNet) -> IpAddr {
    network.hosts().nth(1).unwrap_or(network.addr())
}

/// The address after the last one of `network`.
fn after(network: &IpNet) -> Option<IpAddr> {
    match network.broadcast() {
        IpAddr::V4(last) => Some(IpAddr::V4(u32::from(last).checked_add(1)?.into())),
        IpAddr::V6(last) => Some(IpAddr::V6(u128::from(last).checked_add(1)?.into())),
    }
}
