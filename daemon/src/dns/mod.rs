//! The DNS edge: bytes in, events out. Answers wait here until the loop says they are in force.
//! It runs on a thread of its own and speaks to the loop by messages and snapshots alone.
#![expect(
    clippy::disallowed_methods,
    reason = "shell: it reads the clock for the edge"
)]

mod buckets;
mod cache;
mod chance;
mod clients;
mod connection;
mod conversation;
mod course;
mod crowd;
mod deadlines;
mod descriptors;
mod dnssec;
mod engine;
mod fuzz;
mod health;
mod https;
mod lookups;
mod message;
pub mod observer;
mod outstanding;
mod own;
mod padding;
mod remote;
mod shares;
mod stats;
mod stream;
mod streams;
mod taught;
mod trouble;
mod upstream;
mod view;
mod waiter;
mod waste;
mod zone;

#[cfg(test)]
mod tests;

#[doc(hidden)]
pub use fuzz::fuzz_question;
pub use health::UpstreamState;
pub use stats::Stats;

use crate::config::DnsSettings;
use crate::policy::ZoneId;
use crate::policy::answer::Answer;
use crate::policy::answer::wire::kind;
use crate::policy::name::Name;
use crate::policy::rules::Rules;
use anyhow::Context;
use arc_swap::ArcSwap;
use dnssec::{Validator, Word};
use engine::Engine;
use health::Health;
use nix::time::{ClockId, clock_gettime};
use stats::Counters;
use std::cell::RefCell;
use std::net::{IpAddr, SocketAddr};
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};
use tokio::sync::oneshot;
use tokio::task::LocalSet;

/// Names one waiting answer between the edge and the loop.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Token(pub u64);

impl Token {
    /// An answer that nobody waits for: a renewal. Its release is ignored.
    pub const NOBODY: Self = Self(u64::MAX);
    /// The same, because a client was told it from the cache.
    pub const TOLD: Self = Self(u64::MAX - 1);
}

/// An answer that waits for the kernel.
#[derive(Clone, Debug)]
pub struct Waiting {
    /// Whose client asked.
    pub zone: ZoneId,
    /// What it was told, hygiene done.
    pub answer: Answer,
    /// To name it by.
    pub token: Token,
    /// Whose question brought it, over IPv6 by /64; `None` for what the gateway itself asks and renews.
    pub client: Option<IpAddr>,
}

/// Addresses that a client was told and that are not granted by it. The loop names them by it when packets
/// there are refused; one that is lost costs a name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Untaught {
    /// Whose client asked.
    pub zone: ZoneId,
    /// Who asked.
    pub client: IpAddr,
    /// What it asked for.
    pub name: Name,
    /// What it was told, [`MOST_UNTAUGHT`] of it at most.
    pub addresses: Vec<IpAddr>,
}

/// Addresses of an answer that are told to the loop though they are not granted.
const MOST_UNTAUGHT: usize = 32;

/// The loop's word on a waiting answer.
#[derive(Clone, Debug)]
pub struct Release {
    /// Which.
    pub token: Token,
    /// Every plane holds its addresses: the epoch in which that is so. Or why the client must get
    /// SERVFAIL.
    pub outcome: Result<u64, String>,
}

/// The loop takes no more answers now; the client gets SERVFAIL.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the loop takes no more answers now")]
pub struct Busy;

type TellUntaught = Box<dyn Fn(Untaught) + Send>;

type Submit = Box<dyn Fn(Vec<Waiting>) -> Result<(), Busy> + Send>;

/// Names of zones' policies that have no address so far.
pub type Unresolved = Vec<(ZoneId, Name)>;

/// What the edge works by.
struct Parts {
    settings: DnsSettings,
    rules: Arc<ArcSwap<Rules>>,
    epoch: Arc<AtomicU64>,
    submit: Submit,
    untaught: TellUntaught,
    counters: Arc<Counters>,
    unresolved: Arc<ArcSwap<Unresolved>>,
    health: Arc<Health>,
    /// Proves answers before they are told, where that is wanted.
    validator: Option<Validator>,
}

/// The running edge.
pub struct Edge {
    orders: UnboundedSender<Order>,
    counters: Arc<Counters>,
    unresolved: Arc<ArcSwap<Unresolved>>,
    health: Arc<Health>,
    addresses: Vec<SocketAddr>,
    thread: JoinHandle<()>,
}

/// Looks names up for the daemon, for as long as its edge is there.
#[derive(Clone)]
pub struct Asker(UnboundedSender<Order>);

impl Asker {
    /// The addresses of `name`, asked of the upstreams like a question of the gateway's: where a zone is `local`
    /// they are granted to it before they come, if it may reach that name. At most 32 of each family.
    pub fn resolve(&self, name: &Name) -> impl Future<Output = Vec<IpAddr>> + use<> {
        let answers = [kind::A, kind::AAAA].map(|kind| {
            let (reply, answer) = oneshot::channel();
            // A stopped edge drops the reply, and who waits for it hears that.
            let _ = self.0.send(Order::Resolve(name.clone(), kind, reply));
            answer
        });
        async {
            let mut all = Vec::new();
            for answer in answers {
                all.extend(answer.await.unwrap_or_default());
            }
            all
        }
    }
}

enum Order {
    Release(Release),
    Batch(Vec<Release>),
    Forget(Vec<Name>),
    Resolve(Name, u16, oneshot::Sender<Vec<IpAddr>>),
    Stop,
}

/// Opens the listeners and starts the edge. `submit` is called on the edge's thread with answers
/// that have addresses, and `untaught` with those that are passed on and grant nothing; neither must block. Each submitted answer waits for [`Edge::release`] for at most
/// `settings.hold`. An answer that was released is told again from the cache for as long as it
/// lives and `epoch` is the one of its release: raise that before anything granted is taken back,
/// and before `rules` change.
///
/// # Errors
/// When a listener cannot be opened; names its address.
pub fn start(
    settings: &DnsSettings,
    rules: Arc<ArcSwap<Rules>>,
    epoch: Arc<AtomicU64>,
    submit: impl Fn(Vec<Waiting>) -> Result<(), Busy> + Send + 'static,
    untaught: impl Fn(Untaught) + Send + 'static,
) -> anyhow::Result<Edge> {
    let doors = settings
        .listen
        .iter()
        .map(|address| {
            clients::Door::open(*address).with_context(|| format!("listen for DNS on {address}"))
        })
        .collect::<anyhow::Result<Vec<_>>>()?;
    let addresses = doors
        .iter()
        .map(clients::Door::address)
        .collect::<Result<Vec<_>, _>>()
        .context("read where the DNS listeners are")?;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .context("start the DNS edge's runtime")?;
    let (orders, received) = unbounded_channel();
    let counters = Arc::new(Counters::default());
    let unresolved = Arc::new(ArcSwap::default());
    let health = Arc::new(Health::new(&settings.groups()));
    let (validator, words) = match &settings.dnssec {
        Some(dnssec) => {
            // As long as two tries of one upstream.
            let (validator, words) = Validator::start(dnssec, settings.timeout * 2)?;
            (Some(validator), Some(words))
        }
        None => (None, None),
    };
    let mut settings = settings.clone();
    settings.clients.connections = descriptors::room(settings.clients.connections);
    let parts = Parts {
        settings,
        rules,
        epoch,
        submit: Box::new(submit),
        untaught: Box::new(untaught),
        counters: Arc::clone(&counters),
        unresolved: Arc::clone(&unresolved),
        health: Arc::clone(&health),
        validator,
    };
    let thread = std::thread::Builder::new()
        .name("dns".to_owned())
        .spawn(move || {
            let shared = Shared {
                engine: Rc::new(RefCell::new(Engine::new(parts, Clock::start()))),
            };
            LocalSet::new().block_on(&runtime, run(shared, doors, received, words));
        })
        .context("start the DNS edge's thread")?;
    Ok(Edge {
        orders,
        counters,
        unresolved,
        health,
        addresses,
        thread,
    })
}

impl Edge {
    /// Lets a waiting answer go, or turns it into SERVFAIL. Never blocks. A token that is not waiting
    /// (any more) is ignored.
    pub fn release(&self, release: Release) {
        // A stopped edge has no answers left to release.
        let _ = self.orders.send(Order::Release(release));
    }

    /// [`Edge::release`] for many at once: one message, one wake-up.
    pub fn release_all(&self, releases: Vec<Release>) {
        if !releases.is_empty() {
            let _ = self.orders.send(Order::Batch(releases));
        }
    }

    /// Drops what the cache holds of these names, of every type. What is on its way is not stopped.
    pub fn forget(&self, names: Vec<Name>) {
        if !names.is_empty() {
            let _ = self.orders.send(Order::Forget(names));
        }
    }

    /// To look names up with.
    #[must_use]
    pub fn asker(&self) -> Asker {
        Asker(self.orders.clone())
    }

    /// Where it listens, in the order of `settings.listen`; with the port it got where that was 0.
    #[must_use]
    pub fn addresses(&self) -> &[SocketAddr] {
        &self.addresses
    }

    /// What happened so far.
    #[must_use]
    pub fn stats(&self) -> Stats {
        self.counters.read()
    }

    /// The exact names that zones may reach and that have no address so far. Empty where the edge
    /// makes no look-ups of its own.
    #[must_use]
    pub fn unresolved(&self) -> Arc<Unresolved> {
        self.unresolved.load_full()
    }

    /// How every upstream does, in the order of their groups.
    #[must_use]
    pub fn upstreams(&self) -> Vec<UpstreamState> {
        self.health.read()
    }

    /// Closes the listeners and ends the thread. What waits gets no reply; clients ask again.
    pub fn stop(self) {
        let _ = self.orders.send(Order::Stop);
        if self.thread.join().is_err() {
            log::error!(target: "dns", "the edge's thread panicked");
        }
    }
}

/// Milliseconds since the edge started, on the boot clock: grants live by it, so what the cache tells
/// must, over a suspend too.
#[derive(Clone, Copy)]
struct Clock(Duration);

impl Clock {
    fn start() -> Self {
        Self(Self::boot())
    }

    fn boot() -> Duration {
        clock_gettime(ClockId::CLOCK_BOOTTIME)
            .expect("Linux has this clock")
            .into()
    }

    fn now(self) -> u64 {
        let elapsed = Self::boot().saturating_sub(self.0);
        u64::try_from(elapsed.as_millis()).unwrap_or(u64::MAX)
    }

    fn at(self, millis: u64) -> tokio::time::Instant {
        (Instant::now() + Duration::from_millis(millis.saturating_sub(self.now()))).into()
    }
}

/// What the edge's tasks share. They run on one thread and never hold the engine over an await.
#[derive(Clone)]
struct Shared {
    engine: Rc<RefCell<Engine>>,
}

async fn run(
    shared: Shared,
    doors: Vec<clients::Door>,
    mut received: UnboundedReceiver<Order>,
    words: Option<UnboundedReceiver<Word>>,
) {
    upstream::wire_up(&shared);
    for door in doors {
        if let Err(error) = clients::serve(&shared, door) {
            log::error!(target: "dns", "a listener failed: {error}");
        }
    }
    tokio::task::spawn_local(keep_time(shared.clone()));
    tokio::task::spawn_local(post(shared.clone()));
    if let Some(words) = words {
        tokio::task::spawn_local(hear(shared.clone(), words));
    }
    let mut orders = Vec::with_capacity(256);
    while received.recv_many(&mut orders, 256).await > 0 {
        let mut engine = shared.engine.borrow_mut();
        for order in orders.drain(..) {
            match order {
                Order::Release(release) => engine.release(release),
                Order::Batch(releases) => releases.into_iter().for_each(|r| engine.release(r)),
                Order::Forget(names) => engine.forget(&names),
                Order::Resolve(name, kind, reply) => engine.resolve(&name, kind, reply),
                Order::Stop => return,
            }
        }
    }
}

/// Sends the loop what was gathered. It runs after the tasks that were ready before it.
async fn post(shared: Shared) {
    let posted = shared.engine.borrow().posted();
    loop {
        posted.notified().await;
        shared.engine.borrow_mut().post();
    }
}

/// Does what the validator says.
async fn hear(shared: Shared, mut words: UnboundedReceiver<Word>) {
    while let Some(word) = words.recv().await {
        let mut engine = shared.engine.borrow_mut();
        match word {
            Word::Need(need) => engine.need(need),
            Word::Done(done) => engine.proved(done),
        }
    }
    log::error!(target: "dns", "the validator's thread ended");
    shared.engine.borrow_mut().unproven();
}

/// Wakes the engine at its deadlines.
async fn keep_time(shared: Shared) {
    let (clock, alarm) = {
        let engine = shared.engine.borrow();
        (engine.clock(), engine.alarm())
    };
    loop {
        let due = shared.engine.borrow_mut().arm();
        match due {
            Some(due) => {
                tokio::select! {
                    () = tokio::time::sleep_until(clock.at(due)) => {}
                    () = alarm.notified() => {}
                }
            }
            None => alarm.notified().await,
        }
        shared.engine.borrow_mut().tick();
    }
}
