//! Every type that crosses the control socket, and the Varlink interface they make up. The
//! interface description is derived from these types; it cannot say something else than they do.

pub use super::late::{LateList, LateName, LateParameters};
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

// ---- GetStatus ----

/// What the daemon is doing.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, Type)]
pub struct Status {
    /// Version of the daemon.
    pub version: String,
    /// What it does to packets now.
    pub state: State,
    /// When that began, RFC 3339 in UTC.
    pub since: String,
    /// Seconds since the daemon started.
    pub uptime: u64,
    /// Policy revision in force.
    pub revision: u64,
    /// The kernel mechanisms that enforce.
    pub planes: Vec<PlaneStatus>,
    /// The catalogues in use.
    pub catalogues: Vec<CatalogueStatus>,
    /// Number of zones.
    pub zones: u64,
    /// Learned addresses now granted.
    pub grants: GrantCounts,
    /// The DNS edge since the daemon started.
    pub dns: DnsCounters,
    /// Exact names that zones may reach and that have had no address so far.
    pub unresolved: Vec<UnresolvedName>,
    /// What was seen of answers that pass by; absent in forward mode.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub observer: Option<ObserverCounters>,
    /// Packets each plane has judged.
    pub packets: Vec<PacketCounts>,
    /// What became of the planes' reports of refused packets.
    #[serde(default)]
    pub refusals: RefusalCounts,
    /// How often planes were found changed by others, in each way that they were.
    #[serde(default)]
    pub drifts: Vec<DriftCount>,
    /// What an operator should look at; empty when all is well.
    pub warnings: Vec<String>,
}

/// What the daemon does to packets.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, CustomType)]
#[serde(rename_all = "lowercase")]
pub enum State {
    /// Not yet in force.
    #[default]
    Starting,
    /// Every plane in force, at least one zone drops what is not granted.
    Enforcing,
    /// Every plane in force, every zone in audit mode.
    Auditing,
    /// A plane is not in force; the others still refuse.
    Degraded,
    /// Everything is refused, by the operator's or the keeper's word.
    Locked,
    /// Everything passes, by the operator's word.
    Open,
}

/// One kernel mechanism.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, CustomType)]
pub struct PlaneStatus {
    /// `nft` or `ebpf`.
    pub name: String,
    /// Whether it enforces the current revision.
    pub in_force: bool,
    /// How it is attached, a phrase each.
    pub attached: Vec<String>,
    /// Why it is not in force.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
}

/// One catalogue.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, CustomType)]
pub struct CatalogueStatus {
    /// What selectors call it.
    pub name: String,
    /// Version of its source.
    pub version: String,
    /// Number of endpoint sets.
    pub sets: u64,
    /// Number of exact names and wildcards.
    pub names: u64,
    /// Number of networks.
    pub networks: u64,
}

/// Learned addresses by family.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, CustomType)]
pub struct GrantCounts {
    /// IPv4 addresses.
    pub ipv4: u64,
    /// IPv6 addresses.
    pub ipv6: u64,
}

/// A name that egressd looks up itself and that has no address so far.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, CustomType)]
pub struct UnresolvedName {
    /// The zone that may reach it.
    pub zone: String,
    /// The name.
    pub name: String,
}

/// What the DNS edge has done since the daemon started.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, CustomType)]
pub struct DnsCounters {
    /// Questions from clients.
    pub questions: u64,
    /// Answered from the cache.
    pub cached: u64,
    /// Answers of the cache that were fetched anew before their end.
    pub prefetched: u64,
    /// Answered from the cache beyond the answer's end, because no upstream answered.
    pub stale: u64,
    /// Sent to an upstream.
    pub forwarded: u64,
    /// Refused by policy.
    pub refused: u64,
    /// Answered SERVFAIL because the planes did not hold the addresses in time.
    pub withheld: u64,
    /// Upstreams that failed or did not answer in time.
    pub failed: u64,
    /// Addresses newly granted.
    pub granted: u64,
    /// Grants renewed by an answer.
    pub renewed: u64,
    /// Grants that ended.
    pub ended: u64,
    /// Records taken out of answers.
    pub records_refused: u64,
    /// Replies that match no question egressd asked.
    pub forgeries: u64,
}

/// What was seen of answers that pass by since observing began.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, CustomType)]
pub struct ObserverCounters {
    /// Questions seen going out.
    pub questions: u64,
    /// Answers to them seen coming back.
    pub answers: u64,
    /// Answers that gave listed names addresses.
    pub taught: u64,
    /// Answers for names that the zone's sets do not list, or deny.
    pub unlisted: u64,
    /// Truncated answers.
    pub truncated: u64,
    /// Addresses in answers that may not be taught.
    pub removed: u64,
    /// Replies to no question that was seen.
    pub unmatched: u64,
    /// Replies that repeat another question than was asked.
    pub forged: u64,
    /// Packets and messages that cannot be read.
    pub malformed: u64,
    /// Questions not waited for: their client has too many under way.
    pub shed: u64,
    /// TCP connections that could not be followed to their end.
    pub broken: u64,
    /// Answers that the planes did not take in time.
    pub withheld: u64,
    /// Times that copies came faster than they were read.
    pub lost: u64,
    /// With `delay`: answers sent on to clients.
    pub released: u64,
    /// With `delay`: answers that wait for the planes now.
    pub waiting: u64,
    /// Microseconds from an answer's copy to its commit: half of the answers, at most.
    pub half_within: u64,
    /// The same for 99 of 100.
    pub most_within: u64,
}

/// Packets by what became of them.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, CustomType)]
pub struct PacketCounts {
    /// The plane that judged them.
    pub plane: String,
    /// Let pass.
    pub passed: u64,
    /// Dropped or rejected.
    pub dropped: u64,
    /// Let pass by audit mode; enforcing would have dropped them.
    pub audited: u64,
    /// Refused, but left to nft to drop, which counts them again.
    #[serde(default)]
    pub referred: u64,
}

/// Reports of refused packets since the daemon started. The ebpf plane tells itself how many packets it
/// did not report.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, CustomType)]
pub struct RefusalCounts {
    /// Told to the log and to watchers: the first packet of a flow within ten seconds.
    pub told: u64,
    /// Not told, because the same flow was shortly before.
    pub repeated: u64,
    /// Not told, because there were too many at once.
    pub lost: u64,
}

/// One way in which a plane was found changed, since the daemon started.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, CustomType)]
pub struct DriftCount {
    /// `nft` or `ebpf`.
    pub plane: String,
    /// In one word, such as `missing-table` or `xdp-detached`.
    pub drift: String,
    /// Times that it was found.
    pub found: u64,
    /// Times that the plane itself put it right at once; else everything was replaced.
    pub mended: u64,
}

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

// ---- Explain ----

/// What to explain.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, Type)]
pub struct ExplainParameters {
    /// An IP address or a domain name.
    pub query: String,
    /// Destination port; without it every open port is told.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub port: Option<u16>,
    /// `tcp`, `udp`, `icmp` … or an IANA number; `tcp` where only a port is given.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub protocol: Option<String>,
    /// Only for the zone of this name.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub zone: Option<String>,
}

/// What would happen, and why.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, Type)]
pub struct Explanation {
    /// The address or name that was asked about.
    pub query: String,
    /// The port asked about, such as `tcp/443`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub service: Option<String>,
    /// One entry per zone asked about.
    pub zones: Vec<ZoneExplanation>,
    /// What else bears on it: foreign chains that drop or rewrite, own or internal addresses.
    #[serde(default)]
    pub notes: Vec<String>,
}

/// The answer for one zone.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, CustomType)]
pub struct ZoneExplanation {
    /// Name of the zone.
    pub zone: String,
    /// `enforce` or `audit`.
    pub mode: String,
    /// What becomes of it.
    pub verdict: Verdict,
    /// Why, in a sentence.
    pub why: String,
    /// Each plane's own verdict.
    pub planes: Vec<PlaneVerdict>,
    /// The grants that cover it; for a name, those learned for it.
    pub grants: Vec<Grant>,
    /// The endpoint sets of the zone that list it, whether an answer was seen yet or not.
    pub sets: Vec<SetMatch>,
    /// What would allow it, a phrase each; empty where it is allowed.
    pub would_allow: Vec<String>,
}

/// What becomes of a packet or question.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, CustomType)]
#[serde(rename_all = "lowercase")]
pub enum Verdict {
    /// It passes.
    Allowed,
    /// It does not.
    #[default]
    Refused,
    /// It passes, because the zone is in audit mode; enforcing would refuse it.
    Audited,
    /// The name may be asked, and will pass once an answer was seen.
    Askable,
    /// The planes disagree; the packet is refused until they are reconciled.
    Split,
}

/// One plane's verdict.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, CustomType)]
pub struct PlaneVerdict {
    /// `nft` or `ebpf`.
    pub plane: String,
    /// Whether it lets the flow pass; absent when it could not be read or no port was asked about.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub allowed: Option<bool>,
    /// What it holds for the address, read back from the kernel, or why that failed.
    pub holds: String,
}

/// An endpoint set that lists the name or network.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, CustomType)]
pub struct SetMatch {
    /// The endpoint set, as `catalogue/id`.
    pub set: String,
    /// What it is for.
    pub service: String,
    /// The name, wildcard or network that matches.
    pub pattern: String,
    /// The ports it opens.
    pub ports: String,
    /// Where the catalogue's source says so.
    pub origin: String,
    /// Whether the vendor says the service does not work without it.
    pub required: bool,
    /// Whether it is a `deny` set, which vetoes all others.
    pub denied: bool,
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
];

const TYPES: &[&idl::CustomType<'static>] = &[
    State::CUSTOM_TYPE,
    PlaneStatus::CUSTOM_TYPE,
    CatalogueStatus::CUSTOM_TYPE,
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
