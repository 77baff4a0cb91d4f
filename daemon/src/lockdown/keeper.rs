//! Signs of life: the daemon's loop leaves one a minute, and the keeper tells from it how long nobody was there.
//! By the boot clock alone: the wall clock may jump.

use super::mark;
use crate::daemon::state::Stamp;
use crate::policy::Moment;
use anyhow::Context as _;
use serde::de::DeserializeOwned;
use std::fs::OpenOptions;
use std::io::Read as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;
use std::time::Duration;

const NAME: &str = "alive.json";

/// From one sign of life to the next, in seconds.
const PACE: u64 = 60;

/// Longest file that is read.
const LONGEST: u64 = 4096;

/// The daemon's side: when it last left a sign.
#[derive(Debug, Default)]
pub struct Pulse {
    last: Option<Moment>,
}

impl Pulse {
    /// Whether a sign is due; if so, it counts as left.
    pub fn is_due(&mut self, now: Moment) -> bool {
        let due = self.last.is_none_or(|last| last.after_seconds(PACE) <= now);
        if due {
            self.last = Some(now);
        }
        due
    }
}

/// Leaves a sign of life.
///
/// # Errors
/// When the folder cannot be written.
pub fn beat(runtime: &Path, stamp: &Stamp) -> anyhow::Result<()> {
    let path = runtime.join(NAME);
    mark::put(&path, &serde_json::to_vec(stamp)?, 0o644)
        .with_context(|| format!("write {}", path.display()))
}

/// How long nobody was seen: since the last sign of life or the last word of an operator in this run of the
/// machine, or since it began.
pub(super) fn away(runtime: &Path, present: &Stamp) -> Duration {
    let beat: Option<Stamp> = read(&runtime.join(NAME));
    let word = mark::read(runtime)
        .filter(|mark| mark.state == mark::Word::Open)
        .map(|mark| mark.stamp);
    Duration::from_millis(since(&[beat, word], present))
}

/// Milliseconds since the latest of `signs` in this run of the machine, or since it began.
fn since(signs: &[Option<Stamp>], present: &Stamp) -> u64 {
    let of_this_run = |sign: &&Stamp| !sign.boot.is_empty() && sign.boot == present.boot;
    let last = signs.iter().flatten().filter(of_this_run);
    // One from the future is no sign: it would keep the gateway open until then.
    let last = last
        .map(|sign| sign.at)
        .filter(|at| *at <= present.at)
        .max();
    present.at - last.unwrap_or(0)
}

/// Reads a small file that another user may have made: no link, no pipe, nothing long.
pub(super) fn read<T: DeserializeOwned>(path: &Path) -> Option<T> {
    let file = OpenOptions::new()
        .read(true)
        .custom_flags(libc::O_NOFOLLOW | libc::O_NONBLOCK | libc::O_CLOEXEC)
        .open(path)
        .ok()?;
    if !file.metadata().ok()?.is_file() {
        return None;
    }
    let mut bytes = Vec::new();
    file.take(LONGEST).read_to_end(&mut bytes).ok()?;
    serde_json::from_slice(&bytes).ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use mark::{Mark, Word};

    const HOUR: u64 = 3_600_000;

    fn stamp(boot: &str, at: u64) -> Stamp {
        Stamp {
            boot: boot.to_owned(),
            at,
            wall: 0,
        }
    }

    #[test]
    fn away_is_counted_within_one_run() {
        fn check(signs: &[Option<Stamp>], expected: u64) {
            assert_eq!(since(signs, &stamp("b", 30 * HOUR)), expected, "{signs:?}");
        }
        check(&[], 30 * HOUR);
        check(&[None, None], 30 * HOUR);
        check(&[Some(stamp("b", 29 * HOUR))], HOUR);
        check(&[Some(stamp("a", 29 * HOUR))], 30 * HOUR);
        check(&[Some(stamp("", 29 * HOUR))], 30 * HOUR);
        check(
            &[Some(stamp("b", 5 * HOUR)), Some(stamp("b", 28 * HOUR))],
            2 * HOUR,
        );
        check(&[Some(stamp("b", 31 * HOUR))], 30 * HOUR);
        check(&[Some(stamp("b", u64::MAX))], 30 * HOUR);
    }

    #[test]
    fn signs_are_left_once_a_minute() {
        let mut pulse = Pulse::default();
        let due: Vec<u64> = (0..200_u64)
            .step_by(2)
            .filter(|second| pulse.is_due(Moment(0).after_seconds(*second)))
            .collect();
        assert_eq!(due, [0, 60, 120, 180]);
    }

    #[test]
    fn a_sign_and_an_opening_count_and_a_lockdown_does_not() {
        let folder = tempfile::tempdir().unwrap();
        let away = |at| away(folder.path(), &stamp("b", at)).as_secs();
        assert_eq!(away(30 * HOUR), 30 * 3600);
        beat(folder.path(), &stamp("b", 10 * HOUR)).unwrap();
        assert_eq!(away(30 * HOUR), 20 * 3600);
        for (word, expected) in [(Word::Locked, 20), (Word::Open, 5)] {
            let mut mark = Mark::now(word, "x");
            mark.stamp = stamp("b", 25 * HOUR);
            mark::write(folder.path(), &mark).unwrap();
            assert_eq!(away(30 * HOUR), expected * 3600, "{word:?}");
        }
        mark::put(&folder.path().join(NAME), b"nonsense", 0o600).unwrap();
        mark::clear(folder.path());
        assert_eq!(away(30 * HOUR), 30 * 3600);
    }

    #[test]
    fn a_pipe_is_not_waited_for() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join(NAME);
        nix::unistd::mkfifo(&path, nix::sys::stat::Mode::S_IRWXU).unwrap();
        assert_eq!(read::<Stamp>(&path), None);
    }
}
