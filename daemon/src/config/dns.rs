//! `[dns]`.

use super::nat64::nat64;
use super::{DnsSettings, Hints, Local, Transport, Unlisted, Upstream};
use crate::document::Table;
use crate::policy::answer::Ech;
use crate::policy::nat64::Prefix;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

/// Where questions go unless the upstream says otherwise (RFC 1035 §4.2).
const PORT: u16 = 53;

/// What the cache takes unless the operator says otherwise, in MiB.
const CACHE_MIB: u64 = 32;

/// Types that may be asked for listed names where `types` names them (IANA DNS parameters). A, AAAA,
/// CNAME, HTTPS, SVCB, SRV, PTR, SOA and NS may be asked anyway.
const TYPES: [(&str, u16); 14] = [
    ("MX", 15),
    ("TXT", 16),
    ("LOC", 29),
    ("NAPTR", 35),
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

pub(super) fn dns(mut table: Table<'_, '_>) -> (DnsSettings, Vec<Prefix>) {
    let listen = collect(&mut table, "listen", listener);
    let upstreams = collect(&mut table, "upstreams", upstream);
    for (upstream, span) in &upstreams {
        if listen.iter().any(|(listen, _)| *listen == upstream.address) {
            let what = format!(
                "egressd listens on {} itself; write another resolver's address",
                upstream.address
            );
            table.document.problem(span, what);
        }
    }
    if let Some(mode) = table.take("mode").and_then(|value| value.text()) {
        match mode.get_ref().as_str() {
            "forward" => {}
            "observe" => table.document.problem(
                &mode.span(),
                "not supported yet: learning from answers that pass by; write \"forward\"",
            ),
            other => table.document.problem(
                &mode.span(),
                format!("`mode` cannot be `{other}`; write \"forward\""),
            ),
        }
    }
    table.not_yet(
        "forward",
        "sending a domain to its own upstreams ([[dns.forward]])",
    );
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
        listen: listen.into_iter().map(|(address, _)| address).collect(),
        upstreams: upstreams
            .into_iter()
            .map(|(upstream, _)| upstream)
            .collect(),
        unlisted: table.choice("unlisted", &unlisted).unwrap_or_default(),
        local: table.choice("local", &local).unwrap_or_default(),
        timeout,
        race,
        hold,
        hints: table.choice("hints", &hints).unwrap_or_default(),
        ech: table.choice("ech", &ech).unwrap_or_default(),
        dns64,
        cache,
        stale,
        own_lookups: table.flag("own_lookups").unwrap_or(true),
        types: types.into_iter().map(|(kind, _)| kind).collect(),
    };
    table.finish();
    (dns, nat64)
}

/// Takes a list of texts, each read by `read`, without repetition.
fn collect<T: PartialEq>(
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

fn upstream(text: &str) -> Result<Upstream, String> {
    let example = "write one such as `udp://192.0.2.53` or `tcp://[2001:db8::53]:53`";
    let Some((scheme, rest)) = text.split_once("://") else {
        return Err(match address_and_port(text) {
            Some(_) => format!("`{text}` does not say how to ask; write `udp://{text}`"),
            None => format!("`{text}` is not an upstream; {example}"),
        });
    };
    let transport = match scheme {
        "udp" => Transport::Udp,
        "tcp" => Transport::Tcp,
        "tls" | "https" | "quic" | "h3" => {
            return Err(format!(
                "not supported yet: {scheme}:// upstreams; {example}"
            ));
        }
        _ => return Err(format!("`{scheme}` is not a way to ask; {example}")),
    };
    match address_and_port(rest) {
        Some(address) if address.ip().is_unspecified() || address.port() == 0 => {
            Err(format!("nobody can be asked at `{rest}`; {example}"))
        }
        Some(address) => Ok(Upstream { transport, address }),
        None => Err(format!("`{rest}` is not an address; {example}")),
    }
}

fn address_and_port(text: &str) -> Option<SocketAddr> {
    let whole = text.parse().ok();
    whole.or_else(|| Some(SocketAddr::new(bare(text)?, PORT)))
}

/// An address without a port, in brackets or not.
fn bare(text: &str) -> Option<IpAddr> {
    let inner = text
        .strip_prefix('[')
        .and_then(|text| text.strip_suffix(']'));
    inner.unwrap_or(text).parse().ok()
}
