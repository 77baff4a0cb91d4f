//! Clients' connections over TCP: who may have one, for how long, and the replies that wait in it.
#![expect(clippy::disallowed_methods, reason = "shell: sockets to the clients")]

use super::clients::Client;
use super::crowd::{Crowd, Entry, Id};
use super::{Shared, stream};
use crate::config::ClientLimits;
use crate::observe::Flood;
use std::cell::Cell;
use std::collections::BTreeMap;
use std::io;
use std::net::IpAddr;
use std::rc::Rc;
use std::time::Duration;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};
use tokio::sync::oneshot;
use tokio::task::spawn_local;
use tokio::time::{Instant, sleep, sleep_until, timeout};

/// Most questions open on one connection; the next is read when one of them is answered.
const PIPELINE: usize = 64;

/// The longest question taken, in bytes. Names end at 255; the rest is room for options.
const LONGEST: usize = 4096;

/// How long a connection may stand without a question, and how long when more than half of all
/// connections are taken; how long one message may take to arrive, and how long a reply may take to be
/// taken.
const IDLE: Duration = Duration::from_secs(10);
const IDLE_DENSE: Duration = Duration::from_secs(2);
const MESSAGE: Duration = Duration::from_secs(3);
const REPLY: Duration = Duration::from_secs(3);

/// How long a client that asks more than it may has to wait for its next question to be read.
const PAUSE: Duration = Duration::from_millis(20);

/// Bytes of replies that wait to be taken: from how many on a connection's questions are not read,
/// how many end the connection, and how many in all end that of whoever adds to them.
const SLOW: usize = 64 << 10;
const MOST_WAITING: usize = 1 << 20;
const MOST_WAITING_IN_ALL: usize = 64 << 20;

/// Connections taken before those that were taken have their turn, and those told to close free their
/// descriptors.
const PER_WAKE: usize = 32;

/// All connections.
pub(super) struct Streams {
    crowd: Crowd,
    ways: BTreeMap<Id, Way>,
    waiting: Rc<Cell<usize>>,
}

/// The way back into one connection.
struct Way {
    /// `None` once no more replies are wanted.
    queue: Option<UnboundedSender<Reply>>,
    waiting: Rc<Cell<usize>>,
    /// Dropped, it ends the connection at once.
    _alive: oneshot::Sender<()>,
}

/// A message on its way, counted while it waits.
struct Reply {
    message: Box<[u8]>,
    counts: [Rc<Cell<usize>>; 2],
}

impl Drop for Reply {
    fn drop(&mut self) {
        for count in &self.counts {
            count.set(count.get() - self.message.len());
        }
    }
}

/// What a connection's own task has of it.
struct Entered {
    id: Id,
    replies: UnboundedReceiver<Reply>,
    waiting: Rc<Cell<usize>>,
    closed: oneshot::Receiver<()>,
}

impl Streams {
    pub(super) fn new(limits: &ClientLimits) -> Self {
        Self {
            crowd: Crowd::new(limits.connections, limits.connections_per_client),
            ways: BTreeMap::new(),
            waiting: Rc::default(),
        }
    }

    /// Takes in a connection, and closes another one where there are too many. `None` when the client
    /// uses all that it may have.
    fn enter(&mut self, peer: IpAddr, now: u64) -> Option<Entered> {
        let (id, victim) = match self.crowd.enter(peer, now) {
            Entry::Room(id) => (id, None),
            Entry::InPlaceOf(id, victim) => (id, Some(victim)),
            Entry::Full => return None,
        };
        if let Some(victim) = victim {
            self.ways.remove(&victim);
        }
        let (queue, replies) = unbounded_channel();
        let (_alive, closed) = oneshot::channel();
        let waiting = Rc::new(Cell::new(0));
        let way = Way {
            queue: Some(queue),
            waiting: Rc::clone(&waiting),
            _alive,
        };
        self.ways.insert(id, way);
        Some(Entered {
            id,
            replies,
            waiting,
            closed,
        })
    }

    fn leave(&mut self, id: Id) {
        self.crowd.leave(id);
        self.ways.remove(&id);
    }

    /// Queues a reply. A client that leaves too much unread loses its connection.
    pub(super) fn send(&mut self, id: Id, message: &[u8]) {
        // It may have closed meanwhile.
        let Some(way) = self.ways.get(&id) else {
            return;
        };
        let (own, all) = (way.waiting.get(), self.waiting.get());
        let too_many = own > 0 && all + message.len() > MOST_WAITING_IN_ALL;
        if own + message.len() > MOST_WAITING || too_many {
            return self.leave(id);
        }
        let Some(queue) = &way.queue else {
            return;
        };
        let counts = [Rc::clone(&way.waiting), Rc::clone(&self.waiting)];
        for count in &counts {
            count.set(count.get() + message.len());
        }
        let message = message.into();
        // Where its task has just ended the reply is dropped, and with it the count.
        let _ = queue.send(Reply { message, counts });
    }

    /// Ends a connection once what waits in it is written.
    pub(super) fn close(&mut self, id: Id) {
        if let Some(way) = self.ways.get_mut(&id) {
            way.queue = None;
        }
    }

    fn idle(&self) -> Duration {
        if self.crowd.is_dense() {
            IDLE_DENSE
        } else {
            IDLE
        }
    }
}

/// Takes connections for ever.
pub(super) async fn accept(shared: Shared, listener: TcpListener) {
    let mut taken = 0;
    loop {
        if taken >= PER_WAKE {
            taken = 0;
            tokio::task::yield_now().await;
        }
        let (stream, peer) = match listener.accept().await {
            Ok(accepted) => accepted,
            Err(error) => {
                log::warn!(target: "dns", "accept: {error}");
                // Out of descriptors, most likely: others have to close first.
                sleep(Duration::from_millis(100)).await;
                continue;
            }
        };
        taken += 1;
        let Ok(local) = stream.local_addr() else {
            continue;
        };
        let entered = {
            let mut engine = shared.engine.borrow_mut();
            let now = engine.clock().now();
            let entered = engine.clients.streams.enter(peer.ip(), now);
            if entered.is_none() {
                engine.clients.blame(peer.ip(), Flood::Connections, now);
            }
            entered
        };
        let Some(entered) = entered else {
            continue;
        };
        let id = entered.id;
        let client = Client::Stream {
            connection: id,
            peer,
            local: local.ip(),
        };
        let shared = shared.clone();
        spawn_local(async move {
            if let Err(error) = converse(&shared, stream, client, entered).await {
                log::trace!(target: "dns", "{peer} over TCP: {error}");
            }
            shared.engine.borrow_mut().clients.streams.leave(id);
        });
    }
}

/// Serves one connection until it is idle, slow, or closed by either side.
async fn converse(
    shared: &Shared,
    stream: TcpStream,
    client: Client,
    entered: Entered,
) -> io::Result<()> {
    let Entered {
        id,
        replies,
        waiting,
        closed,
    } = entered;
    let progress = |open| {
        let mut engine = shared.engine.borrow_mut();
        let now = engine.clock().now();
        engine.clients.streams.crowd.progress(id, open, now);
    };
    tokio::select! {
        done = exchange(shared, stream, client, replies, &waiting, progress) => done,
        _ = closed => Err(io::ErrorKind::ConnectionAborted.into()),
    }
}

async fn exchange(
    shared: &Shared,
    mut stream: TcpStream,
    client: Client,
    mut replies: UnboundedReceiver<Reply>,
    waiting: &Cell<usize>,
    progress: impl Fn(usize),
) -> io::Result<()> {
    stream.set_nodelay(true)?;
    let idle = || shared.engine.borrow().clients.streams.idle();
    let (mut read, mut write) = stream.split();
    let mut frames = stream::Frames::up_to(LONGEST);
    let mut open = 0;
    let mut ended = false;
    let mut partial = false;
    let mut deadline = Instant::now() + idle();
    while !(ended && open == 0) {
        let ready = open < PIPELINE && waiting.get() < SLOW;
        tokio::select! {
            filled = frames.fill(&mut read), if !ended && ready => match filled {
                Ok(()) => {}
                // Some close their side at once and still wait for the reply.
                Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => ended = true,
                Err(error) => return Err(error),
            },
            reply = replies.recv() => {
                let Some(reply) = reply else { return Ok(()) };
                timeout(REPLY, stream::write(&mut write, &reply.message)).await??;
                open -= 1;
                progress(open);
                deadline = deadline.max(Instant::now() + if partial { MESSAGE } else { idle() });
            }
            () = sleep_until(deadline) => {
                if open == 0 || (partial && ready) {
                    return Err(io::ErrorKind::TimedOut.into());
                }
                deadline = Instant::now() + idle();
            }
        }
        let before = open;
        while open < PIPELINE
            && waiting.get() < SLOW
            && let Some(message) = frames.take()
        {
            admitted(shared, client.address()).await;
            open += 1;
            shared.engine.borrow_mut().question(client, &message);
        }
        if open > before {
            progress(open);
        }
        if open > before || partial != frames.is_partial() {
            partial = frames.is_partial();
            deadline = Instant::now() + if partial { MESSAGE } else { idle() };
        }
    }
    Ok(())
}

/// Waits until a question of `client` may be read.
async fn admitted(shared: &Shared, client: IpAddr) {
    loop {
        {
            let mut engine = shared.engine.borrow_mut();
            let now = engine.clock().now();
            if engine.clients.admit(client, now) {
                return;
            }
            engine.clients.blame(client, Flood::Questions, now);
        }
        sleep(PAUSE).await;
    }
}
