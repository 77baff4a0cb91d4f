//! Live connections, on a thread of their own: a conntrack table may be large, and reading it must
//! hold up neither the loop nor a commit.

use super::engine::{Event, ZonedFlow};
use super::sent;
use crate::links;
use crate::plane::conntrack::{Conntrack, Flow};
use crate::policy::image::Resolver;
use crate::policy::impact::LiveFlow;
use crate::policy::port::{SCTP, TCP, UDP};
use crate::policy::redirect::{self, Fate};
use crate::policy::rules::Rules;
use crate::policy::{Moment, ZoneId};
use anyhow::Context as _;
use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender, channel};

/// Flows per event, so that judging a full table does not hold up the loop.
const CHUNK: usize = 1024;

/// Work for the thread.
pub(super) enum Job {
    /// Report every live flow of a zone, or of no zone where those are dropped, to be judged.
    Sweep(Arc<Rules>),
    /// Cut what an earlier sweep reported.
    Cut(Vec<u64>),
    /// Report which of `due` were used within `idle` seconds: by a live flow, or by a packet that a
    /// plane saw (boot clock, ms).
    CheckUse {
        /// The policy of the day.
        rules: Arc<Rules>,
        /// The grants in question.
        due: Vec<(ZoneId, IpAddr)>,
        /// When a plane last saw a packet to them.
        seen: BTreeMap<(ZoneId, IpAddr), u64>,
        /// Seconds.
        idle: u64,
        /// The present.
        now: Moment,
    },
}

/// Starts the thread; it ends when the sender is dropped.
///
/// # Errors
/// When the thread or its runtime cannot be started.
pub(super) fn spawn(report: impl Fn(Event) + Send + 'static) -> anyhow::Result<Sender<Job>> {
    let (jobs, inbox) = channel();
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    std::thread::Builder::new()
        .name("flows".to_owned())
        .spawn(move || work(&inbox, &runtime, &report))?;
    Ok(jobs)
}

fn work(inbox: &Receiver<Job>, runtime: &tokio::runtime::Runtime, report: &impl Fn(Event)) {
    let mut reported: BTreeMap<u64, Flow> = BTreeMap::new();
    let (mut key, mut previous) = (0, 0);
    let mut guarded = Vec::new();
    while let Ok(job) = inbox.recv() {
        let done = match job {
            Job::Sweep(rules) => {
                // Keys of the sweep before may still be on their way back.
                reported.retain(|old, _| *old > previous);
                previous = key;
                let swept = sweep(&rules, &guarded, runtime).map(|flows| {
                    guarded.clear();
                    if rules.local().is_some() {
                        guarded.clone_from(&rules.intent().resolvers);
                    }
                    for chunk in flows.chunks(CHUNK) {
                        let mut zoned = Vec::with_capacity(chunk.len());
                        for Swept { zone, evades, flow } in chunk {
                            key += 1;
                            reported.insert(key, *flow);
                            zoned.push(ZonedFlow {
                                zone: *zone,
                                destination: flow.original.destination,
                                protocol: flow.original.protocol,
                                port: port_of(flow),
                                evades: *evades,
                                key,
                            });
                        }
                        report(Event::Flows(zoned));
                    }
                });
                report(Event::Swept(match &swept {
                    Ok(()) => Ok(()),
                    Err(error) => Err(format!("{error:#}")),
                }));
                swept
            }
            Job::Cut(keys) => {
                let done = cut(&keys, &mut reported);
                report(Event::Cut(match &done {
                    Ok(()) => Ok(()),
                    Err(error) => Err(format!("{error:#}")),
                }));
                done
            }
            Job::CheckUse {
                rules,
                due,
                seen,
                idle,
                now,
            } => {
                let used = in_use(&rules, runtime, &due, &seen, idle, now);
                let (used, done) = match used {
                    Ok(used) => (used, Ok(())),
                    // What cannot be read is taken to be in use: a cut connection is an outage, and
                    // nothing is opened that was not open.
                    Err(error) => (due, Err(error)),
                };
                let end = now.after_seconds(idle);
                report(Event::InUse(
                    used.into_iter().map(|(z, a)| (z, a, end)).collect(),
                ));
                done
            }
        };
        if let Err(error) = done {
            log::warn!(target: "flow", "conntrack: {error:#}");
        }
    }
}

/// A flow to be judged.
struct Swept {
    zone: Option<ZoneId>,
    /// Whether it evades its zone's redirect.
    evades: bool,
    flow: Flow,
}

/// Every live flow that would have to be judged by the `candidate`, as it places them, were it put in force after
/// `now`. Takes as long as the conntrack table is large.
///
/// # Errors
/// When the kernel cannot be asked.
pub(super) fn live(now: &Rules, candidate: &Rules) -> anyhow::Result<Vec<LiveFlow>> {
    let guarded = match now.local() {
        Some(_) => now.intent().resolvers.clone(),
        None => Vec::new(),
    };
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    let swept = sweep(candidate, &guarded, &runtime)?.into_iter();
    let live = swept.map(|Swept { zone, evades, flow }| LiveFlow {
        zone,
        source: flow.original.source,
        destination: flow.original.destination,
        protocol: flow.original.protocol,
        port: port_of(&flow),
        evades,
    });
    Ok(live.collect())
}

/// Every live flow that must be judged, with its zone.
fn sweep(
    rules: &Rules,
    guarded: &[Resolver],
    runtime: &tokio::runtime::Runtime,
) -> anyhow::Result<Vec<Swept>> {
    let mut flows = Vec::new();
    Conntrack::open()?.flows(|flow| {
        if judged(rules, guarded, &flow) {
            flows.push(flow);
        }
    })?;
    let end = |flow: &Flow| End::of(rules, flow.original.source, flow.original.destination);
    let ends: BTreeSet<End> = flows.iter().map(end).collect();
    let places: BTreeMap<End, Place> = runtime.block_on(async {
        let mut places = BTreeMap::new();
        for end in ends {
            places.insert(end, end.place(rules).await?);
        }
        anyhow::Ok(places)
    })?;
    let zoned = flows
        .into_iter()
        .filter_map(|flow| match places.get(&end(&flow))? {
            Place::Zone(zone) => {
                let evades = match fate(rules, *zone, &flow) {
                    Fate::Untouched => false,
                    Fate::Evades => true,
                    Fate::Answered => return None,
                };
                Some(Swept {
                    zone: Some(*zone),
                    evades,
                    flow,
                })
            }
            Place::Nowhere => Some(Swept {
                zone: None,
                evades: false,
                flow,
            }),
            Place::Exempt => None,
        });
    Ok(zoned.collect())
}

/// Whether a flow is egress at all: not to the gateway itself nor internal, and not from it unless that is
/// judged.
fn judged(rules: &Rules, guarded: &[Resolver], flow: &Flow) -> bool {
    let internal = rules
        .intent()
        .internal
        .iter()
        .any(|net| net.contains(&flow.original.destination));
    let group = flow.original.destination.is_multicast();
    !(internal
        || group
        || rules.links().is_own(flow.original.source) && !sent::judged(rules, guarded, flow)
        || rules.links().is_own(flow.original.destination))
}

/// What the zone's redirect has to do with a flow.
fn fate(rules: &Rules, zone: ZoneId, flow: &Flow) -> Fate {
    let listeners = rules.zone(zone).map_or(&[][..], |zone| &zone.spec.redirect);
    let Flow {
        original, reply, ..
    } = flow;
    redirect::fate(
        listeners,
        rules.links(),
        original.protocol,
        SocketAddr::new(original.destination, original.destination_port),
        SocketAddr::new(reply.source, reply.source_port),
    )
}

/// The port that grants are about; ICMP has none, whatever conntrack keeps in its place.
fn port_of(flow: &Flow) -> u16 {
    match flow.original.protocol {
        TCP | UDP | SCTP => flow.original.destination_port,
        _ => 0,
    }
}

/// Whether packets of a flow are still to be expected. A closed TCP connection lingers for at most
/// two minutes (`nf_conntrack_tcp_timeout_time_wait`), an open one for days.
fn is_open(flow: &Flow) -> bool {
    flow.original.protocol != TCP || flow.timeout > 120
}

/// What of a flow tells its place.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum End {
    /// Where it comes from.
    Source(IpAddr),
    /// Where the gateway itself sends it.
    Destination(IpAddr),
}

impl End {
    fn of(rules: &Rules, source: IpAddr, destination: IpAddr) -> Self {
        if rules.local().is_some() && rules.links().is_own(source) {
            Self::Destination(destination)
        } else {
            Self::Source(source)
        }
    }

    async fn place(self, rules: &Rules) -> anyhow::Result<Place> {
        match self {
            Self::Source(source) => place(rules, source).await,
            Self::Destination(destination) => {
                let zone = sent::zone(rules, destination).await?;
                Ok(zone.map_or(Place::Exempt, Place::Zone))
            }
        }
    }
}

#[derive(Clone, Copy)]
enum Place {
    Zone(ZoneId),
    /// An interface in no zone, and those are dropped.
    Nowhere,
    /// Not egress: it entered upstream, or unzoned packets are others' business.
    Exempt,
}

/// Where a flow's first packet entered. Conntrack does not say: the way back to its source does. Where the
/// kernel cannot be asked, nothing is known: the flow must not pass for one that is nobody's business.
async fn place(rules: &Rules, source: IpAddr) -> anyhow::Result<Place> {
    let asked = links::route_in(source).await;
    let Some(interface) = asked.with_context(|| format!("route to {source}"))? else {
        // No way back: the flow is dead whatever we do.
        return Ok(Place::Exempt);
    };
    if let Some(zone) = rules.zone_of(interface, source) {
        return Ok(Place::Zone(zone));
    }
    let upstream = rules
        .links()
        .matching(&rules.intent().upstream)
        .any(|(index, _)| index == interface);
    Ok(match rules.intent().unzoned {
        crate::policy::image::Unzoned::Drop if !upstream => Place::Nowhere,
        crate::policy::image::Unzoned::Drop | crate::policy::image::Unzoned::Accept => {
            Place::Exempt
        }
    })
}

fn cut(keys: &[u64], reported: &mut BTreeMap<u64, Flow>) -> anyhow::Result<()> {
    let flows = keys.iter().filter_map(|key| reported.remove(key));
    Conntrack::open()?.cut_all(&flows.collect::<Vec<_>>())
}

fn in_use(
    rules: &Rules,
    runtime: &tokio::runtime::Runtime,
    due: &[(ZoneId, IpAddr)],
    seen: &BTreeMap<(ZoneId, IpAddr), u64>,
    idle: u64,
    now: Moment,
) -> anyhow::Result<Vec<(ZoneId, IpAddr)>> {
    let asked: BTreeSet<IpAddr> = due.iter().map(|(_, address)| *address).collect();
    let mut live: BTreeSet<(IpAddr, IpAddr)> = BTreeSet::new();
    Conntrack::open()?.flows(|flow| {
        if asked.contains(&flow.original.destination) && is_open(&flow) {
            live.insert((flow.original.source, flow.original.destination));
        }
    })?;
    let used: BTreeSet<(ZoneId, IpAddr)> = runtime.block_on(async {
        let mut used = BTreeSet::new();
        for (source, destination) in live {
            let end = End::of(rules, source, destination);
            if let Place::Zone(zone) = end.place(rules).await? {
                used.insert((zone, destination));
            }
        }
        anyhow::Ok(used)
    })?;
    let recently = |at: &u64| Moment(*at).after_seconds(idle) > now;
    let keep =
        |grant: &&(ZoneId, IpAddr)| used.contains(*grant) || seen.get(*grant).is_some_and(recently);
    Ok(due.iter().filter(keep).copied().collect())
}
