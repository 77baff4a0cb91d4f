//! What a new catalogue would end, cut and open is told before, and is exactly what then happens.
#![expect(clippy::disallowed_methods, reason = "shell: writes catalogues")]

use crate::bench::{Bench, SURE, WEB, World, dies, fails, flow, host, learn, passes, question};
use crate::{Body, Test, Verdict};
use anyhow::{Result, ensure};
use egressd_tests::lab::{Daemon, Zone, until};
use hickory_proto::op::ResponseCode;
use serde_json::Value;
use std::path::Path;

pub(crate) const TESTS: &[Test] = &[
    ("a_preview_is_what_happens", Body::Daemon(preview)),
    ("what_nobody_asks_for_is_told", Body::Daemon(never_seen)),
];

fn catalogue(sets: &[(&str, &str)]) -> String {
    let mut text = "name = \"vendor\"\nversion = \"1\"\n".to_owned();
    for (id, names) in sets {
        text += &format!(
            "[[set]]\nid = \"{id}\"\narea = \"all\"\nservice = \"x\"\nnames = [{names}]\ntcp = [{WEB}]\n"
        );
    }
    text
}

fn zones(file: &Path) -> String {
    format!(
        "[[catalogue]]\nname = \"vendor\"\nfile = \"{}\"\n\n{}",
        file.display(),
        crate::bench::zone("allow = [\"vendor\"]", &[])
    )
}

/// What `list` of a preview holds, by `field`.
fn all(preview: &Value, list: &str, field: &str) -> Vec<String> {
    let list = preview[list].as_array().into_iter().flatten();
    list.map(|of| of[field].as_str().unwrap_or("-").to_owned())
        .collect()
}

fn preview(bench: &Bench) -> Result<Verdict> {
    let mut names = Zone::default();
    names
        .address("a.vendor.example", 600, host(40, 1))
        .address("a.vendor.example", 600, host(40, 9))
        .address("b.vendor.example", 600, host(40, 2))
        .address("b.vendor.example", 600, host(40, 9))
        .address("new.other.example", 600, host(41, 1));
    let world = World::new(&names)?;
    let (file, next) = (
        world.lab.dir().join("old.toml"),
        world.lab.dir().join("new.toml"),
    );
    std::fs::write(
        &file,
        catalogue(&[("1", "\"a.vendor.example\""), ("2", "\"b.vendor.example\"")]),
    )?;
    let daemon = bench.daemon(&world.lab, &zones(&file))?;
    let client = &world.lab.client;
    learn(client, "a.vendor.example", host(40, 1))?;
    learn(client, "b.vendor.example", host(40, 2))?;
    let mut kept = flow(client, host(40, 1), WEB)?;
    // Two names gave it; one of them stays.
    let mut shared = flow(client, host(40, 9), WEB)?;
    let mut lost = flow(client, host(40, 2), WEB)?;
    for name in ["new.other.example", "never.other.example"] {
        let answer = question(client, name)?;
        ensure!(answer.code == ResponseCode::Refused, "{answer:?}");
    }

    // Longer than a call may be, so that it goes in pieces.
    let many: Vec<String> = (0..4000)
        .map(|n| format!("\"n{n}.long.vendor.example\""))
        .collect();
    let wanted = catalogue(&[
        ("1", "\"a.vendor.example\""),
        ("3", "\"new.other.example\""),
        ("4", &many.join(", ")),
    ]);
    ensure!(wanted.len() > 64 * 1024, "{}", wanted.len());
    std::fs::write(&next, &wanted)?;
    let told = until(SURE, "what was refused is noted", || {
        let told = diff(&daemon, "vendor", &next)?.0;
        Ok((told["impact"]["opens_total"] == 1).then_some(told))
    })?;
    let impact = &told["impact"];
    // Without nft there is no conntrack: no flow is known, and none is cut.
    let check = |impact: &Value| {
        let cut = all(impact, "cuts", "address");
        let alone = cut
            .iter()
            .all(|address| *address == host(40, 2).to_string());
        ensure!(
            all(impact, "ends", "address") == [host(40, 2).to_string()]
                && impact["ends"][0]["names"] == serde_json::json!(["b.vendor.example"])
                && impact["ends"][0]["closes"] == "tcp/443"
                && impact["changes_total"] == 0
                && alone
                && cut.is_empty() != bench.planes.nft()
                && all(impact, "opens", "name") == ["new.other.example"],
            "{impact}"
        );
        Ok(())
    };
    check(impact)?;
    ensure!(all(impact, "cuts", "address").len() <= 1, "{impact}");
    let words = daemon.told(
        &diff_args("vendor", &next, &daemon)
            .each_ref()
            .map(String::as_str),
    )?;
    ensure!(words.starts_with("1 live grant ends, "), "{words}");
    // Nothing happened.
    ensure!(
        kept.echoes(SURE) && shared.echoes(SURE) && lost.echoes(SURE),
        "a preview cut a flow"
    );
    passes(client, host(40, 2), WEB)?;
    ensure!(
        question(client, "new.other.example")?.code == ResponseCode::Refused,
        "it opened"
    );

    for (name, content, word) in [
        ("nosuch", &*wanted, "vendor"),
        ("vendor", "name = \"vendor\"\n[[set]]\nid =", "line"),
    ] {
        std::fs::write(&next, content)?;
        let (_, text) = diff(&daemon, name, &next)?;
        ensure!(text.contains(word) || text.contains(":3:"), "{text}");
    }

    // The same by the configuration's own file, and then in earnest.
    std::fs::write(&next, &wanted)?;
    let text = std::fs::read_to_string(daemon.config())?;
    std::fs::write(daemon.config(), text.replace("/old.toml", "/new.toml"))?;
    let dry = daemon.ctl(&["reload", "--dry-run"])?;
    ensure!(dry.status.success(), "{}", dry.text);
    check(&dry.json)?;
    let done = daemon.ctl(&["reload"])?;
    ensure!(done.status.success(), "{}", done.text);
    if bench.planes.nft() {
        ensure!(
            done.json["cut"] == dry.json["cuts_total"],
            "{}\n{}",
            dry.text,
            done.json
        );
    }
    dies(&mut lost, SURE)?;
    fails(client, host(40, 2), WEB)?;
    ensure!(
        kept.echoes(SURE) && shared.echoes(SURE),
        "more was cut than was told"
    );
    learn(client, "new.other.example", host(41, 1))?;
    passes(client, host(41, 1), WEB)?;
    let same = daemon.ctl(&["reload", "--dry-run"])?.json;
    for total in ["ends_total", "changes_total", "cuts_total", "opens_total"] {
        ensure!(same[total] == 0, "{same}");
    }
    ensure!(
        same["notes"].to_string().contains("the same as now"),
        "{same}"
    );
    Ok(Verdict::Held)
}

fn diff_args(name: &str, next: &Path, daemon: &Daemon<'_>) -> [String; 7] {
    [
        "catalogue",
        "diff",
        name,
        &next.display().to_string(),
        "--impact",
        "--config",
        &daemon.config().display().to_string(),
    ]
    .map(str::to_owned)
}

/// What `catalogue diff --impact` says, as JSON and as text.
fn diff(daemon: &Daemon<'_>, name: &str, next: &Path) -> Result<(Value, String)> {
    let args = diff_args(name, next, daemon);
    let outcome = daemon.ctl(&args.each_ref().map(String::as_str))?;
    ensure!(!outcome.status.success(), "both versions are the same");
    Ok((outcome.json, outcome.text))
}

/// What of the catalogue nobody asked for.
fn unseen(daemon: &Daemon<'_>) -> Result<Vec<String>> {
    let outcome = daemon.ctl(&["catalogue", "check", "--live", "vendor"])?;
    ensure!(outcome.status.success(), "{}", outcome.text);
    ensure!(
        outcome.json["days"] == 0 && outcome.json["watched"] == 3,
        "{}",
        outcome.text
    );
    let items = outcome.json["findings"][0]["items"].as_array();
    let items = items.into_iter().flatten();
    Ok(items
        .map(|item| item.as_str().unwrap_or_default().to_owned())
        .collect())
}

fn never_seen(bench: &Bench) -> Result<Verdict> {
    let mut names = Zone::default();
    names
        .address("a.vendor.example", 600, host(42, 1))
        .address("b.vendor.example", 600, host(42, 2))
        .address("x.w.vendor.example", 600, host(42, 3));
    let world = World::new(&names)?;
    let file = world.lab.dir().join("vendor.toml");
    let all = "\"a.vendor.example\", \"b.vendor.example\", \"*.w.vendor.example\"";
    std::fs::write(&file, catalogue(&[("1", all)]))?;
    let mut daemon = bench.daemon(&world.lab, &zones(&file))?;
    let client = &world.lab.client;
    let item = |name: &str| format!("zone managed: {name}, watched for 0 days");
    // egressd's own look-ups are nobody's questions.
    let every = [
        item("*.w.vendor.example"),
        item("a.vendor.example"),
        item("b.vendor.example"),
    ];
    ensure!(unseen(&daemon)? == every, "{:?}", unseen(&daemon)?);
    learn(client, "a.vendor.example", host(42, 1))?;
    learn(client, "x.w.vendor.example", host(42, 3))?;
    let left = [item("b.vendor.example")];
    until(SURE, "what was asked for is seen", || {
        Ok((unseen(&daemon)? == left).then_some(()))
    })?;
    daemon.terminate()?;
    daemon.restart()?;
    ensure!(unseen(&daemon)? == left, "{:?}", unseen(&daemon)?);
    let outcome = daemon.ctl(&["catalogue", "check", "--live", "nosuch"])?;
    ensure!(
        !outcome.status.success() && outcome.text.contains("vendor"),
        "{}",
        outcome.text
    );
    Ok(Verdict::Held)
}
