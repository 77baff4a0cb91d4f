//! `cargo xtask demo`: the whole path on a toy internet, watched while it works.
#![expect(clippy::disallowed_methods, reason = "shell: times itself")]

use anyhow::{Context, Result};
use clap::{Parser, ValueEnum};
use egressd_tests::demo::catalogue::Catalogue;
use egressd_tests::demo::client::{self, Told};
use egressd_tests::demo::explain::explain;
use egressd_tests::demo::judge::{Judged, Tally, judge};
use egressd_tests::demo::plan::Plan;
use egressd_tests::demo::report::{Report, told};
use egressd_tests::lab::{
    Authority, Binaries, Daemon, Echo, Lab, Planes, Web, Witness, plan as addresses,
    sweep_on_signal,
};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::{Duration, Instant};

/// A gateway between a client and a toy internet: what the catalogue grants passes, all else fails.
#[derive(Parser)]
struct Options {
    /// Which planes enforce.
    #[arg(long, value_enum, default_value_t = Gateway::Both)]
    planes: Gateway,
    /// Leave everything running afterwards, until Ctrl-C.
    #[arg(long)]
    keep: bool,
    /// Print one JSON document at the end; live lines go to standard error.
    #[arg(long)]
    json: bool,
    /// Show every attempt, not only sums.
    #[arg(long, short)]
    verbose: bool,
    /// The catalogue to try.
    #[arg(long, default_value = concat!(env!("CARGO_MANIFEST_DIR"), "/../config/catalogues/intune.toml"))]
    catalogue: PathBuf,
    /// Where `egressd` and `egressctl` are.
    #[arg(long, env = "EGRESSD_BIN_DIR", default_value = "target/release")]
    binaries: PathBuf,
    /// How many clients work at a time.
    #[arg(long, default_value_t = 32)]
    workers: usize,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Gateway {
    /// nft alone.
    Nft,
    /// ebpf alone.
    Ebpf,
    /// Both, as on a real gateway.
    Both,
    /// No egressd: a router that forwards everything. Every forbidden attempt must then be reported
    /// as a failure; if not, the demo itself is broken.
    Plain,
}

impl Gateway {
    fn planes(self) -> Option<Planes> {
        match self {
            Self::Nft => Some(Planes::Nft),
            Self::Ebpf => Some(Planes::Ebpf),
            Self::Both => Some(Planes::Both),
            Self::Plain => None,
        }
    }
}

fn main() -> ExitCode {
    let options = Options::parse();
    match demo(&options) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("demo: {error:#}");
            ExitCode::from(2)
        }
    }
}

fn demo(options: &Options) -> Result<bool> {
    sweep_on_signal()?;
    let say = |line: &str| {
        if options.json {
            eprintln!("{line}")
        } else {
            println!("{line}")
        }
    };
    let catalogue = Catalogue::read(&options.catalogue)?;
    let mut plan = Plan::new(&catalogue)?;
    if options.planes == Gateway::Plain {
        without_gateway(&mut plan);
    }
    say(&format!(
        "catalogue {}: {} sets; {} jobs from {} clients at a time",
        catalogue.name,
        catalogue.sets.len(),
        plan.jobs.len(),
        options.workers
    ));

    let lab = Lab::new().context("build namespaces (are you root?)")?;
    let _authority = Authority::start(&lab, &plan.world.zone())?;
    let _web = Web::start(&lab)?;
    let _echo = Echo::start(&lab.internet, &[], &[123, 443, 853, 3544])?;
    let witness = Witness::watch(&lab.internet)?;
    say(
        "internet: nsd serves every name, nginx every address on every port, UDP echo on 123 and more",
    );

    let began = Instant::now();
    let daemon = match options.planes.planes() {
        Some(planes) => {
            let binaries = Binaries(options.binaries.clone());
            Some(Daemon::start(&lab, &binaries, planes, &zone(&catalogue))?)
        }
        None => None,
    };
    let ready = began.elapsed();
    if let Some(daemon) = &daemon {
        say(&format!(
            "gateway: egressd (process {}) ready after {ready:.2?}",
            daemon.id()
        ));
    }

    let began = Instant::now();
    let attempts = attempt(&lab, &plan, &witness, options, &say)?;
    let took = began.elapsed();
    let explained = match &daemon {
        Some(daemon) => vec![
            explain(daemon, "manage.microsoft.com", "443/tcp", true)?,
            explain(
                daemon,
                "manage.microsoft.com.evil.example",
                "443/tcp",
                false,
            )?,
        ],
        None => Vec::new(),
    };
    let planes = format!("{:?}", options.planes).to_lowercase();
    let report = Report::new(&planes, &plan.groups, attempts, explained, took, ready);
    if options.json {
        println!("{}", serde_json::to_string_pretty(&report)?);
    } else {
        print!("{}", report.text());
    }
    if !report.good
        && let Some(daemon) = &daemon
    {
        eprintln!("last words of egressd:\n{}", daemon.words());
    }
    if options.keep {
        keep(&lab, daemon.as_ref(), &options.binaries);
    }
    Ok(report.good)
}

/// Does the plan, tells each group's sums when its last job is done, and judges.
fn attempt(
    lab: &Lab,
    plan: &Plan,
    witness: &Witness<'_>,
    options: &Options,
    say: &dyn Fn(&str),
) -> Result<Vec<Judged>> {
    let mut open: Vec<usize> = vec![0; plan.groups.len()];
    for job in &plan.jobs {
        open[job.group] += 1;
    }
    let mut waiting: Vec<Vec<client::Event>> = plan.groups.iter().map(|_| Vec::new()).collect();
    let mut judged = Vec::new();
    client::run(&lab.client, &plan.jobs, options.workers, |news| {
        let group = match news {
            Told::Event(event) => {
                waiting[event.group].push(event);
                return Ok(());
            }
            Told::Done(group) => group,
        };
        open[group] -= 1;
        if open[group] > 0 {
            return Ok(());
        }
        let seen = witness.seen()?;
        let about = &plan.groups[group];
        let events = std::mem::take(&mut waiting[group]);
        let events: Vec<_> = events
            .into_iter()
            .map(|event| judge(about, event, &seen))
            .collect();
        for event in events
            .iter()
            .filter(|judged| options.verbose || !judged.good)
        {
            say(&told(event));
        }
        let tally = Tally::of(&events);
        say(&format!(
            "{} {:<40} asked {:<10} allowed {:<10} refused {:<10} {}",
            if tally.whole() { "ok " } else { "BAD" },
            about.title,
            tally.questions,
            tally.granted,
            tally.forbidden,
            about.about
        ));
        judged.extend(events);
        Ok(())
    })?;
    Ok(judged)
}

fn zone(catalogue: &Catalogue) -> String {
    let shared: Vec<String> = catalogue
        .shared()
        .iter()
        .map(|p| format!("\"{p}\""))
        .collect();
    format!(
        "[[zone]]\nname = \"managed\"\ninterfaces = [\"lan0\"]\n\
         sources = [\"10.20.0.0/16\", \"2001:db8:20::/48\"]\nallow = [\"{}\"]\nshared = [{}]\n",
        catalogue.name,
        shared.join(", ")
    )
}

/// Nobody answers at the gateway: the client asks the authority itself.
fn without_gateway(plan: &mut Plan) {
    for question in plan.jobs.iter_mut().filter_map(|job| job.question.as_mut()) {
        if addresses::GATEWAY.contains(&question.resolver) {
            question.resolver = addresses::UPSTREAM;
        }
    }
}

fn keep(lab: &Lab, daemon: Option<&Daemon<'_>>, binaries: &Path) {
    let [client, gateway, internet] =
        [&lab.client, &lab.gateway, &lab.internet].map(|namespace| namespace.shell());
    eprintln!("\nEverything keeps running. As root, in other terminals:");
    eprintln!("  client    {client}\n  gateway   {gateway}\n  internet  {internet}");
    eprintln!(
        "In the client try: dig @{} manage.microsoft.com",
        addresses::GATEWAY[0]
    );
    if let Some(daemon) = daemon {
        let ctl = binaries.join("egressctl");
        let socket = lab.dir().join("control.sock");
        eprintln!(
            "Ask the daemon: {} --socket {} status",
            ctl.display(),
            socket.display()
        );
        eprintln!("Its configuration: {}", daemon.config().display());
    }
    eprintln!("Ctrl-C stops and removes it all.");
    loop {
        // The thread that waits for the signal ends the process.
        std::thread::park_timeout(Duration::from_secs(3600));
    }
}
