//! The socket under one connection: bounds what a client may send and how long it may take, and
//! refuses file descriptors by never receiving any.
#![expect(
    clippy::disallowed_methods,
    reason = "shell: deadlines of a connection"
)]

use super::protocol::MAX_CALL;
use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::time::Duration;
use tokio::io::AsyncReadExt;
use tokio::net::UnixStream;
use tokio::net::unix::{OwnedReadHalf, OwnedWriteHalf};
use tokio::time::{Instant, timeout, timeout_at};
use zlink::connection::PassedCredentials;
use zlink::connection::socket::{ReadHalf, ReadResult, Socket, WriteHalf};

/// How long a client may take.
#[derive(Clone, Copy, Debug)]
pub(super) struct Patience {
    /// From the first byte of a call to its end.
    pub(super) call: Duration,
    /// From one call to the next.
    pub(super) idle: Duration,
    /// To take in one reply.
    pub(super) reply: Duration,
}

impl Default for Patience {
    fn default() -> Self {
        Self {
            call: Duration::from_secs(5),
            idle: Duration::from_mins(5),
            reply: Duration::from_secs(30),
        }
    }
}

/// A connection that forgets no bound.
#[derive(Debug)]
pub(super) struct Bounded {
    pub(super) stream: UnixStream,
    pub(super) patience: Patience,
}

impl Socket for Bounded {
    type ReadHalf = BoundedRead;
    type WriteHalf = BoundedWrite;

    fn split(self) -> (BoundedRead, BoundedWrite) {
        let (read, write) = self.stream.into_split();
        let patience = self.patience;
        (
            BoundedRead {
                read,
                patience,
                unfinished: 0,
                deadline: None,
            },
            BoundedWrite { write, patience },
        )
    }
}

/// The half that calls come in by.
#[derive(Debug)]
pub(super) struct BoundedRead {
    read: OwnedReadHalf,
    patience: Patience,
    /// Bytes of the call that has begun but not ended.
    unfinished: usize,
    /// When that call must have ended.
    deadline: Option<Instant>,
}

impl ReadHalf for BoundedRead {
    async fn read(&mut self, buffer: &mut [u8]) -> zlink::Result<ReadResult> {
        let slow = |_| io::Error::new(io::ErrorKind::TimedOut, "the client took too long");
        let reading = self.read.read(buffer);
        let count = match self.deadline {
            Some(deadline) => timeout_at(deadline, reading).await,
            None => timeout(self.patience.idle, reading).await,
        }
        .map_err(slow)??;
        match buffer[..count].iter().rposition(|byte| *byte == 0) {
            Some(end) => (self.unfinished, self.deadline) = (count - end - 1, None),
            None => self.unfinished += count,
        }
        if self.unfinished >= MAX_CALL {
            return Err(zlink::Error::BufferOverflow);
        }
        if self.unfinished > 0 && self.deadline.is_none() {
            self.deadline = Some(Instant::now() + self.patience.call);
        }
        Ok(ReadResult::new(count))
    }
}

/// The half that replies go out by.
#[derive(Debug)]
pub(super) struct BoundedWrite {
    write: OwnedWriteHalf,
    patience: Patience,
}

impl WriteHalf for BoundedWrite {
    async fn write(
        &mut self,
        bytes: &[u8],
        _fds: &[impl AsFd],
        _credentials: Option<&PassedCredentials>,
    ) -> zlink::Result<()> {
        Ok(send(self.write.as_ref(), bytes, self.patience.reply).await?)
    }
}

/// Sends all of `bytes`, or fails.
///
/// # Errors
/// When the peer is gone or took longer than `patience` to read.
pub(super) async fn send(
    stream: &UnixStream,
    mut bytes: &[u8],
    patience: Duration,
) -> io::Result<()> {
    let sending = async {
        while !bytes.is_empty() {
            stream.writable().await?;
            match stream.try_write(bytes) {
                Ok(count) => bytes = &bytes[count..],
                Err(why) if why.kind() == io::ErrorKind::WouldBlock => {}
                Err(why) => return Err(why),
            }
        }
        Ok(())
    };
    timeout(patience, sending)
        .await
        .map_err(|_| io::Error::new(io::ErrorKind::TimedOut, "the client reads too slowly"))?
}

/// A connected socket, for zlink's reading of its peer's credentials and groups.
pub(super) struct Peer<'a>(pub(super) &'a UnixStream);

impl AsFd for Peer<'_> {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

impl zlink::connection::socket::UnixSocket for Peer<'_> {}
