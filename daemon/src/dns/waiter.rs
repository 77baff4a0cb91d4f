//! Who waits for an answer, as values.

use super::cache::Kept;
use super::clients::Client;
use super::course::Course;
use super::message::Question;
use super::view::View;
use crate::policy::ZoneId;
use crate::policy::answer::Answer;
use std::net::IpAddr;
use tokio::sync::oneshot;

/// Where a question came from.
pub(super) enum Origin {
    Client(Client),
    /// The gateway itself, for a name that its policy lists.
    Own,
    /// The cache, for a reply that is nearly over and still asked for.
    Refresh,
    /// The validator, which takes the message as it is.
    Validator(oneshot::Sender<Box<[u8]>>),
    /// The daemon itself, which goes there next.
    Daemon(oneshot::Sender<Vec<IpAddr>>),
}

impl Origin {
    pub(super) fn client(&self) -> Option<&Client> {
        match self {
            Self::Client(client) => Some(client),
            Self::Own | Self::Refresh | Self::Validator(_) | Self::Daemon(_) => None,
        }
    }
}

/// What an answer is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Purpose {
    /// It is granted to the zone before it leaves.
    Teach(ZoneId),
    /// It is passed on and grants nothing.
    Pass,
    /// The same, and it is told each time, because the zone is in audit mode.
    Audit,
}

impl Purpose {
    /// What a course that goes on is for.
    pub(super) fn of(course: Course) -> Option<Self> {
        match course {
            Course::Teach(zone) => Some(Self::Teach(zone)),
            Course::Pass => Some(Self::Pass),
            Course::Audit(_) => Some(Self::Audit),
            Course::Refuse(_) => None,
        }
    }

    pub(super) fn zone(self) -> Option<ZoneId> {
        match self {
            Self::Teach(zone) => Some(zone),
            Self::Pass | Self::Audit => None,
        }
    }
}

/// A question that waits for its answer.
pub(super) struct Waiter {
    pub(super) origin: Origin,
    pub(super) question: Question,
    pub(super) key: Kept,
    pub(super) purpose: Purpose,
    /// The epoch in which the key's zone and the purpose were decided on.
    pub(super) epoch: u64,
}

/// An answer that waits for the planes, with all who wait for it.
pub(super) struct Held {
    pub(super) waiters: Vec<Waiter>,
    pub(super) view: View,
    pub(super) answer: Answer,
    /// When the upstream said it, in milliseconds of the edge's clock.
    pub(super) born: u64,
    /// The epoch in which all of this was decided; `None` where not all of it was in one.
    pub(super) epoch: Option<u64>,
    /// When the wait is over.
    pub(super) due: u64,
}
