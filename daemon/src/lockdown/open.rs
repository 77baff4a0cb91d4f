//! `egressd open`: the only way to open a gateway. It takes away what refuses, and leaves word.

use super::presence::Presence;
use super::{Mark, Place, Word, mark, tell};
use crate::config::DEFAULT_PINS;
use crate::plane::{ebpf, nft};
use anyhow::{Context as _, ensure};
use nix::unistd::geteuid;
use std::path::Path;

/// Longest reason, in bytes.
const LONGEST_REASON: usize = 200;

/// Opens the gateway of the configuration at `path` in the calling thread's network namespace, because of
/// `reason`, for as long as no daemon starts: the programs, the table and the lockdown go. It is logged, and
/// stands in the runtime folder, before anything opens.
///
/// # Errors
/// When this is not root, the reason is none, a daemon runs, or the kernel refuses: the gateway stays as it is, or
/// the error says that it is open in part, which the mark then says too.
pub fn open(path: &Path, reason: &str) -> anyhow::Result<()> {
    ensure!(geteuid().is_root(), "only root opens a gateway");
    let reason = fit(reason)?;
    let Place {
        runtime, settings, ..
    } = Place::read(path);
    let _presence = Presence::take(&runtime).context("the gateway stays as it is")?;
    let before = mark::read(&runtime);
    let mark = Mark::now(Word::Open, reason);
    mark::write(&runtime, &mark)
        .context("the gateway stays as it is: no word of it can be left")?;
    record(&format!("OPEN by {}: {reason}", mark.who));
    let pins = settings.map_or_else(|| DEFAULT_PINS.into(), |settings| settings.pins);
    // The table first: where somebody alive owns it, nothing has been touched.
    if let Err(error) = remove("table inet egressd", nft::remove) {
        record(&format!("not open after all: {error:#}"));
        match before.map(|before| mark::write(&runtime, &before)) {
            Some(Ok(())) => {}
            Some(Err(_)) | None => mark::clear(&runtime),
        }
        return Err(error.context("the gateway is not open"));
    }
    // From here on something is open, and the mark stays.
    let programs = remove("the programs", || Ok(ebpf::sweep_pins(&pins)? > 0));
    let lockdown = remove("the lockdown", nft::lockdown::lift);
    for error in [&programs, &lockdown]
        .into_iter()
        .filter_map(|done| done.as_ref().err())
    {
        record(&format!("open in part only: {error:#}"));
    }
    programs
        .and(lockdown)
        .context("the gateway is open in part only: what is named here may still refuse")?;
    println!(
        "open: egressd refuses nothing until it is started again (`systemctl start egressd`), and clients that \
         need its answers get none"
    );
    Ok(())
}

/// Tells standard error and the machine's log.
fn record(line: &str) {
    log::warn!(target: "daemon", "{line}");
    if !tell::system_log(Path::new(tell::SYSLOG), line) {
        log::warn!(target: "daemon", "there is no system log to take note of that");
    }
}

/// Takes one thing away and says so.
fn remove(what: &str, act: impl FnOnce() -> anyhow::Result<bool>) -> anyhow::Result<()> {
    if act().with_context(|| format!("remove {what}"))? {
        println!("removed: {what}");
    }
    Ok(())
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
