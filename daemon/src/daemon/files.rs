//! The catalogue files of the configuration: noticed when somebody changes them, and left alone until that is done.
#![expect(clippy::disallowed_methods, reason = "shell: watches folders")]

use crate::policy::Moment;
use nix::sys::inotify::{AddWatchFlags, InitFlags, Inotify, WatchDescriptor};
use std::collections::BTreeMap;
use std::os::fd::{AsFd as _, AsRawFd, RawFd};
use std::path::PathBuf;
use tokio::io::unix::AsyncFd;

/// Seconds without a change before files are read.
const QUIET: u64 = 1;

/// Changes of a folder's entries and of their content: files that are replaced by a rename, and links that are led
/// elsewhere, change no file that was there.
const CHANGES: AddWatchFlags = AddWatchFlags::IN_CLOSE_WRITE
    .union(AddWatchFlags::IN_MOVED_TO)
    .union(AddWatchFlags::IN_CREATE)
    .union(AddWatchFlags::IN_DELETE)
    .union(AddWatchFlags::IN_ONLYDIR);

/// What the runtime waits for.
struct Kernel(Inotify);

impl AsRawFd for Kernel {
    fn as_raw_fd(&self) -> RawFd {
        self.0.as_fd().as_raw_fd()
    }
}

/// The folders that are watched.
#[derive(Default)]
pub(super) struct Files {
    kernel: Option<AsyncFd<Kernel>>,
    folders: BTreeMap<PathBuf, WatchDescriptor>,
    /// When the files are to be read.
    due: Option<Moment>,
}

impl Files {
    /// Watches the folders of these files and no others. A folder that cannot be watched is told; its files are
    /// read at the next reload.
    pub(super) fn follow(&mut self, files: impl Iterator<Item = PathBuf>) {
        let folders = files.filter_map(|file| {
            // Where a link leads may change beside it.
            Some(file.parent()?.to_owned())
        });
        let wanted: Vec<PathBuf> = folders.collect();
        if self.kernel.is_none() && !wanted.is_empty() {
            let made = Inotify::init(InitFlags::IN_NONBLOCK | InitFlags::IN_CLOEXEC)
                .map_err(std::io::Error::from)
                .and_then(|made| Ok(AsyncFd::register(Kernel(made))?));
            match made {
                Ok(kernel) => self.kernel = Some(kernel),
                Err(why) => {
                    log::warn!(target: "catalogue", "files are read at a reload only: {why}");
                    return;
                }
            }
        }
        let Some(kernel) = &self.kernel else { return };
        let kernel = &kernel.get_ref().0;
        self.folders.retain(|folder, watched| {
            let wanted = wanted.contains(folder);
            if !wanted {
                // It may be gone already.
                let _ = kernel.rm_watch(*watched);
            }
            wanted
        });
        for folder in wanted {
            if self.folders.contains_key(&folder) {
                continue;
            }
            let path = if folder.as_os_str().is_empty() {
                ".".into()
            } else {
                folder.clone()
            };
            match kernel.add_watch(&path, CHANGES) {
                Ok(watched) => drop(self.folders.insert(folder, watched)),
                Err(why) => log::warn!(
                    target: "catalogue",
                    "files in {} are read at a reload only: {why}",
                    folder.display()
                ),
            }
        }
    }

    /// Waits until something changes in one of the folders.
    pub(super) async fn stirred(&self) {
        let Some(kernel) = &self.kernel else {
            return std::future::pending().await;
        };
        let Ok(mut ready) = kernel.readable().await else {
            return std::future::pending().await;
        };
        // What exactly changed does not matter: the files are compared.
        while kernel.get_ref().0.read_events().is_ok() {}
        ready.clear_ready();
    }

    /// Reads them a while after this.
    pub(super) fn wait(&mut self, now: Moment) {
        self.due = Some(now.after_seconds(QUIET));
    }

    /// When they are to be read.
    pub(super) fn due(&self) -> Option<Moment> {
        self.due
    }

    /// Whether they are to be read at `now`.
    pub(super) fn take_due(&mut self, now: Moment) -> bool {
        let due = self.due.is_some_and(|due| due <= now);
        if due {
            self.due = None;
        }
        due
    }
}
