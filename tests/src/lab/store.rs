//! What a service manager keeps of a service that is away: the descriptors it was sent (sd_notify(3),
//! `FDSTORE=1`).

use rustix::net::{RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, recvmsg};
use std::collections::BTreeMap;
use std::io::{self, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixDatagram;

/// Descriptors by their names.
#[derive(Debug, Default)]
pub(super) struct Store {
    kept: BTreeMap<String, OwnedFd>,
}

impl Store {
    /// Takes one message of the service, and its descriptors as it wishes.
    ///
    /// # Errors
    /// When nothing comes in time.
    pub(super) fn receive(&mut self, socket: &UnixDatagram) -> io::Result<String> {
        let mut buffer = [0; 4096];
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(8))];
        let mut control = RecvAncillaryBuffer::new(&mut space);
        let mut slices = [IoSliceMut::new(&mut buffer)];
        let received = recvmsg(socket, &mut slices, &mut control, RecvFlags::CMSG_CLOEXEC)?;
        let text = String::from_utf8_lossy(&buffer[..received.bytes]).into_owned();
        let lines: Vec<&str> = text.lines().collect();
        let name = lines.iter().find_map(|line| line.strip_prefix("FDNAME="));
        let name = name.unwrap_or("stored");
        if lines.contains(&"FDSTOREREMOVE=1") {
            self.kept.remove(name);
        }
        for message in control.drain() {
            let RecvAncillaryMessage::ScmRights(descriptors) = message else {
                continue;
            };
            for descriptor in descriptors {
                if lines.contains(&"FDSTORE=1") {
                    self.kept.insert(name.to_owned(), descriptor);
                }
            }
        }
        Ok(text)
    }

    /// The one descriptor under `name`.
    pub(super) fn get(&self, name: &str) -> Option<&OwnedFd> {
        self.kept.get(name)
    }
}
