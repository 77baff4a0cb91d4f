//! The shell around the observer: the thread that reads the kernel's copies, and the sockets that speak
//! in a resolver's name.
#![expect(
    clippy::disallowed_methods,
    reason = "shell: reads copies, sends datagrams, knows the clock"
)]

use crate::config::DnsSettings;
use crate::dns::observer::{Copy, Counters, Delivery, Effect, Handling, Observer, Stats};
use crate::dns::{Busy, Release, Untaught, Waiting};
use crate::plane::copies::{Copied, Copies, Received};
use crate::plane::ruleset::Way;
use crate::policy::observed::{DNS, Observed};
use crate::policy::rules::Rules;
use anyhow::Context as _;
use arc_swap::ArcSwap;
use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use socket2::{Domain, Protocol, Socket, Type};
use std::collections::BTreeMap;
use std::io::{Read as _, Write as _};
use std::net::{IpAddr, SocketAddr};
use std::os::fd::AsFd as _;
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread::JoinHandle;
use std::time::Instant;

/// Copies read before releases get their turn.
const PER_WAKE: usize = 256;

enum Order {
    Release(Vec<Release>),
    Stop,
}

/// The running observer.
pub(super) struct Observing {
    orders: Sender<Order>,
    /// Ends the thread's wait for copies.
    bell: UnixStream,
    counters: Arc<Counters>,
    thread: JoinHandle<()>,
}

/// Starts it. `submit` is called on its thread for every answer that teaches, and
/// `untaught` with answers for names that are not listed; neither must block.
///
/// # Errors
/// When the copies cannot be read, or with `delay` a resolver's address cannot be spoken from.
pub(super) fn start(
    observed: &Observed,
    dns: &DnsSettings,
    rules: Arc<ArcSwap<Rules>>,
    submit: impl Fn(Waiting) -> Result<(), Busy> + Send + 'static,
    untaught: impl Fn(Untaught) + Send + 'static,
) -> anyhow::Result<Observing> {
    let copies = Copies::open(observed.group)?;
    let mut voices = BTreeMap::new();
    for resolver in observed.resolvers.iter().filter(|_| observed.delay) {
        let voice = voice(*resolver)
            .with_context(|| format!("speak from {resolver} port {DNS}, for `delay`"))?;
        voices.insert(*resolver, voice);
    }
    let counters = Arc::new(Counters::default());
    let handling = Handling {
        delay: observed.delay,
        hold: u64::try_from(dns.hold.as_micros()).unwrap_or(u64::MAX / 2),
        hints: dns.hints,
        ech: dns.ech,
    };
    let observer = Observer::new(rules, Arc::clone(&counters), handling);
    let (orders, received) = channel();
    let (bell, ring) = UnixStream::pair().context("wake the observer's thread")?;
    bell.set_nonblocking(true)?;
    ring.set_nonblocking(true)?;
    let mut shell = Shell {
        observer,
        counters: Arc::clone(&counters),
        voices,
        submit: Box::new(submit),
        untaught: Box::new(untaught),
        orders: received,
        ring,
        started: Instant::now(),
    };
    let thread = std::thread::Builder::new()
        .name("observer".to_owned())
        .spawn(move || {
            if let Err(error) = shell.run(copies) {
                log::error!(target: "dns", "nothing is learned from answers any more: {error:#}");
            }
        })
        .context("start the observer's thread")?;
    Ok(Observing {
        orders,
        bell,
        counters,
        thread,
    })
}

impl Observing {
    /// Passes on the loop's word. Never blocks.
    pub(super) fn release(&self, releases: Vec<Release>) {
        self.order(Order::Release(releases));
    }

    fn order(&self, order: Order) {
        // An observer that ended has nothing left to release; a full bell has rung already.
        let _ = self.orders.send(order);
        let _ = (&self.bell).write(&[0]);
    }

    /// Whether its thread is gone, though nobody stopped it.
    pub(super) fn ended(&self) -> bool {
        self.thread.is_finished()
    }

    pub(super) fn stats(&self) -> Stats {
        self.counters.read()
    }

    /// Ends the thread. Answers that wait are not sent: clients ask again.
    pub(super) fn stop(self) {
        self.order(Order::Stop);
        if self.thread.join().is_err() {
            log::error!(target: "dns", "the observer's thread panicked");
        }
    }
}

struct Shell {
    observer: Observer,
    counters: Arc<Counters>,
    voices: BTreeMap<IpAddr, Socket>,
    submit: Box<dyn Fn(Waiting) -> Result<(), Busy> + Send>,
    untaught: Box<dyn Fn(Untaught) + Send>,
    orders: Receiver<Order>,
    ring: UnixStream,
    started: Instant,
}

impl Shell {
    fn run(&mut self, mut copies: Copies) -> anyhow::Result<()> {
        let mut drained = true;
        loop {
            if drained {
                self.wait(&copies)?;
            }
            // Emptied before the orders are, so that no bell is missed.
            while matches!(self.ring.read(&mut [0; 256]), Ok(length) if length > 0) {}
            while let Ok(order) = self.orders.try_recv() {
                match order {
                    Order::Release(releases) => {
                        let now = self.now();
                        for release in &releases {
                            self.observer.release(release, now);
                        }
                    }
                    Order::Stop => return Ok(()),
                }
            }
            let now = self.now();
            self.observer.tick(now);
            self.perform();
            drained = self.read(&mut copies)?;
        }
    }

    /// Waits for a copy, an order or a deadline.
    fn wait(&self, copies: &Copies) -> anyhow::Result<()> {
        let patience = self.observer.due().map_or(PollTimeout::NONE, |due| {
            let millis = due.saturating_sub(self.now()).div_ceil(1000);
            PollTimeout::try_from(millis).unwrap_or(PollTimeout::MAX)
        });
        let mut wanted = [
            PollFd::new(copies.as_fd(), PollFlags::POLLIN),
            PollFd::new(self.ring.as_fd(), PollFlags::POLLIN),
        ];
        match poll(&mut wanted, patience) {
            Ok(_) | Err(Errno::EINTR) => Ok(()),
            Err(errno) => Err(errno).context("wait for copies"),
        }
    }

    /// Reads what is there; whether that was all.
    fn read(&mut self, copies: &mut Copies) -> anyhow::Result<bool> {
        for _ in 0..PER_WAKE {
            let now = self.now();
            let observer = &mut self.observer;
            let received = copies.receive(|copied| observer.copy(&copy(copied), now));
            match received.context("read copies")? {
                Received::Some => {}
                Received::Nothing => return Ok(true),
                Received::Lost => {
                    observer.lost();
                    let times = self.counters.read().lost;
                    // Each would be a flood of its own.
                    if times.is_power_of_two() {
                        log::warn!(target: "dns", "answers came faster than they could be read, {times} times so far: some taught nothing");
                    }
                }
            }
            // Each at once: its client may have the answer already.
            self.perform();
        }
        Ok(false)
    }

    fn perform(&mut self) {
        let mut effects = self.observer.take_effects();
        while !effects.is_empty() {
            for effect in effects {
                match effect {
                    Effect::Untaught(untaught) => (self.untaught)(untaught),
                    Effect::Teach(waiting) => {
                        let token = waiting.token;
                        if (self.submit)(waiting).is_err() {
                            self.observer.refused(token);
                        }
                    }
                    Effect::Send(delivery) => self.send(&delivery),
                }
            }
            effects = self.observer.take_effects();
        }
    }

    fn send(&self, delivery: &Delivery) {
        let Some(voice) = self.voices.get(&delivery.resolver) else {
            return;
        };
        if let Err(error) = voice.send_to(&delivery.message, &delivery.client.into()) {
            log::debug!(target: "dns", "answer to {}: {error}", delivery.client);
        }
    }

    fn now(&self) -> u64 {
        u64::try_from(self.started.elapsed().as_micros()).unwrap_or(u64::MAX)
    }
}

fn copy(copied: Copied<'_>) -> Copy<'_> {
    Copy {
        question: match copied.way {
            Way::Original => true,
            Way::Reply => false,
        },
        interface: copied.interface,
        packet: copied.packet,
    }
}

/// A socket that sends from a resolver's address, which is not one of ours (`CAP_NET_ADMIN`). What is
/// sent to that address passes by and does not come here.
fn voice(resolver: IpAddr) -> anyhow::Result<Socket> {
    let address = SocketAddr::new(resolver, DNS);
    let socket = Socket::new(
        Domain::for_address(address),
        Type::DGRAM,
        Some(Protocol::UDP),
    )?;
    match resolver {
        IpAddr::V4(_) => socket.set_ip_transparent_v4(true)?,
        IpAddr::V6(_) => {
            socket.set_only_v6(true)?;
            socket.set_ip_transparent_v6(true)?;
        }
    }
    socket.set_nonblocking(true)?;
    socket.bind(&address.into())?;
    Ok(socket)
}
