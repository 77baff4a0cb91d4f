//! Reload: all or nothing, and what was learned stays.

use crate::bench::{
    Bench, NEVER, SURE, WEB, World, dies, fails, flow, host, learn, passes, question, zone,
};
use crate::{Body, Test, Verdict};
use anyhow::{Result, ensure};
use egressd_tests::lab::Zone;
use hickory_proto::op::ResponseCode;
use std::time::Duration;

pub(crate) const TESTS: &[Test] = &[
    ("reload_keeps_and_cuts", Body::Daemon(keeps_and_cuts)),
    ("a_bad_configuration_is_refused", Body::Daemon(refused)),
];

fn keeps_and_cuts(bench: &Bench) -> Result<Verdict> {
    let mut names = Zone::default();
    names.address("a.vendor.example", 600, host(11, 1)).address(
        "b.vendor.example",
        600,
        host(11, 2),
    );
    let world = World::new(&names)?;
    let both = zone(
        "",
        &[
            ("a.vendor.example", &[WEB], &[]),
            ("b.vendor.example", &[WEB], &[]),
        ],
    );
    let daemon = bench.daemon(&world.lab, &both)?;
    let client = &world.lab.client;
    learn(client, "a.vendor.example", host(11, 1))?;
    learn(client, "b.vendor.example", host(11, 2))?;
    let mut kept = flow(client, host(11, 1), WEB)?;
    let mut lost = flow(client, host(11, 2), WEB)?;

    bench.reload(&daemon, &zone("", &[("a.vendor.example", &[WEB], &[])]))?;
    dies(&mut lost, Duration::from_secs(5))?;
    fails(client, host(11, 2), WEB)?;
    let answer = question(client, "b.vendor.example")?;
    ensure!(answer.code == ResponseCode::Refused, "{answer:?}");
    ensure!(kept.echoes(SURE), "the flow that is still granted was cut");
    // Learned before the reload, and not asked for again.
    passes(client, host(11, 1), WEB)?;

    bench.reload(&daemon, &both)?;
    learn(client, "b.vendor.example", host(11, 2))?;
    passes(client, host(11, 2), WEB)?;
    ensure!(kept.echoes(SURE), "the second reload cut a granted flow");
    Ok(Verdict::Held)
}

fn refused(bench: &Bench) -> Result<Verdict> {
    let mut names = Zone::default();
    names.address("a.vendor.example", 600, host(12, 1));
    let world = World::new(&names)?;
    let good = zone("", &[("a.vendor.example", &[WEB], &[])]);
    let daemon = bench.daemon(&world.lab, &good)?;
    let client = &world.lab.client;
    learn(client, "a.vendor.example", host(12, 1))?;
    for bad in [
        "[[zone]]\nname = ",
        "[[zone]]\nname = \"managed\"\ninterfaces = [\"lan0\"]\nalow = [\"intune\"]\n",
        "[[zone]]\nname = \"managed\"\ninterfaces = [\"lan0\"]\nallow = [\"nosuch\"]\n",
    ] {
        let outcome = daemon.reload(bench.planes, bad)?;
        ensure!(
            !outcome.status.success(),
            "accepted:\n{bad}\n{}",
            outcome.text
        );
        ensure!(
            outcome.text.contains("egressd.toml:"),
            "the refusal of {bad:?} does not say where: {}",
            outcome.text
        );
        passes(client, host(12, 1), WEB)?;
        fails(client, host(12, 1), NEVER)?;
        learn(client, "a.vendor.example", host(12, 1))?;
    }
    bench.reload(&daemon, &good)?;
    passes(client, host(12, 1), WEB)?;
    Ok(Verdict::Held)
}
