//! The DNS edge: bytes in, events out. Answers wait here until the loop says they are in force.

use crate::policy::ZoneId;
use crate::policy::answer::Answer;

/// Names one waiting answer between the edge and the loop.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Token(pub u64);

/// An answer that waits for the kernel.
#[derive(Clone, Debug)]
pub struct Waiting {
    /// Whose client asked.
    pub zone: ZoneId,
    /// What it was told, hygiene done.
    pub answer: Answer,
    /// To name it by.
    pub token: Token,
}

/// The loop's word on a waiting answer.
#[derive(Clone, Debug)]
pub struct Release {
    /// Which.
    pub token: Token,
    /// Every plane holds its addresses, or why the client must get SERVFAIL.
    pub outcome: Result<(), String>,
}
