//! The place of TCX on kernels before 6.6: one filter of traffic control's `clsact` per interface,
//! known by its priority, handle and name. It outlives the process by itself, and changing it puts
//! another program in its place between two packets (`cls_bpf_change`, Linux `net/sched/cls_bpf.c`).

use crate::plane::netlink::{Attributes, Failure, Request, Socket};
use anyhow::Context as _;
use nix::errno::Errno;
use std::io;
use std::os::fd::{AsRawFd as _, BorrowedFd};

/// Before all other filters.
const PRIORITY: u32 = 1;
/// Ours among the filters of that priority.
const HANDLE: u32 = 0xe9e5;
const NAME: &str = "egressd";
/// Seconds that the kernel may take.
const PATIENCE: i64 = 10;

// From Linux `include/uapi/linux/pkt_sched.h`, `rtnetlink.h` and `pkt_cls.h`.
const CLSACT: u32 = 0xffff_fff1;
const CLSACT_HANDLE: u32 = 0xffff_0000;
const INGRESS: u32 = 0xffff_fff2;
const KIND: u16 = 1;
const OPTIONS: u16 = 2;
const BPF_DESCRIPTOR: u16 = 6;
const BPF_NAME: u16 = 7;
const BPF_FLAGS: u16 = 8;
const BPF_ID: u16 = 11;
/// The program's return code is the verdict.
const DIRECT_ACTION: u32 = 1;
const HEADER: usize = 20;

/// Who a request is about: `struct tcmsg`.
#[derive(Clone, Copy)]
struct About {
    interface: u32,
    handle: u32,
    parent: u32,
    info: u32,
}

impl About {
    fn filter(interface: u32) -> Self {
        let every_protocol = u16::to_be(libc::ETH_P_ALL as u16);
        Self {
            interface,
            handle: HANDLE,
            parent: INGRESS,
            info: PRIORITY << 16 | u32::from(every_protocol),
        }
    }

    fn request(self, kind: u16) -> Request {
        let Self {
            interface,
            handle,
            parent,
            info,
        } = self;
        let words = [0, interface, handle, parent, info].map(u32::to_ne_bytes);
        Request::plain(kind, words.as_flattened())
    }
}

/// The id of the program that our filter on an interface runs; `None` where there is no such filter.
///
/// # Errors
/// When the kernel cannot be asked, or another one's filter has our place.
pub(super) fn find(interface: u32) -> anyhow::Result<Option<u32>> {
    let mut found = None;
    let request = About::filter(interface)
        .request(libc::RTM_GETTFILTER)
        .with_text(KIND, "bpf");
    let outcome = socket()?.request(request, |payload| found = found.or(Some(read(payload))));
    match outcome {
        Ok(()) => {}
        // No filter, no clsact, no interface.
        Err(Failure::Refused(refusal))
            if matches!(refusal.errno, Errno::ENOENT | Errno::EINVAL | Errno::ENODEV) =>
        {
            return Ok(None);
        }
        Err(failure) => return Err(failure).context("read the clsact filter"),
    }
    match found {
        Some(Some(program)) => Ok(Some(program)),
        Some(None) => anyhow::bail!("another one's clsact filter has our handle"),
        None => Ok(None),
    }
}

/// The program's id in what the kernel says of a filter, if it bears our name.
fn read(payload: &[u8]) -> Option<u32> {
    let options = Attributes::new(payload.get(HEADER..)?).nest(OPTIONS);
    let name = options.get(BPF_NAME)?;
    let id = options.get(BPF_ID)?.try_into().ok()?;
    (name.strip_suffix(&[0]) == Some(NAME.as_bytes())).then_some(u32::from_ne_bytes(id))
}

/// Gives an interface without our filter one that runs `program`.
///
/// # Errors
/// When the kernel refuses; as `EEXIST` when another one's filter has our place.
pub(super) fn create(interface: u32, program: BorrowedFd<'_>) -> anyhow::Result<()> {
    let about = About {
        handle: CLSACT_HANDLE,
        parent: CLSACT,
        info: 0,
        interface,
    };
    let request = about.request(libc::RTM_NEWQDISC).with_text(KIND, "clsact");
    let made = socket()?.request_with(request, libc::NLM_F_CREATE | libc::NLM_F_EXCL, |_| {});
    match made {
        Ok(()) => {}
        Err(Failure::Refused(refusal)) if refusal.errno == Errno::EEXIST => {}
        Err(failure) => return Err(told(failure)).context("add clsact"),
    }
    put(interface, program, libc::NLM_F_CREATE | libc::NLM_F_EXCL)
}

/// Puts `program` in the place of the one that our filter runs.
///
/// # Errors
/// When there is no such filter, or the kernel refuses.
pub(super) fn replace(interface: u32, program: BorrowedFd<'_>) -> anyhow::Result<()> {
    put(interface, program, 0)
}

fn put(interface: u32, program: BorrowedFd<'_>, flags: i32) -> anyhow::Result<()> {
    use crate::plane::netlink::Nest;
    let options = Nest::default()
        .with(BPF_DESCRIPTOR, &program.as_raw_fd().to_ne_bytes())
        .with(BPF_NAME, &[NAME.as_bytes(), &[0]].concat())
        .with(BPF_FLAGS, &DIRECT_ACTION.to_ne_bytes());
    let request = About::filter(interface)
        .request(libc::RTM_NEWTFILTER)
        .with_text(KIND, "bpf")
        .with_nest(OPTIONS, options);
    let outcome = socket()?.request_with(request, flags, |_| {});
    outcome.map_err(told).context("set the clsact filter")
}

/// Removes our filter; whether there was one. `clsact` itself stays: it may be of use to others.
///
/// # Errors
/// When the kernel refuses.
pub(super) fn remove(interface: u32) -> anyhow::Result<bool> {
    if find(interface)?.is_none() {
        return Ok(false);
    }
    let request = About::filter(interface)
        .request(libc::RTM_DELTFILTER)
        .with_text(KIND, "bpf");
    let outcome = socket()?.request(request, |_| {});
    outcome.map_err(told).context("remove the clsact filter")?;
    Ok(true)
}

fn socket() -> anyhow::Result<Socket> {
    Socket::open_route(PATIENCE).context("open a netlink socket")
}

/// With the error number where callers look for it.
fn told(failure: Failure) -> anyhow::Error {
    match failure {
        Failure::Refused(refusal) => {
            let error = io::Error::from_raw_os_error(refusal.errno as i32);
            anyhow::Error::new(error).context(refusal.to_string())
        }
        Failure::Unknown(_) => failure.into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plane::netlink::{Nest, messages};

    #[test]
    fn only_filters_of_our_name_are_ours() {
        fn check(name: &[u8], expected: Option<u32>) {
            let options = Nest::default()
                .with(BPF_NAME, name)
                .with(BPF_ID, &7u32.to_ne_bytes());
            let bytes = About::filter(3)
                .request(libc::RTM_NEWTFILTER)
                .with_text(KIND, "bpf")
                .with_nest(OPTIONS, options)
                .finish(1, 0);
            let message = messages(&bytes).next().unwrap();
            assert_eq!(read(message.payload), expected, "{name:?}");
            for end in 0..message.payload.len() {
                assert_eq!(read(&message.payload[..end]), None, "cut at {end}");
            }
        }
        check(b"egressd\0", Some(7));
        check(b"egressd", None);
        check(b"egressd2\0", None);
        check(b"\0", None);
    }
}
