//! Ports, port sets and port classes. A class is one distinct port set; it owns one bit of a mask.

use super::slots::Slots;
use egressd_common::MAX_CLASSES;
use std::fmt;

/// Ports of one IP protocol (IANA protocol number), both ends included. A protocol without ports
/// (`icmp`, `esp`) or "any port" is the whole range 0–65535.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Service {
    /// IANA protocol number.
    pub protocol: u8,
    /// First port.
    pub first: u16,
    /// Last port, not below `first`.
    pub last: u16,
}

/// IANA number of ICMP.
pub const ICMP: u8 = 1;
/// IANA number of TCP.
pub const TCP: u8 = 6;
/// IANA number of UDP.
pub const UDP: u8 = 17;
/// IANA number of ICMPv6.
pub const ICMPV6: u8 = 58;
/// IANA number of SCTP.
pub const SCTP: u8 = 132;

/// Names of protocols as the configuration writes them, with their IANA numbers.
pub const PROTOCOLS: &[(&str, u8)] = &[
    ("icmp", ICMP),
    ("tcp", TCP),
    ("udp", UDP),
    ("ipv6-in-ipv4", 41),
    ("gre", 47),
    ("esp", 50),
    ("ah", 51),
    ("icmpv6", ICMPV6),
    ("sctp", SCTP),
];

impl Service {
    /// Every port of `protocol`.
    #[must_use]
    pub const fn whole(protocol: u8) -> Self {
        Self {
            protocol,
            first: 0,
            last: u16::MAX,
        }
    }

    /// One TCP port.
    #[must_use]
    pub const fn tcp(port: u16) -> Self {
        Self {
            protocol: TCP,
            first: port,
            last: port,
        }
    }

    /// One UDP port.
    #[must_use]
    pub const fn udp(port: u16) -> Self {
        Self {
            protocol: UDP,
            first: port,
            last: port,
        }
    }

    /// Whether a packet of `protocol` to `port` belongs here.
    #[must_use]
    pub const fn contains(self, protocol: u8, port: u16) -> bool {
        self.protocol == protocol && self.first <= port && port <= self.last
    }
}

impl fmt::Display for Service {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match PROTOCOLS
            .iter()
            .find(|(_, number)| *number == self.protocol)
        {
            Some((name, _)) => f.write_str(name)?,
            None => write!(f, "protocol-{}", self.protocol)?,
        }
        if (self.first, self.last) == (0, u16::MAX) {
            Ok(())
        } else if self.first == self.last {
            write!(f, "/{}", self.first)
        } else {
            write!(f, "/{}-{}", self.first, self.last)
        }
    }
}

/// A set of services in normal form: sorted, overlapping and touching ranges merged. Two equal sets
/// of packets are equal values.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct PortSet(Vec<Service>);

impl PortSet {
    /// The normal form of `services`.
    #[must_use]
    pub fn new(services: impl IntoIterator<Item = Service>) -> Self {
        let mut sorted: Vec<Service> = services.into_iter().filter(|s| s.first <= s.last).collect();
        sorted.sort_unstable();
        let mut merged: Vec<Service> = Vec::with_capacity(sorted.len());
        for service in sorted {
            match merged.last_mut() {
                Some(last)
                    if last.protocol == service.protocol
                        && u32::from(service.first) <= u32::from(last.last) + 1 =>
                {
                    last.last = last.last.max(service.last);
                }
                _ => merged.push(service),
            }
        }
        Self(merged)
    }

    /// The services, sorted and disjoint.
    #[must_use]
    pub fn services(&self) -> &[Service] {
        &self.0
    }

    /// Whether no packet at all belongs here.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// What belongs here and not to `other`.
    #[must_use]
    pub fn without(&self, other: &Self) -> Self {
        let mut left = self.0.clone();
        for hole in &other.0 {
            let cut = |one: Service| -> Vec<Service> {
                if one.protocol != hole.protocol || one.last < hole.first || hole.last < one.first {
                    return vec![one];
                }
                let before = hole.first.checked_sub(1).filter(|last| *last >= one.first);
                let after = hole.last.checked_add(1).filter(|first| *first <= one.last);
                let before = before.map(|last| Service { last, ..one });
                let after = after.map(|first| Service { first, ..one });
                before.into_iter().chain(after).collect()
            };
            left = left.into_iter().flat_map(cut).collect();
        }
        Self(left)
    }

    /// Whether a packet of `protocol` to `port` belongs here.
    #[must_use]
    pub fn contains(&self, protocol: u8, port: u16) -> bool {
        self.0
            .iter()
            .any(|service| service.contains(protocol, port))
    }
}

impl fmt::Display for PortSet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, service) in self.0.iter().enumerate() {
            write!(f, "{}{service}", if i == 0 { "" } else { ", " })?;
        }
        Ok(())
    }
}

/// A class's number: the position of its bit, in 0..[`MAX_CLASSES`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ClassId(pub u8);

/// A set of classes, one bit each.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ClassMask(pub u64);

impl ClassMask {
    /// The empty mask: nothing is open.
    pub const NONE: Self = Self(0);

    /// The mask of one class.
    #[must_use]
    pub const fn of(class: ClassId) -> Self {
        Self(1 << class.0)
    }

    /// This mask with `class` added.
    #[must_use]
    pub const fn with(self, class: ClassId) -> Self {
        Self(self.0 | 1 << class.0)
    }

    /// The classes of either mask.
    #[must_use]
    pub const fn union(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    /// The classes of this mask that `other` lacks.
    #[must_use]
    pub const fn without(self, other: Self) -> Self {
        Self(self.0 & !other.0)
    }

    /// Whether no class is in it.
    #[must_use]
    pub const fn is_empty(self) -> bool {
        self.0 == 0
    }

    /// Whether the masks share a class.
    #[must_use]
    pub const fn meets(self, other: Self) -> bool {
        self.0 & other.0 != 0
    }

    /// The classes in it, lowest bit first.
    pub fn classes(self) -> impl Iterator<Item = ClassId> {
        (0u8..64)
            .filter(move |bit| self.0 >> bit & 1 == 1)
            .map(ClassId)
    }
}

/// Which port set each bit means; a bit keeps its meaning (see [`Slots`]).
#[derive(Clone, Debug, Default)]
pub struct ClassTable(Slots<PortSet, MAX_CLASSES>);

/// More distinct port sets than a mask has bits.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "the policy uses more than {MAX_CLASSES} different sets of ports; give rules with nearly equal ports the same list"
)]
pub struct TooManyClasses;

impl ClassTable {
    /// The class of `ports`; the same set always gets the same bit.
    ///
    /// # Errors
    /// When all 64 bits are taken.
    pub fn class_of(&mut self, ports: &PortSet) -> Result<ClassId, TooManyClasses> {
        let index = self.0.claim(ports).map_err(|_| TooManyClasses)?;
        Ok(class(index))
    }

    /// Keeps the classes in `used`; the rest retire, and what had retired before becomes free.
    pub fn retain(&mut self, used: ClassMask) {
        self.0
            .retain(|index| used.meets(ClassMask::of(class(index))));
    }

    /// The port set of `class`, while it is in use.
    #[must_use]
    pub fn ports(&self, class: ClassId) -> Option<&PortSet> {
        self.0.get(usize::from(class.0))
    }

    /// Every class in use with its port set.
    pub fn iter(&self) -> impl Iterator<Item = (ClassId, &PortSet)> {
        self.0.iter().map(|(index, set)| (class(index), set))
    }

    /// The classes that hold `protocol` and `port`.
    #[must_use]
    pub fn mask_of(&self, protocol: u8, port: u16) -> ClassMask {
        self.iter()
            .filter(|(_, set)| set.contains(protocol, port))
            .fold(ClassMask::NONE, |mask, (class, _)| mask.with(class))
    }
}

fn class(index: usize) -> ClassId {
    ClassId(u8::try_from(index).expect("a slot's number is below MAX_CLASSES"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn port_sets_have_one_normal_form() {
        fn check(services: &[(u16, u16)], expected: &str) {
            let set = PortSet::new(services.iter().map(|&(first, last)| Service {
                protocol: TCP,
                first,
                last,
            }));
            assert_eq!(set.to_string(), expected);
        }
        check(&[(443, 443), (80, 80)], "tcp/80, tcp/443");
        check(&[(80, 90), (91, 100)], "tcp/80-100");
        check(&[(80, 90), (85, 86)], "tcp/80-90");
        check(&[(0, 65535), (1, 2)], "tcp");
        check(&[(9, 8)], "");
    }

    #[test]
    fn a_bit_is_reused_only_after_two_rounds() {
        let web = PortSet::new([Service::tcp(443)]);
        let time = PortSet::new([Service::udp(123)]);
        let push = PortSet::new([Service::tcp(5223)]);
        let mut table = ClassTable::default();
        let (w, t) = (
            table.class_of(&web).unwrap(),
            table.class_of(&time).unwrap(),
        );
        table.retain(ClassMask::of(t));
        assert_eq!(table.ports(w), None);
        assert_ne!(
            table.class_of(&push).unwrap(),
            w,
            "a retired bit was handed out at once"
        );
        table.retain(ClassMask::of(t));
        assert_eq!(table.class_of(&web).unwrap(), w);
        assert_eq!(table.mask_of(UDP, 123), ClassMask::of(t));
    }

    #[test]
    fn a_retired_class_that_comes_back_keeps_its_bit() {
        let web = PortSet::new([Service::tcp(443)]);
        let mut table = ClassTable::default();
        let class = table.class_of(&web).unwrap();
        table.retain(ClassMask::NONE);
        assert_eq!(table.class_of(&web), Ok(class));
    }

    #[test]
    fn the_sixty_fifth_class_is_refused() {
        let mut table = ClassTable::default();
        for port in 1..=64 {
            table.class_of(&PortSet::new([Service::tcp(port)])).unwrap();
        }
        assert_eq!(
            table.class_of(&PortSet::new([Service::tcp(65)])),
            Err(TooManyClasses)
        );
    }
}
