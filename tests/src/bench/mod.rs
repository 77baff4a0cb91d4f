//! Figures beside a peer's, taken in the same run, turn by turn. Absolute figures of one machine move
//! by a factor of two from run to run; only the ratio of neighbours means anything.

mod cold;
mod cores;
mod dnsperf;
mod figure;
mod forwarder;
mod gateway;
mod hot;
mod latency;
mod measure;
mod names;
mod packets;
mod quiet;
mod report;
mod traffic;
mod usage;
mod verdicts;

pub use cores::cores;
pub use figure::{Better, Figure, Round};
pub use measure::{Family, Kind, Measure, Need, Resolver};
pub use report::table;

use crate::lab::Binaries;
use anyhow::Result;
use std::path::PathBuf;

/// What every measure needs.
#[derive(Clone, Debug)]
pub struct Bench {
    /// The daemon.
    pub binaries: Binaries,
    /// The object with the programs that make and count frames.
    pub generator: PathBuf,
    /// What `cost_of_a_verdict` measured; `None` where it did not run.
    pub verdicts: Option<PathBuf>,
    /// Rounds; `None` leaves it to the measure.
    pub rounds: Option<usize>,
}

impl Bench {
    /// Takes the figures of `measures`, in their order. What is seen on the way is told to `say`.
    ///
    /// # Errors
    /// When a lab cannot be built, a program is missing, or a run does not do what it must: every
    /// figure counts work that was seen to be done.
    pub fn run(&self, measures: &[Measure], say: &dyn Fn(&str)) -> Result<Vec<Figure>> {
        say(&format!("load before: {}", quiet::load()));
        let mut figures = cold::run(self, measures, say)?;
        figures.extend(hot::run(self, measures, say)?);
        figures.extend(latency::run(self, measures, say)?);
        figures.extend(packets::run(self, measures, say)?);
        figures.extend(verdicts::read(self, measures)?);
        say(&format!("load after: {}", quiet::load()));
        let place = |id: &str| {
            measures
                .iter()
                .position(|measure| id.starts_with(&measure.id()))
        };
        figures.sort_by_key(|figure| place(&figure.id));
        Ok(figures)
    }
}
