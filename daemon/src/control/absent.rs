//! What can be told without a daemon: the word of who opened or locked the gateway.

use super::protocol::{State, Status};
use crate::lockdown::mark::{self, Word};
use crate::plane::nft;
use crate::plane::ruleset::LOCKDOWN_TABLE;
use std::io::ErrorKind::{ConnectionRefused, NotFound};
use std::os::unix::net::UnixStream;
use std::path::Path;

/// The status of a gateway whose daemon does not listen on `socket`, if somebody left word of it. Whether a
/// lockdown still stands is told to who may ask the kernel.
#[must_use]
pub fn status(socket: &Path) -> Option<Status> {
    let mark = mark::read(socket.parent()?)?;
    match UnixStream::connect(socket) {
        Err(error) if [NotFound, ConnectionRefused].contains(&error.kind()) => {}
        // Somebody listens, or it cannot be told.
        Ok(_) | Err(_) => return None,
    }
    let mut warnings = vec!["egressd is not running".to_owned(), mark.line()];
    let state = match (mark.state, nft::lockdown::locked()) {
        (Word::Open, _) => State::Open,
        (Word::Locked, Ok(Some(_))) => State::Locked,
        (Word::Locked, Ok(None)) => {
            warnings.push(format!(
                "table inet {LOCKDOWN_TABLE} is gone: somebody removed it; close again with `egressd lockdown`"
            ));
            State::Degraded
        }
        (Word::Locked, Err(_)) => {
            warnings.push("only root can tell whether that still stands".to_owned());
            State::Locked
        }
    };
    Some(Status {
        version: env!("CARGO_PKG_VERSION").to_owned(),
        state,
        warnings,
        since: mark.since,
        ..Status::default()
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::control::text;
    use mark::Mark;

    #[test]
    fn the_word_is_told_with_who_when_and_why() {
        let folder = tempfile::tempdir().unwrap();
        let socket = folder.path().join("control.sock");
        assert_eq!(status(&socket), None);
        // No table stands here.
        for (word, told) in [(Word::Open, "OPEN"), (Word::Locked, "is gone")] {
            let mark = Mark::now(word, "locked \u{1b}out");
            mark::write(folder.path(), &mark).unwrap();
            let status = status(&socket).unwrap();
            assert!(status.warnings[1].contains(&mark.who), "{status:?}");
            let text = text::status(&status);
            // Without root's powers nobody can tell.
            let told = text.contains(told) || text.contains("only root can tell");
            assert!(told && text.contains(&mark.since), "{text}");
            assert!(!text.contains('\u{1b}'), "{text:?}");
        }
    }
}
