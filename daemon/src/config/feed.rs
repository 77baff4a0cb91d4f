//! `[[catalogue]]` with a `url`: where a catalogue is fetched, and what becomes of what it gives.

use super::upstream::authorities;
use crate::document::Table;
use crate::fetch::{self, Endpoint, Proxy, Source};
use crate::policy::catalogue::EndpointSet;
use crate::policy::name::Pattern;
use crate::policy::port::{PortSet, Service};
use crate::policy::zone::ZoneSpec;
use std::io;
use std::path::Path;
use std::time::Duration;

/// `every`, unless written: the web service asks to be asked for its version hourly, and lists change by the week.
const HOURLY: Duration = Duration::from_hours(1);
const DAILY: Duration = Duration::from_hours(24);

/// `hold`, unless written: as long as vendors give notice.
const HOLD: Duration = Duration::from_hours(30 * 24);

/// A source of a catalogue that is fetched.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Feed {
    /// The catalogue's name.
    pub catalogue: String,
    /// Where it is, and whom to believe about it.
    pub source: Source,
    /// How often it is asked.
    pub every: Duration,
    /// How long what it no longer lists stays in force; zero: not at all.
    pub hold: Duration,
}

impl Feed {
    /// Takes `url` and what belongs to it. Without `url` there is none, and the other keys are wrong.
    pub(super) fn take(
        table: &mut Table<'_, '_>,
        catalogue: &str,
        read: &dyn Fn(&Path) -> io::Result<Vec<u8>>,
    ) -> Option<Self> {
        let Some(url) = table.text("url") else {
            for key in ["every", "hold", "public_key", "proxy", "ca"] {
                if let Some(value) = table.take(key) {
                    let what = format!("`{key}` is about a `url`, and there is none; write `url`");
                    table.document.problem(&value.span, what);
                }
            }
            return None;
        };
        let every = table.duration("every", Duration::from_mins(5), DAILY * 365);
        let hold = table.duration("hold", Duration::ZERO, DAILY * 3650);
        let public_key = table.text("public_key");
        if let Some(key) = &public_key
            && let Err(what) = fetch::public_key(key.get_ref())
        {
            table.document.problem(&key.span(), what);
        }
        let proxy = table.text("proxy").and_then(|text| {
            let proxy = Proxy::parse(text.get_ref());
            let noted = |what| table.document.problem(&text.span(), what);
            proxy.map_err(noted).ok()
        });
        let authorities = authorities(table, read);
        let endpoint = match Endpoint::parse(url.get_ref()) {
            Ok(endpoint) => endpoint,
            Err(what) => {
                table.document.problem(&url.span(), what);
                return None;
            }
        };
        let usual = if endpoint.instance().is_some() {
            HOURLY
        } else {
            DAILY
        };
        Some(Self {
            catalogue: catalogue.to_owned(),
            every: every.unwrap_or(usual),
            hold: hold.unwrap_or(HOLD),
            source: Source {
                url: endpoint,
                public_key: public_key.map(toml::Spanned::into_inner),
                proxy,
                authorities,
            },
        })
    }

    /// Whom its connections go to: host and port.
    fn next(&self) -> (&str, u16) {
        match &self.source.proxy {
            Some(proxy) => (&proxy.host, proxy.port),
            None => (&self.source.url.host, self.source.url.port),
        }
    }
}

/// Lets the gateway's own zone reach what is fetched, and nothing else for that.
pub(super) fn open(zone: &mut ZoneSpec, feeds: &[Feed]) {
    for feed in feeds {
        let (host, port) = feed.next();
        let mut rule = EndpointSet {
            id: format!("fetch-{}", feed.catalogue),
            area: "fetch".to_owned(),
            service: format!("egressd fetches catalogue `{}`", feed.catalogue),
            required: true,
            ports: PortSet::new([Service::tcp(port)]),
            origin: format!("the url of catalogue `{}`", feed.catalogue),
            ..EndpointSet::default()
        };
        match fetch::address(host) {
            Some(address) => rule.networks.push(address.into()),
            None => rule.patterns.extend(host.parse().map(Pattern::Exact)),
        }
        zone.rules.push(rule);
    }
}
