//! Waiting for a condition instead of for a time.
#![expect(
    clippy::disallowed_methods,
    reason = "shell: tests run on the real clock"
)]

use anyhow::{Result, bail};
use std::io::{self, ErrorKind};
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

/// `call`, again for as often as something interrupts it. With a read timeout the kernel does not go on by
/// itself after a machine was frozen or a process stopped (signal(7)), and the standard library leaves it to
/// the caller for datagrams.
///
/// # Errors
/// Its own.
pub fn unbroken<T>(mut call: impl FnMut() -> io::Result<T>) -> io::Result<T> {
    loop {
        match call() {
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            other => return other,
        }
    }
}

/// Whether a read with a timeout ended with nothing, and may be tried again.
pub(crate) fn nothing_yet(error: &io::Error) -> bool {
    use ErrorKind::{Interrupted, TimedOut, WouldBlock};
    matches!(error.kind(), WouldBlock | TimedOut | Interrupted)
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
