//! Packets per second through gateways, counted where they arrive or are refused.
#![expect(clippy::disallowed_methods, reason = "shell: asks conntrack")]

use super::Bench;
use super::figure::{Better, Figure, Round};
use super::gateway::{DOOR, Gateway};
use super::measure::{Family, Kind, Measure, Need};
use super::names;
use super::traffic::{Generator, Stream};
use crate::lab::{Lab, plan, until};
use anyhow::{Context, Result, ensure};
use std::collections::BTreeMap;
use std::process::Command;
use std::time::Duration;

const ROUNDS: usize = 7;

/// Destinations of a stream, fewer than there are grants.
const SPAN: u32 = 60_000;

/// How long a run sends.
const RUN: Duration = Duration::from_millis(1000);

/// Takes the figures among `measures` that are about packets.
pub(super) fn run(bench: &Bench, measures: &[Measure], say: &dyn Fn(&str)) -> Result<Vec<Figure>> {
    let task = |measure: &Measure| match measure.need {
        Need::Deny(peer) => Some((*measure, Traffic::Refused, peer)),
        Need::Allow(peer) => Some((*measure, Traffic::Granted, peer)),
        Need::Cold | Need::Hot(_) | Need::Latency(_) | Need::Verdict => None,
    };
    let tasks: Vec<_> = measures.iter().filter_map(task).collect();
    if tasks.is_empty() {
        return Ok(Vec::new());
    }
    let mut labs = BTreeMap::from([(Kind::Both, Lab::new()?)]);
    for (.., peer) in &tasks {
        if !labs.contains_key(peer) {
            labs.insert(*peer, Lab::new()?);
        }
    }
    let mut gateways = BTreeMap::new();
    for (kind, lab) in &labs {
        let gateway = Gateway::start(lab, *kind, bench, say)
            .with_context(|| format!("set up the gateway {kind:?}"))?;
        gateways.insert(*kind, gateway);
    }
    let mut figures = Vec::new();
    for (measure, traffic, peer) in tasks {
        let mut rounds = Vec::new();
        for round in 1..=bench.rounds.unwrap_or(ROUNDS) {
            let mut rate = |kind: Kind| -> Result<f64> {
                let gateway = gateways.get_mut(&kind).expect("made for every kind above");
                traffic
                    .rate(bench, gateway, measure.family)
                    .with_context(|| format!("{} through {kind:?}", measure.id()))
            };
            let (subject, peer) = (rate(Kind::Both)?, rate(peer)?);
            say(&format!(
                "{} round {round}: {:.3} and {:.3} million packets/s",
                measure.id(),
                subject / 1e6,
                peer / 1e6
            ));
            rounds.push(Round { subject, peer });
        }
        figures.push(Figure::of(
            &measure.id(),
            "packets/s",
            Better::Higher,
            &rounds,
        ));
    }
    Ok(figures)
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Traffic {
    /// To 60,000 addresses that nothing grants, on a port that is open elsewhere.
    Refused,
    /// 60,000 flows to granted addresses, each answered once.
    Granted,
}

impl Traffic {
    /// Packets per second that `gateway` did its work on.
    fn rate(self, bench: &Bench, gateway: &mut Gateway<'_>, family: Family) -> Result<f64> {
        match self {
            Self::Refused => refused(bench, gateway, family),
            Self::Granted => passed(bench, gateway, family),
        }
    }
}

fn refused(bench: &Bench, gateway: &Gateway<'_>, family: Family) -> Result<f64> {
    let stream = Stream::new(family, plan::CLIENT, names::refused(family, 0), SPAN);
    let mut generator = load(bench, gateway.lab, stream)?;
    let leaks = gateway.sink.arrived()?;
    let claimed = gateway.claimed()?;
    let before = settled(|| gateway.refused())?;
    let (sent, took) = generator.send_for(RUN)?;
    let judged = settled(|| gateway.refused())? - before;
    let leaked = gateway.sink.arrived()? - leaks;
    ensure!(leaked == 0, "{leaked} of {sent} refused packets arrived");
    if let (Some(before), Some(after)) = (claimed, gateway.claimed()?) {
        let claimed = after - before;
        ensure!(
            claimed.abs_diff(judged) <= judged / 100,
            "the driver dropped {judged} frames, egressd counts {claimed}"
        );
    }
    rate(judged, sent, took)
}

fn passed(bench: &Bench, gateway: &mut Gateway<'_>, family: Family) -> Result<f64> {
    let mut stream = Stream::new(family, plan::CLIENT, names::granted(family, 0), SPAN);
    stream.flows = true;
    let mut generator = load(bench, gateway.lab, stream)?;
    if gateway.tracks() {
        stream.in_order = true;
        establish(gateway, family, load(bench, gateway.lab, stream)?)?;
    }
    let before = settled(|| gateway.sink.arrived())?;
    let (sent, took) = generator.send_for(RUN)?;
    let arrived = settled(|| gateway.sink.arrived())? - before;
    rate(arrived, sent, took)
}

/// Has every flow answered, so that conntrack holds it as established.
fn establish(
    gateway: &mut Gateway<'_>,
    family: Family,
    mut generator: Generator<'_>,
) -> Result<()> {
    gateway.sink.reflect(true)?;
    let lab = gateway.lab;
    let done = until(
        Duration::from_secs(30),
        "nearly every flow is established",
        || {
            // In small portions: what comes back shares queues with what is sent.
            for _ in 0..SPAN.div_ceil(PORTION) {
                generator.send(PORTION)?;
            }
            Ok((established(lab, family)? >= SPAN / 100 * 98).then_some(()))
        },
    );
    gateway.sink.reflect(false)?;
    done
}

/// Frames sent at a time while flows are opened.
const PORTION: u32 = 6000;

/// How many UDP flows conntrack has seen answers of.
fn established(lab: &Lab, family: Family) -> Result<u32> {
    let family = match family {
        Family::V4 => "ipv4",
        Family::V6 => "ipv6",
    };
    let mut list = Command::new("conntrack");
    list.args(["-L", "-f", family, "-p", "udp", "--dport", "9000"]);
    let listed = lab.gateway.output(&mut list)?;
    let answered = listed.lines().filter(|line| !line.contains("[UNREPLIED]"));
    Ok(u32::try_from(answered.count())?)
}

fn load<'a>(bench: &Bench, lab: &'a Lab, stream: Stream) -> Result<Generator<'a>> {
    Generator::load(&bench.generator, &lab.client, (&lab.gateway, DOOR), stream)
}

/// A counter once it stands still: the last frames are still under way when the sender is done.
fn settled(read: impl Fn() -> Result<u64>) -> Result<u64> {
    let mut last = None;
    until(Duration::from_secs(5), "the counters stand still", || {
        let now = Some(read()?);
        let still = last == now;
        last = now;
        Ok(still.then_some(now).flatten())
    })
}

fn rate(done: u64, sent: u64, took: Duration) -> Result<f64> {
    ensure!(
        done > 0 && done <= sent + sent / 100,
        "{done} packets of {sent}"
    );
    #[expect(clippy::cast_precision_loss, reason = "far below 2^52")]
    Ok(done as f64 / took.as_secs_f64())
}
