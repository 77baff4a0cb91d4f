//! Whose a table of our name is, in words that `status` and the log use. PURE.

use super::kernel::{PERSIST, TableState};
use std::fmt;

/// Whose the table `inet egressd` is, from where one socket stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Ownership {
    /// There is none.
    Absent,
    /// The socket's own: nobody else can change it.
    Ours,
    /// It outlived its owner, who is gone: anybody can change it.
    Ownerless,
    /// Another living socket's, which has this port.
    ForeignOwned(u32),
    /// It never had an owner who could die: made by hand, with `own_table = false`, or before Linux 6.9.
    Plain,
}

impl Ownership {
    /// Whose `table` is for a socket with this port.
    pub(super) fn of(table: Option<&TableState>, port: u32) -> Self {
        let Some(table) = table else {
            return Self::Absent;
        };
        match table.owner {
            Some(owner) if owner == port => Self::Ours,
            Some(owner) => Self::ForeignOwned(owner),
            None if table.flags & PERSIST != 0 => Self::Ownerless,
            None => Self::Plain,
        }
    }

    /// In one word.
    pub(super) const fn word(self) -> &'static str {
        match self {
            Self::Absent => "absent",
            Self::Ours => "kept",
            Self::Ownerless => "ownerless",
            Self::ForeignOwned(_) => "foreign-owned",
            Self::Plain => "plain",
        }
    }

    /// What it means to a process that starts, for the log.
    pub(super) const fn meaning(self) -> &'static str {
        match self {
            Self::Absent => "there is no table of before",
            Self::Ours => {
                "the table of before is still owned, by the socket that the service manager kept"
            }
            Self::Ownerless => {
                "the table of before outlived its owner and was open to others meanwhile; it is replaced"
            }
            Self::ForeignOwned(_) => "the table belongs to a socket of another running process",
            Self::Plain => {
                "the table was made by hand, with own_table = false or before Linux 6.9, and is open to \
                 others; it is replaced"
            }
        }
    }
}

impl fmt::Display for Ownership {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.word())
    }
}

#[cfg(test)]
mod tests {
    use super::super::kernel::OWNER;
    use super::*;

    #[test]
    fn each_case_has_its_word() {
        fn check(table: Option<(u32, Option<u32>)>, expected: &str) {
            let table = table.map(|(flags, owner)| TableState {
                handle: 1,
                flags,
                owner,
                contents: 0,
            });
            let found = Ownership::of(table.as_ref(), 4711);
            assert_eq!(found.to_string(), expected);
        }
        check(None, "absent");
        check(Some((OWNER | PERSIST, Some(4711))), "kept");
        check(Some((PERSIST, None)), "ownerless");
        check(Some((OWNER | PERSIST, Some(4712))), "foreign-owned");
        check(Some((OWNER, Some(4712))), "foreign-owned");
        check(Some((0, None)), "plain");
        // Asleep: there, and doing nothing. Whose it is does not change.
        check(Some((1, None)), "plain");
    }
}
