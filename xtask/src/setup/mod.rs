//! What building and testing need, found or installed. Quick when all is there.

mod debian;
mod linker;
mod toolchain;

pub(crate) use debian::{Group, packages};
pub(crate) use linker::linker;
pub(crate) use toolchain::{Rustc, Toolchain};

use crate::shell::{as_root, run, say, text_of};
use anyhow::{Context, Result};

const BPFFS: &str = "/sys/fs/bpf";

/// Mounts the bpf file system, where pins live.
///
/// # Errors
/// When it is absent and this may not mount it.
pub(crate) fn bpffs() -> Result<()> {
    let mounts = text_of("/proc/mounts").unwrap_or_default();
    if mounts
        .lines()
        .any(|line| line.split(' ').nth(1) == Some(BPFFS))
    {
        return Ok(());
    }
    say("mounting the bpf file system");
    let mut mount = as_root("mount", "mounting the bpf file system")?;
    run(mount.args(["-t", "bpf", "bpf", BPFFS])).context("mount /sys/fs/bpf")
}
