//! One generation of the kernel side: an object loaded with its own maps. Fills them, changes
//! them, reads them back; knows nothing of interfaces.

use super::filter::Filter;
use super::grants;
use super::tables::{Tables, id};
use crate::plane::Holdings;
use crate::policy::ZoneId;
use crate::policy::image::{Change, Image};
use crate::policy::port::ClassMask;
use anyhow::Context as _;
use aya::maps::lpm_trie::{Key, LpmTrie};
use aya::maps::{Array, HashMap, Map, MapData, PerCpuArray, RingBuf};
use aya::programs::{Program, SchedClassifier, Xdp};
use aya::{Ebpf, EbpfLoader};
use egressd_common::address::{v4, v6};
use egressd_common::decide::Place;
use egressd_common::layout::{self, Entry, Grant, KeyV4, KeyV6, Keyed, Report, Throttle, name};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::path::Path;

/// The kernel programs, or nothing in a binary built without them.
static OBJECT: &[u8] = aya::include_bytes_aligned!(concat!(env!("OUT_DIR"), "/egressd.bpf.o"));

/// An object loaded, with its maps.
pub(super) struct Generation {
    ebpf: Ebpf,
    reports: RingBuf<MapData>,
    /// Before the grants of IPv4 and of IPv6.
    filters: [Filter; 2],
    /// How often reports were taken.
    round: u64,
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
        let filters = [Filter::new(learned), Filter::new(learned)];
        let filter_mask = filters[0].mask();
        let entries = |length: usize| u32::try_from(length.max(1)).unwrap_or(u32::MAX);
        let mut ebpf = EbpfLoader::new()
            .btf(None)
            .override_global(name::FILTER_MASK, &filter_mask, true)
            .override_global(name::NFT_BEHIND, &u8::from(nft_behind), true)
            .map_max_entries(name::SOURCES_V4, entries(tables.sources.v4.len()))
            .map_max_entries(name::SOURCES_V6, entries(tables.sources.v6.len()))
            .map_max_entries(name::PLACES_V4, entries(tables.places.v4.len()))
            .map_max_entries(name::PLACES_V6, entries(tables.places.v6.len()))
            .map_max_entries(name::SERVES, entries(tables.serves.len()))
            .map_max_entries(name::FILTER_V4, filter_mask + 1)
            .map_max_entries(name::FILTER_V6, filter_mask + 1)
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
            filters,
            round: 0,
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
        let mut interfaces: Array<_, Entry> = self.map_mut(name::INTERFACES)?.try_into()?;
        for wanted in tables.interfaces.values() {
            interfaces.set(wanted.slot, wanted.entry, 0)?;
        }
        self.fill_array(name::MASKS, tables.masks.iter().copied())?;
        let ports = tables.ports.as_chunks::<8>().0;
        self.fill_array(
            name::PORTS,
            ports.iter().map(|classes| u64::from_le_bytes(*classes)),
        )?;
        self.fill_array(name::HINTS_V4, tables.hints[0].iter().copied())?;
        self.fill_array(name::HINTS_V6, tables.hints[1].iter().copied())?;
        let mut serves: HashMap<_, u32, u32> = self.map_mut(name::SERVES)?.try_into()?;
        for key in &tables.serves {
            serves.insert(key, 1, 0)?;
        }
        self.fill_trie(name::SOURCES_V4, &tables.sources.v4)?;
        self.fill_trie(name::SOURCES_V6, &tables.sources.v6)?;
        self.fill_trie(name::PLACES_V4, &tables.places.v4)?;
        self.fill_trie(name::PLACES_V6, &tables.places.v6)
    }

    /// Writes the words that are not zero; an array begins with nothing else.
    fn fill_array(&mut self, map: &str, words: impl Iterator<Item = u64>) -> anyhow::Result<()> {
        let mut array: Array<_, u64> = self.map_mut(map)?.try_into()?;
        for (index, word) in (0..).zip(words).filter(|(_, word)| *word != 0) {
            array.set(index, word, 0)?;
        }
        Ok(())
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
        let (mut of_v4, mut of_v6) = (Vec::new(), Vec::new());
        for change in changes {
            let zone = u32::from(id(change.zone));
            match change.address {
                IpAddr::V4(address) => of_v4.push((v4(address).after(zone), change)),
                IpAddr::V6(address) => of_v6.push((v6(address).after(zone), change)),
            }
        }
        let Self {
            ebpf,
            filters: [filter_v4, filter_v6],
            ..
        } = self;
        let names = (name::GRANTS_V4, name::FILTER_V4);
        let mut refused = grants::apply(ebpf, names, filter_v4, &of_v4, now)?;
        let names = (name::GRANTS_V6, name::FILTER_V6);
        refused.extend(grants::apply(ebpf, names, filter_v6, &of_v6, now)?);
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
        grants::present(found)
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
        Ok(grants::present(found)?.map_or_else(Place::default, Place::unpack))
    }

    /// Packets by [`layout::counter_index`], all CPUs together.
    pub(super) fn counters(&self) -> anyhow::Result<Vec<u64>> {
        packets(self.map(name::COUNTERS)?)
    }

    /// The counters alone, to be read once more when no packet runs through this generation.
    pub(super) fn take_counters(&mut self) -> Option<Map> {
        self.ebpf.take_map(name::COUNTERS)
    }

    /// Refused packets not reported, because there were too many at once.
    pub(super) fn unreported(&self) -> anyhow::Result<u64> {
        let throttle: PerCpuArray<_, Throttle> = self.map(name::THROTTLE)?.try_into()?;
        Ok(throttle.get(&0, 0)?.iter().map(|[_, _, lost]| lost).sum())
    }

    /// Takes at most `limit` reports of refused packets, and lets each CPU make some more.
    pub(super) fn take_reports(&mut self, limit: usize) -> Vec<Report> {
        self.round += 1;
        if let Err(error) = self.begin_round() {
            log::warn!(target: "ebpf", "no more reports of refused packets: {error:#}");
        }
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

    fn begin_round(&mut self) -> anyhow::Result<()> {
        let round = self.round;
        let mut map: Array<_, u64> = self.map_mut(name::ROUND)?.try_into()?;
        Ok(map.set(0, round, 0)?)
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
