//! Removes what guards could not: after a signal, or after an earlier run that was killed.
#![expect(
    clippy::disallowed_methods,
    reason = "shell: looks for leftovers and removes them"
)]

use anyhow::Result;
use nix::sys::signal::{SigSet, Signal, kill};
use nix::unistd::Pid;
use std::path::Path;
use std::process::Command;

/// What every namespace, directory and pin of this library begins with; the id of the process that
/// made it follows.
pub(super) const PREFIX: &str = "lab-";

/// Removes what runs left behind whose process is no more.
pub fn sweep() {
    let gone = |owner: u32| !Path::new(&format!("/proc/{owner}")).exists();
    remove(&gone);
}

/// On SIGINT, SIGTERM or SIGHUP: removes what this process made, then ends it with status 130. To be
/// called before other threads start, so that they all leave the signals to the one that waits.
///
/// # Errors
/// When signals cannot be blocked.
pub fn sweep_on_signal() -> Result<()> {
    let signals: SigSet = [Signal::SIGINT, Signal::SIGTERM, Signal::SIGHUP]
        .into_iter()
        .collect();
    signals.thread_block()?;
    std::thread::spawn(move || {
        if signals.wait().is_ok() {
            let own = std::process::id();
            remove(&|owner| owner == own);
            std::process::exit(130);
        }
    });
    Ok(())
}

/// Removes namespaces (and the processes in them), directories and pins whose owner `chosen` names.
fn remove(chosen: &dyn Fn(u32) -> bool) {
    for name in ours("/run/netns", chosen) {
        let inside = Command::new("ip").args(["netns", "pids", &name]).output();
        let ids = inside.map(|out| String::from_utf8_lossy(&out.stdout).into_owned());
        for id in ids
            .unwrap_or_default()
            .lines()
            .filter_map(|line| line.trim().parse().ok())
        {
            // Threads of this very process may be inside, too.
            if Pid::this() != Pid::from_raw(id) {
                let _gone = kill(Pid::from_raw(id), Signal::SIGKILL);
            }
        }
        let _gone = Command::new("ip").args(["netns", "del", &name]).status();
    }
    let temporary = std::env::temp_dir();
    for dir in [temporary.as_path(), Path::new("/sys/fs/bpf")] {
        for name in ours(dir, chosen) {
            let _gone = std::fs::remove_dir_all(dir.join(name));
        }
    }
}

fn ours(dir: impl AsRef<Path>, chosen: &dyn Fn(u32) -> bool) -> Vec<String> {
    let Ok(entries) = std::fs::read_dir(dir) else {
        return Vec::new();
    };
    entries
        .filter_map(|entry| entry.ok()?.file_name().into_string().ok())
        .filter(|name| owner(name).is_some_and(chosen))
        .collect()
}

/// The process id in `lab-<id>-…`.
fn owner(name: &str) -> Option<u32> {
    name.strip_prefix(PREFIX)?.split_once('-')?.0.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_our_own_names_have_an_owner() {
        fn check(name: &str, expected: Option<u32>) {
            assert_eq!(owner(name), expected, "{name}");
        }
        check("lab-4711-0-client", Some(4711));
        check("lab-4711-0", Some(4711));
        check("lab-client", None);
        check("label-4711-0", None);
        check("my-lab-4711-0", None);
    }
}
