//! Programs replaced under load.

use anyhow::Result;
use clap::Args;

#[derive(Args)]
pub(crate) struct Options {
    /// How many times.
    #[arg(long, default_value_t = 1000)]
    count: u32,
    /// Print one JSON document at the end; all else goes to standard error.
    #[arg(long)]
    json: bool,
}

pub(crate) fn soak(_options: &Options) -> Result<usize> {
    anyhow::bail!("not yet")
}
