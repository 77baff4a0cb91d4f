//! One virtual machine: boots a kernel with an initial file system and reads its console until it
//! powers itself off, or until its time is up.
#![expect(
    clippy::disallowed_methods,
    reason = "shell: a machine that hangs is ended after a time"
)]

use super::archive::{Emulator, Kernel};
use crate::shell::{exists, say, words};
use anyhow::{Context, Result};
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::time::{Duration, Instant};

/// From power on to our first process, which takes seconds in emulation on a machine at rest.
const BOOT: Duration = Duration::from_secs(90);
/// The same on the processor itself. Some hosts offer KVM and then stand still.
const BOOT_KVM: Duration = Duration::from_secs(10);
const UP: &str = "guest: up";

/// What a machine said.
#[derive(Debug)]
pub(super) struct Console {
    /// Its lines.
    pub(super) lines: Vec<String>,
    /// Seconds from power on to power off.
    pub(super) seconds: f64,
    /// Why it was ended from outside, if it was.
    pub(super) ended: Option<String>,
}

/// Boots, on the processor itself where `kvm` says that this may work, else in emulation. Where it
/// does not, `kvm` says so afterwards.
///
/// # Errors
/// When the emulator cannot be started.
pub(super) fn boot(
    emulator: &Emulator,
    kernel: &Kernel,
    image: &Path,
    limit: Duration,
    kvm: &mut bool,
) -> Result<Console> {
    if *kvm {
        let console = attempt(emulator, kernel, image, ["kvm", "max"], (BOOT_KVM, limit))?;
        if console.lines.iter().any(|line| line == UP) {
            return Ok(console);
        }
        say("KVM does not work here: emulating the processor");
        *kvm = false;
    }
    // QEMU 7.2 emulates `cmpxchg16b` wrongly: newer kernels, which use it, end in double faults.
    let emulated = ["tcg,thread=multi", "max,cx16=off"];
    attempt(emulator, kernel, image, emulated, (BOOT, limit))
}

/// Whether this machine offers KVM.
pub(super) fn has_kvm() -> bool {
    exists("/dev/kvm")
}

fn attempt(
    emulator: &Emulator,
    kernel: &Kernel,
    image: &Path,
    [accelerator, processor]: [&str; 2],
    (boot, limit): (Duration, Duration),
) -> Result<Console> {
    let mut command = emulator.command();
    command
        .args(["-accel", accelerator, "-cpu", processor, "-smp", "2"])
        .args(["-m", "2048", "-nodefaults", "-display", "none"])
        .args(["-no-reboot", "-serial", "stdio", "-kernel"])
        .arg(&kernel.image)
        .arg("-initrd")
        .arg(image)
        .args([
            "-append",
            "console=ttyS0 quiet panic=-1 mitigations=auto net.ifnames=0",
        ]);
    say(format!("$ {}", words(&command)));
    let started = Instant::now();
    let child = command
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .spawn()
        .with_context(|| format!("start {}", words(&command)))?;
    let mut machine = Running(child);
    let lines = machine.lines()?;
    let mut console = Console {
        lines: Vec::new(),
        seconds: 0.0,
        ended: None,
    };
    let mut deadline = started + boot.min(limit);
    loop {
        let left = deadline.saturating_duration_since(Instant::now());
        match lines.recv_timeout(left) {
            Ok(line) => {
                if line == UP {
                    deadline = started + limit;
                }
                console.lines.push(line);
            }
            Err(RecvTimeoutError::Disconnected) => break,
            Err(RecvTimeoutError::Timeout) => {
                let after = started.elapsed().as_secs();
                console.ended = Some(format!("ended after {after} s"));
                break;
            }
        }
    }
    console.seconds = started.elapsed().as_secs_f64();
    Ok(console)
}

/// Ended when dropped.
struct Running(Child);

impl Running {
    /// What it prints, line by line, read on a thread of its own so that silence can be noticed.
    fn lines(&mut self) -> Result<Receiver<String>> {
        let output = self.0.stdout.take().context("its output is a pipe")?;
        let (sender, receiver) = channel();
        std::thread::spawn(move || {
            for line in BufReader::new(output).split(b'\n') {
                let Ok(line) = line else { break };
                let line = String::from_utf8_lossy(&line).trim_end().to_owned();
                if sender.send(line).is_err() {
                    break;
                }
            }
        });
        Ok(receiver)
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // It may have powered itself off.
        let _gone = self.0.kill();
        let _reaped = self.0.wait();
    }
}
