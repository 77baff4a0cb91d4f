//! What every endpoint set has, a vendor's or an operator's: names, networks and ports.

use crate::document::{Table, Value, nearest};
use crate::policy::name::Pattern;
use crate::policy::port::{PROTOCOLS, PortSet, Service, TCP, UDP};
use ipnet::IpNet;
use std::net::IpAddr;
use toml::Spanned;

/// Names, networks and the ports open on all of them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Targets {
    /// `names`.
    pub patterns: Vec<Pattern>,
    /// `networks`.
    pub networks: Vec<IpNet>,
    /// `tcp`, `udp` and `protocols` together.
    pub ports: PortSet,
}

impl Targets {
    /// Takes `names`, `networks`, `tcp`, `udp` and `protocols`.
    pub fn take(table: &mut Table<'_, '_>) -> Self {
        let names = table.texts("names");
        let networks = table.texts("networks");
        let mut services = services(table);
        services.extend(table.list("protocols").into_iter().filter_map(protocol));
        let noted = |text: &Spanned<String>, what| table.document.problem(&text.span(), what);
        Self {
            patterns: names
                .iter()
                .filter_map(|text| pattern(text.get_ref()).map_err(|e| noted(text, e)).ok())
                .collect(),
            networks: networks
                .iter()
                .filter_map(|text| destination(text.get_ref()).map_err(|e| noted(text, e)).ok())
                .collect(),
            ports: PortSet::new(services),
        }
    }
}

/// Takes `tcp` and `udp`.
pub fn services(table: &mut Table<'_, '_>) -> Vec<Service> {
    let tcp = table.list("tcp").into_iter();
    let mut services: Vec<Service> = tcp.filter_map(|value| ports(value, TCP)).collect();
    let udp = table.list("udp").into_iter();
    services.extend(udp.filter_map(|value| ports(value, UDP)));
    services
}

fn pattern(text: &str) -> Result<Pattern, String> {
    let wrong = match Pattern::parse(text) {
        Ok(pattern) if text.parse::<IpAddr>().is_err() => return Ok(pattern),
        Ok(_) => format!("`{text}` is an address, not a name"),
        Err(error) => error.to_string(),
    };
    if text.parse::<IpNet>().is_ok() || text.parse::<IpAddr>().is_ok() {
        return Err(format!("`{text}` is not a name; write it under `networks`"));
    }
    let without_scheme = text.split_once("://").map_or(text, |(_, rest)| rest);
    let host = without_scheme.split(['/', ':']).next().unwrap_or_default();
    match Pattern::parse(host) {
        Ok(_) if host != text => Err(format!("`{text}` is more than a name; write `{host}`")),
        Ok(_) | Err(_) => Err(wrong),
    }
}

/// Reads a network; an address alone is a network of one.
///
/// # Errors
/// Says what is wrong and what to write.
pub fn network(text: &str) -> Result<IpNet, String> {
    if let Ok(address) = text.parse::<IpAddr>() {
        return Ok(address.into());
    }
    let Ok(net) = text.parse::<IpNet>() else {
        return Err(format!(
            "`{text}` is not a network; write one such as `198.51.100.0/24` or `2001:db8::/32`"
        ));
    };
    if net.trunc() == net {
        Ok(net)
    } else {
        Err(format!(
            "`{text}` has bits set after its prefix; write `{}`",
            net.trunc()
        ))
    }
}

/// Reads a network that packets can be forwarded to.
///
/// # Errors
/// Says what is wrong and what to write.
pub(super) fn destination(text: &str) -> Result<IpNet, String> {
    let net = network(text)?;
    match NEVER_FORWARDED.iter().find(|(special, _)| {
        special
            .parse::<IpNet>()
            .is_ok_and(|special| special.contains(&net))
    }) {
        Some((special, word)) => Err(format!(
            "`{text}` lies in {special} ({word}), which no gateway forwards to; leave it out"
        )),
        None => Ok(net),
    }
}

/// What no packet is ever forwarded to, with the IANA registries' words.
const NEVER_FORWARDED: &[(&str, &str)] = &[
    ("0.0.0.0/8", "this network"),
    ("127.0.0.0/8", "loopback"),
    ("169.254.0.0/16", "link-local"),
    ("224.0.0.0/4", "multicast"),
    ("240.0.0.0/4", "reserved"),
    ("::/128", "unspecified"),
    ("::1/128", "loopback"),
    ("::ffff:0:0/96", "IPv4-mapped"),
    ("fe80::/10", "link-local"),
    ("ff00::/8", "multicast"),
];

/// Reads a port such as `443`, or a range such as `"8000-8010"`.
fn ports(value: Value<'_, '_>, protocol: u8) -> Option<Service> {
    let document = value.document;
    if value.is_number() {
        let port = u16::try_from(value.number(1, 65_535)?).ok()?;
        return Some(Service {
            protocol,
            first: port,
            last: port,
        });
    }
    let text = value.text()?;
    let noted = |what: String| {
        document.problem(&text.span(), what);
        None
    };
    let written = text.get_ref();
    let (first, last) = written.split_once('-').unwrap_or((written, written));
    let port = |text: &str| text.trim().parse::<u16>().ok().filter(|port| *port > 0);
    match (port(first), port(last)) {
        (Some(first), Some(last)) if first <= last => Some(Service {
            protocol,
            first,
            last,
        }),
        (Some(first), Some(last)) => noted(format!(
            "the range `{written}` runs backwards; write \"{last}-{first}\""
        )),
        (Some(_), None) | (None, Some(_) | None) => noted(format!(
            "`{written}` is not a port; write one from 1 to 65535 or a range such as \"8000-8010\""
        )),
    }
}

/// Reads a protocol by name or by number: every port of it.
fn protocol(value: Value<'_, '_>) -> Option<Service> {
    let document = value.document;
    if value.is_number() {
        return Some(Service::whole(u8::try_from(value.number(1, 255)?).ok()?));
    }
    let text = value.text()?;
    let word = text.get_ref();
    if let Some((_, number)) = PROTOCOLS.iter().find(|(name, _)| name == word) {
        return Some(Service::whole(*number));
    }
    let names = PROTOCOLS.iter().map(|(name, _)| *name);
    let hint = match nearest(word, names.clone()) {
        Some(near) => format!("did you mean `{near}`?"),
        None => format!(
            "write `{}`, or its IANA number",
            names.collect::<Vec<_>>().join("`, `")
        ),
    };
    document.problem(&text.span(), format!("unknown protocol `{word}`; {hint}"));
    None
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::document::Document;

    #[test]
    fn targets() {
        fn check(text: &str, expected: &str) {
            let document = Document::new(text, "t");
            let targets = Targets::take(&mut document.root());
            let got = match document.finish(targets) {
                Ok(targets) => format!(
                    "{:?} {:?} {}",
                    targets
                        .patterns
                        .iter()
                        .map(ToString::to_string)
                        .collect::<Vec<_>>(),
                    targets.networks,
                    targets.ports
                ),
                Err(problems) => problems.to_string(),
            };
            assert_eq!(got, expected, "{text}");
        }
        check(
            "names = ['A.example', '*.b.example.']\nnetworks = ['198.51.100.0/24', '192.0.2.1']\n\
             tcp = [443, '8000-8010', '80']\nudp = [53]\nprotocols = ['icmp', 50]",
            "[\"a.example\", \"*.b.example\"] [198.51.100.0/24, 192.0.2.1/32] \
             icmp, tcp/80, tcp/443, tcp/8000-8010, udp/53, esp",
        );
        check(
            "tcp = [0, 70000, '9-3', 'http', -1, 4.5, '1-', '0-9']",
            "t:1:8: `0` does not fit here; write a whole number from 1 to 65535\n\
             t:1:11: `70000` does not fit here; write a whole number from 1 to 65535\n\
             t:1:18: the range `9-3` runs backwards; write \"3-9\"\n\
             t:1:25: `http` is not a port; write one from 1 to 65535 or a range such as \"8000-8010\"\n\
             t:1:33: `-1` does not fit here; write a whole number from 1 to 65535\n\
             t:1:37: `4.5` does not fit here; write a string in quotes\n\
             t:1:42: `1-` is not a port; write one from 1 to 65535 or a range such as \"8000-8010\"\n\
             t:1:48: `0-9` is not a port; write one from 1 to 65535 or a range such as \"8000-8010\"",
        );
        check(
            "names = ['https://a.example/x', '10.0.0.0/8', '10.0.0.1', 'a b.example', '*.com', \
             'a..example', 'bücher.example', 'a.example:443']",
            "t:1:10: `https://a.example/x` is more than a name; write `a.example`\n\
             t:1:33: `10.0.0.0/8` is not a name; write it under `networks`\n\
             t:1:47: `10.0.0.1` is not a name; write it under `networks`\n\
             t:1:59: `a b.example` is not a name or a wildcard: ` ` is not allowed in it; write international names as A-labels (xn--…)\n\
             t:1:74: `*.com` would match far too much: at least two labels must follow the `*`\n\
             t:1:83: `a..example` is not a name or a wildcard: it has an empty label\n\
             t:1:97: `bücher.example` is not a name or a wildcard: `ü` is not allowed in it; write international names as A-labels (xn--…)\n\
             t:1:115: `a.example:443` is more than a name; write `a.example`",
        );
        check(
            "networks = ['10.20.0.1/16', '2001:db8::1/48', 'lan', '127.0.0.1', '224.0.0.0/4', 'fe80::/64', '0.0.0.0/0']",
            "t:1:13: `10.20.0.1/16` has bits set after its prefix; write `10.20.0.0/16`\n\
             t:1:29: `2001:db8::1/48` has bits set after its prefix; write `2001:db8::/48`\n\
             t:1:47: `lan` is not a network; write one such as `198.51.100.0/24` or `2001:db8::/32`\n\
             t:1:54: `127.0.0.1` lies in 127.0.0.0/8 (loopback), which no gateway forwards to; leave it out\n\
             t:1:67: `224.0.0.0/4` lies in 224.0.0.0/4 (multicast), which no gateway forwards to; leave it out\n\
             t:1:82: `fe80::/64` lies in fe80::/10 (link-local), which no gateway forwards to; leave it out",
        );
        check(
            "protocols = ['icpm', 'quic', 0, 300]",
            "t:1:14: unknown protocol `icpm`; did you mean `icmp`?\n\
             t:1:22: unknown protocol `quic`; write `icmp`, `tcp`, `udp`, `ipv6-in-ipv4`, `gre`, `esp`, `ah`, `icmpv6`, `sctp`, or its IANA number\n\
             t:1:30: `0` does not fit here; write a whole number from 1 to 255\n\
             t:1:33: `300` does not fit here; write a whole number from 1 to 255",
        );
    }
}
