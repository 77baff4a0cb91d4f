//! The server over a real socket: every method, and every way we know to misuse it.
#![expect(
    clippy::disallowed_methods,
    reason = "shell: sockets and deadlines of tests"
)]

use super::client::{Client, ClientError};
use super::protocol::*;
use super::server::Server;
use super::{Candidate, Reply, Request};
use crate::config::ControlSettings;
use crate::observe::{self, Happening};
use nix::unistd::{Gid, Group, Uid};
use std::io::{ErrorKind, Read, Write};
use std::net::Shutdown;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::PathBuf;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};
use tempfile::TempDir;
use tokio::sync::oneshot;

/// Any condition of these tests comes true within this.
const DEADLINE: Duration = Duration::from_secs(10);

const STATUS: &str = "{\"method\":\"org.egressd.Control.GetStatus\"}\0";
const WATCH: &str = "{\"method\":\"org.egressd.Control.Watch\",\"more\":true}\0";

/// A server on a thread of its own, with a loop that answers by script.
struct Running {
    path: PathBuf,
    stop: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
    _directory: TempDir,
}

impl Running {
    fn start(group: Option<&str>, change: impl FnOnce(&mut Server) + Send + 'static) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("run/control.sock");
        let settings = ControlSettings {
            socket: path.clone(),
            group: group.map(str::to_owned),
            admins: group.and_then(|_| group_two()),
        };
        let (stop, stopped) = oneshot::channel();
        let (ready, is_ready) = std::sync::mpsc::channel();
        let thread = std::thread::spawn(move || {
            runtime().block_on(async move {
                let mut server = Server::bind(&settings).unwrap();
                change(&mut server);
                ready.send(()).unwrap();
                tokio::select! {
                    () = server.run(script) => {}
                    _ = stopped => {}
                }
            });
        });
        is_ready.recv_timeout(DEADLINE).unwrap();
        Self {
            path,
            stop: Some(stop),
            thread: Some(thread),
            _directory: directory,
        }
    }

    fn connect(&self) -> UnixStream {
        let stream = UnixStream::connect(&self.path).unwrap();
        stream.set_read_timeout(Some(DEADLINE)).unwrap();
        stream
    }

    /// Open to everybody, as if the file's mode did not protect it.
    fn expose(&self) {
        for path in [self.path.ancestors().nth(2).unwrap(), &self.path] {
            std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o777)).unwrap();
        }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.stop.take();
        let result = self.thread.take().map(JoinHandle::join);
        assert!(
            std::thread::panicking() || matches!(result, Some(Ok(()))),
            "the server panicked"
        );
    }
}

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap()
}

fn script(request: Request) -> oneshot::Receiver<Reply> {
    let (answer, waiting) = oneshot::channel();
    let reply = match request {
        Request::Status => Reply::Status(Box::new(Status {
            revision: 7,
            ..Status::default()
        })),
        Request::Zones => Reply::Zones(ZoneList {
            zones: vec![Zone::default()],
        }),
        // Some hundred kilobytes: more than a socket's buffer.
        Request::Grants(query) => Reply::Grants(GrantPage {
            grants: vec![
                Grant {
                    ports: "tcp/443, ".repeat(100),
                    ..Grant::default()
                };
                query.limit
            ],
            next: query.zone,
        }),
        Request::Explain(query) => match query.zone {
            Some(zone) if zone == "deaf" => return waiting,
            Some(zone) => Reply::Failed(Failure::unknown_zone(&zone, ["managed".to_owned()])),
            None => Reply::Explanation(Box::new(Explanation {
                query: format!("{:?}", query.subject),
                ..Explanation::default()
            })),
        },
        Request::Unseen { catalogue } => Reply::Unseen(UnseenList {
            catalogue,
            ..UnseenList::default()
        }),
        Request::Preview(candidate) => Reply::Preview(Box::new(Preview {
            notes: vec![format!("{candidate:?}")],
            ..Preview::default()
        })),
        Request::Exceptions => Reply::Exceptions(ExceptionList::default()),
        Request::Act { act, who } => Reply::Revoked(Revoked {
            what: format!("{who}: {act:?}"),
            ..Revoked::default()
        }),
        Request::Late { zone } => Reply::Late(LateList {
            names: zone
                .map(|zone| LateName {
                    zone,
                    ..LateName::default()
                })
                .into_iter()
                .collect(),
            ..LateList::default()
        }),
        Request::Reload { force } => Reply::Reloaded(Reloaded {
            changed: force,
            ..Reloaded::default()
        }),
    };
    answer.send(reply).unwrap();
    waiting
}

/// One message, without its NUL; what came before the end of the stream if there is no NUL.
fn message(stream: &mut UnixStream) -> String {
    let (mut bytes, mut byte) = (Vec::new(), [0]);
    loop {
        match stream.read(&mut byte) {
            Ok(1) if byte != [0] => bytes.extend(byte),
            Ok(_) => break,
            Err(why) if why.kind() == ErrorKind::ConnectionReset => break,
            Err(why) => panic!("{why} after {}", String::from_utf8_lossy(&bytes)),
        }
    }
    String::from_utf8(bytes).unwrap()
}

fn call(stream: &mut UnixStream, text: &str) -> String {
    stream.write_all(text.as_bytes()).unwrap();
    message(stream)
}

#[test]
fn every_method() {
    let server = Running::start(None, |_| {});
    runtime().block_on(async {
        let mut client = Client::connect(&server.path).await.unwrap();
        assert_eq!(client.status().await.unwrap().revision, 7);
        assert_eq!(client.zones().await.unwrap().zones.len(), 1);
        let which = GrantsParameters {
            zone: Some("x".to_owned()),
            ..Default::default()
        };
        let page = client.grants(&which).await.unwrap();
        assert_eq!((page.grants.len(), page.next.as_deref()), (500, Some("x")));
        let mut what = ExplainParameters {
            query: "192.0.2.1".to_owned(),
            ..Default::default()
        };
        assert_eq!(
            client.explain(&what).await.unwrap().query,
            "Address(192.0.2.1)"
        );
        what.zone = Some("lab".to_owned());
        let Err(ClientError::Failed(Failure::UnknownZone { text, .. })) =
            client.explain(&what).await
        else {
            panic!("there is no such zone");
        };
        assert_eq!(text, "no zone is called `lab`; zones: managed");
        what.zone = Some("deaf".to_owned());
        let Err(ClientError::Failed(Failure::Busy { .. })) = client.explain(&what).await else {
            panic!("the loop gave the question up");
        };
        assert!(client.reload(true).await.unwrap().changed);
        client.watch().await.unwrap();
        assert_eq!(client.event().await.unwrap().kind, Kind::Watching);
        // Other tests flood the same bus: say it again until it is heard.
        let what = "every_method".to_owned();
        loop {
            observe::record(Happening::Plane {
                plane: "nft",
                what: what.clone(),
            });
            let event = client.event().await.unwrap();
            if event.text == what {
                assert_eq!(
                    (event.kind, event.plane.as_deref()),
                    (Kind::Plane, Some("nft"))
                );
                break;
            }
        }
    });
}

#[test]
fn introspection() {
    let server = Running::start(None, |_| {});
    let mut stream = server.connect();
    let info = call(
        &mut stream,
        "{\"method\":\"org.varlink.service.GetInfo\"}\0",
    );
    assert!(info.contains(r#""interfaces":["org.varlink.service","org.egressd.Control"]"#));
    let describe = |interface: &str| {
        format!(
            "{{\"method\":\"org.varlink.service.GetInterfaceDescription\",\
             \"parameters\":{{\"interface\":\"{interface}\"}}}}\0"
        )
    };
    let own = call(&mut stream, &describe(INTERFACE));
    for expected in [
        "method Explain(",
        "type Grant (",
        "error UnknownZone (",
        "query: string",
    ] {
        assert!(own.contains(expected), "{expected} is not in {own}");
    }
    assert!(call(&mut stream, &describe("org.varlink.service")).contains("method GetInfo()"));
    assert!(call(&mut stream, &describe("a.b")).contains("InterfaceNotFound"));
    let flat = call(&mut stream, "{\"method\":\"org.egressd.Control.Watch\"}\0");
    assert!(flat.contains("ExpectedMore"), "{flat}");
}

#[test]
fn misuse_ends_the_connection_only() {
    fn check(server: &Running, what: &str, bytes: &[u8]) {
        let mut stream = server.connect();
        // The server may hang up before it was sent everything.
        let _ = stream.write_all(bytes);
        assert_eq!(message(&mut stream), "", "{what}");
        assert!(
            call(&mut server.connect(), STATUS).contains("\"revision\":7"),
            "after {what}"
        );
    }
    let server = Running::start(None, |server| {
        server.limits.patience.call = Duration::from_millis(200);
    });
    check(&server, "junk", b"GET / HTTP/1.1\r\n\r\n\0");
    check(&server, "nothing but NULs", &[0; 100]);
    check(
        &server,
        "bytes that are no text",
        b"{\"method\":\"\xff\xfe\"}\0",
    );
    check(&server, "an array", b"[1,2,3]\0");
    check(&server, "no method", b"{}\0");
    check(
        &server,
        "parameters that are no object",
        b"{\"method\":\"a.B\",\"parameters\":3}\0",
    );
    check(
        &server,
        "deep nesting",
        &[vec![b'['; 60_000], vec![0]].concat(),
    );
    check(&server, "half a call", &STATUS.as_bytes()[..20]);
    let padding = " ".repeat(MAX_CALL);
    check(
        &server,
        "a long call",
        STATUS.replace(':', &format!(":{padding}")).as_bytes(),
    );
    check(&server, "a call without end", &vec![b' '; 10 << 20]);
}

#[test]
fn a_call_just_under_the_limit_is_answered() {
    let server = Running::start(None, |_| {});
    let padding = " ".repeat(MAX_CALL - STATUS.len() - 300);
    let text = STATUS.replace(':', &format!(":{padding}"));
    assert!(call(&mut server.connect(), &text).contains("\"revision\":7"));
}

#[test]
fn dripping_does_not_extend_the_deadline() {
    let server = Running::start(None, |server| {
        server.limits.patience.call = Duration::from_millis(300);
    });
    let mut stream = server.connect();
    let began = Instant::now();
    while stream.write_all(b" ").is_ok() {
        assert!(began.elapsed() < DEADLINE, "still connected");
        std::thread::sleep(Duration::from_millis(20));
    }
    assert!(began.elapsed() > Duration::from_millis(250));
}

#[test]
fn idle_connections_end() {
    let server = Running::start(None, |server| {
        server.limits.patience.idle = Duration::from_millis(100);
    });
    assert_eq!(message(&mut server.connect()), "");
}

#[test]
fn calls_may_queue_and_the_sending_side_may_close() {
    let server = Running::start(None, |_| {});
    let mut stream = server.connect();
    stream.write_all(STATUS.repeat(3).as_bytes()).unwrap();
    stream.shutdown(Shutdown::Write).unwrap();
    for _ in 0..3 {
        assert!(message(&mut stream).contains("\"revision\":7"));
    }
    assert_eq!(message(&mut stream), "");
    let mut stream = server.connect();
    stream.write_all(WATCH.as_bytes()).unwrap();
    stream.shutdown(Shutdown::Write).unwrap();
    assert!(message(&mut stream).contains("watching"));
    let text = "half-closed watcher";
    loop {
        observe::record(Happening::Plane {
            plane: "nft",
            what: text.to_owned(),
        });
        if message(&mut stream).contains(text) {
            break;
        }
    }
}

#[test]
fn seats_are_limited_and_given_back() {
    let server = Running::start(None, |server| server.limits.connections = 4);
    // One of them a silent watcher, whose leaving nothing but the kernel tells.
    let mut watcher = server.connect();
    assert!(call(&mut watcher, WATCH).contains("watching"));
    let others: Vec<UnixStream> = (0..3)
        .map(|_| {
            let mut stream = server.connect();
            assert!(call(&mut stream, STATUS).contains("revision"));
            stream
        })
        .collect();
    let refused = message(&mut server.connect());
    assert!(
        refused.contains("Control.Busy") && refused.contains("close some"),
        "{refused}"
    );
    drop(watcher);
    wait_for_a_seat(&server);
    drop(others);
    wait_for_a_seat(&server);
}

fn wait_for_a_seat(server: &Running) {
    let began = Instant::now();
    loop {
        let mut stream = server.connect();
        let _ = stream.write_all(STATUS.as_bytes());
        if message(&mut stream).contains("revision") {
            return;
        }
        assert!(began.elapsed() < DEADLINE, "no seat was given back");
        std::thread::sleep(Duration::from_millis(5));
    }
}

#[test]
fn a_slow_watcher_loses_events_and_nobody_waits_for_it() {
    let server = Running::start(None, |_| {});
    let mut slow = server.connect();
    assert!(call(&mut slow, WATCH).contains("watching"));
    let what = "x".repeat(200);
    for _ in 0..20_000 {
        observe::record(Happening::Plane {
            plane: "nft",
            what: what.clone(),
        });
    }
    assert!(call(&mut server.connect(), STATUS).contains("\"revision\":7"));
    let event = std::iter::from_fn(|| Some(message(&mut slow)))
        .take(20_000)
        .find(|event| event.contains("\"lost\":"));
    assert!(event.is_some(), "20,000 events cannot all have been kept");
}

#[test]
fn a_client_that_does_not_read_its_reply_is_let_go() {
    let server = Running::start(None, |server| {
        server.limits.patience.reply = Duration::from_millis(100);
        server.limits.connections = 1;
    });
    let mut deaf = server.connect();
    let grants = "{\"method\":\"org.egressd.Control.ListGrants\"}\0".repeat(4);
    deaf.write_all(grants.as_bytes()).unwrap();
    wait_for_a_seat(&server);
}

#[test]
fn the_socket_file() {
    let server = Running::start(None, |_| {});
    let mode = std::fs::metadata(&server.path)
        .unwrap()
        .permissions()
        .mode();
    assert_eq!(mode & 0o777, 0o660);
    let settings = ControlSettings {
        socket: server.path.clone(),
        group: None,
        admins: None,
    };
    let bind =
        |settings: &ControlSettings| runtime().block_on(async { Server::bind(settings).map(drop) });
    let why = format!("{:#}", bind(&settings).unwrap_err());
    assert!(why.contains("another egressd"), "{why}");

    let directory = tempfile::tempdir().unwrap();
    let socket = directory.path().join("stale.sock");
    drop(UnixListener::bind(&socket).unwrap());
    bind(&ControlSettings {
        socket,
        group: None,
        admins: None,
    })
    .unwrap();

    let socket = directory.path().join("precious.txt");
    std::fs::write(&socket, "x").unwrap();
    let why = format!(
        "{:#}",
        bind(&ControlSettings {
            socket: socket.clone(),
            group: None,
            admins: None,
        })
        .unwrap_err()
    );
    assert!(why.contains("something else than a socket"), "{why}");
    assert_eq!(std::fs::read_to_string(&socket).unwrap(), "x");

    let group = Some("no-such-group".to_owned());
    let why = format!(
        "{:#}",
        bind(&ControlSettings {
            socket,
            group,
            admins: None
        })
        .unwrap_err()
    );
    assert!(why.contains("groupadd"), "{why}");
}

/// Whose members are administrators, where there are groups at all.
fn group_two() -> Option<String> {
    let group = Group::from_gid(Gid::from_raw(2)).unwrap()?;
    Some(group.name)
}

/// Runs `work` as another user, on a thread of its own: credentials belong to threads.
fn as_user<T: Send>(uid: u32, groups: &[u32], work: impl FnOnce() -> T + Send) -> T {
    std::thread::scope(|scope| {
        let thread = scope.spawn(move || {
            let groups: Vec<_> = groups
                .iter()
                .map(|g| rustix::process::Gid::from_raw(*g))
                .collect();
            rustix::thread::set_thread_groups(&groups).unwrap();
            rustix::thread::set_thread_gid(rustix::process::Gid::from_raw(uid)).unwrap();
            rustix::thread::set_thread_uid(rustix::process::Uid::from_raw(uid)).unwrap();
            work()
        });
        thread.join().unwrap()
    })
}

#[test]
fn a_candidate_comes_in_pieces() {
    let server = Running::start(None, |_| {});
    let long = "\"\n\u{1}ü".repeat(50_000);
    let preview = runtime().block_on(async {
        let mut client = Client::connect(&server.path).await.unwrap();
        client.preview_catalogue("c", &long).await.unwrap()
    });
    let whole = Candidate::Catalogue {
        name: "c".to_owned(),
        text: long,
    };
    assert!(preview.notes == [format!("{whole:?}")]);
    let mut stream = server.connect();
    for (parameters, word) in [
        (r#"{"catalogue":"c"}"#, "both"),
        (r#"{"text":"c"}"#, "both"),
        (
            r#"{"catalogue":"c","text":"x","force":true}"#,
            r#""parameter":"force""#,
        ),
        ("{}", "Configuration"),
    ] {
        let text =
            format!("{{\"method\":\"org.egressd.Control.Preview\",\"parameters\":{parameters}}}\0");
        let told = call(&mut stream, &text);
        assert!(told.contains(word), "{parameters}: {told}");
    }
}

#[test]
fn strangers_and_members() {
    let Some(group) = Group::from_gid(Gid::from_raw(1))
        .unwrap()
        .filter(|_| Uid::effective().is_root())
    else {
        eprintln!("skipped: needs root and a group 1");
        return;
    };
    let server = Running::start(Some(&group.name), |_| {});
    let path = server.path.clone();
    let closed = as_user(65_534, &[], || UnixStream::connect(&path).map(drop));
    assert_eq!(closed.unwrap_err().kind(), ErrorKind::PermissionDenied);

    server.expose();
    let refused = as_user(65_534, &[], || message(&mut server.connect()));
    assert!(
        refused.contains("PermissionDenied") && refused.contains("uid 65534"),
        "{refused}"
    );
    let told = as_user(65_534, &[], || {
        runtime().block_on(async {
            Client::connect(&server.path)
                .await
                .unwrap()
                .status()
                .await
                .unwrap_err()
                .to_string()
        })
    });
    assert!(told.contains("become root"), "{told}");

    as_user(65_534, &[1], || {
        let mut streams: Vec<UnixStream> = (0..8).map(|_| server.connect()).collect();
        for stream in &mut streams {
            assert!(call(stream, STATUS).contains("\"revision\":7"));
        }
        assert!(message(&mut server.connect()).contains("Control.Busy"));
        let reload = "{\"method\":\"org.egressd.Control.Reload\"}\0";
        let refused = call(&mut streams[0], reload);
        assert!(refused.contains("PermissionDenied"), "{refused}");
        for act in [
            r#"Revoke","parameters":{"what":"a.example"}"#,
            r#"Allow","parameters":{"what":"a.example","ports":"443","zone":"z","seconds":60,"reason":"r"}"#,
            r#"Disallow","parameters":{"id":1}"#,
            r#"Preview""#,
            r#"Preview","parameters":{"catalogue":"c","text":"x","unfinished":true}"#,
        ] {
            let text = format!("{{\"method\":\"org.egressd.Control.{act}}}\0");
            let refused = call(&mut streams[0], &text);
            assert!(refused.contains("PermissionDenied"), "{act}: {refused}");
        }
        let list = "{\"method\":\"org.egressd.Control.ListExceptions\"}\0";
        assert!(call(&mut streams[0], list).contains("\"exceptions\":[]"));
    });
    if group_two().is_some() {
        as_user(65_534, &[1, 2], || {
            let revoke =
                r#"{"method":"org.egressd.Control.Revoke","parameters":{"what":"a.example"}}"#;
            // The eight of before are closed here; the server notices a moment later.
            let begun = Instant::now();
            let mut done = String::from("Control.Busy");
            while done.contains("Control.Busy") && begun.elapsed() < DEADLINE {
                done = call(&mut server.connect(), &format!("{revoke}\0"));
            }
            assert!(done.contains("65534: Revoke"), "the peer is named: {done}");
        });
    }
    assert!(call(&mut server.connect(), STATUS).contains("\"revision\":7"));
}

#[test]
fn what_to_do_when_nobody_listens() {
    let directory = tempfile::tempdir().unwrap();
    let why = runtime()
        .block_on(Client::connect(&directory.path().join("none.sock")))
        .unwrap_err()
        .to_string();
    assert!(why.contains("is egressd running?"), "{why}");
}
