//! Who may hold a TCP connection, and which one ends when there are too many (RFC 7766 §6.2.3). Pure:
//! time is an argument.

use super::shares::{self, Shares};
use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

/// How many times a client's share the hosts of one IPv6 /64 may have together.
const NETWORK: usize = 64;

/// One open connection.
pub(super) type Id = u64;

/// When a connection last got on, in milliseconds; those with open questions come after all others.
type Quiet = (bool, u64, Id);

/// The outcome of [`Crowd::enter`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Entry {
    /// There is room.
    Room(Id),
    /// There is room once this other connection is closed; it is out of the count already.
    InPlaceOf(Id, Id),
    /// The client has its share, and all of it is in use.
    Full,
}

/// All connections.
pub(super) struct Crowd {
    most: usize,
    most_of_client: usize,
    shares: Shares,
    connections: BTreeMap<Id, Connection>,
    /// Of each client (over IPv6: /64) its connections, the longest quiet first.
    quiet: BTreeMap<IpAddr, BTreeSet<Quiet>>,
    /// The clients in the order in which they lose a connection, from the end.
    order: BTreeSet<Standing>,
    next: Id,
}

struct Connection {
    peer: IpAddr,
    open: usize,
    since: u64,
}

/// How many connections a client has, and which of them is longest quiet.
type Standing = (usize, std::cmp::Reverse<Quiet>, IpAddr);

impl Crowd {
    /// A crowd of at most `most` connections, `most_of_client` from one address.
    pub(super) fn new(most: usize, most_of_client: usize) -> Self {
        Self {
            most: most.max(1),
            most_of_client: most_of_client.max(1),
            shares: Shares::default(),
            connections: BTreeMap::new(),
            quiet: BTreeMap::new(),
            order: BTreeSet::new(),
            next: 0,
        }
    }

    /// Whether more than half of the connections are taken.
    pub(super) fn is_dense(&self) -> bool {
        self.connections.len() * 2 > self.most
    }

    /// Takes in a connection of `peer`. One above its client's share takes the place of the client's
    /// own that is quiet longest; one above the total takes that of the client with the most.
    pub(super) fn enter(&mut self, peer: IpAddr, now: u64) -> Entry {
        let network = self.most_of_client.saturating_mul(NETWORK);
        let share = self.most_of_client;
        let mut closed = None;
        if !self.shares.take(peer, share, network) {
            // Only one that has no open question: a client must not disturb itself.
            let Some(victim) = self.own_quiet(peer) else {
                return Entry::Full;
            };
            self.leave(victim);
            closed = Some(victim);
            if !self.shares.take(peer, share, network) {
                return Entry::Full;
            }
        } else if self.connections.len() >= self.most {
            let last = self.order.last().map(|standing| standing.1.0.2);
            if let Some(victim) = last {
                self.leave(victim);
                closed = Some(victim);
            }
        }
        let id = self.next;
        self.next += 1;
        let (open, since) = (0, now);
        self.connections
            .insert(id, Connection { peer, open, since });
        self.arrange(shares::owner(peer), |quiet| {
            quiet.insert((false, now, id));
        });
        closed.map_or(Entry::Room(id), |victim| Entry::InPlaceOf(id, victim))
    }

    /// The connection of `peer`, or of its full network, that is quiet longest.
    fn own_quiet(&self, peer: IpAddr) -> Option<Id> {
        let all = self.shares.of(peer) < self.most_of_client;
        let quiet = self.quiet.get(&shares::owner(peer))?;
        let idle = quiet.iter().take_while(|(busy, ..)| !busy);
        let own = |id: &Id| {
            let connection = self.connections.get(id);
            all || connection.is_some_and(|connection| connection.peer == peer)
        };
        idle.map(|(.., id)| *id).find(own)
    }

    /// A connection got on: it now waits for the answers to `open` questions.
    pub(super) fn progress(&mut self, id: Id, open: usize, now: u64) {
        let Some(connection) = self.connections.get_mut(&id) else {
            return;
        };
        let was = (connection.open > 0, connection.since, id);
        (connection.open, connection.since) = (open, now);
        let owner = shares::owner(connection.peer);
        self.arrange(owner, |quiet| {
            quiet.remove(&was);
            quiet.insert((open > 0, now, id));
        });
    }

    /// Takes a connection out; one that is not (any more) there is ignored.
    pub(super) fn leave(&mut self, id: Id) {
        let Some(connection) = self.connections.remove(&id) else {
            return;
        };
        self.shares.give_back(connection.peer);
        self.arrange(shares::owner(connection.peer), |quiet| {
            quiet.remove(&(connection.open > 0, connection.since, id));
        });
    }

    /// Changes a client's connections, and with them its place in the order.
    fn arrange(&mut self, owner: IpAddr, change: impl FnOnce(&mut BTreeSet<Quiet>)) {
        let quiet = self.quiet.entry(owner).or_default();
        if let Some(standing) = standing(owner, quiet) {
            self.order.remove(&standing);
        }
        change(quiet);
        match standing(owner, quiet) {
            Some(standing) => drop(self.order.insert(standing)),
            None => drop(self.quiet.remove(&owner)),
        }
    }
}

fn standing(owner: IpAddr, quiet: &BTreeSet<Quiet>) -> Option<Standing> {
    let first = quiet.first()?;
    Some((quiet.len(), std::cmp::Reverse(*first), owner))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    /// Connections of these clients enter a millisecond apart; those marked `+` have a question open.
    fn crowd(most: usize, most_of_client: usize, peers: &[&str]) -> Crowd {
        let mut crowd = Crowd::new(most, most_of_client);
        for (now, peer) in (0..).zip(peers) {
            let entry = crowd.enter(ip(peer.trim_end_matches('+')), now);
            let Entry::Room(id) = entry else {
                panic!("{peer}: {entry:?}");
            };
            if peer.ends_with('+') {
                crowd.progress(id, 1, now);
            }
        }
        crowd
    }

    #[test]
    fn a_newcomer_takes_the_place_of_who_has_most() {
        fn check(peers: &[&str], newcomer: &str, expected: Option<Id>) {
            let mut crowd = crowd(6, 4, peers);
            let new = u64::try_from(peers.len()).unwrap();
            let expected = match expected {
                Some(victim) => Entry::InPlaceOf(new, victim),
                None => Entry::Room(new),
            };
            assert_eq!(crowd.enter(ip(newcomer), 100), expected, "{peers:?}");
            assert!(crowd.connections.len() <= 6);
        }
        let [a, b, c] = ["192.0.2.1", "192.0.2.2", "192.0.2.3"];
        let (busy_a, busy_b) = ("192.0.2.1+", "192.0.2.2+");
        check(&[a, a, a, b, b], c, None);
        check(&[b, a, a, a, b, b], c, Some(0));
        check(&[b, a, a, a, a, b], c, Some(1));
        check(&[b, busy_a, a, a, a, b], c, Some(2));
        check(&[b, busy_a, busy_a, busy_a, busy_a, b], c, Some(1));
        check(&[busy_b, busy_b, busy_b, a, a, a], c, Some(3));
        // As many each: the one that is quiet longest.
        let six = ["10.0.0.6+", "10.0.0.5", "10.0.0.4", "10.0.0.3", "10.0.0.2"];
        check(&[&six[..], &["10.0.0.1"]].concat(), c, Some(1));
        // The client at fault pays for itself.
        check(&[a, a, a, b, b, c], a, Some(0));
        // A /64 is one client here.
        let lan = ["2001:db8::1", "2001:db8::2", "2001:db8::3"];
        check(&[&[a, a], &lan[..], &[b]].concat(), c, Some(2));
    }

    #[test]
    fn a_client_has_its_share() {
        fn check(peers: &[&str], newcomer: &str, expected: Entry) {
            let mut crowd = crowd(100, 2, peers);
            assert_eq!(crowd.enter(ip(newcomer), 100), expected, "{peers:?}");
        }
        let (a, b, busy) = ("192.0.2.1", "192.0.2.2", "192.0.2.1+");
        check(&[a, b], a, Entry::Room(2));
        check(&[b, a, a], a, Entry::InPlaceOf(3, 1));
        check(&[b, busy, a], a, Entry::InPlaceOf(3, 2));
        check(&[b, busy, busy], a, Entry::Full);
        let (v6, neighbour) = ("2001:db8::1", "2001:db8::2");
        check(&[v6, v6], neighbour, Entry::Room(2));
        check(&[neighbour, v6, v6], v6, Entry::InPlaceOf(3, 1));
    }

    #[test]
    fn a_network_has_its_share() {
        let hosts: Vec<String> = (0..NETWORK).map(|n| format!("2001:db8::{n:x}")).collect();
        let peers: Vec<&str> = hosts.iter().map(String::as_str).collect();
        let mut crowd = crowd(1000, 1, &peers);
        let full = u64::try_from(NETWORK).unwrap();
        let entry = crowd.enter(ip("2001:db8::ffff"), 100);
        assert_eq!(entry, Entry::InPlaceOf(full, 0));
        let entry = crowd.enter(ip("2001:db8:0:1::1"), 100);
        assert_eq!(entry, Entry::Room(full + 1));
    }

    #[test]
    fn nothing_is_left_when_all_have_left() {
        let mut crowd = crowd(100, 16, &["192.0.2.1", "192.0.2.1+", "2001:db8::1"]);
        assert!(!crowd.is_dense());
        for id in 0..3 {
            crowd.progress(id, 3, 50);
            crowd.progress(id, 0, 60);
            crowd.leave(id);
            crowd.leave(id);
            crowd.progress(id, 1, 70);
        }
        assert!(crowd.connections.is_empty() && crowd.quiet.is_empty());
        assert!(crowd.order.is_empty());
        assert_eq!(crowd.shares.of(ip("192.0.2.1")), 0);
    }
}
