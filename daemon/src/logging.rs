//! Back ends of the `log` facade: lines for people, JSON lines, lines for the journal. A thread of
//! its own writes them: a reader that stalls costs lines, never time.
#![expect(
    clippy::disallowed_methods,
    reason = "shell: lines carry the wall clock's time"
)]

use anyhow::Context;
use log::kv::{Key, Value, VisitSource};
use log::{Level, LevelFilter, Log, Metadata, Record};
use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::io::Write as _;
use std::str::FromStr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::time::{Duration, SystemTime};

/// Lines that may wait for the writer; more are dropped and counted.
const BACKLOG: usize = 8192;

/// Log targets of our own.
const WORDS: &[&str] = &[
    "answer",
    "audit",
    "catalogue",
    "config",
    "control",
    "daemon",
    "dns",
    "ebpf",
    "flow",
    "grant",
    "link",
    "packet",
    "plane",
    "policy",
    "question",
    "upstream",
    "zone",
];

/// How lines look.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Format {
    /// `Journal` where stderr is the journal, else `Human`.
    #[default]
    Auto,
    /// Time, level, target, message, fields.
    Human,
    /// One JSON object per line.
    Json,
    /// A priority in angle brackets (sd-daemon(3)); the journal adds the time.
    Journal,
}

impl FromStr for Format {
    type Err = anyhow::Error;

    fn from_str(text: &str) -> anyhow::Result<Self> {
        match text {
            "auto" => Ok(Self::Auto),
            "human" => Ok(Self::Human),
            "json" => Ok(Self::Json),
            "journal" => Ok(Self::Journal),
            _ => anyhow::bail!("`{text}` is no log format; write auto, human, json or journal"),
        }
    }
}

/// Which lines are written: `info`, or `info,question=debug,audit=info`.
///
/// The `audit` target is off unless named. Targets of libraries are at most at WARN unless named.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Filter {
    others: LevelFilter,
    targets: BTreeMap<String, LevelFilter>,
}

impl From<LevelFilter> for Filter {
    fn from(level: LevelFilter) -> Self {
        let audit = (crate::observe::AUDIT.to_owned(), LevelFilter::Off);
        Self {
            others: level,
            targets: [audit].into(),
        }
    }
}

impl FromStr for Filter {
    type Err = anyhow::Error;

    fn from_str(text: &str) -> anyhow::Result<Self> {
        let level = |level: &str| {
            level.trim().parse::<LevelFilter>().ok().with_context(|| {
                format!("`{level}` is no log level; write off, error, warn, info, debug or trace")
            })
        };
        let mut filter = Self::from(LevelFilter::Info);
        for part in text.split(',').filter(|part| !part.trim().is_empty()) {
            match part.split_once('=') {
                Some((target, name)) => {
                    filter
                        .targets
                        .insert(target.trim().to_owned(), level(name)?);
                }
                None => filter.others = level(part)?,
            }
        }
        Ok(filter)
    }
}

impl Filter {
    /// The level up to which lines of `target` are written.
    #[must_use]
    pub fn level(&self, target: &str) -> LevelFilter {
        // `a::b::c` is ruled by the longest of `a::b::c`, `a::b`, `a` that is named.
        let mut part = target;
        loop {
            if let Some(level) = self.targets.get(part) {
                return *level;
            }
            match part.rsplit_once("::") {
                Some((parent, _)) => part = parent,
                None if part == "egressd" || WORDS.contains(&part) => return self.others,
                None => return self.others.min(LevelFilter::Warn),
            }
        }
    }

    fn loudest(&self) -> LevelFilter {
        self.targets
            .values()
            .copied()
            .fold(self.others, std::cmp::max)
    }
}

/// Sends the `log` facade to stderr from now on. Call `log::logger().flush()` before the process
/// ends.
///
/// # Errors
/// When a logger is already there, or no thread can be had.
pub fn init(format: Format, filter: impl Into<Filter>) -> anyhow::Result<()> {
    let format = match format {
        Format::Auto if is_journal() => Format::Journal,
        Format::Auto => Format::Human,
        Format::Human | Format::Json | Format::Journal => format,
    };
    let filter = filter.into();
    let (lines, waiting) = sync_channel(BACKLOG);
    let lost = Arc::new(AtomicU64::new(0));
    let counter = Arc::clone(&lost);
    std::thread::Builder::new()
        .name("log".to_owned())
        .spawn(move || write_lines(&waiting, &counter, format))
        .context("start the log's thread")?;
    let loudest = filter.loudest();
    log::set_boxed_logger(Box::new(Logger {
        format,
        filter,
        lines,
        lost,
    }))
    .context("a logger is already there")?;
    log::set_max_level(loudest);
    Ok(())
}

/// Whether stderr is the journal's stream (systemd.exec(5), `JOURNAL_STREAM`).
fn is_journal() -> bool {
    let Ok(stream) = std::env::var("JOURNAL_STREAM") else {
        return false;
    };
    let Ok(stat) = nix::sys::stat::fstat(std::io::stderr()) else {
        return false;
    };
    stream == format!("{}:{}", stat.st_dev, stat.st_ino)
}

enum Job {
    Line(String),
    /// Answered once every line before is written.
    Flush(SyncSender<()>),
}

struct Logger {
    format: Format,
    filter: Filter,
    lines: SyncSender<Job>,
    lost: Arc<AtomicU64>,
}

impl Log for Logger {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        metadata.level() <= self.filter.level(metadata.target())
    }

    fn log(&self, record: &Record<'_>) {
        if !self.enabled(record.metadata()) {
            return;
        }
        let line = line(self.format, record, SystemTime::now());
        if self.lines.try_send(Job::Line(line)).is_err() {
            self.lost.fetch_add(1, Ordering::Relaxed);
        }
    }

    fn flush(&self) {
        let (done, wait) = sync_channel(1);
        if self.lines.try_send(Job::Flush(done)).is_ok() {
            let _ = wait.recv_timeout(Duration::from_secs(1));
        }
    }
}

/// The writer's thread: ends with the process.
fn write_lines(waiting: &Receiver<Job>, lost: &AtomicU64, format: Format) {
    while let Ok(job) = waiting.recv() {
        match job {
            Job::Line(line) => write_line(&line),
            Job::Flush(done) => {
                let _ = done.try_send(());
            }
        }
        let lost = lost.swap(0, Ordering::Relaxed);
        if lost > 0 {
            let line = line(
                format,
                &Record::builder()
                    .level(Level::Warn)
                    .target("egressd")
                    .args(format_args!(
                        "{lost} log lines were lost, stderr is too slow"
                    ))
                    .build(),
                SystemTime::now(),
            );
            write_line(&line);
        }
    }
}

fn write_line(line: &str) {
    // There is nowhere left to tell that stderr is gone.
    let _ = std::io::stderr().lock().write_all(line.as_bytes());
}

/// One line with its newline.
fn line(format: Format, record: &Record<'_>, now: SystemTime) -> String {
    let time = humantime::format_rfc3339_millis(now);
    let message = record.args().to_string();
    let mut fields = Fields(Vec::new());
    // Our visitor never fails.
    let _ = record.key_values().visit(&mut fields);
    let target = record.target();
    let target = target.strip_prefix("egressd::").unwrap_or(target);
    let mut line = match format {
        Format::Json => return json(record, &time.to_string(), target, &message, fields.0),
        Format::Journal => format!("<{}>{target}: ", priority(record.level())),
        Format::Auto | Format::Human => format!("{time} {:5} {target}: ", record.level()),
    };
    escape(&mut line, &message);
    for (key, value) in &fields.0 {
        let value = value
            .as_str()
            .map_or_else(|| value.to_string(), str::to_owned);
        let _ = write!(line, " {key}=");
        if value.is_empty() || value.contains([' ', '"', '=']) {
            let _ = write!(line, "{value:?}");
        } else {
            escape(&mut line, &value);
        }
    }
    line.push('\n');
    line
}

/// Appends `text` with control characters escaped: nobody may forge a line or drive a terminal.
fn escape(line: &mut String, text: &str) {
    for c in text.chars() {
        if c.is_control() {
            line.extend(c.escape_default());
        } else {
            line.push(c);
        }
    }
}

fn json(
    record: &Record<'_>,
    time: &str,
    target: &str,
    message: &str,
    fields: Vec<(String, serde_json::Value)>,
) -> String {
    let mut object = serde_json::Map::new();
    object.extend(fields);
    // After the fields: none of them may pass for one of these.
    object.insert("time".to_owned(), time.into());
    object.insert(
        "level".to_owned(),
        record.level().as_str().to_ascii_lowercase().into(),
    );
    object.insert("target".to_owned(), target.into());
    object.insert("message".to_owned(), message.into());
    let mut line = serde_json::Value::Object(object).to_string();
    line.push('\n');
    line
}

/// The syslog priority of a level.
fn priority(level: Level) -> u8 {
    match level {
        Level::Error => 3,
        Level::Warn => 4,
        Level::Info => 6,
        Level::Debug | Level::Trace => 7,
    }
}

/// Collects a record's fields.
struct Fields(Vec<(String, serde_json::Value)>);

impl<'kvs> VisitSource<'kvs> for Fields {
    fn visit_pair(&mut self, key: Key<'kvs>, value: Value<'kvs>) -> Result<(), log::kv::Error> {
        let value = if let Some(number) = value.to_u64() {
            number.into()
        } else if let Some(number) = value.to_i64() {
            number.into()
        } else if let Some(truth) = value.to_bool() {
            truth.into()
        } else {
            value.to_string().into()
        };
        self.0.push((key.to_string(), value));
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn filters() {
        fn check(filter: &str, target: &str, expected: LevelFilter) {
            let filter: Filter = filter.parse().unwrap();
            assert_eq!(filter.level(target), expected, "{target}");
        }
        check("", "question", LevelFilter::Info);
        check("", "audit", LevelFilter::Off);
        check("debug", "audit", LevelFilter::Off);
        check("debug", "egressd::plane::nft", LevelFilter::Debug);
        check("debug", "netlink_proto::connection", LevelFilter::Warn);
        check("error", "netlink_proto::connection", LevelFilter::Error);
        check(
            "netlink_proto=trace",
            "netlink_proto::connection",
            LevelFilter::Trace,
        );
        check(
            "info, question=debug ,audit=info",
            "question",
            LevelFilter::Debug,
        );
        check(
            "info, question=debug ,audit=info",
            "audit",
            LevelFilter::Info,
        );
        check(
            "egressd::dns=trace",
            "egressd::dns::cache",
            LevelFilter::Trace,
        );
        assert!("loud".parse::<Filter>().is_err());
        assert!("question=loud".parse::<Filter>().is_err());
        let filter: Filter = "warn,question=debug".parse().unwrap();
        assert_eq!(filter.loudest(), LevelFilter::Debug);
    }

    #[test]
    fn lines() {
        fn check(format: Format, message: &str, expected: &str) {
            let fields = [
                ("zone", Value::from("lan\n<0>")),
                ("why", "a b".into()),
                ("count", 3.into()),
            ];
            let now = SystemTime::UNIX_EPOCH + Duration::from_millis(1_500);
            let got = line(
                format,
                &Record::builder()
                    .level(Level::Warn)
                    .target("egressd::plane")
                    .key_values(&fields)
                    .args(format_args!("{message}"))
                    .build(),
                now,
            );
            assert_eq!(got, expected);
        }
        check(
            Format::Human,
            "two\nlines \u{1b}[31m",
            "1970-01-01T00:00:01.500Z WARN  plane: two\\nlines \\u{1b}[31m zone=lan\\n<0> why=\"a b\" count=3\n",
        );
        check(
            Format::Journal,
            "x",
            "<4>plane: x zone=lan\\n<0> why=\"a b\" count=3\n",
        );
        check(
            Format::Json,
            "two\nlines",
            concat!(
                r#"{"count":3,"level":"warn","message":"two\nlines","target":"plane","#,
                r#""time":"1970-01-01T00:00:01.500Z","why":"a b","zone":"lan\n<0>"}"#,
                "\n"
            ),
        );
    }
}
