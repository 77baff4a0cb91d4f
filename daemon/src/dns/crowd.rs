//! Who may hold a TCP connection, and which one ends when there are too many (RFC 7766 §6.2.3). Pure:
//! time is an argument.

use super::shares::{self, Shares};
use super::waste::Waste;
use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

/// How many times a client's share the hosts of one IPv6 /64 may have together.
const NETWORK: usize = 64;

/// How many milliseconds a new connection has to ask before it counts as idle.
const TO_ASK: u64 = 1000;

/// How many clients' wasted connections are remembered.
const REMEMBERED: usize = 16_384;

/// One open connection.
pub(super) type Id = u64;

/// What a connection is good for, in the order in which they end.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Stage {
    /// All its questions are answered, or it had its time to ask.
    Idle,
    /// Its first question may be on its way.
    Fresh,
    /// Questions are open.
    Busy,
}

/// When a connection last got on, in milliseconds.
type Quiet = (Stage, u64, Id);

/// The outcome of [`Crowd::enter`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Entry {
    /// There is room.
    Room(Id),
    /// There is room once this other connection is closed; it is out of the count already.
    InPlaceOf(Id, Id),
    /// The client has its share, and all of it is in use; or there are too many connections, and no
    /// other client weighs as much.
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
    /// The place in `order` of each of them.
    standings: BTreeMap<IpAddr, Standing>,
    /// The clients in the order in which they lose a connection, from the end.
    order: BTreeSet<Standing>,
    /// The connections that may still be about to ask, the oldest first.
    fresh: BTreeSet<(u64, Id)>,
    waste: Waste,
    next: Id,
    /// The latest time that was told.
    now: u64,
}

struct Connection {
    peer: IpAddr,
    stage: Stage,
    since: u64,
    asked: bool,
}

/// How much a client weighs, and which of its connections is longest quiet. It weighs the connections it
/// has and those that it wasted: who opens one after the other and never asks is then heavier than who
/// opens one to ask, from however many addresses it does so.
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
            standings: BTreeMap::new(),
            order: BTreeSet::new(),
            fresh: BTreeSet::new(),
            waste: Waste::new(REMEMBERED),
            next: 0,
            now: 0,
        }
    }

    /// Whether more than half of the connections are taken.
    pub(super) fn is_dense(&self) -> bool {
        self.connections.len() * 2 > self.most
    }

    /// Takes in a connection of `peer`. One above its client's share takes the place of the client's
    /// own that is quiet longest; one above the total takes that of the heaviest client, which may be
    /// its own.
    pub(super) fn enter(&mut self, peer: IpAddr, now: u64) -> Entry {
        self.pass(now);
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
            let Some(victim) = self.heaviest(shares::owner(peer)) else {
                self.shares.give_back(peer);
                self.waste.keep(shares::owner(peer), now);
                return Entry::Full;
            };
            self.leave(victim);
            closed = Some(victim);
        }
        let id = self.next;
        self.next += 1;
        let connection = Connection {
            peer,
            stage: Stage::Fresh,
            since: now,
            asked: false,
        };
        self.connections.insert(id, connection);
        self.fresh.insert((now, id));
        self.arrange(shares::owner(peer), |quiet| {
            quiet.insert((Stage::Fresh, now, id));
        });
        closed.map_or(Entry::Room(id), |victim| Entry::InPlaceOf(id, victim))
    }

    /// The connection that ends for one more of `owner`'s; `None` where this one should be refused.
    fn heaviest(&self, owner: IpAddr) -> Option<Id> {
        let (weight, std::cmp::Reverse((.., id)), _) = self.order.last()?;
        let quiet = self.quiet.get(&owner);
        if *weight > self.waste.of(owner) + quiet.map_or(0, BTreeSet::len) {
            return Some(*id);
        }
        let (stage, _, own) = quiet?.first()?;
        (*stage < Stage::Busy).then_some(*own)
    }

    /// Time went on: who had its time to ask is idle, and old waste is forgotten.
    fn pass(&mut self, now: u64) {
        self.now = self.now.max(now);
        while let Some(&(since, id)) = self.fresh.first()
            && since + TO_ASK <= now
        {
            self.restage(id, Stage::Idle, since);
        }
        while let Some(client) = self.waste.forget(now) {
            self.arrange(client, |_| ());
        }
    }

    /// The connection of `peer`, or of its full network, that is quiet longest.
    fn own_quiet(&self, peer: IpAddr) -> Option<Id> {
        let all = self.shares.of(peer) < self.most_of_client;
        let quiet = self.quiet.get(&shares::owner(peer))?;
        let idle = quiet.iter().take_while(|(stage, ..)| *stage < Stage::Busy);
        let own = |id: &Id| {
            let connection = self.connections.get(id);
            all || connection.is_some_and(|connection| connection.peer == peer)
        };
        idle.map(|(.., id)| *id).find(own)
    }

    /// A connection got on: it now waits for the answers to `open` questions.
    pub(super) fn progress(&mut self, id: Id, open: usize, now: u64) {
        self.now = self.now.max(now);
        if open == 0 {
            return self.restage(id, Stage::Idle, now);
        }
        if let Some(connection) = self.connections.get_mut(&id)
            && !connection.asked
        {
            connection.asked = true;
            self.waste.redeem(shares::owner(connection.peer));
        }
        self.restage(id, Stage::Busy, now);
    }

    fn restage(&mut self, id: Id, stage: Stage, since: u64) {
        let Some(connection) = self.connections.get_mut(&id) else {
            return;
        };
        let was = (connection.stage, connection.since, id);
        (connection.stage, connection.since) = (stage, since);
        let owner = shares::owner(connection.peer);
        self.fresh.remove(&(was.1, id));
        self.arrange(owner, |quiet| {
            quiet.remove(&was);
            quiet.insert((stage, since, id));
        });
    }

    /// Takes a connection out; one that is not (any more) there is ignored.
    pub(super) fn leave(&mut self, id: Id) {
        let Some(connection) = self.connections.remove(&id) else {
            return;
        };
        let owner = shares::owner(connection.peer);
        self.shares.give_back(connection.peer);
        self.fresh.remove(&(connection.since, id));
        if !connection.asked {
            self.waste.add(owner, self.now);
        }
        self.arrange(owner, |quiet| {
            quiet.remove(&(connection.stage, connection.since, id));
        });
        self.pass(self.now);
    }

    /// Changes a client's connections, and with them or its waste its place in the order.
    fn arrange(&mut self, owner: IpAddr, change: impl FnOnce(&mut BTreeSet<Quiet>)) {
        if let Some(standing) = self.standings.remove(&owner) {
            self.order.remove(&standing);
        }
        let quiet = self.quiet.entry(owner).or_default();
        change(quiet);
        let Some(first) = quiet.first() else {
            self.quiet.remove(&owner);
            return;
        };
        let weight = quiet.len() + self.waste.of(owner);
        let standing = (weight, std::cmp::Reverse(*first), owner);
        self.standings.insert(owner, standing);
        self.order.insert(standing);
    }
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
        assert!(crowd.order.is_empty() && crowd.standings.is_empty() && crowd.fresh.is_empty());
        assert_eq!(crowd.shares.of(ip("192.0.2.1")), 0);
    }

    #[test]
    fn who_wastes_connections_goes_first() {
        let flood = ["192.0.2.1", "192.0.2.2", "192.0.2.3"].map(ip);
        let polite = ip("192.0.2.9");
        let mut crowd = Crowd::new(3, 4);
        for round in 0..4 {
            let entered: Vec<Entry> = flood.iter().map(|f| crowd.enter(*f, round)).collect();
            for entry in &entered[..usize::from(round < 3) * 3] {
                let (Entry::Room(id) | Entry::InPlaceOf(id, _)) = entry else {
                    panic!("{entry:?}");
                };
                crowd.leave(*id);
            }
        }
        // Ids 9, 10 and 11 are open now, each of a client that wasted three.
        assert_eq!(crowd.enter(polite, 10), Entry::InPlaceOf(12, 9));
        crowd.leave(10);
        assert_eq!(crowd.enter(flood[1], 11), Entry::Room(13));
        // As heavy as another: that one's ends. Heavier than all: refused.
        assert_eq!(crowd.enter(flood[0], 12), Entry::InPlaceOf(14, 13));
        assert_eq!(crowd.enter(flood[1], 12), Entry::Full);
        assert_eq!(crowd.shares.of(flood[1]), 0);
        crowd.progress(12, 1, 13);
        crowd.progress(12, 0, 14);
        assert_eq!(crowd.enter(flood[2], 15), Entry::InPlaceOf(15, 14));
        // After a while without more of it all is as at the start.
        crowd.leave(15);
        assert_eq!(crowd.enter(flood[0], 60_000), Entry::Room(16));
        assert_eq!(crowd.enter(flood[1], 60_000), Entry::InPlaceOf(17, 11));
    }

    #[test]
    fn who_may_be_about_to_ask_is_spared() {
        fn check(now: u64, expected: Id) {
            let mut crowd = crowd(3, 4, &["10.0.0.1", "10.0.0.2", "10.0.0.3"]);
            crowd.progress(1, 1, 50);
            crowd.progress(1, 0, 60);
            let entry = crowd.enter(ip("10.0.0.4"), now);
            assert_eq!(entry, Entry::InPlaceOf(3, expected), "at {now}");
        }
        check(100, 1);
        check(TO_ASK - 1, 1);
        check(TO_ASK, 0);
    }

    /// Flooders, from many addresses each with several connections, reopen at once whatever is ended;
    /// some ask now and then. A polite client's connection is not ended before its question is answered,
    /// however long it takes to ask, within a second.
    #[test]
    fn flooders_end_one_another() {
        fn check(most: usize, flooders: u8, polite_takes: u64, mut chance: u64) {
            let mut crowd = Crowd::new(most, 16);
            let mut draw = |below: u64| {
                chance = chance
                    .wrapping_mul(6_364_136_223_846_793_005)
                    .wrapping_add(1);
                (chance >> 33) % below
            };
            let mut polite: Option<(Id, u64)> = None;
            let (mut asked, mut lost) = (0, 0);
            for step in 0..30_000u64 {
                // 25 connections a millisecond, as measured.
                let now = step / 25;
                let flooder = draw(flooders.into());
                let flooder = [10, 0, 0, u8::try_from(flooder).unwrap()].into();
                let entry = crowd.enter(flooder, now);
                if let Entry::InPlaceOf(_, victim) = entry
                    && polite.is_some_and(|(id, _)| id == victim)
                {
                    (polite, lost) = (None, lost + 1);
                }
                if let Entry::Room(id) | Entry::InPlaceOf(id, _) = entry
                    && draw(10) == 0
                {
                    crowd.progress(id, 1, now);
                    crowd.progress(id, 0, now);
                }
                // The flood has begun.
                if step < 4000 {
                    continue;
                }
                match polite {
                    None => match crowd.enter(ip("192.0.2.9"), now) {
                        Entry::Room(id) | Entry::InPlaceOf(id, _) => polite = Some((id, now)),
                        Entry::Full => lost += 1,
                    },
                    Some((id, since)) if now >= since + polite_takes => {
                        crowd.progress(id, 1, now);
                        crowd.progress(id, 0, now);
                        crowd.leave(id);
                        (polite, asked) = (None, asked + 1);
                    }
                    Some(_) => {}
                }
                assert!(crowd.connections.len() <= most);
                assert!(crowd.fresh.len() <= most && crowd.standings.len() <= most);
            }
            assert!(
                asked > 0 && lost == 0,
                "{lost} lost, {asked} asked of {most} {flooders}"
            );
        }
        for chance in 0..2 {
            check(64, 100, 900, chance);
            check(64, 100, 5, chance);
            check(64, 250, 50, chance);
            check(4, 1, 50, chance);
            check(8, 16, 200, chance);
        }
    }
}
