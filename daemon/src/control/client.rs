//! The client's half: one connection, typed calls. `egressctl` and the tests use it.
#![expect(clippy::disallowed_methods, reason = "shell: waits until it is let in")]

use super::impact;
use super::protocol::{
    AllowParameters, ConfirmParameters, DisallowParameters, Event, ExceptionChange, ExceptionList,
    ExplainParameters, Explanation, Failure, GrantPage, GrantsParameters, LateList, LateParameters,
    Preview, PreviewParameters, ReloadParameters, Reloaded, RevokeParameters, Revoked, Status,
    UnseenList, UnseenParameters, UpdateParameters, VersionParameters, ZoneList,
};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use std::fmt::Debug;
use std::io::{self, ErrorKind};
use std::path::{Path, PathBuf};
use std::time::Duration;
use tokio::time::timeout;
use zlink::Call;
use zlink::tokio::unix::{self, Connection};

/// How long one reply may take; a little longer than the server waits for the loop.
const PATIENCE: Duration = Duration::from_secs(35);

/// Between two tries to connect, and how many there are: ten seconds in all.
const KNOCK: Duration = Duration::from_millis(5);
const KNOCKS: u32 = 2000;

/// Why a question got no answer.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// No connection; says what to do.
    #[error("{0}")]
    Unreachable(String),
    /// egressd refused, for a reason of its own.
    #[error(transparent)]
    Failed(#[from] Failure),
    /// What came back is no answer.
    #[error("egressd's answer is not understood ({0}); are egressd and egressctl of one version?")]
    Garbled(String),
}

#[derive(Debug, Serialize)]
#[serde(tag = "method", content = "parameters")]
enum Method<'a> {
    #[serde(rename = "org.egressd.Control.GetStatus")]
    Status,
    #[serde(rename = "org.egressd.Control.ListZones")]
    Zones,
    #[serde(rename = "org.egressd.Control.ListGrants")]
    Grants(&'a GrantsParameters),
    #[serde(rename = "org.egressd.Control.Explain")]
    Explain(&'a ExplainParameters),
    #[serde(rename = "org.egressd.Control.ListLate")]
    Late(&'a LateParameters),
    #[serde(rename = "org.egressd.Control.Watch")]
    Watch,
    #[serde(rename = "org.egressd.Control.Reload")]
    Reload(ReloadParameters),
    #[serde(rename = "org.egressd.Control.UpdateCatalogue")]
    Update(&'a UpdateParameters),
    #[serde(rename = "org.egressd.Control.PinCatalogue")]
    Pin(&'a VersionParameters),
    #[serde(rename = "org.egressd.Control.RollBackCatalogue")]
    RollBack(&'a VersionParameters),
    #[serde(rename = "org.egressd.Control.ConfirmRemovals")]
    Confirm(&'a ConfirmParameters),
    #[serde(rename = "org.egressd.Control.ListUnseen")]
    Unseen(&'a UnseenParameters),
    #[serde(rename = "org.egressd.Control.Preview")]
    Preview(&'a PreviewParameters),
    #[serde(rename = "org.egressd.Control.Revoke")]
    Revoke(&'a RevokeParameters),
    #[serde(rename = "org.egressd.Control.Allow")]
    Allow(&'a AllowParameters),
    #[serde(rename = "org.egressd.Control.Disallow")]
    Disallow(DisallowParameters),
    #[serde(rename = "org.egressd.Control.ListExceptions")]
    Exceptions,
}

/// A connection to the daemon.
#[derive(Debug)]
pub struct Client {
    connection: Connection,
    path: PathBuf,
}

impl Client {
    /// Connects to the control socket at `path`.
    ///
    /// # Errors
    /// [`ClientError::Unreachable`].
    pub async fn connect(path: &Path) -> Result<Self, ClientError> {
        let mut knocks = 0;
        loop {
            match unix::connect(path).await {
                Ok(connection) => {
                    let path = path.to_owned();
                    return Ok(Self { connection, path });
                }
                // Others wait to be let in, more than the kernel keeps a place for.
                Err(zlink::Error::Io(why))
                    if why.kind() == ErrorKind::WouldBlock && knocks < KNOCKS =>
                {
                    knocks += 1;
                    tokio::time::sleep(KNOCK).await;
                }
                Err(zlink::Error::Io(why)) => return Err(unreachable(path, &why)),
                Err(other) => return Err(ClientError::Garbled(other.to_string())),
            }
        }
    }

    /// `GetStatus`.
    ///
    /// # Errors
    /// See [`ClientError`]; so for every method.
    pub async fn status(&mut self) -> Result<Status, ClientError> {
        self.call(Method::Status).await
    }

    /// `ListZones`.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub async fn zones(&mut self) -> Result<ZoneList, ClientError> {
        self.call(Method::Zones).await
    }

    /// One page of `ListGrants`.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub async fn grants(&mut self, which: &GrantsParameters) -> Result<GrantPage, ClientError> {
        self.call(Method::Grants(which)).await
    }

    /// `Explain`.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub async fn explain(&mut self, what: &ExplainParameters) -> Result<Explanation, ClientError> {
        self.call(Method::Explain(what)).await
    }

    /// `ListLate`.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub async fn late(&mut self, which: &LateParameters) -> Result<LateList, ClientError> {
        self.call(Method::Late(which)).await
    }

    /// `Reload`.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub async fn reload(&mut self, force: bool) -> Result<Reloaded, ClientError> {
        self.call(Method::Reload(ReloadParameters { force: Some(force) }))
            .await
    }

    /// `UpdateCatalogue`.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub async fn update(&mut self, what: &UpdateParameters) -> Result<Reloaded, ClientError> {
        self.call(Method::Update(what)).await
    }

    /// `PinCatalogue`.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub async fn pin(&mut self, what: &VersionParameters) -> Result<Reloaded, ClientError> {
        self.call(Method::Pin(what)).await
    }

    /// `RollBackCatalogue`.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub async fn roll_back(&mut self, what: &VersionParameters) -> Result<Reloaded, ClientError> {
        self.call(Method::RollBack(what)).await
    }

    /// `ConfirmRemovals`.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub async fn confirm(&mut self, what: &ConfirmParameters) -> Result<Reloaded, ClientError> {
        self.call(Method::Confirm(what)).await
    }

    /// `ListUnseen`.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub async fn unseen(&mut self, catalogue: &str) -> Result<UnseenList, ClientError> {
        let catalogue = catalogue.to_owned();
        self.call(Method::Unseen(&UnseenParameters { catalogue }))
            .await
    }

    /// `Preview` of the configuration as it is written now.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub async fn preview(&mut self) -> Result<Preview, ClientError> {
        let whole = PreviewParameters::default();
        self.call(Method::Preview(&whole)).await
    }

    /// `Preview` of `text` in the place of the catalogue `name`, in as many calls as it takes.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub async fn preview_catalogue(
        &mut self,
        name: &str,
        text: &str,
    ) -> Result<Preview, ClientError> {
        let mut rest = text;
        loop {
            let (piece, after) = rest.split_at(impact::piece(rest));
            let parameters = PreviewParameters {
                catalogue: Some(name.to_owned()),
                text: Some(piece.to_owned()),
                unfinished: (!after.is_empty()).then_some(true),
            };
            let preview = self.call(Method::Preview(&parameters)).await?;
            if after.is_empty() {
                return Ok(preview);
            }
            rest = after;
        }
    }

    /// `Revoke`.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub async fn revoke(&mut self, what: &RevokeParameters) -> Result<Revoked, ClientError> {
        self.call(Method::Revoke(what)).await
    }

    /// `Allow`.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub async fn allow(&mut self, what: &AllowParameters) -> Result<ExceptionChange, ClientError> {
        self.call(Method::Allow(what)).await
    }

    /// `Disallow`.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub async fn disallow(&mut self, id: u32) -> Result<ExceptionChange, ClientError> {
        self.call(Method::Disallow(DisallowParameters { id })).await
    }

    /// `ListExceptions`.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub async fn exceptions(&mut self) -> Result<ExceptionList, ClientError> {
        self.call(Method::Exceptions).await
    }

    /// Starts `Watch`; read the events with [`Self::event`].
    ///
    /// # Errors
    /// See [`ClientError`].
    pub async fn watch(&mut self) -> Result<(), ClientError> {
        let call = Call::new(Method::Watch).set_more(true);
        self.connection
            .send_call(&call, vec![])
            .await
            .map_err(|why| self.failed(why))
    }

    /// The next event after [`Self::watch`]; waits for ever.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub async fn event(&mut self) -> Result<Event, ClientError> {
        self.receive().await
    }

    async fn call<T>(&mut self, method: Method<'_>) -> Result<T, ClientError>
    where
        T: DeserializeOwned + Debug,
    {
        // A connection that was turned away may already be closed for sending while the reason
        // still waits to be read.
        let sent = self.connection.send_call(&Call::new(method), vec![]).await;
        let received = timeout(PATIENCE, self.receive()).await.map_err(|_| {
            let text = format!("no answer in {} s; see egressd's log", PATIENCE.as_secs());
            ClientError::Unreachable(text)
        })?;
        match (sent, received) {
            (Err(why), Err(ClientError::Unreachable(_))) => Err(self.failed(why)),
            (_, received) => received,
        }
    }

    async fn receive<T>(&mut self) -> Result<T, ClientError>
    where
        T: DeserializeOwned + Debug,
    {
        match self.connection.receive_reply::<Value<T>, Failure>().await {
            Ok((Ok(reply), _)) => match reply.into_parameters() {
                Some(Value(Ok(value))) => Ok(value),
                Some(Value(Err(why))) => Err(ClientError::Garbled(why)),
                None => Err(ClientError::Garbled("no parameters".to_owned())),
            },
            Ok((Err(failure), _)) => Err(failure.into()),
            Err(why) => Err(self.failed(why)),
        }
    }

    fn failed(&self, why: zlink::Error) -> ClientError {
        if let zlink::Error::Io(why) = why {
            unreachable(&self.path, &why)
        } else if let zlink::Error::UnexpectedEof = why {
            unreachable(&self.path, &io::Error::from(ErrorKind::ConnectionReset))
        } else {
            ClientError::Garbled(why.to_string())
        }
    }
}

/// Keeps the reason why parameters are not understood, which zlink would drop.
#[derive(Debug)]
struct Value<T>(Result<T, String>);

impl<'de, T: DeserializeOwned> Deserialize<'de> for Value<T> {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let value = serde_json::Value::deserialize(deserializer)?;
        Ok(Self(
            serde_json::from_value(value).map_err(|why| why.to_string()),
        ))
    }
}

/// What to do about a connection that cannot be had.
fn unreachable(path: &Path, why: &io::Error) -> ClientError {
    let path = path.display();
    let is = |kinds: &[ErrorKind]| kinds.contains(&why.kind());
    ClientError::Unreachable(
        if is(&[ErrorKind::NotFound, ErrorKind::ConnectionRefused]) {
            format!("nobody listens on {path}: is egressd running? try: systemctl start egressd")
        } else if is(&[ErrorKind::PermissionDenied]) {
            format!("no permission to open {path}: try sudo, or join the group that owns it")
        } else if is(&[ErrorKind::ConnectionReset, ErrorKind::BrokenPipe]) {
            "egressd closed the connection: was it stopped? see its log".to_owned()
        } else {
            format!("cannot talk to egressd on {path}: {why}")
        },
    )
}
