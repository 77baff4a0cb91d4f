//! PURE: how many cores a line takes at the measured cost of a packet.

use super::Figure;
use std::fmt::Write;

/// Gigabits per second of a line.
const LINES: [f64; 3] = [1.0, 10.0, 25.0];

/// Bytes of a frame, checksum included: the least, the mean of the simple IMIX (seven frames of 64,
/// four of 594, one of 1518 bytes), the largest without VLAN tag.
const FRAMES: [(&str, f64); 3] = [
    ("64 B", 64.0),
    ("IMIX", (7.0 * 64.0 + 4.0 * 594.0 + 1518.0) / 12.0),
    ("1518 B", 1518.0),
];

/// Preamble, start of frame and the gap after it (IEEE 802.3).
const BETWEEN: f64 = 20.0;

/// Frames per second that fill a line.
fn frames(gigabits: f64, bytes: f64) -> f64 {
    gigabits * 1e9 / 8.0 / (bytes + BETWEEN)
}

/// A table of the cores that one direction of a line takes, for each figure that tells what a packet
/// costs; empty where there is none.
#[must_use]
pub fn cores(figures: &[Figure]) -> String {
    let costs: Vec<(String, f64)> = figures.iter().filter_map(cost).collect();
    if costs.is_empty() {
        return String::new();
    }
    let mut text =
        String::from("\ncores that one direction of a line takes at the cost measured here\n");
    write!(text, "{:<44} {:>8}", "what is done to each packet", "ns").expect(INFALLIBLE);
    for gigabits in LINES {
        for (name, _) in FRAMES {
            write!(text, " {:>10}", format!("{gigabits}G {name}")).expect(INFALLIBLE);
        }
    }
    text.push('\n');
    for (what, nanoseconds) in costs {
        write!(text, "{what:<44} {nanoseconds:>8.0}").expect(INFALLIBLE);
        for gigabits in LINES {
            for (_, bytes) in FRAMES {
                let busy = frames(gigabits, bytes) * nanoseconds / 1e9;
                write!(text, " {busy:>10.2}").expect(INFALLIBLE);
            }
        }
        text.push('\n');
    }
    text
}

const INFALLIBLE: &str = "a String takes every write";

/// What a packet costs, in nanoseconds, by a figure that tells.
fn cost(figure: &Figure) -> Option<(String, f64)> {
    let is = |start: &str| figure.id.starts_with(start);
    if is("verdict-cost-") && figure.id.ends_with("-65536") {
        Some((format!("{} (verdict alone)", figure.id), figure.subject))
    } else if is("deny-vs-nft-only") {
        Some((
            format!("refused, {} (virtual devices)", family(figure)),
            1e9 / figure.subject,
        ))
    } else if is("allow-vs-nft-only") {
        Some((
            format!("forwarded, {} (virtual devices)", family(figure)),
            1e9 / figure.subject,
        ))
    } else {
        None
    }
}

fn family(figure: &Figure) -> &str {
    figure.id.rsplit('-').next().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bench::{Better, Round};

    #[test]
    fn a_line_is_full_of_frames() {
        let check = |gigabits, bytes, expected: f64| {
            let got = frames(gigabits, bytes);
            assert!((got - expected).abs() < 1.0, "{got}");
        };
        check(1.0, 64.0, 1_488_095.0);
        check(10.0, 1518.0, 812_744.0);
    }

    #[test]
    fn costs_become_cores() {
        let figure = |id: &str, subject| {
            Figure::of(id, "ns", Better::Lower, &[Round { subject, peer: 8.0 }; 3])
        };
        let figures = [
            figure("verdict-cost-v4-granted-65536", 67.2),
            figure("verdict-cost-v4-granted-1000", 30.0),
            figure("deny-vs-nft-only-v6", 2e6),
        ];
        let text = cores(&figures);
        let lines: Vec<&str> = text.trim().lines().collect();
        assert_eq!(lines.len(), 4, "{text}");
        // 1,488,095 frames of 67.2 ns are a tenth of a second.
        assert!(lines[2].contains("67       0.10"), "{text}");
        assert!(lines[3].starts_with("refused, v6"), "{text}");
        assert_eq!(cores(&figures[1..2]), "");
    }
}
