//! PURE. A candidate that comes in pieces, because a call is short.

use super::Candidate;
use super::impact::MAX_CANDIDATE;
use super::protocol::{Failure, PreviewParameters};
use std::sync::atomic::{AtomicUsize, Ordering};

/// Bytes that all connections hold together.
static HELD: AtomicUsize = AtomicUsize::new(0);

/// What one connection has sent of a candidate.
#[derive(Debug, Default)]
pub(super) struct Staged {
    catalogue: Option<String>,
    text: String,
}

impl Staged {
    /// Takes the next piece, or the only one. The candidate, once it is whole.
    ///
    /// # Errors
    /// When it is too long, or about another catalogue than the pieces before; all of it is forgotten then.
    pub(super) fn take(
        &mut self,
        parameters: PreviewParameters,
    ) -> Result<Option<Candidate>, Failure> {
        let PreviewParameters {
            catalogue,
            text,
            unfinished,
        } = parameters;
        let (Some(name), Some(piece)) = (catalogue, text) else {
            self.forget();
            return Ok(Some(Candidate::Configuration));
        };
        if self
            .catalogue
            .as_ref()
            .is_some_and(|before| *before != name)
        {
            self.forget();
            let text = "a piece of another catalogue than the one before; send all of one first"
                .to_owned();
            return Err(Failure::BadQuery { text });
        }
        let before = HELD.fetch_add(piece.len(), Ordering::Relaxed);
        if before.saturating_add(piece.len()) > MAX_CANDIDATE {
            HELD.fetch_sub(piece.len(), Ordering::Relaxed);
            self.forget();
            let text = format!(
                "the catalogue is longer than {} MiB, of all that are sent at once together; import it first \
                 and leave out what no zone needs",
                MAX_CANDIDATE >> 20
            );
            return Err(Failure::BadQuery { text });
        }
        self.text.push_str(&piece);
        self.catalogue = Some(name.clone());
        if unfinished == Some(true) {
            return Ok(None);
        }
        let text = std::mem::take(&mut self.text);
        HELD.fetch_sub(text.len(), Ordering::Relaxed);
        self.catalogue = None;
        Ok(Some(Candidate::Catalogue { name, text }))
    }

    fn forget(&mut self) {
        let text = std::mem::take(&mut self.text);
        HELD.fetch_sub(text.len(), Ordering::Relaxed);
        self.catalogue = None;
    }
}

impl Drop for Staged {
    fn drop(&mut self) {
        HELD.fetch_sub(self.text.len(), Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn piece(name: &str, text: String, unfinished: bool) -> PreviewParameters {
        PreviewParameters {
            catalogue: Some(name.to_owned()),
            text: Some(text),
            unfinished: Some(unfinished),
        }
    }

    /// One test, for they share one count.
    #[test]
    fn pieces_add_up_and_are_bounded() {
        let mut staged = Staged::default();
        let whole = staged.take(PreviewParameters::default()).unwrap();
        assert_eq!(whole, Some(Candidate::Configuration));
        assert_eq!(staged.take(piece("c", "a".to_owned(), true)).unwrap(), None);
        assert_eq!(HELD.load(Ordering::Relaxed), 1);
        assert_eq!(
            staged.take(piece("c", "b".to_owned(), false)).unwrap(),
            Some(Candidate::Catalogue {
                name: "c".to_owned(),
                text: "ab".to_owned(),
            })
        );
        // Another's pieces are not mixed in.
        staged.take(piece("c", "a".to_owned(), true)).unwrap();
        staged.take(piece("d", "b".to_owned(), false)).unwrap_err();
        assert_eq!(HELD.load(Ordering::Relaxed), 0);
        // All connections share one bound, and give back what they held.
        let mut other = Staged::default();
        other
            .take(piece("c", "x".repeat(MAX_CANDIDATE - 10), true))
            .unwrap();
        staged.take(piece("c", "x".repeat(10), true)).unwrap();
        staged.take(piece("c", "x".to_owned(), true)).unwrap_err();
        assert_eq!(HELD.load(Ordering::Relaxed), MAX_CANDIDATE - 10);
        drop(other);
        staged.take(piece("c", "x".repeat(100), true)).unwrap();
        drop(staged);
        assert_eq!(HELD.load(Ordering::Relaxed), 0);
    }
}
