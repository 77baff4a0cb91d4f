//! What a verdict costs: the product's XDP program, and one that decides nothing, each sending every
//! frame to another destination first. No part of the product; an empty program on any other target.
#![cfg_attr(target_arch = "bpf", no_std, no_main)]
#![cfg_attr(target_arch = "bpf", feature(asm_experimental_arch))]
#![cfg_attr(
    target_arch = "bpf",
    expect(unsafe_code, reason = "packets and map values are read in place")
)]

#[cfg(target_arch = "bpf")]
mod frame;
#[cfg(target_arch = "bpf")]
mod reports;
#[cfg(target_arch = "bpf")]
mod tables;

#[cfg(target_arch = "bpf")]
mod entry {
    use crate::frame::XdpFrame;
    use crate::tables::{self, Kernel};
    use aya_ebpf::bindings::xdp_action::{XDP_ABORTED, XDP_DROP, XDP_PASS};
    use aya_ebpf::macros::{map, xdp};
    use aya_ebpf::maps::PerCpuArray;
    use aya_ebpf::programs::XdpContext;
    use egressd_common::decide::decide;

    /// Where the last word of the destination is.
    const OF_V4: usize = 14 + 16;
    const OF_V6: usize = 14 + 24 + 12;

    /// What the next destination is drawn from.
    #[map]
    static DICE: PerCpuArray<u64> = PerCpuArray::with_max_entries(1, 0);

    // Constants of one load: user space writes them into the object.
    /// The last word of the first destination, in the host's byte order.
    #[unsafe(no_mangle)]
    static FIRST: u32 = 0;
    /// How many destinations follow each other from there on.
    #[unsafe(no_mangle)]
    static SPAN: u32 = 1;
    /// 4 or 6.
    #[unsafe(no_mangle)]
    static VERSION: u32 = 4;

    /// Reads a constant that the compiler must not believe.
    #[inline(always)]
    fn constant<T: Copy>(constant: &T) -> T {
        // SAFETY: a reference is valid for reads.
        unsafe { core::ptr::read_volatile(constant) }
    }

    /// Sends the frame to a destination of the span, at random (xorshift64).
    #[inline(always)]
    fn aim(context: &XdpContext) -> bool {
        let Some(dice) = DICE.get_ptr_mut(0) else {
            return false;
        };
        let at = if constant(&VERSION) == 4 {
            OF_V4
        } else {
            OF_V6
        };
        let to = context.data() + at;
        if to + 4 > context.data_end() {
            return false;
        }
        // SAFETY: this CPU's own entry; the word lies in the frame, as just checked.
        unsafe {
            let mut drawn = *dice | 1;
            drawn ^= drawn << 13;
            drawn ^= drawn >> 7;
            drawn ^= drawn << 17;
            *dice = drawn;
            let number = ((drawn >> 32) * u64::from(constant(&SPAN)) >> 32) as u32;
            *(to as *mut u32) = (constant(&FIRST) + number).to_be();
        }
        true
    }

    #[xdp(frags)]
    fn egressd_xdp(context: XdpContext) -> u32 {
        if !aim(&context) {
            return XDP_ABORTED;
        }
        let index = context.ingress_ifindex() as u32;
        let verdict = decide(&XdpFrame(&context), index, &Kernel::of(index));
        tables::count(verdict);
        if verdict.action.passes() {
            XDP_PASS
        } else {
            XDP_DROP
        }
    }

    #[xdp(frags)]
    fn nothing(context: XdpContext) -> u32 {
        if aim(&context) { XDP_PASS } else { XDP_ABORTED }
    }

    #[panic_handler]
    fn panic(_: &core::panic::PanicInfo<'_>) -> ! {
        loop {}
    }

    #[unsafe(link_section = "license")]
    #[unsafe(no_mangle)]
    static LICENSE: [u8; 13] = *b"Dual MIT/GPL\0";
}

#[cfg(not(target_arch = "bpf"))]
fn main() {}
