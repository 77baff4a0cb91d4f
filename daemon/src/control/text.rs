//! PURE. Replies as text for people: aligned tables, no colours, nothing that drives a terminal.

use super::catalogue::SourceStatus;
use super::protocol::{
    Event, Explanation, Grant, GrantPage, Kind, PacketCounter, Reason, Reloaded, SetHits, State,
    Status, Verdict, ZoneExplanation, ZoneList,
};
use std::fmt::Write as _;
use std::time::Duration;

/// `egressctl status`.
#[must_use]
pub fn status(status: &Status) -> String {
    let mut text = format!(
        "egressd {}: {} since {}, up {}, revision {}\n",
        clean(&status.version),
        state(status.state),
        clean(&status.since),
        seconds(status.uptime),
        status.revision,
    );
    let mut planes = Table::new(["PLANE", "STATE", "ATTACHED"]);
    for plane in &status.planes {
        let state = match &plane.error {
            Some(error) => format!("FAILED: {error}"),
            None if plane.in_force => "in force".to_owned(),
            None => "not in force".to_owned(),
        };
        planes.row([plane.name.clone(), state, plane.attached.join("; ")]);
    }
    planes.write(&mut text);
    let mut catalogues = Table::new(["CATALOGUE", "VERSION", "SETS", "NAMES", "NETWORKS"]);
    for catalogue in &status.catalogues {
        let counts = [catalogue.sets, catalogue.names, catalogue.networks].map(|n| n.to_string());
        let [sets, names, networks] = counts;
        catalogues.row([
            catalogue.name.clone(),
            catalogue.version.clone(),
            sets,
            names,
            networks,
        ]);
    }
    catalogues.write(&mut text);
    for source in status
        .catalogues
        .iter()
        .flat_map(|catalogue| &catalogue.sources)
    {
        text += &fetched(source);
    }
    let mut packets = Table::new(["PACKETS", "PASSED", "DROPPED", "AUDITED", "REFERRED"]);
    for plane in &status.packets {
        let counts = [plane.passed, plane.dropped, plane.audited, plane.referred];
        let [passed, dropped, audited, referred] = counts.map(|n| n.to_string());
        packets.row([plane.plane.clone(), passed, dropped, audited, referred]);
    }
    packets.write(&mut text);
    let (grants, dns) = (status.grants, status.dns);
    let _ = writeln!(
        text,
        "\nzones {}, granted addresses {} IPv4 and {} IPv6",
        status.zones, grants.ipv4, grants.ipv6
    );
    let _ = writeln!(
        text,
        "questions {}: cached {}, forwarded {}, refused {}, withheld {}, upstream failures {}",
        dns.questions, dns.cached, dns.forwarded, dns.refused, dns.withheld, dns.failed
    );
    let _ = writeln!(
        text,
        "grants {} new, {} renewed, {} ended; records refused {}, forgeries ignored {}",
        dns.granted, dns.renewed, dns.ended, dns.records_refused, dns.forgeries
    );
    let refusals = status.refusals;
    let _ = writeln!(
        text,
        "refused flows told {}; reports of the same flow {}, too many at once {}",
        refusals.told, refusals.repeated, refusals.lost
    );
    if !status.drifts.is_empty() {
        let counted = status.drifts.iter().map(|of| {
            let left = of.found.saturating_sub(of.mended);
            let replaced = match left {
                0 => String::new(),
                _ => format!(" ({left} not at once)"),
            };
            format!(
                "{} {} {}{replaced}",
                clean(&of.plane),
                clean(&of.drift),
                of.found
            )
        });
        let counted: Vec<String> = counted.collect();
        let _ = writeln!(text, "found changed and repaired: {}", counted.join(", "));
    }
    if !status.unresolved.is_empty() {
        let few = status.unresolved.iter().take(SOME_NAMES);
        let few: Vec<_> = few.map(|of| format!("{} ({})", of.name, of.zone)).collect();
        let more = status.unresolved.len() - few.len();
        let more = if more > 0 {
            format!(" and {more} more (--json shows all)")
        } else {
            String::new()
        };
        let _ = writeln!(text, "no address so far: {}{more}", few.join(", "));
    }
    if let Some(seen) = &status.observer {
        let _ = writeln!(
            text,
            "observed: questions {}, answers {}, taught {}, unlisted {}, truncated {}, addresses not taught {}, withheld {}\n\
             not believed: unmatched {}, forged {}, malformed {}; not followed: shed {}, broken {}, lost {}\n\
             from copy to commit: half within {} µs, 99 % within {} µs; sent on {}, waiting {}",
            seen.questions,
            seen.answers,
            seen.taught,
            seen.unlisted,
            seen.truncated,
            seen.removed,
            seen.withheld,
            seen.unmatched,
            seen.forged,
            seen.malformed,
            seen.shed,
            seen.broken,
            seen.lost,
            seen.half_within,
            seen.most_within,
            seen.released,
            seen.waiting
        );
    }
    notes(&mut text, "warning", &status.warnings);
    text
}

/// Names that a line lists before it says how many more there are.
const SOME_NAMES: usize = 5;

/// `egressctl zones`.
#[must_use]
pub fn zones(list: &ZoneList) -> String {
    if list.zones.is_empty() {
        return "no zones\n".to_owned();
    }
    let mut text = String::new();
    let mut table = Table::new([
        "ZONE",
        "MODE",
        "INTERFACES",
        "SOURCES",
        "NAMES",
        "NETWORKS",
        "IPV4",
        "IPV6",
    ]);
    for zone in &list.zones {
        // Only the gateway's own zone has no interfaces.
        let (interfaces, any) = match zone.interfaces[..] {
            [] => ("-".to_owned(), "the gateway"),
            _ => (zone.interfaces.join(" "), "any"),
        };
        let sources = if zone.sources.is_empty() {
            any.to_owned()
        } else {
            zone.sources.join(" ")
        };
        table.row([
            zone.name.clone(),
            zone.mode.clone(),
            interfaces,
            sources,
            zone.names.to_string(),
            zone.networks.to_string(),
            zone.grants.ipv4.to_string(),
            zone.grants.ipv6.to_string(),
        ]);
    }
    table.write(&mut text);
    let mut packets = Table::new(["ZONE", "PLANE", "ACTION", "REASON", "PACKETS"]);
    for zone in &list.zones {
        for PacketCounter {
            plane,
            action,
            reason,
            packets: count,
        } in &zone.counters
        {
            let fields = [&zone.name, plane, action, reason].map(Clone::clone);
            let [zone, plane, action, reason] = fields;
            packets.row([zone, plane, action, reason, count.to_string()]);
        }
    }
    packets.write(&mut text);
    let mut hits = Table::new(["ZONE", "SET", "PACKETS"]);
    for zone in &list.zones {
        for SetHits { set, packets } in &zone.hits {
            hits.row([zone.name.clone(), set.clone(), packets.to_string()]);
        }
    }
    hits.write(&mut text);
    for zone in &list.zones {
        let _ = writeln!(
            text,
            "\n{}: {}",
            clean(&zone.name),
            clean(&zone.sets.join(" "))
        );
    }
    text
}

/// `egressctl grants`: a line per reason.
#[must_use]
pub fn grants(page: &GrantPage) -> String {
    if page.grants.is_empty() {
        return "no grants\n".to_owned();
    }
    let mut table = Table::new(["ZONE", "ADDRESS", "PORTS", "NAME OR NETWORK", "SET", "ENDS"]);
    for grant in &page.grants {
        for reason in &grant.reasons {
            table.row([
                grant.zone.clone(),
                grant.address.clone(),
                reason.ports.clone(),
                what(reason).to_owned(),
                reason.set.clone(),
                reason.ends.map_or_else(|| "never".to_owned(), seconds),
            ]);
        }
        if grant.more_reasons > 0 {
            let more = format!("and {} more reasons", grant.more_reasons);
            let [zone, address] = [&grant.zone, &grant.address].map(Clone::clone);
            table.row([
                zone,
                address,
                String::new(),
                more,
                String::new(),
                String::new(),
            ]);
        }
    }
    let mut text = String::new();
    table.write(&mut text);
    text
}

/// `egressctl explain`.
#[must_use]
pub fn explanation(explanation: &Explanation) -> String {
    let mut text = clean(&explanation.query);
    if let Some(service) = &explanation.service {
        let _ = write!(text, " {}", clean(service));
    }
    text.push('\n');
    for zone in &explanation.zones {
        explain_zone(&mut text, zone);
    }
    if explanation.zones.is_empty() {
        text.push_str("no zone to explain it for\n");
    }
    notes(&mut text, "note", &explanation.notes);
    text
}

fn explain_zone(text: &mut String, zone: &ZoneExplanation) {
    let _ = writeln!(
        text,
        "\nzone {} ({}): {}: {}",
        clean(&zone.zone),
        clean(&zone.mode),
        verdict(zone.verdict),
        clean(&zone.why)
    );
    for plane in &zone.planes {
        let says = match plane.allowed {
            Some(true) => "allows it",
            Some(false) => "refuses it",
            None => "no verdict",
        };
        let _ = writeln!(
            text,
            "  plane {}: {says}, {}",
            clean(&plane.plane),
            clean(&plane.holds)
        );
    }
    for grant in &zone.grants {
        explain_grant(text, grant);
    }
    for set in &zone.sets {
        let _ = writeln!(
            text,
            "  {}set {} ({}): {} on {}, {}",
            if set.denied { "deny " } else { "" },
            clean(&set.set),
            clean(&set.service),
            clean(&set.pattern),
            clean(&set.ports),
            clean(&set.origin)
        );
    }
    for way in &zone.would_allow {
        let _ = writeln!(text, "  would allow it: {}", clean(way));
    }
}

fn explain_grant(text: &mut String, grant: &Grant) {
    let _ = write!(
        text,
        "  grant {} on {}",
        clean(&grant.address),
        clean(&grant.ports)
    );
    if let Some(used) = grant.used {
        let _ = write!(text, ", last used {} ago", seconds(used));
    }
    text.push('\n');
    for held in &grant.planes {
        let ports = if held.ports.is_empty() {
            "nothing"
        } else {
            &held.ports
        };
        let _ = writeln!(text, "    {} holds {}", clean(&held.plane), clean(ports));
    }
    for reason in &grant.reasons {
        let _ = write!(
            text,
            "    because {} lists {}",
            clean(&reason.set),
            clean(reason.pattern.as_deref().unwrap_or(what(reason)))
        );
        if let Some(origin) = &reason.origin {
            let _ = write!(text, " ({})", clean(origin));
        }
        if let Some(name) = &reason.name {
            let _ = write!(text, ", asked as {}", clean(name));
        }
        let _ = write!(text, ", {}", clean(&reason.ports));
        if let Some(learned) = reason.learned {
            let _ = write!(text, ", learned {} ago", seconds(learned));
        }
        match reason.ends {
            Some(ends) => {
                let _ = writeln!(text, ", ends in {}", seconds(ends));
            }
            None => text.push_str(", does not end\n"),
        }
    }
    if grant.more_reasons > 0 {
        let _ = writeln!(text, "    and {} more reasons", grant.more_reasons);
    }
}

/// One source of a catalogue that is fetched.
fn fetched(source: &SourceStatus) -> String {
    let mut text = format!("fetched from {}: ", clean(&source.url));
    match source.age {
        None => text += "nothing yet",
        Some(age) => {
            let _ = write!(
                text,
                "version {}, asked {} ago",
                clean(&source.version),
                seconds(age)
            );
        }
    }
    if let Some(pinned) = &source.pinned {
        let _ = write!(text, ", version {} is pinned", clean(pinned));
    }
    if source.held > 0 {
        let _ = write!(text, ", {} removals held", source.held);
    }
    let _ = write!(text, ", next in {}", seconds(source.next));
    if let Some(error) = &source.error {
        let _ = write!(text, "\n  the last attempt failed: {}", clean(error));
    }
    text + "\n"
}

/// `egressctl reload`.
#[must_use]
pub fn reloaded(reloaded: &Reloaded) -> String {
    let mut text = if reloaded.changed {
        format!(
            "in force, revision {}: {}\n",
            reloaded.revision,
            clean(&reloaded.summary)
        )
    } else {
        let summary = clean(&reloaded.summary);
        let gap = if summary.is_empty() { "" } else { ": " };
        format!(
            "nothing changed, revision {}{gap}{summary}\n",
            reloaded.revision
        )
    };
    if reloaded.cut > 0 {
        let _ = writeln!(text, "live flows cut: {}", reloaded.cut);
    }
    notes(&mut text, "warning", &reloaded.warnings);
    text
}

/// One line of `egressctl watch`.
#[must_use]
pub fn event(event: &Event) -> String {
    let mut text = String::new();
    if let Some(lost) = event.lost {
        let _ = writeln!(text, "({lost} events lost, this watcher is too slow)");
    }
    let _ = write!(
        text,
        "{} {:8} {}",
        clean(&event.time),
        kind(event.kind),
        clean(&event.text)
    );
    for (key, value) in [
        ("zone", &event.zone),
        ("client", &event.client),
        ("name", &event.name),
        ("address", &event.address),
        ("service", &event.service),
        ("interface", &event.interface),
        ("plane", &event.plane),
        ("reason", &event.reason),
    ] {
        if let Some(value) = value {
            let _ = write!(text, " {key}={}", clean(value));
        }
    }
    if let Some(nearest) = &event.nearest {
        let _ = write!(text, " ({})", clean(nearest));
    }
    text.push('\n');
    text
}

fn what(reason: &Reason) -> &str {
    reason
        .name
        .as_deref()
        .or(reason.network.as_deref())
        .unwrap_or("")
}

fn state(state: State) -> &'static str {
    match state {
        State::Starting => "starting",
        State::Enforcing => "enforcing",
        State::Auditing => "auditing",
        State::Degraded => "DEGRADED",
        State::Locked => "LOCKED",
        State::Open => "OPEN",
    }
}

fn verdict(verdict: Verdict) -> &'static str {
    match verdict {
        Verdict::Allowed => "allowed",
        Verdict::Refused => "refused",
        Verdict::Audited => "allowed by audit mode only",
        Verdict::Askable => "allowed once asked for",
        Verdict::Split => "refused, the planes disagree",
    }
}

fn kind(kind: Kind) -> &'static str {
    match kind {
        Kind::Watching => "watching",
        Kind::Question => "question",
        Kind::Answer => "answer",
        Kind::Grant => "grant",
        Kind::Packet => "packet",
        Kind::Plane => "plane",
        Kind::Config => "config",
        Kind::Link => "link",
    }
}

pub(super) fn seconds(seconds: u64) -> String {
    humantime::format_duration(Duration::from_secs(seconds)).to_string()
}

fn notes(text: &mut String, word: &str, notes: &[String]) {
    for note in notes {
        let _ = writeln!(text, "{word}: {}", clean(note));
    }
}

/// `text` with control characters escaped, and those that turn or hide what follows.
pub(super) fn clean(text: &str) -> String {
    let harmless = |c: char| {
        !c.is_control()
            && !matches!(c, '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}' | '\u{feff}')
    };
    let mut cleaned = String::with_capacity(text.len());
    for c in text.chars() {
        if harmless(c) {
            cleaned.push(c);
        } else {
            cleaned.extend(c.escape_default());
        }
    }
    cleaned
}

/// Rows of cells under a heading, written in aligned columns.
pub(super) struct Table<const N: usize> {
    heading: [&'static str; N],
    rows: Vec<[String; N]>,
}

impl<const N: usize> Table<N> {
    pub(super) fn new(heading: [&'static str; N]) -> Self {
        Self {
            heading,
            rows: Vec::new(),
        }
    }

    pub(super) fn row(&mut self, cells: [String; N]) {
        self.rows.push(cells.map(|cell| clean(&cell)));
    }

    /// Appends the table after an empty line; nothing when it has no rows.
    pub(super) fn write(&self, text: &mut String) {
        if self.rows.is_empty() {
            return;
        }
        let mut widths = self.heading.map(str::len);
        for row in &self.rows {
            for (width, cell) in widths.iter_mut().zip(row) {
                *width = (*width).max(cell.chars().count());
            }
        }
        if !text.is_empty() {
            text.push('\n');
        }
        let heading = self.heading.map(str::to_owned);
        for row in std::iter::once(&heading).chain(&self.rows) {
            let line: String = row
                .iter()
                .zip(widths)
                .map(|(cell, width)| format!("{cell:width$}  "))
                .collect();
            text.push_str(line.trim_end());
            text.push('\n');
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::protocol::{PlaneStatus, PlaneVerdict};
    use super::*;

    #[test]
    fn tables_align_and_hide_nothing() {
        let page = GrantPage {
            grants: vec![
                Grant {
                    zone: "managed".to_owned(),
                    address: "203.0.113.9".to_owned(),
                    reasons: vec![Reason {
                        set: "intune/163".to_owned(),
                        name: Some("a.example".to_owned()),
                        ports: "tcp/443".to_owned(),
                        ends: Some(3_700),
                        ..Reason::default()
                    }],
                    ..Grant::default()
                },
                Grant {
                    zone: "x\u{1b}[2J".to_owned(),
                    address: "2001:db8::/48".to_owned(),
                    reasons: vec![Reason {
                        network: Some("2001:db8::/48".to_owned()),
                        ..Reason::default()
                    }],
                    more_reasons: 2,
                    ..Grant::default()
                },
            ],
            next: None,
        };
        let expected = "\
ZONE        ADDRESS        PORTS    NAME OR NETWORK     SET         ENDS
managed     203.0.113.9    tcp/443  a.example           intune/163  1h 1m 40s
x\\u{1b}[2J  2001:db8::/48           2001:db8::/48                   never
x\\u{1b}[2J  2001:db8::/48           and 2 more reasons
";
        assert_eq!(grants(&page), expected);
        assert_eq!(grants(&GrantPage::default()), "no grants\n");
    }

    #[test]
    fn a_status_says_what_failed() {
        let text = status(&Status {
            state: State::Degraded,
            planes: vec![PlaneStatus {
                name: "ebpf".to_owned(),
                error: Some("lan0 has no XDP".to_owned()),
                ..PlaneStatus::default()
            }],
            warnings: vec!["look here".to_owned()],
            ..Status::default()
        });
        for expected in [
            "DEGRADED",
            "ebpf   FAILED: lan0 has no XDP\n",
            "\nwarning: look here\n",
        ] {
            assert!(text.contains(expected), "{expected} is not in {text}");
        }
    }

    #[test]
    fn a_refused_packet_is_one_line() {
        let line = event(&Event {
            time: "2026-11-22T21:40:03.120Z".to_owned(),
            kind: Kind::Packet,
            text: "packet refused".to_owned(),
            zone: Some("managed".to_owned()),
            client: Some("10.20.0.7".to_owned()),
            name: Some("www.vendor.example".to_owned()),
            address: Some("203.0.113.9".to_owned()),
            service: Some("tcp/80".to_owned()),
            interface: Some("lan0".to_owned()),
            plane: Some("ebpf".to_owned()),
            reason: Some("port-not-granted".to_owned()),
            nearest: Some("set intune/163 allows tcp/443 only\n".to_owned()),
            ..Event::default()
        });
        assert_eq!(
            line,
            "2026-11-22T21:40:03.120Z packet   packet refused zone=managed client=10.20.0.7 \
             name=www.vendor.example address=203.0.113.9 service=tcp/80 interface=lan0 plane=ebpf \
             reason=port-not-granted (set intune/163 allows tcp/443 only\\n)\n"
        );
    }

    #[test]
    fn an_explanation_names_the_line_that_grants() {
        let text = explanation(&Explanation {
            query: "203.0.113.9".to_owned(),
            service: Some("tcp/443".to_owned()),
            zones: vec![ZoneExplanation {
                zone: "managed".to_owned(),
                mode: "enforce".to_owned(),
                verdict: Verdict::Allowed,
                why: "granted".to_owned(),
                planes: vec![PlaneVerdict {
                    plane: "nft".to_owned(),
                    allowed: Some(true),
                    holds: "tcp/443".to_owned(),
                }],
                grants: vec![Grant {
                    address: "203.0.113.9".to_owned(),
                    ports: "tcp/443".to_owned(),
                    reasons: vec![Reason {
                        set: "intune/163".to_owned(),
                        name: Some("x.a.example".to_owned()),
                        pattern: Some("*.a.example".to_owned()),
                        ports: "tcp/443".to_owned(),
                        origin: Some("lines 32-34".to_owned()),
                        learned: Some(5),
                        ends: Some(60),
                        ..Reason::default()
                    }],
                    ..Grant::default()
                }],
                ..ZoneExplanation::default()
            }],
            notes: vec![],
        });
        let expected = "\
203.0.113.9 tcp/443

zone managed (enforce): allowed: granted
  plane nft: allows it, tcp/443
  grant 203.0.113.9 on tcp/443
    because intune/163 lists *.a.example (lines 32-34), asked as x.a.example, tcp/443, learned 5s ago, ends in 1m
";
        assert_eq!(text, expected);
    }
}
