//! Waiting for a condition instead of for a time.
#![expect(
    clippy::disallowed_methods,
    reason = "shell: tests run on the real clock"
)]

use anyhow::{Result, bail};
use std::time::{Duration, Instant};

/// Asks `probe` every 10 ms until it gives a value, for at most `limit`.
///
/// # Errors
/// The probe's own error at once; after `limit`, that `what` did not happen.
pub fn until<T>(
    limit: Duration,
    what: &str,
    mut probe: impl FnMut() -> Result<Option<T>>,
) -> Result<T> {
    let end = Instant::now() + limit;
    loop {
        if let Some(value) = probe()? {
            return Ok(value);
        }
        if Instant::now() >= end {
            bail!("not within {limit:?}: {what}");
        }
        std::thread::sleep(Duration::from_millis(10));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ends_with_the_value_or_the_deadline() {
        let mut left = 3;
        let value = until(Duration::from_secs(5), "three asked", || {
            left -= 1;
            Ok((left == 0).then_some("there"))
        });
        assert_eq!(value.unwrap(), "there");

        let late = until::<()>(Duration::from_millis(1), "the impossible", || Ok(None));
        assert!(late.unwrap_err().to_string().ends_with(": the impossible"));
    }
}
