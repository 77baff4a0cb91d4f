//! Counters of the observer: written by its thread, read by anyone.

use super::super::stats::Count;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

macro_rules! counters {
    ($($(#[$doc:meta])* $name:ident,)*) => {
        /// What the observer saw since it started.
        #[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
        pub struct Stats {
            $($(#[$doc])* pub $name: u64,)*
            /// Half of the answers that taught were in force within so many microseconds of their copy.
            pub half_within: u64,
            /// 99 of 100 of them were.
            pub most_within: u64,
        }

        /// The counters.
        #[derive(Debug, Default)]
        pub struct Counters {
            $(pub(super) $name: Count,)*
            pub(super) lag: Lag,
        }

        impl Counters {
            /// What happened so far.
            #[must_use]
            pub fn read(&self) -> Stats {
                Stats {
                    $($name: self.$name.get(),)*
                    half_within: self.lag.within(50),
                    most_within: self.lag.within(99),
                }
            }
        }
    };
}

counters! {
    /// Questions seen going out.
    questions,
    /// Answers to them seen coming back.
    answers,
    /// Answers that were handed to the loop.
    taught,
    /// Answers for names that no set of their zone lists, or that a set denies.
    unlisted,
    /// Truncated answers: the client asks again over TCP.
    truncated,
    /// Addresses not taught: special-purpose, internal, denied, or over the cap per answer.
    removed,
    /// Replies to no question that was seen; they teach nothing.
    unmatched,
    /// Replies with the id of a question that was seen but another question.
    forged,
    /// Packets and messages that cannot be read.
    malformed,
    /// Questions not waited for because their client has too many under way.
    shed,
    /// TCP connections given up: a segment was missing, or too much of one was.
    broken,
    /// Answers that the planes did not take.
    withheld,
    /// Times that the kernel dropped copies because they were not read fast enough.
    lost,
    /// With `delay`: answers sent on.
    released,
    /// With `delay`: answers that wait for the planes now.
    waiting,
}

const STEPS: usize = 128;

/// How long something took: a count for each quarter of a power of two of microseconds.
#[derive(Debug)]
pub(super) struct Lag([AtomicU64; STEPS]);

impl Default for Lag {
    fn default() -> Self {
        Self([const { AtomicU64::new(0) }; STEPS])
    }
}

impl Lag {
    pub(super) fn note(&self, micros: u64) {
        let step = &self.0[step(micros)];
        step.store(step.load(Relaxed) + 1, Relaxed);
    }

    /// Within how many microseconds `percent` of all were; 0 when there was none.
    fn within(&self, percent: u64) -> u64 {
        let counts = self.0.each_ref().map(|count| count.load(Relaxed));
        let wanted = (counts.iter().sum::<u64>() * percent).div_ceil(100);
        let mut so_far = 0;
        for (step, count) in counts.iter().enumerate() {
            so_far += count;
            if so_far >= wanted && *count > 0 {
                return end(step);
            }
        }
        0
    }
}

/// The step of a time.
fn step(micros: u64) -> usize {
    let micros = micros.clamp(4, u64::from(u32::MAX));
    let octave = micros.ilog2();
    let quarter = (micros >> (octave - 2)) & 3;
    // At most 31 × 4 + 3.
    (octave as usize) * 4 + quarter as usize
}

/// The longest time of a step.
fn end(step: usize) -> u64 {
    let (octave, quarter) = (step / 4, step as u64 % 4);
    (((5 + quarter) << octave) >> 2) - 1
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn steps_hold_what_they_say() {
        for micros in (4..5000).chain([1 << 20, u64::from(u32::MAX)]) {
            let step = step(micros);
            assert!(micros <= end(step), "{micros}");
            assert!(step == 8 || end(step - 1) < micros, "{micros}");
        }
        assert_eq!(step(u64::MAX), STEPS - 1);
        let lag = Lag::default();
        assert_eq!(lag.within(50), 0);
        (0..98).for_each(|_| lag.note(100));
        (0..2).for_each(|_| lag.note(9000));
        assert_eq!((lag.within(50), lag.within(99)), (111, 10_239));
    }
}
