//! First packets in observe mode: an answer passes by, and at once a packet goes to its new address, a
//! great many times. Says how many were lost, and after how long a lost one would have passed.
#![expect(
    clippy::disallowed_methods,
    reason = "shell: opens sockets and times itself"
)]

use anyhow::{Context, Result, ensure};
use clap::Parser;
use egressd_tests::lab::{
    Answer, Authority, Binaries, Daemon, Echo, Lab, Planes, Zone, plan, sweep_on_signal,
};
use hickory_proto::rr::RecordType;
use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::{Duration, Instant};

/// Counts first packets that are lost in observe mode.
#[derive(Parser)]
struct Options {
    /// How many names are asked, each with an address of its own.
    #[arg(long, default_value_t = 10_000)]
    count: u32,
    /// Hold answers back until they are in force.
    #[arg(long)]
    delay: bool,
    /// Which planes enforce.
    #[arg(long, default_value = "both")]
    planes: Planes,
    /// How long the client waits between an answer and its first packet, in microseconds.
    #[arg(long, default_value_t = 0)]
    pause: u64,
    /// Where `egressd` and `egressctl` are.
    #[arg(long, env = "EGRESSD_BIN_DIR", default_value = "target/release")]
    binaries: PathBuf,
}

const PORT: u16 = 9000;

/// How often a packet that was lost is sent again.
const AGAIN: Duration = Duration::from_micros(100);

fn main() -> ExitCode {
    let options = Options::parse();
    match soak(&options) {
        Ok(lost) if lost == 0 || !options.delay => ExitCode::SUCCESS,
        Ok(_) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("observe-soak: {error:#}");
            ExitCode::from(2)
        }
    }
}

fn soak(options: &Options) -> Result<usize> {
    ensure!(options.count <= 900_000, "at most 900,000");
    sweep_on_signal()?;
    let mut zone = Zone::default();
    for number in 0..options.count {
        zone.address(&name(number), 3600, address(number));
    }
    let lab = Lab::new()?;
    let _authority = Authority::start(&lab, &zone)?;
    let _echo = Echo::start(&lab.internet, &[], &[PORT])?;
    let observe = format!(
        "[dns]\nmode = \"observe\"\nresolvers = [\"{}\"]\ndelay = {}\n",
        plan::UPSTREAM,
        options.delay
    );
    let text = Daemon::preamble(&lab, options.planes).replace("[dns]\n", &observe)
        + &format!(
            "[limits]\nlearned = 1000000\n\n[[zone]]\nname = \"managed\"\ninterfaces = [\"lan0\"]\n\
             sources = [\"10.20.0.0/16\"]\n[[zone.rule]]\nnames = [\"*.vendor.example\"]\nudp = [{PORT}]\n"
        );
    let binaries = Binaries(options.binaries.clone());
    let daemon = Daemon::start_with(&lab, &binaries, options.planes, &text)?;
    let mut seen = lab.client.enter(|| first_packets(options))??;
    let all = options.count;
    println!(
        "{} of {all} first packets lost; answer after {:.1?} p50, {:.1?} p99; after the answer an \
         echo within {:.1?} p50, {:.1?} p99, {:.1?} max (a packet every {AGAIN:?})",
        seen.lost,
        quantile(&mut seen.answers, 500),
        quantile(&mut seen.answers, 990),
        quantile(&mut seen.opened, 500),
        quantile(&mut seen.opened, 990),
        quantile(&mut seen.opened, 1000),
    );
    let status = daemon.told(&["status"])?;
    let observed = status
        .lines()
        .skip_while(|line| !line.starts_with("observed"));
    observed.for_each(|line| println!("{line}"));
    Ok(seen.lost)
}

fn name(number: u32) -> String {
    format!("n{number}.vendor.example")
}

fn address(number: u32) -> IpAddr {
    let [_, a, b, c] = number.to_be_bytes();
    IpAddr::from([52, 97 + a, b, c])
}

#[derive(Default)]
struct Seen {
    lost: usize,
    answers: Vec<Duration>,
    /// From the answer to the first echo.
    opened: Vec<Duration>,
}

fn first_packets(options: &Options) -> Result<Seen> {
    let resolver = UdpSocket::bind("0.0.0.0:0")?;
    resolver.connect(SocketAddr::new(plan::UPSTREAM, 53))?;
    resolver.set_read_timeout(Some(Duration::from_secs(5)))?;
    let mut seen = Seen::default();
    for number in 0..options.count {
        let name = name(number);
        let asked = Instant::now();
        let [_, _, high, low] = number.to_be_bytes();
        let id = u16::from_be_bytes([high, low]);
        let answer = Answer::over(&resolver, id, &name, RecordType::A)?;
        let answered = Instant::now();
        seen.answers.push(answered - asked);
        let to = answer
            .addresses
            .first()
            .with_context(|| format!("{name}: {answer:?}"))?;
        // A socket of its own: its number tells a first packet's echo from a later one's.
        let packets = UdpSocket::bind("0.0.0.0:0")?;
        packets.connect(SocketAddr::new(*to, PORT))?;
        // A read's timeout is a multiple of the kernel's tick, which is far too long.
        packets.set_nonblocking(true)?;
        while answered.elapsed() < Duration::from_micros(options.pause) {
            std::hint::spin_loop();
        }
        let mut sent: u32 = 0;
        let mut buffer = [0; 4];
        let echoed = loop {
            ensure!(
                answered.elapsed() < Duration::from_secs(5),
                "{name} stays closed"
            );
            packets.send(&sent.to_be_bytes())?;
            sent += 1;
            let again = Instant::now() + AGAIN;
            let mut heard = packets.recv(&mut buffer).is_ok();
            while !heard && Instant::now() < again {
                std::thread::yield_now();
                heard = packets.recv(&mut buffer).is_ok();
            }
            if heard {
                break u32::from_be_bytes(buffer);
            }
        };
        seen.opened.push(answered.elapsed());
        // Echoes keep the order of their packets, so the first one heard is of the first that passed.
        seen.lost += usize::from(echoed > 0);
    }
    Ok(seen)
}

/// The value that `part` of a thousand do not exceed.
fn quantile(values: &mut [Duration], part: usize) -> Duration {
    values.sort_unstable();
    let last = values.len().saturating_sub(1);
    values.get(last * part / 1000).copied().unwrap_or_default()
}
