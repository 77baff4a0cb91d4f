//! What one client or one zone may add, and who is told of it.

use super::engine::{Effect, Engine, Event, Outcome};
use crate::dns::{Token, Waiting};
use crate::observe::Happening;
use crate::policy::rules::Limits;
use crate::policy::tests::{answer, intent, links};
use crate::policy::{Moment, ZoneId, grant::Policy};
use std::net::IpAddr;
use std::sync::Arc;

/// An engine whose kernel takes everything at once.
struct World {
    engine: Engine,
    heard: Vec<Happening>,
}

impl World {
    fn new(limits: Limits) -> Self {
        let mut intent = intent(&["c"], &[]);
        intent.limits = limits;
        let policy = Policy::new(Arc::new(intent), links()).unwrap();
        let engine = Engine::new(policy, Moment(0));
        let heard = Vec::new();
        let mut world = Self { engine, heard };
        world.settle(Moment(0));
        world
    }

    /// Whether the answer to a question of `client` leaves.
    fn teaches(&mut self, client: Option<&str>, address: &str, at: u64) -> bool {
        let answer = answer("x.a.example", &[address], 60);
        let waiting = Waiting {
            zone: ZoneId(0),
            answer,
            token: Token(1),
            client: client.map(|client| client.parse::<IpAddr>().unwrap()),
        };
        let event = Event::Answered(vec![waiting]);
        self.engine.handle(event, Moment(at));
        let outcomes = self.settle(Moment(at));
        assert_eq!(outcomes.len(), 1, "{address} at {at}");
        outcomes[0]
    }

    fn settle(&mut self, now: Moment) -> Vec<bool> {
        let mut outcomes = Vec::new();
        loop {
            let mut done = None;
            for effect in self.engine.take_effects(now) {
                match effect {
                    Effect::Replace(_) => done = Some(Outcome::Replaced),
                    Effect::Apply(_) => done = Some(Outcome::Applied(Vec::new())),
                    Effect::Release(all) => {
                        outcomes.extend(all.iter().map(|release| release.outcome.is_ok()));
                    }
                    Effect::Record(happening) => self.heard.push(happening),
                    Effect::Verify
                    | Effect::CheckUse(_)
                    | Effect::Sweep
                    | Effect::Forget(_)
                    | Effect::Unlearned { .. }
                    | Effect::Cut(_)
                    | Effect::Learned { .. }
                    | Effect::Publish
                    | Effect::Raise(_) => {}
                }
            }
            let Some(done) = done else { return outcomes };
            self.engine.handle(Event::Committed(done), now);
        }
    }

    /// The caps that were met, for whom, and how many answers each line speaks of.
    fn capped(&self) -> Vec<(Option<String>, &'static str, u64)> {
        let capped = self.heard.iter().filter_map(|happening| {
            let Happening::Capped {
                client,
                cap,
                answers,
                ..
            } = happening
            else {
                return None;
            };
            Some((client.map(|client| client.to_string()), *cap, *answers))
        });
        capped.collect()
    }
}

#[test]
fn d7_a_client_adds_so_much_a_second() {
    let mut world = World::new(Limits {
        per_client: 2,
        ..Limits::default()
    });
    let (culprit, other) = (Some("10.0.0.1"), Some("10.0.0.2"));
    assert!(world.teaches(culprit, "20.0.0.1", 0));
    assert!(world.teaches(culprit, "20.0.0.2", 10));
    assert!(!world.teaches(culprit, "20.0.0.3", 20));
    assert!(!world.teaches(culprit, "20.0.0.4", 30));
    // What is known adds nothing; others, and the gateway itself, have their own.
    assert!(world.teaches(culprit, "20.0.0.1", 40));
    assert!(world.teaches(other, "20.0.0.3", 50));
    assert!(world.teaches(culprit, "20.0.0.3", 60));
    assert!((5..50).all(|n| world.teaches(None, &format!("20.0.0.{n}"), 70)));
    assert!(world.teaches(culprit, "20.0.0.100", 1000));
    let named = |answers| (Some("10.0.0.1".to_owned()), "per_client", answers);
    assert_eq!(world.capped(), [named(1), named(0)]);
    assert!(world.teaches(culprit, "20.0.0.101", 61_000));
    assert!(world.teaches(culprit, "20.0.0.102", 61_000));
    assert!(!world.teaches(culprit, "20.0.0.103", 61_000));
    assert_eq!(world.capped().last(), Some(&named(2)));
}

#[test]
fn d7_a_cap_that_fills_is_told() {
    let mut world = World::new(Limits {
        per_zone: 10,
        ..Limits::default()
    });
    for number in 0..20 {
        let address = format!("20.0.0.{number}");
        let taught = world.teaches(Some("10.0.0.1"), &address, 0);
        assert_eq!(taught, number < 10, "{address}");
    }
    let filling = world.heard.iter().filter_map(|happening| {
        let Happening::Filling {
            zone,
            learned,
            most,
            ..
        } = happening
        else {
            return None;
        };
        Some((*zone, *learned, *most))
    });
    assert_eq!(filling.collect::<Vec<_>>(), [(Some(ZoneId(0)), 8, 10)]);
    let lines = world
        .capped()
        .into_iter()
        .filter(|(.., answers)| *answers > 0);
    assert_eq!(lines.count(), 1);
    assert_eq!(world.capped().len(), 10);
}
