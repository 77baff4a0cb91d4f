#![expect(
    clippy::disallowed_methods,
    reason = "shell: makes namespaces with `ip`, opens sockets in them"
)]
//! The plane on real interfaces: client, gateway and server in namespaces of their own.

use super::super::{EbpfOptions, EbpfPlane, sweep_pins};
use super::{can_run, image};
use crate::config::EbpfMode;
use crate::plane::Plane as _;
use crate::policy::ZoneId;
use crate::policy::image::{Change, Image};
use crate::policy::links::Link;
use crate::policy::origin::Origin;
use crate::policy::port::{ClassId, ClassMask, PortSet, Service};
use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::path::PathBuf;
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

/// Long enough for a packet through three namespaces on a busy machine.
pub(super) const PATIENCE: Duration = Duration::from_secs(5);

pub(super) fn run(line: &str) {
    let mut words = line.split_whitespace();
    let output = Command::new(words.next().expect("a command"))
        .args(words)
        .output()
        .expect("runs");
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{line}: {errors}");
}

/// Three namespaces and a pin directory, removed at the end.
pub(super) struct World {
    id: String,
    pub(super) pins: PathBuf,
}

impl World {
    pub(super) fn new(test: &str) -> Self {
        let id = format!("ebpf-{test}-{}", std::process::id());
        let pins = PathBuf::from(format!("/sys/fs/bpf/{id}"));
        let world = Self { id, pins };
        for role in ["client", "gateway", "server"] {
            run(&format!("ip netns add {}", world.name(role)));
            world.ip(role, "link set lo up");
        }
        world.wire("client", "eth0", "gateway", "lan0");
        world.wire("gateway", "wan0", "server", "eth0");
        world.ip("client", "addr add 10.20.1.1/16 dev eth0");
        world.ip("client", "route add default via 10.20.0.1");
        world.ip("gateway", "addr add 10.20.0.1/16 dev lan0");
        world.ip("gateway", "addr add 192.0.2.1/24 dev wan0");
        world.ip("gateway", "route add 198.51.100.0/24 via 192.0.2.2");
        world.ip("server", "addr add 192.0.2.2/24 dev eth0");
        world.ip("server", "route add default via 192.0.2.1");
        for last in 1..=4 {
            world.ip("server", &format!("addr add 198.51.100.{last}/32 dev lo"));
        }
        let forward = "net.ipv4.ip_forward=1";
        run(&format!(
            "nsenter --net=/run/netns/{} sysctl -qw {forward}",
            world.name("gateway")
        ));
        world
    }

    pub(super) fn name(&self, role: &str) -> String {
        format!("{}-{role}", self.id)
    }

    pub(super) fn ip(&self, role: &str, arguments: &str) {
        run(&format!("ip -n {} {arguments}", self.name(role)));
    }

    pub(super) fn wire(&self, a: &str, a_name: &str, b: &str, b_name: &str) {
        let (a_space, b_space) = (self.name(a), self.name(b));
        run(&format!(
            "ip link add {a_name} netns {a_space} type veth peer name {b_name} netns {b_space}"
        ));
        self.ip(a, &format!("link set {a_name} up"));
        self.ip(b, &format!("link set {b_name} up"));
    }

    /// Does `work` on a thread inside a namespace.
    pub(super) fn inside<T: Send>(&self, role: &str, work: impl FnOnce() -> T + Send) -> T {
        let path = format!("/run/netns/{}", self.name(role));
        std::thread::scope(|scope| {
            let thread = scope.spawn(move || {
                let space = std::fs::File::open(path).unwrap();
                nix::sched::setns(space, nix::sched::CloneFlags::CLONE_NEWNET).unwrap();
                work()
            });
            match thread.join() {
                Ok(value) => value,
                Err(panic) => std::panic::resume_unwind(panic),
            }
        })
    }

    pub(super) fn index(&self, interface: &str) -> u32 {
        self.inside("gateway", || {
            nix::net::if_::if_nametoindex(interface).unwrap()
        })
    }

    pub(super) fn open(&self, mode: EbpfMode) -> EbpfPlane {
        self.open_at(mode, "")
    }

    pub(super) fn open_at(&self, mode: EbpfMode, pins: &str) -> EbpfPlane {
        self.open_with(mode, pins, false)
    }

    pub(super) fn open_with(&self, mode: EbpfMode, pins: &str, nft_behind: bool) -> EbpfPlane {
        let options = EbpfOptions {
            mode,
            pin_dir: self.pins.join(pins),
            nft_behind,
            learned: 1000,
        };
        EbpfPlane::open(options).unwrap()
    }

    /// Zone `managed` on `lan0`, with 198.51.100.1 granted on UDP 443 under `class`.
    pub(super) fn image(&self, class: u8) -> Image {
        self.image_with(class, &[("lan0", "10.20.0.1/16"), ("wan0", "192.0.2.1/24")])
    }

    pub(super) fn image_with(&self, class: u8, interfaces: &[(&str, &str)]) -> Image {
        let mut image = image();
        let link = |name: &str, address: &str| Link {
            name: name.into(),
            addresses: vec![address.parse().unwrap()],
            ..image.links.0[&1].clone()
        };
        let links = interfaces
            .iter()
            .map(|(name, address)| (self.index(name), link(name, address)));
        image.links.0 = links.collect();
        image.classes = vec![(ClassId(class), PortSet::new([Service::udp(443)]))];
        image.zones.truncate(1);
        image.zones[0].networks.clear();
        image.grants = vec![(ZoneId(0), address(1), ClassMask::of(ClassId(class)))];
        image
    }
}

impl Drop for World {
    fn drop(&mut self) {
        for role in ["client", "gateway", "server"] {
            let _ = Command::new("ip")
                .args(["netns", "del", &self.name(role)])
                .status();
        }
        let _ = std::fs::remove_dir_all(&self.pins);
    }
}

fn address(last: u8) -> IpAddr {
    [198, 51, 100, last].into()
}

/// A client that sends and a server that says what arrived.
struct Wire {
    client: UdpSocket,
    server: UdpSocket,
    sent: u64,
}

impl Wire {
    fn new(world: &World) -> Self {
        let bind = |text: &'static str| move || UdpSocket::bind(text).unwrap();
        let client = world.inside("client", bind("10.20.1.1:5000"));
        let server = world.inside("server", bind("0.0.0.0:443"));
        server.set_read_timeout(Some(PATIENCE)).unwrap();
        Self {
            client,
            server,
            sent: 0,
        }
    }

    fn send(&mut self, last: u8) -> u64 {
        self.sent += 1;
        let to = SocketAddr::new(address(last), 443);
        self.client.send_to(&self.sent.to_be_bytes(), to).unwrap();
        self.sent
    }

    fn next(&self) -> Option<u64> {
        let mut buffer = [0; 8];
        self.server
            .recv_from(&mut buffer)
            .ok()
            .map(|_| u64::from_be_bytes(buffer))
    }

    /// Which of `addresses` a packet reaches. 198.51.100.1 is always granted: a packet to it shows
    /// that all before it are either there or lost.
    fn reaches(&mut self, addresses: &[u8]) -> Vec<u8> {
        let sent: Vec<(u64, u8)> = addresses
            .iter()
            .map(|last| (self.send(*last), *last))
            .collect();
        let end = self.send(1);
        let mut arrived = Vec::new();
        loop {
            match self.next().expect("the granted packet arrives") {
                number if number == end => return arrived,
                number => {
                    arrived.extend(
                        sent.iter()
                            .filter(|(n, _)| *n == number)
                            .map(|(_, last)| *last),
                    );
                }
            }
        }
    }
}

impl Wire {
    #[track_caller]
    fn check(&mut self, addresses: &[u8], expected: &[u8]) {
        assert_eq!(self.reaches(addresses), expected, "of {addresses:?}");
    }

    /// Neighbours get to know each other; meanwhile the kernel keeps few packets for them.
    fn warm_up(&mut self) {
        let deadline = Instant::now() + PATIENCE;
        while self.reaches(&[2]) != [2] {
            assert!(Instant::now() < deadline, "nothing arrives");
        }
    }
}

fn change(last: u8, class: u8, open: bool) -> Change {
    let of = |open| {
        if open {
            ClassMask::of(ClassId(class))
        } else {
            ClassMask::NONE
        }
    };
    Change {
        zone: ZoneId(0),
        address: address(last),
        was: of(!open),
        now: of(open),
        origin: Origin::default(),
    }
}

/// The whole life of the plane in one mode.
fn live(test: &str, mode: EbpfMode, described: &str) {
    if !can_run(test) {
        return;
    }
    let world = World::new(test);
    let mut wire = Wire::new(&world);
    // Before the plane everything passes.
    wire.warm_up();

    let image = world.image(0);
    let mut plane = world.open(mode);
    world.inside("gateway", || plane.replace(&image).unwrap());
    let told = hooks(&plane).concat();
    let instead = told.strip_prefix(described);
    let instead = instead.unwrap_or_else(|| panic!("{told}, and not {described}"));
    let is_second_choice =
        mode == EbpfMode::Auto && !described.contains("xdp") || described.contains("clsact");
    assert_eq!(
        !instead.is_empty(),
        is_second_choice,
        "instead of {instead}"
    );
    world.inside("gateway", || plane.verify().unwrap());
    wire.check(&[2, 3], &[]);

    assert_eq!(plane.apply(&[change(3, 0, true)]).unwrap(), []);
    assert_eq!(
        plane.holds(ZoneId(0), address(3)).unwrap(),
        ClassMask::of(ClassId(0))
    );
    assert_eq!(plane.read().unwrap().len(), 2);
    wire.check(&[2, 3], &[3]);
    assert_eq!(
        plane
            .apply(&[change(3, 0, false), change(9, 0, false)])
            .unwrap(),
        []
    );
    wire.check(&[2, 3], &[]);

    let told: Vec<_> = plane
        .refused()
        .iter()
        .map(|packet| (packet.destination, packet.port))
        .collect();
    assert_eq!(told, [2, 3].map(|last| (address(last), 443)));
    let unreported = "refused packets counted but not reported: 3 repeated, 0 lost";
    let described = plane.describe();
    assert!(
        described.iter().any(|line| line == unreported),
        "{described:?}"
    );
    let dropped: u64 = plane
        .counters()
        .iter()
        .filter(|c| c.action == "drop")
        .map(|c| c.packets)
        .sum();
    assert_eq!(dropped, 5);
    let seen = plane.last_seen(&[(ZoneId(0), address(1)), (ZoneId(0), address(2))]);
    assert_eq!(seen.len(), 1);

    // The process goes, its links stay.
    drop(plane);
    wire.check(&[2, 3], &[]);

    // Another one adopts the link; class bits mean something else now.
    let mut plane = world.open(mode);
    assert!(world.inside("gateway", || plane.verify().is_err()));
    let image = world.image(7);
    world.inside("gateway", || plane.replace(&image).unwrap());
    world.inside("gateway", || plane.verify().unwrap());
    wire.check(&[2, 3], &[]);

    // What leaves the zones is detached.
    let mut none = image.clone();
    none.zones.clear();
    world.inside("gateway", || plane.replace(&none).unwrap());
    // The kernel detaches a link whose last pin went a moment later.
    wire.warm_up();
    wire.check(&[2], &[2]);
    assert_eq!(
        std::fs::read_dir(world.pins.join("links")).unwrap().count(),
        0
    );
}

/// How programs are attached to traffic control here.
pub(super) fn traffic_control() -> &'static str {
    if kernel() >= (6, 6) {
        "tcx"
    } else {
        "clsact (this kernel has no TCX)"
    }
}

/// Whether the kernel can run our XDP program, which reads frames in fragments (Linux 5.18).
pub(super) fn has_xdp(test: &str) -> bool {
    let has = kernel() >= (5, 18);
    if !has {
        eprintln!("SKIPPED {test}: no XDP on frames in fragments before Linux 5.18");
    }
    has
}

/// Version and patch level of the running kernel.
pub(super) fn kernel() -> (u32, u32) {
    let release = std::fs::read_to_string("/proc/sys/kernel/osrelease").unwrap();
    let mut numbers = release.split('.').map(|number| number.parse().unwrap_or(0));
    (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0))
}

#[test]
fn native_xdp() {
    if has_xdp("native") {
        live("native", EbpfMode::Xdp, "lan0: xdp native");
    }
}

#[test]
fn tcx() {
    live("tcx", EbpfMode::Tc, &format!("lan0: {}", traffic_control()));
}

#[test]
fn auto_takes_native_xdp() {
    let described = if has_xdp("auto as on kernels with XDP") {
        "lan0: xdp native"
    } else {
        "lan0: clsact (this kernel has no TCX)"
    };
    live("auto", EbpfMode::Auto, described);
}

const REPLACEMENTS: usize = 6;

#[test]
fn replacing_has_no_gap() {
    let test = "gap";
    if !can_run(test) || !has_xdp(test) {
        return;
    }
    let world = World::new(test);
    let mut wire = Wire::new(&world);
    wire.warm_up();
    let images = [world.image(0), world.image(9)];
    let mut plane = world.open(EbpfMode::Xdp);
    world.inside("gateway", || plane.replace(&images[0]).unwrap());
    let done = AtomicBool::new(false);
    let (denied, arrived) = std::thread::scope(|scope| {
        let traffic = scope.spawn(|| {
            let (mut denied, mut arrived) = (0u64, 0u64);
            while !done.load(Ordering::Relaxed) {
                denied += 3;
                arrived += wire.reaches(&[2, 3, 4]).len() as u64;
            }
            (denied, arrived)
        });
        for round in 0..REPLACEMENTS {
            // Every other time by a new process, which knows only the pins.
            if round % 2 == 1 {
                plane = world.open(EbpfMode::Xdp);
            }
            world.inside("gateway", || plane.replace(&images[round % 2]).unwrap());
        }
        done.store(true, Ordering::Relaxed);
        traffic.join().unwrap()
    });
    println!("{REPLACEMENTS} replacements: {arrived} of {denied} denied packets arrived");
    assert!(denied > 100, "only {denied} packets");
    assert_eq!(arrived, 0);
}

#[test]
fn lost_and_foreign_links() {
    let test = "links";
    if !can_run(test) || !has_xdp(test) {
        return;
    }
    let world = World::new(test);
    let image = world.image(0);
    let mut plane = world.open(EbpfMode::Xdp);
    world.inside("gateway", || plane.replace(&image).unwrap());

    // Someone removes the pin.
    let pin = world.pins.join("links/lan0:xdp");
    std::fs::remove_file(&pin).unwrap();
    assert!(plane.verify().unwrap_err().to_string().contains("pin"));
    world.inside("gateway", || plane.replace(&image).unwrap());
    world.inside("gateway", || plane.verify().unwrap());

    // The interface goes and comes back under another index.
    world.ip("gateway", "link del lan0");
    let deadline = Instant::now() + PATIENCE;
    while plane.verify().is_ok() {
        assert!(Instant::now() < deadline, "the loss was not noticed");
    }
    world.wire("client", "eth0", "gateway", "lan0");
    let image = world.image(0);
    world.inside("gateway", || plane.replace(&image).unwrap());
    world.inside("gateway", || plane.verify().unwrap());

    // A link of another interface under this one's name is not adopted.
    drop(plane);
    // Older kernels rename only what is down.
    for (name, other) in [("lan0", "old0"), ("wan0", "lan0")] {
        world.ip("gateway", &format!("link set {name} down"));
        world.ip("gateway", &format!("link set {name} name {other}"));
        world.ip("gateway", &format!("link set {other} up"));
    }
    let image = world.image_with(0, &[("lan0", "10.20.0.1/16")]);
    let mut plane = world.open(EbpfMode::Xdp);
    world.inside("gateway", || plane.replace(&image).unwrap());
    world.inside("gateway", || plane.verify().unwrap());
    assert_eq!(hooks(&plane), ["lan0: xdp native"]);
}

#[test]
fn a_plane_that_is_switched_off_does_not_stay_in_force() {
    let test = "off";
    if !can_run(test) || !has_xdp(test) {
        return;
    }
    let world = World::new(test);
    let mut wire = Wire::new(&world);
    wire.warm_up();
    assert_eq!(
        world.inside("gateway", || sweep_pins(&world.pins).unwrap()),
        0
    );
    for mode in [EbpfMode::Xdp, EbpfMode::Tc] {
        let mut plane = world.open(mode);
        let image = world.image(0);
        world.inside("gateway", || plane.replace(&image).unwrap());
        drop(plane);
        wire.check(&[2], &[]);
        assert_eq!(
            world.inside("gateway", || sweep_pins(&world.pins).unwrap()),
            1
        );
        // The kernel detaches it a moment later.
        wire.warm_up();
        assert_eq!(
            world.inside("gateway", || sweep_pins(&world.pins).unwrap()),
            0
        );
    }
}

#[test]
fn another_program_on_the_interface_is_an_error() {
    let test = "taken";
    if !can_run(test) || !has_xdp(test) {
        return;
    }
    let world = World::new(test);
    let image = world.image(0);
    for (theirs, ours) in [
        (EbpfMode::Xdp, EbpfMode::Auto),
        (EbpfMode::XdpGeneric, EbpfMode::Auto),
    ] {
        let mut other = world.open_at(theirs, "theirs");
        world.inside("gateway", || other.replace(&image).unwrap());
        let mut plane = world.open(ours);
        let error = world.inside("gateway", || plane.replace(&image).unwrap_err());
        assert!(
            format!("{error:#}").contains("another program"),
            "{error:#}"
        );
        assert!(plane.describe().is_empty());
        other.verify().unwrap();
        drop(other);
        sweep_pins(&world.pins.join("theirs")).unwrap();
    }
}

#[test]
fn another_mode_takes_the_place_of_the_one_before() {
    let test = "mode";
    if !can_run(test) || !has_xdp(test) {
        return;
    }
    let world = World::new(test);
    let image = world.image(0);
    for (mode, described) in [
        (EbpfMode::XdpGeneric, "lan0: xdp generic"),
        (EbpfMode::Auto, "lan0: xdp native"),
        (EbpfMode::XdpGeneric, "lan0: xdp generic"),
    ] {
        let mut plane = world.open(mode);
        world.inside("gateway", || plane.replace(&image).unwrap());
        assert_eq!(hooks(&plane), [described]);
    }
}

#[test]
fn a_full_map_refuses_only_what_does_not_fit() {
    let test = "full";
    if !can_run(test) {
        return;
    }
    let world = World::new(test);
    let mut image = world.image(0);
    image.zones.clear();
    let mut plane = world.open(EbpfMode::Auto);
    world.inside("gateway", || plane.replace(&image).unwrap());
    let changes: Vec<Change> = (0..1100u16)
        .map(|n| Change {
            address: IpAddr::from([203, 0, (n >> 8) as u8, n as u8]),
            ..change(1, 0, true)
        })
        .collect();
    let refused = plane.apply(&changes).unwrap();
    // One of the thousand places was taken before.
    assert_eq!(refused.len(), 101);
    let held = plane.read().unwrap();
    for change in &changes {
        assert_ne!(
            held.contains_key(&(ZoneId(0), change.address)),
            refused.contains(change)
        );
    }
}

/// What the plane says of its interfaces.
pub(super) fn hooks(plane: &EbpfPlane) -> Vec<String> {
    let mut lines = plane.describe();
    lines.retain(|line| !line.starts_with("maps: "));
    lines
}
