//! Proofs from the root down, by zones that knot signs: asked of it, and through unbound.
#![expect(
    clippy::disallowed_methods,
    reason = "shell: writes zones and starts servers"
)]

use crate::bench::{Bench, SURE, WEB, World, fails, host, learn, passes, question, zone};
use crate::{Body, Test, Verdict};
use anyhow::{Context, Result, ensure};
use egressd_tests::lab::{Daemon, Lab, Process, Zone, plan, tcp, until};
use hickory_proto::op::ResponseCode;
use std::net::SocketAddr;
use std::path::Path;
use std::process::Command;

pub(crate) const TESTS: &[Test] = &[("d1_only_what_is_proven_teaches", Body::Daemon(proven))];

const KNOT: &str = "192.0.2.57";
const UNBOUND: &str = "192.0.2.54";

/// Signed zones, how, and what delegates them: `bad` has the DS of `vendor`'s key.
const SIGNED: [(&str, &str); 4] = [
    (".", "rsa"),
    ("example.", "nsec3"),
    ("vendor.example.", "nsec3"),
    ("bad.example.", "nsec"),
];

fn run(config: &Path, args: &[&str]) -> Result<String> {
    let mut command = Command::new("keymgr");
    let output = command.arg("-c").arg(config).args(args).output()?;
    let words = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "keymgr {args:?}: {words}");
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

/// The DS records of `of`'s key, as of `owner`.
fn delegation(config: &Path, of: &str, owner: &str) -> Result<String> {
    let told = run(config, &[of, "ds"])?;
    let line = told
        .lines()
        .find(|line| line.contains(" 13 2 "))
        .with_context(|| format!("no DS for {of}: {told}"))?;
    let rest = line.split_once("DS ").context("a DS record")?.1;
    Ok(format!("{owner} 60 DS {rest}\n"))
}

/// Starts knot with a tree of zones; writes the root's key to `root.key`.
fn knot(lab: &Lab) -> Result<Process> {
    let dir = lab.dir().join("knot");
    std::fs::create_dir_all(&dir)?;
    let mut text = format!(
        "server:\n rundir: \"{dir}\"\n listen: {KNOT}@53\n\
         database:\n storage: \"{dir}\"\n\
         log:\n - target: stderr\n   any: info\npolicy:\n",
        dir = dir.display()
    );
    for (id, algorithm, nsec3) in [
        ("rsa", "rsasha256", "on"),
        ("nsec3", "ecdsap256sha256", "on"),
        ("nsec", "ecdsap256sha256", "off"),
    ] {
        text += &format!(
            " - id: {id}\n   algorithm: {algorithm}\n   single-type-signing: on\n   \
             cds-cdnskey-publish: none\n   nsec3: {nsec3}\n"
        );
    }
    text += "zone:\n - domain: plain.example.\n";
    text += &format!("   file: \"{}/plain.example.zone\"\n", dir.display());
    for (name, policy) in SIGNED {
        text += &format!(
            " - domain: {name}\n   file: \"{}/{name}zone\"\n   dnssec-signing: on\n   \
             dnssec-policy: {policy}\n   zonefile-load: difference-no-serial\n   \
             zonefile-sync: -1\n   journal-content: all\n",
            dir.display()
        );
    }
    let config = dir.join("knot.conf");
    std::fs::write(&config, text)?;
    for (name, policy) in SIGNED {
        let algorithm = if policy == "rsa" {
            "rsasha256"
        } else {
            "ecdsap256sha256"
        };
        let algorithm = format!("algorithm={algorithm}");
        run(
            &config,
            &[name, "generate", &algorithm, "ksk=yes", "zsk=yes"],
        )?;
    }
    let key = run(&config, &[".", "dnskey"])?.replacen("DNSKEY", "60 IN DNSKEY", 1);
    std::fs::write(lab.dir().join("root.key"), key)?;
    let head = |zone: &str| {
        format!(
            "{zone} 60 SOA ns.example. nobody.lab. 1 3600 600 86400 60\n{zone} 60 NS ns.example.\n"
        )
    };
    let write =
        |zone: &str, rest: &str| std::fs::write(dir.join(format!("{zone}zone")), head(zone) + rest);
    let top = delegation(&config, "example.", "example.")?;
    write(
        ".",
        &format!("example. 60 NS ns.example.\nns.example. 60 A {KNOT}\n{top}"),
    )?;
    let mut tree = format!("ns.example. 60 A {KNOT}\n");
    for zone in ["vendor.example.", "bad.example.", "plain.example."] {
        tree += &format!("{zone} 60 NS ns.example.\n");
    }
    tree += &delegation(&config, "vendor.example.", "vendor.example.")?;
    tree += &delegation(&config, "vendor.example.", "bad.example.")?;
    write("example.", &tree)?;
    let names = |zone: &str, third: u8| -> String {
        let names = (0..8).map(|n| format!("n{n}.{zone} 60 A 52.96.{third}.{n}\n"));
        names.collect()
    };
    let more = "*.w.vendor.example. 60 A 52.96.9.9\nalias.vendor.example. 60 CNAME n1.vendor.example.\n\
         out.vendor.example. 60 CNAME n2.plain.example.\n";
    write("vendor.example.", &(names("vendor.example.", 9) + more))?;
    write("bad.example.", &names("bad.example.", 10))?;
    write("plain.example.", &names("plain.example.", 11))?;
    let mut command = Command::new("knotd");
    command.arg("-c").arg(config);
    serve(lab, "knotd", KNOT, &mut command)
}

fn unbound(lab: &Lab) -> Result<Process> {
    let dir = lab.dir();
    let text = format!(
        "server:\n interface: {UNBOUND}\n access-control: 0.0.0.0/0 allow\n username: \"\"\n\
         chroot: \"\"\n directory: \"{dir}\"\n pidfile: \"\"\n use-syslog: no\n logfile: \"\"\n\
         do-daemonize: no\n module-config: \"iterator\"\n num-threads: 1\n\
         local-zone: \"example.\" nodefault\n\
         stub-zone:\n name: \".\"\n stub-addr: {KNOT}\n stub-prime: no\n\
         remote-control:\n control-enable: no\n",
        dir = dir.display(),
    );
    let at = dir.join("unbound.conf");
    std::fs::write(&at, text)?;
    let mut command = Command::new("unbound");
    command.arg("-d").arg("-c").arg(at);
    serve(lab, "unbound", UNBOUND, &mut command)
}

fn serve(lab: &Lab, name: &str, address: &str, command: &mut Command) -> Result<Process> {
    lab.internet.ip(&format!("addr add {address}/32 dev lo"))?;
    let mut process = Process::start(&lab.internet, name, command, lab.dir())?;
    let at = SocketAddr::new(address.parse()?, 53);
    until(SURE * 4, &format!("{name} listens"), || {
        process.alive()?;
        Ok(tcp(&lab.internet, at, SURE)?.then_some(()))
    })
    .with_context(|| process.words())?;
    Ok(process)
}

fn proven(bench: &Bench) -> Result<Verdict> {
    let there = |name: &str| Path::new("/usr/sbin").join(name).exists();
    if !["unbound", "knotd", "keymgr"].into_iter().all(there) {
        let why = "needs unbound and knotd with keymgr: run `cargo xtask test`";
        return Ok(Verdict::NotPromised(why));
    }
    let mut addresses = Zone::default();
    for third in 9..12 {
        for last in 0..10 {
            addresses.address("unused.lab", 60, host(third, last));
        }
    }
    let world = World::new(&addresses)?;
    let (lab, client) = (&world.lab, &world.lab.client);
    let _servers = [knot(lab)?, unbound(lab)?];
    for upstream in [KNOT, UNBOUND] {
        let own = format!("udp://{}", plan::UPSTREAM);
        let key = lab.dir().join("root.key");
        let dnssec = format!(
            "[dns]\ndnssec = true\ntrust_anchors = \"{}\"\n",
            key.display()
        );
        let names = ["*.vendor.example", "*.bad.example", "*.plain.example"];
        let sets = names.map(|name| (name, &[WEB][..], &[][..]));
        let text = Daemon::preamble(lab, bench.planes)
            .replace(&own, &format!("udp://{upstream}"))
            .replace("[dns]\n", &dnssec)
            + &zone("", &sets);
        let mut daemon = bench.daemon_with(lab, &text)?;
        let check = |name: &str, at| {
            learn(client, name, at)
                .and_then(|()| passes(client, at, WEB))
                .with_context(|| format!("{name} of {upstream}\n{}", daemon.words()))
        };
        for number in 0..4 {
            let answer = question(client, &format!("n{number}.bad.example"))?;
            ensure!(
                answer.code == ResponseCode::ServFail && answer.addresses.is_empty(),
                "{upstream}: {answer:?}"
            );
            fails(client, host(10, number), WEB)?;
        }
        check("n0.vendor.example", host(9, 0))?;
        check("alias.vendor.example", host(9, 1))?;
        check("x.w.vendor.example", host(9, 9))?;
        check("x.y.w.vendor.example", host(9, 9))?;
        check("n1.plain.example", host(11, 1))?;
        check("out.vendor.example", host(11, 2))?;
        for name in ["none.vendor.example", "a.n1.vendor.example"] {
            let answer = question(client, name)?;
            ensure!(answer.code == ResponseCode::NXDomain, "{name}: {answer:?}");
        }
        daemon.terminate()?;
    }
    Ok(Verdict::Held)
}
