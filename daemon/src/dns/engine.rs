//! Every open question, from the client's datagram to its reply. No task and no lock per question:
//! the sockets' tasks call in, one at a time.

use super::chance::Chance;
use super::clients::{Client, Clients};
use super::course::{Course, Refused, audits, decide};
use super::deadlines::Deadlines;
use super::message::{self, Extended, Question, Unread, rcode};
use super::open::{Asking, Attempt, Open, Stage};
use super::outstanding::{Known, Outstanding};
use super::stats::Counters;
use super::upstream::{Line, Pool, Way};
use super::{Clock, Release, Submit, Token, Waiting};
use crate::config::DnsSettings;
use crate::observe::{Happening, record};
use crate::policy::ZoneId;
use crate::policy::answer::wire::HEADER;
use crate::policy::answer::{Answer, Reading};
use crate::policy::rules::{Refusal, Rules};
use arc_swap::ArcSwap;
use std::collections::BTreeMap;
use std::net::IpAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;
use tokio::sync::Notify;

/// Most questions open at once.
const MOST_OPEN: usize = 16_384;

/// Most of them from one client (over IPv6: one /64).
const MOST_PER_CLIENT: usize = 4096;

/// Fewest times a question is sent before it is given up, time allowing.
const FEWEST_TRIES: u32 = 3;

/// Edges opened so far. A reload opens another, and the loop's word on an answer of the old one must
/// not release one of the new: their tokens never meet.
static EDGES: AtomicU64 = AtomicU64::new(0);

pub(super) struct Parts {
    pub(super) settings: DnsSettings,
    pub(super) rules: Arc<ArcSwap<Rules>>,
    pub(super) submit: Submit,
    pub(super) counters: Arc<Counters>,
}

pub(super) struct Engine {
    settings: DnsSettings,
    rules: Arc<ArcSwap<Rules>>,
    submit: Submit,
    counters: Arc<Counters>,
    clock: Clock,
    pub(super) clients: Clients,
    pub(super) pool: Pool,
    chance: Chance,
    open: BTreeMap<Token, Box<Open>>,
    next_token: u64,
    per_client: BTreeMap<IpAddr, usize>,
    asked: Outstanding,
    deadlines: Deadlines,
    /// The message being written; kept for its allocation.
    out: Vec<u8>,
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX / 4)
}

impl Engine {
    pub(super) fn new(parts: Parts, clock: Clock) -> Self {
        let pool = Pool::new(&parts.settings.upstreams, millis(parts.settings.timeout));
        Self {
            settings: parts.settings,
            rules: parts.rules,
            submit: parts.submit,
            counters: parts.counters,
            clock,
            clients: Clients::default(),
            pool,
            chance: Chance::new(),
            open: BTreeMap::new(),
            next_token: EDGES.fetch_add(1, Ordering::Relaxed) << 40,
            per_client: BTreeMap::new(),
            asked: Outstanding::default(),
            deadlines: Deadlines::new(),
            out: Vec::with_capacity(4096),
        }
    }

    pub(super) fn clock(&self) -> Clock {
        self.clock
    }

    pub(super) fn alarm(&self) -> Rc<Notify> {
        self.deadlines.alarm()
    }

    /// A message from a client.
    pub(super) fn question(&mut self, client: Client, bytes: &[u8]) {
        self.counters.questions.add(1);
        let question = match Question::read(bytes) {
            Ok(question) => question,
            Err(Unread::Silent) => {
                self.counters.malformed.add(1);
                self.clients.close(&client);
                return;
            }
            Err(Unread::Code(code)) => {
                self.counters.malformed.add(1);
                message::fault(bytes, code, &mut self.out);
                self.clients.send(&client, &self.out);
                return;
            }
        };
        let rules = self.rules.load();
        let zone = client.zone(&rules);
        match decide(&rules, &self.settings, zone, &question) {
            Course::Teach(zone) => self.admit(client, question, Some(zone)),
            Course::Pass => self.admit(client, question, None),
            Course::Audit(why) => {
                self.tell(&client, &question, zone, why, true);
                self.admit(client, question, None);
            }
            Course::Refuse(refused) => self.refuse(&client, &question, zone, refused),
        }
    }

    fn refuse(
        &mut self,
        client: &Client,
        question: &Question,
        zone: Option<ZoneId>,
        refused: Refused,
    ) {
        let limit = client.limit(question);
        question.bare(refused.code, Some(refused.extended), limit, &mut self.out);
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
        self.counters.refused.add(1);
        record(Happening::QuestionRefused {
            zone,
            client: client.address(),
            name: question.name.clone(),
            why,
            audited,
        });
    }

    fn admit(&mut self, client: Client, question: Question, zone: Option<ZoneId>) {
        let owner = client.owner();
        let of_client = self.per_client.get(&owner).copied().unwrap_or_default();
        if self.open.len() >= MOST_OPEN || of_client >= MOST_PER_CLIENT {
            self.counters.shed.add(1);
            let why = Extended::other("too many questions are open");
            return self.servfail(&client, &question, why);
        }
        self.per_client.insert(owner, of_client + 1);
        let token = Token(self.next_token);
        self.next_token += 1;
        let cased = self.chance.cased(&question.wire);
        let stage = Stage::Asking(Asking::default());
        let open = Open {
            client,
            question,
            cased,
            zone,
            due: u64::MAX,
            stage,
        };
        self.open.insert(token, Box::new(open));
        self.counters.open.set(self.open.len() as u64);
        self.ask_on(
            token,
            self.clock.now(),
            Extended::network("no upstream can be reached"),
        );
    }

    /// Sends the question once more where that is possible; if nothing is under way then, gives up.
    fn ask_on(&mut self, token: Token, now: u64, why: Extended<'static>) {
        let most = FEWEST_TRIES.max(u32::try_from(self.pool.len()).unwrap_or(u32::MAX));
        loop {
            let Some(asking) = self.asking(token) else {
                return;
            };
            if asking.tries >= most {
                break;
            }
            asking.tries += 1;
            let round = asking.round;
            let (upstream, round) = self.pool.choose(round, now);
            let way = self.pool.way(upstream);
            let Some(asking) = self.asking(token) else {
                return;
            };
            asking.round = round;
            if self.transmit(token, upstream, way, now) {
                break;
            }
        }
        let race = millis(self.settings.race);
        let Some(asking) = self.asking(token) else {
            return;
        };
        if asking.attempts.is_empty() {
            return self.give_up(token, why);
        }
        asking.race_at = if asking.tries < most {
            now + race
        } else {
            u64::MAX
        };
        self.reschedule(token);
    }

    fn asking(&mut self, token: Token) -> Option<&mut Asking> {
        match &mut self.open.get_mut(&token)?.stage {
            Stage::Asking(asking) => Some(asking),
            Stage::Held(_) => None,
        }
    }

    fn transmit(&mut self, token: Token, upstream: usize, way: Way, now: u64) -> bool {
        let Some(open) = self.open.get_mut(&token) else {
            return false;
        };
        let Stage::Asking(asking) = &mut open.stage else {
            return false;
        };
        let Some(path) = self.pool.path(upstream, way, &mut self.chance, now) else {
            self.pool.failed(upstream, now);
            return false;
        };
        let Some(key) = self.asked.take(path.line, token, || self.chance.id()) else {
            log::debug!(target: "dns", "too many questions wait on one line to an upstream");
            return false;
        };
        open.question.forward(key.1, &open.cased, &mut self.out);
        if !path.send(&self.out) {
            self.asked.remove(key);
            self.pool.failed(upstream, now);
            return false;
        }
        self.counters.asked.add(1);
        let deadline = now + millis(self.settings.timeout);
        asking.attempts.push(Attempt {
            key,
            upstream,
            deadline,
        });
        true
    }

    /// A message from an upstream.
    pub(super) fn reply(&mut self, line: Line, bytes: &mut [u8]) {
        let now = self.clock.now();
        let Some([high, low]) = bytes.first_chunk().copied() else {
            return self.forged(line);
        };
        let key = (line, u16::from_be_bytes([high, low]));
        let token = match self.asked.get(key) {
            None => return self.forged(line),
            Some(Known::Settled) => {
                self.asked.remove(key);
                return self.counters.late.add(1);
            }
            Some(Known::Awaited(token)) => token,
        };
        let Some(open) = self.open.get_mut(&token) else {
            return;
        };
        if !message::answers(bytes, &open.cased) {
            return self.forged(line);
        }
        let Stage::Asking(asking) = &mut open.stage else {
            return;
        };
        let Some(at) = asking
            .attempts
            .iter()
            .position(|attempt| attempt.key == key)
        else {
            return;
        };
        if asking.attempts[at].deadline <= now {
            return self.counters.late.add(1);
        }
        let attempt = asking.attempts.swap_remove(at);
        self.asked.remove(key);
        self.pool.answered(attempt.upstream);
        if message::is_truncated(bytes) {
            let whole =
                !line.is_stream() && self.transmit(token, attempt.upstream, Way::Stream, now);
            if whole {
                return self.reschedule(token);
            }
            return self.ask_on(
                token,
                now,
                Extended::network("the upstream's reply is truncated"),
            );
        }
        match message::code(bytes) {
            rcode::NO_ERROR | rcode::NXDOMAIN => self.conclude(token, bytes),
            _ => {
                // The same upstream would only say it again.
                let round = self.asking(token).map_or(0, |asking| asking.round);
                if self.pool.all_in(round)
                    && let Some(asking) = self.asking(token)
                {
                    asking.tries = u32::MAX;
                }
                self.ask_on(
                    token,
                    now,
                    Extended::unreachable("the upstreams report an error"),
                );
            }
        }
    }

    fn forged(&mut self, line: Line) {
        self.counters.forged.add(1);
        if let Some(upstream) = self.pool.address(line) {
            record(Happening::Forgery { upstream });
        }
    }

    /// A line to an upstream failed: what was asked over it is asked elsewhere, at once.
    pub(super) fn broken(&mut self, line: Line) {
        let now = self.clock.now();
        if let Some(upstream) = self.pool.index(line) {
            self.pool.failed(upstream, now);
        }
        // First, so that what is asked again does not take the same way.
        self.pool.broken(line);
        for (key, token) in self.asked.end(line) {
            let Some(asking) = self.asking(token) else {
                continue;
            };
            asking.attempts.retain(|attempt| attempt.key != key);
            self.ask_on(token, now, Extended::network("no upstream can be reached"));
        }
    }

    fn conclude(&mut self, token: Token, bytes: &mut [u8]) {
        let Some(open) = self.open.get_mut(&token) else {
            return;
        };
        // The client's letter case, everywhere that compression refers to the question.
        bytes[HEADER..HEADER + open.question.wire.len()].copy_from_slice(&open.question.wire);
        let limit = open.client.limit(&open.question);
        let Some(zone) = open.zone else {
            let done = open.question.pass(bytes, limit, &mut self.out);
            return self.respond(token, done.is_ok());
        };
        let rules = self.rules.load();
        let limits = rules.intent().limits;
        let audited = audits(&rules, zone);
        let Ok(mut reading) = Reading::of(bytes) else {
            let passed = audited && open.question.pass(bytes, limit, &mut self.out).is_ok();
            return self.respond(token, passed);
        };
        let mut addresses = Vec::with_capacity(reading.found().len());
        let mut struck = 0;
        for found in reading.found().to_vec() {
            match rules.fit(zone, found.address) {
                Ok(()) if addresses.len() < limits.per_answer => {
                    addresses.push(found.address);
                    continue;
                }
                Ok(()) => {
                    log::debug!(target: "answer", "{}: more addresses than one answer may teach", open.question.name);
                }
                Err(why) => {
                    let (name, address) = (open.question.name.clone(), found.address);
                    record(Happening::RecordRefused {
                        zone,
                        name,
                        address,
                        why,
                        audited,
                    });
                }
            }
            if !audited {
                reading.strike(found.position);
                struck += 1;
            }
        }
        self.counters.removed.add(struck);
        addresses.sort_unstable();
        addresses.dedup();
        let flags = message::flags(bytes);
        let ceiling = limits.ttl_ceiling;
        let done = open
            .question
            .reply(&reading, flags, struck > 0, ceiling, limit, &mut self.out);
        if done.is_err() || addresses.is_empty() {
            return self.respond(token, done.is_ok());
        }
        let name = open.question.name.clone();
        let answer = Answer {
            name,
            addresses,
            ttl: reading.ttl(),
        };
        self.hold(Waiting {
            zone,
            answer,
            token,
        });
    }

    /// Sends the reply that was just written, or SERVFAIL where it could not be.
    fn respond(&mut self, token: Token, written: bool) {
        let Some(open) = self.settle(token) else {
            return;
        };
        if written {
            self.counters.answers.add(1);
            self.clients.send(&open.client, &self.out);
        } else {
            let why = Extended::other("the upstream's reply is malformed");
            self.servfail(&open.client, &open.question, why);
        }
    }

    /// Keeps the reply that was just written until the loop has its addresses in force.
    fn hold(&mut self, waiting: Waiting) {
        let token = waiting.token;
        self.abandon(token);
        let Some(open) = self.open.get_mut(&token) else {
            return;
        };
        open.stage = Stage::Held(self.out.as_slice().into());
        self.counters.waiting.add(1);
        if (self.submit)(waiting).is_err() {
            return self.withhold(token, "the gateway is busy");
        }
        self.reschedule(token);
    }

    /// The loop's word on a waiting answer.
    pub(super) fn release(&mut self, release: Release) {
        let held = self.open.get(&release.token).map(|open| &open.stage);
        let Some(Stage::Held(_)) = held else { return };
        if let Err(why) = release.outcome {
            return self.withhold(release.token, &why);
        }
        let Some(open) = self.settle(release.token) else {
            return;
        };
        if let Stage::Held(reply) = &open.stage {
            self.counters.answers.add(1);
            self.clients.send(&open.client, reply);
        }
    }

    /// The planes do not hold the answer: no release, except in audit mode, where packets pass anyway.
    fn withhold(&mut self, token: Token, why: &str) {
        let Some(open) = self.settle(token) else {
            return;
        };
        self.counters.withheld.add(1);
        let audited = open
            .zone
            .is_some_and(|zone| audits(&self.rules.load(), zone));
        match &open.stage {
            Stage::Held(reply) if audited => {
                self.counters.answers.add(1);
                self.clients.send(&open.client, reply);
            }
            Stage::Held(_) | Stage::Asking(_) => {
                self.servfail(&open.client, &open.question, Extended::other(why));
            }
        }
        if let Some(zone) = open.zone {
            record(Happening::Withheld {
                zone,
                name: open.question.name,
                why: why.to_owned(),
                audited,
            });
        }
    }

    fn give_up(&mut self, token: Token, why: Extended<'_>) {
        let Some(open) = self.settle(token) else {
            return;
        };
        self.servfail(&open.client, &open.question, why);
    }

    fn servfail(&mut self, client: &Client, question: &Question, why: Extended<'_>) {
        self.counters.servfail.add(1);
        let limit = client.limit(question);
        question.bare(rcode::SERVFAIL, Some(why), limit, &mut self.out);
        self.clients.send(client, &self.out);
    }

    /// Stops waiting for upstreams; what they still say is late, not forged.
    fn abandon(&mut self, token: Token) {
        let until = self.clock.now() + 2 * millis(self.settings.timeout);
        let Some(asking) = self.asking(token) else {
            return;
        };
        for attempt in std::mem::take(&mut asking.attempts) {
            self.asked.settle(attempt.key, until);
        }
    }

    fn settle(&mut self, token: Token) -> Option<Box<Open>> {
        self.abandon(token);
        let open = self.open.remove(&token)?;
        self.deadlines.remove(token, open.due);
        self.counters.open.set(self.open.len() as u64);
        match &open.stage {
            Stage::Held(_) => self.counters.waiting.take(1),
            Stage::Asking(_) => {}
        }
        let owner = open.client.owner();
        if let Some(count) = self.per_client.get_mut(&owner) {
            *count -= 1;
            if *count == 0 {
                self.per_client.remove(&owner);
            }
        }
        Some(open)
    }

    fn reschedule(&mut self, token: Token) {
        let hold = self.clock.now() + millis(self.settings.hold);
        let Some(open) = self.open.get_mut(&token) else {
            return;
        };
        let due = open.next_due(hold);
        self.deadlines.set(token, open.due, due);
        open.due = due;
    }

    /// When [`Engine::tick`] must be called, in milliseconds of the clock; `None` while nothing is
    /// open. An earlier deadline that comes up rings the alarm.
    pub(super) fn arm(&mut self) -> Option<u64> {
        self.deadlines.arm(self.asked.due())
    }

    /// Does what is due.
    pub(super) fn tick(&mut self) {
        let now = self.clock.now();
        self.asked.expire(now);
        while let Some(token) = self.deadlines.pop(now) {
            let Some(open) = self.open.get_mut(&token) else {
                continue;
            };
            match &mut open.stage {
                Stage::Held(_) => {
                    self.withhold(token, "the planes did not take the answer in time")
                }
                Stage::Asking(_) => self.overdue(token, now),
            }
        }
    }

    fn overdue(&mut self, token: Token, now: u64) {
        let until = now + 2 * millis(self.settings.timeout);
        let Some(Open {
            stage: Stage::Asking(asking),
            ..
        }) = self.open.get_mut(&token).map(|open| &mut **open)
        else {
            return;
        };
        for attempt in asking
            .attempts
            .extract_if(.., |attempt| attempt.deadline <= now)
        {
            self.asked.settle(attempt.key, until);
            self.pool.failed(attempt.upstream, now);
        }
        if asking.race_at <= now || asking.attempts.is_empty() {
            if asking.attempts.is_empty() {
                self.counters.timeouts.add(1);
            }
            return self.ask_on(
                token,
                now,
                Extended::unreachable("no upstream answered in time"),
            );
        }
        self.reschedule(token);
    }
}
