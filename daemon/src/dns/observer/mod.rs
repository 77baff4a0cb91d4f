//! Observe mode: what copied questions and answers teach. Pure: copies, releases and time in, effects
//! out. A copy is data from outside, whoever sent it; nothing in it is taken on trust.

mod lesson;
mod packet;
mod pending;
mod stats;
mod streams;

#[cfg(test)]
mod tests;

pub use stats::{Counters, Stats};

use super::engine::untaught_addresses;
use super::message::{self, Asked, Extended, Question, rcode};
use super::{Release, Token, Untaught, Waiting};
use crate::config::Hints;
use crate::observe::{Happening, record};
use crate::policy::ZoneId;
use crate::policy::answer::Ech;
use crate::policy::observed::DNS;
use crate::policy::rules::Rules;
use arc_swap::ArcSwap;
use lesson::Lesson;
use packet::{Body, Packet};
use pending::{Key, Pending};
use std::collections::{BTreeMap, VecDeque};
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use streams::{From, Streams};

/// Tokens with this bit are the observer's; the edge's count from 0.
const OBSERVED: u64 = 1 << 63;

/// Observers made so far: as for the edges, tokens of one are never those of the next.
static OBSERVERS: AtomicU64 = AtomicU64::new(0);

/// Most answers that wait for the planes at once, and most whose time to the commit is measured.
const MOST_HELD: usize = 16_384;

/// Answers for unlisted names that are read within a second.
const MOST_UNTAUGHT_A_SECOND: u32 = 1000;

/// A copied packet.
#[derive(Clone, Copy, Debug)]
pub struct Copy<'p> {
    /// Whether it goes to a resolver, by conntrack's word; else it comes from one.
    pub question: bool,
    /// Index of the interface it entered.
    pub interface: u32,
    /// From the IP header on.
    pub packet: &'p [u8],
}

/// What is to be done.
#[derive(Debug)]
pub enum Effect {
    /// Hand it to the loop; [`Observer::refused`] if that does not take it.
    Teach(Waiting),
    /// Tell the loop of addresses that a client got for a name that its zone does not list.
    Untaught(Untaught),
    /// Send an answer to a client in its resolver's name.
    Send(Delivery),
}

/// An answer on its way to the client (`delay` only).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Delivery {
    /// The resolver that the client asked.
    pub resolver: IpAddr,
    /// Who asked.
    pub client: SocketAddr,
    /// The datagram's payload.
    pub message: Vec<u8>,
}

/// The observer. Times are microseconds of any clock that does not jump.
#[derive(Debug)]
pub struct Observer {
    rules: Arc<ArcSwap<Rules>>,
    counters: Arc<Counters>,
    handling: Handling,
    pending: Pending,
    streams: Streams,
    held: BTreeMap<Token, Held>,
    /// By deadline, which is the order they came in.
    deadlines: VecDeque<(u64, Token)>,
    next_token: u64,
    /// A second, and how many answers for unlisted names were read in it.
    untaught: (u64, u32),
    effects: Vec<Effect>,
}

/// An answer that waits for the planes.
#[derive(Debug)]
struct Held {
    since: u64,
    /// What its client gets then, and what it gets else; `None` where it has the answer already.
    replies: Option<(Delivery, Vec<u8>)>,
}

/// What becomes of answers before clients get them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Handling {
    /// Whether answers over UDP leave by [`Effect::Send`].
    pub delay: bool,
    /// When at the latest (then as SERVFAIL), in microseconds.
    pub hold: u64,
    /// What becomes of address hints in them.
    pub hints: Hints,
    /// What becomes of ECH in them.
    pub ech: Ech,
}

/// Whether a release is the observer's business.
#[must_use]
pub fn is_observed(token: Token) -> bool {
    token.0 & OBSERVED != 0
}

impl Observer {
    /// An observer of what `rules` say about observing.
    #[must_use]
    pub fn new(rules: Arc<ArcSwap<Rules>>, counters: Arc<Counters>, handling: Handling) -> Self {
        Self {
            rules,
            counters,
            handling,
            pending: Pending::default(),
            streams: Streams::default(),
            held: BTreeMap::new(),
            deadlines: VecDeque::new(),
            next_token: OBSERVED | OBSERVERS.fetch_add(1, Ordering::Relaxed) << 40,
            untaught: (0, 0),
            effects: Vec::new(),
        }
    }

    /// What is to be done now, in this order.
    pub fn take_effects(&mut self) -> Vec<Effect> {
        std::mem::take(&mut self.effects)
    }

    /// Takes a copied packet.
    pub fn copy(&mut self, copy: &Copy<'_>, now: u64) {
        let Some(packet) = packet::read(copy.packet) else {
            return self.counters.malformed.add(1);
        };
        let rules = self.rules.load_full();
        if copy.question {
            self.question(&rules, copy.interface, &packet, now);
        } else {
            self.answer(&rules, copy.interface, &packet, now);
        }
    }

    fn question(&mut self, rules: &Rules, interface: u32, packet: &Packet<'_>, now: u64) {
        let (client, resolver) = (packet.source, packet.destination);
        if !is_resolver(rules, resolver) {
            return self.counters.malformed.add(1);
        }
        let zone = rules.zone_of(interface, client.ip());
        if is_upstream(rules, interface) || (zone.is_none() && !self.handling.delay) {
            // It would only take others' room: nobody learns from it, nor is its answer held back.
            return;
        }
        let Self {
            streams,
            pending,
            counters,
            ..
        } = self;
        let mut note = |message: &[u8], stream| {
            counters.questions.add(1);
            let Some(id) = message.first_chunk() else {
                return counters.malformed.add(1);
            };
            let key = Key {
                stream,
                client,
                resolver: resolver.ip(),
                id: u16::from_be_bytes(*id),
            };
            if !pending.note(
                key,
                zone,
                Asked::read(message).and_then(|asked| asked.keep()).ok(),
                now,
            ) {
                counters.shed.add(1);
            }
        };
        match &packet.body {
            Body::Datagram(message) => note(message, false),
            Body::Segment(segment) => {
                let ends = (client, resolver.ip());
                let followed = streams.take(ends, From::Client, segment, |message| {
                    note(message, true);
                });
                if !followed {
                    counters.broken.add(1);
                }
            }
        }
    }

    fn answer(&mut self, rules: &Rules, interface: u32, packet: &Packet<'_>, now: u64) {
        let (client, resolver) = (packet.destination, packet.source);
        // The kernel's rules ask the same; a host in a zone must not pass for a resolver even if
        // they did not.
        if !is_resolver(rules, resolver) || !is_upstream(rules, interface) {
            return self.counters.unmatched.add(1);
        }
        match &packet.body {
            Body::Datagram(message) => {
                self.reply(rules, client, resolver.ip(), message, false, now);
            }
            Body::Segment(segment) => {
                let mut messages: Vec<Vec<u8>> = Vec::new();
                let ends = (client, resolver.ip());
                let followed = (self.streams).take(ends, From::Resolver, segment, |message| {
                    messages.push(message.to_vec());
                });
                if !followed {
                    self.counters.broken.add(1);
                }
                for message in messages {
                    self.reply(rules, client, resolver.ip(), &message, true, now);
                }
            }
        }
    }

    fn reply(
        &mut self,
        rules: &Rules,
        client: SocketAddr,
        resolver: IpAddr,
        bytes: &[u8],
        stream: bool,
        now: u64,
    ) {
        let Some(id) = bytes.first_chunk() else {
            return self.counters.malformed.add(1);
        };
        let key = Key {
            stream,
            client,
            resolver,
            id: u16::from_be_bytes(*id),
        };
        let Some(asked) = self.pending.get(key, now) else {
            return self.counters.unmatched.add(1);
        };
        if let Some(question) = &asked.question
            && !message::answers(bytes, question.asked().wire)
        {
            self.counters.forged.add(1);
            return record(Happening::Forgery { upstream: resolver });
        }
        let Some(asked) = self.pending.take(key) else {
            return;
        };
        self.counters.answers.add(1);
        let delivery = (self.handling.delay && !stream).then(|| Delivery {
            resolver,
            client,
            message: bytes.to_vec(),
        });
        let (Some(zone), Some(question)) = (asked.zone, asked.question) else {
            return self.pass(delivery);
        };
        match lesson::judge(
            rules,
            zone,
            &question,
            bytes,
            delivery.as_ref().map(|_| &self.handling),
            &self.counters,
        ) {
            Lesson::Nothing => self.pass(delivery),
            Lesson::Unlisted => {
                self.tell_untaught((zone, client.ip()), &question, bytes, now);
                self.pass(delivery);
            }
            Lesson::Malformed => {
                self.counters.malformed.add(1);
                self.pass(delivery.map(|delivery| Delivery {
                    message: fault(&question, "the resolver's reply is malformed"),
                    ..delivery
                }));
            }
            Lesson::Cleaned { answer, message } => {
                let delivery = delivery.map(|delivery| Delivery {
                    message: message.unwrap_or(delivery.message),
                    ..delivery
                });
                let Some(answer) = answer else {
                    return self.pass(delivery);
                };
                let token = Token(self.next_token);
                self.next_token += 1;
                self.counters.taught.add(1);
                let waiting = Waiting {
                    zone,
                    answer,
                    token,
                    client: None,
                };
                self.hold(token, delivery, &question, rules, &waiting, now);
                self.effects.push(Effect::Teach(waiting));
            }
        }
    }

    /// Names addresses that packets are going to be refused to. Most answers that pass by may be such, so
    /// only some of a second are read.
    fn tell_untaught(
        &mut self,
        (zone, client): (ZoneId, IpAddr),
        question: &Question,
        bytes: &[u8],
        now: u64,
    ) {
        let second = now / 1_000_000;
        if self.untaught.0 != second {
            self.untaught = (second, 0);
        }
        if self.untaught.1 >= MOST_UNTAUGHT_A_SECOND {
            return;
        }
        self.untaught.1 += 1;
        let addresses = untaught_addresses(bytes);
        if !addresses.is_empty() {
            self.effects.push(Effect::Untaught(Untaught {
                zone,
                client,
                name: question.name.clone(),
                addresses,
            }));
        }
    }

    /// Keeps an answer until the planes hold its addresses.
    fn hold(
        &mut self,
        token: Token,
        delivery: Option<Delivery>,
        question: &Question,
        rules: &Rules,
        waiting: &Waiting,
        now: u64,
    ) {
        if self.held.len() >= MOST_HELD {
            // Its client asks again; what it teaches is taught all the same.
            return self.counters.shed.add(u64::from(delivery.is_some()));
        }
        let replies = delivery.map(|delivery| {
            let audited = super::course::audits(rules, waiting.zone);
            let otherwise = if audited {
                delivery.message.clone()
            } else {
                fault(question, "the gateway did not take the answer in time")
            };
            (delivery, otherwise)
        });
        if replies.is_some() {
            self.counters.waiting.add(1);
        }
        let held = Held {
            since: now,
            replies,
        };
        self.held.insert(token, held);
        self.deadlines.push_back((now + self.handling.hold, token));
    }

    fn pass(&mut self, delivery: Option<Delivery>) {
        if let Some(delivery) = delivery {
            self.counters.released.add(1);
            self.effects.push(Effect::Send(delivery));
        }
    }

    /// The loop's word on an answer. One that does not wait (any more) is ignored.
    pub fn release(&mut self, release: &Release, now: u64) {
        let Some(held) = self.held.remove(&release.token) else {
            return;
        };
        match &release.outcome {
            Ok(_) => self.counters.lag.note(now.saturating_sub(held.since)),
            Err(_) => self.counters.withheld.add(1),
        }
        self.settle(held, release.outcome.is_ok());
        self.forget_settled();
    }

    /// The loop took no answer just now.
    pub fn refused(&mut self, token: Token) {
        if let Some(held) = self.held.remove(&token) {
            self.counters.withheld.add(1);
            self.settle(held, false);
        }
    }

    fn settle(&mut self, held: Held, in_force: bool) {
        let Some((delivery, otherwise)) = held.replies else {
            return;
        };
        self.counters.waiting.take(1);
        self.pass(Some(if in_force {
            delivery
        } else {
            Delivery {
                message: otherwise,
                ..delivery
            }
        }));
    }

    /// When [`Observer::tick`] is wanted.
    #[must_use]
    pub fn due(&self) -> Option<u64> {
        self.deadlines.front().map(|(due, _)| *due)
    }

    /// Does what is due.
    pub fn tick(&mut self, now: u64) {
        while let Some((due, token)) = self.deadlines.front().copied()
            && due <= now
        {
            self.deadlines.pop_front();
            match self.held.get(&token) {
                Some(Held {
                    replies: Some(_), ..
                }) => self.refused(token),
                // Only its time was wanted.
                Some(Held { replies: None, .. }) | None => drop(self.held.remove(&token)),
            }
        }
        self.forget_settled();
    }

    fn forget_settled(&mut self) {
        while let Some((_, token)) = self.deadlines.front()
            && !self.held.contains_key(token)
        {
            self.deadlines.pop_front();
        }
    }

    /// Copies were lost: what was under way over TCP cannot be followed any more.
    pub fn lost(&mut self) {
        self.counters.lost.add(1);
        self.streams.clear();
    }
}

/// Whether `from` is a resolver's port 53.
fn is_resolver(rules: &Rules, from: SocketAddr) -> bool {
    let observed = rules.intent().observed.as_ref();
    from.port() == DNS && observed.is_some_and(|by| by.resolvers.contains(&from.ip()))
}

fn is_upstream(rules: &Rules, interface: u32) -> bool {
    let link = rules.links().0.get(&interface);
    link.is_some_and(|link| {
        let mut upstream = rules.intent().upstream.iter();
        upstream.any(|pattern| pattern.matches(&link.name))
    })
}

/// SERVFAIL with an extended error.
fn fault(question: &Question, why: &str) -> Vec<u8> {
    let mut out = Vec::new();
    let why = Some(Extended::other(why));
    let asked = question.asked();
    asked.bare(rcode::SERVFAIL, why, asked.udp_limit(), &mut out);
    out
}
