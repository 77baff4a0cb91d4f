//! TCP connections to resolvers, put together from copied segments: in order or not at all. Pure.

use super::super::shares::owner;
use super::packet::Segment;
use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};

/// Most connections at once; the one that was silent longest makes room.
const MOST: usize = 1024;

/// Most of them from one client (over IPv6: one /64); its own that was silent longest makes room.
const MOST_PER_CLIENT: usize = 256;

/// Longest question, in bytes; an answer may have what its length field can say.
const LONGEST_QUESTION: usize = 4096;

/// Most bytes of unfinished messages in all connections together.
const MOST_BYTES: usize = 8 << 20;

/// Shortest DNS message, in bytes.
const SHORTEST: usize = 12;

/// A connection: who asks, and whom.
pub(super) type Ends = (SocketAddr, IpAddr);

/// Which end a segment comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum From {
    Client,
    Resolver,
}

/// The connections.
#[derive(Debug, Default)]
pub(super) struct Streams {
    flows: BTreeMap<Ends, Flow>,
    /// By when they were last heard of.
    order: BTreeMap<u64, Ends>,
    per_client: BTreeMap<IpAddr, usize>,
    bytes: usize,
    next: u64,
}

#[derive(Debug)]
struct Flow {
    questions: Half,
    answers: Half,
    heard: u64,
}

/// One direction. What was lost, doubled or reordered on the way ends the connection for us.
#[derive(Debug, Default)]
struct Half {
    /// The sequence number that comes next; `None` before the connection began.
    next: Option<u32>,
    bytes: Vec<u8>,
}

impl Streams {
    /// Takes a segment and shows `visit` every message it completes. `false` where the connection
    /// cannot be followed any further: its answers teach nothing.
    pub(super) fn take(
        &mut self,
        ends: Ends,
        from: From,
        segment: &Segment<'_>,
        mut visit: impl FnMut(&[u8]),
    ) -> bool {
        if from == From::Client && segment.begins {
            self.begin(ends, segment);
        }
        let Some(flow) = self.flows.get_mut(&ends) else {
            // It began before us, or was given up.
            return true;
        };
        self.order.remove(&flow.heard);
        self.next += 1;
        flow.heard = self.next;
        self.order.insert(flow.heard, ends);
        let (half, longest) = match from {
            From::Client => (&mut flow.questions, LONGEST_QUESTION),
            From::Resolver => (&mut flow.answers, usize::from(u16::MAX)),
        };
        let before = half.bytes.len();
        let followed = !segment.resets && half.take(segment) && half.messages(longest, &mut visit);
        self.bytes = self.bytes + half.bytes.len() - before;
        let ended = segment.ends && from == From::Resolver;
        if !followed || ended || self.bytes > MOST_BYTES {
            self.forget(ends);
        }
        followed || segment.resets
    }

    /// Forgets every connection: copies were lost.
    pub(super) fn clear(&mut self) {
        *self = Self::default();
    }

    /// Opens a connection, unless this is only its first segment again.
    fn begin(&mut self, ends: Ends, segment: &Segment<'_>) {
        let first = segment.sequence.wrapping_add(1);
        if let Some(flow) = self.flows.get(&ends) {
            if flow.questions.next == Some(first) {
                return;
            }
            self.forget(ends);
        }
        let client = owner(ends.0.ip());
        let of_client = self.per_client.get(&client).copied().unwrap_or_default();
        if of_client >= MOST_PER_CLIENT
            && let Some(silent) = (self.order.values()).find(|ends| owner(ends.0.ip()) == client)
        {
            self.forget(*silent);
        }
        if self.flows.len() >= MOST
            && let Some((_, silent)) = self.order.first_key_value()
        {
            self.forget(*silent);
        }
        *self.per_client.entry(client).or_default() += 1;
        self.next += 1;
        self.order.insert(self.next, ends);
        let flow = Flow {
            questions: Half {
                next: Some(first),
                bytes: Vec::new(),
            },
            answers: Half::default(),
            heard: self.next,
        };
        self.flows.insert(ends, flow);
    }

    fn forget(&mut self, ends: Ends) {
        let Some(flow) = self.flows.remove(&ends) else {
            return;
        };
        self.order.remove(&flow.heard);
        self.bytes -= flow.questions.bytes.len() + flow.answers.bytes.len();
        let owner = owner(ends.0.ip());
        if let Some(count) = self.per_client.get_mut(&owner) {
            *count -= 1;
            if *count == 0 {
                self.per_client.remove(&owner);
            }
        }
    }
}

impl Half {
    /// Appends what is new in a segment; `false` where something before it is missing.
    fn take(&mut self, segment: &Segment<'_>) -> bool {
        let first = segment.sequence.wrapping_add(u32::from(segment.begins));
        if segment.begins && self.next.is_none() {
            self.next = Some(first);
        }
        let Some(next) = self.next else { return false };
        // RFC 9293 §3.4: sequence numbers wrap.
        let ahead = first.wrapping_sub(next).cast_signed();
        if ahead > 0 {
            return segment.payload.is_empty();
        }
        let known = ahead.unsigned_abs() as usize;
        let new = segment.payload.get(known..).unwrap_or_default();
        self.bytes.extend(new);
        // A payload is far below 4 GiB.
        self.next = Some(next.wrapping_add(new.len() as u32));
        true
    }

    /// Takes out the messages that are whole; `false` where what stands there is none.
    fn messages(&mut self, longest: usize, visit: &mut impl FnMut(&[u8])) -> bool {
        let mut at = 0;
        let good = loop {
            let Some(length) = self.bytes.get(at..).and_then(<[u8]>::first_chunk) else {
                break true;
            };
            let length = usize::from(u16::from_be_bytes(*length));
            if !(SHORTEST..=longest).contains(&length) {
                break false;
            }
            let Some(message) = self.bytes.get(at + 2..at + 2 + length) else {
                break true;
            };
            visit(message);
            at += 2 + length;
        };
        self.bytes.drain(..at);
        if self.bytes.is_empty() {
            // Idle connections hold nothing.
            self.bytes = Vec::new();
        }
        good
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const QUIET: Segment<'static> = Segment {
        sequence: 0,
        begins: false,
        ends: false,
        resets: false,
        payload: &[],
    };

    fn ends(client: u32) -> Ends {
        let client = SocketAddr::new(std::net::Ipv4Addr::from_bits(client).into(), 4000);
        (client, "9.9.9.9".parse().unwrap())
    }

    fn syn(sequence: u32) -> Segment<'static> {
        Segment {
            sequence,
            begins: true,
            ..QUIET
        }
    }

    /// Feeds segments (place in the stream, bytes) of the resolver and gives the messages.
    fn check(start: u32, segments: &[(u32, &[u8])], expected: &[&[u8]], followed: bool) {
        let mut streams = Streams::default();
        assert!(streams.take(ends(1), From::Client, &syn(7), |_| {}));
        assert!(streams.take(ends(1), From::Resolver, &syn(start), |_| {}));
        let mut found: Vec<Vec<u8>> = Vec::new();
        let mut good = true;
        for (at, payload) in segments {
            let segment = Segment {
                sequence: start.wrapping_add(1 + at),
                payload,
                ..QUIET
            };
            good &= streams.take(ends(1), From::Resolver, &segment, |message| {
                found.push(message.to_vec());
            });
        }
        assert_eq!(found, expected, "{segments:?}");
        assert_eq!(good, followed, "{segments:?}");
        assert_eq!(streams.flows.len(), usize::from(followed));
    }

    #[test]
    fn segments_become_messages() {
        let one = b"\0\x0cAAAABBBBCCCC";
        let two = b"\0\x0dddddeeeeffffg";
        let both = [&one[..], two].concat();
        let (first, second) = (&one[2..], &two[2..]);
        for start in [5, u32::MAX - 3] {
            check(start, &[(0, one)], &[first], true);
            check(start, &[(0, &both)], &[first, second], true);
            check(
                start,
                &[(0, &both[..1]), (1, &both[1..20]), (20, &both[20..])],
                &[first, second],
                true,
            );
            // Sent again, in whole, in part and in larger pieces.
            check(
                start,
                &[
                    (0, &both[..9]),
                    (0, &both[..9]),
                    (4, &both[4..16]),
                    (0, &both),
                ],
                &[first, second],
                true,
            );
            // A piece is missing.
            check(start, &[(0, &both[..9]), (10, &both[10..])], &[], false);
            check(start, &[(1, &both[1..])], &[], false);
        }
        check(5, &[(0, b"\0\x0b11111111111")], &[], false);
        check(5, &[(0, b"\0\0")], &[], false);
    }

    #[test]
    fn a_connection_that_began_before_us_is_not_followed() {
        let mut streams = Streams::default();
        let segment = Segment {
            payload: b"\0\x0cAAAABBBBCCCC",
            ..QUIET
        };
        for from in [From::Client, From::Resolver] {
            assert!(streams.take(ends(1), from, &segment, |_| panic!("a message")));
        }
        // Nor one whose resolver was not heard to begin.
        assert!(streams.take(ends(1), From::Client, &syn(1), |_| {}));
        assert!(!streams.take(ends(1), From::Resolver, &segment, |_| panic!("a message")));
        assert!(streams.flows.is_empty() && streams.order.is_empty());
    }

    #[test]
    fn connections_and_bytes_are_bounded() {
        let mut streams = Streams::default();
        let part = [&[0xff, 0xff][..], &[1; 60_000]].concat();
        for client in 0..3000 {
            assert!(streams.take(ends(client), From::Client, &syn(1), |_| {}));
            streams.take(ends(client), From::Resolver, &syn(1), |_| {});
            let segment = Segment {
                sequence: 2,
                payload: &part,
                ..QUIET
            };
            streams.take(ends(client), From::Resolver, &segment, |_| {});
            assert!(streams.bytes <= MOST_BYTES && streams.flows.len() <= MOST);
        }
        let held = streams.flows.values().map(|flow| flow.answers.bytes.len());
        assert_eq!(held.sum::<usize>(), streams.bytes);
        assert_eq!(streams.order.len(), streams.flows.len());
        // One client, many ports.
        assert!(streams.take(ends(5000), From::Client, &syn(1), |_| {}));
        let one = |port| (SocketAddr::new(ends(9999).0.ip(), port), ends(1).1);
        for port in 0..1000 {
            assert!(streams.take(one(port), From::Client, &syn(1), |_| {}));
        }
        assert_eq!(streams.per_client[&one(0).0.ip()], MOST_PER_CLIENT);
        assert!(streams.flows.contains_key(&one(999)) && streams.flows.len() <= MOST);
        // It made room itself: another's connection is still there.
        assert!(streams.flows.contains_key(&ends(5000)));
    }

    #[test]
    fn a_reset_ends_it() {
        let mut streams = Streams::default();
        streams.take(ends(1), From::Client, &syn(1), |_| {});
        let reset = Segment {
            resets: true,
            ..QUIET
        };
        assert!(streams.take(ends(1), From::Resolver, &reset, |_| {}));
        assert!(streams.flows.is_empty() && streams.order.is_empty());
        assert!(streams.per_client.is_empty());
    }
}
