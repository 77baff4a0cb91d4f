//! The gateway without a daemon: locked before it, opened by nobody but root, kept ours over a kill.
#![expect(
    clippy::disallowed_methods,
    reason = "shell: starts egressd's commands"
)]

use crate::bench::{Bench, NEVER, SURE, WEB, World, fails, flow, host, learn, passes, zone};
use crate::{Body, Test, Verdict};
use anyhow::{Result, ensure};
use egressd_tests::lab::{Daemon, Lab, Planes, Zone, until};
use egressd_tests::soak::{boot, kept};
use std::os::unix::process::CommandExt as _;
use std::process::Command;

pub(crate) const TESTS: &[Test] = &[
    ("l1_nothing_passes_before_the_policy", Body::Daemon(booted)),
    ("l1_a_lockdown_is_static", Body::Daemon(locked)),
    (
        "l1_the_keeper_closes_what_nobody_keeps",
        Body::Daemon(unattended),
    ),
    (
        "l3_the_table_keeps_its_owner_over_kills",
        Body::Daemon(owned),
    ),
    ("l11_only_root_opens_what_is_stopped", Body::Daemon(opened)),
];

fn booted(bench: &Bench) -> Result<Verdict> {
    let seen = boot::run(bench.binaries(), bench.planes)?;
    ensure!(seen.router.arrived.iter().all(|n| *n > 200), "{seen:?}");
    ensure!(seen.locked.arrived == [0; 3], "{seen:?}");
    let [denied, older, granted] = seen.started.arrived;
    ensure!((denied, older) == (0, 0), "{seen:?}");
    ensure!(granted >= 300, "{seen:?}");
    println!(
        "0 of {:?} packets passed before the policy, 0 of {:?} after it, {granted} of {} granted ones",
        seen.locked.sent,
        &seen.started.sent[..2],
        seen.started.sent[2],
    );
    Ok(Verdict::Held)
}

fn owned(bench: &Bench) -> Result<Verdict> {
    if !bench.planes.nft() {
        return Ok(Verdict::NotPromised("there is no table"));
    }
    let seen = kept::run(bench.binaries(), bench.planes, 5)?;
    ensure!(seen.owners.len() == 6, "{seen:?}");
    ensure!(
        seen.owners.iter().all(|owner| *owner == seen.owners[0]),
        "{seen:?}"
    );
    ensure!(seen.attacks == [10, 0], "{seen:?}");
    let [granted, lost, denied, leaked] = seen.counts;
    ensure!(granted > 200 && denied > 200, "{seen:?}");
    ensure!((lost, leaked) == (0, 0), "{seen:?}");
    println!(
        "0 of {denied} leaked, 0 of {granted} lost, one owner over {} kills",
        seen.owners.len() - 1
    );
    Ok(Verdict::Held)
}

/// Runs one of egressd's commands in the gateway: whether it succeeded, and what it said.
fn command(bench: &Bench, lab: &Lab, args: &[&str], uid: Option<u32>) -> Result<(bool, String)> {
    let mut command = Command::new(bench.binaries().0.join("egressd"));
    command
        .args(args)
        .arg("--config")
        .arg(lab.dir().join("egressd.toml"));
    if let Some(uid) = uid {
        command.uid(uid);
    }
    let output = lab.gateway.enter(|| command.output())??;
    let text = String::from_utf8_lossy(&output.stdout).into_owned()
        + &String::from_utf8_lossy(&output.stderr);
    Ok((output.status.success(), text))
}

fn says(bench: &Bench, lab: &Lab, args: &[&str], succeeds: bool, word: &str) -> Result<()> {
    let (success, text) = command(bench, lab, args, None)?;
    ensure!(
        success == succeeds && text.contains(word),
        "{args:?}: {text}"
    );
    Ok(())
}

fn world() -> Result<World> {
    let mut names = Zone::default();
    names.address("a.vendor.example", 600, host(13, 1));
    World::new(&names)
}

const RULES: &[(&str, &[u16], &[u16])] = &[("*.vendor.example", &[WEB], &[])];

fn state(daemon: &Daemon<'_>) -> Result<String> {
    let status = daemon.ctl(&["status"])?;
    Ok(status.json["state"].as_str().unwrap_or_default().to_owned())
}

/// It closes beside a running daemon too, says so wherever one looks, and ends with the next start.
fn locked(bench: &Bench) -> Result<Verdict> {
    let world = world()?;
    let (lab, client) = (&world.lab, &world.lab.client);
    let mut daemon = bench.daemon(lab, &zone("", RULES))?;
    learn(client, "a.vendor.example", host(13, 1))?;
    let mut old = flow(client, host(13, 1), WEB)?;
    says(bench, lab, &["lockdown"], true, "egressd is running")?;
    ensure!(
        !old.echoes(crate::bench::TRY),
        "an established flow goes on"
    );
    fails(client, host(13, 1), WEB)?;
    says(bench, lab, &["lockdown"], true, "still dropped")?;
    ensure!(state(&daemon)? == "locked");
    let told = daemon.told(&["status"])?;
    ensure!(
        told.contains("LOCKED") && told.contains("by command"),
        "{told}"
    );
    // Whoever kills or stops the daemon opens nothing.
    daemon.kill()?;
    fails(client, host(13, 1), WEB)?;
    let told = daemon.told(&["status"])?;
    ensure!(
        told.contains("LOCKED") && told.contains("not running"),
        "{told}"
    );
    // The word of it is not believed against the kernel.
    let mut nft = Command::new("nft");
    nft.args(["delete", "table", "inet", "egressd_lockdown"]);
    lab.gateway.output(&mut nft)?;
    let told = daemon.told(&["status"])?;
    ensure!(
        told.contains("is gone") && !told.contains("LOCKED"),
        "{told}"
    );
    says(bench, lab, &["lockdown"], true, "locked: ")?;
    daemon.restart()?;
    passes(client, host(13, 1), WEB)?;
    fails(client, host(13, 1), NEVER)?;
    ensure!(state(&daemon)? == "enforcing");
    // A configuration that cannot be used closes everything.
    let config = Daemon::configure(lab, "nonsense")?;
    says(
        bench,
        lab,
        &["lockdown"],
        true,
        "everything that is forwarded",
    )?;
    fails(client, host(13, 1), WEB)?;
    fails(&lab.other, host(13, 1), WEB)?;
    std::fs::remove_file(config)?;
    says(bench, lab, &["lockdown"], true, "cannot be read")?;
    // Only its own table is the lockdown's.
    daemon.kill()?;
    fails(client, host(13, 1), WEB)?;
    Ok(Verdict::Held)
}

/// Signs of life, words of operators, and their absence.
fn unattended(bench: &Bench) -> Result<Verdict> {
    let world = world()?;
    let (lab, client) = (&world.lab, &world.lab.client);
    let with = |unattended: &str| {
        Daemon::preamble(lab, bench.planes).replace(
            "[service]\n",
            &format!("[service]\nunattended = \"{unattended}\"\n"),
        ) + &zone("", RULES)
    };
    let keeper =
        |succeeds, word| says(bench, lab, &["lockdown", "--if-unattended"], succeeds, word);
    let mut daemon = bench.daemon_with(lab, &with("5m"))?;
    let alive = lab.dir().join("alive.json");
    // It is written beside the work, soon after READY.
    let sign = until(SURE, "the daemon gives a sign of life", || {
        Ok(std::fs::read_to_string(&alive).ok())
    })?;
    keeper(true, "")?;
    learn(client, "a.vendor.example", host(13, 1))?;
    passes(client, host(13, 1), WEB)?;
    daemon.kill()?;
    keeper(true, "")?;
    passes(client, host(13, 1), WEB)?;
    // Long ago, in this run of the machine: this machine is up for longer than that.
    let mut stamp: serde_json::Value = serde_json::from_str(&sign)?;
    let now = stamp["at"].as_u64().unwrap_or_default();
    ensure!(now > 400_000, "the machine began a moment ago");
    stamp["at"] = (now - 400_000).into();
    std::fs::write(&alive, stamp.to_string())?;
    let config = Daemon::configure(lab, &with("never"))?;
    keeper(true, "never")?;
    passes(client, host(13, 1), WEB)?;
    std::fs::write(&config, with("5m"))?;
    keeper(true, "locked: ")?;
    fails(client, host(13, 1), WEB)?;
    // One that is alive is not locked out, whatever its signs say.
    daemon.restart()?;
    std::fs::write(&alive, stamp.to_string())?;
    keeper(true, "")?;
    passes(client, host(13, 1), WEB)?;
    daemon.kill()?;
    std::fs::write(&alive, stamp.to_string())?;
    keeper(true, "locked: ")?;
    fails(client, host(13, 1), WEB)?;
    // An operator's word counts from its own moment on.
    says(
        bench,
        lab,
        &["open", "--reason", "the night"],
        true,
        "open: ",
    )?;
    keeper(true, "")?;
    passes(client, host(13, 1), NEVER)?;
    daemon.restart()?;
    fails(client, host(13, 1), NEVER)?;
    passes(client, host(13, 1), WEB)?;
    Ok(Verdict::Held)
}

fn opened(bench: &Bench) -> Result<Verdict> {
    let world = world()?;
    let (lab, client) = (&world.lab, &world.lab.client);
    let mut daemon = bench.daemon(lab, &zone("", RULES))?;
    let open = ["open", "--reason", "locked out\u{e9}"];
    says(bench, lab, &open, false, "egressd is running")?;
    fails(client, host(13, 1), NEVER)?;
    if bench.planes.nft() {
        // Where the daemon's folder cannot be known, the table's owner tells.
        let config = lab.dir().join("egressd.toml");
        let text = std::fs::read_to_string(&config)?;
        let elsewhere = format!("socket = \"{}/x/control.sock\"", lab.dir().display());
        let here = format!("socket = \"{}/control.sock\"", lab.dir().display());
        std::fs::write(&config, text.replace(&here, &elsewhere))?;
        says(bench, lab, &open, false, "foreign-owned")?;
        fails(client, host(13, 1), NEVER)?;
        std::fs::write(&config, text)?;
    }
    daemon.terminate()?;
    says(bench, lab, &["open", "--reason", " "], false, "--reason")?;
    let (success, text) = command(bench, lab, &open, Some(65_534))?;
    ensure!(!success, "{text}");
    fails(client, host(13, 1), NEVER)?;
    says(bench, lab, &["lockdown"], true, "locked: ")?;
    says(bench, lab, &open, true, "open: ")?;
    passes(client, host(13, 1), NEVER)?;
    passes(client, host(13, 2), WEB)?;
    let seen = daemon.ctl(&["status"])?;
    ensure!(
        !seen.status.success() && seen.json["state"] == "open",
        "{}",
        seen.text
    );
    ensure!(seen.text.contains("locked out\u{e9}"), "{}", seen.text);
    let mut old = flow(client, host(13, 2), NEVER)?;
    // What the last policy granted is enforced again, and what began meanwhile ends.
    daemon.restart()?;
    fails(client, host(13, 1), NEVER)?;
    if bench.planes != Planes::Ebpf {
        ensure!(state(&daemon)? == "enforcing");
    }
    crate::bench::dies(&mut old, SURE * 2)?;
    let told = daemon.told(&["status"])?;
    ensure!(!told.contains("locked out"), "{told}");
    Ok(Verdict::Held)
}
