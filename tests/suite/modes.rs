//! Audit mode lets everything pass, and tells.

use crate::bench::{
    Bench, DATA, NEVER, SURE, WEB, World, datagram, fails, host, learn, passes, question, zone,
};
use crate::{Body, Test, Verdict};
use anyhow::{Context, Result, ensure};
use egressd_tests::lab::{Zone, until};
use hickory_proto::op::ResponseCode;

pub(crate) const TESTS: &[Test] = &[("audit_lets_pass_and_reports", Body::Daemon(audit))];

fn audit(bench: &Bench) -> Result<Verdict> {
    const UNLISTED: &str = "www.other.example";
    let mut names = Zone::default();
    names.address(UNLISTED, 60, host(8, 2));
    let world = World::new(&names)?;
    let rules: &[(&str, &[u16], &[u16])] = &[("*.vendor.example", &[WEB], &[])];
    let daemon = bench.daemon(&world.lab, &zone("mode = \"audit\"", rules))?;
    let watch = daemon.watch()?;
    let client = &world.lab.client;
    let there = host(8, 1);
    // The watcher may not be there yet when the first packet is: try until it tells.
    until(SURE * 4, "the watcher is told of the packet", || {
        passes(client, there, NEVER)?;
        datagram(client, there, DATA, true)?;
        Ok(watch.log()?.contains(&there.to_string()).then_some(()))
    })
    .with_context(|| format!("{}\n{}", watch.words(), daemon.words()))?;
    // DNS refuses nothing either, and tells.
    learn(client, UNLISTED, host(8, 2))?;
    passes(client, host(8, 2), NEVER)?;
    until(SURE, "the watcher is told of the question", || {
        Ok(watch.log()?.contains(UNLISTED).then_some(()))
    })
    .with_context(|| format!("{}\n{}", watch.words(), daemon.words()))?;
    bench.reload(&daemon, &zone("mode = \"enforce\"", rules))?;
    fails(client, there, NEVER)?;
    let answer = question(client, UNLISTED)?;
    ensure!(answer.code == ResponseCode::Refused, "{answer:?}");
    fails(client, host(8, 2), NEVER)?;
    Ok(Verdict::Held)
}
