//! What the kernel really holds, read back over netlink (Linux `uapi/linux/netfilter/nf_tables.h`).

use super::PATIENCE;
use super::transaction::{COUNTER, octets};
use crate::plane::netlink::{Attributes, Failure, Nest, Request, Socket, number, wide_number};
use crate::plane::ruleset::TABLE;
use nix::errno::Errno;
use std::collections::BTreeMap;
use std::net::IpAddr;

const SUBSYSTEM: u8 = libc::NFNL_SUBSYS_NFTABLES as u8;
const INET: u8 = libc::NFPROTO_INET as u8;

const TABLE_NAME: u16 = 1;
const TABLE_FLAGS: u16 = 2;
const TABLE_USE: u16 = 3;
const TABLE_HANDLE: u16 = 4;
const TABLE_OWNER: u16 = 7;
const OBJECT_TABLE: u16 = 1;
const OBJECT_NAME: u16 = 2;
const OBJECT_TYPE: u16 = 3;
const OBJECT_DATA: u16 = 4;
const COUNTER_PACKETS: u16 = 2;
const LIST_TABLE: u16 = 1;
const LIST_SET: u16 = 2;
const LIST_ELEMENTS: u16 = 3;
const LIST_ITEM: u16 = 1;
const ELEMENT_KEY: u16 = 1;
const DATA_VALUE: u16 = 1;
const CHAIN_TABLE: u16 = 1;
const CHAIN_NAME: u16 = 3;
const RULE_TABLE: u16 = 1;
const GENERATION_ID: u16 = 1;

/// `NFT_TABLE_F_OWNER`, since Linux 5.12: only the socket that made the table changes it.
pub(super) const OWNER: u32 = 2;
/// `NFT_TABLE_F_PERSIST`, since Linux 6.9: the table outlives its owner.
pub(super) const PERSIST: u32 = 4;

/// A table `inet egressd` as the kernel describes it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct TableState {
    /// Never used twice since boot.
    pub(super) handle: u64,
    pub(super) flags: u32,
    /// The port of the socket that owns it.
    pub(super) owner: Option<u32>,
    /// Chains, sets, maps and counters in it.
    pub(super) contents: u32,
}

/// The plane's own table, if there is one.
pub(super) fn table(socket: &mut Socket) -> Result<Option<TableState>, Failure> {
    table_of(socket, TABLE)
}

/// Whether this kernel was built without nf_tables, or its module is not there: then no table is either. An
/// answer of any other kind is no.
pub(super) fn has_no_tables() -> bool {
    let absent = |errno| matches!(errno, Errno::EINVAL | Errno::EPROTONOSUPPORT);
    match Socket::open(PATIENCE) {
        Err(errno) => errno == Errno::EPROTONOSUPPORT,
        Ok(mut socket) => match generation(&mut socket) {
            Err(Failure::Refused(refusal)) => absent(refusal.errno),
            Ok(_) | Err(Failure::Unknown(_)) => false,
        },
    }
}

/// A table of family `inet`, if there is one of this name.
pub(super) fn table_of(socket: &mut Socket, name: &str) -> Result<Option<TableState>, Failure> {
    let request = ask(libc::NFT_MSG_GETTABLE).with_text(TABLE_NAME, name);
    let mut state = None;
    let result = socket.request(request, |payload| {
        let attributes = Attributes::of_netfilter(payload);
        let read = |kind| attributes.get(kind).and_then(number);
        state = attributes
            .get(TABLE_HANDLE)
            .and_then(wide_number)
            .map(|handle| TableState {
                handle,
                flags: read(TABLE_FLAGS).unwrap_or(0),
                owner: read(TABLE_OWNER),
                contents: read(TABLE_USE).unwrap_or(0),
            });
    });
    match result {
        Ok(()) => Ok(state),
        Err(Failure::Refused(refusal)) if refusal.errno == Errno::ENOENT => Ok(None),
        Err(failure) => Err(failure),
    }
}

/// The number of the last committed transaction of the namespace, whoever made it.
pub(super) fn generation(socket: &mut Socket) -> Result<u32, Failure> {
    let mut generation = 0;
    socket.request(ask(libc::NFT_MSG_GETGEN), |payload| {
        let read = Attributes::of_netfilter(payload)
            .get(GENERATION_ID)
            .and_then(number);
        generation = read.unwrap_or(generation);
    })?;
    Ok(generation)
}

/// Whether the table, whoever made it, has this chain.
pub(super) fn has_chain(socket: &mut Socket, name: &str) -> Result<bool, Failure> {
    let request = ask(libc::NFT_MSG_GETCHAIN)
        .with_text(CHAIN_TABLE, TABLE)
        .with_text(CHAIN_NAME, name);
    match socket.request(request, |_| {}) {
        Ok(()) => Ok(true),
        Err(Failure::Refused(refusal)) if refusal.errno == Errno::ENOENT => Ok(false),
        Err(failure) => Err(failure),
    }
}

/// How many rules the plane's own table has.
pub(super) fn rule_count(socket: &mut Socket) -> Result<usize, Failure> {
    rule_count_of(socket, TABLE)
}

/// How many rules a table has.
pub(super) fn rule_count_of(socket: &mut Socket, table: &str) -> Result<usize, Failure> {
    loop {
        let mut count = 0;
        let request = ask(libc::NFT_MSG_GETRULE).with_text(RULE_TABLE, table);
        let whole = socket.dump(request, |_| count += 1)?;
        if whole {
            return Ok(count);
        }
    }
}

/// The elements of a learned set.
pub(super) fn addresses(socket: &mut Socket, set: &str) -> Result<Vec<IpAddr>, Failure> {
    loop {
        let mut found = Vec::new();
        let request = ask(libc::NFT_MSG_GETSETELEM)
            .with_text(LIST_TABLE, TABLE)
            .with_text(LIST_SET, set);
        let whole = socket.dump(request, |payload| {
            let list = Attributes::of_netfilter(payload).nest(LIST_ELEMENTS);
            found.extend(list.filter_map(|(_, element)| {
                address(Attributes::new(element).nest(ELEMENT_KEY).get(DATA_VALUE)?)
            }));
        })?;
        // A dump torn by a change of somebody else's is taken again. A rehash may show an element
        // twice; the caller's map does not mind.
        if whole {
            return Ok(found);
        }
    }
}

/// Whether a set holds an address, as itself or within an interval.
pub(super) fn has(socket: &mut Socket, set: &str, address: IpAddr) -> Result<bool, Failure> {
    let key = Nest::default().with(DATA_VALUE, &octets(address));
    let element = Nest::default().with_nest(ELEMENT_KEY, key);
    let request = ask(libc::NFT_MSG_GETSETELEM)
        .with_text(LIST_TABLE, TABLE)
        .with_text(LIST_SET, set)
        .with_nest(LIST_ELEMENTS, Nest::default().with_nest(LIST_ITEM, element));
    match socket.request(request, |_| {}) {
        Ok(()) => Ok(true),
        Err(Failure::Refused(refusal)) if refusal.errno == Errno::ENOENT => Ok(false),
        Err(failure) => Err(failure),
    }
}

/// Packets of every named counter of the plane's own table.
pub(super) fn counters(socket: &mut Socket) -> Result<BTreeMap<String, u64>, Failure> {
    counters_of(socket, TABLE)
}

/// Packets of every named counter of a table.
pub(super) fn counters_of(
    socket: &mut Socket,
    table: &str,
) -> Result<BTreeMap<String, u64>, Failure> {
    let mut found = BTreeMap::new();
    let request = ask(libc::NFT_MSG_GETOBJ)
        .with_text(OBJECT_TABLE, table)
        .with(OBJECT_TYPE, &COUNTER.to_be_bytes());
    socket.dump(request, |payload| {
        let attributes = Attributes::of_netfilter(payload);
        let packets = attributes
            .nest(OBJECT_DATA)
            .get(COUNTER_PACKETS)
            .and_then(wide_number);
        if let (Some(name), Some(packets)) = (attributes.get(OBJECT_NAME), packets) {
            let name = String::from_utf8_lossy(name)
                .trim_end_matches('\0')
                .to_owned();
            found.insert(name, packets);
        }
    })?;
    Ok(found)
}

fn ask(kind: i32) -> Request {
    Request::new(SUBSYSTEM, kind as u8, INET, 0)
}

fn address(key: &[u8]) -> Option<IpAddr> {
    match key.len() {
        4 => key.first_chunk::<4>().map(|octets| IpAddr::from(*octets)),
        16 => key.first_chunk::<16>().map(|octets| IpAddr::from(*octets)),
        _ => None,
    }
}
