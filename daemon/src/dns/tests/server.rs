//! Encrypted upstreams on loopback that play a script, and their certificates.

use super::stage::{Script, read_frame, write_frame};
use crate::config::{Authority, ServerName, Transport, Upstream};
use hickory_proto::op::Message;
use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use tokio_rustls::rustls::crypto::ring;
use tokio_rustls::rustls::pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};
use tokio_rustls::rustls::{ServerConfig, ServerConnection, StreamOwned};

/// An authority that certifies test servers.
pub(super) struct Certifier {
    issuer: Issuer<'static, KeyPair>,
    pub(super) certificate: Authority<'static>,
}

impl Certifier {
    pub(super) fn new() -> Self {
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let key = KeyPair::generate().unwrap();
        let certificate = params.self_signed(&key).unwrap().der().clone();
        Self {
            issuer: Issuer::new(params, key),
            certificate,
        }
    }

    /// A server whose certificate is for `names`, and good until the end of the year `until`.
    pub(super) fn server(&self, names: &[&str], until: i32, alpn: &[&str]) -> Arc<ServerConfig> {
        let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
        let mut params = CertificateParams::new(names).unwrap();
        params.not_after = rcgen::date_time_ymd(until, 12, 31);
        let key = KeyPair::generate().unwrap();
        let certificate = params.signed_by(&key, &self.issuer).unwrap();
        let private = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(key.serialize_der()));
        let mut config = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(vec![certificate.der().clone()], private)
            .unwrap();
        config.alpn_protocols = alpn.iter().map(|name| name.as_bytes().to_vec()).collect();
        Arc::new(config)
    }
}

/// How a server over TLS behaves.
pub(super) struct Manners {
    pub(super) script: Script,
    /// It closes a connection after so many questions.
    pub(super) closes_after: usize,
}

/// What a server saw.
#[derive(Default)]
pub(super) struct Seen {
    pub(super) connections: AtomicUsize,
    pub(super) questions: AtomicUsize,
    /// Questions that do not fill whole blocks.
    pub(super) unpadded: AtomicUsize,
}

pub(super) fn name(text: &str) -> ServerName<'static> {
    ServerName::try_from(text.to_owned()).unwrap()
}

/// DNS over TLS.
pub(super) fn tls(
    config: Arc<ServerConfig>,
    manners: Manners,
    server: &str,
) -> (Upstream, Arc<Seen>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let seen = Arc::new(Seen::default());
    let (manners, noted) = (Arc::new(manners), Arc::clone(&seen));
    thread::spawn(move || {
        for stream in listener.incoming() {
            let connection = ServerConnection::new(Arc::clone(&config)).unwrap();
            let stream = StreamOwned::new(connection, stream.unwrap());
            let (manners, seen) = (Arc::clone(&manners), Arc::clone(&noted));
            thread::spawn(move || converse(stream, &manners, &seen));
        }
    });
    let transport = Transport::Tls {
        server: name(server),
    };
    (Upstream { transport, address }, seen)
}

fn converse(mut stream: StreamOwned<ServerConnection, TcpStream>, manners: &Manners, seen: &Seen) {
    for number in 0..manners.closes_after {
        let Ok(question) = read_frame(&mut stream) else {
            return;
        };
        if number == 0 {
            seen.connections.fetch_add(1, Ordering::Relaxed);
        }
        seen.questions.fetch_add(1, Ordering::Relaxed);
        if question.len() % 128 != 0 {
            seen.unpadded.fetch_add(1, Ordering::Relaxed);
        }
        for reply in (manners.script)(&Message::from_vec(&question).unwrap(), true) {
            write_frame(&mut stream, &reply);
        }
    }
    stream.conn.send_close_notify();
    let _ = stream.flush();
}

/// What an HTTP server says to a question: status, content type, body.
pub(super) type Response = fn(&Message) -> (u16, &'static str, Vec<u8>);

/// DNS over HTTPS.
pub(super) fn https(
    config: Arc<ServerConfig>,
    respond: Response,
    server: &str,
) -> (Upstream, Arc<Seen>) {
    let seen = Arc::new(Seen::default());
    let noted = Arc::clone(&seen);
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    listener.set_nonblocking(true).unwrap();
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    thread::spawn(move || {
        runtime.block_on(async move {
            let listener = tokio::net::TcpListener::from_std(listener).unwrap();
            let acceptor = tokio_rustls::TlsAcceptor::from(config);
            while let Ok((stream, _)) = listener.accept().await {
                let Ok(stream) = acceptor.accept(stream).await else {
                    continue;
                };
                noted.connections.fetch_add(1, Ordering::Relaxed);
                tokio::spawn(serve(stream, respond, Arc::clone(&noted)));
            }
        });
    });
    let transport = Transport::Https {
        server: name(server),
        path: "/dns-query".to_owned(),
    };
    (Upstream { transport, address }, seen)
}

async fn serve(
    stream: tokio_rustls::server::TlsStream<tokio::net::TcpStream>,
    respond: Response,
    seen: Arc<Seen>,
) {
    let Ok(mut connection) = h2::server::handshake(stream).await else {
        return;
    };
    while let Some(Ok((request, mut sender))) = connection.accept().await {
        let seen = Arc::clone(&seen);
        tokio::spawn(async move {
            assert_eq!(request.uri().path(), "/dns-query");
            assert_eq!(request.headers()["content-type"], "application/dns-message");
            let mut body = request.into_body();
            let mut question = Vec::new();
            while let Some(part) = body.data().await {
                let part = part.unwrap();
                let _ = body.flow_control().release_capacity(part.len());
                question.extend(part);
            }
            seen.questions.fetch_add(1, Ordering::Relaxed);
            if question.len() % 128 != 0 {
                seen.unpadded.fetch_add(1, Ordering::Relaxed);
            }
            let (status, kind, body) = respond(&Message::from_vec(&question).unwrap());
            let response = http::Response::builder()
                .status(status)
                .header("content-type", kind)
                .body(())
                .unwrap();
            let mut stream = sender.send_response(response, false).unwrap();
            // The other side may have had enough.
            let _ = stream.send_data(body.into(), true);
        });
    }
}

/// A TLS server that takes a connection and then says nothing of its own.
pub(super) fn mute(config: Arc<ServerConfig>) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    thread::spawn(move || {
        for stream in listener.incoming() {
            let connection = ServerConnection::new(Arc::clone(&config)).unwrap();
            let mut stream = StreamOwned::new(connection, stream.unwrap());
            thread::spawn(move || stream.read_to_end(&mut Vec::new()));
        }
    });
    address
}
