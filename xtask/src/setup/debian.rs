//! Debian packages: only those that are missing, and no service of theirs is started.

use crate::shell::{as_root, command, exists, on_path, run, say, succeeds};
use anyhow::{Context, Result, bail};
use std::collections::BTreeSet;

/// What packages are for.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Group {
    /// Compiling the daemon.
    Build,
    /// The compiler and library source for the kernel programs.
    Kernel,
    /// The demo and the namespace tests.
    Lab,
    /// The peers and the load of the bench, beside [`Group::Lab`].
    Bench,
}

impl Group {
    fn packages(self) -> &'static [&'static str] {
        match self {
            Self::Build => &[
                "gcc",
                "libc6-dev",
                "libmnl-dev",
                "libnftnl-dev",
                "pkg-config",
            ],
            Self::Kernel => &["rust-web-src", "rustc-web"],
            Self::Lab => &[
                "bind9-dnsutils",
                "conntrack",
                "curl",
                "dnsmasq-base",
                "iproute2",
                "iputils-ping",
                "knot",
                "knot-dnsutils",
                "knot-resolver",
                "nftables",
                "nginx-light",
                "nsd",
                "openssl",
                "unbound",
            ],
            Self::Bench => &[
                "bpftool",
                "dnsmasq-base",
                "dnsperf",
                "ethtool",
                "unbound",
                "xdp-tools",
            ],
        }
    }
}

/// Sees to it that every package of `groups` is there.
///
/// # Errors
/// When one is missing and cannot be installed; says which.
pub(crate) fn packages(groups: &[Group]) -> Result<()> {
    let wanted: Vec<&str> = groups
        .iter()
        .flat_map(|group| group.packages())
        .copied()
        .collect();
    install(&wanted)
}

/// Sees to it that `wanted` are installed.
///
/// # Errors
/// When one is missing and cannot be installed; says which.
pub(crate) fn install(wanted: &[&str]) -> Result<()> {
    if on_path("dpkg-query").is_none() || on_path("apt-get").is_none() {
        say(format!(
            "not a Debian system: it must have what these packages hold: {}",
            wanted.join(" ")
        ));
        return Ok(());
    }
    let missing = missing(wanted)?;
    if missing.is_empty() {
        return Ok(());
    }
    let missing: Vec<&str> = missing.into_iter().collect();
    say(format!("installing Debian packages: {}", missing.join(" ")));
    if !attempt(&missing)? {
        say("refreshing the package lists");
        run(as_root("apt-get", "refreshing the package lists")?.args(["-q", "update"]))?;
        if !attempt(&missing)? {
            bail!(
                "cannot install {}; try `apt-get install {0}` by hand",
                missing.join(" ")
            );
        }
    }
    Ok(())
}

fn missing<'a>(wanted: &[&'a str]) -> Result<BTreeSet<&'a str>> {
    let mut query = command("dpkg-query");
    // It fails when it does not know one of them, and tells the others all the same.
    let listed = query
        .args(["-W", "-f", "${Package} ${db:Status-Status}\\n"])
        .args(wanted);
    let output = listed.output().context("start dpkg-query")?;
    let known = String::from_utf8_lossy(&output.stdout);
    let there = installed(&known);
    Ok(wanted
        .iter()
        .copied()
        .filter(|package| !there.contains(package))
        .collect())
}

fn installed(listing: &str) -> BTreeSet<&str> {
    listing
        .lines()
        .filter_map(|line| line.strip_suffix(" installed"))
        .collect()
}

/// `--no-remove`: another Rust compiler that Debian installed is somebody's; better to fail.
fn attempt(packages: &[&str]) -> Result<bool> {
    // The lab starts its own; a service would shadow the developer's servers.
    let services = if exists("/run/systemd/system") {
        services(packages)
    } else {
        Vec::new()
    };
    systemctl(&services, &["--runtime", "mask"])?;
    let mut env = as_root("env", "installing packages")?;
    env.args([
        "DEBIAN_FRONTEND=noninteractive",
        "apt-get",
        "install",
        "-q",
        "-y",
    ]);
    env.args(["--no-install-recommends", "--no-remove"])
        .args(packages);
    let done = succeeds(&mut env);
    systemctl(&services, &["--runtime", "unmask"])?;
    if matches!(done, Ok(true)) {
        systemctl(&services, &["disable"])?;
    }
    done
}

fn services(packages: &[&str]) -> Vec<&'static str> {
    const OF: [(&str, &str); 2] = [("nginx-light", "nginx"), ("nsd", "nsd")];
    OF.into_iter()
        .filter(|(package, _)| packages.contains(package))
        .map(|(_, unit)| unit)
        .collect()
}

fn systemctl(services: &[&str], verb: &[&str]) -> Result<()> {
    if services.is_empty() {
        return Ok(());
    }
    let mut systemctl = as_root("systemctl", "keeping services from starting")?;
    run(systemctl.arg("--quiet").args(verb).args(services))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_installed_ones_are_there() {
        let listing =
            "nsd installed\nnginx-light not-installed\ncurl installed\nunbound config-files\n";
        assert_eq!(installed(listing), BTreeSet::from(["curl", "nsd"]));
    }
}
