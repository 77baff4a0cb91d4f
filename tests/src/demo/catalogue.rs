//! The catalogue as the demo understands it: read from the file, matched by a few plain lines of its
//! own, so that the daemon is judged by a second opinion.
#![expect(clippy::disallowed_methods, reason = "shell: reads the catalogue")]

use anyhow::{Context, Result, bail};
use ipnet::IpNet;
use serde::Deserialize;
use std::collections::BTreeSet;
use std::path::Path;

/// IANA number of TCP.
pub const TCP: u8 = 6;
/// IANA number of UDP.
pub const UDP: u8 = 17;

/// A catalogue file.
#[derive(Clone, Debug, Deserialize)]
pub struct Catalogue {
    /// What selectors call it.
    pub name: String,
    /// Its rows.
    #[serde(rename = "set")]
    pub sets: Vec<Set>,
}

/// One endpoint set; keys the demo has no use for are skipped.
#[derive(Clone, Debug, Deserialize)]
pub struct Set {
    /// The vendor's number or name of the row.
    pub id: String,
    /// The part of the service.
    #[serde(default)]
    pub area: String,
    /// What it is for.
    #[serde(default)]
    pub service: String,
    /// Names and wildcards.
    #[serde(default)]
    pub names: Vec<String>,
    /// Networks.
    #[serde(default)]
    pub networks: Vec<IpNet>,
    #[serde(default)]
    tcp: Vec<Ports>,
    #[serde(default)]
    udp: Vec<Ports>,
}

/// `443` or `"8000-8010"`.
#[derive(Clone, Debug, Deserialize)]
#[serde(untagged)]
enum Ports {
    One(u16),
    Range(String),
}

impl Ports {
    fn ends(&self) -> Result<(u16, u16)> {
        Ok(match self {
            Self::One(port) => (*port, *port),
            Self::Range(text) => match text.split_once('-') {
                Some((first, last)) => (first.trim().parse()?, last.trim().parse()?),
                None => (text.trim().parse()?, text.trim().parse()?),
            },
        })
    }
}

impl Set {
    /// The ports to try, as (protocol, port): both ends of each range.
    ///
    /// # Errors
    /// When a port is not written as a number or a range.
    pub fn services(&self) -> Result<BTreeSet<(u8, u16)>> {
        let mut services = BTreeSet::new();
        for (protocol, list) in [(TCP, &self.tcp), (UDP, &self.udp)] {
            for ports in list {
                let ends = ports
                    .ends()
                    .with_context(|| format!("ports of set {}", self.id))?;
                services.extend([(protocol, ends.0), (protocol, ends.1)]);
            }
        }
        Ok(services)
    }

    fn opens(&self, protocol: u8, port: u16) -> Result<bool> {
        let list = if protocol == TCP {
            &self.tcp
        } else {
            &self.udp
        };
        for ports in list {
            let (first, last) = ports.ends()?;
            if (first..=last).contains(&port) {
                return Ok(true);
            }
        }
        Ok(false)
    }
}

impl Catalogue {
    /// Reads a catalogue file.
    ///
    /// # Errors
    /// When it is not there or not a catalogue.
    pub fn read(path: &Path) -> Result<Self> {
        let text = std::fs::read_to_string(path).with_context(|| path.display().to_string())?;
        let catalogue: Self = toml::from_str(&text)?;
        if catalogue.sets.is_empty() {
            bail!("{}: no [[set]]", path.display());
        }
        Ok(catalogue)
    }

    /// Whether some set lists `name`.
    #[must_use]
    pub fn lists(&self, name: &str) -> bool {
        self.sets
            .iter()
            .flat_map(|set| &set.names)
            .any(|pattern| matches(pattern, name))
    }

    /// Whether some set that lists `name` opens `port`.
    ///
    /// # Errors
    /// When a set's ports are not readable.
    pub fn opens(&self, name: &str, protocol: u8, port: u16) -> Result<bool> {
        for set in &self.sets {
            if set.names.iter().any(|pattern| matches(pattern, name))
                && set.opens(protocol, port)?
            {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// Wildcards over domains that anyone can have a name in: the operator must opt in to each.
    #[must_use]
    pub fn shared(&self) -> BTreeSet<&str> {
        const DOMAINS: [&str; 5] = [
            ".azureedge.net",
            ".webpubsub.azure.com",
            ".blob.core.windows.net",
            ".trafficmanager.net",
            ".cloudapp.azure.com",
        ];
        let patterns = self
            .sets
            .iter()
            .flat_map(|set| &set.names)
            .map(String::as_str);
        patterns
            .filter(|p| p.starts_with("*.") && DOMAINS.iter().any(|d| p.ends_with(d)))
            .collect()
    }
}

/// Whether `pattern` (a name, `*.suffix` of any depth, or `*suffix`) covers `name`.
#[must_use]
pub fn matches(pattern: &str, name: &str) -> bool {
    let (pattern, name) = (pattern.to_ascii_lowercase(), name.to_ascii_lowercase());
    match pattern.strip_prefix('*') {
        Some(suffix) => name.len() > suffix.len() && name.ends_with(suffix),
        None => pattern == name,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns() {
        fn check(pattern: &str, name: &str, expected: bool) {
            assert_eq!(matches(pattern, name), expected, "{pattern} on {name}");
        }
        check("*.manage.microsoft.com", "a.manage.microsoft.com", true);
        check("*.manage.microsoft.com", "a.b.MANAGE.microsoft.com", true);
        check("*.manage.microsoft.com", "manage.microsoft.com", false);
        check("*.manage.microsoft.com", "xmanage.microsoft.com", false);
        check(
            "*.manage.microsoft.com",
            "a.manage.microsoft.com.evil.example",
            false,
        );
        check(
            "EnterpriseEnrollment.manage.microsoft.com",
            "enterpriseenrollment.manage.microsoft.com",
            true,
        );
        check("*cdn.example", "xcdn.example", true);
    }

    #[test]
    fn ports_add_up_over_sets() {
        let text = r#"
            name = "t"
            [[set]]
            id = "1"
            names = ["*.a.example"]
            tcp = [443]
            [[set]]
            id = "2"
            names = ["b.a.example"]
            tcp = ["8000-8010"]
            udp = [123]
        "#;
        let catalogue: Catalogue = toml::from_str(text).unwrap();
        let check = |name: &str, protocol: u8, port: u16, expected: bool| {
            let got = catalogue.opens(name, protocol, port).unwrap();
            assert_eq!(got, expected, "{name} {protocol}/{port}");
        };
        check("b.a.example", TCP, 443, true);
        check("b.a.example", TCP, 8005, true);
        check("b.a.example", UDP, 123, true);
        check("c.a.example", TCP, 8005, false);
        check("a.example", TCP, 443, false);
        let ends: Vec<_> = catalogue.sets[1].services().unwrap().into_iter().collect();
        assert_eq!(ends, [(TCP, 8000), (TCP, 8010), (UDP, 123)]);
    }
}
