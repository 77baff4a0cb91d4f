//! The end of a start: what is granted opens only now, and what keeps the nft table ours is handed over.

use super::engine::Event;
use super::manager::tell;
use super::parked::keepsake;
use super::{Daemon, now, state};
use crate::control::protocol::{State, Status};
use crate::lockdown::{keeper, mark};
use crate::plane::nft;
use crate::plane::ruleset::LOCKDOWN_TABLE;
use anyhow::Context as _;
use std::path::Path;
use std::time::Duration;
use tokio::sync::{mpsc, oneshot};
use tokio::time::timeout;

impl Daemon {
    /// Hands over what keeps the planes ours, and sees to it that no flow is left that nobody grants where a
    /// lockdown is about to end. Every plane is in force.
    ///
    /// # Errors
    /// When a thread of the daemon ended, or the kernel cannot be asked: everything stays closed.
    pub(super) async fn prepare_to_open(
        &mut self,
        inbox: &mut mpsc::Receiver<Event>,
    ) -> anyhow::Result<()> {
        let (give, given) = oneshot::channel();
        self.planes.ask(move |planes| {
            // Closed: the daemon is ending.
            let _ = give.send(keepsake(planes));
        });
        let keepsake = self.waiting_for(given, inbox).await?;
        self.parked.keep(keepsake).into_iter().for_each(tell);
        if is_locked()?.is_some() {
            self.settle(inbox).await?;
        }
        Ok(())
    }

    /// Ends a lockdown of before, as the last thing of a start.
    ///
    /// # Errors
    /// When a thread of the daemon ended, or the kernel keeps the lockdown: everything stays closed.
    pub(super) async fn open_what_is_granted(
        &mut self,
        inbox: &mut mpsc::Receiver<Event>,
    ) -> anyhow::Result<()> {
        if let Some(dropped) = is_locked()? {
            self.settle(inbox).await?;
            nft::lockdown::lift()?;
            log::info!(target: "daemon", "the lockdown is lifted; it dropped {dropped} packets");
        }
        let runtime = self.settings.runtime();
        if let Some(mark) = mark::read(runtime) {
            log::warn!(target: "daemon", "the gateway was {}; the policy is in force again", mark.line());
        }
        mark::clear(runtime);
        self.live();
        Ok(())
    }

    /// Waits until every plane is in force and every live flow was judged, and cut if nothing grants it.
    async fn settle(&mut self, inbox: &mut mpsc::Receiver<Event>) -> anyhow::Result<()> {
        while !self.engine.is_settled() || self.engine.fault().is_some() {
            self.next(inbox).await?;
        }
        Ok(())
    }

    /// Handles one event or what is due, as the loop will.
    async fn next(&mut self, inbox: &mut mpsc::Receiver<Event>) -> anyhow::Result<()> {
        let rest = self.engine.next_tick().0.saturating_sub(now().0).max(1);
        match timeout(Duration::from_millis(rest), inbox.recv()).await {
            Ok(event) => {
                let event = event.context("a thread of the daemon ended")?;
                self.engine.handle(event, now());
            }
            Err(_) => self.engine.tick(now()),
        }
        self.perform();
        Ok(())
    }

    /// Handles events until another thread has answered.
    async fn waiting_for<T>(
        &mut self,
        mut answer: oneshot::Receiver<T>,
        inbox: &mut mpsc::Receiver<Event>,
    ) -> anyhow::Result<T> {
        loop {
            tokio::select! {
                answer = &mut answer => return answer.context("a thread of the daemon ended"),
                handled = self.next(inbox) => handled?,
            }
        }
    }

    /// Leaves a sign of life for the keeper, if one is due.
    pub(super) fn live(&mut self) {
        if !self.pulse.is_due(now()) {
            return;
        }
        // The keeper reads the configuration as it is now, and looks there.
        let next = self.next_runtime.clone().into_iter();
        let folders: Vec<_> = next.chain([self.settings.runtime().to_owned()]).collect();
        tokio::task::spawn_blocking(move || {
            for folder in folders {
                if let Err(error) = keeper::beat(&folder, &state::Stamp::now(now())) {
                    log::warn!(target: "daemon", "the keeper may think that egressd is away: {error:#}");
                }
            }
        });
    }
}

fn is_locked() -> anyhow::Result<Option<u64>> {
    nft::lockdown::locked().context("look for a lockdown")
}

/// Adds that everything is refused, whatever the planes say.
pub(super) fn add_lock(status: &mut Status, runtime: &Path) {
    let warning = match nft::lockdown::locked() {
        Ok(None) => return,
        Ok(Some(dropped)) => {
            status.state = State::Locked;
            let mark = mark::read(runtime).filter(|mark| mark.state == mark::Word::Locked);
            let mark = mark.map(|mark| format!(", {}", mark.line()));
            format!(
                "table inet {LOCKDOWN_TABLE} drops what is forwarded ({dropped} packets so far){}; restart \
                 egressd to enforce the policy instead",
                mark.unwrap_or_default()
            )
        }
        Err(error) => format!("whether the gateway is locked cannot be told: {error:#}"),
    };
    status.warnings.push(warning);
}
