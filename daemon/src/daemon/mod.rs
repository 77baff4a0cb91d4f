//! The loop: owns `Policy` and the planes and knows the clock. Nothing else does.
#![expect(
    clippy::disallowed_methods,
    reason = "shell: waits for events and deadlines"
)]

#[cfg(test)]
mod cap_tests;
pub mod drifts;
pub mod engine;
#[cfg(test)]
mod engine_tests;
mod files;
mod flows;
mod keeping;
pub mod late;
#[cfg(test)]
mod late_tests;
mod manager;
mod observing;
mod opening;
mod operators;
mod parked;
pub mod planes;
mod preview;
mod quotas;
pub mod refusals;
#[cfg(test)]
mod refusals_tests;
mod reload;
pub mod seen;
mod sent;
mod sources;
pub mod state;
mod views;
pub mod wishes;

use crate::config::{self, DnsSettings, EbpfMode, Settings};
use crate::control::{self, Reply, Request};
use crate::dns::{self, Release};
use crate::fetch::store::Store;
use crate::links;
use crate::lockdown::keeper::Pulse;
use crate::lockdown::presence::Presence;
use crate::observe::{self, Happening};
use crate::plane::Plane;
use crate::plane::ebpf::{self, EbpfOptions, EbpfPlane};
use crate::plane::nft::{self, NftPlane};
use crate::policy::exceptions::Exceptions;
use crate::policy::grant::Policy;
use crate::policy::links::Links;
use crate::policy::rules::Rules;
use crate::policy::{Moment, Revision};
use crate::watch;
use anyhow::Context as _;
use arc_swap::ArcSwap;
use engine::{Effect, Engine, Event};
use files::Files;
use futures_util::FutureExt;
use keeping::Keeping;
use manager::notify;
use nix::time::{ClockId, clock_gettime};
use parked::Parked;
use planes::{Job, PlaneThread};
use sd_notify::NotifyState;
use sources::Sources;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::mpsc::error::TrySendError;
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinHandle;

/// Events that may wait for the loop; a full queue makes the DNS edge answer SERVFAIL.
const BACKLOG: usize = 8192;

/// Events taken into one round, and so into one commit.
const ROUND: usize = 1024;

/// Now, on the boot clock.
#[must_use]
pub fn now() -> Moment {
    let time = clock_gettime(ClockId::CLOCK_BOOTTIME).expect("Linux has this clock");
    let milliseconds = time.tv_sec().saturating_mul(1000) + time.tv_nsec() / 1_000_000;
    Moment(u64::try_from(milliseconds).unwrap_or_default())
}

/// Runs the daemon with the configuration at `path` until SIGTERM or SIGINT. Whatever ends it, the
/// last committed policy stays in force.
///
/// # Errors
/// When it cannot start: the configuration, a plane or a socket, with what to do about it.
pub fn run(path: &Path) -> anyhow::Result<()> {
    let parked = Parked::take();
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .context("start the loop")?;
    tokio::task::LocalSet::new().block_on(&runtime, start(path, parked))
}

async fn start(path: &Path, mut parked: Parked) -> anyhow::Result<()> {
    let text = config::Text::read(path)?;
    let mut settings =
        text.settings(&|state, name, url| Store::new(state).in_force(name, url, now()))?;
    let _presence = Presence::take(settings.runtime())?;
    let links = links::read().await.context("read the interfaces")?;
    let (mut exceptions, unread) = keeping::load(&settings.state, now());
    if let Some(why) = &unread {
        log::error!(target: "grant", "starting without the exceptions of before: {why}");
    }
    settings.intent.exceptions = exceptions.list().to_vec();
    let compiled = Policy::new(Arc::new(settings.intent.clone()), links.clone());
    let mut policy = match compiled {
        Err(why) if !exceptions.list().is_empty() => {
            log::error!(target: "grant", "starting without exceptions, they do not fit: {why}");
            exceptions = Exceptions::default();
            settings.intent.exceptions.clear();
            Policy::new(Arc::new(settings.intent.clone()), links)?
        }
        Ok(_) | Err(_) => compiled?,
    };
    let mut store = state::Store::new(&settings.state);
    recall(&mut policy, &mut store, unread);

    let (events, inbox) = mpsc::channel(BACKLOG);
    let planes = open_planes(&settings, &mut parked)?;
    // Before there is a table: no kill may find one without an owner who stays.
    parked
        .keep(parked::keepsake(&planes))
        .into_iter()
        .for_each(manager::tell);
    let planes = PlaneThread::spawn(planes, blocking(&events))?;
    let flows = flows::spawn(blocking(&events))?;
    let (news, links_told) = tokio::sync::watch::channel(policy.rules().links().clone());
    let followed = tokio::task::spawn_local(links::follow(move |links| {
        // Closed: the daemon is ending.
        let _ = news.send(links);
    }));
    let rules = Arc::new(ArcSwap::from(Arc::clone(policy.rules())));
    name_zones(&rules.load());
    let mut engine = Engine::new(policy, now());
    engine.recall_seen(seen::load(&settings.state, now()));
    let state = settings.state.clone();
    let mut daemon = Daemon {
        path: path.to_owned(),
        text,
        sources: Sources::start(&state)?,
        files: Files::default(),
        settings,
        engine,
        rules,
        epoch: Arc::default(),
        events,
        planes,
        flows,
        edge: None,
        observing: None,
        reloads: Vec::new(),
        keeping: Keeping::new(&state, now()),
        exceptions,
        acting: Vec::new(),
        store,
        saved: Saved {
            revision: Revision(0),
            at: now(),
            draft: None,
            writing: None,
        },
        parked,
        pulse: Pulse::default(),
        previewing: preview::Previewing::start(),
        seen_kept: now(),
        next_runtime: None,
        started: now(),
        since: humantime::format_rfc3339_seconds(SystemTime::now()).to_string(),
    };
    daemon.perform();
    daemon.serve(inbox, links_told, followed).await
}

/// A reporter for threads: waits while the loop is behind.
fn blocking(events: &mpsc::Sender<Event>) -> impl Fn(Event) + Send + 'static {
    let events = events.clone();
    move |event| {
        // Closed: the daemon is ending, and nobody needs the news.
        let _ = events.blocking_send(event);
    }
}

/// Takes note of what clients are told and may not reach. While the loop has much to do, it is let alone.
fn untaught(events: &mpsc::Sender<Event>) -> impl Fn(dns::Untaught) + Send + 'static {
    let events = events.clone();
    move |untaught| {
        if events.capacity() > BACKLOG / 2 {
            let _ = events.try_send(Event::Untaught(untaught));
        }
    }
}

fn recall(policy: &mut Policy, store: &mut state::Store, unread: Option<String>) {
    let (state, trouble) = store.load();
    let (taken, left) = state::restore(policy, &state, now());
    log::info!(target: "grant", "{taken} learned addresses restored, {left} no longer listed");
    if let Some(why) = trouble {
        log::error!(target: "grant", "starting without what was learned: {why}");
        store.started_without(why);
    } else if let Some(why) = unread {
        store.started_without(why);
    }
}

fn open_planes(settings: &Settings, parked: &mut Parked) -> anyhow::Result<Vec<Box<dyn Plane>>> {
    let mut planes: Vec<Box<dyn Plane>> = Vec::new();
    if settings.planes.nft {
        let plane = NftPlane::open_with(settings.planes.log_group, parked.nft.take())
            .context("open the nft plane")?;
        planes.push(Box::new(if settings.planes.own_table {
            plane
        } else {
            plane.open_to_others()
        }));
    }
    if settings.planes.ebpf != EbpfMode::Off {
        let options = EbpfOptions {
            mode: settings.planes.ebpf,
            pin_dir: settings.pins.clone(),
            nft_behind: settings.planes.nft,
            learned: settings.intent.limits.learned,
        };
        planes.push(Box::new(
            EbpfPlane::open(options).context("open the ebpf plane")?,
        ));
    }
    Ok(planes)
}

/// Takes out of force what an earlier run left of planes that are now switched off: it would refuse
/// what today's policy grants. The other plane is in force already.
fn clear_switched_off(settings: &Settings, parked: &mut Parked) {
    let cleared = |plane: &str, done: anyhow::Result<bool>| match done {
        Ok(true) => log::info!(target: "plane", "{plane} is switched off; what it left is removed"),
        Ok(false) => {}
        Err(error) => {
            log::error!(target: "plane", "{plane} is switched off, but still refuses: {error:#}");
        }
    };
    if settings.planes.ebpf == EbpfMode::Off {
        cleared(
            "ebpf",
            ebpf::sweep_pins(&settings.pins).map(|links| links > 0),
        );
    }
    if !settings.planes.nft {
        cleared("nft", nft::remove_left_behind(parked.nft.take()));
    }
}

fn name_zones(rules: &Rules) {
    observe::name_zones(
        rules
            .zones()
            .map(|(id, zone)| (id, zone.spec.name.clone()))
            .collect(),
    );
}

struct Daemon {
    path: PathBuf,
    /// The configuration as it was read last.
    text: config::Text,
    sources: Sources,
    files: Files,
    settings: Settings,
    engine: Engine,
    rules: Arc<ArcSwap<Rules>>,
    /// Of what the edges may tell again; see [`Effect::Raise`].
    epoch: Arc<AtomicU64>,
    events: mpsc::Sender<Event>,
    planes: PlaneThread,
    flows: std::sync::mpsc::Sender<flows::Job>,
    edge: Option<dns::Edge>,
    observing: Option<observing::Observing>,
    reloads: Vec<reload::Reloading>,
    /// What operators allowed for a while; the rules follow it.
    exceptions: Exceptions,
    keeping: Keeping,
    acting: Vec<operators::Acting>,
    store: state::Store,
    saved: Saved,
    parked: Parked,
    pulse: Pulse,
    previewing: preview::Previewing,
    /// When it was last kept which names were asked for.
    seen_kept: Moment,
    /// The folder of marks after the next start, where that is another one.
    next_runtime: Option<PathBuf>,
    started: Moment,
    since: String,
}

type Call = (Request, oneshot::Sender<Reply>);

impl Daemon {
    async fn serve(
        &mut self,
        mut inbox: mpsc::Receiver<Event>,
        mut links: tokio::sync::watch::Receiver<Links>,
        mut followed: JoinHandle<anyhow::Result<std::convert::Infallible>>,
    ) -> anyhow::Result<()> {
        // Before its rules are in force: what they copy and hold back finds a reader.
        self.observing = self.open_observing(&self.settings)?;
        self.first_commit(&mut inbox).await?;
        clear_switched_off(&self.settings, &mut self.parked);
        self.prepare_to_open(&mut inbox).await?;
        self.watch_kernel();
        self.edge = Some(self.open_edge(&self.settings.dns)?);
        let (calls, mut called) = mpsc::unbounded_channel::<Call>();
        let server = control::Server::bind(&self.settings.control)?;
        tokio::task::spawn_local(server.run(move |request| {
            let (reply, receiver) = oneshot::channel();
            // Closed: the daemon is ending; the client sees the connection close.
            let _ = calls.send((request, reply));
            receiver
        }));
        let mut hangup = signal(SignalKind::hangup())?;
        let mut terminate = signal(SignalKind::terminate())?;
        let mut interrupt = signal(SignalKind::interrupt())?;
        let mut save = tokio::time::interval(Duration::from_secs(2));
        save.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        self.open_what_is_granted(&mut inbox).await?;
        notify(&[NotifyState::Ready]);
        log::info!(target: "daemon", "ready, revision {} in force", self.engine.committed().0);
        let watched = sd_notify::watchdog_enabled().is_some();
        self.follow_sources();
        let mut batch = Vec::new();
        loop {
            let tick = if self.saved.draft.is_some() {
                0
            } else {
                let ends = self.exceptions.next_end().into_iter();
                let others = self.sources.next().into_iter().chain(self.files.due());
                let next = ends
                    .chain(others)
                    .fold(self.engine.next_tick(), Moment::min);
                next.0.saturating_sub(now().0)
            };
            tokio::select! {
                _ = inbox.recv_many(&mut batch, ROUND) => {
                    let now = now();
                    for event in batch.drain(..) {
                        self.engine.handle(event, now);
                    }
                }
                Ok(()) = links.changed() => {
                    let links = links.borrow_and_update().clone();
                    self.engine.handle(Event::Links(links), now());
                }
                ended = &mut followed => {
                    let Err(error) = ended.context("follow the interfaces")?;
                    return Err(error.context("interfaces are no longer followed"));
                }
                Some((request, reply)) = called.recv() => self.answer(request, reply),
                () = self.keeping.written() => {}
                done = self.sources.done() => self.source_done(done),
                () = self.files.stirred() => self.files.wait(now()),
                _ = hangup.recv() => self.reload(false, None),
                _ = terminate.recv() => break,
                _ = interrupt.recv() => break,
                () = tokio::time::sleep(Duration::from_millis(tick.max(1))) => {}
                _ = save.tick() => {
                    self.save();
                    self.keep_seen();
                    self.tend_exceptions();
                    let stuck = self.engine.is_stuck(now())
                        || self.observing.as_ref().is_some_and(observing::Observing::ended);
                    if stuck {
                        log::error!(target: "daemon", "a thread of the daemon does not answer");
                    }
                    if watched && !stuck {
                        // Fed by the loop itself, so that a hang of the loop is seen.
                        notify(&[NotifyState::Watchdog]);
                    }
                    if !stuck {
                        self.live();
                    }
                }
            }
            // Whatever else keeps the loop busy, what is due is done.
            if self.engine.next_tick() <= now() {
                self.engine.tick(now());
            }
            self.end_exceptions();
            self.tend_sources();
            if self.files.take_due(now()) {
                self.take_files();
            }
            self.perform();
            self.keeping.begin(&self.exceptions, now());
            self.go_on_saving();
            self.finish_reloads();
            self.finish_acting();
        }
        notify(&[NotifyState::Stopping]);
        if let Some(writing) = self.saved.writing.take() {
            // Two writers would mix their drafts.
            let _ = writing.await;
        }
        seen::writer(self.engine.seen(), &self.settings.state, now())();
        let state = state::snapshot(self.engine.policy(), now());
        if let Err(error) = state::Store::save(&self.settings.state, &state) {
            log::warn!(target: "grant", "what was learned is not saved: {error:#}");
        }
        if let Some(edge) = self.edge.take() {
            edge.stop();
        }
        if let Some(observing) = self.observing.take() {
            observing.stop();
        }
        log::info!(target: "daemon", "stopped; the last committed policy stays in force");
        Ok(())
    }

    /// Has the planes looked at when the kernel tells of changes. Without that the clock does.
    fn watch_kernel(&self) {
        let tables = self.settings.planes.nft && nft::is_open_to_others();
        let events = self.events.clone();
        let watching = watch::spawn(tables, move || {
            !matches!(
                events.try_send(Event::Stirred),
                Err(TrySendError::Closed(_))
            )
        });
        if let Err(error) = watching {
            log::warn!(target: "plane", "changes are noticed later: {error:#}");
        }
    }

    /// Waits until the policy is in force for the first time.
    async fn first_commit(&mut self, inbox: &mut mpsc::Receiver<Event>) -> anyhow::Result<()> {
        while self.engine.committed() == Revision(0) {
            let event = inbox.recv().await.context("a thread of the daemon ended")?;
            self.engine.handle(event, now());
            if let Some(fault) = self.engine.fault() {
                anyhow::bail!("the policy could not be put in force: {fault}");
            }
            self.perform();
        }
        Ok(())
    }

    fn open_edge(&self, settings: &DnsSettings) -> anyhow::Result<dns::Edge> {
        let events = self.events.clone();
        let submit = move |batch| {
            events
                .try_send(Event::Answered(batch))
                .map_err(|_| dns::Busy)
        };
        let (rules, epoch) = (Arc::clone(&self.rules), Arc::clone(&self.epoch));
        let untaught = untaught(&self.events);
        dns::start(settings, rules, epoch, submit, untaught).context("open the DNS edge")
    }

    fn open_observing(&self, settings: &Settings) -> anyhow::Result<Option<observing::Observing>> {
        let Some(observed) = &settings.intent.observed else {
            return Ok(None);
        };
        let events = self.events.clone();
        let rules = Arc::clone(&self.rules);
        let submit = move |waiting| {
            events
                .try_send(Event::Answered(vec![waiting]))
                .map_err(|_| dns::Busy)
        };
        let untaught = untaught(&self.events);
        let observing = observing::start(observed, &settings.dns, rules, submit, untaught);
        observing.map(Some).context("observe answers")
    }

    fn perform(&mut self) {
        let mut releases: Vec<Release> = Vec::new();
        let effects = self.engine.take_effects(now());
        self.keep_learned(&effects);
        for effect in effects {
            match effect {
                Effect::Replace(image) => self.planes.send(Job::Replace(image)),
                Effect::Apply(changes) => self.planes.send(Job::Apply(changes)),
                Effect::Verify => self.planes.send(Job::Verify),
                Effect::CheckUse(due) => self.check_use(due),
                Effect::Sweep => {
                    self.send_flows(flows::Job::Sweep(Arc::clone(self.engine.policy().rules())))
                }
                Effect::Forget(names) => {
                    if let Some(edge) = &self.edge {
                        edge.forget(names);
                    }
                }
                Effect::Cut(keys) => {
                    let cut = u64::try_from(keys.len()).unwrap_or(u64::MAX);
                    observe::record(Happening::Cut {
                        flows: cut,
                        why: "nothing grants them".to_owned(),
                    });
                    self.send_flows(flows::Job::Cut(keys));
                }
                Effect::Release(some) => releases.extend(some),
                Effect::Publish => {
                    self.rules.store(Arc::clone(self.engine.policy().rules()));
                    name_zones(&self.rules.load());
                    self.previewing.follow(&self.rules.load());
                }
                // Written by `keep_learned`, before all else of this round.
                Effect::Learned { .. } | Effect::Unlearned { .. } => {}
                Effect::Record(happening) => observe::record(happening),
                Effect::Raise(epoch) => self.epoch.store(epoch, Ordering::Release),
            }
        }
        let (observed, releases): (Vec<_>, Vec<_>) =
            (releases.into_iter()).partition(|release| dns::observer::is_observed(release.token));
        if let Some(observing) = &self.observing
            && !observed.is_empty()
        {
            observing.release(observed);
        }
        if let Some(edge) = &self.edge
            && !releases.is_empty()
        {
            edge.release_all(releases);
        }
    }

    /// Before anything of this round leaves.
    fn keep_learned(&mut self, effects: &[Effect]) {
        let rules = self.engine.policy().rules();
        let mut learned = effects
            .iter()
            .filter_map(|effect| {
                let (zone, name, address, revoked) = match effect {
                    Effect::Learned {
                        zone,
                        name,
                        address,
                    } => (zone, name, address, false),
                    Effect::Unlearned {
                        zone,
                        name,
                        address,
                    } => (zone, &**name, address, true),
                    Effect::Replace(_)
                    | Effect::Apply(_)
                    | Effect::Verify
                    | Effect::CheckUse(_)
                    | Effect::Sweep
                    | Effect::Forget(_)
                    | Effect::Cut(_)
                    | Effect::Release(_)
                    | Effect::Publish
                    | Effect::Raise(_)
                    | Effect::Record(_) => return None,
                };
                Some((rules.zone_name(*zone), name, *address, revoked))
            })
            .peekable();
        if learned.peek().is_some() {
            let written = self.store.note(learned);
            self.store.health.note(written);
        }
    }

    fn send_flows(&self, job: flows::Job) {
        if self.flows.send(job).is_err() {
            log::error!(target: "flow", "the flows' thread is gone");
        }
    }

    fn check_use(&self, due: Vec<(crate::policy::ZoneId, std::net::IpAddr)>) {
        let flows = self.flows.clone();
        let rules = Arc::clone(self.engine.policy().rules());
        let idle = u64::from(self.settings.intent.limits.idle);
        self.planes.ask(move |planes| {
            let mut seen = BTreeMap::new();
            for plane in planes {
                seen.extend(plane.last_seen(&due));
            }
            // Gone: the engine finds itself stuck, and the watchdog ends the daemon.
            let _ = flows.send(flows::Job::CheckUse {
                rules,
                due,
                seen,
                idle,
                now: now(),
            });
        });
    }

    fn answer(&mut self, request: Request, reply: oneshot::Sender<Reply>) {
        // A client that went away needs no reply.
        match request {
            Request::Status => {
                let mut status = views::status(&self.engine);
                for catalogue in &mut status.catalogues {
                    catalogue.sources = self.sources.status(&catalogue.name, now());
                    let failing = catalogue.sources.iter().filter_map(|source| {
                        Some(format!("{}: {}", source.url, source.error.as_ref()?))
                    });
                    status.warnings.extend(failing);
                }
                status.uptime = now().seconds_from(self.started);
                status.since = self.since.clone();
                status
                    .warnings
                    .extend(views::late_warning(&self.engine, now()));
                let exceptions = self.exception_list().exceptions;
                status
                    .warnings
                    .extend(exceptions.iter().map(control::exception::line));
                status.warnings.extend(self.state_trouble());
                status.warnings.extend(self.engine.drifts().warnings(now()));
                if let Some(edge) = &self.edge {
                    status.dns = views::dns(edge.stats());
                    status.unresolved = views::unresolved(&self.engine, &edge.unresolved());
                }
                status.observer = self
                    .observing
                    .as_ref()
                    .map(|it| views::observer(it.stats()));
                let runtime = self.settings.runtime().to_owned();
                self.planes.ask(move |planes| {
                    views::add_planes(&mut status, planes);
                    opening::add_lock(&mut status, &runtime);
                    let _ = reply.send(Reply::Status(Box::new(status)));
                });
            }
            Request::Zones => {
                let mut zones = views::zones(&self.engine);
                let origins = self.engine.policy().origins().clone();
                self.planes.ask(move |planes| {
                    views::add_counters(&mut zones, planes);
                    views::add_hits(&mut zones, &origins, planes);
                    let _ = reply.send(Reply::Zones(zones));
                });
            }
            Request::Grants(query) => {
                let page = views::grants(&self.engine, &query, now());
                let _ = reply.send(page.map_or_else(Reply::Failed, Reply::Grants));
            }
            Request::Explain(query) => match views::explain(&self.engine, &query, now()) {
                Ok(pending) => self.planes.ask(move |planes| {
                    let explanation = views::finish(pending, planes);
                    let _ = reply.send(Reply::Explanation(Box::new(explanation)));
                }),
                Err(failure) => {
                    let _ = reply.send(Reply::Failed(failure));
                }
            },
            Request::Late { zone } => {
                let list = views::late(&self.engine, zone.as_deref(), now());
                let _ = reply.send(list.map_or_else(Reply::Failed, Reply::Late));
            }
            Request::Reload { force } => self.reload(force, Some(reply)),
            Request::Unseen { catalogue } => {
                let list = views::unseen(&self.engine, &catalogue, now());
                let _ = reply.send(list.map_or_else(Reply::Failed, Reply::Unseen));
            }
            Request::Preview(candidate) => self.preview(candidate, reply),
            Request::Exceptions => {
                let _ = reply.send(Reply::Exceptions(self.exception_list()));
            }
            Request::Act { act, who } => self.act(act, who, reply),
        }
    }

    /// Starts a snapshot of what was learned, if one is due. It is written off the loop.
    fn save(&mut self) {
        let now = now();
        self.harvest();
        let policy = self.engine.policy();
        let many = policy.learned().iter().sum::<usize>() > MANY;
        // Renewals change no revision, but they change ends.
        let wait = match (policy.revision() == self.saved.revision, many) {
            (true, _) => 300,
            (false, true) => 30,
            (false, false) => 2,
        };
        let busy = self.saved.writing.is_some() || self.saved.draft.is_some();
        if busy || now < self.saved.at.after_seconds(wait) {
            return;
        }
        let turned = self.store.turn_page();
        self.store.health.note(turned);
        self.saved = Saved {
            revision: policy.revision(),
            at: now,
            draft: Some(state::Draft::default()),
            writing: None,
        };
    }

    /// Keeps which names were asked for, once in an hour: what a crash loses of it costs nothing.
    fn keep_seen(&mut self) {
        if now() < self.seen_kept.after_seconds(3600) {
            return;
        }
        self.seen_kept = now();
        let write = seen::writer(self.engine.seen(), &self.settings.state, now());
        drop(tokio::task::spawn_blocking(write));
    }

    /// Takes a snapshot a piece further; the whole is written off the loop.
    fn go_on_saving(&mut self) {
        let Some(draft) = &mut self.saved.draft else {
            return;
        };
        if !draft.advance(self.engine.policy(), now(), PIECE) {
            return;
        }
        let Some(state) = self.saved.draft.take().map(state::Draft::finish) else {
            return;
        };
        let directory = self.settings.state.clone();
        self.saved.writing = Some(tokio::task::spawn_blocking(move || {
            state::Store::save(&directory, &state)
        }));
    }

    /// Takes note of how the last snapshot ended. One that failed is tried again with the next tick.
    fn harvest(&mut self) {
        let finished = |task: &mut JoinHandle<_>| task.is_finished();
        let Some(outcome) = self
            .saved
            .writing
            .take_if(finished)
            .and_then(FutureExt::now_or_never)
        else {
            return;
        };
        let outcome = outcome.map_err(anyhow::Error::from).flatten();
        if outcome.is_err() {
            self.saved.revision = Revision(0);
        }
        self.store.health.saved(outcome);
    }

    /// What of the state is not on the disk, or was not read from it.
    fn state_trouble(&self) -> impl Iterator<Item = String> {
        let unread = self.store.health.unread();
        let unread = unread.map(|why| format!("started without the state of before: {why}"));
        let learned = self.store.health.trouble();
        let learned =
            learned.map(|why| format!("what is learned is not kept over a restart: {why}"));
        let exceptions = self.keeping.failure();
        let exceptions =
            exceptions.map(|why| format!("exceptions are not kept over a restart: {why}"));
        [unread, learned, exceptions].into_iter().flatten()
    }
}

/// The last snapshot.
struct Saved {
    revision: Revision,
    at: Moment,
    /// One that is being taken.
    draft: Option<state::Draft>,
    writing: Option<JoinHandle<anyhow::Result<()>>>,
}

/// Learned addresses that go into a snapshot between two rounds of the loop: about a millisecond.
const PIECE: usize = 512;

/// Learned addresses from which on snapshots are taken less often.
const MANY: usize = 20_000;
