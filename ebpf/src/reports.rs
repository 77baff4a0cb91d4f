//! Reports of refused packets, and packets left to nft for it to report: what is told, and how seldom.

use crate::tables::word;
use aya_ebpf::bindings::BPF_RB_NO_WAKEUP;
use aya_ebpf::macros::map;
use aya_ebpf::maps::{Array, PerCpuArray, RingBuf};
use egressd_common::MAX_ZONES;
use egressd_common::layout::{self, Referred, Report, Throttle, round};
use egressd_common::verdict::Verdict;

#[map]
static REFUSED: RingBuf = RingBuf::with_byte_size(layout::REFUSED_BYTES, 0);
#[map]
static THROTTLE: PerCpuArray<Throttle> = PerCpuArray::with_max_entries(1, 0);
#[map]
static TOLD: Array<u64> = Array::with_max_entries(layout::TOLD_SLOTS, 0);
#[map]
static REFERRED: Array<Referred> = Array::with_max_entries(MAX_ZONES as u32, 0);
#[map]
static ROUND: Array<u64> = Array::with_max_entries(round::ENTRIES, 0);

/// Reports a refused packet, or counts that it was not. The limit comes first: a flood must not cost
/// more than its counter.
#[inline(always)]
pub(crate) fn refused(
    interface: u32,
    verdict: Verdict,
    what: (u8, u16),
    version: u8,
    source: [u32; 4],
    destination: [u32; 4],
) {
    let Some(throttle) = THROTTLE.get_ptr_mut(0) else {
        return;
    };
    let now = word(&ROUND, round::NUMBER);
    // SAFETY: this CPU's own entry; programs of one CPU do not interrupt each other.
    unsafe {
        if (*throttle)[0] != now {
            (*throttle)[0] = now;
            (*throttle)[1] = 0;
        }
        if (*throttle)[1] >= layout::REPORTS_PER_ROUND {
            (*throttle)[2] += 1;
            return;
        }
    }
    let secret = word(&ROUND, round::SECRET);
    let hash = layout::flow_hash(secret, verdict.zone, what, source, destination);
    let Some(told) = TOLD.get_ptr_mut(layout::told_slot(hash)) else {
        return;
    };
    // SAFETY: the entry stays in memory while the program runs. CPUs read and write it as a whole
    // aligned word; whichever was last is right about its flow.
    if layout::is_told(unsafe { *told }, hash, now) {
        // SAFETY: as above.
        unsafe { (*throttle)[3] += 1 }
        return;
    }
    // SAFETY: as above.
    unsafe { (*throttle)[1] += 1 }
    let report = layout::report(interface, verdict, what, version, source, destination);
    let sent = REFUSED.output::<Report>(&report, u64::from(BPF_RB_NO_WAKEUP));
    // SAFETY: as above.
    unsafe {
        match sent {
            Ok(()) => *told = layout::told(hash, now),
            Err(_) => (*throttle)[2] += 1,
        }
    }
}

/// Whether one more refused packet of the zone may be left to nft in this round. While user space
/// turns no rounds none is, beyond those of the last one.
#[inline(always)]
pub(crate) fn refer(zone: u8) -> bool {
    let most = word(&ROUND, round::REFERRED);
    if most == 0 {
        return false;
    }
    let now = word(&ROUND, round::NUMBER);
    let Some(referred) = REFERRED.get_ptr_mut(u32::from(zone)) else {
        return false;
    };
    // SAFETY: the entry stays in memory while the program runs. Other CPUs write whole aligned words;
    // what they overwrite is a count that may be one too low then.
    unsafe {
        if (*referred)[0] != now {
            *referred = [now, 1];
            return true;
        }
        if (*referred)[1] < most {
            (*referred)[1] += 1;
            return true;
        }
    }
    false
}
