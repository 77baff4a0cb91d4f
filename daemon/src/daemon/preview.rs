//! What a candidate would change, worked out on a thread of its own: reading a list, compiling it and reading
//! conntrack take longer than an answer may wait. Changes nothing.
#![expect(
    clippy::disallowed_methods,
    reason = "shell: pauses while refusals flood"
)]

use super::wishes::Wishes;
use super::{Daemon, flows, now, reload, views};
use crate::catalogue_import;
use crate::config::{self, Settings};
use crate::control::protocol::{Failure, Preview, PreviewFlow, PreviewGrant, PreviewWish};
use crate::control::{Candidate, Reply};
use crate::fetch::store::Store;
use crate::observe;
use crate::policy::catalogue::Catalogue;
use crate::policy::impact::{self, Held, Impact, LiveFlow, Regrant, Target, Times, View, Wish};
use crate::policy::name::Name;
use crate::policy::port::{SCTP, Service, TCP, UDP};
use crate::policy::rules::{Numbers, Rules};
use std::cell::RefCell;
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::rc::Rc;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;
use tokio::sync::broadcast::error::{RecvError, TryRecvError};
use tokio::sync::oneshot;

/// Names told of one grant or flow.
const MOST_NAMES: usize = 8;

/// Refusals looked at between two pauses, and how long a pause is: a flood of them costs the loop little.
const AT_ONCE: usize = 256;
const PAUSE: Duration = Duration::from_millis(100);

/// What was refused of late, and a preview that is being worked out.
pub(super) struct Previewing {
    wishes: Rc<RefCell<Wishes>>,
    working: Option<JoinHandle<()>>,
}

impl Previewing {
    /// Takes note of every refusal from now on, within the present [`tokio::task::LocalSet`].
    pub(super) fn start() -> Self {
        let wishes = Rc::new(RefCell::new(Wishes::default()));
        tokio::task::spawn_local(note(Rc::clone(&wishes)));
        Self {
            wishes,
            working: None,
        }
    }

    /// Forgets zones that are no more.
    pub(super) fn follow(&self, rules: &Rules) {
        let lives = |zone| rules.zone(zone).is_some();
        self.wishes.borrow_mut().retain_zones(lives);
    }
}

async fn note(wishes: Rc<RefCell<Wishes>>) {
    let mut happenings = observe::subscribe();
    loop {
        let mut next = happenings.recv().await;
        let mut looked_at = 0;
        loop {
            match next {
                Ok(happened) => wishes.borrow_mut().note(&happened.what, now()),
                Err(RecvError::Lagged(missed)) => wishes.borrow_mut().miss(missed),
                Err(RecvError::Closed) => return,
            }
            looked_at += 1;
            if looked_at >= AT_ONCE {
                tokio::time::sleep(PAUSE).await;
                looked_at = 0;
            }
            next = match happenings.try_recv() {
                Ok(happened) => Ok(happened),
                Err(TryRecvError::Lagged(missed)) => Err(RecvError::Lagged(missed)),
                Err(TryRecvError::Closed) => return,
                Err(TryRecvError::Empty) => break,
            };
        }
    }
}

impl Daemon {
    pub(super) fn preview(&mut self, candidate: Candidate, reply: oneshot::Sender<Reply>) {
        let busy = |text: &str| {
            Reply::Failed(Failure::Busy {
                text: text.to_owned(),
            })
        };
        let working = &self.previewing.working;
        if working.as_ref().is_some_and(|thread| !thread.is_finished()) {
            let _ = reply.send(busy("another preview is being worked out; try again"));
            return;
        }
        let policy = self.engine.policy();
        let wishes = self.previewing.wishes.borrow();
        let fetched = self.settings.feeds.iter().filter_map(|feed| {
            let key = (feed.catalogue.clone(), feed.source.url.to_string());
            let known = self.sources.in_force(&key, now())?;
            Some((key, known))
        });
        let work = Work {
            candidate,
            path: self.path.clone(),
            fetched: fetched.collect(),
            running: self.settings.clone(),
            rules: Arc::clone(policy.rules()),
            numbers: policy.numbers().clone(),
            grants: policy.grants().map(Held::of).collect(),
            wishes: wishes.list(now()),
            missed: wishes.missed(),
            watched: now().seconds_from(self.started),
        };
        let spawned = std::thread::Builder::new()
            .name("preview".to_owned())
            .spawn(move || {
                let done = work.done().map(Box::new);
                // A client that went away needs no reply.
                let _ = reply.send(done.map_or_else(Reply::Failed, Reply::Preview));
            });
        drop(wishes);
        match spawned {
            Ok(thread) => self.previewing.working = Some(thread),
            // The reply is dropped with the closure: the client is told that nobody answers.
            Err(why) => log::error!(target: "control", "no thread for a preview: {why}"),
        }
    }
}

/// All that a preview needs.
struct Work {
    candidate: Candidate,
    path: PathBuf,
    /// What is in force of what is fetched, by catalogue and address.
    fetched: BTreeMap<(String, String), Catalogue>,
    running: Settings,
    rules: Arc<Rules>,
    numbers: Numbers,
    grants: Vec<Held>,
    wishes: Vec<(Wish, Times)>,
    missed: u64,
    /// Seconds since refusals are noted.
    watched: u64,
}

impl Work {
    /// The configuration as it is written now, with what is fetched as it is.
    fn configuration(&self) -> Result<Settings, config::Problems> {
        config::Text::read(&self.path)?.settings(&|state, name, url| {
            let known = self.fetched.get(&(name.to_owned(), url.to_string()));
            known
                .cloned()
                .or_else(|| Store::new(state).in_force(name, url, now()))
        })
    }

    fn done(self) -> Result<Preview, Failure> {
        let mut notes = Vec::new();
        let mut settings = match &self.candidate {
            Candidate::Configuration => self.configuration().map_err(|why| refused(&why))?,
            Candidate::Catalogue { name, text } => replaced(&self.running, name, text, &mut notes)?,
        };
        if let Err(why) = reload::refuse_shrinking(&self.running, &settings) {
            notes.push(format!("it would be refused: {why}"));
        }
        if settings.dns != self.running.dns {
            notes.push("[dns] changes as well; what that does is not told here".to_owned());
        }
        // As a reload does it.
        settings.intent.limits.learned = self.running.intent.limits.learned;
        settings
            .intent
            .exceptions
            .clone_from(&self.rules.intent().exceptions);
        if settings.intent == **self.rules.intent() {
            notes.push("what may pass is the same as now".to_owned());
        }
        let mut numbers = self.numbers.clone();
        let links = self.rules.links().clone();
        let rules = Rules::compile(Arc::new(settings.intent), links, &mut numbers)
            .map_err(|why| refused(&why))?;
        let flows = flows::live(&self.rules, &rules).map_err(|why| Failure::Internal {
            text: format!("live flows cannot be read: {why:#}"),
        })?;
        if self.missed > 0 {
            notes.push(format!(
                "{} refusals came too fast to be noted since the start",
                self.missed
            ));
        }
        if self.watched < 86_400 {
            notes.push(format!(
                "refusals are noted since egressd started, {} ago",
                humantime::format_duration(Duration::from_secs(self.watched))
            ));
        }
        let now = View {
            rules: &self.rules,
            numbers: &self.numbers,
        };
        let candidate = View {
            rules: &rules,
            numbers: &numbers,
        };
        let impact = impact::impact(now, candidate, &self.grants, &flows, &self.wishes);
        Ok(shown(impact, notes))
    }
}

/// The running settings with another catalogue of that name.
fn replaced(
    running: &Settings,
    name: &str,
    text: &str,
    notes: &mut Vec<String>,
) -> Result<Settings, Failure> {
    let mut settings = running.clone();
    let catalogues = &mut settings.intent.catalogues;
    let Some(place) = catalogues.iter_mut().find(|known| known.name == name) else {
        let known: Vec<&str> = catalogues.iter().map(|known| &*known.name).collect();
        let known = known.join(", ");
        let text = format!("no catalogue in force is called `{name}`; there are {known}");
        return Err(Failure::BadQuery { text });
    };
    let mut candidate =
        catalogue_import::read(text.as_bytes(), "the candidate").map_err(|why| refused(&why))?;
    name.clone_into(&mut candidate.name);
    notes.extend(dangling(running, &candidate));
    *place = candidate;
    Ok(settings)
}

/// Selectors of zones that would select nothing: a reload refuses them.
fn dangling(running: &Settings, candidate: &Catalogue) -> Vec<String> {
    let mut notes = Vec::new();
    for zone in &running.intent.zones {
        let selectors = zone.allow.iter().chain(&zone.deny);
        for selector in selectors.filter(|selector| selector.catalogue == candidate.name) {
            let mut sets = candidate.sets.iter();
            if !sets.any(|set| selector.selects(&candidate.name, set)) {
                notes.push(format!(
                    "zone {}: `{selector}` would select nothing, and the configuration be refused",
                    zone.name
                ));
            }
        }
    }
    notes
}

fn refused(why: &impl std::fmt::Display) -> Failure {
    Failure::ConfigRefused {
        text: why.to_string(),
    }
}

fn shown(impact: Impact, mut notes: Vec<String>) -> Preview {
    notes.extend(impact.zones);
    let grant = |of: &Regrant| PreviewGrant {
        zone: of.zone.clone(),
        address: of.address.to_string(),
        names: names(&of.names),
        closes: of.closes.to_string(),
        opens: of.opens.to_string(),
    };
    let cut = |of: &impact::Cut| {
        let LiveFlow {
            source,
            destination,
            protocol,
            port,
            ..
        } = of.flow;
        PreviewFlow {
            zone: of.zone.clone(),
            client: source.to_string(),
            address: destination.to_string(),
            service: service(protocol, port),
            names: names(&of.names),
        }
    };
    let wish = |of: &impact::Opened| PreviewWish {
        zone: of.zone.clone(),
        name: of.wish.name.as_ref().map(ToString::to_string),
        address: of.wish.target.map(|to| to.address.to_string()),
        service: of
            .wish
            .target
            .map(|Target { protocol, port, .. }| service(protocol, port)),
        count: of.times.count,
        ago: of.times.ago,
    };
    Preview {
        ends: impact.ends.list.iter().map(grant).collect(),
        ends_total: views::count(impact.ends.total),
        changes: impact.changes.list.iter().map(grant).collect(),
        changes_total: views::count(impact.changes.total),
        cuts: impact.cuts.list.iter().map(cut).collect(),
        cuts_total: views::count(impact.cuts.total),
        opens: impact.opens.list.iter().map(wish).collect(),
        opens_total: views::count(impact.opens.total),
        notes,
    }
}

fn names(names: &[Arc<Name>]) -> Vec<String> {
    let first = names.iter().take(MOST_NAMES);
    first.map(ToString::to_string).collect()
}

fn service(protocol: u8, port: u16) -> String {
    if [TCP, UDP, SCTP].contains(&protocol) {
        Service {
            protocol,
            first: port,
            last: port,
        }
        .to_string()
    } else {
        Service::whole(protocol).to_string()
    }
}
