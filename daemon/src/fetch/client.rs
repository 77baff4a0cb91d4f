//! One request and its reply, redirections followed.

use super::endpoint::address;
use super::{Endpoint, Limits, Source, Trouble};
use crate::policy::name::Name;
use bytes::Bytes;
use http::header::{ACCEPT_ENCODING, CONTENT_ENCODING, HOST, HeaderMap, LOCATION, USER_AGENT};
use http::{Request, StatusCode};
use http_body_util::{BodyExt as _, Empty};
use hyper::body::Body as _;
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use std::future::Future;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;
use tokio_rustls::rustls::crypto::ring;
use tokio_rustls::rustls::pki_types::ServerName;
use tokio_rustls::rustls::{ClientConfig, RootCertStore};

/// Names whose addresses are tried.
const MOST_ADDRESSES: usize = 8;

pub(super) struct Client<'a, R> {
    pub(super) source: &'a Source,
    pub(super) limits: &'a Limits,
    pub(super) resolve: R,
}

/// What a server said.
pub(super) struct Reply {
    pub(super) status: StatusCode,
    pub(super) headers: HeaderMap,
    pub(super) body: Vec<u8>,
}

trait Stream: AsyncRead + AsyncWrite + Unpin + Send {}
impl<T: AsyncRead + AsyncWrite + Unpin + Send> Stream for T {}

impl<R: AsyncFn(&Name) -> Vec<IpAddr>> Client<'_, R> {
    /// Asks for `at`, with these headers; a body beyond `most` bytes is an error.
    pub(super) async fn get(
        &self,
        at: &Endpoint,
        headers: &[(&'static str, &str)],
        most: usize,
    ) -> Result<Reply, Trouble> {
        let mut at = at.clone();
        for _ in 0..=self.limits.redirects {
            let reply = self.once(&at, headers, most).await?;
            let moved = matches!(reply.status.as_u16(), 301 | 302 | 303 | 307 | 308);
            let Some(location) = reply.headers.get(LOCATION).filter(|_| moved) else {
                return Ok(reply);
            };
            let location = location.to_str().unwrap_or_default();
            at = at
                .follow(location)
                .map_err(|why| format!("the server leads elsewhere: {why}"))?;
        }
        Err(Trouble::Failed(format!(
            "the server leads elsewhere more than {} times",
            self.limits.redirects
        )))
    }

    async fn once(
        &self,
        at: &Endpoint,
        headers: &[(&'static str, &str)],
        most: usize,
    ) -> Result<Reply, Trouble> {
        let stream = self.secure(at).await?;
        let shaking = http1::handshake(TokioIo::new(stream));
        let (mut sender, connection) = self.step("HTTP", shaking).await?;
        let driven = Abort(tokio::spawn(connection));
        let host = match at.port {
            443 => at.host.clone(),
            port => format!("{}:{port}", at.host),
        };
        let mut request = Request::get(&*at.path)
            .header(HOST, host)
            .header(USER_AGENT, concat!("egressd/", env!("CARGO_PKG_VERSION")))
            .header(ACCEPT_ENCODING, "identity");
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let request = request
            .body(Empty::<Bytes>::new())
            .map_err(|why| format!("it cannot be asked for: {why}"))?;
        let asked = self.step("the answer", sender.send_request(request));
        let (parts, mut body) = asked.await?.into_parts();
        let coded = parts.headers.get(CONTENT_ENCODING);
        if let Some(coding) = coded.filter(|coding| *coding != "identity") {
            return Err(Trouble::Failed(format!(
                "it came encoded as {coding:?}, which was not asked for"
            )));
        }
        let long = || Trouble::Failed(format!("it is longer than {most} bytes"));
        if usize::try_from(body.size_hint().lower()).map_or(true, |told| told > most) {
            return Err(long());
        }
        let mut bytes = Vec::new();
        while let Some(frame) = self.step_opt("the list", body.frame()).await? {
            let Ok(data) = frame.into_data() else {
                continue;
            };
            if bytes.len() + data.len() > most {
                return Err(long());
            }
            bytes.extend_from_slice(&data);
        }
        drop(driven);
        Ok(Reply {
            status: parts.status,
            headers: parts.headers,
            body: bytes,
        })
    }

    /// A connection that only the server that `at` names can read.
    async fn secure(&self, at: &Endpoint) -> Result<impl Stream + 'static, Trouble> {
        let name = match address(&at.host) {
            Some(address) => ServerName::from(address),
            None => ServerName::try_from(at.host.clone())
                .map_err(|_| format!("`{}` is no host name", at.host))?,
        };
        let stream: Box<dyn Stream> = match &self.source.proxy {
            None => Box::new(self.connect(&at.host, at.port).await?),
            Some(proxy) => {
                let stream = self.connect(&proxy.host, proxy.port).await?;
                self.tunnel(stream, at)
                    .await
                    .map_err(|trouble| trouble.about("the proxy"))?
            }
        };
        let connector = TlsConnector::from(self.trust()?);
        self.step("TLS", connector.connect(name, stream)).await
    }

    /// Whom to believe.
    fn trust(&self) -> Result<Arc<ClientConfig>, Trouble> {
        let mut roots = RootCertStore::empty();
        roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
        roots.add_parsable_certificates(self.source.authorities.iter().cloned());
        if roots.is_empty() {
            return Err(Trouble::Failed(
                "the system trusts no authority; install `ca-certificates`, or name one with `ca`"
                    .to_owned(),
            ));
        }
        let provider = Arc::new(ring::default_provider());
        let config = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .map_err(|why| format!("TLS: {why}"))?;
        let mut config = config.with_root_certificates(roots).with_no_client_auth();
        config.alpn_protocols = vec![b"http/1.1".to_vec()];
        Ok(Arc::new(config))
    }

    async fn connect(&self, host: &str, port: u16) -> Result<TcpStream, Trouble> {
        let addresses = match address(host) {
            Some(address) => vec![address],
            None => {
                let name: Name = host.parse().map_err(|why| format!("`{host}`: {why}"))?;
                let asked = timeout(self.limits.step, (self.resolve)(&name));
                asked.await.unwrap_or_default()
            }
        };
        let mut trouble = format!("`{host}` has no address that the upstreams know");
        let tried = addresses.len().min(MOST_ADDRESSES);
        let parts = u32::try_from(tried.max(1)).expect("there are few");
        // All of them together have one step: an address that swallows everything leaves time for the next.
        let patience = self.limits.step / parts;
        for address in addresses.into_iter().take(MOST_ADDRESSES) {
            let to = SocketAddr::new(address, port);
            match timeout(patience, TcpStream::connect(to)).await {
                Ok(Ok(stream)) => return Ok(stream),
                Ok(Err(why)) => trouble = format!("connect to {to}: {why}"),
                Err(_) => trouble = format!("connect to {to}: nothing came for {patience:?}"),
            }
        }
        Err(Trouble::Failed(trouble))
    }

    /// A way through a proxy (RFC 9110 §9.3.6).
    async fn tunnel(&self, stream: TcpStream, at: &Endpoint) -> Result<Box<dyn Stream>, Trouble> {
        let (mut sender, connection) = self
            .step("HTTP", http1::handshake(TokioIo::new(stream)))
            .await?;
        // It lives as long as the way does, and ends with it.
        tokio::spawn(connection.with_upgrades());
        let to = format!("{}:{}", at.host, at.port);
        let request = Request::connect(&to)
            .header(HOST, &to)
            .body(Empty::<Bytes>::new())
            .map_err(|why| format!("it cannot be asked: {why}"))?;
        let reply = self
            .step("its answer", sender.send_request(request))
            .await?;
        if !reply.status().is_success() {
            return Err(Trouble::Failed(format!("says {}", reply.status())));
        }
        let opened = self.step("the way", hyper::upgrade::on(reply)).await?;
        Ok(Box::new(TokioIo::new(opened)))
    }

    async fn step<T, E: std::error::Error>(
        &self,
        what: &str,
        step: impl Future<Output = Result<T, E>>,
    ) -> Result<T, Trouble> {
        match timeout(self.limits.step, step).await {
            Ok(Ok(done)) => Ok(done),
            Ok(Err(why)) => Err(Trouble::Failed(format!("{what}: {}", chain(&why)))),
            Err(_) => Err(Trouble::Failed(format!(
                "{what}: nothing came for {:?}",
                self.limits.step
            ))),
        }
    }

    async fn step_opt<T, E: std::error::Error>(
        &self,
        what: &str,
        step: impl Future<Output = Option<Result<T, E>>>,
    ) -> Result<Option<T>, Trouble> {
        let step = async { Ok::<_, io::Error>(step.await) };
        match self.step(what, step).await? {
            None => Ok(None),
            Some(Ok(some)) => Ok(Some(some)),
            Some(Err(why)) => Err(Trouble::Failed(format!(
                "{what} broke off: {}",
                chain(&why)
            ))),
        }
    }
}

/// An error with what it came from.
fn chain(error: &dyn std::error::Error) -> String {
    let causes = std::iter::successors(error.source(), |cause| cause.source());
    causes.fold(error.to_string(), |text, cause| {
        let cause = cause.to_string();
        if text.contains(&cause) {
            text
        } else {
            format!("{text}: {cause}")
        }
    })
}

/// Ends a task with whoever wanted it.
struct Abort(tokio::task::JoinHandle<Result<(), hyper::Error>>);

impl Drop for Abort {
    fn drop(&mut self) {
        self.0.abort();
    }
}
