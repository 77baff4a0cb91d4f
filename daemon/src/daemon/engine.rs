//! The loop's decisions as a pure state machine: events and the time in, effects out. Never does I/O.
//!
//! Answers are committed in groups, as a database does: all that arrive while one kernel transaction
//! is in flight share the next one.

use super::drifts::Drifts;
use super::late::Late;
use super::quotas::Quotas;
use super::refusals::Refusals;
use super::seen::Seen;
use crate::dns::{Release, Token, Untaught, Waiting};
use crate::observe::Happening;
use crate::plane::RefusedPacket;
use crate::plane::drift::{Drift, Outcome as Mending};
use crate::policy::grant::{Admission, Cap, Policy};
use crate::policy::image::{Change, Image, Mode};
use crate::policy::links::{InterfacePattern, Links};
use crate::policy::name::Name;
use crate::policy::port::ClassMask;
use crate::policy::revoke::{Revocation, Target};
use crate::policy::rules::{CompileError, Intent, Refusal, Unfit};
use crate::policy::{Moment, Revision, ZoneId};
use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;

/// Seconds between checks that the planes are still in place.
const VERIFY_SECONDS: u64 = 5;

/// Milliseconds between checks at least, whatever the kernel tells of changes.
const PACE: u64 = 50;

/// Seconds until a failed replacement is tried again.
const RETRY_SECONDS: u64 = 1;

/// Seconds after which a thread that has not answered is taken for dead.
const STUCK_SECONDS: u64 = 60;

/// What the world tells the engine.
#[derive(Debug)]
pub enum Event {
    /// Answers wait for the kernel.
    Answered(Vec<Waiting>),
    /// The planes' thread finished the commit in flight.
    Committed(Outcome),
    /// The planes' thread looked whether its mechanisms are still in place: what was not, and what the
    /// planes made of it.
    Verified(Vec<Drift>),
    /// The planes' thread found this without being asked.
    Drifted(Vec<Drift>),
    /// The kernel says that something changed that planes may stand on.
    Stirred,
    /// Which of the grants that are due still carry packets, and until when that keeps them.
    InUse(Vec<(ZoneId, IpAddr, Moment)>),
    /// Live flows of enforced zones, to be judged.
    Flows(Vec<ZonedFlow>),
    /// The flows' thread has reported all flows of a sweep, or could not read them.
    Swept(Result<(), String>),
    /// The flows' thread has cut all it was told to by an [`Effect::Cut`], or could not.
    Cut(Result<(), String>),
    /// The interfaces or addresses changed.
    Links(Links),
    /// A client was told addresses that it was not granted by that.
    Untaught(Untaught),
    /// Packets that a plane refused.
    Refused(Vec<RefusedPacket>),
}

/// How a commit ended.
#[derive(Debug)]
pub enum Outcome {
    /// Everything is in force, but for the changes named.
    Applied(Vec<Change>),
    /// The image is in force.
    Replaced,
    /// The kernel's state is unknown, or stayed as it was.
    Failed(String),
}

/// A live connection and the zone its first packet came from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ZonedFlow {
    /// Its zone, or none where the packet came from an interface of no zone.
    pub zone: Option<ZoneId>,
    /// The destination its client asked for.
    pub destination: IpAddr,
    /// IANA protocol number.
    pub protocol: u8,
    /// Destination port its client asked for; 0 where the protocol has none.
    pub port: u16,
    /// Its zone's port 53 is redirected, and it is older than that: cut it whatever grants it.
    pub evades: bool,
    /// To name it by when it must be cut.
    pub key: u64,
}

/// What the engine wants done.
#[derive(Debug)]
pub enum Effect {
    /// Put this image in force, then report `Committed`.
    Replace(Arc<Image>),
    /// Apply these changes, then report `Committed`.
    Apply(Vec<Change>),
    /// Look whether the planes are in place, then report `Verified`.
    Verify,
    /// Look which of these grants still carry packets, then report `InUse`.
    CheckUse(Vec<(ZoneId, IpAddr)>),
    /// Read the live flows of enforced zones and report them as `Flows`.
    Sweep,
    /// Drop from the edge's cache what it holds of these names. Before the epoch is raised.
    Forget(Vec<Name>),
    /// Cut these flows.
    Cut(Vec<u64>),
    /// Keep over a crash that this name opened this address. Before any release.
    Learned {
        /// For whom.
        zone: ZoneId,
        /// The asked name.
        name: Name,
        /// To where.
        address: IpAddr,
    },
    /// Forget over a crash that this name opened this address.
    Unlearned {
        /// For whom.
        zone: ZoneId,
        /// The asked name.
        name: Arc<Name>,
        /// To where.
        address: IpAddr,
    },
    /// Let these answers leave, or not.
    Release(Vec<Release>),
    /// The rules the edges answer by changed.
    Publish,
    /// From now on no edge tells again what it was released before. Before anything is taken back.
    Raise(u64),
    /// Tell the operator.
    Record(Happening),
}

/// The loop's state.
#[derive(Debug)]
pub struct Engine {
    policy: Policy,
    /// The newest state that every plane holds.
    committed: Revision,
    /// Raised before anything granted is taken back, and when the planes may not hold it.
    epoch: u64,
    in_flight: Option<Revision>,
    batch: BTreeMap<(ZoneId, IpAddr), Change>,
    must_replace: bool,
    retry_at: Option<Moment>,
    resweep_at: Option<Moment>,
    /// Why live flows are not all judged and cut yet, until that was done.
    unjudged: Option<String>,
    /// Why the planes do not hold what they should, while that is so.
    fault: Option<String>,
    waiting: BTreeMap<Revision, Vec<Waiting>>,
    /// Since when the use of due grants is being looked up.
    checking_use: Option<Moment>,
    committing_since: Moment,
    sweeping: usize,
    /// Cuts that the flows' thread has not answered yet.
    cutting: usize,
    /// States of revocations: once one is in force, live flows are judged.
    sweep_after: BTreeSet<Revision>,
    verifying: bool,
    verify_at: Moment,
    verified_at: Option<Moment>,
    drifts: Drifts,
    effects: Vec<Effect>,
    cut_flows: u64,
    late: Late,
    refusals: Refusals,
    quotas: Quotas,
    seen: Seen,
}

impl Engine {
    /// An engine whose first effect puts `policy` in force.
    #[must_use]
    pub fn new(policy: Policy, now: Moment) -> Self {
        let mut engine = Self {
            policy,
            committed: Revision(0),
            epoch: 0,
            in_flight: None,
            batch: BTreeMap::new(),
            must_replace: true,
            retry_at: None,
            resweep_at: None,
            unjudged: None,
            fault: None,
            waiting: BTreeMap::new(),
            checking_use: None,
            committing_since: now,
            sweeping: 0,
            cutting: 0,
            sweep_after: BTreeSet::new(),
            verifying: false,
            verify_at: now.after_seconds(VERIFY_SECONDS),
            verified_at: None,
            drifts: Drifts::default(),
            effects: Vec::new(),
            cut_flows: 0,
            late: Late::default(),
            refusals: Refusals::default(),
            quotas: Quotas::default(),
            seen: Seen::default(),
        };
        engine.pump(now);
        engine
    }

    /// What is granted, for questions of the control socket.
    #[must_use]
    pub fn policy(&self) -> &Policy {
        &self.policy
    }

    /// The newest state that every plane holds.
    #[must_use]
    pub fn committed(&self) -> Revision {
        self.committed
    }

    /// Why the planes do not hold what they should, while that is so.
    #[must_use]
    pub fn fault(&self) -> Option<&str> {
        self.fault.as_deref()
    }

    /// How many flows were cut because nothing grants them.
    #[must_use]
    pub fn cut_flows(&self) -> u64 {
        self.cut_flows
    }

    /// Who still tries addresses whose grants have ended.
    #[must_use]
    pub fn late(&self) -> &Late {
        &self.late
    }

    /// Which names of its rules were ever asked for.
    #[must_use]
    pub fn seen(&self) -> &Seen {
        &self.seen
    }

    /// Goes on with what an earlier run saw.
    pub fn recall_seen(&mut self, seen: Seen) {
        self.seen = seen;
    }

    /// What was found changed in the planes.
    #[must_use]
    pub fn drifts(&self) -> &Drifts {
        &self.drifts
    }

    /// What is told of refused packets.
    #[must_use]
    pub fn refusals(&self) -> &Refusals {
        &self.refusals
    }

    /// Whether everything asked for is in force, and every live flow judged by it and cut if need be.
    #[must_use]
    pub fn is_settled(&self) -> bool {
        self.in_flight.is_none() && !self.must_replace && self.is_judged()
    }

    /// Whether nothing that was to be judged or cut is left.
    fn is_judged(&self) -> bool {
        self.sweeping == 0 && self.cutting == 0 && self.unjudged.is_none()
    }

    /// Why live flows that nothing grants may go on: they could not be judged or cut, which is tried again.
    #[must_use]
    pub fn unjudged(&self) -> Option<&str> {
        self.unjudged.as_deref()
    }

    /// Whether a thread of the daemon has not answered for so long that it must have died.
    #[must_use]
    pub fn is_stuck(&self, now: Moment) -> bool {
        let late = |since: Moment| since.after_seconds(STUCK_SECONDS) < now;
        (self.in_flight.is_some() && late(self.committing_since))
            || self.checking_use.is_some_and(late)
    }

    /// What is to be done now, in this order.
    pub fn take_effects(&mut self, now: Moment) -> Vec<Effect> {
        self.seen.follow(self.policy.rules(), now);
        self.pump(now);
        std::mem::take(&mut self.effects)
    }

    /// When [`Engine::tick`] is wanted.
    #[must_use]
    pub fn next_tick(&self) -> Moment {
        let deadline = if self.checking_use.is_some() {
            None
        } else {
            self.policy.next_deadline()
        };
        [deadline, self.retry_at, self.resweep_at]
            .into_iter()
            .flatten()
            .fold(self.verify_at, Moment::min)
    }

    /// Does what is due at `now`.
    pub fn tick(&mut self, now: Moment) {
        if self.retry_at.is_some_and(|at| at <= now) {
            self.retry_at = None;
            self.must_replace = true;
        }
        if self.resweep_at.is_some_and(|at| at <= now) {
            self.resweep_at = None;
            self.sweep();
        }
        if self.checking_use.is_none() && self.policy.next_deadline().is_some_and(|at| at <= now) {
            let due = self.policy.due(now);
            if !due.is_empty() {
                self.checking_use = Some(now);
                self.effects.push(Effect::CheckUse(due));
            }
        }
        if self.verify_at <= now {
            if self.verifying {
                self.verify_at = Moment(now.0.saturating_add(PACE));
                return;
            }
            self.verify_at = now.after_seconds(VERIFY_SECONDS);
            self.verified_at = Some(now);
            self.verifying = true;
            self.effects.push(Effect::Verify);
        }
    }

    /// Takes one event.
    pub fn handle(&mut self, event: Event, now: Moment) {
        match event {
            Event::Answered(batch) => {
                for waiting in batch {
                    self.answered(waiting, now);
                }
            }
            Event::Committed(outcome) => self.settled(outcome, now),
            Event::Verified(drifts) => {
                self.verifying = false;
                self.drifted(&drifts, now);
            }
            Event::Drifted(drifts) => self.drifted(&drifts, now),
            Event::Stirred => {
                let rested = self
                    .verified_at
                    .map_or(now, |at| Moment(at.0.saturating_add(PACE)));
                self.verify_at = self.verify_at.min(rested.max(now));
            }
            Event::InUse(used) => {
                // Only what was due when the question was asked: what fell due since was not asked
                // about.
                let Some(asked) = self.checking_use.take() else {
                    return;
                };
                for (zone, address, end) in used {
                    self.policy.keep(zone, address, end);
                }
                let changes = self.policy.expire_telling(asked, |zone, address, lesson| {
                    self.late.ended(zone, address, lesson.name, lesson.lease);
                });
                for change in changes.iter().filter(|change| change.now.is_empty()) {
                    let Change { zone, address, .. } = *change;
                    self.effects
                        .push(Effect::Record(Happening::Ended { zone, address }));
                }
                self.queue(changes);
            }
            Event::Flows(flows) => self.judge(&flows),
            Event::Swept(Ok(())) => {
                self.sweeping = self.sweeping.saturating_sub(1);
                self.unjudged = None;
            }
            Event::Swept(Err(what)) => {
                self.sweeping = self.sweeping.saturating_sub(1);
                self.sweep_again(format!("live flows could not be judged: {what}"), now);
            }
            Event::Cut(Ok(())) => self.cutting = self.cutting.saturating_sub(1),
            Event::Cut(Err(what)) => {
                self.cutting = self.cutting.saturating_sub(1);
                self.sweep_again(format!("live flows could not be cut: {what}"), now);
            }
            Event::Links(links) => self.follow(links),
            Event::Untaught(Untaught {
                zone,
                client,
                name,
                addresses,
            }) => {
                let lives = self.policy.rules().zone(zone).is_some();
                if lives {
                    self.refusals
                        .answered(zone, Some(client), &name, &addresses);
                }
            }
            Event::Refused(packets) => {
                self.late.refused(&packets, &self.policy, now);
                let (policy, late) = (&self.policy, &self.late);
                let told = self.refusals.refused(packets, policy, late, now);
                self.effects.extend(told.into_iter().map(Effect::Record));
            }
        }
    }

    /// Puts another intent, or other links, in the old ones' place. Returns how many grants opened
    /// wider or closed.
    ///
    /// # Errors
    /// When the intent does not compile; the running policy stays.
    pub fn replace(&mut self, intent: Arc<Intent>, links: Links) -> Result<usize, CompileError> {
        let grace = self.grace();
        let changes = self.policy.replace(intent, links)?;
        self.refusals.retain_zones(self.policy.rules());
        if self.grace() == grace {
            self.late.retain_zones(self.policy.rules());
        } else {
            // Delays after another grace say nothing of this one.
            self.late = Late::default();
        }
        self.batch.clear();
        self.must_replace = true;
        self.publish();
        Ok(changes.len())
    }

    /// Ends what was learned of `target`, in `zone` or in all; once that is in force, live flows that
    /// nothing else grants are cut. Returns how many addresses lost a reason, how many of them closed a
    /// port, and the state to wait for ([`Engine::is_done`]).
    pub fn revoke(&mut self, zone: Option<ZoneId>, target: &Target) -> (usize, usize, Revision) {
        let Revocation {
            changes,
            ended,
            addresses,
        } = self.policy.revoke(zone, target);
        let mut names: BTreeSet<Name> = ended.iter().map(|(_, name, _)| (**name).clone()).collect();
        if let Target::Name(name) = target {
            names.insert(name.clone());
        }
        for (zone, name, address) in ended {
            self.effects.push(Effect::Unlearned {
                zone,
                name,
                address,
            });
        }
        self.effects
            .push(Effect::Forget(names.into_iter().collect()));
        self.raise();
        for change in changes.iter().filter(|change| change.now.is_empty()) {
            let Change { zone, address, .. } = *change;
            self.effects
                .push(Effect::Record(Happening::Ended { zone, address }));
        }
        let (closed, revision) = (changes.len(), self.policy.revision());
        self.queue(changes);
        if closed > 0 {
            self.sweep_after.insert(revision);
        }
        (addresses, closed, revision)
    }

    /// Whether `revision` is in force, and live flows were judged and cut since.
    #[must_use]
    pub fn is_done(&self, revision: Revision) -> bool {
        self.committed >= revision
            && self.sweep_after.range(..=revision).next().is_none()
            && self.is_judged()
    }

    fn sweep_again(&mut self, why: String, now: Moment) {
        self.resweep_at = Some(now.after_seconds(RETRY_SECONDS));
        self.record_plane(format!("{why}; trying again"));
        self.unjudged = Some(why);
    }

    fn grace(&self) -> u32 {
        self.policy.rules().intent().limits.grace
    }

    /// Takes other interfaces. The planes are told only of what they enforce by.
    fn follow(&mut self, links: Links) {
        let intent = Arc::clone(self.policy.rules().intent());
        let zones = intent.zones.iter().flat_map(|zone| &zone.interfaces);
        let mut patterns: Vec<_> = zones.chain(&intent.upstream).cloned().collect();
        if self.policy.rules().local().is_some() {
            // What the gateway itself sends is judged on every other interface.
            patterns.push(InterfacePattern::Prefix(String::new()));
        }
        let bears = |links: &Links| links.bearing(&patterns);
        let same = bears(&links) == bears(self.policy.rules().links());
        let followed = if same {
            self.policy.relink(links).map(|()| self.publish())
        } else {
            self.replace(intent, links).map(drop)
        };
        if let Err(error) = followed {
            self.record_plane(format!("the changed interfaces cannot be used: {error}"));
        }
    }

    fn answered(&mut self, waiting: Waiting, now: Moment) {
        let Waiting { zone, token, .. } = waiting;
        let told = &waiting.answer;
        self.refusals
            .answered(zone, waiting.client, &told.name, &told.addresses);
        let fresh = self.policy.fresh(zone, &waiting.answer);
        let most = self.policy.rules().intent().limits.per_client;
        if fresh > 0 && !self.quotas.allows(waiting.client, fresh, most, now) {
            return self.capped(&waiting, Cap::Client, now);
        }
        match self.policy.admit(zone, &waiting.answer, now) {
            Admission::Admitted { changes, revision } => {
                self.late.granted(zone, &waiting.answer);
                if self.is_asked(&waiting) {
                    let rules = self.policy.rules();
                    self.seen.note(rules, zone, &waiting.answer.name, now);
                }
                if fresh > 0 {
                    self.quotas.charge(waiting.client, fresh);
                    self.tell_filling(zone);
                }
                for Change { address, was, .. } in changes.iter().copied() {
                    let name = &waiting.answer.name;
                    self.effects.push(Effect::Learned {
                        zone,
                        name: name.clone(),
                        address,
                    });
                    if was.is_empty() {
                        let name = name.clone();
                        let granted = Happening::Granted {
                            zone,
                            name,
                            address,
                        };
                        self.effects.push(Effect::Record(granted));
                    }
                }
                self.queue(changes);
                if revision <= self.committed && self.fault.is_none() {
                    self.effects.push(Effect::Release(vec![Release {
                        token,
                        outcome: Ok(self.epoch),
                    }]));
                } else {
                    self.waiting.entry(revision).or_default().push(waiting);
                }
            }
            Admission::Refused(why) => self.withhold(&waiting, refusal_text(why)),
            Admission::Unfit(address, why) => {
                let text = format!("{address} may not be taught: {}", unfit_text(why));
                self.withhold(&waiting, &text);
            }
            Admission::Full(cap) => self.capped(&waiting, cap, now),
        }
    }

    /// Whether a client was told it, or is to be. Of what the gateway itself asks nobody knows for whom, so a
    /// zone of its own counts all.
    fn is_asked(&self, waiting: &Waiting) -> bool {
        let rules = self.policy.rules();
        waiting.client.is_some()
            || waiting.token == Token::TOLD
            || rules.intent().observed.is_some()
            || rules.local() == Some(waiting.zone)
    }

    fn capped(&mut self, waiting: &Waiting, cap: Cap, now: Moment) {
        let Waiting { zone, client, .. } = *waiting;
        let answers = self.quotas.blame((client, zone, cap.key()), now);
        self.effects.push(Effect::Record(Happening::Capped {
            zone,
            client,
            name: waiting.answer.name.clone(),
            cap: cap.key(),
            answers,
        }));
        self.withhold(waiting, &cap.to_string());
    }

    /// Warns when the cap of `zone`, or the one for all zones, is nearly reached.
    fn tell_filling(&mut self, zone: ZoneId) {
        for zone in [None, Some(zone)] {
            let fill = self.policy.fill(zone);
            if self.quotas.alarms(zone, fill.percent()) {
                self.effects.push(Effect::Record(Happening::Filling {
                    zone,
                    cap: fill.cap.key(),
                    learned: fill.learned,
                    most: fill.most,
                }));
            }
        }
    }

    /// The edge turns it into SERVFAIL and tells the operator.
    fn withhold(&mut self, waiting: &Waiting, why: &str) {
        let release = Release {
            token: waiting.token,
            outcome: Err(why.to_owned()),
        };
        self.effects.push(Effect::Release(vec![release]));
    }

    fn queue(&mut self, changes: Vec<Change>) {
        for change in changes {
            let entry = self
                .batch
                .entry((change.zone, change.address))
                .or_insert(change);
            entry.now = change.now;
            entry.origin = change.origin;
        }
    }

    /// Sees to what was found changed in the planes.
    fn drifted(&mut self, drifts: &[Drift], now: Moment) {
        let told = self.drifts.take(drifts, now);
        self.effects.extend(told.into_iter().map(Effect::Record));
        let mut opened = false;
        for drift in drifts {
            match &drift.outcome {
                Mending::Waits(_) => {}
                // What the kernel held is what it holds again, but meanwhile flows may have begun.
                Mending::Mended => opened |= drift.found.word.may_have_opened(),
                Mending::Replace(_) => {
                    self.must_replace = true;
                    self.raise();
                    // Until the repair nothing is in force, whatever was committed.
                    self.fault = Some(format!("{}: {}", drift.plane, drift.found.what));
                }
            }
        }
        if opened && self.sweeping == 0 {
            self.sweep();
        }
    }

    /// Starts the next commit if none is in flight.
    fn pump(&mut self, now: Moment) {
        if self.in_flight.is_some() {
            return;
        }
        if self.must_replace {
            self.must_replace = false;
            self.retry_at = None;
            self.batch.clear();
            self.in_flight = Some(self.policy.revision());
            self.committing_since = now;
            self.effects
                .push(Effect::Replace(Arc::new(self.policy.image())));
        } else if self.fault.is_none() && !self.batch.is_empty() {
            let changes: Vec<Change> = std::mem::take(&mut self.batch)
                .into_values()
                .filter(|change| change.was != change.now)
                .collect();
            self.in_flight = Some(self.policy.revision());
            self.committing_since = now;
            self.effects.push(Effect::Apply(changes));
        }
    }

    fn settled(&mut self, outcome: Outcome, now: Moment) {
        let Some(revision) = self.in_flight.take() else {
            return;
        };
        match outcome {
            Outcome::Applied(refused) => {
                if !refused.is_empty() {
                    self.record_plane(format!("the kernel refused {} addresses", refused.len()));
                    // A removal that failed leaves open what is closed: only a replacement mends that.
                    self.must_replace |= refused.iter().any(|c| !c.was.without(c.now).is_empty());
                    self.raise();
                    let addresses: Vec<_> = refused.iter().map(|c| (c.zone, c.address)).collect();
                    let changes = self.policy.withdraw(&addresses);
                    self.queue(changes);
                }
                // With a fault, a plane may lack what it held before: the repair releases.
                if self.fault.is_none() {
                    self.committed = self.committed.max(revision);
                    self.release(revision);
                    let before = self.sweep_after.len();
                    self.sweep_after.retain(|wanted| *wanted > revision);
                    if self.sweep_after.len() < before {
                        self.sweep();
                    }
                }
            }
            Outcome::Replaced => {
                self.fault = None;
                self.committed = self.committed.max(revision);
                self.release(revision);
                self.sweep_after.retain(|wanted| *wanted > revision);
                self.sweep();
            }
            Outcome::Failed(why) => {
                self.raise();
                self.record_plane(why.clone());
                // After a failed step the whole image is due at once; if that fails, a little later.
                if self.fault.is_some() {
                    self.retry_at = Some(now.after_seconds(RETRY_SECONDS));
                } else {
                    self.must_replace = true;
                    // Flows are judged by the policy, so what it took back ends also while a plane
                    // cannot follow.
                    self.sweep();
                }
                self.fault = Some(why.clone());
                for waiting in std::mem::take(&mut self.waiting).into_values().flatten() {
                    self.withhold(&waiting, &why);
                }
            }
        }
    }

    /// Lets go every answer whose state is in force, if its addresses still are.
    fn release(&mut self, revision: Revision) {
        let later = self.waiting.split_off(&Revision(revision.0 + 1));
        let ready = std::mem::replace(&mut self.waiting, later);
        let mut releases = Vec::new();
        for waiting in ready.into_values().flatten() {
            let since = waiting.answer.addresses.iter().map(|address| {
                self.policy
                    .grant(waiting.zone, *address)
                    .map(|grant| grant.revision)
            });
            // `None`, an address no longer granted, makes the whole `None`.
            match since.collect::<Option<Vec<_>>>() {
                None => self.withhold(&waiting, "the kernel refused an address of this answer"),
                Some(since) => match since.into_iter().max() {
                    // Withdrawn and granted anew meanwhile: in force only with that later state.
                    Some(since) if since > revision => {
                        self.waiting.entry(since).or_default().push(waiting);
                    }
                    Some(_) | None => {
                        releases.push(Release {
                            token: waiting.token,
                            outcome: Ok(self.epoch),
                        });
                    }
                },
            }
        }
        if !releases.is_empty() {
            self.effects.push(Effect::Release(releases));
        }
    }

    fn judge(&mut self, flows: &[ZonedFlow]) {
        let rules = self.policy.rules();
        let cut: Vec<u64> = flows
            .iter()
            .filter(|flow| match flow.zone {
                None => true,
                Some(_) if flow.evades => true,
                Some(zone) => {
                    let enforced = rules
                        .zone(zone)
                        .is_none_or(|zone| zone.spec.mode == Mode::Enforce);
                    let learned = self
                        .policy
                        .grant(zone, flow.destination)
                        .map_or(ClassMask::NONE, |g| g.mask);
                    let open = learned.union(rules.network_mask(zone, flow.destination));
                    let wanted = self
                        .policy
                        .numbers()
                        .classes
                        .mask_of(flow.protocol, flow.port);
                    enforced && !open.meets(wanted)
                }
            })
            .map(|flow| flow.key)
            .collect();
        if !cut.is_empty() {
            self.cut_flows += u64::try_from(cut.len()).unwrap_or(u64::MAX);
            self.cutting += 1;
            self.effects.push(Effect::Cut(cut));
        }
    }

    fn sweep(&mut self) {
        self.sweeping += 1;
        self.effects.push(Effect::Sweep);
    }

    /// Between two epochs, so that an edge that read either of them before the rules, or between both,
    /// finds itself in another one afterwards.
    fn publish(&mut self) {
        self.raise();
        self.effects.push(Effect::Publish);
        self.raise();
    }

    fn raise(&mut self) {
        self.epoch += 1;
        self.effects.push(Effect::Raise(self.epoch));
    }

    fn record_plane(&mut self, what: String) {
        self.effects.push(Effect::Record(Happening::Plane {
            plane: "planes",
            what,
        }));
    }
}

/// Why a question is refused, as a sentence for clients and operators.
#[must_use]
pub fn refusal_text(why: Refusal) -> &'static str {
    match why {
        Refusal::Unlisted => "no endpoint set of this zone lists the name",
        Refusal::Denied => "a denied endpoint set lists the name",
        Refusal::Type => "this type of record is not allowed",
    }
}

/// Why an address is not taught, as a phrase for clients and operators.
#[must_use]
pub fn unfit_text(why: Unfit) -> String {
    match why {
        Unfit::Special(word) => format!("a special-purpose address ({word})"),
        Unfit::Own => "an address of the gateway".to_owned(),
        Unfit::Connected => "an address of a subnet connected to the gateway".to_owned(),
        Unfit::Internal => "an internal address".to_owned(),
        Unfit::Denied => "an address in a denied network".to_owned(),
    }
}
