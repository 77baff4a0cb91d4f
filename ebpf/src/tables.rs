//! The kernel's maps as `common::decide` looks things up in them, and the counters.

use crate::reports::Throttled;
use aya_ebpf::bindings::{BPF_F_MMAPABLE, BPF_F_NO_PREALLOC};
use aya_ebpf::helpers::generated::{bpf_ktime_get_coarse_ns, bpf_ktime_get_ns};
use aya_ebpf::macros::map;
use aya_ebpf::maps::lpm_trie::{Key, LpmTrie};
use aya_ebpf::maps::{Array, HashMap, PerCpuArray};
use core::arch::asm;
use core::cell::Cell;
use egressd_common::address::{V4, V6};
use egressd_common::decide::{Lookup, PackedInterface, PackedZone, Place, Tables};
use egressd_common::grants::{self, Bucket, Granted, Seed};
use egressd_common::layout::{self, Claim, Entry, KeyV4, KeyV6, Keyed};
use egressd_common::link::Mac;
use egressd_common::network::Packet;
use egressd_common::verdict::{Action, Reason, Verdict};

#[map]
static INTERFACES: Array<Entry> = Array::with_max_entries(layout::SLOTS, 0);
// User space gives tries and hashes the size they need before it loads the object.
#[map]
static SOURCES_V4: LpmTrie<KeyV4, u32> = LpmTrie::with_max_entries(1, BPF_F_NO_PREALLOC);
#[map]
static SOURCES_V6: LpmTrie<KeyV6, u32> = LpmTrie::with_max_entries(1, BPF_F_NO_PREALLOC);
#[map]
static GRANTS_V4: Array<Bucket> = Array::with_max_entries(1, BPF_F_MMAPABLE);
#[map]
static GRANTS_V6: Array<Bucket> = Array::with_max_entries(1, BPF_F_MMAPABLE);
#[map]
static FILTER_V4: Array<u64> = Array::with_max_entries(1, BPF_F_MMAPABLE);
#[map]
static FILTER_V6: Array<u64> = Array::with_max_entries(1, BPF_F_MMAPABLE);
#[map]
static KINDS: Array<u64> = Array::with_max_entries(grants::KINDS as u32, BPF_F_MMAPABLE);
#[map]
static HITS: PerCpuArray<u64> = PerCpuArray::with_max_entries(grants::KINDS as u32, 0);
#[map]
static PLACES_V4: LpmTrie<KeyV4, [u64; 2]> = LpmTrie::with_max_entries(1, BPF_F_NO_PREALLOC);
#[map]
static PLACES_V6: LpmTrie<KeyV6, [u64; 2]> = LpmTrie::with_max_entries(1, BPF_F_NO_PREALLOC);
#[map]
static SERVES: HashMap<u32, u32> = HashMap::with_max_entries(1, 0);
#[map]
static VLANS: HashMap<[u32; 2], u32> = HashMap::with_max_entries(1, 0);
#[map]
static MACS: HashMap<Mac, u32> = HashMap::with_max_entries(1, 0);
#[map]
static COUNTERS: PerCpuArray<u64> = PerCpuArray::with_max_entries(layout::COUNTERS as u32, 0);
#[map]
static PORTS: Array<u64> = Array::with_max_entries((layout::PORTS / 8) as u32, 0);
#[map]
static HINTS_V4: Array<u64> = Array::with_max_entries(layout::HINTS as u32, 0);
#[map]
static HINTS_V6: Array<u64> = Array::with_max_entries(layout::HINTS as u32, 0);
#[map]
static MASKS: Array<u64> = Array::with_max_entries(layout::MASKS as u32, 0);

/// Variables that user space writes, but for the last, which stays 0. The verifier knows none.
#[unsafe(no_mangle)]
static mut ROUND: layout::Round = [0; 3];

// Constants of one generation: user space writes them into the object before it loads it.
#[unsafe(no_mangle)]
static SEED_ADD: u64 = 0;
#[unsafe(no_mangle)]
static SEED_MULTIPLY: u64 = 1;
#[unsafe(no_mangle)]
static BUCKETS_V4: u32 = 1;
#[unsafe(no_mangle)]
static BUCKETS_V6: u32 = 1;
#[unsafe(no_mangle)]
static FILTER_MASK: u32 = 0;
#[unsafe(no_mangle)]
pub(crate) static FLOW_SECRET: u64 = 0;
#[unsafe(no_mangle)]
static NFT_BEHIND: u8 = 0;
#[unsafe(no_mangle)]
static FEW_CLASSES: u8 = 0;
#[unsafe(no_mangle)]
static HAS_VLANS: u8 = 0;
#[unsafe(no_mangle)]
static HAS_PORTS: u8 = 0;
#[unsafe(no_mangle)]
static COARSE_CLOCK: u8 = 0;

/// Reads a constant that the compiler must not believe.
#[inline(always)]
pub(crate) fn constant<T: Copy>(constant: &T) -> T {
    // SAFETY: a reference is valid for reads.
    unsafe { core::ptr::read_volatile(constant) }
}

/// What user space says of this round, as [`layout::round_parts`] has it.
#[inline(always)]
pub(crate) fn round() -> u64 {
    // SAFETY: programs only read it, and user space writes whole aligned words.
    unsafe { core::ptr::read_volatile(&raw const ROUND[0]) }
}

/// Until when packets may be left to nft in this round.
#[inline(always)]
pub(crate) fn round_ends() -> u64 {
    // SAFETY: as in `round`.
    unsafe { core::ptr::read_volatile(&raw const ROUND[1]) }
}

/// A word of a table. These are maps and not globals: without CAP_PERFMON the verifier refuses to
/// add a constant to a global's address where on another path a variable is added.
#[inline(always)]
pub(crate) fn word(table: &Array<u64>, index: u32) -> u64 {
    table.get(index).copied().unwrap_or_default()
}

/// A number of unknown value to the verifier, and of this one in truth: user space never writes there.
#[inline(always)]
pub(crate) fn blur(number: u64) -> u64 {
    // SAFETY: nobody writes it.
    number + unsafe { core::ptr::read_volatile(&raw const ROUND[2]) }
}

/// Nanoseconds of the monotonic clock, at least to some milliseconds.
#[inline(always)]
pub(crate) fn nanoseconds() -> u64 {
    // SAFETY: the helpers have no preconditions. The verifier knows the constant and does not look
    // at the other one, which kernels before 5.11 do not have.
    unsafe {
        if constant(&COARSE_CLOCK) != 0 {
            bpf_ktime_get_coarse_ns()
        } else {
            bpf_ktime_get_ns()
        }
    }
}

/// The time of a use.
#[inline(always)]
fn now() -> u16 {
    grants::tick(nanoseconds())
}

/// Counts a packet, but for those that were counted by the kind of what let them pass, or that a VLAN
/// device's own program counts.
#[inline(always)]
pub(crate) fn count(verdict: Verdict) {
    if matches!(
        verdict.reason,
        Reason::Granted | Reason::Network | Reason::Vlan
    ) {
        return;
    }
    if let Some(packets) = COUNTERS.get_ptr_mut(layout::counter_index(verdict)) {
        // SAFETY: this CPU's own counter; programs of one CPU do not interrupt each other.
        unsafe { *packets += 1 }
    }
}

/// The maps of the running generation, as a packet meets them.
pub(crate) struct Kernel {
    /// The interface it entered on.
    entered: u32,
    /// The interface it is judged on: another one if that is a VLAN device.
    at: Cell<u32>,
    entry: Cell<Option<&'static Entry>>,
}

impl Kernel {
    /// For a packet from the interface with this index.
    #[inline(always)]
    pub(crate) const fn of(entered: u32) -> Self {
        Self {
            entered,
            at: Cell::new(entered),
            entry: Cell::new(None),
        }
    }

    /// Whether this program counts what passes, and not the VLAN device's own.
    #[inline(always)]
    fn counts(&self) -> bool {
        !self.has_vlans() || self.at.get() == self.entered
    }
}

impl Lookup for Kernel {
    #[inline(always)]
    fn interface(&self, index: u32) -> Option<PackedInterface> {
        self.at.set(index);
        let mut probe = 0;
        while probe < layout::PROBES {
            if let Some(entry) = INTERFACES.get(layout::slot(index, probe))
                && entry[0] == index
            {
                self.entry.set(Some(entry));
                return Some(PackedInterface(entry[1]));
            }
            probe += 1;
        }
        None
    }

    #[inline(always)]
    fn vlan(&self, index: u32, tag: u32) -> Option<u32> {
        // SAFETY: user space never changes an entry after the program was loaded.
        unsafe { VLANS.get([index, tag]).copied() }
    }

    #[inline(always)]
    fn has_vlans(&self) -> bool {
        constant(&HAS_VLANS) != 0
    }

    #[inline(always)]
    fn is_own_mac(&self, mac: Mac) -> bool {
        MACS.get_ptr(mac).is_some()
    }

    #[inline(always)]
    fn has_ports(&self) -> bool {
        constant(&HAS_PORTS) != 0
    }

    #[inline(always)]
    fn classes(&self, protocol: u8, port: u16) -> u64 {
        let Some(index) = layout::port_index(protocol, port) else {
            return word(&MASKS, layout::PORT_MASKS as u32 + u32::from(protocol));
        };
        let class = layout::port_class(word(&PORTS, index as u32 / 8), port);
        if constant(&FEW_CLASSES) != 0 {
            return u64::from(class);
        }
        word(&MASKS, u32::from(class))
    }

    #[inline(always)]
    fn serves(&self, zone: u8, protocol: u8, port: u16) -> bool {
        SERVES
            .get_ptr(layout::serves_key(zone, protocol, port))
            .is_some()
    }

    #[inline(always)]
    fn nft_behind(&self) -> bool {
        constant(&NFT_BEHIND) != 0
    }

    #[inline(always)]
    fn reached(&self, place: Place) {
        if self.counts() {
            hit(place.kind);
        }
    }
}

/// What `zone` may do at `address`, by one family's filter and table of `count` buckets.
#[inline(always)]
fn learned<A: Granted>(
    (filter, table, count): (&Array<u64>, &Array<Bucket>, u32),
    zone: u8,
    address: &A,
    classes: u64,
    counts: bool,
) -> u64 {
    let seed = Seed {
        add: constant(&SEED_ADD),
        multiply: constant(&SEED_MULTIPLY),
    };
    let hash = address.hash(zone, seed);
    let (word, bit) = grants::filter_bit(hash, constant(&FILTER_MASK));
    if self::word(filter, word) >> bit & 1 == 0 {
        return 0;
    }
    if let Some(bucket) = table.get_ptr_mut(grants::first(hash, count))
        && let Some(mask) = look(bucket, zone, address, classes, counts)
    {
        return mask;
    }
    let second = table.get_ptr_mut(grants::second(hash, count));
    second
        .and_then(|bucket| look(bucket, zone, address, classes, counts))
        .unwrap_or_default()
}

/// What `bucket` grants to `zone` at `address`; remembers a use, and counts it if it `counts`.
#[inline(always)]
fn look<A: Granted>(
    bucket: *mut Bucket,
    zone: u8,
    address: &A,
    classes: u64,
    counts: bool,
) -> Option<u64> {
    // SAFETY: the kernel keeps a map's value in memory while the program runs; `at` is below 8.
    let word = |at: usize| unsafe { core::ptr::read_volatile(bucket.cast::<u64>().add(at)) };
    let found = address.find(zone, word)?;
    let mask = self::word(&KINDS, u32::from(found.kind));
    if mask & classes != 0 {
        let now = now();
        if found.used != now {
            remember(bucket, found.used_at, now);
        }
        if counts {
            hit(found.kind);
        }
    }
    Some(mask)
}

/// Counts a packet that something of this kind let pass.
#[inline(always)]
fn hit(kind: u16) {
    if let Some(hits) = HITS.get_ptr_mut(u32::from(kind)) {
        // SAFETY: this CPU's own counter; programs of one CPU do not interrupt each other.
        unsafe { *hits += 1 }
    }
}

/// Writes a time of use into a bucket. Only programs write it while there is an entry, and each value
/// is meaningful alone.
#[inline(always)]
fn remember(bucket: *mut Bucket, used_at: usize, now: u16) {
    // Without CAP_PERFMON the verifier lets only constants be added here.
    match used_at {
        3 => write::<6>(bucket, now),
        7 => write::<14>(bucket, now),
        11 => write::<22>(bucket, now),
        15 => write::<30>(bucket, now),
        19 => write::<38>(bucket, now),
        23 => write::<46>(bucket, now),
        25 => write::<50>(bucket, now),
        27 => write::<54>(bucket, now),
        29 => write::<58>(bucket, now),
        31 => write::<62>(bucket, now),
        _ => {}
    }
}

/// Writes a halfword of a bucket, `OFFSET` bytes from its beginning.
#[inline(always)]
fn write<const OFFSET: usize>(bucket: *mut Bucket, now: u16) {
    let mut at = bucket;
    // SAFETY: an addition that stays inside the bucket, then a store there. Written out, so that the
    // compiler cannot merge it with those of other offsets into the addition of a variable.
    unsafe {
        asm!("{at} += {offset}", at = inout(reg) at, offset = const OFFSET,
            options(pure, nomem, nostack));
        core::ptr::write_volatile(at.cast::<u16>(), now);
    }
}

/// Implements `Tables` of one address family over its three maps.
macro_rules! family {
    ($address:ty, $key:ty, $bits:literal, $version:literal, $sources:ident, $grants:ident, $buckets:ident, $filter:ident, $places:ident, $hints:ident, $claim:literal, $wide:expr) => {
        impl Tables<$address> for Kernel {
            #[inline(always)]
            fn zone(&self, interface: u32, source: &$address) -> Option<PackedZone> {
                let entry = self.entry.get()?;
                match Claim::unpack(entry[$claim]) {
                    Claim::Nobody => None,
                    Claim::One(zone) => {
                        let mut differ = 0;
                        let words = source.len();
                        for (i, word) in source.iter().enumerate() {
                            let net = entry[$claim + 1 + i];
                            differ |= (word ^ net) & entry[$claim + 1 + words + i];
                        }
                        (differ == 0).then_some(zone)
                    }
                    Claim::Several => {
                        let key =
                            Key::<$key>::new(layout::KEY_PREFIX + $bits, source.after(interface));
                        $sources
                            .get(&key)
                            .and_then(|packed| PackedZone::unpack(*packed))
                    }
                }
            }

            #[inline(always)]
            fn grant(&self, zone: u8, destination: &$address, classes: u64) -> u64 {
                let table = (&$filter, &$grants, constant(&$buckets));
                learned(table, zone, destination, classes, self.counts())
            }

            #[inline(always)]
            fn place(&self, zone: u8, destination: &$address) -> Place {
                let part = u32::from(destination.part());
                if word(&$hints, part >> 6) >> (part & 63) & 1 == 0 {
                    return Place::default();
                }
                let key = Key::<$key>::new(
                    layout::KEY_PREFIX + $bits,
                    destination.after(u32::from(zone)),
                );
                $places
                    .get(&key)
                    .map_or_else(Place::default, |packed| Place::unpack(*packed))
            }

            #[inline(always)]
            fn refused(
                &self,
                interface: u32,
                packet: &Packet<$address>,
                verdict: Verdict,
                may_refer: bool,
            ) -> bool {
                if verdict.action == Action::Audit && !self.counts() {
                    return false;
                }
                let Some(throttle) = Throttled::of_this_round() else {
                    return false;
                };
                if may_refer
                    && if self.counts() {
                        throttle.refers(verdict.zone)
                    } else {
                        // The VLAN device's own program takes from the share.
                        throttle.may_refer(verdict.zone)
                    }
                {
                    return true;
                }
                let what = (packet.transport.protocol(), packet.transport.port());
                let wide = $wide;
                let (source, destination) = (wide(&packet.source), wide(&packet.destination));
                throttle.report(interface, verdict, what, $version, source, destination);
                false
            }
        }
    };
}

family!(
    V4,
    KeyV4,
    32,
    4,
    SOURCES_V4,
    GRANTS_V4,
    BUCKETS_V4,
    FILTER_V4,
    PLACES_V4,
    HINTS_V4,
    2,
    |a: &V4| [a[0], 0, 0, 0]
);
family!(
    V6,
    KeyV6,
    128,
    6,
    SOURCES_V6,
    GRANTS_V6,
    BUCKETS_V6,
    FILTER_V6,
    PLACES_V6,
    HINTS_V6,
    5,
    |a: &V6| *a
);
