//! How much of something scarce each client has: over IPv6 its address and its /64 alike, of which
//! one host can use every address and in which many hosts may live. Pure.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv6Addr};

/// The network that `address` shares with hosts that may all be one.
pub(super) fn network(address: IpAddr) -> Option<IpAddr> {
    let IpAddr::V6(address) = address else {
        return None;
    };
    Some(Ipv6Addr::from_bits(address.to_bits() & (u128::MAX << 64)).into())
}

/// Whom limits per client count `address` under where one number must do.
pub(super) fn owner(address: IpAddr) -> IpAddr {
    network(address).unwrap_or(address)
}

/// What each client has now.
#[derive(Default)]
pub(super) struct Shares {
    addresses: BTreeMap<IpAddr, usize>,
    networks: BTreeMap<IpAddr, usize>,
}

impl Shares {
    /// Gives `address` one more, unless it has `most` or its network has `most_of_network`.
    pub(super) fn take(&mut self, address: IpAddr, most: usize, most_of_network: usize) -> bool {
        let count = |counts: &BTreeMap<IpAddr, usize>, key| counts.get(&key).copied().unwrap_or(0);
        let network = network(address);
        if count(&self.addresses, address) >= most
            || network.is_some_and(|network| count(&self.networks, network) >= most_of_network)
        {
            return false;
        }
        *self.addresses.entry(address).or_default() += 1;
        if let Some(network) = network {
            *self.networks.entry(network).or_default() += 1;
        }
        true
    }

    /// Takes one back that [`Shares::take`] gave.
    pub(super) fn give_back(&mut self, address: IpAddr) {
        less(&mut self.addresses, address);
        if let Some(network) = network(address) {
            less(&mut self.networks, network);
        }
    }

    /// How many `address` has.
    pub(super) fn of(&self, address: IpAddr) -> usize {
        self.addresses.get(&address).copied().unwrap_or_default()
    }
}

fn less(counts: &mut BTreeMap<IpAddr, usize>, key: IpAddr) {
    if let Some(count) = counts.get_mut(&key) {
        *count -= 1;
        if *count == 0 {
            counts.remove(&key);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_and_networks_have_their_share() {
        fn check(peers: &[&str], granted: usize) {
            let mut shares = Shares::default();
            let peers: Vec<IpAddr> = peers.iter().map(|peer| peer.parse().unwrap()).collect();
            let got = peers.iter().filter(|peer| shares.take(**peer, 2, 4));
            assert_eq!(got.count(), granted, "{peers:?}");
        }
        check(&["192.0.2.1", "192.0.2.1", "192.0.2.1"], 2);
        check(&["192.0.2.1", "192.0.2.1", "192.0.2.2", "192.0.2.2"], 4);
        check(&["2001:db8::1", "2001:db8::1", "2001:db8::1"], 2);
        let lan = ["2001:db8::1", "2001:db8::2", "2001:db8::3", "2001:db8::4"];
        check(&[lan, lan].concat(), 4);
        check(&[&lan[..], &["2001:db8:0:1::1"]].concat(), 5);
        check(&["::1", "::1", "0.0.0.1"], 3);
    }

    #[test]
    fn what_is_given_back_is_free_and_forgotten() {
        let mut shares = Shares::default();
        for peer in ["192.0.2.1", "2001:db8::1"] {
            let peer = peer.parse().unwrap();
            assert!(shares.take(peer, 1, 1) && !shares.take(peer, 1, 1));
            shares.give_back(peer);
            assert!(shares.take(peer, 1, 1));
            shares.give_back(peer);
        }
        assert!(shares.addresses.is_empty() && shares.networks.is_empty());
    }
}
