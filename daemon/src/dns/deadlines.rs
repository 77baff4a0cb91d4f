//! When something has to be done about an open question. Pure: time is an argument.

use super::Token;
use std::collections::BTreeSet;
use std::rc::Rc;
use tokio::sync::Notify;

/// The deadlines of all open questions, one each, in milliseconds of the edge's clock.
pub(super) struct Deadlines {
    due: BTreeSet<(u64, Token)>,
    /// What the time keeper sleeps until.
    armed: u64,
    alarm: Rc<Notify>,
}

impl Deadlines {
    /// `alarm` is rung when a deadline comes up that is earlier than the one [`Deadlines::arm`]
    /// gave.
    pub(super) fn new(alarm: Rc<Notify>) -> Self {
        Self {
            due: BTreeSet::new(),
            armed: 0,
            alarm,
        }
    }

    /// Replaces the deadline `was` of `token` by `now`.
    pub(super) fn set(&mut self, token: Token, was: u64, now: u64) {
        self.due.remove(&(was, token));
        self.due.insert((now, token));
        if now < self.armed {
            self.armed = now;
            self.alarm.notify_one();
        }
    }

    pub(super) fn remove(&mut self, token: Token, was: u64) {
        self.due.remove(&(was, token));
    }

    /// Gives the first deadline, or `other` if that is sooner, and takes it that the caller will be
    /// back then.
    pub(super) fn arm(&mut self, other: Option<u64>) -> Option<u64> {
        let first = self.due.first().map(|(due, _)| *due);
        let next = first.into_iter().chain(other).min();
        self.armed = next.unwrap_or(u64::MAX);
        next
    }

    /// Takes out one question that is due at `now`.
    pub(super) fn pop(&mut self, now: u64) -> Option<Token> {
        let (due, token) = *self.due.first()?;
        (due <= now).then(|| {
            self.due.pop_first();
            token
        })
    }
}
