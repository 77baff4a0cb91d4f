//! The kernel refuses: every call of bpf(2) and of netlink that the planes make fails once, while granted
//! and denied traffic goes on. Nothing denied may pass, nothing granted be lost, and all is well again
//! soon after.
#![expect(
    clippy::disallowed_methods,
    reason = "shell: runs nft and ip, opens sockets and times itself"
)]

mod errors;
mod outcome;

use super::traffic::{Counts, TCP, UDP, address, ask, authority, denied, granted, learn_others};
use crate::lab::wire;
use crate::lab::{Binaries, Class, Daemon, Echo, Fault, Faults, Flow, Lab, Planes, plan, udp};
use anyhow::{Context, Result, ensure};
use errors::errors;
use nix::errno::Errno;
use serde_json::Value;
use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::path::PathBuf;
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

pub use outcome::{Fared, Outcome};

/// What the daemon does while a call fails.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Scene {
    /// Answers of new names are committed.
    Learn,
    /// Another configuration is put in force.
    Reload,
    /// Something learned is taken back.
    Revoke,
    /// Somebody flushed the ruleset and took the programs off.
    Repair,
    /// It starts, after it was killed.
    Start,
}

impl Scene {
    /// All of them.
    pub const ALL: [Self; 5] = [
        Self::Learn,
        Self::Reload,
        Self::Revoke,
        Self::Repair,
        Self::Start,
    ];

    /// In one word.
    #[must_use]
    pub const fn word(self) -> &'static str {
        match self {
            Self::Learn => "learn",
            Self::Reload => "reload",
            Self::Revoke => "revoke",
            Self::Repair => "repair",
            Self::Start => "start",
        }
    }
}

/// How much.
#[derive(Clone, Debug)]
pub struct Plan {
    /// Of `cargo build --package egressd-shim`.
    pub library: PathBuf,
    /// While it does what.
    pub scenes: Vec<Scene>,
    /// At most so many calls of each class, spread over all there are.
    pub most: u64,
    /// Only the first error of each class's list.
    pub quick: bool,
}

/// All must be well again after this.
const SOON: Duration = Duration::from_secs(10);

/// Names asked at once, so that an answer has neighbours in its batch.
const BATCH: u32 = 4;

/// Lets every call fail.
///
/// # Errors
/// When the lab or the daemon cannot be had.
pub fn run(binaries: &Binaries, planes: Planes, plan: &Plan) -> Result<Outcome> {
    let mut outcome = Outcome::default();
    for &scene in &plan.scenes {
        // Until the repair, only the other plane refuses.
        if scene != Scene::Repair || planes == Planes::Both {
            play(binaries, planes, plan, scene, &mut outcome).context(scene.word())?;
        }
    }
    Ok(outcome)
}

fn play(
    binaries: &Binaries,
    planes: Planes,
    plan: &Plan,
    scene: Scene,
    outcome: &mut Outcome,
) -> Result<()> {
    let lab = Lab::new()?;
    let _authority = authority(&lab)?;
    let _echo = Echo::start(&lab.internet, &[TCP], &[UDP])?;
    let faults = Faults::new(&lab, &plan.library)?;
    let environment = faults.environment();
    let text = configuration(&lab, planes, scene, 0);
    let daemon = Daemon::start_in(&lab, binaries, planes, &text, environment)?;
    learn_others(&lab.client)?;
    let (counts, stop) = (Counts::default(), AtomicBool::new(false));
    let (client, counts, stop) = (&lab.client, &counts, &stop);
    let mut stage = Stage {
        lab: &lab,
        planes,
        scene,
        daemon,
        faults,
        counts,
        live: None,
        round: 0,
    };
    thread::scope(|scope| -> Result<()> {
        let traffic = [granted, denied].map(|work| scope.spawn(move || work(client, counts, stop)));
        let done = stage.sweep(plan, outcome);
        stop.store(true, Ordering::Relaxed);
        for thread in traffic {
            thread.join().expect("traffic does not panic")?;
        }
        done.with_context(|| stage.daemon.words())
    })?;
    for (sum, count) in outcome.counts.iter_mut().zip(counts.read()) {
        *sum += count;
    }
    outcome.words = stage.daemon.words();
    Ok(())
}

/// The rule of one network comes and goes, so that a reload changes something.
fn configuration(lab: &Lab, planes: Planes, scene: Scene, round: u32) -> String {
    let mut text = Daemon::preamble(lab, planes);
    if scene == Scene::Repair {
        text = text.replace("[planes]\n", "[planes]\nown_table = false\n");
    }
    text += &format!(
        "[limits]\nquestions = 0\nper_client = 1000000\n\n\
         [[zone]]\nname = \"managed\"\ninterfaces = [\"lan0\"]\nsources = [\"10.20.0.0/16\"]\n\
         [[zone.rule]]\nnames = [\"*.vendor.example\"]\ntcp = [{TCP}]\nudp = [{UDP}]\n"
    );
    if !round.is_multiple_of(2) {
        text += &format!(
            "[[zone.rule]]\nnetworks = [\"52.98.0.0/24\"]\ntcp = [{TCP}]\nudp = [{UDP}]\n"
        );
    }
    text
}

/// In the network whose rule comes and goes.
const LISTED: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(52, 98, 0, 1));

fn data(to: impl Into<IpAddr>) -> SocketAddr {
    SocketAddr::new(to.into(), UDP)
}

struct Stage<'a> {
    lab: &'a Lab,
    planes: Planes,
    scene: Scene,
    daemon: Daemon<'a>,
    faults: Faults,
    counts: &'a Counts,
    /// To what is about to be taken back.
    live: Option<Flow>,
    /// How often something was done; odd while the listed network is open.
    round: u32,
}

impl Stage<'_> {
    fn sweep(&mut self, plan: &Plan, outcome: &mut Outcome) -> Result<()> {
        // What is called at all, and how often.
        let counted = |stage: &Self| -> Result<Vec<u64>> {
            Class::all()
                .map(|class| stage.faults.calls(class))
                .collect()
        };
        let before = counted(self)?;
        let calm = self.once(None, &mut Fared::default())?;
        ensure!(calm.is_none(), "undisturbed: {calm:?}");
        let after = counted(self)?;
        let called = Class::all().zip(before.into_iter().zip(after));
        for (class, (before, after)) in called {
            if after == before {
                continue;
            }
            let mut fared = Fared {
                calls: after - before,
                ..Fared::default()
            };
            let errors = if plan.quick {
                &errors(class)[..1]
            } else {
                errors(class)
            };
            for &(errno, refused) in errors {
                self.class(
                    plan.most,
                    (class, errno, refused),
                    &mut fared,
                    &mut outcome.wrong,
                )?;
            }
            eprintln!("{} {class}: {} faults", self.scene.word(), fared.faults);
            outcome.fared.insert((self.scene, class), fared);
        }
        Ok(())
    }

    /// One call after the other, until none is left to fail.
    fn class(
        &mut self,
        most: u64,
        (class, errno, refused): (Class, Errno, bool),
        fared: &mut Fared,
        wrong: &mut Vec<String>,
    ) -> Result<()> {
        let stride = fared.calls.div_ceil(most).max(1);
        let each = (1..=fared.calls).step_by(usize::try_from(stride)?);
        // And once all of them, until the deed is done. Nobody is interrupted for ever.
        let all = (errno != Errno::EINTR).then_some((1, u64::MAX));
        for (first, count) in each.map(|first| (first, 1)).chain(all) {
            let fault = Fault {
                class,
                first,
                count,
                errno,
                refused,
            };
            if let Some(what) = self.once(Some(fault), fared)? {
                let what = format!("{}, {fault}: {what}", self.scene.word());
                eprintln!("{what}");
                wrong.push(what);
            }
        }
        Ok(())
    }

    /// Does what the scene says, with a fault; what went wrong.
    fn once(&mut self, fault: Option<Fault>, fared: &mut Fared) -> Result<Option<String>> {
        let mut wrong = Vec::new();
        self.round += 1;
        let number = 2000 + self.round * BATCH;
        let name = format!("x{number}.vendor.example");
        if self.scene == Scene::Revoke {
            ask(&self.lab.client, &name, SOON)?;
            self.open_flow(address(number).into())?;
        }
        if self.scene == Scene::Start {
            self.daemon.kill()?;
        }
        let before = self.counts.read();
        if let Some(fault) = fault {
            self.faults.arm(fault)?;
        }
        let began = Instant::now();
        let done = self.act(number)?;
        // What is done off the loop may come a little later.
        let wait = began + Duration::from_millis(400);
        while fault.is_some() && self.faults.seen()?[1] == 0 && Instant::now() < wait {
            thread::sleep(Duration::from_millis(2));
        }
        let failed = match fault {
            Some(_) => self.faults.seen()?[1],
            None => 0,
        };
        self.faults.disarm()?;
        fared.faults += failed;
        let ended = Instant::now();
        if self.daemon.alive().is_err() {
            fared.ended += 1;
            if self.scene != Scene::Start {
                wrong.push("the daemon ended".to_owned());
            }
            // As its manager does.
            self.daemon.restart()?;
        }
        for number in done.told {
            if !udp(
                &self.lab.client,
                data(address(number)),
                Duration::from_millis(500),
            )? {
                fared.lost += 1;
                wrong.push(format!("x{number} was told and is closed"));
            }
        }
        if done.well
            && self.scene == Scene::Revoke
            && udp(
                &self.lab.client,
                data(address(number)),
                Duration::from_millis(50),
            )?
        {
            fared.leaked += 1;
            wrong.push(format!("{name} was taken back and is open"));
        }
        match self.well(ended) {
            Ok(()) => fared.well.add(ended.elapsed()),
            Err(error) => {
                fared.late += 1;
                wrong.push(format!("{error:#}"));
            }
        }
        self.again(number, done.well, fared, &mut wrong)?;
        if let Some(mut flow) = self
            .live
            .take_if(|_| self.scene != Scene::Reload || self.round.is_multiple_of(2))
        {
            let end = ended + SOON;
            while flow.echoes(Duration::from_millis(100)) {
                if Instant::now() > end {
                    fared.leaked += 1;
                    wrong.push("a live flow that nothing grants any more goes on".to_owned());
                    break;
                }
            }
        }
        if self.scene == Scene::Reload && !self.round.is_multiple_of(2) {
            self.open_flow(LISTED)?;
        }
        let after = self.counts.read();
        let [lost, leaked] = [1, 3].map(|at| after[at] - before[at]);
        if lost + leaked > 0 {
            fared.lost += lost;
            fared.leaked += leaked;
            wrong.push(format!("{lost} packets lost, {leaked} leaked"));
        }
        Ok((!wrong.is_empty()).then(|| wrong.join("; ")))
    }

    fn open_flow(&mut self, to: IpAddr) -> Result<()> {
        let to = SocketAddr::new(to, TCP);
        self.live = Some(Flow::open(&self.lab.client, to, SOON)?);
        Ok(())
    }

    /// What the scene is about.
    fn act(&mut self, number: u32) -> Result<Done> {
        let mut told = Vec::new();
        let well = match self.scene {
            Scene::Learn => {
                told = learned(self.lab, number)?;
                told.len() == BATCH as usize
            }
            Scene::Reload => {
                let text = configuration(self.lab, self.planes, self.scene, self.round);
                self.daemon.reload_with(&text)?.status.success()
            }
            Scene::Revoke => {
                let name = format!("x{number}.vendor.example");
                self.daemon.ctl(&["revoke", &name])?.status.success()
            }
            Scene::Repair => {
                let lines = ["nft flush ruleset", "ip link set lan0 xdp off"];
                for line in &lines[..=usize::from(self.round.is_multiple_of(2))] {
                    let mut words = line.split(' ');
                    let mut command = Command::new(words.next().unwrap_or_default());
                    let _refused = self.lab.gateway.output(command.args(words));
                    // One after the other: both at once would be a gateway without a filter.
                    thread::sleep(Duration::from_millis(150));
                }
                true
            }
            Scene::Start => {
                self.daemon.relaunch()?;
                let end = Instant::now() + SOON;
                while Instant::now() < end && self.daemon.alive().is_ok() && !self.enforces()? {
                    thread::sleep(Duration::from_millis(20));
                }
                true
            }
        };
        Ok(Done { told, well })
    }

    /// Waits until the daemon says that all is well, and shows that it is.
    fn well(&self, from: Instant) -> Result<()> {
        let end = from + SOON;
        loop {
            let status = self.daemon.ctl(&["status"])?;
            if sound(&status.json) {
                return Ok(());
            }
            ensure!(Instant::now() < end, "not well: {}", status.text);
            thread::sleep(Duration::from_millis(5));
        }
    }

    fn enforces(&self) -> Result<bool> {
        Ok(sound(&self.daemon.ctl(&["status"])?.json))
    }

    /// Without a fault the same must be done as if there had been none, in all planes.
    fn again(
        &mut self,
        number: u32,
        done: bool,
        fared: &mut Fared,
        wrong: &mut Vec<String>,
    ) -> Result<()> {
        let client = &self.lab.client;
        let mut open: Vec<IpAddr> = vec![address(0).into()];
        let mut closed: Vec<IpAddr> = vec![IpAddr::from([52, 99, 1, 1])];
        match self.scene {
            Scene::Learn => {
                for number in number..number + BATCH {
                    let name = format!("x{number}.vendor.example");
                    if let Err(error) = ask(client, &name, SOON) {
                        fared.late += 1;
                        wrong.push(error.to_string());
                        return Ok(());
                    }
                    open.push(address(number).into());
                }
            }
            Scene::Reload => {
                let listed = !self.round.is_multiple_of(2);
                if !done {
                    let text = configuration(self.lab, self.planes, self.scene, self.round);
                    let outcome = self.daemon.reload_with(&text)?;
                    if !outcome.status.success() {
                        fared.late += 1;
                        wrong.push(format!("a second reload: {}", outcome.text));
                    }
                }
                if listed { &mut open } else { &mut closed }.push(LISTED);
            }
            Scene::Revoke => {
                if !done {
                    let name = format!("x{number}.vendor.example");
                    let outcome = self.daemon.ctl(&["revoke", &name])?;
                    if !outcome.status.success() {
                        fared.late += 1;
                        wrong.push(format!("a second word: {}", outcome.text));
                    }
                }
                closed.push(address(number).into());
            }
            Scene::Repair | Scene::Start => {}
        }
        for (addresses, expected) in [(open, true), (closed, false)] {
            for address in addresses {
                let passes = udp(
                    client,
                    data(address),
                    if expected { SOON / 10 } else { SOON / 100 },
                )?;
                let verdicts = self.verdicts(address)?;
                if passes != expected || verdicts.iter().any(|allowed| *allowed != Some(expected)) {
                    fared.split += 1;
                    wrong.push(format!(
                        "{address} must be {}: passes {passes}, planes {verdicts:?}",
                        if expected { "open" } else { "closed" }
                    ));
                }
            }
        }
        Ok(())
    }

    /// What each plane lets pass, read back from the kernel.
    fn verdicts(&self, address: IpAddr) -> Result<Vec<Option<bool>>> {
        let service = format!("{UDP}/udp");
        let told = self.daemon.ctl(&[
            "explain",
            &address.to_string(),
            &service,
            "--zone",
            "managed",
        ])?;
        let planes = told.json["zones"][0]["planes"].as_array();
        let planes = planes.with_context(|| told.text.clone())?;
        Ok(planes
            .iter()
            .map(|plane| plane["allowed"].as_bool())
            .collect())
    }
}

/// What an action came to.
struct Done {
    /// The names that were answered.
    told: Vec<u32>,
    /// Whether it is said to be done.
    well: bool,
}

fn sound(status: &Value) -> bool {
    let planes = status["planes"].as_array();
    status["state"] == "enforcing"
        && planes.is_some_and(|planes| planes.iter().all(|plane| plane["in_force"] == true))
}

/// Asks for [`BATCH`] names at once; those that were answered with an address.
fn learned(lab: &Lab, number: u32) -> Result<Vec<u32>> {
    lab.client.enter(|| -> Result<Vec<u32>> {
        let socket = UdpSocket::bind("0.0.0.0:0")?;
        socket.connect(SocketAddr::new(plan::GATEWAY[0], 53))?;
        socket.set_read_timeout(Some(Duration::from_secs(3)))?;
        for number in number..number + BATCH {
            let id = u16::try_from(number % 65_536)?;
            socket.send(&wire::question(id, &format!("x{number}.vendor.example"))?)?;
        }
        let mut told = Vec::new();
        for _ in 0..BATCH {
            let mut buffer = [0; 512];
            let Ok(length) = socket.recv(&mut buffer) else {
                break;
            };
            let (id, code, reply) = wire::told(&buffer[..length])?;
            if code == wire::NO_ERROR && !reply.addresses.is_empty() {
                told.extend((number..number + BATCH).filter(|n| n % 65_536 == u32::from(id)));
            }
        }
        Ok(told)
    })?
}
