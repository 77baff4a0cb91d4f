//! DNSSEC: proves what upstreams say before anybody learns from it, on a thread of its own so that no
//! signature keeps clients waiting who do not need it. It asks through the edge and keeps only keys.
#![expect(
    clippy::disallowed_methods,
    reason = "shell: signatures are good until a date, keys until their TTL ends"
)]

mod chain;
mod feed;
mod prove;
mod wildcard;

use super::Token;
use super::message::Extended;
use crate::config::DnssecSettings;
use crate::policy::name::Name;
use crate::policy::nat64::Prefix;
use anyhow::Context;
pub(super) use feed::Budget;
use feed::Feed;
use prove::Prover;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};
use tokio::sync::oneshot;
use tokio::task::LocalSet;

/// A message that is to be proven.
#[derive(Debug)]
pub(super) struct Job {
    pub(super) token: Token,
    pub(super) message: Vec<u8>,
    /// Whether who asked wants signatures.
    pub(super) dnssec: bool,
    /// The prefix that IPv6 addresses are made with where there are none.
    pub(super) dns64: Option<Prefix>,
}

/// What the validator says to the edge.
#[derive(Debug)]
pub(super) enum Word {
    Need(Need),
    Done(Done),
}

/// A question of the validator's, to be asked with DO and CD.
#[derive(Debug)]
pub(super) struct Need {
    /// In lower case, wire form.
    pub(super) name: Vec<u8>,
    pub(super) kind: u16,
    pub(super) budget: Arc<Budget>,
    /// Takes the message; dropped where there is none.
    pub(super) reply: oneshot::Sender<Box<[u8]>>,
}

/// How a job ended.
#[derive(Debug)]
pub(super) struct Done {
    pub(super) token: Token,
    /// The message made anew of what was proven and nothing else. AD says whether all of it is
    /// signed.
    pub(super) outcome: Result<Vec<u8>, Unproven>,
}

/// Why a message may not be told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Unproven {
    /// It should be signed and is not, or not well.
    Bogus(Extended<'static>),
    /// What the proof needs could not be had.
    Trouble(Extended<'static>),
}

/// The way to the validator.
pub(super) struct Validator {
    jobs: UnboundedSender<Job>,
    insecure: Arc<[Name]>,
}

impl Validator {
    /// Starts its thread. A job takes at most `patience`. The thread ends with the last `Validator`.
    pub(super) fn start(
        settings: &DnssecSettings,
        patience: Duration,
    ) -> anyhow::Result<(Self, UnboundedReceiver<Word>)> {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_time()
            .build()
            .context("start the validator's runtime")?;
        let (jobs, mut received) = unbounded_channel();
        let (words, heard) = unbounded_channel();
        let insecure: Arc<[Name]> = settings.insecure.clone().into();
        let anchors = settings.anchors.keys();
        let exempt = Arc::clone(&insecure);
        let serve = async move || {
            let prover = Rc::new(Prover::new(anchors, exempt));
            while let Some(job) = received.recv().await {
                let (prover, words) = (Rc::clone(&prover), words.clone());
                tokio::task::spawn_local(work(prover, job, words, patience));
            }
        };
        std::thread::Builder::new()
            .name("dnssec".to_owned())
            .spawn(move || LocalSet::new().block_on(&runtime, serve()))
            .context("start the validator's thread")?;
        Ok((Self { jobs, insecure }, heard))
    }

    /// Whether the operator says that `name` cannot be proven.
    pub(super) fn exempts(&self, name: &Name) -> bool {
        is_under(name.wire(), &self.insecure)
    }

    /// Begins a proof; [`Word::Done`] ends it. `false` where there is no validator any more.
    pub(super) fn begin(&self, job: Job) -> bool {
        self.jobs.send(job).is_ok()
    }
}

/// Whether a name, in wire form and lower case, is one of `domains` or below.
fn is_under(name: &[u8], domains: &[Name]) -> bool {
    domains.iter().any(|domain| {
        let mut rest = name;
        loop {
            if rest == domain.wire() {
                return true;
            }
            match rest.split_first() {
                Some((length @ 1.., tail)) if tail.len() >= usize::from(*length) => {
                    rest = &tail[usize::from(*length)..];
                }
                Some(_) | None => return false,
            }
        }
    })
}

async fn work(prover: Rc<Prover>, job: Job, words: UnboundedSender<Word>, patience: Duration) {
    let budget = Arc::new(Budget::new());
    let feed = Feed::new(words.clone(), Arc::clone(&budget));
    let outcome = match tokio::time::timeout(patience, prover.answer(&job, &feed)).await {
        Ok(Err(Unproven::Bogus(_))) if budget.had_trouble() => Err(Unproven::Trouble(
            Extended::unreachable("the upstreams do not answer what a proof needs"),
        )),
        Ok(outcome) => outcome,
        Err(_) => Err(Unproven::Trouble(Extended::unreachable(
            "the upstreams do not answer in time what a proof needs",
        ))),
    };
    let done = Done {
        token: job.token,
        outcome,
    };
    // A stopped edge has nobody left to tell.
    let _ = words.send(Word::Done(done));
}
