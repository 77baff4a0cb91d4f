//! What promises say must become of a packet, in each world it may meet.

/// How the gateway is set up.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum World {
    /// Both planes; connections into the zone are others' business, and it serves a UDP port.
    Serving,
    /// Both planes; connections into the zone are others' business.
    Allowing,
    /// Both planes; nobody may open connections into the zone.
    Denying,
    /// The ebpf plane alone.
    Alone,
    /// The ebpf plane alone, on a device without Ethernet headers.
    Bare,
    /// As `Serving`, in audit mode.
    Trial,
}

impl World {
    /// All of them.
    pub const ALL: [Self; 6] = [
        Self::Serving,
        Self::Allowing,
        Self::Denying,
        Self::Alone,
        Self::Bare,
        Self::Trial,
    ];

    /// Whether nft judges what passes the ebpf plane.
    #[must_use]
    pub const fn nft_behind(self) -> bool {
        match self {
            Self::Serving | Self::Allowing | Self::Denying | Self::Trial => true,
            Self::Alone | Self::Bare => false,
        }
    }

    /// Whether frames begin with an Ethernet header.
    #[must_use]
    pub const fn ethernet(self) -> bool {
        match self {
            Self::Serving | Self::Allowing | Self::Denying | Self::Alone | Self::Trial => true,
            Self::Bare => false,
        }
    }

    /// Whether the zone serves [`super::plan::SERVED`].
    #[must_use]
    pub const fn serves(self) -> bool {
        match self {
            Self::Serving | Self::Trial => true,
            Self::Allowing | Self::Denying | Self::Alone | Self::Bare => false,
        }
    }

    /// Whether nobody may open connections into the zone.
    #[must_use]
    pub const fn denies(self) -> bool {
        match self {
            Self::Denying => true,
            Self::Serving | Self::Allowing | Self::Alone | Self::Bare | Self::Trial => false,
        }
    }

    /// Whether the zone is in audit mode.
    #[must_use]
    pub const fn audits(self) -> bool {
        match self {
            Self::Trial => true,
            Self::Serving | Self::Allowing | Self::Denying | Self::Alone | Self::Bare => false,
        }
    }
}

/// What a promise states, whatever the world.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rule {
    /// It is forwarded everywhere.
    Open,
    /// The ebpf plane lets it pass everywhere; whether it is forwarded depends on more than one frame
    /// or is the kernel's business.
    Held,
    /// The gateway itself takes it or nobody does: the ebpf plane lets it pass, it is never forwarded.
    Stack,
    /// Refused everywhere.
    Closed,
    /// It starts nothing and belongs to no flow: left to nft where that is behind and the zone does
    /// not deny inbound connections, refused elsewhere.
    Continues,
    /// Left to nft wherever that is behind, refused elsewhere.
    Left,
    /// A reply from the UDP port that the zone may serve, to an address that nothing grants.
    Served,
}

/// What must become of a frame in one world.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Expected {
    /// The ebpf plane lets it pass, and it is forwarded.
    Forwarded,
    /// The ebpf plane lets it pass.
    Passed,
    /// The ebpf plane lets it pass, and it is never forwarded.
    NotForwarded,
    /// The ebpf plane refuses it, and it is never forwarded.
    Refused,
    /// The ebpf plane would refuse it; in audit mode it passes.
    Audited,
}

impl Expected {
    /// Whether the ebpf plane lets it pass.
    #[must_use]
    pub const fn passes(self) -> bool {
        match self {
            Self::Forwarded | Self::Passed | Self::NotForwarded | Self::Audited => true,
            Self::Refused => false,
        }
    }

    /// Whether it must arrive behind the gateway; `None` where nothing is promised of that.
    #[must_use]
    pub const fn arrives(self) -> Option<bool> {
        match self {
            Self::Forwarded => Some(true),
            Self::NotForwarded | Self::Refused => Some(false),
            Self::Passed | Self::Audited => None,
        }
    }
}

impl Rule {
    /// What it means in `world`.
    #[must_use]
    pub const fn within(self, world: World) -> Expected {
        let refused = if world.audits() {
            Expected::Audited
        } else {
            Expected::Refused
        };
        // In audit mode nft lets pass what it would refuse, too.
        let left = if world.audits() {
            Expected::Passed
        } else {
            Expected::NotForwarded
        };
        match self {
            Self::Open => Expected::Forwarded,
            Self::Held => Expected::Passed,
            Self::Stack => Expected::NotForwarded,
            Self::Closed => refused,
            Self::Continues if world.nft_behind() && !world.denies() => left,
            Self::Left if world.nft_behind() => left,
            Self::Served if world.serves() => left,
            Self::Continues | Self::Left | Self::Served => refused,
        }
    }
}
