//! PURE. The types of `GetStatus`.

use super::catalogue::SourceStatus;
use serde::{Deserialize, Serialize};
use zlink::introspect::{CustomType, Type};

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
    /// Where it is fetched, if it is.
    #[serde(default)]
    pub sources: Vec<SourceStatus>,
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
