//! Settings: `/etc/egressd/egressd.toml` as values, and problems that say where and what to write.
//! Only `load` touches a file; nothing here asks the machine anything.

mod catalogues;
mod dns;
mod dnssec;
mod feed;
mod load;
mod local;
mod nat64;
mod observe;
mod redirect;
mod sections;
mod upstream;
mod verify;
mod zone;

#[cfg(test)]
mod tests;

pub use crate::document::{Problem, Problems};
pub use dnssec::{Anchors, DnssecSettings};
pub use feed::Feed;
pub use load::{Text, load};
pub use upstream::{Authority, Forward, ServerName, Transport, Upstream};

use crate::document::Document;
use crate::fetch::Endpoint;
use crate::policy::answer::Ech;
use crate::policy::catalogue::Catalogue;
use crate::policy::nat64::Prefix;
use crate::policy::rules::Intent;
use catalogues::Catalogues;
use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// Reads a configuration. `file` is what problems call it; `read` opens the catalogue files that it
/// names, by the paths it writes.
///
/// # Errors
/// With everything wrong in it and in those files.
pub fn parse(
    text: &str,
    file: &str,
    read: &dyn Fn(&Path) -> io::Result<Vec<u8>>,
) -> Result<Settings, Problems> {
    parse_with(text, file, read, &|_, _, _| None)
}

/// [`parse`], where `fetched` tells what is in force of the sources that are fetched, if they were ever had: of which
/// catalogue, where it comes from, and the folder of the daemon's state first.
///
/// # Errors
/// As [`parse`].
pub fn parse_with(
    text: &str,
    file: &str,
    read: &dyn Fn(&Path) -> io::Result<Vec<u8>>,
    fetched: &dyn Fn(&Path, &str, &Endpoint) -> Option<Catalogue>,
) -> Result<Settings, Problems> {
    let document = Document::new(text, file);
    let mut root = document.root();
    let gateway = sections::gateway(root.table("gateway"));
    let (mut dns, nat64, observed) = dns::dns(root.table("dns"), read);
    let planes = sections::planes(root.table("planes"));
    let control = sections::control(root.table("control"));
    let service = sections::service(root.table("service"));
    let (limits, clients) = sections::limits(root.table("limits"));
    dns.clients = clients;
    let mut catalogues = Catalogues::take(root.tables("catalogue"), read, &|name, url| {
        fetched(&service.state, name, url)
    });
    let tables = root.tables("zone").into_iter();
    let mut zones: Vec<_> = tables.map(|table| zone::zone(table, &catalogues)).collect();
    let specs = zones.iter().map(|zone| &zone.spec);
    catalogues.bring_selected(specs.flat_map(|spec| spec.allow.iter().chain(&spec.deny)));
    verify::zones(&root, &zones, &gateway, &catalogues);
    local::verify(&document, &zones, &planes);
    match &observed {
        // Clients ask the resolvers that they have.
        Some(observed) => observe::verify(&root, observed, &gateway, &planes),
        None => verify::resolver(&root, &dns, &zones, &catalogues),
    }
    redirect::fill(&document, &mut zones, &dns, planes);
    if let Some(zone) = zones.iter_mut().find(|zone| zone.local.is_some()) {
        feed::open(&mut zone.spec, &catalogues.feeds);
    }
    dns.marked = zones.iter().any(|zone| zone.local.is_some());
    root.finish();
    document.finish(Settings {
        intent: Intent {
            upstream: gateway.upstream,
            internal: gateway.internal,
            unzoned: gateway.unzoned,
            nat64,
            observed: observed.map(|read| read.observed),
            catalogues: catalogues.list,
            zones: zones.into_iter().map(|zone| zone.spec).collect(),
            limits,
            resolvers: local::resolvers(&dns),
            exceptions: Vec::new(),
        },
        feeds: catalogues.feeds,
        files: catalogues.files,
        dns,
        planes,
        control,
        state: service.state,
        pins: service.pins,
        unattended: service.unattended,
    })
}

/// Everything the configuration file says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settings {
    /// What may pass.
    pub intent: Intent,
    /// What of it is fetched.
    pub feeds: Vec<Feed>,
    /// Files that it stands on, as it names them.
    pub files: Vec<PathBuf>,
    /// `[dns]`.
    pub dns: DnsSettings,
    /// `[planes]`.
    pub planes: PlaneSettings,
    /// `[control]`.
    pub control: ControlSettings,
    /// `[service] state`: where answers are kept over a restart.
    pub state: PathBuf,
    /// `[service] bpf`: a folder in a bpffs, where programs, links and maps are pinned.
    pub pins: PathBuf,
    /// `[service] unattended`: after so long without a daemon the keeper locks down; `None`: never.
    pub unattended: Option<Duration>,
}

/// `[service] bpf`, unless written.
pub const DEFAULT_PINS: &str = "/run/egressd/bpf";

/// `[service] unattended`, unless written.
pub const DEFAULT_UNATTENDED: Duration = Duration::from_hours(24);

impl Settings {
    /// Where marks of what happens to this run of the machine are: the control socket's folder.
    #[must_use]
    pub fn runtime(&self) -> &Path {
        self.control.socket.parent().unwrap_or(Path::new("/"))
    }
}

/// `[dns]`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DnsSettings {
    /// Where clients ask, over UDP and TCP alike. Unspecified addresses are allowed.
    pub listen: Vec<SocketAddr>,
    /// Where questions go, best first.
    pub upstreams: Vec<Upstream>,
    /// Domains that other upstreams answer for; see [`DnsSettings::route`].
    pub forwards: Vec<Forward>,
    /// Who may certify encrypted upstreams; empty for whom the system trusts.
    pub authorities: Vec<Authority<'static>>,
    /// What clients get for unlisted names.
    pub unlisted: Unlisted,
    /// What questions from no zone and from the gateway itself get.
    pub local: Local,
    /// How long one upstream may take.
    pub timeout: Duration,
    /// After this long without an answer the next upstream is asked as well.
    pub race: Duration,
    /// How long an answer may wait for the planes before the client gets SERVFAIL.
    pub hold: Duration,
    /// What becomes of address hints in HTTPS and SVCB records.
    pub hints: Hints,
    /// What becomes of Encrypted Client Hello in them.
    pub ech: Ech,
    /// The prefix that IPv6 addresses are made with for names that have none (DNS64, RFC 6147).
    pub dns64: Option<Prefix>,
    /// How answers are proven (RFC 4035); `None`: they are not.
    pub dnssec: Option<DnssecSettings>,
    /// Most bytes of answers that are kept for the next who asks; 0 keeps none.
    pub cache: u64,
    /// How long after its end an answer may be told when no upstream answers; zero: never.
    pub stale: Duration,
    /// Whether the exact names of every zone are looked up without a client asking.
    pub own_lookups: bool,
    /// Types of records that may be asked for listed names beside the usual ones.
    pub types: Vec<u16>,
    /// What each client may take up.
    pub clients: ClientLimits,
    /// Whether sockets to upstreams bear the mark by which a zone of the gateway itself knows them.
    pub marked: bool,
}

/// `[limits]` on what each client may take up of the DNS side.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ClientLimits {
    /// Most questions per second from one address (over IPv6 four times as many from one /64); 0 for
    /// no limit. At most 1,000,000.
    pub questions: u32,
    /// Most TCP connections in all.
    pub connections: usize,
    /// Most of them from one address (over IPv6 64 times as many from one /64).
    pub connections_per_client: usize,
}

impl Default for ClientLimits {
    fn default() -> Self {
        Self {
            questions: 20_000,
            connections: 4096,
            connections_per_client: 16,
        }
    }
}

/// `unlisted`: what clients get for names no set lists.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Unlisted {
    /// REFUSED with extended error 18, prohibited.
    #[default]
    Refuse,
    /// NXDOMAIN with extended error 18.
    NxDomain,
    /// The upstream's answer, which teaches nothing.
    Forward,
}

/// `local`: what questions from no zone and from the gateway itself get.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Local {
    /// REFUSED.
    #[default]
    Refuse,
    /// The upstream's answer, which teaches nothing.
    Forward,
}

/// `hints`: what becomes of address hints in HTTPS and SVCB records (RFC 9460 §7.3).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Hints {
    /// They are admitted as answers of the asked name; a record of which one may not be loses all.
    #[default]
    Admit,
    /// No client sees any.
    Strip,
}

/// `[planes]`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PlaneSettings {
    /// Whether the nft plane is on.
    pub nft: bool,
    /// How the ebpf plane attaches.
    pub ebpf: EbpfMode,
    /// Whether the kernel keeps others out of the nft table, where it can.
    pub own_table: bool,
    /// NFLOG group for refused packets.
    pub log_group: u16,
}

/// `[planes] ebpf`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum EbpfMode {
    /// Native XDP where the device can, TCX elsewhere; the chosen one is in `status`.
    #[default]
    Auto,
    /// Native XDP or an error.
    Xdp,
    /// Generic XDP (slow, for tests).
    XdpGeneric,
    /// TCX.
    Tc,
    /// No ebpf plane.
    Off,
}

/// `[control]`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ControlSettings {
    /// Path of the control socket.
    pub socket: PathBuf,
    /// Group whose members may ask, beside root and the daemon's own user.
    pub group: Option<String>,
    /// Group whose members may also change what is in force.
    pub admins: Option<String>,
}
