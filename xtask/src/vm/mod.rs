//! `cargo xtask vm`: the same programs and tests on other kernels. Boots Debian's kernels in QEMU,
//! each with nothing but our own first process and the tests; installs nothing.

mod archive;
mod boot;
mod image;
mod machine;
mod modules;
mod outcome;

use crate::build::{self, OBJECT};
use crate::setup::{Group, packages};
use crate::shell::{capture, cargo, on_path, say, target, write};
use anyhow::{Context, Result};
use archive::{Archive, Emulator, Kernel};
use clap::Args;
use image::Image;
use outcome::{Outcome, table};
use std::path::{Path, PathBuf};
use std::time::Duration;

/// One series each, the oldest that works first. The archive has no 5.15.
const SERIES: &[&str] = &["5.10", "6.1", "6.12", "newest"];
/// The series of `--quick`: the oldest on which nothing may be skipped.
const QUICK: &[&str] = &["6.1"];

/// Options of the kernel matrix.
#[derive(Args, Default)]
pub(crate) struct Options {
    /// A series of kernels, like 6.1, or `newest` (may be given several times); 5.10, 6.1, 6.12 and
    /// the newest by default.
    #[arg(long = "kernel", value_name = "SERIES")]
    kernels: Vec<String>,
    /// One kernel (6.1 unless named) and the programs' tests alone.
    #[arg(long)]
    quick: bool,
    /// Boot with systemd and the units as they are shipped instead, with traffic from before the network is up,
    /// and let happen to the service what may (6.12 unless named).
    #[arg(long, conflicts_with = "quick")]
    boot: bool,
    /// Run this command instead of the tests; the unit tests are `/tests/unit`, those in namespaces
    /// `/tests/namespaces`.
    #[arg(long, value_name = "COMMAND")]
    run: Option<String>,
    /// Print an array of outcomes instead of a table; all else goes to standard error.
    #[arg(long)]
    json: bool,
    /// Show everything that the machines say.
    #[arg(long, short)]
    verbose: bool,
}

/// A thing to run in a machine.
struct Step {
    name: &'static str,
    command: &'static str,
    quick: bool,
}

/// What runs in each machine. Emulated processors are slow: one test after the other.
const STEPS: &[Step] = &[
    Step {
        name: "measure",
        command: "/tests/unit plane::ebpf::tests::kernel --nocapture --test-threads=1",
        quick: true,
    },
    Step {
        name: "life",
        command: LIFE,
        quick: true,
    },
    Step {
        name: "corpus",
        command: CORPUS,
        quick: false,
    },
    Step {
        name: "nft",
        command: "/tests/unit plane::nft --nocapture --test-threads=1",
        quick: false,
    },
    Step {
        name: "live",
        command: "EGRESSD_PLANES=both EGRESSD_BIN_DIR=/bin /tests/namespaces --test-threads=1 sigkill",
        quick: false,
    },
];

/// The plane's whole life on interfaces in namespaces, and the programs' load with few capabilities.
const LIFE: &str = "/tests/unit world::native_xdp world::tcx two_capabilities what_is_used \
    --nocapture --test-threads=1";

/// The programs against the model on the packet corpus, with all capabilities and with two, and on
/// interfaces in namespaces.
const CORPUS: &str = "/tests/unit plane::ebpf --skip tests::kernel --nocapture --test-threads=1";

/// Tools that tests in namespaces call; [`Group::Lab`] brings them.
const TOOLS: &[&str] = &[
    "conntrack",
    "dig",
    "ethtool",
    "ip",
    "nft",
    "nsd",
    "nsenter",
    "ping",
    "sh",
    "sysctl",
    "tc",
    "unshare",
];

/// The series of `--boot`: what the current Debian has.
const BOOTED: &[&str] = &["6.12"];

/// How long a machine may run.
const LIMIT: Duration = Duration::from_secs(900);
const LIMIT_QUICK: Duration = Duration::from_secs(240);

/// The quick part, for every change; whether it passed. Where kernels cannot be had it is skipped,
/// and said.
///
/// # Errors
/// When something cannot be built.
pub(crate) fn quick() -> Result<bool> {
    if let Err(error) = Archive::open().and_then(|archive| archive.emulator()) {
        say(format!("SKIPPED: other kernels (1 test): {error:#}"));
        return Ok(true);
    }
    run(&Options {
        quick: true,
        ..Options::default()
    })
}

/// Runs the matrix; whether every kernel passed.
///
/// # Errors
/// When something cannot be had or built.
pub(crate) fn run(options: &Options) -> Result<bool> {
    packages(&[Group::Lab])?;
    let outcomes = matrix(options)?;
    if options.json {
        let all: Vec<_> = outcomes.iter().map(Outcome::json).collect();
        println!("{:#}", serde_json::Value::from(all));
    } else {
        let rows: Vec<_> = outcomes.iter().map(Outcome::row).collect();
        print!("{}", table(&rows));
        for outcome in &outcomes {
            for failed in &outcome.failed {
                println!("{}: FAILED {failed}", outcome.kernel);
            }
            for skipped in &outcome.skipped {
                println!("{}: skipped {skipped}", outcome.kernel);
            }
        }
    }
    Ok(outcomes.iter().all(Outcome::good))
}

fn matrix(options: &Options) -> Result<Vec<Outcome>> {
    let archive = Archive::open()?;
    let emulator = archive.emulator()?;
    let wanted: Vec<&str> = match options.kernels.as_slice() {
        [] if options.quick => QUICK.to_vec(),
        [] if options.boot => BOOTED.to_vec(),
        [] => SERIES.to_vec(),
        named => named.iter().map(String::as_str).collect(),
    };
    let programs = Programs::build()?;
    let mut kvm = machine::has_kvm();
    let mut outcomes = Vec::new();
    for series in wanted {
        let outcome = match archive.kernel(series)? {
            Some(kernel) => one(&emulator, &kernel, &programs, (options, &mut kvm))?,
            None => Outcome {
                kernel: series.to_owned(),
                failed: vec!["the archive has no such kernel".to_owned()],
                ..Outcome::default()
            },
        };
        say(format!(
            "{}: {}",
            outcome.kernel,
            if outcome.good() { "passed" } else { "FAILED" }
        ));
        outcomes.push(outcome);
    }
    Ok(outcomes)
}

fn one(
    emulator: &Emulator,
    kernel: &Kernel,
    programs: &Programs,
    (options, kvm): (&Options, &mut bool),
) -> Result<Outcome> {
    let steps: Vec<(&str, &str)> = match &options.run {
        Some(command) => vec![("run", command.as_str())],
        None if options.boot => vec![("boot", "")],
        None => STEPS
            .iter()
            .filter(|step| step.quick || !options.quick)
            .map(|step| (step.name, step.command))
            .collect(),
    };
    let mut image = if options.boot {
        programs.system()?
    } else {
        programs.image()?
    };
    let modules = modules::wanted(&kernel.modules)?;
    for (place, module) in modules.into_iter().enumerate() {
        image.add(
            format!("/modules/{place:03}-{}.ko", module.name),
            module.content,
        );
    }
    let plan: String = steps
        .iter()
        .map(|(name, command)| format!("{name}\t{command}\n"))
        .collect();
    image.add("/plan", plan.into_bytes());
    let file = target().join(format!("vm/{}.initramfs", kernel.release));
    write(&file, image.archive())?;
    let limit = if options.quick { LIMIT_QUICK } else { LIMIT };
    let console = machine::boot(emulator, kernel, &file, limit, kvm)?;
    let log = target().join(format!("vm/{}.log", kernel.release));
    write(&log, console.lines.join("\n"))?;
    let names: Vec<&str> = steps.iter().map(|(name, _)| *name).collect();
    let outcome = Outcome::read(&kernel.release, &console, &names);
    if options.verbose || !outcome.good() {
        eprintln!("{}", console.lines.join("\n"));
    }
    say(format!("all of it is in {}", log.display()));
    Ok(outcome)
}

/// Programs that run in a machine, as built for this one.
struct Programs {
    guest: PathBuf,
    unit: PathBuf,
    namespaces: PathBuf,
    daemon: PathBuf,
    client: PathBuf,
    boot: PathBuf,
}

impl Programs {
    fn build() -> Result<Self> {
        let object = build::object()?;
        let artifacts = |arguments: &[&str]| {
            let mut build = cargo();
            build.env(OBJECT, &object).args(arguments);
            build.args(["--message-format", "json-render-diagnostics", "--quiet"]);
            capture(&mut build)
        };
        let daemon = artifacts(&["build", "--package", "egressd", "--bins"])?;
        let unit = artifacts(&["test", "--package", "egressd", "--lib", "--no-run"])?;
        let tests = ["--package", "egressd-tests"];
        let guest = artifacts(&[
            "build", tests[0], tests[1], "--bin", "guest", "--bin", "boot",
        ])?;
        let suite = artifacts(&[
            "test",
            tests[0],
            tests[1],
            "--test",
            "namespaces",
            "--no-run",
        ])?;
        Ok(Self {
            guest: executable(&guest, "guest")?,
            boot: executable(&guest, "boot")?,
            unit: executable(&unit, "egressd")?,
            namespaces: executable(&suite, "namespaces")?,
            daemon: executable(&daemon, "egressd")?,
            client: executable(&daemon, "egressctl")?,
        })
    }

    fn image(&self) -> Result<Image> {
        let mut image = Image::default();
        image.program(&self.guest, "/init")?;
        image.program(&self.unit, "/tests/unit")?;
        image.program(&self.namespaces, "/tests/namespaces")?;
        image.program(&self.daemon, "/bin/egressd")?;
        image.program(&self.client, "/bin/egressctl")?;
        for tool in TOOLS {
            let Some(path) = on_path(tool) else {
                say(format!(
                    "{tool} is missing: tests that need it will not run"
                ));
                continue;
            };
            image.program(&path, Path::new("/bin").join(tool))?;
        }
        image.add("/etc/passwd", b"root:x:0:0::/:/bin/sh\n".to_vec());
        image.add("/etc/group", b"root:x:0:\n".to_vec());
        Ok(image)
    }
}

/// The executable called `name` among what cargo says it built.
fn executable(messages: &str, name: &str) -> Result<PathBuf> {
    messages
        .lines()
        .filter_map(|line| serde_json::from_str::<serde_json::Value>(line).ok())
        .filter(|message| message["target"]["name"] == name)
        .find_map(|message| message["executable"].as_str().map(PathBuf::from))
        .with_context(|| format!("cargo names no executable {name}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn executables_are_found() {
        let messages = "{\"reason\":\"compiler-artifact\",\"target\":{\"name\":\"a\"},\"executable\":null}\n\
            {\"target\":{\"name\":\"a\"},\"executable\":\"/x/a\"}\nnot json\n";
        assert_eq!(executable(messages, "a").ok(), Some(PathBuf::from("/x/a")));
        assert!(executable(messages, "b").is_err());
    }
}
