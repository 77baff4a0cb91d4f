//! Attempts from inside a namespace: questions, connections, datagrams. Each says what happened.
#![expect(clippy::disallowed_methods, reason = "shell: opens sockets")]

use super::{Namespace, unbroken};
use anyhow::{Context, Result, ensure};
use hickory_proto::op::{Message, MessageType, OpCode, Query, ResponseCode};
use hickory_proto::rr::{Name, RData, RecordType};
use std::io::{Read, Write};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpStream, UdpSocket};
use std::time::Duration;

/// What a resolver said.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answer {
    /// The response code.
    pub code: ResponseCode,
    /// Every address in the answer section.
    pub addresses: Vec<IpAddr>,
    /// The smallest TTL in the answer section, in seconds.
    pub ttl: u32,
}

impl Answer {
    /// Asks over `socket`, which must be connected to the resolver and have a read timeout.
    ///
    /// # Errors
    /// When nothing, or nothing readable, comes back in time.
    pub fn over(socket: &UdpSocket, id: u16, name: &str, kind: RecordType) -> Result<Self> {
        let mut message = Message::new(id, MessageType::Query, OpCode::Query);
        message.metadata.recursion_desired = true;
        message.add_query(Query::query(Name::from_ascii(name)?, kind));
        socket.send(&message.to_vec()?)?;
        let mut buffer = [0; 4096];
        let length =
            unbroken(|| socket.recv(&mut buffer)).with_context(|| format!("ask for {name}"))?;
        let reply = Message::from_vec(&buffer[..length])?;
        ensure!(reply.metadata.id == id, "an answer to another question");
        let address = |data: &RData| {
            if let RData::A(a) = data {
                return Some(IpAddr::V4(a.0));
            }
            let RData::AAAA(aaaa) = data else { return None };
            Some(IpAddr::V6(aaaa.0))
        };
        Ok(Self {
            code: reply.metadata.response_code,
            addresses: reply
                .answers
                .iter()
                .filter_map(|record| address(&record.data))
                .collect(),
            ttl: reply
                .answers
                .iter()
                .map(|record| record.ttl)
                .min()
                .unwrap_or(0),
        })
    }
}

/// Asks `server` from inside `namespace` for the A records of `name`.
///
/// # Errors
/// When no answer comes within `timeout`.
pub fn ask(
    namespace: &Namespace,
    server: SocketAddr,
    name: &str,
    timeout: Duration,
) -> Result<Answer> {
    namespace.enter(|| {
        let socket = UdpSocket::bind(SocketAddr::new(any(server), 0))?;
        socket.connect(server)?;
        socket.set_read_timeout(Some(timeout))?;
        let id = socket.local_addr()?.port();
        Answer::over(&socket, id, name, RecordType::A)
    })?
}

/// Whether a TCP connection from inside `namespace` to `to` opens within `timeout`.
///
/// # Errors
/// When the namespace cannot be entered.
pub fn tcp(namespace: &Namespace, to: SocketAddr, timeout: Duration) -> Result<bool> {
    namespace.enter(|| TcpStream::connect_timeout(&to, timeout).is_ok())
}

/// Whether a datagram from inside `namespace` to an echo at `to` comes back within `timeout`.
///
/// # Errors
/// When no socket can be had.
pub fn udp(namespace: &Namespace, to: SocketAddr, timeout: Duration) -> Result<bool> {
    udp_of(namespace, to, 6, timeout)
}

/// As [`udp`], with so many bytes, up to 8,192: more than fit into a frame leave as fragments.
///
/// # Errors
/// When no socket can be had.
pub fn udp_of(
    namespace: &Namespace,
    to: SocketAddr,
    length: usize,
    timeout: Duration,
) -> Result<bool> {
    namespace.enter(|| {
        let socket = UdpSocket::bind(SocketAddr::new(any(to), 0))?;
        socket.set_read_timeout(Some(timeout))?;
        socket.connect(to)?;
        // A reject arrives as an error of either call.
        let message: Vec<u8> = b"egress".iter().copied().cycle().take(length).collect();
        let mut buffer = [0; 8192];
        let sent = socket.send(&message);
        Ok(sent.is_ok()
            && unbroken(|| socket.recv(&mut buffer)).is_ok_and(|n| buffer[..n] == message))
    })?
}

fn any(like: SocketAddr) -> IpAddr {
    match like {
        SocketAddr::V4(_) => Ipv4Addr::UNSPECIFIED.into(),
        SocketAddr::V6(_) => Ipv6Addr::UNSPECIFIED.into(),
    }
}

/// An open TCP connection to an echo.
#[derive(Debug)]
pub struct Flow {
    stream: TcpStream,
    sent: u32,
}

impl Flow {
    /// Opens one from inside `namespace`.
    ///
    /// # Errors
    /// When it does not open within `timeout`.
    pub fn open(namespace: &Namespace, to: SocketAddr, timeout: Duration) -> Result<Self> {
        let stream = namespace
            .enter(|| TcpStream::connect_timeout(&to, timeout))?
            .with_context(|| format!("connect to {to}"))?;
        stream.set_nodelay(true)?;
        Ok(Self { stream, sent: 0 })
    }

    /// Whether a new message comes back within `timeout`. A late echo of an earlier one does not
    /// count, and a reset is a no.
    pub fn echoes(&mut self, timeout: Duration) -> bool {
        self.sent += 1;
        let message = self.sent.to_be_bytes();
        if self.stream.set_read_timeout(Some(timeout)).is_err()
            || self.stream.write_all(&message).is_err()
        {
            return false;
        }
        let mut reply = [0; 4];
        while self.stream.read_exact(&mut reply).is_ok() {
            if reply == message {
                return true;
            }
        }
        false
    }
}
