//! `[dns] dnssec`, and what it goes by.

use super::dns::collect;
use super::upstream::domain;
use crate::document::Table;
use crate::policy::name::Name;
use hickory_net::proto::dnssec::TrustAnchors;
use std::io;
use std::path::Path;

/// How answers are proven (RFC 4035).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DnssecSettings {
    /// Where every proof begins.
    pub anchors: Anchors,
    /// Domains, each with all below it, that are told and taught without a proof (negative trust
    /// anchors, RFC 7646).
    pub insecure: Vec<Name>,
}

/// Keys that are trusted without a proof.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Anchors {
    /// DNSKEY records, one a line; `None` for the root's keys as IANA published them.
    text: Option<String>,
}

impl Anchors {
    /// Keys in `text`: DNSKEY records in the form of a zone file, with absolute names.
    ///
    /// # Errors
    /// When there is none, or something else.
    pub fn parse(text: &str) -> Result<Self, String> {
        // Every proof fails where there is nothing to begin with.
        let keys = text.lines().filter(|line| line.contains("DNSKEY")).count();
        match text.parse::<TrustAnchors>() {
            Ok(_) if keys > 0 => Ok(Self {
                text: Some(text.to_owned()),
            }),
            Ok(_) => Err("it holds no key".to_owned()),
            Err(why) => Err(why.to_string()),
        }
    }

    /// The keys.
    #[must_use]
    pub fn keys(&self) -> TrustAnchors {
        match &self.text {
            None => TrustAnchors::default(),
            Some(text) => text.parse().expect("it was read before"),
        }
    }
}

/// Takes `dnssec`, `trust_anchors` and `insecure`; `None` where nothing is to be proven.
pub(super) fn dnssec(
    table: &mut Table<'_, '_>,
    read: &dyn Fn(&Path) -> io::Result<Vec<u8>>,
) -> Option<DnssecSettings> {
    let on = table.flag("dnssec").unwrap_or_default();
    let file = table.text("trust_anchors");
    let insecure = collect(table, "insecure", domain);
    let spans = file.iter().map(|file| ("trust_anchors", file.span()));
    let idle = spans.chain(insecure.iter().map(|(_, span)| ("insecure", span.clone())));
    for (key, span) in idle.filter(|_| !on).take(1) {
        let what = format!("`{key}` changes nothing where nothing is proven; write dnssec = true");
        table.document.problem(&span, what);
    }
    let anchors = file.map_or_else(Anchors::default, |file| {
        let name = file.get_ref();
        let anchors = read(Path::new(name))
            .map_err(|error| format!("`{name}` cannot be read: {error}"))
            .and_then(|bytes| {
                let text = String::from_utf8_lossy(&bytes);
                Anchors::parse(&text).map_err(|why| {
                    format!(
                        "`{name}` holds no trust anchors: {why}; write DNSKEY records, such as \
                         `. 172800 IN DNSKEY 257 3 8 AwEAA…`"
                    )
                })
            });
        anchors.unwrap_or_else(|what| {
            table.document.problem(&file.span(), what);
            Anchors::default()
        })
    });
    on.then(|| DnssecSettings {
        anchors,
        insecure: insecure.into_iter().map(|(name, _)| name).collect(),
    })
}

#[cfg(test)]
mod tests {
    use super::super::parse;
    use super::*;

    const ZONE: &str = "[[zone]]\nname = 'a'\ninterfaces = ['lan0']\n[[zone.rule]]\n\
                        networks = ['192.0.2.1']\ntcp = [22]\n";
    const KEY: &str = ". 172800 IN DNSKEY 257 3 15 l02Woi0iS8Aa25FQkUd9RMzZHJpBoRQwAQEX1SxZJA4=\n";

    fn read(text: &str) -> Result<Option<DnssecSettings>, String> {
        let file = |path: &Path| match path.to_str() {
            Some("root.key") => Ok(KEY.into()),
            Some("empty.key") => Ok(b"; nothing\n".to_vec()),
            Some("junk.key") => Ok(b"\xff\x00 DNSKEY".to_vec()),
            Some(_) | None => Err(io::Error::new(io::ErrorKind::NotFound, "no such file")),
        };
        parse(&format!("[dns]\n{text}\n{ZONE}"), "e.toml", &file)
            .map(|settings| settings.dns.dnssec)
            .map_err(|problems| problems.to_string())
    }

    #[test]
    fn settings() {
        fn check(text: &str, anchors: Option<usize>, insecure: &[&str]) {
            let settings = read(text).unwrap();
            let keys = settings.as_ref().map(|s| s.anchors.keys().len());
            assert_eq!(keys, anchors, "{text}");
            let names = settings.map(|s| s.insecure).unwrap_or_default();
            let names: Vec<_> = names.iter().map(ToString::to_string).collect();
            assert_eq!(names, insecure, "{text}");
        }
        check("", None, &[]);
        check("dnssec = false", None, &[]);
        check("dnssec = true", Some(2), &[]);
        check("dnssec = true\ntrust_anchors = 'root.key'", Some(1), &[]);
        check(
            "dnssec = true\ninsecure = ['Corp.example', 'test']",
            Some(2),
            &["corp.example", "test"],
        );
    }

    #[test]
    fn mistakes_say_what_to_write() {
        fn check(text: &str, expected: &str) {
            let problem = read(text).unwrap_err();
            assert!(problem.starts_with(expected), "{problem}");
        }
        check(
            "trust_anchors = 'root.key'",
            "e.toml:2:17: `trust_anchors` changes nothing where nothing is proven; write dnssec = true",
        );
        check(
            "insecure = ['corp.example']",
            "e.toml:2:13: `insecure` changes nothing where nothing is proven; write dnssec = true",
        );
        check(
            "dnssec = true\ninsecure = ['*.corp.example']",
            "e.toml:3:13: `*.corp.example` is not a domain; write `corp.example`",
        );
        for file in ["empty.key", "junk.key"] {
            check(
                &format!("dnssec = true\ntrust_anchors = '{file}'"),
                &format!("e.toml:3:17: `{file}` holds no trust anchors: "),
            );
        }
        check(
            "dnssec = true\ntrust_anchors = 'no.key'",
            "e.toml:3:17: `no.key` cannot be read: no such file",
        );
    }
}
