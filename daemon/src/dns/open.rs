//! An open question as a value.

use super::clients::Client;
use super::message::Question;
use super::outstanding::Key;
use crate::policy::ZoneId;

/// A question from its arrival to its reply.
pub(super) struct Open {
    pub(super) client: Client,
    pub(super) question: Question,
    /// Its wire form with the letter case that upstreams must repeat.
    pub(super) cased: Box<[u8]>,
    /// The zone it teaches, if any.
    pub(super) zone: Option<ZoneId>,
    /// Its deadline.
    pub(super) due: u64,
    pub(super) stage: Stage,
}

pub(super) enum Stage {
    Asking(Asking),
    /// The reply waits for the planes.
    Held(Vec<u8>),
}

/// A question that upstreams are asked.
#[derive(Default)]
pub(super) struct Asking {
    pub(super) tries: u32,
    /// One bit per upstream that was asked in this round.
    pub(super) round: u64,
    /// When the next upstream is asked as well.
    pub(super) race_at: u64,
    pub(super) attempts: Vec<Attempt>,
}

/// A question under way to one upstream.
pub(super) struct Attempt {
    /// Where it went, and under which id.
    pub(super) key: Key,
    pub(super) upstream: usize,
    pub(super) deadline: u64,
}

impl Open {
    /// When something has to be done; `hold_until` counts for replies that wait.
    pub(super) fn next_due(&self, hold_until: u64) -> u64 {
        match &self.stage {
            Stage::Held(_) => hold_until,
            Stage::Asking(asking) => {
                let deadlines = asking.attempts.iter().map(|attempt| attempt.deadline);
                deadlines.fold(asking.race_at, u64::min)
            }
        }
    }
}
