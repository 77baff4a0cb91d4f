//! Reports of refused packets, and packets left to nft for it to report: what is told, and how seldom.

use crate::tables::{self, constant};
use aya_ebpf::bindings::{
    BPF_RB_NO_WAKEUP, bpf_sock_tuple, bpf_sock_tuple__bindgen_ty_1,
    bpf_sock_tuple__bindgen_ty_1__bindgen_ty_1,
};
use aya_ebpf::helpers::generated::{bpf_sk_lookup_udp, bpf_sk_release};
use aya_ebpf::macros::map;
use aya_ebpf::maps::{Array, PerCpuArray, RingBuf};
use core::ffi::c_void;
use egressd_common::MAX_ZONES;
use egressd_common::layout::throttle::{LOST, REPEATED, REPORTS, ROUND, SPENT};
use egressd_common::layout::{self, Referred, Report, Throttle, round_parts};
use egressd_common::verdict::{Action, Verdict};

#[map]
static REFUSED: RingBuf = RingBuf::with_byte_size(layout::REFUSED_BYTES, 0);
#[map]
static THROTTLE: PerCpuArray<Throttle> = PerCpuArray::with_max_entries(1, 0);
#[map]
static TOLD: Array<u64> = Array::with_max_entries(layout::TOLD_SLOTS, 0);
#[map]
static REFERRED: Array<Referred> = Array::with_max_entries(MAX_ZONES as u32, 0);

/// The port of the daemon's sign of life, see [`layout::SIGN_OF_LIFE`]; 0 where it has none.
#[unsafe(no_mangle)]
static SIGN_PORT: u16 = 0;

/// The verdict, but no packet is left to nft unless the daemon lives: its table has an owner for just as long,
/// and can be taken away by nobody else.
#[inline(always)]
pub(crate) fn confirmed(verdict: Verdict, context: *mut c_void) -> Verdict {
    match verdict.action {
        Action::Refer if !lives(context) => Verdict {
            action: Action::Drop,
            ..verdict
        },
        Action::Pass | Action::Audit | Action::Refer | Action::Drop => verdict,
    }
}

/// Whether the daemon's socket is there, which the kernel closes with the process.
#[inline(always)]
fn lives(context: *mut c_void) -> bool {
    /// The network namespace of the packet's interface (`BPF_F_CURRENT_NETNS`).
    const HERE: u64 = -1_i64 as u64;
    let port = constant(&SIGN_PORT).to_be();
    let sign = layout::SIGN_OF_LIFE.to_be();
    // Of no consequence: the socket takes datagrams from anyone.
    let mut tuple = bpf_sock_tuple {
        __bindgen_anon_1: bpf_sock_tuple__bindgen_ty_1 {
            ipv4: bpf_sock_tuple__bindgen_ty_1__bindgen_ty_1 {
                saddr: sign,
                daddr: sign,
                sport: port,
                dport: port,
            },
        },
    };
    let length = size_of::<bpf_sock_tuple__bindgen_ty_1__bindgen_ty_1>() as u32;
    if port == 0 {
        return false;
    }
    // SAFETY: the kernel checks the arguments, and that what is found is given back.
    unsafe {
        let found = bpf_sk_lookup_udp(context, &mut tuple, length, HERE, 0);
        if found.is_null() {
            return false;
        }
        bpf_sk_release(found.cast());
    }
    true
}

#[inline(always)]
const fn bit(zone: u8) -> u64 {
    1 << (zone & (MAX_ZONES as u8 - 1))
}

/// What keeps reports and referred packets rare on this CPU, in this round.
#[derive(Clone, Copy)]
pub(crate) struct Throttled {
    throttle: *mut Throttle,
    now: u64,
    /// How many packets of each zone may be left to nft.
    most: u64,
}

impl Throttled {
    #[inline(always)]
    pub(crate) fn of_this_round() -> Option<Self> {
        let throttle = THROTTLE.get_ptr_mut(0)?;
        let (now, most) = round_parts(tables::round());
        // SAFETY: this CPU's own entry; programs of one CPU do not interrupt each other.
        unsafe {
            if (*throttle)[ROUND] != now {
                (*throttle)[ROUND] = now;
                (*throttle)[REPORTS] = 0;
                (*throttle)[SPENT] = 0;
            }
        }
        Some(Self {
            throttle,
            now,
            most,
        })
    }

    /// Whether one more refused packet of the zone may be left to nft in this round. While user space
    /// turns no rounds none is, beyond those of the last one.
    #[inline(always)]
    pub(crate) fn refers(self, zone: u8) -> bool {
        if !self.may_refer(zone) {
            return false;
        }
        // A daemon that is gone, or stuck, says no more that nft is in place.
        if tables::nanoseconds() <= tables::round_ends()
            && let Some(referred) = REFERRED.get_ptr_mut(u32::from(zone))
        {
            // SAFETY: the entry stays in memory while the program runs. Other CPUs write whole aligned
            // words; what they overwrite is a count that may be one too low then.
            unsafe {
                if (*referred)[0] != self.now {
                    *referred = [self.now, 1];
                    return true;
                }
                if (*referred)[1] < self.most {
                    (*referred)[1] += 1;
                    return true;
                }
            }
        }
        // SAFETY: as in `of_this_round`.
        unsafe { (*self.throttle)[SPENT] |= bit(zone) }
        false
    }

    /// Whether [`Self::refers`] is worth asking, as far as this CPU knows.
    #[inline(always)]
    pub(crate) fn may_refer(self, zone: u8) -> bool {
        // SAFETY: as in `of_this_round`.
        self.most != 0 && unsafe { (*self.throttle)[SPENT] } & bit(zone) == 0
    }

    /// Reports a refused packet, or counts that it was not. The limit comes first: a flood must not
    /// cost more than its counter.
    #[inline(always)]
    pub(crate) fn report(
        self,
        interface: u32,
        verdict: Verdict,
        what: (u8, u16),
        version: u8,
        source: [u32; 4],
        destination: [u32; 4],
    ) {
        let Self { throttle, now, .. } = self;
        // SAFETY: as in `of_this_round`.
        unsafe {
            if (*throttle)[REPORTS] >= layout::REPORTS_PER_ROUND {
                (*throttle)[LOST] += 1;
                return;
            }
        }
        let secret = constant(&tables::FLOW_SECRET);
        let hash = layout::flow_hash(secret, verdict.zone, what, source, destination);
        let Some(told) = TOLD.get_ptr_mut(layout::told_slot(hash)) else {
            return;
        };
        // SAFETY: the entry stays in memory while the program runs. CPUs read and write it as a whole
        // aligned word; whichever was last is right about its flow.
        if layout::is_told(unsafe { *told }, hash, now) {
            // SAFETY: as in `of_this_round`.
            unsafe { (*throttle)[REPEATED] += 1 }
            return;
        }
        // SAFETY: as in `of_this_round`.
        unsafe { (*throttle)[REPORTS] += 1 }
        let report = layout::report(interface, verdict, what, version, source, destination);
        let sent = REFUSED.output::<Report>(&report, u64::from(BPF_RB_NO_WAKEUP));
        // SAFETY: as above.
        unsafe {
            match sent {
                Ok(()) => *told = layout::told(hash, now),
                Err(_) => (*throttle)[LOST] += 1,
            }
        }
    }
}
