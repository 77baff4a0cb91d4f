//! The clients' side: listeners, questions over UDP, and the way back to whoever asked.

use super::buckets::Buckets;
use super::message::Asked;
use super::streams::{self, Streams};
use super::{Shared, zone};
use crate::config::ClientLimits;
use crate::observe::{Flood, Happening, record};
use crate::policy::ZoneId;
use crate::policy::rules::Rules;
use crate::seldom::Seldom;
use anyhow::Context;
use nix::sys::socket::{
    ControlMessage, ControlMessageOwned, MsgFlags, SockaddrStorage, recvmsg, sendmsg, sendto,
    setsockopt, sockopt,
};
use socket2::{Domain, Protocol, Socket, Type};
use std::io::{self, IoSlice, IoSliceMut};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::os::fd::AsRawFd;
use std::rc::Rc;
use tokio::io::Interest;
use tokio::net::{TcpListener, UdpSocket};
use tokio::task::spawn_local;

/// Datagrams taken per wake-up before others have their turn.
const PER_WAKE: usize = 32;

/// Bytes of datagrams that may wait for a listener: at 100,000 questions a second a fifth of a second's.
const WAITING: usize = 8 << 20;

/// Whom a reply goes to.
#[derive(Clone, Copy, Debug)]
pub(super) enum Client {
    Datagram {
        door: usize,
        peer: SocketAddr,
        local: IpAddr,
        interface: u32,
    },
    Stream {
        connection: u64,
        peer: SocketAddr,
        local: IpAddr,
    },
}

impl Client {
    /// Its address.
    pub(super) fn address(&self) -> IpAddr {
        match self {
            Self::Datagram { peer, .. } | Self::Stream { peer, .. } => peer.ip(),
        }
    }

    /// Its zone; the gateway itself is in the one for that, if there is one.
    pub(super) fn zone(&self, rules: &Rules) -> Option<ZoneId> {
        let address = self.address();
        if let Some(local) = rules.local()
            && address.is_loopback()
        {
            return Some(local);
        }
        if rules.links().is_own_on(self.interface(), address) {
            return rules.local();
        }
        match self {
            Self::Stream { local, .. } if self.interface() == 0 => {
                zone::of_stream(rules, address, *local)
            }
            Self::Datagram { .. } | Self::Stream { .. } => rules.zone_of(self.interface(), address),
        }
    }

    /// The interface it is on as far as that is known, else 0.
    fn interface(&self) -> u32 {
        match self {
            Self::Datagram { interface, .. } => *interface,
            // A link-local peer says which link it is on.
            Self::Stream {
                peer: SocketAddr::V6(peer),
                ..
            } => peer.scope_id(),
            Self::Stream { .. } => 0,
        }
    }

    /// The longest reply it takes, in bytes.
    pub(super) fn limit(&self, asked: &Asked<'_>) -> usize {
        match self {
            Self::Datagram { .. } => asked.udp_limit(),
            Self::Stream { .. } => usize::from(u16::MAX),
        }
    }
}

/// A pair of listeners on one address.
pub(super) struct Door {
    datagrams: std::net::UdpSocket,
    streams: std::net::TcpListener,
}

impl Door {
    /// Binds both sockets. Port 0 takes any that both can have.
    pub(super) fn open(address: SocketAddr) -> anyhow::Result<Self> {
        const MOST_DRAWS: usize = 32;
        // The port that UDP gets may be in use for TCP.
        let spare = if address.port() == 0 { MOST_DRAWS } else { 0 };
        (0..spare)
            .find_map(|_| Self::open_once(address).ok())
            .map_or_else(|| Self::open_once(address), Ok)
    }

    fn open_once(address: SocketAddr) -> anyhow::Result<Self> {
        let socket = |kind, protocol, address: SocketAddr| -> anyhow::Result<Socket> {
            let socket = Socket::new(Domain::for_address(address), kind, Some(protocol))?;
            if address.is_ipv6() {
                socket.set_only_v6(true)?;
            }
            socket.set_nonblocking(true)?;
            Ok(socket)
        };
        let datagrams = socket(Type::DGRAM, Protocol::UDP, address)?;
        // A burst of questions waits here. Without the capability, as much as the system gives.
        if setsockopt(&datagrams, sockopt::RcvBufForce, &WAITING).is_err() {
            let _ = datagrams.set_recv_buffer_size(WAITING);
        }
        match address {
            SocketAddr::V4(_) => setsockopt(&datagrams, sockopt::Ipv4PacketInfo, &true)?,
            SocketAddr::V6(_) => setsockopt(&datagrams, sockopt::Ipv6RecvPacketInfo, &true)?,
        }
        datagrams.bind(&address.into()).context("over UDP")?;
        let datagrams = std::net::UdpSocket::from(datagrams);
        let address = datagrams.local_addr()?;
        let streams = socket(Type::STREAM, Protocol::TCP, address)?;
        // Else a restart would wait for old connections to time out.
        streams.set_reuse_address(true)?;
        streams.bind(&address.into()).context("over TCP")?;
        // A connection that finds no place here is tried again after a second, which is a lost question.
        streams.listen(4096)?;
        Ok(Self {
            datagrams,
            streams: streams.into(),
        })
    }

    /// Where it listens.
    pub(super) fn address(&self) -> io::Result<SocketAddr> {
        self.datagrams.local_addr()
    }
}

/// The ways back to the clients, and what each of them may take up.
pub(super) struct Clients {
    doors: Vec<Opened>,
    pub(super) streams: Streams,
    buckets: Buckets,
    floods: Seldom<(IpAddr, Flood)>,
}

struct Opened {
    socket: Rc<UdpSocket>,
    /// Whether it is bound to one address, which then is the source of all it sends.
    fixed: bool,
}

impl Clients {
    /// Clients with these limits. `secrets` are what no client may know.
    pub(super) fn new(limits: &ClientLimits, secrets: [u64; 2]) -> Self {
        Self {
            doors: Vec::new(),
            streams: Streams::new(limits),
            buckets: Buckets::new(limits.questions, secrets),
            floods: Seldom::default(),
        }
    }

    /// Whether a question of `client` may be read at `now`, in milliseconds.
    pub(super) fn admit(&mut self, client: IpAddr, now: u64) -> bool {
        self.buckets.admit(client, now)
    }

    /// Takes note of a client that wanted too much at `now`, in milliseconds.
    pub(super) fn blame(&mut self, client: IpAddr, what: Flood, now: u64) {
        if let Some(dropped) = self.floods.note((client, what), now) {
            record(Happening::Flooding {
                client,
                what,
                dropped,
            });
        }
    }

    /// Sends a reply. A client that does not take it has to ask again.
    pub(super) fn send(&mut self, client: &Client, message: &[u8]) {
        match client {
            Client::Datagram {
                door,
                peer,
                local,
                interface,
            } => {
                let Some(door) = self.doors.get(*door) else {
                    return;
                };
                let sent = if door.fixed {
                    let (fd, to) = (door.socket.as_raw_fd(), SockaddrStorage::from(*peer));
                    // Not tokio's `try_send_to`: it refuses until the driver has seen a new socket.
                    sendto(fd, message, &to, MsgFlags::MSG_DONTWAIT)
                        .map(drop)
                        .map_err(Into::into)
                } else {
                    send_from(&door.socket, message, *peer, *local, *interface)
                };
                if let Err(error) = sent {
                    log::debug!(target: "dns", "reply to {peer}: {error}");
                }
            }
            Client::Stream { connection, .. } => self.streams.send(*connection, message),
        }
    }

    /// Ends a client's connection, if it has one.
    pub(super) fn close(&mut self, client: &Client) {
        match client {
            Client::Stream { connection, .. } => self.streams.close(*connection),
            Client::Datagram { .. } => {}
        }
    }
}

/// Sends with `local` as the source address.
fn send_from(
    socket: &UdpSocket,
    message: &[u8],
    peer: SocketAddr,
    local: IpAddr,
    interface: u32,
) -> io::Result<()> {
    let bytes = [IoSlice::new(message)];
    let flags = MsgFlags::MSG_DONTWAIT;
    let to = SockaddrStorage::from(peer);
    let fd = socket.as_raw_fd();
    match local {
        IpAddr::V4(local) => {
            let source = libc::in_pktinfo {
                ipi_ifindex: 0,
                ipi_spec_dst: libc::in_addr {
                    s_addr: u32::from_ne_bytes(local.octets()),
                },
                ipi_addr: libc::in_addr { s_addr: 0 },
            };
            sendmsg(
                fd,
                &bytes,
                &[ControlMessage::Ipv4PacketInfo(&source)],
                flags,
                Some(&to),
            )?;
        }
        IpAddr::V6(local) => {
            // Only link-local replies must leave where the question came in; routes decide the rest.
            let pinned = if local.is_unicast_link_local() {
                interface
            } else {
                0
            };
            let source = libc::in6_pktinfo {
                ipi6_addr: libc::in6_addr {
                    s6_addr: local.octets(),
                },
                ipi6_ifindex: pinned,
            };
            sendmsg(
                fd,
                &bytes,
                &[ControlMessage::Ipv6PacketInfo(&source)],
                flags,
                Some(&to),
            )?;
        }
    }
    Ok(())
}

/// Starts the tasks of a pair of listeners.
pub(super) fn serve(shared: &Shared, door: Door) -> io::Result<()> {
    let fixed = !door.address()?.ip().is_unspecified();
    let socket = Rc::new(UdpSocket::from_std(door.datagrams)?);
    let streams = TcpListener::from_std(door.streams)?;
    let index = {
        let doors = &mut shared.engine.borrow_mut().clients.doors;
        doors.push(Opened {
            socket: Rc::clone(&socket),
            fixed,
        });
        doors.len() - 1
    };
    spawn_local(datagrams(shared.clone(), socket, index));
    spawn_local(streams::accept(shared.clone(), streams));
    Ok(())
}

async fn datagrams(shared: Shared, socket: Rc<UdpSocket>, door: usize) {
    // A question has no business being longer; what is cut does not parse.
    let mut buffer = [0; 1500];
    let mut control = nix::cmsg_space!(libc::in_pktinfo, libc::in6_pktinfo);
    loop {
        if let Err(error) = socket.readable().await {
            log::error!(target: "dns", "a listener failed: {error}");
            return;
        }
        let now = shared.engine.borrow().clock().now();
        for _ in 0..PER_WAKE {
            let received = socket.try_io(Interest::READABLE, || {
                receive(&socket, &mut buffer, &mut control)
            });
            match received {
                Ok(Some((length, peer, local, interface))) => {
                    let client = Client::Datagram {
                        door,
                        peer,
                        local,
                        interface,
                    };
                    let mut engine = shared.engine.borrow_mut();
                    if engine.clients.admit(peer.ip(), now) {
                        engine.question(client, &buffer[..length]);
                    } else {
                        engine.shed(peer.ip(), Flood::Questions, now);
                    }
                }
                Ok(None) => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                Err(error) => log::debug!(target: "dns", "receive: {error}"),
            }
        }
        tokio::task::yield_now().await;
    }
}

type Received = (usize, SocketAddr, IpAddr, u32);

/// Takes a datagram with the address it was sent to and the interface it came in on.
fn receive(
    socket: &UdpSocket,
    buffer: &mut [u8],
    control: &mut [u8],
) -> io::Result<Option<Received>> {
    let mut bytes = [IoSliceMut::new(buffer)];
    let flags = MsgFlags::MSG_DONTWAIT;
    let got = recvmsg::<SockaddrStorage>(socket.as_raw_fd(), &mut bytes, Some(control), flags)?;
    let Some(peer) = got.address.as_ref().and_then(socket_address) else {
        return Ok(None);
    };
    Ok(got.cmsgs()?.find_map(|message| {
        if let ControlMessageOwned::Ipv4PacketInfo(info) = message {
            let local = Ipv4Addr::from(info.ipi_spec_dst.s_addr.to_ne_bytes());
            return Some((
                got.bytes,
                peer,
                local.into(),
                info.ipi_ifindex.cast_unsigned(),
            ));
        }
        if let ControlMessageOwned::Ipv6PacketInfo(info) = message {
            let local = Ipv6Addr::from(info.ipi6_addr.s6_addr);
            return Some((got.bytes, peer, local.into(), info.ipi6_ifindex));
        }
        None
    }))
}

fn socket_address(storage: &SockaddrStorage) -> Option<SocketAddr> {
    if let Some(v4) = storage.as_sockaddr_in() {
        return Some(SocketAddr::V4((*v4).into()));
    }
    storage
        .as_sockaddr_in6()
        .map(|v6| SocketAddr::V6((*v6).into()))
}
