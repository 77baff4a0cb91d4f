//! The kernel programs, then the binaries that embed them.

use crate::setup::{Group, Rustc, Toolchain, linker, packages};
use crate::shell::{cargo, path_with, run, say, target};
use anyhow::{Context, Result, ensure};
use std::path::PathBuf;

/// What a build made.
#[derive(Debug)]
pub(crate) struct Built {
    /// The kernel programs.
    pub(crate) object: PathBuf,
    /// The directory of `egressd` and `egressctl`.
    pub(crate) binaries: PathBuf,
}

const TARGET: &str = "bpfel-unknown-none";

/// Names the object to the daemon's build script.
pub(crate) const OBJECT: &str = "EGRESSD_EBPF_OBJECT";

/// Names the shim to the tests and soaks.
pub(crate) const SHIM: &str = "EGRESSD_SHIM_LIB";

/// Sets up and builds everything a gateway runs.
///
/// # Errors
/// When something is missing that cannot be had, or does not compile.
pub(crate) fn all() -> Result<Built> {
    packages(&[Group::Build])?;
    let object = object()?;
    let mut build = cargo();
    build
        .env(OBJECT, &object)
        .args(["build", "--release", "--package", "egressd", "--bins"]);
    run(&mut build)?;
    let binaries = target().join("release");
    say(format!(
        "egressd and egressctl are in {}",
        binaries.display()
    ));
    Ok(Built { object, binaries })
}

/// Builds the kernel programs.
///
/// # Errors
/// When there is no toolchain for them, or they do not compile.
pub(crate) fn object() -> Result<PathBuf> {
    kernel("egressd-ebpf")
}

/// Builds the programs that make and count the bench's frames.
///
/// # Errors
/// As [`object`].
pub(crate) fn generator() -> Result<PathBuf> {
    kernel("egressd-generator")
}

/// Builds the program that tells what a verdict costs.
///
/// # Errors
/// As [`object`].
pub(crate) fn cost() -> Result<PathBuf> {
    kernel("egressd-cost")
}

/// Builds the library that lets a daemon's calls to the kernel fail in tests.
///
/// # Errors
/// When it does not compile.
pub(crate) fn shim() -> Result<PathBuf> {
    run(cargo().args(["build", "--package", "egressd-shim"])).context("build the shim")?;
    Ok(target().join("debug/libegressd_shim.so"))
}

fn kernel(program: &str) -> Result<PathBuf> {
    let toolchain = Toolchain::find()?;
    let linker = linker(&toolchain)?;
    let mut build = cargo();
    match &toolchain.rustc {
        Rustc::Rustup(name) => build.env("RUSTUP_TOOLCHAIN", name),
        Rustc::System(path) => build.env("RUSTC", path),
    };
    // Another compiler in the same folder would make both start over each time.
    let dir = target().join("bpf");
    build
        .env("CARGO_TARGET_DIR", &dir)
        .env("RUSTC_BOOTSTRAP", "1")
        .env("PATH", path_with(&linker)?)
        // Flags for the host's linker mean nothing to bpf-linker.
        .env_remove("RUSTFLAGS")
        .env_remove("CARGO_ENCODED_RUSTFLAGS")
        .env(
            "CARGO_TARGET_BPFEL_UNKNOWN_NONE_RUSTFLAGS",
            "-C link-arg=--btf",
        )
        .args(["build", "--package", "egressd-ebpf", "--bin", program])
        .args([
            "--profile",
            "bpf",
            "--target",
            TARGET,
            "-Z",
            "build-std=core",
        ]);
    run(&mut build).context("build the kernel programs")?;
    let object = dir.join(TARGET).join("bpf").join(program);
    ensure!(object.is_file(), "{} was not built", object.display());
    Ok(object)
}
