#![expect(
    clippy::disallowed_methods,
    reason = "shell: is a gateway's network, and asks its manager"
)]
//! The network of a gateway that has just booted with the units as they are shipped (`cargo xtask vm
//! --boot`): clients send from before the interfaces are up; then everything that may happen to the service
//! does. Prints what libtest would, and powers the machine off.

use anyhow::{Context as _, Result, bail, ensure};
use egressd_tests::lab::{Echo, Lab, udp, until};
use egressd_tests::soak::steady::Steady;
use egressd_tests::soak::{ask, authority};
use nix::sys::reboot::{RebootMode, reboot};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

/// Says that this is a machine of its own.
const MARK: &str = "/etc/egressd-boot";
/// Nothing grants it.
const FORBIDDEN: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::new(52, 99, 1, 1)), 9001);
const GRANTED: u16 = 9000;
/// The processor is emulated.
const PATIENCE: Duration = Duration::from_secs(90);

fn main() {
    if !Path::new(MARK).exists() {
        eprintln!("this is a service of a virtual machine; see `cargo xtask vm --boot`");
        std::process::exit(2);
    }
    println!("guest: up");
    let outcome = work();
    if let Err(error) = &outcome {
        println!("guest: broken {error:#}");
        for args in [
            &["--no-pager", "status", "egressd", "egressd-lockdown"][..],
            &["--no-pager", "--failed"],
        ] {
            println!(
                "{}",
                systemctl(args).unwrap_or_else(|error| error.to_string())
            );
        }
    }
    println!("guest: done boot {} 0", u8::from(outcome.is_err()));
    println!("guest: end");
    let failed = reboot(RebootMode::RB_POWER_OFF);
    println!("guest: broken power off: {failed:?}");
}

fn work() -> Result<()> {
    let lab = Lab::here()?;
    let mut steady = Steady::new(&lab, FORBIDDEN)?;
    steady.forbidden(&lab.client, FORBIDDEN)?;
    steady.forbidden(&lab.other, FORBIDDEN)?;
    for key in ["net/ipv4/ip_forward", "net/ipv6/conf/all/forwarding"] {
        lab.gateway.sysctl(key, "1")?;
    }
    lab.open()?;
    println!("measured: boot network-up={:.1}", uptime()?);
    let _authority = authority(&lab)?;
    let _echo = Echo::start(&lab.internet, &[], &[GRANTED])?;
    notify()?;

    let mut passed = 0;
    let mut closed = |steady: &Steady, when: &str| -> Result<()> {
        let leaked = steady.leaked();
        ensure!(leaked == 0, "{leaked} packets leaked: {when}");
        println!("test boot::{} ... ok", when.replace(' ', "_"));
        passed += 1;
        Ok(())
    };
    let dropped = until(PATIENCE, "the lockdown drops what is sent", || {
        let table = command("nft", &["list", "table", "inet", "egressd_lockdown"])?;
        let counted = table
            .lines()
            .filter_map(|line| line.split_once("packets ")?.1.split(' ').next());
        let dropped: u64 = counted
            .filter_map(|number| number.parse::<u64>().ok())
            .sum();
        Ok((dropped > 100).then_some(dropped))
    })?;
    println!("measured: boot dropped-by-lockdown={dropped}");
    active("egressd")?;
    println!("measured: boot egressd-ready={:.1}", uptime()?);
    closed(&steady, "nothing before the policy")?;

    ask(&lab.client, "x1.vendor.example", PATIENCE)?;
    let to = SocketAddr::new(Ipv4Addr::new(52, 100, 0, 1).into(), GRANTED);
    ensure!(
        udp(&lab.client, to, Duration::from_secs(5))?,
        "what is granted does not pass"
    );
    steady.granted(&lab.client, to)?;
    closed(&steady, "only what is granted once it is ready")?;

    restricted()?;
    closed(&steady, "it runs with what the unit leaves it")?;

    for (what, args) in [
        ("over a restart", &["restart", "egressd"][..]),
        ("over a reload", &["reload", "egressd"]),
        ("over SIGKILL", &["kill", "--signal=KILL", "egressd"]),
        (
            "over a hang that the watchdog ends",
            &["kill", "--signal=STOP", "egressd"],
        ),
    ] {
        let before = main_pid()?;
        let begun = Instant::now();
        systemctl(args)?;
        let reloaded = args[0] == "reload";
        until(PATIENCE, what, || {
            let now = main_pid()?;
            Ok((now != 0 && (reloaded || now != before)).then_some(()))
        })?;
        active("egressd")?;
        let back = format!(
            "x{}.vendor.example",
            100 + begun.elapsed().as_millis() % 1000
        );
        ask(&lab.client, &back, PATIENCE)?;
        let word = what.replace(' ', "-");
        println!(
            "measured: boot {word}={:.1}s",
            begun.elapsed().as_secs_f64()
        );
        closed(&steady, what)?;
    }

    systemctl(&["stop", "egressd"])?;
    std::thread::sleep(Duration::from_secs(2));
    closed(&steady, "after it is stopped")?;
    // Debian's unit begins with a flush of every table.
    systemctl(&["restart", "nftables"])?;
    std::thread::sleep(Duration::from_secs(2));
    closed(&steady, "after a flush of every table while it is stopped")?;

    let counts = steady.stop()?;
    println!(
        "measured: boot forbidden={} leaked={} granted={} lost={}",
        counts.forbidden, counts.leaked, counts.granted, counts.lost
    );
    ensure!(
        counts.lost == 0,
        "{} of {} granted were lost",
        counts.lost,
        counts.granted
    );
    opened(&lab)?;
    println!("test result: ok. {} passed; 0 failed;", passed + 1);
    Ok(())
}

/// The probes see what is open: else the zeros above would mean nothing.
fn opened(lab: &Lab) -> Result<()> {
    let words = command("egressd", &["open", "--reason", "the end of the test"])?;
    let steady = Steady::new(lab, FORBIDDEN)?;
    steady.forbidden(&lab.client, FORBIDDEN)?;
    until(PATIENCE, "what is open lets everything pass", || {
        Ok((steady.leaked() > 0).then_some(()))
    })
    .context(words)?;
    println!("test boot::opened_by_hand_it_is_open ... ok");
    Ok(())
}

/// What the kernel says of the process that runs.
fn restricted() -> Result<()> {
    let path = format!("/proc/{}/status", main_pid()?);
    let status = std::fs::read_to_string(path)?;
    let of = |key: &str| -> Result<&str> {
        let line = status.lines().find_map(|line| line.strip_prefix(key));
        line.map(str::trim)
            .with_context(|| format!("no {key} in\n{status}"))
    };
    let user = of("Uid:")?;
    ensure!(!user.split_whitespace().any(|id| id == "0"), "Uid: {user}");
    ensure!(
        of("NoNewPrivs:")? == "1" && of("Seccomp:")? == "2",
        "{status}"
    );
    // NET_BIND_SERVICE, NET_ADMIN, BPF; on older kernels PERFMON as well (linux/capability.h).
    let most = 1 << 10 | 1 << 12 | 1 << 39 | 1_u64 << 38;
    for key in ["CapEff:", "CapPrm:", "CapBnd:", "CapAmb:"] {
        let held = u64::from_str_radix(of(key)?, 16)?;
        ensure!(held != 0 && held & !most == 0, "{key} {held:x}");
        println!("measured: boot {}={held:x}", key.trim_end_matches(':'));
    }
    Ok(())
}

/// Tells the manager that the network is up.
fn notify() -> Result<()> {
    let path = std::env::var_os("NOTIFY_SOCKET").context("no NOTIFY_SOCKET")?;
    let socket = std::os::unix::net::UnixDatagram::unbound()?;
    socket.send_to(b"READY=1", path)?;
    Ok(())
}

fn active(unit: &str) -> Result<()> {
    until(PATIENCE, &format!("{unit} is active"), || {
        let state = systemctl(&["show", "--property=ActiveState,SubState", unit])?;
        let good = state.contains("ActiveState=active") && state.contains("SubState=running");
        Ok(good.then_some(()))
    })
}

fn main_pid() -> Result<u32> {
    let text = systemctl(&["show", "--property=MainPID", "--value", "egressd"])?;
    text.trim()
        .parse()
        .with_context(|| format!("MainPID {text}"))
}

fn systemctl(args: &[&str]) -> Result<String> {
    let output = Command::new("systemctl").args(args).output()?;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    Ok(text + &String::from_utf8_lossy(&output.stderr))
}

fn command(program: &str, args: &[&str]) -> Result<String> {
    let output = Command::new(program).args(args).output()?;
    let text = String::from_utf8_lossy(&output.stdout).into_owned()
        + &String::from_utf8_lossy(&output.stderr);
    if !output.status.success() {
        bail!("{program} {args:?}: {text}");
    }
    Ok(text)
}

/// Seconds since the kernel began.
fn uptime() -> Result<f64> {
    let text = std::fs::read_to_string("/proc/uptime")?;
    let first = text.split(' ').next().context("two numbers")?;
    Ok(first.parse()?)
}
