//! PURE: the nft table as a plain description, and its text in nft's own syntax. Static only: what
//! is learned is elements of the learned sets, and never part of a description.

use crate::policy::ZoneId;
use crate::policy::image::Image;
use crate::policy::links::InterfacePattern;
use crate::policy::port::{ClassId, ClassMask};
use ipnet::IpNet;
use std::collections::BTreeMap;
use std::fmt;
use std::net::{IpAddr, SocketAddr};

mod build;
mod lockdown;
mod observed;
mod output;
mod redirect;
mod text;

pub(in crate::plane) use build::after;
pub use lockdown::{LOCKDOWN_TABLE, Scope};

/// Name of the one table egressd owns, in family `inet`.
pub const TABLE: &str = "egressd";
/// The chain on the forward hook. Every other chain that judges is reached from it.
pub const FORWARD: &str = "forward";
/// The chain on the prerouting hook of NAT, of the chains that redirect; only where some zone does.
pub const PREROUTING: &str = "prerouting";
/// The chain on the output hook that keeps conntrack off the answers egressd sends in a resolver's name.
/// Unlike [`FORWARD`] it has a name of each generation: two at once do no harm.
pub const ANSWERS: &str = "answers";
/// The chain on the output hook that judges what the gateway itself sends, where a zone does. As the
/// answers' chain it has a name of each generation: while both are there, both must let a packet pass.
pub const OUTPUT: &str = "output";
/// The chain on the input hook beside [`OUTPUT`].
pub const INPUT: &str = "input";
/// Refused packets reported per second, zone and reason; the rest are only counted, so that a flood
/// of refused packets costs what a counter costs.
pub const REPORTS_PER_SECOND: u32 = 200;

/// Refused packets answered per second and rule that answers: those of one chain of one zone.
pub const REJECTS_PER_SECOND: u32 = 100;

/// Everything in the table but what was learned.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Ruleset {
    /// Which generation of names it uses.
    pub generation: Generation,
    /// The zones' names.
    pub zones: BTreeMap<ZoneId, String>,
    /// Named counters.
    pub tallies: Vec<Tally>,
    /// Empty hash sets that [`Ruleset::learned`] names the elements of.
    pub learned: Vec<LearnedSet>,
    /// Interval sets with their contents.
    pub networks: Vec<NetworkSet>,
    /// Verdict maps with their contents.
    pub maps: Vec<VerdictMap>,
    /// Chains with their rules; the first is [`FORWARD`].
    pub chains: Vec<Chain>,
}

/// Two sets of names for chains, maps and network sets, used in turn. A packet on its way through
/// the old chains while a transaction commits still asks the old maps; were those gone, it would be
/// refused by accident. So the old generation goes in a second transaction.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Generation {
    /// Names that end in `_a`.
    #[default]
    A,
    /// Names that end in `_b`.
    B,
}

impl Generation {
    /// The one that may be built while this one is in force.
    #[must_use]
    pub const fn other(self) -> Self {
        match self {
            Self::A => Self::B,
            Self::B => Self::A,
        }
    }

    /// `name` in this generation.
    #[must_use]
    pub fn name(self, name: &str) -> String {
        match self {
            Self::A => format!("{name}_a"),
            Self::B => format!("{name}_b"),
        }
    }
}

/// An address family.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Family {
    /// IPv4.
    V4,
    /// IPv6.
    V6,
}

impl Family {
    /// Both.
    pub const ALL: [Self; 2] = [Self::V4, Self::V6];

    /// The family of an address.
    #[must_use]
    pub const fn of(address: IpAddr) -> Self {
        match address {
            IpAddr::V4(_) => Self::V4,
            IpAddr::V6(_) => Self::V6,
        }
    }

    /// The family of a network.
    #[must_use]
    pub const fn of_net(net: IpNet) -> Self {
        match net {
            IpNet::V4(_) => Self::V4,
            IpNet::V6(_) => Self::V6,
        }
    }

    /// `4` or `6`.
    #[must_use]
    pub const fn digit(self) -> char {
        match self {
            Self::V4 => '4',
            Self::V6 => '6',
        }
    }
}

/// What a packet counter counts.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Tally {
    /// The zone, if the packets belong to one.
    pub zone: Option<ZoneId>,
    /// What became of them.
    pub action: Action,
    /// The one word why.
    pub reason: &'static str,
}

/// What became of a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Action {
    /// It passed.
    Pass,
    /// It was dropped.
    Drop,
    /// It would have been dropped, but the zone is in audit mode.
    Audit,
}

impl Action {
    /// The word for metrics and names.
    #[must_use]
    pub const fn word(self) -> &'static str {
        match self {
            Self::Pass => "pass",
            Self::Drop => "drop",
            Self::Audit => "audit",
        }
    }
}

/// The learned addresses of one class in one zone.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct LearnedSet {
    /// Whose.
    pub zone: ZoneId,
    /// Which class is open to its elements.
    pub class: ClassId,
    /// Of which family its elements are.
    pub family: Family,
}

impl LearnedSet {
    /// The set that holds `address` while `class` is open to it.
    #[must_use]
    pub const fn of(zone: ZoneId, address: IpAddr, class: ClassId) -> Self {
        Self {
            zone,
            class,
            family: Family::of(address),
        }
    }

    /// The name of the interval set beside it: the catalogue networks of the same class and zone.
    #[must_use]
    pub fn networks(self, generation: Generation) -> String {
        generation.name(&format!(
            "z{}_n{}_{}",
            self.zone,
            self.class.0,
            self.family.digit()
        ))
    }
}

/// An interval set: sorted ranges that neither overlap nor touch, both ends included.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NetworkSet {
    /// Its name.
    pub name: String,
    /// The family of its ranges.
    pub family: Family,
    /// Its contents.
    pub ranges: Vec<(IpAddr, IpAddr)>,
}

/// A map from a number to a chain.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct VerdictMap {
    /// Its name.
    pub name: String,
    /// What the number is.
    pub key: MapKey,
    /// Sorted disjoint ranges, both ends included, with the chain that judges them.
    pub entries: Vec<(u16, u16, String)>,
}

/// What a verdict map is asked with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MapKey {
    /// The IANA protocol number.
    Protocol,
    /// The port the client asked for.
    Port,
    /// The packet's present destination port.
    PresentPort,
}

/// A chain with its rules.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Chain {
    /// Its name.
    pub name: String,
    /// Its rules, in order.
    pub rules: Vec<Rule>,
}

/// A rule: its parts in order; the first that does not match ends it.
pub type Rule = Vec<Part>;

/// One part of a rule.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Part {
    /// The flow has seen packets both ways.
    Established,
    /// An error message or a helper's flow that belongs to an established flow.
    Related,
    /// The packet's IANA protocol number.
    Protocol(u8),
    /// A TCP segment that does not begin a connection: not a SYN alone.
    Midstream,
    /// It goes the way that the flow's first packet went, or the other.
    Way(Way),
    /// Its present source address is in this set.
    From(Family, String),
    /// Its present destination address, after any destination NAT, is in this set.
    To(Family, String),
    /// Its present source port (of TCP, UDP and others that have it in the same place).
    SourcePort(u16),
    /// The type of an ICMP or ICMPv6 message.
    MessageType(u8),
    /// Its hop limit (IPv6).
    HopLimit(u8),
    /// Its socket gave it this mark.
    Marked(u32),
    /// The interface it entered.
    Entered(InterfacePattern),
    /// The interface it leaves by.
    Leaves(InterfacePattern),
    /// The port the client asked for.
    Port(u16),
    /// It is of this address family.
    Version(Family),
    /// The routing table delivers its destination so.
    Delivered(Delivery),
    /// Its source address.
    Source(IpNet),
    /// Its present destination address, after any destination NAT.
    Destination(IpNet),
    /// The address the client asked for is in this set.
    Asked(Family, String),
    /// Continue where this map points for the protocol or the port the client asked for.
    Map(MapKey, String),
    /// Count it.
    Count(Tally),
    /// Report it to the log group, within [`REPORTS_PER_SECOND`].
    Report(Tally),
    /// Copy it whole to this log group: a question (original) or an answer (reply).
    Copy(Way, u16),
    /// Conntrack does not look at it.
    Untracked,
    /// Continue in a chain and do not come back.
    Goto(String),
    /// Continue in a chain and come back.
    Jump(String),
    /// Go back to where the chain was jumped to from.
    Return,
    /// Let it pass, as far as this table goes.
    Accept,
    /// Drop it.
    Drop,
    /// Within [`REJECTS_PER_SECOND`].
    Seldom,
    /// Drop it, and tell who sent it.
    Reject(Word),
    /// Give its flow to a listener of the gateway instead of the destination.
    Redirect(SocketAddr),
    /// Give its flow to this port of the address of the interface it entered.
    RedirectHere(u16),
}

/// What the sender of a refused packet is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Word {
    /// That the connection is reset.
    Reset,
    /// That it is administratively prohibited (ICMP, ICMPv6).
    Prohibited,
}

/// How the routing table delivers a destination that is never forwarded, or not as a question to one
/// resolver.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Delivery {
    /// To the gateway itself.
    Local,
    /// To everybody of a subnet.
    Broadcast,
    /// To the nearest router.
    Anycast,
    /// To a group.
    Multicast,
}

impl Delivery {
    /// Every one.
    pub const ALL: [Self; 4] = [Self::Local, Self::Broadcast, Self::Anycast, Self::Multicast];
}

impl Chain {
    /// Whether the kernel calls it: such a chain keeps its name, and stays while its rules change.
    #[must_use]
    pub fn is_hooked(&self) -> bool {
        [FORWARD, PREROUTING].contains(&&*self.name)
    }
}

/// A direction of a flow.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Way {
    /// From who opened it.
    Original,
    /// Back to who opened it.
    Reply,
}

impl Way {
    /// The word of nft, which is also the last one of a copy's log prefix.
    #[must_use]
    pub const fn word(self) -> &'static str {
        match self {
            Self::Original => "original",
            Self::Reply => "reply",
        }
    }
}

/// The first words of a copy's log prefix; [`Way::word`] is the last.
pub const COPY_PREFIX: &str = "egressd copy";

impl Ruleset {
    /// Describes the table that enforces `image`, in names of `generation`.
    #[must_use]
    pub fn new(image: &Image, generation: Generation) -> Self {
        let mut ruleset = build::ruleset(image);
        ruleset.rename(generation);
        ruleset
    }

    /// Whether it has the chain on the prerouting hook.
    #[must_use]
    pub fn redirects(&self) -> bool {
        self.chains.iter().any(|chain| chain.name == PREROUTING)
    }

    /// Adds the chain on the prerouting hook, empty, if there is none. While flows live that were
    /// redirected, the kernel must go on to translate their packets, which it does as long as any
    /// NAT chain is there: else those packets would be established flows to the other resolver.
    pub fn keep_translating(&mut self) {
        if !self.redirects() {
            self.chains.push(Chain {
                name: PREROUTING.to_owned(),
                rules: Vec::new(),
            });
        }
    }

    fn rename(&mut self, generation: Generation) {
        self.generation = generation;
        for set in &mut self.networks {
            let name = generation.name(&set.name);
            let old = std::mem::replace(&mut set.name, name);
            for part in self
                .chains
                .iter_mut()
                .flat_map(|chain| chain.rules.iter_mut().flatten())
            {
                if let Part::Asked(_, asked) | Part::From(_, asked) | Part::To(_, asked) = part
                    && *asked == old
                {
                    asked.clone_from(&set.name);
                }
            }
        }
        for map in &mut self.maps {
            map.name = generation.name(&map.name);
            for (.., chain) in &mut map.entries {
                *chain = generation.name(chain);
            }
        }
        for chain in &mut self.chains {
            if !chain.is_hooked() {
                chain.name = generation.name(&chain.name);
            }
            for part in chain.rules.iter_mut().flatten() {
                if let Part::Goto(name) | Part::Jump(name) | Part::Map(_, name) = part {
                    *name = generation.name(name);
                }
            }
        }
    }

    /// The learned sets that hold `address` of `zone` while the classes of `mask` are open to it. A
    /// class that the image does not know has none.
    pub fn learned_in(
        &self,
        zone: ZoneId,
        address: IpAddr,
        mask: ClassMask,
    ) -> impl Iterator<Item = LearnedSet> {
        mask.classes()
            .map(move |class| LearnedSet::of(zone, address, class))
            .filter(|set| self.learned.binary_search(set).is_ok())
    }
}

impl fmt::Display for LearnedSet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "z{}_c{}_{}",
            self.zone,
            self.class.0,
            self.family.digit()
        )
    }
}

impl fmt::Display for Tally {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.zone {
            Some(zone) => write!(f, "z{zone}_")?,
            None => f.write_str("any_")?,
        }
        write!(f, "{}_{}", self.action.word(), self.reason)
    }
}

impl Tally {
    /// How the log prefix names it: `egressd 3 drop port-closed`, and `-` for no zone.
    #[must_use]
    pub fn prefix(&self) -> String {
        let zone = self
            .zone
            .map_or_else(|| "-".to_owned(), |zone| zone.to_string());
        format!("{TABLE} {zone} {} {}", self.action.word(), self.reason)
    }
}

/// Whether a chain's name is that of [`ANSWERS`] in either generation.
#[must_use]
pub fn is_answers(name: &str) -> bool {
    [Generation::A, Generation::B]
        .iter()
        .any(|generation| generation.name(ANSWERS) == name)
}

/// Which way the packets go that a chain is called for where the gateway's own are judged: out of it, or
/// back to it. `None` for every other chain.
#[must_use]
pub fn own_hook(name: &str) -> Option<Way> {
    let is = |stem| {
        [Generation::A, Generation::B]
            .iter()
            .any(|generation| generation.name(stem) == name)
    };
    if is(OUTPUT) {
        return Some(Way::Original);
    }
    is(INPUT).then_some(Way::Reply)
}
