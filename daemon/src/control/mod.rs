//! The control socket: what operators may ask, and the server and client that carry it. It decides
//! nothing about packets and keeps no state of the policy: the loop answers every request.

use crate::policy::ZoneId;
use crate::policy::exceptions::Wanted;
use crate::policy::name::Name;
use crate::policy::revoke::Target;
use ipnet::IpNet;
use protocol::{
    ExceptionChange, ExceptionList, Explanation, Failure, GrantPage, LateList, Preview, Reloaded,
    Revoked, Status, UnseenList, ZoneList,
};
use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;

pub mod absent;
mod call;
pub mod catalogue;
pub mod client;
pub mod exception;
pub mod explained;
pub mod impact;
pub mod late;
pub mod protocol;
pub mod revoked;
mod server;
#[cfg(test)]
mod server_tests;
mod session;
mod socket;
mod staged;
pub mod status;
pub mod text;
pub mod unseen;

pub use catalogue::CatalogueAct;
pub use server::{Server, serve};

/// What the loop is asked. `Watch` is not here: it listens to [`crate::observe`] alone.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Request {
    /// Answer with [`Reply::Status`].
    Status,
    /// Answer with [`Reply::Zones`].
    Zones,
    /// Answer with [`Reply::Grants`].
    Grants(GrantsQuery),
    /// Answer with [`Reply::Explanation`].
    Explain(ExplainQuery),
    /// Answer with [`Reply::Late`].
    Late {
        /// Only of the zone of this name.
        zone: Option<String>,
    },
    /// Answer with [`Reply::Reloaded`].
    Reload {
        /// Whether a catalogue that is empty or much smaller than before is accepted.
        force: bool,
    },
    /// Answer with [`Reply::Unseen`].
    Unseen {
        /// The name of a catalogue in force.
        catalogue: String,
    },
    /// Answer with [`Reply::Preview`].
    Preview(Candidate),
    /// Answer with [`Reply::Exceptions`].
    Exceptions,
    /// Do it, and answer as [`Act`] says.
    Act {
        /// What.
        act: Act,
        /// Whose word it is: the peer's uid, as the kernel tells it.
        who: u32,
    },
}

/// What only root and administrators may do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Act {
    /// Answer with [`Reply::Revoked`].
    Revoke {
        /// What is taken back.
        target: Target,
        /// Only in the zone of this name.
        zone: Option<String>,
    },
    /// Answer with [`Reply::Exception`].
    Allow(Wanted),
    /// Answer with [`Reply::Exception`].
    Disallow {
        /// The exception's number.
        id: u32,
    },
    /// Answer with [`Reply::Reloaded`].
    Catalogue(CatalogueAct),
}

/// What might be put in force.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Candidate {
    /// The configuration, as it is there to be read.
    Configuration,
    /// The policy in force with one catalogue in the place of another.
    Catalogue {
        /// The name of one in force.
        name: String,
        /// Its successor, in any format that is known.
        text: String,
    },
}

/// Which grants to list.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GrantsQuery {
    /// Only those of the zone of this name.
    pub zone: Option<String>,
    /// Only those that cover this address.
    pub address: Option<IpAddr>,
    /// Only those learned for this asked name.
    pub name: Option<Name>,
    /// Most grants to answer with, 1 to [`protocol::MAX_PAGE`].
    pub limit: usize,
    /// Only those after this one, in the order of [`Cursor`].
    pub after: Option<Cursor>,
}

/// A place in the list of grants: zone id, then address (a host is its /32 or /128).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Cursor {
    /// The zone of the last grant seen.
    pub zone: ZoneId,
    /// Its address or network.
    pub network: IpNet,
}

impl fmt::Display for Cursor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}@{}", self.network, self.zone)
    }
}

impl FromStr for Cursor {
    type Err = Failure;

    fn from_str(text: &str) -> Result<Self, Failure> {
        text.split_once('@')
            .and_then(|(network, zone)| {
                Some(Self {
                    network: network.parse().ok()?,
                    zone: ZoneId(zone.parse().ok()?),
                })
            })
            .ok_or_else(|| Failure::BadQuery {
                text: format!(
                    "`after` is `next` of the page before, not `{}`",
                    text.escape_debug()
                ),
            })
    }
}

/// What to explain.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ExplainQuery {
    /// The destination.
    pub subject: Subject,
    /// The packet; `None` asks for every open port.
    pub service: Option<Probe>,
    /// Only for the zone of this name; `None` asks for every zone.
    pub zone: Option<String>,
}

/// Where a packet or question would go.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Subject {
    /// To an address.
    Address(IpAddr),
    /// To a name's addresses.
    Name(Name),
}

/// A packet's protocol and destination port.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Probe {
    /// IANA protocol number.
    pub protocol: u8,
    /// Destination port; 0 where the protocol has none.
    pub port: u16,
}

/// What the loop answers: the variant that its request names, or `Failed`.
#[derive(Clone, Debug)]
pub enum Reply {
    /// To [`Request::Status`].
    Status(Box<Status>),
    /// To [`Request::Zones`].
    Zones(ZoneList),
    /// To [`Request::Grants`].
    Grants(GrantPage),
    /// To [`Request::Explain`].
    Explanation(Box<Explanation>),
    /// To [`Request::Late`].
    Late(LateList),
    /// To [`Request::Reload`].
    Reloaded(Reloaded),
    /// To [`Request::Unseen`].
    Unseen(UnseenList),
    /// To [`Request::Preview`].
    Preview(Box<Preview>),
    /// To [`Request::Exceptions`].
    Exceptions(ExceptionList),
    /// To [`Act::Allow`] and [`Act::Disallow`].
    Exception(ExceptionChange),
    /// To [`Act::Revoke`].
    Revoked(Revoked),
    /// To any request.
    Failed(Failure),
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cursors() {
        fn check(text: &str, expected: Option<(u16, &str)>) {
            let got = text.parse::<Cursor>().ok();
            let expected = expected.map(|(zone, net)| Cursor {
                zone: ZoneId(zone),
                network: net.parse().unwrap(),
            });
            assert_eq!(got, expected, "{text}");
            if let Some(cursor) = got {
                assert_eq!(cursor.to_string(), text);
            }
        }
        check("203.0.113.9/32@3", Some((3, "203.0.113.9/32")));
        check("2001:db8::/48@0", Some((0, "2001:db8::/48")));
        check("203.0.113.9/32", None);
        check("203.0.113.9/33@1", None);
        check("@", None);
    }
}
