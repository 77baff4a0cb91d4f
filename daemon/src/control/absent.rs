//! What can be told without a daemon: the word of who opened or locked the gateway.

use super::protocol::{State, Status};
use crate::lockdown::mark::{self, Word};
use std::path::Path;

/// The status of a gateway whose daemon does not listen on `socket`, if somebody left word of it.
#[must_use]
pub fn status(socket: &Path) -> Option<Status> {
    let mark = mark::read(socket.parent()?)?;
    Some(Status {
        version: env!("CARGO_PKG_VERSION").to_owned(),
        state: match mark.state {
            Word::Open => State::Open,
            Word::Locked => State::Locked,
        },
        warnings: vec!["egressd is not running".to_owned(), mark.line()],
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
        for (word, told) in [(Word::Open, "OPEN"), (Word::Locked, "LOCKED")] {
            let mark = Mark::now(word, "locked \u{1b}out");
            mark::write(folder.path(), &mark).unwrap();
            let status = status(&socket).unwrap();
            assert!(status.warnings[1].contains(&mark.who), "{status:?}");
            let text = text::status(&status);
            assert!(text.contains(told) && text.contains(&mark.since), "{text}");
            assert!(!text.contains('\u{1b}'), "{text:?}");
        }
    }
}
