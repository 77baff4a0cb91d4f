//! Questions under way to the upstreams. The same question is asked once, whoever waits for it. Only
//! the reply it solicited, equal to the byte, ends a look-up.

use super::Token;
use super::chance::Chance;
use super::deadlines::Deadlines;
use super::message::{self, Extended, Variant, rcode};
use super::outstanding::{Key, Known, Outstanding};
use super::stats::Counters;
use super::upstream::{Line, Pool, Way};
use crate::observe::{Happening, record};
use crate::policy::answer::wire::{self, HEADER, has_answer};
use crate::policy::answer::{MOST_HOPS, Reading, splice, synthesize};
use crate::policy::nat64::Prefix;
use std::collections::BTreeMap;
use std::rc::Rc;
use std::sync::Arc;
use tokio::sync::Notify;

/// Fewest times a question is sent before it is given up, time allowing.
const FEWEST_TRIES: u32 = 3;

/// What to ask.
pub(super) struct Subject {
    pub(super) kind: u16,
    pub(super) variant: Variant,
    /// The group of upstreams that is asked.
    pub(super) group: usize,
}

/// What an answer still lacks, and what there is of it.
enum Part {
    /// Nothing is known yet.
    Whole,
    /// A chain that ends in a name without records: those are asked for.
    Chain(Vec<u8>),
    /// An answer without IPv6 addresses: IPv4 ones are asked for, to make some of them (RFC 6147).
    Ipv4(Vec<u8>, Prefix),
}

/// A look-up that ended.
pub(super) struct Finished<W> {
    /// What it was begun with.
    pub(super) key: Rc<[u8]>,
    pub(super) waiters: Vec<W>,
    /// The upstream's message, its question in lower case; or why there is none.
    pub(super) outcome: Result<Vec<u8>, Extended<'static>>,
}

/// How long upstreams may take, in milliseconds.
#[derive(Clone, Copy)]
pub(super) struct Patience {
    pub(super) timeout: u64,
    /// After this long the next upstream is asked as well.
    pub(super) race: u64,
}

/// The look-ups, each with its waiters.
pub(super) struct Lookups<W> {
    patience: Patience,
    /// The prefix that IPv6 addresses are made with for names that have none.
    dns64: Option<Prefix>,
    pub(super) pool: Pool,
    chance: Chance,
    counters: Arc<Counters>,
    open: BTreeMap<Token, Box<Lookup<W>>>,
    by_key: BTreeMap<Rc<[u8]>, Token>,
    next: u64,
    asked: Outstanding,
    deadlines: Deadlines,
    /// The message being written; kept for its allocation.
    out: Vec<u8>,
    finished: Vec<Finished<W>>,
}

struct Lookup<W> {
    key: Rc<[u8]>,
    subject: Subject,
    /// What is asked now: the subject's name, or what it leads to.
    wire: Vec<u8>,
    /// The same with the letter case that upstreams must repeat.
    cased: Box<[u8]>,
    part: Part,
    /// Bytes of the name that clients asked for.
    name: usize,
    /// How often the chain was taken up again.
    parts: usize,
    waiters: Vec<W>,
    tries: u32,
    /// One bit per upstream that was asked in this round.
    round: u64,
    /// When the next upstream is asked as well.
    race_at: u64,
    attempts: Vec<Attempt>,
    due: u64,
}

/// A question under way to one upstream.
struct Attempt {
    /// Where it went, and under which id.
    key: Key,
    upstream: usize,
    deadline: u64,
}

impl Subject {
    /// Whether the client checks signatures itself: no answer may be made up for it (RFC 6147 §5.5).
    fn validates(&self) -> bool {
        self.variant.dnssec && self.variant.checking_disabled
    }
}

impl<W> Lookups<W> {
    pub(super) fn new(
        pool: Pool,
        patience: Patience,
        dns64: Option<Prefix>,
        counters: Arc<Counters>,
        alarm: Rc<Notify>,
    ) -> Self {
        Self {
            patience,
            dns64,
            pool,
            chance: Chance::new(),
            counters,
            open: BTreeMap::new(),
            by_key: BTreeMap::new(),
            next: 0,
            asked: Outstanding::default(),
            deadlines: Deadlines::new(alarm),
            out: Vec::with_capacity(512),
            finished: Vec::new(),
        }
    }

    /// Numbers that an outsider cannot guess.
    pub(super) fn chance(&mut self) -> &mut Chance {
        &mut self.chance
    }

    /// Waits for the answer to `subject` (its name in lower case, type and class on the wire), and
    /// asks for it unless somebody waits already. The same `key` is the same question.
    pub(super) fn begin(
        &mut self,
        key: &[u8],
        waiter: W,
        now: u64,
        subject: impl FnOnce() -> (Subject, Vec<u8>),
    ) {
        let known = self.by_key.get(key);
        if let Some(lookup) = known.and_then(|token| self.open.get_mut(token)) {
            lookup.waiters.push(waiter);
            return;
        }
        let (subject, wire) = subject();
        let key: Rc<[u8]> = key.into();
        let token = Token(self.next);
        self.next += 1;
        let name = wire.len() - 4;
        let lookup = Lookup {
            key: Rc::clone(&key),
            cased: self.chance.cased(&wire),
            wire,
            subject,
            part: Part::Whole,
            name,
            parts: 0,
            waiters: vec![waiter],
            tries: 0,
            round: 0,
            race_at: u64::MAX,
            attempts: Vec::new(),
            due: u64::MAX,
        };
        self.by_key.insert(key, token);
        self.open.insert(token, Box::new(lookup));
        let why = Extended::network("no upstream can be reached");
        self.ask_on(token, now, why);
    }

    /// How many are under way.
    pub(super) fn len(&self) -> usize {
        self.open.len()
    }

    /// Takes the look-ups that ended.
    pub(super) fn finished(&mut self) -> Vec<Finished<W>> {
        std::mem::take(&mut self.finished)
    }

    /// Sends the question once more where that is possible; if nothing is under way then, gives up.
    fn ask_on(&mut self, token: Token, now: u64, why: Extended<'static>) {
        let Some(lookup) = self.open.get(&token) else {
            return;
        };
        let group = lookup.subject.group;
        let most = FEWEST_TRIES.max(u32::try_from(self.pool.len(group)).unwrap_or(u32::MAX));
        loop {
            let Some(lookup) = self.open.get_mut(&token) else {
                return;
            };
            if lookup.tries >= most {
                break;
            }
            lookup.tries += 1;
            let Some((upstream, round)) = self.pool.choose(group, lookup.round, now) else {
                break;
            };
            lookup.round = round;
            let way = self.pool.way(upstream);
            if self.transmit(token, upstream, way, now) {
                break;
            }
        }
        let Some(lookup) = self.open.get_mut(&token) else {
            return;
        };
        if lookup.attempts.is_empty() {
            return self.finish(token, Err(why), now);
        }
        lookup.race_at = if lookup.tries < most {
            now + self.patience.race
        } else {
            u64::MAX
        };
        self.reschedule(token);
    }

    fn transmit(&mut self, token: Token, upstream: usize, way: Way, now: u64) -> bool {
        let Some(lookup) = self.open.get_mut(&token) else {
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
        message::forward(key.1, &lookup.cased, lookup.subject.variant, &mut self.out);
        if !path.send(&self.out) {
            self.asked.remove(key);
            self.pool.failed(upstream, now);
            return false;
        }
        self.counters.asked.add(1);
        let deadline = now + self.patience.timeout;
        lookup.attempts.push(Attempt {
            key,
            upstream,
            deadline,
        });
        true
    }

    /// A message from an upstream.
    pub(super) fn reply(&mut self, line: Line, bytes: &[u8], now: u64) {
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
        let Some(lookup) = self.open.get_mut(&token) else {
            return;
        };
        // Without a question it answers nothing, and is an upstream's failure at most.
        let bare = message::is_bare_error(bytes);
        if !bare && !message::answers(bytes, &lookup.cased) {
            return self.forged(line);
        }
        let Some(at) = lookup.attempts.iter().position(|a| a.key == key) else {
            return;
        };
        let attempt = lookup.attempts.swap_remove(at);
        self.asked.remove(key);
        if bare {
            self.pool.failed(attempt.upstream, now);
        } else {
            self.pool.answered(attempt.upstream);
        }
        if message::is_truncated(bytes) {
            let whole =
                !line.is_stream() && self.transmit(token, attempt.upstream, Way::Stream, now);
            if whole {
                return self.reschedule(token);
            }
            let why = Extended::network("the upstream's reply is truncated");
            return self.ask_on(token, now, why);
        }
        match message::code(bytes) {
            rcode::NO_ERROR | rcode::NXDOMAIN => {
                let mut whole = bytes.to_vec();
                whole[HEADER..HEADER + lookup.wire.len()].copy_from_slice(&lookup.wire);
                self.complete(token, whole, now);
            }
            _ => {
                // The same upstream would only say it again.
                if self.pool.all_in(lookup.subject.group, lookup.round) {
                    lookup.tries = u32::MAX;
                }
                let why = Extended::unreachable("the upstreams report an error");
                self.ask_on(token, now, why);
            }
        }
    }

    /// Ends a look-up with `whole`, or asks for what that lacks.
    fn complete(&mut self, token: Token, whole: Vec<u8>, now: u64) {
        let Some(lookup) = self.open.get_mut(&token) else {
            return;
        };
        let kind = lookup.subject.kind;
        let whole = match std::mem::replace(&mut lookup.part, Part::Whole) {
            Part::Whole => whole,
            // What does not fit on leaves a chain without an end, which teaches nothing.
            Part::Chain(first) => splice(&first, &whole).unwrap_or(first),
            Part::Ipv4(first, prefix) => {
                let made = synthesize(&first, &whole, prefix);
                let whole = made.ok().flatten().unwrap_or(first);
                return self.finish(token, Ok(whole), now);
            }
        };
        if message::code(&whole) != rcode::NO_ERROR || has_answer(&whole, kind) {
            return self.finish(token, Ok(whole), now);
        }
        let end = Reading::of(&whole)
            .ok()
            .and_then(|reading| reading.dangling());
        let (mut next, kind, part) = match (end, self.dns64) {
            (Some(end), _) if lookup.parts < MOST_HOPS => {
                lookup.parts += 1;
                (end, kind, Part::Chain(whole))
            }
            (None, Some(prefix)) if kind == wire::kind::AAAA && !lookup.subject.validates() => {
                // Nothing was asked but the name itself, or the ends of its chain, and those are told.
                let (name, _) = whole[HEADER..].split_at(lookup.name);
                (name.to_vec(), wire::kind::A, Part::Ipv4(whole, prefix))
            }
            (Some(_) | None, _) => return self.finish(token, Ok(whole), now),
        };
        next.make_ascii_lowercase();
        next.extend(kind.to_be_bytes());
        next.extend(wire::IN.to_be_bytes());
        lookup.part = part;
        lookup.cased = self.chance.cased(&next);
        lookup.wire = next;
        (lookup.tries, lookup.round) = (0, 0);
        let until = now + 2 * self.patience.timeout;
        for attempt in lookup.attempts.drain(..) {
            self.asked.settle(attempt.key, until);
        }
        let why = Extended::network("no upstream can be reached");
        self.ask_on(token, now, why);
    }

    fn forged(&mut self, line: Line) {
        self.counters.forged.add(1);
        if let Some(upstream) = self.pool.address(line) {
            record(Happening::Forgery { upstream });
        }
    }

    /// A line to an upstream failed: what was asked over it is asked elsewhere, at once.
    pub(super) fn broken(&mut self, line: Line, now: u64) {
        if let Some(upstream) = self.pool.index(line) {
            self.pool.failed(upstream, now);
        }
        self.ended(line, now);
    }

    /// A line to an upstream ended, by nobody's fault.
    pub(super) fn ended(&mut self, line: Line, now: u64) {
        // First, so that what is asked again does not take the same way.
        self.pool.broken(line);
        for (key, token) in self.asked.end(line) {
            let Some(lookup) = self.open.get_mut(&token) else {
                continue;
            };
            lookup.attempts.retain(|attempt| attempt.key != key);
            let why = Extended::network("no upstream can be reached");
            self.ask_on(token, now, why);
        }
    }

    /// Ends a look-up; what upstreams still say is late, not forged.
    fn finish(&mut self, token: Token, outcome: Result<Vec<u8>, Extended<'static>>, now: u64) {
        let Some(lookup) = self.open.remove(&token) else {
            return;
        };
        self.deadlines.remove(token, lookup.due);
        self.by_key.remove(&lookup.key);
        let until = now + 2 * self.patience.timeout;
        for attempt in lookup.attempts {
            self.asked.settle(attempt.key, until);
        }
        let Lookup { key, waiters, .. } = *lookup;
        self.finished.push(Finished {
            key,
            waiters,
            outcome,
        });
    }

    fn reschedule(&mut self, token: Token) {
        let Some(lookup) = self.open.get_mut(&token) else {
            return;
        };
        let deadlines = lookup.attempts.iter().map(|attempt| attempt.deadline);
        let due = deadlines.fold(lookup.race_at, u64::min);
        self.deadlines.set(token, lookup.due, due);
        lookup.due = due;
    }

    /// When [`Lookups::tick`] must be called, in milliseconds of the clock. An earlier deadline that
    /// comes up rings the alarm.
    pub(super) fn arm(&mut self) -> Option<u64> {
        self.deadlines.arm(self.asked.due())
    }

    /// Does what is due.
    pub(super) fn tick(&mut self, now: u64) {
        self.asked.expire(now);
        while let Some(token) = self.deadlines.pop(now) {
            self.overdue(token, now);
        }
    }

    fn overdue(&mut self, token: Token, now: u64) {
        let until = now + 2 * self.patience.timeout;
        let Some(lookup) = self.open.get_mut(&token) else {
            return;
        };
        for attempt in lookup
            .attempts
            .extract_if(.., |attempt| attempt.deadline <= now)
        {
            self.asked.settle(attempt.key, until);
            self.pool.failed(attempt.upstream, now);
        }
        let none = lookup.attempts.is_empty();
        if !none && lookup.race_at > now {
            return self.reschedule(token);
        }
        if none {
            self.counters.timeouts.add(1);
        }
        let why = Extended::unreachable("no upstream answered in time");
        self.ask_on(token, now, why);
    }
}
