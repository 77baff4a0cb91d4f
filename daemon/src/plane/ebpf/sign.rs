//! What the programs know this process by: nobody else ends when it ends.
#![expect(clippy::disallowed_methods, reason = "shell: opens a socket")]

use egressd_common::layout::SIGN_OF_LIFE;
use std::net::{Ipv4Addr, UdpSocket};

/// A socket that nobody sends to, which the kernel closes with this process: just when nft's table loses its
/// owner.
#[derive(Debug)]
pub(super) struct SignOfLife {
    _socket: UdpSocket,
    /// Its port on [`SIGN_OF_LIFE`].
    pub(super) port: u16,
}

impl SignOfLife {
    /// One in the calling thread's network namespace. Without it no refused packet is left to nft, which is said.
    pub(super) fn give() -> Option<Self> {
        let bound = || -> std::io::Result<Self> {
            let socket = UdpSocket::bind((Ipv4Addr::from_bits(SIGN_OF_LIFE), 0))?;
            let port = socket.local_addr()?.port();
            Ok(Self {
                _socket: socket,
                port,
            })
        };
        bound()
            .inspect_err(|error| {
                log::warn!(target: "ebpf", "no refused packet is left to nft: {error} (is lo up?)");
            })
            .ok()
    }
}
