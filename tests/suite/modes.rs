//! Audit mode lets everything pass, and tells.

use crate::bench::{Bench, DATA, NEVER, SURE, WEB, World, datagram, fails, host, passes, zone};
use crate::{Body, Test, Verdict};
use anyhow::{Context, Result};
use egressd_tests::lab::{Zone, until};

pub(crate) const TESTS: &[Test] = &[("audit_lets_pass_and_reports", Body::Daemon(audit))];

fn audit(bench: &Bench) -> Result<Verdict> {
    let world = World::new(&Zone::default())?;
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
    bench.reload(&daemon, &zone("mode = \"enforce\"", rules))?;
    fails(client, there, NEVER)?;
    Ok(Verdict::Held)
}
