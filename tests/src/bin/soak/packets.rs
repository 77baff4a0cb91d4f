//! The kernel's programs against the model, on frames without end.
#![expect(
    clippy::disallowed_methods,
    reason = "shell: measures how long it takes"
)]

use anyhow::Result;
use clap::Args;
use egressd::plane::trial::{Random, TrialHook};
use egressd_common::corpus::{World, all};
use serde::Serialize;
use std::collections::BTreeMap;
use std::time::Instant;

/// Frames between two lines of progress.
const STEP: u64 = 250_000;

#[derive(Args)]
pub(crate) struct Options {
    /// How many frames, over all programs and worlds.
    #[arg(long, default_value_t = 10_000_000)]
    count: u64,
    /// Where the frames begin; the same number makes the same frames.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Print one JSON document at the end; all else goes to standard error.
    #[arg(long)]
    json: bool,
}

/// What was found.
#[derive(Debug, Default, Serialize)]
struct Found {
    frames: u64,
    seconds: f64,
    /// Let pass by a program and refused by the model.
    fail_open: u64,
    /// Refused by a program and let pass by the model.
    wrongly_cut: u64,
    /// Counted under another zone, action or reason.
    miscounted: u64,
    /// Frames the kernel makes no socket buffer of; not among `frames`.
    not_tried: u64,
    reasons: BTreeMap<&'static str, u64>,
}

/// How many verdicts or reasons differ.
pub(crate) fn soak(options: &Options) -> Result<usize> {
    let began = Instant::now();
    let vectors = all();
    let mut found = Found::default();
    let stands = World::ALL
        .iter()
        .flat_map(|world| TrialHook::ALL.map(|hook| (*world, hook)));
    let share = options.count.div_ceil(12);
    for (seed, (world, hook)) in (options.seed..).zip(stands) {
        let mut random = Random::new(vectors.clone(), world, hook, seed)?;
        while random.judged < share {
            random.run(STEP.min(share - random.judged))?;
            eprintln!(
                "{hook} {world:?}: {} of {share} frames, {} differ, {:.0} s",
                random.judged,
                random.open + random.cut,
                began.elapsed().as_secs_f64()
            );
        }
        for words in &random.words {
            eprintln!("{words}");
        }
        found.frames += random.judged;
        found.fail_open += random.open;
        found.wrongly_cut += random.cut;
        found.miscounted += random.miscounted()?;
        found.not_tried += random.skipped;
        for (reason, frames) in random.reasons() {
            *found.reasons.entry(reason).or_default() += frames;
        }
    }
    found.seconds = began.elapsed().as_secs_f64();
    if options.json {
        println!("{}", serde_json::to_string_pretty(&found)?);
    } else {
        println!(
            "{} frames in {:.0} s: {} fail-open, {} wrongly cut, {} under another reason; {} not tried\n{:?}",
            found.frames,
            found.seconds,
            found.fail_open,
            found.wrongly_cut,
            found.miscounted,
            found.not_tried,
            found.reasons
        );
    }
    Ok(usize::try_from(
        found.fail_open + found.wrongly_cut + found.miscounted,
    )?)
}
