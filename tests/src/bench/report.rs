//! PURE: figures as a table for people.

use super::Figure;
use std::fmt::Write;

/// One line per figure, under a heading.
#[must_use]
pub fn table(figures: &[Figure]) -> String {
    let mut text = format!(
        "{:<32} {:>12} {:>12} {:<10} {:>7} {:>13} {:>5}\n",
        "id", "subject", "peer", "unit", "ratio", "spread", "runs"
    );
    for figure in figures {
        let Figure {
            id,
            unit,
            subject,
            peer,
            ratio,
            runs,
            spread: [worst, best],
        } = figure;
        writeln!(
            text,
            "{id:<32} {:>12} {:>12} {unit:<10} {ratio:>7.2} {:>13} {runs:>5}",
            grouped(*subject),
            grouped(*peer),
            format!("{worst:.2}–{best:.2}"),
        )
        .expect("a String takes every write");
    }
    text + "ratio: how many times better than the peer in the same round, median of all; spread: worst and best round\n"
}

/// A number with its thousands apart; with a decimal where it is small.
fn grouped(value: f64) -> String {
    if value.abs() < 1000.0 {
        return format!("{value:.1}");
    }
    let digits = format!("{:.0}", value.abs());
    let mut text = String::new();
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    if value < 0.0 {
        format!("-{text}")
    } else {
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bench::{Better, Round};

    #[test]
    fn numbers() {
        fn check(value: f64, expected: &str) {
            assert_eq!(grouped(value), expected);
        }
        check(0.04, "0.0");
        check(-12.34, "-12.3");
        check(999.9, "999.9");
        check(1000.0, "1,000");
        check(3_214_567.8, "3,214,568");
        check(-23_456.0, "-23,456");
    }

    #[test]
    fn a_line_per_figure() {
        let round = Round {
            subject: 30_000.0,
            peer: 10_000.0,
        };
        let figure = Figure::of("deny-vs-x-v4", "packets/s", Better::Higher, &[round; 7]);
        let text = table(&[figure]);
        let line = text.lines().nth(1).unwrap();
        let words: Vec<&str> = line.split_whitespace().collect();
        assert_eq!(
            words,
            [
                "deny-vs-x-v4",
                "30,000",
                "10,000",
                "packets/s",
                "3.00",
                "3.00–3.00",
                "7"
            ]
        );
    }
}
