//! `[gateway]`, `[planes]`, `[control]`, `[service]` and `[limits]`.

use super::{
    ClientLimits, ControlSettings, DEFAULT_PINS, DEFAULT_UNATTENDED, EbpfMode, PlaneSettings,
};
use crate::catalogue_import::targets::network;
use crate::document::Table;
use crate::policy::image::Unzoned;
use crate::policy::links::InterfacePattern;
use crate::policy::rules::Limits;
use ipnet::IpNet;
use std::path::PathBuf;
use std::time::Duration;

/// `[gateway]`.
#[derive(Debug)]
pub(super) struct Gateway {
    pub(super) upstream: Vec<InterfacePattern>,
    pub(super) internal: Vec<IpNet>,
    pub(super) unzoned: Unzoned,
}

pub(super) fn gateway(mut table: Table<'_, '_>) -> Gateway {
    let gateway = Gateway {
        upstream: interfaces(&mut table, "upstream"),
        internal: networks(&mut table, "internal"),
        unzoned: table
            .choice(
                "unzoned",
                &[("drop", Unzoned::Drop), ("accept", Unzoned::Accept)],
            )
            .unwrap_or_default(),
    };
    table.finish();
    gateway
}

/// Takes a list of interface names and patterns.
pub(super) fn interfaces(table: &mut Table<'_, '_>, key: &'static str) -> Vec<InterfacePattern> {
    let mut patterns = Vec::new();
    for text in table.texts(key) {
        match InterfacePattern::parse(text.get_ref()) {
            Ok(pattern) => patterns.push(pattern),
            Err(error) => table.document.problem(&text.span(), error.to_string()),
        }
    }
    patterns
}

fn networks(table: &mut Table<'_, '_>, key: &'static str) -> Vec<IpNet> {
    let mut networks = Vec::new();
    for text in table.texts(key) {
        match network(text.get_ref()) {
            Ok(network) => networks.push(network),
            Err(what) => table.document.problem(&text.span(), what),
        }
    }
    networks
}

pub(super) fn planes(mut table: Table<'_, '_>) -> PlaneSettings {
    let modes = [
        ("auto", EbpfMode::Auto),
        ("xdp", EbpfMode::Xdp),
        ("xdp-generic", EbpfMode::XdpGeneric),
        ("tc", EbpfMode::Tc),
        ("off", EbpfMode::Off),
    ];
    let planes = PlaneSettings {
        nft: table.flag("nft").unwrap_or(true),
        ebpf: table.choice("ebpf", &modes).unwrap_or_default(),
        own_table: table.flag("own_table").unwrap_or(true),
        log_group: narrow(table.number("log_group", 0, u64::from(u16::MAX)), 77),
    };
    if !planes.nft && planes.ebpf == EbpfMode::Off {
        table.problem("both planes are off, so nothing would be enforced; write `nft = true`");
    }
    table.finish();
    planes
}

pub(super) fn control(mut table: Table<'_, '_>) -> ControlSettings {
    let control = ControlSettings {
        socket: folder_or_file(&mut table, "socket", "/run/egressd/control.sock"),
        group: table.text("group").map(toml::Spanned::into_inner),
        admins: table.text("admins").map(toml::Spanned::into_inner),
    };
    table.finish();
    control
}

/// `[service]`.
pub(super) struct Service {
    pub(super) state: PathBuf,
    pub(super) pins: PathBuf,
    pub(super) unattended: Option<Duration>,
}

pub(super) fn service(mut table: Table<'_, '_>) -> Service {
    let service = Service {
        state: folder_or_file(&mut table, "state", "/var/lib/egressd"),
        pins: folder_or_file(&mut table, "bpf", DEFAULT_PINS),
        unattended: unattended(&mut table),
    };
    table.finish();
    service
}

/// How long the daemon may stay away; `None` for ever.
fn unattended(table: &mut Table<'_, '_>) -> Option<Duration> {
    const SHORTEST: Duration = Duration::from_mins(5);
    const LONGEST: Duration = Duration::from_hours(365 * 24);
    let Some(value) = table.take("unattended") else {
        return Some(DEFAULT_UNATTENDED);
    };
    if value.is("never") {
        return None;
    }
    if !value.is_duration() {
        value.problem("`unattended` is no time; write one such as \"24h\", or \"never\"");
        return Some(DEFAULT_UNATTENDED);
    }
    let time = value.duration(SHORTEST, LONGEST);
    Some(time.unwrap_or(DEFAULT_UNATTENDED))
}

fn folder_or_file(table: &mut Table<'_, '_>, key: &'static str, default: &str) -> PathBuf {
    let Some(text) = table.text(key) else {
        return default.into();
    };
    let path = PathBuf::from(text.get_ref());
    if !path.is_absolute() {
        let what = format!(
            "`{}` depends on where egressd is started; write a path that begins with `/`",
            path.display()
        );
        table.document.problem(&text.span(), what);
    }
    path
}

pub(super) fn limits(mut table: Table<'_, '_>) -> (Limits, ClientLimits) {
    let default = Limits::default();
    let learned = narrow(table.number("learned", 1, 16_777_216), default.learned);
    let limits = Limits {
        learned,
        per_zone: narrow(table.number("per_zone", 1, 16_777_216), learned),
        per_client: narrow(
            table.number("per_client", 1, 16_777_216),
            default.per_client,
        ),
        per_name: narrow(table.number("per_name", 1, 1_000_000), default.per_name),
        per_answer: narrow(table.number("per_answer", 1, 4096), default.per_answer),
        ttl_floor: seconds(&mut table, "ttl_floor", default.ttl_floor),
        ttl_ceiling: seconds(&mut table, "ttl_ceiling", default.ttl_ceiling),
        grace: seconds(&mut table, "grace", default.grace),
        idle: seconds(&mut table, "idle", default.idle),
        referred: table
            .number("referred", 0, 100)
            .and_then(|packets| u32::try_from(packets).ok())
            .unwrap_or(default.referred),
    };
    if limits.ttl_floor > limits.ttl_ceiling {
        table.problem("`ttl_floor` is above `ttl_ceiling`; write a shorter `ttl_floor`");
    }
    if limits.per_zone > limits.learned {
        table.problem("`per_zone` is above `learned`; write a smaller `per_zone`");
    }
    let default = ClientLimits::default();
    let clients = ClientLimits {
        questions: narrow(table.number("questions", 0, 1_000_000), default.questions),
        connections: narrow(table.number("connections", 16, 65_536), default.connections),
        connections_per_client: narrow(
            table.number("connections_per_client", 1, 65_536),
            default.connections_per_client,
        ),
    };
    table.finish();
    (limits, clients)
}

/// Takes a time: a number of seconds, or text such as `"15m"`.
fn seconds(table: &mut Table<'_, '_>, key: &'static str, default: u32) -> u32 {
    const YEAR: Duration = Duration::from_hours(365 * 24);
    let Some(value) = table.take(key) else {
        return default;
    };
    let seconds = if value.is_number() {
        value.number(0, YEAR.as_secs())
    } else {
        let time = value.duration(Duration::ZERO, YEAR);
        time.map(|time| time.as_secs())
    };
    narrow(seconds, default)
}

/// `number` where its type holds it, else `default`; the caller has checked the range.
fn narrow<T: TryFrom<u64>>(number: Option<u64>, default: T) -> T {
    number
        .and_then(|number| T::try_from(number).ok())
        .unwrap_or(default)
}
