//! `egressctl catalogue`: reads files, and tells the daemon what to do with what it fetches.
#![expect(
    clippy::disallowed_methods,
    reason = "shell: reads and writes catalogues"
)]

use super::{Trouble, print};
use clap::{Args, Subcommand, ValueEnum};
use egressd::catalogue_import::{read, write};
use egressd::check::{self, catalogue as report};
use egressd::config::{self, Settings};
use egressd::control::client::{Client, ClientError};
use egressd::control::impact;
use egressd::control::protocol::{
    ConfirmParameters, Preview, Reloaded, UpdateParameters, VersionParameters,
};
use egressd::policy::catalogue::{Catalogue, EndpointSet};
use egressd::policy::port::{PortSet, Service, TCP, UDP};
use serde::Serialize;
use std::fs;
use std::io::Write as _;
use std::path::{Path, PathBuf};

#[derive(Subcommand)]
pub(super) enum CatalogueCommand {
    /// The catalogues of the configuration, with their versions and sizes.
    List {
        #[command(flatten)]
        configured: Configured,
    },
    /// What sets hold; for a zone, which of them it gets and why not the others.
    Show {
        /// A catalogue, a part of it or a set: intune, intune/core, intune/163, intune:required.
        what: String,
        /// For this zone.
        #[arg(long)]
        zone: Option<String>,
        #[command(flatten)]
        configured: Configured,
    },
    /// What another version widens and narrows. Exit status 1 if anything differs.
    Diff {
        /// The version that is there: a catalogue of the configuration, or a file.
        old: String,
        /// The new version: a file of any format that is known.
        new: PathBuf,
        /// Ask egressd as well what it would end, cut and open now; OLD is a catalogue in force.
        ///
        /// The file stands for all of the catalogue. What the configuration says of it beside its name
        /// (required_only, tcp, more files) is not applied: reload --dry-run judges that.
        #[arg(long)]
        impact: bool,
        #[command(flatten)]
        configured: Configured,
    },
    /// What looks wrong in catalogues. Exit status 1 with `--deny warnings` if anything does, or if one cannot be
    /// read.
    Check {
        /// Files of any format that is known.
        #[arg(required_unless_present = "live")]
        files: Vec<PathBuf>,
        /// Ask egressd what of this catalogue, which is in force, no client ever asked for.
        #[arg(long, value_name = "NAME", conflicts_with = "files")]
        live: Option<String>,
        /// What makes it fail.
        #[arg(long, value_enum)]
        deny: Option<Deny>,
    },
    #[command(flatten)]
    Live(Live),
    /// Read a catalogue of any format that is known, say what was left out, and write it in egressd's own.
    Import(Import),
}

/// What takes the daemon.
#[derive(Subcommand)]
pub(super) enum Live {
    /// Ask the servers of catalogues for newer versions, now.
    Update {
        /// Which catalogue; all that are fetched without it.
        name: Option<String>,
        /// Take what comes although it lost much, or was rolled back from.
        #[arg(long)]
        force: bool,
    },
    /// Keep a version in force whatever comes; `status` lists the versions.
    Pin {
        /// Which catalogue.
        name: String,
        /// Which version.
        version: String,
    },
    /// Follow the newest version again.
    Unpin {
        /// Which catalogue.
        name: String,
    },
    /// Go back to a version before, until another one than the newest comes.
    Rollback {
        /// Which catalogue.
        name: String,
        /// Which version; the one before without it.
        version: Option<String>,
    },
    /// End what is held: what a catalogue no longer lists and is in force for a while longer.
    Confirm {
        /// Which catalogue.
        name: String,
        /// Names, networks and set ids; everything that is held without them.
        entries: Vec<String>,
    },
}

/// What to import.
#[derive(Args)]
pub(super) struct Import {
    /// The file: the web service's answer, tables of a page, service tags, a list, CSV …
    file: PathBuf,
    /// Where the catalogue goes; without it nothing is written. `-` is the standard output.
    #[arg(long, short)]
    output: Option<PathBuf>,
    /// What selectors will call it.
    #[arg(long)]
    name: Option<String>,
    /// TCP ports of sets for which the format tells none: 443,8000-8010.
    #[arg(long)]
    tcp: Option<String>,
    /// The same for UDP.
    #[arg(long)]
    udp: Option<String>,
}

/// Which configuration.
#[derive(Args)]
pub(super) struct Configured {
    /// The configuration file.
    #[arg(long, default_value = "/etc/egressd/egressd.toml")]
    config: PathBuf,
}

impl Configured {
    fn read(&self) -> Result<Settings, Trouble> {
        config::load(&self.config).map_err(|problems| Trouble::Refused(problems.to_string()))
    }
}

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(super) enum Deny {
    /// Warnings: somebody may reach more or less than the source says.
    Warnings,
}

impl CatalogueCommand {
    /// Whether it needs a daemon.
    pub(super) fn asks_daemon(&self) -> bool {
        match self {
            Self::Diff { impact, .. } => *impact,
            Self::Check { live, .. } => live.is_some(),
            Self::Live(_) => true,
            Self::List { .. } | Self::Show { .. } | Self::Import(_) => false,
        }
    }
}

/// What a new version changes, and what that does now.
#[derive(Serialize)]
struct Changed {
    impact: Preview,
    difference: report::Difference,
}

/// Does what needs a daemon.
pub(super) async fn ask(
    command: &CatalogueCommand,
    client: &mut Client,
    json: bool,
) -> Result<bool, Trouble> {
    if let CatalogueCommand::Check {
        live: Some(name), ..
    } = command
    {
        let live = report::live(&client.unseen(name).await?);
        print(json, &live, ToString::to_string)?;
        return Ok(true);
    }
    let CatalogueCommand::Diff {
        old,
        new,
        configured,
        ..
    } = command
    else {
        return run(command, json);
    };
    let before = named(&configured.read()?, old)?;
    let after = file(new)?;
    let difference = report::difference(&before, &after);
    with_ports(&after)?;
    let impact = client.preview_catalogue(old, &write(&after)).await?;
    let changed = Changed { impact, difference };
    print(json, &changed, |changed| {
        format!("{}\n{}", impact::text(&changed.impact), changed.difference)
    })?;
    Ok(changed.difference.is_empty())
}

/// What cannot be written, cannot be sent.
fn with_ports(catalogue: &Catalogue) -> Result<(), Trouble> {
    let without = |set: &&EndpointSet| set.ports.is_empty();
    let without = catalogue.sets.iter().filter(without).count();
    if without == 0 {
        return Ok(());
    }
    Err(Trouble::Usage(format!(
        "{without} sets have no port, and the format tells none; write them with egressctl catalogue import \
         --tcp 443 first"
    )))
}

/// Whether the answer is yes.
pub(super) fn run(command: &CatalogueCommand, json: bool) -> Result<bool, Trouble> {
    match command {
        CatalogueCommand::List { configured } => {
            let report = check::report(&configured.read()?, None);
            print(json, &report.catalogues, |all| {
                all.iter().map(ToString::to_string).collect()
            })?;
            Ok(true)
        }
        CatalogueCommand::Show {
            what,
            zone,
            configured,
        } => {
            let settings = configured.read()?;
            let rows = report::show(&settings, what, zone.as_deref()).map_err(Trouble::Usage)?;
            print(json, &rows, |rows| {
                rows.iter().map(ToString::to_string).collect()
            })?;
            Ok(true)
        }
        CatalogueCommand::Diff {
            old,
            new,
            configured,
            impact: _,
        } => {
            let path = Path::new(old);
            let old = if path.is_file() {
                file(path)?
            } else {
                named(&configured.read()?, old)?
            };
            let difference = report::difference(&old, &file(new)?);
            print(json, &difference, ToString::to_string)?;
            Ok(difference.is_empty())
        }
        CatalogueCommand::Check { files, deny, .. } => {
            let mut all = Vec::new();
            for path in files {
                all.push(report::import(&path.display().to_string(), &file(path)?));
            }
            print(json, &all, |all| {
                all.iter().map(ToString::to_string).collect()
            })?;
            let warned = all.iter().any(report::Import::has_warnings);
            Ok(!(warned && *deny == Some(Deny::Warnings)))
        }
        CatalogueCommand::Import(what) => import(what, json),
        CatalogueCommand::Live(_) => Err(Trouble::Usage("this takes the daemon".to_owned())),
    }
}

/// Tells the daemon.
pub(super) async fn tell(command: Live, client: &mut Client) -> Result<Reloaded, ClientError> {
    match command {
        Live::Update { name, force } => {
            let force = Some(force);
            client.update(&UpdateParameters { name, force }).await
        }
        Live::Pin { name, version } => {
            let version = Some(version);
            client.pin(&VersionParameters { name, version }).await
        }
        Live::Unpin { name } => {
            let version = None;
            client.pin(&VersionParameters { name, version }).await
        }
        Live::Rollback { name, version } => {
            client.roll_back(&VersionParameters { name, version }).await
        }
        Live::Confirm { name, entries } => {
            client.confirm(&ConfirmParameters { name, entries }).await
        }
    }
}

fn import(what: &Import, json: bool) -> Result<bool, Trouble> {
    let mut catalogue = file(&what.file)?;
    if let Some(name) = &what.name {
        catalogue.name.clone_from(name);
    } else if catalogue.name.is_empty() {
        catalogue.name = stem(&what.file);
    }
    let mut services = Vec::new();
    for (text, protocol) in [(&what.tcp, TCP), (&what.udp, UDP)] {
        for port in text.iter().flat_map(|text| text.split(',')) {
            services.push(service(port, protocol)?);
        }
    }
    catalogue.default_ports(&PortSet::new(services), "the command line");
    let report = report::import(&what.file.display().to_string(), &catalogue);
    let Some(output) = &what.output else {
        print(json, &report, ToString::to_string)?;
        return Ok(true);
    };
    let without = catalogue
        .sets
        .iter()
        .filter(|set| set.ports.is_empty())
        .count();
    if without > 0 {
        return Err(Trouble::Usage(format!(
            "{without} sets have no port, and the format tells none; give --tcp 443"
        )));
    }
    let text = write(&catalogue);
    // What cannot be read again is not written.
    read(text.as_bytes(), "the catalogue")
        .map_err(|problems| Trouble::Usage(problems.to_string()))?;
    if output.as_os_str() == "-" {
        std::io::stdout().write_all(text.as_bytes())?;
        return Ok(true);
    }
    fs::write(output, text).map_err(|error| {
        Trouble::Usage(format!("{} cannot be written: {error}", output.display()))
    })?;
    print(json, &report, ToString::to_string)?;
    Ok(true)
}

fn service(text: &str, protocol: u8) -> Result<Service, Trouble> {
    let (first, last) = text.split_once('-').unwrap_or((text, text));
    let port = |text: &str| text.trim().parse::<u16>().ok().filter(|port| *port > 0);
    match (port(first), port(last)) {
        (Some(first), Some(last)) if first <= last => Ok(Service {
            protocol,
            first,
            last,
        }),
        _ => Err(Trouble::Usage(format!(
            "`{text}` is no port; write 443 or 8000-8010"
        ))),
    }
}

/// A word for selectors, of a file's name.
fn stem(path: &Path) -> String {
    let stem = path.file_stem().unwrap_or_default().to_string_lossy();
    let plain = |c: char| {
        if c.is_ascii_alphanumeric() || "._".contains(c) {
            c
        } else {
            '-'
        }
    };
    stem.chars().map(plain).collect()
}

fn file(path: &Path) -> Result<Catalogue, Trouble> {
    let name = path.display().to_string();
    let bytes = fs::read(path)
        .map_err(|error| Trouble::Usage(format!("{name} cannot be read: {error}")))?;
    read(&bytes, &name).map_err(|problems| Trouble::Refused(problems.to_string()))
}

fn named(settings: &Settings, name: &str) -> Result<Catalogue, Trouble> {
    let catalogues = &settings.intent.catalogues;
    let found = catalogues
        .iter()
        .find(|catalogue| catalogue.name == name)
        .cloned();
    found.ok_or_else(|| {
        let known: Vec<_> = catalogues
            .iter()
            .map(|catalogue| &*catalogue.name)
            .collect();
        Trouble::Usage(format!(
            "`{name}` is neither a file nor one of the catalogues {}",
            known.join(", ")
        ))
    })
}
