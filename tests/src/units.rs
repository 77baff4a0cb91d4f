//! The systemd units as text, and as systemd's own tools judge them.
#![expect(
    clippy::disallowed_methods,
    reason = "shell: reads units and starts systemd-analyze"
)]

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

const SERVICES: [&str; 3] = ["egressd", "egressd-lockdown", "egressd-keeper"];

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../config/systemd")
}

/// The values of every line `key=…` of a unit, together.
fn values(unit: &str, key: &str) -> Vec<String> {
    let text = fs::read_to_string(folder().join(unit)).unwrap();
    let lines = text
        .lines()
        .filter_map(|line| line.strip_prefix(key)?.strip_prefix('='));
    lines
        .flat_map(str::split_whitespace)
        .map(str::to_owned)
        .collect()
}

#[test]
fn the_gateway_is_closed_before_the_network_and_after_whoever_flushes() {
    fn check(unit: &str, key: &str, expected: &[&str]) {
        let found = values(unit, key);
        for value in expected {
            assert!(
                found.iter().any(|f| f == value),
                "{unit}: {key}={found:?} lacks {value}"
            );
        }
    }
    let flushing = ["nftables.service", "ufw.service", "firewalld.service"];
    let lockdown = "egressd-lockdown.service";
    check(lockdown, "After", &flushing);
    check(lockdown, "Before", &["network-pre.target"]);
    // The target is passive: without this nothing would be ordered by it.
    check(lockdown, "Wants", &["network-pre.target"]);
    check(lockdown, "DefaultDependencies", &["no"]);
    check(lockdown, "RemainAfterExit", &["yes"]);
    check(lockdown, "WantedBy", &["sysinit.target"]);
    assert!(
        values(lockdown, "ExecStop").is_empty(),
        "stopping never opens"
    );
    check("egressd.service", "After", &flushing);
    check("egressd.service", "After", &[lockdown]);
    check("egressd.service", "FileDescriptorStoreMax", &["64"]);
    check("egressd-keeper.timer", "WantedBy", &["timers.target"]);
    let keeper = values("egressd-keeper.service", "ExecStart");
    assert_eq!(keeper.last().map(String::as_str), Some("--if-unattended"));
}

/// The tool, or nothing, said aloud.
fn analyze(verb: &str, units: &[PathBuf]) -> Option<(bool, String)> {
    let mut command = Command::new("systemd-analyze");
    command
        .arg(verb)
        .args(units)
        .env("SYSTEMD_LOG_LEVEL", "warning");
    if verb == "security" {
        command.args(["--offline=true", "--no-pager"]);
    }
    let Ok(output) = command.output() else {
        eprintln!("SKIPPED: no systemd-analyze to judge the units");
        return None;
    };
    let text = String::from_utf8_lossy(&output.stdout).into_owned()
        + &String::from_utf8_lossy(&output.stderr);
    Some((output.status.success(), text))
}

#[test]
fn systemd_takes_the_units_as_they_are() {
    // It insists on programs that are there.
    let copies = tempfile::tempdir().unwrap();
    let mut units = Vec::new();
    for entry in fs::read_dir(folder()).unwrap() {
        let path = entry.unwrap().path();
        if !path.is_file() {
            continue;
        }
        let text = fs::read_to_string(&path).unwrap();
        let text = text.replace("/usr/bin/egressd ", "/bin/true ");
        let text = text.replace("/usr/bin/egressctl ", "/bin/true ");
        let copy = copies.path().join(path.file_name().unwrap());
        fs::write(&copy, text).unwrap();
        units.push(copy);
    }
    assert!(units.len() >= 5, "{units:?}");
    if let Some((good, text)) = analyze("verify", &units) {
        assert!(good && !text.contains("egressd"), "{text}");
    }
    let spoiled = copies.path().join("egressd-keeper.timer");
    fs::write(&spoiled, "[Timer]\nOnBootSec=soon\n").unwrap();
    if let Some((_, text)) = analyze("verify", &[spoiled]) {
        assert!(text.contains("egressd-keeper"), "it judges: {text}");
    }
}

#[test]
fn the_units_expose_little() {
    for unit in SERVICES {
        let path = folder().join(format!("{unit}.service"));
        let Some((_, text)) = analyze("security", &[path]) else {
            return;
        };
        let mark = "Overall exposure level for ";
        let line = text.lines().find(|line| line.contains(mark));
        let figure = line.and_then(|line| line.split(": ").last()?.split(' ').next());
        let figure: f64 = figure.and_then(|figure| figure.parse().ok()).expect(&text);
        println!("{unit}: {figure}");
        assert!(figure <= 2.0, "{unit}: {figure}\n{text}");
    }
}
