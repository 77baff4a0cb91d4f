//! What the gateway stands on fails: calls to the kernel, the disk, the wall clock, the operator's own
//! files. D8, D17, L8 and L10 with small denominators.
#![expect(
    clippy::disallowed_methods,
    reason = "shell: breaks the state directory, mounts, measures time"
)]

use crate::bench::{Bench, SHORT, SURE, TRY, WEB, World, fails, flow, host, learn, passes, zone};
use crate::{Body, Test, Verdict};
use anyhow::{Context, Result, ensure};
use egressd_tests::lab::{Daemon, Faults, Planes, Zone, tcp, until};
use egressd_tests::soak::faults::{self, Scene};
use egressd_tests::soak::reloads;
use std::fs;
use std::net::SocketAddr;
use std::os::unix::fs::{FileExt as _, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

pub(crate) const TESTS: &[Test] = &[
    ("d8_the_kernel_refuses_any_call", Body::Daemon(refused)),
    (
        "l8_mutated_reloads_are_whole_or_nothing",
        Body::Daemon(mutated),
    ),
    (
        "d17_the_wall_clock_changes_nothing",
        Body::Daemon(wall_clock),
    ),
    ("l10_state_directories_of_all_kinds", Body::Daemon(state)),
];

const NO_SHIM: &str = "EGRESSD_SHIM_LIB names no library: run `cargo xtask test`";

fn shim() -> Option<PathBuf> {
    std::env::var_os("EGRESSD_SHIM_LIB").map(PathBuf::from)
}

fn refused(bench: &Bench) -> Result<Verdict> {
    let Some(library) = shim() else {
        return Ok(Verdict::NotPromised(NO_SHIM));
    };
    // One plane alone makes the same calls as with the other beside it; what differs is who is left.
    let scenes = if bench.planes == Planes::Both {
        Scene::ALL.to_vec()
    } else {
        vec![Scene::Learn, Scene::Start]
    };
    let plan = faults::Plan {
        library,
        scenes,
        most: 1,
        quick: true,
    };
    let seen = faults::run(bench.binaries(), bench.planes, &plan)?;
    println!("{}", seen.table());
    ensure!(
        seen.failures() == 0,
        "{}\n{}\n{}",
        seen.table(),
        seen.wrong.join("\n"),
        seen.words
    );
    // As many classes of calls as these planes make, in each scene.
    let least = if bench.planes == Planes::Both { 40 } else { 15 };
    ensure!(seen.faults() >= least, "{}", seen.table());
    let [granted, _, denied, ..] = seen.counts;
    ensure!(granted > 500 && denied > 500, "{:?}", seen.counts);
    Ok(Verdict::Held)
}

fn mutated(bench: &Bench) -> Result<Verdict> {
    let seen = reloads::run(bench.binaries(), bench.planes, 60)?;
    let [taken, refused] = seen.reloads;
    ensure!(taken >= 5 && refused >= 20, "{:?}", seen.reloads);
    ensure!(
        seen.failures() == 0 && seen.transactions == 0,
        "{seen:?}\n{}",
        seen.words
    );
    ensure!(seen.probes[0] > 0 && seen.answers[0] > 50, "{seen:?}");
    println!("half-applied: 0 of {}", taken + refused);
    Ok(Verdict::Held)
}

/// Ten years.
const JUMP: i64 = 3653 * 86_400;

/// What `egressctl` tells of the grant of an address: seconds until it ends.
fn left(daemon: &Daemon<'_>, name: &str) -> Result<Option<u64>> {
    let told = daemon.ctl(&["grants"])?.json;
    let grants = told["grants"].as_array().or_else(|| told.as_array());
    let reasons = grants.into_iter().flatten();
    let mut reasons = reasons.flat_map(|grant| grant["reasons"].as_array().into_iter().flatten());
    let reason = reasons.find(|reason| reason["name"] == name);
    Ok(reason.and_then(|reason| reason["ends"].as_u64()))
}

fn wall_clock(bench: &Bench) -> Result<Verdict> {
    let Some(library) = shim() else {
        return Ok(Verdict::NotPromised(NO_SHIM));
    };
    // Both wait for the same times.
    let both = std::thread::scope(|scope| {
        let library = &library;
        [JUMP, -JUMP]
            .map(|jump| scope.spawn(move || jumps(bench, library, jump)))
            .map(|thread| thread.join().expect("a failed check is no panic"))
    });
    let [forward, back] = both;
    forward.context("forward")?;
    back.context("back")?;
    Ok(Verdict::Held)
}

fn jumps(bench: &Bench, library: &Path, jump: i64) -> Result<()> {
    let mut names = Zone::default();
    for (number, (name, ttl)) in [("long", 3000), ("short", 8), ("after", 3000)]
        .into_iter()
        .enumerate()
    {
        let at = host(50, u8::try_from(number)? + 1);
        names.address(&format!("{name}.vendor.example"), ttl, at);
    }
    let world = World::new(&names)?;
    let faults = Faults::new(&world.lab, library)?;
    let text = Daemon::preamble(&world.lab, bench.planes)
        + SHORT
        + &zone("", &[("*.vendor.example", &[WEB], &[])]);
    let (binaries, environment) = (bench.binaries(), faults.environment());
    let mut daemon = Daemon::start_in(&world.lab, binaries, bench.planes, &text, environment)?;
    let client = &world.lab.client;
    learn(client, "long.vendor.example", host(50, 1))?;
    let mut old = flow(client, host(50, 1), WEB)?;
    let exception = [
        "allow",
        "52.96.51.0/24",
        "443",
        "--zone",
        "managed",
        "--for",
        "25s",
        "--reason",
        "clocks",
    ];
    ensure!(
        daemon.ctl(&exception)?.status.success(),
        "{}",
        daemon.words()
    );
    learn(client, "short.vendor.example", host(50, 2))?;
    let begun = Instant::now();

    faults.wall_clock_ahead(jump)?;
    // Told by the log, whose lines have the wall clock's time.
    let words = daemon.ctl(&["reload"])?;
    ensure!(words.status.success(), "{}", words.text);
    until(SURE, "the daemon's year is another", || {
        let log = daemon.log()?;
        let years = log.lines().filter_map(|line| line.get(..4)?.parse().ok());
        let years: Vec<i32> = years.collect();
        let first = years.first().copied().unwrap_or_default();
        let jumped = |year: &i32| (year - first).abs() >= 9;
        Ok(years.iter().any(jumped).then_some(()))
    })?;
    ensure!(old.echoes(SURE), "the jump cut a flow");
    passes(client, host(50, 1), WEB)?;
    passes(client, host(51, 1), WEB)?;
    fails(client, host(52, 1), WEB)?;
    // Its own time ends it.
    until(Duration::from_secs(15), "the short grant ends", || {
        Ok(left(&daemon, "short.vendor.example")?
            .is_none()
            .then_some(()))
    })?;
    ensure!(
        begun.elapsed() >= Duration::from_secs(7),
        "{:?}",
        begun.elapsed()
    );
    learn(client, "after.vendor.example", host(50, 3))?;

    // Over a kill with the other time, and over one back to the right time.
    for ahead in [jump, 0] {
        daemon.kill()?;
        faults.wall_clock_ahead(ahead)?;
        daemon.restart()?;
        ensure!(old.echoes(SURE), "the restart cut a flow");
        fails(client, host(52, 1), WEB)?;
        for name in ["long.vendor.example", "after.vendor.example"] {
            let left = left(&daemon, name)?.with_context(|| format!("{name} is forgotten"))?;
            ensure!((500..=3002).contains(&left), "{name} lives for {left} s");
        }
        let list = daemon.ctl(&["allow", "--list"])?.text;
        ensure!(
            list.contains("52.96.51.0/24") || begun.elapsed() > Duration::from_secs(24),
            "the exception is gone after {:?}: {list}",
            begun.elapsed()
        );
    }
    until(Duration::from_secs(30), "the exception ends", || {
        let list = daemon.ctl(&["allow", "--list"])?.text;
        Ok((!list.contains("52.96.51.0/24")).then_some(()))
    })?;
    let lived = begun.elapsed();
    ensure!(
        (Duration::from_secs(23)..Duration::from_secs(32)).contains(&lived),
        "the exception lived for {lived:?}"
    );
    // Told before the planes have done it.
    until(SURE, "its network is closed", || {
        let to = SocketAddr::new(host(51, 1), WEB);
        Ok((!tcp(client, to, TRY)?).then_some(()))
    })?;
    Ok(())
}

/// Whatever was mounted there is gone when it is dropped.
struct Mounted(PathBuf);

impl Mounted {
    fn new(at: &Path, commands: &[&[&str]]) -> Result<Self> {
        let mounted = Self(at.to_owned());
        for args in commands {
            let mut mount = Command::new("mount");
            let output = mount.args(*args).arg(at).output()?;
            let words = String::from_utf8_lossy(&output.stderr);
            ensure!(output.status.success(), "{mount:?}: {words}");
        }
        Ok(mounted)
    }
}

impl Drop for Mounted {
    fn drop(&mut self) {
        let _gone = Command::new("umount").arg("-l").arg(&self.0).output();
    }
}

/// A way to break a state directory, and a word that the status must then have.
type Break = (
    &'static str,
    fn(&Path) -> Result<Option<Mounted>>,
    &'static str,
);

const BREAKS: [Break; 7] = [
    ("flipped bits", flipped, "checksum"),
    ("huge", huge, "longer than egressd writes"),
    ("a pipe", pipe, "no regular file"),
    ("read-only", read_only, "Read-only file system"),
    ("no room", no_room, "No space left"),
    ("dangling", dangling, "not kept over a restart"),
    (
        "dangling directory",
        dangling_directory,
        "not kept over a restart",
    ),
];

fn flipped(state: &Path) -> Result<Option<Mounted>> {
    let file = fs::File::options()
        .read(true)
        .write(true)
        .open(state.join("state.json"))?;
    let middle = file.metadata()?.len() / 2;
    let mut byte = [0];
    file.read_exact_at(&mut byte, middle)?;
    file.write_all_at(&[byte[0] ^ 4], middle)?;
    Ok(None)
}

fn huge(state: &Path) -> Result<Option<Mounted>> {
    for name in ["state.json", "journal"] {
        let file = fs::File::create(state.join(name))?;
        file.set_len(1 << 33)?;
    }
    Ok(None)
}

fn pipe(state: &Path) -> Result<Option<Mounted>> {
    fs::remove_file(state.join("state.json"))?;
    let made = Command::new("mkfifo")
        .arg(state.join("state.json"))
        .status()?;
    ensure!(made.success(), "mkfifo");
    Ok(None)
}

fn read_only(state: &Path) -> Result<Option<Mounted>> {
    let own = state.to_str().context("a path")?;
    Mounted::new(state, &[&["--bind", own], &["-o", "remount,bind,ro"]]).map(Some)
}

fn no_room(state: &Path) -> Result<Option<Mounted>> {
    let mounted = Mounted::new(state, &[&["-t", "tmpfs", "-o", "size=8k", "tmpfs"]])?;
    // As much as fits.
    let _full = fs::write(state.join("junk"), vec![1; 1 << 20]);
    Ok(Some(mounted))
}

fn dangling(state: &Path) -> Result<Option<Mounted>> {
    for name in ["state.json", "state.json.new", "journal"] {
        let _absent = fs::remove_file(state.join(name));
        symlink("/nowhere/at/all", state.join(name))?;
    }
    Ok(None)
}

fn dangling_directory(state: &Path) -> Result<Option<Mounted>> {
    fs::remove_dir_all(state)?;
    symlink("/nowhere/at/all", state)?;
    Ok(None)
}

fn state(bench: &Bench) -> Result<Verdict> {
    let mut names = Zone::default();
    names.address("a.vendor.example", 600, host(53, 1));
    let world = World::new(&names)?;
    let rules = zone("", &[("a.vendor.example", &[WEB], &[])]);
    let mut daemon = bench.daemon(&world.lab, &rules)?;
    let client = &world.lab.client;
    let state = world.lab.dir().join("state");
    for (kind, broken, word) in BREAKS {
        (|| -> Result<()> {
            learn(client, "a.vendor.example", host(53, 1))?;
            ensure!(daemon.terminate()?.success(), "{}", daemon.words());
            let mounted = broken(&state)?;
            daemon.restart()?;
            fails(client, host(53, 9), WEB)?;
            learn(client, "a.vendor.example", host(53, 1))?;
            passes(client, host(53, 1), WEB)?;
            until(SURE, &format!("the status says `{word}`"), || {
                Ok(daemon.ctl(&["status"])?.text.contains(word).then_some(()))
            })?;
            ensure!(daemon.terminate()?.success(), "{}", daemon.words());
            drop(mounted);
            if state.is_symlink() {
                fs::remove_file(&state)?;
            } else {
                fs::remove_dir_all(&state)?;
            }
            daemon.restart()?;
            let status = daemon.ctl(&["status"])?;
            ensure!(!status.text.contains(word), "still: {}", status.text);
            Ok(())
        })()
        .with_context(|| format!("{kind}\n{}", daemon.words()))?;
    }
    println!(
        "0 of {} broken directories opened or stopped it",
        BREAKS.len()
    );
    Ok(Verdict::Held)
}
