//! Netlink as the netfilter subsystems speak it: one socket, requests, replies, errors. Knows no
//! table and no flow. **A receive error always means that the kernel's state is unknown.**
#![expect(
    unsafe_code,
    reason = "two netlink socket options have no safe wrapper"
)]

use nix::errno::Errno;
use nix::fcntl::{FcntlArg, FdFlag, OFlag, fcntl};
use nix::sys::socket::{
    AddressFamily, MsgFlags, NetlinkAddr, SockFlag, SockProtocol, SockType, bind, connect,
    getsockname, recv, send, setsockopt, socket, sockopt,
};
use nix::sys::time::TimeVal;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

mod wire;

pub use wire::{Attributes, Message, Nest, Request, messages, number, wide_number};

/// Room for one batch in the kernel's send queue: a table of a million elements and more.
const SEND_BUFFER: usize = 64 << 20;
/// Room for replies: dumps and extended errors.
const RECEIVE_BUFFER: usize = 8 << 20;
/// The longest datagram of a dump (the kernel sends at most 32 KiB at once, but promises nothing).
const DATAGRAM: usize = 256 << 10;

/// A socket to the netfilter subsystems of the network namespace it was opened in. It talks to the
/// kernel alone: datagrams of other processes are refused by the kernel.
#[derive(Debug)]
pub struct Socket {
    descriptor: OwnedFd,
    port: u32,
    sequence: u32,
    buffer: Vec<u8>,
}

/// Why a request did not succeed.
#[derive(Debug, thiserror::Error)]
pub enum Failure {
    /// The kernel refused it; nothing changed.
    #[error(transparent)]
    Refused(#[from] Refusal),
    /// Sending or receiving failed: whether anything changed is unknown.
    #[error("netlink: {0}; the kernel's state is unknown")]
    Unknown(Errno),
}

/// The kernel's word on a request it refused.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// The error number.
    pub errno: Errno,
    /// Which request of a batch, by its sequence number.
    pub sequence: u32,
    /// The offset of the offending attribute in that request, where the kernel says so.
    pub offset: Option<u32>,
    /// The kernel's own words, where it has any.
    pub text: Option<String>,
}

impl std::error::Error for Refusal {}

impl std::fmt::Display for Refusal {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(
            f,
            "the kernel refused request {}: {}",
            self.sequence,
            self.errno.desc()
        )?;
        if let Some(text) = &self.text {
            write!(f, " ({text})")?;
        }
        if let Some(offset) = self.offset {
            write!(f, ", attribute at byte {offset}")?;
        }
        Ok(())
    }
}

impl Socket {
    /// Opens a socket whose replies may take `patience` seconds.
    ///
    /// # Errors
    /// When the kernel has no netfilter netlink, or the buffers cannot be had (needs
    /// `CAP_NET_ADMIN`).
    pub fn open(patience: i64) -> nix::Result<Self> {
        Self::of(SockProtocol::NetlinkNetFilter, patience, 0)
    }

    /// Opens a socket to routing and traffic control whose replies may take `patience` seconds.
    ///
    /// # Errors
    /// When the buffers cannot be had (needs `CAP_NET_ADMIN`).
    pub fn open_route(patience: i64) -> nix::Result<Self> {
        Self::of(SockProtocol::NetlinkRoute, patience, 0)
    }

    /// Opens a socket that hears multicast groups of netfilter, given as bits. It never waits.
    ///
    /// # Errors
    /// When the kernel refuses (needs `CAP_NET_ADMIN`).
    pub fn listen_netfilter(groups: u32) -> nix::Result<Self> {
        let socket = Self::of(SockProtocol::NetlinkNetFilter, 1, groups)?;
        socket.never_wait()?;
        Ok(socket)
    }

    /// Opens a socket that hears multicast groups of routing, given as bits. It never waits.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub fn listen_route(groups: u32) -> nix::Result<Self> {
        let socket = Self::of(SockProtocol::NetlinkRoute, 1, groups)?;
        socket.never_wait()?;
        Ok(socket)
    }

    /// Takes over a socket to the netfilter subsystems that [`Socket::open`] of an earlier process opened.
    /// What the kernel had to say to that one is forgotten.
    ///
    /// # Errors
    /// When it is another kind of socket, or cannot be used.
    pub fn adopt(descriptor: OwnedFd, patience: i64) -> std::io::Result<Self> {
        let kind = socket2::SockRef::from(&descriptor);
        let netfilter = socket2::Protocol::from(libc::NETLINK_NETFILTER);
        if kind.domain()? != socket2::Domain::from(libc::AF_NETLINK)
            || kind.protocol()? != Some(netfilter)
        {
            return Err(std::io::Error::other("it is no socket to netfilter"));
        }
        fcntl(&descriptor, FcntlArg::F_SETFD(FdFlag::FD_CLOEXEC))?;
        let mut socket = Self::equip(descriptor, patience)?;
        socket.forget()?;
        Ok(socket)
    }

    /// Takes replies that nobody waits for any more, and the rest of a dump, if one was begun.
    fn forget(&mut self) -> nix::Result<()> {
        // A dump of the largest sets has some thousands of datagrams.
        const MANY: u32 = 1 << 20;
        for _ in 0..MANY {
            match recv(
                self.descriptor.as_raw_fd(),
                &mut self.buffer,
                MsgFlags::MSG_DONTWAIT,
            ) {
                Ok(_) | Err(Errno::EINTR | Errno::ENOBUFS) => {}
                Err(Errno::EAGAIN) => return Ok(()),
                Err(errno) => return Err(errno),
            }
        }
        Err(Errno::EBUSY)
    }

    fn of(protocol: SockProtocol, patience: i64, groups: u32) -> nix::Result<Self> {
        let descriptor = socket(
            AddressFamily::Netlink,
            SockType::Raw,
            SockFlag::SOCK_CLOEXEC,
            protocol,
        )?;
        bind(descriptor.as_raw_fd(), &NetlinkAddr::new(0, groups))?;
        Self::equip(descriptor, patience)
    }

    fn equip(descriptor: OwnedFd, patience: i64) -> nix::Result<Self> {
        let raw = descriptor.as_raw_fd();
        // A connected netlink socket refuses datagrams from anyone but the kernel.
        connect(raw, &NetlinkAddr::new(0, 0))?;
        setsockopt(&descriptor, sockopt::SndBufForce, &SEND_BUFFER)?;
        setsockopt(&descriptor, sockopt::RcvBufForce, &RECEIVE_BUFFER)?;
        setsockopt(
            &descriptor,
            sockopt::ReceiveTimeout,
            &TimeVal::new(patience, 0),
        )?;
        enable(&descriptor, libc::NETLINK_EXT_ACK)?;
        enable(&descriptor, libc::NETLINK_CAP_ACK)?;
        let port = getsockname::<NetlinkAddr>(raw)?.pid();
        Ok(Self {
            descriptor,
            port,
            sequence: 0,
            buffer: vec![0; DATAGRAM],
        })
    }

    /// The number the kernel knows this socket by; owned tables name it.
    #[must_use]
    pub fn port(&self) -> u32 {
        self.port
    }

    /// The first of `count` fresh sequence numbers, none of them 0.
    pub fn sequences(&mut self, count: u32) -> u32 {
        if self.sequence > u32::MAX - count - 1 {
            self.sequence = 0;
        }
        let first = self.sequence + 1;
        self.sequence += count;
        first
    }

    /// Sends `bytes`, whole messages, as one datagram.
    ///
    /// # Errors
    /// When the kernel did not take it; then it did not act on it either.
    pub fn send(&self, bytes: &[u8]) -> Result<(), Failure> {
        loop {
            match send(self.descriptor.as_raw_fd(), bytes, MsgFlags::empty()) {
                Ok(sent) if sent == bytes.len() => return Ok(()),
                Ok(_) => return Err(Failure::Unknown(Errno::EMSGSIZE)),
                Err(Errno::EINTR) => {}
                Err(errno) => return Err(Failure::Unknown(errno)),
            }
        }
    }

    /// Receives one datagram and shows each of its messages.
    ///
    /// # Errors
    /// What `visit` returns, or a failed or truncated receive.
    pub fn receive(
        &mut self,
        mut visit: impl FnMut(&Message<'_>) -> Result<(), Failure>,
    ) -> Result<(), Failure> {
        // With MSG_TRUNC the kernel returns the real length, so that a cut datagram shows.
        let length = loop {
            match recv(
                self.descriptor.as_raw_fd(),
                &mut self.buffer,
                MsgFlags::MSG_TRUNC,
            ) {
                Ok(length) => break length,
                Err(Errno::EINTR) => {}
                Err(errno) => return Err(Failure::Unknown(errno)),
            }
        };
        let Some(datagram) = self.buffer.get(..length) else {
            return Err(Failure::Unknown(Errno::EMSGSIZE));
        };
        messages(datagram).try_for_each(|message| visit(&message))
    }

    /// Sends one request that asks for an acknowledgement and waits for it, showing `visit` the
    /// payload of every reply before it.
    ///
    /// # Errors
    /// When the kernel refuses it, or its answer cannot be read.
    pub fn request(&mut self, request: Request, visit: impl FnMut(&[u8])) -> Result<(), Failure> {
        self.request_with(request, 0, visit)
    }

    /// As [`Socket::request`], with more flags (`NLM_F_*`).
    ///
    /// # Errors
    /// As [`Socket::request`].
    pub fn request_with(
        &mut self,
        request: Request,
        flags: i32,
        mut visit: impl FnMut(&[u8]),
    ) -> Result<(), Failure> {
        let sequence = self.sequences(1);
        self.send(&request.finish(sequence, (flags | libc::NLM_F_ACK) as u16))?;
        let mut acknowledged = false;
        while !acknowledged {
            self.receive(|message| {
                if message.sequence != sequence {
                    return Ok(());
                }
                match message.outcome() {
                    None => visit(message.payload),
                    Some(Ok(())) => acknowledged = true,
                    Some(Err(refusal)) => return Err(refusal.into()),
                }
                Ok(())
            })?;
        }
        Ok(())
    }

    /// Sends requests that each ask for an acknowledgement, all at once, and shows `visit` what became of each.
    /// One that is refused does not keep the others.
    ///
    /// # Errors
    /// When they cannot be sent, or an answer cannot be read: what became of the rest is unknown.
    pub fn requests(
        &mut self,
        requests: Vec<Request>,
        mut visit: impl FnMut(Result<(), Refusal>),
    ) -> Result<(), Failure> {
        let count = u32::try_from(requests.len()).map_err(|_| Failure::Unknown(Errno::EMSGSIZE))?;
        let first = self.sequences(count);
        let mut bytes = Vec::new();
        for (sequence, request) in (first..).zip(requests) {
            bytes.extend(request.finish(sequence, libc::NLM_F_ACK as u16));
        }
        self.send(&bytes)?;
        let mut open = count;
        while open > 0 {
            self.receive(|message| {
                let ours = message.sequence.wrapping_sub(first) < count;
                if let (true, Some(outcome)) = (ours, message.outcome()) {
                    open = open.saturating_sub(1);
                    visit(outcome);
                }
                Ok(())
            })?;
        }
        Ok(())
    }

    /// Asks for a dump and shows `visit` the payload of every object. Whether the kernel says that
    /// the dump was torn by a change is returned: `true` means that it is whole.
    ///
    /// # Errors
    /// When the kernel refuses it, or its answer cannot be read.
    pub fn dump(
        &mut self,
        request: Request,
        mut visit: impl FnMut(&[u8]),
    ) -> Result<bool, Failure> {
        let sequence = self.sequences(1);
        self.send(&request.finish(sequence, libc::NLM_F_DUMP as u16))?;
        let (mut done, mut whole) = (false, true);
        while !done {
            self.receive(|message| {
                if message.sequence != sequence {
                    return Ok(());
                }
                whole &= message.flags & libc::NLM_F_DUMP_INTR as u16 == 0;
                match message.outcome() {
                    None => visit(message.payload),
                    Some(Ok(())) => done = true,
                    Some(Err(refusal)) => return Err(refusal.into()),
                }
                Ok(())
            })?;
        }
        Ok(whole)
    }

    /// Asks for another size of the receive buffer, in bytes, as the kernel counts them.
    ///
    /// # Errors
    /// When the kernel refuses (needs `CAP_NET_ADMIN`).
    pub fn receive_buffer(&self, bytes: usize) -> nix::Result<()> {
        setsockopt(&self.descriptor, sockopt::RcvBufForce, &bytes)
    }

    /// Makes receiving return at once when nothing is there.
    ///
    /// # Errors
    /// When the socket refuses the flag.
    pub fn never_wait(&self) -> nix::Result<()> {
        fcntl(&self.descriptor, FcntlArg::F_SETFL(OFlag::O_NONBLOCK)).map(|_| ())
    }
}

impl AsFd for Socket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.descriptor.as_fd()
    }
}

fn enable(descriptor: &impl AsFd, option: libc::c_int) -> nix::Result<()> {
    let on: libc::c_int = 1;
    // SAFETY: the descriptor is open for the time of the borrow, and `on` is a live c_int whose
    // size is passed along; the kernel only reads it.
    let result = unsafe {
        libc::setsockopt(
            descriptor.as_fd().as_raw_fd(),
            libc::SOL_NETLINK,
            option,
            (&raw const on).cast(),
            size_of_val(&on) as libc::socklen_t,
        )
    };
    Errno::result(result).map(|_| ())
}
