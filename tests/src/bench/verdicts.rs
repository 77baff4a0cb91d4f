//! What a verdict costs, as the daemon's own test `cost_of_a_verdict` measured it just before: only
//! code beside the plane can load its programs with tables of any size.
#![expect(clippy::disallowed_methods, reason = "shell: reads a file")]

use super::Bench;
use super::figure::{Better, Figure, Round};
use super::measure::{Family, Measure, Need};
use anyhow::{Context, Result};
use serde::Deserialize;

/// One row of the file.
#[derive(Debug, Deserialize)]
struct Row {
    /// 4 or 6.
    version: u8,
    /// `granted`, `refused` or `network`.
    kind: String,
    /// Destinations.
    count: u32,
    /// Nanoseconds per packet: with the verdict, without it.
    readings: Vec<[f64; 2]>,
}

/// The figures of the measures about verdicts, one per row.
pub(super) fn read(bench: &Bench, measures: &[Measure]) -> Result<Vec<Figure>> {
    let wanted: Vec<Measure> = measures
        .iter()
        .filter(|measure| measure.need == Need::Verdict)
        .copied()
        .collect();
    let (false, Some(path)) = (wanted.is_empty(), &bench.verdicts) else {
        return Ok(Vec::new());
    };
    let read = || path.display().to_string();
    let text = std::fs::read_to_string(path).with_context(read)?;
    let rows: Vec<Row> = serde_json::from_str(&text).with_context(read)?;
    let figures = wanted.iter().flat_map(|measure| {
        let version = match measure.family {
            Family::V4 => 4,
            Family::V6 => 6,
        };
        let rows = rows.iter().filter(move |row| row.version == version);
        rows.map(|row| figure(&measure.id(), row))
    });
    Ok(figures.collect())
}

fn figure(id: &str, row: &Row) -> Figure {
    let rounds: Vec<Round> = row
        .readings
        .iter()
        .map(|[with, without]| Round {
            subject: with - without,
            peer: *without,
        })
        .collect();
    let id = format!("{id}-{}-{}", row.kind, row.count);
    Figure::of(&id, "ns", Better::Lower, &rounds)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_row_is_a_figure() {
        let text = r#"{"version": 4, "kind": "granted", "count": 1000, "readings": [[38.0, 8.0], [39.0, 9.0], [50.0, 8.0]]}"#;
        let figure = figure("verdict-cost-v4", &serde_json::from_str(text).unwrap());
        assert_eq!(figure.id, "verdict-cost-v4-granted-1000");
        assert!((figure.subject - 30.0).abs() < 1e-9);
        assert!((figure.peer - 8.0).abs() < 1e-9);
    }
}
