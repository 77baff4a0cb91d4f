//! Upstreams as they are written, and what is said about them.

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
