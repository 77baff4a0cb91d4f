//! Resolvers on the gateway that put what they answer into the kernel.
#![expect(
    clippy::disallowed_methods,
    reason = "shell: starts resolvers and removes their state"
)]

use super::measure::Family;
use super::names::DOMAIN;
use crate::lab::{Binaries, Daemon, Lab, Planes, Process, ask, plan, until};
use anyhow::{Context, Result};
use std::net::SocketAddr;
use std::process::Command;
use std::time::Duration;

/// A port that is granted with every name.
pub(super) const PORT: u16 = 9000;

/// egressd with the bench's names granted, knowing nothing yet.
///
/// # Errors
/// When it does not become ready.
pub(super) fn egressd<'a>(lab: &'a Lab, binaries: &Binaries, planes: Planes) -> Result<Daemon<'a>> {
    // What an earlier one learned. Absent before the first.
    let _absent = std::fs::remove_dir_all(lab.dir().join("state"));
    let _absent = std::fs::remove_dir_all(lab.pins());
    let zone = format!(
        "[[zone]]\nname = \"managed\"\ninterfaces = [\"lan0\"]\n\
         sources = [\"10.20.0.0/16\", \"2001:db8:20::/48\"]\nallow = [\"intune\"]\n\
         [[zone.rule]]\nnames = [\"*.{DOMAIN}\"]\nudp = [{PORT}]\n"
    );
    Daemon::start(lab, binaries, planes, &zone)
}

/// How many learned addresses egressd says are granted.
///
/// # Errors
/// When it cannot be asked.
pub(super) fn granted(daemon: &Daemon<'_>, family: Family) -> Result<u64> {
    let outcome = daemon.ctl(&["status"])?;
    let key = match family {
        Family::V4 => "ipv4",
        Family::V6 => "ipv6",
    };
    outcome.json["grants"][key]
        .as_u64()
        .with_context(|| format!("grants in the status:\n{}", outcome.text))
}

/// dnsmasq with `nftset`, and the table it fills.
#[derive(Debug)]
pub(super) struct Dnsmasq<'a> {
    lab: &'a Lab,
    process: Process,
}

/// Plain hash sets, as one would write them for dnsmasq by hand.
const TABLE: &str = "table inet bench {
    set v4 { type ipv4_addr; }
    set v6 { type ipv6_addr; }
    chain forward {
        type filter hook forward priority filter; policy drop;
        ct state established,related accept
        iifname wan0 accept
        udp dport 9000 ip daddr @v4 accept
        udp dport 9000 ip6 daddr @v6 accept
    }
}";

impl<'a> Dnsmasq<'a> {
    /// Starts it with empty sets.
    ///
    /// # Errors
    /// When it does not answer.
    pub(super) fn start(lab: &'a Lab) -> Result<Self> {
        lab.gateway.nft(&format!(
            "table inet bench\ndelete table inet bench\n{TABLE}"
        ))?;
        let gateway = plan::GATEWAY[0];
        let mut command = Command::new("dnsmasq");
        command
            .args([
                "--keep-in-foreground",
                "--conf-file=/dev/null",
                "--no-hosts",
            ])
            .args([
                "--no-resolv",
                "--user=root",
                "--pid-file=",
                "--bind-interfaces",
            ])
            // As it comes, with a small cache: a large one makes it four times slower at this.
            .arg(format!("--listen-address={gateway}"))
            .arg(format!("--server={}", plan::UPSTREAM))
            .arg(format!(
                "--nftset=/{DOMAIN}/4#inet#bench#v4,6#inet#bench#v6"
            ));
        let process = Process::start(&lab.gateway, "dnsmasq", &mut command, lab.dir())?;
        let mut dnsmasq = Self { lab, process };
        let server = SocketAddr::new(gateway, 53);
        let limit = Duration::from_millis(200);
        until(Duration::from_secs(10), "dnsmasq answers", || {
            dnsmasq.process.alive()?;
            Ok(ask(&lab.client, server, "serial.lab", limit).ok())
        })
        .with_context(|| dnsmasq.process.words())?;
        Ok(dnsmasq)
    }

    /// Its process id.
    pub(super) fn id(&self) -> u32 {
        self.process.id()
    }

    /// How many addresses its set holds.
    ///
    /// # Errors
    /// When nft cannot list it.
    pub(super) fn held(&self, family: Family) -> Result<u64> {
        let set = match family {
            Family::V4 => "v4",
            Family::V6 => "v6",
        };
        let mut list = Command::new("nft");
        list.args(["-j", "list", "set", "inet", "bench", set]);
        let listed: serde_json::Value = serde_json::from_str(&self.lab.gateway.output(&mut list)?)?;
        let items = listed["nftables"]
            .as_array()
            .context("nft prints an array")?;
        let elements = items.iter().find_map(|item| item["set"]["elem"].as_array());
        Ok(elements.map_or(0, |elements| elements.len() as u64))
    }
}

/// unbound with one thread; it enforces nothing.
#[derive(Debug)]
pub(super) struct Unbound {
    process: Process,
}

impl Unbound {
    /// Starts it with an empty cache.
    ///
    /// # Errors
    /// When it does not answer.
    pub(super) fn start(lab: &Lab) -> Result<Self> {
        let gateway = plan::GATEWAY[0];
        let config = lab.dir().join("unbound.conf");
        std::fs::write(
            &config,
            format!(
                "server:\n  interface: {gateway}\n  access-control: 0.0.0.0/0 allow\n  \
                 num-threads: 1\n  do-daemonize: no\n  use-syslog: no\n  chroot: \"\"\n  \
                 username: \"\"\n  pidfile: \"\"\n  directory: \"{}\"\n  \
                 module-config: \"iterator\"\nremote-control:\n  control-enable: no\n\
                 forward-zone:\n  name: \".\"\n  forward-addr: {}\n",
                lab.dir().display(),
                plan::UPSTREAM
            ),
        )?;
        let mut command = Command::new("unbound");
        command.arg("-c").arg(&config);
        let mut process = Process::start(&lab.gateway, "unbound", &mut command, lab.dir())?;
        let limit = Duration::from_millis(200);
        let server = SocketAddr::new(gateway, 53);
        until(Duration::from_secs(10), "unbound answers", || {
            process.alive()?;
            Ok(ask(&lab.client, server, "serial.lab", limit).ok())
        })
        .with_context(|| process.words())?;
        Ok(Self { process })
    }

    /// Its process id.
    pub(super) fn id(&self) -> u32 {
        self.process.id()
    }
}
