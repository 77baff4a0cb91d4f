//! New names per second: egressd with both planes beside dnsmasq with `nftset`, each started anew for
//! every run, with the same upstream.
#![expect(
    clippy::disallowed_methods,
    reason = "shell: writes dnsperf's questions"
)]

use super::dnsperf::ask_all;
use super::figure::{Better, Figure, Round};
use super::forwarder::{Dnsmasq, egressd, granted};
use super::measure::{Family, Measure, Need};
use super::names::{self, NAMES};
use super::{Bench, usage};
use crate::lab::{Authority, Lab, Planes, plan};
use anyhow::{Result, ensure};
use std::path::{Path, PathBuf};
use std::time::Duration;

/// Rounds unless told otherwise; dnsmasq takes long for each.
const ROUNDS: usize = 5;

/// What a run showed.
struct Run {
    rate: f64,
    /// CPU time of the forwarder per question.
    cpu: Duration,
}

/// Takes the figures among `measures` that are about cold names.
pub(super) fn run(bench: &Bench, measures: &[Measure], say: &dyn Fn(&str)) -> Result<Vec<Figure>> {
    let cold = |measure: &&Measure| measure.need == Need::Cold;
    let wanted: Vec<&Measure> = measures.iter().filter(cold).collect();
    if wanted.is_empty() {
        return Ok(Vec::new());
    }
    let lab = Lab::new()?;
    let _authority = Authority::start(&lab, &names::zone())?;
    let mut figures = Vec::new();
    for measure in wanted {
        let questions = file(&lab, measure.family)?;
        let mut rounds = Vec::new();
        for round in 1..=bench.rounds.unwrap_or(ROUNDS) {
            let subject = ours(bench, &lab, measure.family, &questions)?;
            let peer = theirs(&lab, measure.family, &questions)?;
            say(&format!(
                "{} round {round}: egressd {:.0} names/s, {:.1?} CPU each; dnsmasq {:.0} names/s, {:.1?} CPU each",
                measure.id(),
                subject.rate,
                subject.cpu,
                peer.rate,
                peer.cpu,
            ));
            rounds.push(Round {
                subject: subject.rate,
                peer: peer.rate,
            });
        }
        figures.push(Figure::of(
            &measure.id(),
            "names/s",
            Better::Higher,
            &rounds,
        ));
    }
    Ok(figures)
}

/// All questions of `family`, in a file.
pub(super) fn file(lab: &Lab, family: Family) -> Result<PathBuf> {
    let path = lab.dir().join(format!("questions-{family:?}"));
    std::fs::write(&path, names::questions(family, 0..NAMES))?;
    Ok(path)
}

fn ours(bench: &Bench, lab: &Lab, family: Family, questions: &Path) -> Result<Run> {
    let mut daemon = egressd(lab, &bench.binaries, Planes::Both)?;
    let run = load(lab, daemon.id(), questions);
    let run = run.map_err(|error| error.context(daemon.words()))?;
    let held = granted(&daemon, family)?;
    ensure!(
        held == u64::from(NAMES),
        "egressd granted {held} of {NAMES} addresses"
    );
    daemon.kill()?;
    lab.gateway.nft("delete table inet egressd")?;
    Ok(run)
}

fn theirs(lab: &Lab, family: Family, questions: &Path) -> Result<Run> {
    let dnsmasq = Dnsmasq::start(lab)?;
    let run = load(lab, dnsmasq.id(), questions)?;
    let held = dnsmasq.held(family)?;
    ensure!(
        held == u64::from(NAMES),
        "dnsmasq put {held} of {NAMES} addresses into its set"
    );
    drop(dnsmasq);
    lab.gateway.nft("delete table inet bench")?;
    Ok(run)
}

fn load(lab: &Lab, forwarder: u32, questions: &Path) -> Result<Run> {
    let before = usage::cpu(forwarder)?;
    let rate = ask_all(&lab.client, plan::GATEWAY[0], questions)?;
    let cpu = (usage::cpu(forwarder)? - before) / NAMES;
    Ok(Run { rate, cpu })
}
