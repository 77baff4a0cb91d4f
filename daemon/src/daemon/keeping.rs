//! Exceptions over a restart: one file, written whole off the loop. What is written is how much of each
//! life is left, so that a wall clock that jumps lengthens none.

use super::state::{self, Stamp};
use crate::policy::Moment;
use crate::policy::exceptions::{Destination, Exception, Exceptions, LONGEST, Wanted, ports};
use anyhow::Context as _;
use serde::{Deserialize, Serialize};
use std::path::{Path, PathBuf};
use tokio::task::JoinHandle;

const NAME: &str = "exceptions.json";
const VERSION: u32 = 1;

/// Seconds after which what is left is written anew: a machine whose clock starts at nothing counts at
/// least the time it was on.
const REFRESH: u64 = 300;

#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Kept {
    version: u32,
    stamp: Stamp,
    last: u32,
    exceptions: Vec<One>,
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct One {
    id: u32,
    zone: String,
    what: String,
    ports: String,
    seconds: u64,
    /// Milliseconds at the time of the stamp.
    left: u64,
    reason: String,
    who: String,
    since: String,
}

/// Reads the exceptions of an earlier run, and what is wrong with the file, if anything: then there are
/// none, which closes.
pub(super) fn load(directory: &Path, now: Moment) -> (Exceptions, Option<String>) {
    let path = directory.join(NAME);
    match read(&path, now, &Stamp::now(now)) {
        Ok(exceptions) => (exceptions, None),
        Err(why) => {
            state::set_aside(&path);
            (Exceptions::default(), Some(format!("{why:#}")))
        }
    }
}

fn read(path: &Path, now: Moment, present: &Stamp) -> anyhow::Result<Exceptions> {
    let Some(bytes) = state::read(path)? else {
        return Ok(Exceptions::default());
    };
    let kept: Kept = state::unseal(&bytes, VERSION)
        .with_context(|| format!("{} cannot be used", path.display()))?;
    let elapsed = kept.stamp.elapsed(present);
    let mut list = Vec::new();
    for one in kept.exceptions {
        let left = one.left.min(1000 * LONGEST).saturating_sub(elapsed);
        let wanted = |text: &str| {
            Some(Wanted {
                zone: one.zone.clone(),
                destination: Destination::parse(text).ok()?,
                ports: ports(&one.ports).ok()?,
                seconds: one.seconds,
                reason: one.reason.clone(),
            })
        };
        if let Some(wanted) = wanted(&one.what).filter(|_| left > 0) {
            list.push(Exception {
                id: one.id,
                wanted,
                until: Moment(now.0.saturating_add(left)),
                who: one.who,
                since: one.since,
            });
        }
    }
    Ok(Exceptions::restored(list, kept.last))
}

fn bytes(exceptions: &Exceptions, now: Moment) -> anyhow::Result<Vec<u8>> {
    let one = |exception: &Exception| One {
        id: exception.id,
        zone: exception.wanted.zone.clone(),
        what: exception.wanted.destination.to_string(),
        ports: exception.wanted.ports.to_string(),
        seconds: exception.wanted.seconds,
        left: exception.until.0.saturating_sub(now.0),
        reason: exception.wanted.reason.clone(),
        who: exception.who.clone(),
        since: exception.since.clone(),
    };
    state::seal(&Kept {
        version: VERSION,
        stamp: Stamp::now(now),
        last: exceptions.last(),
        exceptions: exceptions.list().iter().map(one).collect(),
    })
}

/// Writes the file, one version after the other.
#[derive(Debug)]
pub(super) struct Keeping {
    path: PathBuf,
    wanted: u64,
    done: u64,
    /// Why the last version is not on the disk.
    failure: Option<String>,
    writing: Option<(u64, JoinHandle<anyhow::Result<()>>)>,
    at: Moment,
}

impl Keeping {
    pub(super) fn new(directory: &Path, now: Moment) -> Self {
        Self {
            path: directory.join(NAME),
            wanted: 0,
            done: 0,
            failure: None,
            writing: None,
            at: now,
        }
    }

    /// Wants the present state written; the number that [`Keeping::is_done`] takes.
    pub(super) fn want(&mut self) -> u64 {
        self.wanted += 1;
        self.wanted
    }

    /// Whether the version wanted as `number` was tried, and why it is not kept, if so.
    pub(super) fn is_done(&self, number: u64) -> Option<Result<(), &str>> {
        (self.done >= number).then(|| self.failure.as_deref().map_or(Ok(()), Err))
    }

    /// Why what is in force is not on the disk.
    pub(super) fn failure(&self) -> Option<&str> {
        self.failure.as_deref()
    }

    /// Wants another try after a failure, and from time to time what is left of each life.
    pub(super) fn refresh(&mut self, exceptions: &Exceptions, now: Moment) {
        let old = !exceptions.list().is_empty() && self.at.after_seconds(REFRESH) <= now;
        if old || self.failure.is_some() {
            self.want();
        }
    }

    /// Begins to write what is wanted, if nothing is being written.
    pub(super) fn begin(&mut self, exceptions: &Exceptions, now: Moment) {
        if self.writing.is_some() || self.done == self.wanted {
            return;
        }
        self.at = now;
        let (path, bytes) = (self.path.clone(), bytes(exceptions, now));
        let write = move || state::replace(&path, &bytes?);
        self.writing = Some((self.wanted, tokio::task::spawn_blocking(write)));
    }

    /// Waits until a version is written, or for ever. Nothing is lost when it is dropped before.
    pub(super) async fn written(&mut self) {
        let Some((number, writing)) = &mut self.writing else {
            return std::future::pending().await;
        };
        let outcome = writing.await.map_err(anyhow::Error::from).flatten();
        self.done = *number;
        self.writing = None;
        let failure = outcome.err().map(|error| format!("{error:#}"));
        match (&self.failure, &failure) {
            (None, Some(why)) => {
                log::error!(target: "grant", "exceptions are not kept over a restart: {why}");
            }
            (Some(_), None) => log::info!(target: "grant", "exceptions are kept again"),
            (Some(_), Some(_)) | (None, None) => {}
        }
        self.failure = failure;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::policy::ZoneId;
    use crate::policy::grant::Policy;
    use crate::policy::tests::{intent, links};
    use std::fs;
    use std::sync::Arc;

    fn some(now: Moment) -> Exceptions {
        let policy = Policy::new(Arc::new(intent(&["c"], &[])), links()).unwrap();
        let mut all = Exceptions::default();
        for (what, seconds) in [("*.new.example", 3600), ("20.1.0.0/16", 60)] {
            let wanted = Wanted {
                zone: "z".to_owned(),
                destination: Destination::parse(what).unwrap(),
                ports: ports("443,53/udp").unwrap(),
                seconds,
                reason: "locked out".to_owned(),
            };
            let by = ("uid 0".to_owned(), "then".to_owned());
            all.add(policy.rules(), ZoneId(0), wanted, by, now).unwrap();
        }
        all
    }

    #[test]
    fn what_is_left_counts_whatever_the_clocks_say() {
        const YEARS: i64 = 10 * 365 * 86_400_000;
        fn check(boot: &str, at: u64, wall: i64, expected: &[u64]) {
            let folder = tempfile::tempdir().unwrap();
            let path = folder.path().join(NAME);
            let now = Moment(1_000_000);
            let all = some(now);
            state::replace(&path, &bytes(&all, now).unwrap()).unwrap();
            let made = Stamp::now(now);
            let present = Stamp {
                boot: if boot == "same" {
                    made.boot.clone()
                } else {
                    boot.to_owned()
                },
                at,
                wall: made.wall.saturating_add_signed(wall),
            };
            let back = read(&path, Moment(at), &present).unwrap();
            let left: Vec<u64> = (back.list().iter())
                .map(|exception| exception.until.seconds_from(Moment(at)))
                .collect();
            assert_eq!(left.len(), expected.len(), "{boot} {at} {wall}: {left:?}");
            for (left, expected) in left.iter().zip(expected) {
                assert!(
                    left.abs_diff(*expected) <= 2,
                    "{boot} {at} {wall}: {left} {expected}"
                );
            }
            assert_eq!(back.last(), 2);
            if let [first, ..] = back.list() {
                assert_eq!(first.wanted, all.list()[0].wanted);
            }
        }
        for wall in [0, YEARS, -YEARS] {
            check("same", 1_030_000, wall, &[3570, 30]);
            check("same", 1_060_000, wall, &[3540]);
        }
        check("other", 5_000, 30_000, &[3570, 30]);
        check("other", 5_000, 60_000, &[3540]);
        check("other", 5_000, -YEARS, &[3600, 60]);
        check("other", 5_000, YEARS, &[]);
    }

    #[test]
    fn a_file_that_cannot_be_used_opens_nothing() {
        fn check(spoil: impl FnOnce(Vec<u8>) -> Vec<u8>, word: &str) {
            let folder = tempfile::tempdir().unwrap();
            let path = folder.path().join(NAME);
            let good = bytes(&some(Moment(0)), Moment(0)).unwrap();
            fs::write(&path, spoil(good)).unwrap();
            let (all, why) = load(folder.path(), Moment(0));
            assert_eq!(all.list(), []);
            let why = why.expect("it says so");
            assert!(why.contains(word), "{why}");
            assert!(!path.exists(), "it is set aside");
        }
        check(|good| good[..good.len() / 2].to_vec(), "checksum");
        check(
            |good| {
                String::from_utf8(good)
                    .unwrap()
                    .replace("/16", "/17")
                    .into()
            },
            "checksum",
        );
        check(|_| b"{\"version\":9}\n".to_vec(), "version 9");
        check(|_| Vec::new(), "checksum");
        let (all, why) = load(Path::new("/nonexistent/of/course"), Moment(0));
        assert_eq!((all.list(), why), (&[][..], None));
    }
}
