//! What the edge does for the validator: messages wait for their proof, and its questions are asked.

use super::super::Token;
use super::super::cache::Key;
use super::super::dnssec::{Done, Job, Need, Unproven};
use super::super::lookups::{Finished, Subject};
use super::super::message::{Extended, Question, Variant};
use super::super::shares::Shares;
use super::super::view::View;
use super::super::waiter::{Origin, Purpose, Waiter};
use super::Engine;
use crate::policy::answer::wire::{IN, kind};
use crate::policy::name::Name;
use std::collections::BTreeMap;
use std::net::IpAddr;
use std::rc::Rc;

/// Most messages that wait for their proof.
const MOST_PARKED: usize = 4096;

/// The bit AD, in a message's fourth byte.
const AD: u8 = 0x20;

/// What is asked where signatures are checked here.
const RAW: Variant = Variant {
    dnssec: true,
    checking_disabled: true,
    proven: true,
};

/// Messages that wait for their proof, with who waits for them.
#[derive(Default)]
pub(super) struct Proving {
    parked: BTreeMap<Token, Parked>,
    by_key: BTreeMap<Rc<[u8]>, Token>,
    /// Of those who wait first for a message.
    shares: Shares,
    next: u64,
}

struct Parked {
    key: Rc<[u8]>,
    waiters: Vec<Waiter>,
    /// Whose share it is.
    charged: Option<IpAddr>,
}

impl Engine {
    /// Whether an answer about `name` is proven before it is told.
    fn proves(&self, name: &Name) -> bool {
        let Some(validator) = &self.parts.validator else {
            return false;
        };
        let (_, forward) = self.parts.settings.route(name);
        forward.is_none_or(|forward| forward.teach) && !validator.exempts(name)
    }

    /// What is asked upstream for `name`, where its client asked so.
    pub(super) fn variant(&self, name: &Name, asked: Variant) -> Variant {
        if self.proves(name) { RAW } else { asked }
    }

    /// Lets `waiter` wait for a proof under way, if there is one; else gives it back.
    pub(super) fn join(&mut self, waiter: Waiter) -> Option<Waiter> {
        let token = self.proving.by_key.get(waiter.key.question());
        match token.and_then(|token| self.proving.parked.get_mut(token)) {
            Some(parked) => parked.waiters.push(waiter),
            None => return Some(waiter),
        }
        None
    }

    /// Does with an upstream's message what must be done before it is told. Gives it back where
    /// nothing must.
    pub(super) fn prove(
        &mut self,
        finished: Finished<Waiter>,
        now: u64,
    ) -> Option<Finished<Waiter>> {
        let Finished {
            key,
            waiters,
            outcome: Ok(mut message),
        } = finished
        else {
            return Some(finished);
        };
        let first = waiters.first()?;
        if let Origin::Validator(_) = &first.origin {
            self.deliver(key, waiters, message, now);
            return None;
        }
        if !self.proves(&first.question.name) {
            if self.parts.validator.is_some() {
                // AD is our word then, and an upstream's is not.
                message[3] &= !AD;
            }
            return Some(Finished {
                key,
                waiters,
                outcome: Ok(message),
            });
        }
        let asked = first.question.asked();
        let (dnssec, itself) = (asked.dnssec(), asked.dnssec() && asked.checking_disabled());
        let token = Token(self.proving.next);
        self.proving.next += 1;
        let job = Job {
            token,
            message,
            dnssec,
            // Not for who checks signatures itself (RFC 6147 §5.5).
            dns64: self.parts.settings.dns64.filter(|_| !itself),
        };
        // Half of what is free at most, so that whoever takes all it can get leaves some to others.
        let free = MOST_PARKED.saturating_sub(self.proving.parked.len());
        let charged = first.origin.client().map(|client| client.address());
        let shares = &mut self.proving.shares;
        let room = free > 0 && charged.is_none_or(|of| shares.take(of, free.div_ceil(2), free));
        let validator = self.parts.validator.as_ref().filter(|_| room);
        if !validator.is_some_and(|validator| validator.begin(job)) {
            if let Some(of) = charged.filter(|_| room) {
                self.proving.shares.give_back(of);
            }
            self.fail(
                waiters,
                Extended::other("too many answers wait for a proof"),
            );
            return None;
        }
        self.proving.by_key.insert(Rc::clone(&key), token);
        let parked = Parked {
            key,
            waiters,
            charged,
        };
        self.proving.parked.insert(token, parked);
        None
    }

    /// Gives an unproven message to the validator and keeps it for the next who needs it, under a key
    /// that no client's question has.
    fn deliver(&mut self, key: Rc<[u8]>, waiters: Vec<Waiter>, message: Vec<u8>, now: u64) {
        let Some(first) = waiters.first() else { return };
        let ceiling = self.parts.rules.load().intent().limits.ttl_ceiling;
        let length = first.question.asked().wire.len();
        for waiter in waiters {
            if let Origin::Validator(reply) = waiter.origin {
                // A proof that ended in time needs it no more.
                let _ = reply.send(message.clone().into());
            }
        }
        if let Ok(view) = View::passed(&message, length, ceiling) {
            self.cache.keep(key, message, view.lifetime(), now);
        }
    }

    /// A question of the validator's.
    pub(in crate::dns) fn need(&mut self, need: Need) {
        let Ok(name) = Name::from_wire(&need.name) else {
            return;
        };
        let now = self.clock.now();
        let question = Question::own(&name, need.kind);
        let key = Key::raw(&question.asked()).keep();
        if let Some(said) = self.cache.fresh(&key, now) {
            let _ = need.reply.send(said.message.clone());
            return;
        }
        if !need.budget.look_up() {
            return;
        }
        // Whether a zone is signed is for the one above it to say.
        let above = || Name::from_wire(name.parents().next()?).ok();
        let asked = if need.kind == kind::DS { above() } else { None };
        let (group, _) = self.parts.settings.route(asked.as_ref().unwrap_or(&name));
        let wire = [name.wire(), &need.kind.to_be_bytes(), &IN.to_be_bytes()].concat();
        let waiter = Waiter {
            origin: Origin::Validator(need.reply),
            question,
            key: key.clone(),
            purpose: Purpose::Pass,
            epoch: self.epoch(),
        };
        self.lookups.begin(key.question(), waiter, now, || {
            let subject = Subject {
                kind: need.kind,
                variant: RAW,
                group,
            };
            (subject, wire)
        });
        self.take_finished();
    }

    /// The end of a proof.
    pub(in crate::dns) fn proved(&mut self, done: Done) {
        let Some(parked) = self.proving.parked.remove(&done.token) else {
            return;
        };
        let Parked { key, waiters, .. } = parked;
        if let Some(of) = parked.charged {
            self.proving.shares.give_back(of);
        }
        self.proving.by_key.remove(&key);
        let now = self.clock.now();
        match done.outcome {
            Ok(message) => {
                if let Some(lifetime) = self.conclude(waiters, &message, now, false) {
                    self.cache.keep(key, message, lifetime, now);
                }
            }
            Err(Unproven::Trouble(why)) => self.give_up(waiters, why, now),
            Err(Unproven::Bogus(why)) => {
                self.counters().bogus.add(1);
                if let Some(first) = waiters.first() {
                    log::debug!(target: "dns", "{}: bogus: {}", first.question.name, why.text);
                }
                self.fail(waiters, why);
            }
        }
    }

    /// The validator is gone: nothing can be proven any more.
    pub(in crate::dns) fn unproven(&mut self) {
        self.proving.by_key.clear();
        self.proving.shares = Shares::default();
        for (_, parked) in std::mem::take(&mut self.proving.parked) {
            self.fail(parked.waiters, Extended::other("nothing can be proven"));
        }
    }
}
