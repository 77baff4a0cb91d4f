//! Replies that are told again: from the cache, while the kernel is known to allow them.

use super::{Engine, MOST_OPEN};
use crate::dns::Token;
use crate::dns::cache::{Kept, Key, Ready, lease};
use crate::dns::clients::Client;
use crate::dns::course::decide;
use crate::dns::message::{Asked, Question};
use crate::dns::view::View;
use crate::dns::waiter::{Origin, Purpose, Waiter};
use crate::policy::ZoneId;
use crate::policy::answer::Answer;
use crate::policy::rules::Rules;
use std::cell::Cell;

impl Engine {
    /// Answers from the cache, without a word to the loop but for the lease.
    pub(super) fn tell_again(
        &mut self,
        client: &Client,
        asked: &Asked<'_>,
        zone: Option<ZoneId>,
        key: &Key,
        rules: &Rules,
    ) -> bool {
        let now = self.clock.now();
        let Some(ready) = self.cache.ready(key, self.epoch(), now) else {
            return false;
        };
        let limit = client.limit(asked);
        self.parts.counters.answers.add(1);
        self.parts.counters.cached.add(1);
        ready
            .view
            .write(asked, ready.age(now), limit, &mut self.out);
        self.clients.send(client, &self.out);
        let limits = rules.intent().limits;
        let renewal = ready.renewal(now, limits);
        let refresh = ready.wants_refresh(now);
        if let (Some(zone), Some(answer)) = (zone, renewal) {
            self.renew(zone, answer, Token::TOLD);
        }
        if refresh && let Ok(question) = asked.keep() {
            self.refresh(zone, question, key.keep());
        }
        true
    }

    pub(super) fn refresh(&mut self, zone: Option<ZoneId>, question: Question, key: Kept) {
        let epoch = self.epoch();
        let rules = self.parts.rules.load();
        let course = decide(&rules, &self.parts.settings, zone, &question);
        let (Some(purpose), true) = (Purpose::of(course), self.lookups.len() < MOST_OPEN) else {
            return;
        };
        self.counters().prefetched.add(1);
        let origin = Origin::Refresh;
        self.look_up(Waiter {
            origin,
            question,
            key,
            purpose,
            epoch,
        });
    }

    pub(super) fn make_ready(
        &mut self,
        key: &Kept,
        view: View,
        answer: Option<Answer>,
        (born, epoch): (u64, u64),
        told: bool,
    ) {
        let limits = self.parts.rules.load().intent().limits;
        let ready = Ready {
            leased: Cell::new(lease(born, view.lifetime(), limits)),
            view,
            born,
            epoch,
            answer,
            refreshing: Cell::new(false),
            told: Cell::new(told),
        };
        self.cache.make_ready(key, ready);
    }
}
