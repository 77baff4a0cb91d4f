//! Puts links right that somebody detached, unpinned or gave another program, from what the plane holds:
//! the programs and maps are loaded, so that takes no longer than a few system calls.

use super::attach::Attached;
use super::generation::Generation;
use super::{EbpfPlane, Missing, because, warn};
use crate::plane::Plane as _;
use crate::plane::drift::{Drift, Found, Outcome, Word};
use nix::net::if_::if_nametoindex;
use std::os::unix::fs::DirBuilderExt as _;

/// One look in so many also tries interfaces again that have no program: a try may be costly.
const PATIENCE: u32 = 40;

impl EbpfPlane {
    /// Looks at every link, and puts right what it finds.
    pub(super) fn mend_links(&mut self) -> Vec<Drift> {
        self.looks = self.looks.wrapping_add(1);
        if self.looks.is_multiple_of(PATIENCE) {
            self.retry();
        }
        let Some(mut current) = self.current.take() else {
            let found = Found::new(Word::Unknown, "the ebpf plane holds nothing yet");
            return vec![self.drift(found, Outcome::Replace(String::new()))];
        };
        let mut drifts = Vec::new();
        for index in self.attached.keys().copied().collect::<Vec<_>>() {
            // One link may be wrong in more than one way.
            for _ in 0..3 {
                let Err(found) = self.look(&mut current, index) else {
                    break;
                };
                let Some(outcome) = self.mend_link(&mut current, index, found.word) else {
                    break;
                };
                let mended = outcome == Outcome::Mended;
                drifts.push(self.drift(found, outcome));
                if !mended {
                    break;
                }
            }
        }
        self.current = Some(current);
        if drifts
            .iter()
            .any(|drift| matches!(drift.outcome, Outcome::Replace(_)))
        {
            // Whatever is wrong, nothing of it is kept.
            self.tables = None;
        }
        let pinned = |drift: &Drift| {
            drift.found.word == Word::PinMissing && drift.outcome == Outcome::Mended
        };
        if drifts.iter().any(pinned) {
            warn("pin the maps", self.pin_maps());
        }
        drifts
    }

    fn drift(&self, found: Found, outcome: Outcome) -> Drift {
        Drift {
            plane: self.name(),
            found,
            outcome,
        }
    }

    /// Whether the link of an interface, if it has one, is as it must be.
    pub(super) fn look(&self, current: &mut Generation, index: u32) -> Result<(), Found> {
        let Some(attached) = self.attached.get(&index) else {
            return Ok(());
        };
        attached.look(current)?;
        if let Some(tags) = self.trunks.get(&index)
            && !attached.sees_tags()
            && let Some((why, _)) = super::unseen(index, tags)
        {
            let what = format!("{}: {why}", attached.name);
            return Err(Found::new(Word::TagsUnseen, what));
        }
        Ok(())
    }

    /// Puts one link right; `None` where the interface is gone, which is told as a change of interfaces.
    fn mend_link(&mut self, current: &mut Generation, index: u32, word: Word) -> Option<Outcome> {
        match word {
            Word::XdpDetached | Word::TcxDetached => self.attach_again(current, index),
            Word::ForeignProgram => {
                let swapped = self.attached.get_mut(&index)?.swap(current);
                Some(match swapped {
                    Ok(()) => Outcome::Mended,
                    Err(error) => Outcome::Replace(format!("{error:#}")),
                })
            }
            Word::PinMissing => self.pin_again(current, index),
            Word::TagsUnseen
            | Word::Unknown
            | Word::MissingTable
            | Word::ForeignTable
            | Word::ForeignEdit
            | Word::Ownerless
            | Word::ForeignOwner
            | Word::Plain
            | Word::MissingElement
            | Word::ExtraElement => Some(Outcome::Replace(String::new())),
        }
    }

    /// Gives an interface a new link in place of one that is dead.
    fn attach_again(&mut self, current: &mut Generation, index: u32) -> Option<Outcome> {
        let Some(wanted) = self.wanted.get(&index).cloned() else {
            return Some(Outcome::Replace(String::new()));
        };
        if if_nametoindex(wanted.name.as_str()) != Ok(index) {
            return None;
        }
        if let Some(dead) = self.attached.remove(&index) {
            warn("remove the pin of a dead link", dead.detach());
        }
        let attached = self.link(current, (index, &wanted));
        let attached = attached.and_then(|(mut attached, is_new)| {
            if !is_new {
                attached.swap(current)?;
            }
            Ok(attached)
        });
        Some(match attached {
            Ok(attached) => {
                self.attached.insert(index, attached);
                Outcome::Mended
            }
            Err(error) if self.options.nft_behind => {
                let why = format!("{error:#}");
                let left = because(&[format!("left to nft alone: {why}")]);
                log::error!(target: "ebpf", "{}{left}", wanted.name);
                let missing = Missing {
                    wanted,
                    why: why.clone(),
                };
                self.missing.insert(index, missing);
                Outcome::Waits(why)
            }
            Err(error) => Outcome::Replace(format!("{error:#}")),
        })
    }

    /// Pins a link again whose pin is gone. Without a place for pins it stays as it is: it lives as long
    /// as this process.
    fn pin_again(&mut self, current: &mut Generation, index: u32) -> Option<Outcome> {
        let directory = self.links_dir();
        let made = std::fs::DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(&directory);
        let can_pin = made
            .map_err(anyhow::Error::from)
            .and_then(|()| current.can_pin(&directory));
        if let Err(error) = can_pin {
            return Some(Outcome::Waits(format!(
                "{} takes no pins ({error:#}); mount a bpffs there, or interfaces are without their \
                 programs from the daemon's end to its next start",
                directory.display()
            )));
        }
        let attached = self.attached.remove(&index)?;
        let name = attached.name.clone();
        match attached.keep_pinned(&name, &directory) {
            Ok(attached) => {
                self.attached.insert(index, attached);
                Some(Outcome::Mended)
            }
            // The link went with the attempt.
            Err(_) => self.attach_again(current, index),
        }
    }
}

/// Pins a link under the name its interface has now, where that can be done; else it stays as it is.
pub(super) fn keep_pinned(
    attached: Attached,
    next: &Generation,
    name: &str,
    directory: &std::path::Path,
) -> anyhow::Result<Attached> {
    // A link that cannot be pinned is closed by the attempt, and takes the program along.
    if attached.is_pinned(name, directory) || next.can_pin(directory).is_ok() {
        return attached.keep_pinned(name, directory);
    }
    log::warn!(target: "ebpf", "{name}: the link cannot be pinned: {} takes no pins", directory.display());
    Ok(attached)
}
