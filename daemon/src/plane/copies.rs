//! DNS packets as the kernel copies them in observe mode: a log group's packets, one by one. Reads no
//! further than the kernel's own frame around a packet.

use super::netlink::{Attributes, Failure, Message, Socket, number};
use super::nflog::{self, Manner};
use super::ruleset::{COPY_PREFIX, Way};
use anyhow::Context as _;
use nix::errno::Errno;
use std::os::fd::{AsFd, BorrowedFd};

/// Whole packets, each at once: what waits in the kernel's buffer waits while the client already has
/// the answer.
const WHOLE: Manner = Manner {
    bytes: u16::MAX as u32,
    together: 1,
    flush: 1,
};

/// Bytes of copies that may wait for their reader, as the kernel counts them.
const WAITING: usize = 32 << 20;

/// A reader of copies.
#[derive(Debug)]
pub struct Copies(Socket);

/// A copied packet.
#[derive(Clone, Copy, Debug)]
pub struct Copied<'p> {
    /// Which way it went: a question or an answer.
    pub way: Way,
    /// Index of the interface it entered.
    pub interface: u32,
    /// From the IP header on.
    pub packet: &'p [u8],
}

/// What one call of [`Copies::receive`] found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Received {
    /// Copies, perhaps none of use.
    Some,
    /// Nothing is there now.
    Nothing,
    /// The reader was too slow: copies were lost since the last call.
    Lost,
}

impl Copies {
    /// Binds to `group` in the calling thread's network namespace.
    ///
    /// # Errors
    /// When the kernel has no NFLOG, or another process reads the group.
    pub fn open(group: u16) -> anyhow::Result<Self> {
        let lacking = [Errno::EINVAL, Errno::EOPNOTSUPP, Errno::EPROTONOSUPPORT];
        let socket = nflog::bind(group, &WHOLE).with_context(|| format!("read log group {group}"));
        let socket = socket.map_err(|error| match error.downcast_ref() {
            Some(Errno::EBUSY) => error.context("another process reads the copies of DNS packets"),
            Some(errno) if lacking.contains(errno) => {
                error.context("observing needs a kernel with nfnetlink_log")
            }
            Some(_) | None => error,
        })?;
        socket
            .receive_buffer(WAITING)
            .context("widen the buffer of copies")?;
        Ok(Self(socket))
    }

    /// Shows `visit` what is there now. Never waits.
    ///
    /// # Errors
    /// When the socket fails; then copies may have been lost.
    pub fn receive(&mut self, mut visit: impl FnMut(Copied<'_>)) -> Result<Received, Errno> {
        let received = self.0.receive(|message| {
            if let Some(copied) = copied(message) {
                visit(copied);
            }
            Ok(())
        });
        match received {
            Ok(()) => Ok(Received::Some),
            Err(Failure::Unknown(Errno::EAGAIN)) => Ok(Received::Nothing),
            Err(Failure::Unknown(Errno::ENOBUFS)) => Ok(Received::Lost),
            Err(Failure::Unknown(errno)) => Err(errno),
            Err(Failure::Refused(refusal)) => Err(refusal.errno),
        }
    }
}

impl AsFd for Copies {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

/// A message as a copy; `None` for what is not one of ours.
fn copied<'m>(message: &Message<'m>) -> Option<Copied<'m>> {
    if message.kind != nflog::PACKET {
        return None;
    }
    let attributes = Attributes::of_netfilter(message.payload);
    let prefix = std::str::from_utf8(attributes.get(libc::NFULA_PREFIX as u16)?).ok()?;
    let word = prefix.trim_end_matches('\0').strip_prefix(COPY_PREFIX)?;
    let way = [Way::Original, Way::Reply]
        .into_iter()
        .find(|way| word.trim_start() == way.word())?;
    let interface = attributes.get(libc::NFULA_IFINDEX_INDEV as u16)?;
    Some(Copied {
        way,
        interface: number(interface)?,
        packet: attributes.get(libc::NFULA_PAYLOAD as u16)?,
    })
}

#[cfg(test)]
mod tests {
    use super::super::netlink::{Request, messages};
    use super::*;

    #[test]
    fn what_is_a_copy() {
        fn check(prefix: &str, interface: &[u8], expected: Option<(Way, u32)>) {
            let bytes = Request::new(libc::NFNL_SUBSYS_ULOG as u8, 0, 2, 78)
                .with(libc::NFULA_IFINDEX_INDEV as u16, interface)
                .with_text(libc::NFULA_PREFIX as u16, prefix)
                .with(libc::NFULA_PAYLOAD as u16, b"packet")
                .finish(0, 0);
            for end in 0..=bytes.len() {
                let found = messages(&bytes[..end]).next();
                let found = found.as_ref().and_then(copied);
                let expected = expected.filter(|_| end == bytes.len());
                let got = found.map(|copied| (copied.way, copied.interface));
                assert_eq!(got, expected, "{prefix} cut at {end}");
                assert!(found.is_none_or(|copied| copied.packet == b"packet"));
            }
        }
        check("egressd copy reply", &[0, 0, 1, 2], Some((Way::Reply, 258)));
        check(
            "egressd copy original",
            &[0, 0, 0, 7],
            Some((Way::Original, 7)),
        );
        check("egressd copy", &[0, 0, 0, 7], None);
        check("egressd 0 drop port", &[0, 0, 0, 7], None);
        check("copy reply", &[0, 0, 0, 7], None);
        check("egressd copy reply", &[7], None);
    }
}
