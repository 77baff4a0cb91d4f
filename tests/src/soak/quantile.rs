//! How long answers took.

use std::time::Duration;

/// Times of one kind.
#[derive(Clone, Debug, Default)]
pub struct Waits(Vec<Duration>);

impl Waits {
    /// One more.
    pub fn add(&mut self, wait: Duration) {
        self.0.push(wait);
    }

    /// Those of `other` as well.
    pub fn merge(&mut self, other: Self) {
        self.0.extend(other.0);
    }

    /// How many there are.
    #[must_use]
    pub fn count(&self) -> usize {
        self.0.len()
    }

    /// The times that 500, 990 and 1000 of a thousand do not exceed; zero when there are none.
    #[must_use]
    pub fn quantiles(&self) -> [Duration; 3] {
        let mut sorted = self.0.clone();
        sorted.sort_unstable();
        let last = sorted.len().saturating_sub(1);
        [500, 990, 1000].map(|part| sorted.get(last * part / 1000).copied().unwrap_or_default())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantiles_of_a_hundred() {
        let mut waits = Waits::default();
        assert_eq!(waits.quantiles(), [Duration::ZERO; 3]);
        (0..=100)
            .rev()
            .for_each(|n| waits.add(Duration::from_micros(n)));
        assert_eq!(waits.quantiles(), [50, 99, 100].map(Duration::from_micros));
    }
}
