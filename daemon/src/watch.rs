//! Listens to what the kernel tells of changes that planes may stand on: interfaces and their programs,
//! traffic control, nft tables. It says only that there was something; the look at the planes is
//! another's.
#![expect(clippy::disallowed_methods, reason = "shell: waits for the kernel")]

use crate::plane::netlink::{Failure, Message, Socket};
use crate::plane::ruleset::TABLE;
use anyhow::Context as _;
use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use std::os::fd::AsFd as _;
use std::thread;
use std::time::Duration;

/// After one word of a change the next one waits so long, whatever comes.
const REST: Duration = Duration::from_millis(20);

/// Groups of rtnetlink, as bits: interfaces come, go and change; traffic control changes.
const ROUTE: u32 = 1 << (libc::RTNLGRP_LINK - 1) | 1 << (libc::RTNLGRP_TC - 1);

/// The group of nftables' changes, as a bit.
const NFTABLES: u32 = 1 << (libc::NFNLGRP_NFTABLES - 1);

/// Starts a thread in the calling thread's network namespace that calls `stirred` when something
/// changed, at most 50 times a second, until `stirred` returns false.
///
/// With `tables` it hears of nft tables, too. That costs every transaction of the namespace time, and is
/// of use only where others can change the table of this process.
///
/// # Errors
/// When the kernel lets nobody listen.
pub fn spawn(tables: bool, stirred: impl FnMut() -> bool + Send + 'static) -> anyhow::Result<()> {
    let mut sockets = vec![Ear::route().context("listen for changes of interfaces")?];
    if tables {
        sockets.push(Ear::tables().context("listen for changes of nft tables")?);
    }
    thread::Builder::new()
        .name("watch".to_owned())
        .spawn(move || {
            if let Err(error) = listen(&mut sockets, stirred) {
                // The planes are looked at by the clock as well.
                log::warn!(target: "plane", "changes are noticed later: {error:#}");
            }
        })
        .context("start a thread")?;
    Ok(())
}

fn listen(ears: &mut [Ear], mut stirred: impl FnMut() -> bool) -> anyhow::Result<()> {
    loop {
        let mut waiting: Vec<PollFd<'_>> = ears
            .iter()
            .map(|ear| PollFd::new(ear.socket.as_fd(), PollFlags::POLLIN))
            .collect();
        match poll(&mut waiting, PollTimeout::NONE) {
            Ok(_) | Err(Errno::EINTR) => {}
            Err(error) => return Err(error).context("wait for the kernel"),
        }
        let mut heard = false;
        for ear in ears.iter_mut() {
            heard |= ear.drain()?;
        }
        if heard {
            if !stirred() {
                return Ok(());
            }
            thread::sleep(REST);
        }
    }
}

/// A socket and which of its messages matter.
struct Ear {
    socket: Socket,
    matters: fn(&Message<'_>) -> bool,
}

impl Ear {
    fn route() -> nix::Result<Self> {
        Ok(Self {
            socket: Socket::listen_route(ROUTE)?,
            matters: |_| true,
        })
    }

    fn tables() -> nix::Result<Self> {
        Ok(Self {
            socket: Socket::listen_netfilter(NFTABLES)?,
            matters: is_of_ours,
        })
    }

    /// Takes what is there; whether something of it matters, or was lost.
    fn drain(&mut self) -> anyhow::Result<bool> {
        let mut heard = false;
        loop {
            let received = self.socket.receive(|message| {
                heard |= (self.matters)(message);
                Ok(())
            });
            match received {
                Ok(()) => {}
                Err(Failure::Unknown(Errno::EAGAIN)) => return Ok(heard),
                // Whatever was lost may have mattered.
                Err(Failure::Unknown(Errno::ENOBUFS | Errno::EMSGSIZE)) => heard = true,
                Err(failure) => return Err(failure).context("hear the kernel"),
            }
        }
    }
}

/// Whether a message of nftables is about the table of this process. In doubt it is.
fn is_of_ours(message: &Message<'_>) -> bool {
    /// The first attribute of everything in a table, and of a table itself, is the table's name.
    const TABLE_NAME: u16 = 1;
    const NEW_GENERATION: u16 = ((libc::NFNL_SUBSYS_NFTABLES << 8) | libc::NFT_MSG_NEWGEN) as u16;
    if message.kind == NEW_GENERATION {
        // It follows every transaction, and its own messages say more.
        return false;
    }
    let name = crate::plane::netlink::Attributes::of_netfilter(message.payload).get(TABLE_NAME);
    name.is_none_or(|name| name.strip_suffix(&[0]) == Some(TABLE.as_bytes()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plane::netlink::{Request, messages};
    use nix::sched::{CloneFlags, unshare};
    use std::process::Command;
    use std::sync::mpsc::channel;

    const DEADLINE: Duration = Duration::from_secs(10);

    #[test]
    fn messages_of_other_tables_do_not_matter() {
        fn check(kind: i32, table: &str, expected: bool) {
            let bytes = Request::new(libc::NFNL_SUBSYS_NFTABLES as u8, kind as u8, 1, 0)
                .with_text(1, table)
                .finish(0, 0);
            assert_eq!(
                is_of_ours(&messages(&bytes).next().unwrap()),
                expected,
                "{kind} {table}"
            );
        }
        check(libc::NFT_MSG_DELTABLE, "egressd", true);
        check(libc::NFT_MSG_NEWRULE, "egressd", true);
        check(libc::NFT_MSG_NEWRULE, "egressd2", false);
        check(libc::NFT_MSG_NEWSETELEM, "filter", false);
        check(libc::NFT_MSG_NEWGEN, "egressd", false);
    }

    fn run(line: &str) {
        let words: Vec<&str> = line.split(' ').collect();
        let status = Command::new(words[0]).args(&words[1..]).status().unwrap();
        assert!(status.success(), "{line}");
    }

    #[test]
    fn changes_are_heard() {
        let thread = thread::spawn(|| {
            if let Err(why) = unshare(CloneFlags::CLONE_NEWNET) {
                eprintln!("skipped: no network namespace ({why})");
                return;
            }
            let (tell, told) = channel();
            spawn(true, move || tell.send(()).is_ok()).unwrap();
            let quiet = || while told.recv_timeout(Duration::from_millis(200)).is_ok() {};
            let check = |line: &str, expected: bool| {
                quiet();
                run(line);
                let heard = told.recv_timeout(if expected { DEADLINE } else { DEADLINE / 20 });
                assert_eq!(heard.is_ok(), expected, "{line}");
            };
            check("ip link add lan0 type veth peer name far0", true);
            check("ip link set lan0 up", true);
            check("ip link set lan0 name lan7", true);
            check("ip addr add 192.0.2.1/24 dev lan7", false);
            check("tc qdisc add dev lan7 clsact", true);
            check("tc qdisc del dev lan7 clsact", true);
            check("nft add table inet other", false);
            check("nft add table inet egressd", true);
            check("nft flush ruleset", true);
            check("ip link del lan7", true);
        });
        thread.join().unwrap();
    }
}
