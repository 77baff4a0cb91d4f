//! TCP and UDP echo on every address, for ports where no web server listens.
#![expect(clippy::disallowed_methods, reason = "shell: opens listeners")]

use super::Namespace;
use anyhow::{Context, Result};
use nix::sys::socket::{
    AddressFamily, ControlMessage, ControlMessageOwned, MsgFlags, SockFlag, SockType, SockaddrIn6,
    bind, recvmsg, sendmsg, setsockopt, socket, sockopt,
};
use std::io::{IoSlice, IoSliceMut, Read, Write};
use std::net::{Ipv6Addr, SocketAddrV6, TcpListener, TcpStream};
use std::os::fd::{AsRawFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

/// Servers that send back what they get, on threads of this process.
#[derive(Debug)]
pub struct Echo {
    stop: Arc<AtomicBool>,
}

impl Echo {
    /// Listens on `tcp` and `udp` ports of every address (v4 and v6) that `namespace` has. UDP answers
    /// leave from the address that was asked.
    ///
    /// # Errors
    /// When a port is taken.
    pub fn start(namespace: &Namespace, tcp: &[u16], udp: &[u16]) -> Result<Self> {
        let stop = Arc::new(AtomicBool::new(false));
        namespace.enter(|| -> Result<()> {
            for &port in tcp {
                let listener = TcpListener::bind((Ipv6Addr::UNSPECIFIED, port))
                    .with_context(|| format!("listen on TCP {port}"))?;
                listener.set_nonblocking(true)?;
                let stop = Arc::clone(&stop);
                thread::spawn(move || accept(&listener, &stop));
            }
            for &port in udp {
                let socket = udp_socket(port).with_context(|| format!("listen on UDP {port}"))?;
                let stop = Arc::clone(&stop);
                thread::spawn(move || {
                    while !stop.load(Ordering::Relaxed) {
                        reflect(&socket);
                    }
                });
            }
            Ok(())
        })??;
        Ok(Self { stop })
    }
}

impl Drop for Echo {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
    }
}

/// How often a waiting server looks whether it should stop.
const GLANCE: Duration = Duration::from_millis(50);

fn accept(listener: &TcpListener, stop: &Arc<AtomicBool>) {
    while !stop.load(Ordering::Relaxed) {
        match listener.accept() {
            Ok((stream, _)) => {
                let stop = Arc::clone(stop);
                thread::spawn(move || serve(stream, &stop));
            }
            Err(_) => thread::sleep(Duration::from_millis(5)),
        }
    }
}

fn serve(mut stream: TcpStream, stop: &AtomicBool) {
    let mut buffer = [0; 2048];
    if stream.set_nonblocking(false).is_err() || stream.set_read_timeout(Some(GLANCE)).is_err() {
        return;
    }
    while !stop.load(Ordering::Relaxed) {
        match stream.read(&mut buffer) {
            Ok(0) => return,
            Ok(length) if stream.write_all(&buffer[..length]).is_err() => return,
            Ok(_) => {}
            Err(error) if super::nothing_yet(&error) => {}
            Err(_) => return,
        }
    }
}

fn udp_socket(port: u16) -> Result<OwnedFd> {
    let socket = socket(
        AddressFamily::Inet6,
        SockType::Datagram,
        SockFlag::SOCK_CLOEXEC,
        None,
    )?;
    setsockopt(&socket, sockopt::Ipv6V6Only, &false)?;
    setsockopt(&socket, sockopt::Ipv6RecvPacketInfo, &true)?;
    // A busy machine must lose nothing here that a test then misses.
    setsockopt(&socket, sockopt::RcvBufForce, &(8 << 20))?;
    let glance = nix::sys::time::TimeVal::new(0, 50_000);
    setsockopt(&socket, sockopt::ReceiveTimeout, &glance)?;
    let any = SocketAddrV6::new(Ipv6Addr::UNSPECIFIED, port, 0, 0);
    bind(socket.as_raw_fd(), &SockaddrIn6::from(any))?;
    Ok(socket)
}

/// Waits a [`GLANCE`] for one datagram and sends it back. Losses are the client's to notice.
fn reflect(socket: &OwnedFd) {
    let mut buffer = [0; 8192];
    let mut control = nix::cmsg_space!(nix::libc::in6_pktinfo);
    let mut slices = [IoSliceMut::new(&mut buffer)];
    let Ok(message) = recvmsg::<SockaddrIn6>(
        socket.as_raw_fd(),
        &mut slices,
        Some(&mut control),
        MsgFlags::empty(),
    ) else {
        return;
    };
    let Ok(mut parts) = message.cmsgs() else {
        return;
    };
    let asked = parts.find_map(|part| {
        let ControlMessageOwned::Ipv6PacketInfo(info) = part else {
            return None;
        };
        Some(info)
    });
    let (Some(mut asked), Some(client), length) = (asked, message.address, message.bytes) else {
        return;
    };
    // The interface of the asked address is loopback; the answer must follow the routes.
    asked.ipi6_ifindex = 0;
    let _lost = sendmsg(
        socket.as_raw_fd(),
        &[IoSlice::new(&buffer[..length])],
        &[ControlMessage::Ipv6PacketInfo(&asked)],
        MsgFlags::empty(),
        Some(&client),
    );
}
