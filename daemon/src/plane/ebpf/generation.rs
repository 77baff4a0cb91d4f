//! One generation of the kernel side: an object loaded with its own maps. Fills them, changes
//! them, reads them back; knows nothing of interfaces.

use super::tables::{Tables, id};
use crate::plane::Holdings;
use crate::policy::ZoneId;
use crate::policy::image::{Change, Image};
use crate::policy::port::ClassMask;
use anyhow::Context as _;
use aya::maps::lpm_trie::{Key, LpmTrie};
use aya::maps::{HashMap, Map, MapData, MapError, PerCpuArray, RingBuf};
use aya::programs::{Program, SchedClassifier, Xdp};
use aya::{Ebpf, EbpfLoader};
use egressd_common::address::{v4, v6};
use egressd_common::decide::Place;
use egressd_common::layout::{self, Grant, KeyV4, KeyV6, Keyed, Report, Throttle, name};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::path::Path;

/// The kernel programs, or nothing in a binary built without them.
static OBJECT: &[u8] = aya::include_bytes_aligned!(concat!(env!("OUT_DIR"), "/egressd.bpf.o"));

/// An object loaded, with its maps.
pub(super) struct Generation {
    ebpf: Ebpf,
    reports: RingBuf<MapData>,
    /// Names of zones by id, for counters.
    pub(super) zones: Vec<(u8, String)>,
}

/// Says that the binary has no kernel programs, if so.
pub(super) fn object() -> anyhow::Result<&'static [u8]> {
    anyhow::ensure!(
        !OBJECT.is_empty(),
        "this binary was built without the eBPF object; build it with `cargo xtask build`"
    );
    Ok(OBJECT)
}

impl Generation {
    /// Loads the object with fresh maps and fills them with `image`, of which `tables` were made.
    /// `learned` is the most addresses per family that the maps can hold.
    pub(super) fn load(
        image: &Image,
        tables: &Tables,
        learned: u32,
        nft_behind: bool,
    ) -> anyhow::Result<Self> {
        let entries = |length: usize| u32::try_from(length.max(1)).unwrap_or(u32::MAX);
        let mut ebpf = EbpfLoader::new()
            .btf(None)
            .override_global(name::PORTS, tables.ports.as_slice(), true)
            .override_global(name::PROTOCOLS, tables.protocols.as_slice(), true)
            .override_global(name::MASKS, tables.masks.as_slice(), true)
            .override_global(name::NFT_BEHIND, &u8::from(nft_behind), true)
            .override_global(name::UNZONED_ACCEPT, &u8::from(tables.unzoned_accept), true)
            .map_max_entries(name::SOURCES_V4, entries(tables.sources.v4.len()))
            .map_max_entries(name::SOURCES_V6, entries(tables.sources.v6.len()))
            .map_max_entries(name::PLACES_V4, entries(tables.places.v4.len()))
            .map_max_entries(name::PLACES_V6, entries(tables.places.v6.len()))
            .map_max_entries(name::SERVES, entries(tables.serves.len()))
            .map_max_entries(name::GRANTS_V4, learned)
            .map_max_entries(name::GRANTS_V6, learned)
            .load(object()?)
            .context("load the eBPF object")?;
        let ring = ebpf
            .take_map(name::REFUSED)
            .context("the object has no ring buffer")?;
        let reports = RingBuf::try_from(ring).context("map the ring buffer")?;
        let zones = image
            .zones
            .iter()
            .map(|zone| (id(zone.id), zone.name.clone()))
            .collect();
        let mut generation = Self {
            ebpf,
            reports,
            zones,
        };
        generation.fill(tables).context("fill the eBPF maps")?;
        let grants = image.grants.iter().map(|&(zone, address, now)| Change {
            zone,
            address,
            was: ClassMask::NONE,
            now,
        });
        let refused = generation.apply(grants).context("fill the eBPF maps")?;
        anyhow::ensure!(
            refused.is_empty(),
            "{} learned addresses do not fit into maps of {learned} per family",
            refused.len()
        );
        Ok(generation)
    }

    fn fill(&mut self, tables: &Tables) -> anyhow::Result<()> {
        let mut interfaces: HashMap<_, u32, u32> = self.map_mut(name::INTERFACES)?.try_into()?;
        for (index, wanted) in &tables.interfaces {
            interfaces.insert(index, wanted.packed, 0)?;
        }
        let mut serves: HashMap<_, u32, u32> = self.map_mut(name::SERVES)?.try_into()?;
        for key in &tables.serves {
            serves.insert(key, 1, 0)?;
        }
        self.fill_trie(name::SOURCES_V4, &tables.sources.v4)?;
        self.fill_trie(name::SOURCES_V6, &tables.sources.v6)?;
        self.fill_trie(name::PLACES_V4, &tables.places.v4)?;
        self.fill_trie(name::PLACES_V6, &tables.places.v6)
    }

    fn fill_trie<K: aya::Pod, V: aya::Pod>(
        &mut self,
        map: &str,
        entries: &[(u32, K, V)],
    ) -> anyhow::Result<()> {
        let mut trie: LpmTrie<_, K, V> = self.map_mut(map)?.try_into()?;
        for (bits, data, value) in entries {
            trie.insert(&Key::new(*bits, *data), value, 0)?;
        }
        Ok(())
    }

    fn map(&self, name: &str) -> anyhow::Result<&Map> {
        self.ebpf
            .map(name)
            .with_context(|| format!("the object has no map {name}"))
    }

    fn map_mut(&mut self, name: &str) -> anyhow::Result<&mut Map> {
        self.ebpf
            .map_mut(name)
            .with_context(|| format!("the object has no map {name}"))
    }

    /// The XDP program, loaded if it was not.
    pub(super) fn xdp(&mut self) -> anyhow::Result<&mut Xdp> {
        let program: &mut Xdp = self.program(layout::XDP_PROGRAM)?.try_into()?;
        if program.fd().is_err() {
            program.load().context("load the XDP program")?;
        }
        Ok(program)
    }

    /// The TCX program, loaded if it was not.
    pub(super) fn tcx(&mut self) -> anyhow::Result<&mut SchedClassifier> {
        let program: &mut SchedClassifier = self.program(layout::TCX_PROGRAM)?.try_into()?;
        if program.fd().is_err() {
            program.load().context("load the TCX program")?;
        }
        Ok(program)
    }

    fn program(&mut self, name: &str) -> anyhow::Result<&mut Program> {
        self.ebpf
            .program_mut(name)
            .with_context(|| format!("the object has no program {name}"))
    }

    /// Applies changes, removals first so that what leaves makes room. Returns those refused
    /// because a map is full.
    pub(super) fn apply(
        &mut self,
        changes: impl IntoIterator<Item = Change>,
    ) -> anyhow::Result<Vec<Change>> {
        let now = monotonic_seconds()?;
        let (gone, open): (Vec<Change>, Vec<Change>) = changes
            .into_iter()
            .partition(|change| change.now.is_empty());
        let mut refused = Vec::new();
        for (name, wants_v4) in [(name::GRANTS_V4, true), (name::GRANTS_V6, false)] {
            let of_family = |change: &&Change| change.address.is_ipv4() == wants_v4;
            if !gone.iter().chain(&open).any(|change| of_family(&change)) {
                continue;
            }
            let map = self.map_mut(name)?;
            let mut grants = if wants_v4 {
                Grants::V4(map.try_into()?)
            } else {
                Grants::V6(map.try_into()?)
            };
            for change in gone.iter().filter(of_family) {
                grants.remove(change.zone, change.address)?;
            }
            for change in open.iter().filter(of_family) {
                if !grants.insert(change.zone, change.address, [change.now.0, now])? {
                    refused.push(*change);
                }
            }
        }
        Ok(refused)
    }

    /// The learned grants.
    pub(super) fn read(&self) -> anyhow::Result<Holdings> {
        let mut holdings = Holdings::new();
        let v4: HashMap<_, KeyV4, Grant> = self.map(name::GRANTS_V4)?.try_into()?;
        for entry in v4.iter() {
            let ([zone, a], [mask, _]) = entry?;
            let address = Ipv4Addr::from(a.to_ne_bytes()).into();
            holdings.insert((zone_id(zone)?, address), ClassMask(mask));
        }
        let v6: HashMap<_, KeyV6, Grant> = self.map(name::GRANTS_V6)?.try_into()?;
        for entry in v6.iter() {
            let ([zone, a, b, c, d], [mask, _]) = entry?;
            holdings.insert((zone_id(zone)?, ipv6([a, b, c, d]).into()), ClassMask(mask));
        }
        Ok(holdings)
    }

    /// The learned grant of one address.
    pub(super) fn grant(&self, zone: ZoneId, address: IpAddr) -> anyhow::Result<Option<Grant>> {
        let zone = u32::from(id(zone));
        let found = match address {
            IpAddr::V4(a) => {
                let map: HashMap<_, KeyV4, Grant> = self.map(name::GRANTS_V4)?.try_into()?;
                map.get(&v4(a).after(zone), 0)
            }
            IpAddr::V6(a) => {
                let map: HashMap<_, KeyV6, Grant> = self.map(name::GRANTS_V6)?.try_into()?;
                map.get(&v6(a).after(zone), 0)
            }
        };
        present(found)
    }

    /// What the networks say of one address.
    pub(super) fn place(&self, zone: ZoneId, address: IpAddr) -> anyhow::Result<Place> {
        let zone = u32::from(id(zone));
        let found = match address {
            IpAddr::V4(a) => {
                let map: LpmTrie<_, KeyV4, [u64; 2]> = self.map(name::PLACES_V4)?.try_into()?;
                map.get(&Key::new(layout::KEY_PREFIX + 32, v4(a).after(zone)), 0)
            }
            IpAddr::V6(a) => {
                let map: LpmTrie<_, KeyV6, [u64; 2]> = self.map(name::PLACES_V6)?.try_into()?;
                map.get(&Key::new(layout::KEY_PREFIX + 128, v6(a).after(zone)), 0)
            }
        };
        Ok(present(found)?.map_or_else(Place::default, Place::unpack))
    }

    /// Packets by [`layout::counter_index`], all CPUs together.
    pub(super) fn counters(&self) -> anyhow::Result<Vec<u64>> {
        packets(self.map(name::COUNTERS)?)
    }

    /// The counters alone, to be read once more when no packet runs through this generation.
    pub(super) fn take_counters(&mut self) -> Option<Map> {
        self.ebpf.take_map(name::COUNTERS)
    }

    /// Refused packets not reported, because there were too many in one second.
    pub(super) fn unreported(&self) -> anyhow::Result<u64> {
        let throttle: PerCpuArray<_, Throttle> = self.map(name::THROTTLE)?.try_into()?;
        Ok(throttle.get(&0, 0)?.iter().map(|[_, _, lost]| lost).sum())
    }

    /// Takes at most `limit` reports of refused packets.
    pub(super) fn take_reports(&mut self, limit: usize) -> Vec<Report> {
        let mut taken = Vec::new();
        while taken.len() < limit
            && let Some(item) = self.reports.next()
        {
            let mut report = Report::default();
            for (word, bytes) in report.iter_mut().zip(item.as_chunks::<4>().0) {
                *word = u32::from_ne_bytes(*bytes);
            }
            taken.push(report);
        }
        taken
    }

    /// Pins the maps into `directory`, which must be empty, for people to look at.
    pub(super) fn pin_maps(&self, directory: &Path) -> anyhow::Result<()> {
        for (name, map) in self.ebpf.maps() {
            if name::MAPS.contains(&name) {
                map.pin(directory.join(name))
                    .with_context(|| format!("pin the map {name}"))?;
            }
        }
        Ok(())
    }
}

/// The grants of one family, by address.
enum Grants<'a> {
    V4(HashMap<&'a mut MapData, KeyV4, Grant>),
    V6(HashMap<&'a mut MapData, KeyV6, Grant>),
}

impl Grants<'_> {
    fn remove(&mut self, zone: ZoneId, address: IpAddr) -> anyhow::Result<()> {
        let zone = u32::from(id(zone));
        let removed = match (self, address) {
            (Self::V4(map), IpAddr::V4(a)) => map.remove(&v4(a).after(zone)),
            (Self::V6(map), IpAddr::V6(a)) => map.remove(&v6(a).after(zone)),
            (Self::V4(_) | Self::V6(_), _) => Ok(()),
        };
        present(removed).map(drop)
    }

    /// `false` when the map is full.
    fn insert(&mut self, zone: ZoneId, address: IpAddr, grant: Grant) -> anyhow::Result<bool> {
        let zone = u32::from(id(zone));
        let inserted = match (self, address) {
            (Self::V4(map), IpAddr::V4(a)) => map.insert(v4(a).after(zone), grant, 0),
            (Self::V6(map), IpAddr::V6(a)) => map.insert(v6(a).after(zone), grant, 0),
            (Self::V4(_) | Self::V6(_), _) => Ok(()),
        };
        match inserted {
            Ok(()) => Ok(true),
            Err(MapError::SyscallError(error)) if is_full(&error.io_error) => Ok(false),
            Err(error) => Err(error.into()),
        }
    }
}

fn is_full(error: &std::io::Error) -> bool {
    matches!(
        error.raw_os_error(),
        Some(libc::E2BIG | libc::ENOSPC | libc::ENOMEM)
    )
}

/// Turns "no such entry" into `None`.
fn present<T>(result: Result<T, MapError>) -> anyhow::Result<Option<T>> {
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

fn zone_id(number: u32) -> anyhow::Result<ZoneId> {
    Ok(ZoneId(
        u16::try_from(number).context("a zone's id in a kernel map")?,
    ))
}

/// The address that four wire words are.
pub(super) fn ipv6(words: [u32; 4]) -> Ipv6Addr {
    let mut octets = [0; 16];
    for (bytes, word) in octets.as_chunks_mut::<4>().0.iter_mut().zip(words) {
        *bytes = word.to_ne_bytes();
    }
    octets.into()
}

/// Sums a map of counters over all CPUs.
pub(super) fn packets(counters: &Map) -> anyhow::Result<Vec<u64>> {
    let counters: PerCpuArray<_, u64> = counters.try_into()?;
    counters
        .iter()
        .map(|per_cpu| Ok(per_cpu?.iter().sum()))
        .collect()
}

/// The clock by which the kernel side marks the last use of a grant.
fn monotonic_seconds() -> anyhow::Result<u64> {
    use nix::time::{ClockId, clock_gettime};
    let now = clock_gettime(ClockId::CLOCK_MONOTONIC_COARSE)?;
    Ok(u64::try_from(now.tv_sec())?)
}

/// Milliseconds of the boot clock at the beginning of a second of the monotonic clock.
pub(super) fn boot_milliseconds(second: u64) -> anyhow::Result<u64> {
    use nix::time::{ClockId, clock_gettime};
    use std::time::Duration;
    let boot = Duration::from(clock_gettime(ClockId::CLOCK_BOOTTIME)?);
    let monotonic = Duration::from(clock_gettime(ClockId::CLOCK_MONOTONIC)?);
    let asleep = boot.saturating_sub(monotonic);
    Ok(u64::try_from(asleep.as_millis())?.saturating_add(second.saturating_mul(1000)))
}
