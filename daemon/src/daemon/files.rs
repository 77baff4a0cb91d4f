//! The catalogue files of the configuration: noticed when somebody changes them, and left alone until that is done.

use crate::policy::Moment;
use nix::errno::Errno;
use nix::sys::inotify::{AddWatchFlags, InitFlags, Inotify, WatchDescriptor};
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use tokio::sync::Notify;

/// Seconds without a change before files are read.
const QUIET: u64 = 1;

/// Changes of a folder's entries and of their content: files that are replaced by a rename, and links that are led
/// elsewhere, change no file that was there.
const CHANGES: AddWatchFlags = AddWatchFlags::IN_CLOSE_WRITE
    .union(AddWatchFlags::IN_MOVED_TO)
    .union(AddWatchFlags::IN_CREATE)
    .union(AddWatchFlags::IN_DELETE)
    .union(AddWatchFlags::IN_ONLYDIR);

/// The folders that are watched.
#[derive(Default)]
pub(super) struct Files {
    kernel: Option<Arc<Inotify>>,
    /// The thread that waits for the kernel rings it.
    rung: Arc<Notify>,
    folders: BTreeMap<PathBuf, WatchDescriptor>,
    /// When the files are to be read.
    due: Option<Moment>,
}

/// Starts a thread that rings when a folder changed. What exactly changed does not matter: files are compared.
fn listen(rung: Arc<Notify>) -> anyhow::Result<Arc<Inotify>> {
    let kernel = Arc::new(Inotify::init(InitFlags::IN_CLOEXEC)?);
    let ear = Arc::clone(&kernel);
    std::thread::Builder::new()
        .name("files".to_owned())
        .spawn(move || {
            loop {
                match ear.read_events() {
                    Ok(_) => rung.notify_one(),
                    Err(Errno::EINTR) => {}
                    Err(why) => {
                        log::warn!(target: "catalogue", "files are read at a reload only: {why}");
                        return;
                    }
                }
            }
        })?;
    Ok(kernel)
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
            match listen(Arc::clone(&self.rung)) {
                Ok(kernel) => self.kernel = Some(kernel),
                Err(why) => {
                    log::warn!(target: "catalogue", "files are read at a reload only: {why:#}");
                    return;
                }
            }
        }
        let Some(kernel) = &self.kernel else { return };
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
        self.rung.notified().await;
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
