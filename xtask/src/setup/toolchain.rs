//! A compiler with the matching source of `core`: the kernel's target has no prebuilt one.

use super::{Group, packages};
use crate::shell::{capture, command, exists, on_path, say};
use anyhow::{Result, bail};
use std::path::{Path, PathBuf};

/// A compiler that can build `core` for the kernel.
#[derive(Clone, Debug)]
pub(crate) struct Toolchain {
    /// How to call it.
    pub(crate) rustc: Rustc,
    /// The major version of its LLVM; `bpf-linker` must match it.
    pub(crate) llvm: u32,
}

/// How a compiler is called.
#[derive(Clone, Debug)]
pub(crate) enum Rustc {
    /// Through rustup, by the toolchain's name.
    Rustup(String),
    /// By its path.
    System(PathBuf),
}

/// Oldest release that the workspace builds with (`rust-version`).
const OLDEST: (u32, u32) = (1, 95);

const DEBIAN: &str = "/usr/bin/rustc";

impl Toolchain {
    /// Finds one: a rustup toolchain that has `rust-src`, else Debian's own pair, installed if need
    /// be.
    ///
    /// # Errors
    /// When neither can be had; says what to do.
    pub(crate) fn find() -> Result<Self> {
        if let Some(found) = Self::rustup().or_else(Self::debian) {
            return Ok(found);
        }
        say("no toolchain has the source of `core`: trying Debian's rustc-web and rust-web-src");
        if let Err(error) = packages(&[Group::Kernel]) {
            bail!("{error:#}\n{REMEDY}");
        }
        let Some(found) = Self::debian() else {
            bail!("{REMEDY}")
        };
        Ok(found)
    }

    fn rustup() -> Option<Self> {
        on_path("rustup")?;
        let list = capture(command("rustup").args(["toolchain", "list"])).ok()?;
        names(&list).into_iter().find_map(|name| {
            let plus = format!("+{name}");
            let ask = |args: &[&str]| capture(command("rustc").arg(&plus).args(args)).ok();
            Self::fit(
                Rustc::Rustup(name),
                &ask(&["--print", "sysroot"])?,
                &ask(&["-vV"])?,
            )
        })
    }

    fn debian() -> Option<Self> {
        let ask = |args: &[&str]| capture(command(DEBIAN).args(args)).ok();
        if !exists(DEBIAN) {
            return None;
        }
        let (sysroot, version) = (ask(&["--print", "sysroot"])?, ask(&["-vV"])?);
        Self::fit(Rustc::System(DEBIAN.into()), &sysroot, &version)
    }

    fn fit(rustc: Rustc, sysroot: &str, version: &str) -> Option<Self> {
        let source = Path::new(sysroot.trim()).join("lib/rustlib/src/rust/library/core/src/lib.rs");
        let (release, llvm) = versions(version)?;
        (exists(source) && release >= OLDEST).then_some(Self { rustc, llvm })
    }
}

const REMEDY: &str = "The kernel programs need a compiler together with the source of its own `core`. Either\n  \
    rustup component add rust-src\nor, on Debian 12 with the security suite,\n  \
    apt-get install rustc-web rust-web-src\nWithout them, `cargo build --release` makes a daemon without the ebpf plane.";

/// The names in `rustup toolchain list`, the active one first.
fn names(list: &str) -> Vec<String> {
    let mut lines: Vec<&str> = list.lines().collect();
    lines.sort_by_key(|line| !line.contains("active"));
    lines
        .iter()
        .filter_map(|line| line.split(' ').next().map(str::to_owned))
        .collect()
}

/// Release (major, minor) and LLVM major in `rustc -vV`.
fn versions(text: &str) -> Option<((u32, u32), u32)> {
    let value = |key: &str| text.lines().find_map(|line| line.strip_prefix(key));
    let mut release = value("release: ")?.split('.').map(str::parse);
    let release = (release.next()?.ok()?, release.next()?.ok()?);
    let llvm = value("LLVM version: ")?.split('.').next()?.parse().ok()?;
    Some((release, llvm))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_versions() {
        fn check(text: &str, expected: Option<((u32, u32), u32)>) {
            assert_eq!(versions(text), expected, "{text}");
        }
        check(
            "rustc 1.96.0\nrelease: 1.96.0\nLLVM version: 22.1.8\n",
            Some(((1, 96), 22)),
        );
        check(
            "release: 1.97.0-nightly\nLLVM version: 22.1.4\n",
            Some(((1, 97), 22)),
        );
        check("release: 1.97.0\n", None);
    }

    #[test]
    fn the_active_toolchain_is_asked_first() {
        let list =
            "nightly-x86_64-unknown-linux-gnu\nstable-x86_64-unknown-linux-gnu (active, default)\n";
        assert_eq!(
            names(list),
            [
                "stable-x86_64-unknown-linux-gnu",
                "nightly-x86_64-unknown-linux-gnu"
            ]
        );
    }
}
