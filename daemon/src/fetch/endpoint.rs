//! Where a catalogue is fetched.

use crate::policy::name::Name;
use http::Uri;
use std::fmt;
use std::net::IpAddr;

/// The port of HTTPS.
const HTTPS: u16 = 443;

/// The parameter by which the web service tells its clients apart; egressd gives its own.
const CLIENT: &str = "clientrequestid";

/// An `https` URL.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Endpoint {
    /// A name or an address, in brackets if that is IPv6.
    pub host: String,
    /// TCP.
    pub port: u16,
    /// Path and query, `/` at least.
    pub path: String,
}

/// A proxy that opens ways by `CONNECT` (RFC 9110 §9.3.6).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Proxy {
    /// A name or an address, in brackets if that is IPv6.
    pub host: String,
    /// TCP.
    pub port: u16,
}

impl Endpoint {
    /// Reads a URL.
    ///
    /// # Errors
    /// Says what is wrong with it and what to write.
    pub fn parse(text: &str) -> Result<Self, String> {
        let example = "write one such as `https://feed.example/list.json`";
        let uri: Uri = text
            .parse()
            .map_err(|why| format!("`{text}` is not a URL: {why}; {example}"))?;
        match uri.scheme_str() {
            Some("https") => {}
            Some("http") => {
                return Err(format!(
                    "`{text}` can be changed by anybody on its way; write `https://…`"
                ));
            }
            Some(_) | None => return Err(format!("`{text}` is not an https URL; {example}")),
        }
        let (host, port) =
            place(&uri, HTTPS).map_err(|why| format!("`{text}` {why}; {example}"))?;
        let path = uri.path_and_query().map_or("/", |path| path.as_str());
        let endpoint = Self {
            host,
            port,
            path: if path.starts_with('/') {
                path.to_owned()
            } else {
                format!("/{path}")
            },
        };
        endpoint.check(text)?;
        Ok(endpoint)
    }

    fn check(&self, text: &str) -> Result<(), String> {
        if self.instance().is_none() {
            return Ok(());
        }
        for (key, value) in self.parameters() {
            if key.eq_ignore_ascii_case(CLIENT) {
                return Err(format!(
                    "`{text}` names a client request id; leave `{CLIENT}` out, egressd has one of its own"
                ));
            }
            let plain = value.to_ascii_lowercase().replace("%2c", ",");
            let all = plain.split(',').map(str::trim);
            let areas = key.eq_ignore_ascii_case("serviceareas");
            if areas && !all.clone().any(|area| area == "mem") {
                return Err(format!(
                    "`{text}` leaves out Intune's service area; write `ServiceAreas={value},MEM`"
                ));
            }
        }
        Ok(())
    }

    fn parameters(&self) -> impl Iterator<Item = (&str, &str)> {
        let query = self.path.split_once('?').map_or("", |(_, query)| query);
        let pairs = query.split('&').filter(|pair| !pair.is_empty());
        pairs.map(|pair| pair.split_once('=').unwrap_or((pair, "")))
    }

    /// The instance of the Microsoft 365 endpoints web service that it asks, if it asks one.
    #[must_use]
    pub fn instance(&self) -> Option<&str> {
        let path = self.path.split('?').next()?;
        let instance = path.strip_prefix("/endpoints/")?.trim_end_matches('/');
        let one = !instance.is_empty() && !instance.contains('/');
        one.then_some(instance)
    }

    /// What to ask for the version of the list, as client `id`.
    #[must_use]
    pub fn version_path(&self, id: &str) -> Option<String> {
        let instance = self.instance()?;
        Some(format!("/version/{instance}?{CLIENT}={id}"))
    }

    /// What to ask for the list, as client `id`.
    #[must_use]
    pub fn list_path(&self, id: &str) -> String {
        if self.instance().is_none() {
            return self.path.clone();
        }
        let gap = if self.path.contains('?') { '&' } else { '?' };
        format!("{}{gap}{CLIENT}={id}", self.path)
    }

    /// Where a redirection to `location` leads.
    ///
    /// # Errors
    /// When it leads out of HTTPS or nowhere.
    pub fn follow(&self, location: &str) -> Result<Self, String> {
        if location.starts_with('/') && !location.starts_with("//") {
            return Self::parse(&format!("https://{}:{}{location}", self.host, self.port));
        }
        Self::parse(location)
    }
}

impl Proxy {
    /// Reads `http://host:port`.
    ///
    /// # Errors
    /// Says what is wrong with it and what to write.
    pub fn parse(text: &str) -> Result<Self, String> {
        let example = "write one such as `http://proxy.example:3128`";
        let uri: Uri = text
            .parse()
            .map_err(|why| format!("`{text}` is not a proxy: {why}; {example}"))?;
        if uri.scheme_str() != Some("http") || uri.path() != "/" {
            return Err(format!("`{text}` is not a proxy; {example}"));
        }
        let (host, port) = place(&uri, 0).map_err(|why| format!("`{text}` {why}; {example}"))?;
        if port == 0 {
            return Err(format!("`{text}` names no port; {example}"));
        }
        Ok(Self { host, port })
    }
}

/// The host and the port that a URL names.
fn place(uri: &Uri, usual: u16) -> Result<(String, u16), String> {
    let authority = uri.authority().ok_or("names no host")?;
    if authority.as_str().contains('@') {
        return Err("holds a password, which would stand in logs".to_owned());
    }
    let host = authority.host();
    if address(host).is_none() {
        let name = host.parse::<Name>();
        name.map_err(|why| format!("names no host: {why}"))?;
    }
    let port = match authority.port() {
        Some(port) => port.as_str().parse().map_err(|_| "names no port")?,
        None => usual,
    };
    Ok((host.to_ascii_lowercase(), port))
}

/// The address that a host is, where it is not a name.
#[must_use]
pub fn address(host: &str) -> Option<IpAddr> {
    host.trim_matches(['[', ']']).parse().ok()
}

impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("https://")?;
        f.write_str(&self.host)?;
        if self.port != HTTPS {
            write!(f, ":{}", self.port)?;
        }
        f.write_str(&self.path)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls() {
        fn check(text: &str, expected: Result<&str, &str>) {
            let got = Endpoint::parse(text).map(|endpoint| endpoint.to_string());
            match (&got, expected) {
                (Ok(got), Ok(expected)) => assert_eq!(got, expected, "{text}"),
                (Err(got), Err(part)) => assert!(got.contains(part), "{text}: {got}"),
                _ => panic!("{text}: {got:?}"),
            }
        }
        check("https://Feed.example", Ok("https://feed.example/"));
        check(
            "https://feed.example:443/a?b=c",
            Ok("https://feed.example/a?b=c"),
        );
        check(
            "https://[2001:db8::1]:8443/x",
            Ok("https://[2001:db8::1]:8443/x"),
        );
        check("https://192.0.2.1/x", Ok("https://192.0.2.1/x"));
        check("http://feed.example/x", Err("write `https://…`"));
        check("ftp://feed.example/x", Err("not an https URL"));
        check("feed.example", Err("not an https URL"));
        check("/etc/list.toml", Err("not an https URL"));
        check("https://me:secret@feed.example/x", Err("holds a password"));
        check("https://-.-/x y", Err("is not a URL"));
        let service = "https://endpoints.office.com/endpoints/worldwide";
        check(service, Ok(service));
        check(
            &format!("{service}?ServiceAreas=Exchange,MEM&format=json"),
            Ok(
                "https://endpoints.office.com/endpoints/worldwide?ServiceAreas=Exchange,MEM&format=json",
            ),
        );
        let coded = format!("{service}?ServiceAreas=Exchange%2CMEM");
        check(&coded, Ok(&coded));
        check(
            &format!("{service}?ServiceAreas=Common"),
            Err("`ServiceAreas=Common,MEM`"),
        );
        check(
            &format!("{service}?ClientRequestId=1"),
            Err("leave `clientrequestid` out"),
        );
    }

    #[test]
    fn the_web_service_is_asked_by_its_rules() {
        let at = |path: &str| Endpoint::parse(&format!("https://e.example{path}")).unwrap();
        let service = at("/endpoints/Worldwide?NoIPv6=true");
        assert_eq!(service.instance(), Some("Worldwide"));
        assert_eq!(
            service.version_path("I").unwrap(),
            "/version/Worldwide?clientrequestid=I"
        );
        assert_eq!(
            service.list_path("I"),
            "/endpoints/Worldwide?NoIPv6=true&clientrequestid=I"
        );
        assert_eq!(
            at("/endpoints/china").list_path("I"),
            "/endpoints/china?clientrequestid=I"
        );
        for other in [
            "/list.json",
            "/endpoints/",
            "/endpoints/a/b",
            "/v1/endpoints/a",
        ] {
            assert_eq!(at(other).instance(), None, "{other}");
            assert_eq!(at(other).list_path("I"), other);
        }
    }

    #[test]
    fn redirections() {
        let from = Endpoint::parse("https://a.example:8443/x/y").unwrap();
        let to = |location| from.follow(location).map(|to| to.to_string());
        assert_eq!(to("/z?q"), Ok("https://a.example:8443/z?q".to_owned()));
        assert_eq!(
            to("https://b.example/z"),
            Ok("https://b.example/z".to_owned())
        );
        assert!(to("http://b.example/z").is_err());
        assert!(to("//b.example/z").is_err());
        assert!(to("").is_err());
    }

    #[test]
    fn proxies() {
        assert_eq!(
            Proxy::parse("http://Proxy.example:3128"),
            Ok(Proxy {
                host: "proxy.example".to_owned(),
                port: 3128
            })
        );
        for wrong in [
            "proxy.example:3128",
            "http://proxy.example",
            "http://a:1/x",
            "https://a:1",
        ] {
            assert!(Proxy::parse(wrong).is_err(), "{wrong}");
        }
    }
}
