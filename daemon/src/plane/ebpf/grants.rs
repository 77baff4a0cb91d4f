//! The learned grants of one generation: for each family a table and the filter before it, and the
//! kinds that both families' entries name. All of it is memory shared with the programs: a change is
//! a few stores, in an order in which a granted packet never meets a filter without its bit.

use super::filter::Filter;
use super::kinds::{Kind, Kinds};
use super::memory::Memory;
use super::table::{Entry, Full, Held, Table};
use super::tables::id;
use crate::policy::ZoneId;
use crate::policy::image::Change;
use crate::policy::origin::Origin;
use crate::policy::port::ClassMask;
use anyhow::Context as _;
use aya::Ebpf;
use egressd_common::address::{V4, V6, v4, v6};
use egressd_common::grants::{Seed, since, tick};
use egressd_common::layout::name;
use egressd_common::verdict::Reason;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// The learned grants of both families.
#[derive(Debug)]
pub(super) struct Grants {
    v4: Family<V4>,
    v6: Family<V6>,
    kinds: Kinds<Memory>,
}

#[derive(Debug)]
struct Family<A> {
    table: Table<A, Memory>,
    filter: Filter<Memory>,
    held: u32,
    /// Most entries, for which the table is large enough.
    most: u32,
}

/// Secret numbers of a new generation.
///
/// # Errors
/// When the kernel gives no random bytes.
pub(super) fn seed() -> anyhow::Result<Seed> {
    let mut bytes = [[0; 8]; 2];
    getrandom::fill(bytes.as_flattened_mut()).context("draw the seed of the table of grants")?;
    let [add, multiply] = bytes.map(u64::from_ne_bytes);
    Ok(Seed {
        add,
        multiply: multiply | 1,
    })
}

impl Grants {
    /// The empty tables in the maps of `ebpf`, which was loaded with `seed`, for at most `learned`
    /// addresses of each family.
    pub(super) fn of(ebpf: &Ebpf, seed: Seed, learned: u32) -> anyhow::Result<Self> {
        let memory = |name: &str| {
            let map = ebpf.map(name).with_context(|| format!("no map {name}"))?;
            Memory::of(map).with_context(|| format!("the map {name}"))
        };
        Ok(Self {
            v4: Family {
                table: Table::new(memory(name::GRANTS_V4)?, seed),
                filter: Filter::new(memory(name::FILTER_V4)?),
                held: 0,
                most: learned,
            },
            v6: Family {
                table: Table::new(memory(name::GRANTS_V6)?, seed),
                filter: Filter::new(memory(name::FILTER_V6)?),
                held: 0,
                most: learned,
            },
            kinds: Kinds::new(memory(name::KINDS)?),
        })
    }

    /// Applies changes, removals first so that what leaves makes room. `now` is the time of use, in
    /// nanoseconds of `CLOCK_MONOTONIC`, that new entries begin with; `packets` tells how many packets
    /// a kind let pass so far. Returns the changes for which there is no room.
    pub(super) fn apply(
        &mut self,
        changes: impl Iterator<Item = Change>,
        now: u64,
        packets: impl Fn(u16) -> u64,
    ) -> Vec<Change> {
        let (opening, closing): (Vec<_>, Vec<_>) =
            changes.partition(|change| !change.now.is_empty());
        for change in closing {
            let zone = id(change.zone);
            let was = match change.address {
                IpAddr::V4(address) => self.v4.close(zone, v4(address)),
                IpAddr::V6(address) => self.v6.close(zone, v6(address)),
            };
            if let Some(was) = was {
                self.kinds.release(was);
            }
        }
        let mut refused = Vec::new();
        for change in opening {
            let zone = id(change.zone);
            let mask = change.now;
            let kind = Kind {
                zone,
                mask,
                origin: change.origin,
                reason: Reason::Granted,
            };
            let Some(kind) = self.kinds.take(kind, &packets) else {
                self.narrow(zone, change.address, mask);
                refused.push(change);
                continue;
            };
            let opened = match change.address {
                IpAddr::V4(address) => self.v4.open(zone, v4(address), kind, tick(now)),
                IpAddr::V6(address) => self.v6.open(zone, v6(address), kind, tick(now)),
            };
            match opened {
                Ok(None) => {}
                Ok(Some(was)) => self.kinds.release(was),
                Err(Full) => {
                    self.kinds.release(kind);
                    refused.push(change);
                }
            }
        }
        refused
    }

    /// Closes an address that has more open than `mask`: that much cannot be told apart any more.
    fn narrow(&mut self, zone: u8, address: IpAddr, mask: ClassMask) {
        let opens = |kind: u16| self.kinds.mask(kind).0 & !mask.0 != 0;
        let was = match address {
            IpAddr::V4(address) => {
                let address = v4(address);
                let held = self.v4.table.get(zone, address);
                held.filter(|held| opens(held.kind))
                    .and_then(|_| self.v4.close(zone, address))
            }
            IpAddr::V6(address) => {
                let address = v6(address);
                let held = self.v6.table.get(zone, address);
                held.filter(|held| opens(held.kind))
                    .and_then(|_| self.v6.close(zone, address))
            }
        };
        if let Some(was) = was {
            self.kinds.release(was);
        }
    }

    /// Every grant.
    pub(super) fn iter(&self) -> impl Iterator<Item = (ZoneId, IpAddr, ClassMask)> {
        let of_v4 = self.v4.table.iter().map(|held| {
            let address = Ipv4Addr::from(held.address[0].to_ne_bytes());
            (held.zone, IpAddr::from(address), held.kind)
        });
        let of_v6 = self
            .v6
            .table
            .iter()
            .map(|held| (held.zone, IpAddr::from(ipv6(held.address)), held.kind));
        let named =
            |(zone, address, kind)| (ZoneId(u16::from(zone)), address, self.kinds.mask(kind));
        of_v4.chain(of_v6).map(named)
    }

    /// The grant of one address: what it opens, and the nanosecond of `CLOCK_MONOTONIC`, to about two
    /// seconds, in which it was last used or granted; `now` is the present one.
    pub(super) fn get(&self, zone: ZoneId, address: IpAddr, now: u64) -> Option<(ClassMask, u64)> {
        let zone = id(zone);
        let (kind, used) = match address {
            IpAddr::V4(address) => said(self.v4.table.get(zone, v4(address))?),
            IpAddr::V6(address) => said(self.v6.table.get(zone, v6(address))?),
        };
        Some((self.kinds.mask(kind), since(used, now)))
    }

    /// The kind of a place, see [`Kinds::take_for_place`].
    pub(super) fn kind_of_place(&mut self, zone: u8, origin: Origin) -> Option<u16> {
        self.kinds.take_for_place(zone, origin)
    }

    /// The kinds that entries name.
    pub(super) fn kinds(&self) -> &Kinds<Memory> {
        &self.kinds
    }

    /// The kinds alone.
    pub(super) fn into_kinds(self) -> Kinds<Memory> {
        self.kinds
    }
}

fn said<A>(held: Held<A>) -> (u16, u16) {
    (held.kind, held.used)
}

impl<A: Entry> Family<A> {
    /// Grants or changes what is granted; the kind that was granted before.
    fn open(&mut self, zone: u8, address: A, kind: u16, used: u16) -> Result<Option<u16>, Full> {
        if let Some(was) = self.table.change(zone, address, kind) {
            return Ok(Some(was));
        }
        if self.held >= self.most {
            return Err(Full);
        }
        let hash = self.table.hash(zone, address);
        self.filter.add(hash);
        let held = Held {
            zone,
            address,
            kind,
            used,
        };
        let inserted = self.table.insert(held);
        match inserted {
            Ok(()) => self.held += 1,
            Err(Full) => self.filter.remove(hash),
        }
        inserted.map(|()| None)
    }

    /// Takes a grant back; the kind that was granted.
    fn close(&mut self, zone: u8, address: A) -> Option<u16> {
        let was = self.table.remove(zone, address)?;
        self.filter.remove(self.table.hash(zone, address));
        self.held -= 1;
        Some(was)
    }
}

/// The address that four wire words are.
pub(super) fn ipv6(words: V6) -> Ipv6Addr {
    let mut octets = [0; 16];
    for (bytes, word) in octets.as_chunks_mut::<4>().0.iter_mut().zip(words) {
        *bytes = word.to_ne_bytes();
    }
    octets.into()
}
