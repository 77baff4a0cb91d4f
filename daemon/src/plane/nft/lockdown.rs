//! Puts the static closed table in force and takes it away, without a daemon. Knows no other table.

use super::transaction::Transaction;
use super::{MsgType, PATIENCE, Socket, fill, kernel};
use crate::plane::netlink::{Failure, Refusal};
use crate::plane::ruleset::{LOCKDOWN_TABLE, Scope};
use anyhow::{Context as _, ensure};
use nix::errno::Errno;
use std::collections::BTreeMap;

/// Closes `scope` in the calling thread's network namespace, in one transaction, in place of what an
/// earlier call closed. Returns whether there was such a thing.
///
/// # Errors
/// When the kernel refuses; what was closed before still is.
pub fn lock(scope: &Scope) -> anyhow::Result<bool> {
    let mut socket = open()?;
    let before = kernel::table_of(&mut socket, LOCKDOWN_TABLE).context("read the nft tables")?;
    let counted = match before {
        // Another word on the same lockdown: what it dropped so far is not forgotten.
        Some(_) => kernel::counters_of(&mut socket, LOCKDOWN_TABLE).unwrap_or_default(),
        None => BTreeMap::default(),
    };
    let ruleset = scope.ruleset();
    let mut scratch = Vec::new();
    let mut transaction = Transaction::about(&mut scratch, LOCKDOWN_TABLE);
    transaction.recreate_table(None);
    for tally in &ruleset.tallies {
        let packets = counted.get(&tally.to_string()).copied();
        transaction.counter_from(MsgType::Add, tally, packets.unwrap_or(0));
    }
    fill(&mut transaction, &ruleset, None, &[]);
    transaction
        .commit(&mut socket)
        .with_context(|| format!("load table inet {LOCKDOWN_TABLE}"))?;
    let rules = kernel::rule_count_of(&mut socket, LOCKDOWN_TABLE).context("read it back")?;
    let wanted: usize = ruleset.chains.iter().map(|chain| chain.rules.len()).sum();
    ensure!(
        rules == wanted,
        "table inet {LOCKDOWN_TABLE} has {rules} rules instead of {wanted}"
    );
    Ok(before.is_some())
}

/// Takes the closed table away. Returns whether there was one.
///
/// # Errors
/// When the kernel refuses; then it is still closed.
pub fn lift() -> anyhow::Result<bool> {
    if kernel::has_no_tables() {
        return Ok(false);
    }
    let mut scratch = Vec::new();
    let mut transaction = Transaction::about(&mut scratch, LOCKDOWN_TABLE);
    transaction.remove_table();
    match transaction.commit(&mut open()?) {
        Ok(()) => Ok(true),
        Err(Failure::Refused(Refusal {
            errno: Errno::ENOENT,
            ..
        })) => Ok(false),
        Err(failure) => Err(failure).with_context(|| format!("remove table inet {LOCKDOWN_TABLE}")),
    }
}

/// How many packets the closed table has dropped, if it is there.
///
/// # Errors
/// When the kernel cannot be asked.
pub fn locked() -> anyhow::Result<Option<u64>> {
    if kernel::has_no_tables() {
        return Ok(None);
    }
    let mut socket = open()?;
    let table = kernel::table_of(&mut socket, LOCKDOWN_TABLE).context("read the nft tables")?;
    if table.is_none() {
        return Ok(None);
    }
    let counted = kernel::counters_of(&mut socket, LOCKDOWN_TABLE).context("read its counter")?;
    let dropped = counted.get(&Scope::tally().to_string()).copied();
    Ok(Some(dropped.unwrap_or(0)))
}

fn open() -> anyhow::Result<Socket> {
    Socket::open(PATIENCE).context("open a netlink socket")
}
