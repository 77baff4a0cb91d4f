//! Whom the edge asks: `[dns] upstreams`, `[[dns.forward]]`, and who certifies them.

#[cfg(test)]
mod tests;

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

pub(super) fn domain(text: &str) -> Result<Name, String> {
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
