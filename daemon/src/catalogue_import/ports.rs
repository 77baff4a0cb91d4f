//! Ports as people write them in a cell: `TCP: 80, 443`, `443/tcp`, `UDP 3478-3481`, `80 (TCP)`.

use crate::policy::catalogue::Account;
use crate::policy::port::{PROTOCOLS, SCTP, Service, TCP, UDP};

/// What a cell says, remarks aside.
#[derive(Clone, Copy, Debug)]
enum Piece<'t> {
    Protocol(u8, &'t str),
    Port {
        text: &'t str,
        first: u64,
        last: u64,
        /// The protocol written with it: `443/tcp`.
        own: Option<u8>,
    },
}

/// Words beside a port that do not make a sentence of it.
const JOINERS: &[&str] = &[
    "port",
    "ports",
    "and",
    "or",
    "und",
    "oder",
    "et",
    "ou",
    "y",
    "o",
    "e",
    "puerto",
    "puertos",
    "porta",
    "portas",
    "ポート",
    "と",
    "および",
    "和",
    "及",
    "端口",
    "http",
    "https",
    "quic",
    "over",
];

/// Reads a cell's ports and accounts for each. `usual` are the protocols of ports that name none.
pub(super) fn read(cell: &str, usual: &[u8], origin: &str, account: &mut Account) -> Vec<Service> {
    let mut pieces = cut(cell, origin, account);
    let named = pieces
        .iter()
        .any(|piece| matches!(piece, Piece::Protocol(..)));
    // `443 TCP`: read from behind, where the protocol comes first again.
    if matches!(pieces.first(), Some(Piece::Port { own: None, .. })) {
        pieces.reverse();
    }
    let mut services = Vec::new();
    let mut group: Vec<(u8, &str)> = usual.iter().map(|protocol| (*protocol, "")).collect();
    if named {
        group.clear();
    }
    let mut used = true;
    for piece in pieces {
        match piece {
            Piece::Protocol(protocol, _) if !has_ports(protocol) => {
                account.import();
                services.push(Service::whole(protocol));
            }
            Piece::Protocol(protocol, word) => {
                if used {
                    group.clear();
                }
                group.push((protocol, word));
                used = false;
            }
            Piece::Port {
                text,
                first,
                last,
                own,
            } => {
                used |= own.is_none();
                let own: Option<[(u8, &str); 1]> = own.map(|protocol| [(protocol, "")]);
                let protocols = own.as_ref().map_or(&group[..], |own| own);
                match settle(text, first, last, protocols) {
                    Ok(read) => {
                        account.import();
                        services.extend(read);
                    }
                    Err(why) => account.report(origin, text, why),
                }
            }
        }
    }
    for (_, word) in group.into_iter().filter(|_| !used) {
        let why = "it names no port; write a [[set]] with the ports";
        account.report(origin, word, why);
    }
    services
}

fn has_ports(protocol: u8) -> bool {
    [TCP, UDP, SCTP].contains(&protocol)
}

fn settle(
    text: &str,
    first: u64,
    last: u64,
    protocols: &[(u8, &str)],
) -> Result<Vec<Service>, String> {
    let port = |number: u64| u16::try_from(number).ok().filter(|port| *port > 0);
    let (Some(first), Some(last)) = (port(first), port(last)) else {
        return Err(format!(
            "`{text}` is not a port; ports are numbers from 1 to 65535"
        ));
    };
    if first > last {
        return Err(format!(
            "the range `{text}` runs backwards; write a [[set]] with the range that is meant"
        ));
    }
    if protocols.is_empty() {
        return Err(
            "no protocol is written with it; write a [[set]] with `tcp` or `udp`".to_owned(),
        );
    }
    let service = |(protocol, _): &(u8, &str)| Service {
        protocol: *protocol,
        first,
        last,
    };
    Ok(protocols.iter().map(service).collect())
}

/// Cuts a cell into pieces. Ports in brackets and in sentences are reported: a year is no port.
fn cut<'t>(cell: &'t str, origin: &str, account: &mut Account) -> Vec<Piece<'t>> {
    let mut pieces = Vec::new();
    let mut rest = cell;
    let (mut brackets, mut prose) = (0_u32, false);
    while let Some(c) = rest.chars().next() {
        if c.is_ascii_digit() {
            let (text, first, last, own) = port(rest);
            rest = &rest[text.len()..];
            // Of `3rd` and `802.11` as well.
            let odd = rest.starts_with(|c: char| c.is_alphanumeric());
            if brackets > 0 || prose || odd {
                let why = "it stands in a remark; add it to a [[set]] if it is needed";
                account.report(origin, text, why);
            } else {
                pieces.push(Piece::Port {
                    text,
                    first,
                    last,
                    own,
                });
            }
        } else if c.is_alphabetic() {
            let length = rest
                .find(|c: char| !c.is_alphanumeric() && c != '-')
                .unwrap_or(rest.len());
            let (word, behind) = rest.split_at(length);
            rest = behind;
            match protocol(word) {
                Some(number) => {
                    prose = false;
                    pieces.push(Piece::Protocol(number, word));
                }
                None => prose |= !JOINERS.contains(&word.to_lowercase().as_str()),
            }
        } else {
            match c {
                '(' | '[' => {
                    // `80 (TCP)` speaks of the port before.
                    let inside: String = rest[c.len_utf8()..]
                        .chars()
                        .take(24)
                        .take_while(|c| !matches!(c, ')' | ']'))
                        .collect();
                    let mut words = inside.split([' ', ',', '/']).filter(|w| !w.is_empty());
                    brackets += u32::from(brackets > 0 || !words.all(|w| protocol(w).is_some()));
                }
                ')' | ']' => brackets = brackets.saturating_sub(1),
                ',' | ';' | '\n' => prose = false,
                _ => {}
            }
            rest = &rest[c.len_utf8()..];
        }
    }
    pieces
}

/// The port or range that a text begins with.
fn port(text: &str) -> (&str, u64, u64, Option<u8>) {
    let digits = |text: &str| {
        text.find(|c: char| !c.is_ascii_digit())
            .unwrap_or(text.len())
    };
    let number = |text: &str| text.parse::<u64>().unwrap_or(u64::MAX);
    let mut end = digits(text);
    let first = number(&text[..end]);
    let mut last = first;
    let behind = text[end..].trim_start_matches(' ');
    if let Some(to) = behind.strip_prefix(['-', '–', '—', '~', '〜']) {
        let to = to.trim_start_matches(' ');
        let length = digits(to);
        if length > 0 {
            last = number(&to[..length]);
            end = text.len() - to.len() + length;
        }
    }
    let mut own = None;
    if let Some(word) = text[end..].strip_prefix('/') {
        let length = word
            .find(|c: char| !c.is_ascii_alphanumeric())
            .unwrap_or(word.len());
        let label = word[length..].trim_start().starts_with(':');
        own = protocol(&word[..length]).filter(|number| !label && has_ports(*number));
        if own.is_some() {
            end += 1 + length;
        }
    }
    (&text[..end], first, last, own)
}

/// The protocol of a word.
#[must_use]
pub(super) fn protocol(word: &str) -> Option<u8> {
    let known = PROTOCOLS
        .iter()
        .find(|(name, _)| name.eq_ignore_ascii_case(word));
    known.map(|(_, number)| *number)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::policy::port::PortSet;

    #[test]
    fn cells() {
        fn check(cell: &str, usual: &[u8], expected: &str, reported: &[&str]) {
            let mut account = Account::default();
            let services = read(cell, usual, "line 1", &mut account);
            assert_eq!(PortSet::new(services).to_string(), expected, "{cell}");
            let got: Vec<_> = account.reported.iter().map(|r| &*r.token).collect();
            assert_eq!(got, reported, "{cell}");
            assert_eq!(account.tokens, account.imported + got.len(), "{cell}");
        }
        check("TCP: 80, 443", &[], "tcp/80, tcp/443", &[]);
        check(
            "**TCP:** 443, 80\n**UDP:** 3478, 3479",
            &[],
            "tcp/80, tcp/443, udp/3478-3479",
            &[],
        );
        check("TCP:80,443,5223", &[], "tcp/80, tcp/443, tcp/5223", &[]);
        check("443", &[], "", &["443"]);
        check("443", &[TCP], "tcp/443", &[]);
        check(
            "80; 443",
            &[TCP, UDP],
            "tcp/80, tcp/443, udp/80, udp/443",
            &[],
        );
        check("443/tcp, 123/udp", &[], "tcp/443, udp/123", &[]);
        check("TCP/443", &[], "tcp/443", &[]);
        check("tcp/443 udp/443", &[], "tcp/443, udp/443", &[]);
        check("443 TCP", &[], "tcp/443", &[]);
        check("443 (TCP), 123 (UDP)", &[], "tcp/443, udp/123", &[]);
        check("80 TCP 443, 123 UDP", &[], "tcp/80, udp/123, udp/443", &[]);
        check("443 TCP/UDP", &[], "tcp/443, udp/443", &[]);
        check("TCP, UDP: 443", &[], "tcp/443, udp/443", &[]);
        check("TCP and UDP ports 443", &[], "tcp/443, udp/443", &[]);
        check("TCP 80/UDP: 123", &[], "tcp/80, udp/123", &[]);
        check("TCP 443, 80/udp", &[], "tcp/443, udp/80", &[]);
        check("UDP 50000 – 59999", &[], "udp/50000-59999", &[]);
        check("TCP: 443 (since 2024)", &[], "tcp/443", &["2024"]);
        check("TCP: 443 from 2024, 80", &[], "tcp/80, tcp/443", &["2024"]);
        check(
            "TCP: 0, 70000, 9-3, 99999999999999999999",
            &[],
            "",
            &["0", "70000", "9-3", "99999999999999999999"],
        );
        check("TCP", &[], "", &["TCP"]);
        check("TCP: 443, UDP", &[], "tcp/443", &["UDP"]);
        check("ESP; UDP: 500", &[], "udp/500, esp", &[]);
        check("ICMP", &[], "icmp", &[]);
        check("HTTPS/443", &[TCP], "tcp/443", &[]);
        check("TCP ポート 443 と 80", &[], "tcp/80, tcp/443", &[]);
        check("", &[], "", &[]);
        check("ー", &[TCP], "", &[]);
    }
}
