//! Programs that people use ask egressd: dig, kdig, the C library's stub, curl.
#![expect(clippy::disallowed_methods, reason = "shell: runs clients")]

use crate::bench::{Bench, SURE, host, host6, zone};
use crate::{Body, Test, Verdict};
use anyhow::{Context, Result, ensure};
use egressd_tests::lab::{Authority, Lab, Web, Zone, plan, until};
use std::process::Command;

pub(crate) const TESTS: &[Test] = &[
    ("dig_and_kdig_are_answered", Body::Daemon(diggers)),
    ("stub_and_curl_work", Body::Daemon(stub)),
];

const NAME: &str = "www.vendor.example";
const RULES: &[(&str, &[u16], &[u16])] = &[("*.vendor.example", &[80], &[])];

fn names() -> Zone {
    let mut names = Zone::default();
    names
        .alias(NAME, 60, "edge.cdn.example.net")
        .address("edge.cdn.example.net", 60, host(30, 1))
        .address("edge.cdn.example.net", 60, host6(30, 1));
    for number in 1..=120 {
        names.address("many.vendor.example", 60, host(31, number));
    }
    names
}

/// Each way to ask, twice: from the upstream, and from the cache.
fn diggers(bench: &Bench) -> Result<Verdict> {
    let lab = Lab::new()?;
    let _authority = Authority::start(&lab, &names())?;
    let _daemon = bench.daemon(&lab, &zone("", RULES))?;
    let [v4, v6] = [host(30, 1), host6(30, 1)].map(|address| address.to_string());
    let ways: [(&str, &[&str]); 13] = [
        ("dig", &[]),
        ("dig", &["+tcp"]),
        ("dig", &["+noedns"]),
        ("dig", &["+nocookie", "+bufsize=512"]),
        ("dig", &["+dnssec"]),
        ("dig", &["+cdflag", "+adflag"]),
        ("dig", &["+subnet=192.0.2.0/24"]),
        ("kdig", &[]),
        ("kdig", &["+tcp"]),
        ("kdig", &["+tcp", "+keepopen"]),
        ("kdig", &["+subnet=192.0.2.0/24"]),
        ("kdig", &["+padding=128", "+nsid"]),
        ("kdig", &["+dnssec", "+bufsize=4096"]),
    ];
    for (program, options) in ways {
        for server in plan::GATEWAY {
            for _ in 0..2 {
                let mut command = Command::new(program);
                command.arg(format!("@{server}")).args(options);
                command.args(["+short", NAME, "A", NAME, "AAAA"]);
                let said = lab.client.output(&mut command)?;
                ensure!(
                    said.contains(&v4) && said.contains(&v6),
                    "{program} {options:?} at {server} says:\n{said}"
                );
            }
        }
    }
    // More than fits into a datagram: the client comes back over TCP by itself.
    let mut command = Command::new("dig");
    command.arg(format!("@{}", plan::GATEWAY[0]));
    command.args(["+short", "many.vendor.example", "A"]);
    let said = lab.client.output(&mut command)?;
    let told = said.lines().filter(|line| line.starts_with("52.")).count();
    ensure!(
        told == 120 || said.lines().count() == 120,
        "many addresses:\n{said}"
    );
    // egressd itself does not speak these; whoever else does is not granted (D15).
    for way in ["+tls", "+https"] {
        for server in [plan::GATEWAY[0], plan::STRANGERS[0]] {
            let mut command = Command::new("kdig");
            command.arg(format!("@{server}"));
            command.args([way, "+timeout=1", "+retry=0", "+short", NAME, "A"]);
            let said = lab.client.output(&mut command).unwrap_or_default();
            ensure!(!said.contains(&v4), "kdig {way} at {server} says:\n{said}");
        }
    }
    Ok(Verdict::Held)
}

/// The C library asks whom resolv.conf names, and curl connects to what it says.
fn stub(bench: &Bench) -> Result<Verdict> {
    let lab = Lab::new()?;
    let _authority = Authority::start(&lab, &names())?;
    let _web = Web::start(&lab)?;
    let _daemon = bench.daemon(&lab, &zone("", RULES))?;
    let resolv = lab.dir().join("resolv.conf");
    std::fs::write(&resolv, format!("nameserver {}\n", plan::GATEWAY[0]))?;
    // A mount namespace of its own, so that only this program sees the file.
    let with = |line: &str| {
        let mut command = Command::new("unshare");
        let script = format!(
            "mount --bind {} /etc/resolv.conf && {line}",
            resolv.display()
        );
        command.args(["--mount", "sh", "-c", &script]);
        command
    };
    let said = lab
        .client
        .output(&mut with(&format!("getent ahosts {NAME}")))?;
    for address in [host(30, 1), host6(30, 1)] {
        ensure!(said.contains(&address.to_string()), "getent says:\n{said}");
    }
    let curl = format!("curl --silent --show-error --max-time 5 http://{NAME}/");
    let said = until(SURE, "curl gets its page", || {
        Ok(lab.client.output(&mut with(&curl)).ok())
    })
    .context("curl")?;
    ensure!(said.starts_with(NAME), "curl gets:\n{said}");
    let denied = lab
        .client
        .output(&mut with("getent ahosts www.other.example"));
    ensure!(denied.is_err(), "an unlisted name resolves:\n{denied:?}");
    Ok(Verdict::Held)
}
