//! What operators do beside the configuration: revocations and exceptions. Each is answered once it is in
//! force, live flows were judged by it, and what must survive a crash is on the disk.
#![expect(
    clippy::disallowed_methods,
    reason = "shell: exceptions carry the wall clock's time, for people"
)]

use super::{Daemon, now, views};
use crate::control::protocol::{ExceptionChange, ExceptionList, Failure, Revoked};
use crate::control::{Act, Reply};
use crate::observe::{self, Happening};
use crate::policy::exceptions::{Exception, Wanted};
use crate::policy::revoke::Target;
use crate::policy::rules::CompileError;
use crate::policy::{Moment, Revision};
use std::sync::Arc;
use std::time::SystemTime;
use tokio::sync::oneshot;

/// An operator's word that waits for its commit.
pub(super) struct Acting {
    since: Moment,
    revision: Revision,
    cut_before: u64,
    /// The version of the exceptions that must be on the disk.
    kept: Option<u64>,
    reply: oneshot::Sender<Reply>,
    done: Reply,
}

impl Daemon {
    /// Does what root or an administrator wants.
    pub(super) fn act(&mut self, act: Act, who: u32, reply: oneshot::Sender<Reply>) {
        let who = format!("uid {who}");
        let begun = match act {
            Act::Catalogue(act) => return self.catalogue(act, &who, reply),
            Act::Revoke { target, zone } => self.revoke(&target, zone, who),
            Act::Allow(wanted) => self.allow(wanted, who),
            Act::Disallow { id } => self.disallow(id, who),
        };
        match begun {
            Ok((revision, kept, done)) => self.acting.push(Acting {
                since: now(),
                revision,
                cut_before: self.engine.cut_flows(),
                kept,
                reply,
                done,
            }),
            Err(failure) => {
                // A client that went away needs no reply.
                let _ = reply.send(Reply::Failed(failure));
            }
        }
    }

    fn revoke(
        &mut self,
        target: &Target,
        zone: Option<String>,
        who: String,
    ) -> Result<(Revision, Option<u64>, Reply), Failure> {
        let chosen = views::chosen_zone(self.engine.policy(), zone.as_deref())?;
        let (addresses, closed, revision) = self.engine.revoke(chosen, target);
        observe::record(Happening::Operator {
            who,
            what: format!("{addresses} learned addresses revoked, {closed} closed"),
            zone,
            about: target.to_string(),
            reason: None,
        });
        let mut notes = Vec::new();
        if let Target::Network(net) = target {
            let rules = self.engine.policy().rules();
            let zones = rules
                .zones()
                .filter(|(id, _)| chosen.is_none_or(|c| c == *id));
            let listed = zones
                .flat_map(|(_, zone)| &zone.networks)
                .filter(|listing| listing.network.contains(net) || net.contains(&listing.network));
            let mut labels: Vec<String> = listed
                .map(|listing| rules.row(listing.set).label())
                .collect();
            labels.sort_unstable();
            labels.dedup();
            if !labels.is_empty() {
                notes.push(format!(
                    "these sets list networks there, which stay open: {}",
                    labels.join(", ")
                ));
            }
        }
        let done = Reply::Revoked(Revoked {
            what: target.to_string(),
            addresses: views::count(addresses),
            closed: views::count(closed),
            notes,
            ..Revoked::default()
        });
        Ok((revision, None, done))
    }

    fn allow(
        &mut self,
        wanted: Wanted,
        who: String,
    ) -> Result<(Revision, Option<u64>, Reply), Failure> {
        let policy = self.engine.policy();
        let zone = views::zone_of(policy, &wanted.zone)?;
        let since = humantime::format_rfc3339_seconds(SystemTime::now()).to_string();
        let rules = Arc::clone(policy.rules());
        let added = self
            .exceptions
            .add(&rules, zone, wanted, (who, since), now())
            .cloned()
            .map_err(|why| Failure::BadQuery {
                text: why.to_string(),
            })?;
        if let Err(why) = self.follow_exceptions() {
            self.exceptions.remove(added.id);
            return Err(Failure::ConfigRefused {
                text: why.to_string(),
            });
        }
        tell(&added, "allowed", added.who.clone());
        Ok(self.changed(&added))
    }

    fn disallow(
        &mut self,
        id: u32,
        who: String,
    ) -> Result<(Revision, Option<u64>, Reply), Failure> {
        let Some(removed) = self.exceptions.remove(id) else {
            return Err(Failure::BadQuery {
                text: format!("there is no exception {id}; see egressctl allow --list"),
            });
        };
        tell(&removed, "disallowed", who);
        self.follow_exceptions().map_err(|why| Failure::Internal {
            text: format!("it is ended, but not out of force yet: {why}"),
        })?;
        Ok(self.changed(&removed))
    }

    fn changed(&mut self, exception: &Exception) -> (Revision, Option<u64>, Reply) {
        let done = Reply::Exception(ExceptionChange {
            exception: views::exception(exception, now()),
            ..ExceptionChange::default()
        });
        let revision = self.engine.policy().revision();
        (revision, Some(self.keeping.want()), done)
    }

    /// Puts the exceptions there are in force.
    pub(super) fn follow_exceptions(&mut self) -> Result<(), CompileError> {
        let rules = Arc::clone(self.engine.policy().rules());
        if rules.intent().exceptions == self.exceptions.list() {
            return Ok(());
        }
        let mut intent = (**rules.intent()).clone();
        intent.exceptions = self.exceptions.list().to_vec();
        self.engine
            .replace(Arc::new(intent), rules.links().clone())
            .map(|_| ())
    }

    /// Ends the exceptions whose time is over.
    pub(super) fn end_exceptions(&mut self) {
        let over = self.exceptions.expire(now());
        if over.is_empty() {
            return;
        }
        for exception in &over {
            tell(exception, "exception is over, ended", "egressd".to_owned());
        }
        self.keeping.want();
        if let Err(why) = self.follow_exceptions() {
            // Tried again with the next tick.
            log::error!(target: "grant", "exceptions that are over are still in force: {why}");
        }
    }

    /// Every two seconds.
    pub(super) fn tend_exceptions(&mut self) {
        if let Err(why) = self.follow_exceptions() {
            log::error!(target: "grant", "exceptions are not in force as they should be: {why}");
        }
        self.keeping.refresh(&self.exceptions, now());
    }

    pub(super) fn exception_list(&self) -> ExceptionList {
        let list = self.exceptions.list().iter();
        ExceptionList {
            exceptions: list.map(|one| views::exception(one, now())).collect(),
        }
    }

    /// Answers what is in force and kept by now.
    pub(super) fn finish_acting(&mut self) {
        let committed = self.engine.committed();
        for acting in std::mem::take(&mut self.acting) {
            let kept = acting.kept.map(|number| self.keeping.is_done(number));
            let unkept = match kept {
                None | Some(Some(Ok(()))) => None,
                Some(Some(Err(why))) => {
                    Some(format!("not kept over a restart, which will end it: {why}"))
                }
                Some(None) => {
                    self.acting.push(acting);
                    continue;
                }
            };
            if let Some(fault) = self.fault_since(Some(acting.since)) {
                let text = format!("accepted, but not wholly in force yet: {fault}");
                let _ = acting.reply.send(Reply::Failed(Failure::Internal { text }));
                continue;
            }
            if !self.engine.is_done(acting.revision) {
                self.acting.push(acting);
                continue;
            }
            let cut = self.engine.cut_flows() - acting.cut_before;
            let mut done = acting.done;
            if let Reply::Revoked(revoked) = &mut done {
                (revoked.revision, revoked.cut) = (committed.0, cut);
            }
            if let Reply::Exception(change) = &mut done {
                (change.revision, change.cut) = (committed.0, cut);
                change.notes.extend(unkept);
            }
            let _ = acting.reply.send(done);
        }
    }
}

fn tell(exception: &Exception, what: &str, who: String) {
    let wanted = &exception.wanted;
    observe::record(Happening::Operator {
        who,
        what: format!("{what} on {} as exception {}", wanted.ports, exception.id),
        zone: Some(wanted.zone.clone()),
        about: wanted.destination.to_string(),
        reason: Some(wanted.reason.clone()),
    });
}
