//! Every question from the client's datagram to its reply. No task and no lock per question: the
//! sockets' tasks call in, one at a time. Who asks what the cache holds is answered at once.

mod again;
mod proving;
mod told;
mod unasked;

pub(super) use told::untaught_addresses;

use super::cache::{Cache, Key, variant};
use super::chance::Chance;
use super::clients::{Client, Clients};
use super::course::{Course, Refused, audits, decide};
use super::deadlines::Deadlines;
use super::lookups::{Lookups, Patience, Subject};
use super::message::{self, Asked, Extended, Question, Unread, rcode};
use super::own::{Outcome, Own};
use super::shares::{self, Shares};
use super::stats::Counters;
use super::taught::{Taught, teach};
use super::upstream::{Line, Pool};
use super::view::View;
use super::waiter::{Held, Origin, Purpose, Waiter};
use super::{Clock, Parts, Release, Token, Waiting};
use crate::config::Hints;
use crate::observe::{Flood, Happening, record};
use crate::policy::ZoneId;
use crate::policy::answer::wire::kind;
use crate::policy::answer::{Answer, Ech, Malformed, Reading, Shape};
use crate::policy::name::Name;
use crate::policy::rules::{Refusal, Rules};
use proving::Proving;
use std::collections::BTreeMap;
use std::net::IpAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;
use tokio::sync::Notify;
use told::tell_daemon;

/// Most questions of clients open at once.
const MOST_OPEN: usize = 16_384;

/// Most of them from one client, and from all of one IPv6 /64.
const MOST_PER_CLIENT: usize = 4096;
const MOST_PER_NETWORK: usize = 8192;

/// Most answers that go to the loop together.
const MOST_POSTED: usize = 256;

/// TTL of an answer that is told beyond its end, in seconds (RFC 8767 §4).
const STALE_TTL: u32 = 30;

/// Edges opened so far. A reload opens another, and the loop's word on an answer of the old one must
/// not release one of the new: their tokens never meet.
static EDGES: AtomicU64 = AtomicU64::new(0);

pub(super) struct Engine {
    parts: Parts,
    clock: Clock,
    pub(super) clients: Clients,
    pub(super) lookups: Lookups<Waiter>,
    cache: Cache,
    proving: Proving,
    own: Own,
    /// The rules that `own` follows, and when to look again.
    followed: Option<Arc<Rules>>,
    follow_at: u64,
    held: BTreeMap<Token, Box<Held>>,
    next_token: u64,
    open: usize,
    shares: Shares,
    deadlines: Deadlines,
    /// Answers on their way to the loop.
    outbox: Vec<Waiting>,
    posted: Rc<Notify>,
    alarm: Rc<Notify>,
    /// The message being written; kept for its allocation.
    out: Vec<u8>,
}

pub(super) fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX / 4)
}

impl Engine {
    pub(super) fn new(parts: Parts, clock: Clock) -> Self {
        let settings = &parts.settings;
        let patience = Patience {
            timeout: millis(settings.timeout),
            race: millis(settings.race),
        };
        let pool = Pool::new(
            &settings.groups(),
            &settings.authorities,
            Arc::clone(&parts.health),
            patience.timeout,
        )
        .marked(settings.marked);
        let mut chance = Chance::new();
        let clients = Clients::new(&settings.clients, [chance.secret(), chance.secret()]);
        let alarm = Rc::new(Notify::new());
        let counters = Arc::clone(&parts.counters);
        let lookups = Lookups::new(pool, patience, settings.dns64, counters, Rc::clone(&alarm));
        Self {
            cache: Cache::new(settings.cache, millis(settings.stale)),
            parts,
            clock,
            clients,
            lookups,
            proving: Proving::default(),
            own: Own::default(),
            followed: None,
            follow_at: 0,
            held: BTreeMap::new(),
            next_token: EDGES.fetch_add(1, Ordering::Relaxed) << 40,
            open: 0,
            shares: Shares::default(),
            deadlines: Deadlines::new(Rc::clone(&alarm)),
            outbox: Vec::new(),
            posted: Rc::new(Notify::new()),
            alarm,
            out: Vec::with_capacity(4096),
        }
    }

    pub(super) fn clock(&self) -> Clock {
        self.clock
    }

    pub(super) fn alarm(&self) -> Rc<Notify> {
        Rc::clone(&self.alarm)
    }

    fn counters(&self) -> &Counters {
        &self.parts.counters
    }

    fn epoch(&self) -> u64 {
        self.parts.epoch.load(Ordering::Acquire)
    }

    /// A message from a client.
    pub(super) fn question(&mut self, client: Client, bytes: &[u8]) {
        self.counters().questions.add(1);
        let asked = match Asked::read(bytes) {
            Ok(asked) => asked,
            Err(why) => return self.unread(&client, bytes, why),
        };
        // Before the rules: the epoch is raised before and after they change, so what is decided by
        // other rules never bears the number of this epoch.
        let epoch = self.epoch();
        let rules = self.parts.rules.load();
        let zone = client.zone(&rules);
        let key = Key::new(zone, &asked);
        if self.tell_again(&client, &asked, zone, &key, &rules) {
            return;
        }
        let question = match asked.keep() {
            Ok(question) => question,
            Err(why) => return self.unread(&client, bytes, why),
        };
        let course = decide(&rules, &self.parts.settings, zone, &question);
        match course {
            Course::Refuse(refused) => return self.refuse(&client, &question, zone, refused),
            Course::Audit(why) => self.tell(&client, &question, zone, why, true),
            Course::Teach(_) | Course::Pass => {}
        }
        let Some(purpose) = Purpose::of(course) else {
            return;
        };
        if !self.enter(&client) {
            self.shed(client.address(), Flood::Open, self.clock.now());
            let why = Extended::other("too many questions are open");
            return self.servfail(&client, &asked, why);
        }
        let origin = Origin::Client(client);
        let key = key.keep();
        self.seek(Waiter {
            origin,
            question,
            key,
            purpose,
            epoch,
        });
    }

    fn unread(&mut self, client: &Client, bytes: &[u8], why: Unread) {
        self.counters().malformed.add(1);
        match why {
            Unread::Silent => self.clients.close(client),
            Unread::Code(code) => {
                message::fault(bytes, code, &mut self.out);
                self.clients.send(client, &self.out);
            }
        }
    }

    /// Lets the grants of an answer last as if it had been given now.
    fn renew(&mut self, zone: ZoneId, answer: Answer, token: Token) {
        self.submit(Waiting {
            zone,
            answer,
            token,
            client: None,
        });
    }

    /// Puts an answer with those that go to the loop together, once the sockets that have something
    /// now have been read.
    fn submit(&mut self, waiting: Waiting) {
        self.outbox.push(waiting);
        match self.outbox.len() {
            1 => self.posted.notify_one(),
            MOST_POSTED.. => self.post(),
            _ => {}
        }
    }

    /// Sends the loop what waits for it.
    pub(super) fn post(&mut self) {
        if self.outbox.is_empty() {
            return;
        }
        let batch = std::mem::take(&mut self.outbox);
        let tokens: Vec<_> = batch.iter().map(|waiting| waiting.token).collect();
        if (self.parts.submit)(batch).is_err() {
            // Nobody waits for a renewal: the lease is not over, and the next one comes.
            for token in tokens {
                self.withhold(token, "the gateway is busy");
            }
        }
    }

    /// Rung when [`Engine::post`] has something.
    pub(super) fn posted(&self) -> Rc<Notify> {
        Rc::clone(&self.posted)
    }

    fn refuse(
        &mut self,
        client: &Client,
        question: &Question,
        zone: Option<ZoneId>,
        refused: Refused,
    ) {
        let asked = question.asked();
        let limit = client.limit(&asked);
        asked.bare(refused.code, Some(refused.extended), limit, &mut self.out);
        self.clients.send(client, &self.out);
        self.tell(client, question, zone, refused.why, false);
    }

    fn tell(
        &self,
        client: &Client,
        question: &Question,
        zone: Option<ZoneId>,
        why: Refusal,
        audited: bool,
    ) {
        self.counters().refused.add(1);
        record(Happening::QuestionRefused {
            zone,
            client: client.address(),
            name: question.name.clone(),
            why,
            audited,
        });
    }

    /// Takes up one of the places for open questions. A client may take half of those that are free at
    /// most, so that however many take all they can get, some are left.
    fn enter(&mut self, client: &Client) -> bool {
        let free = MOST_OPEN.saturating_sub(self.open);
        let most = MOST_PER_CLIENT.min(free.div_ceil(2));
        let of_network = MOST_PER_NETWORK.min(free);
        if !self.shares.take(client.address(), most, of_network) {
            return false;
        }
        self.open += 1;
        self.counters().open.set(self.open as u64);
        true
    }

    fn leave(&mut self, client: &Client) {
        self.open -= 1;
        self.counters().open.set(self.open as u64);
        self.shares.give_back(client.address());
    }

    /// Counts a question that is not answered because its client asks too many.
    pub(super) fn shed(&mut self, client: IpAddr, what: Flood, now: u64) {
        self.counters().shed.add(1);
        self.clients.blame(client, what, now);
    }

    /// Takes what an upstream said not long ago, or asks.
    fn seek(&mut self, waiter: Waiter) {
        let now = self.clock.now();
        match self.cache.fresh(&waiter.key, now) {
            Some(said) => {
                let (message, born) = (said.message.to_vec(), said.born);
                self.conclude(vec![waiter], &message, born, false);
            }
            None => self.look_up(waiter),
        }
    }

    fn look_up(&mut self, waiter: Waiter) {
        let Some(waiter) = self.join(waiter) else {
            return;
        };
        let now = self.clock.now();
        let asked = waiter.question.asked();
        let variant = self.variant(&waiter.question.name, variant(&asked));
        let kind = asked.kind;
        let (group, _) = self.parts.settings.route(&waiter.question.name);
        let mut wire = asked.wire.to_vec();
        let key = waiter.key.clone();
        self.lookups.begin(key.question(), waiter, now, || {
            let name = wire.len() - 4;
            wire[..name].make_ascii_lowercase();
            let subject = Subject {
                kind,
                variant,
                group,
            };
            (subject, wire)
        });
        self.take_finished();
    }

    /// A message from an upstream.
    pub(super) fn reply(&mut self, line: Line, bytes: &[u8]) {
        self.lookups.reply(line, bytes, self.clock.now());
        self.take_finished();
    }

    /// A line to an upstream failed.
    pub(super) fn broken(&mut self, line: Line) {
        self.lookups.broken(line, self.clock.now());
        self.take_finished();
    }

    /// A line to an upstream ended, by nobody's fault.
    pub(super) fn ended(&mut self, line: Line) {
        self.lookups.ended(line, self.clock.now());
        self.take_finished();
    }

    fn take_finished(&mut self) {
        let now = self.clock.now();
        for finished in self.lookups.finished() {
            let Some(finished) = self.prove(finished, now) else {
                continue;
            };
            match finished.outcome {
                Ok(message) => {
                    if let Some(lifetime) = self.conclude(finished.waiters, &message, now, false) {
                        self.cache.keep(finished.key, message, lifetime, now);
                    }
                }
                Err(why) => self.give_up(finished.waiters, why, now),
            }
        }
    }

    /// Makes an upstream's message the answer of all who wait for it; gives how long it may be
    /// kept, in seconds.
    fn conclude(
        &mut self,
        mut waiters: Vec<Waiter>,
        message: &[u8],
        born: u64,
        stale: bool,
    ) -> Option<u32> {
        // Before the rules, as everywhere.
        let current = self.epoch();
        let rules = self.parts.rules.load_full();
        let mut lifetime = None;
        while let Some(first) = waiters.first() {
            let (key, purpose) = (first.key.clone(), first.purpose);
            let like = |waiter: &mut Waiter| waiter.key == key && waiter.purpose == purpose;
            let mut group: Vec<_> = if waiters.len() == 1 {
                std::mem::take(&mut waiters)
            } else {
                waiters.extract_if(.., like).collect()
            };
            // What was decided in another epoch is told once, and not again.
            let one = group.iter().all(|waiter| waiter.epoch == current);
            let epoch = one.then_some(current);
            let question = &group[0].question;
            match self.view(&rules, purpose, question, message) {
                Err(_) => {
                    let why = Extended::other("the upstream's reply is malformed");
                    self.fail(group, why);
                }
                Ok((mut view, mut answer)) => {
                    lifetime = lifetime.max(Some(view.lifetime()));
                    self.tell_untaught(&rules, &group, message);
                    if stale {
                        let ttl = STALE_TTL.min(rules.intent().limits.ttl_ceiling);
                        view.make_stale(ttl);
                        answer = answer.map(|answer| Answer { ttl, ..answer });
                    }
                    match (purpose.zone(), answer) {
                        (Some(zone), Some(answer)) => {
                            self.hold(zone, group, view, answer, (born, epoch));
                        }
                        (_, _) => {
                            tell_daemon(&mut group, || untaught_addresses(message));
                            self.respond(group, &view, born);
                            if let Some(epoch) = epoch.filter(|_| purpose != Purpose::Audit) {
                                self.make_ready(&key, view, None, (born, epoch), true);
                            }
                        }
                    }
                }
            }
        }
        lifetime
    }

    /// What clients of one zone may see of `message`, and what it teaches.
    fn view(
        &self,
        rules: &Rules,
        purpose: Purpose,
        question: &Question,
        message: &[u8],
    ) -> Result<(View, Option<Answer>), Malformed> {
        let limits = rules.intent().limits;
        let (length, ceiling) = (question.asked().wire.len(), limits.ttl_ceiling);
        let pass = || View::passed(message, length, ceiling).map(|view| (view, None));
        let Some(zone) = purpose.zone() else {
            return pass();
        };
        let audited = audits(rules, zone);
        let mut reading = match Reading::of(message) {
            Ok(reading) => reading,
            Err(_) if audited => return pass(),
            Err(malformed) => return Err(malformed),
        };
        match self.parts.settings.hints {
            Hints::Admit => {}
            Hints::Strip => reading.strip_all_hints(),
        }
        let Taught { answer, unfit } = teach(rules, zone, &question.name, &mut reading, audited);
        let struck = if audited { 0 } else { unfit };
        self.counters().removed.add(struck);
        let shape = Shape {
            dnssec: question.asked().dnssec(),
            ceiling,
            ech: self.parts.settings.ech,
        };
        // What the operator takes out is no longer what was signed.
        let services = matches!(question.kind, kind::HTTPS | kind::SVCB);
        let cut = self.parts.settings.hints == Hints::Strip || shape.ech == Ech::Strip;
        let mut view = View::taught(&reading, message, length, struck > 0, shape)?;
        if services && cut {
            view.doubt();
        }
        let answer = answer.map(|answer| Answer {
            ttl: answer.ttl.min(ceiling),
            ..answer
        });
        Ok((view, answer))
    }

    /// Keeps an answer until the loop has its addresses in force.
    fn hold(
        &mut self,
        zone: ZoneId,
        waiters: Vec<Waiter>,
        view: View,
        answer: Answer,
        (born, epoch): (u64, Option<u64>),
    ) {
        let token = Token(self.next_token);
        self.next_token += 1;
        // What the gateway wants itself is charged to nobody.
        let asked: Option<Vec<_>> = waiters
            .iter()
            .map(|waiter| waiter.origin.client())
            .collect();
        let client = asked.and_then(|all| Some(shares::owner(all.first()?.address())));
        let due = self.clock.now() + millis(self.parts.settings.hold);
        let held = Held {
            waiters,
            view,
            answer: answer.clone(),
            born,
            epoch,
            due,
        };
        self.held.insert(token, Box::new(held));
        self.counters().waiting.set(self.held.len() as u64);
        self.deadlines.set(token, due, due);
        let waiting = Waiting {
            zone,
            answer,
            token,
            client,
        };
        self.submit(waiting);
    }

    fn unhold(&mut self, token: Token) -> Option<Box<Held>> {
        let held = self.held.remove(&token)?;
        self.deadlines.remove(token, held.due);
        self.counters().waiting.set(self.held.len() as u64);
        Some(held)
    }

    /// The loop's word on a waiting answer.
    pub(super) fn release(&mut self, release: Release) {
        let released = match release.outcome {
            Ok(epoch) => epoch,
            Err(why) => return self.withhold(release.token, &why),
        };
        let Some(held) = self.unhold(release.token) else {
            return;
        };
        let Held {
            mut waiters,
            view,
            answer,
            born,
            epoch,
            ..
        } = *held;
        tell_daemon(&mut waiters, || answer.addresses.clone());
        let Some(key) = waiters.first().map(|waiter| waiter.key.clone()) else {
            return;
        };
        let now = self.clock.now();
        for waiter in &waiters {
            self.settle_own(waiter, || Outcome::Granted(answer.clone()), now);
        }
        let told = waiters
            .iter()
            .any(|waiter| waiter.origin.client().is_some());
        self.respond(waiters, &view, born);
        if epoch == Some(released) {
            self.make_ready(&key, view, Some(answer), (born, released), told);
        }
    }

    /// The planes do not hold the answer: no release, except in audit mode, where packets pass anyway.
    /// Drops what the cache holds of these names.
    pub(super) fn forget(&mut self, names: &[Name]) {
        self.cache.forget(&names.iter().map(Name::wire).collect());
    }

    fn withhold(&mut self, token: Token, why: &str) {
        let Some(held) = self.unhold(token) else {
            return;
        };
        self.counters().withheld.add(1);
        let zone = held.waiters.first().and_then(|w| w.purpose.zone());
        let audited = zone.is_some_and(|zone| audits(&self.parts.rules.load(), zone));
        if let Some(zone) = zone {
            record(Happening::Withheld {
                zone,
                name: held.answer.name.clone(),
                why: why.to_owned(),
                audited,
            });
        }
        if audited {
            let now = self.clock.now();
            for waiter in &held.waiters {
                self.settle_own(waiter, || Outcome::Failed, now);
            }
            self.respond(held.waiters, &held.view, held.born);
        } else {
            self.fail(held.waiters, Extended::other(why));
        }
    }

    /// Nobody could be asked: an older answer where that is allowed, else SERVFAIL.
    fn give_up(&mut self, mut waiters: Vec<Waiter>, why: Extended<'static>, now: u64) {
        let Some(first) = waiters.first() else { return };
        if let Some(said) = self.cache.stale(&first.key, now) {
            let message = said.message.clone();
            let clients: Vec<_> = waiters
                .extract_if(.., |waiter| waiter.origin.client().is_some())
                .collect();
            self.counters().stale.add(clients.len() as u64);
            self.conclude(clients, &message, now, true);
        }
        self.fail(waiters, why);
    }

    /// Sends a reply to all who wait for it.
    fn respond(&mut self, waiters: Vec<Waiter>, view: &View, born: u64) {
        let now = self.clock.now();
        let age = u32::try_from(now.saturating_sub(born) / 1000).unwrap_or(u32::MAX);
        for waiter in waiters {
            self.settle_own(&waiter, || Outcome::Nothing, now);
            let Origin::Client(client) = &waiter.origin else {
                continue;
            };
            self.leave(client);
            let asked = waiter.question.asked();
            view.write(&asked, age, client.limit(&asked), &mut self.out);
            self.counters().answers.add(1);
            self.clients.send(client, &self.out);
        }
    }

    /// Sends SERVFAIL to all who wait.
    fn fail(&mut self, waiters: Vec<Waiter>, why: Extended<'_>) {
        let now = self.clock.now();
        for waiter in waiters {
            self.settle_own(&waiter, || Outcome::Failed, now);
            if let Origin::Client(client) = &waiter.origin {
                self.leave(client);
                self.servfail(client, &waiter.question.asked(), why);
            }
        }
    }

    fn servfail(&mut self, client: &Client, asked: &Asked<'_>, why: Extended<'_>) {
        self.counters().servfail.add(1);
        let limit = client.limit(asked);
        asked.bare(rcode::SERVFAIL, Some(why), limit, &mut self.out);
        self.clients.send(client, &self.out);
    }

    /// When [`Engine::tick`] must be called, in milliseconds of the clock; `None` while there is
    /// nothing to wait for. An earlier deadline that comes up rings the alarm.
    pub(super) fn arm(&mut self) -> Option<u64> {
        let own = self.parts.settings.own_lookups.then(|| {
            let due = self.own.due().unwrap_or(u64::MAX);
            due.min(self.follow_at)
        });
        let lookups = self.lookups.arm();
        [self.deadlines.arm(own), lookups]
            .into_iter()
            .flatten()
            .min()
    }

    /// Does what is due.
    pub(super) fn tick(&mut self) {
        let now = self.clock.now();
        self.lookups.tick(now);
        self.take_finished();
        while let Some(token) = self.deadlines.pop(now) {
            self.withhold(token, "the planes did not take the answer in time");
        }
        self.pursue(now);
    }
}
