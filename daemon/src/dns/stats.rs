//! Counters of the edge: written by its thread, read by anyone.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

macro_rules! counters {
    ($($(#[$doc:meta])* $name:ident,)*) => {
        /// What happened at the edge since it started.
        #[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
        pub struct Stats {
            $($(#[$doc])* pub $name: u64,)*
        }

        #[derive(Debug, Default)]
        pub(super) struct Counters {
            $(pub(super) $name: Count,)*
        }

        impl Counters {
            pub(super) fn read(&self) -> Stats {
                Stats { $($name: self.$name.0.load(Relaxed),)* }
            }
        }
    };
}

counters! {
    /// Messages from clients.
    questions,
    /// Replies with what an upstream said, now or before.
    answers,
    /// Those of them that the cache gave, without asking anybody.
    cached,
    /// Answers of the cache that were fetched anew before their end.
    prefetched,
    /// Answers told beyond their end because no upstream answered.
    stale,
    /// Questions that policy refuses, those of zones in audit mode included: they go on all the same.
    refused,
    /// Messages from clients that were no well-formed questions.
    malformed,
    /// Messages from upstreams that match no question, and were ignored.
    forged,
    /// Replies from upstreams after their question was settled, ignored.
    late,
    /// SERVFAIL replies, whatever the reason.
    servfail,
    /// Answers that are not signed as they should be: SERVFAIL, and nothing learned.
    bogus,
    /// Questions that no upstream answered in time.
    timeouts,
    /// Answers that the planes did not take in time, or refused; in audit mode they leave anyway.
    withheld,
    /// Records removed from answers.
    removed,
    /// Questions dropped because too many were open already.
    shed,
    /// Questions sent to upstreams, repetitions included.
    asked,
    /// Questions open now: asked upstream or waiting for the planes.
    open,
    /// Answers that wait for the planes now.
    waiting,
}

#[derive(Debug, Default)]
pub(super) struct Count(AtomicU64);

impl Count {
    /// Only the edge's thread writes, so no read-modify-write is needed.
    pub(super) fn add(&self, more: u64) {
        self.0.store(self.0.load(Relaxed) + more, Relaxed);
    }

    pub(super) fn take(&self, less: u64) {
        self.0
            .store(self.0.load(Relaxed).saturating_sub(less), Relaxed);
    }

    /// The count.
    pub(super) fn get(&self) -> u64 {
        self.0.load(Relaxed)
    }

    pub(super) fn set(&self, value: u64) {
        self.0.store(value, Relaxed);
    }
}
