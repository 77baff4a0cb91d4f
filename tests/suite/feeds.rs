//! Catalogues that are fetched: what is in force after each word of their server, and after none.
#![expect(clippy::disallowed_methods, reason = "shell: opens sockets")]

use crate::bench::{
    Bench, SURE, WEB, World, dies, fails, flow, host, learn, passes, question, zone,
};
use crate::{Body, Test, Verdict};
use anyhow::{Context, Result, ensure};
use egressd_tests::lab::{Daemon, Feed, Lab, Planes, Zone, ask_politely, plan, until};
use hickory_proto::op::ResponseCode;
use std::fs;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

pub(crate) const TESTS: &[Test] = &[
    ("a_catalogue_is_fetched", Body::Daemon(fetched)),
    (
        "what_a_server_says_wrongly_changes_nothing",
        Body::Daemon(wrong),
    ),
    (
        "the_last_good_catalogue_outlives_its_server",
        Body::Daemon(alone),
    ),
    (
        "a_local_zone_lets_catalogues_be_fetched",
        Body::Daemon(local),
    ),
    ("catalogue_files_are_watched", Body::Daemon(watched)),
    ("large_reloads_lose_no_answer", Body::Daemon(large)),
];

/// What comes before the planes needs one run.
const ONCE: Verdict = Verdict::NotPromised("the planes have no part in it: it runs with both");

const PORT: u16 = 8444;
const NAMES: [&str; 4] = ["a", "b", "c", "d"];

fn world() -> Result<World> {
    let mut names = Zone::default();
    names.address("feed.vendor.example", 600, host(40, 1));
    for (index, name) in (1..).zip(NAMES) {
        names.address(&format!("{name}.vendor.example"), 600, host(50, index));
    }
    World::new(&names)
}

fn name(one: &str) -> String {
    format!("{one}.vendor.example")
}

fn at(one: &str) -> std::net::IpAddr {
    let index = (1..).zip(NAMES).find(|(_, name)| *name == one);
    host(50, index.expect("one of them").0)
}

fn serve(lab: &Lab) -> Result<Feed> {
    Feed::start(
        &lab.internet,
        SocketAddr::new(host(40, 1), PORT),
        "feed.vendor.example",
        lab.dir(),
    )
}

/// A list of these names, and of ten that are always there.
fn list(version: &str, names: &[&str]) -> String {
    let others: Vec<String> = (0..10).map(|number| format!("other{number}")).collect();
    let others = others.iter().map(|one| &**one);
    only(
        version,
        &names.iter().copied().chain(others).collect::<Vec<_>>(),
    )
}

fn only(version: &str, names: &[&str]) -> String {
    let names: Vec<String> = names.iter().map(|one| format!("'{}'", name(one))).collect();
    format!(
        "name = 'v'\nversion = '{version}'\n[[set]]\nid = '1'\narea = 'x'\nnames = [{}]\ntcp = [{WEB}]\n",
        names.join(", ")
    )
}

fn configuration(feed: &Feed) -> String {
    zone("allow = [\"v\"]", &[])
        + &format!(
            "[[catalogue]]\nname = \"v\"\nurl = \"https://feed.vendor.example:{PORT}/v.toml\"\nca = \"{}\"\n",
            feed.authority().display()
        )
}

/// Insists that exactly these of [`NAMES`] may be reached.
fn open(lab: &Lab, names: &[&str]) -> Result<()> {
    for one in NAMES {
        let answer = question(&lab.client, &name(one))?;
        if names.contains(&one) {
            ensure!(answer.addresses == [at(one)], "{one}: {answer:?}");
            passes(&lab.client, at(one), WEB)?;
        } else {
            ensure!(answer.code == ResponseCode::Refused, "{one}: {answer:?}");
            fails(&lab.client, at(one), WEB)?;
        }
    }
    Ok(())
}

/// The same as far as answers tell it.
fn askable(lab: &Lab, names: &[&str]) -> Result<()> {
    for one in NAMES {
        let answer = question(&lab.client, &name(one))?;
        let open = answer.addresses == [at(one)];
        ensure!(open == names.contains(&one), "{one}: {answer:?}");
    }
    Ok(())
}

/// Waits for the first version.
fn had(daemon: &Daemon<'_>) -> Result<()> {
    until(SURE, "the catalogue came", || {
        let status = daemon.told(&["status"])?;
        Ok(status.contains("asked").then_some(()))
    })
}

fn says(daemon: &Daemon<'_>, arguments: &[&str], well: bool, expected: &str) -> Result<()> {
    let outcome = daemon.ctl(&[&["catalogue"], arguments].concat())?;
    ensure!(
        outcome.status.success() == well && outcome.text.contains(expected),
        "{arguments:?}: expected {expected:?}, got {}",
        outcome.text
    );
    Ok(())
}

fn fetched(bench: &Bench) -> Result<Verdict> {
    let world = world()?;
    let lab = &world.lab;
    let feed = serve(lab)?;
    feed.gives(&list("1", &["a", "b"]));
    let daemon = bench.daemon(lab, &configuration(&feed))?;
    had(&daemon)?;
    open(lab, &["a", "b"])?;
    let (mut kept, mut lost) = (
        flow(&lab.client, at("a"), WEB)?,
        flow(&lab.client, at("b"), WEB)?,
    );
    says(&daemon, &["update", "v"], true, "")?;

    // What is new is open at once, what is gone stays for a while.
    feed.gives(&list("2", &["a", "c"]));
    says(
        &daemon,
        &["update", "v"],
        true,
        "version 2 after 1: 1 added, 1 gone and held",
    )?;
    open(lab, &["a", "b", "c"])?;
    ensure!(lost.echoes(SURE), "what is held was cut");
    let status = daemon.told(&["status"])?;
    ensure!(status.contains("1 removals held"), "{status}");

    // Until somebody confirms.
    says(
        &daemon,
        &["confirm", "v", "z.vendor.example"],
        false,
        "is not held",
    )?;
    says(
        &daemon,
        &["confirm", "v", "b.vendor.example"],
        true,
        "1 entries are no longer held",
    )?;
    dies(&mut lost, SURE)?;
    open(lab, &["a", "c"])?;
    ensure!(kept.echoes(SURE), "a flow that is granted was cut");

    // Back, and back from what comes again.
    says(
        &daemon,
        &["rollback", "v"],
        true,
        "version 1 is in force again",
    )?;
    open(lab, &["a", "b"])?;
    says(
        &daemon,
        &["update"],
        true,
        "version 2 is what was rolled back from",
    )?;
    open(lab, &["a", "b"])?;
    feed.gives(&list("3", &["a", "c", "d"]));
    says(&daemon, &["update"], true, "version 3 after 1")?;
    open(lab, &["a", "b", "c", "d"])?;

    // Pinned, whatever comes.
    says(
        &daemon,
        &["pin", "v", "9"],
        false,
        "there is no version 9; there are: 3, 1",
    )?;
    says(&daemon, &["pin", "v", "1"], true, "version 1 is pinned")?;
    open(lab, &["a", "b"])?;
    feed.gives(&list("4", &["a", "c"]));
    says(&daemon, &["update", "--force"], true, "version 4")?;
    open(lab, &["a", "b"])?;
    says(&daemon, &["unpin", "v"], true, "no longer pinned")?;
    open(lab, &["a", "b", "c", "d"])?;
    says(&daemon, &["confirm", "v"], true, "")?;
    open(lab, &["a", "c"])?;
    ensure!(
        kept.echoes(SURE),
        "a flow that was granted all the time was cut"
    );
    says(
        &daemon,
        &["update", "w"],
        false,
        "`w` is not fetched; these are: v",
    )?;
    Ok(Verdict::Held)
}

fn wrong(bench: &Bench) -> Result<Verdict> {
    if bench.planes != Planes::Both {
        return Ok(ONCE);
    }
    let world = world()?;
    let lab = &world.lab;
    let feed = serve(lab)?;
    feed.gives(&only("1", &NAMES));
    let daemon = bench.daemon(lab, &configuration(&feed))?;
    had(&daemon)?;
    let head = |line: &str| format!("HTTP/1.1 {line}\r\nContent-Length: 0\r\n\r\n");
    let body = |text: &str| {
        format!(
            "HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{text}",
            text.len()
        )
    };
    let cut = format!(
        "HTTP/1.1 200 OK\r\nContent-Length: 999\r\n\r\n{}",
        only("2", &["a"])
    );
    let many = [
        (head("500 Internal Server Error"), "500"),
        (head("404 Not Found"), "404"),
        (head("429 Too Many Requests\r\nRetry-After: 60"), "429"),
        (
            head("302 Found\r\nLocation: http://feed.vendor.example/"),
            "leads elsewhere",
        ),
        (cut, "broke off"),
        (body(""), "no catalogue"),
        (body("<html><body>Sign in</body></html>"), ""),
        (body("name = 'v'\nversion = '2'\n"), ""),
        (body(&only("2", &["a"])), "version 2 lists 1 of the 4 names"),
        (body("name = 'v'\n[[set]]\nid = 1\n"), "no catalogue"),
        ("SSH-2.0-nobody\r\n".to_owned(), ""),
    ];
    let mut live = flow(
        &lab.client,
        {
            learn(&lab.client, &name("a"), at("a"))?;
            at("a")
        },
        WEB,
    )?;
    for (answer, expected) in &many {
        feed.says(answer);
        says(&daemon, &["update"], false, expected).with_context(|| answer.clone())?;
        let status = daemon.told(&["status"])?;
        ensure!(status.contains("the last attempt failed"), "{status}");
        askable(lab, &NAMES).with_context(|| format!("after {answer}"))?;
    }
    // An operator who means it.
    feed.gives(&only("2", &["a"]));
    says(&daemon, &["update", "--force"], true, "version 2 after 1")?;
    open(lab, &NAMES)?;
    ensure!(live.echoes(SURE), "a granted flow was cut");
    let status = daemon.told(&["status"])?;
    ensure!(!status.contains("the last attempt failed"), "{status}");
    println!(
        "{} wrong answers, nothing changed by any of them",
        many.len()
    );
    Ok(Verdict::Held)
}

/// A gateway that starts without the internet enforces what it had.
fn alone(bench: &Bench) -> Result<Verdict> {
    if bench.planes != Planes::Both {
        return Ok(ONCE);
    }
    let world = world()?;
    let lab = &world.lab;
    let feed = serve(lab)?;
    feed.says("HTTP/1.1 500 No\r\nContent-Length: 0\r\n\r\n");
    let mut daemon = bench.daemon(lab, &configuration(&feed))?;
    // Nothing came ever: nothing is open, and that is told.
    until(SURE, "the failure is told", || {
        let status = daemon.told(&["status"])?;
        Ok(status.contains("nothing yet").then_some(()))
    })?;
    open(lab, &[])?;
    feed.gives(&list("1", &["a", "b"]));
    says(&daemon, &["update"], true, "version 1")?;
    feed.gives(&list("2", &["a", "c"]));
    says(&daemon, &["update"], true, "version 2")?;
    open(lab, &["a", "b", "c"])?;
    let asked = feed.asked();
    drop(feed);
    for round in 0..2 {
        daemon.kill()?;
        passes(&lab.client, at("a"), WEB)?;
        daemon.restart()?;
        open(lab, &["a", "b", "c"]).with_context(|| format!("round {round}"))?;
        says(&daemon, &["update"], false, "connect to")?;
        askable(lab, &["a", "b", "c"])?;
    }
    ensure!(asked == 3, "a young list was asked for: {asked}");
    says(&daemon, &["rollback", "v"], true, "version 1")?;
    open(lab, &["a", "b"])?;
    Ok(Verdict::Held)
}

/// What the gateway itself sends is judged, and what it fetches is let through, and nothing else for that.
fn local(bench: &Bench) -> Result<Verdict> {
    if bench.planes == Planes::Ebpf {
        return Ok(Verdict::NotPromised(
            "without nft nobody knows which flows others began",
        ));
    }
    let world = world()?;
    let lab = &world.lab;
    let feed = serve(lab)?;
    feed.gives(&list("1", &["a", "b"]));
    let zones = "[[zone]]\nname = \"gateway\"\nlocal = true\n[[zone.rule]]\nnames = [\"d.vendor.example\"]\ntcp = [443]\n";
    let daemon = bench.daemon(lab, &(configuration(&feed) + zones))?;
    had(&daemon)?;
    open(lab, &["a", "b"])?;
    passes(&lab.gateway, host(40, 1), PORT)?;
    fails(&lab.gateway, host(40, 1), WEB)?;
    fails(&lab.gateway, at("a"), WEB)?;
    fails(&lab.client, host(40, 1), PORT)?;
    feed.gives(&list("2", &["a", "b", "c"]));
    says(&daemon, &["update"], true, "version 2")?;
    open(lab, &["a", "b", "c"])?;
    Ok(Verdict::Held)
}

/// Clients ask all the time while a large catalogue is read again. `EGRESSD_SETS` says how large.
fn large(bench: &Bench) -> Result<Verdict> {
    if bench.planes != Planes::Both {
        return Ok(ONCE);
    }
    const SETS: usize = 1000;
    const TIME: Duration = Duration::from_secs(6);
    let sets = match std::env::var("EGRESSD_SETS") {
        Ok(text) => text.parse()?,
        Err(_) => SETS,
    };
    let world = world()?;
    let lab = &world.lab;
    let write = |round: usize| {
        let mut text = only("1", &["a", "b"]);
        for set in 0..sets {
            let names: Vec<String> = (0..10)
                .map(|name| {
                    format!(
                        "'n{name}.s{set}.r{}.vendor.example'",
                        round % 2 * usize::from(set % 10 == 0)
                    )
                })
                .collect();
            text += &format!(
                "[[set]]\nid = 's{set}'\narea = 'x'\nnames = [{}]\nnetworks = ['52.97.{}.{}/32']\ntcp = [443]\n",
                names.join(", "),
                set / 256 % 256,
                set % 256
            );
        }
        fs::write(lab.dir().join("v.toml"), text)
    };
    write(0)?;
    let zones = zone("allow = [\"v\"]", &[]) + "[[catalogue]]\nname = \"v\"\nfile = \"v.toml\"\n";
    // Else every name of the catalogue would be asked for meanwhile.
    let head =
        Daemon::preamble(lab, bench.planes).replace("[dns]\n", "[dns]\nown_lookups = false\n");
    let daemon = bench.daemon_with(lab, &(head + &zones))?;
    let mut live = flow(
        &lab.client,
        {
            learn(&lab.client, &name("a"), at("a"))?;
            at("a")
        },
        WEB,
    )?;
    let to = SocketAddr::new(plan::GATEWAY[0], 53);
    let (fared, mut took) = std::thread::scope(|scope| -> Result<_> {
        let asking = scope.spawn(|| {
            ask_politely(
                &lab.client,
                to,
                &name("b"),
                Duration::from_millis(2),
                TIME,
                false,
            )
        });
        let (end, mut took) = (Instant::now() + TIME, Vec::new());
        while Instant::now() < end {
            write(took.len() + 1)?;
            let began = Instant::now();
            let outcome = daemon.ctl(&["reload"])?;
            ensure!(outcome.status.success(), "{}", outcome.text);
            took.push(began.elapsed());
        }
        let [fared, _] = asking.join().expect("it does not panic")?;
        Ok((fared, took))
    })?;
    took.sort_unstable();
    println!(
        "{sets} sets of 10 names: {} reloads, median {:?}; {} questions, {} lost, wait p99 {:?}, longest {:?}",
        took.len(),
        took[took.len() / 2],
        fared.asked,
        fared.lost,
        fared.quantile(990),
        fared.quantile(1000),
    );
    ensure!(
        fared.lost == 0,
        "{} of {} lost: {:?}",
        fared.lost,
        fared.asked,
        fared.why
    );
    ensure!(live.echoes(SURE), "a granted flow was cut");
    Ok(Verdict::Held)
}

fn watched(bench: &Bench) -> Result<Verdict> {
    if bench.planes != Planes::Both {
        return Ok(ONCE);
    }
    let world = world()?;
    let lab = &world.lab;
    let file = lab.dir().join("v.toml");
    fs::write(&file, only("1", &["a", "b"]))?;
    let config = zone("allow = [\"v\"]", &[])
        + &format!(
            "[[catalogue]]\nname = \"v\"\nfile = \"{}\"\n",
            file.display()
        );
    let daemon = bench.daemon(lab, &config)?;
    open(lab, &["a", "b"])?;
    let told = |what: &str| {
        until(SURE, what, || {
            Ok(daemon.log()?.contains(what).then_some(()))
        })
    };
    // In its place, as editors and configuration management do it.
    let draft = lab.dir().join("draft");
    fs::write(&draft, only("2", &["a", "b", "c"]))?;
    fs::rename(&draft, &file)?;
    told("files changed")?;
    open(lab, &["a", "b", "c"])?;
    // A broken one changes nothing, and says where.
    fs::write(
        &file,
        only("3", &["a", "b", "c"]).replace("[[set]]", "[[sat]]"),
    )?;
    told("v.toml:3")?;
    open(lab, &["a", "b", "c"])?;
    fs::write(&file, only("4", &["a"]))?;
    told("shrank")?;
    open(lab, &["a", "b", "c"])?;
    fs::write(&file, only("5", &["a", "b", "d"]))?;
    until(SURE, "the next one is taken", || {
        let answer = question(&lab.client, &name("d"))?;
        Ok((!answer.addresses.is_empty()).then_some(()))
    })?;
    open(lab, &["a", "b", "d"])?;
    Ok(Verdict::Held)
}
