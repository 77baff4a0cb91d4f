//! DNS over TCP: frames with a length before them (RFC 1035 §4.2.2, RFC 7766).
#![expect(
    clippy::disallowed_methods,
    reason = "shell: TCP connections and their deadlines"
)]

use std::io;
use std::net::SocketAddr;
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::mpsc::UnboundedReceiver;
use tokio::time::timeout;

/// How long a connection to an upstream stays open without a question.
const IDLE: Duration = Duration::from_secs(10);

/// Collects bytes until frames are whole.
#[derive(Default)]
pub(super) struct Frames {
    bytes: Vec<u8>,
}

impl Frames {
    /// Reads once. Safe to cancel: nothing that was read is lost.
    ///
    /// # Errors
    /// What the stream says; its end is `UnexpectedEof`.
    pub(super) async fn fill(&mut self, from: &mut (impl AsyncReadExt + Unpin)) -> io::Result<()> {
        self.bytes.reserve(2048);
        match from.read_buf(&mut self.bytes).await? {
            0 => Err(io::ErrorKind::UnexpectedEof.into()),
            _ => Ok(()),
        }
    }

    /// Takes the first whole message.
    pub(super) fn take(&mut self) -> Option<Vec<u8>> {
        let length = usize::from(u16::from_be_bytes(*self.bytes.first_chunk()?));
        if self.bytes.len() < 2 + length {
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

/// Asks an upstream over one connection, every question as soon as it comes, until there is none for
/// a while.
///
/// # Errors
/// When the connection fails or a question waits too long for it.
pub(super) async fn converse(
    address: SocketAddr,
    mut questions: UnboundedReceiver<Box<[u8]>>,
    patience: Duration,
    mut reply: impl FnMut(&mut [u8]),
) -> io::Result<()> {
    let mut stream = timeout(patience, TcpStream::connect(address)).await??;
    stream.set_nodelay(true)?;
    let (mut read, mut written) = stream.split();
    let mut frames = Frames::default();
    loop {
        tokio::select! {
            question = questions.recv() => {
                let Some(question) = question else { return Ok(()) };
                timeout(patience, write(&mut written, &question)).await??;
            }
            filled = frames.fill(&mut read) => {
                filled?;
                while let Some(mut message) = frames.take() {
                    reply(&mut message);
                }
            }
            () = tokio::time::sleep(IDLE) => return Ok(()),
        }
    }
}
