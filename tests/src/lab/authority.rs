//! The internet's names: Debian's nsd, serving one zone that holds them all.
#![expect(
    clippy::disallowed_methods,
    reason = "shell: writes zone files and starts nsd"
)]

use super::{Lab, Process, ask, plan, until};
use anyhow::{Context, Result, bail};
use nix::sys::signal::Signal;
use std::fmt::Write;
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

/// One record.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Record {
    /// Its owner, without the final dot.
    pub owner: String,
    /// Seconds.
    pub ttl: u32,
    /// Type and value as a zone file writes them: `A 52.96.0.1`.
    pub data: String,
}

/// Every name of the toy internet, as the root zone: a chain of aliases never leaves it.
#[derive(Clone, Debug, Default)]
pub struct Zone {
    records: Vec<Record>,
}

impl Zone {
    /// Adds `owner` with one address; several calls add up.
    pub fn address(&mut self, owner: &str, ttl: u32, address: IpAddr) -> &mut Self {
        let data = match address {
            IpAddr::V4(address) => format!("A {address}"),
            IpAddr::V6(address) => format!("AAAA {address}"),
        };
        self.record(owner, ttl, data)
    }

    /// Adds `owner` as an alias of `target`.
    pub fn alias(&mut self, owner: &str, ttl: u32, target: &str) -> &mut Self {
        self.record(owner, ttl, format!("CNAME {target}."))
    }

    fn record(&mut self, owner: &str, ttl: u32, data: String) -> &mut Self {
        self.records.push(Record {
            owner: owner.to_owned(),
            ttl,
            data,
        });
        self
    }

    /// The zone file. The serial is also an address record, for those who wait for a change.
    fn text(&self, serial: u16) -> String {
        let [high, low] = serial.to_be_bytes();
        let mut text = format!(
            ". 60 IN SOA ns.lab. nobody.lab. {serial} 3600 600 86400 60\n. 60 IN NS ns.lab.\n\
             ns.lab. 60 IN A {}\n{SERIAL}. 0 IN A 52.0.{high}.{low}\n",
            plan::UPSTREAM
        );
        for Record { owner, ttl, data } in &self.records {
            writeln!(text, "{owner}. {ttl} IN {data}").expect("a String takes every write");
        }
        text
    }
}

const SERIAL: &str = "serial.lab";

/// A running nsd on [`plan::UPSTREAM`] and [`plan::STRANGERS`].
#[derive(Debug)]
pub struct Authority {
    process: Process,
    file: PathBuf,
    serial: u16,
}

impl Authority {
    /// Starts it in `lab`'s internet and waits for its first answer.
    ///
    /// # Errors
    /// When nsd is missing or refuses the zone.
    pub fn start(lab: &Lab, zone: &Zone) -> Result<Self> {
        let dir = lab.dir();
        let file = dir.join("zone");
        std::fs::write(&file, zone.text(1))?;
        let config = dir.join("nsd.conf");
        std::fs::write(&config, configuration(&dir.display().to_string()))?;
        let mut command = Command::new("nsd");
        command.arg("-d").arg("-c").arg(config);
        let process = Process::start(&lab.internet, "nsd", &mut command, dir)?;
        let mut authority = Self {
            process,
            file,
            serial: 1,
        };
        authority.wait(lab)?;
        Ok(authority)
    }

    /// Serves `zone` from now on, and returns once it does.
    ///
    /// # Errors
    /// When nsd refuses it.
    pub fn publish(&mut self, lab: &Lab, zone: &Zone) -> Result<()> {
        self.serial += 1;
        std::fs::write(&self.file, zone.text(self.serial))?;
        self.process.signal(Signal::SIGHUP)?;
        self.wait(lab)
    }

    /// Its last lines.
    #[must_use]
    pub fn words(&self) -> String {
        self.process.words()
    }

    fn wait(&mut self, lab: &Lab) -> Result<()> {
        let [high, low] = self.serial.to_be_bytes();
        let wanted = IpAddr::from([52, 0, high, low]);
        let server = SocketAddr::new(plan::UPSTREAM, 53);
        until(
            Duration::from_secs(20),
            "the authority serves the new zone",
            || {
                if let Err(ended) = self.process.alive() {
                    bail!(ended.context("the authority"));
                }
                let answer = ask(&lab.internet, server, SERIAL, Duration::from_millis(200));
                Ok(answer
                    .is_ok_and(|answer| answer.addresses.contains(&wanted))
                    .then_some(()))
            },
        )
        .with_context(|| self.process.words())
    }
}

/// One process, no rate limit, answers rotated.
fn configuration(dir: &str) -> String {
    let listen: String = [plan::UPSTREAM]
        .iter()
        .chain(&plan::STRANGERS)
        .map(|address| format!("  ip-address: {address}\n"))
        .collect();
    format!(
        "server:\n{listen}  server-count: 1\n  username: root\n  database: \"\"\n  zonesdir: \"{dir}\"\n  \
         pidfile: \"{dir}/nsd.pid\"\n  xfrdfile: \"{dir}/xfrd.state\"\n  xfrdir: \"{dir}\"\n  \
         zonelistfile: \"{dir}/zone.list\"\n  round-robin: yes\n  minimal-responses: yes\n  \
         rrl-ratelimit: 0\n  rrl-whitelist-ratelimit: 0\nremote-control:\n  control-enable: no\n\
         zone:\n  name: \".\"\n  zonefile: \"zone\"\n"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn zone_text() {
        let mut zone = Zone::default();
        zone.alias("a.example", 30, "b.example")
            .address("b.example", 60, "52.96.0.1".parse().unwrap())
            .address("b.example", 60, "2603:1000::1".parse().unwrap());
        let text = zone.text(258);
        assert!(text.contains("serial.lab. 0 IN A 52.0.1.2\n"), "{text}");
        assert!(
            text.ends_with(
                "a.example. 30 IN CNAME b.example.\nb.example. 60 IN A 52.96.0.1\n\
                 b.example. 60 IN AAAA 2603:1000::1\n"
            ),
            "{text}"
        );
    }
}
