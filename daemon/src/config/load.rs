//! The configuration's files.
#![expect(
    clippy::disallowed_methods,
    reason = "shell: reads the configuration's files"
)]

use super::{Problems, Settings, parse_with};
use crate::daemon;
use crate::document;
use crate::fetch::Endpoint;
use crate::fetch::store::Store;
use crate::policy::catalogue::Catalogue;
use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Mutex;

/// The configuration's files as they were read: what is fetched later is judged with them, whatever somebody is
/// writing there meanwhile.
#[derive(Debug)]
pub struct Text {
    path: PathBuf,
    text: String,
    files: Mutex<BTreeMap<PathBuf, Vec<u8>>>,
}

impl Text {
    /// Reads the configuration at `path`.
    ///
    /// # Errors
    /// When it cannot be read, or is no text.
    pub fn read(path: &Path) -> Result<Self, Problems> {
        let file = path.display().to_string();
        let bytes = fs::read(path)
            .map_err(|error| Problems::with_file(&file, format!("it cannot be read: {error}")))?;
        Ok(Self {
            path: path.to_owned(),
            text: document::text(&bytes, &file)?.to_owned(),
            files: Mutex::default(),
        })
    }

    /// What it says, with files that it names relative to its folder; each is read once. `fetched` tells what is in
    /// force of what is fetched.
    ///
    /// # Errors
    /// With everything wrong in it and in those files.
    pub fn settings(
        &self,
        fetched: &dyn Fn(&Path, &str, &Endpoint) -> Option<Catalogue>,
    ) -> Result<Settings, Problems> {
        let file = self.path.display().to_string();
        let read = |name: &Path| -> io::Result<Vec<u8>> {
            let mut files = self.files.lock().unwrap_or_else(|gone| gone.into_inner());
            if let Some(known) = files.get(name) {
                return Ok(known.clone());
            }
            let bytes = fs::read(self.locate(name))?;
            files.insert(name.to_owned(), bytes.clone());
            Ok(bytes)
        };
        parse_with(&self.text, &file, &read, fetched)
    }

    /// Where a file is that the configuration names.
    #[must_use]
    pub fn locate(&self, name: &Path) -> PathBuf {
        self.path.parent().unwrap_or(Path::new("")).join(name)
    }

    /// Whether a file that was read holds something else now, or cannot be read any more.
    #[must_use]
    pub fn is_stale(&self) -> bool {
        let files = self.files.lock();
        let files = files.unwrap_or_else(std::sync::PoisonError::into_inner);
        let changed = |(name, bytes): (&PathBuf, &Vec<u8>)| {
            !fs::read(self.locate(name)).is_ok_and(|now| now == *bytes)
        };
        files.iter().any(changed)
    }

    /// The same configuration with its files read again.
    #[must_use]
    pub fn anew(&self) -> Self {
        Self {
            path: self.path.clone(),
            text: self.text.clone(),
            files: Mutex::default(),
        }
    }
}

/// Reads the configuration at `path`, the catalogue files it names, relative to its folder, and what was fetched of
/// those that it fetches.
///
/// # Errors
/// When a file cannot be read, or with everything wrong in them.
pub fn load(path: &Path) -> Result<Settings, Problems> {
    Text::read(path)?
        .settings(&|state, name, url| Store::new(state).in_force(name, url, daemon::now()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn catalogue_files_are_beside_the_configuration() {
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name);
        fs::create_dir(at("more")).unwrap();
        fs::write(
            at("egressd.toml"),
            "[[catalogue]]\nname = 'v'\nfile = 'more/v.toml'\n\
             [[zone]]\nname = 'a'\ninterfaces = ['lan0']\nallow = ['v']\n",
        )
        .unwrap();
        let error = load(&at("egressd.toml")).unwrap_err().to_string();
        let path = at("egressd.toml").display().to_string();
        assert!(
            error.starts_with(&format!("{path}:3:8: `more/v.toml` cannot be read: ")),
            "{error}"
        );

        let catalogue =
            "name = 'v'\n[[set]]\nid = '1'\narea = 'x'\nnetworks = ['192.0.2.0/24']\ntcp = [22]\n";
        fs::write(at("more/v.toml"), catalogue).unwrap();
        let settings = load(&at("egressd.toml")).unwrap();
        assert_eq!(settings.intent.catalogues[1].sets[0].id, "1");
    }

    #[test]
    fn a_missing_file_is_named() {
        let error = load(Path::new("/nowhere/egressd.toml")).unwrap_err();
        let error = error.to_string();
        assert!(
            error.starts_with("/nowhere/egressd.toml: it cannot be read: "),
            "{error}"
        );
    }
}
