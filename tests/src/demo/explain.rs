//! The two explanations at the end: one grant, one refusal, in the daemon's own words.

use crate::lab::Daemon;
use anyhow::Result;
use serde::Serialize;

/// An `egressctl explain`, and whether its verdict is the right one.
#[derive(Clone, Debug, Serialize)]
pub struct Explained {
    /// What was typed.
    pub command: String,
    /// What it printed for people.
    pub text: String,
    /// Whether it said what the packets said.
    pub good: bool,
}

/// Asks about `subject` on `service` (`443/tcp`), which the zone may or may not reach.
///
/// # Errors
/// When `egressctl` cannot be started.
pub fn explain(
    daemon: &Daemon<'_>,
    subject: &str,
    service: &str,
    allowed: bool,
) -> Result<Explained> {
    let args = ["explain", subject, service, "--zone", "managed"];
    let outcome = daemon.ctl(&args)?;
    let word = if allowed { "allowed" } else { "refused" };
    Ok(Explained {
        command: format!("egressctl {}", args.join(" ")),
        good: outcome.json["zones"][0]["verdict"] == word,
        text: daemon.told(&args)?,
    })
}
