//! Kernel programs of the bench: one that makes frames, one that counts and ends those that arrive,
//! one that drops whatever it sees. No part of the product; an empty program on any other target.
#![cfg_attr(target_arch = "bpf", no_std, no_main)]
#![cfg_attr(
    target_arch = "bpf",
    expect(unsafe_code, reason = "frames are written and read in place")
)]

#[cfg(target_arch = "bpf")]
mod entry {
    use aya_ebpf::bindings::xdp_action::{XDP_ABORTED, XDP_DROP, XDP_PASS, XDP_TX};
    use aya_ebpf::helpers::generated::{bpf_get_prandom_u32, bpf_redirect};
    use aya_ebpf::macros::{map, xdp};
    use aya_ebpf::maps::{Array, PerCpuArray};
    use aya_ebpf::programs::XdpContext;

    /// Bytes of every frame that is made.
    const FRAME: usize = 64;
    const ETHERNET: usize = 14;
    const IPV4: usize = 20;
    const IPV6: usize = 40;
    const UDP: u8 = 17;
    const FIRST_PORT: u32 = 1024;

    /// Frames made on this CPU.
    #[map]
    static MADE: PerCpuArray<u64> = PerCpuArray::with_max_entries(1, 0);
    /// Frames that arrived at the sink.
    #[map]
    static ARRIVED: PerCpuArray<u64> = PerCpuArray::with_max_entries(1, 0);
    /// 1 while the sink sends every frame back to where it came from.
    #[map]
    static REFLECT: Array<u32> = Array::with_max_entries(1, 0);

    // Constants of one load: user space writes them into the object.
    /// The frame, with the first destination; an IPv4 header's checksum is zero.
    #[unsafe(no_mangle)]
    static TEMPLATE: [u32; FRAME / 4] = [0; FRAME / 4];
    /// 4 or 6.
    #[unsafe(no_mangle)]
    static VERSION: u8 = 4;
    /// How many addresses, from the template's on, are destinations.
    #[unsafe(no_mangle)]
    static SPAN: u32 = 1;
    /// 1: one destination after the other; 0: at random.
    #[unsafe(no_mangle)]
    static IN_ORDER: u8 = 0;
    /// 1: a destination always has the same source port, so that there are as many flows as
    /// destinations; 0: source ports at random.
    #[unsafe(no_mangle)]
    static FIXED_PORTS: u8 = 0;
    /// Frames to this UDP port are the sink's.
    #[unsafe(no_mangle)]
    static PORT: u16 = 0;

    /// Reads a constant that the compiler must not believe.
    #[inline(always)]
    fn constant<T: Copy>(constant: &T) -> T {
        // SAFETY: a reference is valid for reads.
        unsafe { core::ptr::read_volatile(constant) }
    }

    /// A run of `T`s inside a frame, where `at` and all of them lie inside it.
    #[inline(always)]
    fn field<T>(context: &XdpContext, at: usize) -> Option<*mut T> {
        let from = context.data() + at;
        (from + size_of::<T>() <= context.data_end()).then_some(from as *mut T)
    }

    #[inline(always)]
    fn count(counter: &PerCpuArray<u64>) -> u64 {
        let Some(counter) = counter.get_ptr_mut(0) else {
            return 0;
        };
        // SAFETY: this CPU's own entry; XDP programs of one CPU do not interrupt each other.
        unsafe {
            let before = *counter;
            *counter = before + 1;
            before
        }
    }

    /// Writes a whole frame, as pages come back with what the stack left in them, and sends it out of
    /// the device it is run for.
    #[xdp]
    fn generate(context: XdpContext) -> u32 {
        let Some(frame) = field::<[u32; FRAME / 4]>(&context, 0) else {
            return XDP_ABORTED;
        };
        let made = count(&MADE);
        // A division by zero would be a call that the verifier does not take.
        let span = u64::from(constant(&SPAN).max(1));
        // SAFETY: the helper has no preconditions.
        let random = unsafe { bpf_get_prandom_u32() };
        let index = if constant(&IN_ORDER) != 0 {
            (made % span) as u32
        } else {
            ((u64::from(random) * span) >> 32) as u32
        };
        let spread = if constant(&FIXED_PORTS) != 0 {
            index
        } else {
            random
        };
        let port = (FIRST_PORT + (spread & 0x7fff)) as u16;
        // SAFETY: `frame` has FRAME bytes, and every offset below lies in them; frames need no
        // alignment on machines where the verifier accepts the program.
        unsafe {
            for at in 0..FRAME / 4 {
                (*frame)[at] = constant(&TEMPLATE[at]);
            }
            let bytes = frame.cast::<u8>();
            let header = if constant(&VERSION) == 4 { IPV4 } else { IPV6 };
            let to = bytes.add(ETHERNET + header - 4).cast::<u32>();
            *to = (u32::from_be(*to) + index).to_be();
            *bytes.add(ETHERNET + header).cast::<u16>() = port.to_be();
            if header == IPV4 {
                let words = bytes.add(ETHERNET).cast::<u16>();
                let mut sum = 0u32;
                for at in 0..IPV4 / 2 {
                    sum += u32::from(*words.add(at));
                }
                sum = (sum & 0xffff) + (sum >> 16);
                sum = (sum & 0xffff) + (sum >> 16);
                *words.add(5) = !(sum as u16);
            }
        }
        XDP_TX
    }

    /// Counts frames to the port, then ends them or sends them back. All else goes to the stack.
    #[xdp]
    fn sink(context: XdpContext) -> u32 {
        let found = match field::<[u8; 2]>(&context, ETHERNET - 2) {
            // SAFETY: in bounds, as just checked; so are the pointers below.
            Some(kind) => match unsafe { *kind } {
                [0x08, 0x00] => udp(&context, IPV4, 9),
                [0x86, 0xdd] => udp(&context, IPV6, 6),
                _ => false,
            },
            None => false,
        };
        if !found {
            return XDP_PASS;
        }
        count(&ARRIVED);
        let reflect = REFLECT.get(0).is_some_and(|reflect| *reflect != 0);
        if !reflect {
            return XDP_DROP;
        }
        // Not XDP_TX: veth wakes the other end for that only where it has a program, too.
        // SAFETY: the helper has no preconditions.
        unsafe { bpf_redirect(context.ingress_ifindex() as u32, 0) as u32 }
    }

    /// Whether the packet is UDP to the port; if frames are sent back, turns it round.
    #[inline(always)]
    fn udp(context: &XdpContext, header: usize, protocol: usize) -> bool {
        let Some(protocol) = field::<u8>(context, ETHERNET + protocol) else {
            return false;
        };
        let Some(ports) = field::<[u16; 2]>(context, ETHERNET + header) else {
            return false;
        };
        // SAFETY: both lie inside the frame.
        if unsafe { *protocol != UDP || (*ports)[1] != constant(&PORT).to_be() } {
            return false;
        }
        if REFLECT.get(0).is_some_and(|reflect| *reflect != 0) {
            // SAFETY: whatever comes before the ports lies inside the frame, too. A swap changes no
            // checksum.
            unsafe {
                let [from, to] = *ports;
                *ports = [to, from];
                swap::<[u16; 3]>(context, 0);
                if header == IPV4 {
                    swap::<[u16; 2]>(context, ETHERNET + 12);
                } else {
                    swap::<[u16; 8]>(context, ETHERNET + 8);
                }
            }
        }
        true
    }

    /// Swaps two neighbours.
    #[inline(always)]
    unsafe fn swap<T: Copy>(context: &XdpContext, at: usize) {
        if let Some(pair) = field::<[T; 2]>(context, at) {
            // SAFETY: it lies inside the frame, as just checked.
            unsafe {
                let [one, other] = *pair;
                *pair = [other, one];
            }
        }
    }

    /// The least a program can do to a packet that must not go on.
    #[xdp]
    fn bare_drop(_context: XdpContext) -> u32 {
        XDP_DROP
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
