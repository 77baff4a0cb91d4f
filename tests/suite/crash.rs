//! The daemon goes, the policy stays.

use crate::bench::{Bench, NEVER, SURE, WEB, World, fails, flow, host, host6, learn, passes, zone};
use crate::{Body, Test, Verdict};
use anyhow::{Result, ensure};
use egressd_tests::lab::{Daemon, Flow, Namespace, Zone};

pub(crate) const TESTS: &[Test] = &[
    ("sigkill_leaves_rules_in_force", Body::Daemon(killed)),
    ("sigterm_leaves_rules_in_force", Body::Daemon(terminated)),
];

fn killed(bench: &Bench) -> Result<Verdict> {
    gone(bench, |daemon| daemon.kill())
}

fn terminated(bench: &Bench) -> Result<Verdict> {
    gone(bench, |daemon| {
        let status = daemon.terminate()?;
        ensure!(status.success(), "SIGTERM: {status}\n{}", daemon.words());
        Ok(())
    })
}

fn gone(bench: &Bench, end: impl Fn(&mut Daemon<'_>) -> Result<()>) -> Result<Verdict> {
    let mut names = Zone::default();
    names.address("a.vendor.example", 600, host(13, 1)).address(
        "b.vendor.example",
        600,
        host(13, 3),
    );
    let world = World::new(&names)?;
    let mut daemon = bench.daemon(&world.lab, &zone("", &[("*.vendor.example", &[WEB], &[])]))?;
    let client = &world.lab.client;
    learn(client, "a.vendor.example", host(13, 1))?;
    let mut old = flow(client, host(13, 1), WEB)?;

    for round in 0..2 {
        end(&mut daemon)?;
        holds(client, &mut old)?;
        daemon.restart()?;
        holds(client, &mut old)?;
        if round == 0 {
            learn(client, "b.vendor.example", host(13, 3))?;
        }
        passes(client, host(13, 3), WEB)?;
    }
    Ok(Verdict::Held)
}

/// Granted stays granted, denied stays denied, the old flow goes on.
fn holds(client: &Namespace, old: &mut Flow) -> Result<()> {
    ensure!(old.echoes(SURE), "an established flow stopped");
    passes(client, host(13, 1), WEB)?;
    fails(client, host(13, 1), NEVER)?;
    fails(client, host(13, 2), WEB)?;
    fails(client, host6(13, 2), WEB)
}
