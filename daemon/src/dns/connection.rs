//! Connections to upstreams over TCP, TLS and HTTPS: opened when there is a question, kept while there
//! are more, opened again when the other side closed them under one.
#![expect(
    clippy::disallowed_methods,
    reason = "shell: opens connections, reads the system's certificates, knows the time"
)]

use super::conversation::Conversation;
use super::remote::Remote;
use super::trouble::Trouble;
use super::{https, stream};
use crate::config::{Authority, Transport, Upstream};
use http::Uri;
use std::sync::Arc;
use std::time::Duration;
use tokio::net::TcpStream;
use tokio::sync::mpsc::UnboundedReceiver;
use tokio::time::{Instant, timeout};
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tokio_rustls::rustls::crypto::ring;
use tokio_rustls::rustls::pki_types::ServerName;
use tokio_rustls::rustls::{ClientConfig, RootCertStore};

/// What carries questions to one upstream when a connection does.
#[derive(Clone)]
pub(super) enum Carrier {
    Tcp,
    Tls(Arc<ClientConfig>, ServerName<'static>),
    Https(Arc<ClientConfig>, ServerName<'static>, Uri),
}

impl Carrier {
    /// Whether nobody on the way can read it.
    pub(super) fn is_encrypted(&self) -> bool {
        match self {
            Self::Tcp => false,
            Self::Tls(..) | Self::Https(..) => true,
        }
    }
}

/// Whom to trust, read once for all upstreams.
pub(super) struct Trust {
    tls: Arc<ClientConfig>,
    https: Arc<ClientConfig>,
}

impl Trust {
    /// Trusts `authorities`, or whom the system trusts if there are none and one of `upstreams` needs
    /// somebody.
    pub(super) fn new(upstreams: &[Vec<Upstream>], authorities: &[Authority<'static>]) -> Self {
        let encrypted = upstreams
            .iter()
            .flatten()
            .any(|upstream| match upstream.transport {
                Transport::Udp | Transport::Tcp => false,
                Transport::Tls { .. } | Transport::Https { .. } => true,
            });
        let mut roots = RootCertStore::empty();
        roots.add_parsable_certificates(authorities.iter().cloned());
        if encrypted && authorities.is_empty() {
            roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
            if roots.is_empty() {
                log::warn!(
                    target: "upstream",
                    "this machine trusts no certificate authority, so encrypted upstreams will be \
                     refused; install ca-certificates or write [dns] ca"
                );
            }
        }
        let mut tls = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
            .with_safe_default_protocol_versions()
            .expect("ring has the ciphers of TLS 1.2 and 1.3")
            .with_root_certificates(roots)
            .with_no_client_auth();
        let plain = Arc::new(tls.clone());
        tls.alpn_protocols = vec![b"h2".to_vec()];
        Self {
            tls: plain,
            https: Arc::new(tls),
        }
    }

    /// What carries questions to `upstream`; `None` when its path is none that HTTP knows.
    pub(super) fn carrier(&self, upstream: &Upstream) -> Option<Carrier> {
        Some(match &upstream.transport {
            Transport::Udp | Transport::Tcp => Carrier::Tcp,
            Transport::Tls { server } => Carrier::Tls(Arc::clone(&self.tls), server.clone()),
            Transport::Https { server, path } => Carrier::Https(
                Arc::clone(&self.https),
                server.clone(),
                https::uri(server, upstream.address.port(), path)?,
            ),
        })
    }
}

/// Asks the upstream at `remote` every question as soon as it comes, until there is none for a while.
/// Every reply is handed to `reply`.
///
/// # Errors
/// When the connection fails before it gave a reply, or under a question that is too old to be asked
/// again.
pub(super) async fn hold(
    carrier: Carrier,
    remote: Remote,
    questions: UnboundedReceiver<Box<[u8]>>,
    patience: Duration,
    reply: impl FnMut(&[u8]),
) -> Result<(), Trouble> {
    let mut talk = Conversation::new(questions, patience, Instant::now(), reply);
    let mut again = Vec::new();
    loop {
        let outcome = once(&carrier, remote, &mut talk, again).await;
        let Err(trouble) = outcome else { return Ok(()) };
        let served = talk.was_heard();
        let waited = talk.is_waiting() || !talk.questions.is_empty();
        again = talk.again(Instant::now());
        if served && !waited {
            log::trace!(target: "upstream", "{remote} closed: {trouble}");
            return Ok(());
        }
        if again.is_empty() && (!served || talk.questions.is_empty()) {
            return Err(trouble);
        }
        log::debug!(target: "upstream", "{remote} closed under a question, asked again: {trouble}");
    }
}

async fn once<R: FnMut(&[u8])>(
    carrier: &Carrier,
    remote: Remote,
    talk: &mut Conversation<R>,
    again: Vec<Box<[u8]>>,
) -> Result<(), Trouble> {
    let patience = talk.patience();
    let within = |_| Trouble::Slow(patience);
    match carrier {
        Carrier::Tcp => {
            let stream = timeout(patience, remote.stream()).await.map_err(within)??;
            stream::converse(stream, talk, again).await
        }
        Carrier::Tls(config, server) => {
            let opening = secure(config, server, remote);
            let stream = timeout(patience, opening).await.map_err(within)??;
            stream::converse(stream, talk, again).await
        }
        Carrier::Https(config, server, uri) => {
            let opening = secure(config, server, remote);
            let stream = timeout(patience, opening).await.map_err(within)??;
            // Without the agreement the other side may take the frames for HTTP/1.1.
            if stream.get_ref().1.alpn_protocol() != Some(b"h2") {
                return Err(Trouble::OldHttp);
            }
            https::converse(stream, uri, talk, again).await
        }
    }
}

async fn secure(
    config: &Arc<ClientConfig>,
    server: &ServerName<'static>,
    remote: Remote,
) -> Result<TlsStream<TcpStream>, Trouble> {
    let stream = remote.stream().await?;
    let connector = TlsConnector::from(Arc::clone(config));
    let shaken = connector.connect(server.clone(), stream).await;
    shaken.map_err(|error| Trouble::of_handshake(error, server))
}
