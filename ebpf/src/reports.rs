//! Reports of refused packets: what is told of them, and how seldom.

use aya_ebpf::bindings::BPF_RB_NO_WAKEUP;
use aya_ebpf::macros::map;
use aya_ebpf::maps::{Array, PerCpuArray, RingBuf};
use egressd_common::layout::{self, Report, Throttle};
use egressd_common::verdict::Verdict;

#[map]
static REFUSED: RingBuf = RingBuf::with_byte_size(layout::REFUSED_BYTES, 0);
#[map]
static THROTTLE: PerCpuArray<Throttle> = PerCpuArray::with_max_entries(1, 0);
#[map]
static ROUND: Array<u64> = Array::with_max_entries(1, 0);

/// Reports a refused packet, or counts that it was not.
#[inline(always)]
pub(crate) fn refused(
    interface: u32,
    verdict: Verdict,
    what: (u8, u16),
    version: u8,
    source: [u32; 4],
    destination: [u32; 4],
) {
    if !permitted() {
        return;
    }
    let report = layout::report(interface, verdict, what, version, source, destination);
    if REFUSED
        .output::<Report>(&report, u64::from(BPF_RB_NO_WAKEUP))
        .is_err()
    {
        lost();
    }
}

/// Whether this CPU may report another refused packet in this round.
#[inline(always)]
fn permitted() -> bool {
    let Some(throttle) = THROTTLE.get_ptr_mut(0) else {
        return false;
    };
    let now = ROUND.get(0).copied().unwrap_or_default();
    // SAFETY: this CPU's own entry.
    unsafe {
        if (*throttle)[0] != now {
            *throttle = [now, 1, (*throttle)[2]];
            return true;
        }
        if (*throttle)[1] < layout::REPORTS_PER_ROUND {
            (*throttle)[1] += 1;
            return true;
        }
        (*throttle)[2] += 1;
    }
    false
}

#[inline(always)]
fn lost() {
    if let Some(throttle) = THROTTLE.get_ptr_mut(0) {
        // SAFETY: this CPU's own entry.
        unsafe { (*throttle)[2] += 1 }
    }
}
