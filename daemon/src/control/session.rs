//! One connection's Varlink service: reads a call, asks the loop or listens to happenings, and
//! shapes the reply.

use super::call::{Call, Fault, Incoming};
use super::protocol::{DESCRIPTION, Event, Failure, INTERFACE, Kind};
use super::socket::{Patience, send};
use super::staged::Staged;
use super::{Reply, Request};
use crate::observe::{self, Happened};
use futures_util::Stream;
use futures_util::stream;
use nix::sys::socket::{Shutdown, shutdown};
use serde::Serialize;
use std::cell::RefCell;
use std::io::ErrorKind;
use std::os::fd::{AsRawFd, OwnedFd};
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, SystemTime};
use tokio::io::Interest;
use tokio::net::UnixStream;
use tokio::sync::broadcast::Receiver;
use tokio::sync::broadcast::error::RecvError;
use tokio::sync::oneshot;
use tokio::time::timeout;
use zlink::connection::socket::Socket;
use zlink::service::{HandleResult, Infallible, MethodReply, ReplyStreamItem};
use zlink::varlink_service::{self, Info, InterfaceDescription};
use zlink::{Connection, Service};

/// How long the loop may take to answer. A reload that rewrites every map takes a second or two.
const ANSWER: Duration = Duration::from_secs(30);

/// What one peer may do, and whom to ask.
#[derive(Debug)]
pub(super) struct Session<A> {
    pub(super) ask: A,
    /// Whether the peer may change anything.
    pub(super) may_change: bool,
    /// The peer's uid, as the kernel tells it.
    pub(super) who: u32,
    /// The connection's socket once more: for long replies, and to notice that a silent watcher
    /// has gone.
    pub(super) socket: Rc<UnixStream>,
    pub(super) patience: Patience,
    /// The pieces of a candidate so far.
    pub(super) staged: RefCell<Staged>,
}

/// The parameters of a reply.
#[derive(Debug, Serialize)]
#[serde(untagged)]
pub(super) enum Parameters {
    Info(Info<'static>),
    Description(InterfaceDescription<'static>),
}

type Events = Pin<Box<dyn Stream<Item = ReplyStreamItem<Event, Infallible>>>>;

impl<A, S> Service<S> for Session<A>
where
    A: Fn(Request) -> oneshot::Receiver<Reply>,
    S: Socket,
{
    type MethodCall<'de> = Incoming;
    type ReplyParams<'ser>
        = Parameters
    where
        Self: 'ser;
    type ReplyStreamParams = Event;
    type ReplyStreamError = Infallible;
    type ReplyStream = Events;
    type ReplyError<'ser>
        = Fault
    where
        Self: 'ser;
    type Upgrade = ();

    async fn handle<'ser>(
        &'ser mut self,
        call: &'ser zlink::Call<Self::MethodCall<'_>>,
        _connection: &mut Connection<S>,
        _fds: Vec<OwnedFd>,
    ) -> HandleResult<Parameters, Events, Fault> {
        (
            self.answer(call).await.unwrap_or_else(MethodReply::Error),
            Vec::new(),
        )
    }
}

impl<A: Fn(Request) -> oneshot::Receiver<Reply>> Session<A> {
    async fn answer(
        &self,
        call: &zlink::Call<Incoming>,
    ) -> Result<MethodReply<Parameters, Events, Fault>, Fault> {
        if call.upgrade() {
            let parameter = "upgrade".into();
            return Err(Fault::Varlink(varlink_service::Error::InvalidParameter {
                parameter,
            }));
        }
        let single = |parameters| Ok(MethodReply::Single(Some(parameters)));
        match call.method().read()? {
            Call::Info => single(Parameters::Info(info())),
            Call::Description(own) => {
                let interface = if own {
                    DESCRIPTION
                } else {
                    varlink_service::DESCRIPTION
                };
                single(Parameters::Description(interface.into()))
            }
            Call::Watch if !call.more() || call.oneway() => {
                Err(Fault::Varlink(varlink_service::Error::ExpectedMore))
            }
            Call::Watch => Ok(MethodReply::Multi(self.watch())),
            Call::Preview(parameters) => {
                self.may_change()?;
                let candidate = self.staged.borrow_mut().take(parameters)?;
                let reply = match candidate {
                    Some(candidate) => self.ask(Request::Preview(candidate)).await?,
                    None => Reply::Preview(Box::default()),
                };
                if !call.oneway() {
                    self.send(&reply).await;
                }
                Ok(MethodReply::Multi(Box::pin(stream::empty())))
            }
            Call::Act(act) => {
                let who = self.who;
                let reply = self.ask(Request::Act { act, who }).await?;
                if !call.oneway() {
                    self.send(&reply).await;
                }
                Ok(MethodReply::Multi(Box::pin(stream::empty())))
            }
            Call::Ask(request) => {
                let reply = self.ask(request).await?;
                if !call.oneway() {
                    self.send(&reply).await;
                }
                Ok(MethodReply::Multi(Box::pin(stream::empty())))
            }
        }
    }

    /// Sends a reply past zlink, which serialises one of *n* bytes *n*/256 times over (0.8.0,
    /// `WriteConnection::enqueue`): a page of grants took seconds.
    async fn send(&self, reply: &Reply) {
        let sent = match message(reply) {
            Ok(bytes) => send(&self.socket, &bytes, self.patience.reply).await,
            Err(why) => Err(why.into()),
        };
        if let Err(why) = sent {
            log::debug!(target: "control", "reply not sent: {why}");
            // Whatever follows half a reply would be taken for the rest of it.
            let _ = shutdown(self.socket.as_raw_fd(), Shutdown::Both);
        }
    }

    fn may_change(&self) -> Result<(), Failure> {
        if self.may_change {
            return Ok(());
        }
        let text =
            "only root, the daemon's own user and members of the group that `[control] admins` \
                    names may change anything; try sudo"
                .to_owned();
        Err(Failure::PermissionDenied { text })
    }

    async fn ask(&self, request: Request) -> Result<Reply, Failure> {
        if matches!(request, Request::Reload { .. } | Request::Act { .. }) {
            self.may_change()?;
        }
        match timeout(ANSWER, (self.ask)(request)).await {
            Ok(Ok(Reply::Failed(failure))) => Err(failure),
            Ok(Ok(reply)) => Ok(reply),
            Ok(Err(_)) => Err(Failure::Busy {
                text: "egressd is stopping".to_owned(),
            }),
            Err(_) => Err(Failure::Busy {
                text: format!(
                    "egressd did not answer in {} s; see its log",
                    ANSWER.as_secs()
                ),
            }),
        }
    }

    /// Every happening from now on, until the peer hangs up.
    fn watch(&self) -> Events {
        let first = Event {
            time: time(now()),
            kind: Kind::Watching,
            text: "watching".to_owned(),
            ..Event::default()
        };
        let state = (Some(first), observe::subscribe(), Rc::clone(&self.socket));
        Box::pin(stream::unfold(
            state,
            |(first, mut happenings, socket)| async move {
                let event = match first {
                    Some(first) => first,
                    None => tokio::select! {
                        event = next_event(&mut happenings) => event?,
                        () = hung_up(&socket) => return None,
                    },
                };
                let reply = zlink::Reply::new(Some(event)).set_continues(Some(true));
                Some(((Ok(reply), Vec::new()), (None, happenings, socket)))
            },
        ))
    }
}

/// A reply as it goes over the socket, its NUL included.
fn message(reply: &Reply) -> serde_json::Result<Vec<u8>> {
    #[derive(Serialize)]
    struct Message<'a, T> {
        parameters: &'a T,
    }
    fn bytes<T: Serialize>(parameters: &T) -> serde_json::Result<Vec<u8>> {
        serde_json::to_vec(&Message { parameters })
    }
    let mut bytes = match reply {
        Reply::Status(status) => bytes(status),
        Reply::Zones(zones) => bytes(zones),
        Reply::Grants(page) => bytes(page),
        Reply::Explanation(explanation) => bytes(explanation),
        Reply::Late(list) => bytes(list),
        Reply::Reloaded(reloaded) => bytes(reloaded),
        Reply::Unseen(list) => bytes(list),
        Reply::Preview(preview) => bytes(preview),
        Reply::Exceptions(list) => bytes(list),
        Reply::Exception(change) => bytes(change),
        Reply::Revoked(revoked) => bytes(revoked),
        Reply::Failed(failure) => serde_json::to_vec(failure),
    }?;
    bytes.push(0);
    Ok(bytes)
}

fn info() -> Info<'static> {
    let interfaces = ["org.varlink.service", INTERFACE];
    Info::new(
        "egressd",
        "egressd",
        env!("CARGO_PKG_VERSION"),
        "",
        interfaces,
    )
    .expect("both are interface names")
}

/// The next happening as an event; `None` once there can be no more.
async fn next_event(happenings: &mut Receiver<Arc<Happened>>) -> Option<Event> {
    let mut lost = 0;
    loop {
        match happenings.recv().await {
            Ok(happened) => {
                return Some(Event {
                    lost: (lost > 0).then_some(lost),
                    ..event(&happened)
                });
            }
            Err(RecvError::Lagged(more)) => lost += more,
            Err(RecvError::Closed) => return None,
        }
    }
}

fn event(happened: &Happened) -> Event {
    let told = happened.what.tell();
    Event {
        time: time(happened.at),
        kind: kind(&happened.what),
        text: told.text,
        zone: told.zone,
        client: told.client.map(|client| client.to_string()),
        name: told.name,
        address: told.address.map(|address| address.to_string()),
        service: told.service,
        interface: told.interface,
        plane: told.plane.map(str::to_owned),
        reason: told.reason,
        audited: told.audited,
        nearest: told.nearest,
        lost: None,
    }
}

fn kind(what: &observe::Happening) -> Kind {
    use observe::Happening as H;
    match what {
        H::QuestionRefused { .. } | H::Flooding { .. } => Kind::Question,
        H::RecordRefused { .. }
        | H::Withheld { .. }
        | H::Capped { .. }
        | H::Filling { .. }
        | H::Forgery { .. } => Kind::Answer,
        H::Granted { .. } | H::Ended { .. } | H::Cut { .. } | H::Operator { .. } => Kind::Grant,
        H::PacketRefused(_) => Kind::Packet,
        H::Plane { .. } | H::Drift { .. } | H::Tampering { .. } => Kind::Plane,
        H::Links { .. } | H::Upstream { .. } => Kind::Link,
        H::Reloaded { .. } | H::Updated { .. } => Kind::Config,
    }
}

#[expect(
    clippy::disallowed_methods,
    reason = "shell: events carry the wall clock's time"
)]
fn now() -> SystemTime {
    SystemTime::now()
}

fn time(at: SystemTime) -> String {
    humantime::format_rfc3339_millis(at).to_string()
}

/// Ends when the peer has closed its socket. A peer that only stopped sending is still there:
/// the kernel tells both apart by the write side (unix(7), EPOLLHUP).
async fn hung_up(socket: &UnixStream) {
    loop {
        let Ok(ready) = socket.ready(Interest::WRITABLE).await else {
            return;
        };
        if ready.is_write_closed() {
            return;
        }
        // Takes note of "writable", so that only the next change wakes us.
        let _ = socket.try_io(Interest::WRITABLE, || {
            Err::<(), _>(ErrorKind::WouldBlock.into())
        });
    }
}
