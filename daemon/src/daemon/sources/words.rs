//! Operators' words about catalogues that are fetched.

use super::{Key, Waiting};
use crate::control::protocol::Failure;
use crate::control::{CatalogueAct, Reply};
use crate::daemon::{Daemon, now};
use crate::observe::{self, Happening};
use crate::policy::Moment;
use crate::policy::update::Version;
use tokio::sync::oneshot;

/// How long an operator waits for servers.
pub(super) const PATIENCE: u64 = 20;

impl Daemon {
    /// Tells operators who waited long enough that they may go.
    pub(super) fn let_go(&mut self, present: Moment) {
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

    pub(super) fn tell_waiting(&mut self, key: &Key, outcome: Result<(bool, String), String>) {
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
    pub(in crate::daemon) fn catalogue(
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
