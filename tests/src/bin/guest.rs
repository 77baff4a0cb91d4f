#![expect(
    clippy::disallowed_methods,
    reason = "shell: process 1 of a virtual machine mounts, loads modules, runs programs"
)]
//! Process 1 of `cargo xtask vm`: makes a bare kernel into a place where programs run, runs what
//! `/plan` says, tells how each ended on the console, and powers the machine off. Knows no egressd.

use anyhow::{Context as _, Result};
use nix::kmod::{ModuleInitFlags, finit_module};
use nix::mount::{MsFlags, mount};
use nix::sys::reboot::{RebootMode, reboot};
use std::ffi::CStr;
use std::fs;
use std::io::Write as _;
use std::path::Path;
use std::process::Command;
use std::time::Instant;

const FILE_SYSTEMS: &[(&str, &str)] = &[
    ("proc", "/proc"),
    ("sysfs", "/sys"),
    ("devtmpfs", "/dev"),
    ("tmpfs", "/run"),
    ("tmpfs", "/tmp"),
    ("bpf", "/sys/fs/bpf"),
];

const NO_PARAMETERS: &CStr = c"";

fn main() {
    if std::process::id() != 1 {
        eprintln!("this is the first process of a virtual machine; see `cargo xtask vm`");
        std::process::exit(2);
    }
    if let Err(error) = work() {
        say(&format!("broken {error:#}"));
    }
    say("end");
    let failed = reboot(RebootMode::RB_POWER_OFF);
    say(&format!("broken power off: {failed:?}"));
}

/// A line for the host.
fn say(line: &str) {
    println!("guest: {line}");
    // Nothing is left to be told if the console is gone.
    let _told = std::io::stdout().flush();
}

fn work() -> Result<()> {
    say("up");
    for (kind, at) in FILE_SYSTEMS {
        fs::create_dir_all(at).with_context(|| format!("make {at}"))?;
        let none = None::<&str>;
        // The kernel may have mounted devtmpfs itself.
        if let Err(error) = mount(none, *at, Some(*kind), MsFlags::empty(), none) {
            say(&format!("note {at}: {error}"));
        }
    }
    modules(Path::new("/modules"))?;
    let plan = fs::read_to_string("/plan").context("read /plan")?;
    for line in plan.lines() {
        step(line)?;
    }
    Ok(())
}

/// Loads every module of a directory in the order of their names. What this kernel refuses is told;
/// the steps show whether it was needed.
fn modules(directory: &Path) -> Result<()> {
    let mut paths: Vec<_> = fs::read_dir(directory)
        .context("list the modules")?
        .map(|entry| Ok(entry?.path()))
        .collect::<Result<_>>()?;
    paths.sort();
    for path in &paths {
        let file = fs::File::open(path).with_context(|| format!("open {}", path.display()))?;
        if let Err(error) = finit_module(file, NO_PARAMETERS, ModuleInitFlags::empty()) {
            say(&format!("note {}: {error}", path.display()));
        }
    }
    Ok(())
}

/// One line of the plan: a name, a tab, a command for the shell.
fn step(line: &str) -> Result<()> {
    let (name, command) = line
        .split_once('\t')
        .with_context(|| format!("a step without a command: {line}"))?;
    say(&format!("begin {name}"));
    let began = Instant::now();
    let status = Command::new("/bin/sh")
        .args(["-c", command])
        .status()
        .context("start /bin/sh")?;
    let seconds = began.elapsed().as_secs_f64();
    say(&format!(
        "done {name} {} {seconds:.1}",
        status.code().unwrap_or(-1)
    ));
    Ok(())
}
