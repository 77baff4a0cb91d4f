//! Revocation: what was learned ends at an operator's word, exactly that, and at once.
#![expect(
    clippy::disallowed_methods,
    reason = "shell: breaks the state directory, measures time"
)]

use crate::bench::{ALT, Bench, SURE, WEB, World, dies, fails, flow, host, learn, passes, zone};
use crate::{Body, Test, Verdict};
use anyhow::{Result, ensure};
use egressd_tests::lab::{Daemon, Zone, until};
use std::time::{Duration, Instant};

pub(crate) const TESTS: &[Test] = &[
    ("revoked_is_closed_and_cut", Body::Daemon(revoked)),
    ("an_exception_opens_and_ends", Body::Daemon(exception)),
    ("an_exception_survives_a_kill", Body::Daemon(survives)),
    (
        "a_broken_state_directory_is_said_and_closed",
        Body::Daemon(broken_state),
    ),
];

/// From an operator's word to the end of live flows.
const CUT: Duration = Duration::from_secs(1);

fn names() -> Zone {
    let mut names = Zone::default();
    names
        .address("a.vendor.example", 600, host(30, 1))
        .address("b.vendor.example", 600, host(30, 1))
        .address("b.vendor.example", 600, host(30, 2))
        .address("x.c.vendor.example", 600, host(30, 3))
        .address("new.other.example", 600, host(31, 1));
    names
}

/// An `egressctl` call that must succeed.
fn does(daemon: &Daemon<'_>, args: &[&str]) -> Result<serde_json::Value> {
    let outcome = daemon.ctl(args)?;
    ensure!(
        outcome.status.success(),
        "{args:?}: {}\n{}",
        outcome.text,
        daemon.words()
    );
    Ok(outcome.json)
}

fn revoked(bench: &Bench) -> Result<Verdict> {
    let world = World::new(&names())?;
    let rules = zone(
        "",
        &[
            ("a.vendor.example", &[ALT], &[]),
            ("b.vendor.example", &[WEB], &[]),
            ("*.c.vendor.example", &[WEB], &[]),
        ],
    );
    let mut daemon = bench.daemon(&world.lab, &rules)?;
    let client = &world.lab.client;
    learn(client, "a.vendor.example", host(30, 1))?;
    learn(client, "b.vendor.example", host(30, 2))?;
    learn(client, "x.c.vendor.example", host(30, 3))?;
    // To one address, by two names on a port each: one of the names is revoked.
    let mut stays = flow(client, host(30, 1), ALT)?;
    let mut goes = flow(client, host(30, 1), WEB)?;
    let mut goes_too = flow(client, host(30, 2), WEB)?;
    let mut other = flow(client, host(30, 3), WEB)?;
    let begun = Instant::now();
    let told = does(
        &daemon,
        &["revoke", "b.vendor.example", "--zone", "managed"],
    )?;
    ensure!(told["addresses"] == 2 && told["closed"] == 2, "{told}");
    let took = begun.elapsed();
    ensure!(took < CUT, "the call took {took:?}");
    if bench.planes.nft() {
        ensure!(told["cut"] == 2, "{told}");
    }
    dies(&mut goes, SURE)?;
    dies(&mut goes_too, SURE)?;
    fails(client, host(30, 1), WEB)?;
    fails(client, host(30, 2), WEB)?;
    passes(client, host(30, 1), ALT)?;
    ensure!(
        stays.echoes(SURE),
        "a flow that another name grants was cut"
    );
    ensure!(other.echoes(SURE), "a flow of another name was cut");
    // What another name taught by the same address is not gone, and asking again teaches again.
    learn(client, "b.vendor.example", host(30, 2))?;
    passes(client, host(30, 2), WEB)?;

    let told = does(&daemon, &["revoke", "52.96.30.0/24"])?;
    ensure!(told["addresses"] == 3, "{told}");
    fails(client, host(30, 3), WEB)?;
    dies(&mut other, SURE)?;
    // Also over a crash, at once.
    daemon.kill()?;
    fails(client, host(30, 3), WEB)?;
    daemon.restart()?;
    let grants = daemon.ctl(&["grants"])?.text;
    ensure!(!grants.contains("x.c.vendor.example"), "{grants}");
    let nothing = does(&daemon, &["revoke", "203.0.113.9"])?;
    ensure!(nothing["addresses"] == 0, "{nothing}");
    let bad = daemon.ctl(&["revoke", "a b"])?;
    ensure!(
        !bad.status.success() && bad.text.contains("neither"),
        "{}",
        bad.text
    );
    let bad = daemon.ctl(&["revoke", "a.example", "--zone", "nosuch"])?;
    ensure!(
        !bad.status.success() && bad.text.contains("managed"),
        "{}",
        bad.text
    );
    Ok(Verdict::Held)
}

fn allow(daemon: &Daemon<'_>, what: &str, ports: &str, time: &str) -> Result<serde_json::Value> {
    let args = [
        "allow",
        what,
        ports,
        "--zone",
        "managed",
        "--for",
        time,
        "--reason",
        "locked out",
    ];
    does(daemon, &args)
}

fn exception(bench: &Bench) -> Result<Verdict> {
    let world = World::new(&names())?;
    let daemon = bench.daemon(&world.lab, &zone("", &[("a.vendor.example", &[WEB], &[])]))?;
    let client = &world.lab.client;
    learn(client, "a.vendor.example", host(30, 1))?;
    let mut old = flow(client, host(30, 1), WEB)?;
    fails(client, host(40, 7), WEB)?;

    let name = allow(&daemon, "*.other.example", "443,9000/udp", "1h")?;
    ensure!(name["exception"]["id"] == 1, "{name}");
    ensure!(
        name["notes"].as_array().is_some_and(Vec::is_empty),
        "{name}"
    );
    learn(client, "new.other.example", host(31, 1))?;
    passes(client, host(31, 1), WEB)?;
    let net = allow(&daemon, "52.96.40.0/24", "443", "11s")?;
    ensure!(
        net["exception"]["ends"]
            .as_u64()
            .is_some_and(|left| left <= 11),
        "{net}"
    );
    passes(client, host(40, 7), WEB)?;
    fails(client, host(40, 7), ALT)?;
    let mut short = flow(client, host(40, 7), WEB)?;

    // Visible everywhere, with whose word it is.
    for (args, word) in [
        (
            &["status"][..],
            "exception 2: zone managed may reach 52.96.40.0/24",
        ),
        (&["status"], "uid 0, locked out"),
        (&["zones"], "egressctl allow/1"),
        (&["grants"], "egressctl allow/2"),
        (
            &["explain", "new.other.example", "443"],
            "egressctl allow/1",
        ),
        (&["explain", "52.96.40.7", "443"], "egressctl allow/2"),
        (&["allow", "--list"], "locked out"),
    ] {
        let text = daemon.ctl(args)?.text;
        ensure!(
            text.contains(word),
            "{args:?} does not say `{word}`: {text}"
        );
    }
    ensure!(
        daemon.log()?.contains("allowed on"),
        "not logged:\n{}",
        daemon.words()
    );
    for (what, word) in [
        ("192.168.0.0/16", "special-purpose"),
        ("0.0.0.0/0", "too wide"),
        ("*.com", "far too much"),
    ] {
        let args = [
            "allow", what, "443", "--zone", "managed", "--for", "1h", "--reason", "r",
        ];
        let bad = daemon.ctl(&args)?;
        ensure!(
            !bad.status.success() && bad.text.contains(word),
            "{what}: {}",
            bad.text
        );
    }

    // A reload leaves it, its time ends it.
    bench.reload(&daemon, &zone("", &[("a.vendor.example", &[WEB], &[])]))?;
    passes(client, host(31, 1), WEB)?;
    until(
        Duration::from_secs(20),
        "the short exception is over",
        || {
            let list = daemon.ctl(&["allow", "--list"])?.text;
            Ok((!list.contains("52.96.40.0/24")).then_some(()))
        },
    )?;
    dies(&mut short, SURE)?;
    fails(client, host(40, 7), WEB)?;
    passes(client, host(31, 1), WEB)?;
    does(&daemon, &["disallow", "1"])?;
    fails(client, host(31, 1), WEB)?;
    ensure!(old.echoes(SURE), "a flow of a rule was cut");
    let twice = daemon.ctl(&["disallow", "1"])?;
    ensure!(!twice.status.success(), "{}", twice.text);
    Ok(Verdict::Held)
}

/// Killed as soon as the call has answered.
fn survives(bench: &Bench) -> Result<Verdict> {
    let world = World::new(&names())?;
    let mut daemon = bench.daemon(&world.lab, &zone("", &[("a.vendor.example", &[WEB], &[])]))?;
    let client = &world.lab.client;
    for round in 0..5u8 {
        let net = format!("52.96.{}.0/24", 40 + round);
        allow(&daemon, &net, "443", "1h")?;
        daemon.kill()?;
        passes(client, host(40 + round, 7), WEB)?;
        daemon.restart()?;
        for earlier in 0..=round {
            passes(client, host(40 + earlier, 7), WEB)?;
        }
    }
    does(&daemon, &["disallow", "3"])?;
    daemon.kill()?;
    daemon.restart()?;
    fails(client, host(42, 7), WEB)?;
    passes(client, host(43, 7), WEB)?;
    let last = allow(&daemon, "52.96.60.0/24", "443", "1h")?;
    ensure!(
        last["exception"]["id"] == 6,
        "numbers are never given twice: {last}"
    );
    Ok(Verdict::Held)
}

/// Damaged, of another version, without room, no directory at all: it starts without, says so, stays
/// closed, learns, and saves once it can.
fn broken_state(bench: &Bench) -> Result<Verdict> {
    let world = World::new(&names())?;
    let rules = zone("", &[("a.vendor.example", &[WEB], &[])]);
    let mut daemon = bench.daemon(&world.lab, &rules)?;
    let client = &world.lab.client;
    let state = world.lab.dir().join("state");
    let file = state.join("state.json");
    let kinds: [(&str, Option<&str>); 5] = [
        ("cut", Some("checksum")),
        ("newer", Some("version 9")),
        ("missing", None),
        ("full", Some("No space left")),
        ("no directory", Some("Not a directory")),
    ];
    for (kind, word) in kinds {
        learn(client, "a.vendor.example", host(30, 1))?;
        ensure!(daemon.terminate()?.success(), "{kind}");
        match kind {
            "cut" => {
                let bytes = std::fs::read(&file)?;
                std::fs::write(&file, &bytes[..bytes.len() / 2])?;
            }
            "newer" => std::fs::write(&file, "{\"version\":9}\n")?,
            "missing" => std::fs::remove_dir_all(&state)?,
            "full" => {
                for draft in ["state.json.new", "journal"] {
                    let _absent = std::fs::remove_file(state.join(draft));
                    std::os::unix::fs::symlink("/dev/full", state.join(draft))?;
                }
            }
            _ => {
                std::fs::remove_dir_all(&state)?;
                std::fs::write(&state, "")?;
            }
        }
        daemon.restart()?;
        fails(client, host(30, 9), WEB)?;
        learn(client, "a.vendor.example", host(30, 1))?;
        passes(client, host(30, 1), WEB)?;
        if let Some(word) = word {
            until(SURE, &format!("{kind}: the log says `{word}`"), || {
                Ok(daemon.log()?.contains(word).then_some(()))
            })?;
        }
        if kind == "full" {
            until(SURE, "the status says so", || {
                Ok(daemon
                    .ctl(&["status"])?
                    .text
                    .contains("No space left")
                    .then_some(()))
            })?;
            // A new page may have been begun.
            for draft in ["state.json.new", "journal", "journal.old"] {
                let _absent = std::fs::remove_file(state.join(draft));
            }
        }
        if kind == "no directory" {
            std::fs::remove_file(&state)?;
        }
        until(
            Duration::from_secs(20),
            &format!("{kind}: it saves again"),
            || {
                let well = !daemon.ctl(&["status"])?.text.contains("not kept");
                Ok((well && file.exists()).then_some(()))
            },
        )?;
    }
    Ok(Verdict::Held)
}
