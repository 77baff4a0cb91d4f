//! A gateway in three network namespaces for the plane's own tests: client – gateway – internet.
#![expect(
    clippy::disallowed_methods,
    reason = "shell: tests build namespaces with ip and nft"
)]

use nix::sched::{CloneFlags, setns};
use std::fs::File;
use std::io::{Read as _, Write as _};
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

/// Long enough for a connection that is let through on a busy machine.
const PASS: Duration = Duration::from_secs(3);
/// Long enough for a refusal to show, as nothing comes back.
const REFUSE: Duration = Duration::from_millis(250);

/// The three namespaces; gone when dropped.
pub(super) struct Lab {
    id: String,
}

/// One of the three.
#[derive(Clone, Copy, Debug)]
pub(super) enum Place {
    Client,
    Gateway,
    Internet,
}

impl Place {
    const ALL: [Self; 3] = [Self::Client, Self::Gateway, Self::Internet];

    const fn word(self) -> &'static str {
        match self {
            Self::Client => "client",
            Self::Gateway => "gateway",
            Self::Internet => "internet",
        }
    }
}

/// Client at 10.20.0.2 and 2001:db8:20::2 on `lan0`; the internet beyond `wan0` has 203.0.113.1–9
/// and 2001:db8:ff::1–9.
const NETWORK: &str = "
    link add lan0 netns G type veth peer name eth0 netns C
    link add wan0 netns G type veth peer name eth0 netns I
    -n C addr add 10.20.0.2/16 dev eth0
    -n C addr add 10.20.0.3/16 dev eth0
    -n C addr add 10.99.0.2/16 dev eth0
    -n C -6 addr add 2001:db8:20::2/64 dev eth0 nodad
    -n G addr add 10.20.0.1/16 dev lan0
    -n G addr add 10.99.0.1/16 dev lan0
    -n G -6 addr add 2001:db8:20::1/64 dev lan0 nodad
    -n G addr add 198.51.100.1/24 dev wan0
    -n G -6 addr add 2001:db8:1::1/64 dev wan0 nodad
    -n I addr add 198.51.100.2/24 dev eth0
    -n I -6 addr add 2001:db8:1::2/64 dev eth0 nodad
    -n I addr add 203.0.113.0/24 dev lo
    -n C link set eth0 up
    -n G link set lan0 up
    -n G link set wan0 up
    -n I link set eth0 up
    -n I link set lo up
    -n C link set lo up
    -n C route add default via 10.20.0.1
    -n C -6 route add default via 2001:db8:20::1
    -n G route add default via 198.51.100.2
    -n G -6 route add default via 2001:db8:1::2
    -n I route add 10.0.0.0/8 via 198.51.100.1
    -n I -6 route add 2001:db8:20::/64 via 2001:db8:1::1
    -n I -6 route add local 2001:db8:ff::/64 dev lo
";

impl Lab {
    /// The lab, or `None` (said aloud) where the machine cannot have one.
    pub(super) fn new() -> Option<Self> {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        if !nix::unistd::geteuid().is_root() {
            eprintln!("SKIPPED: the nft plane's kernel tests need root");
            return None;
        }
        for tool in ["ip", "nft", "conntrack"] {
            let mut command = Command::new(tool);
            command
                .arg("-V")
                .stdout(Stdio::null())
                .stderr(Stdio::null());
            if command.status().is_err() {
                eprintln!("SKIPPED: the nft plane's kernel tests need the command {tool}");
                return None;
            }
        }
        let number = COUNT.fetch_add(1, Ordering::Relaxed);
        let lab = Self {
            id: format!("nft{}-{number}", std::process::id()),
        };
        for place in Place::ALL {
            run("ip", &["netns", "add", &lab.namespace(place)]);
            // Without duplicate address detection neighbours answer from the first packet on.
            lab.within(place, || {
                std::fs::write("/proc/sys/net/ipv6/conf/default/accept_dad", "0").unwrap();
            });
        }
        for line in NETWORK
            .lines()
            .map(str::trim)
            .filter(|line| !line.is_empty())
        {
            let words: Vec<String> = line
                .split(' ')
                .map(|word| match word {
                    "C" => lab.namespace(Place::Client),
                    "G" => lab.namespace(Place::Gateway),
                    "I" => lab.namespace(Place::Internet),
                    word => word.to_owned(),
                })
                .collect();
            run("ip", &words.iter().map(String::as_str).collect::<Vec<_>>());
        }
        lab.within(Place::Gateway, || {
            std::fs::write("/proc/sys/net/ipv4/ip_forward", "1").unwrap();
            std::fs::write("/proc/sys/net/ipv6/conf/all/forwarding", "1").unwrap();
        });
        // Its IPv6 addresses are a route, not addresses.
        lab.within(Place::Internet, || {
            std::fs::write("/proc/sys/net/ipv6/ip_nonlocal_bind", "1").unwrap();
        });
        Some(lab)
    }

    fn namespace(&self, place: Place) -> String {
        format!("{}-{}", self.id, place.word())
    }

    /// Runs `work` in a thread of its own inside one of the namespaces.
    pub(super) fn within<T: Send>(&self, place: Place, work: impl FnOnce() -> T + Send) -> T {
        let path = format!("/run/netns/{}", self.namespace(place));
        std::thread::scope(|scope| {
            let thread = scope.spawn(|| {
                setns(File::open(path).unwrap(), CloneFlags::CLONE_NEWNET).unwrap();
                work()
            });
            thread.join().unwrap()
        })
    }

    /// The output of a command in the gateway.
    pub(super) fn gateway(&self, command: &str, input: &str) -> String {
        self.within(Place::Gateway, || {
            let mut words = command.split(' ');
            let mut child = Command::new(words.next().unwrap())
                .args(words)
                .stdin(Stdio::piped())
                .stdout(Stdio::piped())
                .stderr(Stdio::piped())
                .spawn()
                .unwrap();
            child
                .stdin
                .take()
                .unwrap()
                .write_all(input.as_bytes())
                .unwrap();
            let output = child.wait_with_output().unwrap();
            let errors = String::from_utf8_lossy(&output.stderr).into_owned();
            assert!(output.status.success(), "{command}: {errors}");
            String::from_utf8(output.stdout).unwrap()
        })
    }

    /// What a command in the gateway says that must fail.
    pub(super) fn gateway_fails(&self, command: &str) -> String {
        self.within(Place::Gateway, || {
            let mut words = command.split(' ');
            let mut command = Command::new(words.next().unwrap());
            let output = command.args(words).output().unwrap();
            assert!(!output.status.success(), "{command:?}");
            String::from_utf8_lossy(&output.stderr).into_owned()
        })
    }

    /// A TCP server that answers every connection with one byte, for as long as the test runs.
    pub(super) fn serve(&self, place: Place, address: &str) {
        let listener = self.within(place, || TcpListener::bind(address).unwrap());
        std::thread::spawn(move || {
            for mut stream in listener.incoming().flatten() {
                std::thread::spawn(move || {
                    let mut byte = [0];
                    while stream.read_exact(&mut byte).is_ok() && stream.write_all(&byte).is_ok() {}
                });
            }
        });
    }

    /// A TCP connection from the client that carried one byte there and back.
    pub(super) fn connect(
        &self,
        place: Place,
        from: &str,
        to: &str,
        patience: Duration,
    ) -> Option<TcpStream> {
        let (from, to): (IpAddr, SocketAddr) = (from.parse().unwrap(), to.parse().unwrap());
        self.within(place, || {
            let domain = socket2::Domain::for_address(to);
            let socket = socket2::Socket::new(domain, socket2::Type::STREAM, None).unwrap();
            socket.bind(&SocketAddr::new(from, 0).into()).unwrap();
            socket.connect_timeout(&to.into(), patience).ok()?;
            let stream = TcpStream::from(socket);
            stream.set_read_timeout(Some(patience)).unwrap();
            carries(&stream).then_some(stream)
        })
    }

    /// Whether the client reaches a TCP server is as expected.
    pub(super) fn tcp(&self, to: &str, expected: bool) {
        let from = if to.starts_with('[') {
            "2001:db8:20::2"
        } else {
            "10.20.0.2"
        };
        let got = self.connect(
            Place::Client,
            from,
            to,
            if expected { PASS } else { REFUSE },
        );
        assert_eq!(got.is_some(), expected, "tcp from {from} to {to}");
    }

    /// Whether a datagram of the client arrives in the internet is as expected.
    pub(super) fn udp(&self, to: &str, expected: bool) {
        let server = self.within(Place::Internet, || UdpSocket::bind(to).unwrap());
        server
            .set_read_timeout(Some(if expected { PASS } else { REFUSE }))
            .unwrap();
        let any = if to.starts_with('[') {
            "[::]:0"
        } else {
            "0.0.0.0:0"
        };
        let client = self.within(Place::Client, || UdpSocket::bind(any).unwrap());
        client.send_to(b"x", to).unwrap();
        let got = server.recv_from(&mut [0; 8]).is_ok();
        assert_eq!(got, expected, "udp to {to}");
    }
}

/// Whether a byte still goes there and back.
pub(super) fn carries(mut stream: &TcpStream) -> bool {
    stream.write_all(b"x").is_ok() && stream.read_exact(&mut [0]).is_ok()
}

impl Drop for Lab {
    fn drop(&mut self) {
        for place in Place::ALL {
            let _gone = Command::new("ip")
                .args(["netns", "del", &self.namespace(place)])
                .status();
        }
    }
}

fn run(command: &str, arguments: &[&str]) {
    let output = Command::new(command).args(arguments).output().unwrap();
    let errors = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(
        output.status.success(),
        "{command} {}: {errors}",
        arguments.join(" ")
    );
}
