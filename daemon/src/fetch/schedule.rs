//! When a source is asked next. Pure: times are milliseconds of the caller's clock.

use std::time::Duration;

/// After a first failure.
const SOON: Duration = Duration::from_mins(1);

/// However long a server wants to be left alone.
const MOST: Duration = Duration::from_hours(24);

/// How an attempt ended, as far as the next one is concerned.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ended {
    /// The server said what it has.
    Well,
    /// It wants to be left alone for so long.
    Later(Duration),
    /// Something failed.
    Badly,
}

/// Of one source.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Schedule {
    /// Failures in a row.
    failures: u32,
}

impl Schedule {
    /// How long to wait after an attempt that ended so; `chance` is anything, so that many gateways do not ask at
    /// once. `service` asks to be left alone for an hour at least.
    pub fn next(&mut self, ended: Ended, every: Duration, service: bool, chance: u64) -> Duration {
        let jitter = |time: Duration| {
            // Between nine and eleven tenths.
            let millis = u64::try_from(time.as_millis()).unwrap_or(u64::MAX);
            let tenth = millis / 10;
            Duration::from_millis(millis - tenth + chance % (2 * tenth + 1))
        };
        match ended {
            Ended::Well => {
                self.failures = 0;
                jitter(every)
            }
            Ended::Later(after) => {
                let least = if service {
                    Duration::from_hours(1)
                } else {
                    SOON
                };
                after.clamp(least, MOST)
            }
            Ended::Badly => {
                let doubled = SOON.saturating_mul(1 << self.failures.min(16));
                self.failures = self.failures.saturating_add(1);
                jitter(doubled.min(every))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn politely() {
        const HOUR: u64 = 3600;
        fn check(ended: &[Ended], every: u64, service: bool, expected: &[u64]) {
            let mut schedule = Schedule::default();
            for (ended, expected) in ended.iter().zip(expected) {
                let every = Duration::from_secs(every);
                let wide = *expected * 100;
                let (least, most) = match ended {
                    Later(_) => (wide, wide),
                    Well | Badly => (wide - wide / 10, wide + wide / 10),
                };
                for chance in [0, 7, u64::MAX] {
                    let mut one = schedule.clone();
                    let next = one.next(*ended, every, service, chance).as_millis() / 10;
                    let next = u64::try_from(next).unwrap();
                    assert!((least..=most).contains(&next), "{ended:?}: {next}");
                }
                schedule.next(*ended, every, service, 1);
            }
        }
        use Ended::{Badly, Later, Well};
        check(&[Well, Well], HOUR, true, &[HOUR, HOUR]);
        check(
            &[Badly; 8],
            HOUR,
            true,
            &[60, 120, 240, 480, 960, 1920, HOUR, HOUR],
        );
        check(
            &[Badly, Badly, Well, Badly],
            HOUR,
            false,
            &[60, 120, HOUR, 60],
        );
        check(&[Badly; 2], 300, false, &[60, 120]);
        let later = |seconds| Later(Duration::from_secs(seconds));
        check(
            &[later(5), later(7200), later(u64::MAX)],
            HOUR,
            true,
            &[HOUR, 7200, 24 * HOUR],
        );
        check(&[later(5), later(90)], HOUR, false, &[60, 90]);
        check(&[Badly; 70], 2 * HOUR, false, &[60, 120]);
    }
}
