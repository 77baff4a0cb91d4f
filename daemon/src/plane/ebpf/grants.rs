//! Changes to the map of grants of one address family and to the filter before it, in an order in
//! which a granted packet never meets a filter without its bit.

use super::filter::Filter;
use crate::policy::image::Change;
use anyhow::Context as _;
use aya::maps::{Array, HashMap, MapError};
use aya::{Ebpf, Pod};
use egressd_common::layout::Grant;

/// `BPF_NOEXIST`: insert, but do not overwrite.
const NEW_ONLY: u64 = 1;

/// Applies changes with their keys to the maps called `(grants, filter)`. `now` is the last use
/// that new entries begin with. Returns the changes refused because the map is full.
pub(super) fn apply<K: Pod + AsRef<[u32]>>(
    ebpf: &mut Ebpf,
    (grants, words): (&str, &str),
    filter: &mut Filter,
    changes: &[(K, Change)],
    now: u64,
) -> anyhow::Result<Vec<Change>> {
    if changes.is_empty() {
        return Ok(Vec::new());
    }
    let map = ebpf
        .map_mut(grants)
        .with_context(|| format!("no map {grants}"))?;
    let mut map: HashMap<_, K, Grant> = map.try_into()?;
    for (key, change) in changes {
        if !change.now.is_empty() {
            filter.add(key.as_ref());
        } else if present(map.remove(key))?.is_some() {
            filter.remove(key.as_ref());
        }
    }
    write(ebpf, words, filter)?;

    let map = ebpf
        .map_mut(grants)
        .with_context(|| format!("no map {grants}"))?;
    let mut map: HashMap<_, K, Grant> = map.try_into()?;
    let mut refused = Vec::new();
    for (key, change) in changes.iter().filter(|(_, change)| !change.now.is_empty()) {
        let grant = [change.now.0, now];
        match outcome(map.insert(key, grant, NEW_ONLY))? {
            Outcome::Done => {}
            Outcome::Exists => {
                filter.remove(key.as_ref());
                map.insert(key, grant, 0)?;
            }
            Outcome::Full => {
                filter.remove(key.as_ref());
                refused.push(*change);
            }
        }
    }
    write(ebpf, words, filter)?;
    Ok(refused)
}

fn write(ebpf: &mut Ebpf, words: &str, filter: &mut Filter) -> anyhow::Result<()> {
    let map = ebpf
        .map_mut(words)
        .with_context(|| format!("no map {words}"))?;
    let mut map: Array<_, u64> = map.try_into()?;
    for (index, word) in filter.take_changed() {
        map.set(index, word, 0)?;
    }
    Ok(())
}

enum Outcome {
    Done,
    Exists,
    Full,
}

fn outcome(inserted: Result<(), MapError>) -> Result<Outcome, MapError> {
    let Err(MapError::SyscallError(error)) = &inserted else {
        return inserted.map(|()| Outcome::Done);
    };
    match error.io_error.raw_os_error() {
        Some(libc::EEXIST) => Ok(Outcome::Exists),
        Some(libc::E2BIG | libc::ENOSPC | libc::ENOMEM) => Ok(Outcome::Full),
        Some(_) | None => inserted.map(|()| Outcome::Done),
    }
}

/// Turns "no such entry" into `None`.
pub(super) fn present<T>(result: Result<T, MapError>) -> anyhow::Result<Option<T>> {
    match result {
        Ok(found) => Ok(Some(found)),
        Err(MapError::KeyNotFound) => Ok(None),
        Err(MapError::SyscallError(error))
            if error.io_error.raw_os_error() == Some(libc::ENOENT) =>
        {
            Ok(None)
        }
        Err(error) => Err(error.into()),
    }
}
