//! Floods: whoever wants everything, the others get what they ask for.

use crate::bench::{Bench, DATA, SURE, WEB, World, datagram, fails, host, learn, passes, question};
use crate::{Body, Test, Verdict};
use anyhow::{Context, Result, ensure};
use egressd_tests::lab::{
    Daemon, Zone, allow_sockets, ask_madly, ask_politely, hold_slowly, plan, until,
};
use hickory_proto::op::ResponseCode;
use std::net::{IpAddr, SocketAddr};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::scope;
use std::time::Duration;

pub(crate) const TESTS: &[Test] = &[
    ("d13_slow_connections_keep_nobody_out", Body::Daemon(slow)),
    ("d13_one_client_floods", Body::Daemon(mad)),
    ("d7_new_addresses_have_caps", Body::Daemon(caps)),
];

const NAME: &str = "www.vendor.example";

fn rules(limits: &str) -> String {
    format!(
        "[limits]\n{limits}\n\n[[zone]]\nname = \"managed\"\ninterfaces = [\"lan0\"]\n\
         sources = [\"10.20.0.0/16\", \"2001:db8:20::/48\"]\n\
         [[zone.rule]]\nnames = [\"*.vendor.example\"]\nnetworks = [\"52.200.0.0/24\"]\n\
         tcp = [{WEB}]\nudp = [{DATA}]\n"
    )
}

fn server() -> SocketAddr {
    SocketAddr::new(plan::GATEWAY[0], 53)
}

/// Addresses of the client beside its own.
fn others(world: &World, count: u8) -> Result<Vec<IpAddr>> {
    let others: Vec<_> = (0..count).map(|n| IpAddr::from([10, 20, 1, n])).collect();
    let lines = others.iter().map(|a| format!("addr add {a}/16 dev eth0\n"));
    world.lab.client.ip(&lines.collect::<String>())?;
    Ok(others)
}

fn log_holds(daemon: &Daemon<'_>, words: &[&str]) -> Result<()> {
    until(SURE, &format!("a line with {words:?}"), || {
        let log = daemon.log()?;
        let found = log
            .lines()
            .any(|line| words.iter().all(|w| line.contains(w)));
        Ok(found.then_some(()))
    })
}

fn slow(bench: &Bench) -> Result<Verdict> {
    let mut names = Zone::default();
    names.address(NAME, 600, host(1, 1));
    let world = World::new(&names)?;
    let _daemon = bench.daemon(&world.lab, &rules("connections = 64"))?;
    let sources = others(&world, 100)?;
    allow_sockets(1000)?;
    let (opened, stop) = (AtomicU64::new(0), AtomicBool::new(false));
    scope(|scope| -> Result<()> {
        let many = scope.spawn(|| {
            let client = &world.lab.client;
            client.enter(|| hold_slowly(server(), &sources, 500, &opened, &stop))?
        });
        let one = (|| {
            until(SURE, "all slow connections were opened once", || {
                Ok((opened.load(Ordering::Relaxed) >= 500).then_some(()))
            })?;
            let (pause, time) = (Duration::from_millis(20), Duration::from_secs(2));
            ask_politely(&world.lab.client, server(), NAME, pause, time, true)
        })();
        stop.store(true, Ordering::Relaxed);
        let held = many.join().expect("it does not panic");
        let [over_udp, over_tcp] = one?;
        held?;
        for fared in [over_udp, over_tcp] {
            ensure!(
                fared.asked > 10 && fared.lost == 0,
                "{} of {} lost: {:?}",
                fared.lost,
                fared.asked,
                fared.why
            );
        }
        Ok(())
    })?;
    Ok(Verdict::Held)
}

fn mad(bench: &Bench) -> Result<Verdict> {
    let mut names = Zone::default();
    names.address(NAME, 600, host(1, 1));
    let world = World::new(&names)?;
    let daemon = bench.daemon(&world.lab, &rules("questions = 500"))?;
    let sources = others(&world, 1)?;
    let stop = AtomicBool::new(false);
    scope(|scope| -> Result<()> {
        let flood = scope.spawn(|| {
            let client = &world.lab.client;
            client.enter(|| ask_madly(server(), sources[0], NAME, 5000, &stop))?
        });
        let (pause, time) = (Duration::from_millis(20), Duration::from_secs(2));
        let one = ask_politely(&world.lab.client, server(), NAME, pause, time, false);
        stop.store(true, Ordering::Relaxed);
        let sent = flood.join().expect("it does not panic")?;
        let [fared, _] = one?;
        ensure!(sent > 2000, "the flood was none: {sent}");
        ensure!(
            fared.asked > 10 && fared.lost == 0,
            "{} of {} lost: {:?}",
            fared.lost,
            fared.asked,
            fared.why
        );
        Ok(())
    })?;
    log_holds(&daemon, &["asks more questions", &sources[0].to_string()])?;
    let log = daemon.log()?;
    let lines = log
        .lines()
        .filter(|line| line.contains("asks more questions"));
    ensure!(lines.count() == 1, "one line a minute:\n{log}");
    Ok(Verdict::Held)
}

fn caps(bench: &Bench) -> Result<Verdict> {
    let mut names = Zone::default();
    for number in 0..100u8 {
        names.address(&format!("n{number}.vendor.example"), 600, host(2, number));
    }
    names.address(NAME, 600, host(1, 1));
    let world = World::new(&names)?;
    let client = &world.lab.client;
    // By zone.
    let mut daemon = bench.daemon(
        &world.lab,
        &rules("per_zone = 10\nlearned = 100\nper_client = 1000"),
    )?;
    learn(client, NAME, host(1, 1))?;
    let learned = (0..100u8)
        .map(|n| question(client, &format!("n{n}.vendor.example")))
        .collect::<Result<Vec<_>>>()?;
    let good = learned.iter().filter(|a| a.code == ResponseCode::NoError);
    ensure!(good.count() == 9, "{learned:?}");
    let refused = learned.iter().filter(|a| a.code == ResponseCode::ServFail);
    ensure!(refused.count() == 91, "{learned:?}");
    // What was granted before, and what is granted as a network, is as it was.
    learn(client, NAME, host(1, 1))?;
    passes(client, host(1, 1), WEB)?;
    datagram(client, IpAddr::from([52, 200, 0, 9]), DATA, true)?;
    fails(client, host(2, 99), WEB)?;
    let own = plan::CLIENT[0].to_string();
    log_holds(&daemon, &["per_zone", "managed", &own, "vendor.example"])?;
    let status = daemon.ctl(&["status"])?;
    let warnings = status.json["warnings"].to_string();
    ensure!(warnings.contains("per_zone"), "{warnings}");
    daemon.kill()?;
    drop(daemon);
    // By client and second.
    std::fs::remove_dir_all(world.lab.dir().join("state"))?;
    let daemon = bench.daemon(&world.lab, &rules("per_client = 3"))?;
    until(SURE, "a client adds too much within a second", || {
        let mut refused = 0;
        for number in 0..100u8 {
            let answer = question(client, &format!("n{number}.vendor.example"))?;
            refused += usize::from(answer.code == ResponseCode::ServFail);
        }
        Ok((refused > 0).then_some(()))
    })?;
    log_holds(&daemon, &["per_client", "managed", &own])?;
    // A later second has room, and what is known needs none.
    until(SURE, "the next second's share", || {
        Ok(learn(client, NAME, host(1, 1)).ok())
    })
    .context("after the flood")?;
    Ok(Verdict::Held)
}
