//! One function records every happening: to the counters, to the log, to `egressctl watch`. It
//! never blocks, never fails and decides nothing.
#![expect(
    clippy::disallowed_methods,
    reason = "shell: happenings carry the wall clock's time"
)]

mod packet;

pub use packet::Refused;

use crate::plane::drift::Word;
use crate::policy::ZoneId;
use crate::policy::name::Name;
use crate::policy::rules::{Refusal, Unfit};
use arc_swap::ArcSwap;
use log::{Level, Metadata, Record};
use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, LazyLock};
use std::time::SystemTime;
use tokio::sync::broadcast;

/// Happenings that a listener may be behind before it loses the oldest.
const BACKLOG: usize = 1024;

/// The log target that questions, answers and grants move to, at INFO at least and names included,
/// when the log filter turns it on.
pub const AUDIT: &str = "audit";

/// Something worth telling an operator.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Happening {
    /// A question was refused.
    QuestionRefused {
        /// The client's zone; `None` for clients in no zone.
        zone: Option<ZoneId>,
        /// Who asked.
        client: IpAddr,
        /// What was asked.
        name: Name,
        /// Why it was refused.
        why: Refusal,
        /// Whether it was forwarded all the same, because the zone is in audit mode.
        audited: bool,
    },
    /// A record was taken out of an answer.
    RecordRefused {
        /// The zone that asked.
        zone: ZoneId,
        /// What was asked.
        name: Name,
        /// The record's address.
        address: IpAddr,
        /// Why it was taken out.
        why: Unfit,
        /// Whether the client got it all the same, untaught, because the zone is in audit mode.
        audited: bool,
    },
    /// A new address was granted (renewals are only counted).
    Granted {
        /// To whom.
        zone: ZoneId,
        /// The asked name that taught it.
        name: Name,
        /// To where.
        address: IpAddr,
    },
    /// A grant ended.
    Ended {
        /// Whose.
        zone: ZoneId,
        /// To where.
        address: IpAddr,
    },
    /// An answer could not be put in force; the client got SERVFAIL, in a zone in audit mode the
    /// answer.
    Withheld {
        /// The zone that asked.
        zone: ZoneId,
        /// What was asked.
        name: Name,
        /// What failed.
        why: String,
        /// Whether it was released all the same, because the zone is in audit mode.
        audited: bool,
    },
    /// A cap was reached: what an answer gave was not learned.
    Capped {
        /// The zone that asked.
        zone: ZoneId,
        /// Who asked, over IPv6 its /64; `None` for the gateway itself.
        client: Option<IpAddr>,
        /// What was asked.
        name: Name,
        /// Which cap, by its key in `[limits]`.
        cap: &'static str,
        /// How many answers for the same client and zone met it since this was last told aloud, this
        /// one included; 0 when it is too soon to tell again.
        answers: u64,
    },
    /// Most of what a cap allows is learned.
    Filling {
        /// The zone, for a cap of its own.
        zone: Option<ZoneId>,
        /// Which cap, by its key in `[limits]`.
        cap: &'static str,
        /// How many addresses of one family are learned.
        learned: usize,
        /// How many there may be.
        most: usize,
    },
    /// A client asks for more than its share, and the rest is dropped. Told at the first and then once
    /// a minute.
    Flooding {
        /// Who.
        client: IpAddr,
        /// Of what.
        what: Flood,
        /// How many were dropped since the last time, this one included.
        dropped: u64,
    },
    /// A packet was refused, or would have been: the first of its flow for a while.
    PacketRefused(Box<Refused>),
    /// Live flows that are no longer granted were cut.
    Cut {
        /// How many.
        flows: u64,
        /// What for, such as `revocation`.
        why: String,
    },
    /// A reply that matches no question egressd asked was ignored.
    Forgery {
        /// The upstream it claims to come from.
        upstream: IpAddr,
    },
    /// An upstream resolver stopped or began to answer again.
    Upstream {
        /// Which.
        upstream: SocketAddr,
        /// What happened to it.
        what: String,
        /// Whether it answers now.
        well: bool,
    },
    /// A plane failed or was found changed, and what was done about it.
    Plane {
        /// `nft` or `ebpf`.
        plane: &'static str,
        /// What happened.
        what: String,
    },
    /// A plane was found changed.
    Drift {
        /// `nft` or `ebpf`.
        plane: &'static str,
        /// What changed, in one word.
        word: Word,
        /// What was found, and what became of it.
        what: String,
    },
    /// Planes are changed again and again; further drifts are told now and then only.
    Tampering {
        /// So many drifts,
        drifts: u64,
        /// in so many seconds.
        seconds: u64,
    },
    /// Interfaces or their addresses changed.
    Links {
        /// What changed.
        what: String,
    },
    /// An operator took something back, or let something pass for a while.
    Operator {
        /// Whose word it is, such as `uid 0`; `egressd` where a time was over.
        who: String,
        /// What was done; the name it is about stands apart.
        what: String,
        /// Name of the zone, where it is about one.
        zone: Option<String>,
        /// The name, network or address.
        about: String,
        /// Why, in the operator's words.
        reason: Option<String>,
    },
    /// A catalogue that is fetched has another version in force, or what came is not used.
    Updated {
        /// Its name.
        catalogue: String,
        /// What changed, or why what was in force stays.
        outcome: Result<String, String>,
    },
    /// The configuration was read again, or refused.
    Reloaded {
        /// What changed, or why the policy before stays.
        outcome: Result<String, String>,
    },
}

/// What a client can have too much of.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Flood {
    /// Questions per second.
    Questions,
    /// Questions that nobody has answered yet.
    Open,
    /// TCP connections.
    Connections,
}

impl Flood {
    fn text(self) -> &'static str {
        match self {
            Self::Questions => "asks more questions a second than [limits] questions allows",
            Self::Open => "has too many open questions",
            Self::Connections => {
                "wants more connections than [limits] connections and connections_per_client allow"
            }
        }
    }
}

/// A happening and when it happened.
#[derive(Clone, Debug)]
pub struct Happened {
    /// Wall clock, for people; nothing is decided by it.
    pub at: SystemTime,
    /// What.
    pub what: Happening,
}

/// Things that are only counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Tally {
    /// Questions from clients.
    Questions,
    /// Questions answered from the cache.
    Cached,
    /// Questions sent to an upstream.
    Forwarded,
    /// Upstreams that failed or did not answer in time.
    Failed,
    /// Questions refused by policy.
    Refused,
    /// Answers that the planes did not hold in time.
    Withheld,
    /// Answers cut by a cap.
    Capped,
    /// Addresses newly granted.
    Granted,
    /// Grants renewed by an answer.
    Renewed,
    /// Grants that ended.
    Ended,
    /// Records taken out of answers.
    RecordsRefused,
    /// Replies that match no question egressd asked.
    Forgeries,
    /// Refused flows that were told.
    PacketsReported,
    /// Live flows that were cut.
    FlowsCut,
    /// Failures and repairs of planes.
    PlaneTroubles,
    /// Accepted reloads.
    Reloads,
    /// Refused reloads.
    ReloadsRefused,
    /// Versions of fetched catalogues that were taken.
    Updates,
    /// Attempts to fetch one that gave nothing, told once each.
    UpdatesRefused,
}

const TALLIES: usize = Tally::UpdatesRefused as usize + 1;
static COUNTS: [AtomicU64; TALLIES] = [const { AtomicU64::new(0) }; TALLIES];
static BUS: LazyLock<broadcast::Sender<Arc<Happened>>> =
    LazyLock::new(|| broadcast::Sender::new(BACKLOG));
static ZONES: LazyLock<ArcSwap<BTreeMap<ZoneId, String>>> = LazyLock::new(ArcSwap::default);

/// Counts `how_many` of `what`, nothing else. For what happens too often to be told.
pub fn count(what: Tally, how_many: u64) {
    COUNTS[what as usize].fetch_add(how_many, Ordering::Relaxed);
}

/// The count of `what` since the process started.
#[must_use]
pub fn counted(what: Tally) -> u64 {
    COUNTS[what as usize].load(Ordering::Relaxed)
}

/// The counts since the process started, read one after the other.
#[must_use]
pub fn counters() -> Counters {
    Counters(COUNTS.each_ref().map(|count| count.load(Ordering::Relaxed)))
}

/// A copy of every count.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Counters([u64; TALLIES]);

impl std::ops::Index<Tally> for Counters {
    type Output = u64;

    fn index(&self, what: Tally) -> &u64 {
        &self.0[what as usize]
    }
}

/// Gives zones their names, for logs and watchers. Call it whenever zones changed.
pub fn name_zones(names: BTreeMap<ZoneId, String>) {
    ZONES.store(Arc::new(names));
}

/// Listens to every happening from now on. A listener that falls too far behind loses the oldest
/// and is told how many.
#[must_use]
pub fn subscribe() -> broadcast::Receiver<Arc<Happened>> {
    BUS.subscribe()
}

/// Records `happening`. Never blocks; safe to call from every thread.
pub fn record(happening: Happening) {
    let total = tally(&happening);
    log_it(&happening, total);
    if BUS.receiver_count() > 0 {
        // It fails only when the last listener has just left.
        let _ = BUS.send(Arc::new(Happened {
            at: SystemTime::now(),
            what: happening,
        }));
    }
}

/// Counts `happening` and says how many there were, this one included.
fn tally(happening: &Happening) -> u64 {
    let (what, how_many) = match happening {
        Happening::QuestionRefused { .. } => (Tally::Refused, 1),
        Happening::RecordRefused { .. } => (Tally::RecordsRefused, 1),
        Happening::Granted { .. } => (Tally::Granted, 1),
        Happening::Ended { .. } => (Tally::Ended, 1),
        Happening::Withheld { .. } => (Tally::Withheld, 1),
        Happening::Capped { .. } => (Tally::Capped, 1),
        // The edge counts them one by one.
        Happening::Flooding { .. } | Happening::Filling { .. } => return 0,
        Happening::PacketRefused(_) => (Tally::PacketsReported, 1),
        Happening::Cut { flows, .. } => (Tally::FlowsCut, *flows),
        Happening::Forgery { .. } => (Tally::Forgeries, 1),
        Happening::Upstream { well, .. } => (Tally::Failed, u64::from(!well)),
        Happening::Plane { .. } | Happening::Drift { .. } => (Tally::PlaneTroubles, 1),
        Happening::Links { .. } | Happening::Operator { .. } | Happening::Tampering { .. } => {
            return 0;
        }
        Happening::Updated { outcome: Ok(_), .. } => (Tally::Updates, 1),
        Happening::Updated {
            outcome: Err(_), ..
        } => (Tally::UpdatesRefused, 1),
        Happening::Reloaded { outcome: Ok(_) } => (Tally::Reloads, 1),
        Happening::Reloaded { outcome: Err(_) } => (Tally::ReloadsRefused, 1),
    };
    COUNTS[what as usize].fetch_add(how_many, Ordering::Relaxed) + how_many
}

/// A happening in words and fields, the same for the log and for watchers.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Told {
    /// What it is about: the log target.
    pub word: &'static str,
    /// One line, without domain names.
    pub text: String,
    /// Name of the zone.
    pub zone: Option<String>,
    /// The client.
    pub client: Option<IpAddr>,
    /// The asked name, escaped.
    pub name: Option<String>,
    /// The other side's address.
    pub address: Option<IpAddr>,
    /// Protocol and port, such as `tcp/443`.
    pub service: Option<String>,
    /// The plane.
    pub plane: Option<&'static str>,
    /// The one word why.
    pub reason: Option<String>,
    /// Whether it passed all the same, because the zone is in audit mode.
    pub audited: Option<bool>,
    /// The interface a packet entered on.
    pub interface: Option<String>,
    /// What comes nearest to allowing a refused packet.
    pub nearest: Option<String>,
}

impl Happening {
    /// This happening in words and fields.
    #[must_use]
    pub fn tell(&self) -> Told {
        let text = |word, text: &str| Told {
            word,
            text: text.to_owned(),
            ..Told::default()
        };
        match self {
            Self::QuestionRefused {
                zone,
                client,
                name,
                why,
                audited,
            } => Told {
                zone: zone.map(zone_name),
                client: Some(*client),
                name: Some(name.to_string()),
                reason: Some(refusal(*why).to_owned()),
                audited: Some(*audited),
                ..text(
                    "question",
                    if *audited {
                        "question would be refused"
                    } else {
                        "question refused"
                    },
                )
            },
            Self::RecordRefused {
                zone,
                name,
                address,
                why,
                audited,
            } => Told {
                zone: Some(zone_name(*zone)),
                name: Some(name.to_string()),
                address: Some(*address),
                reason: Some(unfit(*why).to_owned()),
                audited: Some(*audited),
                ..text(
                    "answer",
                    if *audited {
                        "record would be taken out of an answer"
                    } else {
                        "record taken out of an answer"
                    },
                )
            },
            Self::Granted {
                zone,
                name,
                address,
            } => Told {
                zone: Some(zone_name(*zone)),
                name: Some(name.to_string()),
                address: Some(*address),
                ..text("grant", "granted")
            },
            Self::Ended { zone, address } => Told {
                zone: Some(zone_name(*zone)),
                address: Some(*address),
                ..text("grant", "grant ended")
            },
            Self::Withheld {
                zone,
                name,
                why,
                audited,
            } => Told {
                zone: Some(zone_name(*zone)),
                name: Some(name.to_string()),
                audited: Some(*audited),
                ..text(
                    "answer",
                    &if *audited {
                        format!("answer would be withheld: {why}")
                    } else {
                        format!("answer withheld: {why}")
                    },
                )
            },
            Self::Capped {
                zone,
                client,
                name,
                cap,
                answers,
            } => Told {
                zone: Some(zone_name(*zone)),
                client: *client,
                name: Some(name.to_string()),
                reason: Some((*cap).to_owned()),
                ..text(
                    "answer",
                    &match answers {
                        0 | 1 => format!("not learned: [limits] {cap} is reached"),
                        _ => format!("{answers} answers not learned: [limits] {cap} is reached"),
                    },
                )
            },
            Self::Filling {
                zone,
                cap,
                learned,
                most,
            } => Told {
                zone: zone.map(zone_name),
                reason: Some((*cap).to_owned()),
                ..text(
                    "answer",
                    &format!("{learned} addresses are learned, [limits] {cap} allows {most}"),
                )
            },
            Self::Flooding {
                client,
                what,
                dropped,
            } => Told {
                client: Some(*client),
                ..text(
                    "question",
                    &format!("a client {}; {dropped} dropped", what.text()),
                )
            },
            Self::PacketRefused(refused) => refused.tell(),
            Self::Operator {
                who,
                what,
                zone,
                about,
                reason,
            } => Told {
                zone: zone.clone(),
                name: Some(about.clone()),
                reason: reason.clone(),
                ..text("grant", &format!("{what} by {who}"))
            },
            Self::Cut { flows, why } => text("grant", &format!("live flows cut: {flows} ({why})")),
            Self::Forgery { upstream } => Told {
                address: Some(*upstream),
                ..text("answer", "reply ignored, it matches no question")
            },
            Self::Upstream { upstream, what, .. } => Told {
                address: Some(upstream.ip()),
                ..text("upstream", what)
            },
            Self::Plane { plane, what } => Told {
                plane: Some(plane),
                ..text("plane", what)
            },
            Self::Drift { plane, word, what } => Told {
                plane: Some(plane),
                reason: Some(word.to_string()),
                ..text("plane", what)
            },
            Self::Tampering { drifts, seconds } => text(
                "plane",
                &format!(
                    "somebody changes what egressd enforces again and again: {drifts} times in {seconds} \
                     seconds; each is repaired, `egressctl status` counts them"
                ),
            ),
            Self::Links { what } => text("link", what),
            Self::Updated {
                catalogue,
                outcome: Ok(what),
            } => text("catalogue", &format!("{catalogue}: {what}")),
            Self::Updated {
                catalogue,
                outcome: Err(why),
            } => text(
                "catalogue",
                &format!("{catalogue}: what was in force stays: {why}"),
            ),
            Self::Reloaded {
                outcome: Ok(summary),
            } => text("config", &format!("configuration in force: {summary}")),
            Self::Reloaded { outcome: Err(why) } => text(
                "config",
                &format!("configuration refused, the one before stays: {why}"),
            ),
        }
    }
}

/// The zone's name, or its number while it has none.
fn zone_name(zone: ZoneId) -> String {
    ZONES
        .load()
        .get(&zone)
        .cloned()
        .unwrap_or_else(|| zone.to_string())
}

fn refusal(why: Refusal) -> &'static str {
    match why {
        Refusal::Unlisted => "unlisted",
        Refusal::Denied => "denied",
        Refusal::Type => "type",
    }
}

fn unfit(why: Unfit) -> &'static str {
    match why {
        Unfit::Special(word) => word,
        Unfit::Own => "own",
        Unfit::Connected => "connected",
        Unfit::Internal => "internal",
        Unfit::Denied => "denied",
    }
}

/// How loud `happening`, the `total`th of its kind, is.
fn level(happening: &Happening, total: u64) -> Level {
    // What an attacker can cause at will is loud at the 1st, 2nd, 4th, 8th … time only.
    let rarely = if total.is_power_of_two() {
        Level::Warn
    } else {
        Level::Debug
    };
    match happening {
        Happening::PacketRefused(_) => Level::Trace,
        Happening::QuestionRefused { .. }
        | Happening::RecordRefused { .. }
        | Happening::Granted { .. }
        | Happening::Ended { .. } => Level::Debug,
        Happening::Forgery { .. } | Happening::Withheld { .. } => rarely,
        Happening::Capped { answers: 0, .. } => Level::Debug,
        Happening::Capped { .. } | Happening::Filling { .. } | Happening::Flooding { .. } => {
            Level::Warn
        }
        Happening::Cut { .. }
        | Happening::Links { .. }
        | Happening::Upstream { well: true, .. }
        | Happening::Updated { outcome: Ok(_), .. }
        | Happening::Reloaded { outcome: Ok(_) } => Level::Info,
        Happening::Upstream { well: false, .. }
        | Happening::Plane { .. }
        | Happening::Operator { .. }
        | Happening::Updated {
            outcome: Err(_), ..
        }
        | Happening::Drift { .. } => Level::Warn,
        Happening::Reloaded { outcome: Err(_) } | Happening::Tampering { .. } => Level::Error,
    }
}

/// The target of `happening`, without allocating.
fn word(happening: &Happening) -> &'static str {
    match happening {
        Happening::QuestionRefused { .. } | Happening::Flooding { .. } => "question",
        Happening::RecordRefused { .. }
        | Happening::Withheld { .. }
        | Happening::Capped { .. }
        | Happening::Filling { .. }
        | Happening::Forgery { .. } => "answer",
        Happening::Granted { .. }
        | Happening::Ended { .. }
        | Happening::Cut { .. }
        | Happening::Operator { .. } => "grant",
        Happening::PacketRefused(_) => "packet",
        Happening::Upstream { .. } => "upstream",
        Happening::Plane { .. } | Happening::Drift { .. } | Happening::Tampering { .. } => "plane",
        Happening::Links { .. } => "link",
        Happening::Updated { .. } => "catalogue",
        Happening::Reloaded { .. } => "config",
    }
}

fn enabled(target: &str, level: Level) -> bool {
    level <= log::max_level()
        && log::logger().enabled(&Metadata::builder().level(level).target(target).build())
}

/// Writes one line, or none.
fn log_it(happening: &Happening, total: u64) {
    let (target, level) = (word(happening), level(happening, total));
    let audit = ["question", "answer", "grant"].contains(&target) && enabled(AUDIT, Level::Info);
    let (target, level) = if audit {
        (AUDIT, level.min(Level::Info))
    } else {
        (target, level)
    };
    if !enabled(target, level) {
        return;
    }
    let mut told = happening.tell();
    // The name is what the operator needs against a flood of names.
    let culprit = matches!(
        happening,
        Happening::Capped { .. } | Happening::Operator { .. }
    );
    if !audit && !culprit && level < Level::Debug {
        told.name = None;
    }
    let fields: Vec<(&str, String)> = [
        ("zone", told.zone),
        ("client", told.client.map(|client| client.to_string())),
        ("name", told.name),
        ("address", told.address.map(|address| address.to_string())),
        ("service", told.service),
        ("interface", told.interface),
        ("plane", told.plane.map(str::to_owned)),
        ("reason", told.reason),
        ("audited", told.audited.map(|audited| audited.to_string())),
        ("nearest", told.nearest),
    ]
    .into_iter()
    .filter_map(|(key, value)| Some((key, value?)))
    .collect();
    log::logger().log(
        &Record::builder()
            .level(level)
            .target(target)
            .key_values(&fields)
            .args(format_args!("{}", told.text))
            .build(),
    );
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused() -> Happening {
        Happening::QuestionRefused {
            zone: Some(ZoneId(7)),
            client: "192.0.2.7".parse().unwrap(),
            name: "a.example".parse().unwrap(),
            why: Refusal::Unlisted,
            audited: false,
        }
    }

    #[test]
    fn a_listener_hears_what_follows_and_how_much_it_lost() {
        record(refused());
        let mut listener = subscribe();
        let count = counted(Tally::Refused);
        let marker = Happening::Plane {
            plane: "nft",
            what: "marker".to_owned(),
        };
        // Other tests flood the same bus: say it again until it is heard.
        for expected in [marker, refused()] {
            let heard = (0..100_000).any(|_| {
                record(expected.clone());
                listener
                    .try_recv()
                    .is_ok_and(|heard| heard.what == expected)
            });
            assert!(heard, "{expected:?}");
        }
        assert!(counted(Tally::Refused) > count);
        for _ in 0..2 * BACKLOG {
            record(refused());
        }
        let Err(broadcast::error::TryRecvError::Lagged(lost)) = listener.try_recv() else {
            panic!("a listener {BACKLOG} behind must lose");
        };
        assert!(lost >= BACKLOG as u64);
    }

    #[test]
    fn words_and_levels() {
        fn check(happening: &Happening, total: u64, expected: (&str, Level)) {
            assert_eq!((happening.tell().word, level(happening, total)), expected);
            assert_eq!(happening.tell().word, word(happening));
        }
        check(&refused(), 1, ("question", Level::Debug));
        let forgery = Happening::Forgery {
            upstream: "192.0.2.53".parse().unwrap(),
        };
        check(&forgery, 1, ("answer", Level::Warn));
        check(&forgery, 3, ("answer", Level::Debug));
        check(&forgery, 4096, ("answer", Level::Warn));
        check(
            &Happening::Reloaded {
                outcome: Err(String::new()),
            },
            2,
            ("config", Level::Error),
        );
        check(
            &Happening::Links {
                what: String::new(),
            },
            0,
            ("link", Level::Info),
        );
    }

    #[test]
    fn text_holds_no_name() {
        let name: Name = "secret.example".parse().unwrap();
        let zone = ZoneId(60);
        for happening in [
            refused(),
            Happening::Withheld {
                zone,
                name: name.clone(),
                why: "no".to_owned(),
                audited: false,
            },
            Happening::Capped {
                zone,
                client: None,
                name,
                cap: "per_name",
                answers: 1,
            },
        ] {
            assert!(!happening.tell().text.contains("example"), "{happening:?}");
        }
    }

    #[test]
    fn zones_have_names() {
        let ended = |zone| Happening::Ended {
            zone,
            address: "192.0.2.1".parse().unwrap(),
        };
        name_zones([(ZoneId(1), "managed".to_owned())].into());
        assert_eq!(ended(ZoneId(1)).tell().zone.unwrap(), "managed");
        assert_eq!(ended(ZoneId(61)).tell().zone.unwrap(), "61");
    }
}
