//! A system with systemd as its first process and egressd's units as they are shipped, out of this machine's own
//! programs.

use super::Programs;
use super::image::Image;
use crate::shell::{bytes_of, capture, command, exists, on_path, root, text_of};
use anyhow::{Context, Result};
use std::path::{Path, PathBuf};

/// Where it lies until the machine's first process has a file system for it.
const SYSTEM: &str = "/system";

const UNITS: &str = "/lib/systemd/system";

/// Units of others that take part. Of targets there are all.
const OTHERS: &[&str] = &[
    "nftables.service",
    "systemd-journald-dev-log.socket",
    "systemd-journald.service",
    "systemd-journald.socket",
    "systemd-sysusers.service",
    "systemd-tmpfiles-setup.service",
];

/// Beside those that units start.
const TOOLS: &[&str] = &[
    "chown",
    "ip",
    "journalctl",
    "mount",
    "nft",
    "ping",
    "sh",
    "sleep",
    "sysctl",
    "systemctl",
    "umount",
];

/// Files of egressd, as the README installs them.
const SHIPPED: &[(&str, &str)] = &[
    (
        "config/sysusers.d/egressd.conf",
        "etc/sysusers.d/egressd.conf",
    ),
    (
        "config/tmpfiles.d/egressd.conf",
        "etc/tmpfiles.d/egressd.conf",
    ),
    (
        "config/systemd/egressd.service.d/old-kernel.conf",
        "etc/systemd/system/egressd.service.d/old-kernel.conf",
    ),
];

/// What a system has beside programs and units.
const FILES: &[(&str, &str)] = &[
    ("etc/passwd", "root:x:0:0::/root:/bin/sh\n"),
    ("etc/group", "root:x:0:\nsystemd-journal:x:101:\n"),
    ("etc/machine-id", "0123456789abcdef0123456789abcdef\n"),
    ("etc/os-release", "ID=debian\n"),
    ("etc/nftables.conf", "flush ruleset\n"),
    ("etc/egressd-boot", ""),
    (
        "etc/systemd/journald.conf.d/console.conf",
        "[Journal]\nStorage=volatile\nForwardToConsole=yes\n",
    ),
    (
        "etc/systemd/system/default.target",
        "[Unit]\nRequires=multi-user.target\nAfter=multi-user.target\nAllowIsolate=yes\n",
    ),
    (
        "etc/systemd/system/sysinit.target.d/wants.conf",
        "[Unit]\nWants=systemd-journald.service systemd-sysusers.service systemd-tmpfiles-setup.service\n",
    ),
    (
        "etc/systemd/system/systemd-sysusers.service.d/always.conf",
        "[Unit]\nConditionNeedsUpdate=\n",
    ),
    ("etc/systemd/system/boot.service", NETWORK),
    // The worst of all orders: the network is up long before the policy.
    (
        "etc/systemd/system/egressd.service.d/late.conf",
        "[Unit]\nAfter=boot.service\n[Service]\nExecStartPre=/usr/bin/sleep 2\n",
    ),
    ("etc/egressd/egressd.toml", CONFIGURATION),
    // As an operator would enable them.
    (
        "prepare",
        "export SYSTEMD_OFFLINE=1\n\
         units='boot.service nftables.service egressd.service'\n\
         for unit in egressd-lockdown.service egressd-keeper.timer; do\n\
         if [ -e /etc/systemd/system/$unit ]; then units=\"$units $unit\"; fi\n\
         done\n\
         systemctl enable $units\n",
    ),
];

/// The gateway's network: as early as any.
const NETWORK: &str = "[Unit]\n\
    DefaultDependencies=no\n\
    Wants=network-pre.target\n\
    After=network-pre.target\n\
    Before=network.target\n\
    [Service]\n\
    Type=notify\n\
    ExecStart=/tests/boot\n\
    TimeoutStartSec=5min\n\
    StandardOutput=tty\n\
    StandardError=tty\n\
    TTYPath=/dev/console\n\
    [Install]\n\
    WantedBy=multi-user.target\n";

const CONFIGURATION: &str = "[gateway]\n\
    upstream = [\"wan0\"]\n\
    internal = [\"10.0.0.0/8\", \"2001:db8::/32\"]\n\
    unzoned = \"drop\"\n\
    [dns]\n\
    listen = [\"10.20.0.1:53\"]\n\
    upstreams = [\"udp://192.0.2.53\"]\n\
    timeout = \"5s\"\n\
    hold = \"2s\"\n\
    [limits]\n\
    questions = 0\n\
    [[zone]]\n\
    name = \"managed\"\n\
    interfaces = [\"lan0\"]\n\
    sources = [\"10.20.0.0/16\"]\n\
    [[zone.rule]]\n\
    names = [\"*.vendor.example\"]\n\
    udp = [9000]\n\
    [[zone]]\n\
    name = \"guests\"\n\
    interfaces = [\"lan1\"]\n\
    sources = [\"10.30.0.0/16\"]\n\
    [[zone.rule]]\n\
    names = [\"*.guest.example\"]\n\
    udp = [9000]\n";

impl Programs {
    /// The system.
    ///
    /// # Errors
    /// When this machine lacks a part of it.
    pub(super) fn system(&self) -> Result<Image> {
        let mut system = System(Image::default());
        system.0.program(&self.guest, "/init")?;
        for (program, path) in [
            (&self.boot, "tests/boot"),
            (&self.daemon, "usr/bin/egressd"),
            (&self.client, "usr/bin/egressctl"),
        ] {
            system.program(program, path)?;
        }
        for tool in TOOLS {
            system.tool(tool)?;
        }
        // The shell of `/prepare` and of the first process.
        for path in ["bin/sh", "lib/systemd/systemd"] {
            system.program(&Path::new("/").join(path), path)?;
        }
        let targets =
            capture(command("find").args([UNITS, "-maxdepth", "1", "-name", "*.target"]))?;
        for target in targets.lines() {
            let path = Path::new(target);
            if !path.is_symlink() {
                system.unit(path)?;
            }
        }
        for unit in OTHERS {
            system.unit(&Path::new(UNITS).join(unit))?;
        }
        let ours =
            capture(command("find").args(["config/systemd", "-maxdepth", "1", "-type", "f"]))?;
        for unit in ours.lines() {
            system.file(
                &root().join(unit),
                &format!("etc/systemd/system/{}", file_name(unit)?),
            )?;
        }
        for (from, to) in SHIPPED {
            system.file(&root().join(from), to)?;
        }
        for (path, text) in FILES {
            system.0.add(below(path), text.as_bytes().to_vec());
        }
        Ok(system.0)
    }
}

struct System(Image);

impl System {
    fn program(&mut self, program: &Path, path: &str) -> Result<()> {
        self.0
            .program_below(Path::new(SYSTEM), program, below(path))
    }

    fn tool(&mut self, name: &str) -> Result<()> {
        let found = on_path(name).with_context(|| format!("this machine has no {name}"))?;
        // Where units name it.
        for path in ["usr/bin", "usr/sbin", "bin"] {
            self.program(&found, &format!("{path}/{name}"))?;
        }
        Ok(())
    }

    fn file(&mut self, from: &Path, to: &str) -> Result<()> {
        self.0.add(below(to), bytes_of(from)?);
        Ok(())
    }

    /// A unit of this machine's, with the program that it starts.
    fn unit(&mut self, path: &Path) -> Result<()> {
        let text =
            text_of(path).with_context(|| format!("this machine has no {}", path.display()))?;
        let started = text
            .lines()
            .find_map(|line| line.strip_prefix("ExecStart="));
        let program = started.and_then(|line| line.split(' ').next());
        match program.map(|word| word.trim_start_matches(['-', '+', '!', '@', ':'])) {
            Some(program) if program.starts_with('/') && exists(program) => {
                self.program(Path::new(program), program.trim_start_matches('/'))?;
            }
            Some(program) if !program.is_empty() && !program.starts_with('/') => {
                self.tool(program)?
            }
            Some(_) | None => {}
        }
        self.file(
            path,
            &format!(
                "{}/{}",
                UNITS.trim_start_matches('/'),
                file_name(&path.display().to_string())?
            ),
        )
    }
}

fn below(path: &str) -> PathBuf {
    Path::new(SYSTEM).join(path)
}

fn file_name(path: &str) -> Result<&str> {
    path.rsplit('/').next().context("a path has a last part")
}
