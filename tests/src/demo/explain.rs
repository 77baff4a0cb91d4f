//! The two explanations at the end: one grant, one refusal, in the daemon's own words.

use crate::lab::Daemon;
use anyhow::Result;
use serde::Serialize;

/// An `egressctl explain`, and whether its verdict is the expected one.
#[derive(Clone, Debug, Serialize)]
pub struct Explained {
    /// What was typed.
    pub command: String,
    /// What it printed for people.
    pub text: String,
    /// Whether `egressctl` knew the thing it was asked about.
    pub good: bool,
}

/// Asks about `subject` on `service` (`443/tcp`).
///
/// # Errors
/// When `egressctl` cannot be started.
pub fn explain(daemon: &Daemon<'_>, subject: &str, service: &str) -> Result<Explained> {
    let args = ["explain", subject, service, "--zone", "managed"];
    let outcome = daemon.ctl(&args)?;
    let text = daemon.told(&args)?;
    Ok(Explained {
        command: format!("egressctl {}", args.join(" ")),
        // A refusal may have its own exit status; printing nothing is what cannot be right.
        good: outcome.json.is_object() && !text.trim().is_empty(),
        text,
    })
}
