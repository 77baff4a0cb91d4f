//! What goes over a connection to an upstream, whatever carries it: which questions wait for their
//! replies, and how long to wait. Pure: time is an argument.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;
use tokio::sync::mpsc::UnboundedReceiver;
use tokio::time::Instant;

/// How long a connection stays open without a question.
const IDLE: Duration = Duration::from_secs(10);

/// One conversation with an upstream, over one connection after the other.
pub(super) struct Conversation<R> {
    pub(super) questions: UnboundedReceiver<Box<[u8]>>,
    reply: R,
    unanswered: BTreeMap<u16, (Instant, Box<[u8]>)>,
    /// When each was asked, oldest first; those that were answered since are left in.
    asked: VecDeque<(Instant, u16)>,
    /// When something was last asked or heard.
    last: Instant,
    /// When something was last heard over this connection.
    heard: Option<Instant>,
    patience: Duration,
}

/// What is to be done when the time of [`Conversation::deadline`] has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Due {
    /// Go on waiting.
    Nothing,
    /// Close: nobody asks.
    Idle,
    /// Give up: the other side takes questions and does not answer.
    Stalled,
}

impl<R: FnMut(&[u8])> Conversation<R> {
    /// `patience` is how long a question may wait; every reply is handed to `reply`.
    pub(super) fn new(
        questions: UnboundedReceiver<Box<[u8]>>,
        patience: Duration,
        now: Instant,
        reply: R,
    ) -> Self {
        Self {
            questions,
            reply,
            unanswered: BTreeMap::new(),
            asked: VecDeque::new(),
            last: now,
            heard: None,
            patience,
        }
    }

    /// Notes that `question` goes out.
    pub(super) fn ask(&mut self, question: Box<[u8]>, now: Instant) {
        if let Some(id) = id(&question) {
            self.unanswered.insert(id, (now, question));
            self.asked.push_back((now, id));
        }
        self.last = now;
    }

    /// Takes in a message of the other side.
    pub(super) fn hear(&mut self, message: &[u8], now: Instant) {
        if let Some(id) = id(message) {
            self.unanswered.remove(&id);
        }
        (self.last, self.heard) = (now, Some(now));
        (self.reply)(message);
    }

    /// When [`Conversation::due`] may have something to say.
    pub(super) fn deadline(&mut self) -> Instant {
        match self.oldest() {
            Some(asked) => asked + self.longest(),
            None => self.last + IDLE,
        }
    }

    pub(super) fn due(&mut self, now: Instant) -> Due {
        let longest = self.longest();
        while let Some(asked) = self.oldest()
            && asked + longest <= now
        {
            if self.heard.is_none_or(|heard| heard < asked) {
                return Due::Stalled;
            }
            // Others were answered: this one never will be.
            if let Some((_, id)) = self.asked.pop_front() {
                self.unanswered.remove(&id);
            }
        }
        if self.unanswered.is_empty() && self.last + IDLE <= now {
            return Due::Idle;
        }
        Due::Nothing
    }

    /// The connection ended under the questions that wait. Those worth asking again over a fresh one:
    /// none if this one never gave a reply. An upstream that closes an idle connection just when it
    /// is asked (RFC 7766 §6.2.4) costs nobody an answer this way.
    pub(super) fn again(&mut self, now: Instant) -> Vec<Box<[u8]>> {
        let (heard, patience) = (self.heard.take(), self.patience);
        self.asked.clear();
        let waiting = std::mem::take(&mut self.unanswered).into_values();
        waiting
            .filter(|(asked, _)| heard.is_some() && now < *asked + patience)
            .map(|(_, question)| question)
            .collect()
    }

    /// Whether a question waits for its reply.
    pub(super) fn is_waiting(&self) -> bool {
        !self.unanswered.is_empty()
    }

    /// Whether this connection gave a reply.
    pub(super) fn was_heard(&self) -> bool {
        self.heard.is_some()
    }

    pub(super) fn patience(&self) -> Duration {
        self.patience
    }

    /// A slow answer to one question is no reason to drop a connection others wait on.
    fn longest(&self) -> Duration {
        2 * self.patience
    }

    /// When the oldest question that waits was asked.
    fn oldest(&mut self) -> Option<Instant> {
        while let Some((asked, id)) = self.asked.front() {
            if self.unanswered.get(id).is_some_and(|(at, _)| at == asked) {
                return Some(*asked);
            }
            self.asked.pop_front();
        }
        None
    }
}

/// The id of a message.
pub(super) fn id(message: &[u8]) -> Option<u16> {
    message.first_chunk().copied().map(u16::from_be_bytes)
}

#[cfg(test)]
#[expect(
    clippy::disallowed_methods,
    reason = "tests need some time to begin at"
)]
mod tests {
    use super::*;
    use tokio::sync::mpsc::unbounded_channel;

    fn question(id: u8) -> Box<[u8]> {
        Box::new([0, id, 1])
    }

    const PATIENCE: Duration = Duration::from_secs(2);

    #[test]
    fn connections_end_in_time() {
        let begin = Instant::now();
        let at = |seconds| begin + Duration::from_secs(seconds);
        let (_queue, questions) = unbounded_channel();
        let mut talk = Conversation::new(questions, PATIENCE, begin, |_: &[u8]| {});
        assert_eq!((talk.deadline(), talk.due(at(9))), (at(10), Due::Nothing));
        assert_eq!(talk.due(at(10)), Due::Idle);
        talk.ask(question(1), at(10));
        assert_eq!((talk.deadline(), talk.due(at(13))), (at(14), Due::Nothing));
        assert_eq!(talk.due(at(14)), Due::Stalled);
        // Another is answered: the connection lives, and nobody waits for the first any more.
        talk.ask(question(2), at(11));
        talk.hear(&[0, 2, 9], at(12));
        assert_eq!((talk.deadline(), talk.due(at(14))), (at(14), Due::Nothing));
        assert!(!talk.is_waiting());
        assert_eq!((talk.deadline(), talk.due(at(22))), (at(22), Due::Idle));
    }

    #[test]
    fn a_question_is_asked_again_only_after_a_reply() {
        let begin = Instant::now();
        let at = |seconds| begin + Duration::from_secs(seconds);
        let (_queue, questions) = unbounded_channel();
        let mut heard = Vec::new();
        let mut talk = Conversation::new(questions, PATIENCE, begin, |message: &[u8]| {
            heard.push(message.to_vec());
        });
        talk.ask(question(1), at(0));
        assert!(
            talk.again(at(0)).is_empty(),
            "it may be a server that never answers"
        );
        talk.ask(question(2), at(1));
        talk.ask(question(3), at(1));
        talk.hear(&[0, 2], at(1));
        talk.ask(question(4), at(3));
        // 3 is too old: its client was told.
        assert_eq!(talk.again(at(3)), [question(4)]);
        assert!(!talk.is_waiting() && !talk.was_heard());
        assert_eq!(heard, [[0, 2]]);
    }
}
