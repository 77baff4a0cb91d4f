//! Generated responses, read by the daemon's reducer and by an oracle.
#![expect(clippy::disallowed_methods, reason = "shell: times itself")]

use clap::Args;
use egressd_tests::differential::{Tally, judge};
use egressd_tests::oracle::generate::{Dice, response};
use std::time::Instant;

#[derive(Args)]
pub(crate) struct Options {
    /// How many responses are read.
    #[arg(long, default_value_t = 1_000_000)]
    count: u64,
    /// Where the sequence begins; the same seed makes the same responses.
    #[arg(long, default_value_t = 1_000_000_000)]
    seed: u64,
}

/// How many responses were read differently.
pub(crate) fn soak(options: &Options) -> usize {
    let began = Instant::now();
    let (mut tally, mut wrong) = (Tally::default(), 0);
    for seed in options.seed..options.seed.saturating_add(options.count) {
        let mut dice = Dice::new(seed);
        let message = response(&mut dice);
        let one = judge(&message, dice.roll() & dice.roll());
        if !one.is_clean() {
            wrong += 1;
            if wrong <= 10 {
                println!("seed {seed}: {one}");
            }
        }
        tally += one;
    }
    println!("{tally}; {:.0} s", began.elapsed().as_secs_f64());
    wrong
}
