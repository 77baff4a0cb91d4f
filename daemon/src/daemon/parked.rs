//! Descriptors that the service manager keeps while no process of egressd runs (systemd.service(5),
//! `FileDescriptorStoreMax=`): the nft socket, so that the table never loses its owner.

use crate::plane::Plane;
use sd_notify::NotifyState;
use std::os::fd::OwnedFd;

/// The name of the nft socket in the manager's store.
const NFT: &str = "nft";

/// What the manager kept of the process before.
#[derive(Debug, Default)]
pub(super) struct Parked {
    /// The socket that may own the nft table.
    pub(super) nft: Option<OwnedFd>,
    /// Whether the manager holds one under that name.
    known: bool,
}

impl Parked {
    /// Takes what the manager passed. Once, before anything else opens descriptors.
    pub(super) fn take() -> Self {
        let passed = sd_listen_fds::get().unwrap_or_else(|error| {
            log::warn!(target: "daemon", "what the service manager kept cannot be taken: {error}");
            Vec::new()
        });
        let mut parked = Self::default();
        for (name, descriptor) in passed {
            // All others are closed here: nobody knows what they are.
            if name.as_deref() == Some(NFT) {
                parked.known = true;
                parked.nft = Some(descriptor.into_std());
            }
        }
        parked
    }

    /// What to tell the manager so that it keeps what `planes` want kept, and nothing else.
    pub(super) fn keep(&self, keepsake: Option<OwnedFd>) -> Option<Keep> {
        let name = NotifyState::FdName(NFT);
        match keepsake {
            Some(descriptor) => Some(Keep {
                // A full receive buffer is an error on the socket, for which the manager would drop it.
                states: vec![NotifyState::FdStore, name, NotifyState::Custom("FDPOLL=0")],
                descriptor: Some(descriptor),
            }),
            None if self.known => Some(Keep {
                states: vec![NotifyState::FdStoreRemove, name],
                descriptor: None,
            }),
            None => None,
        }
    }
}

/// What the manager is to be told, with a descriptor that goes along.
#[derive(Debug)]
pub(super) struct Keep {
    pub(super) states: Vec<NotifyState<'static>>,
    pub(super) descriptor: Option<OwnedFd>,
}

/// The one descriptor that `planes` want kept.
pub(super) fn keepsake(planes: &[Box<dyn Plane>]) -> Option<OwnedFd> {
    planes.iter().find_map(|plane| plane.keepsake())
}
