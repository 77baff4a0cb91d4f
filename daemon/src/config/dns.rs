//! `[dns]`.

use super::dnssec::dnssec;
use super::nat64::nat64;
use super::observe::{ObserveRead, observe};
use super::upstream::{PORT, authorities, bare, forwards, upstreams};
use super::{ClientLimits, DnsSettings, Hints, Local, Unlisted};
use crate::document::Table;
use crate::policy::answer::Ech;
use crate::policy::nat64::Prefix;
use std::io;
use std::net::SocketAddr;
use std::path::Path;
use std::time::Duration;

/// What the cache takes unless the operator says otherwise, in MiB.
const CACHE_MIB: u64 = 32;

/// Types that may be asked for listed names where `types` names them (IANA DNS parameters). A, AAAA,
/// CNAME, HTTPS, SVCB, SRV, PTR, SOA and NS may be asked anyway.
const TYPES: [(&str, u16); 13] = [
    ("MX", 15),
    ("TXT", 16),
    ("LOC", 29),
    ("CERT", 37),
    ("DNAME", 39),
    ("DS", 43),
    ("SSHFP", 44),
    ("DNSKEY", 48),
    ("TLSA", 52),
    ("SMIMEA", 53),
    ("OPENPGPKEY", 61),
    ("URI", 256),
    ("CAA", 257),
];

pub(super) fn dns(
    mut table: Table<'_, '_>,
    read: &dyn Fn(&Path) -> io::Result<Vec<u8>>,
) -> (DnsSettings, Vec<Prefix>, Option<ObserveRead>) {
    let listen = collect(&mut table, "listen", listener);
    let listen: Vec<SocketAddr> = listen.into_iter().map(|(address, _)| address).collect();
    let upstreams = upstreams(&mut table, &listen);
    let forwards = forwards(&mut table, &listen);
    let unlisted = [
        ("refuse", Unlisted::Refuse),
        ("nxdomain", Unlisted::NxDomain),
        ("forward", Unlisted::Forward),
    ];
    let local = [("refuse", Local::Refuse), ("forward", Local::Forward)];
    let hints = [("admit", Hints::Admit), ("strip", Hints::Strip)];
    let ech = [("keep", Ech::Keep), ("strip", Ech::Strip)];
    let ms = Duration::from_millis;
    let mut time = |key, default, least, most| {
        table
            .duration(key, ms(least), ms(most))
            .unwrap_or(ms(default))
    };
    let (timeout, race, hold, stale) = (
        time("timeout", 2000, 10, 30_000),
        time("race", 300, 0, 30_000),
        time("hold", 250, 1, 30_000),
        time("stale", 0, 0, 7 * 86_400_000),
    );
    let cache = table.number("cache_mib", 0, 4096).unwrap_or(CACHE_MIB) << 20;
    let types = collect(&mut table, "types", record_type);
    let (nat64, dns64) = nat64(&mut table);
    let dns = DnsSettings {
        listen,
        upstreams,
        forwards,
        authorities: authorities(&mut table, read),
        unlisted: table.choice("unlisted", &unlisted).unwrap_or_default(),
        local: table.choice("local", &local).unwrap_or_default(),
        timeout,
        race,
        hold,
        hints: table.choice("hints", &hints).unwrap_or_default(),
        ech: table.choice("ech", &ech).unwrap_or_default(),
        dns64,
        dnssec: dnssec(&mut table, read),
        cache,
        stale,
        own_lookups: table.flag("own_lookups").unwrap_or(true),
        types: types.into_iter().map(|(kind, _)| kind).collect(),
        // Said in `[limits]`.
        clients: ClientLimits::default(),
        // Said by a zone.
        marked: false,
    };
    let listen = &dns.listen;
    let observed = observe(&mut table, listen);
    table.finish();
    (dns, nat64, observed)
}

/// Takes a list of texts, each read by `read`, without repetition.
pub(super) fn collect<T: PartialEq>(
    table: &mut Table<'_, '_>,
    key: &'static str,
    read: impl Fn(&str) -> Result<T, String>,
) -> Vec<(T, crate::document::Span)> {
    let mut list: Vec<(T, _)> = Vec::new();
    for text in table.texts(key) {
        match read(text.get_ref()) {
            Ok(item) if list.iter().any(|(known, _)| *known == item) => {
                let what = format!("`{}` stands twice; leave one out", text.get_ref());
                table.document.problem(&text.span(), what);
            }
            Ok(item) => list.push((item, text.span())),
            Err(what) => table.document.problem(&text.span(), what),
        }
    }
    list
}

fn listener(text: &str) -> Result<SocketAddr, String> {
    let example = "write an address and a port, such as `10.20.0.1:53` or `[2001:db8::1]:53`";
    match (text.parse::<SocketAddr>(), bare(text)) {
        (Ok(address), _) if address.port() > 0 => Ok(address),
        (Ok(_), _) => Err(format!("`{text}` has port 0; {example}")),
        (Err(_), Some(address)) => Err(format!(
            "`{text}` has no port; write `{}`",
            SocketAddr::new(address, PORT)
        )),
        (Err(_), None) => Err(format!("`{text}` is not an address; {example}")),
    }
}

fn record_type(text: &str) -> Result<u16, String> {
    let known = TYPES
        .iter()
        .find(|(name, _)| name.eq_ignore_ascii_case(text));
    if let Some((_, kind)) = known {
        return Ok(*kind);
    }
    // RFC 3597 §5. Neither the protocol's own types nor those that ask for more than data.
    let numbered = text
        .strip_prefix("TYPE")
        .and_then(|number| number.parse().ok());
    numbered
        .filter(|kind| *kind != 0 && *kind != 41 && !(128..=255).contains(kind))
        .ok_or_else(|| {
            let names: Vec<_> = TYPES.iter().map(|(name, _)| *name).collect();
            format!(
                "`{text}` is not a type of record that can be allowed; write one of {} or such as `TYPE65280`",
                names.join(", ")
            )
        })
}
