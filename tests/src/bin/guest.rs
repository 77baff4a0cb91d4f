#![expect(
    clippy::disallowed_methods,
    reason = "shell: process 1 of a virtual machine mounts, loads modules, runs programs"
)]
//! Process 1 of `cargo xtask vm`: makes a bare kernel into a place where programs run, runs what
//! `/plan` says, tells how each ended on the console, and powers the machine off. Where there is `/system`,
//! it makes way for the manager of services in there instead. Knows no egressd.

use anyhow::{Context as _, Result};
use nix::kmod::{ModuleInitFlags, finit_module};
use nix::mount::{MsFlags, mount};
use nix::sys::reboot::{RebootMode, reboot};
use std::ffi::CStr;
use std::fs;
use std::io::Write as _;
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::process::CommandExt as _;
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

/// A whole system, with `/prepare` to be run in it before its own first process.
const SYSTEM: &str = "/system";
const MANAGER: &str = "/lib/systemd/systemd";

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
    if Path::new(SYSTEM).exists() {
        return Err(hand_over(Path::new(SYSTEM)));
    }
    let plan = fs::read_to_string("/plan").context("read /plan")?;
    for line in plan.lines() {
        step(line)?;
    }
    Ok(())
}

/// Becomes the manager of the system at `from`, on a file system of its own: no service can be given a view
/// of its own of the one that a machine begins with. Returns only why it could not.
fn hand_over(from: &Path) -> anyhow::Error {
    let moved = || -> Result<()> {
        let (root, none) = (Path::new("/root"), None::<&str>);
        fs::create_dir_all(root)?;
        mount(none, root, Some("tmpfs"), MsFlags::empty(), none)?;
        copy(from, root).context("copy the system")?;
        for at in ["proc", "sys", "dev", "run", "tmp", "var/lib"] {
            fs::create_dir_all(root.join(at))?;
        }
        std::env::set_current_dir(root)?;
        mount(Some("."), "/", none, MsFlags::MS_MOVE, none).context("move the root")?;
        nix::unistd::chroot(".")?;
        std::env::set_current_dir("/")?;
        let prepared = Command::new("/bin/sh").arg("/prepare").status()?;
        anyhow::ensure!(prepared.success(), "/prepare: {prepared}");
        Ok(())
    };
    if let Err(error) = moved() {
        return error;
    }
    anyhow::Error::from(Command::new(MANAGER).exec()).context("start the manager")
}

/// Copies what is below `from`: directories and files, with their modes.
fn copy(from: &Path, to: &Path) -> Result<()> {
    for entry in fs::read_dir(from)? {
        let entry = entry?;
        let there = to.join(entry.file_name());
        if entry.file_type()?.is_dir() {
            fs::create_dir_all(&there)?;
            copy(&entry.path(), &there)?;
        } else {
            fs::copy(entry.path(), &there)?;
            // Of which systemd complains when one can run it.
            let is_text = from.starts_with("/system/etc") || from.ends_with("systemd/system");
            let mode = if is_text { 0o644 } else { 0o755 };
            fs::set_permissions(&there, fs::Permissions::from_mode(mode))?;
            fs::remove_file(entry.path())?;
        }
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
