//! What replies mean. Pure: dates are compared with the server's own clock only.

use super::client::Reply;
use super::{Endpoint, Trouble};
use http::StatusCode;
use http::header::{CONTENT_TYPE, DATE, HeaderMap, HeaderName, RETRY_AFTER};
use std::time::Duration;

/// How long a server that does not say how long is left alone.
const LEFT_ALONE: Duration = Duration::from_hours(1);

/// Longest header that is sent back, in bytes: a server may refuse one that it gave itself.
const LONGEST_HEADER: usize = 1024;

/// Longest reason, in characters: part of it may be the server's, and it is kept and shown.
const LONGEST_REASON: usize = 400;

/// A reply that holds what was asked for.
pub(super) fn ok(reply: Reply) -> Result<Reply, Trouble> {
    let why = || format!("the server says {}", reply.status);
    match reply.status {
        StatusCode::OK => Ok(reply),
        StatusCode::TOO_MANY_REQUESTS | StatusCode::SERVICE_UNAVAILABLE => Err(Trouble::Later {
            after: retry_after(&reply.headers),
            why: why(),
        }),
        _ => Err(Trouble::Failed(why())),
    }
}

/// How long the server wants to be left alone (RFC 9110 §10.2.3). A date is taken by the server's own clock, as far as
/// it tells that: no clock of ours needs to agree with it.
fn retry_after(headers: &HeaderMap) -> Duration {
    let text = |name| headers.get(name).and_then(|value| value.to_str().ok());
    let date = |name| httpdate::parse_http_date(text(name)?.trim()).ok();
    let seconds = text(RETRY_AFTER).and_then(|text| text.trim().parse().ok());
    let until = || date(RETRY_AFTER)?.duration_since(date(DATE)?).ok();
    seconds
        .map(Duration::from_secs)
        .or_else(until)
        .unwrap_or(LEFT_ALONE)
}

/// Refuses a page for people where data was asked for: what stands between may answer in the server's place, with 200.
/// Pages are lists too, where nothing says otherwise.
pub(super) fn is_no_page(at: &Endpoint, headers: &HeaderMap) -> Result<(), Trouble> {
    let kind = headers
        .get(CONTENT_TYPE)
        .and_then(|kind| kind.to_str().ok());
    let kind = kind
        .unwrap_or_default()
        .split(';')
        .next()
        .unwrap_or_default()
        .trim();
    let page = ["text/html", "application/xhtml+xml"];
    let page = page.iter().any(|page| kind.eq_ignore_ascii_case(page));
    if !page || !is_data(at) {
        return Ok(());
    }
    Err(Trouble::Failed(format!(
        "a page for people came in place of a list (`{kind}`); whoever is on the way may ask for a login"
    )))
}

/// Whether no page can be meant.
fn is_data(at: &Endpoint) -> bool {
    let path = at.path.split('?').next().unwrap_or_default();
    let data = [".json", ".toml", ".csv", ".txt"];
    let end = path
        .rsplit('/')
        .next()
        .unwrap_or_default()
        .to_ascii_lowercase();
    at.instance().is_some()
        || path.starts_with("/version/")
        || data.iter().any(|data| end.ends_with(data))
}

/// A header to send back the next time.
pub(super) fn remembered(headers: &HeaderMap, name: HeaderName) -> Option<String> {
    let value = headers.get(name)?.to_str().ok()?;
    (value.len() <= LONGEST_HEADER).then(|| value.to_owned())
}

/// A reason that fits on a screen.
pub(super) fn shortened(why: String) -> String {
    match why.char_indices().nth(LONGEST_REASON) {
        None => why,
        Some((end, _)) => format!("{}…", &why[..end]),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(some: &[(HeaderName, &str)]) -> HeaderMap {
        let pairs = some
            .iter()
            .map(|(name, value)| (name.clone(), value.parse().unwrap()));
        pairs.collect()
    }

    #[test]
    fn how_long_to_wait() {
        fn check(some: &[(HeaderName, &str)], expected: u64) {
            let got = retry_after(&headers(some));
            assert_eq!(got, Duration::from_secs(expected), "{some:?}");
        }
        let noon = (DATE, "Mon, 23 Nov 2026 12:00:00 GMT");
        let two = (RETRY_AFTER, "Mon, 23 Nov 2026 14:00:00 GMT");
        check(&[], 3600);
        check(&[(RETRY_AFTER, "120")], 120);
        check(&[(RETRY_AFTER, " 0 ")], 0);
        check(&[(RETRY_AFTER, "-5")], 3600);
        check(&[(RETRY_AFTER, "99999999999999999999999")], 3600);
        check(&[two.clone(), noon.clone()], 7200);
        check(&[two], 3600);
        check(
            &[(RETRY_AFTER, "Mon, 23 Nov 2026 11:00:00 GMT"), noon.clone()],
            3600,
        );
        check(&[(RETRY_AFTER, "tomorrow"), noon], 3600);
    }

    #[test]
    fn pages_are_no_data() {
        fn check(path: &str, kind: Option<&str>, expected: bool) {
            let at = Endpoint::parse(&format!("https://feed.example{path}")).unwrap();
            let kind: Vec<_> = kind.into_iter().map(|kind| (CONTENT_TYPE, kind)).collect();
            assert_eq!(
                is_no_page(&at, &headers(&kind)).is_ok(),
                expected,
                "{path} {kind:?}"
            );
        }
        let html = Some("Text/HTML; charset=utf-8");
        for data in [
            "/a.json",
            "/b/a.TOML?x=y",
            "/a.csv",
            "/a.txt",
            "/endpoints/worldwide?a=b",
            "/version/worldwide",
        ] {
            check(data, html, false);
            check(data, Some("application/xhtml+xml"), false);
            check(data, Some("application/json"), true);
            check(data, None, true);
        }
        for page in ["/intune-endpoints", "/a.html", "/a.json/"] {
            check(page, html, true);
        }
    }

    #[test]
    fn what_servers_say_is_bounded() {
        assert_eq!(shortened("short".to_owned()), "short");
        let long = shortened("é".repeat(100_000));
        assert_eq!(long.chars().count(), LONGEST_REASON + 1);
        let etag = |length| {
            remembered(
                &headers(&[(CONTENT_TYPE, &"x".repeat(length))]),
                CONTENT_TYPE,
            )
        };
        assert!(etag(LONGEST_HEADER).is_some() && etag(LONGEST_HEADER + 1).is_none());
    }
}
