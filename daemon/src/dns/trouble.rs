//! What goes wrong with a connection to an upstream, in words for an operator.

use std::io;
use std::time::Duration;
use tokio_rustls::rustls::pki_types::ServerName;
use tokio_rustls::rustls::{CertificateError, Error as TlsError};

/// Why a connection to an upstream failed.
#[derive(Debug, thiserror::Error)]
pub(super) enum Trouble {
    #[error("{0}")]
    Stream(#[from] io::Error),
    /// It cannot be told from an impostor: nothing was asked.
    #[error("{0}")]
    Certificate(String),
    #[error("no connection within {0:?}")]
    Slow(Duration),
    /// Questions wait, and nothing came since the first of them was asked.
    #[error("it took questions and stopped answering")]
    Stalled,
    #[error("it does not speak HTTP/2, without which egressd does not ask over HTTPS")]
    OldHttp,
    #[error("HTTP/2: {0}")]
    Http(#[from] h2::Error),
}

impl Trouble {
    /// Why the handshake with `server` failed.
    pub(super) fn of_handshake(error: io::Error, server: &ServerName<'_>) -> Self {
        let tls = error
            .get_ref()
            .and_then(|inner| inner.downcast_ref::<TlsError>());
        match tls {
            Some(TlsError::InvalidCertificate(why)) => Self::Certificate(advice(why, server)),
            Some(_) | None => Self::Stream(error),
        }
    }
}

/// What is wrong with the certificate, and what to do.
fn advice(why: &CertificateError, server: &ServerName<'_>) -> String {
    use CertificateError as C;
    let server = server.to_str();
    if let C::NotValidForName | C::NotValidForNameContext { .. } = why {
        return format!(
            "its certificate is not for `{server}`; write the name it is for after `#`"
        );
    }
    if let C::Expired | C::ExpiredContext { .. } = why {
        return "its certificate has expired; renew it, or set this machine's clock".to_owned();
    }
    if let C::NotValidYet | C::NotValidYetContext { .. } = why {
        return "its certificate is not valid yet; set this machine's clock".to_owned();
    }
    // A bad signature is what an authority of the same name, made anew, leaves.
    if let C::UnknownIssuer | C::BadSignature = why {
        return "its certificate is from nobody who is trusted; for an authority of your own \
                write [dns] ca = \"…\", else install ca-certificates"
            .to_owned();
    }
    format!("its certificate is refused: {why}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn certificates_have_advice() {
        fn check(why: CertificateError, expected: &str) {
            let server = ServerName::try_from("dns.example").unwrap();
            let error = io::Error::other(TlsError::InvalidCertificate(why));
            let trouble = Trouble::of_handshake(error, &server);
            assert!(matches!(trouble, Trouble::Certificate(_)));
            let text = trouble.to_string();
            assert!(text.contains(expected), "{text}");
        }
        check(CertificateError::NotValidForName, "not for `dns.example`");
        check(CertificateError::Expired, "has expired");
        check(CertificateError::NotValidYet, "clock");
        check(CertificateError::UnknownIssuer, "[dns] ca");
        check(CertificateError::BadSignature, "[dns] ca");
        check(CertificateError::Revoked, "refused");
        let server = ServerName::try_from("192.0.2.1").unwrap();
        let reset = io::Error::from(io::ErrorKind::ConnectionReset);
        assert!(matches!(
            Trouble::of_handshake(reset, &server),
            Trouble::Stream(_)
        ));
    }
}
