//! Frames read in place, with the kernel's helpers where a frame is not in one piece.

use aya_ebpf::EbpfContext;
use aya_ebpf::bindings::{__sk_buff, xdp_md};
use aya_ebpf::helpers::generated::{bpf_skb_load_bytes, bpf_xdp_get_buff_len, bpf_xdp_load_bytes};
use aya_ebpf::programs::{TcContext, XdpContext};
use core::arch::asm;
use core::mem::MaybeUninit;
use egressd_common::decide::Lookup;
use egressd_common::frame::Frame;
use egressd_common::link::{device, is_tagged, tag};

use crate::tables::{Kernel, blur};

/// Reads `N` words at `offset` between `data` and `end`, where they lie there and the offset is one
/// of plain IP in Ethernet or on a bare device. Without CAP_PERFMON the verifier lets only
/// constants be added to packet pointers, lest they be misused in speculation.
#[inline(always)]
fn direct<const N: usize>(data: usize, end: usize, offset: usize) -> Option<[u32; N]> {
    match offset {
        0 => at::<0, N>(data, end),
        12 => at::<12, N>(data, end),
        14 => at::<14, N>(data, end),
        20 => at::<20, N>(data, end),
        34 => at::<34, N>(data, end),
        40 => at::<40, N>(data, end),
        54 => at::<54, N>(data, end),
        _ => None,
    }
}

#[inline(always)]
fn at<const OFFSET: usize, const N: usize>(data: usize, end: usize) -> Option<[u32; N]> {
    let mut from = data;
    // SAFETY: an addition. Written out, the compiler cannot merge it with those of other offsets
    // into the addition of a variable.
    unsafe {
        asm!("{from} += {offset}", from = inout(reg) from, offset = const OFFSET,
            options(pure, nomem, nostack));
    }
    if from + 4 * N > end {
        return None;
    }
    // SAFETY: the bytes lie inside the packet, as just checked (and as the verifier proves again at
    // load time). Words need no alignment: the verifier refuses the program on machines where
    // packet loads do.
    Some(unsafe { *(from as *const [u32; N]) })
}

/// A function of its own, and so a stack of its own: what its ways leave there would make the verifier
/// follow each of them to the end of the program.
#[inline(never)]
fn xdp_device(context: *mut xdp_md, index: u32) -> u32 {
    let context = XdpContext::new(context);
    device(&XdpFrame(&context), index, &Kernel::of(index))
}

/// As [`xdp_device`].
#[inline(never)]
fn tcx_device(context: *mut __sk_buff, index: u32) -> u32 {
    let context = TcContext::new(context);
    device(&Skb(&context), index, &Kernel::of(index))
}

/// A frame at the XDP hook.
pub(crate) struct XdpFrame<'a>(pub(crate) &'a XdpContext);

impl Frame for XdpFrame<'_> {
    #[inline(always)]
    fn words<const N: usize>(&self, offset: usize) -> Option<[u32; N]> {
        if let Some(words) = direct(self.0.data(), self.0.data_end(), offset) {
            return Some(words);
        }
        self.words_behind(offset)
    }

    #[inline(always)]
    fn words_behind<const N: usize>(&self, offset: usize) -> Option<[u32; N]> {
        let mut words = MaybeUninit::<[u32; N]>::uninit();
        // SAFETY: the helper writes all 4 × N bytes of `words` or returns an error.
        unsafe {
            let code = bpf_xdp_load_bytes(
                self.0.ctx,
                offset as u32,
                words.as_mut_ptr().cast(),
                4 * N as u32,
            );
            (code == 0).then(|| words.assume_init())
        }
    }

    #[inline(always)]
    fn blur(&self, number: u64) -> u64 {
        blur(number)
    }

    #[inline(always)]
    fn device<L: Lookup>(&self, index: u32, _: &L) -> u32 {
        if is_tagged(self) {
            xdp_device(self.0.ctx, index)
        } else {
            index
        }
    }

    #[inline(always)]
    fn reaches(&self, length: usize) -> bool {
        // SAFETY: the context is the one the kernel handed in.
        length as u64 <= unsafe { bpf_xdp_get_buff_len(self.0.ctx) }
    }
}

/// A socket buffer at the TCX hook. Its first bytes are the link layer's header, if it has one.
pub(crate) struct Skb<'a>(pub(crate) &'a TcContext);

impl Frame for Skb<'_> {
    #[inline(always)]
    fn words<const N: usize>(&self, offset: usize) -> Option<[u32; N]> {
        if let Some(words) = direct(self.0.data(), self.0.data_end(), offset) {
            return Some(words);
        }
        self.words_behind(offset)
    }

    #[inline(always)]
    fn words_behind<const N: usize>(&self, offset: usize) -> Option<[u32; N]> {
        let mut words = MaybeUninit::<[u32; N]>::uninit();
        // SAFETY: the helper writes all 4 × N bytes of `words` or returns an error.
        unsafe {
            let code = bpf_skb_load_bytes(
                self.0.as_ptr(),
                offset as u32,
                words.as_mut_ptr().cast(),
                4 * N as u32,
            );
            (code == 0).then(|| words.assume_init())
        }
    }

    #[inline(always)]
    fn blur(&self, number: u64) -> u64 {
        blur(number)
    }

    #[inline(always)]
    fn device<L: Lookup>(&self, index: u32, _: &L) -> u32 {
        if is_tagged(self) {
            tcx_device(self.0.skb.skb, index)
        } else {
            index
        }
    }

    #[inline(always)]
    fn reaches(&self, length: usize) -> bool {
        length <= self.0.len() as usize
    }

    /// The card or the kernel took it off (`skb_vlan_untag`) before any program of traffic control
    /// could run.
    #[inline(always)]
    fn stripped(&self) -> Option<u32> {
        // SAFETY: the kernel hands a valid `__sk_buff` to the program for as long as it runs.
        let skb = unsafe { &*self.0.skb.skb };
        if skb.vlan_present == 0 {
            return None;
        }
        let protocol = u16::from_be(skb.vlan_proto as u16);
        Some(tag(protocol, skb.vlan_tci as u16))
    }
}

/// As [`Skb`], for the program that judges what the gateway sends. A type of its own: what two programs
/// share the compiler makes a function, and hands it pointers to the stack, which the verifier does not
/// like to see overwritten.
pub(crate) struct SentSkb<'a>(pub(crate) Skb<'a>);

impl Frame for SentSkb<'_> {
    #[inline(always)]
    fn words<const N: usize>(&self, offset: usize) -> Option<[u32; N]> {
        self.0.words(offset)
    }

    #[inline(always)]
    fn words_behind<const N: usize>(&self, offset: usize) -> Option<[u32; N]> {
        self.0.words_behind(offset)
    }

    #[inline(always)]
    fn blur(&self, number: u64) -> u64 {
        blur(number)
    }

    #[inline(always)]
    fn device<L: Lookup>(&self, index: u32, _: &L) -> u32 {
        index
    }

    #[inline(always)]
    fn reaches(&self, length: usize) -> bool {
        self.0.reaches(length)
    }

    #[inline(always)]
    fn stripped(&self) -> Option<u32> {
        self.0.stripped()
    }
}
