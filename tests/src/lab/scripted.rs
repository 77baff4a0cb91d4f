//! The internet's names, made up when they are asked for: a million need no zone file, and no two
//! answers of one name need be alike.
#![expect(clippy::disallowed_methods, reason = "shell: opens sockets")]

use super::wire::{self, Reply};
use super::{Lab, plan};
use anyhow::{Context, Result};
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

/// What says to a name in lower case which addresses it has now. It is called once per question.
pub type Script = Arc<dyn Fn(&str) -> Reply + Send + Sync>;

/// An authority on [`plan::UPSTREAM`], on threads of this process. It knows A records alone; other
/// types have no data.
#[derive(Debug)]
pub struct Scripted {
    stop: Arc<AtomicBool>,
}

/// How often a waiting server looks whether it should stop.
const GLANCE: Duration = Duration::from_millis(50);

impl Scripted {
    /// Answers over UDP and TCP from the return of this function on.
    ///
    /// # Errors
    /// When port 53 is taken.
    pub fn start(lab: &Lab, script: &Script) -> Result<Self> {
        let authority = Self::streams(lab, script)?;
        let socket = lab.internet.enter(|| {
            UdpSocket::bind(SocketAddr::new(plan::UPSTREAM, 53)).context("listen on UDP 53")
        })??;
        socket.set_read_timeout(Some(GLANCE))?;
        let (stop, script) = (Arc::clone(&authority.stop), Arc::clone(script));
        thread::spawn(move || {
            let mut buffer = [0; 4096];
            while !stop.load(Ordering::Relaxed) {
                let Ok((length, from)) = socket.recv_from(&mut buffer) else {
                    continue;
                };
                if let Some(reply) = respond(&buffer[..length], &script, false) {
                    // The asker's to notice.
                    let _lost = socket.send_to(&reply, from);
                }
            }
        });
        Ok(authority)
    }

    /// The same over TCP alone: UDP is somebody else's to answer.
    ///
    /// # Errors
    /// When port 53 is taken.
    pub fn streams(lab: &Lab, script: &Script) -> Result<Self> {
        let listener = lab.internet.enter(|| {
            TcpListener::bind(SocketAddr::new(plan::UPSTREAM, 53)).context("listen on TCP 53")
        })??;
        listener.set_nonblocking(true)?;
        let stop = Arc::new(AtomicBool::new(false));
        let (ended, script) = (Arc::clone(&stop), Arc::clone(script));
        thread::spawn(move || {
            while !ended.load(Ordering::Relaxed) {
                let Ok((stream, _)) = listener.accept() else {
                    thread::sleep(Duration::from_millis(1));
                    continue;
                };
                let (ended, script) = (Arc::clone(&ended), Arc::clone(&script));
                thread::spawn(move || {
                    // Its end, however it came, is the asker's to notice.
                    let _ended = serve(stream, &ended, &script);
                });
            }
        });
        Ok(Self { stop })
    }
}

impl Drop for Scripted {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
    }
}

/// The response to a message, if it is a question.
fn respond(message: &[u8], script: &Script, stream: bool) -> Option<Vec<u8>> {
    let (name, kind, end) = wire::asked(message).ok()?;
    let reply = if kind == wire::A {
        script(&name)
    } else {
        Reply::default()
    };
    Some(wire::response(message, end, &reply, stream))
}

fn serve(mut stream: TcpStream, stop: &AtomicBool, script: &Script) -> Result<()> {
    stream.set_nonblocking(false)?;
    stream.set_nodelay(true)?;
    stream.set_read_timeout(Some(GLANCE))?;
    let mut waiting = Vec::new();
    let mut buffer = [0; 4096];
    while !stop.load(Ordering::Relaxed) {
        match stream.read(&mut buffer) {
            Ok(0) => break,
            Ok(length) => waiting.extend(&buffer[..length]),
            Err(error) if super::nothing_yet(&error) => {}
            Err(error) => return Err(error.into()),
        }
        while let Some(length) = waiting.first_chunk().map(|two| u16::from_be_bytes(*two)) {
            let end = 2 + usize::from(length);
            let Some(message) = waiting.get(2..end) else {
                break;
            };
            if let Some(reply) = respond(message, script, true) {
                let length = u16::try_from(reply.len())?;
                stream.write_all(&[&length.to_be_bytes(), reply.as_slice()].concat())?;
            }
            waiting.drain(..end);
        }
    }
    Ok(())
}
