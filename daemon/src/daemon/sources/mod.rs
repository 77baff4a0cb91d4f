//! Catalogues that are fetched: when each is asked, and what becomes of what comes.

mod words;

use super::{Daemon, now, reload};
use crate::config::Feed;
use crate::control::Reply;
use crate::control::protocol::{Failure, SourceStatus};
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
use words::PATIENCE;

/// The catalogue's name, and where it is fetched.
type Key = (String, String);

/// The web service's area of Intune: a list without it is not for a gateway that enforces it.
const INTUNE: &str = "mem";

/// Seconds until what is held is to end again, after the policy could not follow.
const POSTPONED: u64 = 3600;

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
        self.all.get(key)?.kept.in_force(now)
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
            if changed.is_err()
                && let Some(one) = self.sources.all.get_mut(&key)
            {
                let later = present.after_seconds(POSTPONED);
                one.kept.standing.postpone(present.0, later.0);
            }
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
        let there = !one.kept.standing.newest.print.is_empty();
        let memory = match there && !one.force {
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
                let version = &one.kept.standing.newest.name;
                let text = format!("nothing new; version {version} is in force");
                (Ended::Well, Ok((false, text)))
            }
            Came::Later(after, why) => (Ended::Later(after), Err(why)),
            Came::Failed(why) => (Ended::Badly, Err(why)),
            // A reload came between.
            Came::New { memory, .. } if memory.public_key != one.feed.source.public_key => {
                let why = "it was asked for when another public key was configured".to_owned();
                (Ended::Badly, Err(why))
            }
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
}

fn tell(catalogue: &str, outcome: Result<String, String>) {
    observe::record(Happening::Updated {
        catalogue: catalogue.to_owned(),
        outcome,
    });
}
