//! `egressd open`: the only way to open a gateway. It takes away what refuses, and leaves word.

use super::presence::{Presence, Taken};
use super::{Mark, Place, Word, mark, tell};
use crate::config::DEFAULT_PINS;
use crate::plane::{ebpf, nft};
use anyhow::{Context as _, bail, ensure};
use nix::unistd::geteuid;
use std::path::Path;

/// Longest reason, in bytes.
const LONGEST_REASON: usize = 200;

/// Opens the gateway of the configuration at `path` in the calling thread's network namespace, because of
/// `reason`, for as long as no daemon starts: the programs, the table and the lockdown go. It is logged, and
/// stands in the runtime folder, before anything opens.
///
/// # Errors
/// When this is not root, the reason is none, a daemon runs, or the kernel refuses; then some of it may still
/// refuse, and the error says what.
pub fn open(path: &Path, reason: &str) -> anyhow::Result<()> {
    ensure!(geteuid().is_root(), "only root opens a gateway");
    let reason = fit(reason)?;
    let Place {
        runtime, settings, ..
    } = Place::read(path);
    let _presence = match Presence::take(&runtime) {
        Ok(presence) => presence,
        Err(taken @ (Taken::Running | Taken::Unknown(_))) => {
            return Err(anyhow::Error::from(taken).context("the gateway stays as it is"));
        }
    };
    let mark = Mark::now(Word::Open, reason);
    mark::write(&runtime, &mark)
        .context("the gateway stays as it is: no word of it can be left")?;
    let line = format!("OPEN by {}: {reason}", mark.who);
    log::warn!(target: "daemon", "{line}");
    if !tell::system_log(Path::new(tell::SYSLOG), &line) {
        log::warn!(target: "daemon", "there is no system log to take note of that");
    }
    let pins = settings.map_or_else(|| DEFAULT_PINS.into(), |settings| settings.pins);
    let done = [
        remove("programs", || {
            ebpf::sweep_pins(&pins).map(|links| links > 0)
        }),
        remove("table inet egressd", nft::remove),
        remove("the lockdown", nft::lockdown::lift),
    ];
    let failed: Vec<String> = done.into_iter().filter_map(Result::err).collect();
    if !failed.is_empty() {
        mark::clear(&runtime);
        bail!("the gateway is not open: {}", failed.join("; "));
    }
    println!(
        "open: egressd refuses nothing until it is started again (`systemctl start egressd`), and clients that \
         need its answers get none"
    );
    Ok(())
}

/// Takes one thing away and says so, or why not.
fn remove(what: &str, act: impl FnOnce() -> anyhow::Result<bool>) -> Result<(), String> {
    match act() {
        Ok(true) => {
            println!("removed: {what}");
            Ok(())
        }
        Ok(false) => Ok(()),
        Err(error) => Err(format!("{what} cannot be removed: {error:#}")),
    }
}

/// A reason that people can read in a log.
fn fit(reason: &str) -> anyhow::Result<&str> {
    let reason = reason.trim();
    ensure!(
        !reason.is_empty() && reason.len() <= LONGEST_REASON && !reason.contains(char::is_control),
        "give a --reason of 1 to {LONGEST_REASON} bytes without control characters"
    );
    Ok(reason)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reason_is_readable() {
        fn check(reason: &str, expected: Option<&str>) {
            assert_eq!(fit(reason).ok(), expected, "{reason:?}");
        }
        check(" locked out ", Some("locked out"));
        check("", None);
        check(" \t", None);
        check("a\nb", None);
        check(&"x".repeat(201), None);
        check(&"x".repeat(200), Some(&"x".repeat(200)));
    }
}
