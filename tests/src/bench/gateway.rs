//! Gateways that packets are sent through, each in a lab of its own, all at the same time.
#![expect(
    clippy::disallowed_methods,
    reason = "shell: starts programs and times them"
)]

use super::dnsperf::ask_all;
use super::forwarder::{egressd, granted};
use super::measure::{Family, Kind};
use super::names::{self, NAMES};
use super::traffic::{Sink, bare_drop};
use super::{Bench, cold, usage};
use crate::lab::{Authority, Daemon, Lab, Planes, Process, plan, until};
use anyhow::{Context, Result, ensure};
use aya::Ebpf;
use std::process::Command;
use std::time::{Duration, Instant};

/// Where the client's packets enter.
pub(super) const DOOR: &str = "lan0";

/// Ends what comes back to the client.
const QUIET: &str = "table inet quiet {
    chain arriving {
        type filter hook prerouting priority raw;
        udp sport 9000 drop
    }
}";

/// How many addresses xdp-filter's maps take.
const FILTERED: u32 = 10_000;

/// A gateway at work.
#[derive(Debug)]
pub(super) struct Gateway<'a> {
    pub(super) lab: &'a Lab,
    pub(super) sink: Sink,
    work: Work<'a>,
}

#[derive(Debug)]
enum Work<'a> {
    Egressd(Planes, Box<Daemon<'a>>),
    Filter(#[expect(dead_code, reason = "a guard")] Process),
    Bare(#[expect(dead_code, reason = "a guard")] Ebpf),
    Nothing,
}

impl<'a> Gateway<'a> {
    /// Sets `lab`'s gateway up, everything loaded.
    ///
    /// # Errors
    /// When a program is missing or does not do its part.
    pub(super) fn start(
        lab: &'a Lab,
        kind: Kind,
        bench: &Bench,
        say: &dyn Fn(&str),
    ) -> Result<Self> {
        // Only a device that polls takes frames from XDP_TX and XDP_REDIRECT.
        for (namespace, device) in [
            (&lab.client, "eth0"),
            (&lab.gateway, DOOR),
            (&lab.gateway, "wan0"),
            (&lab.internet, "eth0"),
        ] {
            namespace.output(Command::new("ethtool").args(["-K", device, "gro", "on"]))?;
        }
        // Else it would reply with errors.
        lab.client.nft(QUIET)?;
        let work = match kind {
            Kind::Both => load(lab, Planes::Both, bench, say)?,
            Kind::NftOnly => load(lab, Planes::Nft, bench, say)?,
            Kind::XdpFilter => Work::Filter(filter(lab)?),
            Kind::BareDrop => Work::Bare(bare_drop(&bench.generator, &lab.gateway, DOOR)?),
            Kind::Unfiltered => Work::Nothing,
        };
        let sink = Sink::attach(&bench.generator, &lab.internet)?;
        Ok(Self { lab, sink, work })
    }

    /// How many packets it refused so far.
    ///
    /// # Errors
    /// When its counters cannot be read.
    pub(super) fn refused(&self) -> Result<u64> {
        match &self.work {
            Work::Egressd(Planes::Nft, daemon) => counted(daemon, "nft"),
            Work::Egressd(..) | Work::Filter(_) | Work::Bare(_) => {
                let mut statistics = Command::new("ethtool");
                drops(&self.lab.gateway.output(statistics.args(["-S", DOOR]))?)
            }
            Work::Nothing => Ok(0),
        }
    }

    /// How many packets egressd says its ebpf plane refused, where it runs one.
    ///
    /// # Errors
    /// When it cannot be asked.
    pub(super) fn claimed(&self) -> Result<Option<u64>> {
        match &self.work {
            Work::Egressd(planes, daemon) if planes.ebpf() => counted(daemon, "ebpf").map(Some),
            Work::Egressd(..) | Work::Filter(_) | Work::Bare(_) | Work::Nothing => Ok(None),
        }
    }

    /// Whether it tracks connections.
    pub(super) fn tracks(&self) -> bool {
        match &self.work {
            Work::Egressd(planes, _) => planes.nft(),
            Work::Filter(_) | Work::Bare(_) | Work::Nothing => false,
        }
    }
}

/// Starts egressd and has it learn every name, in both families.
fn load<'a>(lab: &'a Lab, planes: Planes, bench: &Bench, say: &dyn Fn(&str)) -> Result<Work<'a>> {
    let _authority = Authority::start(lab, &names::zone())?;
    let began = Instant::now();
    let daemon = egressd(lab, &bench.binaries, planes)?;
    let ready = began.elapsed();
    let before = usage::resident(daemon.id())?;
    let mut after = Vec::new();
    for family in [Family::V4, Family::V6] {
        let questions = cold::file(lab, family)?;
        ask_all(&lab.client, plan::GATEWAY[0], &questions).with_context(|| daemon.words())?;
        let held = granted(&daemon, family)?;
        ensure!(
            held == u64::from(NAMES),
            "egressd granted {held} of {NAMES}"
        );
        after.push(usage::resident(daemon.id())? / 1024);
    }
    say(&format!(
        "egressd, planes {planes:?}, built-in catalogue: ready after {ready:.0?}, {} MiB resident; {after:?} MiB with {NAMES} and {} grants",
        before / 1024,
        2 * NAMES
    ));
    Ok(Work::Egressd(planes, Box::new(daemon)))
}

/// Packets that `plane` refused, as egressd counts them.
fn counted(daemon: &Daemon<'_>, plane: &str) -> Result<u64> {
    let outcome = daemon.ctl(&["zones"])?;
    let zones = outcome.json["zones"].as_array();
    let zones = zones.with_context(|| format!("zones in:\n{}", outcome.text))?;
    let counters = zones.iter().filter_map(|zone| zone["counters"].as_array());
    let dropped = counters
        .flatten()
        .filter(|counter| counter["plane"] == plane && counter["action"] == "drop");
    Ok(dropped
        .filter_map(|counter| counter["packets"].as_u64())
        .sum())
}

/// Packets that XDP dropped, as the driver counts them.
fn drops(statistics: &str) -> Result<u64> {
    let lines = statistics.lines().map(str::trim);
    let mut found = lines
        .filter(|line| line.starts_with("rx_queue_"))
        .filter_map(|line| line.split_once("_xdp_drops: "))
        .filter_map(|(_, count)| count.parse::<u64>().ok())
        .peekable();
    found
        .peek()
        .with_context(|| format!("xdp_drops in:\n{statistics}"))?;
    Ok(found.sum())
}

/// xdp-filter in deny mode, as full as its maps get. It pins below a fixed path, so it and its pins
/// live in a mount namespace.
fn filter(lab: &Lab) -> Result<Process> {
    let hex =
        |bytes: &[u8]| -> String { bytes.iter().map(|byte| format!(" {byte:02x}")).collect() };
    let mut updates = String::new();
    // Destinations.
    let value = hex(&2u64.to_ne_bytes());
    for number in 0..FILTERED {
        for family in [Family::V4, Family::V6] {
            let (map, key) = match names::granted(family, number) {
                std::net::IpAddr::V4(address) => ("filter_ipv4", hex(&address.octets())),
                std::net::IpAddr::V6(address) => ("filter_ipv6", hex(&address.octets())),
            };
            updates += &format!(
                "map update pinned /sys/fs/bpf/xdp-filter/{map} key hex{key} value hex{value}\n"
            );
        }
    }
    let batch = lab.dir().join("filter.batch");
    std::fs::write(&batch, updates)?;
    let script = format!(
        "mount -t bpf bpf /sys/fs/bpf && xdp-filter load -m native -p deny -f ipv4,ipv6 {DOOR} && \
         bpftool batch file {} >/dev/null && echo loaded && exec sleep infinity",
        batch.display()
    );
    let mut command = Command::new("unshare");
    command.args(["--mount", "sh", "-c", &script]);
    let mut process = Process::start(&lab.gateway, "xdp-filter", &mut command, lab.dir())?;
    until(Duration::from_secs(60), "xdp-filter is loaded", || {
        process.alive()?;
        let log = process.log()?;
        Ok(log.lines().any(|line| line == "loaded").then_some(()))
    })
    .with_context(|| process.words())?;
    Ok(process)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn drops_of_all_queues() {
        let text = "NIC statistics:\n     peer_ifindex: 2\n     rx_queue_0_xdp_packets: 9\n     \
                    rx_queue_0_xdp_drops: 7\n     rx_queue_1_xdp_drops: 5\n     tx_queue_0_xdp_xmit: 4\n";
        assert_eq!(drops(text).unwrap(), 12);
        assert!(drops("NIC statistics:\n").is_err());
    }
}
