//! A gateway between two wires, in namespaces: frames go in on one, and what comes out on the other is
//! counted. Nobody answers, so nothing moves but what was sent.
#![expect(
    clippy::disallowed_methods,
    reason = "shell: makes namespaces with `ip`, waits for frames"
)]

use crate::config::EbpfMode;
use crate::plane::Plane as _;
use crate::plane::ebpf::{EbpfOptions, EbpfPlane};
use crate::plane::nft::NftPlane;
use crate::policy::image::Image;
use egressd_common::corpus::{Client, plan};
use egressd_common::samples;
use nix::sched::{CloneFlags, CpuSet, sched_setaffinity, setns};
use nix::sys::socket::{
    AddressFamily, MsgFlags, SockFlag, SockProtocol, SockType, SockaddrStorage, recv, sendto,
    setsockopt, socket, sockopt,
};
use std::collections::BTreeSet;
use std::net::IpAddr;
use std::os::fd::{AsRawFd as _, OwnedFd};
use std::path::PathBuf;
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

/// Long enough for a frame through three namespaces on a busy machine.
const PATIENCE: Duration = Duration::from_secs(10);
/// Frames on their way at once: less than the kernel keeps for a device.
const BATCH: usize = 100;
/// Clients of the frames that show that all before them are there or lost.
const MARKS: u16 = 57_000;

/// Which planes stand in the gateway.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Stand {
    /// nft alone.
    Nft,
    /// The ebpf plane, with nft behind or not.
    Ebpf { mode: EbpfMode, nft: bool },
}

/// The namespaces, and the planes in force in the gateway.
pub(super) struct Lab {
    id: String,
    pub(super) pins: PathBuf,
    pub(super) nft: Option<NftPlane>,
    pub(super) ebpf: Option<EbpfPlane>,
}

fn run(line: &str) {
    let mut words = line.split_whitespace();
    let output = Command::new(words.next().unwrap())
        .args(words)
        .output()
        .unwrap();
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{line}: {errors}");
}

/// `C` and `S` have no addresses: what they send and hear is frames.
const NETWORK: &str = "
    link add lan0 mtu 9000 numtxqueues 1 numrxqueues 1 netns G type veth peer name eth0 mtu 9000 numtxqueues 1 numrxqueues 1 netns C
    link add wan0 mtu 9000 numtxqueues 1 numrxqueues 1 netns G type veth peer name eth0 mtu 9000 numtxqueues 1 numrxqueues 1 netns S
    -n G link set lan0 address 02:00:00:00:00:01
    -n C link set eth0 address 02:00:00:00:00:02
    -n S link set eth0 address 02:00:00:00:00:03
    -n C link set eth0 up
    -n S link set eth0 up
    -n G link set lan0 up
    -n G link set wan0 up
    -n G addr add 10.20.0.1/16 brd + dev lan0
    -n G addr add 192.0.2.1/24 brd + dev wan0
    -n G -6 addr add 2001:db8:20::1/64 dev lan0 nodad
    -n G -6 addr add fe80::1/64 dev lan0 nodad
    -n G -6 addr add 2001:db8:ff::1/64 dev wan0 nodad
    -n G neigh add 192.0.2.2 lladdr 02:00:00:00:00:03 dev wan0 nud permanent
    -n G -6 neigh add 2001:db8:ff::2 lladdr 02:00:00:00:00:03 dev wan0 nud permanent
    -n G route add default via 192.0.2.2
    -n G -6 route add default via 2001:db8:ff::2
";

const SETTINGS: &str = "
    G net/ipv4/ip_forward 1
    G net/ipv6/conf/all/forwarding 1
    G net/ipv4/conf/all/rp_filter 0
    G net/ipv4/conf/default/rp_filter 0
    G net/ipv6/conf/default/accept_dad 0
    C net/ipv6/conf/default/disable_ipv6 1
    S net/ipv6/conf/default/disable_ipv6 1
";

impl Lab {
    /// The namespaces without planes, or `None` (said aloud) where the machine cannot have them.
    pub(super) fn new() -> Option<Self> {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        if !nix::unistd::geteuid().is_root() {
            eprintln!("SKIPPED: frames through a gateway need root");
            return None;
        }
        if Command::new("ip").arg("-V").output().is_err() {
            eprintln!("SKIPPED: frames through a gateway need the command ip");
            return None;
        }
        let number = COUNT.fetch_add(1, Ordering::Relaxed);
        let id = format!("corpus-{}-{number}", std::process::id());
        let lab = Self {
            pins: PathBuf::from(format!("/sys/fs/bpf/{id}")),
            id,
            nft: None,
            ebpf: None,
        };
        for role in ["C", "G", "S"] {
            run(&format!("ip netns add {}", lab.name(role)));
        }
        lab.set(SETTINGS);
        for line in NETWORK.lines().filter(|line| !line.trim().is_empty()) {
            let named = |word| match word {
                "C" | "G" | "S" => lab.name(word),
                word => word.to_owned(),
            };
            let words: Vec<String> = line.split_whitespace().map(named).collect();
            run(&format!("ip {}", words.join(" ")));
        }
        Some(lab)
    }

    fn set(&self, settings: &str) {
        for line in settings.lines().filter(|line| !line.trim().is_empty()) {
            let words: Vec<&str> = line.split_whitespace().collect();
            self.within(words[0], || {
                std::fs::write(format!("/proc/sys/{}", words[1]), words[2]).unwrap();
            });
        }
    }

    fn name(&self, role: &str) -> String {
        format!("{}-{role}", self.id)
    }

    /// Does `work` on a thread inside a namespace.
    pub(super) fn within<T: Send>(&self, role: &str, work: impl FnOnce() -> T + Send) -> T {
        let path = format!("/run/netns/{}", self.name(role));
        std::thread::scope(|scope| {
            let thread = scope.spawn(move || {
                setns(std::fs::File::open(path).unwrap(), CloneFlags::CLONE_NEWNET).unwrap();
                work()
            });
            thread
                .join()
                .unwrap_or_else(|panic| std::panic::resume_unwind(panic))
        })
    }

    /// The gateway's index of an interface.
    pub(super) fn index(&self, interface: &str) -> u32 {
        self.within("G", || nix::net::if_::if_nametoindex(interface).unwrap())
    }

    /// Puts `image` in force in the planes of `stand`, in place of what was.
    pub(super) fn stand(&mut self, stand: Stand, image: &Image) {
        let (mode, nft) = match stand {
            Stand::Nft => (None, true),
            Stand::Ebpf { mode, nft } => (Some(mode), nft),
        };
        if nft && self.nft.is_none() {
            self.nft = Some(self.within("G", || NftPlane::open(0).unwrap()));
            // Checksums of the corpus are zero; nobody but conntrack looks at them on the way.
            self.set("G net/netfilter/nf_conntrack_checksum 0");
        }
        if let (Some(mode), None) = (mode, &self.ebpf) {
            let options = EbpfOptions {
                mode,
                pin_dir: self.pins.clone(),
                nft_behind: nft,
                learned: 1000,
            };
            self.ebpf = Some(EbpfPlane::open(options).unwrap());
        }
        self.replace(image);
    }

    /// Puts `image` in force in the planes that stand.
    pub(super) fn replace(&mut self, image: &Image) {
        let (mut nft, mut ebpf) = (self.nft.take(), self.ebpf.take());
        self.within("G", || {
            if let Some(plane) = &mut nft {
                plane.replace(image).unwrap();
            }
            if let Some(plane) = &mut ebpf {
                plane.replace(image).unwrap();
            }
        });
        (self.nft, self.ebpf) = (nft, ebpf);
    }

    /// The two ends of the wires.
    pub(super) fn wires(&self) -> Wires {
        let send = self.within("C", || {
            let address = nix::ifaddrs::getifaddrs()
                .unwrap()
                .filter(|entry| entry.interface_name == "eth0")
                .find_map(|entry| entry.address.filter(|a| a.as_link_addr().is_some()));
            (packets(None), address.unwrap())
        });
        let receive = self.within("S", || packets(Some(SockProtocol::EthAll)));
        setsockopt(&receive, sockopt::RcvBufForce, &(64 << 20)).unwrap();
        Wires {
            send,
            receive,
            marks: MARKS,
        }
    }
}

fn packets(protocol: Option<SockProtocol>) -> OwnedFd {
    let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
    socket(AddressFamily::Packet, SockType::Raw, flags, protocol).unwrap()
}

impl Drop for Lab {
    fn drop(&mut self) {
        for role in ["C", "G", "S"] {
            let _gone = Command::new("ip")
                .args(["netns", "del", &self.name(role)])
                .status();
        }
        let _gone = std::fs::remove_dir_all(&self.pins);
    }
}

/// A frame that came out.
pub(super) type Arrived = Vec<u8>;

/// Where frames go in and come out.
pub(super) struct Wires {
    send: (OwnedFd, SockaddrStorage),
    receive: OwnedFd,
    marks: u16,
}

impl Wires {
    /// Puts a frame on the client's wire. Frames that no device takes are left out.
    pub(super) fn put(&self, frame: &[u8]) {
        let (socket, to) = &self.send;
        let deadline = Instant::now() + PATIENCE;
        loop {
            match sendto(socket.as_raw_fd(), frame, to, MsgFlags::empty()) {
                Ok(_) => return,
                Err(nix::Error::EAGAIN | nix::Error::ENOBUFS) if Instant::now() < deadline => {
                    std::thread::yield_now();
                }
                Err(error) => panic!("{error}: {} bytes", frame.len()),
            }
        }
    }

    fn next(&self) -> Option<Arrived> {
        let mut buffer = vec![0; 10_000];
        match recv(self.receive.as_raw_fd(), &mut buffer, MsgFlags::empty()) {
            Ok(length) => {
                buffer.truncate(length);
                Some(buffer)
            }
            Err(_) => None,
        }
    }

    /// Sends `frames` and returns all that arrived, once a frame sent after each batch is there.
    pub(super) fn through<'a>(
        &mut self,
        frames: impl IntoIterator<Item = &'a [u8]>,
    ) -> Vec<Arrived> {
        // One CPU, one queue: frames keep their order.
        let mut cpus = CpuSet::new();
        cpus.set(0).unwrap();
        sched_setaffinity(nix::unistd::Pid::from_raw(0), &cpus).unwrap();
        let frames: Vec<&[u8]> = frames.into_iter().collect();
        let mut arrived = Vec::new();
        for batch in frames.chunks(BATCH) {
            for frame in batch {
                self.put(frame);
            }
            self.flush(&mut arrived);
        }
        arrived
    }

    fn flush(&mut self, arrived: &mut Vec<Arrived>) {
        let (end, mark) = self.mark();
        self.put(&mark);
        let deadline = Instant::now() + PATIENCE;
        loop {
            match self.next() {
                Some(frame) if source(&frame) == Some(end) => return,
                Some(frame) => arrived.push(frame),
                None => {
                    assert!(Instant::now() < deadline, "a granted frame is lost");
                    std::thread::sleep(Duration::from_micros(200));
                }
            }
        }
    }

    /// A frame that every world forwards, and where it comes from.
    fn mark(&mut self) -> (IpAddr, Vec<u8>) {
        self.marks = if self.marks == MARKS + 300 {
            MARKS
        } else {
            self.marks + 1
        };
        let client = Client::of(self.marks);
        let datagram = samples::udp(39_999, 443, 4);
        let packet = samples::packet(client.v4.into(), plan::GRANTED[0], 17, &datagram);
        let mut frame = samples::ethernet(&[], &packet);
        plan::checksum(&mut frame);
        (client.v4.into(), frame)
    }
}

/// Whom a frame comes from.
pub(super) fn source(frame: &[u8]) -> Option<IpAddr> {
    match frame.get(12..14)? {
        [0x08, 0x00] => Some(IpAddr::from(<[u8; 4]>::try_from(frame.get(26..30)?).ok()?)),
        [0x86, 0xdd] => Some(IpAddr::from(<[u8; 16]>::try_from(frame.get(22..38)?).ok()?)),
        _ => None,
    }
}

/// The clients of the frames that arrived, and the frames of nobody: the gateway's own apart.
pub(super) fn clients(arrived: &[Arrived]) -> (BTreeSet<u16>, Vec<&Arrived>) {
    let mut numbers = BTreeSet::new();
    let mut strange = Vec::new();
    for frame in arrived {
        match source(frame).map(|source| (source, Client::number(source))) {
            Some((_, Some(number))) => {
                numbers.insert(number);
            }
            // Its own groups, neighbours and errors.
            Some((IpAddr::V6(source), None))
                if source.segments()[0] == 0xfe80 || source.is_unspecified() => {}
            None if frame.get(12..14) == Some(&[8, 6]) => {}
            Some((_, None)) | None => strange.push(frame),
        }
    }
    (numbers, strange)
}
