//! A server of a catalogue over HTTPS, which says what it is told to say.
#![expect(
    clippy::disallowed_methods,
    reason = "shell: listens, writes a certificate"
)]

use super::Namespace;
use anyhow::{Context, Result};
use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::Duration;
use tokio_rustls::rustls::crypto::ring;
use tokio_rustls::rustls::pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};
use tokio_rustls::rustls::{ServerConfig, ServerConnection, StreamOwned};

/// A running server; it ends when this is dropped.
#[derive(Debug)]
pub struct Feed {
    authority: PathBuf,
    says: Arc<Mutex<String>>,
    asked: Arc<AtomicUsize>,
    over: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Feed {
    /// Serves `host` at `address` in a namespace; the authority that certifies it goes to a file in `folder`.
    ///
    /// # Errors
    /// When it cannot listen there.
    pub fn start(
        namespace: &Namespace,
        address: SocketAddr,
        host: &str,
        folder: &Path,
    ) -> Result<Self> {
        let mut params = CertificateParams::new(Vec::new())?;
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let key = KeyPair::generate()?;
        let authority = folder.join("feed.pem");
        std::fs::write(&authority, params.self_signed(&key)?.pem())?;
        let issuer = Issuer::new(params, key);
        let key = KeyPair::generate()?;
        let certificate =
            CertificateParams::new(vec![host.to_owned()])?.signed_by(&key, &issuer)?;
        let private = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(key.serialize_der()));
        let config = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
            .with_safe_default_protocol_versions()?
            .with_no_client_auth()
            .with_single_cert(vec![certificate.der().clone()], private)?;
        let listener = namespace.enter(|| TcpListener::bind(address))?;
        let listener = listener.with_context(|| format!("listen on {address}"))?;
        listener.set_nonblocking(true)?;
        let mut feed = Self {
            authority,
            says: Arc::default(),
            asked: Arc::default(),
            over: Arc::default(),
            thread: None,
        };
        let (says, asked) = (Arc::clone(&feed.says), Arc::clone(&feed.asked));
        let (over, config) = (Arc::clone(&feed.over), Arc::new(config));
        feed.thread = Some(thread::spawn(move || {
            while !over.load(Ordering::Relaxed) {
                let Ok((stream, _)) = listener.accept() else {
                    thread::sleep(Duration::from_millis(5));
                    continue;
                };
                let said = says.lock().unwrap_or_else(PoisonError::into_inner).clone();
                // A client that goes away has what it wants.
                if serve(stream, &config, &said).is_ok() {
                    asked.fetch_add(1, Ordering::Relaxed);
                }
            }
        }));
        Ok(feed)
    }

    /// The file with its authority.
    #[must_use]
    pub fn authority(&self) -> &Path {
        &self.authority
    }

    /// Answers each request with this from now on, as it goes over the wire.
    pub fn says(&self, text: &str) {
        text.clone_into(&mut self.says.lock().unwrap_or_else(PoisonError::into_inner));
    }

    /// Answers each request with this content.
    pub fn gives(&self, body: &str) {
        self.says(&format!(
            "HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{body}",
            body.len()
        ));
    }

    /// Requests that were answered.
    #[must_use]
    pub fn asked(&self) -> usize {
        self.asked.load(Ordering::Relaxed)
    }
}

impl Drop for Feed {
    fn drop(&mut self) {
        self.over.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            // It told nobody why it panicked, and nobody asks any more.
            let _ = thread.join();
        }
    }
}

fn serve(stream: TcpStream, config: &Arc<ServerConfig>, says: &str) -> Result<()> {
    stream.set_nonblocking(false)?;
    stream.set_read_timeout(Some(Duration::from_secs(5)))?;
    let mut stream = StreamOwned::new(ServerConnection::new(Arc::clone(config))?, stream);
    let mut head = Vec::new();
    let mut byte = [0];
    while !head.ends_with(b"\r\n\r\n") {
        stream.read_exact(&mut byte)?;
        head.push(byte[0]);
    }
    stream.write_all(says.as_bytes())?;
    stream.conn.send_close_notify();
    stream.flush()?;
    Ok(())
}
