//! Servers on loopback that answer by script, over real TLS.
#![expect(
    clippy::disallowed_methods,
    reason = "servers of their own, whose slowness is the point"
)]

use super::*;
use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};
use std::io::{Read as _, Write as _};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use std::thread;
use tokio_rustls::rustls::crypto::ring;
use tokio_rustls::rustls::pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};
use tokio_rustls::rustls::{ServerConfig, ServerConnection, StreamOwned};

const HOST: &str = "feed.example";
const LIST: &str = "name = \"v\"\n";

/// What a server does with one request after the other, each on a connection of its own.
#[derive(Clone)]
enum Does {
    /// Says this and closes as TLS wants it.
    Says(String),
    /// Says this and closes the connection under it.
    BreaksOff(String),
    /// Says this, and nothing more.
    Hangs(String),
    /// Says this, and then byte after byte for ever.
    Drips(String),
}

fn ok(body: &str) -> String {
    format!(
        "HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    )
}

fn head(lines: &str) -> String {
    format!("HTTP/1.1 {lines}\r\nContent-Length: 0\r\n\r\n")
}

fn says(text: String) -> Does {
    Does::Says(text)
}

struct Stage {
    authority: CertificateDer<'static>,
    address: SocketAddr,
    /// The heads of requests that came.
    heard: Arc<Mutex<Vec<String>>>,
}

impl Stage {
    /// A server that is certified for `names` until the end of the year `until`.
    fn with(script: Vec<Does>, names: &[&str], until: i32) -> Self {
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let key = KeyPair::generate().unwrap();
        let authority = params.self_signed(&key).unwrap().der().clone();
        let issuer = Issuer::new(params, key);
        let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
        let mut params = CertificateParams::new(names).unwrap();
        params.not_after = rcgen::date_time_ymd(until, 12, 31);
        let key = KeyPair::generate().unwrap();
        let certificate = params.signed_by(&key, &issuer).unwrap();
        let private = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(key.serialize_der()));
        let config = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(vec![certificate.der().clone()], private)
            .unwrap();
        let config = Arc::new(config);
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let heard = Arc::new(Mutex::new(Vec::new()));
        let noted = Arc::clone(&heard);
        thread::spawn(move || {
            let mut script = script.into_iter();
            for stream in listener.incoming() {
                let connection = ServerConnection::new(Arc::clone(&config)).unwrap();
                let mut stream = StreamOwned::new(connection, stream.unwrap());
                let Some(request) = request(&mut stream) else {
                    continue;
                };
                noted.lock().unwrap().push(request);
                let Some(does) = script.next() else { return };
                // A client that has enough goes away.
                let _ = act(stream, does);
            }
        });
        Self {
            authority,
            address,
            heard,
        }
    }

    fn new(script: Vec<Does>) -> Self {
        Self::with(script, &[HOST], 2040)
    }

    fn source(&self, path: &str) -> Source {
        Source {
            url: Endpoint::parse(&format!("https://{HOST}:{}{path}", self.address.port())).unwrap(),
            public_key: None,
            proxy: None,
            authorities: vec![self.authority.clone()],
        }
    }

    fn heard(&self) -> Vec<String> {
        self.heard.lock().unwrap().clone()
    }
}

fn request(stream: &mut impl std::io::Read) -> Option<String> {
    let mut text = Vec::new();
    let mut byte = [0];
    while !text.ends_with(b"\r\n\r\n") {
        stream.read_exact(&mut byte).ok()?;
        text.push(byte[0]);
    }
    String::from_utf8(text).ok()
}

fn act(mut stream: StreamOwned<ServerConnection, TcpStream>, does: Does) -> std::io::Result<()> {
    match does {
        Does::Says(text) => {
            stream.write_all(text.as_bytes())?;
            stream.conn.send_close_notify();
            stream.flush()?;
            // The client closes when it has read everything.
            let _ = stream.sock.read(&mut [0; 64]);
        }
        Does::BreaksOff(text) => {
            stream.write_all(text.as_bytes())?;
            stream.flush()?;
            stream.sock.shutdown(std::net::Shutdown::Both)?;
        }
        Does::Hangs(text) => {
            stream.write_all(text.as_bytes())?;
            stream.flush()?;
            let _ = stream.sock.read(&mut [0; 4096]);
            thread::sleep(Duration::from_secs(5));
        }
        Does::Drips(text) => {
            stream.write_all(text.as_bytes())?;
            loop {
                stream.write_all(b"x")?;
                stream.flush()?;
                thread::sleep(Duration::from_millis(20));
            }
        }
    }
    Ok(())
}

fn limits() -> Limits {
    Limits {
        body: 1000,
        step: Duration::from_millis(700),
        whole: Duration::from_millis(2000),
        redirects: 3,
    }
}

fn run(source: &Source, memory: &Memory) -> Outcome {
    run_at(source, memory, &[Ipv4Addr::LOCALHOST])
}

/// With these addresses for every name that is known.
fn run_at(source: &Source, memory: &Memory, addresses: &[Ipv4Addr]) -> Outcome {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    let resolve = async |name: &Name| {
        let known = ["feed.example", "proxy.example", "other.example"];
        match known.contains(&&*name.to_string()) {
            true => addresses.iter().copied().map(IpAddr::from).collect(),
            false => Vec::new(),
        }
    };
    runtime.block_on(fetch(source, "ID", memory, &limits(), resolve))
}

/// What an outcome says, with `new:` before a list.
fn word(outcome: Outcome) -> String {
    match outcome {
        Outcome::Unchanged => "unchanged".to_owned(),
        Outcome::New { bytes, .. } => format!("new:{}", String::from_utf8(bytes).unwrap()),
        Outcome::Later { after, why } => format!("later {}: {why}", after.as_secs()),
        Outcome::Failed { why } => why,
    }
}

fn check(script: Vec<Does>, path: &str, expected: &str) {
    let stage = Stage::new(script);
    let got = word(run(&stage.source(path), &Memory::default()));
    assert!(got.contains(expected), "expected {expected:?}, got {got:?}");
}

#[test]
fn a_list_comes_whole_or_not_at_all() {
    check(vec![says(ok(LIST))], "/list", "new:name");
    let chunked =
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nname\r\n3\r\n=2\n\r\n0\r\n\r\n";
    check(vec![says(chunked.to_owned())], "/list", "new:name=2\n");
    let cut = "HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nname";
    check(vec![says(cut.to_owned())], "/list", "broke off");
    check(vec![Does::BreaksOff(cut.to_owned())], "/list", "broke off");
    let endless = "HTTP/1.1 200 OK\r\n\r\nname";
    check(vec![says(endless.to_owned())], "/list", "new:name");
    check(
        vec![Does::BreaksOff(endless.to_owned())],
        "/list",
        "broke off",
    );
    let half = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nname\r\n";
    check(vec![says(half.to_owned())], "/list", "broke off");
    check(
        vec![says(ok(&"x".repeat(1001)))],
        "/list",
        "longer than 1000 bytes",
    );
    check(
        vec![says(
            "HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nContent-Length: 2\r\n\r\nxx".to_owned(),
        )],
        "/list",
        "encoded as \"gzip\"",
    );
    // Told to be longer than it may be: refused before it comes.
    let told = "HTTP/1.1 200 OK\r\nContent-Length: 1001\r\n\r\n";
    check(
        vec![Does::Hangs(told.to_owned())],
        "/list",
        "longer than 1000 bytes",
    );
    let many = format!("3e9\r\n{}\r\n", "x".repeat(1001));
    let chunks = format!("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n{many}");
    check(vec![Does::Hangs(chunks)], "/list", "longer than 1000 bytes");
    check(
        vec![says("SSH-2.0-x\r\n".to_owned())],
        "/list",
        "the answer",
    );
    check(vec![Does::BreaksOff(String::new())], "/list", "the answer");
}

#[test]
fn nobody_is_waited_for_too_long() {
    check(
        vec![Does::Hangs(String::new())],
        "/list",
        "the answer: nothing came for",
    );
    check(
        vec![Does::Hangs("HTTP/1.1 200 OK\r\nContent-Le".to_owned())],
        "/list",
        "the answer: nothing came for",
    );
    check(
        vec![Does::Hangs(
            "HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nna".to_owned(),
        )],
        "/list",
        "the list: nothing came for",
    );
    check(
        vec![Does::Drips(
            "HTTP/1.1 200 OK\r\nContent-Length: 900\r\n\r\n".to_owned(),
        )],
        "/list",
        "it took longer than",
    );
    check(
        vec![Does::Drips("HTTP/1.1 200 OK\r\n".to_owned())],
        "/list",
        "nothing came for",
    );
}

#[test]
fn servers_say_no() {
    check(
        vec![says(head("404 Not Found"))],
        "/list",
        "the server says 404",
    );
    check(
        vec![says(head("500 Internal Server Error"))],
        "/list",
        "the server says 500",
    );
    check(
        vec![says(head("304 Not Modified"))],
        "/list",
        "the server says 304",
    );
    check(
        vec![says(head("429 Too Many Requests\r\nRetry-After: 120"))],
        "/list",
        "later 120: the server says 429",
    );
    check(
        vec![says(head("429 Too Many Requests"))],
        "/list",
        "later 3600",
    );
    check(
        vec![says(head(
            "503 Service Unavailable\r\nRetry-After: Wed, 21 Oct 2026 07:28:00 GMT",
        ))],
        "/list",
        "later 3600",
    );
    check(
        vec![says(head("204 No Content"))],
        "/list",
        "the server says 204",
    );
    let until = "Date: Wed, 21 Oct 2026 07:00:00 GMT\r\nRetry-After: Wed, 21 Oct 2026 09:00:00 GMT";
    check(
        vec![says(head(&format!("503 Service Unavailable\r\n{until}")))],
        "/list",
        "later 7200",
    );
    let page = "HTTP/1.1 200 OK\r\nContent-Type: text/html\r\nContent-Length: 6\r\n\r\n<html>";
    check(
        vec![says(page.to_owned())],
        "/list.json",
        "a page for people",
    );
    check(
        vec![says(page.to_owned())],
        "/endpoints/worldwide",
        "a page for people",
    );
    check(vec![says(page.to_owned())], "/list", "new:<html>");
}

#[test]
fn redirections_stay_within_tls() {
    let to = |place: &str| says(head(&format!("302 Found\r\nLocation: {place}")));
    check(vec![to("/there"), says(ok(LIST))], "/list", "new:name");
    check(
        vec![to("http://feed.example/there")],
        "/list",
        "leads elsewhere",
    );
    check(vec![to("//feed.example/there")], "/list", "leads elsewhere");
    check(
        vec![to("/1"), to("/2"), to("/3"), to("/4")],
        "/list",
        "more than 3 times",
    );
    // Another host is believed by a certificate of its own.
    let elsewhere = Stage::new(Vec::new());
    let other = Stage::with(vec![says(ok(LIST))], &["feed.example"], 2040);
    let place = format!("https://other.example:{}/x", other.address.port());
    let stage = Stage::new(vec![to(&place)]);
    let source = Source {
        authorities: vec![
            stage.authority.clone(),
            other.authority,
            elsewhere.authority,
        ],
        ..stage.source("/list")
    };
    let got = word(run(&source, &Memory::default()));
    assert!(
        got.contains("TLS") && got.contains("other.example"),
        "{got}"
    );
    assert!(other.heard.lock().unwrap().is_empty());
}

#[test]
fn whom_to_believe() {
    let other_name = Stage::with(vec![says(ok(LIST))], &["else.example"], 2040);
    let got = word(run(&other_name.source("/list"), &Memory::default()));
    assert!(got.starts_with("TLS: "), "{got}");
    let expired = Stage::with(vec![says(ok(LIST))], &[HOST], 2020);
    let got = word(run(&expired.source("/list"), &Memory::default()));
    assert!(got.starts_with("TLS: ") && got.contains("xpired"), "{got}");
    let stranger = Stage::new(vec![says(ok(LIST))]);
    let mut source = stranger.source("/list");
    source.authorities = vec![other_name.authority];
    let got = word(run(&source, &Memory::default()));
    assert!(got.starts_with("TLS: "), "{got}");
    for stage in [&expired, &stranger] {
        assert!(stage.heard().is_empty(), "nothing is asked of it");
    }
    source.url.host = "nowhere.example".to_owned();
    let got = word(run(&source, &Memory::default()));
    assert_eq!(
        got,
        "`nowhere.example` has no address that the upstreams know"
    );
}

#[test]
fn what_did_not_change_does_not_come_again() {
    let new = format!(
        "HTTP/1.1 200 OK\r\nETag: \"7\"\r\nLast-Modified: Mon, 23 Nov 2026 10:00:00 GMT\r\nContent-Length: {}\r\n\r\n{LIST}",
        LIST.len()
    );
    let stage = Stage::new(vec![
        says(new),
        says("HTTP/1.1 304 Not Modified\r\n\r\n".to_owned()),
    ]);
    let source = stage.source("/list?x=y");
    let Outcome::New { memory, .. } = run(&source, &Memory::default()) else {
        panic!("nothing new");
    };
    assert_eq!(memory.etag.as_deref(), Some("\"7\""));
    assert_eq!(run(&source, &memory), Outcome::Unchanged);
    let heard = stage.heard();
    assert!(
        heard[0].starts_with("GET /list?x=y HTTP/1.1\r\nhost: feed.example:"),
        "{heard:?}"
    );
    assert!(
        heard[0].contains("accept-encoding: identity\r\n"),
        "{heard:?}"
    );
    assert!(!heard[0].contains("if-"), "{heard:?}");
    assert!(
        heard[1].contains(
            "if-none-match: \"7\"\r\nif-modified-since: Mon, 23 Nov 2026 10:00:00 GMT\r\n"
        ),
        "{heard:?}"
    );
}

#[test]
fn the_web_service_is_asked_for_its_version_first() {
    let version = |number: &str| {
        says(ok(&format!(
            "{{\"instance\":\"Worldwide\",\"latest\":\"{number}\"}}"
        )))
    };
    let known = |number: &str| Memory {
        version: Some(number.to_owned()),
        ..Memory::default()
    };
    let path = "/endpoints/worldwide?ServiceAreas=MEM";
    let stage = Stage::new(vec![
        version("2026062900"),
        says(ok("[]")),
        version("2026062900"),
    ]);
    let source = stage.source(path);
    let Outcome::New { memory, .. } = run(&source, &known("2026032900")) else {
        panic!("nothing new");
    };
    assert_eq!(memory.version.as_deref(), Some("2026062900"));
    assert_eq!(run(&source, &memory), Outcome::Unchanged);
    let asked: Vec<String> = (stage.heard().iter())
        .map(|head| head.lines().next().unwrap().to_owned())
        .collect();
    assert_eq!(
        asked,
        [
            "GET /version/worldwide?clientrequestid=ID HTTP/1.1",
            "GET /endpoints/worldwide?ServiceAreas=MEM&clientrequestid=ID HTTP/1.1",
            "GET /version/worldwide?clientrequestid=ID HTTP/1.1",
        ]
    );
    let check = |script: Vec<Does>, expected: &str| {
        let stage = Stage::new(script);
        let got = word(run(&stage.source(path), &known("2026062900")));
        assert!(got.contains(expected), "{got}");
    };
    check(
        vec![version("2026052900")],
        "went back from 2026062900 to 2026052900",
    );
    check(
        vec![says(head("429 Too Many Requests\r\nRetry-After: 9"))],
        "later 9",
    );
    check(vec![says(ok("<html>sign in</html>"))], "/version");
    check(vec![says(ok("{}"))], "/version");
    check(
        vec![version("2026072900"), says(head("404 Not Found"))],
        "404",
    );
}

/// minisign's published example: a key, and its signature of the four letters `test`.
#[test]
fn a_list_bears_the_signature_that_it_must() {
    const KEY: &str = "RWQf6LRCGA9i53mlYecO4IzT51TGPpvWucNSCh1CBM0QTaLn73Y7GFO3";
    const SIGNATURE: &str = "untrusted comment: signature from minisign secret key\n\
        RUQf6LRCGA9i559r3g7V1qNyJDApGip8MfqcadIgT9CuhV3EMhHoN1mGTkUidF/z7SrlQgXdy8ofjb7bNJJylDOocrCo8KLzZwo=\n\
        trusted comment: timestamp:1633700835\tfile:test\tprehashed\n\
        wLMDjy9FLAuxZ3q4NlEvkgtyhrr0gtTu6KC4KBJdITbbOeAi1zBIYo0v4iTgt8jJpIidRJnp94ABQkJAgAooBQ==\n";
    let check = |script: Vec<Does>, expected: &str| {
        let stage = Stage::new(script);
        let mut source = stage.source("/list?a=b");
        source.public_key = Some(KEY.to_owned());
        let got = word(run(&source, &Memory::default()));
        assert!(got.contains(expected), "{got}");
        stage
    };
    let stage = check(vec![says(ok("test")), says(ok(SIGNATURE))], "new:test");
    assert!(stage.heard()[1].starts_with("GET /list.minisig?a=b HTTP/1.1"));
    check(
        vec![says(ok("tost")), says(ok(SIGNATURE))],
        "does not fit it",
    );
    check(vec![says(ok("test")), says(ok("rubbish"))], "its signature");
    check(
        vec![says(ok("test")), says(head("404 Not Found"))],
        "its signature: the server says 404",
    );
    assert!(public_key(KEY).is_ok());
    assert!(public_key("RWQ").unwrap_err().contains("minisign.pub"));
}

/// An address and port where connections are neither taken nor refused: its queue is full.
fn black_hole(address: Ipv4Addr, port: u16) -> Vec<socket2::Socket> {
    use socket2::{Domain, Socket, Type};
    let stream = || Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
    let to = SocketAddr::from((address, port)).into();
    let listener = stream();
    listener.bind(&to).unwrap();
    listener.listen(0).unwrap();
    let mut open = vec![listener];
    loop {
        let next = stream();
        let full = next
            .connect_timeout(&to, Duration::from_millis(100))
            .is_err();
        open.push(next);
        if full {
            return open;
        }
        assert!(open.len() < 50, "the queue has no end");
    }
}

#[test]
fn an_address_that_swallows_everything_leaves_time_for_the_next() {
    let stage = Stage::new(vec![says(ok(LIST))]);
    let (hole, nobody) = (Ipv4Addr::new(127, 0, 0, 2), Ipv4Addr::new(127, 0, 0, 3));
    let _open = black_hole(hole, stage.address.port());
    let source = stage.source("/list");
    let memory = Memory::default();
    let alone = word(run_at(&source, &memory, &[hole]));
    assert!(
        alone.contains("connect to 127.0.0.2") && alone.contains("nothing came"),
        "{alone}"
    );
    // Twice as many steps as there is time for, had each its own.
    let got = word(run_at(
        &source,
        &memory,
        &[hole, hole, hole, hole, nobody, Ipv4Addr::LOCALHOST],
    ));
    assert!(got.contains("new:name"), "{got}");
}

#[test]
fn a_handshake_that_never_comes() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let mut source = Stage::new(Vec::new()).source("/list");
    source.url.port = listener.local_addr().unwrap().port();
    let got = word(run(&source, &Memory::default()));
    assert!(got.contains("TLS: nothing came for"), "{got}");
}

/// What is held came before the key was written: that the server has nothing newer makes nobody believe it.
#[test]
fn another_key_asks_anew() {
    let stage = Stage::new(vec![says(ok("tost")), says(ok("rubbish"))]);
    let mut source = stage.source("/list");
    let memory = Memory {
        etag: Some("\"7\"".to_owned()),
        last_modified: Some("Mon, 23 Nov 2026 10:00:00 GMT".to_owned()),
        ..Memory::default()
    };
    source.public_key = Some("RWQf6LRCGA9i53mlYecO4IzT51TGPpvWucNSCh1CBM0QTaLn73Y7GFO3".to_owned());
    let got = word(run(&source, &memory));
    assert!(got.contains("its signature"), "{got}");
    assert!(!stage.heard()[0].contains("if-"), "{:?}", stage.heard());

    let version = "{\"instance\":\"Worldwide\",\"latest\":\"2026062900\"}";
    let stage = Stage::new(vec![says(ok(version)), says(ok("[]")), says(ok("rubbish"))]);
    let source = Source {
        public_key: source.public_key,
        ..stage.source("/endpoints/worldwide")
    };
    let memory = Memory {
        version: Some("2026062900".to_owned()),
        ..Memory::default()
    };
    let got = word(run(&source, &memory));
    assert!(got.contains("its signature"), "{got}");
}

/// A proxy that answers a CONNECT by script, and then carries bytes.
fn proxy(reply: &'static str, server: SocketAddr) -> (Proxy, Arc<Mutex<Vec<String>>>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let heard = Arc::new(Mutex::new(Vec::new()));
    let noted = Arc::clone(&heard);
    thread::spawn(move || {
        let (mut client, _) = listener.accept().unwrap();
        noted.lock().unwrap().extend(request(&mut client));
        client.write_all(reply.as_bytes()).unwrap();
        if !reply.starts_with("HTTP/1.1 200") {
            thread::sleep(Duration::from_secs(2));
            return;
        }
        let mut there = TcpStream::connect(server).unwrap();
        let (mut back, mut to) = (there.try_clone().unwrap(), client.try_clone().unwrap());
        thread::spawn(move || std::io::copy(&mut back, &mut to));
        let _ = std::io::copy(&mut client, &mut there);
    });
    let proxy = Proxy::parse(&format!("http://proxy.example:{port}")).unwrap();
    (proxy, heard)
}

#[test]
fn through_a_proxy() {
    let check = |reply: &'static str, expected: &str| {
        let stage = Stage::new(vec![says(ok(LIST))]);
        let (through, heard) = proxy(reply, stage.address);
        let mut source = stage.source("/list");
        source.proxy = Some(through);
        let got = word(run(&source, &Memory::default()));
        assert!(got.contains(expected), "{got}");
        let asked = heard.lock().unwrap()[0].clone();
        let port = stage.address.port();
        assert!(
            asked.starts_with(&format!("CONNECT feed.example:{port} HTTP/1.1\r\n")),
            "{asked}"
        );
    };
    check("HTTP/1.1 200 Connection established\r\n\r\n", "new:name");
    check(
        "HTTP/1.1 407 Proxy Authentication Required\r\nContent-Length: 0\r\n\r\n",
        "the proxy: says 407",
    );
    check("", "the proxy: its answer: nothing came for");
}
