//! One generation of the kernel side: an object loaded with its own maps. Fills them, changes
//! them, reads them back; knows nothing of interfaces.

use super::grants::{Grants, seed};
use super::kinds::Kinds;
use super::memory::{self, Memory};
use super::reports::{Unreported, referred_in};
use super::sign::SignOfLife;
use super::tables::{Tables, id};
use crate::plane::Holdings;
use crate::policy::ZoneId;
use crate::policy::image::{Change, Image};
use crate::policy::origin::Origin;
use crate::policy::port::ClassMask;
use anyhow::Context as _;
use aya::maps::lpm_trie::{Key, LpmTrie};
use aya::maps::{Array, HashMap, Map, MapData, MapError, PerCpuArray, RingBuf};
use aya::programs::{Program, ProgramType, SchedClassifier, Xdp};
use aya::sys::BpfHelper;
use aya::{Ebpf, EbpfLoader};
use egressd_common::address::{V4, V6, v4, v6};
use egressd_common::decide::Place;
use egressd_common::grants::{self, Granted as _};
use egressd_common::layout::{
    self, Entry, KeyV4, KeyV6, Keyed, Report, Round, Throttle, name, round,
};
use egressd_common::link::Mac;
use egressd_common::verdict::{Action, Verdict};
use std::collections::BTreeMap;
use std::net::IpAddr;
use std::path::Path;
use std::time::Duration;

/// The kernel programs, or nothing in a binary built without them.
static OBJECT: &[u8] = aya::include_bytes_aligned!(concat!(env!("OUT_DIR"), "/egressd.bpf.o"));

/// Prefixes that a trie has room for beyond those it begins with, for interfaces and addresses that come
/// later. They take no memory before.
const SPARE: usize = 4096;

/// An object loaded, with its maps.
pub(super) struct Generation {
    ebpf: Ebpf,
    reports: RingBuf<MapData>,
    grants: Grants,
    /// How often reports were taken.
    round: u64,
    /// Refused packets per second and zone that may be left to nft.
    referred: u32,
    /// While it is open the programs know that this process lives.
    _sign: Option<SignOfLife>,
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
        Self::load_other((object()?, &[]), image, tables, learned, nft_behind)
    }

    /// As [`Generation::load`], of another object with the same maps and some constants more.
    pub(super) fn load_other(
        (object, constants): (&[u8], &[(&str, u32)]),
        image: &Image,
        tables: &Tables,
        learned: u32,
        nft_behind: bool,
    ) -> anyhow::Result<Self> {
        let seed = seed()?;
        let secret = getrandom::u64().context("draw a secret number")?;
        let referred = if nft_behind { image.referred } else { 0 };
        let sign = (referred > 0).then(SignOfLife::give).flatten();
        let sign_port = sign.as_ref().map_or(0, |sign| sign.port);
        let filter_words = grants::filter_words(learned);
        let buckets_v4 = grants::buckets(learned, V4::SLOTS);
        let buckets_v6 = grants::buckets(learned, V6::SLOTS);
        let entries = |length: usize| u32::try_from(length.max(1)).unwrap_or(u32::MAX);
        let mut loader = EbpfLoader::new();
        for (name, value) in constants {
            loader.override_global(name, value, true);
        }
        let mut ebpf = loader
            .btf(None)
            .override_global(name::SEED_ADD, &seed.add, true)
            .override_global(name::SEED_MULTIPLY, &seed.multiply, true)
            .override_global(name::BUCKETS_V4, &buckets_v4, true)
            .override_global(name::BUCKETS_V6, &buckets_v6, true)
            .override_global(name::FILTER_MASK, &(filter_words - 1), true)
            .override_global(name::FLOW_SECRET, &secret, true)
            .override_global(name::NFT_BEHIND, &u8::from(nft_behind), true)
            .override_global(name::SIGN_PORT, &sign_port, true)
            .override_global(name::COARSE_CLOCK, &u8::from(has_coarse_clock()), true)
            .map_max_entries(name::SOURCES_V4, entries(tables.sources.v4.len() + SPARE))
            .map_max_entries(name::SOURCES_V6, entries(tables.sources.v6.len() + SPARE))
            .map_max_entries(name::PLACES_V4, entries(tables.places.v4.len() + SPARE))
            .map_max_entries(name::PLACES_V6, entries(tables.places.v6.len() + SPARE))
            .override_global(name::FEW_CLASSES, &u8::from(tables.few_classes), true)
            .override_global(name::HAS_VLANS, &u8::from(!tables.vlans.is_empty()), true)
            .override_global(name::HAS_PORTS, &u8::from(!tables.macs.is_empty()), true)
            .map_max_entries(name::VLANS, entries(tables.vlans.len()))
            .map_max_entries(name::MACS, entries(tables.macs.len()))
            .map_max_entries(name::SERVES, entries(tables.serves.len()))
            .map_max_entries(name::FILTER_V4, filter_words)
            .map_max_entries(name::FILTER_V6, filter_words)
            .map_max_entries(name::GRANTS_V4, buckets_v4)
            .map_max_entries(name::GRANTS_V6, buckets_v6)
            .load(object)
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
        let grants = Grants::of(&ebpf, seed, learned)?;
        let mut generation = Self {
            ebpf,
            reports,
            grants,
            round: 0,
            referred,
            _sign: sign,
            zones,
        };
        generation.fill(tables).context("fill the eBPF maps")?;
        let origins = image.origins.iter().copied();
        let origins = origins.chain(std::iter::repeat(Origin::default()));
        let grants = image.grants.iter().zip(origins);
        let grants = grants.map(|(&(zone, address, now), origin)| Change {
            zone,
            address,
            was: ClassMask::NONE,
            now,
            origin,
        });
        let refused = generation.apply(grants)?;
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
        for (slot, entry) in &tables.strangers {
            interfaces.set(*slot, entry, 0)?;
        }
        let mut vlans: HashMap<_, [u32; 2], u32> = self.map_mut(name::VLANS)?.try_into()?;
        for (claim, device) in &tables.vlans {
            vlans.insert(claim, device, 0)?;
        }
        let mut macs: HashMap<_, Mac, u32> = self.map_mut(name::MACS)?.try_into()?;
        for mac in &tables.macs {
            macs.insert(mac, 1, 0)?;
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
        let v4 = tables.places.v4.iter();
        let v4: Vec<_> = v4
            .map(|(bits, data, place)| Ok((*bits, *data, self.place_value(data[0], *place)?)))
            .collect::<anyhow::Result<_>>()?;
        self.fill_trie(name::PLACES_V4, &v4)?;
        let v6 = tables.places.v6.iter();
        let v6: Vec<_> = v6
            .map(|(bits, data, place)| Ok((*bits, *data, self.place_value(data[0], *place)?)))
            .collect::<anyhow::Result<_>>()?;
        self.fill_trie(name::PLACES_V6, &v6)
    }

    /// A place as the map holds it, with the kind that counts what its classes let pass.
    pub(super) fn place_value(
        &mut self,
        zone: u32,
        (place, origin): (Place, Origin),
    ) -> anyhow::Result<[u64; 2]> {
        if ClassMask(place.mask).is_empty() {
            return Ok(place.pack());
        }
        let zone = u8::try_from(zone).context("a zone's id")?;
        let kind = self.grants.kind_of_place(zone, origin);
        if kind.is_none() {
            log::warn!(target: "ebpf", "packets to some networks are not counted: too many combinations of zones and sets");
        }
        let kind = kind.unwrap_or_default();
        Ok(Place { kind, ..place }.pack())
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

    pub(super) fn map_mut(&mut self, name: &str) -> anyhow::Result<&mut Map> {
        self.ebpf
            .map_mut(name)
            .with_context(|| format!("the object has no map {name}"))
    }

    /// Whether it has the zones of `image`, and refers as much.
    pub(super) fn is_of(&self, image: &Image, nft_behind: bool) -> bool {
        let zones = image.zones.iter().map(|zone| (id(zone.id), &zone.name));
        let referred = if nft_behind { image.referred } else { 0 };
        self.referred == referred && zones.eq(self.zones.iter().map(|(id, name)| (*id, name)))
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

    /// The program for what the gateway itself sends, loaded if it was not.
    pub(super) fn sent(&mut self) -> anyhow::Result<&mut SchedClassifier> {
        let program: &mut SchedClassifier = self.program(layout::SENT_PROGRAM)?.try_into()?;
        if program.fd().is_err() {
            program
                .load()
                .context("load the TCX program for what the gateway sends")?;
        }
        Ok(program)
    }

    pub(super) fn program(&mut self, name: &str) -> anyhow::Result<&mut Program> {
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
        let now = monotonic()?;
        let Self { ebpf, grants, .. } = self;
        let hits = ebpf.map(name::HITS).context("no map HITS")?;
        let hits: PerCpuArray<_, u64> = hits.try_into()?;
        let packets = |kind: u16| match hits.get(&u32::from(kind), 0) {
            Ok(of_kind) => of_kind.iter().sum(),
            Err(error) => {
                log::warn!(target: "ebpf", "hits of kind {kind} are lost: {error}");
                0
            }
        };
        Ok(grants.apply(changes.into_iter(), now, packets))
    }

    /// The learned grants.
    pub(super) fn read(&self) -> Holdings {
        let named = |(zone, address, mask)| ((zone, address), mask);
        self.grants.iter().map(named).collect()
    }

    /// What the learned grant of one address opens, and the nanosecond of `CLOCK_MONOTONIC` in which
    /// it was last used.
    pub(super) fn grant(
        &self,
        zone: ZoneId,
        address: IpAddr,
    ) -> anyhow::Result<Option<(ClassMask, u64)>> {
        Ok(self.grants.get(zone, address, monotonic()?))
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

    /// What was counted so far, all CPUs together.
    pub(super) fn counts(&self) -> anyhow::Result<Counts> {
        let (packets, hits) = (self.map(name::COUNTERS)?, self.map(name::HITS)?);
        counted(packets, hits, self.grants.kinds())
    }

    /// The counters alone, to be read once more when no packet runs through this generation.
    pub(super) fn into_tally(mut self) -> Option<Tally> {
        Some(Tally {
            packets: self.ebpf.take_map(name::COUNTERS)?,
            hits: self.ebpf.take_map(name::HITS)?,
            kinds: self.grants.into_kinds(),
            zones: self.zones,
        })
    }

    /// Refused packets that were not reported.
    pub(super) fn unreported(&self) -> anyhow::Result<Unreported> {
        let throttle: PerCpuArray<_, Throttle> = self.map(name::THROTTLE)?.try_into()?;
        let mut unreported = Unreported::default();
        for cpu in throttle.get(&0, 0)?.iter() {
            unreported.lost += cpu[layout::throttle::LOST];
            unreported.repeated += cpu[layout::throttle::REPEATED];
        }
        Ok(unreported)
    }

    /// Whether some refused packets may be left to nft.
    pub(super) fn refers(&self) -> bool {
        self.referred > 0
    }

    /// Takes at most `limit` reports of refused packets, and lets each CPU make some more. Until the next
    /// call some packets are left to nft if it is `in_place`. To be called ten times a second.
    pub(super) fn take_reports(&mut self, limit: usize, in_place: bool) -> Vec<Report> {
        self.round += 1;
        if let Err(error) = self.begin_round(in_place) {
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

    fn begin_round(&mut self, in_place: bool) -> anyhow::Result<()> {
        let referred = if in_place {
            referred_in(self.round, self.referred)
        } else {
            0
        };
        let said: Round = [round(self.round, referred), monotonic()? + REFERRED_FOR, 0];
        let mut map: Array<_, Round> = self.map_mut(name::ROUND)?.try_into()?;
        Ok(map.set(0, said, 0)?)
    }

    /// Bytes of kernel memory that the maps take, as the kernel counts them.
    pub(super) fn bytes(&self) -> anyhow::Result<u64> {
        let maps = self.ebpf.maps().map(|(_, map)| map);
        maps.map(memory::footprint).sum()
    }

    /// Whether `directory` is where pins can be made, tried with one of a map.
    ///
    /// # Errors
    /// When it is not: it is not there, or on no bpffs, or may not be written.
    pub(super) fn can_pin(&self, directory: &Path) -> anyhow::Result<()> {
        let probe = directory.join("probe");
        // Of a process that was killed here.
        let _left_over = std::fs::remove_file(&probe);
        self.map(name::ROUND)?.pin(&probe)?;
        Ok(std::fs::remove_file(&probe)?)
    }

    /// Pins the maps into `directory`, which must be empty, for people to look at.
    pub(super) fn pin_maps(&self, directory: &Path) -> anyhow::Result<()> {
        for (name, map) in self.ebpf.maps() {
            // A bpffs takes no dots, which the names of variables' maps begin with.
            if name::MAPS.contains(&name) && !name.starts_with('.') {
                map.pin(directory.join(name))
                    .with_context(|| format!("pin the map {name}"))?;
            }
        }
        Ok(())
    }
}

/// What a generation counted.
pub(super) struct Tally {
    packets: Map,
    hits: Map,
    kinds: Kinds<Memory>,
    /// Names of zones by id.
    pub(super) zones: Vec<(u8, String)>,
}

impl Tally {
    /// What was counted so far, all CPUs together.
    pub(super) fn counts(&self) -> anyhow::Result<Counts> {
        counted(&self.packets, &self.hits, &self.kinds)
    }
}

/// Packets, counted in two ways.
pub(super) struct Counts {
    /// By [`layout::counter_index`].
    pub(super) packets: Vec<u64>,
    /// Those that grants and networks let pass, by zone and by where these come from.
    pub(super) hits: BTreeMap<(u8, Origin), u64>,
}

/// The counters, with the packets that grants and networks let pass: their kinds count those.
fn counted(packets: &Map, hits: &Map, kinds: &Kinds<Memory>) -> anyhow::Result<Counts> {
    let (mut packets, by_kind) = (sums(packets)?, sums(hits)?);
    let of_kind = |kind: u16| by_kind.get(usize::from(kind)).copied().unwrap_or_default();
    let mut hits = BTreeMap::new();
    for (kind, passed) in kinds.packets(of_kind) {
        let index = layout::counter_index(Verdict {
            action: Action::Pass,
            reason: kind.reason,
            zone: kind.zone,
        });
        packets[index as usize] += passed;
        *hits.entry((kind.zone, kind.origin)).or_default() += passed;
    }
    Ok(Counts { packets, hits })
}

/// Sums a map of counters over all CPUs.
fn sums(counters: &Map) -> anyhow::Result<Vec<u64>> {
    let counters: PerCpuArray<_, u64> = counters.try_into()?;
    counters
        .iter()
        .map(|per_cpu| Ok(per_cpu?.iter().sum()))
        .collect()
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

/// Nanoseconds of the clock by which the kernel side marks the last use of a grant.
fn monotonic() -> anyhow::Result<u64> {
    use nix::time::{ClockId, clock_gettime};
    let now = Duration::from(clock_gettime(ClockId::CLOCK_MONOTONIC_COARSE)?);
    Ok(u64::try_from(now.as_nanos())?)
}

/// Nanoseconds for which a round lets packets be left to nft, if the next one does not come: two and a
/// half rounds, so that a thread that is a little late ends nothing.
const REFERRED_FOR: u64 = 250_000_000;

/// How far the boot clock is ahead of the monotonic clock, in milliseconds: the time spent suspended.
pub(super) fn asleep() -> anyhow::Result<u64> {
    use nix::time::{ClockId, clock_gettime};
    let boot = Duration::from(clock_gettime(ClockId::CLOCK_BOOTTIME)?);
    let monotonic = Duration::from(clock_gettime(ClockId::CLOCK_MONOTONIC)?);
    Ok(u64::try_from(boot.saturating_sub(monotonic).as_millis())?)
}

/// Whether the programs can have the clock that costs nothing, from Linux 5.11 on. In doubt they can.
fn has_coarse_clock() -> bool {
    const CLOCK: BpfHelper = BpfHelper::BPF_FUNC_ktime_get_coarse_ns;
    aya::sys::is_helper_supported(ProgramType::SchedClassifier, CLOCK).unwrap_or(true)
}
