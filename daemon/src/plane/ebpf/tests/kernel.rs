#![expect(
    clippy::disallowed_methods,
    reason = "shell: reads what the kernel says of maps"
)]
//! What this kernel makes of the programs, told in lines that `cargo xtask vm` collects.

use super::super::generation::Generation;
use super::world::World;
use super::{can_run, image, load};
use crate::config::EbpfMode;
use crate::plane::Plane as _;
use aya::programs::ProgramInfo;

fn tell(subject: &str, pairs: &[(&str, String)]) {
    let words: Vec<String> = pairs
        .iter()
        .map(|(key, value)| format!("{key}={value}"))
        .collect();
    println!("measured: {subject} {}", words.join(" "));
}

fn program(name: &str, info: Result<ProgramInfo, String>) {
    match info {
        Ok(info) => {
            let number = |value: Option<u32>| value.map_or_else(|| "-".into(), |n| n.to_string());
            tell(
                name,
                &[
                    ("verified", number(info.verified_instruction_count())),
                    ("xlated", number(info.size_translated())),
                    ("jited", info.size_jitted().to_string()),
                    ("bytes", number(info.memory_locked().ok())),
                ],
            );
        }
        // Another way to attach may remain; whether one does, `hooks_work` shows.
        Err(error) => tell(
            name,
            &[("refused", error.replace(char::is_whitespace, "_"))],
        ),
    }
}

/// Bytes of all maps that this process holds, as far as the kernel counts them.
fn map_bytes() -> u64 {
    let entries = std::fs::read_dir("/proc/self/fdinfo").unwrap();
    let texts = entries.filter_map(|entry| std::fs::read_to_string(entry.ok()?.path()).ok());
    let maps = texts.filter(|text| text.contains("map_id:"));
    maps.filter_map(|text| {
        let line = text
            .lines()
            .find_map(|line| line.strip_prefix("memlock:"))?;
        line.trim().parse::<u64>().ok()
    })
    .sum()
}

#[test]
fn programs_are_measured() {
    if !can_run("programs_are_measured") {
        return;
    }
    let mut generation: Generation = load(&image(), true);
    let told = |error: anyhow::Error| format!("{error:#}").lines().next().unwrap().to_owned();
    let xdp = generation.xdp().map_err(told);
    program("egressd_xdp", xdp.map(|program| program.info().unwrap()));
    let tcx = generation.tcx().map_err(told);
    let tcx = tcx.map(|program| program.info().unwrap());
    assert!(tcx.is_ok(), "{tcx:?}");
    program("egressd_tcx", tcx);
    tell("maps", &[("bytes", map_bytes().to_string())]);
}

/// Both choices that a configuration has without naming a mechanism come into force.
#[test]
fn hooks_work() {
    if !can_run("hooks_work") {
        return;
    }
    let mut told = Vec::new();
    for (word, mode) in [("auto", EbpfMode::Auto), ("tc", EbpfMode::Tc)] {
        let world = World::new(&format!("hooks-{word}"));
        let image = world.image(0);
        let mut plane = world.open(mode);
        world.inside("gateway", || plane.replace(&image).unwrap());
        let described = plane.describe().remove(0);
        let hook = described.strip_prefix("lan0: ").unwrap();
        let hook = hook.split(" (").next().unwrap();
        told.push((word, hook.replace(' ', "-")));
    }
    tell("hooks", &told);
}
