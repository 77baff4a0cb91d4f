//! A description as text, in the syntax of `nft -s list table`; for tests and for people.

use super::{
    COPY_PREFIX, Chain, Delivery, FORWARD, Family, MapKey, NetworkSet, PREROUTING, Part,
    REJECTS_PER_SECOND, REPORTS_PER_SECOND, Ruleset, TABLE, VerdictMap, Way, Word, is_answers,
    own_hook,
};
use std::fmt;
use std::net::SocketAddr;

impl fmt::Display for Ruleset {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "table inet {TABLE} {{")?;
        for tally in &self.tallies {
            writeln!(f, "\tcounter {tally} {{ }}")?;
        }
        for set in &self.learned {
            writeln!(f, "\tset {set} {{ type {}; }}", set.family.key_type())?;
        }
        for set in &self.networks {
            writeln!(f, "\t{set}")?;
        }
        for map in &self.maps {
            writeln!(f, "\t{map}")?;
        }
        for chain in &self.chains {
            write!(f, "{chain}")?;
        }
        writeln!(f, "}}")
    }
}

impl Family {
    const fn key_type(self) -> &'static str {
        match self {
            Self::V4 => "ipv4_addr",
            Self::V6 => "ipv6_addr",
        }
    }

    const fn word(self) -> &'static str {
        match self {
            Self::V4 => "ip",
            Self::V6 => "ip6",
        }
    }
}

impl Delivery {
    const fn word(self) -> &'static str {
        match self {
            Self::Local => "local",
            Self::Broadcast => "broadcast",
            Self::Anycast => "anycast",
            Self::Multicast => "multicast",
        }
    }
}

impl fmt::Display for NetworkSet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let ranges: Vec<String> = self
            .ranges
            .iter()
            .map(|(first, last)| {
                if first == last {
                    first.to_string()
                } else {
                    format!("{first}-{last}")
                }
            })
            .collect();
        let (name, kind) = (&self.name, self.family.key_type());
        write!(
            f,
            "set {name} {{ type {kind}; flags interval; elements = {{ {} }} }}",
            ranges.join(", ")
        )
    }
}

impl fmt::Display for VerdictMap {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let kind = match self.key {
            MapKey::Protocol => "inet_proto",
            MapKey::Port | MapKey::PresentPort => "inet_service",
        };
        let interval = if self.is_interval() {
            " flags interval;"
        } else {
            ""
        };
        let entries: Vec<String> = self
            .entries
            .iter()
            .map(|(first, last, chain)| {
                let range = if first == last {
                    String::new()
                } else {
                    format!("-{last}")
                };
                format!("{first}{range} : goto {chain}")
            })
            .collect();
        let name = &self.name;
        write!(
            f,
            "map {name} {{ type {kind} : verdict;{interval} elements = {{ {} }} }}",
            entries.join(", ")
        )
    }
}

impl VerdictMap {
    /// Whether a range of more than one number is in it.
    #[must_use]
    pub fn is_interval(&self) -> bool {
        self.entries.iter().any(|(first, last, _)| first != last)
    }
}

impl fmt::Display for Chain {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "\tchain {} {{", self.name)?;
        if self.name == FORWARD {
            writeln!(
                f,
                "\t\ttype filter hook forward priority filter; policy drop;"
            )?;
        }
        if self.name == PREROUTING {
            writeln!(
                f,
                "\t\ttype nat hook prerouting priority dstnat; policy accept;"
            )?;
        }
        if is_answers(&self.name) {
            writeln!(
                f,
                "\t\ttype filter hook output priority raw; policy accept;"
            )?;
        }
        if let Some(way) = own_hook(&self.name) {
            let hook = match way {
                Way::Original => "output",
                Way::Reply => "input",
            };
            writeln!(
                f,
                "\t\ttype filter hook {hook} priority filter; policy accept;"
            )?;
        }
        for rule in &self.rules {
            let parts: Vec<String> = rule.iter().map(Part::to_string).collect();
            writeln!(f, "\t\t{}", parts.join(" "))?;
        }
        writeln!(f, "\t}}")
    }
}

impl fmt::Display for Part {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Established => f.write_str("ct state established"),
            Self::Related => f.write_str("ct state related"),
            Self::Protocol(number) => write!(f, "meta l4proto {number}"),
            Self::Midstream => f.write_str("tcp flags != syn / fin,syn,rst,ack"),
            Self::Way(way) => write!(f, "ct direction {}", way.word()),
            Self::From(family, set) => write!(f, "{} saddr @{set}", family.word()),
            Self::To(family, set) => write!(f, "{} daddr @{set}", family.word()),
            Self::SourcePort(port) => write!(f, "th sport {port}"),
            Self::MessageType(number) => write!(f, "@th,0,8 {number}"),
            Self::HopLimit(hops) => write!(f, "ip6 hoplimit {hops}"),
            Self::Marked(mark) => write!(f, "meta mark {mark:#010x}"),
            Self::Copy(way, group) => write!(
                f,
                "log prefix \"{COPY_PREFIX} {}\" group {group}",
                way.word()
            ),
            Self::Untracked => f.write_str("notrack"),
            Self::Entered(pattern) => write!(f, "iifname \"{pattern}\""),
            Self::Leaves(pattern) => write!(f, "oifname \"{pattern}\""),
            Self::Port(port) => write!(f, "ct original proto-dst {port}"),
            Self::Version(Family::V4) => f.write_str("meta nfproto ipv4"),
            Self::Version(Family::V6) => f.write_str("meta nfproto ipv6"),
            Self::Delivered(delivery) => write!(f, "fib daddr type {}", delivery.word()),
            Self::Source(net) => write!(f, "{} saddr {net}", Family::of_net(*net).word()),
            Self::Destination(net) => write!(f, "{} daddr {net}", Family::of_net(*net).word()),
            Self::Asked(family, set) => write!(f, "ct original {} daddr @{set}", family.word()),
            Self::Map(MapKey::Protocol, map) => write!(f, "meta l4proto vmap @{map}"),
            Self::Map(MapKey::PresentPort, map) => write!(f, "th dport vmap @{map}"),
            Self::Map(MapKey::Port, map) => write!(f, "ct original proto-dst vmap @{map}"),
            Self::Count(tally) => write!(f, "counter name \"{tally}\""),
            Self::Report(tally) => write!(
                f,
                "limit rate {REPORTS_PER_SECOND}/second burst {REPORTS_PER_SECOND} packets log prefix \"{}\"",
                tally.prefix()
            ),
            Self::Goto(chain) => write!(f, "goto {chain}"),
            Self::Jump(chain) => write!(f, "jump {chain}"),
            Self::Return => f.write_str("return"),
            Self::Accept => f.write_str("accept"),
            Self::Drop => f.write_str("drop"),
            Self::Seldom => write!(
                f,
                "limit rate {REJECTS_PER_SECOND}/second burst {REJECTS_PER_SECOND} packets"
            ),
            Self::Reject(Word::Reset) => f.write_str("reject with tcp reset"),
            Self::Reject(Word::Prohibited) => f.write_str("reject with icmpx admin-prohibited"),
            Self::Redirect(to @ SocketAddr::V4(_)) => write!(f, "dnat ip to {to}"),
            Self::Redirect(to @ SocketAddr::V6(_)) => write!(f, "dnat ip6 to {to}"),
            Self::RedirectHere(port) => write!(f, "redirect to :{port}"),
        }
    }
}
