//! A process in a namespace whose words are kept.
#![expect(
    clippy::disallowed_methods,
    reason = "shell: starts servers and reads their logs"
)]

use super::{Namespace, until};
use anyhow::{Context, Result, bail};
use nix::sys::signal::{SigSet, Signal, kill};
use nix::unistd::Pid;
use std::cell::RefCell;
use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::Duration;

/// A running process, killed on drop by its id. What it prints goes to a file.
#[derive(Debug)]
pub struct Process {
    name: String,
    child: Child,
    log: PathBuf,
}

impl Process {
    /// Starts `command` in `namespace`; its output goes to `<dir>/<name>.log`.
    ///
    /// # Errors
    /// When it cannot be started.
    pub fn start(
        namespace: &Namespace,
        name: &str,
        command: &mut Command,
        dir: &Path,
    ) -> Result<Self> {
        Self::start_with(namespace, name, command, Stdio::null(), dir)
    }

    /// As [`Process::start`], with an input.
    ///
    /// # Errors
    /// When it cannot be started.
    pub(super) fn start_with(
        namespace: &Namespace,
        name: &str,
        command: &mut Command,
        input: Stdio,
        dir: &Path,
    ) -> Result<Self> {
        let log = dir.join(format!("{name}.log"));
        let file = File::options().create(true).append(true).open(&log)?;
        command.stdin(input).stdout(file.try_clone()?).stderr(file);
        let spawn = || {
            // A child has its maker's, and `sweep_on_signal` blocks what it waits for.
            SigSet::empty().thread_set_mask()?;
            command.spawn()
        };
        let child = namespace
            .enter(spawn)?
            .with_context(|| format!("start {name} ({command:?})"))?;
        Ok(Self {
            name: name.to_owned(),
            child,
            log,
        })
    }

    /// Its process id.
    #[must_use]
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// The last lines it printed.
    #[must_use]
    pub fn words(&self) -> String {
        let text = std::fs::read_to_string(&self.log).unwrap_or_default();
        let lines: Vec<&str> = text.lines().collect();
        lines[lines.len().saturating_sub(40)..].join("\n")
    }

    /// Everything it printed.
    ///
    /// # Errors
    /// When its log cannot be read.
    pub fn log(&self) -> Result<String> {
        Ok(std::fs::read_to_string(&self.log)?)
    }

    /// Makes sure that it still runs.
    ///
    /// # Errors
    /// With its last words when it does not.
    pub fn alive(&mut self) -> Result<()> {
        match self.child.try_wait()? {
            None => Ok(()),
            Some(status) => bail!("{} ended ({status}):\n{}", self.name, self.words()),
        }
    }

    /// Sends `signal`.
    ///
    /// # Errors
    /// When the process is gone.
    pub fn signal(&self, signal: Signal) -> Result<()> {
        let id = i32::try_from(self.child.id()).context("process ids are positive")?;
        Ok(kill(Pid::from_raw(id), signal)?)
    }

    /// Kills it without warning and waits until it is gone.
    ///
    /// # Errors
    /// When it cannot be waited for.
    pub fn kill(&mut self) -> Result<()> {
        self.child.kill()?;
        self.child.wait()?;
        Ok(())
    }

    /// Asks it to end (SIGTERM) and waits for that.
    ///
    /// # Errors
    /// When it has not ended after ten seconds.
    pub fn terminate(&mut self) -> Result<ExitStatus> {
        self.signal(Signal::SIGTERM)?;
        until(Duration::from_secs(10), "end after SIGTERM", || {
            Ok(self.child.try_wait()?)
        })
    }
}

thread_local! {
    static LAST_WORDS: RefCell<Vec<String>> = const { RefCell::new(Vec::new()) };
}

/// The last lines of every process whose guard this thread has dropped since the last call: what a
/// failed test shows.
#[must_use]
pub fn last_words() -> String {
    LAST_WORDS.take().join("\n")
}

impl Drop for Process {
    fn drop(&mut self) {
        // It may have ended by itself, which is fine here.
        let _gone = self.child.kill();
        let _reaped = self.child.wait();
        let words = format!("last words of {}:\n{}", self.name, self.words());
        LAST_WORDS.with_borrow_mut(|all| all.push(words));
    }
}
