//! Whoever wants everything: slow connections, one client that asks without end, a million new names.
//! What is told is how the others fared meanwhile.
#![expect(
    clippy::disallowed_methods,
    reason = "shell: drives the lab and reads /proc"
)]

use anyhow::{Context, Result};
use clap::Args;
use egressd_tests::lab::{
    Authority, Binaries, Daemon, Echo, Fared, Lab, Planes, Zone, allow_sockets, ask_madly,
    ask_politely, hold_slowly, plan, sweep_on_signal, udp, until,
};
use std::fmt::Write;
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::process::Command;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::scope;
use std::time::{Duration, Instant};

#[derive(Args)]
pub(crate) struct Options {
    /// Slow connections, each with half a message sent.
    #[arg(long, default_value_t = 10_000)]
    connections: usize,
    /// Questions a second of the client that asks without end.
    #[arg(long, default_value_t = 100_000)]
    rate: u64,
    /// New names, each with an address of its own.
    #[arg(long, default_value_t = 1_000_000)]
    names: u32,
    /// Seconds that each flood lasts which has no end of its own.
    #[arg(long, default_value_t = 15)]
    seconds: u64,
    /// Which planes enforce.
    #[arg(long, default_value = "both")]
    planes: Planes,
    /// Where `egressd` and `egressctl` are.
    #[arg(long, env = "EGRESSD_BIN_DIR", default_value = "target/release")]
    binaries: PathBuf,
}

const PORT: u16 = 9000;
const NAME: &str = "www.vendor.example";
const HOST: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(52, 96, 1, 1));
/// In a network that the zone may reach whatever is learned.
const STATIC: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(52, 200, 0, 9));
/// More clients behind the first one's interface.
const SOURCES: u16 = 1000;

/// How many of the others' questions and packets were lost.
pub(crate) fn soak(options: &Options) -> Result<usize> {
    sweep_on_signal()?;
    allow_sockets(u64::try_from(options.connections)?)?;
    println!(
        "| flood | of | others' | asked | lost | p50 | p99 | max |\n|---|---|---|---|---|---|---|---|"
    );
    let mut lost = 0;
    {
        let mut zone = Zone::default();
        zone.address(NAME, 3600, HOST);
        let lab = Lab::new()?;
        let _authority = Authority::start(&lab, &zone)?;
        let sources = sources(&lab)?;
        let daemon = start(&lab, options, "")?;
        let quiet = others(&lab, options, true)?;
        lost += row("none", "", &quiet);
        for (from, sources) in [("1 client", &sources[..1]), ("1000 clients", &sources[..])] {
            lost += slow(&lab, options, from, sources)?;
        }
        lost += mad(&lab, options, &daemon, sources[0])?;
    }
    for learned in [131_072, 1_000_000] {
        lost += fresh(options, learned)?;
    }
    Ok(lost)
}

fn start<'a>(lab: &'a Lab, options: &Options, limits: &str) -> Result<Daemon<'a>> {
    let rules = format!(
        "[limits]\n{limits}\n\n[[zone]]\nname = \"managed\"\ninterfaces = [\"lan0\"]\n\
         sources = [\"10.20.0.0/16\"]\n[[zone.rule]]\nnames = [\"*.vendor.example\"]\n\
         networks = [\"52.200.0.0/24\"]\nudp = [{PORT}]\n"
    );
    Daemon::start(
        lab,
        &Binaries(options.binaries.clone()),
        options.planes,
        &rules,
    )
}

fn server() -> SocketAddr {
    SocketAddr::new(plan::GATEWAY[0], 53)
}

fn sources(lab: &Lab) -> Result<Vec<IpAddr>> {
    let address = |number: u16| {
        let [high, low] = number.to_be_bytes();
        IpAddr::from([10, 20, 1 + high, low])
    };
    let sources: Vec<_> = (0..SOURCES).map(address).collect();
    let mut lines = String::new();
    for source in &sources {
        writeln!(lines, "addr add {source}/16 dev eth0")?;
    }
    lab.client.ip(&lines)?;
    Ok(sources)
}

/// A well-behaved client's 100 questions a second.
fn others(lab: &Lab, options: &Options, tcp: bool) -> Result<[Fared; 2]> {
    let time = Duration::from_secs(options.seconds);
    let pause = Duration::from_millis(10);
    ask_politely(&lab.client, server(), NAME, pause, time, tcp)
}

fn row(flood: &str, of: &str, fared: &[Fared; 2]) -> usize {
    let mut lost = 0;
    for (over, fared) in ["UDP", "TCP, a connection each"].iter().zip(fared) {
        if fared.asked == 0 {
            continue;
        }
        println!(
            "| {flood} | {of} | {over} | {} | {} | {:.2?} | {:.2?} | {:.2?} |",
            fared.asked,
            fared.lost,
            fared.quantile(500),
            fared.quantile(990),
            fared.quantile(1000),
        );
        lost += fared.lost;
    }
    lost
}

fn slow(lab: &Lab, options: &Options, from: &str, sources: &[IpAddr]) -> Result<usize> {
    let (opened, stop) = (AtomicU64::new(0), AtomicBool::new(false));
    let count = options.connections;
    let fared = scope(|scope| -> Result<_> {
        let many = scope.spawn(|| {
            lab.client
                .enter(|| hold_slowly(server(), sources, count, &opened, &stop))?
        });
        let all = u64::try_from(count)?;
        let ready = until(Duration::from_secs(60), "all are opened once", || {
            Ok((opened.load(Ordering::Relaxed) >= all).then_some(()))
        });
        let fared = ready.and_then(|()| others(lab, options, true));
        stop.store(true, Ordering::Relaxed);
        many.join().expect("it does not panic")?;
        fared
    })?;
    let of = format!("{from}, opened {} times", opened.into_inner());
    Ok(row(&format!("{count} slow connections"), &of, &fared))
}

fn mad(lab: &Lab, options: &Options, daemon: &Daemon<'_>, source: IpAddr) -> Result<usize> {
    let stop = AtomicBool::new(false);
    let before = cpu(daemon.id())?;
    let began = Instant::now();
    let (fared, sent) = scope(|scope| -> Result<_> {
        let flood = scope.spawn(|| {
            lab.client
                .enter(|| ask_madly(server(), source, NAME, options.rate, &stop))?
        });
        let fared = others(lab, options, false);
        stop.store(true, Ordering::Relaxed);
        let sent = flood.join().expect("it does not panic")?;
        Ok((fared?, sent))
    })?;
    let seconds = began.elapsed().as_secs().max(1);
    let of = format!(
        "1 client, {} a second sent, {} dropped by the kernel, {}0 ms CPU in {seconds} s",
        sent / seconds,
        kernel_drops(lab)?,
        cpu(daemon.id())? - before
    );
    Ok(row("questions over UDP", &of, &fared))
}

/// CPU time in ticks of 10 ms.
fn cpu(id: u32) -> Result<u64> {
    let text = std::fs::read_to_string(format!("/proc/{id}/stat"))?;
    let (_, rest) = text
        .rsplit_once(") ")
        .context("a line of /proc/<id>/stat")?;
    let fields: Vec<u64> = rest
        .split(' ')
        .skip(11)
        .take(2)
        .map(str::parse)
        .collect::<Result<_, _>>()?;
    Ok(fields.iter().sum())
}

/// Datagrams that found a full queue at the gateway's sockets.
fn kernel_drops(lab: &Lab) -> Result<u64> {
    let table = lab
        .gateway
        .output(Command::new("cat").arg("/proc/self/net/udp"))?;
    let drops = table.lines().skip(1).filter_map(|line| {
        let last = line.split_whitespace().last()?;
        last.parse::<u64>().ok()
    });
    Ok(drops.sum())
}

fn resident(id: u32) -> Result<u64> {
    let text = std::fs::read_to_string(format!("/proc/{id}/status"))?;
    let line = text.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let kib = line.and_then(|line| line.trim().strip_suffix(" kB"));
    Ok(kib.context("VmRSS")?.trim().parse::<u64>()? / 1024)
}

/// A million names under a wildcard, with room for so many of them.
fn fresh(options: &Options, learned: u32) -> Result<usize> {
    let mut zone = Zone::default();
    zone.address(NAME, 3600, HOST);
    let lab = Lab::new()?;
    let mut questions = String::new();
    for number in 0..options.names {
        let [_, a, b, c] = number.to_be_bytes();
        let name = format!("n{number}.vendor.example");
        writeln!(questions, "{name} A")?;
        zone.address(&name, 3600, IpAddr::from([52, 100 + a, b, c]));
    }
    let file = lab.dir().join("questions");
    std::fs::write(&file, questions)?;
    let _authority = Authority::start(&lab, &zone)?;
    drop(zone);
    let _echo = Echo::start(&lab.internet, &[], &[PORT])?;
    let limits = format!("learned = {learned}\nper_client = 16777216\nquestions = 0");
    let daemon = start(&lab, options, &limits)?;
    let before = resident(daemon.id())?;
    let mut command = Command::new("dnsperf");
    command
        .args(["-s", &plan::GATEWAY[0].to_string(), "-d"])
        .arg(&file)
        .args(["-c", "8", "-q", "100", "-n", "1", "-t", "10"]);
    let done = AtomicBool::new(false);
    let [mut over_udp, none] = [Fared::default(), Fared::default()];
    let (mut packets, mut lost) = (0, 0);
    let printed = scope(|scope| -> Result<String> {
        let flood = scope.spawn(|| {
            let printed = lab.client.output(&mut command);
            done.store(true, Ordering::Relaxed);
            printed
        });
        while !done.load(Ordering::Relaxed) {
            let second = Duration::from_secs(1);
            let pause = Duration::from_millis(20);
            let [fared, _] = ask_politely(&lab.client, server(), NAME, pause, second / 2, false)?;
            over_udp.asked += fared.asked;
            over_udp.lost += fared.lost;
            over_udp.waits.extend(fared.waits);
            for address in [HOST, STATIC] {
                let to = SocketAddr::new(address, PORT);
                packets += 1;
                lost += usize::from(!udp(&lab.client, to, second)?);
            }
        }
        flood.join().expect("it does not panic")
    })?;
    over_udp.waits.sort_unstable();
    let line = |key: &str| {
        let line = printed.lines().find_map(|l| l.trim().strip_prefix(key));
        line.unwrap_or("?").trim().to_owned()
    };
    let status = daemon.ctl(&["status"])?;
    let of = format!(
        "learned = {learned}: {}, {} a second; granted {}; {before} MiB resident before, {} after",
        line("Response codes:"),
        line("Queries per second:"),
        status.json["grants"]["ipv4"],
        resident(daemon.id())?
    );
    let flood = format!("{} new names", options.names);
    let asked = row(&flood, &of, &[over_udp, none]);
    println!(
        "| {flood} | learned = {learned} | packets to what is granted | {packets} | {lost} | | | |"
    );
    Ok(asked + lost)
}
