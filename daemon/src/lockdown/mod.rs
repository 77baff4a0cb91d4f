//! The gateway without a daemon: `egressd lockdown` closes it, `egressd open` opens it, and the keeper closes
//! one whose daemon stays away. What was done stands in a mark for whoever looks. Decides nothing about
//! single packets.

pub mod keeper;
pub mod mark;
mod open;
pub mod presence;
mod tell;

pub use open::open;

use crate::config::{self, DEFAULT_UNATTENDED, Settings};
use crate::control::protocol::DEFAULT_SOCKET;
use crate::daemon::now;
use crate::daemon::state::Stamp;
use crate::plane::nft;
use crate::plane::ruleset::{LOCKDOWN_TABLE, Scope};
use anyhow::Context as _;
use mark::{Mark, Word};
use std::path::{Path, PathBuf};
use std::time::Duration;

/// What the commands need of a configuration, and what they take where it cannot be used.
struct Place {
    scope: Scope,
    runtime: PathBuf,
    unattended: Option<Duration>,
    settings: Option<Settings>,
}

impl Place {
    /// Reads the configuration. One that cannot be used closes everything.
    fn read(path: &Path) -> Self {
        match config::load(path) {
            Ok(settings) => Self {
                scope: Scope::of(&settings.intent),
                runtime: settings.runtime().to_owned(),
                unattended: settings.unattended,
                settings: Some(settings),
            },
            Err(problems) => {
                log::error!(target: "config", "the configuration cannot be used: {problems}");
                let runtime = Path::new(DEFAULT_SOCKET).parent();
                Self {
                    scope: Scope::Everything,
                    runtime: runtime.unwrap_or(Path::new("/")).to_owned(),
                    unattended: Some(DEFAULT_UNATTENDED),
                    settings: None,
                }
            }
        }
    }
}

/// Closes the gateway in the calling thread's network namespace until a daemon has its policy in force:
/// whatever is forwarded from and to the zones of the configuration at `path` is dropped, of established flows
/// too; everything, where interfaces of no zone are dropped or the configuration cannot be used.
///
/// # Errors
/// When the kernel refuses; what was closed before still is.
pub fn lock(path: &Path) -> anyhow::Result<()> {
    close(&Place::read(path), "by command")
}

/// As [`lock`], but only if no daemon was seen alive for as long as the configuration's `unattended` says.
///
/// # Errors
/// As [`lock`].
pub fn lock_if_unattended(path: &Path) -> anyhow::Result<()> {
    let place = Place::read(path);
    let Some(limit) = place.unattended else {
        println!("unattended = \"never\": nothing is closed, however long egressd is away");
        return Ok(());
    };
    let away = keeper::away(&place.runtime, &Stamp::now(now()));
    if away < limit {
        log::debug!(target: "daemon", "egressd was seen alive {} s ago", away.as_secs());
        return Ok(());
    }
    // Where no configuration says where to look, an owner says that somebody is alive.
    if place.settings.is_none() && !nft::is_open_to_others() {
        log::warn!(target: "daemon", "whether egressd is alive cannot be told, but its table has an owner");
        return Ok(());
    }
    let hours = away.as_secs() / 3600;
    close(&place, &format!("egressd is away for {hours} h"))
}

fn close(place: &Place, why: &str) -> anyhow::Result<()> {
    let Place { scope, runtime, .. } = place;
    let again = nft::lockdown::lock(scope).context("close the gateway")?;
    let before = mark::read(runtime).filter(|mark| mark.state == Word::Locked);
    if !again || before.is_none() {
        let mark = Mark::now(Word::Locked, why);
        if let Err(error) = mark::write(runtime, &mark) {
            // Before the runtime directory is there, at boot.
            log::debug!(target: "daemon", "the lockdown leaves no mark: {error:#}");
        }
        log::warn!(target: "daemon", "LOCKED by {}: {why}", mark.who);
    }
    let was = if again { " still" } else { "" };
    println!(
        "locked: {scope} is{was} dropped, established flows too (table inet {LOCKDOWN_TABLE}), until egressd \
         starts and has its policy in force"
    );
    if presence::is_running(runtime) {
        println!(
            "egressd is running and goes on answering questions; its next start ends this. To stay closed, \
             `systemctl stop egressd`"
        );
    }
    Ok(())
}
