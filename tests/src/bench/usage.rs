//! What a process has used.
#![expect(clippy::disallowed_methods, reason = "shell: reads /proc")]

use anyhow::{Context, Result};
use std::time::Duration;

/// CPU time of process `id` with all its threads, in user space and in the kernel.
///
/// # Errors
/// When it is gone.
pub(super) fn cpu(id: u32) -> Result<Duration> {
    // Ticks have this length on every architecture (USER_HZ).
    const TICK: Duration = Duration::from_millis(10);
    let text = std::fs::read_to_string(format!("/proc/{id}/stat"))?;
    ticks(&text)
        .map(|ticks| TICK * ticks)
        .context("a line of /proc/<id>/stat")
}

/// `utime` and `stime`, fields 14 and 15. The name before them is in brackets and may hold anything.
fn ticks(stat: &str) -> Option<u32> {
    let (_, rest) = stat.rsplit_once(") ")?;
    let mut fields = rest.split(' ').skip(11);
    let mut next = || fields.next()?.parse::<u32>().ok();
    Some(next()? + next()?)
}

/// Resident memory of process `id` in KiB.
///
/// # Errors
/// When it is gone.
pub(super) fn resident(id: u32) -> Result<u64> {
    let text = std::fs::read_to_string(format!("/proc/{id}/status"))?;
    kibibytes(&text).context("VmRSS in /proc/<id>/status")
}

fn kibibytes(status: &str) -> Option<u64> {
    let line = status
        .lines()
        .find_map(|line| line.strip_prefix("VmRSS:"))?;
    line.trim().strip_suffix(" kB")?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_proc() {
        let stat = "71 (a) (b) S 1 2 3 4 5 6 7 8 9 10 250 50 13 14";
        assert_eq!(ticks(stat), Some(300));
        assert_eq!(ticks("71 (a"), None);
        assert_eq!(
            kibibytes("VmHWM:\t 9 kB\nVmRSS:\t   18432 kB\n"),
            Some(18432)
        );
        let own = std::process::id();
        assert!(resident(own).unwrap() > 100);
        assert!(cpu(own).is_ok());
    }
}
