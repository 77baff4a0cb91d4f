//! Debian's dnsperf as load.
#![expect(clippy::disallowed_methods, reason = "shell: starts dnsperf")]

use crate::lab::Namespace;
use anyhow::{Context, Result, ensure};
use std::net::IpAddr;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

/// Questions open at a time. With 200, dnsmasq loses some: they do not fit into its socket's buffer.
const OPEN: &str = "100";

/// Has every question of `file` asked once; questions per second.
///
/// # Errors
/// When one was not answered, or not with NOERROR.
pub(super) fn ask_all(client: &Namespace, server: IpAddr, file: &Path) -> Result<f64> {
    let mut command = Command::new("dnsperf");
    command
        .args(["-s", &server.to_string(), "-d"])
        .arg(file)
        .args(["-c", "8", "-q", OPEN, "-n", "1", "-t", "10"]);
    Ok(read(&client.output(&mut command)?)?.rate)
}

/// Has the questions of `file` asked over and over.
///
/// # Errors
/// As [`ask_all`].
pub(super) fn ask_for(
    client: &Namespace,
    server: IpAddr,
    file: &Path,
    time: Duration,
) -> Result<Done> {
    let mut command = Command::new("dnsperf");
    command
        .args(["-s", &server.to_string(), "-d"])
        .arg(file)
        .args(["-c", "8", "-q", OPEN, "-t", "10", "-l"])
        .arg(time.as_secs().to_string());
    read(&client.output(&mut command)?)
}

/// What dnsperf saw.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Done {
    /// Questions per second.
    pub(super) rate: f64,
    /// Questions that were answered.
    pub(super) answered: f64,
}

/// Reads dnsperf's report, if all that were sent were answered well.
fn read(printed: &str) -> Result<Done> {
    let value = |key: &str| {
        let line = printed
            .lines()
            .find_map(|line| line.trim().strip_prefix(key));
        line.with_context(|| format!("dnsperf prints `{key}`:\n{printed}"))
    };
    let sent = value("Queries sent:")?.trim();
    let good = value("Response codes:")?.trim();
    ensure!(
        good == format!("NOERROR {sent} (100.00%)"),
        "of {sent} questions not all were answered: {good}\n{printed}"
    );
    let number = |text: &str| {
        let text = text.trim();
        text.parse().with_context(|| format!("a number: {text}"))
    };
    Ok(Done {
        rate: number(value("Queries per second:")?)?,
        answered: number(sent)?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_whole_runs_count() {
        fn check(codes: &str, expected: Option<f64>) {
            let printed = format!(
                "Statistics:\n\n  Queries sent:         600\n  Queries completed:    600 (100.00%)\n\n  \
                 Response codes:       {codes}\n  Run time (s):         0.5\n  \
                 Queries per second:   1200.500000\n"
            );
            assert_eq!(
                read(&printed).ok().map(|done| done.rate),
                expected,
                "{codes}"
            );
        }
        check("NOERROR 600 (100.00%)", Some(1200.5));
        check("NOERROR 599 (100.00%)", None);
        check("NOERROR 590 (98.33%), SERVFAIL 10 (1.67%)", None);
    }
}
