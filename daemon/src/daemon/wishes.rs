//! PURE. What was refused in the last day, each thing once: what clients wish for. Nobody's flood pushes out what
//! others were refused.

use crate::observe::Happening;
use crate::policy::impact::{Target, Times, Wish};
use crate::policy::{Moment, ZoneId};
use std::cmp::Reverse;
use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv6Addr};

/// Most wishes that are kept; about 2 MiB when full.
const MOST: usize = 4096;

/// Most of them that one client (over IPv6 one /64) was the first to have.
const PER_CLIENT: usize = 256;

/// Seconds for which a wish is kept.
const DAY: u64 = 86_400;

/// What was refused of late.
#[derive(Debug, Default)]
pub struct Wishes {
    kept: BTreeMap<Wish, Kept>,
    /// Of each client what is kept on its account, by turn.
    clients: BTreeMap<IpAddr, BTreeMap<u64, Wish>>,
    turn: u64,
    missed: u64,
}

#[derive(Clone, Copy, Debug)]
struct Kept {
    count: u64,
    last: Moment,
    client: IpAddr,
    turn: u64,
}

impl Wishes {
    /// Takes note of `happening`, where it is a refusal of a zone.
    pub fn note(&mut self, happening: &Happening, now: Moment) {
        match happening {
            Happening::QuestionRefused {
                zone: Some(zone),
                client,
                name,
                ..
            } => self.refused(
                Wish {
                    zone: *zone,
                    name: Some(name.clone()),
                    target: None,
                },
                *client,
                now,
            ),
            Happening::PacketRefused(refused) => {
                let packet = &refused.packet;
                if let Some(zone) = packet.zone {
                    let target = Target {
                        address: packet.destination,
                        protocol: packet.protocol,
                        port: packet.port,
                    };
                    let wish = Wish {
                        zone,
                        name: refused.name.clone(),
                        target: Some(target),
                    };
                    self.refused(wish, packet.source, now);
                }
            }
            Happening::QuestionRefused { zone: None, .. }
            | Happening::RecordRefused { .. }
            | Happening::Granted { .. }
            | Happening::Ended { .. }
            | Happening::Withheld { .. }
            | Happening::Capped { .. }
            | Happening::Filling { .. }
            | Happening::Flooding { .. }
            | Happening::Cut { .. }
            | Happening::Forgery { .. }
            | Happening::Upstream { .. }
            | Happening::Plane { .. }
            | Happening::Drift { .. }
            | Happening::Tampering { .. }
            | Happening::Links { .. }
            | Happening::Operator { .. }
            | Happening::Updated { .. }
            | Happening::Reloaded { .. } => {}
        }
    }

    /// Counts refusals that were not looked at, because there were too many.
    pub fn miss(&mut self, how_many: u64) {
        self.missed = self.missed.saturating_add(how_many);
    }

    /// Refusals that were not looked at since the start.
    #[must_use]
    pub fn missed(&self) -> u64 {
        self.missed
    }

    /// What was refused within a day before `now`.
    #[must_use]
    pub fn list(&self, now: Moment) -> Vec<(Wish, Times)> {
        let kept = self.kept.iter();
        let young = kept.filter(|(_, kept)| !kept.is_over(now));
        young
            .map(|(wish, kept)| {
                let times = Times {
                    count: kept.count,
                    ago: now.seconds_from(kept.last),
                };
                (wish.clone(), times)
            })
            .collect()
    }

    /// Forgets the zones that `lives` does not know: their numbers may come to mean others.
    pub fn retain_zones(&mut self, lives: impl Fn(ZoneId) -> bool) {
        let gone: Vec<Wish> = (self.kept.keys())
            .filter(|wish| !lives(wish.zone))
            .cloned()
            .collect();
        for wish in gone {
            self.forget(&wish);
        }
    }

    fn refused(&mut self, wish: Wish, client: IpAddr, now: Moment) {
        let before = self.forget(&wish).filter(|kept| !kept.is_over(now));
        // On the first one's account, or a flood could take over what others wish for and lose it.
        let client = before.map_or_else(|| owner(client), |kept| kept.client);
        let full = |of: &BTreeMap<u64, Wish>| of.len() >= PER_CLIENT;
        if self.clients.get(&client).is_some_and(full) {
            self.forget_oldest_of(client);
        } else if self.kept.len() >= MOST {
            // Whoever has most: a client of many wishes loses its own before another loses one.
            let oldest = |of: &BTreeMap<u64, Wish>| of.keys().next().copied().map(Reverse);
            let most = self
                .clients
                .iter()
                .max_by_key(|(_, of)| (of.len(), oldest(of)));
            if let Some(most) = most.map(|(client, _)| *client) {
                self.forget_oldest_of(most);
            }
        }
        self.turn += 1;
        let kept = Kept {
            count: before.map_or(0, |kept| kept.count).saturating_add(1),
            last: now,
            client,
            turn: self.turn,
        };
        let of_client = self.clients.entry(client).or_default();
        of_client.insert(self.turn, wish.clone());
        self.kept.insert(wish, kept);
    }

    fn forget_oldest_of(&mut self, client: IpAddr) {
        let of_client = self.clients.get(&client);
        let oldest = of_client.and_then(|of| of.first_key_value());
        if let Some(wish) = oldest.map(|(_, wish)| wish.clone()) {
            self.forget(&wish);
        }
    }

    fn forget(&mut self, wish: &Wish) -> Option<Kept> {
        let kept = self.kept.remove(wish)?;
        if let Some(of_client) = self.clients.get_mut(&kept.client) {
            of_client.remove(&kept.turn);
            if of_client.is_empty() {
                self.clients.remove(&kept.client);
            }
        }
        Some(kept)
    }
}

impl Kept {
    fn is_over(&self, now: Moment) -> bool {
        self.last.after_seconds(DAY) <= now
    }
}

/// Whose wishes are one client's: over IPv6 a host changes its address as it likes.
fn owner(address: IpAddr) -> IpAddr {
    match address {
        IpAddr::V4(_) => address,
        IpAddr::V6(v6) => Ipv6Addr::from_bits(v6.to_bits() & u128::MAX << 64).into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::policy::rules::Refusal;
    use crate::policy::tests::{ip, name};

    const ZONE: ZoneId = ZoneId(0);

    fn asked(client: &str, asked: &str) -> Happening {
        Happening::QuestionRefused {
            zone: Some(ZONE),
            client: ip(client),
            name: name(asked),
            why: Refusal::Unlisted,
            audited: false,
        }
    }

    fn names(wishes: &Wishes, now: Moment) -> Vec<(String, Times)> {
        let list = wishes.list(now).into_iter();
        list.map(|(wish, times)| (wish.name.unwrap().to_string(), times))
            .collect()
    }

    #[test]
    fn each_wish_is_kept_once_and_for_a_day() {
        let mut wishes = Wishes::default();
        wishes.note(&asked("10.0.0.1", "a.example"), Moment(0));
        wishes.note(&asked("10.0.0.2", "A.example"), Moment(5000));
        wishes.note(&asked("10.0.0.2", "b.example"), Moment(6000));
        let times = |count, ago| Times { count, ago };
        let both = [
            ("a.example".to_owned(), times(2, 5)),
            ("b.example".to_owned(), times(1, 4)),
        ];
        assert_eq!(names(&wishes, Moment(10_000)), both);
        let day = Moment(5000).after_seconds(DAY);
        assert_eq!(
            names(&wishes, day),
            [("b.example".to_owned(), times(1, DAY - 1))]
        );
        // What comes again after its day begins anew.
        wishes.note(&asked("10.0.0.1", "a.example"), day);
        assert_eq!(names(&wishes, day)[0].1, times(1, 0));
        wishes.retain_zones(|zone| zone != ZONE);
        assert_eq!(wishes.list(day), []);
        assert!(wishes.clients.is_empty());
    }

    #[test]
    fn a_flood_costs_the_others_nothing() {
        fn check(flooders: usize, each: usize, kept: usize) {
            let mut wishes = Wishes::default();
            wishes.note(&asked("10.9.9.9", "wanted.example"), Moment(0));
            // Who asks for it too does not get to lose it.
            wishes.note(&asked("2001:db8::1", "wanted.example"), Moment(0));
            for number in 0..each {
                for flooder in 0..flooders {
                    let client = format!("2001:db8:0:{flooder:x}::{number:x}");
                    let name = format!("r{number}.c{flooder}.example");
                    wishes.note(&asked(&client, &name), Moment(1));
                }
            }
            let list = wishes.list(Moment(2));
            assert_eq!(list.len(), kept + 1, "{flooders} {each}");
            let wanted = |(wish, _): &(Wish, Times)| wish.name == Some(name("wanted.example"));
            assert!(list.iter().any(wanted), "{flooders} {each}");
            assert_eq!(
                wishes.clients.values().map(BTreeMap::len).sum::<usize>(),
                list.len()
            );
        }
        check(1, 100, 100);
        check(1, 1000, PER_CLIENT);
        check(10, 1000, 10 * PER_CLIENT);
        check(40, 300, MOST - 1);
    }

    #[test]
    fn what_is_of_no_zone_is_not_kept() {
        let mut wishes = Wishes::default();
        let nowhere = Happening::QuestionRefused {
            zone: None,
            client: ip("10.0.0.1"),
            name: name("a.example"),
            why: Refusal::Unlisted,
            audited: false,
        };
        wishes.note(&nowhere, Moment(0));
        let other = Happening::Links {
            what: String::new(),
        };
        wishes.note(&other, Moment(0));
        assert_eq!(wishes.list(Moment(0)), []);
        wishes.miss(3);
        assert_eq!(wishes.missed(), 3);
    }
}
