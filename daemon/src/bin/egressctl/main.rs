//! egressctl: asks egressd over its control socket.
//!
//! Exit status: 0 when the answer is yes or there was nothing to decide; 1 when the answer is no
//! (`explain`: some zone asked about refuses it; `reload`: the new configuration is refused); 2 when
//! there is no answer (usage, no connection, no permission, an unknown zone).

mod catalogue;

use catalogue::CatalogueCommand;
use clap::{Parser, Subcommand};
use egressd::control::client::{Client, ClientError};
use egressd::control::protocol::{
    AllowParameters, DEFAULT_SOCKET, ExplainParameters, Failure, GrantPage, GrantsParameters,
    LateParameters, RevokeParameters, Verdict,
};
use egressd::control::{absent, exception, impact, late, revoked, text};
use serde::Serialize;
use std::io::{self, ErrorKind, Write};
use std::net::IpAddr;
use std::path::PathBuf;
use std::process::ExitCode;

/// Asks egressd what it lets through, and why.
#[derive(Parser)]
#[command(
    version,
    after_help = "Exit status: 0 yes, 1 no (explain: refused; reload: configuration refused), 2 no answer."
)]
struct Arguments {
    /// The daemon's control socket.
    #[arg(long, global = true, default_value = DEFAULT_SOCKET)]
    socket: PathBuf,
    /// Print JSON: one document, or for watch one per line.
    #[arg(long, global = true)]
    json: bool,
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// What the daemon is doing.
    Status,
    /// Every zone, its sets and its packets.
    Zones,
    /// What zones may reach now, and why.
    Grants {
        /// Only those learned for this name, or that cover this address.
        which: Option<String>,
        /// Only those of this zone.
        #[arg(long)]
        zone: Option<String>,
    },
    /// What would happen to a packet or question, and why.
    Explain {
        /// An IP address or a domain name.
        query: String,
        /// Port and protocol: 443, 443/tcp, 53/udp, icmp.
        service: Option<String>,
        /// Only for this zone.
        #[arg(long)]
        zone: Option<String>,
    },
    /// Names whose addresses clients still try after their grants ended, and a grace that would do.
    Late {
        /// Only those of this zone.
        #[arg(long)]
        zone: Option<String>,
    },
    /// End what was learned of a name, network or address, now.
    ///
    /// New flows stop at once, live flows that nothing else grants are cut. The next answer may teach the
    /// same again: to close it for good, take it out of the configuration or write a `deny`. Networks that
    /// a catalogue or rule lists are not learned and stay.
    Revoke {
        /// A domain name, an IP address, or a network in CIDR form.
        what: String,
        /// Only in this zone.
        #[arg(long)]
        zone: Option<String>,
    },
    /// Let a zone reach something for a while, beside the configuration; logged, and gone by itself.
    #[command(
        after_help = "Example: egressctl allow vpn.example.com 443,500/udp --zone managed --for 1h \
--reason \"locked out\""
    )]
    Allow {
        /// A domain name, a wildcard, an IP address, or a network in CIDR form.
        #[arg(required_unless_present = "list")]
        what: Option<String>,
        /// 443, 443/tcp, 8000-8010/udp, icmp, with commas between several.
        #[arg(required_unless_present = "list")]
        ports: Option<String>,
        /// For this zone.
        #[arg(long, required_unless_present = "list")]
        zone: Option<String>,
        /// How long, such as 90m, 8h or 7d; seven days at most.
        #[arg(long = "for", value_name = "TIME", required_unless_present = "list", value_parser = humantime::parse_duration)]
        time: Option<std::time::Duration>,
        /// Why; everybody who looks will read it.
        #[arg(long, required_unless_present = "list")]
        reason: Option<String>,
        /// List the exceptions there are.
        #[arg(long, conflicts_with_all = ["what", "ports", "zone", "time", "reason"])]
        list: bool,
    },
    /// End an exception, now.
    Disallow {
        /// Its number, as `allow --list` tells it.
        id: u32,
    },
    /// What happens from now on, until interrupted.
    ///
    /// A refused flow is told once in ten seconds: its zone, client, name (which the client asked for and
    /// which led there), address, service, interface, plane and reason, and in brackets the endpoint set
    /// that comes nearest to allowing it. docs/refused.md explains the fields.
    Watch,
    /// Vendors' lists: what they hold, what is wrong with them, what another version changes.
    ///
    /// `list`, `show`, `diff`, `check` and `import` read files; the others tell the daemon what to do with what it
    /// fetches.
    Catalogue {
        #[command(subcommand)]
        command: CatalogueCommand,
    },
    /// Read the configuration and the catalogues again.
    Reload {
        /// Accept a catalogue that is empty or much smaller than before.
        #[arg(long)]
        force: bool,
        /// Only say what it would end, cut and open now. Exit status 1 if it would be refused.
        #[arg(long, conflicts_with = "force")]
        dry_run: bool,
    },
}

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
enum Trouble {
    #[error(transparent)]
    Client(#[from] ClientError),
    #[error("{0}")]
    Usage(String),
    /// A file that cannot be used.
    #[error("{0}")]
    Refused(String),
    #[error("cannot write the answer: {0}")]
    Output(#[from] io::Error),
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build();
    let result = match runtime {
        Ok(runtime) => runtime.block_on(run(arguments)),
        Err(why) => Err(why.into()),
    };
    match result {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::from(1),
        // The reader has seen enough.
        Err(Trouble::Output(why)) if why.kind() == ErrorKind::BrokenPipe => ExitCode::SUCCESS,
        Err(trouble) => {
            eprintln!("egressctl: {trouble}");
            let no = matches!(
                trouble,
                Trouble::Refused(_)
                    | Trouble::Client(ClientError::Failed(Failure::ConfigRefused { .. }))
            );
            ExitCode::from(if no { 1 } else { 2 })
        }
    }
}

/// Whether the answer is yes.
async fn run(arguments: Arguments) -> Result<bool, Trouble> {
    let Arguments {
        socket,
        json,
        command,
    } = arguments;
    let service = match &command {
        Command::Explain {
            service: Some(service),
            ..
        } => parse_service(service)?,
        Command::Explain { .. }
        | Command::Status
        | Command::Zones
        | Command::Grants { .. }
        | Command::Late { .. }
        | Command::Revoke { .. }
        | Command::Allow { .. }
        | Command::Disallow { .. }
        | Command::Watch
        | Command::Reload { .. } => (None, None),
        Command::Catalogue {
            command: CatalogueCommand::Live(_),
        } => (None, None),
        Command::Catalogue { command } if command.asks_daemon() => (None, None),
        Command::Catalogue { command } => return catalogue::run(command, json),
    };
    let mut client = match Client::connect(&socket).await {
        Ok(client) => client,
        Err(error) => {
            if let Command::Status = command
                && let Some(status) = absent::status(&socket)
            {
                print(json, &status, text::status)?;
            }
            return Err(error.into());
        }
    };
    match command {
        Command::Status => print(json, &client.status().await?, text::status)?,
        Command::Zones => print(json, &client.zones().await?, text::zones)?,
        Command::Grants { which, zone } => {
            print(
                json,
                &all_grants(&mut client, which, zone).await?,
                text::grants,
            )?;
        }
        Command::Explain { query, zone, .. } => {
            let (port, protocol) = service;
            let what = ExplainParameters {
                query,
                port,
                protocol,
                zone,
            };
            let explanation = client.explain(&what).await?;
            print(json, &explanation, text::explanation)?;
            return Ok(!explanation.zones.is_empty()
                && explanation.zones.iter().all(|zone| passes(zone.verdict)));
        }
        Command::Late { zone } => {
            let list = client.late(&LateParameters { zone }).await?;
            print(json, &list, late::table)?;
        }
        Command::Revoke { what, zone } => {
            let revoked = client.revoke(&RevokeParameters { what, zone }).await?;
            print(json, &revoked, revoked::text)?;
        }
        Command::Allow {
            what: Some(what),
            ports: Some(ports),
            zone: Some(zone),
            time: Some(time),
            reason: Some(reason),
            list: false,
        } => {
            let parameters = AllowParameters {
                what,
                ports,
                zone,
                seconds: time.as_secs(),
                reason,
            };
            print(json, &client.allow(&parameters).await?, exception::allowed)?;
        }
        Command::Allow { .. } => print(json, &client.exceptions().await?, exception::table)?,
        Command::Disallow { id } => {
            print(json, &client.disallow(id).await?, exception::disallowed)?;
        }
        Command::Watch => {
            client.watch().await?;
            loop {
                print(json, &client.event().await?, text::event)?;
            }
        }
        Command::Catalogue {
            command: CatalogueCommand::Live(command),
        } => print(
            json,
            &catalogue::tell(command, &mut client).await?,
            text::reloaded,
        )?,
        Command::Catalogue { command } => {
            return catalogue::ask(&command, &mut client, json).await;
        }
        Command::Reload { dry_run: true, .. } => {
            print(json, &client.preview().await?, impact::text)?
        }
        Command::Reload { force, .. } => print(json, &client.reload(force).await?, text::reloaded)?,
    }
    Ok(true)
}

fn passes(verdict: Verdict) -> bool {
    match verdict {
        Verdict::Allowed | Verdict::Audited | Verdict::Askable => true,
        Verdict::Refused | Verdict::Split => false,
    }
}

/// Every page, as one.
async fn all_grants(
    client: &mut Client,
    which: Option<String>,
    zone: Option<String>,
) -> Result<GrantPage, Trouble> {
    let (address, name) = match which {
        Some(text) if text.parse::<IpAddr>().is_ok() => (Some(text), None),
        other => (None, other),
    };
    let mut query = GrantsParameters {
        zone,
        address,
        name,
        limit: None,
        after: None,
    };
    let mut all = GrantPage::default();
    loop {
        let page = client.grants(&query).await?;
        all.grants.extend(page.grants);
        if page.next.is_none() || page.next == query.after {
            return Ok(all);
        }
        query.after = page.next;
    }
}

/// Reads `443`, `443/tcp`, `tcp/443` or `icmp` as port and protocol.
fn parse_service(text: &str) -> Result<(Option<u16>, Option<String>), Trouble> {
    let usage = || {
        let text = text.escape_debug();
        Trouble::Usage(format!(
            "`{text}` is no port; write 443, 443/tcp, 53/udp or icmp"
        ))
    };
    let (port, protocol) = match text.split_once('/') {
        Some((first, second)) => match first.parse() {
            Ok(port) => (Some(port), Some(second)),
            Err(_) => (Some(second.parse().map_err(|_| usage())?), Some(first)),
        },
        None => match text.parse() {
            Ok(port) => (Some(port), None),
            Err(_) => (None, Some(text)),
        },
    };
    if protocol.is_some_and(|protocol| {
        protocol.is_empty() || protocol.parse::<u32>().is_ok_and(|number| number > 255)
    }) {
        return Err(usage());
    }
    Ok((port, protocol.map(str::to_owned)))
}

fn print<T: Serialize>(json: bool, value: &T, text: impl Fn(&T) -> String) -> io::Result<()> {
    let text = if json {
        format!("{}\n", serde_json::to_string(value)?)
    } else {
        text(value)
    };
    let mut out = io::stdout().lock();
    out.write_all(text.as_bytes())?;
    out.flush()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_is_sound() {
        use clap::CommandFactory;
        Arguments::command().debug_assert();
    }

    #[test]
    fn services() {
        fn check(text: &str, expected: Option<(Option<u16>, Option<&str>)>) {
            let got = parse_service(text).ok();
            let expected = expected.map(|(port, name)| (port, name.map(str::to_owned)));
            assert_eq!(got, expected, "{text}");
        }
        check("443", Some((Some(443), None)));
        check("53/udp", Some((Some(53), Some("udp"))));
        check("tcp/443", Some((Some(443), Some("tcp"))));
        check("icmp", Some((None, Some("icmp"))));
        check("65536", None);
        check("tcp/", None);
        check("/tcp", None);
        check("tcp/https", None);
    }
}
