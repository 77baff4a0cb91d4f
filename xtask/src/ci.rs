//! What a change must pass.

use crate::setup::{Group, packages};
use crate::shell::{cargo, command, on_path, run, say};
use crate::{suite, vm};
use anyhow::Result;

/// Formatting, lints, dependency rules, tests, one other kernel; whether all passed.
///
/// # Errors
/// With the first step that fails, or that could not be run.
pub(crate) fn run_all() -> Result<bool> {
    run(cargo().args(["fmt", "--all", "--check"]))?;
    packages(&[Group::Build])?;
    run(cargo().args([
        "clippy",
        "--workspace",
        "--all-targets",
        "--",
        "-D",
        "warnings",
    ]))?;
    if on_path("cargo-deny").is_some() {
        // Advisories need a download; the rules on licences and sources do not.
        run(command("cargo").args(["deny", "--offline", "check", "bans", "licenses", "sources"]))?;
    } else {
        say(
            "SKIPPED: dependency rules (deny.toml): `cargo install cargo-deny` to have them checked",
        );
    }
    let tested = suite::run(&suite::Options::default())?;
    Ok(vm::quick()? && tested)
}
