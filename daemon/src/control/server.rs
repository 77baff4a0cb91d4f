//! Accepts connections on the control socket: who may ask, how many may at once, and one Varlink
//! server per connection, so that nobody waits for somebody else's slow reading.

use super::protocol::Failure;
use super::session::Session;
use super::socket::{Bounded, Patience, Peer};
use super::{Reply, Request};
use crate::config::ControlSettings;
use anyhow::{Context, bail};
use nix::sys::stat::{Mode, fchmod};
use nix::unistd::{Gid, Group, Uid, chown};
use socket2::{Domain, SockAddr, Socket, Type};
use std::cell::RefCell;
use std::collections::BTreeMap;
use std::fs;
use std::io::{self, ErrorKind};
use std::os::fd::AsFd;
use std::os::unix::fs::{FileTypeExt, PermissionsExt};
use std::path::Path;
use std::rc::Rc;
use std::time::Duration;
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::oneshot;
use tokio::task::LocalSet;
use zlink::ReadyListener;
use zlink::connection::socket::FetchPeerCredentials;

/// How many connections there may be, and how long they may take.
#[derive(Clone, Copy, Debug)]
pub(super) struct Limits {
    /// In all. The last quarter is kept for root.
    pub(super) connections: usize,
    /// Per uid other than root.
    per_user: usize,
    pub(super) patience: Patience,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            connections: 64,
            per_user: 8,
            patience: Patience::default(),
        }
    }
}

/// The control socket, bound.
#[derive(Debug)]
pub struct Server {
    listener: UnixListener,
    group: Option<Gid>,
    /// Whose members may change what is in force.
    admins: Option<Gid>,
    pub(super) limits: Limits,
}

/// Binds the control socket and answers on it until the task is dropped. `ask` hands a request to
/// the loop.
///
/// # Errors
/// As [`Server::bind`]; nothing that a client does ends it.
pub async fn serve<A>(settings: &ControlSettings, ask: A) -> anyhow::Result<()>
where
    A: Fn(Request) -> oneshot::Receiver<Reply> + Clone + 'static,
{
    Server::bind(settings)?.run(ask).await;
    Ok(())
}

impl Server {
    /// Binds the control socket, mode 0660, within a tokio runtime. A socket that nobody listens
    /// on any more is replaced.
    ///
    /// # Errors
    /// When another daemon listens there, the path is no socket, the group does not exist, or the
    /// directory cannot be written.
    pub fn bind(settings: &ControlSettings) -> anyhow::Result<Self> {
        let path = &settings.socket;
        let group = settings.group.as_deref().map(find_group).transpose()?;
        let admins = settings.admins.as_deref().map(find_group).transpose()?;
        if let Some(directory) = path.parent() {
            fs::create_dir_all(directory)
                .with_context(|| format!("create the directory {}", directory.display()))?;
        }
        let context = || format!("listen on the control socket {}", path.display());
        remove_stale(path).with_context(context)?;
        let socket = bind_private(path).with_context(context)?;
        if let Some(group) = group
            && let Err(why) = chown(path, None, Some(group))
        {
            // Root can still ask: not worth refusing to protect the network for.
            log::warn!(
                target: "control",
                "the control socket could not be given to its group ({why}): only root and \
                 egressd itself may ask; make egressd a member of the group"
            );
        }
        let listener = UnixListener::from_std(socket.into()).with_context(context)?;
        Ok(Self {
            listener,
            group,
            admins,
            limits: Limits::default(),
        })
    }

    /// Answers until dropped.
    pub async fn run<A>(self, ask: A)
    where
        A: Fn(Request) -> oneshot::Receiver<Reply> + Clone + 'static,
    {
        let tasks = LocalSet::new();
        let seats = Rc::new(RefCell::new(Seats::default()));
        tasks
            .run_until(async {
                loop {
                    match self.listener.accept().await {
                        Ok((stream, _)) => self.admit(stream, &ask, &seats).await,
                        Err(why) => self.pause(&why).await,
                    }
                }
            })
            .await;
    }

    /// Lets a connection in, or says why not and closes it.
    async fn admit<A>(&self, stream: UnixStream, ask: &A, seats: &Rc<RefCell<Seats>>)
    where
        A: Fn(Request) -> oneshot::Receiver<Reply> + Clone + 'static,
    {
        let admitted = match self.check(&stream).await {
            Ok((user, may_change)) => {
                take_seat(seats, user, self.limits).map(|seat| (seat, user, may_change))
            }
            Err(failure) => Err(failure),
        };
        let (seat, user, may_change) = match admitted {
            Ok(admitted) => admitted,
            Err(failure) => return turn_away(&stream, &failure),
        };
        let socket = stream
            .as_fd()
            .try_clone_to_owned()
            .map(std::os::unix::net::UnixStream::from)
            .and_then(UnixStream::from_std);
        let socket = match socket {
            Ok(socket) => Rc::new(socket),
            Err(why) => {
                let text = format!("egressd has no descriptor left: {why}");
                return turn_away(&stream, &Failure::Busy { text });
            }
        };
        let patience = self.limits.patience;
        let session = Session {
            ask: ask.clone(),
            may_change,
            who: user.as_raw(),
            socket,
            patience,
            staged: RefCell::default(),
        };
        let bounded = Bounded { stream, patience };
        tokio::task::spawn_local(async move {
            let _seat = seat;
            let server = zlink::Server::new(ReadyListener::new(bounded), session);
            if let Err(why) = server.run().await {
                log::debug!(target: "control", "connection ended: {why}");
            }
        });
    }

    /// Who the peer is and whether it may change anything.
    async fn check(&self, stream: &UnixStream) -> Result<(Uid, bool), Failure> {
        let peer =
            Peer(stream)
                .fetch_peer_credentials()
                .await
                .map_err(|why| Failure::Internal {
                    text: format!("the kernel does not say who you are: {why}"),
                })?;
        let user = Uid::from_raw(peer.unix_user_id().as_raw());
        if user.is_root() || user == Uid::effective() {
            return Ok((user, true));
        }
        let member = |group: Option<Gid>| {
            group.is_some_and(|group| {
                std::iter::once(&peer.unix_primary_group_id())
                    .chain(peer.unix_supplementary_group_ids())
                    .any(|gid| gid.as_raw() == group.as_raw())
            })
        };
        let may_change = member(self.admins);
        if may_change || member(self.group) {
            return Ok((user, may_change));
        }
        let text = format!(
            "uid {user} may not ask egressd; become root or a member of the group that `[control] \
             group` names"
        );
        Err(Failure::PermissionDenied { text })
    }

    /// Waits before accepting again: without a free descriptor the listener stays readable.
    #[expect(
        clippy::disallowed_methods,
        reason = "shell: back off when descriptors are short"
    )]
    async fn pause(&self, why: &io::Error) {
        log::warn!(target: "control", "no connection can be accepted: {why}");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

fn find_group(name: &str) -> anyhow::Result<Gid> {
    let group = Group::from_name(name).with_context(|| format!("look up the group `{name}`"))?;
    let Some(group) = group else {
        bail!("`[control] group`: there is no group `{name}`; create it: groupadd --system {name}")
    };
    Ok(group.gid)
}

/// Removes a socket that nobody listens on any more.
fn remove_stale(path: &Path) -> anyhow::Result<()> {
    match fs::symlink_metadata(path) {
        Err(why) if why.kind() == ErrorKind::NotFound => return Ok(()),
        Err(why) => return Err(why.into()),
        Ok(found) if !found.file_type().is_socket() => {
            bail!("there is something else than a socket; remove it or choose another path")
        }
        Ok(_) => {}
    }
    match std::os::unix::net::UnixStream::connect(path) {
        Err(why) if why.kind() == ErrorKind::ConnectionRefused => {
            fs::remove_file(path).context("remove the stale socket")
        }
        Err(why) => Err(why.into()),
        Ok(_) => bail!("another egressd listens there; stop it first"),
    }
}

/// A listening socket at `path` that has never been open to everybody.
fn bind_private(path: &Path) -> anyhow::Result<Socket> {
    let socket = Socket::new(Domain::UNIX, Type::STREAM.cloexec().nonblocking(), None)?;
    // A Unix socket's file gets the mode of the socket's own inode (unix_bind, net/unix/af_unix.c).
    let mode = Mode::from_bits_truncate(0o660);
    fchmod(&socket, mode)?;
    socket.bind(&SockAddr::unix(path)?)?;
    // The umask may have taken the group's bits away.
    fs::set_permissions(path, fs::Permissions::from_mode(mode.bits()))?;
    socket.listen(64)?;
    Ok(socket)
}

/// Tells a client why not and hangs up, without waiting for it.
fn turn_away(stream: &UnixStream, failure: &Failure) {
    log::debug!(target: "control", "connection refused: {failure}");
    if let Ok(mut message) = serde_json::to_vec(failure) {
        message.push(0);
        // Its buffer is empty: it takes this in or is gone.
        let _ = stream.try_write(&message);
    }
}

/// Connections by user.
#[derive(Debug, Default)]
struct Seats(BTreeMap<u32, usize>);

/// One connection's place, given back when dropped.
#[derive(Debug)]
struct Seat {
    seats: Rc<RefCell<Seats>>,
    user: Uid,
}

fn take_seat(seats: &Rc<RefCell<Seats>>, user: Uid, limits: Limits) -> Result<Seat, Failure> {
    let mut taken = seats.borrow_mut();
    let total: usize = taken.0.values().sum();
    let own = taken.0.get(&user.as_raw()).copied().unwrap_or(0);
    let full = if user.is_root() {
        total >= limits.connections
    } else {
        total >= limits.connections * 3 / 4 || own >= limits.per_user
    };
    if full {
        let text = format!("too many connections ({total}, {own} of them yours); close some");
        return Err(Failure::Busy { text });
    }
    taken.0.insert(user.as_raw(), own + 1);
    Ok(Seat {
        seats: Rc::clone(seats),
        user,
    })
}

impl Drop for Seat {
    fn drop(&mut self) {
        let mut taken = self.seats.borrow_mut();
        if let Some(own) = taken.0.get_mut(&self.user.as_raw()) {
            *own = own.saturating_sub(1);
            if *own == 0 {
                taken.0.remove(&self.user.as_raw());
            }
        }
    }
}
