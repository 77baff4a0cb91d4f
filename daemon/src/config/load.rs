//! The configuration's files.
#![expect(
    clippy::disallowed_methods,
    reason = "shell: reads the configuration's files"
)]

use super::{Problems, Settings, parse};
use crate::document;
use std::fs;
use std::path::Path;

/// Reads the configuration at `path` and the catalogue files it names, relative to its folder.
///
/// # Errors
/// When a file cannot be read, or with everything wrong in them.
pub fn load(path: &Path) -> Result<Settings, Problems> {
    let file = path.display().to_string();
    let folder = path.parent().unwrap_or(Path::new(""));
    let bytes = fs::read(path)
        .map_err(|error| Problems::with_file(&file, format!("it cannot be read: {error}")))?;
    let text = document::text(&bytes, &file)?;
    parse(text, &file, &|name| fs::read(folder.join(name)))
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
