//! `local = true` of a zone: what such a zone may not say, and whom egressd itself must reach then.

use super::zone::ZoneRead;
use super::{DnsSettings, PlaneSettings, Transport};
use crate::document::{Document, Span, Table};
use crate::policy::image::Resolver;
use crate::policy::port::{TCP, UDP};
use std::collections::BTreeSet;

/// Keys about clients, each with the reason why the gateway's own zone has no use for it.
const OF_CLIENTS: [(&str, &str); 4] = [
    ("interfaces", "is what leaves by interfaces in no zone"),
    ("sources", "has every address of the gateway"),
    (
        "inbound",
        "is about what the gateway sends; connections to it are the input chain's business",
    ),
    (
        "redirect",
        "asks the resolver of its own configuration; name egressd there",
    ),
];

/// Takes `local`; where it is true, the keys with it that say something about clients.
pub(super) fn take(table: &mut Table<'_, '_>) -> Option<Span> {
    let value = table.take("local")?;
    let span = value.span.clone();
    if !value.flag()? {
        return None;
    }
    for (key, why) in OF_CLIENTS {
        if let Some(value) = table.take(key) {
            let what = format!("a zone with `local = true` {why}; leave `{key}` out");
            table.document.problem(&value.span, what);
        }
    }
    Some(span)
}

/// There is one gateway, and what it sends is judged where flows are known.
pub(super) fn verify(document: &Document<'_>, zones: &[ZoneRead], planes: &PlaneSettings) {
    let mut locals = zones
        .iter()
        .filter_map(|zone| Some((zone, zone.local.as_ref()?)));
    let Some((first, span)) = locals.next() else {
        return;
    };
    let name = &first.spec.name;
    if !planes.nft {
        let what = format!(
            "zone `{name}` judges what the gateway itself sends, which takes the nft plane; write nft = true in [planes], or leave the zone out"
        );
        document.problem(span, what);
    }
    for (zone, span) in locals {
        let what = format!(
            "zone `{}` is the gateway itself, and so is `{name}`; put both into one zone",
            zone.spec.name
        );
        document.problem(span, what);
    }
}

/// Whom egressd asks: each upstream as it is spoken to.
pub(super) fn resolvers(dns: &DnsSettings) -> Vec<Resolver> {
    if !dns.marked {
        return Vec::new();
    }
    let forwards = dns.forwards.iter().flat_map(|forward| &forward.upstreams);
    let all: BTreeSet<Resolver> = dns
        .upstreams
        .iter()
        .chain(forwards)
        .flat_map(|upstream| {
            let protocols: &[u8] = match upstream.transport {
                Transport::Udp => &[UDP, TCP],
                Transport::Tcp | Transport::Tls { .. } | Transport::Https { .. } => &[TCP],
            };
            protocols.iter().map(|protocol| Resolver {
                protocol: *protocol,
                port: upstream.address.port(),
                address: upstream.address.ip(),
            })
        })
        .collect();
    all.into_iter().collect()
}
