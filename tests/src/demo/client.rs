//! The client: `dig`, `curl`, `ping` and plain datagrams, run from inside its namespace.
#![expect(
    clippy::disallowed_methods,
    reason = "shell: starts clients and times them"
)]

use super::plan::{Attempt, Job, Means, Question, Target};
use crate::lab::{Namespace, WEB_PORTS};
use anyhow::{Context, Result};
use serde::Serialize;
use std::collections::VecDeque;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};
use std::process::Command;
use std::sync::{Mutex, mpsc};
use std::thread;
use std::time::{Duration, Instant};

/// What one question or attempt came to.
#[derive(Clone, Debug, Serialize)]
pub struct Event {
    /// Index of the group.
    #[serde(skip)]
    pub group: usize,
    /// What was tried, as one could type it.
    pub tried: String,
    /// Whether it had to pass.
    pub must_pass: bool,
    /// Whether it did, as the client saw it (for a question: whether an answer came).
    pub passed: bool,
    /// What came back.
    pub detail: String,
    /// Milliseconds.
    pub took: u128,
    /// For a question.
    #[serde(skip)]
    pub is_question: bool,
    /// Destination, protocol and port, for the witness.
    #[serde(skip)]
    pub trace: Option<(IpAddr, u8, u16)>,
    /// An answer that held what no answer may hold, or something else that is wrong by itself.
    pub wrong: Option<String>,
}

/// How long an attempt that must fail may try. The witness sees a leak even if it is slower.
const PATIENCE: &str = "0.7";
const PATIENCE_MS: Duration = Duration::from_millis(700);

/// Does `jobs` from inside `client`, many at a time; `tell` gets each event as it happens and, after
/// a job's last one, the index of its group.
///
/// # Errors
/// When the namespace cannot be entered.
pub fn run(
    client: &Namespace,
    jobs: &[Job],
    workers: usize,
    mut tell: impl FnMut(Told) -> Result<()>,
) -> Result<()> {
    let queue = Mutex::new(jobs.iter().collect::<VecDeque<_>>());
    let next = || {
        queue
            .lock()
            .expect("no worker panics while it holds the queue")
            .pop_front()
    };
    thread::scope(|scope| {
        let (sender, receiver) = mpsc::channel();
        for _ in 0..workers {
            let sender = sender.clone();
            scope.spawn(move || {
                if let Err(error) = client.join() {
                    // The receiver may have given up already.
                    let _late = sender.send(Err(error));
                    return;
                }
                while let Some(job) = next() {
                    let mut send = |event| sender.send(Ok(Told::Event(event))).is_ok();
                    if !work(job, &mut send) || sender.send(Ok(Told::Done(job.group))).is_err() {
                        return;
                    }
                }
            });
        }
        drop(sender);
        receiver.into_iter().try_for_each(|told| tell(told?))
    })
}

/// News of a run.
#[derive(Debug)]
pub enum Told {
    /// Something was tried.
    Event(Event),
    /// A job of this group is done.
    Done(usize),
}

fn work(job: &Job, send: &mut dyn FnMut(Event) -> bool) -> bool {
    let mut answered = Vec::new();
    let host = job
        .question
        .as_ref()
        .map_or("bare.lab", |question| question.name.as_str());
    if let Some(question) = &job.question {
        let began = Instant::now();
        let reply = dig(question);
        answered.clone_from(&reply.addresses);
        if !send(asked(job.group, question, &reply, began.elapsed())) {
            return false;
        }
    }
    job.attempts.iter().all(|attempt| {
        let event = match address(attempt.to, &answered) {
            Some(address) => attempted(job.group, host, attempt, address),
            None => Event {
                group: job.group,
                tried: format!("{host} by {:?}", attempt.by),
                must_pass: attempt.must_pass,
                passed: false,
                detail: "no such address was answered".to_owned(),
                took: 0,
                is_question: false,
                trace: None,
                // An attempt that must fail has proved nothing when it was never made.
                wrong: Some("not tried".to_owned()),
            },
        };
        send(event)
    })
}

fn address(target: Target, answered: &[IpAddr]) -> Option<IpAddr> {
    match target {
        Target::Answered4 => answered.iter().copied().find(IpAddr::is_ipv4),
        Target::Answered6 => answered.iter().copied().find(IpAddr::is_ipv6),
        Target::Fixed(address) => Some(address),
    }
}

fn asked(group: usize, question: &Question, reply: &Reply, took: Duration) -> Event {
    let bad: Vec<String> = question
        .never
        .iter()
        .filter(|never| reply.addresses.contains(never))
        .map(ToString::to_string)
        .collect();
    let transport = if question.tcp { " +tcp" } else { "" };
    Event {
        group,
        tried: format!("dig @{} {}{transport}", question.resolver, question.name),
        must_pass: question.must_answer,
        passed: !reply.addresses.is_empty(),
        detail: reply.text(),
        took: took.as_millis(),
        is_question: true,
        trace: (!question.must_answer).then_some((
            question.resolver,
            if question.tcp { 6 } else { 17 },
            53,
        )),
        wrong: (!bad.is_empty()).then(|| format!("answered {}", bad.join(", "))),
    }
}

/// What dig printed.
struct Reply {
    status: String,
    extended: Option<String>,
    addresses: Vec<IpAddr>,
}

impl Reply {
    fn text(&self) -> String {
        let extended = self
            .extended
            .as_ref()
            .map(|e| format!(" ({e})"))
            .unwrap_or_default();
        let count = self.addresses.len();
        match self.status.as_str() {
            "NOERROR" => format!("NOERROR{extended}, {count} addresses"),
            status => format!("{status}{extended}"),
        }
    }
}

fn dig(question: &Question) -> Reply {
    let resolver = format!("@{}", question.resolver);
    let patience = if question.must_answer {
        "+time=5"
    } else {
        "+time=1"
    };
    let mut command = Command::new("dig");
    command.args([
        &resolver,
        patience,
        "+tries=1",
        "+noall",
        "+comments",
        "+answer",
    ]);
    if question.tcp {
        command.arg("+tcp");
    }
    command.args([&question.name, "A", &question.name, "AAAA"]);
    let output = command.output();
    read_dig(
        &output
            .map(|o| String::from_utf8_lossy(&o.stdout).into_owned())
            .unwrap_or_default(),
    )
}

fn read_dig(text: &str) -> Reply {
    let after = |line: &str, mark: &str| line.split_once(mark).map(|(_, rest)| rest.to_owned());
    let statuses: Vec<String> = text
        .lines()
        .filter_map(|line| after(line, "status: "))
        .filter_map(|rest| rest.split(',').next().map(str::to_owned))
        .collect();
    let status = match statuses.as_slice() {
        [] => "no answer".to_owned(),
        [one, rest @ ..] => rest
            .iter()
            .find(|other| *other != one)
            .unwrap_or(one)
            .clone(),
    };
    Reply {
        status,
        extended: text.lines().find_map(|line| after(line, "EDE: ")),
        addresses: text
            .lines()
            .filter(|line| !line.starts_with(';'))
            .filter_map(|line| line.split_whitespace().last()?.parse().ok())
            .collect(),
    }
}

fn attempted(group: usize, host: &str, attempt: &Attempt, address: IpAddr) -> Event {
    let began = Instant::now();
    let (tried, result) = match attempt.by {
        Means::Web(port) => {
            let tls = WEB_PORTS.contains(&(port, true));
            let url = format!("{}://{host}:{port}/", if tls { "https" } else { "http" });
            let tried = format!("curl {url} at {address}");
            (tried, curl(&url, host, address, port, attempt.must_pass))
        }
        Means::Datagram(port) => {
            let to = SocketAddr::new(address, port);
            (
                format!("udp {host} at {to}"),
                datagram(to, attempt.must_pass),
            )
        }
        Means::Ping => (format!("ping {host} at {address}"), ping(address)),
    };
    let (protocol, port) = attempt.by.trace(address);
    let (passed, detail) = match result {
        Ok(detail) => (true, detail),
        Err(error) => (false, format!("{error:#}")),
    };
    Event {
        group,
        tried,
        must_pass: attempt.must_pass,
        passed,
        detail,
        took: began.elapsed().as_millis(),
        is_question: false,
        trace: Some((address, protocol, port)),
        wrong: None,
    }
}

fn curl(url: &str, host: &str, address: IpAddr, port: u16, patient: bool) -> Result<String> {
    let literal = match address {
        IpAddr::V4(four) => four.to_string(),
        IpAddr::V6(six) => format!("[{six}]"),
    };
    let (connect, whole) = if patient {
        ("8", "12")
    } else {
        (PATIENCE, "3")
    };
    let output = Command::new("curl")
        .args([
            "-sS",
            "-k",
            "--noproxy",
            "*",
            "--connect-timeout",
            connect,
            "-m",
            whole,
        ])
        .args(["--resolve", &format!("{host}:{port}:{literal}"), url])
        .output()
        .context("start curl")?;
    if !output.status.success() {
        anyhow::bail!("{}", String::from_utf8_lossy(&output.stderr).trim());
    }
    let body = String::from_utf8_lossy(&output.stdout).trim().to_owned();
    let mut words = body.split(' ');
    let (said, there, at) = (words.next(), words.next(), words.next());
    let right = said.is_some_and(|said| said.eq_ignore_ascii_case(host))
        && there.and_then(|there| there.parse::<IpAddr>().ok()) == Some(address)
        && at == Some(&port.to_string());
    anyhow::ensure!(right, "another server answered: {body}");
    Ok(body)
}

fn datagram(to: SocketAddr, patient: bool) -> Result<String> {
    let any: IpAddr = match to {
        SocketAddr::V4(_) => Ipv4Addr::UNSPECIFIED.into(),
        SocketAddr::V6(_) => Ipv6Addr::UNSPECIFIED.into(),
    };
    let socket = UdpSocket::bind(SocketAddr::new(any, 0))?;
    let patience = if patient {
        Duration::from_secs(5)
    } else {
        PATIENCE_MS
    };
    socket.set_read_timeout(Some(patience))?;
    socket.connect(to)?;
    socket.send(b"egress")?;
    let mut buffer = [0; 64];
    let length = socket.recv(&mut buffer).context("nothing came back")?;
    Ok(format!("{length} bytes came back"))
}

fn ping(address: IpAddr) -> Result<String> {
    let mut command = Command::new("ping");
    let output = command
        .args(["-c", "1", "-W", "1", "-q", &address.to_string()])
        .output()?;
    anyhow::ensure!(output.status.success(), "nothing came back");
    Ok("an answer came back".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_dig() {
        let text = ";; Got answer:\n;; ->>HEADER<<- opcode: QUERY, status: NOERROR, id: 1\n\
            a.example.\t60\tIN\tCNAME\tb.example.\nb.example.\t60\tIN\tA\t52.96.0.1\n\
            ;; ->>HEADER<<- opcode: QUERY, status: NOERROR, id: 2\n\
            b.example.\t60\tIN\tAAAA\t2603:1000::1\n";
        let reply = read_dig(text);
        assert_eq!(reply.text(), "NOERROR, 2 addresses");
        let refused =
            ";; ->>HEADER<<- opcode: QUERY, status: REFUSED, id: 1\n; EDE: 18 (Prohibited)\n";
        assert_eq!(read_dig(refused).text(), "REFUSED (18 (Prohibited))");
        assert_eq!(read_dig(";; communications error").text(), "no answer");
    }
}
