//! What really arrived on the internet, written down by its own kernel: a client's time-out proves
//! little on a busy machine, an absent packet proves all.
#![expect(clippy::disallowed_methods, reason = "shell: asks nft what it saw")]

use super::Namespace;
use anyhow::{Context, Result};
use std::collections::BTreeSet;
use std::net::IpAddr;
use std::process::Command;

/// A destination that packets of a client reached.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Sighting {
    /// Destination address.
    pub address: IpAddr,
    /// IANA protocol number.
    pub protocol: u8,
    /// Destination port; 0 where the protocol has none.
    pub port: u16,
}

/// The record of one namespace.
#[derive(Clone, Copy, Debug)]
pub struct Witness<'a>(&'a Namespace);

const TABLE: &str = "table inet witness {
    set ports4 { type ipv4_addr . inet_proto . inet_service; size 65535; flags dynamic; }
    set ports6 { type ipv6_addr . inet_proto . inet_service; size 65535; flags dynamic; }
    set other4 { type ipv4_addr . inet_proto; size 65535; flags dynamic; }
    set other6 { type ipv6_addr . inet_proto; size 65535; flags dynamic; }
    chain arriving {
        type filter hook prerouting priority -300;
        iifname != eth0 return
        meta l4proto { tcp, udp } update @ports4 { ip daddr . meta l4proto . th dport }
        meta l4proto { tcp, udp } update @ports6 { ip6 daddr . meta l4proto . th dport }
        meta l4proto != { tcp, udp } update @other4 { ip daddr . meta l4proto }
        meta l4proto != { tcp, udp } update @other6 { ip6 daddr . meta l4proto }
    }
}";

impl<'a> Witness<'a> {
    /// Begins to watch what enters `namespace` through `eth0`.
    ///
    /// # Errors
    /// When nft refuses.
    pub fn watch(namespace: &'a Namespace) -> Result<Self> {
        namespace.nft(TABLE)?;
        Ok(Self(namespace))
    }

    /// Every destination reached so far.
    ///
    /// # Errors
    /// When nft's list cannot be read.
    pub fn seen(&self) -> Result<BTreeSet<Sighting>> {
        let mut command = Command::new("nft");
        command.args(["-j", "-n", "list", "table", "inet", "witness"]);
        parse(&self.0.output(&mut command)?)
    }
}

fn parse(json: &str) -> Result<BTreeSet<Sighting>> {
    let list: serde_json::Value = serde_json::from_str(json)?;
    let items = list["nftables"].as_array().context("nft prints an array")?;
    let elements = items
        .iter()
        .filter_map(|item| item["set"]["elem"].as_array())
        .flatten();
    elements.map(sighting).collect()
}

fn sighting(element: &serde_json::Value) -> Result<Sighting> {
    let text = || format!("an element of three parts: {element}");
    let part = |at: usize| &element["concat"][at];
    // `-n` is not heeded for protocols by every nft.
    let protocol = match part(1).as_str() {
        Some("tcp") => 6,
        Some("udp") => 17,
        Some("icmp") => 1,
        Some("ipv6-icmp" | "icmpv6") => 58,
        Some("gre") => 47,
        Some("sctp") => 132,
        Some(other) => other.parse().with_context(text)?,
        None => u8::try_from(part(1).as_u64().with_context(text)?)?,
    };
    Ok(Sighting {
        address: part(0)
            .as_str()
            .with_context(text)?
            .parse()
            .with_context(text)?,
        protocol,
        port: u16::try_from(part(2).as_u64().unwrap_or(0))?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_what_nft_prints() {
        let json = r#"{"nftables": [{"metainfo": {}}, {"set": {"name": "ports4", "elem": [
            {"concat": ["52.96.0.1", "tcp", 443]}, {"concat": ["52.96.0.2", 17, 123]}]}},
            {"set": {"name": "other6", "elem": [{"concat": ["2603:1000::1", "ipv6-icmp"]}]}},
            {"set": {"name": "empty"}}]}"#;
        let seen: Vec<_> = parse(json)
            .unwrap()
            .into_iter()
            .map(|s| (s.address.to_string(), s.protocol, s.port))
            .collect();
        assert_eq!(
            seen,
            [
                ("52.96.0.1".to_owned(), 6, 443),
                ("52.96.0.2".to_owned(), 17, 123),
                ("2603:1000::1".to_owned(), 58, 0)
            ]
        );
    }
}
