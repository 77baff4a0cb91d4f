//! What the kernel holds and what a plane put there, where the two differ. PURE.

use std::fmt;

/// Each way in which a plane can be found changed, in one word.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Word {
    /// The nft table is gone.
    MissingTable,
    /// Another table has its name.
    ForeignTable,
    /// The table is ours, but somebody changed it.
    ForeignEdit,
    /// The table is ours, but its owner is gone: the kernel no longer keeps others out of it.
    Ownerless,
    /// The table is ours, but another process owns it now.
    ForeignOwner,
    /// The table is ours, but made one that keeps nobody out.
    Plain,
    /// A set lacks an address that was put into it.
    MissingElement,
    /// A set holds an address that nobody put into it.
    ExtraElement,
    /// An interface has no XDP program any more.
    XdpDetached,
    /// An interface has no program at traffic control any more.
    TcxDetached,
    /// An interface runs another program than the newest.
    ForeignProgram,
    /// A link would not outlive the process: its pin is gone, or the file system it was on.
    PinMissing,
    /// A network card takes off VLAN tags that a program must see.
    TagsUnseen,
    /// What the kernel holds cannot be told.
    Unknown,
}

impl Word {
    /// Every word, in order.
    pub const ALL: [Self; 14] = [
        Self::MissingTable,
        Self::ForeignTable,
        Self::ForeignEdit,
        Self::Ownerless,
        Self::ForeignOwner,
        Self::Plain,
        Self::MissingElement,
        Self::ExtraElement,
        Self::XdpDetached,
        Self::TcxDetached,
        Self::ForeignProgram,
        Self::PinMissing,
        Self::TagsUnseen,
        Self::Unknown,
    ];

    /// As logs and `egressctl status` write it.
    #[must_use]
    pub const fn text(self) -> &'static str {
        match self {
            Self::MissingTable => "missing-table",
            Self::ForeignTable => "foreign-table",
            Self::ForeignEdit => "foreign-edit",
            Self::Ownerless => "ownerless",
            Self::ForeignOwner => "foreign-owned",
            Self::Plain => "plain",
            Self::MissingElement => "missing-element",
            Self::ExtraElement => "extra-element",
            Self::XdpDetached => "xdp-detached",
            Self::TcxDetached => "tcx-detached",
            Self::ForeignProgram => "foreign-program",
            Self::PinMissing => "pin-missing",
            Self::TagsUnseen => "tags-unseen",
            Self::Unknown => "unknown",
        }
    }

    /// Whether connections may have been made meanwhile that no policy grants.
    #[must_use]
    pub const fn may_have_opened(self) -> bool {
        match self {
            Self::MissingTable
            | Self::ForeignTable
            | Self::ForeignEdit
            | Self::Ownerless
            | Self::ForeignOwner
            | Self::Plain
            | Self::ExtraElement
            | Self::XdpDetached
            | Self::TcxDetached
            | Self::ForeignProgram
            | Self::TagsUnseen
            | Self::Unknown => true,
            Self::MissingElement | Self::PinMissing => false,
        }
    }
}

impl fmt::Display for Word {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.text())
    }
}

/// What a look at a plane found changed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{what}")]
pub struct Found {
    /// In one word.
    pub word: Word,
    /// In a sentence, with names and numbers.
    pub what: String,
}

impl Found {
    /// A finding in words.
    pub fn new(word: Word, what: impl Into<String>) -> Self {
        Self {
            word,
            what: what.into(),
        }
    }
}

/// What was found changed, and what the plane itself made of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Drift {
    /// `nft`, `ebpf` or, in tests, another name.
    pub plane: &'static str,
    /// What was found.
    pub found: Found,
    /// What became of it.
    pub outcome: Outcome,
}

/// What a plane made of a drift.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// It is as it was before, from what the plane itself remembers.
    Mended,
    /// Only a replacement of everything helps, because of this.
    Replace(String),
    /// It cannot be put right now, because of this, and a replacement would not help. What is in force
    /// stays in force; every check tries again.
    Waits(String),
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    #[test]
    fn words_are_distinct_and_in_order() {
        let words: BTreeSet<_> = Word::ALL.iter().map(|word| word.text()).collect();
        assert_eq!(words.len(), Word::ALL.len());
        for (number, word) in Word::ALL.into_iter().enumerate() {
            assert_eq!(word as usize, number);
        }
    }
}
