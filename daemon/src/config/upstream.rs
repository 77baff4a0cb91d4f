//! Whom the edge asks: `[dns] upstreams`, `[[dns.forward]]`, and who certifies them.

use super::DnsSettings;
use super::dns::collect;
use crate::document::Table;
use crate::policy::name::Name;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::path::Path;
use tokio_rustls::rustls::pki_types::pem::PemObject;
pub use tokio_rustls::rustls::pki_types::{CertificateDer as Authority, ServerName};

/// Where questions go unless the upstream says otherwise (RFC 1035 §4.2, RFC 7858 §3.1, RFC 8484 §4.1).
pub(super) const PORT: u16 = 53;
const TLS_PORT: u16 = 853;
const HTTPS_PORT: u16 = 443;

/// Most `[[dns.forward]]`: each may hold sockets of its own.
const MOST_FORWARDS: usize = 64;

/// Most upstreams in one list.
const MOST_UPSTREAMS: usize = 64;

/// One upstream resolver.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Upstream {
    /// How it is spoken to.
    pub transport: Transport,
    /// Its address and port.
    pub address: SocketAddr,
}

/// How an upstream is spoken to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Transport {
    /// UDP, and TCP for truncated answers.
    Udp,
    /// TCP only.
    Tcp,
    /// DNS over TLS (RFC 7858).
    Tls {
        /// What its certificate must be for: a name, which is sent as well, or its address.
        server: ServerName<'static>,
    },
    /// DNS over HTTPS (RFC 8484), over HTTP/2.
    Https {
        /// What its certificate must be for: a name, which is sent as well, or its address.
        server: ServerName<'static>,
        /// Where it answers, such as `/dns-query`.
        path: String,
    },
}

/// A `[[dns.forward]]`: domains that other upstreams answer for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Forward {
    /// Each stands for itself and all below it; ascending.
    pub domains: Vec<Name>,
    /// Where questions for them go, best first.
    pub upstreams: Vec<Upstream>,
    /// Whether their answers teach.
    pub teach: bool,
}

impl DnsSettings {
    /// The groups of upstreams: `upstreams`, then those of each of `forwards`.
    #[must_use]
    pub fn groups(&self) -> Vec<Vec<Upstream>> {
        let own = self.forwards.iter().map(|f| f.upstreams.clone());
        std::iter::once(self.upstreams.clone()).chain(own).collect()
    }

    /// The group that is asked for `name`, and the forward it comes from: the one with the longest
    /// domain that is `name` or above it.
    #[must_use]
    pub fn route(&self, name: &Name) -> (usize, Option<&Forward>) {
        if self.forwards.is_empty() {
            return (0, None);
        }
        let nearest_first = std::iter::once(name.wire()).chain(name.parents());
        for domain in nearest_first {
            let has = |forward: &Forward| {
                let found = forward.domains.binary_search_by(|d| d.wire().cmp(domain));
                found.is_ok()
            };
            if let Some(at) = self.forwards.iter().position(has) {
                return (at + 1, self.forwards.get(at));
            }
        }
        (0, None)
    }
}

/// Takes `upstreams`: none of them may be egressd itself.
pub(super) fn upstreams(table: &mut Table<'_, '_>, listen: &[SocketAddr]) -> Vec<Upstream> {
    let upstreams = collect(table, "upstreams", upstream);
    for (upstream, span) in &upstreams {
        if listen.contains(&upstream.address) {
            let what = format!(
                "egressd listens on {} itself; write another resolver's address",
                upstream.address
            );
            table.document.problem(span, what);
        }
    }
    if let Some((_, span)) = upstreams.get(MOST_UPSTREAMS) {
        let what = format!("there is room for {MOST_UPSTREAMS} upstreams; leave this one out");
        table.document.problem(span, what);
    }
    upstreams
        .into_iter()
        .map(|(upstream, _)| upstream)
        .collect()
}

/// Takes every `[[dns.forward]]`.
pub(super) fn forwards(table: &mut Table<'_, '_>, listen: &[SocketAddr]) -> Vec<Forward> {
    let mut forwards: Vec<Forward> = Vec::new();
    for mut table in table.tables("forward") {
        let noted = table.document.noted();
        let mut domains = Vec::new();
        for (name, span) in collect(&mut table, "domains", domain) {
            if forwards
                .iter()
                .any(|forward| forward.domains.contains(&name))
            {
                let what = format!("another [[dns.forward]] has `{name}`; leave one out");
                table.document.problem(&span, what);
            }
            domains.push(name);
        }
        domains.sort();
        let upstreams = upstreams(&mut table, listen);
        if table.document.noted() == noted {
            if domains.is_empty() {
                table.problem("this forward is for no domain; write domains = [\"corp.example\"]");
            }
            if upstreams.is_empty() {
                table.problem(
                    "this forward has nobody to ask; write upstreams = [\"udp://10.0.0.5\"]",
                );
            }
        }
        if forwards.len() == MOST_FORWARDS {
            table.problem(format!(
                "there is room for {MOST_FORWARDS} forwards; put domains with the same upstreams into one"
            ));
        }
        forwards.push(Forward {
            domains,
            upstreams,
            teach: table.flag("teach").unwrap_or_default(),
        });
        table.finish();
    }
    forwards
}

fn domain(text: &str) -> Result<Name, String> {
    if let Some(rest) = text.strip_prefix("*.") {
        return Err(format!(
            "`{text}` is not a domain; write `{rest}`, which stands for itself and all below it"
        ));
    }
    text.parse()
        .map_err(|why| format!("`{text}` is not a domain: {why}; write one such as `corp.example`"))
}

/// Takes `ca`, a file of certificates in PEM.
pub(super) fn authorities(
    table: &mut Table<'_, '_>,
    read: &dyn Fn(&Path) -> io::Result<Vec<u8>>,
) -> Vec<Authority<'static>> {
    let Some(file) = table.text("ca") else {
        return Vec::new();
    };
    let name = file.get_ref();
    let authorities = read(Path::new(name))
        .map_err(|error| format!("`{name}` cannot be read: {error}"))
        .and_then(|bytes| {
            let all: Result<Vec<_>, _> = Authority::pem_slice_iter(&bytes).collect();
            match all {
                Ok(all) if !all.is_empty() => Ok(all),
                Ok(_) | Err(_) => Err(format!(
                    "`{name}` holds no certificate; write a file of authorities in PEM"
                )),
            }
        });
    authorities.unwrap_or_else(|what| {
        table.document.problem(&file.span(), what);
        Vec::new()
    })
}

fn upstream(text: &str) -> Result<Upstream, String> {
    let example = "write one such as `udp://192.0.2.53` or `tls://192.0.2.54#dns.example`";
    let Some((scheme, rest)) = text.split_once("://") else {
        return Err(match address_and_port(text, PORT) {
            Some(_) => format!("`{text}` does not say how to ask; write `udp://{text}`"),
            None => format!("`{text}` is not an upstream; {example}"),
        });
    };
    let port = match scheme {
        "udp" | "tcp" => PORT,
        "tls" => TLS_PORT,
        "https" => HTTPS_PORT,
        "quic" | "h3" => return Err(format!("not supported: {scheme}:// upstreams; {example}")),
        _ => return Err(format!("`{scheme}` is not a way to ask; {example}")),
    };
    let (rest, name) = match rest.split_once('#') {
        Some((rest, name)) => (rest, Some(name)),
        None => (rest, None),
    };
    let (host, path) = match rest.find('/') {
        Some(at) => (&rest[..at], Some(&rest[at..])),
        None => (rest, None),
    };
    let Some(address) = address_and_port(host, port) else {
        return Err(match (scheme, domain(host)) {
            // Nothing may need DNS to start.
            ("tls" | "https", Ok(name)) => format!(
                "`{host}` is a name, and nobody can be asked for its address; write \
                 `{scheme}://192.0.2.54{}#{name}` with its address",
                path.unwrap_or_default()
            ),
            _ => format!("`{rest}` is not an address; {example}"),
        });
    };
    if address.ip().is_unspecified() || address.port() == 0 {
        return Err(format!("nobody can be asked at `{host}`; {example}"));
    }
    let server = match name {
        None => ServerName::IpAddress(address.ip().into()),
        Some(name) => ServerName::try_from(name)
            .map_err(|_| {
                format!("`{name}` is not a name that a certificate can be for; write one such as `dns.example`")
            })?
            .to_owned(),
    };
    let transport = match scheme {
        "https" => Transport::Https {
            server,
            path: self::path(path.unwrap_or("/dns-query"))?,
        },
        _ if path.is_some() => {
            return Err(format!(
                "`{text}` has a path, which only https:// has; leave it out"
            ));
        }
        "tls" => Transport::Tls { server },
        _ if name.is_some() => {
            return Err(format!(
                "`{text}` has a name after `#`, which only tls:// and https:// verify; leave it out"
            ));
        }
        "tcp" => Transport::Tcp,
        _ => Transport::Udp,
    };
    Ok(Upstream { transport, address })
}

fn path(text: &str) -> Result<String, String> {
    let plain = |byte: u8| byte.is_ascii_graphic() && !b"{}<>\"\\^`|".contains(&byte);
    if text.bytes().all(plain) {
        return Ok(text.to_owned());
    }
    Err(format!(
        "`{text}` is not a path; write it as in `https://192.0.2.54/dns-query#dns.example`"
    ))
}

fn address_and_port(text: &str, port: u16) -> Option<SocketAddr> {
    let whole = text.parse().ok();
    whole.or_else(|| Some(SocketAddr::new(bare(text)?, port)))
}

/// An address without a port, in brackets or not.
pub(super) fn bare(text: &str) -> Option<IpAddr> {
    let inner = text
        .strip_prefix('[')
        .and_then(|text| text.strip_suffix(']'));
    inner.unwrap_or(text).parse().ok()
}

#[cfg(test)]
mod tests {
    use super::super::{Settings, parse};
    use super::*;

    const ZONE: &str = "[[zone]]\nname = 'a'\ninterfaces = ['lan0']\n[[zone.rule]]\n\
                        networks = ['192.0.2.1']\ntcp = [22]\n";

    fn read(text: &str) -> Result<Settings, String> {
        let file = |path: &Path| match path.to_str() {
            Some("ca.pem") => Ok(PEM.as_bytes().to_vec()),
            Some("empty.pem") => Ok(b"nothing".to_vec()),
            Some(_) | None => Err(io::Error::new(io::ErrorKind::NotFound, "no such file")),
        };
        parse(&format!("[dns]\n{text}\n{ZONE}"), "e.toml", &file)
            .map_err(|problems| problems.to_string())
    }

    /// The form of a certificate; what it says is read when a connection is made.
    const PEM: &str = "-----BEGIN CERTIFICATE-----\nMAA=\n-----END CERTIFICATE-----\n";

    #[test]
    fn ways_to_ask() {
        fn check(text: &str, address: &str, expected: &str) {
            let upstream = upstream(text).unwrap_or_else(|what| panic!("{what}"));
            assert_eq!(upstream.address.to_string(), address, "{text}");
            let way = match upstream.transport {
                Transport::Udp => "udp".to_owned(),
                Transport::Tcp => "tcp".to_owned(),
                Transport::Tls { server } => format!("tls {}", server.to_str()),
                Transport::Https { server, path } => format!("https {} {path}", server.to_str()),
            };
            assert_eq!(way, expected, "{text}");
        }
        check("udp://192.0.2.53", "192.0.2.53:53", "udp");
        check("tcp://[2001:db8::53]:5353", "[2001:db8::53]:5353", "tcp");
        check("tls://192.0.2.54", "192.0.2.54:853", "tls 192.0.2.54");
        check(
            "tls://192.0.2.54#dns.example",
            "192.0.2.54:853",
            "tls dns.example",
        );
        check(
            "tls://[2001:db8::53]:8853#dns.example",
            "[2001:db8::53]:8853",
            "tls dns.example",
        );
        check(
            "https://192.0.2.54",
            "192.0.2.54:443",
            "https 192.0.2.54 /dns-query",
        );
        check(
            "https://192.0.2.54:8443/q#dns.example",
            "192.0.2.54:8443",
            "https dns.example /q",
        );
        check(
            "https://2001:db8::53/#d.example",
            "[2001:db8::53]:443",
            "https d.example /",
        );
    }

    #[test]
    fn mistakes_say_what_to_write() {
        fn check(text: &str, expected: &str) {
            assert_eq!(upstream(text).unwrap_err(), expected);
        }
        check(
            "https://dns.example/dns-query",
            "`dns.example` is a name, and nobody can be asked for its address; write \
             `https://192.0.2.54/dns-query#dns.example` with its address",
        );
        check(
            "tls://dns.example",
            "`dns.example` is a name, and nobody can be asked for its address; write \
             `tls://192.0.2.54#dns.example` with its address",
        );
        check(
            "tls://192.0.2.54/dns-query",
            "`tls://192.0.2.54/dns-query` has a path, which only https:// has; leave it out",
        );
        check(
            "udp://192.0.2.54#dns.example",
            "`udp://192.0.2.54#dns.example` has a name after `#`, which only tls:// and https:// \
             verify; leave it out",
        );
        check(
            "tls://192.0.2.54#dns example",
            "`dns example` is not a name that a certificate can be for; write one such as `dns.example`",
        );
        check(
            "https://192.0.2.54/a b",
            "`/a b` is not a path; write it as in `https://192.0.2.54/dns-query#dns.example`",
        );
        check(
            "quic://192.0.2.54",
            "not supported: quic:// upstreams; write one such as `udp://192.0.2.53` or \
             `tls://192.0.2.54#dns.example`",
        );
    }

    #[test]
    fn forwards_and_authorities() {
        fn check(text: &str, expected: &str) {
            let got = read(text).err().unwrap_or_default();
            assert_eq!(got, expected, "{text}");
        }
        check("ca = 'ca.pem'", "");
        check(
            "ca = 'no.pem'",
            "e.toml:2:6: `no.pem` cannot be read: no such file",
        );
        check(
            "ca = 'empty.pem'",
            "e.toml:2:6: `empty.pem` holds no certificate; write a file of authorities in PEM",
        );
        let forward = "[[dns.forward]]\ndomains = ['a.example']\nupstreams = ['udp://10.0.0.5']\n";
        check(forward, "");
        check(
            &format!(
                "{forward}[[dns.forward]]\ndomains = ['A.example.']\nupstreams = ['udp://10.0.0.6']"
            ),
            "e.toml:6:12: another [[dns.forward]] has `a.example`; leave one out",
        );
        check(
            "[[dns.forward]]\ndomain = ['a.example']",
            "e.toml:2:1: this forward has nobody to ask; write upstreams = [\"udp://10.0.0.5\"]\n\
             e.toml:2:1: this forward is for no domain; write domains = [\"corp.example\"]\n\
             e.toml:3:1: unknown key `domain`; did you mean `domains`?",
        );
        check(
            "listen = ['10.0.0.1:53']\n[[dns.forward]]\ndomains = ['*.a.example', '.', 'a b', 'x', 'X']\n\
             upstreams = ['udp://10.0.0.1']\nteach = 1",
            "e.toml:4:12: `*.a.example` is not a domain; write `a.example`, which stands for itself and all below it\n\
             e.toml:4:27: `.` is not a domain: it has an empty label; write one such as `corp.example`\n\
             e.toml:4:32: `a b` is not a domain: ` ` is not allowed in it; write international names as \
             A-labels (xn--…); write one such as `corp.example`\n\
             e.toml:4:44: `X` stands twice; leave one out\n\
             e.toml:5:14: egressd listens on 10.0.0.1:53 itself; write another resolver's address\n\
             e.toml:6:9: `1` does not fit here; write `true` or `false`",
        );
    }

    #[test]
    fn the_longest_domain_wins() {
        let settings = read(
            "upstreams = ['udp://192.0.2.53']\n\
             [[dns.forward]]\ndomains = ['corp.example', '10.in-addr.arpa']\nupstreams = ['udp://10.0.0.5']\n\
             [[dns.forward]]\ndomains = ['lab.corp.example', 'home', 'example.org']\n\
             upstreams = ['tcp://10.0.0.6']\nteach = true",
        )
        .unwrap()
        .dns;
        assert_eq!(settings.groups().len(), 3);
        let check = |name: &str, group: usize, teach: Option<bool>| {
            let (at, forward) = settings.route(&name.parse().unwrap());
            assert_eq!((at, forward.map(|f| f.teach)), (group, teach), "{name}");
            let upstreams = forward.map_or(&settings.upstreams, |f| &f.upstreams);
            assert_eq!(settings.groups()[at], *upstreams);
        };
        check("corp.example", 1, Some(false));
        check("A.B.Corp.Example", 1, Some(false));
        check("lab.corp.example", 2, Some(true));
        check("x.lab.corp.example", 2, Some(true));
        check("xlab.corp.example", 1, Some(false));
        check("xcorp.example", 0, None);
        check("example", 0, None);
        check("4.3.10.in-addr.arpa", 1, Some(false));
        check("110.in-addr.arpa", 0, None);
        check("home", 2, Some(true));
        check("nas.home", 2, Some(true));
        check("corp.example.org", 2, Some(true));
        check("corp.example.net", 0, None);
        assert_eq!(settings.route(&Name::root()), (0, None));
    }
}
