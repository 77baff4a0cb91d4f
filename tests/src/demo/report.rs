//! What people and programs read: live lines, the table, one JSON document.

use super::explain::Explained;
use super::judge::{Judged, Sum, Tally};
use super::plan::Group;
use serde::Serialize;
use std::fmt::Write;
use std::time::Duration;

/// Everything, for programs.
#[derive(Debug, Serialize)]
pub struct Report {
    /// `nft`, `ebpf`, `both` or `plain`.
    pub planes: String,
    /// Whether every line is as it must be.
    pub good: bool,
    /// Attempts that had to pass.
    pub granted: Sum,
    /// Attempts that had to fail.
    pub forbidden: Sum,
    /// Questions.
    pub questions: Sum,
    /// Seconds that the attempts took.
    pub seconds: f64,
    /// Seconds from start to ready of the daemon; 0 without one.
    pub ready_seconds: f64,
    /// The table.
    pub groups: Vec<Row>,
    /// The explanations.
    pub explained: Vec<Explained>,
    /// Every attempt.
    pub attempts: Vec<Judged>,
}

/// A row of the table.
#[derive(Debug, Serialize)]
pub struct Row {
    /// What was tried.
    pub title: String,
    /// For people.
    pub about: String,
    /// Whether it is an endpoint set.
    pub is_set: bool,
    /// The sums.
    #[serde(flatten)]
    pub tally: Tally,
}

impl Report {
    /// Adds everything up.
    #[must_use]
    pub fn new(
        planes: &str,
        groups: &[Group],
        attempts: Vec<Judged>,
        explained: Vec<Explained>,
        took: Duration,
        ready: Duration,
    ) -> Self {
        let rows: Vec<Row> = groups
            .iter()
            .map(|group| Row {
                title: group.title.clone(),
                about: group.about.clone(),
                is_set: group.is_set,
                tally: Tally::of(attempts.iter().filter(|judged| judged.group == group.title)),
            })
            .collect();
        let total = Tally::of(&attempts);
        Self {
            planes: planes.to_owned(),
            good: total.whole() && explained.iter().all(|explained| explained.good),
            granted: total.granted,
            forbidden: total.forbidden,
            questions: total.questions,
            seconds: took.as_secs_f64(),
            ready_seconds: ready.as_secs_f64(),
            groups: rows,
            explained,
            attempts,
        }
    }

    /// The table, the failures, the explanations and the last line.
    #[must_use]
    pub fn text(&self) -> String {
        let mut out = String::new();
        self.write(&mut out).expect("a String takes every write");
        out
    }

    fn write(&self, out: &mut String) -> std::fmt::Result {
        writeln!(out)?;
        line(
            out,
            [
                "endpoint set",
                "questions",
                "granted passed",
                "forbidden failed",
                "",
            ],
        )?;
        for (heading, is_set) in [(None, true), (Some("ways around"), false)] {
            if let Some(heading) = heading {
                writeln!(out, "{heading}")?;
            }
            for row in self.groups.iter().filter(|row| row.is_set == is_set) {
                let Tally {
                    questions,
                    granted,
                    forbidden,
                } = &row.tally;
                let [questions, granted, forbidden] =
                    [questions, granted, forbidden].map(ToString::to_string);
                let about = match (row.tally.whole(), row.tally == Tally::default()) {
                    (true, true) => format!("{} (nothing to open)", row.about),
                    (true, false) => row.about.clone(),
                    (false, _) => format!("NOT AS IT MUST BE: {}", row.about),
                };
                line(out, [&row.title, &questions, &granted, &forbidden, &about])?;
            }
        }
        let bad: Vec<_> = self.attempts.iter().filter(|judged| !judged.good).collect();
        if !bad.is_empty() {
            writeln!(
                out,
                "\nnot as it must be ({} in all, at most 30 shown):",
                bad.len()
            )?;
            for judged in bad.into_iter().take(30) {
                writeln!(out, "  {}", told(judged))?;
            }
        }
        for explained in &self.explained {
            writeln!(
                out,
                "\n$ {}\n{}",
                explained.command,
                explained.text.trim_end()
            )?;
            if !explained.good {
                writeln!(out, "NOT AS IT MUST BE: another verdict than the packets'")?;
            }
        }
        writeln!(
            out,
            "\nplanes {}: granted {} passed, forbidden {} failed, questions {} as they must be; \
             ready in {:.2} s, attempts in {:.1} s: {}",
            self.planes,
            self.granted,
            self.forbidden,
            self.questions,
            self.ready_seconds,
            self.seconds,
            if self.good {
                "all is as it must be"
            } else {
                "FAILED"
            },
        )
    }
}

fn line(
    out: &mut String,
    [title, questions, granted, forbidden, about]: [&str; 5],
) -> std::fmt::Result {
    writeln!(
        out,
        "{title:<40} {questions:>12} {granted:>15} {forbidden:>17}  {about}"
    )
}

/// One attempt in one line.
#[must_use]
pub fn told(judged: &Judged) -> String {
    let event = &judged.event;
    let word = match (event.is_question, event.passed) {
        (true, true) => "answered",
        (true, false) => "unanswered",
        (false, true) => "allowed",
        (false, false) => "refused",
    };
    let mark = if judged.good { "ok " } else { "BAD" };
    let wrong = event
        .wrong
        .as_ref()
        .map(|wrong| format!(" [{wrong}]"))
        .unwrap_or_default();
    format!(
        "{mark} {:<24} {word:<10} {} ({}, {} ms){wrong}",
        judged.group, event.tried, event.detail, event.took
    )
}
