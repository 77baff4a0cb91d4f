//! One daemon per runtime folder: whoever holds the lock is it. `egressd open` holds it too while it works, so
//! that no daemon begins in between.
#![expect(
    clippy::disallowed_methods,
    reason = "shell: a lock on a file, waited for"
)]

use nix::errno::Errno;
use nix::fcntl::{Flock, FlockArg};
use nix::unistd::{Gid, Uid, fchown, geteuid};
use std::fs::{DirBuilder, File, OpenOptions};
use std::io::{self, ErrorKind};
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _, OpenOptionsExt as _};
use std::path::Path;
use std::time::{Duration, Instant};

const NAME: &str = "running";

/// The lock, held until dropped or the process ends.
#[derive(Debug)]
pub struct Presence {
    _lock: Flock<File>,
}

/// Why the lock cannot be had.
#[derive(Debug, thiserror::Error)]
pub enum Taken {
    /// Another process has it.
    #[error(
        "egressd is running (or `egressd open` is at work): stop it first, with `systemctl stop egressd`"
    )]
    Running,
    /// Whether one has it cannot be told.
    #[error("whether egressd is running cannot be told: {0}")]
    Unknown(#[from] io::Error),
}

/// How long a daemon waits for the lock: somebody may just look whether one runs, or the one before may be
/// ending.
const PATIENCE: Duration = Duration::from_secs(2);

impl Presence {
    /// Takes the lock of `runtime`, and makes that folder if it is not there. Waits a moment for it.
    ///
    /// # Errors
    /// When another process keeps it, or it cannot be told.
    pub fn take(runtime: &Path) -> Result<Self, Taken> {
        DirBuilder::new()
            .recursive(true)
            .mode(0o755)
            .create(runtime)?;
        let begun = Instant::now();
        loop {
            match lock(open(runtime)?, FlockArg::LockExclusiveNonblock) {
                Err(Taken::Running) if begun.elapsed() < PATIENCE => {
                    std::thread::sleep(Duration::from_millis(20));
                }
                Ok(lock) => return Ok(Self { _lock: lock }),
                Err(taken) => return Err(taken),
            }
        }
    }
}

impl Presence {
    /// The lock of a daemon that is not there, so that none begins meanwhile; `None` while one is. Where no lock
    /// can be taken, as without the folder, nobody can be there either.
    pub(super) fn of_nobody(runtime: &Path) -> Option<Option<Self>> {
        if !runtime.is_dir() {
            return Some(None);
        }
        match open(runtime)
            .map_err(Taken::from)
            .and_then(|file| lock(file, FlockArg::LockExclusiveNonblock))
        {
            Ok(lock) => Some(Some(Self { _lock: lock })),
            Err(Taken::Running) => None,
            Err(Taken::Unknown(error)) => {
                log::warn!(target: "daemon", "whether egressd runs cannot be told: {error}");
                Some(None)
            }
        }
    }
}

/// Whether a daemon (or `egressd open`) has the lock of `runtime`. Changes nothing there.
#[must_use]
pub fn is_running(runtime: &Path) -> bool {
    let taken = there(&runtime.join(NAME)).map(|file| lock(file, FlockArg::LockSharedNonblock));
    matches!(taken, Ok(Err(Taken::Running)))
}

fn lock(file: File, how: FlockArg) -> Result<Flock<File>, Taken> {
    Flock::lock(file, how).map_err(|(_, errno)| {
        if errno == Errno::EAGAIN {
            Taken::Running
        } else {
            Taken::Unknown(errno.into())
        }
    })
}

const FLAGS: i32 = libc::O_NOFOLLOW | libc::O_NONBLOCK | libc::O_CLOEXEC;

fn there(path: &Path) -> io::Result<File> {
    OpenOptions::new().read(true).custom_flags(FLAGS).open(path)
}

/// Nobody but the folder's owner and root opens it: a lock on it keeps a daemon from starting.
fn open(runtime: &Path) -> io::Result<File> {
    let path = runtime.join(NAME);
    match there(&path) {
        Err(error) if error.kind() == ErrorKind::NotFound => {}
        opened => return opened,
    }
    let mut options = OpenOptions::new();
    options
        .write(true)
        .create_new(true)
        .mode(0o600)
        .custom_flags(FLAGS);
    match options.open(&path) {
        Err(error) if error.kind() == ErrorKind::AlreadyExists => there(&path),
        Ok(file) => {
            let folder = runtime.metadata()?;
            if geteuid().is_root() && folder.uid() != 0 {
                let (uid, gid) = (Uid::from_raw(folder.uid()), Gid::from_raw(folder.gid()));
                fchown(&file, Some(uid), Some(gid))?;
            }
            Ok(file)
        }
        failed => failed,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn there_is_one() {
        let folder = tempfile::tempdir().unwrap();
        let runtime = folder.path().join("run");
        assert!(!is_running(&runtime));
        assert!(!runtime.exists(), "looking changes nothing");
        let first = Presence::take(&runtime).unwrap();
        assert!(is_running(&runtime));
        assert!(matches!(Presence::take(&runtime), Err(Taken::Running)));
        assert!(Presence::of_nobody(&runtime).is_none());
        drop(first);
        assert!(!is_running(&runtime));
        let nobody = Presence::of_nobody(&runtime).unwrap();
        assert!(nobody.is_some() && is_running(&runtime), "it is kept free");
        drop(nobody);
        assert!(Presence::of_nobody(&folder.path().join("absent")).is_some());
        Presence::take(&runtime).unwrap();
        let mode = runtime.join(NAME).metadata().unwrap().mode();
        assert_eq!(mode & 0o777, 0o600);
    }

    #[test]
    fn a_link_is_no_lock() {
        let folder = tempfile::tempdir().unwrap();
        let victim = folder.path().join("victim");
        std::os::unix::fs::symlink(&victim, folder.path().join(NAME)).unwrap();
        let taken = Presence::take(folder.path());
        assert!(matches!(taken, Err(Taken::Unknown(_))));
        assert!(!victim.exists());
    }
}
