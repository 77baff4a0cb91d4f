//! Look-ups of our own: exact names that no client asked for.

use super::Engine;
use crate::dns::Token;
use crate::dns::cache::{Key, Stored};
use crate::dns::message::Question;
use crate::dns::own::{Outcome, Target};
use crate::dns::waiter::{Origin, Purpose, Waiter};
use crate::policy::name::Name;
use crate::policy::rules::Rules;
use std::net::IpAddr;
use std::sync::Arc;
use tokio::sync::oneshot;

/// Milliseconds between looks whether the rules changed.
const FOLLOW: u64 = 1000;

impl Engine {
    /// Begins the look-ups of our own that are due.
    pub(super) fn pursue(&mut self, now: u64) {
        if !self.parts.settings.own_lookups {
            return;
        }
        if self.follow_at <= now {
            self.follow_at = now + FOLLOW;
            let rules = self.parts.rules.load_full();
            let same = |old: &Arc<Rules>| Arc::ptr_eq(old, &rules);
            if !self.followed.as_ref().is_some_and(same) {
                self.own.follow(&rules, now);
                self.followed = Some(rules);
                self.tell_unresolved();
            }
        }
        // Before the rules, as everywhere; what older rules list is good for no epoch.
        let epoch = self.epoch();
        let rules = self.parts.rules.load_full();
        let followed = self.followed.as_ref();
        let epoch = match followed.is_some_and(|old| Arc::ptr_eq(old, &rules)) {
            true => epoch,
            false => u64::MAX,
        };
        while let Some(target) = self.own.next(now) {
            let (_, forward) = self.parts.settings.route(&target.name);
            if forward.is_some_and(|forward| !forward.teach) {
                let chance = self.lookups.chance().id();
                self.own.settle(&target, Outcome::Nothing, now, chance);
                continue;
            }
            let question = Question::own(&target.name, target.kind);
            let key = Key::new(Some(target.zone), &question.asked()).keep();
            let waiter = Waiter {
                origin: Origin::Own,
                question,
                key,
                purpose: Purpose::Teach(target.zone),
                epoch,
            };
            // Another zone may just have asked; else the time of what is known is nearly over.
            let young = |said: &Stored| now - said.born < said.until - now;
            match self.cache.fresh(&waiter.key, now) {
                Some(said) if young(said) => self.seek(waiter),
                Some(_) | None => self.look_up(waiter),
            }
        }
    }

    /// A question of the daemon's own, which goes to what it is told.
    pub(in crate::dns) fn resolve(
        &mut self,
        name: &Name,
        kind: u16,
        reply: oneshot::Sender<Vec<IpAddr>>,
    ) {
        let epoch = self.epoch();
        let local = self.parts.rules.load().local();
        let question = Question::own(name, kind);
        let key = Key::new(local, &question.asked()).keep();
        self.seek(Waiter {
            origin: Origin::Daemon(reply),
            question,
            key,
            purpose: local.map_or(Purpose::Pass, Purpose::Teach),
            epoch,
        });
    }

    /// Tells the schedule how a look-up of its own ended; only the first word counts.
    pub(super) fn settle_own(
        &mut self,
        waiter: &Waiter,
        outcome: impl FnOnce() -> Outcome,
        now: u64,
    ) {
        let (Origin::Own, Some(zone)) = (&waiter.origin, waiter.purpose.zone()) else {
            return;
        };
        let target = Target {
            zone,
            name: waiter.question.name.clone(),
            kind: waiter.question.kind,
        };
        let chance = self.lookups.chance().id();
        if let Some(answer) = self.own.settle(&target, outcome(), now, chance) {
            self.renew(zone, answer, Token::NOBODY);
        }
        self.tell_unresolved();
    }

    pub(super) fn tell_unresolved(&mut self) {
        if let Some(names) = self.own.unresolved() {
            self.parts.unresolved.store(Arc::new(names));
        }
    }
}
