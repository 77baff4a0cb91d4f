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
use crate::document::Problems;
use crate::plane::nft;
use crate::plane::ruleset::{LOCKDOWN_TABLE, Scope};
use anyhow::Context as _;
use mark::{Mark, Word};
use presence::Presence;
use std::path::{Path, PathBuf};
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

/// What is said of a configuration that takes too long.
const LATE: &str = "it, or a file it names, cannot be read in time; put them on a local disk";

/// What the commands need of a configuration, and what they take where it cannot be used.
struct Place {
    scope: Scope,
    runtime: PathBuf,
    unattended: Option<Duration>,
    settings: Option<Settings>,
}

/// Longer than reading a configuration takes. One on a file system that waits for the network does not end, and
/// the network waits for the lockdown.
const READING: Duration = Duration::from_secs(5);

impl Place {
    /// Reads the configuration. One that cannot be used, or not be read in time, closes everything.
    fn read(path: &Path) -> Self {
        let (done, read) = mpsc::channel();
        let owned = path.to_owned();
        // It ends with the process.
        thread::spawn(move || {
            // Nobody waits any more.
            let _ = done.send(config::load(&owned));
        });
        let late = || Problems::with_file(&path.display().to_string(), LATE.to_owned());
        match read.recv_timeout(READING).unwrap_or_else(|_| Err(late())) {
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
    let place = Place::read(path);
    close(&place, "by command")?;
    if presence::is_running(&place.runtime) {
        println!(
            "egressd is running and goes on answering questions; its next start ends this. To stay closed, \
             `systemctl stop egressd`"
        );
    }
    Ok(())
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
    // An owner of the table is no sign of life: the service manager keeps its socket for one that died.
    let Some(_nobody) = Presence::of_nobody(&place.runtime) else {
        log::warn!(target: "daemon", "egressd runs, but has left no sign of life for {} s", away.as_secs());
        return Ok(());
    };
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
            // At boot the folder is not there yet; an older word of it would be wrong.
            let stale = mark::read(runtime).is_some();
            let level = if stale {
                log::Level::Error
            } else {
                log::Level::Debug
            };
            log::log!(target: "daemon", level, "the lockdown leaves no mark: {error:#}");
        }
        log::warn!(target: "daemon", "LOCKED by {}: {why}", mark.who);
    }
    let was = if again { " still" } else { "" };
    println!(
        "locked: {scope} is{was} dropped, established flows too (table inet {LOCKDOWN_TABLE}), until egressd \
         starts and has its policy in force"
    );
    Ok(())
}
