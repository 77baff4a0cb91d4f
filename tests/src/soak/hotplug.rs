//! Interfaces come, go and change under a daemon and under traffic: how long until XDP is back on them,
//! and what got through meanwhile.
#![expect(
    clippy::disallowed_methods,
    reason = "shell: runs ip(8), and times itself"
)]

use super::Waits;
use super::steady::{Counts, Steady};
use super::tamper::{DATA, forbidden, granted, zones};
use crate::lab::{Binaries, Daemon, Echo, Lab, Planes, udp, until};
use anyhow::Result;
use serde_json::{Value, json};
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

/// How much.
#[derive(Clone, Copy, Debug)]
pub struct Plan {
    /// Changes of interfaces in all.
    pub changes: u32,
}

/// What happens to an interface.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Change {
    /// It is deleted, and made again.
    Recreated,
    /// The same, and it has the index that it had.
    Reborn,
    /// One more.
    Added,
    /// It has another name.
    Renamed,
    /// It has another MTU.
    Resized,
    /// It is set down and up.
    Bounced,
}

impl Change {
    const ALL: [Self; 6] = [
        Self::Recreated,
        Self::Reborn,
        Self::Added,
        Self::Renamed,
        Self::Resized,
        Self::Bounced,
    ];

    /// In words.
    #[must_use]
    pub const fn text(self) -> &'static str {
        match self {
            Self::Recreated => "deleted and made again",
            Self::Reborn => "the same, with its old index",
            Self::Added => "one more",
            Self::Renamed => "renamed",
            Self::Resized => "another MTU",
            Self::Bounced => "down and up",
        }
    }
}

/// What became of all.
#[derive(Debug)]
pub struct Outcome {
    /// By change: how long until a program was attached and pinned under the interface's name.
    pub waits: Vec<(Change, Waits)>,
    /// Changes after which that never was.
    pub never: u64,
    /// The traffic: granted from an interface that stays, forbidden from that and those that change.
    pub counts: Counts,
    /// The daemon's last lines.
    pub words: String,
}

impl Outcome {
    /// What must not be.
    #[must_use]
    pub fn failures(&self) -> u64 {
        self.counts.leaked + self.never
    }

    /// As a table for people.
    #[must_use]
    pub fn table(&self) -> String {
        let mut text =
            "| an interface is | times | XDP back p50 | p99 | max |\n|---|---|---|---|---|\n"
                .to_owned();
        let mut all = Waits::default();
        for (change, waits) in &self.waits {
            let [half, most, longest] = waits.quantiles();
            let (times, change) = (waits.count(), change.text());
            text += &format!("| {change} | {times} | {half:.1?} | {most:.1?} | {longest:.1?} |\n");
            all.merge(waits.clone());
        }
        let [half, most, longest] = all.quantiles();
        let Counts {
            granted,
            lost,
            forbidden,
            leaked,
        } = self.counts;
        text + &format!(
            "| all | {} | {half:.1?} | {most:.1?} | {longest:.1?} |\n{} never; {leaked} of {forbidden} \
             forbidden datagrams leaked, {lost} of {granted} granted ones of another interface lost\n",
            all.count(),
            self.never
        )
    }

    /// The same for programs; times in microseconds.
    #[must_use]
    pub fn json(&self) -> Value {
        let changes = self.waits.iter().map(|(change, waits)| {
            let [p50, p99, max] = waits.quantiles().map(|time| time.as_micros());
            json!({"change": change.text(), "times": waits.count(), "p50_us": p50, "p99_us": p99, "max_us": max})
        });
        json!({
            "changes": changes.collect::<Vec<_>>(), "never": self.never, "traffic": self.counts,
        })
    }
}

/// XDP that takes longer does not come.
const DEADLINE: Duration = Duration::from_secs(5);

/// Changes interfaces as often as the plan says.
///
/// # Errors
/// When the lab or the daemon cannot be had.
pub fn run(binaries: &Binaries, planes: Planes, plan: Plan) -> Result<Outcome> {
    let lab = Lab::new()?;
    let _echo = Echo::start(&lab.internet, &[], &[DATA])?;
    let text = Daemon::preamble(&lab, planes) + &zones();
    let daemon = Daemon::start_with(&lab, binaries, planes, &text)?;
    for client in [&lab.client, &lab.other] {
        until(DEADLINE, "granted datagrams come back", || {
            Ok(udp(client, granted(), Duration::from_millis(200))?.then_some(()))
        })?;
    }
    let mut steady = Steady::new(&lab, forbidden())?;
    steady.granted(&lab.client, granted())?;
    steady.forbidden(&lab.client, forbidden())?;
    steady.forbidden(&lab.other, forbidden())?;
    let mut outcome = Outcome {
        waits: Change::ALL.map(|change| (change, Waits::default())).into(),
        never: 0,
        counts: Counts::default(),
        words: String::new(),
    };
    for number in 0..plan.changes as usize {
        let (change, waits) = &mut outcome.waits[number % Change::ALL.len()];
        let began = Instant::now();
        let (name, undo) = act(&lab, *change, planes)?;
        let begun = if *change == Change::Added || *change == Change::Renamed {
            began
        } else {
            undo.1
        };
        let back = until(DEADLINE, "XDP is back", || {
            Ok(is_back(&lab, name, planes).then(|| begun.elapsed()))
        });
        match back {
            Ok(wait) => waits.add(wait),
            Err(_) => outcome.never += 1,
        }
        lab.gateway.ip(&undo.0)?;
        // However quick the machine is, there is traffic beside each change.
        std::thread::sleep(Duration::from_millis(40));
    }
    // The last LAN works again.
    wire(&lab, "")?;
    until(DEADLINE, "granted datagrams come back", || {
        Ok(udp(&lab.other, granted(), Duration::from_millis(200))?.then_some(()))
    })?;
    outcome.counts = steady.stop()?;
    outcome.words = daemon.words();
    Ok(outcome)
}

/// Makes `lan1` with its client anew, in place of the one that is there.
fn wire(lab: &Lab, index: &str) -> Result<Instant> {
    let other = lab.other.name();
    lab.gateway.ip("link del lan1")?;
    let began = Instant::now();
    lab.gateway.ip(&format!(
        "link add lan1 {index} type veth peer name eth0 netns {other}
         addr add 10.30.0.1/16 dev lan1
         link set lan1 up"
    ))?;
    lab.other.ip("addr add 10.30.0.2/16 dev eth0
         link set eth0 up
         route add default via 10.30.0.1")?;
    Ok(began)
}

/// Changes something: on which interface a program must be afterwards, and how it is undone, and when
/// it began.
fn act(lab: &Lab, change: Change, planes: Planes) -> Result<(&'static str, (String, Instant))> {
    let nothing = String::new;
    let began = Instant::now();
    Ok(match change {
        Change::Recreated => ("lan1", (nothing(), wire(lab, "")?)),
        Change::Reborn => {
            let index = index(lab, "lan1")?;
            ("lan1", (nothing(), wire(lab, &format!("index {index}"))?))
        }
        Change::Added => {
            lab.gateway.ip("link add lan9 type veth peer name far9")?;
            ("lan9", ("link del lan9".to_owned(), began))
        }
        Change::Renamed => {
            lab.gateway
                .ip("link set lan1 down\nlink set lan1 name lan7\nlink set lan7 up")?;
            let undo = "link set lan7 down\nlink set lan7 name lan1\nlink set lan1 up\n\
                        addr replace 10.30.0.1/16 dev lan1";
            let _planes = planes;
            ("lan7", (undo.to_owned(), began))
        }
        Change::Resized => {
            lab.gateway.ip("link set lan1 mtu 1400")?;
            ("lan1", ("link set lan1 mtu 1500".to_owned(), began))
        }
        Change::Bounced => {
            lab.gateway.ip("link set lan1 down\nlink set lan1 up")?;
            ("lan1", (nothing(), began))
        }
    })
}

fn shown(lab: &Lab, name: &str) -> Result<Value> {
    let mut show = Command::new("ip");
    show.args(["-j", "link", "show", "dev", name]);
    let shown: Value = serde_json::from_str(&lab.gateway.output(&mut show)?)?;
    Ok(shown[0].clone())
}

fn index(lab: &Lab, name: &str) -> Result<u64> {
    Ok(shown(lab, name)?["ifindex"].as_u64().unwrap_or_default())
}

/// Whether a program runs there and is pinned under this name; without the ebpf plane that is nothing.
fn is_back(lab: &Lab, name: &str, planes: Planes) -> bool {
    let pin = |hook: &str| Path::exists(&lab.pins().join(format!("links/{name}:{hook}")));
    !planes.ebpf() || (pin("xdp") && shown(lab, name).is_ok_and(|shown| shown["xdp"].is_object()))
}
