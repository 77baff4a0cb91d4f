//! What became of a packet, and the one word why.

/// What happened to a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u8)]
pub enum Action {
    /// It went on.
    Pass = 0,
    /// It ended here.
    Drop = 1,
    /// It went on only because its zone is in audit mode, or every zone of its interface is.
    Audit = 2,
    /// It is refused, but left to nft to do so, which reports and may reject it.
    Refer = 3,
}

impl Action {
    /// Every action, by its number.
    pub const ALL: [Self; 4] = [Self::Pass, Self::Drop, Self::Audit, Self::Refer];

    /// The word in counters and reports.
    #[must_use]
    pub const fn word(self) -> &'static str {
        match self {
            Self::Pass => "pass",
            Self::Drop => "drop",
            Self::Audit => "audit",
            Self::Refer => "refer",
        }
    }

    /// Whether the packet went on from here.
    #[must_use]
    pub const fn passes(self) -> bool {
        match self {
            Self::Pass | Self::Audit | Self::Refer => true,
            Self::Drop => false,
        }
    }
}

/// Defines the closed list of reasons once: number, word, meaning.
macro_rules! reasons {
    ($($name:ident = $number:literal $word:literal $doc:literal,)*) => {
        /// Why a packet passed or was refused. Numbers and words never change their meaning.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
        #[repr(u8)]
        pub enum Reason {
            $(#[doc = $doc] $name = $number,)*
        }

        impl Reason {
            /// Every reason.
            pub const ALL: &'static [Self] = &[$(Self::$name),*];

            /// The one word, stable, for counters, logs and `explain`.
            #[must_use]
            pub const fn word(self) -> &'static str {
                match self { $(Self::$name => $word,)* }
            }

            /// The meaning, as a sentence for people.
            #[must_use]
            pub const fn meaning(self) -> &'static str {
                match self { $(Self::$name => $doc.trim_ascii(),)* }
            }

            /// The reason with this number.
            #[must_use]
            pub const fn of(number: u8) -> Option<Self> {
                match number { $($number => Some(Self::$name),)* _ => None }
            }
        }
    };
}

reasons! {
    NotIp = 0 "not-ip" " Not IP (ARP, LLDP, EAPOL, PPPoE discovery): the stack's business.",
    Group = 1 "group" " To a multicast group or the limited broadcast: never forwarded by the forward chain unjudged.",
    Local = 2 "local" " To one of the gateway's own addresses.",
    LinkBound = 3 "link-bound" " From an unspecified or IPv6 link-local address, or to the latter: Linux never forwards it.",
    Internal = 4 "internal" " To a destination that the configuration calls internal: not egress.",
    Inside = 5 "inside" " To a zone's clients or a connected subnet: left to nft, which knows the flow.",
    Granted = 6 "granted" " To a learned address, on a port its grant opens.",
    Network = 7 "network" " To a catalogue network, on a port its grant opens.",
    Continues = 8 "continues" " Not granted, but it starts nothing: left to nft, which knows the flow.",
    Serves = 9 "serves" " Not granted, but a reply from a UDP port that the zone serves: left to nft.",
    LaterFragment = 10 "later-fragment" " A fragment without ports: left to nft, which reassembles; dropped where nft is not behind.",
    Unzoned = 11 "unzoned" " From an interface in no zone: dropped, or left to others, as the configuration says.",
    Redirected = 12 "redirected" " To port 53, which nft redirects to the gateway's own resolver for this zone.",
    Bridged = 13 "bridged" " To another host's hardware address, on a port of a bridge: not routed here.",
    Upstream = 14 "upstream" " In a VLAN whose device is upstream.",
    Vlan = 15 "vlan" " In a VLAN whose device runs a program of its own: judged and counted there.",
    NotGranted = 16 "not-granted" " To an address that the zone has no grant for.",
    PortNotGranted = 17 "port-not-granted" " To a granted address, on a port that its grant does not open.",
    PortClosed = 18 "port-closed" " On a port or protocol that no set opens anywhere.",
    Spoofed = 19 "spoofed" " From a source that is in no zone of the interface.",
    Martian = 20 "martian" " From a source that no packet may have: loopback, multicast, reserved.",
    Truncated = 21 "truncated" " The frame ends before its headers say.",
    Malformed = 22 "malformed" " A header contradicts itself: version, length or order.",
    Options = 23 "options" " IPv4 options.",
    SourceRoute = 24 "source-route" " An IPv6 routing header with segments left.",
    Extensions = 25 "extensions" " More IPv6 extension headers than are walked.",
    DoubleFragment = 26 "double-fragment" " A second IPv6 fragment header.",
    TinyFragment = 27 "tiny-fragment" " A first fragment that hides its ports.",
    Tags = 28 "tags" " More VLAN tags than are read.",
    NoInterface = 29 "no-interface" " It entered on an interface the program has no entry for.",
}

/// Slots for reasons in counters: every reason's number is below this.
pub const REASONS: usize = 32;

/// The id that stands for "no zone" where a zone's id is stored.
pub const NO_ZONE: u8 = 0xff;

/// What happened to a packet, and why.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Verdict {
    /// What happened.
    pub action: Action,
    /// The one word why.
    pub reason: Reason,
    /// The packet's zone, or [`NO_ZONE`].
    pub zone: u8,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_words_and_reasons_are_one_to_one() {
        let mut words = Vec::new();
        for &reason in Reason::ALL {
            assert!(usize::from(reason as u8) < REASONS);
            assert_eq!(Reason::of(reason as u8), Some(reason));
            assert!(!words.contains(&reason.word()), "{} twice", reason.word());
            words.push(reason.word());
        }
        assert_eq!(Reason::of(31), None);
    }
}
