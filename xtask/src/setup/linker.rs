//! `bpf-linker`, built against the compiler's LLVM.

use super::Toolchain;
use super::debian::install;
use crate::shell::{capture, cargo, command, exists, on_path, run, say, target};
use anyhow::{Context, Result};
use std::path::PathBuf;

const VERSION: &str = "0.13.0";

/// The directory of a `bpf-linker` for `toolchain`: the one on the PATH, or our own, built once.
///
/// # Errors
/// When it cannot be built; says what is missing.
pub(crate) fn linker(toolchain: &Toolchain) -> Result<PathBuf> {
    if let Some(found) = on_path("bpf-linker")
        && capture(command(&found).arg("--version")).is_ok()
        && let Some(dir) = found.parent()
    {
        return Ok(dir.to_owned());
    }
    let llvm = toolchain.llvm;
    // One folder per LLVM: a newer compiler gets a linker of its own.
    let own = target().join(format!("tools/llvm-{llvm}"));
    let bin = own.join("bin");
    if exists(bin.join("bpf-linker")) {
        return Ok(bin);
    }
    say(format!(
        "building bpf-linker {VERSION} against LLVM {llvm} (about two minutes, once)"
    ));
    let (dev, polly) = (format!("llvm-{llvm}-dev"), format!("libpolly-{llvm}-dev"));
    install(&[&dev, &polly, "libzstd-dev", "zlib1g-dev", "g++"])?;
    let prefix = format!("/usr/lib/llvm-{llvm}");
    let mut build = cargo();
    build
        .env("CARGO_TARGET_DIR", target().join("tools/build"))
        .env("LLVM_PREFIX", &prefix)
        .env(format!("LLVM_SYS_{llvm}1_PREFIX"), &prefix)
        .args([
            "install",
            "bpf-linker",
            "--version",
            VERSION,
            "--locked",
            "--no-default-features",
        ])
        .args(["--features", &format!("llvm-{llvm}"), "--root"])
        .arg(&own);
    run(&mut build).with_context(|| {
        format!("build bpf-linker; or put one that fits LLVM {llvm} on the PATH")
    })?;
    Ok(bin)
}
