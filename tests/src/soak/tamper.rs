//! Somebody takes away what egressd enforces by, again and again, in every way there is, while granted
//! and forbidden traffic goes on. How often that did anything, and how long until all was back.
#![expect(
    clippy::disallowed_methods,
    reason = "shell: runs nft, ip, tc, bpftool and mount, and times itself"
)]

use super::Waits;
use super::steady::{Counts, Steady};
use crate::lab::{Binaries, Daemon, Echo, Lab, Planes, udp, until};
use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

/// How, and for how long.
#[derive(Clone, Copy, Debug)]
pub struct Plan {
    /// How long.
    pub time: Duration,
    /// Whether the kernel keeps others out of the nft table.
    pub owned: bool,
    /// Programs at traffic control instead of XDP.
    pub tc: bool,
}

/// What is done.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Attack {
    /// `nft flush ruleset`.
    Flush,
    /// `nft delete table inet egressd`.
    DeleteTable,
    /// A rule that accepts everything, in front of ours.
    InsertRule,
    /// `ip link set lan0 xdp off`.
    XdpOff,
    /// `tc qdisc del dev lan0 clsact`.
    Qdisc,
    /// `bpftool link detach`.
    Detach,
    /// The pins are removed.
    Unpin,
    /// The file system of the pins is unmounted, and another one mounted.
    Unmount,
}

impl Attack {
    const ALL: [Self; 8] = [
        Self::Flush,
        Self::DeleteTable,
        Self::InsertRule,
        Self::XdpOff,
        Self::Qdisc,
        Self::Detach,
        Self::Unpin,
        Self::Unmount,
    ];

    /// As a person types it.
    #[must_use]
    pub const fn text(self) -> &'static str {
        match self {
            Self::Flush => "nft flush ruleset",
            Self::DeleteTable => "nft delete table inet egressd",
            Self::InsertRule => "nft insert rule … accept",
            Self::XdpOff => "ip link set lan0 xdp off",
            Self::Qdisc => "tc qdisc del dev lan0 clsact",
            Self::Detach => "bpftool link detach",
            Self::Unpin => "rm pins",
            Self::Unmount => "umount bpffs, mount another",
        }
    }

    const fn on_nft(self) -> bool {
        match self {
            Self::Flush | Self::DeleteTable | Self::InsertRule => true,
            Self::XdpOff | Self::Qdisc | Self::Detach | Self::Unpin | Self::Unmount => false,
        }
    }
}

/// What became of one kind of attack.
#[derive(Clone, Debug, Default)]
pub struct Fared {
    /// Refused by the kernel.
    pub refused: usize,
    /// Not refused, but nothing changed.
    pub idle: usize,
    /// From before the attack until all was as before.
    pub repaired: Waits,
    /// Never repaired.
    pub never: usize,
    /// Forbidden datagrams that arrived meanwhile.
    pub leaked: u64,
}

/// What became of all.
#[derive(Debug)]
pub struct Outcome {
    /// By attack.
    pub fared: Vec<(Attack, Fared)>,
    /// The traffic.
    pub counts: Counts,
    /// `drifts` of the daemon's status.
    pub drifts: Value,
    /// Warnings of the daemon's status.
    pub warnings: Value,
    /// The daemon's last lines.
    pub words: String,
}

impl Outcome {
    /// What must not be: leaks, and repairs that did not come.
    #[must_use]
    pub fn failures(&self) -> u64 {
        let never: usize = self.fared.iter().map(|(_, fared)| fared.never).sum();
        self.counts.leaked + never as u64
    }

    /// As a table for people.
    #[must_use]
    pub fn table(&self) -> String {
        let mut text =
            "| attack | tried | refused | without effect | repaired | p50 | p99 | max | never | \
                        leaked |\n|---|---|---|---|---|---|---|---|---|---|\n"
                .to_owned();
        for (attack, fared) in &self.fared {
            let [half, most, all] = fared.repaired.quantiles();
            let repaired = fared.repaired.count();
            let tried = fared.refused + fared.idle + repaired + fared.never;
            text += &format!(
                "| {} | {tried} | {} | {} | {repaired} | {half:.1?} | {most:.1?} | {all:.1?} | {} | {} |\n",
                attack.text(),
                fared.refused,
                fared.idle,
                fared.never,
                fared.leaked
            );
        }
        let Counts {
            granted,
            lost,
            forbidden,
            leaked,
        } = self.counts;
        text + &format!(
            "{leaked} of {forbidden} forbidden datagrams leaked, {lost} of {granted} granted ones lost\n"
        )
    }

    /// The same for programs; times in microseconds.
    #[must_use]
    pub fn json(&self) -> Value {
        let attacks = self.fared.iter().map(|(attack, fared)| {
            let [p50, p99, max] = fared.repaired.quantiles().map(|time| time.as_micros());
            json!({
                "attack": attack.text(), "refused": fared.refused, "without_effect": fared.idle,
                "repaired": fared.repaired.count(), "never": fared.never, "leaked": fared.leaked,
                "p50_us": p50, "p99_us": p99, "max_us": max,
            })
        });
        json!({
            "attacks": attacks.collect::<Vec<_>>(), "traffic": self.counts, "drifts": self.drifts,
            "warnings": self.warnings,
        })
    }
}

pub(super) const DATA: u16 = 9000;
const FORBIDDEN: u16 = 2222;
const HOST: IpAddr = IpAddr::V4(Ipv4Addr::new(52, 200, 0, 9));

pub(super) fn granted() -> SocketAddr {
    (HOST, DATA).into()
}

pub(super) fn forbidden() -> SocketAddr {
    (HOST, FORBIDDEN).into()
}

/// One zone on every LAN, present or not.
pub(super) fn zones() -> String {
    format!(
        "[limits]\nquestions = 0\n\n[[zone]]\nname = \"managed\"\ninterfaces = [\"lan*\"]\n\
         [[zone.rule]]\nnetworks = [\"52.200.0.0/24\"]\nudp = [{DATA}]\n"
    )
}

/// A repair that takes longer does not come.
const DEADLINE: Duration = Duration::from_secs(5);

/// Attacks for as long as the plan says.
///
/// # Errors
/// When the lab or the daemon cannot be had.
pub fn run(binaries: &Binaries, planes: Planes, plan: Plan) -> Result<Outcome> {
    let lab = Lab::new()?;
    let mount = Mount::new(&lab)?;
    let _echo = Echo::start(&lab.internet, &[], &[DATA])?;
    let pins = lab.pins().display().to_string();
    let mut text =
        Daemon::preamble(&lab, planes).replace(&pins, &mount.0.display().to_string()) + &zones();
    if plan.tc {
        text = text.replace("ebpf = \"auto\"", "ebpf = \"tc\"");
    }
    if !plan.owned {
        text = text.replace("[planes]\n", "[planes]\nown_table = false\n");
    }
    let daemon = Daemon::start_with(&lab, binaries, planes, &text)?;
    let hook = if plan.tc { "tcx" } else { "xdp" };
    let place = Place {
        lab: &lab,
        mount: &mount.0,
        pin: mount.0.join(format!("links/lan0:{hook}")),
        tc: plan.tc,
    };
    until(DEADLINE, "granted datagrams come back", || {
        Ok(udp(&lab.client, granted(), Duration::from_millis(200))?.then_some(()))
    })?;
    let mut steady = Steady::new(&lab, forbidden())?;
    steady.granted(&lab.client, granted())?;
    steady.forbidden(&lab.client, forbidden())?;
    let mut fared: Vec<(Attack, Fared)> = Attack::ALL
        .into_iter()
        .filter(|attack| {
            if attack.on_nft() {
                planes.nft()
            } else {
                planes.ebpf()
            }
        })
        .map(|attack| (attack, Fared::default()))
        .collect();
    let end = Instant::now() + plan.time;
    while Instant::now() < end {
        for (attack, fared) in &mut fared {
            let before = steady.leaked();
            place.attack(*attack, fared)?;
            fared.leaked += steady.leaked() - before;
        }
    }
    let counts = steady.stop()?;
    let status = daemon.ctl(&["status"])?;
    Ok(Outcome {
        fared,
        counts,
        drifts: status.json["drifts"].clone(),
        warnings: status.json["warnings"].clone(),
        words: daemon.words(),
    })
}

struct Place<'a> {
    lab: &'a Lab,
    mount: &'a Path,
    pin: PathBuf,
    tc: bool,
}

impl Place<'_> {
    fn attack(&self, attack: Attack, fared: &mut Fared) -> Result<()> {
        let before = until(DEADLINE, "all is whole before an attack", || {
            self.mark(attack)
        })
        .with_context(|| attack.text())?;
        let began = Instant::now();
        if !self.execute(attack)? {
            fared.refused += 1;
            return Ok(());
        }
        loop {
            match self.mark(attack)? {
                // Detached is detached, whatever the tools can tell.
                Some(mark) if mark == before && attack == Attack::Detach => {
                    if began.elapsed() < DEADLINE {
                        continue;
                    }
                    fared.never += 1;
                }
                Some(mark) if mark == before => fared.idle += 1,
                Some(_) => fared.repaired.add(began.elapsed()),
                None if began.elapsed() > DEADLINE => fared.never += 1,
                None => continue,
            }
            return Ok(());
        }
    }

    /// Whether the kernel let it be done.
    fn execute(&self, attack: Attack) -> Result<bool> {
        let line = match attack {
            Attack::Flush => "nft flush ruleset".to_owned(),
            Attack::DeleteTable => "nft delete table inet egressd".to_owned(),
            Attack::InsertRule => "nft insert rule inet egressd forward accept".to_owned(),
            Attack::XdpOff => "ip link set lan0 xdp off".to_owned(),
            Attack::Qdisc => "tc qdisc del dev lan0 clsact".to_owned(),
            Attack::Detach => format!("bpftool link detach pinned {}", self.pin.display()),
            Attack::Unpin => {
                for entry in std::fs::read_dir(self.mount.join("links"))? {
                    std::fs::remove_file(entry?.path())?;
                }
                return Ok(true);
            }
            Attack::Unmount => {
                ensure!(
                    run_line(&format!("umount -l {}", self.mount.display()))?,
                    "umount"
                );
                mount(self.mount)?;
                return Ok(true);
            }
        };
        self.lab.gateway.enter(|| run_line(&line))?
    }

    /// What is there of what the attack is aimed at: another text, and it was made anew. `None` while it
    /// is not as it must be.
    fn mark(&self, attack: Attack) -> Result<Option<String>> {
        match attack {
            Attack::Flush | Attack::DeleteTable | Attack::InsertRule => {
                let mut list = Command::new("nft");
                list.args(["-a", "list", "chain", "inet", "egressd", "forward"]);
                let listed = self.lab.gateway.output(&mut list).unwrap_or_default();
                let mut tables = Command::new("nft");
                tables.args(["-j", "list", "tables"]);
                let listing = self.lab.gateway.output(&mut tables).unwrap_or_default();
                let tables: Value = serde_json::from_str(&listing).unwrap_or_default();
                let mut tables = tables["nftables"].as_array().into_iter().flatten();
                let table = tables.find(|item| item["table"]["name"] == "egressd");
                let table = table.map(|table| table["table"]["handle"].to_string());
                let table = table.unwrap_or_default();
                let drops = listed.contains("policy drop") || listed.contains("drop");
                let opened = listed
                    .lines()
                    .any(|line| line.trim_start().starts_with("accept #"));
                let handles = listed
                    .lines()
                    .filter_map(|line| line.split_once("# handle"));
                let handles: Vec<&str> = handles.map(|(_, handle)| handle.trim()).collect();
                Ok((drops && !opened).then(|| format!("{table} {handles:?}")))
            }
            Attack::XdpOff | Attack::Qdisc | Attack::Detach | Attack::Unpin | Attack::Unmount => {
                // A link that is made anew is pinned anew. Of TCX no other tool here tells more.
                if !self.tc {
                    let mut show = Command::new("ip");
                    show.args(["-j", "link", "show", "dev", "lan0"]);
                    let shown: Value = serde_json::from_str(&self.lab.gateway.output(&mut show)?)?;
                    if !shown[0]["xdp"].is_object() {
                        return Ok(None);
                    }
                }
                let data = std::fs::metadata(&self.pin).ok();
                Ok(data.map(|data| format!("{} {}", data.dev(), data.ino())))
            }
        }
    }
}

/// Whether a command ended well.
fn run_line(line: &str) -> Result<bool> {
    let mut words = line.split(' ');
    let mut command = Command::new(words.next().unwrap_or_default());
    Ok(command.args(words).output()?.status.success())
}

fn mount(at: &Path) -> Result<()> {
    let line = format!("mount -t bpf bpf {}", at.display());
    ensure!(run_line(&line)?, "{line}");
    Ok(())
}

/// A bpffs of this lab's own.
struct Mount(PathBuf);

impl Mount {
    fn new(lab: &Lab) -> Result<Self> {
        let at = lab.dir().join("bpf");
        std::fs::create_dir(&at)?;
        mount(&at)?;
        Ok(Self(at))
    }
}

impl Drop for Mount {
    fn drop(&mut self) {
        let _gone = run_line(&format!("umount -l {}", self.0.display()));
    }
}
