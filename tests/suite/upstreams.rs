//! Real resolvers as upstreams, over every transport they speak; and what bad certificates teach.
#![expect(
    clippy::disallowed_methods,
    reason = "shell: writes configurations and starts servers"
)]

use crate::bench::{Bench, SURE, WEB, World, fails, host, learn, passes, question, zone};
use crate::{Body, Test, Verdict};
use anyhow::{Context, Result, ensure};
use egressd_tests::lab::{Daemon, Lab, Process, Zone, ask, plan, tcp, until};
use hickory_proto::op::ResponseCode;
use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};
use std::net::SocketAddr;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

pub(crate) const TESTS: &[Test] = &[
    ("d1_real_upstreams_teach", Body::Daemon(real)),
    ("d1_bad_certificates_teach_nothing", Body::Daemon(bad)),
    ("upstreams_close_idle_connections", Body::Daemon(idle)),
];

const UNBOUND: &str = "192.0.2.54";
const KRESD: &str = "192.0.2.55";
const DNSMASQ: &str = "192.0.2.56";
const KNOT: &str = "192.0.2.57";
const LATE: &str = "192.0.2.58";
const NAME: &str = "dns.example";

/// What the machine lacks for these tests.
fn lacking() -> Option<Verdict> {
    let there = |name: &str| {
        ["/usr/sbin", "/usr/bin"]
            .iter()
            .any(|folder| Path::new(folder).join(name).exists())
    };
    let all = ["unbound", "kresd", "dnsmasq", "knotd"]
        .into_iter()
        .all(there);
    let why = "needs unbound, kresd, dnsmasq and knotd: run `cargo xtask test`";
    (!all).then_some(Verdict::NotPromised(why))
}

/// A certificate chain made for these tests, as files in the lab's folder.
fn certify(lab: &Lab, name: &str, until: i32) -> Result<()> {
    let dir = lab.dir();
    let mut params = CertificateParams::new(Vec::new())?;
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let key = KeyPair::generate()?;
    let authority = params.self_signed(&key)?;
    let issuer = Issuer::new(params, key);
    std::fs::write(dir.join(format!("{name}-ca.pem")), authority.pem())?;
    let addresses = [NAME, UNBOUND, KRESD, LATE].map(str::to_owned);
    let mut params = CertificateParams::new(addresses)?;
    params.not_after = rcgen::date_time_ymd(until, 12, 31);
    let key = KeyPair::generate()?;
    let certificate = params.signed_by(&key, &issuer)?;
    std::fs::write(dir.join(format!("{name}.pem")), certificate.pem())?;
    std::fs::write(dir.join(format!("{name}.key")), key.serialize_pem())?;
    Ok(())
}

/// Starts a server that listens on `address` and waits until it does.
fn serve(
    lab: &Lab,
    name: &str,
    address: &str,
    port: u16,
    command: &mut Command,
) -> Result<Process> {
    lab.internet.ip(&format!("addr add {address}/32 dev lo"))?;
    let mut process = Process::start(&lab.internet, name, command, lab.dir())?;
    let at = SocketAddr::new(address.parse()?, port);
    until(SURE * 4, &format!("{name} listens"), || {
        process.alive()?;
        Ok(tcp(&lab.internet, at, SURE)?.then_some(()))
    })
    .with_context(|| process.words())?;
    Ok(process)
}

fn unbound(lab: &Lab, address: &str, certificate: &str) -> Result<Process> {
    let dir = lab.dir();
    let at = dir.join(format!("unbound-{certificate}.conf"));
    let text = format!(
        "server:\n\
         interface: {address}@53\ninterface: {address}@853\ninterface: {address}@4443\n\
         tls-port: 853\nhttps-port: 4443\n\
         tls-service-key: \"{dir}/{certificate}.key\"\ntls-service-pem: \"{dir}/{certificate}.pem\"\n\
         access-control: 0.0.0.0/0 allow\nusername: \"\"\nchroot: \"\"\ndirectory: \"{dir}\"\n\
         pidfile: \"\"\nuse-syslog: no\nlogfile: \"\"\ndo-daemonize: no\nmodule-config: \"iterator\"\n\
         tcp-idle-timeout: 1000\nnum-threads: 1\n\
         stub-zone:\n name: \".\"\n stub-addr: {}\n stub-prime: no\n\
         remote-control:\n control-enable: no\n",
        plan::UPSTREAM,
        dir = dir.display(),
    );
    std::fs::write(&at, text)?;
    let mut command = Command::new("unbound");
    command.arg("-d").arg("-c").arg(at);
    serve(
        lab,
        &format!("unbound-{certificate}"),
        address,
        853,
        &mut command,
    )
}

fn kresd(lab: &Lab) -> Result<Process> {
    let dir = lab.dir().join("kresd");
    std::fs::create_dir_all(&dir)?;
    let at = dir.join("config.lua");
    let text = format!(
        "net.listen('{KRESD}', 53, {{ kind = 'dns' }})\n\
         net.tls('{certs}/good.pem', '{certs}/good.key')\n\
         net.listen('{KRESD}', 853, {{ kind = 'tls' }})\n\
         net.listen('{KRESD}', 4443, {{ kind = 'doh2' }})\n\
         cache.size = 10 * MB\ntrust_anchors.remove('.')\n\
         policy.add(policy.all(policy.STUB('{}')))\n",
        plan::UPSTREAM,
        certs = lab.dir().display(),
    );
    std::fs::write(&at, text)?;
    let mut command = Command::new("kresd");
    command.arg("-n").arg("-c").arg(at).arg(&dir);
    serve(lab, "kresd", KRESD, 853, &mut command)
}

fn dnsmasq(lab: &Lab) -> Result<Process> {
    let mut command = Command::new("dnsmasq");
    command.args(["-k", "-C", "/dev/null", "--bind-interfaces", "--no-resolv"]);
    command.args([
        "--no-hosts",
        "--user=root",
        "--pid-file",
        "--except-interface=lo",
    ]);
    command.arg(format!("--listen-address={DNSMASQ}"));
    command.arg(format!("--server={}", plan::UPSTREAM));
    serve(lab, "dnsmasq", DNSMASQ, 53, &mut command)
}

fn knotd(lab: &Lab) -> Result<Process> {
    let dir = lab.dir().join("knot");
    std::fs::create_dir_all(&dir)?;
    let zone = "vendor.example. 60 SOA ns.vendor.example. nobody.lab. 1 3600 600 86400 60\n\
                vendor.example. 60 NS ns.vendor.example.\nns.vendor.example. 60 A 192.0.2.57\n";
    let names = (0..32).map(|n| format!("n{n}.vendor.example. 60 A 52.96.9.{n}\n"));
    std::fs::write(
        dir.join("zone"),
        zone.to_owned() + &names.collect::<String>(),
    )?;
    let text = format!(
        "server:\n rundir: \"{dir}\"\n listen: {KNOT}@53\n\
         database:\n storage: \"{dir}\"\n\
         log:\n - target: stderr\n   any: info\n\
         zone:\n - domain: vendor.example\n   file: \"{dir}/zone\"\n",
        dir = dir.display()
    );
    let at = dir.join("knot.conf");
    std::fs::write(&at, text)?;
    let mut command = Command::new("knotd");
    command.arg("-c").arg(at);
    serve(lab, "knotd", KNOT, 53, &mut command)
}

/// A world whose names are `n0` to `n31.vendor.example`, each with an address of its own.
fn world() -> Result<World> {
    let mut names = Zone::default();
    for number in 0..32 {
        names.address(&name(number), 60, host(9, number));
    }
    let world = World::new(&names)?;
    certify(&world.lab, "good", 2099)?;
    Ok(world)
}

fn name(number: u8) -> String {
    format!("n{number}.vendor.example")
}

/// The configuration with other upstreams.
fn asking(bench: &Bench, lab: &Lab, upstream: &str, authority: Option<&str>) -> String {
    let own = format!("udp://{}", plan::UPSTREAM);
    let ca = authority.map(|name| format!("ca = \"{}/{name}-ca.pem\"\n", lab.dir().display()));
    let dns = format!("[dns]\n{}", ca.unwrap_or_default());
    Daemon::preamble(lab, bench.planes)
        .replace(&own, upstream)
        .replace("[dns]\n", &dns)
        + &zone("", &[("*.vendor.example", &[WEB], &[])])
}

fn ask_instead(daemon: &Daemon<'_>, config: &str) -> Result<()> {
    std::fs::write(daemon.config(), config)?;
    let outcome = daemon.ctl(&["reload"])?;
    ensure!(outcome.status.success(), "reload: {}", outcome.text);
    Ok(())
}

fn started<'a>(bench: &Bench, world: &'a World) -> Result<Daemon<'a>> {
    bench.daemon(&world.lab, &zone("", &[("*.vendor.example", &[WEB], &[])]))
}

fn real(bench: &Bench) -> Result<Verdict> {
    if let Some(lacking) = lacking() {
        return Ok(lacking);
    }
    let world = world()?;
    let (lab, client) = (&world.lab, &world.lab.client);
    let _servers = [
        unbound(lab, UNBOUND, "good")?,
        kresd(lab)?,
        dnsmasq(lab)?,
        knotd(lab)?,
    ];
    let daemon = started(bench, &world)?;
    let nsd = plan::UPSTREAM;
    let upstreams = [
        format!("tcp://{nsd}"),
        format!("udp://{UNBOUND}"),
        format!("tcp://{UNBOUND}"),
        format!("tls://{UNBOUND}#{NAME}"),
        format!("tls://{UNBOUND}"),
        format!("https://{UNBOUND}:4443/dns-query#{NAME}"),
        format!("udp://{KRESD}"),
        format!("tcp://{KRESD}"),
        format!("tls://{KRESD}#{NAME}"),
        format!("https://{KRESD}:4443#{NAME}"),
        format!("udp://{DNSMASQ}"),
        format!("tcp://{DNSMASQ}"),
        format!("udp://{KNOT}"),
        format!("tcp://{KNOT}"),
    ];
    for (number, upstream) in (0..).zip(&upstreams) {
        ask_instead(&daemon, &asking(bench, lab, upstream, Some("good")))?;
        let there = host(9, number);
        fails(client, there, WEB)?;
        learn(client, &name(number), there)
            .and_then(|()| passes(client, there, WEB))
            .with_context(|| format!("{upstream}\n{}", daemon.words()))?;
    }
    Ok(Verdict::Held)
}

fn bad(bench: &Bench) -> Result<Verdict> {
    if let Some(lacking) = lacking() {
        return Ok(lacking);
    }
    let world = world()?;
    let (lab, client) = (&world.lab, &world.lab.client);
    certify(lab, "late", 2001)?;
    certify(lab, "other", 2099)?;
    let _servers = [unbound(lab, UNBOUND, "good")?, unbound(lab, LATE, "late")?];
    let daemon = started(bench, &world)?;
    let cases = [
        (
            "#other.example",
            UNBOUND,
            Some("good"),
            "is not for `other.example`",
        ),
        (
            "#dns.example",
            UNBOUND,
            Some("other"),
            "nobody who is trusted",
        ),
        ("#dns.example", UNBOUND, None, "nobody who is trusted"),
        ("#dns.example", LATE, Some("late"), "has expired"),
    ];
    let mut number = 0;
    for (after, server, authority, why) in cases {
        for (scheme, port) in [("tls", 853), ("https", 4443)] {
            number += 1;
            let upstream = format!("{scheme}://{server}:{port}{after}");
            let before = daemon.log()?.matches(why).count();
            ask_instead(&daemon, &asking(bench, lab, &upstream, authority))?;
            let answer = question(client, &name(number))?;
            ensure!(
                answer.code == ResponseCode::ServFail && answer.addresses.is_empty(),
                "{upstream}: {answer:?}"
            );
            fails(client, host(9, number), WEB)?;
            let told = daemon.log()?.matches(why).count();
            ensure!(
                told > before,
                "{upstream} is not told of:\n{}",
                daemon.words()
            );
        }
    }
    Ok(Verdict::Held)
}

/// unbound closes a connection after a second without a question.
fn idle(bench: &Bench) -> Result<Verdict> {
    if let Some(lacking) = lacking() {
        return Ok(lacking);
    }
    let world = world()?;
    let (lab, client) = (&world.lab, &world.lab.client);
    let _server = unbound(lab, UNBOUND, "good")?;
    let daemon = started(bench, &world)?;
    let mut number = 0;
    let upstreams = [
        format!("tcp://{UNBOUND}"),
        format!("tls://{UNBOUND}#{NAME}"),
        format!("https://{UNBOUND}:4443#{NAME}"),
    ];
    for upstream in upstreams {
        ask_instead(&daemon, &asking(bench, lab, &upstream, Some("good")))?;
        // Around the moment in which it closes.
        for pause in [0, 980, 1000, 1020] {
            std::thread::sleep(Duration::from_millis(pause));
            number += 1;
            let server = SocketAddr::new(plan::GATEWAY[0], 53);
            let answer = ask(client, server, &name(number), SURE)?;
            ensure!(
                answer.addresses == [host(9, number)],
                "{upstream} after {pause} ms: {answer:?}\n{}",
                daemon.words()
            );
        }
    }
    ensure!(
        !daemon.log()?.contains("does not answer"),
        "{}",
        daemon.words()
    );
    Ok(Verdict::Held)
}
