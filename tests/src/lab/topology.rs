//! Four namespaces and their links: two LANs of clients, the gateway, the internet.
#![expect(
    clippy::disallowed_methods,
    reason = "shell: builds namespaces and directories"
)]

use super::sweep::PREFIX;
use super::{Namespace, until};
use anyhow::{Context, Result};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;
use tempfile::TempDir;

/// Addresses of the lab. Those that egressd must learn are ordinary public ones: it refuses
/// documentation and private ranges in answers.
pub mod plan {
    use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

    /// The client in zone `managed`, behind `lan0`.
    pub const CLIENT: [IpAddr; 2] = [
        IpAddr::V4(Ipv4Addr::new(10, 20, 0, 2)),
        IpAddr::V6(Ipv6Addr::new(0x2001, 0xdb8, 0x20, 0, 0, 0, 0, 2)),
    ];
    /// The gateway as that client sees it: its router and resolver.
    pub const GATEWAY: [IpAddr; 2] = [
        IpAddr::V4(Ipv4Addr::new(10, 20, 0, 1)),
        IpAddr::V6(Ipv6Addr::new(0x2001, 0xdb8, 0x20, 0, 0, 0, 0, 1)),
    ];
    /// The client of the second LAN, behind `lan1`.
    pub const OTHER: [IpAddr; 2] = [
        IpAddr::V4(Ipv4Addr::new(10, 30, 0, 2)),
        IpAddr::V6(Ipv6Addr::new(0x2001, 0xdb8, 0x30, 0, 0, 0, 0, 2)),
    ];
    /// The gateway's address on `wan0`.
    pub const OUTSIDE: IpAddr = IpAddr::V4(Ipv4Addr::new(203, 0, 113, 1));
    /// The resolver the gateway asks.
    pub const UPSTREAM: IpAddr = IpAddr::V4(Ipv4Addr::new(192, 0, 2, 53));
    /// Other resolvers on the internet, which know everything and must not be reached.
    pub const STRANGERS: [IpAddr; 2] = [
        IpAddr::V4(Ipv4Addr::new(9, 9, 9, 9)),
        IpAddr::V6(Ipv6Addr::new(0x2620, 0xfe, 0, 0, 0, 0, 0, 0xfe)),
    ];
}

static COUNT: AtomicU32 = AtomicU32::new(0);

/// The namespaces, with forwarding on and nothing filtered. Every address that is not a client's or
/// the gateway's is the internet's own, so a packet that leaks always finds a host.
#[derive(Debug)]
pub struct Lab {
    /// Zone `managed`: interface `eth0`.
    pub client: Namespace,
    /// A second LAN: interface `eth0`.
    pub other: Namespace,
    /// `lan0`, `lan1`, `wan0`.
    pub gateway: Namespace,
    /// Interface `eth0`, and all addresses.
    pub internet: Namespace,
    pins: PathBuf,
    dir: TempDir,
}

impl Lab {
    /// Builds it, after [`super::sweep`]ing once.
    ///
    /// # Errors
    /// When this process may not make namespaces or a tool is missing.
    pub fn new() -> Result<Self> {
        let lab = Self::around(Namespace::new)?;
        let open = || {
            lab.wire()
                .and_then(|()| lab.open())
                .and_then(|()| lab.settle())
        };
        open().context("wire the lab")?;
        Ok(lab)
    }

    /// The same around this process's own namespace as the gateway, up to the moment before the gateway's
    /// interfaces come up: [`Lab::open`] does that.
    ///
    /// # Errors
    /// When this process may not make namespaces or a tool is missing.
    pub fn here() -> Result<Self> {
        // Not a name that is swept, which ends what lives in it.
        let named = format!("here-{}", std::process::id());
        let lab = Self::around(|_| Namespace::here(&named))?;
        lab.wire().context("wire the lab")?;
        Ok(lab)
    }

    /// The gateway's network comes up.
    ///
    /// # Errors
    /// With ip's own words.
    pub fn open(&self) -> Result<()> {
        self.gateway
            .ip("link set lan0 up\nlink set lan1 up\nlink set wan0 up")?;
        self.routes()
    }

    fn around(gateway: impl Fn(&str) -> Result<Namespace>) -> Result<Self> {
        let number = COUNT.fetch_add(1, Ordering::Relaxed);
        if number == 0 {
            super::sweep();
        }
        let id = format!("{PREFIX}{}-{number}", std::process::id());
        let named = |role: &str| Namespace::new(&format!("{id}-{role}"));
        Ok(Self {
            client: named("client")?,
            other: named("other")?,
            gateway: gateway(&format!("{id}-gateway"))?,
            internet: named("internet")?,
            pins: Path::new("/sys/fs/bpf").join(&id),
            dir: tempfile::Builder::new()
                .prefix(&format!("{id}-"))
                .tempdir()?,
        })
    }

    /// A directory for configurations and logs; gone with the lab.
    #[must_use]
    pub fn dir(&self) -> &Path {
        self.dir.path()
    }

    /// A directory on the bpf file system for pins; emptied with the lab.
    #[must_use]
    pub fn pins(&self) -> &Path {
        &self.pins
    }

    fn wire(&self) -> Result<()> {
        let [client, other, internet] =
            [&self.client, &self.other, &self.internet].map(Namespace::name);
        // Addresses come before the links are up: nothing waits for duplicate detection.
        self.gateway.ip(&format!(
            "link add lan0 type veth peer name eth0 netns {client}
             link add lan1 type veth peer name eth0 netns {other}
             link add wan0 type veth peer name eth0 netns {internet}
             addr add 10.20.0.1/16 dev lan0
             addr add 2001:db8:20::1/48 dev lan0 nodad
             addr add 10.30.0.1/16 dev lan1
             addr add 2001:db8:30::1/48 dev lan1 nodad
             addr add 203.0.113.1/30 dev wan0
             addr add 2001:db8:ffff::1/64 dev wan0 nodad"
        ))?;
        for key in ["net/ipv4/ip_forward", "net/ipv6/conf/all/forwarding"] {
            self.gateway.sysctl(key, "1")?;
        }
        // Servers bind to addresses that only the local routes below make theirs.
        self.internet.sysctl("net/ipv6/ip_nonlocal_bind", "1")?;
        for (namespace, net) in [(&self.client, 20), (&self.other, 30)] {
            namespace.ip(&format!(
                "addr add 10.{net}.0.2/16 dev eth0
                 addr add 2001:db8:{net}::2/48 dev eth0 nodad
                 link set eth0 up"
            ))?;
        }
        self.internet.ip("addr add 203.0.113.2/30 dev eth0
             addr add 2001:db8:ffff::2/64 dev eth0 nodad
             link set eth0 up")
    }

    /// Those of all, which need interfaces that are up.
    fn routes(&self) -> Result<()> {
        for (namespace, net) in [(&self.client, 20), (&self.other, 30)] {
            namespace.ip(&format!(
                "route add default via 10.{net}.0.1
                 route add default via 2001:db8:{net}::1"
            ))?;
        }
        self.internet.ip("route add 10.20.0.0/16 via 203.0.113.1
             route add 10.30.0.0/16 via 203.0.113.1
             route add 2001:db8:20::/48 via 2001:db8:ffff::1
             route add 2001:db8:30::/48 via 2001:db8:ffff::1
             route add local 0.0.0.0/0 dev lo table main
             route add local ::/0 dev lo table main")?;
        self.gateway
            .ip("route add default via 203.0.113.2\nroute add default via 2001:db8:ffff::2")
    }

    /// Waits until both clients reach the internet over both families.
    fn settle(&self) -> Result<()> {
        for namespace in [&self.client, &self.other] {
            for address in plan::STRANGERS {
                until(
                    Duration::from_secs(10),
                    "a ping through the gateway",
                    || {
                        let mut ping = std::process::Command::new("ping");
                        ping.args(["-c", "1", "-W", "1", "-q", &address.to_string()]);
                        Ok(namespace.output(&mut ping).ok())
                    },
                )?;
            }
        }
        Ok(())
    }
}

impl Drop for Lab {
    fn drop(&mut self) {
        // Absent when the ebpf plane was off.
        let _absent = std::fs::remove_dir_all(&self.pins);
    }
}
