//! PURE: from rounds to a figure.

use serde::Serialize;

/// Which way a value is good.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Better {
    /// Rates.
    Higher,
    /// Times.
    Lower,
}

/// What one round measured, the subject and then its peer.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Round {
    /// egressd.
    pub subject: f64,
    /// What it is compared with.
    pub peer: f64,
}

impl Round {
    /// How many times better than the peer the subject was.
    #[must_use]
    pub fn ratio(self, better: Better) -> f64 {
        match better {
            Better::Higher => self.subject / self.peer,
            Better::Lower => self.peer / self.subject,
        }
    }
}

/// A figure: medians over all rounds.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Figure {
    /// Which measure.
    pub id: String,
    /// Of `subject` and `peer`.
    pub unit: &'static str,
    /// egressd's median.
    pub subject: f64,
    /// The peer's median.
    pub peer: f64,
    /// How many times better than the peer, whatever the unit: the median of the rounds' ratios.
    pub ratio: f64,
    /// Rounds, each with one run of either.
    pub runs: usize,
    /// The worst and the best ratio of a round.
    pub spread: [f64; 2],
}

impl Figure {
    /// The figure that `rounds` make.
    ///
    /// # Panics
    /// Without any round.
    #[must_use]
    pub fn of(id: &str, unit: &'static str, better: Better, rounds: &[Round]) -> Self {
        let all = |value: &dyn Fn(&Round) -> f64| sorted(rounds.iter().map(value).collect());
        let ratios = all(&|round| round.ratio(better));
        let (Some(worst), Some(best)) = (ratios.first(), ratios.last()) else {
            panic!("{id} has no rounds");
        };
        Self {
            id: id.to_owned(),
            unit,
            subject: median(&all(&|round| round.subject)),
            peer: median(&all(&|round| round.peer)),
            ratio: median(&ratios),
            runs: rounds.len(),
            spread: [*worst, *best],
        }
    }
}

/// `values` from the smallest on.
#[must_use]
pub(super) fn sorted(mut values: Vec<f64>) -> Vec<f64> {
    values.sort_by(f64::total_cmp);
    values
}

/// The middle of `sorted`, or the mean of both middles.
#[must_use]
pub(super) fn median(sorted: &[f64]) -> f64 {
    let half = sorted.len() / 2;
    if sorted.len() % 2 == 1 {
        sorted[half]
    } else {
        f64::midpoint(sorted[half - 1], sorted[half])
    }
}

/// The value that `percent` of `sorted` do not exceed.
#[must_use]
pub(super) fn quantile(sorted: &[f64], percent: usize) -> f64 {
    let last = sorted.len().saturating_sub(1);
    sorted[last * percent / 100]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_middle() {
        fn check(values: &[f64], middle: f64, late: f64) {
            let sorted = sorted(values.to_vec());
            assert!((median(&sorted) - middle).abs() < 1e-9, "{values:?}");
            assert!((quantile(&sorted, 99) - late).abs() < 1e-9, "{values:?}");
        }
        check(&[3.0], 3.0, 3.0);
        check(&[9.0, 1.0], 5.0, 1.0);
        check(&[9.0, 1.0, 2.0], 2.0, 2.0);
        check(&[4.0, 1.0, 3.0, 100.0], 3.5, 4.0);
        let hundred: Vec<f64> = (0..=100).rev().map(f64::from).collect();
        check(&hundred, 50.0, 99.0);
    }

    #[test]
    fn json_has_the_promised_keys() {
        let round = Round {
            subject: 3.0,
            peer: 2.0,
        };
        let figure = Figure::of("deny-v4", "packets/s", Better::Higher, &[round; 5]);
        let expected = serde_json::json!({
            "id": "deny-v4", "unit": "packets/s", "subject": 3.0, "peer": 2.0, "ratio": 1.5,
            "runs": 5, "spread": [1.5, 1.5],
        });
        assert_eq!(serde_json::to_value(figure).unwrap(), expected);
    }

    #[test]
    fn better_is_above_one_whatever_the_unit() {
        fn check(better: Better, rounds: &[(f64, f64)], ratio: f64, spread: [f64; 2]) {
            let rounds: Vec<Round> = rounds
                .iter()
                .map(|&(subject, peer)| Round { subject, peer })
                .collect();
            let figure = Figure::of("id", "u", better, &rounds);
            let close = |a: f64, b: f64| (a - b).abs() < 1e-9;
            assert!(close(figure.ratio, ratio), "{figure:?}");
            assert!(close(figure.spread[0], spread[0]), "{figure:?}");
            assert!(close(figure.spread[1], spread[1]), "{figure:?}");
            assert_eq!(figure.runs, rounds.len());
        }
        // Twice the rate, half the time: twice as good.
        check(Better::Higher, &[(20.0, 10.0)], 2.0, [2.0, 2.0]);
        check(Better::Lower, &[(10.0, 20.0)], 2.0, [2.0, 2.0]);
        // A slow machine in one round slows both: the rounds' ratios hide it, the medians do not.
        check(
            Better::Higher,
            &[(20.0, 10.0), (2.0, 1.0), (30.0, 10.0)],
            2.0,
            [2.0, 3.0],
        );
        check(
            Better::Lower,
            &[(1.0, 4.0), (8.0, 4.0), (2.0, 4.0), (2.0, 2.0)],
            1.5,
            [0.5, 4.0],
        );
    }
}
