//! Flows that the gateway itself began: which of them its own zone judges.

use crate::links;
use crate::plane::conntrack::Flow;
use crate::policy::ZoneId;
use crate::policy::image::Resolver;
use crate::policy::port::UDP;
use crate::policy::rules::Rules;
use anyhow::Context as _;
use egressd_common::decide::is_lease;
use std::net::IpAddr;

/// Whether a flow of the gateway is judged at all: not what egressd itself asks, nor a lease. `guarded` are the
/// upstreams that nobody else could reach since flows were last judged: of flows to others nobody knows who
/// began them, and egressd's own survive a cut.
pub(super) fn judged(rules: &Rules, guarded: &[Resolver], flow: &Flow) -> bool {
    let asked = Resolver {
        protocol: flow.original.protocol,
        port: flow.original.destination_port,
        address: flow.original.destination,
    };
    let ports = (flow.original.source_port, flow.original.destination_port);
    let lease = asked.protocol == UDP && is_lease(ports);
    let own = rules.intent().resolvers.contains(&asked) && guarded.contains(&asked);
    rules.local().is_some() && !lease && !own
}

/// The gateway's own zone, unless what it sends to `destination` stays on it or leaves into a zone.
///
/// # Errors
/// When the kernel cannot be asked.
pub(super) async fn zone(rules: &Rules, destination: IpAddr) -> anyhow::Result<Option<ZoneId>> {
    const LOOPBACK: u32 = 1;
    let asked = links::route_in(destination).await;
    let interface = asked.with_context(|| format!("route to {destination}"))?;
    // Where there is no way now, the next may lead out of the gateway.
    let stays = |index: u32| index == LOOPBACK || rules.is_zoned(index);
    Ok(rules.local().filter(|_| !interface.is_some_and(stays)))
}
