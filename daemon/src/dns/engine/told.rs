//! What clients are told that grants nothing: the loop names addresses by it, and decides nothing.

use super::Engine;
use crate::dns::course::audits;
use crate::dns::waiter::{Origin, Purpose, Waiter};
use crate::dns::{MOST_UNTAUGHT, Untaught};
use crate::policy::answer::Reading;
use crate::policy::rules::Rules;
use std::net::IpAddr;

impl Engine {
    /// Tells the loop what the waiting clients get, where not all of it is granted.
    pub(super) fn tell_untaught(&self, rules: &Rules, group: &[Waiter], message: &[u8]) {
        let untaught = |waiter: &Waiter| match waiter.purpose {
            Purpose::Pass | Purpose::Audit => true,
            // What must not be taught is told all the same.
            Purpose::Teach(zone) => audits(rules, zone),
        };
        let Some(question) = group.first().filter(|first| untaught(first)) else {
            return;
        };
        let addresses = untaught_addresses(message);
        if addresses.is_empty() {
            return;
        }
        for client in group.iter().filter_map(|waiter| waiter.origin.client()) {
            if let Some(zone) = client.zone(rules) {
                (self.parts.untaught)(Untaught {
                    zone,
                    client: client.address(),
                    name: question.question.name.clone(),
                    addresses: addresses.clone(),
                });
            }
        }
    }
}

/// Gives the daemon its addresses, where it is among those who wait.
pub(super) fn tell_daemon(group: &mut [Waiter], addresses: impl Fn() -> Vec<IpAddr>) {
    for waiter in group {
        if matches!(waiter.origin, Origin::Daemon(_))
            && let Origin::Daemon(reply) = std::mem::replace(&mut waiter.origin, Origin::Refresh)
        {
            // Who no longer waits has given up.
            let _ = reply.send(addresses());
        }
    }
}

/// The addresses that a message gives for its question; none of one that cannot be read.
pub(in crate::dns) fn untaught_addresses(message: &[u8]) -> Vec<IpAddr> {
    let Ok(reading) = Reading::of(message) else {
        return Vec::new();
    };
    let found = reading.found().iter().map(|found| found.address);
    found.take(MOST_UNTAUGHT).collect()
}
