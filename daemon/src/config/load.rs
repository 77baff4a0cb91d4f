//! The configuration's files.
#![expect(
    clippy::disallowed_methods,
    reason = "shell: reads the configuration's files"
)]

use super::{Problems, Settings, parse};
use std::fs;
use std::path::Path;

/// Reads the configuration at `path` and the catalogue files it names, relative to its folder.
///
/// # Errors
/// When a file cannot be read, or with everything wrong in them.
pub fn load(path: &Path) -> Result<Settings, Problems> {
    let file = path.display().to_string();
    let folder = path.parent().unwrap_or(Path::new(""));
    let text = fs::read_to_string(path)
        .map_err(|error| Problems::with_file(&file, format!("it cannot be read: {error}")))?;
    parse(&text, &file, &|name| fs::read(folder.join(name)))
}
