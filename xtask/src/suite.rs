//! All tests: those any machine can run, then the namespace tests with each choice of planes.

use crate::build::{self, Built, OBJECT, SHIM};
use crate::lab::{Planes, ready};
use crate::shell::{as_root, capture, cargo, follow, say};
use anyhow::{Context, Result};
use clap::Args;
use std::path::PathBuf;
use std::process::Command;

/// Options of the tests.
#[derive(Args, Default)]
pub(crate) struct Options {
    /// Only with these planes (may be given several times); all three choices by default.
    #[arg(long, value_enum)]
    planes: Vec<Planes>,
    /// Only the namespace tests.
    #[arg(long)]
    namespaces: bool,
    /// Only namespace tests with this in their name.
    filter: Option<String>,
}

/// Runs them; whether none failed.
///
/// # Errors
/// When they could not be built or run.
pub(crate) fn run(options: &Options) -> Result<bool> {
    let Built { object, binaries } = ready()?;
    let mut total = Totals::default();
    let mut good = true;
    if !options.namespaces {
        let mut tests = cargo();
        tests
            .env(OBJECT, &object)
            .args(["test", "--workspace", "--no-fail-fast"]);
        // The namespace tests come below, where they can run.
        tests.args(["--exclude", "egressd-tests"]);
        good &= follow(&mut tests, |line| total.read(line))?;
        let mut lab = cargo();
        lab.args([
            "test",
            "--package",
            "egressd-tests",
            "--lib",
            "--bins",
            "--no-fail-fast",
        ]);
        good &= follow(&mut lab, |line| total.read(line))?;
    }
    let suite = executable(
        cargo().args(["test", "--package", "egressd-tests", "--test", "namespaces"]),
        "namespaces",
    )?;
    let shim = build::shim()?;
    let chosen = match options.planes.as_slice() {
        [] => &[Planes::Nft, Planes::Ebpf, Planes::Both],
        chosen => chosen,
    };
    for planes in chosen {
        say(format!("namespace tests, planes: {}", planes.word()));
        let mut tests = as_root(&suite, "making network namespaces")?;
        tests
            .env("EGRESSD_PLANES", planes.word())
            .env("EGRESSD_BIN_DIR", &binaries)
            .env(SHIM, &shim);
        tests.args(&options.filter);
        good &= follow(&mut tests, |line| total.read(line))?;
    }
    println!(
        "{} passed, {} failed, {} skipped",
        total.passed, total.failed, total.ignored
    );
    Ok(good && total.failed == 0)
}

/// Builds the tests that `build` names and does not run them; where they are. `name` is in the path.
///
/// # Errors
/// When they do not compile.
pub(crate) fn executable(build: &mut Command, name: &str) -> Result<PathBuf> {
    build.args([
        "--no-run",
        "--message-format",
        "json-render-diagnostics",
        "--quiet",
    ]);
    let messages = capture(build)?;
    // One artifact has both a test's name and an executable; a JSON parser for that is not worth it.
    let mark = "\"executable\":\"";
    let line = messages
        .lines()
        .rfind(|line| line.contains(mark) && line.contains(&format!("/{name}-")));
    let path = line.and_then(|line| line.split_once(mark)?.1.split('"').next());
    path.map(PathBuf::from)
        .with_context(|| format!("cargo names the executable of {name}"))
}

/// Sums over all `test result:` lines.
#[derive(Debug, Default, PartialEq, Eq)]
struct Totals {
    passed: u32,
    failed: u32,
    ignored: u32,
}

impl Totals {
    fn read(&mut self, line: &str) {
        let Some(result) = line.strip_prefix("test result: ") else {
            return;
        };
        let count = |word: &str| -> u32 {
            let mut parts = result.split([';', '.']).map(str::trim);
            let part = parts.find_map(|part| part.strip_suffix(word));
            part.and_then(|number| number.trim().parse().ok())
                .unwrap_or(0)
        };
        self.passed += count("passed");
        self.failed += count("failed");
        self.ignored += count("ignored");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn totals_add_up() {
        let mut total = Totals::default();
        for line in [
            "running 3 tests",
            "test result: ok. 12 passed; 0 failed; 3 ignored; 0 measured; 0 filtered out; finished in 0.00s",
            "test result: FAILED. 2 passed; 1 failed; 5 ignored; 0 measured; 0 filtered out",
        ] {
            total.read(line);
        }
        assert_eq!(
            total,
            Totals {
                passed: 14,
                failed: 1,
                ignored: 8
            }
        );
    }
}
