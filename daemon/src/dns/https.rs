//! DNS over HTTPS (RFC 8484), over HTTP/2 alone.
#![expect(
    clippy::disallowed_methods,
    reason = "shell: the time of what it hears"
)]

use super::conversation::{Conversation, Due, id};
use super::message;
use super::trouble::Trouble;
use bytes::Bytes;
use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use h2::client::SendRequest;
use http::header::{ACCEPT, CONTENT_LENGTH, CONTENT_TYPE};
use http::{Method, Request, StatusCode, Uri, Version};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::time::{Instant, sleep_until, timeout};
use tokio_rustls::rustls::pki_types::ServerName;

const MESSAGE: &str = "application/dns-message";

/// Longest DNS message, in bytes.
const LONGEST: usize = 65_535;

/// Most questions under way at once; more wait. Each may hold a whole message.
const MOST_ASKED: usize = 256;

/// Longest headers of a response, in bytes.
const MOST_HEADERS: u32 = 16 << 10;

/// Where `server` takes questions; `None` when HTTP does not know such a path.
pub(super) fn uri(server: &ServerName<'_>, port: u16, path: &str) -> Option<Uri> {
    let mut authority = match server.to_str() {
        host if host.contains(':') => format!("[{host}]"),
        host => host.into_owned(),
    };
    if port != 443 {
        authority.push_str(&format!(":{port}"));
    }
    Uri::builder()
        .scheme("https")
        .authority(authority)
        .path_and_query(path)
        .build()
        .ok()
}

/// Why one question got no reply while the connection lives.
#[derive(Debug, thiserror::Error)]
enum Unanswered {
    #[error("HTTP status {0}")]
    Status(StatusCode),
    #[error("a content type that is not {MESSAGE}")]
    Type,
    #[error("a body over {LONGEST} bytes")]
    Long,
    #[error("no whole response in time")]
    Slow,
    #[error("{0}")]
    Http(#[from] h2::Error),
    #[error("{0}")]
    Request(#[from] http::Error),
}

/// Asks `again`, and then every question of `talk`, over `stream`. Returns when nobody asks any more.
///
/// # Errors
/// When the connection fails or the other side closes it.
pub(super) async fn converse<S, R>(
    stream: S,
    uri: &Uri,
    talk: &mut Conversation<R>,
    again: Vec<Box<[u8]>>,
) -> Result<(), Trouble>
where
    S: AsyncRead + AsyncWrite + Unpin,
    R: FnMut(&[u8]),
{
    let patience = talk.patience();
    let opening = h2::client::Builder::new()
        .enable_push(false)
        .max_header_list_size(MOST_HEADERS)
        .handshake::<_, Bytes>(stream);
    let (sender, mut connection) = timeout(patience, opening)
        .await
        .map_err(|_| Trouble::Slow(patience))??;
    let mut under_way = FuturesUnordered::new();
    let ask = |question: Box<[u8]>| {
        let sender = sender.clone();
        async move {
            let asked = id(&question);
            let exchange = timeout(2 * patience, exchange(sender, uri, question));
            let outcome = exchange.await.unwrap_or(Err(Unanswered::Slow));
            (asked, outcome)
        }
    };
    for question in again {
        talk.ask(question.clone(), Instant::now());
        under_way.push(ask(question));
    }
    loop {
        let deadline = talk.deadline();
        tokio::select! {
            ended = &mut connection => {
                ended?;
                return Err(std::io::Error::from(std::io::ErrorKind::UnexpectedEof).into());
            }
            Some((asked, outcome)) = under_way.next() => match outcome {
                Ok(reply) => talk.hear(&reply, Instant::now()),
                // The connection itself says more about its end.
                Err(Unanswered::Http(error)) if error.is_io() || error.is_go_away() => {
                    return Err(error.into());
                }
                // Not a sign of life: whether the connection stalls is judged by what comes.
                Err(Unanswered::Slow) => {}
                Err(why) => {
                    log::debug!(target: "upstream", "{uri}: {why}");
                    if let Some(id) = asked {
                        talk.hear(&message::failure(id), Instant::now());
                    }
                }
            },
            question = talk.questions.recv(), if under_way.len() < MOST_ASKED => {
                let Some(question) = question else { return Ok(()) };
                talk.ask(question.clone(), Instant::now());
                under_way.push(ask(question));
            }
            () = sleep_until(deadline) => match talk.due(Instant::now()) {
                Due::Nothing => {}
                Due::Idle => return Ok(()),
                Due::Stalled => return Err(Trouble::Stalled),
            },
        }
    }
}

/// One question and its reply.
async fn exchange(
    sender: SendRequest<Bytes>,
    uri: &Uri,
    question: Box<[u8]>,
) -> Result<Vec<u8>, Unanswered> {
    let request = Request::builder()
        .version(Version::HTTP_2)
        .method(Method::POST)
        .uri(uri.clone())
        .header(ACCEPT, MESSAGE)
        .header(CONTENT_TYPE, MESSAGE)
        .header(CONTENT_LENGTH, question.len())
        .body(())?;
    let mut sender = sender.ready().await?;
    let (response, mut body) = sender.send_request(request, false)?;
    body.send_data(Bytes::from(question), true)?;
    let response = response.await?;
    if response.status() != StatusCode::OK {
        return Err(Unanswered::Status(response.status()));
    }
    let kind = response.headers().get(CONTENT_TYPE);
    let kind = kind.and_then(|kind| kind.to_str().ok()).unwrap_or_default();
    let kind = kind.split(';').next().unwrap_or_default().trim();
    if !kind.eq_ignore_ascii_case(MESSAGE) {
        return Err(Unanswered::Type);
    }
    let mut body = response.into_body();
    let mut reply = Vec::new();
    while let Some(part) = body.data().await {
        let part = part?;
        if reply.len() + part.len() > LONGEST {
            return Err(Unanswered::Long);
        }
        reply.extend(&part);
        body.flow_control().release_capacity(part.len())?;
    }
    Ok(reply)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn where_questions_go() {
        fn check(server: &str, port: u16, path: &str, expected: Option<&str>) {
            let server = ServerName::try_from(server).unwrap();
            let got = uri(&server, port, path).map(|uri| uri.to_string());
            assert_eq!(got.as_deref(), expected);
        }
        let plain = "https://dns.example/dns-query";
        check("dns.example", 443, "/dns-query", Some(plain));
        check(
            "192.0.2.1",
            8443,
            "/?x=1",
            Some("https://192.0.2.1:8443/?x=1"),
        );
        check("2001:db8::1", 443, "/", Some("https://[2001:db8::1]/"));
        check("dns.example", 443, "/a b", None);
    }
}
