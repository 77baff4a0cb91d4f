//! One network namespace, and work done inside it.
#![expect(clippy::disallowed_methods, reason = "shell: drives ip(8) and sysctls")]

use anyhow::{Context, Result, bail};
use nix::sched::{CloneFlags, setns};
use std::fs::File;
use std::io::Write;
use std::process::{Command, Stdio};
use std::thread;

/// A network namespace of its own, deleted on drop. Processes started from a thread inside
/// [`Namespace::enter`] live in it.
#[derive(Debug)]
pub struct Namespace {
    name: String,
}

impl Namespace {
    /// Makes the namespace `name` with its loopback up. Interfaces made in it later take addresses
    /// at once: duplicate address detection is off, nobody else is there.
    ///
    /// # Errors
    /// When the name is taken or this process may not make namespaces.
    pub fn new(name: &str) -> Result<Self> {
        run(Command::new("ip").args(["netns", "add", name]))?;
        let namespace = Self {
            name: name.to_owned(),
        };
        for (key, value) in [
            ("net/ipv6/conf/all/accept_dad", "0"),
            ("net/ipv6/conf/default/accept_dad", "0"),
            ("net/ipv6/conf/default/accept_ra", "0"),
            // Router solicitations would only add noise to the counters.
            ("net/ipv6/conf/default/router_solicitations", "0"),
        ] {
            namespace.sysctl(key, value)?;
        }
        namespace.ip("link set lo up")?;
        Ok(namespace)
    }

    /// Names the namespace that this process lives in.
    ///
    /// # Errors
    /// When the name is taken.
    pub fn here(name: &str) -> Result<Self> {
        let own = std::process::id().to_string();
        run(Command::new("ip").args(["netns", "attach", name, &own]))?;
        Ok(Self {
            name: name.to_owned(),
        })
    }

    /// Its name, as `ip netns` knows it.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The command that gives a person a shell in it, bpf file system included.
    #[must_use]
    pub fn shell(&self) -> String {
        format!("nsenter --net=/run/netns/{} bash", self.name)
    }

    /// Runs `work` on a thread that lives in the namespace, and returns what it returned. A panic of
    /// `work` goes on in the caller.
    ///
    /// # Errors
    /// When the namespace cannot be entered.
    pub fn enter<T: Send>(&self, work: impl FnOnce() -> T + Send) -> Result<T> {
        thread::scope(|scope| {
            let inside = scope.spawn(|| -> Result<T> {
                self.join()?;
                Ok(work())
            });
            inside
                .join()
                .unwrap_or_else(|panic| std::panic::resume_unwind(panic))
        })
    }

    /// Moves the calling thread into the namespace for the rest of its life.
    ///
    /// # Errors
    /// When the namespace cannot be entered.
    pub fn join(&self) -> Result<()> {
        let file = File::open(format!("/run/netns/{}", self.name))?;
        setns(file, CloneFlags::CLONE_NEWNET)
            .with_context(|| format!("enter network namespace {}", self.name))
    }

    /// Runs lines of `ip -batch` in it, such as `addr add 10.0.0.1/8 dev lan0`.
    ///
    /// # Errors
    /// With ip's own words when it refuses a line.
    pub fn ip(&self, lines: &str) -> Result<()> {
        let mut command = Command::new("ip");
        command.args(["-n", &self.name, "-batch", "-"]);
        feed(&mut command, lines).with_context(|| format!("in {}:\n{lines}", self.name))
    }

    /// Loads an nft ruleset text in it.
    ///
    /// # Errors
    /// With nft's own words when it refuses the text.
    pub fn nft(&self, ruleset: &str) -> Result<()> {
        self.enter(|| feed(Command::new("nft").args(["-f", "-"]), ruleset))?
            .with_context(|| format!("in {}:\n{ruleset}", self.name))
    }

    /// What `command` prints when run in it.
    ///
    /// # Errors
    /// When it cannot be started or fails.
    pub fn output(&self, command: &mut Command) -> Result<String> {
        self.enter(|| run(command))?
    }

    /// Writes `value` to `/proc/sys/<key>` as seen from inside.
    ///
    /// # Errors
    /// When the key is not there.
    pub fn sysctl(&self, key: &str, value: &str) -> Result<()> {
        self.enter(|| std::fs::write(format!("/proc/sys/{key}"), value))?
            .with_context(|| format!("set {key} in {}", self.name))
    }
}

impl Drop for Namespace {
    fn drop(&mut self) {
        if let Err(error) = run(Command::new("ip").args(["netns", "del", &self.name])) {
            eprintln!("{error:#}");
        }
    }
}

fn run(command: &mut Command) -> Result<String> {
    let output = command
        .output()
        .with_context(|| format!("start {command:?}"))?;
    if !output.status.success() {
        bail!(
            "{command:?}: {}",
            String::from_utf8_lossy(&output.stderr).trim()
        );
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

fn feed(command: &mut Command, input: &str) -> Result<()> {
    command
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::piped());
    let mut child = command
        .spawn()
        .with_context(|| format!("start {command:?}"))?;
    let mut stdin = child.stdin.take().context("its input is a pipe")?;
    stdin.write_all(input.as_bytes())?;
    drop(stdin);
    let output = child.wait_with_output()?;
    if !output.status.success() {
        bail!(
            "{command:?}: {}",
            String::from_utf8_lossy(&output.stderr).trim()
        );
    }
    Ok(())
}
