//! DNS over TCP and TLS: frames with a length before them (RFC 1035 §4.2.2, RFC 7766, RFC 7858).
#![expect(
    clippy::disallowed_methods,
    reason = "shell: the time of what it hears"
)]

use super::conversation::{Conversation, Due};
use super::trouble::Trouble;
use bytes::BytesMut;
use std::io;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::time::{Instant, sleep_until};

/// Collects bytes until frames are whole.
pub(super) struct Frames {
    bytes: Vec<u8>,
    /// The longest message taken, in bytes.
    most: usize,
}

impl Default for Frames {
    fn default() -> Self {
        Self::up_to(usize::from(u16::MAX))
    }
}

impl Frames {
    /// Takes messages of up to `most` bytes.
    pub(super) fn up_to(most: usize) -> Self {
        let bytes = Vec::new();
        Self { bytes, most }
    }

    /// Reads once. Safe to cancel: nothing that was read is lost.
    ///
    /// # Errors
    /// What the stream says; its end is `UnexpectedEof`, a message that is too long `InvalidData`.
    pub(super) async fn fill(&mut self, from: &mut (impl AsyncReadExt + Unpin)) -> io::Result<()> {
        self.bytes.reserve(2048);
        match from.read_buf(&mut self.bytes).await? {
            0 => Err(io::ErrorKind::UnexpectedEof.into()),
            // Before the message is here: it never will be.
            _ if self.announced().is_some_and(|length| length > self.most) => {
                Err(io::ErrorKind::InvalidData.into())
            }
            _ => Ok(()),
        }
    }

    /// The length of the first message.
    fn announced(&self) -> Option<usize> {
        Some(usize::from(u16::from_be_bytes(*self.bytes.first_chunk()?)))
    }

    /// Takes the first whole message.
    pub(super) fn take(&mut self) -> Option<Vec<u8>> {
        let length = self.announced()?;
        if length > self.most || self.bytes.len() < 2 + length {
            return None;
        }
        let rest = self.bytes.split_off(2 + length);
        let mut message = std::mem::replace(&mut self.bytes, rest);
        message.drain(..2);
        Some(message)
    }

    /// Whether a message has begun and not ended.
    pub(super) fn is_partial(&self) -> bool {
        !self.bytes.is_empty()
    }
}

/// Writes one message.
///
/// # Errors
/// What the stream says; a message over 65,535 bytes is `InvalidInput`.
pub(super) async fn write(to: &mut (impl AsyncWriteExt + Unpin), message: &[u8]) -> io::Result<()> {
    let length = u16::try_from(message.len()).map_err(|_| io::ErrorKind::InvalidInput)?;
    // One write: a length alone would leave in a segment of its own.
    to.write_all(&[&length.to_be_bytes(), message].concat())
        .await
}

/// Bytes that may wait to be written before more questions are taken.
const MOST_WAITING: usize = 64 << 10;

/// Asks `again`, and then every question of `talk`, over `stream`. Returns when nobody asks any more.
///
/// # Errors
/// When the connection fails or the other side closes it.
pub(super) async fn converse<S, R>(
    stream: S,
    talk: &mut Conversation<R>,
    again: Vec<Box<[u8]>>,
) -> Result<(), Trouble>
where
    S: AsyncRead + AsyncWrite,
    R: FnMut(&[u8]),
{
    let (mut read, mut written) = tokio::io::split(stream);
    let mut frames = Frames::default();
    let mut out = BytesMut::new();
    for question in again {
        frame(&question, &mut out)?;
        talk.ask(question, Instant::now());
    }
    let mut unsent = !out.is_empty();
    // Why nothing can be written any more. What the other side wrote before that is still read.
    let mut shut: Option<io::Error> = None;
    loop {
        let deadline = talk.deadline();
        tokio::select! {
            filled = frames.fill(&mut read) => {
                if let Err(error) = filled {
                    return Err(shut.unwrap_or(error).into());
                }
                while let Some(message) = frames.take() {
                    talk.hear(&message, Instant::now());
                }
            }
            sent = push(&mut written, &mut out), if unsent => {
                unsent = false;
                shut = sent.err();
            }
            question = talk.questions.recv(), if shut.is_none() && out.len() < MOST_WAITING => {
                let Some(question) = question else { return Ok(()) };
                // Those that wait leave in one segment.
                let mut next = Some(question);
                while let Some(question) = next {
                    frame(&question, &mut out)?;
                    talk.ask(question, Instant::now());
                    let room = out.len() < MOST_WAITING;
                    next = room.then(|| talk.questions.try_recv().ok()).flatten();
                }
                unsent = true;
            }
            () = sleep_until(deadline) => match talk.due(Instant::now()) {
                Due::Nothing => {}
                Due::Idle => return Ok(()),
                Due::Stalled => return Err(Trouble::Stalled),
            },
        }
    }
}

fn frame(message: &[u8], out: &mut BytesMut) -> io::Result<()> {
    let length = u16::try_from(message.len()).map_err(|_| io::ErrorKind::InvalidInput)?;
    out.extend_from_slice(&length.to_be_bytes());
    out.extend_from_slice(message);
    Ok(())
}

/// Writes all of `out`. Safe to cancel: what is left stays in it.
async fn push(to: &mut (impl AsyncWriteExt + Unpin), out: &mut BytesMut) -> io::Result<()> {
    while !out.is_empty() {
        to.write_buf(out).await?;
    }
    to.flush().await
}
