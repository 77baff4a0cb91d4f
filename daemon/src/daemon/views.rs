//! What the control socket shows: policy and engine as the protocol's types. What needs the kernel
//! is filled in by the planes' thread.

use super::engine::Engine;
use super::late::Summary;
use super::quotas::FILLING;
use crate::control::protocol::{
    CatalogueStatus, DnsCounters, DriftCount, Exception, Explanation, Failure, Grant, GrantCounts,
    GrantPage, Holding, LateList, LateName, MAX_REASONS, ObserverCounters, PacketCounter,
    PacketCounts, PlaneStatus, PlaneVerdict, Reason, RefusalCounts, SetHits, SetMatch, State,
    Status, UnresolvedName, Unseen, UnseenList, Verdict, Zone, ZoneExplanation, ZoneList,
};
use crate::control::unseen::MOST as MOST_UNSEEN;
use crate::control::{Cursor, ExplainQuery, GrantsQuery, Probe, Subject};
use crate::dns;
use crate::observe::{self, Tally};
use crate::plane::Plane;
use crate::policy::exceptions;
use crate::policy::explain::{self, Learned, Via};
use crate::policy::grant::Policy;
use crate::policy::image::Mode;
use crate::policy::origin::Origins;
use crate::policy::port::{ClassMask, PortSet, Service};
use crate::policy::{Moment, ZoneId};
use ipnet::IpNet;
use std::collections::BTreeMap;
use std::net::IpAddr;

/// The open ports of a mask, as text.
pub(super) fn ports(policy: &Policy, mask: ClassMask) -> String {
    let classes = &policy.numbers().classes;
    let services = mask.classes().filter_map(|class| classes.ports(class));
    PortSet::new(services.flat_map(|set| set.services().iter().copied())).to_string()
}

pub(super) fn count(number: usize) -> u64 {
    u64::try_from(number).unwrap_or(u64::MAX)
}

fn mode_word(mode: Mode) -> &'static str {
    match mode {
        Mode::Enforce => "enforce",
        Mode::Audit => "audit",
    }
}

/// The status as far as the loop knows it.
pub(super) fn status(engine: &Engine) -> Status {
    let policy = engine.policy();
    let intent = policy.rules().intent();
    let catalogues = intent.catalogues.iter().map(|catalogue| CatalogueStatus {
        name: catalogue.name.clone(),
        version: catalogue.version.clone(),
        sets: count(catalogue.sets.len()),
        names: count(catalogue.sets.iter().map(|set| set.patterns.len()).sum()),
        networks: count(catalogue.sets.iter().map(|set| set.networks.len()).sum()),
        sources: Vec::new(),
    });
    let [ipv4, ipv6] = policy.learned().map(count);
    let refusals = engine.refusals().counts();
    let audited =
        |(_, zone): (ZoneId, &crate::policy::rules::ZoneRules)| zone.spec.mode == Mode::Audit;
    let state = match engine.fault() {
        Some(_) => State::Degraded,
        None if engine.committed().0 == 0 => State::Starting,
        None if policy.rules().zones().all(audited) => State::Auditing,
        None => State::Enforcing,
    };
    Status {
        version: env!("CARGO_PKG_VERSION").to_owned(),
        state,
        revision: engine.committed().0,
        catalogues: catalogues.collect(),
        zones: count(policy.rules().zones().count()),
        grants: GrantCounts { ipv4, ipv6 },
        refusals: RefusalCounts {
            told: refusals.told,
            repeated: refusals.repeated,
            lost: refusals.lost,
        },
        drifts: engine
            .drifts()
            .counts()
            .map(|(plane, word, count)| DriftCount {
                plane: plane.to_owned(),
                drift: word.to_string(),
                found: count.found,
                mended: count.mended,
            })
            .collect(),
        warnings: engine
            .fault()
            .map(|fault| format!("a plane is not in force: {fault}"))
            .into_iter()
            .chain(engine.unjudged().map(|why| format!("{why}; trying again")))
            .chain(filling(policy))
            .collect(),
        ..Status::default()
    }
}

/// The caps that are nearly reached.
fn filling(policy: &Policy) -> Vec<String> {
    let rules = policy.rules();
    let zones = rules.zones().map(|(zone, _)| Some(zone));
    let mut warnings = Vec::new();
    for zone in std::iter::once(None).chain(zones) {
        let fill = policy.fill(zone);
        if fill.percent() < FILLING {
            continue;
        }
        let whose = zone.map(|zone| format!("zone `{}`: ", rules.zone_name(zone)));
        warnings.push(format!(
            "{}{} addresses are learned, [limits] {} allows {}",
            whose.unwrap_or_default(),
            fill.learned,
            fill.cap.key(),
            fill.most
        ));
    }
    warnings
}

/// What the DNS edge did, from its own counters and those of the happenings.
pub(super) fn dns(edge: dns::Stats) -> DnsCounters {
    let counted = observe::counters();
    DnsCounters {
        questions: edge.questions,
        cached: edge.cached,
        prefetched: edge.prefetched,
        stale: edge.stale,
        forwarded: edge.asked,
        refused: edge.refused,
        withheld: edge.withheld,
        failed: edge.timeouts,
        granted: counted[Tally::Granted],
        renewed: counted[Tally::Renewed],
        ended: counted[Tally::Ended],
        records_refused: edge.removed,
        forgeries: edge.forged,
    }
}

/// The names of zones that have no address so far.
pub(super) fn unresolved(engine: &Engine, names: &dns::Unresolved) -> Vec<UnresolvedName> {
    let rules = engine.policy().rules();
    let named = names.iter().map(|(zone, name)| UnresolvedName {
        zone: rules.zone_name(*zone).to_owned(),
        name: name.to_string(),
    });
    named.collect()
}

pub(super) fn observer(seen: dns::observer::Stats) -> ObserverCounters {
    ObserverCounters {
        questions: seen.questions,
        answers: seen.answers,
        taught: seen.taught,
        unlisted: seen.unlisted,
        truncated: seen.truncated,
        removed: seen.removed,
        unmatched: seen.unmatched,
        forged: seen.forged,
        malformed: seen.malformed,
        shed: seen.shed,
        broken: seen.broken,
        withheld: seen.withheld,
        lost: seen.lost,
        released: seen.released,
        waiting: seen.waiting,
        half_within: seen.half_within,
        most_within: seen.most_within,
    }
}

/// Adds what only the planes know.
pub(super) fn add_planes(status: &mut Status, planes: &mut [Box<dyn Plane>]) {
    for plane in planes {
        let error = plane.verify().err().map(|error| format!("{error:#}"));
        let mut packets = PacketCounts {
            plane: plane.name().to_owned(),
            ..PacketCounts::default()
        };
        for counter in plane.counters() {
            match counter.action {
                "drop" => packets.dropped += counter.packets,
                "audit" => packets.audited += counter.packets,
                "refer" => packets.referred += counter.packets,
                _ => packets.passed += counter.packets,
            }
        }
        status.packets.push(packets);
        status.planes.push(PlaneStatus {
            name: plane.name().to_owned(),
            in_force: error.is_none(),
            attached: plane.describe(),
            error,
        });
    }
}

/// An exception as operators see it.
pub(super) fn exception(exception: &exceptions::Exception, now: Moment) -> Exception {
    let wanted = &exception.wanted;
    Exception {
        id: exception.id,
        zone: wanted.zone.clone(),
        what: wanted.destination.to_string(),
        ports: wanted.ports.to_string(),
        ends: exception.until.seconds_from(now),
        reason: wanted.reason.clone(),
        who: exception.who.clone(),
        since: exception.since.clone(),
    }
}

/// Every zone, without counters.
pub(super) fn zones(engine: &Engine) -> ZoneList {
    let policy = engine.policy();
    let mut learned: BTreeMap<ZoneId, GrantCounts> = BTreeMap::new();
    for (zone, address, _) in policy.grants() {
        let counts = learned.entry(zone).or_default();
        if address.is_ipv4() {
            counts.ipv4 += 1
        } else {
            counts.ipv6 += 1
        }
    }
    let rules = policy.rules();
    let zones = rules.zones().map(|(id, zone)| Zone {
        name: zone.spec.name.clone(),
        id: u64::from(id.0),
        mode: mode_word(zone.spec.mode).to_owned(),
        interfaces: zone
            .spec
            .interfaces
            .iter()
            .map(ToString::to_string)
            .collect(),
        sources: zone.sources.iter().map(ToString::to_string).collect(),
        sets: zone
            .sets
            .iter()
            .map(|set| rules.row(*set).label())
            .collect(),
        names: count(
            zone.sets
                .iter()
                .map(|set| rules.row(*set).set.patterns.len())
                .sum::<usize>(),
        ) - count(zone.inert.len()),
        networks: count(zone.networks.len()),
        grants: learned.get(&id).copied().unwrap_or_default(),
        counters: Vec::new(),
        hits: Vec::new(),
    });
    ZoneList {
        zones: zones.collect(),
    }
}

/// Adds the planes' counters to their zones.
pub(super) fn add_counters(list: &mut ZoneList, planes: &mut [Box<dyn Plane>]) {
    for plane in planes {
        for counter in plane.counters() {
            let Some(zone) = list.zones.iter_mut().find(|zone| zone.name == counter.zone) else {
                continue;
            };
            zone.counters.push(PacketCounter {
                plane: plane.name().to_owned(),
                action: counter.action.to_owned(),
                reason: counter.reason,
                packets: counter.packets,
            });
        }
    }
}

/// Adds what each set let pass to the zones, as the planes that tell sets apart counted it.
pub(super) fn add_hits(list: &mut ZoneList, origins: &Origins, planes: &mut [Box<dyn Plane>]) {
    let mut sums: BTreeMap<(String, String), u64> = BTreeMap::new();
    for ((zone, origin), packets) in planes.iter_mut().flat_map(|plane| plane.hits()) {
        for set in origins.labels(origin) {
            *sums.entry((zone.clone(), set.clone())).or_default() += packets;
        }
    }
    for ((zone, set), packets) in sums {
        if let Some(zone) = list.zones.iter_mut().find(|known| known.name == zone) {
            zone.hits.push(SetHits { set, packets });
        }
    }
}

/// One page of grants: the networks and the learned addresses of each zone, in the cursor's order.
pub(super) fn grants(
    engine: &Engine,
    query: &GrantsQuery,
    now: Moment,
) -> Result<GrantPage, Failure> {
    let policy = engine.policy();
    let rules = policy.rules();
    let chosen = chosen_zone(policy, query.zone.as_deref())?;
    let wanted = |zone: ZoneId, network: IpNet| {
        chosen.is_none_or(|chosen| chosen == zone)
            && query
                .address
                .is_none_or(|address| network.contains(&address))
            && query
                .after
                .is_none_or(|after| Cursor { zone, network } > after)
    };
    let mut places: Vec<Cursor> = Vec::new();
    if query.name.is_none() {
        for (zone, compiled) in rules.zones() {
            let networks = compiled.networks.iter().map(|listing| listing.network);
            places.extend(
                networks
                    .filter(|net| wanted(zone, *net))
                    .map(|network| Cursor { zone, network }),
            );
        }
    }
    for (zone, address, grant) in policy.grants() {
        let named = |name: &crate::policy::name::Name| {
            grant.lessons.iter().any(|lesson| *lesson.name == *name)
        };
        let network = IpNet::from(address);
        if wanted(zone, network) && query.name.as_ref().is_none_or(named) {
            places.push(Cursor { zone, network });
        }
    }
    places.sort_unstable();
    places.dedup();
    let more = places.len() > query.limit;
    places.truncate(query.limit);
    let next = places.last().filter(|_| more).map(ToString::to_string);
    let grants = places
        .into_iter()
        .map(|place| grant(policy, place, now))
        .collect();
    Ok(GrantPage { grants, next })
}

fn grant(policy: &Policy, Cursor { zone, network }: Cursor, now: Moment) -> Grant {
    let rules = policy.rules();
    let host = network.prefix_len() == network.max_prefix_len();
    let learned = policy.grant(zone, network.addr()).filter(|_| host);
    let mut reasons: Vec<Reason> = Vec::new();
    let mut mask = learned.map_or(ClassMask::NONE, |grant| grant.mask);
    if host {
        let explanation = policy.explain(zone, &explain::Subject::Address(network.addr()), None);
        reasons.extend(explanation.reasons.iter().map(|r| reason(policy, r, now)));
    } else if let Some(compiled) = rules.zone(zone) {
        for listing in compiled
            .networks
            .iter()
            .filter(|listing| listing.network.contains(&network))
        {
            mask = mask.with(listing.class);
            let via = Via::Network {
                written: listing.written,
            };
            let why = explain::Reason {
                set: listing.set,
                class: listing.class,
                via,
            };
            reasons.push(reason(policy, &why, now));
        }
    }
    mask = mask.union(rules.network_mask(zone, network.addr()));
    let more_reasons = count(reasons.len().saturating_sub(MAX_REASONS));
    reasons.truncate(MAX_REASONS);
    Grant {
        zone: rules.zone_name(zone).to_owned(),
        address: if host {
            network.addr().to_string()
        } else {
            network.to_string()
        },
        ports: ports(policy, mask),
        used: None,
        planes: Vec::new(),
        reasons,
        more_reasons,
    }
}

fn reason(policy: &Policy, reason: &explain::Reason, now: Moment) -> Reason {
    let row = policy.rules().row(reason.set);
    let shown = Reason {
        set: row.label(),
        ports: ports(policy, ClassMask::of(reason.class)),
        origin: Some(row.set.place()).filter(|place| !place.is_empty()),
        ..Reason::default()
    };
    match &reason.via {
        Via::Name {
            asked,
            pattern,
            learned,
        } => Reason {
            name: Some(asked.to_string()),
            pattern: Some(pattern.to_string()),
            learned: learned.map(|Learned { since, .. }| now.seconds_from(since)),
            ends: learned.map(|Learned { end, .. }| end.seconds_from(now)),
            ..shown
        },
        Via::Network { written } => Reason {
            network: Some(written.to_string()),
            ..shown
        },
    }
}

/// The zone a question is limited to, if it is.
pub(super) fn chosen_zone(policy: &Policy, name: Option<&str>) -> Result<Option<ZoneId>, Failure> {
    name.map(|name| zone_of(policy, name)).transpose()
}

pub(super) fn zone_of(policy: &Policy, name: &str) -> Result<ZoneId, Failure> {
    let found = policy
        .rules()
        .zones()
        .find(|(_, zone)| zone.spec.name == name);
    found.map(|(id, _)| id).ok_or_else(|| {
        let known = policy
            .rules()
            .zones()
            .map(|(_, zone)| zone.spec.name.clone());
        Failure::unknown_zone(name, known)
    })
}

/// Whom the ends of grants were too early for.
pub(super) fn late(engine: &Engine, zone: Option<&str>, now: Moment) -> Result<LateList, Failure> {
    let policy = engine.policy();
    let zone = zone.map(|name| zone_of(policy, name)).transpose()?;
    let grace = policy.rules().intent().limits.grace;
    let report = engine.late().report(zone, grace, now);
    let names = report.names.into_iter().map(|of| {
        let Summary {
            clients,
            packets,
            median,
            p99,
            max,
            grace,
        } = of.summary;
        LateName {
            zone: policy.rules().zone_name(of.zone).to_owned(),
            name: of.name.to_string(),
            clients: count(clients),
            packets,
            median,
            p99,
            max,
            suggested_grace: grace.map(u64::from),
        }
    });
    Ok(LateList {
        names: names.collect(),
        clients: count(report.all.clients),
        packets: report.all.packets,
        grace: grace.into(),
        suggested_grace: report.all.grace.map(u64::from),
    })
}

/// What of a catalogue nobody ever asked for.
pub(super) fn unseen(engine: &Engine, catalogue: &str, now: Moment) -> Result<UnseenList, Failure> {
    let rules = engine.policy().rules();
    let catalogues = &rules.intent().catalogues;
    if !catalogues.iter().any(|known| known.name == catalogue) {
        let known: Vec<&str> = catalogues.iter().map(|known| &*known.name).collect();
        let known = known.join(", ");
        let text = format!("no catalogue in force is called `{catalogue}`; there are {known}");
        return Err(Failure::BadQuery { text });
    }
    let report = engine.seen().report(rules, catalogue, now);
    let never = report.never.iter().take(MOST_UNSEEN);
    Ok(UnseenList {
        catalogue: catalogue.to_owned(),
        seconds: report.seconds,
        watched: count(report.watched),
        unwatched: count(report.unwatched),
        total: count(report.never.len()),
        unseen: never
            .map(|of| Unseen {
                zone: of.zone.clone(),
                pattern: of.pattern.to_string(),
                days: of.days.into(),
            })
            .collect(),
    })
}

/// A hint at [`late`] once many clients of one name are.
pub(super) fn late_warning(engine: &Engine, now: Moment) -> Option<String> {
    let names = engine.late().names_of_many(now);
    (names > 0).then(|| {
        format!(
            "many clients keep addresses of {names} names longer than the grants last: see \
             `egressctl late`"
        )
    })
}

/// An explanation as far as the policy knows it, and what the planes must be asked.
pub(super) struct Pending {
    explanation: Explanation,
    zones: Vec<PendingZone>,
}

struct PendingZone {
    id: ZoneId,
    addresses: Vec<IpAddr>,
    wanted: Option<ClassMask>,
    audit: bool,
    internal: bool,
    texts: BTreeMap<u64, String>,
}

/// Most addresses of a name that the planes are asked about.
const MAX_ADDRESSES: usize = 16;

/// Explains from the policy.
pub(super) fn explain(
    engine: &Engine,
    query: &ExplainQuery,
    now: Moment,
) -> Result<Pending, Failure> {
    let policy = engine.policy();
    let rules = policy.rules();
    let chosen = chosen_zone(policy, query.zone.as_deref())?;
    let (subject, text) = match &query.subject {
        Subject::Address(address) => (explain::Subject::Address(*address), address.to_string()),
        Subject::Name(name) => (explain::Subject::Name(name.clone()), name.to_string()),
    };
    let service = query.service.map(|Probe { protocol, port }| {
        if port == 0 {
            Service::whole(protocol)
        } else {
            Service {
                protocol,
                first: port,
                last: port,
            }
        }
    });
    let port = query
        .service
        .map(|Probe { protocol, port }| (protocol, port));
    let mut explanation = Explanation {
        query: text,
        service: service.map(|s| s.to_string()),
        ..Explanation::default()
    };
    let mut pending = Vec::new();
    for (zone, compiled) in rules
        .zones()
        .filter(|(id, _)| chosen.is_none_or(|c| c == *id))
    {
        let told = policy.explain(zone, &subject, port);
        let mut grants: Vec<Grant> = Vec::new();
        let mut addresses = told.addresses.clone();
        addresses.truncate(MAX_ADDRESSES);
        for &address in &addresses {
            let granted = policy.grant(zone, address).is_some()
                || !rules.network_mask(zone, address).is_empty();
            if granted {
                grants.push(grant(
                    policy,
                    Cursor {
                        zone,
                        network: IpNet::from(address),
                    },
                    now,
                ));
            }
        }
        let sets = told.reasons.iter().map(|reason| {
            let row = rules.row(reason.set);
            let pattern = match &reason.via {
                Via::Name { pattern, .. } => pattern.to_string(),
                Via::Network { written } => written.to_string(),
            };
            SetMatch {
                set: row.label(),
                service: row.set.service.clone(),
                pattern,
                ports: ports(policy, ClassMask::of(reason.class)),
                origin: row.set.place(),
                required: row.set.required,
                denied: false,
            }
        });
        let mut sets: Vec<SetMatch> = sets.collect();
        sets.dedup();
        let audit = compiled.spec.mode == Mode::Audit;
        explanation.zones.push(ZoneExplanation {
            zone: compiled.spec.name.clone(),
            mode: mode_word(compiled.spec.mode).to_owned(),
            verdict: verdict(told.verdict, audit),
            why: sentence(told.verdict).to_owned(),
            planes: Vec::new(),
            grants,
            sets,
            would_allow: told.remedies,
        });
        let masks = rules_masks(policy);
        pending.push(PendingZone {
            id: zone,
            addresses,
            wanted: port.map(|(protocol, port)| policy.numbers().classes.mask_of(protocol, port)),
            audit,
            internal: told.verdict == explain::Verdict::NotEgress,
            texts: masks,
        });
    }
    Ok(Pending {
        explanation,
        zones: pending,
    })
}

/// The text of every single class, for masks that the planes read back.
fn rules_masks(policy: &Policy) -> BTreeMap<u64, String> {
    policy
        .numbers()
        .classes
        .iter()
        .map(|(class, set)| (ClassMask::of(class).0, set.to_string()))
        .collect()
}

fn verdict(verdict: explain::Verdict, audit: bool) -> Verdict {
    match verdict {
        explain::Verdict::Open | explain::Verdict::NotEgress => Verdict::Allowed,
        explain::Verdict::NotAsked => Verdict::Askable,
        explain::Verdict::Redirected => Verdict::Refused,
        explain::Verdict::WrongPort
        | explain::Verdict::Unlisted
        | explain::Verdict::Denied
        | explain::Verdict::NotLearned => {
            if audit {
                Verdict::Audited
            } else {
                Verdict::Refused
            }
        }
    }
}

fn sentence(verdict: explain::Verdict) -> &'static str {
    match verdict {
        explain::Verdict::Open => "an allowed set lists it and it is in force",
        explain::Verdict::NotEgress => {
            "it is an address of the gateway or an internal one, which egressd does not judge"
        }
        explain::Verdict::Redirected => {
            "the zone's port 53 is redirected to egressd, which answers instead of this address"
        }
        explain::Verdict::NotAsked => {
            "an allowed set lists the name, but no client has asked for it yet"
        }
        explain::Verdict::WrongPort => "it is granted, but not on this port",
        explain::Verdict::Unlisted => "no set that the zone may reach lists the name",
        explain::Verdict::Denied => "a denied set lists the name, which vetoes every other set",
        explain::Verdict::NotLearned => {
            "no asked name gave this address to the zone, and no allowed network holds it"
        }
    }
}

/// Completes an explanation with what each plane really holds.
pub(super) fn finish(pending: Pending, planes: &mut [Box<dyn Plane>]) -> Explanation {
    let Pending {
        mut explanation,
        zones,
    } = pending;
    for (shown, zone) in explanation.zones.iter_mut().zip(zones) {
        let text = |mask: ClassMask| -> String {
            let parts = mask.classes().map(|class| {
                zone.texts
                    .get(&ClassMask::of(class).0)
                    .map_or("a retired class", String::as_str)
            });
            parts.collect::<Vec<_>>().join(", ")
        };
        for plane in planes.iter_mut() {
            let mut open = Vec::new();
            let mut error = None;
            for &address in &zone.addresses {
                match plane.holds(zone.id, address) {
                    Ok(mask) => {
                        open.push(mask);
                        let held = Holding {
                            plane: plane.name().to_owned(),
                            ports: text(mask),
                        };
                        let of_address = |grant: &&mut Grant| grant.address == address.to_string();
                        if let Some(grant) = shown.grants.iter_mut().find(of_address) {
                            grant.planes.push(held);
                        }
                    }
                    Err(why) => error = Some(format!("{why:#}")),
                }
            }
            let all = open
                .iter()
                .copied()
                .reduce(|a, b| ClassMask(a.0 & b.0))
                .unwrap_or_default();
            let allowed = match (&error, zone.wanted) {
                (Some(_), _) => None,
                (None, _) if zone.internal => Some(true),
                (None, Some(wanted)) => {
                    Some(!open.is_empty() && open.iter().all(|mask| mask.meets(wanted)))
                }
                (None, None) => None,
            };
            let holds = match error {
                Some(error) => format!("could not be read: {error}"),
                None if all.is_empty() => "nothing".to_owned(),
                None => text(all),
            };
            shown.planes.push(PlaneVerdict {
                plane: plane.name().to_owned(),
                allowed,
                holds,
            });
        }
        let said: Vec<bool> = shown
            .planes
            .iter()
            .filter_map(|plane| plane.allowed)
            .collect();
        let agree = said.windows(2).all(|pair| pair[0] == pair[1])
            && (shown.verdict != Verdict::Allowed || said.iter().all(|allowed| *allowed));
        if !agree && !zone.audit {
            shown.verdict = Verdict::Split;
            shown.why =
                "the planes do not hold the same; until they are reconciled the packet is refused"
                    .to_owned();
        }
    }
    explanation
}
