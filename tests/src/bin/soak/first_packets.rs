//! An answer, then at once a packet to its new address, a great many times.
#![expect(
    clippy::disallowed_methods,
    reason = "shell: opens sockets and times itself"
)]

use anyhow::{Context, Result, ensure};
use clap::Args;
use egressd_tests::lab::{
    Answer, Authority, Binaries, Daemon, Echo, Lab, Planes, Zone, plan, sweep_on_signal,
};
use hickory_proto::rr::RecordType;
use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::path::PathBuf;
use std::time::{Duration, Instant};

#[derive(Args)]
pub(crate) struct Options {
    /// How many names are asked, each with an address of its own.
    #[arg(long, default_value_t = 100_000)]
    count: u32,
    /// Which planes enforce.
    #[arg(long, default_value = "both")]
    planes: Planes,
    /// Where `egressd` and `egressctl` are.
    #[arg(long, env = "EGRESSD_BIN_DIR", default_value = "target/release")]
    binaries: PathBuf,
}

const PORT: u16 = 9000;

/// How many first packets were lost.
pub(crate) fn soak(options: &Options) -> Result<usize> {
    // One /12 of the toy internet, less its first /16.
    ensure!(options.count <= 900_000, "at most 900,000");
    sweep_on_signal()?;
    let mut zone = Zone::default();
    for number in 0..options.count {
        zone.address(&name(number), 3600, address(number));
    }
    let lab = Lab::new()?;
    let _authority = Authority::start(&lab, &zone)?;
    let _echo = Echo::start(&lab.internet, &[], &[PORT])?;
    let rules = format!(
        "[limits]\nlearned = 1000000\nper_client = 1000000\nquestions = 0\n\n[[zone]]\nname = \"managed\"\ninterfaces = [\"lan0\"]\n\
         sources = [\"10.20.0.0/16\"]\n[[zone.rule]]\nnames = [\"*.vendor.example\"]\nudp = [{PORT}]\n"
    );
    let binaries = Binaries(options.binaries.clone());
    let daemon = Daemon::start(&lab, &binaries, options.planes, &rules)?;
    let began = Instant::now();
    let (lost, waits) = lab.client.enter(|| first_packets(options.count))??;
    let took = began.elapsed();
    println!(
        "{} of {} first packets lost; {:.0} a second, answer after {:.2?} p50, {:.2?} p99, {:.2?} max",
        lost.len(),
        options.count,
        f64::from(options.count) / took.as_secs_f64(),
        quantile(&waits, 500),
        quantile(&waits, 990),
        quantile(&waits, 1000),
    );
    if !lost.is_empty() {
        println!("first lost: {:?}", &lost[..lost.len().min(20)]);
        eprintln!("last words of egressd:\n{}", daemon.words());
    }
    Ok(lost.len())
}

fn name(number: u32) -> String {
    format!("n{number}.vendor.example")
}

fn address(number: u32) -> IpAddr {
    let [_, a, b, c] = number.to_be_bytes();
    IpAddr::from([52, 97 + a, b, c])
}

/// The numbers whose packet did not come back, and how long each answer took.
fn first_packets(count: u32) -> Result<(Vec<u32>, Vec<Duration>)> {
    let resolver = UdpSocket::bind("0.0.0.0:0")?;
    resolver.connect(SocketAddr::new(plan::GATEWAY[0], 53))?;
    resolver.set_read_timeout(Some(Duration::from_secs(5)))?;
    let packets = UdpSocket::bind("0.0.0.0:0")?;
    packets.set_read_timeout(Some(Duration::from_millis(500)))?;
    let (mut lost, mut waits) = (Vec::new(), Vec::new());
    for number in 0..count {
        let name = name(number);
        let asked = Instant::now();
        let [_, _, high, low] = number.to_be_bytes();
        let id = u16::from_be_bytes([high, low]);
        let answer = Answer::over(&resolver, id, &name, RecordType::A)?;
        waits.push(asked.elapsed());
        let to = answer
            .addresses
            .first()
            .with_context(|| format!("{name}: {answer:?}"))?;
        packets.send_to(&number.to_be_bytes(), SocketAddr::new(*to, PORT))?;
        let mut buffer = [0; 4];
        let back = packets
            .recv_from(&mut buffer)
            .is_ok_and(|(_, from)| from.ip() == *to);
        if !back {
            lost.push(number);
        }
    }
    waits.sort_unstable();
    Ok((lost, waits))
}

/// The value that `part` of a thousand do not exceed.
fn quantile(sorted: &[Duration], part: usize) -> Duration {
    let last = sorted.len().saturating_sub(1);
    sorted.get(last * part / 1000).copied().unwrap_or_default()
}
