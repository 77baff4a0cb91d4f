//! Questions that the cache answers: CPU time of the server per question, beside dnsmasq with
//! `nftset` and beside unbound. The rate is told with it; the load's own speed limits that.
#![expect(
    clippy::disallowed_methods,
    reason = "shell: writes dnsperf's questions"
)]

use super::dnsperf::{ask_all, ask_for};
use super::figure::{Better, Figure, Round};
use super::forwarder::{Dnsmasq, Unbound, egressd};
use super::measure::{Family, Measure, Need, Resolver};
use super::{Bench, names, usage};
use crate::lab::{Authority, Lab, Planes, plan};
use anyhow::{Result, ensure};
use std::path::{Path, PathBuf};
use std::time::Duration;

const ROUNDS: usize = 5;

/// Names that are asked over and over; the smallest of the caches, dnsmasq's, holds 150.
const HOT: u32 = 100;

/// How long each run takes.
const RUN: Duration = Duration::from_secs(4);

/// What a run showed.
struct Run {
    rate: f64,
    /// CPU time of the server per question, in microseconds.
    cpu: f64,
}

/// Takes the figures among `measures` that are about the cache.
pub(super) fn run(bench: &Bench, measures: &[Measure], say: &dyn Fn(&str)) -> Result<Vec<Figure>> {
    let mut wanted = Vec::new();
    for measure in measures {
        if let Need::Hot(resolver) = measure.need {
            wanted.push((measure, resolver));
        }
    }
    if wanted.is_empty() {
        return Ok(Vec::new());
    }
    let lab = Lab::new()?;
    let _authority = Authority::start(&lab, &names::zone())?;
    let mut figures = Vec::new();
    for (measure, resolver) in wanted {
        let questions = file(&lab, measure.family)?;
        let mut rounds = Vec::new();
        for round in 1..=bench.rounds.unwrap_or(ROUNDS) {
            let subject = ours(bench, &lab, &questions)?;
            let peer = match resolver {
                Resolver::Dnsmasq => {
                    let dnsmasq = Dnsmasq::start(&lab)?;
                    load(&lab, dnsmasq.id(), &questions)?
                }
                Resolver::Unbound => {
                    let unbound = Unbound::start(&lab)?;
                    load(&lab, unbound.id(), &questions)?
                }
            };
            say(&format!(
                "{} round {round}: egressd {:.2} µs CPU each at {:.0}/s; {} {:.2} µs at {:.0}/s",
                measure.id(),
                subject.cpu,
                subject.rate,
                resolver.name(),
                peer.cpu,
                peer.rate,
            ));
            rounds.push(Round {
                subject: subject.cpu,
                peer: peer.cpu,
            });
        }
        figures.push(Figure::of(
            &measure.id(),
            "µs CPU/question",
            Better::Lower,
            &rounds,
        ));
    }
    Ok(figures)
}

fn file(lab: &Lab, family: Family) -> Result<PathBuf> {
    let path = lab.dir().join(format!("hot-{family:?}"));
    std::fs::write(&path, names::questions(family, 0..HOT))?;
    Ok(path)
}

fn ours(bench: &Bench, lab: &Lab, questions: &Path) -> Result<Run> {
    let mut daemon = egressd(lab, &bench.binaries, Planes::Both)?;
    let run = load(lab, daemon.id(), questions);
    let run = run.map_err(|error| error.context(daemon.words()))?;
    let cached = daemon.ctl(&["status"])?.json["dns"]["cached"].as_u64();
    ensure!(
        cached.is_some_and(|cached| cached > u64::from(HOT)),
        "egressd did not answer from its cache"
    );
    daemon.kill()?;
    lab.gateway.nft("delete table inet egressd")?;
    Ok(run)
}

fn load(lab: &Lab, server: u32, questions: &Path) -> Result<Run> {
    ask_all(&lab.client, plan::GATEWAY[0], questions)?;
    let before = usage::cpu(server)?;
    let done = ask_for(&lab.client, plan::GATEWAY[0], questions, RUN)?;
    let cpu = usage::cpu(server)? - before;
    Ok(Run {
        rate: done.rate,
        cpu: cpu.as_secs_f64() * 1e6 / done.answered,
    })
}
