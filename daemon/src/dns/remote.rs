//! Where an upstream is, and how sockets to it are made.
#![expect(
    clippy::disallowed_methods,
    reason = "shell: opens sockets to upstreams"
)]

use egressd_common::OWN_MARK;
use socket2::SockRef;
use std::fmt;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use tokio::net::{TcpSocket, TcpStream};

/// One upstream's place.
#[derive(Clone, Copy, Debug)]
pub(super) struct Remote {
    /// Its address and port.
    pub(super) address: SocketAddr,
    /// Whether sockets to it bear [`OWN_MARK`]: a zone judges what the gateway itself sends.
    pub(super) marked: bool,
}

impl Remote {
    /// A connected socket. The kernel draws the port at random.
    ///
    /// # Errors
    /// When there is no route, or the mark may not be set (it takes `CAP_NET_ADMIN`).
    pub(super) fn datagrams(self) -> io::Result<std::net::UdpSocket> {
        let any: IpAddr = match self.address {
            SocketAddr::V4(_) => Ipv4Addr::UNSPECIFIED.into(),
            SocketAddr::V6(_) => Ipv6Addr::UNSPECIFIED.into(),
        };
        let socket = std::net::UdpSocket::bind((any, 0))?;
        self.mark(SockRef::from(&socket))?;
        socket.set_nonblocking(true)?;
        socket.connect(self.address)?;
        Ok(socket)
    }

    /// A connection.
    ///
    /// # Errors
    /// As [`Self::datagrams`], and when it is refused.
    pub(super) async fn stream(self) -> io::Result<TcpStream> {
        let socket = match self.address {
            SocketAddr::V4(_) => TcpSocket::new_v4(),
            SocketAddr::V6(_) => TcpSocket::new_v6(),
        }?;
        self.mark(SockRef::from(&socket))?;
        let stream = socket.connect(self.address).await?;
        stream.set_nodelay(true)?;
        Ok(stream)
    }

    fn mark(self, socket: SockRef<'_>) -> io::Result<()> {
        if self.marked {
            socket.set_mark(OWN_MARK)?;
        }
        Ok(())
    }
}

impl fmt::Display for Remote {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.address.fmt(f)
    }
}
