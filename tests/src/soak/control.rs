//! A member of the control socket's group who means no good: a thousand connections at a time, with junk, half
//! calls, calls too long, watchers that read nothing. Meanwhile DNS must answer, and root must be heard.
#![expect(
    clippy::disallowed_methods,
    reason = "shell: opens sockets, starts processes and times itself"
)]

use super::Waits;
use super::traffic::{UDP, ask, authority};
use crate::lab::{Binaries, Daemon, Lab, Planes, allow_sockets};
use anyhow::{Context, Result};
use std::io::Write;
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

/// Connections at a time.
pub const MANY: usize = 1000;

/// Nobody, in Debian's `nogroup`.
const NOBODY: u32 = 65_534;

/// What was seen.
#[derive(Debug)]
pub struct Outcome {
    /// Connections that were made, and of those how often the other side was gone when something was written.
    pub connections: [u64; 2],
    /// How long answers of new names took meanwhile.
    pub answers: Waits,
    /// How long `egressctl status` of root took.
    pub asked: Waits,
    /// What `egressctl` said where it told nothing.
    pub untold: Vec<String>,
    /// Resident memory of the daemon before and at most, in KiB.
    pub memory: [u64; 2],
    /// The daemon's last lines.
    pub words: String,
}

/// Does it for `time`; `abuser` is the command that does [`abuse`] with the socket's path and the seconds.
///
/// # Errors
/// When the lab or the daemon cannot be had.
pub fn run(
    binaries: &Binaries,
    planes: Planes,
    time: Duration,
    abuser: impl FnOnce(&Path) -> Command,
) -> Result<Outcome> {
    let lab = Lab::new()?;
    let _authority = authority(&lab)?;
    let text = Daemon::preamble(&lab, planes)
        .replace("[control]\n", "[control]\ngroup = \"nogroup\"\n")
        + &format!(
            "[limits]\nper_client = 1000000\nquestions = 0\n\n\
             [[zone]]\nname = \"managed\"\ninterfaces = [\"lan0\"]\nsources = [\"10.20.0.0/16\"]\n\
             [[zone.rule]]\nnames = [\"*.vendor.example\"]\nudp = [{UDP}]\n"
        );
    let daemon = Daemon::start_with(&lab, binaries, planes, &text)?;
    // The way to the socket is open to its group alone on a gateway; the lab's directory is nobody's.
    open_way(lab.dir())?;
    let before = resident(daemon.id())?;
    let mut command = abuser(&lab.dir().join("control.sock"));
    command
        .uid(NOBODY)
        .gid(NOBODY)
        .stdout(std::process::Stdio::piped());
    let mut child = command.spawn().context("start the abuser")?;
    let (mut answers, mut asked) = (Waits::default(), Waits::default());
    let (mut untold, mut most) = (Vec::new(), before);
    let begun = Instant::now();
    let mut number = 10;
    while begun.elapsed() < time {
        for _ in 0..20 {
            number += 1;
            let sent = Instant::now();
            ask(
                &lab.client,
                &format!("x{number}.vendor.example"),
                Duration::from_secs(5),
            )?;
            answers.add(sent.elapsed());
        }
        let sent = Instant::now();
        let told = daemon.ctl(&["status"])?;
        asked.add(sent.elapsed());
        if !told.status.success() {
            untold.push(told.text);
        }
        most = most.max(resident(daemon.id())?);
    }
    child.kill()?;
    let printed = child.wait_with_output()?.stdout;
    let printed = String::from_utf8_lossy(&printed);
    let last = printed.lines().last().unwrap_or_default();
    let numbers: Vec<u64> = last
        .split(' ')
        .filter_map(|word| word.parse().ok())
        .collect();
    let &[made, refused] = numbers.as_slice() else {
        anyhow::bail!("the abuser says `{last}`");
    };
    Ok(Outcome {
        connections: [made, refused],
        answers,
        asked,
        untold,
        memory: [before, most],
        words: daemon.words(),
    })
}

/// Holds [`MANY`] connections without end and prints how many it made, and how many were ended under it.
///
/// # Errors
/// When it may have no sockets.
pub fn abuse(socket: &Path) -> Result<()> {
    allow_sockets(MANY as u64)?;
    const WATCH: &[u8] = b"{\"method\":\"org.egressd.Control.Watch\",\"more\":true}\0";
    const HALF: &[u8] = b"{\"method\":\"org.egressd.Con";
    let long = vec![b'x'; 1 << 20];
    let (mut made, mut ended) = (0_u64, 0_u64);
    let mut held: Vec<Option<UnixStream>> = (0..MANY).map(|_| None).collect();
    loop {
        for (index, seat) in held.iter_mut().enumerate() {
            let alive = seat.as_mut().is_some_and(|stream| {
                let what = match index % 5 {
                    0 => WATCH,
                    1 => HALF,
                    2 => &long,
                    3 => b"\0\0\0\xff{}\0",
                    _ => b"",
                };
                // Whatever part of it fits.
                match stream.write_all(what) {
                    Ok(()) => true,
                    Err(error) => error.kind() == std::io::ErrorKind::WouldBlock,
                }
            });
            if alive {
                continue;
            }
            ended += u64::from(seat.is_some());
            *seat = None;
            if let Ok(stream) = UnixStream::connect(socket) {
                stream.set_nonblocking(true)?;
                made += 1;
                *seat = Some(stream);
            }
        }
        println!("{made} {ended}");
        std::thread::sleep(Duration::from_millis(1));
    }
}

fn open_way(directory: &Path) -> Result<()> {
    use std::os::unix::fs::PermissionsExt;
    std::fs::set_permissions(directory, std::fs::Permissions::from_mode(0o755))?;
    Ok(())
}

/// Resident memory in KiB.
fn resident(id: u32) -> Result<u64> {
    let status = std::fs::read_to_string(format!("/proc/{id}/status"))?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let number = line.and_then(|line| line.split_whitespace().next());
    number.context("VmRSS")?.parse().context("VmRSS")
}
