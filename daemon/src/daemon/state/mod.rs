//! What was learned, kept over a restart: answers, not grants. A restart judges them by the policy
//! of the day.
#![expect(
    clippy::disallowed_methods,
    reason = "shell: reads and writes the state file"
)]

use crate::policy::answer::Answer;
use crate::policy::grant::{Admission, Policy};
use crate::policy::name::Name;
use crate::policy::{Moment, ZoneId};
use anyhow::Context as _;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{ErrorKind, Read as _, Write as _};
use std::net::IpAddr;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Sender, channel};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// Seconds that a restored answer lives at least, so that clients can confirm it.
const RESTORE_GRACE: u64 = 600;

/// What was learned since the last snapshot, a line each, and the same from before the snapshot that
/// is being written.
const JOURNAL: &str = "journal";
const OLD_JOURNAL: &str = "journal.old";

/// The version of the snapshot that this build writes; it also reads the first, which had neither stamp nor
/// checksum.
const VERSION: u32 = 2;

/// Longest file that is read, in bytes: four times what the largest limits fill.
const LONGEST: u64 = 1 << 30;

/// The file's content.
#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct State {
    version: u32,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    stamp: Option<Stamp>,
    answers: Vec<Kept>,
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Kept {
    zone: String,
    name: String,
    address: IpAddr,
    /// Milliseconds since 1970: a clock that survives a reboot. 0 in the journal.
    end: u64,
    /// In the journal: from here on it is not learned.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    revoked: bool,
}

/// When something was written, by a clock that is right within one run of the machine and by one that
/// survives its end.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Stamp {
    /// The kernel's number of this run of the machine.
    pub boot: String,
    /// Milliseconds of the boot clock.
    pub at: u64,
    /// Milliseconds since 1970.
    pub wall: u64,
}

impl Stamp {
    /// The present.
    #[must_use]
    pub fn now(now: Moment) -> Self {
        let boot = fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default();
        Self {
            boot: boot.trim().to_owned(),
            at: now.0,
            wall: wall_clock(),
        }
    }

    /// Milliseconds from this stamp to `present`. Within one run of the machine the wall clock may jump as
    /// it likes; after a restart it is believed, but never backwards.
    #[must_use]
    pub fn elapsed(&self, present: &Self) -> u64 {
        if !self.boot.is_empty() && self.boot == present.boot {
            present.at.saturating_sub(self.at)
        } else {
            present.wall.saturating_sub(self.wall)
        }
    }
}

/// A snapshot that is taken piece by piece, so that the loop never stands still for it. What is learned
/// meanwhile is in the journal that was begun before.
#[derive(Debug, Default)]
pub struct Draft {
    last: Option<(ZoneId, IpAddr)>,
    stamp: Option<Stamp>,
    answers: Vec<Kept>,
}

impl Draft {
    /// Takes up to `most` further grants; whether those were all.
    pub fn advance(&mut self, policy: &Policy, now: Moment, most: usize) -> bool {
        let stamp = self.stamp.get_or_insert_with(|| Stamp::now(now));
        let wall = stamp.wall.saturating_add(now.0.saturating_sub(stamp.at));
        let mut taken = 0;
        for (zone, address, grant) in policy.grants_after(self.last).take(most) {
            taken += 1;
            self.last = Some((zone, address));
            for lesson in &grant.lessons {
                self.answers.push(Kept {
                    zone: policy.rules().zone_name(zone).to_owned(),
                    name: lesson.name.to_string(),
                    address,
                    end: wall.saturating_add(lesson.end.0.saturating_sub(now.0)),
                    revoked: false,
                });
            }
        }
        taken < most
    }

    /// What was taken. Names that no configuration could write are left out when it is read: asking
    /// again brings them back.
    #[must_use]
    pub fn finish(self) -> State {
        State {
            version: VERSION,
            stamp: self.stamp,
            answers: self.answers,
        }
    }
}

/// Everything `policy` has learned, at once.
#[must_use]
pub fn snapshot(policy: &Policy, now: Moment) -> State {
    let mut draft = Draft::default();
    draft.advance(policy, now, usize::MAX);
    draft.finish()
}

/// Teaches `policy` what the state holds. Returns how many addresses it took and how many it left,
/// because today's policy does not list them.
pub fn restore(policy: &mut Policy, state: &State, now: Moment) -> (usize, usize) {
    let present = Stamp::now(now);
    let wall = match &state.stamp {
        Some(stamp) => stamp.wall.saturating_add(stamp.elapsed(&present)),
        None => present.wall,
    };
    let zones: BTreeMap<String, ZoneId> = policy
        .rules()
        .zones()
        .map(|(id, zone)| (zone.spec.name.clone(), id))
        .collect();
    let limits = policy.rules().intent().limits;
    let longest = 1000 * (u64::from(limits.ttl_ceiling) + u64::from(limits.grace));
    let (mut taken, mut left) = (0, 0);
    for kept in &state.answers {
        let (Some(zone), Ok(name)) = (zones.get(&kept.zone), kept.name.parse()) else {
            left += 1;
            continue;
        };
        let answer = Answer {
            name,
            addresses: vec![kept.address],
            ttl: 0,
        };
        // A wall clock that was set back must not make a grant live for years.
        let remaining = kept.end.saturating_sub(wall).min(longest);
        let end = Moment(now.0.saturating_add(remaining)).max(now.after_seconds(RESTORE_GRACE));
        match policy.recall(*zone, &answer, now, end) {
            Admission::Admitted { .. } => taken += 1,
            Admission::Refused(_) | Admission::Unfit(..) | Admission::Full(_) => left += 1,
        }
    }
    (taken, left)
}

/// The state directory: a snapshot, and a journal of what was learned since. The journal is written
/// before an answer leaves, so that a SIGKILL forgets nothing that a client was told.
#[derive(Debug)]
pub struct Store {
    directory: PathBuf,
    journal: Option<Arc<File>>,
    syncing: Option<Syncing>,
    /// How saving goes.
    pub health: Health,
}

/// Whether what is learned is kept. Says so once, and once when it is again.
#[derive(Debug, Default)]
pub struct Health {
    failed: Option<String>,
    unread: Option<String>,
}

impl Health {
    /// Why what is learned is not kept.
    #[must_use]
    pub fn trouble(&self) -> Option<&str> {
        self.failed.as_deref()
    }

    /// What this run started without, and why.
    #[must_use]
    pub fn unread(&self) -> Option<&str> {
        self.unread.as_deref()
    }

    /// Takes note of a write that is not a whole snapshot: it can only go wrong.
    pub fn note(&mut self, outcome: anyhow::Result<()>) {
        let Err(error) = outcome else { return };
        let why = format!("{error:#}");
        if self.failed.is_none() {
            log::error!(target: "grant", "what is learned is not kept over a restart: {why}");
        }
        self.failed = Some(why);
    }

    /// Takes note of a snapshot: when that is written, all is well again.
    pub fn saved(&mut self, outcome: anyhow::Result<()>) {
        if outcome.is_ok() && self.failed.take().is_some() {
            log::info!(target: "grant", "what is learned is kept again");
        }
        self.note(outcome);
    }
}

impl Store {
    /// Uses `directory`, which is made with the first write.
    #[must_use]
    pub fn new(directory: &Path) -> Self {
        Self {
            directory: directory.to_owned(),
            journal: None,
            syncing: None,
            health: Health::default(),
        }
    }

    /// Takes note, for whoever looks, that a file of before could not be used.
    pub fn started_without(&mut self, why: String) {
        self.health.unread = Some(why);
    }

    fn path(&self, name: &str) -> PathBuf {
        self.directory.join(name)
    }

    /// Reads snapshot and journals, as far as they can be used, and says what cannot. A file that is no
    /// state of a version known here is set aside, so that the next snapshot does not destroy it.
    #[must_use]
    pub fn load(&self) -> (State, Option<String>) {
        let path = self.path("state.json");
        let mut trouble = Vec::new();
        let snapshot = read(&path).and_then(|found| match found {
            None => Ok(State::default()),
            Some(bytes) => {
                let state = unseal(&bytes, VERSION).or_else(|why| {
                    serde_json::from_slice(&bytes)
                        .ok()
                        .filter(|state: &State| state.version == 1)
                        .ok_or(why)
                });
                state
                    .inspect_err(|_| set_aside(&path))
                    .with_context(|| format!("{} cannot be used", path.display()))
            }
        });
        let mut state = snapshot.unwrap_or_else(|why| {
            trouble.push(format!("{why:#}"));
            State::default()
        });
        for name in [OLD_JOURNAL, JOURNAL] {
            let journal = match read(&self.path(name)) {
                Ok(journal) => journal.unwrap_or_default(),
                Err(why) => {
                    trouble.push(format!("{why:#}"));
                    continue;
                }
            };
            // A kill may have cut a line.
            let lines = journal.split(|byte| *byte == b'\n');
            let kept = lines.filter_map(|line| serde_json::from_slice::<Kept>(line).ok());
            state.answers.extend(kept);
        }
        if state.answers.iter().any(|kept| kept.revoked) {
            state.answers = settle(state.answers);
        }
        (state, (!trouble.is_empty()).then(|| trouble.join("; ")))
    }

    /// Adds newly learned addresses to the journal.
    ///
    /// # Errors
    /// When the directory cannot be written; a later snapshot makes up for it.
    pub fn append<'a>(
        &mut self,
        learned: impl Iterator<Item = (&'a str, &'a Name, IpAddr)>,
    ) -> anyhow::Result<()> {
        self.note(learned.map(|(zone, name, address)| (zone, name, address, false)))
    }

    /// As [`Store::append`], also what was revoked, in the order in which it happened.
    ///
    /// # Errors
    /// As [`Store::append`].
    pub fn note<'a>(
        &mut self,
        news: impl Iterator<Item = (&'a str, &'a Name, IpAddr, bool)>,
    ) -> anyhow::Result<()> {
        // Its lifetime in this run does not matter: a restored answer gets the grace at least. The wall
        // clock's word would be taken by the snapshot's clock, which may have been another.
        let end = 0;
        let mut lines = Vec::new();
        for (zone, name, address, revoked) in news {
            let kept = Kept {
                zone: zone.to_owned(),
                name: name.to_string(),
                address,
                end,
                revoked,
            };
            serde_json::to_writer(&mut lines, &kept)?;
            lines.push(b'\n');
        }
        if self.journal.is_none() {
            // Ends the line that a kill may have cut.
            lines.insert(0, b'\n');
        }
        let path = self.path(JOURNAL);
        let write = |store: &mut Self| -> anyhow::Result<()> {
            let file = match &mut store.journal {
                Some(file) => file,
                None => {
                    fs::create_dir_all(&store.directory)?;
                    let file = File::options().create(true).append(true).open(&path)?;
                    store.journal.insert(Arc::new(file))
                }
            };
            (&**file).write_all(&lines)?;
            let file = Arc::clone(file);
            store.syncing.get_or_insert_with(Syncing::start).sync(file);
            Ok(())
        };
        let written = write(self);
        if written.is_err() {
            self.journal = None;
        }
        written.with_context(|| format!("write {}", self.path(JOURNAL).display()))
    }

    /// Begins a new journal: what the old one holds is in every snapshot taken from now on.
    ///
    /// # Errors
    /// When the directory cannot be written.
    pub fn turn_page(&mut self) -> anyhow::Result<()> {
        let old = self.path(OLD_JOURNAL);
        // Of a snapshot that failed: its lines are in no snapshot yet.
        if old.exists() {
            return Ok(());
        }
        self.journal = None;
        match fs::rename(self.path(JOURNAL), old) {
            Err(error) if error.kind() != ErrorKind::NotFound => {
                Err(error).context("begin a new journal")
            }
            Ok(()) | Err(_) => Ok(()),
        }
    }

    /// Writes a snapshot, whole or not at all, and lets go of the old journal. May take long: call
    /// it off the loop.
    ///
    /// # Errors
    /// When the directory cannot be written; the old snapshot and the journals stay.
    pub fn save(directory: &Path, state: &State) -> anyhow::Result<()> {
        replace(&directory.join("state.json"), &seal(state)?)?;
        match fs::remove_file(directory.join(OLD_JOURNAL)) {
            Err(error) if error.kind() != ErrorKind::NotFound => {
                Err(error).context("let go of the old journal")
            }
            Ok(()) | Err(_) => Ok(()),
        }
    }
}

/// Carries the journal to the disk, at most once a second, on a thread of its own: a slow disk must hold up
/// no answer. What a crash of the machine (not of the daemon) forgets is a second.
#[derive(Debug)]
struct Syncing {
    due: Arc<AtomicBool>,
    files: Sender<Arc<File>>,
}

impl Syncing {
    fn start() -> Self {
        let (files, inbox) = channel::<Arc<File>>();
        let due = Arc::new(AtomicBool::new(false));
        let taken = Arc::clone(&due);
        let work = move || {
            for file in inbox {
                taken.store(false, Ordering::Release);
                if let Err(error) = file.sync_data() {
                    log::debug!(target: "grant", "sync the journal: {error}");
                }
                std::thread::sleep(Duration::from_secs(1));
            }
        };
        let thread = std::thread::Builder::new().name("journal".to_owned());
        if let Err(error) = thread.spawn(work) {
            log::warn!(target: "grant", "the journal reaches the disk when the kernel likes: {error}");
        }
        Self { due, files }
    }

    fn sync(&self, file: Arc<File>) {
        if !self.due.swap(true, Ordering::AcqRel) {
            // Closed: there was no thread, and that was said.
            let _ = self.files.send(file);
        }
    }
}

/// What is learned after all of it happened.
fn settle(news: Vec<Kept>) -> Vec<Kept> {
    let mut last: BTreeMap<(String, String, IpAddr), Kept> = BTreeMap::new();
    for kept in news {
        let key = (kept.zone.clone(), kept.name.clone(), kept.address);
        if kept.revoked {
            last.remove(&key);
        } else {
            let end = last.get(&key).map_or(0, |before| before.end);
            let end = end.max(kept.end);
            last.insert(key, Kept { end, ..kept });
        }
    }
    last.into_values().collect()
}

/// Reads a file; none where there is none.
///
/// # Errors
/// When it cannot be read, or is longer than any that egressd writes.
pub(crate) fn read(path: &Path) -> anyhow::Result<Option<Vec<u8>>> {
    let read = || -> anyhow::Result<Option<Vec<u8>>> {
        // Without waiting for whoever may write to a pipe.
        let mut options = File::options();
        let opened = options.read(true).custom_flags(libc::O_NONBLOCK).open(path);
        let file = match opened {
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
            opened => opened?,
        };
        let metadata = file.metadata()?;
        anyhow::ensure!(metadata.is_file(), "it is no regular file");
        anyhow::ensure!(metadata.len() < LONGEST, "it is longer than egressd writes");
        let mut bytes = Vec::new();
        file.take(LONGEST).read_to_end(&mut bytes)?;
        anyhow::ensure!(
            u64::try_from(bytes.len()).is_ok_and(|length| length < LONGEST),
            "it is longer than egressd writes"
        );
        Ok(Some(bytes))
    };
    read().with_context(|| format!("read {}", path.display()))
}

/// Puts `bytes` in the place of a file, whole or not at all, on the disk when this returns.
///
/// # Errors
/// When the directory cannot be written; the old file stays.
pub(crate) fn replace(path: &Path, bytes: &[u8]) -> anyhow::Result<()> {
    let write = || -> anyhow::Result<()> {
        let directory = path.parent().context("a file in a directory")?;
        fs::create_dir_all(directory)?;
        let draft = path.with_extension("json.new");
        let mut file = File::create(&draft)?;
        file.write_all(bytes)?;
        file.sync_data()?;
        fs::rename(&draft, path)?;
        File::open(directory)?.sync_all()?;
        Ok(())
    };
    write().with_context(|| format!("write {}", path.display()))
}

/// A value as one line, and its checksum as another.
///
/// # Errors
/// When it cannot be written as JSON.
pub(crate) fn seal(value: &impl Serialize) -> anyhow::Result<Vec<u8>> {
    let mut bytes = serde_json::to_vec(value)?;
    let sum = checksum(&bytes);
    bytes.extend(format!("\n{sum:016x}\n").into_bytes());
    Ok(bytes)
}

/// What [`seal`] made, of this version and without a flaw.
///
/// # Errors
/// Says what is wrong with it.
pub(crate) fn unseal<T: DeserializeOwned>(bytes: &[u8], version: u32) -> anyhow::Result<T> {
    #[derive(Deserialize)]
    struct Version {
        version: u32,
    }
    let mut lines = bytes.splitn(2, |byte| *byte == b'\n');
    let (json, sum) = (
        lines.next().unwrap_or_default(),
        lines.next().unwrap_or_default(),
    );
    if let Ok(found) = serde_json::from_slice::<Version>(json) {
        anyhow::ensure!(
            found.version == version,
            "it has version {}, this build reads {version}",
            found.version
        );
    }
    anyhow::ensure!(
        format!("{:016x}\n", checksum(json)).as_bytes() == sum,
        "its checksum is missing or wrong: it is cut or damaged"
    );
    Ok(serde_json::from_slice(json)?)
}

/// FNV-1a: finds damage, not malice.
pub(crate) fn checksum(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0xcbf2_9ce4_8422_2325, |sum, byte| {
        (sum ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3)
    })
}

/// Moves a file that cannot be used out of the way, for whoever wants to look; only the last one stays.
pub(crate) fn set_aside(path: &Path) {
    if let Err(error) = fs::rename(path, path.with_extension("json.unread")) {
        log::debug!(target: "grant", "set {} aside: {error}", path.display());
    }
}

fn wall_clock() -> u64 {
    let since = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests;
