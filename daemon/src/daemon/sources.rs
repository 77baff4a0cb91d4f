//! Catalogues that are fetched: when each is asked, what becomes of what comes, and operators' words about it.

use super::{Daemon, now, reload};
use crate::config::Feed;
use crate::control::protocol::{Failure, SourceStatus};
use crate::control::{CatalogueAct, Reply};
use crate::dns::Asker;
use crate::fetch::schedule::{Ended, Schedule};
use crate::fetch::store::{Draft, Kept, Past, Store};
use crate::fetch::{Limits, Memory, Outcome, Source, fetch, store};
use crate::observe::{self, Happening};
use crate::policy::Moment;
use crate::policy::catalogue::Catalogue;
use crate::policy::update::{Rules, Standing, Taken, Version};
use anyhow::Context as _;
use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::time::{Duration, SystemTime, UNIX_EPOCH};
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};
use tokio::sync::oneshot;

/// The catalogue's name, and where it is fetched.
type Key = (String, String);

/// The web service's area of Intune: a list without it is not for a gateway that enforces it.
const INTUNE: &str = "mem";

/// How long an operator waits for servers.
const PATIENCE: u64 = 20;

/// Work for the thread.
enum Work {
    Fetch(Box<Errand>),
    Write(Draft),
}

/// One attempt.
struct Errand {
    key: Key,
    source: Source,
    id: String,
    memory: Memory,
    asker: Option<Asker>,
    store: Store,
}

/// What became of it.
pub(super) struct Done {
    key: Key,
    came: Came,
}

enum Came {
    Unchanged,
    New {
        version: Box<Version>,
        memory: Memory,
        /// Why it will not be there after a restart.
        unkept: Option<String>,
    },
    Later(Duration, String),
    Failed(String),
}

/// One source.
struct One {
    feed: Feed,
    kept: Kept,
    schedule: Schedule,
    due: Moment,
    under_way: bool,
    /// Whether an operator takes whatever comes.
    force: bool,
}

/// An operator who waits.
struct Waiting {
    left: BTreeSet<Key>,
    lines: Vec<String>,
    changed: bool,
    failed: bool,
    since: reload::Since,
    reply: oneshot::Sender<Reply>,
}

/// All of them.
pub(super) struct Sources {
    store: Store,
    id: String,
    all: BTreeMap<Key, One>,
    work: UnboundedSender<Work>,
    done: UnboundedReceiver<Done>,
    waiting: Vec<Waiting>,
}

impl Sources {
    /// Those of a state directory; none is asked before [`Self::follow`].
    ///
    /// # Errors
    /// When the thread cannot be started.
    pub(super) fn start(state: &Path) -> anyhow::Result<Self> {
        let (work, todo) = unbounded_channel();
        let (report, done) = unbounded_channel();
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()?;
        std::thread::Builder::new()
            .name("fetch".to_owned())
            .spawn(move || {
                tokio::task::LocalSet::new().block_on(&runtime, labour(todo, report));
            })
            .context("start the thread that fetches catalogues")?;
        Ok(Self {
            store: Store::new(state),
            id: String::new(),
            all: BTreeMap::new(),
            work,
            done,
            waiting: Vec::new(),
        })
    }

    /// Takes the sources of another configuration. What is known of those that stay is kept.
    pub(super) fn follow(&mut self, feeds: &[Feed], now: Moment) {
        if self.id.is_empty() && !feeds.is_empty() {
            let (id, trouble) = self.store.client_id();
            if let Some(why) = trouble {
                log::warn!(target: "catalogue", "the number that servers know this gateway by is not kept: {why}");
            }
            self.id = id;
        }
        let mut before = std::mem::take(&mut self.all);
        for feed in feeds {
            let key = key(feed);
            let known = before.remove(&key);
            let one = match known {
                Some(known) => One {
                    feed: feed.clone(),
                    due: if known.feed == *feed { known.due } else { now },
                    ..known
                },
                None => self.find(feed.clone(), now),
            };
            self.all.insert(key, one);
        }
    }

    fn find(&self, feed: Feed, now: Moment) -> One {
        let (kept, trouble) = self.store.load(&feed.catalogue, &feed.source.url, now);
        if let Some(why) = trouble {
            log::error!(target: "catalogue", "what was fetched from {} cannot be used: {why}", feed.source.url);
        }
        let age = kept
            .fetched
            .map(|at| Duration::from_secs(wall().saturating_sub(at)));
        let rest = age.map_or(Duration::ZERO, |age| feed.every.saturating_sub(age));
        One {
            feed,
            kept,
            schedule: Schedule::default(),
            due: Moment(now.0.saturating_add(millis(rest))),
            under_way: false,
            force: false,
        }
    }

    /// What is in force of a source, if it was ever had.
    pub(super) fn in_force(&self, key: &Key, now: Moment) -> Option<Catalogue> {
        let one = self.all.get(key)?;
        let there = one.kept.is_there();
        there.then(|| one.kept.standing.in_force(now.0))
    }

    /// When something is due.
    pub(super) fn next(&self) -> Option<Moment> {
        let due = self
            .all
            .values()
            .filter(|one| !one.under_way)
            .map(|one| one.due);
        let ends = self
            .all
            .values()
            .filter_map(|one| one.kept.standing.next_end());
        let patience = self
            .waiting
            .iter()
            .map(|waiting| waiting.since.at.after_seconds(PATIENCE));
        due.chain(ends.map(Moment)).chain(patience).min()
    }

    /// Waits for what the thread has to say.
    pub(super) async fn done(&mut self) -> Done {
        match self.done.recv().await {
            Some(done) => done,
            // The thread ended; nothing is fetched any more, which `status` tells by its age.
            None => std::future::pending().await,
        }
    }

    /// Writes down what is known of a source.
    fn keep(&self, key: &Key, now: Moment) {
        let Some(one) = self.all.get(key) else { return };
        let (name, url) = (&one.feed.catalogue, &one.feed.source.url);
        match self.store.draft(name, url, &one.kept, now) {
            Ok(draft) => drop(self.work.send(Work::Write(draft))),
            Err(why) => log::error!(target: "catalogue", "{url} is not kept: {why:#}"),
        }
    }

    /// For `status`: of catalogue `name`, at the present.
    pub(super) fn status(&self, name: &str, now: Moment) -> Vec<SourceStatus> {
        let of_name = self.all.values().filter(|one| one.feed.catalogue == name);
        of_name
            .map(|one| SourceStatus {
                url: one.feed.source.url.to_string(),
                version: one.kept.standing.newest.name.clone(),
                pinned: one
                    .kept
                    .standing
                    .pinned
                    .as_ref()
                    .map(|pinned| pinned.name.clone()),
                age: one.kept.fetched.map(|at| wall().saturating_sub(at)),
                next: one.due.0.saturating_sub(now.0) / 1000,
                held: count(
                    one.kept
                        .standing
                        .held
                        .iter()
                        .map(|held| held.set.patterns.len() + held.set.networks.len()),
                ),
                versions: one
                    .kept
                    .history
                    .iter()
                    .map(|past| past.name.clone())
                    .collect(),
                error: one.kept.error.clone(),
            })
            .collect()
    }

    /// The sources of a catalogue.
    fn named(&self, name: &str) -> Result<Vec<Key>, Failure> {
        let keys: Vec<Key> = self
            .all
            .keys()
            .filter(|(one, _)| one == name)
            .cloned()
            .collect();
        if !keys.is_empty() {
            return Ok(keys);
        }
        let known: BTreeSet<&str> = self.all.keys().map(|(name, _)| &**name).collect();
        let known = match known.is_empty() {
            true => "no catalogue is; write a `url` in a [[catalogue]]".to_owned(),
            false => format!(
                "these are: {}",
                known.into_iter().collect::<Vec<_>>().join(", ")
            ),
        };
        Err(Failure::BadQuery {
            text: format!("`{name}` is not fetched; {known}"),
        })
    }
}

fn count(some: impl Iterator<Item = usize>) -> u64 {
    u64::try_from(some.sum::<usize>()).unwrap_or(u64::MAX)
}

fn key(feed: &Feed) -> Key {
    (feed.catalogue.clone(), feed.source.url.to_string())
}

fn millis(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}

/// Seconds since 1970, for people and for what outlives a run of the machine.
fn wall() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    since.unwrap_or_default().as_secs()
}

/// The thread: fetches side by side, writes one after the other.
async fn labour(mut todo: UnboundedReceiver<Work>, report: UnboundedSender<Done>) {
    while let Some(work) = todo.recv().await {
        match work {
            Work::Fetch(errand) => {
                let report = report.clone();
                tokio::task::spawn_local(async move {
                    let came = run(&errand).await;
                    // Closed: the daemon is ending.
                    let _ = report.send(Done {
                        key: errand.key,
                        came,
                    });
                });
            }
            Work::Write(draft) => {
                if let Err(why) = draft.write() {
                    log::error!(target: "catalogue", "what is known of a source is not kept over a restart: {why:#}");
                }
            }
        }
    }
}

async fn run(errand: &Errand) -> Came {
    let Errand {
        key: (name, _),
        source,
        id,
        memory,
        asker,
        store,
    } = errand;
    let resolve = async |name: &_| match asker {
        Some(asker) => asker.resolve(name).await,
        None => Vec::new(),
    };
    match fetch(source, id, memory, &Limits::default(), resolve).await {
        Outcome::Unchanged => Came::Unchanged,
        Outcome::Later { after, why } => Came::Later(after, why),
        Outcome::Failed { why } => Came::Failed(why),
        Outcome::New { bytes, memory } => {
            match store::version(&bytes, &source.url, memory.version.as_deref()) {
                Err(why) => Came::Failed(format!("it is no catalogue: {why:#}")),
                Ok(version) => Came::New {
                    version: Box::new(version),
                    memory,
                    unkept: store
                        .put(name, &source.url, &bytes)
                        .err()
                        .map(|why| format!("{why:#}")),
                },
            }
        }
    }
}

impl Daemon {
    /// Asks what is due, and ends what is no longer held.
    pub(super) fn tend_sources(&mut self) {
        let present = now();
        let due: Vec<Key> = (self.sources.all.iter())
            .filter(|(_, one)| !one.under_way && one.due <= present)
            .map(|(key, _)| key.clone())
            .collect();
        for key in due {
            self.ask_source(&key);
        }
        self.let_go(present);
        let over: Vec<Key> = (self.sources.all.iter())
            .filter(|(_, one)| {
                one.kept
                    .standing
                    .next_end()
                    .is_some_and(|end| end <= present.0)
            })
            .map(|(key, _)| key.clone())
            .collect();
        for key in over {
            let changed = self.change_source(&key, |standing| Ok(standing.expire(present.0)));
            self.sources.keep(&key, present);
            let text = changed.map(|(ended, _)| format!("{ended} rows are no longer held"));
            tell(
                &key.0,
                text.map_err(|why| format!("what is held cannot end: {why}")),
            );
        }
    }

    fn ask_source(&mut self, key: &Key) {
        let asker = self.edge.as_ref().map(crate::dns::Edge::asker);
        let sources = &mut self.sources;
        let Some(one) = sources.all.get_mut(key) else {
            return;
        };
        one.under_way = true;
        // Of a list that is not there nobody must say that it is unchanged.
        let memory = match one.kept.is_there() && !one.force {
            true => one.kept.memory.clone(),
            false => Memory::default(),
        };
        let errand = Errand {
            key: key.clone(),
            source: one.feed.source.clone(),
            id: sources.id.clone(),
            memory,
            asker,
            store: sources.store.clone(),
        };
        // Closed: the thread ended, which `status` tells by the age of what is there.
        let _ = sources.work.send(Work::Fetch(Box::new(errand)));
    }

    /// Takes what came of an attempt.
    pub(super) fn source_done(&mut self, done: Done) {
        let Done { key, came } = done;
        let Some(one) = self.sources.all.get_mut(&key) else {
            return;
        };
        one.under_way = false;
        let force = std::mem::take(&mut one.force);
        let service = one.feed.source.url.instance().is_some();
        let (ended, outcome) = match came {
            Came::Unchanged => {
                one.kept.fetched = Some(wall());
                one.kept.error = None;
                let version = &one.kept.standing.newest.name;
                let text = format!("nothing new; version {version} is in force");
                (Ended::Well, Ok((false, text)))
            }
            Came::Later(after, why) => (Ended::Later(after), Err(why)),
            Came::Failed(why) => (Ended::Badly, Err(why)),
            Came::New {
                version,
                memory,
                unkept,
            } => {
                let taken = self.take_version(&key, *version, memory, force);
                if let Some(why) = unkept {
                    log::error!(target: "catalogue", "{} is not kept over a restart: {why}", key.1);
                }
                // What is refused would be refused again if it were asked for sooner.
                (Ended::Well, taken)
            }
        };
        let chance = getrandom::u64().unwrap_or_default();
        if let Some(one) = self.sources.all.get_mut(&key) {
            let wait = one.schedule.next(ended, one.feed.every, service, chance);
            one.due = Moment(now().0.saturating_add(millis(wait)));
            let error = outcome.as_ref().err().cloned();
            let news = one.kept.error != error;
            one.kept.error = error;
            if let Err(why) = &outcome
                && news
            {
                tell(&key.0, Err(format!("{}: {why}", key.1)));
            }
        }
        self.sources.keep(&key, now());
        self.tell_waiting(&key, outcome);
    }

    fn take_version(
        &mut self,
        key: &Key,
        version: Version,
        memory: Memory,
        force: bool,
    ) -> Result<(bool, String), String> {
        let Some(one) = self.sources.all.get_mut(key) else {
            return Err("it is no longer wanted".to_owned());
        };
        let rules = Rules {
            hold: millis(one.feed.hold),
            shrink_percent: reload::SHRINK_PERCENT,
            needs: (one.feed.source.url.instance()).map(|_| INTUNE.to_owned()),
        };
        let when = (now().0, wall());
        let past = Past {
            name: version.name.clone(),
            print: version.print.clone(),
            taken: when.1,
        };
        let standing = &one.kept.standing;
        let same = version.print == standing.newest.print;
        if !force && standing.barred.as_ref() == Some(&version.print) {
            one.kept.memory = memory;
            one.kept.fetched = Some(when.1);
            return Ok((
                false,
                format!("version {} is what was rolled back from", version.name),
            ));
        }
        let (taken, _): (Taken, _) = self.change_source(key, |standing| {
            let taken = standing.take(version, when, &rules, force);
            taken.map_err(|refused| refused.to_string())
        })?;
        if let Some(one) = self.sources.all.get_mut(key) {
            one.kept.memory = memory;
            one.kept.fetched = Some(when.1);
            one.kept.remember(past);
        }
        let text = taken.to_string();
        if !same {
            tell(&key.0, Ok(text.clone()));
        }
        Ok((!same, text))
    }

    /// Changes what is in force of a source, or nothing: where the policy cannot follow, it is as before.
    fn change_source<T>(
        &mut self,
        key: &Key,
        change: impl FnOnce(&mut Standing) -> Result<T, String>,
    ) -> Result<(T, String), String> {
        let Some(one) = self.sources.all.get_mut(key) else {
            return Err("it is no longer wanted".to_owned());
        };
        let before = one.kept.standing.clone();
        let done = match change(&mut one.kept.standing) {
            Ok(done) => done,
            Err(why) => {
                one.kept.standing = before;
                return Err(why);
            }
        };
        if one.kept.standing == before {
            return Ok((done, String::new()));
        }
        match self.refresh() {
            Ok((summary, _)) => Ok((done, summary)),
            Err(why) => {
                if let Some(one) = self.sources.all.get_mut(key) {
                    one.kept.standing = before;
                }
                Err(format!("the policy cannot follow: {why:#}"))
            }
        }
    }

    /// Tells operators who waited long enough that they may go.
    fn let_go(&mut self, present: Moment) {
        let all = std::mem::take(&mut self.sources.waiting).into_iter();
        for waiting in all {
            if waiting.since.at.after_seconds(PATIENCE) > present {
                self.sources.waiting.push(waiting);
                continue;
            }
            let text =
                "the servers have not answered yet; `egressctl status` will tell what they say";
            let _ = waiting.reply.send(Reply::Failed(Failure::Busy {
                text: text.to_owned(),
            }));
        }
    }

    fn tell_waiting(&mut self, key: &Key, outcome: Result<(bool, String), String>) {
        for mut waiting in std::mem::take(&mut self.sources.waiting) {
            if waiting.left.remove(key) {
                waiting.failed |= outcome.is_err();
                waiting.changed |= matches!(outcome, Ok((true, _)));
                let (Ok((_, text)) | Err(text)) = &outcome;
                waiting.lines.push(format!("{}: {text}", key.1));
            }
            if !waiting.left.is_empty() {
                self.sources.waiting.push(waiting);
                continue;
            }
            let text = waiting.lines.join("; ");
            if waiting.failed {
                let _ = waiting
                    .reply
                    .send(Reply::Failed(Failure::ConfigRefused { text }));
            } else {
                self.answer_when_in_force(waiting.since, waiting.changed, text, waiting.reply);
            }
        }
    }

    /// Does what an operator wants with a catalogue.
    pub(super) fn catalogue(
        &mut self,
        act: CatalogueAct,
        who: &str,
        reply: oneshot::Sender<Reply>,
    ) {
        let since = self.since_now();
        let name = act.name().map(str::to_owned);
        observe::record(Happening::Operator {
            who: who.to_owned(),
            what: act.to_string(),
            zone: None,
            about: name.clone().unwrap_or_else(|| "all catalogues".to_owned()),
            reason: None,
        });
        let keys = match &name {
            Some(name) => self.sources.named(name),
            None => Ok(self.sources.all.keys().cloned().collect()),
        };
        let keys = match keys {
            Ok(keys) => keys,
            Err(failure) => {
                let _ = reply.send(Reply::Failed(failure));
                return;
            }
        };
        if let CatalogueAct::Update { force, .. } = act {
            for key in &keys {
                if let Some(one) = self.sources.all.get_mut(key) {
                    one.force |= force;
                    one.due = now();
                }
            }
            if keys.is_empty() {
                let text = "no catalogue is fetched; write a `url` in a [[catalogue]]".to_owned();
                let _ = reply.send(Reply::Failed(Failure::BadQuery { text }));
                return;
            }
            self.sources.waiting.push(Waiting {
                left: keys.into_iter().collect(),
                lines: Vec::new(),
                changed: false,
                failed: false,
                since,
                reply,
            });
            return;
        }
        match self.decide_source(&keys, &act) {
            Ok(text) => self.answer_when_in_force(since, true, text, reply),
            Err(text) => {
                let _ = reply.send(Reply::Failed(Failure::ConfigRefused { text }));
            }
        }
    }

    /// An operator's word on the first of these sources that it fits.
    fn decide_source(&mut self, keys: &[Key], act: &CatalogueAct) -> Result<String, String> {
        let mut why = String::new();
        for key in keys {
            let outcome = match act {
                CatalogueAct::Update { .. } => continue,
                CatalogueAct::Confirm { entries, .. } => {
                    let done = self.change_source(key, |standing| standing.confirm(entries));
                    done.map(|(ended, _)| format!("{ended} entries are no longer held"))
                }
                CatalogueAct::Unpin { .. } => {
                    let done = self.change_source(key, |standing| {
                        let pinned = standing.pinned.take();
                        pinned.ok_or_else(|| "no version is pinned".to_owned())
                    });
                    done.map(|(pinned, _)| format!("version {} is no longer pinned", pinned.name))
                }
                CatalogueAct::Pin { version, .. } => {
                    self.find_version(key, Some(version)).and_then(|version| {
                        let name = version.name.clone();
                        self.change_source(key, |standing| {
                            standing.pinned = Some(version);
                            Ok(())
                        })?;
                        Ok(format!("version {name} is pinned"))
                    })
                }
                CatalogueAct::RollBack { version, .. } => self
                    .find_version(key, version.as_ref())
                    .and_then(|version| {
                        let name = version.name.clone();
                        let history = self
                            .sources
                            .all
                            .get(key)
                            .map(|one| one.kept.history.clone());
                        let history = history.unwrap_or_default();
                        let later = history.iter().map(|past| &*past.name);
                        let later = later.take_while(|later| **later != *name).collect();
                        self.change_source(key, |standing| {
                            standing.roll_back(version);
                            standing.forget(&later);
                            Ok(())
                        })?;
                        if let Some(one) = self.sources.all.get_mut(key) {
                            let at = one.kept.history.iter().position(|past| past.name == name);
                            one.kept.history.drain(..at.unwrap_or_default());
                        }
                        Ok(format!("version {name} is in force again"))
                    }),
            };
            match outcome {
                Ok(text) => {
                    self.sources.keep(key, now());
                    return Ok(text);
                }
                Err(text) => why = text,
            }
        }
        Err(why)
    }

    /// The version of this name, or the one before the newest.
    fn find_version(&self, key: &Key, name: Option<&String>) -> Result<Version, String> {
        let Some(one) = self.sources.all.get(key) else {
            return Err("it is no longer wanted".to_owned());
        };
        let newest = &one.kept.standing.newest.print;
        let history = &one.kept.history;
        let past = match name {
            Some(name) => history.iter().find(|past| past.name == *name),
            None => history.iter().find(|past| past.print != *newest),
        };
        let known = || {
            history
                .iter()
                .map(|past| &*past.name)
                .collect::<Vec<_>>()
                .join(", ")
        };
        let past = past.ok_or_else(|| match name {
            Some(name) => format!("there is no version {name}; there are: {}", known()),
            None => "there is no version before this one".to_owned(),
        })?;
        let (name, url) = (&one.feed.catalogue, &one.feed.source.url);
        let version = self.sources.store.version(name, url, past);
        version.map_err(|why| format!("version {}: {why:#}", past.name))
    }
}

fn tell(catalogue: &str, outcome: Result<String, String>) {
    observe::record(Happening::Updated {
        catalogue: catalogue.to_owned(),
        outcome,
    });
}
