//! Preloaded into a daemon under test: counts its calls of bpf(2) and of netlink, and lets the one fail
//! that a control file names; moves its wall clock. Nothing of it is in the product. Takes no lock and allocates nothing,
//! because the standard library waits for locks and for memory through the very calls that it wraps.
#![expect(unsafe_code, reason = "it stands in for functions of the C library")]

use libc::{
    c_int, c_long, c_void, clockid_t, iovec, msghdr, size_t, sockaddr, socklen_t, ssize_t, timespec,
};
use std::ffi::CStr;
use std::mem::transmute;
use std::ptr::{null, null_mut};
use std::sync::atomic::{AtomicPtr, AtomicU8, AtomicU64, AtomicUsize, Ordering::SeqCst};

mod slot {
    //! The control file: 64-bit numbers in the machine's order. `lab/faults.rs` of the tests writes and
    //! reads the same.
    /// The class of calls that fail, plus one; 0: none; [`ANY`]: every class.
    pub(super) const CLASS: usize = 0;
    /// The first that fails, from 1, counted from when the class was set.
    pub(super) const FIRST: usize = 1;
    /// How many fail one after the other.
    pub(super) const COUNT: usize = 2;
    /// The error number.
    pub(super) const ERRNO: usize = 3;
    /// 2: the kernel seems to refuse the request that is sent; else the call itself fails.
    pub(super) const MANNER: usize = 4;
    /// Calls since the class was set.
    pub(super) const HITS: usize = 5;
    /// Calls that failed since the class was set.
    pub(super) const FAILED: usize = 6;
    /// Seconds that the wall clock is ahead, as a signed number.
    pub(super) const AHEAD: usize = 7;
    /// Calls so far, by class.
    pub(super) const CALLS: usize = 16;
    pub(super) const ALL: usize = 128;
    pub(super) const ANY: u64 = u64::MAX;
}

/// Classes from 0 are the commands of bpf(2). Of netlink's, four each: open, send, receive; for nftables,
/// connections, packets' log, routes, others.
const NETLINK: usize = 64;
const SUBSYSTEMS: [u8; 3] = [10, 1, 4];
const OPEN: usize = 0;
const SEND: usize = 1;
const RECEIVE: usize = 2;

static CONTROL: AtomicPtr<AtomicU64> = AtomicPtr::new(null_mut());
/// What was sent last over a netfilter socket, by descriptor.
static SUBSYSTEM: [AtomicU8; 1024] = [const { AtomicU8::new(0) }; 1024];
/// The refusal that waits to be received: sequence number and error number.
static REFUSAL: [AtomicU64; 1024] = [const { AtomicU64::new(0) }; 1024];

/// The control file, if there is one and it can be had.
fn control() -> Option<&'static [AtomicU64; slot::ALL]> {
    let mut at = CONTROL.load(SeqCst);
    if at.is_null() {
        at = map();
        CONTROL.store(at, SeqCst);
    }
    // SAFETY: `map` gives whole pages that stay mapped for the life of the process, and every access to
    // them by this process is atomic.
    (at as usize != usize::MAX).then(|| unsafe { &*at.cast() })
}

/// `usize::MAX` is "never".
fn map() -> *mut AtomicU64 {
    let never = usize::MAX as *mut AtomicU64;
    // SAFETY: plain C calls with pointers to constants, to a name that lives as long as the environment,
    // and a mapping at an address of the kernel's choice. Two threads may map twice, which is harmless.
    unsafe {
        let path = libc::getenv(c"EGRESSD_SHIM".as_ptr());
        if path.is_null() {
            return never;
        }
        let file = libc::open(path, libc::O_RDWR | libc::O_CLOEXEC);
        if file < 0 {
            return never;
        }
        let length = slot::ALL * size_of::<u64>();
        let rights = libc::PROT_READ | libc::PROT_WRITE;
        let at = libc::mmap(null_mut(), length, rights, libc::MAP_SHARED, file, 0);
        libc::close(file);
        if at == libc::MAP_FAILED {
            never
        } else {
            at.cast()
        }
    }
}

/// How a call is to fail.
#[derive(Clone, Copy)]
struct Fault {
    errno: c_int,
    manner: u64,
}

/// Counts a call; how it is to fail, if it is.
fn fault(class: usize) -> Option<Fault> {
    let control = control()?;
    if class >= slot::ALL - slot::CALLS {
        return None;
    }
    control[slot::CALLS + class].fetch_add(1, SeqCst);
    let armed = control[slot::CLASS].load(SeqCst);
    if armed != slot::ANY && armed != class as u64 + 1 {
        return None;
    }
    let number = control[slot::HITS].fetch_add(1, SeqCst) + 1;
    let first = control[slot::FIRST].load(SeqCst);
    if number < first || number - first >= control[slot::COUNT].load(SeqCst) {
        return None;
    }
    control[slot::FAILED].fetch_add(1, SeqCst);
    Some(Fault {
        errno: control[slot::ERRNO].load(SeqCst) as c_int,
        manner: control[slot::MANNER].load(SeqCst),
    })
}

fn fail(fault: Fault) -> ssize_t {
    // SAFETY: the C library gives each thread a place for its error number.
    unsafe { *libc::__errno_location() = fault.errno };
    -1
}

/// The C library's own function, found once.
fn real(known: &AtomicUsize, name: &CStr) -> usize {
    let mut at = known.load(SeqCst);
    if at == 0 {
        // SAFETY: a plain C call with a name that ends in NUL.
        at = unsafe { libc::dlsym(libc::RTLD_NEXT, name.as_ptr()) } as usize;
        known.store(at, SeqCst);
    }
    at
}

macro_rules! original {
    ($name:literal, fn($($kind:ty),*) -> $result:ty) => {{
        static KNOWN: AtomicUsize = AtomicUsize::new(0);
        // SAFETY: the C library has every function that is wrapped here, of exactly this type.
        unsafe { transmute::<usize, unsafe extern "C" fn($($kind),*) -> $result>(real(&KNOWN, $name)) }
    }};
}

/// What is asked of a socket of any kind.
fn option(socket: c_int, name: c_int) -> c_int {
    let mut value: c_int = -1;
    let mut length = size_of::<c_int>() as socklen_t;
    // SAFETY: value and length are live, and length is the value's.
    unsafe {
        let value = (&raw mut value).cast();
        libc::getsockopt(socket, libc::SOL_SOCKET, name, value, &raw mut length);
    }
    value
}

/// The first class of a netlink socket's four; `bytes` are about to be sent.
fn netlink(socket: c_int, bytes: &[u8]) -> Option<usize> {
    control()?;
    if option(socket, libc::SO_DOMAIN) != libc::AF_NETLINK {
        return None;
    }
    match option(socket, libc::SO_PROTOCOL) {
        libc::NETLINK_ROUTE => Some(class(3)),
        libc::NETLINK_NETFILTER => {
            let last = SUBSYSTEM.get(usize::try_from(socket).ok()?)?;
            // A batch begins with a message of no subsystem's.
            let mut kinds = messages(bytes).map(|(_, message)| message[5]);
            if let Some(kind) = kinds.find(|kind| *kind != 0) {
                last.store(kind, SeqCst);
            }
            let known = last.load(SeqCst);
            let which = SUBSYSTEMS.iter().position(|kind| *kind == known);
            // One that was never sent anything listens to nftables.
            Some(class(which.unwrap_or(0)))
        }
        _ => Some(class(4)),
    }
}

fn class(which: usize) -> usize {
    NETLINK + 4 * which
}

/// Where each message begins, and its bytes from there on; whole headers only.
fn messages(bytes: &[u8]) -> impl Iterator<Item = (usize, &[u8])> {
    let mut at = 0;
    std::iter::from_fn(move || {
        let message = bytes.get(at..).filter(|rest| rest.len() >= 16)?;
        let here = at;
        let length = word(message, 0) as usize;
        at += length.max(16).next_multiple_of(4);
        Some((here, message))
    })
}

fn word(bytes: &[u8], at: usize) -> u32 {
    bytes.get(at..at + 4).map_or(0, |four| {
        u32::from_ne_bytes([four[0], four[1], four[2], four[3]])
    })
}

/// Fails a send, or lets it seem refused by the kernel.
fn sent(socket: c_int, bytes: &[u8], fault: Fault) -> ssize_t {
    let asks = |message: &[u8]| message[6] & libc::NLM_F_ACK as u8 != 0 || message[7] & 3 != 0;
    let asking = messages(bytes).filter(|(_, message)| asks(message)).last();
    // SAFETY: reads the flags of a descriptor.
    let waits = unsafe { libc::fcntl(socket, libc::F_GETFL) } & libc::O_NONBLOCK == 0;
    match (fault.manner, asking, REFUSAL.get(socket as usize)) {
        (2, Some((_, message)), Some(refusal)) if waits => {
            let sequence = u64::from(word(message, 8));
            refusal.store(sequence << 32 | fault.errno as u64, SeqCst);
            bytes.len() as ssize_t
        }
        _ => fail(fault),
    }
}

/// The kernel's error message, if one waits to be received.
fn refusal(socket: c_int) -> Option<[u8; 36]> {
    let waits = REFUSAL.get(usize::try_from(socket).ok()?)?.swap(0, SeqCst);
    if waits == 0 {
        return None;
    }
    let (sequence, errno) = ((waits >> 32) as u32, waits as u32 as i32);
    let mut message = [0; 36];
    message[..4].copy_from_slice(&36_u32.to_ne_bytes());
    message[4..6].copy_from_slice(&(libc::NLMSG_ERROR as u16).to_ne_bytes());
    message[8..12].copy_from_slice(&sequence.to_ne_bytes());
    message[16..20].copy_from_slice(&(-errno).to_ne_bytes());
    message[20..24].copy_from_slice(&16_u32.to_ne_bytes());
    message[28..32].copy_from_slice(&sequence.to_ne_bytes());
    Some(message)
}

/// # Safety
/// As bpf(2), futex(2) and all others that go this way. Registers that a call does not use are passed on.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn syscall(
    number: c_long,
    a: c_long,
    b: c_long,
    c: c_long,
    d: c_long,
    e: c_long,
    f: c_long,
) -> c_long {
    if number == libc::SYS_bpf
        && let Ok(command) = usize::try_from(a)
        && command < NETLINK
        && let Some(fault) = fault(command)
    {
        return fail(fault) as c_long;
    }
    let next = original!(
        c"syscall",
        fn(c_long, c_long, c_long, c_long, c_long, c_long, c_long) -> c_long
    );
    // SAFETY: the caller's own arguments. The C library's function takes them in the same registers,
    // whether or not it is declared with a fixed number of them.
    unsafe { next(number, a, b, c, d, e, f) }
}

/// # Safety
/// As socket(2).
#[unsafe(no_mangle)]
pub unsafe extern "C" fn socket(domain: c_int, kind: c_int, protocol: c_int) -> c_int {
    let which = match protocol {
        libc::NETLINK_ROUTE => 3,
        libc::NETLINK_NETFILTER => 0,
        _ => 4,
    };
    if domain == libc::AF_NETLINK
        && let Some(fault) = fault(class(which) + OPEN)
    {
        return fail(fault) as c_int;
    }
    let next = original!(c"socket", fn(c_int, c_int, c_int) -> c_int);
    // SAFETY: the caller's own arguments.
    let made = unsafe { next(domain, kind, protocol) };
    // What a closed socket of this number was used for is over.
    if let Ok(at) = usize::try_from(made)
        && let (Some(last), Some(refusal)) = (SUBSYSTEM.get(at), REFUSAL.get(at))
    {
        last.store(0, SeqCst);
        refusal.store(0, SeqCst);
    }
    made
}

/// # Safety
/// As sendto(2).
#[unsafe(no_mangle)]
pub unsafe extern "C" fn sendto(
    socket: c_int,
    buffer: *const c_void,
    length: size_t,
    flags: c_int,
    to: *const sockaddr,
    size: socklen_t,
) -> ssize_t {
    // SAFETY: the caller says that so many bytes are there.
    let bytes = unsafe { bytes(buffer, length) };
    if let Some(class) = netlink(socket, bytes)
        && let Some(fault) = fault(class + SEND)
    {
        return sent(socket, bytes, fault);
    }
    let next = original!(
        c"sendto",
        fn(c_int, *const c_void, size_t, c_int, *const sockaddr, socklen_t) -> ssize_t
    );
    // SAFETY: the caller's own arguments.
    unsafe { next(socket, buffer, length, flags, to, size) }
}

/// # Safety
/// As send(2).
#[unsafe(no_mangle)]
pub unsafe extern "C" fn send(
    socket: c_int,
    buffer: *const c_void,
    length: size_t,
    flags: c_int,
) -> ssize_t {
    // SAFETY: send is sendto without an address.
    unsafe { sendto(socket, buffer, length, flags, null(), 0) }
}

/// # Safety
/// As sendmsg(2).
#[unsafe(no_mangle)]
pub unsafe extern "C" fn sendmsg(socket: c_int, message: *const msghdr, flags: c_int) -> ssize_t {
    // SAFETY: the caller says that a message with its parts is there.
    let part = unsafe { first(message) };
    // SAFETY: as above.
    let bytes = part.map_or(&[][..], |part| unsafe {
        bytes(part.iov_base, part.iov_len)
    });
    if let Some(class) = netlink(socket, bytes)
        && let Some(fault) = fault(class + SEND)
    {
        return sent(socket, bytes, fault);
    }
    let next = original!(c"sendmsg", fn(c_int, *const msghdr, c_int) -> ssize_t);
    // SAFETY: the caller's own arguments.
    unsafe { next(socket, message, flags) }
}

/// # Safety
/// As recvfrom(2).
#[unsafe(no_mangle)]
pub unsafe extern "C" fn recvfrom(
    socket: c_int,
    buffer: *mut c_void,
    length: size_t,
    flags: c_int,
    from: *mut sockaddr,
    size: *mut socklen_t,
) -> ssize_t {
    if let Some(message) = refusal(socket) {
        let fits = message.len().min(length);
        // SAFETY: the caller says that there is room for so many bytes.
        unsafe { std::ptr::copy_nonoverlapping(message.as_ptr(), buffer.cast(), fits) };
        return message.len() as ssize_t;
    }
    let next = original!(
        c"recvfrom",
        fn(c_int, *mut c_void, size_t, c_int, *mut sockaddr, *mut socklen_t) -> ssize_t
    );
    // SAFETY: the caller's own arguments.
    received(socket, || unsafe {
        next(socket, buffer, length, flags, from, size)
    })
}

/// # Safety
/// As recv(2).
#[unsafe(no_mangle)]
pub unsafe extern "C" fn recv(
    socket: c_int,
    buffer: *mut c_void,
    length: size_t,
    flags: c_int,
) -> ssize_t {
    // SAFETY: recv is recvfrom that does not ask for the address.
    unsafe { recvfrom(socket, buffer, length, flags, null_mut(), null_mut()) }
}

/// # Safety
/// As recvmsg(2).
#[unsafe(no_mangle)]
pub unsafe extern "C" fn recvmsg(socket: c_int, message: *mut msghdr, flags: c_int) -> ssize_t {
    let next = original!(c"recvmsg", fn(c_int, *mut msghdr, c_int) -> ssize_t);
    // SAFETY: the caller's own arguments.
    received(socket, || unsafe { next(socket, message, flags) })
}

/// # Safety
/// As clock_gettime(2).
#[unsafe(no_mangle)]
pub unsafe extern "C" fn clock_gettime(clock: clockid_t, time: *mut timespec) -> c_int {
    let next = original!(c"clock_gettime", fn(clockid_t, *mut timespec) -> c_int);
    // SAFETY: the caller's own arguments.
    let done = unsafe { next(clock, time) };
    let wall = [libc::CLOCK_REALTIME, libc::CLOCK_REALTIME_COARSE];
    if done == 0
        && wall.contains(&clock)
        && let Some(control) = control()
    {
        // SAFETY: the kernel just wrote to it.
        unsafe { (*time).tv_sec += control[slot::AHEAD].load(SeqCst).cast_signed() };
    }
    done
}

/// Receives, unless it is to fail. Only what brings something is counted.
fn received(socket: c_int, receive: impl FnOnce() -> ssize_t) -> ssize_t {
    let Some(class) = netlink(socket, &[]) else {
        return receive();
    };
    // Interrupted, it took nothing.
    if interrupts()
        && let Some(fault) = fault(class + RECEIVE)
    {
        return fail(fault);
    }
    let length = receive();
    if length < 0 || interrupts() {
        return length;
    }
    match fault(class + RECEIVE) {
        Some(fault) => fail(fault),
        None => length,
    }
}

fn interrupts() -> bool {
    control().is_some_and(|control| control[slot::ERRNO].load(SeqCst) == libc::EINTR as u64)
}

/// # Safety
/// A message and its parts must be there.
unsafe fn first<'a>(message: *const msghdr) -> Option<&'a iovec> {
    // SAFETY: as this function's.
    let message = unsafe { message.as_ref() }?;
    if message.msg_iovlen == 0 {
        return None;
    }
    // SAFETY: as this function's.
    unsafe { message.msg_iov.as_ref() }
}

/// # Safety
/// So many bytes must be there.
unsafe fn bytes<'a>(at: *const c_void, length: usize) -> &'a [u8] {
    if at.is_null() {
        return &[];
    }
    // SAFETY: as this function's, and no slice is longer than a process's memory.
    unsafe { std::slice::from_raw_parts(at.cast(), length) }
}
