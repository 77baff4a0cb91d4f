//! PURE: what a machine's console says, as an outcome and as a line of the table.

use super::machine::Console;
use serde_json::{Value, json};
use std::collections::BTreeMap;

/// What a kernel made of the tests.
#[derive(Debug, Default)]
pub(super) struct Outcome {
    /// Names of the kernel's release.
    pub(super) kernel: String,
    /// Tests that passed.
    pub(super) passed: u32,
    /// Tests that failed, by name, and steps and machines that ended badly.
    pub(super) failed: Vec<String>,
    /// Tests that this kernel, or the machine, cannot run.
    pub(super) skipped: Vec<String>,
    /// What the tests measured: a subject, and words about it.
    pub(super) measured: BTreeMap<String, Vec<(String, String)>>,
    /// Seconds from power on to power off.
    pub(super) seconds: f64,
}

impl Outcome {
    /// Reads a console.
    pub(super) fn read(kernel: &str, console: &Console, steps: &[&str]) -> Self {
        let mut outcome = Self {
            kernel: kernel.to_owned(),
            seconds: console.seconds,
            failed: console.ended.iter().cloned().collect(),
            ..Self::default()
        };
        let mut left: Vec<&str> = steps.to_vec();
        let mut in_list = false;
        for line in &console.lines {
            outcome.line(line, &mut left, &mut in_list);
        }
        // A step that never ended proves nothing.
        let unfinished = left.iter().map(|step| format!("{step}: did not end"));
        outcome.failed.extend(unfinished);
        outcome
    }

    fn line(&mut self, line: &str, left: &mut Vec<&str>, in_list: &mut bool) {
        if let Some(done) = line.strip_prefix("guest: done ") {
            let mut words = done.split(' ');
            let (step, code) = (words.next().unwrap_or_default(), words.next());
            left.retain(|name| *name != step);
            if code != Some("0") {
                self.failed.push(format!("{step}: exit status {code:?}"));
            }
        } else if let Some(broken) = line.strip_prefix("guest: broken ") {
            self.failed.push(broken.to_owned());
        } else if let Some((_, measured)) = line.split_once("measured: ") {
            // Libtest may have begun the line.
            let mut words = measured.split(' ');
            let subject = words.next().unwrap_or_default().to_owned();
            let pairs = words.filter_map(|word| word.split_once('='));
            let pairs = pairs.map(|(key, value)| (key.to_owned(), value.to_owned()));
            self.measured.entry(subject).or_default().extend(pairs);
        } else if let Some((_, skipped)) = line.split_once("SKIPPED") {
            self.skipped
                .push(skipped.trim_start_matches([':', ' ']).to_owned());
        } else if let Some(name) = line.strip_prefix("    ") {
            // Libtest's list at the end, also of tests whose line was torn by what they said.
            let is_name = name.contains("::") || !name.contains(' ');
            if *in_list && is_name && !name.starts_with(' ') {
                self.failed.push(name.to_owned());
            }
        } else if line == "failures:" {
            *in_list = true;
        } else if let Some(test) = line.strip_prefix("test ") {
            if let Some(result) = test.strip_prefix("result: ") {
                *in_list = false;
                let passed = result.split([';', '.']).find_map(|part| {
                    let number = part.trim().strip_suffix(" passed")?;
                    number.parse::<u32>().ok()
                });
                self.passed += passed.unwrap_or(0);
            } else if let Some((name, _)) = test.split_once(" ... ignored") {
                self.skipped.push(name.trim_end().to_owned());
            }
        }
    }

    /// Whether this kernel passed.
    pub(super) fn good(&self) -> bool {
        self.failed.is_empty() && self.passed > 0
    }

    fn of(&self, subject: &str, key: &str) -> &str {
        let pairs = self.measured.get(subject);
        let found = pairs.and_then(|pairs| pairs.iter().find(|(name, _)| name == key));
        found.map_or("-", |(_, value)| value)
    }

    /// As a row of the table.
    pub(super) fn row(&self) -> [String; 8] {
        let pair = |key: &str| {
            format!(
                "{}/{}",
                self.of("egressd_xdp", key),
                self.of("egressd_tcx", key)
            )
        };
        let verdict = if self.good() { "passed" } else { "FAILED" };
        [
            self.kernel.clone(),
            format!(
                "{verdict} {}+{}",
                self.passed,
                self.failed.len() + self.skipped.len()
            ),
            self.of("hooks", "auto").to_owned(),
            self.of("hooks", "tc").to_owned(),
            pair("verified"),
            pair("xlated"),
            pair("jited"),
            format!("{:.0}", self.seconds),
        ]
    }

    /// As a JSON object.
    pub(super) fn json(&self) -> Value {
        let measured: BTreeMap<&str, BTreeMap<&str, &str>> = self
            .measured
            .iter()
            .map(|(subject, pairs)| {
                let pairs = pairs.iter().map(|(k, v)| (k.as_str(), v.as_str()));
                (subject.as_str(), pairs.collect())
            })
            .collect();
        json!({
            "kernel": self.kernel,
            "good": self.good(),
            "passed": self.passed,
            "failed": self.failed,
            "skipped": self.skipped,
            "measured": measured,
            "seconds": self.seconds,
        })
    }
}

/// Heads of the columns of [`Outcome::row`].
pub(super) const HEADS: [&str; 8] = [
    "kernel",
    "tests (passed+rest)",
    "auto",
    "tc",
    "verified xdp/tc",
    "xlated",
    "jited",
    "seconds",
];

/// A table, its columns as wide as they must be.
pub(super) fn table(rows: &[[String; 8]]) -> String {
    let heads = HEADS.map(str::to_owned);
    let all = || std::iter::once(&heads).chain(rows);
    let mut text = String::new();
    for row in all() {
        for (column, cell) in row.iter().enumerate() {
            let width = all().map(|row| row[column].len()).max().unwrap_or(0);
            text.push_str(&format!("{cell:width$}  "));
        }
        text.truncate(text.trim_end().len());
        text.push('\n');
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn outcome(lines: &[&str]) -> Outcome {
        let console = Console {
            lines: lines.iter().map(|line| (*line).to_owned()).collect(),
            seconds: 4.0,
            ended: None,
        };
        Outcome::read("6.1", &console, &["a"])
    }

    #[test]
    fn consoles_are_read() {
        fn check(lines: &[&str], good: bool, failed: &[&str]) {
            let outcome = outcome(lines);
            assert_eq!(outcome.good(), good, "{lines:?}");
            assert_eq!(outcome.failed, failed, "{lines:?}");
        }
        let passed = "test result: ok. 12 passed; 0 failed; 1 ignored; 0 measured";
        check(&[passed, "guest: done a 0 1.0"], true, &[]);
        check(&["guest: done a 0 1.0"], false, &[]);
        check(&[passed], false, &["a: did not end"]);
        check(
            &[passed, "guest: done a 101 1.0"],
            false,
            &["a: exit status Some(\"101\")"],
        );
        check(
            &[
                "test x::y ... said something",
                "FAILED",
                "failures:",
                "    x::y",
                "test result: FAILED. 1 passed; 1 failed",
                "    not this",
                "guest: done a 0 1.0",
            ],
            false,
            &["x::y"],
        );
        check(
            &["guest: broken no /plan", "guest: end"],
            false,
            &["no /plan", "a: did not end"],
        );
    }

    #[test]
    fn measures_and_skips_are_kept() {
        let outcome = outcome(&[
            "test t ... measured: egressd_xdp verified=7 jited=9",
            "SKIPPED t: not root",
            "test u ... ignored, why",
        ]);
        assert_eq!(outcome.of("egressd_xdp", "verified"), "7");
        assert_eq!(outcome.of("egressd_tcx", "verified"), "-");
        assert_eq!(outcome.skipped, ["t: not root", "u"]);
    }
}
