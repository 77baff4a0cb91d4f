//! What became of the faults, for people and for programs.

use super::Scene;
use crate::lab::Class;
use crate::soak::Waits;
use serde_json::{Value, json};
use std::collections::BTreeMap;

/// What became of the faults of one class in one scene.
#[derive(Clone, Debug, Default)]
pub struct Fared {
    /// Calls made in an undisturbed run.
    pub calls: u64,
    /// Errors injected.
    pub faults: u64,
    /// Denied packets that came back, and grants that were open though taken back.
    pub leaked: u64,
    /// Granted packets that did not come back; addresses that were told and closed.
    pub lost: u64,
    /// Times that the planes held different things when all was said to be well.
    pub split: u64,
    /// Not well after [`SOON`].
    pub late: u64,
    /// Ends of the daemon.
    pub ended: u64,
    /// Until all was well.
    pub well: Waits,
}

/// What became of all.
#[derive(Debug, Default)]
pub struct Outcome {
    /// By scene and class.
    pub fared: BTreeMap<(Scene, Class), Fared>,
    /// Granted, lost, denied, leaked packets of the traffic; 0.
    pub counts: [u64; 5],
    /// What went wrong, in words.
    pub wrong: Vec<String>,
    /// The daemon's last lines.
    pub words: String,
}

impl Outcome {
    /// What must not be.
    #[must_use]
    pub fn failures(&self) -> u64 {
        let sum = |fared: &Fared| fared.leaked + fared.lost + fared.split + fared.late;
        self.fared.values().map(sum).sum()
    }

    /// Errors injected.
    #[must_use]
    pub fn faults(&self) -> u64 {
        self.fared.values().map(|fared| fared.faults).sum()
    }

    /// As a table for people.
    #[must_use]
    pub fn table(&self) -> String {
        let mut text = "| while | call | calls | faults | leaked | lost | split | not well in 10 s | ended | well again p50 | max |\n\
                        |---|---|---|---|---|---|---|---|---|---|---|\n"
            .to_owned();
        for ((scene, class), fared) in &self.fared {
            let [half, _, all] = fared.well.quantiles();
            text += &format!(
                "| {} | {class} | {} | {} | {} | {} | {} | {} | {} | {half:.0?} | {all:.0?} |\n",
                scene.word(),
                fared.calls,
                fared.faults,
                fared.leaked,
                fared.lost,
                fared.split,
                fared.late,
                fared.ended
            );
        }
        let [granted, lost, denied, leaked, _] = self.counts;
        text + &format!(
            "{} errors; {leaked} of {denied} denied packets leaked, {lost} of {} granted ones lost\n",
            self.faults(),
            granted + lost
        )
    }

    /// The same for programs.
    #[must_use]
    pub fn json(&self) -> Value {
        let rows = self.fared.iter().map(|((scene, class), fared)| {
            let [half, _, all] = fared.well.quantiles().map(|time| time.as_micros());
            json!({
                "while": scene.word(), "call": class.to_string(), "calls": fared.calls,
                "faults": fared.faults, "leaked": fared.leaked, "lost": fared.lost,
                "split": fared.split, "late": fared.late, "ended": fared.ended,
                "well_p50_us": half, "well_max_us": all,
            })
        });
        json!({"rows": rows.collect::<Vec<_>>(), "traffic": self.counts, "wrong": self.wrong})
    }
}
