//! What a resolver adds to a cold question when nothing else is going on: the time through it less
//! the time straight at the upstream, over a router.
#![expect(
    clippy::disallowed_methods,
    reason = "shell: opens sockets and times itself"
)]

use super::Bench;
use super::figure::{Better, Figure, Round, quantile, sorted};
use super::forwarder::{Dnsmasq, egressd};
use super::measure::{Family, Measure, Need};
use super::names;
use crate::lab::{Authority, Lab, Planes, plan};
use anyhow::{Context, Result, ensure};
use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::ops::Range;
use std::time::{Duration, Instant};

const ROUNDS: usize = 7;

/// Questions per run. All rounds of both families together ask no name twice.
const QUESTIONS: u32 = 2000;

/// Questions per turn: within a round the three take turns often, so that what else the machine does
/// hits all of them.
const TURN: usize = 100;

/// Less than this, in µs, is no difference that this clock and these sockets show.
const RESOLUTION: f64 = 1.0;

/// Takes the figures among `measures` that are about latency.
pub(super) fn run(bench: &Bench, measures: &[Measure], say: &dyn Fn(&str)) -> Result<Vec<Figure>> {
    let percentile = |measure: &Measure| match measure.need {
        Need::Latency(percent) => Some(percent),
        Need::Cold | Need::Hot(_) | Need::Deny(_) | Need::Allow(_) | Need::Verdict => None,
    };
    let of = |family: Family| -> Vec<(&Measure, usize)> {
        let fits = measures.iter().filter(|measure| measure.family == family);
        fits.filter_map(|measure| Some((measure, percentile(measure)?)))
            .collect()
    };
    let mut figures = Vec::new();
    for family in [Family::V4, Family::V6] {
        let wanted = of(family);
        if wanted.is_empty() {
            continue;
        }
        let runs = rounds(bench, family, say)?;
        for (measure, percent) in wanted {
            let rounds: Vec<Round> = runs.iter().map(|run| run.added(percent)).collect();
            figures.push(Figure::of(&measure.id(), "µs", Better::Lower, &rounds));
        }
    }
    Ok(figures)
}

/// The times of one round in µs, each from the shortest on.
struct Run {
    egressd: Vec<f64>,
    dnsmasq: Vec<f64>,
    straight: Vec<f64>,
}

impl Run {
    fn added(&self, percent: usize) -> Round {
        let straight = quantile(&self.straight, percent);
        let added = |times: &[f64]| (quantile(times, percent) - straight).max(RESOLUTION);
        Round {
            subject: added(&self.egressd),
            peer: added(&self.dnsmasq),
        }
    }
}

fn rounds(bench: &Bench, family: Family, say: &dyn Fn(&str)) -> Result<Vec<Run>> {
    let zone = names::zone();
    let labs = [Lab::new()?, Lab::new()?, Lab::new()?];
    let _authorities = labs
        .iter()
        .map(|lab| Authority::start(lab, &zone))
        .collect::<Result<Vec<_>>>()?;
    let [ours, theirs, plain] = &labs;
    let daemon = egressd(ours, &bench.binaries, Planes::Both)?;
    let _dnsmasq = Dnsmasq::start(theirs)?;
    let most = (names::NAMES / QUESTIONS) as usize;
    let rounds = bench.rounds.unwrap_or(ROUNDS);
    ensure!(rounds <= most, "there are names for {most} rounds");
    let mut runs = Vec::new();
    for (round, first) in (1..=rounds).zip((0..).step_by(QUESTIONS as usize)) {
        let (mut egressd, mut dnsmasq, mut straight) = (Vec::new(), Vec::new(), Vec::new());
        for first in (first..first + QUESTIONS).step_by(TURN) {
            let turn = first..first + u32::try_from(TURN)?;
            let timed = |lab, server| times(lab, server, family, turn.clone());
            egressd.extend(timed(ours, plan::GATEWAY[0]).with_context(|| daemon.words())?);
            dnsmasq.extend(timed(theirs, plan::GATEWAY[0])?);
            straight.extend(timed(plain, plan::UPSTREAM)?);
        }
        let run = Run {
            egressd: sorted(egressd),
            dnsmasq: sorted(dnsmasq),
            straight: sorted(straight),
        };
        let both = |times: &[f64]| {
            let (middle, late) = (quantile(times, 50), quantile(times, 99));
            format!("{middle:.0} µs p50, {late:.0} p99")
        };
        say(&format!(
            "dns-added-latency {family:?} round {round}: egressd {}; dnsmasq {}; straight {}",
            both(&run.egressd),
            both(&run.dnsmasq),
            both(&run.straight),
        ));
        runs.push(run);
    }
    Ok(runs)
}

/// Asks one name after the other; how long each took.
fn times(lab: &Lab, server: IpAddr, family: Family, numbers: Range<u32>) -> Result<Vec<f64>> {
    lab.client.enter(|| {
        let socket = UdpSocket::bind("0.0.0.0:0")?;
        socket.connect(SocketAddr::new(server, 53))?;
        socket.set_read_timeout(Some(Duration::from_secs(5)))?;
        numbers
            .map(|number| time(&socket, family, number))
            .collect()
    })?
}

fn time(socket: &UdpSocket, family: Family, number: u32) -> Result<f64> {
    let id = u16::try_from(number)?;
    let question = question(id, &names::name(number), family);
    let mut reply = [0; 1500];
    let asked = Instant::now();
    socket.send(&question)?;
    let length = socket.recv(&mut reply)?;
    let took = asked.elapsed();
    let good = length > question.len() && reply[..2] == question[..2];
    // No error, one answer.
    let told = reply[3] & 15 == 0 && reply[6..8] == [0, 1];
    ensure!(
        good && told,
        "no answer to {}: {:?}",
        names::name(number),
        &reply[..length]
    );
    Ok(took.as_secs_f64() * 1e6)
}

/// A plain question, as a stub resolver sends it.
fn question(id: u16, name: &str, family: Family) -> Vec<u8> {
    let [high, low] = id.to_be_bytes();
    let mut message = vec![high, low, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0];
    for label in name.split('.') {
        message.push(u8::try_from(label.len()).expect("labels of the bench are short"));
        message.extend(label.as_bytes());
    }
    let kind = match family {
        Family::V4 => 1,
        Family::V6 => 28,
    };
    message.extend([0, 0, kind, 0, 1]);
    message
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn questions_are_well_formed() {
        use hickory_proto::op::Message;
        let message = Message::from_vec(&question(77, "n5.bench.example", Family::V6)).unwrap();
        assert_eq!(message.metadata.id, 77);
        assert!(message.metadata.recursion_desired);
        assert_eq!(message.queries[0].to_string(), "n5.bench.example. IN AAAA");
    }

    #[test]
    fn only_what_is_added_counts() {
        let run = Run {
            egressd: vec![110.0, 120.0, 150.0],
            dnsmasq: vec![200.0, 240.0, 300.0],
            straight: vec![90.0, 100.0, 149.9],
        };
        let round = run.added(50);
        assert!((round.subject - 20.0).abs() < 1e-9 && (round.peer - 140.0).abs() < 1e-9);
        // Not a millionfold, where nothing can be told apart.
        let run = Run {
            straight: vec![150.0; 3],
            ..run
        };
        assert!((run.added(50).subject - RESOLUTION).abs() < 1e-9);
    }
}
