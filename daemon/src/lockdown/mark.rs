//! What somebody did to the whole gateway, in a small file that anybody may read until the next start.
//! Root writes into a folder that may belong to the daemon's user: links there are never followed.
#![expect(
    clippy::disallowed_methods,
    reason = "shell: a file, and the wall clock for people"
)]

use super::keeper;
use crate::daemon::now;
use crate::daemon::state::Stamp;
use anyhow::Context as _;
use nix::unistd::{Uid, geteuid};
use serde::{Deserialize, Serialize};
use std::fs;
use std::io::Write as _;
use std::os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _};
use std::path::Path;
use std::time::SystemTime;

const NAME: &str = "gateway.json";
const VERSION: u32 = 1;

/// What was done.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Word {
    /// Everything passes.
    Open,
    /// Nothing is forwarded.
    Locked,
}

/// Who did what, when and why.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Mark {
    version: u32,
    /// What was done.
    pub state: Word,
    /// The user, as far as it is known.
    pub who: String,
    /// RFC 3339 in UTC, by the wall clock of then.
    pub since: String,
    /// The reason given.
    pub why: String,
    /// The same moment for the keeper.
    pub(super) stamp: Stamp,
}

impl Mark {
    /// What this process does now.
    #[must_use]
    pub fn now(state: Word, why: &str) -> Self {
        Self {
            version: VERSION,
            state,
            who: who(),
            since: humantime::format_rfc3339_seconds(SystemTime::now()).to_string(),
            why: why.to_owned(),
            stamp: Stamp::now(now()),
        }
    }

    /// In one line, for people.
    #[must_use]
    pub fn line(&self) -> String {
        let Self {
            who, since, why, ..
        } = self;
        match self.state {
            Word::Open => format!("opened {since} by {who}: {why}"),
            Word::Locked => format!("locked {since} by {who}: {why}"),
        }
    }
}

/// Reads the mark in `runtime`, if there is one that can be read.
#[must_use]
pub fn read(runtime: &Path) -> Option<Mark> {
    let mark: Mark = keeper::read(&runtime.join(NAME))?;
    (mark.version == VERSION).then_some(mark)
}

/// Puts `mark` in the place of the one before.
///
/// # Errors
/// When the folder cannot be written.
pub fn write(runtime: &Path, mark: &Mark) -> anyhow::Result<()> {
    let path = runtime.join(NAME);
    put(&path, &serde_json::to_vec(mark)?, 0o644)
        .with_context(|| format!("write {}", path.display()))
}

/// Takes the mark away, once what it says is no longer so.
pub fn clear(runtime: &Path) {
    let path = runtime.join(NAME);
    if let Err(error) = fs::remove_file(&path)
        && error.kind() != std::io::ErrorKind::NotFound
    {
        log::warn!(target: "daemon", "the mark {} stays: {error}", path.display());
    }
}

/// Puts a file in the place of another, whole or not at all, and follows no link.
pub(super) fn put(path: &Path, bytes: &[u8], mode: u32) -> std::io::Result<()> {
    let draft = path.with_extension(format!("{}.new", std::process::id()));
    // Of a process of the same id that was killed in between.
    let _absent = fs::remove_file(&draft);
    let mut file = fs::OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(mode)
        .open(&draft)?;
    let written = file
        // Whatever the umask of who calls.
        .set_permissions(fs::Permissions::from_mode(mode))
        .and_then(|()| file.write_all(bytes))
        .and_then(|()| fs::rename(&draft, path));
    if written.is_err() {
        let _left = fs::remove_file(&draft);
    }
    written
}

/// The user behind this process: also who became root, as the kernel's audit remembers and as sudo tells.
fn who() -> String {
    let mut who = format!("uid {}", geteuid());
    let login = fs::read_to_string("/proc/self/loginuid").ok();
    if let Some(login) = login.and_then(|text| text.trim().parse::<u32>().ok())
        && login != u32::MAX
        && Uid::from_raw(login) != geteuid()
    {
        who += &format!(", login uid {login}");
    }
    let plain = |name: &String| {
        let fits = |c: char| c.is_ascii_alphanumeric() || "._-".contains(c);
        !name.is_empty() && name.len() <= 32 && name.chars().all(fits)
    };
    if let Some(name) = std::env::var("SUDO_USER").ok().filter(plain) {
        who += &format!(", sudo by {name}");
    }
    who
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::symlink;

    #[test]
    fn a_mark_comes_back() {
        let folder = tempfile::tempdir().unwrap();
        assert_eq!(read(folder.path()), None);
        let mark = Mark::now(Word::Open, "the night");
        write(folder.path(), &mark).unwrap();
        assert_eq!(read(folder.path()), Some(mark.clone()));
        assert!(mark.line().starts_with("opened 2"), "{}", mark.line());
        assert!(mark.line().ends_with(": the night"), "{}", mark.line());
        clear(folder.path());
        assert_eq!(read(folder.path()), None);
        clear(folder.path());
    }

    #[test]
    fn no_link_is_followed() {
        let folder = tempfile::tempdir().unwrap();
        let victim = folder.path().join("victim");
        let mark = Mark::now(Word::Locked, "x");
        for name in [
            NAME.to_owned(),
            format!("gateway.{}.new", std::process::id()),
        ] {
            fs::write(&victim, "precious").unwrap();
            let _absent = fs::remove_file(folder.path().join(&name));
            symlink(&victim, folder.path().join(&name)).unwrap();
            if name == NAME {
                assert_eq!(read(folder.path()), None, "a link is not read");
            }
            write(folder.path(), &mark).unwrap();
            assert_eq!(fs::read_to_string(&victim).unwrap(), "precious", "{name}");
            assert_eq!(read(folder.path()), Some(mark.clone()), "{name}");
        }
    }

    #[test]
    fn what_is_no_mark_is_none() {
        fn check(content: &[u8]) {
            let folder = tempfile::tempdir().unwrap();
            fs::write(folder.path().join(NAME), content).unwrap();
            assert_eq!(read(folder.path()), None);
        }
        check(b"");
        check(b"{\"version\":1}");
        check(&[b'['; 5000]);
        let mut other = Mark::now(Word::Open, "x");
        other.version = 2;
        check(&serde_json::to_vec(&other).unwrap());
    }
}
