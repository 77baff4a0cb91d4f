//! What was learned, kept over a restart: answers, not grants. A restart judges them by the policy
//! of the day.
#![expect(
    clippy::disallowed_methods,
    reason = "shell: reads and writes the state file"
)]

use crate::policy::answer::Answer;
use crate::policy::grant::{Admission, Policy};
use crate::policy::{Moment, ZoneId};
use anyhow::Context as _;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::fs;
use std::io::Write as _;
use std::net::IpAddr;
use std::path::Path;
use std::time::{SystemTime, UNIX_EPOCH};

/// Seconds that a restored answer lives at least, so that clients can confirm it.
const RESTORE_GRACE: u64 = 600;

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

/// Everything `policy` has learned. Names that no configuration could write are left out: asking
/// again brings them back.
#[must_use]
pub fn snapshot(policy: &Policy, now: Moment) -> State {
    let wall = wall_clock();
    let mut answers = Vec::new();
    for (zone, address, grant) in policy.grants() {
        for lesson in &grant.lessons {
            answers.push(Kept {
                zone: policy.rules().zone_name(zone).to_owned(),
                name: lesson.name.to_string(),
                address,
                end: wall.saturating_add(lesson.end.0.saturating_sub(now.0)),
            });
        }
    }
    State {
        version: VERSION,
        answers,
    }
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
        let remaining = kept.end.saturating_sub(wall).min(7 * 86_400_000);
        let end = Moment(now.0.saturating_add(remaining)).max(now.after_seconds(RESTORE_GRACE));
        match policy.recall(*zone, &answer, now, end) {
            Admission::Admitted { .. } => taken += 1,
            Admission::Refused(_) | Admission::Unfit(..) | Admission::Full(_) => left += 1,
        }
    }
    (taken, left)
}

/// Reads the state file; `None` when there is none yet.
///
/// # Errors
/// When it cannot be read or is not a state of this version.
pub fn load(directory: &Path) -> anyhow::Result<Option<State>> {
    let path = directory.join("state.json");
    let bytes = match fs::read(&path) {
        Ok(bytes) => bytes,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error).with_context(|| format!("read {}", path.display())),
    };
    let state: State = serde_json::from_slice(&bytes)
        .with_context(|| format!("{} is not a state file of egressd", path.display()))?;
    anyhow::ensure!(
        state.version == VERSION,
        "{} has version {}",
        path.display(),
        state.version
    );
    Ok(Some(state))
}

/// Writes the state file, whole or not at all.
///
/// # Errors
/// When the directory cannot be written; the old file stays.
pub fn save(directory: &Path, state: &State) -> anyhow::Result<()> {
    let path = directory.join("state.json");
    let draft = directory.join("state.json.new");
    let write = || -> anyhow::Result<()> {
        fs::create_dir_all(directory)?;
        let mut file = fs::File::create(&draft)?;
        file.write_all(&serde_json::to_vec(state)?)?;
        file.sync_data()?;
        fs::rename(&draft, &path)?;
        Ok(())
    };
    write().with_context(|| format!("write {}", path.display()))
}

fn wall_clock() -> u64 {
    let since = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}
