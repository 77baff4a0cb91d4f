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
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{ErrorKind, Write as _};
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

/// Seconds that a restored answer lives at least, so that clients can confirm it.
const RESTORE_GRACE: u64 = 600;

/// What was learned since the last snapshot, a line each, and the same from before the snapshot that
/// is being written.
const JOURNAL: &str = "journal";
const OLD_JOURNAL: &str = "journal.old";

/// The one version of the format this build reads and writes.
const VERSION: u32 = 1;

/// The file's content.
#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct State {
    version: u32,
    answers: Vec<Kept>,
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Kept {
    zone: String,
    name: String,
    address: IpAddr,
    /// Milliseconds since 1970: a clock that survives a reboot.
    end: u64,
}

/// A snapshot that is taken piece by piece, so that the loop never stands still for it. What is learned
/// meanwhile is in the journal that was begun before.
#[derive(Debug, Default)]
pub struct Draft {
    last: Option<(ZoneId, IpAddr)>,
    answers: Vec<Kept>,
}

impl Draft {
    /// Takes up to `most` further grants; whether those were all.
    pub fn advance(&mut self, policy: &Policy, now: Moment, most: usize) -> bool {
        let wall = wall_clock();
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
    let wall = wall_clock();
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
    journal: Option<File>,
}

impl Store {
    /// Uses `directory`, which is made with the first write.
    #[must_use]
    pub fn new(directory: &Path) -> Self {
        Self {
            directory: directory.to_owned(),
            journal: None,
        }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.directory.join(name)
    }

    /// Reads snapshot and journal; empty when there are none yet.
    ///
    /// # Errors
    /// When the snapshot cannot be read or is not a state of this version.
    pub fn load(&self) -> anyhow::Result<State> {
        let path = self.path("state.json");
        let mut state = match read(&path)? {
            None => State {
                version: VERSION,
                answers: Vec::new(),
            },
            Some(bytes) => serde_json::from_slice::<State>(&bytes)
                .with_context(|| format!("{} is not a state file of egressd", path.display()))?,
        };
        anyhow::ensure!(
            state.version == VERSION,
            "{} has version {}, this build reads {VERSION}",
            path.display(),
            state.version
        );
        for name in [OLD_JOURNAL, JOURNAL] {
            let journal = read(&self.path(name))?.unwrap_or_default();
            // A kill may have cut a line.
            let lines = journal.split(|byte| *byte == b'\n');
            let kept = lines.filter_map(|line| serde_json::from_slice::<Kept>(line).ok());
            state.answers.extend(kept);
        }
        Ok(state)
    }

    /// Adds newly learned addresses to the journal.
    ///
    /// # Errors
    /// When the directory cannot be written; a later snapshot makes up for it.
    pub fn append<'a>(
        &mut self,
        learned: impl Iterator<Item = (&'a str, &'a Name, IpAddr)>,
    ) -> anyhow::Result<()> {
        // Its lifetime in this run does not matter: a restored answer gets the grace at least.
        let end = wall_clock();
        let mut lines = Vec::new();
        for (zone, name, address) in learned {
            let kept = Kept {
                zone: zone.to_owned(),
                name: name.to_string(),
                address,
                end,
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
                    store
                        .journal
                        .insert(File::options().create(true).append(true).open(&path)?)
                }
            };
            file.write_all(&lines)?;
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
        let (path, draft) = (
            directory.join("state.json"),
            directory.join("state.json.new"),
        );
        let write = || -> anyhow::Result<()> {
            fs::create_dir_all(directory)?;
            let mut file = File::create(&draft)?;
            file.write_all(&serde_json::to_vec(state)?)?;
            file.sync_data()?;
            fs::rename(&draft, &path)?;
            Ok(())
        };
        write().with_context(|| format!("write {}", path.display()))?;
        match fs::remove_file(directory.join(OLD_JOURNAL)) {
            Err(error) if error.kind() != ErrorKind::NotFound => {
                Err(error).context("let go of the old journal")
            }
            Ok(()) | Err(_) => Ok(()),
        }
    }
}

fn read(path: &Path) -> anyhow::Result<Option<Vec<u8>>> {
    match fs::read(path) {
        Ok(bytes) => Ok(Some(bytes)),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error).with_context(|| format!("read {}", path.display())),
    }
}

fn wall_clock() -> u64 {
    let since = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::policy::tests::{answer, intent, links};
    use std::sync::Arc;

    fn policy() -> Policy {
        Policy::new(Arc::new(intent(&["c"], &[])), links()).unwrap()
    }

    fn restored(directory: &Path) -> Vec<String> {
        let mut policy = policy();
        let state = Store::new(directory).load().unwrap();
        restore(&mut policy, &state, Moment(0));
        policy
            .grants()
            .map(|(_, address, _)| address.to_string())
            .collect()
    }

    #[test]
    fn a_snapshot_in_pieces_is_whole() {
        let mut policy = policy();
        for last in 0..10 {
            let address = format!("20.0.0.{last}");
            policy.admit(
                ZoneId(0),
                &answer("b.example", &[address.as_str()], 60),
                Moment(0),
            );
        }
        let addresses = |state: State| -> Vec<IpAddr> {
            state.answers.iter().map(|kept| kept.address).collect()
        };
        for most in [1, 3, 5, 10, 11] {
            let mut draft = Draft::default();
            let pieces = (1..)
                .find(|_| draft.advance(&policy, Moment(0), most))
                .unwrap();
            assert_eq!(pieces, 10 / most + 1);
            assert_eq!(
                addresses(draft.finish()),
                addresses(snapshot(&policy, Moment(0)))
            );
        }
    }

    #[test]
    fn snapshot_and_journal_come_back_and_a_cut_line_harms_nothing() {
        let folder = tempfile::tempdir().unwrap();
        let directory = folder.path().join("made");
        let mut policy = policy();
        let mut store = Store::new(&directory);
        policy.admit(
            ZoneId(0),
            &answer("b.example", &["20.0.0.1"], 60),
            Moment(0),
        );
        Store::save(&directory, &snapshot(&policy, Moment(0))).unwrap();
        let name = "x.a.example".parse().unwrap();
        let learned = |address: &str| ("z", &name, address.parse().unwrap());
        store
            .append([learned("20.0.0.2"), learned("20.0.0.3")].into_iter())
            .unwrap();
        assert_eq!(restored(&directory), ["20.0.0.1", "20.0.0.2", "20.0.0.3"]);
        let journal = fs::read(directory.join("journal")).unwrap();
        fs::write(directory.join("journal"), &journal[..journal.len() - 5]).unwrap();
        assert_eq!(restored(&directory), ["20.0.0.1", "20.0.0.2"]);
        let mut store = Store::new(&directory);
        store.append([learned("20.0.0.4")].into_iter()).unwrap();
        assert_eq!(restored(&directory), ["20.0.0.1", "20.0.0.2", "20.0.0.4"]);
        store.turn_page().unwrap();
        store.append([learned("20.0.0.5")].into_iter()).unwrap();
        assert_eq!(restored(&directory).len(), 4, "both pages are read");
        Store::save(&directory, &snapshot(&policy, Moment(0))).unwrap();
        assert_eq!(
            restored(&directory),
            ["20.0.0.1", "20.0.0.5"],
            "lines since the page stay"
        );
    }

    #[test]
    fn what_is_no_longer_listed_is_left() {
        let folder = tempfile::tempdir().unwrap();
        let mut store = Store::new(folder.path());
        let (gone, bad) = (
            "gone.example".parse().unwrap(),
            "b.example".parse().unwrap(),
        );
        let learned = [
            ("z", &gone, "20.0.0.1"),
            ("other", &bad, "20.0.0.1"),
            ("z", &bad, "10.20.0.1"),
        ];
        let learned = learned.map(|(zone, name, address)| (zone, name, address.parse().unwrap()));
        store.append(learned.into_iter()).unwrap();
        assert_eq!(restored(folder.path()), [""; 0]);
    }

    #[test]
    fn a_file_that_is_no_state_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        fs::write(
            folder.path().join("state.json"),
            b"{\"version\":9,\"answers\":[]}",
        )
        .unwrap();
        assert!(Store::new(folder.path()).load().is_err());
        fs::write(folder.path().join("state.json"), b"nonsense").unwrap();
        assert!(Store::new(folder.path()).load().is_err());
    }
}
