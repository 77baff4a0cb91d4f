//! Clients that keep an address longer than its grant lasts are reported, with the grace they need.
#![expect(
    clippy::disallowed_methods,
    reason = "shell: measures how long it took"
)]

use crate::bench::{
    Bench, NEVER, WEB, World, datagram, fails, forgotten, host, learn, passes, zone,
};
use crate::{Body, Test, Verdict};
use anyhow::{Context, Result, ensure};
use egressd_tests::lab::{Daemon, Zone, until};
use serde_json::Value;
use std::time::{Duration, Instant};

pub(crate) const TESTS: &[Test] = &[("late_clients_are_reported", Body::Daemon(report))];

/// Grants end soon, but the grace is long enough to tell it from the time to live.
const LIMITS: &str = "[limits]\nttl_floor = 1\ngrace = 2\nidle = 1\n\n";
const GRACE: u64 = 2;

fn report(bench: &Bench) -> Result<Verdict> {
    let mut names = Zone::default();
    names.address("keeps.vendor.example", 1, host(9, 2));
    let world = World::new(&names)?;
    // A wildcard: an exact name egressd would look up by itself, and its grant would not end.
    let rules = zone("", &[("*.vendor.example", &[WEB], &[])]);
    let daemon = bench.daemon(&world.lab, &(LIMITS.to_owned() + &rules))?;
    let client = &world.lab.client;
    let nobody = list(&daemon)?;
    ensure!(nobody["names"] == Value::Array(Vec::new()), "{nobody}");
    let asked = Instant::now();
    learn(client, "keeps.vendor.example", host(9, 2))?;
    passes(client, host(9, 2), WEB)?;
    forgotten(&daemon, host(9, 2), Duration::from_secs(60))?;
    // Neither another port nor an address that was never granted is anybody's lateness.
    fails(client, host(9, 2), NEVER)?;
    fails(client, host(9, 3), WEB)?;
    datagram(client, host(9, 2), WEB, false)?;
    fails(client, host(9, 2), WEB)?;
    let took = asked.elapsed().as_secs() + 1;
    let told = until(Duration::from_secs(10), "the late client is told", || {
        let told = list(&daemon)?;
        Ok((told["packets"].as_u64() > Some(0)).then_some(told))
    })
    .with_context(|| daemon.words())?;
    let of = &told["names"][0];
    ensure!(
        told["names"].as_array().map(Vec::len) == Some(1)
            && of["name"] == "keeps.vendor.example"
            && of["zone"] == "managed"
            && of["clients"] == 1
            && told["grace"] == GRACE,
        "{told}"
    );
    let (Some(late), Some(grace)) = (of["max"].as_u64(), told["suggested_grace"].as_u64()) else {
        anyhow::bail!("no delay or no suggestion: {told}")
    };
    // Time to live and grace ended before it was late.
    ensure!(
        0 < late && late + GRACE < took,
        "{late} s of {took}: {told}"
    );
    ensure!(grace >= GRACE + late && grace % 60 == 0, "{told}");
    let text = daemon.told(&["late", "--zone", "managed"])?;
    ensure!(text.contains("suggested: grace = \""), "{text}");
    let unknown = daemon.ctl(&["late", "--zone", "nowhere"])?;
    ensure!(!unknown.status.success(), "{}", unknown.text);

    // With that grace the same client is not late at all.
    let longer = LIMITS.replace("grace = 2", &format!("grace = {grace}"));
    bench.reload(&daemon, &(longer + &rules))?;
    let fresh = list(&daemon)?;
    ensure!(fresh["names"] == Value::Array(Vec::new()), "{fresh}");
    learn(client, "keeps.vendor.example", host(9, 2))?;
    let waited = Instant::now();
    until(Duration::from_secs(took + 5), "as long as before", || {
        Ok((waited.elapsed().as_secs() >= took).then_some(()))
    })?;
    passes(client, host(9, 2), WEB)?;
    let fresh = list(&daemon)?;
    ensure!(fresh["packets"] == 0, "{fresh}");
    Ok(Verdict::Held)
}

fn list(daemon: &Daemon<'_>) -> Result<Value> {
    let outcome = daemon.ctl(&["late"])?;
    ensure!(outcome.status.success(), "{}", outcome.text);
    Ok(outcome.json)
}
