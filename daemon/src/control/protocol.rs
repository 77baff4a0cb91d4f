//! Every type that crosses the control socket, here or in the file of its method, and the Varlink
//! interface they make up. The interface description is derived from these types; it cannot say
//! something else than they do.

pub use super::catalogue::{ConfirmParameters, SourceStatus, UpdateParameters, VersionParameters};
pub use super::exception::{
    AllowParameters, DisallowParameters, Exception, ExceptionChange, ExceptionList,
};
pub use super::explained::*;
pub use super::impact::{Preview, PreviewFlow, PreviewGrant, PreviewParameters, PreviewWish};
pub use super::late::{LateList, LateName, LateParameters};
pub use super::revoked::{RevokeParameters, Revoked};
pub use super::status::*;
pub use super::unseen::{Unseen, UnseenList, UnseenParameters};
use serde::{Deserialize, Serialize};
use std::fmt;
use zlink::ReplyError;
use zlink::idl::{self, Comment, Interface, Method, Parameter};
use zlink::introspect::{self, CustomType, Type};
use zlink::names::{InterfaceName, TypeName};

/// Name of the interface; methods and errors are called `org.egressd.Control.…`.
pub const INTERFACE: &str = "org.egressd.Control";

/// Where the daemon listens unless told otherwise.
pub const DEFAULT_SOCKET: &str = "/run/egressd/control.sock";

/// Most grants that one reply carries, however many were asked for.
pub const MAX_PAGE: u64 = 500;

/// Most reasons that one grant in a reply carries; `more_reasons` counts the rest.
pub const MAX_REASONS: usize = 32;

/// Longest message a client may send, in bytes, the closing NUL included.
pub const MAX_CALL: usize = 64 * 1024;

// ---- ListZones ----

/// Every zone.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, Type)]
pub struct ZoneList {
    /// By id.
    pub zones: Vec<Zone>,
}

/// A group of clients under one policy.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, CustomType)]
pub struct Zone {
    /// Its name.
    pub name: String,
    /// Its number in the planes.
    pub id: u64,
    /// `enforce` or `audit`.
    pub mode: String,
    /// Where its clients' packets enter.
    pub interfaces: Vec<String>,
    /// Its clients' addresses; empty means every source on its interfaces.
    pub sources: Vec<String>,
    /// Endpoint sets it may reach, as `catalogue/id`.
    pub sets: Vec<String>,
    /// Number of names and wildcards it may ask for.
    pub names: u64,
    /// Number of networks it may reach.
    pub networks: u64,
    /// Learned addresses granted to it.
    pub grants: GrantCounts,
    /// Its packets since each plane started.
    pub counters: Vec<PacketCounter>,
    /// Packets that each endpoint set let pass, as far as a plane counts them apart.
    pub hits: Vec<SetHits>,
}

/// Packets that an endpoint set let pass.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, CustomType)]
pub struct SetHits {
    /// The set, as `catalogue/id`.
    pub set: String,
    /// Packets to addresses and networks that it opened. Those to an address that several sets opened
    /// together are counted for each of them.
    pub packets: u64,
}

/// Packets of one zone that met one fate for one reason.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, CustomType)]
pub struct PacketCounter {
    /// The plane that judged them.
    pub plane: String,
    /// `pass`, `drop`, `audit` (it would have been dropped) or `refer` (left to nft, which drops it).
    pub action: String,
    /// The one word why.
    pub reason: String,
    /// How many.
    pub packets: u64,
}

// ---- ListGrants ----

/// Which grants to list. Without any field: the first page of all.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, Type)]
pub struct GrantsParameters {
    /// Only those of the zone of this name.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub zone: Option<String>,
    /// Only those that cover this address.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub address: Option<String>,
    /// Only those learned for this asked name.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// Page size, at most 500.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub limit: Option<u64>,
    /// `next` of the page before.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub after: Option<String>,
}

/// One page of grants.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, Type)]
pub struct GrantPage {
    /// By zone id, then address.
    pub grants: Vec<Grant>,
    /// Where the next page begins; absent on the last.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub next: Option<String>,
}

/// What a zone may reach at one address or network.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, CustomType)]
pub struct Grant {
    /// Name of the zone.
    pub zone: String,
    /// Address, or network in CIDR form.
    pub address: String,
    /// Open ports, such as `tcp/443, udp/3478-3481`.
    pub ports: String,
    /// Seconds since a packet last used it, where a plane knows.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub used: Option<u64>,
    /// What each plane holds of it; empty in lists, filled by `Explain`.
    #[serde(default)]
    pub planes: Vec<Holding>,
    /// Why it exists.
    pub reasons: Vec<Reason>,
    /// Reasons left out of this reply.
    #[serde(default)]
    pub more_reasons: u64,
}

/// What one plane holds for one address, read back from the kernel.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, CustomType)]
pub struct Holding {
    /// `nft` or `ebpf`.
    pub plane: String,
    /// Open ports; empty when it holds nothing.
    pub ports: String,
}

/// Why a grant exists.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, CustomType)]
pub struct Reason {
    /// The endpoint set, as `catalogue/id`.
    pub set: String,
    /// The asked name whose answer taught it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// The name or wildcard of the set that lists it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pattern: Option<String>,
    /// The network of the set that holds it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub network: Option<String>,
    /// The ports it opens.
    pub ports: String,
    /// Where the catalogue's source says so.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub origin: Option<String>,
    /// Seconds since it was first learned.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub learned: Option<u64>,
    /// Seconds until it ends; absent when it does not end by itself.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ends: Option<u64>,
}

// ---- Reload ----

/// How to reload.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, Type)]
pub struct ReloadParameters {
    /// Accept a catalogue that is empty or much smaller than the one in force.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub force: Option<bool>,
}

/// What a reload did.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, Type)]
pub struct Reloaded {
    /// Whether anything is different now.
    pub changed: bool,
    /// Policy revision in force.
    pub revision: u64,
    /// Live flows that were cut.
    pub cut: u64,
    /// What changed, for people.
    pub summary: String,
    /// What an operator should look at.
    pub warnings: Vec<String>,
}

// ---- Watch ----

/// Something that happened.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, Type)]
pub struct Event {
    /// When, RFC 3339 in UTC with milliseconds.
    pub time: String,
    /// What kind.
    pub kind: Kind,
    /// One line for people.
    pub text: String,
    /// Name of the zone.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub zone: Option<String>,
    /// The client.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub client: Option<String>,
    /// The asked name; of a packet, the name that its client last asked for and that led there.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// The other side's address.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub address: Option<String>,
    /// Protocol and port, such as `tcp/443`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub service: Option<String>,
    /// The interface that a packet entered on.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub interface: Option<String>,
    /// The plane.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub plane: Option<String>,
    /// The one word why.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// Whether it passed all the same, because the zone is in audit mode.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub audited: Option<bool>,
    /// The endpoint set that comes nearest to allowing a refused packet, and what is in its way.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub nearest: Option<String>,
    /// Events before this one that were left out, because the watcher reads too slowly.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub lost: Option<u64>,
}

/// Kinds of events: the words that are also log targets.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, CustomType)]
#[serde(rename_all = "lowercase")]
pub enum Kind {
    /// The first reply to every watcher: from now on nothing is missed.
    #[default]
    Watching,
    /// A question was refused.
    Question,
    /// A record was taken out of an answer, or an answer withheld.
    Answer,
    /// A grant began or ended.
    Grant,
    /// A packet was refused, or would have been.
    Packet,
    /// A plane failed, or was repaired.
    Plane,
    /// The configuration was read again.
    Config,
    /// An interface or upstream changed.
    Link,
}

// ---- errors ----

/// Why a call failed. Every error says what to do in `text`.
#[derive(Clone, Debug, PartialEq, Eq, ReplyError, introspect::ReplyError)]
#[zlink(interface = "org.egressd.Control")]
pub enum Failure {
    /// No zone has that name.
    UnknownZone {
        /// What to do.
        text: String,
        /// The zones there are.
        known: Vec<String>,
    },
    /// A parameter is not what it should be.
    BadQuery {
        /// What to do.
        text: String,
    },
    /// The peer may not ask this.
    PermissionDenied {
        /// What to do.
        text: String,
    },
    /// Too many connections, or the daemon did not answer in time.
    Busy {
        /// What to do.
        text: String,
    },
    /// The new configuration is not accepted; the policy before stays in force.
    ConfigRefused {
        /// What to do.
        text: String,
    },
    /// The kernel or the daemon failed.
    Internal {
        /// What to do.
        text: String,
    },
}

impl Failure {
    /// The error for a zone that does not exist.
    #[must_use]
    pub fn unknown_zone(zone: &str, known: impl IntoIterator<Item = String>) -> Self {
        let known: Vec<String> = known.into_iter().collect();
        let list = if known.is_empty() {
            "there are none".to_owned()
        } else {
            known.join(", ")
        };
        Self::UnknownZone {
            text: format!("no zone is called `{zone}`; zones: {list}"),
            known,
        }
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (Self::UnknownZone { text, .. }
        | Self::BadQuery { text }
        | Self::PermissionDenied { text }
        | Self::Busy { text }
        | Self::ConfigRefused { text }
        | Self::Internal { text }) = self;
        f.write_str(text)
    }
}

impl std::error::Error for Failure {}

// ---- the interface ----

/// The fields of a struct type.
const fn fields<T: Type>() -> &'static [&'static Parameter<'static>] {
    let Some(object) = T::TYPE.as_object() else {
        panic!("derived from a struct")
    };
    let Some(fields) = object.as_borrowed() else {
        panic!("derived as a constant")
    };
    fields
}

/// One method with inputs `In` and outputs `Out`.
const fn method<In: Type, Out: Type>(
    name: &'static str,
    comments: &'static [&'static Comment<'static>],
) -> Method<'static> {
    let name = TypeName::from_static_str_unchecked(name);
    Method::new(name, fields::<In>(), fields::<Out>(), comments)
}

const METHODS: &[&Method<'static>] = &[
    &method::<(), Status>("GetStatus", &[&Comment::new("What the daemon is doing.")]),
    &method::<(), ZoneList>("ListZones", &[&Comment::new("Every zone.")]),
    &method::<GrantsParameters, GrantPage>(
        "ListGrants",
        &[&Comment::new("What zones may reach now, and why. Paged.")],
    ),
    &method::<ExplainParameters, Explanation>(
        "Explain",
        &[&Comment::new(
            "What would happen to a packet or question, and why.",
        )],
    ),
    &method::<LateParameters, LateList>(
        "ListLate",
        &[&Comment::new(
            "Names whose addresses clients still try after their grants ended.",
        )],
    ),
    &method::<UnseenParameters, UnseenList>(
        "ListUnseen",
        &[&Comment::new(
            "Names and wildcards of a catalogue that no client ever asked for.",
        )],
    ),
    &method::<(), Event>(
        "Watch",
        &[&Comment::new(
            "What happens from now on. Call it with `more`.",
        )],
    ),
    &method::<ReloadParameters, Reloaded>(
        "Reload",
        &[&Comment::new(
            "Read the configuration and the catalogues again.",
        )],
    ),
    &method::<UpdateParameters, Reloaded>(
        "UpdateCatalogue",
        &[&Comment::new(
            "Ask the servers of catalogues for newer versions, now.",
        )],
    ),
    &method::<VersionParameters, Reloaded>(
        "PinCatalogue",
        &[&Comment::new(
            "Keep a version in force whatever comes, or no longer.",
        )],
    ),
    &method::<VersionParameters, Reloaded>(
        "RollBackCatalogue",
        &[&Comment::new("Go back to a version before.")],
    ),
    &method::<ConfirmParameters, Reloaded>(
        "ConfirmRemovals",
        &[&Comment::new("End what is held of a catalogue.")],
    ),
    &method::<PreviewParameters, Preview>(
        "Preview",
        &[&Comment::new(
            "What another catalogue, or the configuration as it is written now, would end, cut and open. Changes nothing.",
        )],
    ),
    &method::<RevokeParameters, Revoked>(
        "Revoke",
        &[&Comment::new(
            "End what was learned, now. The next answer may teach it again.",
        )],
    ),
    &method::<AllowParameters, ExceptionChange>(
        "Allow",
        &[&Comment::new("Let a zone reach something for a while.")],
    ),
    &method::<DisallowParameters, ExceptionChange>(
        "Disallow",
        &[&Comment::new("End an exception, now.")],
    ),
    &method::<(), ExceptionList>("ListExceptions", &[&Comment::new("Every exception.")]),
];

const TYPES: &[&idl::CustomType<'static>] = &[
    State::CUSTOM_TYPE,
    PlaneStatus::CUSTOM_TYPE,
    CatalogueStatus::CUSTOM_TYPE,
    SourceStatus::CUSTOM_TYPE,
    GrantCounts::CUSTOM_TYPE,
    DnsCounters::CUSTOM_TYPE,
    UnresolvedName::CUSTOM_TYPE,
    ObserverCounters::CUSTOM_TYPE,
    PacketCounts::CUSTOM_TYPE,
    RefusalCounts::CUSTOM_TYPE,
    DriftCount::CUSTOM_TYPE,
    Zone::CUSTOM_TYPE,
    PacketCounter::CUSTOM_TYPE,
    SetHits::CUSTOM_TYPE,
    Grant::CUSTOM_TYPE,
    Holding::CUSTOM_TYPE,
    Reason::CUSTOM_TYPE,
    ZoneExplanation::CUSTOM_TYPE,
    Verdict::CUSTOM_TYPE,
    PlaneVerdict::CUSTOM_TYPE,
    SetMatch::CUSTOM_TYPE,
    LateName::CUSTOM_TYPE,
    Exception::CUSTOM_TYPE,
    Unseen::CUSTOM_TYPE,
    PreviewGrant::CUSTOM_TYPE,
    PreviewFlow::CUSTOM_TYPE,
    PreviewWish::CUSTOM_TYPE,
    Kind::CUSTOM_TYPE,
];

/// The interface description, as `GetInterfaceDescription` hands it out.
pub const DESCRIPTION: &Interface<'static> = &Interface::new(
    InterfaceName::from_static_str_unchecked(INTERFACE),
    METHODS,
    TYPES,
    <Failure as introspect::ReplyError>::VARIANTS,
    &[],
);

#[cfg(test)]
mod tests {
    use super::*;

    /// Every custom type that a method or type mentions is described, and every one described is
    /// mentioned.
    #[test]
    fn the_description_is_closed() {
        let text = DESCRIPTION.to_string();
        let described: Vec<String> = DESCRIPTION
            .custom_types()
            .map(|t: &idl::CustomType<'_>| t.name().to_string())
            .collect();
        for name in &described {
            let uses = text.matches(&format!(": {name}")).count()
                + text.matches(&format!(": ?{name}")).count()
                + text.matches(&format!("[]{name}")).count();
            assert!(uses > 0, "nothing uses {name}");
        }
        let used = text
            .lines()
            .flat_map(|line| line.split(['(', ',', ')']).map(str::to_owned));
        for field in used {
            let Some((_, kind)) = field.rsplit_once(": ") else {
                continue;
            };
            let kind = kind.trim_start_matches(['?', '[', ']']).trim();
            if kind.starts_with(|c: char| c.is_ascii_uppercase()) && !field.contains('#') {
                assert!(
                    described.iter().any(|name| name == kind),
                    "{kind} is not described"
                );
            }
        }
    }

    #[test]
    fn failures_on_the_wire() {
        fn check(failure: &Failure, expected: &str) {
            let json = serde_json::to_string(failure).unwrap();
            assert_eq!(json, expected);
            assert_eq!(serde_json::from_str::<Failure>(&json).unwrap(), *failure);
        }
        check(
            &Failure::unknown_zone("x", ["a".to_owned(), "b".to_owned()]),
            r#"{"error":"org.egressd.Control.UnknownZone","parameters":{"text":"no zone is called `x`; zones: a, b","known":["a","b"]}}"#,
        );
        check(
            &Failure::Busy {
                text: "later".to_owned(),
            },
            r#"{"error":"org.egressd.Control.Busy","parameters":{"text":"later"}}"#,
        );
    }
}
