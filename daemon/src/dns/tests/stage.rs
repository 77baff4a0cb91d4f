//! The edge between a scripted client, a scripted upstream and a scripted loop.

use super::super::*;
use crate::config::{ClientLimits, Hints, Local, Transport, Unlisted, Upstream};
use crate::policy::answer::Ech;
use crate::policy::catalogue::{Catalogue, EndpointSet};
use crate::policy::image::Mode;
use crate::policy::links::{InterfacePattern, Link, Links, Stack};
use crate::policy::name::Pattern;
use crate::policy::port::{PortSet, Service};
use crate::policy::rules::{Intent, Numbers};
use crate::policy::zone::{Selector, ZoneSpec};
use hickory_proto::op::{Edns, Message, MessageType, OpCode, Query};
use hickory_proto::rr::rdata::{A, AAAA, CNAME};
use hickory_proto::rr::{Name as HickoryName, RData, Record, RecordType};
use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::net::{IpAddr, TcpListener, TcpStream, UdpSocket};
use std::sync::mpsc;

pub(super) const PATIENCE: Duration = Duration::from_secs(5);

/// One zone on loopback, which is listed with another address so that the tests are clients and not
/// the gateway itself.
pub(super) fn rules(mode: Mode) -> Arc<ArcSwap<Rules>> {
    let lo = Link {
        name: "lo".to_owned(),
        up: true,
        mac: vec![],
        ethernet: true,
        stack: Stack::default(),
        addresses: vec!["127.99.99.99/8".parse().unwrap()],
    };
    let set = |id: &str, names: &[&str]| EndpointSet {
        id: id.to_owned(),
        patterns: names.iter().map(|n| Pattern::parse(n).unwrap()).collect(),
        ports: PortSet::new([Service::tcp(443)]),
        ..EndpointSet::default()
    };
    let intent = Intent {
        catalogues: vec![Catalogue {
            name: "c".to_owned(),
            sets: vec![
                set("web", &["*.a.example", "b.example"]),
                set("bad", &["bad.a.example"]),
            ],
            ..Catalogue::default()
        }],
        zones: vec![ZoneSpec {
            name: "z".to_owned(),
            interfaces: vec![InterfacePattern::parse("lo").unwrap()],
            sources: vec!["127.0.0.0/8".parse().unwrap(), "::1/128".parse().unwrap()],
            allow: vec![Selector::parse("c").unwrap()],
            deny: vec![Selector::parse("c/bad").unwrap()],
            mode,
            ..ZoneSpec::default()
        }],
        ..Intent::default()
    };
    let links = Links(BTreeMap::from([(1, lo)]));
    let rules = Rules::compile(Arc::new(intent), links, &mut Numbers::default()).unwrap();
    Arc::new(ArcSwap::from_pointee(rules))
}

pub(super) fn settings(upstreams: &[Upstream]) -> DnsSettings {
    DnsSettings {
        listen: vec!["127.0.0.1:0".parse().unwrap()],
        upstreams: upstreams.to_vec(),
        forwards: Vec::new(),
        authorities: Vec::new(),
        unlisted: Unlisted::Refuse,
        local: Local::Refuse,
        timeout: Duration::from_millis(1000),
        race: Duration::from_millis(150),
        hold: Duration::from_millis(1500),
        hints: Hints::Admit,
        ech: Ech::Keep,
        dns64: None,
        dnssec: None,
        cache: 1 << 20,
        stale: Duration::ZERO,
        own_lookups: false,
        types: vec![],
        clients: ClientLimits::default(),
        marked: false,
    }
}

/// The edge, and what it submitted.
pub(super) struct Stage {
    pub(super) edge: Edge,
    pub(super) rules: Arc<ArcSwap<Rules>>,
    pub(super) epoch: Arc<AtomicU64>,
    pub(super) submitted: mpsc::Receiver<Waiting>,
    pub(super) untaught: mpsc::Receiver<Untaught>,
}

impl Stage {
    pub(super) fn new(settings: &DnsSettings) -> Self {
        Self::in_mode(Mode::Enforce, settings)
    }

    pub(super) fn in_mode(mode: Mode, settings: &DnsSettings) -> Self {
        let (send, submitted) = mpsc::channel();
        let submit = move |batch: Vec<Waiting>| {
            for waiting in batch {
                // A test that looks away does not block the edge.
                let _ = send.send(waiting);
            }
            Ok(())
        };
        Self::open(mode, settings, submit, submitted)
    }

    /// One whose loop takes nothing.
    pub(super) fn busy(mode: Mode, settings: &DnsSettings) -> Self {
        let (_, submitted) = mpsc::channel();
        Self::open(mode, settings, |_| Err(Busy), submitted)
    }

    fn open(
        mode: Mode,
        settings: &DnsSettings,
        submit: impl Fn(Vec<Waiting>) -> Result<(), Busy> + Send + 'static,
        submitted: mpsc::Receiver<Waiting>,
    ) -> Self {
        let epoch = Arc::new(AtomicU64::new(7));
        let rules = rules(mode);
        let (tell, untaught) = mpsc::channel();
        let tell = move |told| {
            // As above.
            let _ = tell.send(told);
        };
        let edge = start(
            settings,
            Arc::clone(&rules),
            Arc::clone(&epoch),
            submit,
            tell,
        );
        Self {
            rules,
            edge: edge.unwrap(),
            epoch,
            submitted,
            untaught,
        }
    }

    pub(super) fn with(script: Script) -> Self {
        Self::new(&settings(&[upstream(script)]))
    }

    /// A client's socket, connected to the edge.
    pub(super) fn client(&self) -> UdpSocket {
        let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
        socket.set_read_timeout(Some(PATIENCE)).unwrap();
        socket.connect(self.edge.addresses()[0]).unwrap();
        socket
    }

    /// Asks over UDP and waits for the reply; lets every answer go.
    pub(super) fn ask(&self, name: &str, kind: RecordType) -> Message {
        let client = self.client();
        client.send(&question(name, kind)).unwrap();
        self.release_until(|| receive(&client))
    }

    /// Asks over TCP and waits for the reply; lets every answer go.
    pub(super) fn ask_tcp(&self, name: &str, kind: RecordType) -> Message {
        let mut stream = self.connect();
        write_frame(&mut stream, &question(name, kind));
        self.release_until(|| Message::from_vec(&read_frame(&mut stream).unwrap()).unwrap())
    }

    pub(super) fn connect(&self) -> TcpStream {
        let stream = TcpStream::connect(self.edge.addresses()[0]).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream
    }

    pub(super) fn waiting(&self) -> Waiting {
        self.submitted
            .recv_timeout(PATIENCE)
            .expect("the answer is submitted")
    }

    pub(super) fn release(&self, token: Token, outcome: Result<(), &str>) {
        self.edge.release(Release {
            token,
            outcome: outcome
                .map(|()| self.epoch.load(std::sync::atomic::Ordering::Relaxed))
                .map_err(str::to_owned),
        });
    }

    pub(super) fn release_until<T: Send>(&self, mut body: impl FnMut() -> T + Send) -> T {
        std::thread::scope(|scope| {
            let running = scope.spawn(&mut body);
            while !running.is_finished() {
                if let Ok(waiting) = self.submitted.recv_timeout(Duration::from_millis(10)) {
                    self.release(waiting.token, Ok(()));
                }
            }
            running.join().unwrap()
        })
    }
}

pub(super) fn receive(client: &UdpSocket) -> Message {
    let mut buffer = [0; 65_535];
    let length = client.recv(&mut buffer).expect("the edge replies");
    Message::from_vec(&buffer[..length]).unwrap()
}

pub(super) fn question(name: &str, kind: RecordType) -> Vec<u8> {
    let mut message = Message::new(4711, MessageType::Query, OpCode::Query);
    message.metadata.recursion_desired = true;
    message.add_query(Query::query(HickoryName::from_ascii(name).unwrap(), kind));
    let mut edns = Edns::new();
    edns.set_max_payload(1232);
    message.set_edns(edns);
    message.to_vec().unwrap()
}

pub(super) fn write_frame(stream: &mut impl Write, message: &[u8]) {
    let length = u16::try_from(message.len()).unwrap().to_be_bytes();
    stream.write_all(&[&length, message].concat()).unwrap();
}

pub(super) fn read_frame(stream: &mut impl Read) -> std::io::Result<Vec<u8>> {
    let mut length = [0; 2];
    stream.read_exact(&mut length)?;
    let mut message = vec![0; usize::from(u16::from_be_bytes(length))];
    stream.read_exact(&mut message)?;
    Ok(message)
}

/// What an upstream sends back, in order, for a question that came over TCP or not.
pub(super) type Script = fn(&Message, bool) -> Vec<Vec<u8>>;

/// An upstream on loopback, over UDP and TCP, that plays `script`.
pub(super) fn upstream(script: Script) -> Upstream {
    // The port that UDP gets may be in use for TCP.
    let (udp, tcp) = std::iter::repeat_with(|| {
        let udp = UdpSocket::bind("127.0.0.1:0").unwrap();
        let tcp = TcpListener::bind(udp.local_addr().unwrap()).ok()?;
        Some((udp, tcp))
    })
    .find_map(|pair| pair)
    .unwrap();
    let address = udp.local_addr().unwrap();
    std::thread::spawn(move || {
        let mut buffer = [0; 4096];
        while let Ok((length, from)) = udp.recv_from(&mut buffer) {
            let question = Message::from_vec(&buffer[..length]).unwrap();
            for reply in script(&question, false) {
                udp.send_to(&reply, from).unwrap();
            }
        }
    });
    std::thread::spawn(move || {
        for stream in tcp.incoming() {
            let mut stream = stream.unwrap();
            std::thread::spawn(move || {
                while let Ok(question) = read_frame(&mut stream) {
                    for reply in script(&Message::from_vec(&question).unwrap(), true) {
                        write_frame(&mut stream, &reply);
                    }
                }
            });
        }
    });
    Upstream {
        transport: Transport::Udp,
        address,
    }
}

/// A reply to `question` without records.
pub(super) fn reply_to(question: &Message) -> Message {
    let mut reply = Message::response(question.metadata.id, OpCode::Query);
    reply.metadata.recursion_available = true;
    reply.add_query(question.queries[0].clone());
    reply
}

/// A reply that gives the asked name these addresses, of whatever family was asked for.
pub(super) fn addresses(question: &Message, ttl: u32, addresses: &[IpAddr]) -> Message {
    let mut reply = reply_to(question);
    for address in addresses {
        reply.add_answer(address_record(&question.queries[0].name, ttl, *address));
    }
    reply
}

pub(super) fn address_record(owner: &HickoryName, ttl: u32, address: IpAddr) -> Record {
    let data = match address {
        IpAddr::V4(address) => RData::A(A(address)),
        IpAddr::V6(address) => RData::AAAA(AAAA(address)),
    };
    Record::from_rdata(owner.clone(), ttl, data)
}

pub(super) fn alias(owner: &HickoryName, ttl: u32, target: &str) -> Record {
    let target = HickoryName::from_ascii(target).unwrap();
    Record::from_rdata(owner.clone(), ttl, RData::CNAME(CNAME(target)))
}

/// The addresses in the answer section.
pub(super) fn told(reply: &Message) -> Vec<IpAddr> {
    reply
        .answers
        .iter()
        .filter_map(|record| record.data.ip_addr())
        .collect()
}

/// The extended error's code, if there is one.
pub(super) fn extended(reply: &Message) -> Option<u16> {
    let options = reply.edns.as_ref()?.options();
    options.as_ref().iter().find_map(|(code, option)| {
        let bytes = Vec::<u8>::try_from(option).ok()?;
        (u16::from(*code) == 15).then(|| u16::from_be_bytes([bytes[0], bytes[1]]))
    })
}
