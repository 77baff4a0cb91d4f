//! The flow walked backwards: why an address or a name is open to a zone, or why not and what would
//! open it.

use super::grant::Policy;
use super::name::{Name, Pattern};
use super::port::{ClassId, TCP, UDP};
use super::redirect;
use super::rules::{Ask, NetworkListing, Refusal, Row, SetId};
use super::{Moment, ZoneId};
use ipnet::IpNet;
use std::net::IpAddr;

/// What is asked about.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Subject {
    /// A destination address.
    Address(IpAddr),
    /// A name.
    Name(Name),
}

/// One zone's view of a subject.
#[derive(Clone, Debug)]
pub struct Explanation {
    /// Whose view.
    pub zone: ZoneId,
    /// Open, or the one reason why not.
    pub verdict: Verdict,
    /// Every live reason that concerns the subject (on the asked port, if one was asked).
    pub reasons: Vec<Reason>,
    /// The addresses it is about: itself, or those the name holds now.
    pub addresses: Vec<IpAddr>,
    /// What an operator or a client could do, a sentence each.
    pub remedies: Vec<String>,
}

/// Open, or why not.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// New flows pass.
    Open,
    /// Not egress: an address of the gateway, or an internal one.
    NotEgress,
    /// The asked port is 53, which the zone redirects: egressd answers instead.
    Redirected,
    /// The name is listed; no client has asked for it yet, so no address is open.
    NotAsked,
    /// Listed or learned, but not for this port.
    WrongPort,
    /// No set of the zone lists the name.
    Unlisted,
    /// A `deny` set vetoes it.
    Denied,
    /// No name that was asked gave this address, and no network holds it.
    NotLearned,
}

impl Verdict {
    /// The one word.
    #[must_use]
    pub const fn word(self) -> &'static str {
        match self {
            Self::Open => "open",
            Self::NotEgress => "not-egress",
            Self::Redirected => "redirected",
            Self::NotAsked => "not-asked",
            Self::WrongPort => "wrong-port",
            Self::Unlisted => "unlisted",
            Self::Denied => "denied",
            Self::NotLearned => "not-learned",
        }
    }
}

/// A (set, asked name or network, port class, end): why a grant exists.
#[derive(Clone, Debug)]
pub struct Reason {
    /// Which set.
    pub set: SetId,
    /// Its port class.
    pub class: ClassId,
    /// How the set came to mean this address.
    pub via: Via,
}

/// How a set came to mean an address.
#[derive(Clone, Debug)]
pub enum Via {
    /// A client asked for a listed name.
    Name {
        /// The asked name.
        asked: Name,
        /// The pattern that lists it.
        pattern: Pattern,
        /// What it gave; `None` for a name nobody asked for yet.
        learned: Option<Learned>,
    },
    /// The catalogue lists the network itself.
    Network {
        /// As the catalogue writes it.
        written: IpNet,
    },
}

/// One learned address of a name.
#[derive(Clone, Copy, Debug)]
pub struct Learned {
    /// The address.
    pub address: IpAddr,
    /// When the name first gave it.
    pub since: Moment,
    /// When the reason ends unless it is renewed or in use.
    pub end: Moment,
}

impl Policy {
    /// Why `subject` is open to `zone`, or why not. `port` is (IANA protocol, port), if one is asked.
    #[must_use]
    pub fn explain(&self, zone: ZoneId, subject: &Subject, port: Option<(u8, u16)>) -> Explanation {
        let mut explanation = match subject {
            Subject::Name(name) => self.explain_name(zone, name),
            Subject::Address(address) => self.explain_address(zone, *address),
        };
        if let Subject::Address(address) = subject
            && self.redirects(zone, *address, port)
            && explanation.verdict != Verdict::NotEgress
        {
            explanation.verdict = Verdict::Redirected;
            explanation.remedies = vec![
                "write redirect = false in the zone, if its clients may ask other resolvers"
                    .to_owned(),
            ];
        }
        if let Some((protocol, port)) = port
            && explanation.verdict == Verdict::Open
        {
            let wanted = self.numbers().classes.mask_of(protocol, port);
            let meets = |reason: &Reason| wanted.classes().any(|class| class == reason.class);
            let (fits, other): (Vec<_>, Vec<_>) = explanation.reasons.into_iter().partition(meets);
            if fits.is_empty() {
                explanation.verdict = Verdict::WrongPort;
                explanation.remedies = vec![
                    "add a [[zone.rule]] with this name or network and the port, if it is wanted"
                        .to_owned(),
                ];
                explanation.reasons = other;
            } else {
                explanation.reasons = fits;
            }
        }
        explanation
    }

    /// Whether the zone's flows to `port` of `address` go to egressd, if they are egress.
    fn redirects(&self, zone: ZoneId, address: IpAddr, port: Option<(u8, u16)>) -> bool {
        let rules = self.rules();
        let question = matches!(port, Some((UDP | TCP, redirect::PORT)));
        let listeners = rules.zone(zone).map_or(&[][..], |zone| &zone.spec.redirect);
        let answered = || redirect::target(listeners, rules.links(), None, address.is_ipv6());
        question && answered().is_some()
    }

    fn explain_name(&self, zone: ZoneId, name: &Name) -> Explanation {
        let rules = self.rules();
        let mut reasons = Vec::new();
        let mut remedies = Vec::new();
        let addresses: Vec<IpAddr> = self.addresses_of(zone, name).collect();
        for listing in rules.listings(zone, name) {
            let reason = |learned| Reason {
                set: listing.set,
                class: listing.class,
                via: Via::Name {
                    asked: name.clone(),
                    pattern: listing.pattern.clone(),
                    learned,
                },
            };
            if addresses.is_empty() {
                reasons.push(reason(None));
            }
            for &address in &addresses {
                reasons.push(reason(self.learned_by(zone, address, name)));
            }
        }
        let verdict = match rules.ask(zone, name) {
            Ask::Refuse(Refusal::Denied) => {
                for set in rules.denials(zone, name) {
                    remedies.push(format!(
                        "take `{}` out of the zone's `deny` list",
                        rules.row(set).label()
                    ));
                }
                Verdict::Denied
            }
            Ask::Refuse(Refusal::Unlisted | Refusal::Type) => {
                remedies = self.listing_elsewhere(zone, name);
                Verdict::Unlisted
            }
            Ask::Forward if addresses.is_empty() => {
                remedies.push("a client of the zone must ask egressd for the name".to_owned());
                Verdict::NotAsked
            }
            Ask::Forward => Verdict::Open,
        };
        Explanation {
            zone,
            verdict,
            reasons,
            addresses,
            remedies,
        }
    }

    fn explain_address(&self, zone: ZoneId, address: IpAddr) -> Explanation {
        let rules = self.rules();
        let mut reasons = Vec::new();
        let mut remedies = Vec::new();
        for lesson in self
            .grant(zone, address)
            .into_iter()
            .flat_map(|grant| &grant.lessons)
        {
            let learned = Learned {
                address,
                since: lesson.since,
                end: lesson.end,
            };
            for listing in rules.listings(zone, &lesson.name) {
                let via = Via::Name {
                    asked: (*lesson.name).clone(),
                    pattern: listing.pattern.clone(),
                    learned: Some(learned),
                };
                reasons.push(Reason {
                    set: listing.set,
                    class: listing.class,
                    via,
                });
            }
        }
        let holds = |listing: &&NetworkListing| listing.network.contains(&address);
        let networks = rules.zone(zone).into_iter().flat_map(|zone| &zone.networks);
        reasons.extend(networks.filter(holds).map(|listing| Reason {
            set: listing.set,
            class: listing.class,
            via: Via::Network {
                written: listing.written,
            },
        }));
        let internal = rules
            .intent()
            .internal
            .iter()
            .any(|net| net.contains(&address));
        let verdict = if rules.links().is_own(address) || internal {
            Verdict::NotEgress
        } else if reasons.is_empty() {
            let elsewhere = self
                .rules()
                .zones()
                .filter(|(other, _)| *other != zone)
                .find(|(other, _)| self.grant(*other, address).is_some());
            if let Some((_, other)) = elsewhere {
                remedies.push(format!(
                    "zone `{}` has learned it; this zone has not",
                    other.spec.name
                ));
            }
            remedies.push(
                "a client of the zone must ask egressd for a listed name that has this address, or a set with a network that holds it must be allowed"
                    .to_owned(),
            );
            Verdict::NotLearned
        } else {
            Verdict::Open
        };
        Explanation {
            zone,
            verdict,
            reasons,
            addresses: vec![address],
            remedies,
        }
    }

    fn learned_by(&self, zone: ZoneId, address: IpAddr, name: &Name) -> Option<Learned> {
        let grant = self.grant(zone, address)?;
        let lesson = grant.lessons.iter().find(|lesson| *lesson.name == *name)?;
        Some(Learned {
            address,
            since: lesson.since,
            end: lesson.end,
        })
    }

    /// What would list an unlisted name: sets the zone does not reach, wildcards it did not accept.
    fn listing_elsewhere(&self, zone: ZoneId, name: &Name) -> Vec<String> {
        let rules = self.rules();
        let mut remedies = Vec::new();
        let Some(compiled) = rules.zone(zone) else {
            return remedies;
        };
        for (set, pattern) in compiled
            .inert
            .iter()
            .filter(|(_, pattern)| pattern.matches(name))
        {
            remedies.push(format!(
                "`{}` lists `{pattern}`, under which anyone can have a name: add it to the zone's `shared` list to accept that",
                rules.row(*set).label()
            ));
        }
        for catalogue in &rules.intent().catalogues {
            for set in &catalogue.sets {
                let reached = compiled.sets.iter().any(|id| {
                    let row = rules.row(*id);
                    row.catalogue == catalogue.name && row.set == *set
                });
                if !reached && set.patterns.iter().any(|pattern| pattern.matches(name)) {
                    let label = Row {
                        catalogue: catalogue.name.clone(),
                        set: set.clone(),
                    }
                    .label();
                    remedies.push(format!("`{label}` lists it: add that to the zone's `allow` list (or widen its scope)"));
                }
            }
        }
        if remedies.is_empty() {
            remedies.push("no catalogue lists it: add a [[zone.rule]] if it is wanted".to_owned());
        }
        remedies
    }
}
