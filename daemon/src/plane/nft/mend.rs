//! Looks whether the table is as this process made it, and makes it again from what the process
//! remembers: another plane need not wait for that, nor the policy be asked.

use super::ownership::Ownership;
use super::standing::Standing;
use super::{NftPlane, TABLE, kernel};
use crate::plane::Plane as _;
use crate::plane::drift::{Drift, Found, Outcome, Word};
use anyhow::Context as _;

impl NftPlane {
    /// Whether the table this process made is the one in place.
    pub(super) fn check(&mut self) -> Result<(), Found> {
        let Some(standing) = &mut self.standing else {
            return Err(unknown("is unknown"));
        };
        if standing.drifted {
            return Err(Found::new(
                Word::MissingElement,
                format!("table inet {TABLE} lacked an element that it should have held"),
            ));
        }
        let found = kernel::table(&mut self.socket)
            .map_err(|failure| unknown(&format!("cannot be read: {failure}")))?;
        let Some(found) = found else {
            return Err(Found::new(
                Word::MissingTable,
                format!("table inet {TABLE} is gone"),
            ));
        };
        let ours = standing.table;
        if found.handle != ours.handle {
            let what = format!(
                "table inet {TABLE} was replaced (handle {} instead of {})",
                found.handle, ours.handle
            );
            return Err(Found::new(Word::ForeignTable, what));
        }
        if found.owner != ours.owner || found.flags != ours.flags {
            let (word, whose) = match Ownership::of(Some(&found), self.socket.port()) {
                Ownership::ForeignOwned(owner) => (
                    Word::ForeignOwner,
                    format!("belongs to the socket with port {owner}"),
                ),
                Ownership::Ownerless => (Word::Ownerless, "lost its owner".to_owned()),
                Ownership::Plain | Ownership::Ours | Ownership::Absent => {
                    (Word::Plain, format!("has flags {}", found.flags))
                }
            };
            return Err(Found::new(word, format!("table inet {TABLE} {whose}")));
        }
        if found.contents != ours.contents {
            let what = format!(
                "table inet {TABLE} has {} chains, sets and counters instead of {}",
                found.contents, ours.contents
            );
            return Err(Found::new(Word::ForeignEdit, what));
        }
        if ours.owner.is_some() {
            return Ok(());
        }
        // Nobody else can edit a table that is owned; one that is not is counted when any rule of
        // the namespace changed.
        let generation = kernel::generation(&mut self.socket)
            .map_err(|failure| unknown(&format!("cannot be told: {failure}")))?;
        if generation != standing.generation {
            let rules = kernel::rule_count(&mut self.socket)
                .map_err(|failure| unknown(&format!("cannot be counted: {failure}")))?;
            if rules != standing.rules {
                let what = format!(
                    "table inet {TABLE} has {rules} rules instead of {}",
                    standing.rules
                );
                return Err(Found::new(Word::ForeignEdit, what));
            }
            standing.generation = generation;
        }
        Ok(())
    }

    /// Looks, and makes the table again if it is not as it was made.
    pub(super) fn mend_table(&mut self) -> Option<Drift> {
        let found = self.check().err()?;
        let outcome = match self.restore() {
            Ok(()) => Outcome::Mended,
            Err(error) => Outcome::Replace(format!("{error:#}")),
        };
        Some(Drift {
            plane: self.name(),
            found,
            outcome,
        })
    }

    /// Puts what this process last put in force in place of whatever is there, in one transaction.
    fn restore(&mut self) -> anyhow::Result<()> {
        self.stranger()?;
        let counted = self.counted();
        let standing = self.standing.take();
        let Standing { ruleset, held, .. } = standing.context("what was in force is not known")?;
        self.recreate(&ruleset, &held)
            .context("load the nft table")?;
        self.counted = counted;
        self.stand(ruleset, held)
    }
}

fn unknown(what: &str) -> Found {
    Found::new(
        Word::Unknown,
        format!("the state of table inet {TABLE} {what}"),
    )
}
