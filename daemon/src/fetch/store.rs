//! What was fetched, kept for ever: the lists as they came, and what is in force of them.

use super::{Endpoint, Memory};
use crate::catalogue_import as import;
use crate::daemon::state::{self, Stamp};
use crate::policy::Moment;
use crate::policy::catalogue::{Catalogue, EndpointSet};
use crate::policy::port::{PortSet, Service, TCP};
use crate::policy::update::{Held, Standing, Version};
use anyhow::Context as _;
use serde::{Deserialize, Serialize};
use std::fs;
use std::path::{Path, PathBuf};

/// The folder in the state directory.
const FOLDER: &str = "catalogues";

const VERSION: u32 = 1;

/// Versions of one source that can be gone back to.
const MOST_VERSIONS: usize = 10;

/// What is known of one source.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Kept {
    /// What is in force of it.
    pub standing: Standing,
    /// To ask by the next time.
    pub memory: Memory,
    /// When the server last said what it has, in seconds since 1970.
    pub fetched: Option<u64>,
    /// Versions that were taken, the newest first.
    pub history: Vec<Past>,
    /// Why the last attempt gave nothing.
    pub error: Option<String>,
}

impl Kept {
    /// What is in force at `now`; `None` where there is nothing: never had, or what is pinned cannot be read.
    #[must_use]
    pub fn in_force(&self, now: Moment) -> Option<Catalogue> {
        Some(self.standing.in_force(now.0)).filter(|catalogue| !catalogue.sets.is_empty())
    }

    /// Puts a version before those of before.
    pub fn remember(&mut self, past: Past) {
        self.history.retain(|one| one.print != past.print);
        self.history.insert(0, past);
        // What is pinned must be there after a restart, however old it is.
        let pinned = self.standing.pinned.as_ref().map(|pinned| &pinned.print);
        let mut newer = 0;
        self.history.retain(|one| {
            newer += 1;
            newer <= MOST_VERSIONS || pinned == Some(&one.print)
        });
    }
}

/// A version that was taken once.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Past {
    /// Its name.
    pub name: String,
    /// Tells its content.
    pub print: String,
    /// When it was taken, in seconds since 1970.
    pub taken: u64,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    version: u32,
    stamp: Stamp,
    catalogue: String,
    url: String,
    memory: Memory,
    fetched: Option<u64>,
    newest: Option<String>,
    pinned: Option<String>,
    barred: Option<String>,
    held: Vec<Gone>,
    history: Vec<Past>,
    error: Option<String>,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Gone {
    /// One row, as egressd writes catalogues, but for its ports: a list that tells none has rows without.
    row: String,
    /// Protocol, first and last port.
    ports: Vec<(u8, u16, u16)>,
    source: String,
    origin: String,
    /// Milliseconds that are left of it.
    left: u64,
    since: u64,
    version: String,
}

impl Gone {
    fn of(held: &Held, now: Moment) -> Self {
        let services = held.set.ports.services().iter();
        let row = EndpointSet {
            ports: PortSet::new([Service::whole(TCP)]),
            source: String::new(),
            origin: String::new(),
            ..held.set.clone()
        };
        Self {
            row: import::write(&Catalogue {
                name: "held".to_owned(),
                sets: vec![row],
                ..Catalogue::default()
            }),
            ports: services
                .map(|one| (one.protocol, one.first, one.last))
                .collect(),
            source: held.set.source.clone(),
            origin: held.set.origin.clone(),
            left: held.until.saturating_sub(now.0),
            since: held.since,
            version: held.version.clone(),
        }
    }

    fn revive(self, elapsed: u64, present: &Stamp) -> Option<Held> {
        let row = import::toml(&self.row, "state")
            .ok()?
            .sets
            .into_iter()
            .next()?;
        let services = self
            .ports
            .into_iter()
            .map(|(protocol, first, last)| Service {
                protocol,
                first,
                last,
            });
        Some(Held {
            set: EndpointSet {
                ports: PortSet::new(services),
                source: self.source,
                origin: self.origin,
                ..row
            },
            since: self.since,
            until: present.at.saturating_add(self.left.saturating_sub(elapsed)),
            version: self.version,
        })
    }
}

/// A file that is to be written.
#[derive(Debug)]
pub struct Draft {
    path: PathBuf,
    bytes: Vec<u8>,
    /// Lists that no version needs any more.
    over: Vec<PathBuf>,
}

impl Draft {
    /// Writes it, whole or not at all.
    ///
    /// # Errors
    /// When the directory cannot be written.
    pub fn write(self) -> anyhow::Result<()> {
        state::replace(&self.path, &self.bytes)?;
        for path in self.over {
            // It only takes up room.
            let _ = fs::remove_file(path);
        }
        Ok(())
    }
}

/// Where all of it is.
#[derive(Clone, Debug)]
pub struct Store(PathBuf);

impl Store {
    /// The one in a state directory, which need not be there.
    #[must_use]
    pub fn new(state: &Path) -> Self {
        Self(state.join(FOLDER))
    }

    /// What content is told by.
    #[must_use]
    pub fn print(bytes: &[u8]) -> String {
        format!("{:016x}-{}", state::checksum(bytes), bytes.len())
    }

    fn stem(catalogue: &str, url: &Endpoint) -> String {
        format!(
            "{:016x}",
            state::checksum(format!("{catalogue}\0{url}").as_bytes())
        )
    }

    fn file(&self, catalogue: &str, url: &Endpoint) -> PathBuf {
        self.0.join(format!("{}.json", Self::stem(catalogue, url)))
    }

    fn list(&self, catalogue: &str, url: &Endpoint, print: &str) -> PathBuf {
        self.0
            .join(format!("{}-{print}.list", Self::stem(catalogue, url)))
    }

    /// The number by which servers tell this gateway from others: made once, at random (RFC 9562 §5.4).
    ///
    /// # Errors
    /// When it can be neither read nor kept; one for now comes with it.
    pub fn client_id(&self) -> (String, Option<String>) {
        let path = self.0.join("client-id.json");
        let known = state::read(&path).ok().flatten();
        let known = known.and_then(|bytes| String::from_utf8(bytes).ok());
        let is_id = |text: &String| {
            text.len() == 36
                && text
                    .bytes()
                    .all(|byte| byte.is_ascii_hexdigit() || byte == b'-')
        };
        if let Some(id) = known.map(|text| text.trim().to_owned()).filter(is_id) {
            return (id, None);
        }
        let mut random = [0; 16];
        if let Err(why) = getrandom::fill(&mut random) {
            return (String::new(), Some(format!("no random number: {why}")));
        }
        random[6] = random[6] & 0x0f | 0x40;
        random[8] = random[8] & 0x3f | 0x80;
        let hex: String = random.iter().map(|byte| format!("{byte:02x}")).collect();
        let id = format!(
            "{}-{}-{}-{}-{}",
            &hex[..8],
            &hex[8..12],
            &hex[12..16],
            &hex[16..20],
            &hex[20..]
        );
        let kept = state::replace(&path, id.as_bytes());
        (id, kept.err().map(|error| format!("{error:#}")))
    }

    /// Keeps a list as it came.
    ///
    /// # Errors
    /// When the directory cannot be written.
    pub fn put(&self, catalogue: &str, url: &Endpoint, bytes: &[u8]) -> anyhow::Result<()> {
        let path = self.list(catalogue, url, &Self::print(bytes));
        state::replace(&path, bytes)
    }

    /// A version as it came.
    ///
    /// # Errors
    /// When it is not there any more, or damaged.
    pub fn version(&self, catalogue: &str, url: &Endpoint, past: &Past) -> anyhow::Result<Version> {
        let path = self.list(catalogue, url, &past.print);
        let bytes = state::read(&path)?.with_context(|| format!("{} is gone", path.display()))?;
        anyhow::ensure!(
            Self::print(&bytes) == past.print,
            "{} is damaged",
            path.display()
        );
        let version = version(&bytes, url, Some(&past.name))?;
        Ok(version)
    }

    /// What is known of a source, and what of that could not be read. Times are of the boot clock at `now`.
    #[must_use]
    pub fn load(&self, catalogue: &str, url: &Endpoint, now: Moment) -> (Kept, Option<String>) {
        let path = self.file(catalogue, url);
        let read = state::read(&path).and_then(|bytes| {
            let read = bytes.map(|bytes| state::unseal::<File>(&bytes, VERSION));
            read.transpose()
        });
        match read {
            Ok(None) => (Kept::default(), None),
            Ok(Some(file)) => self.revive(catalogue, url, file, &Stamp::now(now)),
            Err(why) => {
                state::set_aside(&path);
                (Kept::default(), Some(format!("{why:#}")))
            }
        }
    }

    fn revive(
        &self,
        catalogue: &str,
        url: &Endpoint,
        file: File,
        present: &Stamp,
    ) -> (Kept, Option<String>) {
        let mut trouble = Vec::new();
        // Of a version that cannot be read the name stays: in the place of a pinned one nothing else may be in force.
        let mut find = |print: &String| {
            let known = file.history.iter().find(|past| past.print == *print);
            let past = known.cloned().unwrap_or_else(|| Past {
                name: print.clone(),
                print: print.clone(),
                taken: 0,
            });
            let found = self.version(catalogue, url, &past).inspect_err(|why| {
                trouble.push(format!("version {}: {why:#}", past.name));
            });
            (past, found.ok())
        };
        let pinned = file.pinned.as_ref().map(|print| {
            let (past, found) = find(print);
            found.unwrap_or_else(|| Version {
                name: past.name,
                print: past.print,
                catalogue: Catalogue::default(),
            })
        });
        let newest = file.newest.as_ref().and_then(|print| find(print).1);
        // Without the list the server must not be asked whether it changed.
        let memory = if newest.is_some() {
            file.memory
        } else {
            Memory::default()
        };
        let elapsed = file.stamp.elapsed(present);
        let all = file.held.len();
        let held = file
            .held
            .into_iter()
            .filter_map(|gone| gone.revive(elapsed, present));
        let held: Vec<Held> = held.collect();
        if held.len() < all {
            let lost = all - held.len();
            trouble.push(format!("{lost} rows that are gone and held cannot be read"));
        }
        let trouble = (!trouble.is_empty()).then(|| trouble.join("; "));
        let kept = Kept {
            standing: Standing {
                held,
                newest: newest.unwrap_or_default(),
                pinned,
                barred: file.barred,
            },
            memory,
            fetched: file.fetched,
            history: file.history,
            error: file.error,
        };
        (kept, trouble)
    }

    /// What to write so that [`Self::load`] gives `kept`.
    ///
    /// # Errors
    /// When it cannot be written down.
    pub fn draft(
        &self,
        catalogue: &str,
        url: &Endpoint,
        kept: &Kept,
        now: Moment,
    ) -> anyhow::Result<Draft> {
        let standing = &kept.standing;
        let print =
            |version: &Version| Some(version.print.clone()).filter(|print| !print.is_empty());
        let held = standing.held.iter().map(|held| Gone::of(held, now));
        let bytes = state::seal(&File {
            version: VERSION,
            stamp: Stamp::now(now),
            catalogue: catalogue.to_owned(),
            url: url.to_string(),
            memory: kept.memory.clone(),
            fetched: kept.fetched,
            newest: print(&standing.newest),
            pinned: standing.pinned.as_ref().and_then(print),
            barred: standing.barred.clone(),
            held: held.collect(),
            history: kept.history.clone(),
            error: kept.error.clone(),
        })?;
        Ok(Draft {
            over: self.over(catalogue, url, kept),
            path: self.file(catalogue, url),
            bytes,
        })
    }

    /// Lists of a source that are neither in its history nor pinned.
    fn over(&self, catalogue: &str, url: &Endpoint, kept: &Kept) -> Vec<PathBuf> {
        let stem = Self::stem(catalogue, url);
        let pinned = kept.standing.pinned.iter().map(|pinned| &pinned.print);
        let prints = kept.history.iter().map(|past| &past.print).chain(pinned);
        let wanted: Vec<PathBuf> = prints
            .map(|print| self.list(catalogue, url, print))
            .collect();
        let Ok(entries) = fs::read_dir(&self.0) else {
            return Vec::new();
        };
        let paths = entries.filter_map(|entry| Some(entry.ok()?.path()));
        paths
            .filter(|path| {
                let name = path
                    .file_name()
                    .and_then(|name| name.to_str())
                    .unwrap_or_default();
                name.starts_with(&stem) && name.ends_with(".list") && !wanted.contains(path)
            })
            .collect()
    }

    /// What is in force of a source, for whoever only looks.
    #[must_use]
    pub fn in_force(&self, catalogue: &str, url: &Endpoint, now: Moment) -> Option<Catalogue> {
        self.load(catalogue, url, now).0.in_force(now)
    }
}

/// Reads what a server gave. Its name is the one that the server's protocol tells, or that the list does, or its print.
///
/// # Errors
/// When it is no catalogue.
pub fn version(bytes: &[u8], url: &Endpoint, name: Option<&str>) -> anyhow::Result<Version> {
    let print = Store::print(bytes);
    let mut catalogue = import::read(bytes, &url.to_string())?;
    let told = Some(&*catalogue.version).filter(|told| !told.is_empty());
    let name = name.or(told).unwrap_or(&print[..12]).to_owned();
    if catalogue.source.is_empty() {
        catalogue.source = url.to_string();
    }
    catalogue.version.clone_from(&name);
    Ok(Version {
        name,
        print,
        catalogue,
    })
}

#[cfg(test)]
mod tests;
