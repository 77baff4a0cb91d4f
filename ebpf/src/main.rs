//! Entry points of the kernel programs; an empty program on any other target. Decides nothing:
//! they hand the frame to `common::decide`, count the verdict and turn it into a return code.
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
    use crate::frame::{SentSkb, Skb, XdpFrame};
    use crate::reports;
    use crate::tables::{self, Kernel};
    use aya_ebpf::EbpfContext as _;
    use aya_ebpf::bindings::xdp_action::{XDP_DROP, XDP_PASS};
    use aya_ebpf::macros::{classifier, xdp};
    use aya_ebpf::programs::{TcContext, XdpContext};
    use egressd_common::OWN_MARK;
    use egressd_common::decide::{SENT, decide, decide_sent};
    use egressd_common::verdict::Action;

    /// Let the next program of the hook have its say (`TCX_NEXT`).
    const TCX_NEXT: i32 = -1;
    /// End the packet here (`TCX_DROP`).
    const TCX_DROP: i32 = 2;

    /// XDP, native or generic, on Ethernet devices.
    #[xdp(frags)]
    fn egressd_xdp(context: XdpContext) -> u32 {
        let index = context.ingress_ifindex() as u32;
        let verdict = decide(&XdpFrame(&context), index, &Kernel::of(index));
        let verdict = reports::confirmed(verdict, context.as_ptr());
        tables::count(verdict);
        match verdict.action {
            Action::Pass | Action::Audit | Action::Refer => XDP_PASS,
            Action::Drop => XDP_DROP,
        }
    }

    /// TCX ingress, on devices with and without Ethernet headers.
    #[classifier]
    fn egressd_tcx(context: TcContext) -> i32 {
        // SAFETY: the kernel hands a valid `__sk_buff` to the program for as long as it runs.
        let index = unsafe { (*context.skb.skb).ifindex };
        let verdict = decide(&Skb(&context), index, &Kernel::of(index));
        let verdict = reports::confirmed(verdict, context.as_ptr());
        tables::count(verdict);
        match verdict.action {
            Action::Pass | Action::Audit | Action::Refer => TCX_NEXT,
            Action::Drop => TCX_DROP,
        }
    }

    /// TCX egress, on interfaces in no zone, while a zone judges what the gateway itself sends.
    #[classifier]
    fn egressd_sent(context: TcContext) -> i32 {
        // SAFETY: the kernel hands a valid `__sk_buff` to the program for as long as it runs.
        let (index, entered, mark) = unsafe {
            let skb = &*context.skb.skb;
            (skb.ifindex, skb.ingress_ifindex, skb.mark)
        };
        // Only what begins here entered nowhere (`skb_iif`, which tunnels forget on purpose). Whom
        // egressd itself may ask nft has said already.
        if entered != 0 || mark == OWN_MARK {
            return TCX_NEXT;
        }
        let verdict = decide_sent(&SentSkb(Skb(&context)), index, &Kernel::of(index | SENT));
        tables::count(verdict);
        match verdict.action {
            Action::Pass | Action::Audit | Action::Refer => TCX_NEXT,
            Action::Drop => TCX_DROP,
        }
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
