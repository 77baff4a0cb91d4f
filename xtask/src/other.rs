//! A build of the same sources whose maps are laid out otherwise: what an upgrade is like.

use crate::shell::{capture_bytes, command, root, run, target, text_of, write};
use anyhow::{Context, Result, ensure};
use std::path::{Path, PathBuf};

const LAYOUT: &str = "common/src/layout.rs";

/// Sizes and names that both sides take from [`LAYOUT`], and what they become.
const CHANGES: [(&str, &str); 4] = [
    (
        "pub const SLOTS: u32 = 4096;",
        "pub const SLOTS: u32 = 8192;",
    ),
    (
        "pub const TOLD_SLOTS: u32 = 8192;",
        "pub const TOLD_SLOTS: u32 = 4096;",
    ),
    (
        "pub type Report = [u32; 12];",
        "pub type Report = [u32; 14];",
    ),
    (
        "[interface, why, what, 0, a, b, c, d, e, f, g, h]",
        "[interface, why, what, 0, a, b, c, d, e, f, g, h, 0, 0]",
    ),
];

/// Builds it; where its binaries are.
///
/// # Errors
/// When the sources have no place for one of the changes, or do not compile with them.
pub(crate) fn layout() -> Result<PathBuf> {
    let (copy, built) = (
        target().join("other-layout/source"),
        target().join("other-layout/build"),
    );
    let files = capture_bytes(command("git").args(["ls-files", "-z"]))?;
    for file in files
        .split(|byte| *byte == 0)
        .filter(|file| !file.is_empty())
    {
        let file = Path::new(str::from_utf8(file)?);
        // What is no text is no source; what is missing will be deleted.
        let Some(text) = text_of(root().join(file)) else {
            continue;
        };
        let text = if file == Path::new(LAYOUT) {
            changed(text)?
        } else {
            text
        };
        // What is as it was is not to be built again.
        if text_of(copy.join(file)).as_ref() != Some(&text) {
            write(copy.join(file), text)?;
        }
    }
    let mut build = command("cargo");
    build
        .current_dir(&copy)
        .env("CARGO_TARGET_DIR", &built)
        .args(["xtask", "build"]);
    run(&mut build).context("build with another layout")?;
    Ok(built.join("release"))
}

fn changed(mut text: String) -> Result<String> {
    for (from, to) in CHANGES {
        ensure!(
            text.matches(from).count() == 1,
            "{LAYOUT} has no `{from}`: change xtask"
        );
        text = text.replace(from, to);
    }
    Ok(text)
}
