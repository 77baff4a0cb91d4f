//! Reading the configuration again: all or nothing.

use super::{Daemon, notify, now};
use crate::config::{self, DnsSettings, Settings};
use crate::control::Reply;
use crate::control::protocol::{Failure, Reloaded};
use crate::fetch::store::Store;
use crate::observe::{self, Happening};
use crate::policy::Moment;
use anyhow::Context as _;
use sd_notify::NotifyState;
use std::sync::Arc;
use tokio::sync::oneshot;

/// A catalogue that loses more than this share of its entries is refused without `--force`.
pub(super) const SHRINK_PERCENT: usize = 30;

/// For how many seconds a word waits for live flows to be judged before it says that they are not.
const JUDGED_WITHIN: u64 = 3;

/// When an operator's word came, and how many flows were cut before.
#[derive(Clone, Copy, Debug)]
pub(super) struct Since {
    pub(super) at: Moment,
    cut_before: u64,
}

/// A reload that waits for its commit.
pub(super) struct Reloading {
    since: Since,
    /// Whether it is the configuration that was read again.
    whole: bool,
    changed: bool,
    summary: String,
    warnings: Vec<String>,
    reply: Option<oneshot::Sender<Reply>>,
}

impl Daemon {
    /// Reads the configuration again. All or nothing: what cannot be used leaves the running policy.
    pub(super) fn reload(&mut self, force: bool, reply: Option<oneshot::Sender<Reply>>) {
        notify(&[
            NotifyState::Reloading,
            NotifyState::monotonic_usec_now().expect("Linux has this clock"),
        ]);
        let since = self.since_now();
        match self.take_settings(force) {
            Ok((summary, warnings)) => self.reloads.push(Reloading {
                since,
                whole: true,
                changed: true,
                summary,
                warnings,
                reply,
            }),
            Err(error) => {
                notify(&[NotifyState::Ready]);
                let text = format!("{error:#}");
                observe::record(Happening::Reloaded {
                    outcome: Err(text.clone()),
                });
                if let Some(reply) = reply {
                    let _ = reply.send(Reply::Failed(Failure::ConfigRefused { text }));
                }
            }
        }
    }

    /// The present, for an operator's word.
    pub(super) fn since_now(&self) -> Since {
        Since {
            at: now(),
            cut_before: self.engine.cut_flows(),
        }
    }

    /// Answers an operator once what there is now is in force.
    pub(super) fn answer_when_in_force(
        &mut self,
        since: Since,
        changed: bool,
        summary: String,
        reply: oneshot::Sender<Reply>,
    ) {
        self.reloads.push(Reloading {
            since,
            whole: false,
            changed,
            summary,
            warnings: Vec::new(),
            reply: Some(reply),
        });
    }

    fn take_settings(&mut self, force: bool) -> anyhow::Result<(String, Vec<String>)> {
        let text = config::Text::read(&self.path)?;
        let settings = self.read_settings(&text)?;
        if !force {
            refuse_shrinking(&self.settings, &settings)?;
        }
        let taken = self.adopt(settings)?;
        self.text = text;
        self.follow_sources();
        Ok(taken)
    }

    /// The sources and files of the configuration that is in force.
    pub(super) fn follow_sources(&mut self) {
        self.sources.follow(&self.settings.feeds, now());
        let text = &self.text;
        let files = self.settings.files.iter().map(|file| text.locate(file));
        self.files.follow(files);
    }

    /// Takes what is fetched as it is now, with the configuration as it was read.
    ///
    /// # Errors
    /// When it cannot be in force; nothing changed.
    pub(super) fn refresh(&mut self) -> anyhow::Result<(String, Vec<String>)> {
        let settings = self.read_settings(&self.text)?;
        self.adopt(settings)
    }

    /// Takes catalogue files as they are now, with the rest of the configuration as it was read.
    pub(super) fn take_files(&mut self) {
        if !self.text.is_stale() {
            return;
        }
        let text = self.text.anew();
        let taken = self
            .read_settings(&text)
            .map_err(Into::into)
            .and_then(|settings| {
                refuse_shrinking(&self.settings, &settings)?;
                self.adopt(settings)
            });
        let outcome = match taken {
            Ok((summary, _)) => {
                self.text = text;
                Ok(format!("files changed: {summary}"))
            }
            Err(why) => Err(format!("{why:#}")),
        };
        observe::record(Happening::Updated {
            catalogue: "files".to_owned(),
            outcome,
        });
    }

    fn read_settings(&self, text: &config::Text) -> Result<Settings, config::Problems> {
        text.settings(&|state, name, url| {
            let known = self
                .sources
                .in_force(&(name.to_owned(), url.to_string()), now());
            known.or_else(|| Store::new(state).in_force(name, url, now()))
        })
    }

    fn adopt(&mut self, mut settings: Settings) -> anyhow::Result<(String, Vec<String>)> {
        let mut warnings = Vec::new();
        let running = &self.settings;
        if settings.planes != running.planes
            || settings.control != running.control
            || settings.pins != running.pins
            || settings.state != running.state
            || settings.intent.limits.learned != running.intent.limits.learned
        {
            warnings.push(
                "changes of [planes], [control], [service] and [limits] learned take effect at the next restart"
                    .to_owned(),
            );
        }
        let moves = settings.runtime() != running.runtime();
        self.next_runtime = moves.then(|| settings.runtime().to_owned());
        let running = &self.settings;
        settings.planes = running.planes;
        settings.control = running.control.clone();
        settings.pins = running.pins.clone();
        settings.state = running.state.clone();
        settings.intent.limits.learned = running.intent.limits.learned;
        settings.intent.exceptions = self.exceptions.list().to_vec();

        let moved = settings.dns != running.dns || self.edge.is_none();
        if moved {
            self.move_edge(&settings.dns)?;
        }
        let running = &self.settings;
        let observes = settings.intent.observed != running.intent.observed
            || (settings.dns != running.dns && self.observing.is_some());
        if observes && let Err(error) = self.move_observing(&settings) {
            if moved {
                let old = self.settings.dns.clone();
                self.move_edge(&old)
                    .context("open the DNS edge as it was")?;
            }
            return Err(error);
        }
        let links = self.engine.policy().rules().links().clone();
        match self
            .engine
            .replace(Arc::new(settings.intent.clone()), links)
        {
            Ok(changed) => {
                self.settings = settings;
                let summary =
                    format!("{changed} learned grants opened, closed or changed their ports");
                Ok((summary, warnings))
            }
            Err(error) => {
                if moved {
                    let old = self.settings.dns.clone();
                    self.move_edge(&old)
                        .context("open the DNS edge as it was")?;
                }
                if observes {
                    let old = self.settings.clone();
                    self.move_observing(&old)?;
                }
                Err(error.into())
            }
        }
    }

    /// Opens the DNS edge anew. When that fails the edge is opened as it was: the addresses of both
    /// may be the same, so they cannot be open at once.
    fn move_edge(&mut self, settings: &DnsSettings) -> anyhow::Result<()> {
        if let Some(edge) = self.edge.take() {
            edge.stop();
        }
        match self.open_edge(settings) {
            Ok(edge) => self.edge = Some(edge),
            Err(error) => {
                self.edge = Some(self.open_edge(&self.settings.dns).with_context(|| {
                    format!("{error:#}; and the edge cannot be opened as it was either")
                })?);
                return Err(error);
            }
        }
        Ok(())
    }

    /// Starts the observer anew, or ends it. When that fails it is started as it was: both may want the
    /// same log group, so they cannot run at once.
    fn move_observing(&mut self, settings: &Settings) -> anyhow::Result<()> {
        if let Some(observing) = self.observing.take() {
            observing.stop();
        }
        match self.open_observing(settings) {
            Ok(observing) => self.observing = observing,
            Err(error) => {
                self.observing = self.open_observing(&self.settings).with_context(|| {
                    format!("{error:#}; and it cannot be started as it was either")
                })?;
                return Err(error);
            }
        }
        Ok(())
    }

    /// Why what was asked for at `since` is not wholly in force. Live flows that could not be judged or cut at
    /// once are given a few tries.
    pub(super) fn fault_since(&self, since: Option<Moment>) -> Option<String> {
        let overdue = since.is_some_and(|since| since.after_seconds(JUDGED_WITHIN) <= now());
        let unjudged = self.engine.unjudged().filter(|_| overdue);
        self.engine.fault().or(unjudged).map(str::to_owned)
    }

    pub(super) fn finish_reloads(&mut self) {
        let committed = self.engine.committed();
        let oldest = self.reloads.first().map(|reload| reload.since.at);
        let fault = self.fault_since(oldest);
        if !self.engine.is_settled() && fault.is_none() {
            return;
        }
        for reload in self.reloads.drain(..) {
            let outcome = match &fault {
                None => Ok(reload.summary.clone()),
                Some(fault) => Err(format!("accepted, but not wholly in force yet: {fault}")),
            };
            if reload.whole {
                notify(&[NotifyState::Ready]);
            }
            let told = match &outcome {
                Ok(_) => reload.whole.then(|| Happening::Reloaded {
                    outcome: outcome.clone(),
                }),
                // It was not refused: what is tried again is the new one.
                Err(text) => Some(Happening::Plane {
                    plane: "planes",
                    what: format!("the configuration that was read is {text}"),
                }),
            };
            if let Some(told) = told {
                observe::record(told);
            }
            let Some(reply) = reload.reply else { continue };
            let message = match outcome {
                Ok(summary) => Reply::Reloaded(Reloaded {
                    changed: reload.changed,
                    revision: committed.0,
                    cut: self.engine.cut_flows() - reload.since.cut_before,
                    summary,
                    warnings: reload.warnings,
                }),
                Err(text) => Reply::Failed(Failure::Internal { text }),
            };
            let _ = reply.send(message);
        }
    }
}

/// Refuses a catalogue that lost most of itself: more likely a broken file than a policy.
pub(super) fn refuse_shrinking(old: &Settings, new: &Settings) -> anyhow::Result<()> {
    for catalogue in &old.intent.catalogues {
        let entries = |settings: &Settings| -> usize {
            let same = settings
                .intent
                .catalogues
                .iter()
                .filter(|c| c.name == catalogue.name);
            same.flat_map(|c| &c.sets)
                .map(|set| set.patterns.len() + set.networks.len())
                .sum()
        };
        let (before, after) = (entries(old), entries(new));
        let named = new
            .intent
            .catalogues
            .iter()
            .any(|c| c.name == catalogue.name);
        anyhow::ensure!(
            !named || after * 100 >= before * (100 - SHRINK_PERCENT),
            "catalogue `{}` shrank from {before} to {after} entries; if that is meant, reload with --force",
            catalogue.name
        );
    }
    Ok(())
}
