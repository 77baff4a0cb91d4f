//! The table that an earlier run left, taken away: by who may, and never from under a living owner.

use super::ownership::Ownership;
use super::transaction::Transaction;
use super::{Socket, belongs_to, kernel, socket_with};
use anyhow::{Context as _, bail};
use std::os::fd::OwnedFd;

/// Deletes the table that an earlier run left behind in the calling thread's network namespace: a
/// plane that is switched off must not stay in force. To be called once other planes are in force.
/// Returns whether there was one. A table that a living process owns stays, unless through the socket that
/// was `kept`.
///
/// # Errors
/// When the kernel cannot be asked, or refuses.
pub fn remove_left_behind(kept: Option<OwnedFd>) -> anyhow::Result<bool> {
    if kernel::has_no_tables() {
        return Ok(false);
    }
    let (mut socket, found) = socket_with(kept)?;
    match found {
        Ownership::Absent => Ok(false),
        // With its socket an owner loses the table: who is named here lives.
        Ownership::ForeignOwned(owner) => {
            log::warn!(target: "plane", plane = "nft"; "{}", belongs_to(owner));
            Ok(false)
        }
        Ownership::Ours | Ownership::Ownerless | Ownership::Plain => {
            delete(&mut socket).map(|()| true)
        }
    }
}

/// Deletes the table, whoever made it, unless a living socket owns it. Returns whether there was one.
///
/// # Errors
/// When it has an owner, the kernel cannot be asked, or refuses.
pub fn remove() -> anyhow::Result<bool> {
    if kernel::has_no_tables() {
        return Ok(false);
    }
    let (mut socket, found) = socket_with(None)?;
    match found {
        Ownership::Absent => Ok(false),
        Ownership::ForeignOwned(owner) => bail!(belongs_to(owner)),
        Ownership::Ours | Ownership::Ownerless | Ownership::Plain => {
            delete(&mut socket).map(|()| true)
        }
    }
}

fn delete(socket: &mut Socket) -> anyhow::Result<()> {
    let mut scratch = Vec::new();
    let mut transaction = Transaction::new(&mut scratch);
    transaction.remove_table();
    transaction
        .commit(socket)
        .context("remove the nft table that was left behind")
}
