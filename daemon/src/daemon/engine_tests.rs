//! The engine against a scripted kernel and a simulated clock. At every release the kernel must hold
//! what the answer says.

use super::engine::{Effect, Engine, Event, Outcome, ZonedFlow};
use crate::dns::{Token, Waiting};
use crate::plane::drift::{Drift, Found, Outcome as Mending, Word};
use crate::policy::image::{Change, Mode};
use crate::policy::links::{Link, Links, Stack};
use crate::policy::port::ClassMask;
use crate::policy::revoke::Target;
use crate::policy::tests::{answer, intent, ip, links};
use crate::policy::{Moment, ZoneId, grant::Policy};
use proptest::prelude::*;
use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;

const ZONE: ZoneId = ZoneId(0);

/// Of every answer, in seconds.
const TTL: u32 = 60;

/// A kernel that does what the test tells it, and a clock that stands still.
struct World {
    engine: Engine,
    now: Moment,
    kernel: BTreeMap<IpAddr, ClassMask>,
    job: Option<Job>,
    refuses: BTreeSet<IpAddr>,
    waiting: BTreeMap<Token, Vec<IpAddr>>,
    released: BTreeMap<Token, bool>,
    epoch: u64,
    /// What the edge may tell again: in which epoch, until when.
    cached: Vec<(u64, Moment, Vec<IpAddr>)>,
    /// When what was asked is over.
    until: BTreeMap<Token, Moment>,
    in_use: BTreeSet<IpAddr>,
    cut: Vec<u64>,
    /// Whether answers to `CheckUse` are left to the test.
    slow_check: bool,
    slow_cut: bool,
    asked: Vec<(ZoneId, IpAddr)>,
    /// Whether the kernel also refuses to remove what it refuses to add.
    clings: bool,
    sweeps: usize,
    tokens: u64,
}

enum Job {
    Replace(BTreeMap<IpAddr, ClassMask>),
    Apply(Vec<Change>),
}

impl World {
    fn new() -> Self {
        let policy = Policy::new(Arc::new(intent(&["c"], &[])), links()).unwrap();
        let mut world = Self {
            engine: Engine::new(policy, Moment(0)),
            now: Moment(0),
            kernel: BTreeMap::new(),
            job: None,
            refuses: BTreeSet::new(),
            waiting: BTreeMap::new(),
            released: BTreeMap::new(),
            epoch: 0,
            cached: Vec::new(),
            until: BTreeMap::new(),
            in_use: BTreeSet::new(),
            cut: Vec::new(),
            slow_check: false,
            slow_cut: false,
            asked: Vec::new(),
            clings: false,
            sweeps: 0,
            tokens: 0,
        };
        world.drain();
        world
    }

    /// In force and idle.
    fn ready() -> Self {
        let mut world = Self::new();
        world.finish();
        world
    }

    fn ask(&mut self, asked: &str, addresses: &[&str]) -> Token {
        self.tokens += 1;
        let token = Token(self.tokens);
        let answer = answer(asked, addresses, TTL);
        let until = self.now.after_seconds(u64::from(TTL));
        self.until.insert(token, until);
        self.waiting.insert(token, answer.addresses.clone());
        let zone = ZONE;
        self.event(Event::Answered(vec![Waiting {
            zone,
            answer,
            token,
            client: None,
        }]));
        token
    }

    fn event(&mut self, event: Event) {
        self.engine.handle(event, self.now);
        self.drain();
    }

    fn drain(&mut self) {
        for effect in self.engine.take_effects(self.now) {
            match effect {
                Effect::Replace(image) => {
                    assert!(self.job.is_none(), "two commits in flight");
                    let grants = image.grants.iter().map(|(_, a, m)| (*a, *m)).collect();
                    self.job = Some(Job::Replace(grants));
                }
                Effect::Apply(changes) => {
                    assert!(self.job.is_none(), "two commits in flight");
                    self.job = Some(Job::Apply(changes));
                }
                Effect::Release(releases) => {
                    for release in releases {
                        let addresses = self.waiting.remove(&release.token).expect("released once");
                        let ok = release.outcome.is_ok();
                        for address in addresses.iter().filter(|_| ok) {
                            assert!(
                                self.kernel.contains_key(address),
                                "{address} left too early"
                            );
                        }
                        self.released.insert(release.token, ok);
                        if let Ok(epoch) = release.outcome {
                            let until = self.until[&release.token];
                            self.cached.push((epoch, until, addresses));
                        }
                    }
                }
                Effect::CheckUse(due) if self.slow_check => self.asked = due,
                Effect::CheckUse(due) => {
                    let end = self.now.after_seconds(180);
                    let used = due.into_iter().filter(|(_, a)| self.in_use.contains(a));
                    let used = used.map(|(zone, address)| (zone, address, end)).collect();
                    self.engine.handle(Event::InUse(used), self.now);
                    self.drain();
                }
                Effect::Cut(keys) => {
                    self.cut.extend(keys);
                    if !self.slow_cut {
                        self.engine.handle(Event::Cut(Ok(())), self.now);
                    }
                }
                Effect::Sweep => {
                    self.sweeps += 1;
                    self.engine.handle(Event::Swept(Ok(())), self.now);
                }
                Effect::Raise(epoch) => {
                    assert!(epoch > self.epoch, "an epoch comes back");
                    self.epoch = epoch;
                }
                Effect::Verify
                | Effect::Publish
                | Effect::Record(_)
                | Effect::Forget(_)
                | Effect::Unlearned { .. }
                | Effect::Learned { .. } => {}
            }
        }
    }

    /// Whatever the edge may tell again is in the kernel.
    fn check_cache(&self) {
        for (epoch, until, addresses) in &self.cached {
            if *epoch == self.epoch && self.now < *until {
                for address in addresses {
                    assert!(
                        self.kernel.contains_key(address),
                        "{address} may still be told, but is closed"
                    );
                }
            }
        }
    }

    /// The kernel finishes the commit in flight.
    fn finish(&mut self) -> bool {
        let outcome = match self.job.take() {
            None => return false,
            Some(Job::Replace(grants)) => {
                self.kernel = grants;
                Outcome::Replaced
            }
            Some(Job::Apply(changes)) => {
                let (refused, done): (Vec<_>, Vec<_>) = changes.into_iter().partition(|c| {
                    self.refuses.contains(&c.address) && (self.clings || !c.now.is_empty())
                });
                for change in done {
                    if change.now.is_empty() {
                        self.kernel.remove(&change.address);
                    } else {
                        self.kernel.insert(change.address, change.now);
                    }
                }
                Outcome::Applied(refused)
            }
        };
        self.check_cache();
        self.event(Event::Committed(outcome));
        true
    }

    fn fail(&mut self) -> bool {
        let failed = self.job.take().is_some();
        if failed {
            self.event(Event::Committed(Outcome::Failed(
                "out of memory".to_owned(),
            )));
        }
        failed
    }

    fn pass(&mut self, seconds: u64) {
        let end = self.now.after_seconds(seconds);
        while self.engine.next_tick() <= end {
            self.now = self.engine.next_tick().max(self.now);
            self.engine.tick(self.now);
            self.drain();
        }
        self.now = end;
    }

    fn settle(&mut self) {
        for _ in 0..10 {
            self.pass(2);
            while self.finish() {}
        }
    }
}

#[test]
fn an_answer_waits_for_its_commit() {
    let mut world = World::ready();
    let token = world.ask("x.a.example", &["20.0.0.1"]);
    assert_eq!(world.released.get(&token), None);
    world.finish();
    assert_eq!(world.released.get(&token), Some(&true));
}

#[test]
fn the_second_asker_waits_too() {
    let mut world = World::ready();
    let first = world.ask("x.a.example", &["20.0.0.1"]);
    let second = world.ask("x.a.example", &["20.0.0.1"]);
    assert_eq!(
        (world.released.get(&first), world.released.get(&second)),
        (None, None)
    );
    world.finish();
    assert_eq!(
        (world.released[&first], world.released[&second]),
        (true, true)
    );
    let third = world.ask("x.a.example", &["20.0.0.1"]);
    assert_eq!(
        world.released.get(&third),
        Some(&true),
        "what is in force need not wait"
    );
}

#[test]
fn answers_that_arrive_meanwhile_share_the_next_commit() {
    let mut world = World::ready();
    world.ask("x.a.example", &["20.0.0.1"]);
    let later: Vec<_> = (2..50)
        .map(|n| world.ask("x.a.example", &[&format!("20.0.0.{n}")]))
        .collect();
    world.finish();
    assert!(matches!(&world.job, Some(Job::Apply(changes)) if changes.len() == 48));
    world.finish();
    assert!(later.iter().all(|token| world.released[token]));
}

#[test]
fn what_the_kernel_refuses_is_withheld_and_its_neighbours_are_not() {
    let mut world = World::ready();
    world.refuses.insert(ip("20.0.0.2"));
    world.ask("x.a.example", &["20.0.0.9"]);
    let (good, bad) = (
        world.ask("x.a.example", &["20.0.0.1"]),
        world.ask("b.example", &["20.0.0.2", "20.0.0.3"]),
    );
    world.settle();
    assert_eq!((world.released[&good], world.released[&bad]), (true, false));
    assert!(world.engine.policy().grant(ZONE, ip("20.0.0.2")).is_none());
    assert!(!world.kernel.contains_key(&ip("20.0.0.2")));
}

#[test]
fn a_failed_commit_releases_nothing_and_puts_the_whole_image_in_force_again() {
    let mut world = World::ready();
    let lost = world.ask("x.a.example", &["20.0.0.1"]);
    world.fail();
    assert_eq!(world.released.get(&lost), Some(&false));
    assert!(matches!(world.job, Some(Job::Replace(_))));
    let meanwhile = world.ask("x.a.example", &["20.0.0.1"]);
    assert_eq!(
        world.released.get(&meanwhile),
        None,
        "the kernel's state is not known"
    );
    world.fail();
    assert_eq!(world.released.get(&meanwhile), Some(&false));
    world.settle();
    assert!(
        world.kernel.contains_key(&ip("20.0.0.1")),
        "the learned address comes back"
    );
}

#[test]
fn a_grant_ends_unless_it_is_in_use() {
    let mut world = World::ready();
    world.ask("x.a.example", &["20.0.0.1", "20.0.0.2"]);
    world.finish();
    world.in_use.insert(ip("20.0.0.2"));
    world.pass(1000);
    world.finish();
    assert_eq!(
        world.kernel.keys().copied().collect::<Vec<_>>(),
        [ip("20.0.0.2")]
    );
    world.in_use.clear();
    world.pass(1000);
    world.finish();
    assert!(world.kernel.is_empty());
}

#[test]
fn what_falls_due_during_a_check_is_asked_about_first() {
    let mut world = World::ready();
    world.slow_check = true;
    world.ask("x.a.example", &["20.0.0.1"]);
    world.finish();
    world.now = Moment(1000);
    world.ask("x.a.example", &["20.0.0.2"]);
    world.finish();
    world.pass(959);
    assert_eq!(world.asked, [(ZONE, ip("20.0.0.1"))]);
    world.pass(10);
    world.event(Event::InUse(Vec::new()));
    world.finish();
    assert_eq!(
        world.kernel.keys().copied().collect::<Vec<_>>(),
        [ip("20.0.0.2")]
    );
}

#[test]
fn a_removal_that_fails_is_followed_by_a_replacement() {
    let mut world = World::ready();
    world.ask("x.a.example", &["20.0.0.1"]);
    world.finish();
    world.refuses.insert(ip("20.0.0.1"));
    world.clings = true;
    world.pass(1000);
    world.finish();
    assert!(
        matches!(world.job, Some(Job::Replace(_))),
        "the kernel still holds it"
    );
}

#[test]
fn a_plane_that_cannot_follow_does_not_keep_revoked_flows_alive() {
    let mut world = World::ready();
    let before = world.sweeps;
    world
        .engine
        .replace(Arc::new(intent(&["c/time"], &[])), links())
        .unwrap();
    world.drain();
    world.fail();
    assert_eq!(world.sweeps, before + 1);
}

#[test]
fn a_replacement_does_not_hold_up_what_it_does_not_change() {
    let mut world = World::ready();
    world.ask("x.a.example", &["20.0.0.1"]);
    world.finish();
    world
        .engine
        .replace(Arc::new(intent(&["c"], &[])), links())
        .unwrap();
    world.drain();
    let token = world.ask("x.a.example", &["20.0.0.1"]);
    assert_eq!(world.released.get(&token), Some(&true));
}

#[test]
fn only_changes_that_bear_on_the_policy_reach_the_planes() {
    fn check(change: impl Fn(&mut Links), replaced: bool) {
        let mut world = World::ready();
        let mut other = links();
        change(&mut other);
        world.event(Event::Links(other));
        assert_eq!(world.job.is_some(), replaced);
    }
    let veth = |name: &str| Link {
        name: name.to_owned(),
        up: true,
        mac: vec![2, 0, 0, 0, 0, 9],
        ethernet: true,
        stack: Stack::default(),
        addresses: Vec::new(),
    };
    check(|_| {}, false);
    check(|links| drop(links.0.insert(9, veth("veth7"))), false);
    check(|links| links.0.get_mut(&2).unwrap().up = false, false);
    check(|links| drop(links.0.insert(9, veth("lan1"))), true);
    check(|links| links.0.get_mut(&3).unwrap().addresses.clear(), true);
    check(|links| drop(links.0.remove(&2)), true);
}

#[test]
fn a_reload_takes_back_and_sweeps() {
    let mut world = World::ready();
    world.ask("x.a.example", &["20.0.0.1"]);
    world.finish();
    let before = world.sweeps;
    world
        .engine
        .replace(Arc::new(intent(&["c/time"], &[])), links())
        .unwrap();
    world.drain();
    world.finish();
    assert!(world.kernel.is_empty());
    assert_eq!(world.sweeps, before + 1);
}

#[test]
fn what_cannot_be_judged_or_cut_is_tried_again() {
    fn check(event: Event) {
        let mut world = World::ready();
        let before = world.sweeps;
        assert!(world.engine.is_settled());
        world.event(event);
        assert_eq!(world.sweeps, before, "not at once");
        assert!(
            !world.engine.is_settled(),
            "flows that nobody grants may go on"
        );
        assert!(
            world
                .engine
                .unjudged()
                .is_some_and(|why| why.contains("out of memory"))
        );
        world.now = world.now.after_seconds(1);
        world.engine.tick(world.now);
        world.drain();
        assert_eq!(world.sweeps, before + 1);
        world.settle();
        assert!(world.engine.is_settled() && world.engine.unjudged().is_none());
    }
    check(Event::Cut(Err("out of memory".to_owned())));
    check(Event::Swept(Err("out of memory".to_owned())));
}

#[test]
fn interfaces_that_bear_on_nothing_keep_nobody_waiting() {
    let mut world = World::ready();
    let mut more = links();
    let mut other = more.0.values().next().expect("a link").clone();
    (other.name, other.addresses) = ("other0".to_owned(), Vec::new());
    more.0.insert(77, other);
    world.event(Event::Links(more));
    assert!(world.engine.policy().rules().links().0.contains_key(&77));
    let nothing = Target::Network("203.0.113.9/32".parse().unwrap());
    let (.., revision) = world.engine.revoke(None, &nothing);
    assert!(world.engine.is_done(revision));
}

#[test]
fn nothing_is_done_before_flows_are_cut() {
    let mut world = World::ready();
    world.slow_cut = true;
    let stray = ZonedFlow {
        zone: None,
        destination: ip("20.0.0.9"),
        protocol: 6,
        port: 443,
        evades: false,
        key: 7,
    };
    let revision = world.engine.policy().revision();
    assert!(world.engine.is_done(revision));
    world.event(Event::Flows(vec![stray]));
    assert_eq!(world.cut, [7]);
    assert!(!world.engine.is_settled() && !world.engine.is_done(revision));
    world.event(Event::Cut(Ok(())));
    assert!(world.engine.is_settled() && world.engine.is_done(revision));
}

#[test]
fn a_sweep_cuts_what_nothing_grants() {
    fn check(mode: Mode, destination: &str, port: u16, cut: bool) {
        let mut intent = intent(&["c"], &[]);
        intent.zones[0].mode = mode;
        let mut world = World::ready();
        world.engine.replace(Arc::new(intent), links()).unwrap();
        world.drain();
        world.finish();
        world.ask("x.a.example", &["20.0.0.1"]);
        world.finish();
        let destination = ip(destination);
        let flow = ZonedFlow {
            zone: Some(ZONE),
            destination,
            protocol: 6,
            port,
            evades: false,
            key: 7,
        };
        world.event(Event::Flows(vec![flow]));
        assert_eq!(!world.cut.is_empty(), cut, "{mode:?} {destination} {port}");
        world.cut.clear();
        let evading = ZonedFlow {
            evades: true,
            ..flow
        };
        world.event(Event::Flows(vec![evading]));
        assert!(!world.cut.is_empty(), "{mode:?} {destination} {port}");
    }
    check(Mode::Enforce, "20.0.0.1", 443, false);
    check(Mode::Enforce, "20.0.0.1", 22, true);
    check(Mode::Enforce, "20.0.0.9", 443, true);
    check(Mode::Enforce, "52.0.0.1", 443, false);
    check(Mode::Audit, "20.0.0.9", 443, false);
}

#[test]
fn drift_is_repaired() {
    let mut world = World::ready();
    world.event(Event::Verified(vec![drift(
        Mending::Replace(String::new()),
    )]));
    assert!(matches!(world.job, Some(Job::Replace(_))));
    assert!(world.engine.fault().is_some());
}

fn drift(outcome: Mending) -> Drift {
    Drift {
        plane: "nft",
        found: Found::new(Word::MissingTable, "the table is gone"),
        outcome,
    }
}

#[test]
fn what_is_mended_needs_no_replacement_but_a_sweep() {
    fn check(outcome: Mending, sweeps: usize) {
        let mut world = World::ready();
        let before = world.sweeps;
        world.event(Event::Drifted(vec![drift(outcome)]));
        assert!(world.job.is_none());
        assert_eq!(world.engine.fault(), None);
        assert_eq!(world.sweeps - before, sweeps);
    }
    check(Mending::Mended, 1);
    check(Mending::Waits("no bpffs".to_owned()), 0);
}

#[test]
fn a_burst_is_one_check_and_then_they_are_paced() {
    let mut world = World::ready();
    let (mut checks, mut stirred) = (0, 0);
    for millisecond in 0..1000 {
        world.now = Moment(world.now.0 + 1);
        for _ in 0..10 {
            stirred += 1;
            world.engine.handle(Event::Stirred, world.now);
        }
        if world.engine.next_tick() <= world.now {
            world.engine.tick(world.now);
        }
        let effects = world.engine.take_effects(world.now);
        let asked = effects
            .iter()
            .filter(|e| matches!(e, Effect::Verify))
            .count();
        if asked > 0 {
            world.engine.handle(Event::Verified(Vec::new()), world.now);
        }
        checks += asked;
        assert!(checks > 0, "the first is not waited for");
        assert!(
            checks <= millisecond / 50 + 1,
            "{checks} in {millisecond} ms"
        );
    }
    assert!(checks >= 19, "{checks} for {stirred}");
    // The last one is not lost.
    world.engine.handle(Event::Stirred, world.now);
    assert!(world.engine.next_tick().0 <= world.now.0 + 50);
}

#[derive(Clone, Debug)]
enum Step {
    Ask(u8, Vec<u8>),
    Finish,
    Fail,
    Pass(u64),
    Refuse(u8),
    Reload(bool),
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        6 => (0u8..3, prop::collection::vec(0u8..8, 1..4)).prop_map(|(n, a)| Step::Ask(n, a)),
        5 => Just(Step::Finish),
        1 => Just(Step::Fail),
        2 => (0u64..1500).prop_map(Step::Pass),
        1 => (0u8..8).prop_map(Step::Refuse),
        1 => any::<bool>().prop_map(Step::Reload),
    ]
}

proptest! {
    /// Whatever fails and in whatever order: no answer leaves before the kernel holds it (asserted
    /// at each release), every answer is released once, and when all is quiet kernel and policy
    /// hold the same.
    #[test]
    fn no_answer_overtakes_the_kernel(steps in prop::collection::vec(step(), 1..80)) {
        const NAMES: [&str; 3] = ["b.example", "x.a.example", "t.a.example"];
        let mut world = World::ready();
        for step in steps {
            match step {
                Step::Ask(n, last) => {
                    let texts: Vec<String> = last.iter().map(|l| format!("20.0.0.{l}")).collect();
                    let texts: Vec<&str> = texts.iter().map(String::as_str).collect();
                    world.ask(NAMES[usize::from(n)], &texts);
                }
                Step::Finish => { world.finish(); }
                Step::Fail => { world.fail(); }
                Step::Pass(seconds) => world.pass(seconds),
                Step::Refuse(last) => {
                    let address = IpAddr::from([20, 0, 0, last]);
                    if !world.refuses.remove(&address) { world.refuses.insert(address); }
                }
                Step::Reload(all) => {
                    let allow: &[&str] = if all { &["c"] } else { &["c/time"] };
                    world.engine.replace(Arc::new(intent(allow, &[])), links()).unwrap();
                    world.drain();
                }
            }
        }
        world.settle();
        prop_assert!(world.waiting.is_empty(), "never released: {:?}", world.waiting);
        let held: BTreeMap<_, _> =
            world.engine.policy().image().grants.into_iter().map(|(_, a, m)| (a, m)).collect();
        prop_assert_eq!(&world.kernel, &held);
    }
}

#[test]
fn a_revocation_is_done_once_it_is_in_force_and_flows_were_judged() {
    let mut world = World::ready();
    world.ask("x.a.example", &["20.0.0.1"]);
    world.ask("b.example", &["20.0.0.2"]);
    world.finish();
    world.finish();
    world.settle();
    let sweeps = world.sweeps;
    // A commit is in flight: the revocation is in the next one.
    world.ask("y.a.example", &["20.0.0.3"]);
    let target = Target::Network("20.0.0.1/32".parse().unwrap());
    let epoch = world.epoch;
    let (addresses, closed, revision) = world.engine.revoke(None, &target);
    world.drain();
    assert_eq!((addresses, closed), (1, 1));
    assert!(world.epoch > epoch, "what was told is told no more");
    world.finish();
    assert!(!world.engine.is_done(revision));
    assert_eq!(
        world.sweeps, sweeps,
        "flows are judged after the commit, not before"
    );
    assert!(world.kernel.contains_key(&ip("20.0.0.1")));
    world.finish();
    assert_eq!(world.sweeps, sweeps + 1);
    assert!(world.engine.is_done(revision));
    let held: Vec<_> = world.kernel.keys().copied().collect();
    assert_eq!(held, [ip("20.0.0.2"), ip("20.0.0.3")]);

    // In a commit that fails: judged at once and once more.
    let (_, _, revision) = world
        .engine
        .revoke(None, &Target::Name("b.example".parse().unwrap()));
    world.drain();
    world.fail();
    assert!(!world.engine.is_done(revision));
    world.settle();
    assert!(world.engine.is_done(revision));
    assert!(world.sweeps >= sweeps + 3);
    let (addresses, closed, revision) = world.engine.revoke(None, &target);
    assert_eq!((addresses, closed), (0, 0));
    assert!(world.engine.is_done(revision), "nothing to wait for");
}
