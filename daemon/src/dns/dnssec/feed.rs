//! What the validator asks, passed on to the edge. It sees no socket and no cache of its own.

use super::{Need, Word};
use hickory_net::proto::op::{DnsRequest, DnsResponse, Message, Query};
use hickory_net::proto::serialize::binary::BinEncodable;
use hickory_net::runtime::TokioRuntimeProvider;
use hickory_net::{DnsHandle, NetError};
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering::Relaxed};
use tokio::sync::mpsc::UnboundedSender;
use tokio::sync::oneshot;

/// Most questions of one validation, those that the cache answers included.
const MOST_QUESTIONS: u32 = 256;

/// Most look-ups of one validation that go to an upstream.
const MOST_LOOKUPS: u32 = 32;

/// Most signatures in one message: each may cost a check under two keys (CVE-2023-50387).
const MOST_SIGNATURES: usize = 64;

/// Most records in one message.
const MOST_RECORDS: usize = 1024;

/// What one validation may still ask.
#[derive(Debug)]
pub(in crate::dns) struct Budget {
    questions: AtomicU32,
    lookups: AtomicU32,
    /// A question of it found no answer: what cannot be proven may be the network's fault.
    trouble: AtomicBool,
}

impl Budget {
    pub(super) fn new() -> Self {
        Self {
            questions: AtomicU32::new(MOST_QUESTIONS),
            lookups: AtomicU32::new(MOST_LOOKUPS),
            trouble: AtomicBool::new(false),
        }
    }

    /// Takes one look-up that goes to an upstream.
    pub(in crate::dns) fn look_up(&self) -> bool {
        spend(&self.lookups)
    }

    pub(super) fn had_trouble(&self) -> bool {
        self.trouble.load(Relaxed)
    }
}

fn spend(left: &AtomicU32) -> bool {
    left.fetch_update(Relaxed, Relaxed, |left| left.checked_sub(1))
        .is_ok()
}

/// Answers the validator: with the message that is to be proven, and else with what the edge finds.
#[derive(Clone)]
pub(super) struct Feed {
    words: UnboundedSender<Word>,
    budget: Arc<Budget>,
    /// What is to be proven, under its question.
    subject: Option<(Query, Arc<Message>)>,
}

impl Feed {
    pub(super) fn new(words: UnboundedSender<Word>, budget: Arc<Budget>) -> Self {
        Self {
            words,
            budget,
            subject: None,
        }
    }

    /// The same for a validator that is to prove `message`.
    pub(super) fn proving(&self, query: Query, message: Message) -> Self {
        Self {
            subject: Some((query, Arc::new(message))),
            ..self.clone()
        }
    }

    /// Looks `query` up. Nothing of the answer is proven.
    pub(super) fn ask(
        &self,
        query: Query,
    ) -> impl Future<Output = Result<Message, NetError>> + Send + 'static {
        let this = self.clone();
        async move {
            if let Some((subject, message)) = &this.subject
                && *subject == query
            {
                return Ok(Message::clone(message));
            }
            let answer = this.look_up(&query).await;
            if answer.is_err() {
                this.budget.trouble.store(true, Relaxed);
            }
            answer
        }
    }

    async fn look_up(&self, query: &Query) -> Result<Message, NetError> {
        if !spend(&self.budget.questions) {
            return Err(NetError::Message("too many questions for one proof"));
        }
        let (reply, answer) = oneshot::channel();
        let need = Need {
            name: query.name().to_lowercase().to_bytes()?,
            kind: query.query_type().into(),
            budget: Arc::clone(&self.budget),
            reply,
        };
        let gone = NetError::Message("the edge has no answer");
        if self.words.send(Word::Need(need)).is_err() {
            return Err(gone);
        }
        let bytes = answer.await.map_err(|_| gone)?;
        read(&bytes).ok_or(NetError::Message("the answer is malformed"))
    }
}

/// Reads a message that is small enough to be checked.
pub(super) fn read(bytes: &[u8]) -> Option<Message> {
    let counts = bytes.get(6..12)?.chunks_exact(2);
    let records: usize = counts
        .map(|two| usize::from(u16::from_be_bytes([two[0], two[1]])))
        .sum();
    if records > MOST_RECORDS {
        return None;
    }
    let message = Message::from_vec(bytes).ok()?;
    let signatures = message
        .all_sections()
        .filter(|record| record.record_type().is_rrsig())
        .count();
    (signatures <= MOST_SIGNATURES && message.queries.len() == 1).then_some(message)
}

type Answers =
    futures_util::stream::Once<Pin<Box<dyn Future<Output = Result<DnsResponse, NetError>> + Send>>>;

impl DnsHandle for Feed {
    type Response = Answers;
    /// For its clock alone.
    type Runtime = TokioRuntimeProvider;

    fn send(&self, request: DnsRequest) -> Answers {
        let query = request.queries.first().cloned();
        let this = self.clone();
        futures_util::stream::once(Box::pin(async move {
            let query = query.ok_or(NetError::Message("no question"))?;
            let message = this.ask(query).await?;
            Ok(DnsResponse::from_message(message.into_response())?)
        }))
    }
}
