//! Descriptors that the service manager keeps while no process of egressd runs (systemd.service(5),
//! `FileDescriptorStoreMax=`): the nft socket, so that the table never loses its owner.

use super::manager::Keep;
use crate::plane::Plane;
use nix::sys::stat::fstat;
use sd_notify::NotifyState;
use std::os::fd::OwnedFd;
use std::path::Path;

/// The name of the nft socket in the manager's store.
const NFT: &str = "nft";

/// What the manager kept of the process before.
#[derive(Debug, Default)]
pub(super) struct Parked {
    /// The socket that may own the nft table.
    pub(super) nft: Option<OwnedFd>,
    /// Which sockets the manager holds under that name, by their inodes.
    known: Vec<u64>,
}

impl Parked {
    /// Takes what the manager passed. Once, before anything else opens descriptors.
    pub(super) fn take() -> Self {
        if let Err(why) = believable(std::env::var("LISTEN_FDS").ok().as_deref()) {
            log::warn!(target: "daemon", "what the service manager kept is not taken: {why}");
            return Self::default();
        }
        let passed = sd_listen_fds::get().unwrap_or_else(|error| {
            log::warn!(target: "daemon", "what the service manager kept cannot be taken: {error}");
            Vec::new()
        });
        let passed = passed.into_iter();
        Self::of(passed.map(|(name, descriptor)| (name, descriptor.into_std())))
    }

    fn of(passed: impl Iterator<Item = (Option<String>, OwnedFd)>) -> Self {
        let mut parked = Self::default();
        for (name, descriptor) in passed {
            // All others are closed here: nobody knows what they are.
            if name.as_deref() == Some(NFT) {
                parked.known.extend(inode(&descriptor));
                parked.nft = Some(descriptor);
            }
        }
        parked
    }

    /// What to tell the manager, in order, so that it keeps `keepsake` and nothing else.
    pub(super) fn keep(&mut self, keepsake: Option<OwnedFd>) -> Vec<Keep> {
        let wanted = keepsake.as_ref().and_then(inode);
        if wanted.is_some() && self.known == wanted.as_slice() {
            return Vec::new();
        }
        let known = std::mem::replace(&mut self.known, wanted.into_iter().collect());
        let forget = Keep {
            states: vec![NotifyState::FdStoreRemove, NotifyState::FdName(NFT)],
            descriptor: None,
        };
        let forget = (!known.is_empty()).then_some(forget);
        let keep = keepsake.map(|descriptor| Keep {
            // A full receive buffer is an error on the socket, for which the manager would drop it.
            states: vec![
                NotifyState::FdStore,
                NotifyState::FdName(NFT),
                NotifyState::Custom("FDPOLL=0"),
            ],
            descriptor: Some(descriptor),
        });
        forget.into_iter().chain(keep).collect()
    }
}

/// Most descriptors that our unit has kept: `FileDescriptorStoreMax=`.
const MOST: usize = 64;

/// Whether as many descriptors as `LISTEN_FDS` says, from 3 on, are open: who takes one that is not takes over
/// whatever gets its number later.
fn believable(count: Option<&str>) -> Result<(), String> {
    let Some(text) = count else { return Ok(()) };
    let count: usize = text
        .parse()
        .ok()
        .filter(|count| *count <= MOST)
        .ok_or_else(|| format!("LISTEN_FDS is `{text}`, at most {MOST} were expected"))?;
    match (3..3 + count).find(|number| !Path::new(&format!("/proc/self/fd/{number}")).exists()) {
        Some(number) => Err(format!(
            "LISTEN_FDS is {count}, but descriptor {number} is not open"
        )),
        None => Ok(()),
    }
}

fn inode(descriptor: &OwnedFd) -> Option<u64> {
    fstat(descriptor).ok().map(|stat| stat.st_ino)
}

/// The one descriptor that `planes` want kept.
pub(super) fn keepsake(planes: &[Box<dyn Plane>]) -> Option<OwnedFd> {
    planes.iter().find_map(|plane| plane.keepsake())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::net::UnixDatagram;

    #[test]
    fn what_nobody_passed_is_not_taken() {
        fn check(count: Option<&str>, expected: bool) {
            assert_eq!(believable(count).is_ok(), expected, "{count:?}");
        }
        check(None, true);
        check(Some("0"), true);
        check(Some("64"), false);
        check(Some("65"), false);
        check(Some("99999999999999999999"), false);
        check(Some("-1"), false);
        check(Some("x"), false);
    }

    #[test]
    fn the_manager_keeps_one_socket() {
        let socket = || OwnedFd::from(UnixDatagram::unbound().unwrap());
        let (ours, stale) = (socket(), socket());
        let check = |passed: &[(&str, &OwnedFd)], keepsake: Option<&OwnedFd>, expected: &[&str]| {
            let copy = |descriptor: &OwnedFd| descriptor.try_clone().unwrap();
            let passed = passed
                .iter()
                .map(|(name, descriptor)| (Some((*name).to_owned()), copy(descriptor)));
            let mut parked = Parked::of(passed);
            let told: Vec<String> = (parked.keep(keepsake.map(copy)).iter())
                .map(|keep| {
                    let states = keep.states.iter().map(NotifyState::to_string);
                    let text = states.collect::<Vec<_>>().join(" ");
                    assert_eq!(keep.descriptor.is_some(), text.contains("FDSTORE=1"));
                    text
                })
                .collect();
            assert_eq!(told, expected);
            // Said once.
            assert!(parked.keep(keepsake.map(copy)).is_empty());
        };
        let store = "FDSTORE=1 FDNAME=nft FDPOLL=0";
        let remove = "FDSTOREREMOVE=1 FDNAME=nft";
        check(&[], None, &[]);
        check(&[("other", &stale)], None, &[]);
        check(&[], Some(&ours), &[store]);
        check(&[("nft", &ours)], Some(&ours), &[]);
        check(&[("nft", &stale)], Some(&ours), &[remove, store]);
        check(
            &[("nft", &stale), ("nft", &ours)],
            Some(&ours),
            &[remove, store],
        );
        check(&[("nft", &stale)], None, &[remove]);
    }
}
