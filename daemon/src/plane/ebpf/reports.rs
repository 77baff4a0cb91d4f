//! PURE: what becomes of refused packets that the kernel does not report.

/// Refused packets that the kernel did not report.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Unreported {
    /// There were too many at once, or nobody took the reports.
    pub(super) lost: u64,
    /// A packet of the same flow was reported shortly before.
    pub(super) repeated: u64,
}

impl Unreported {
    pub(super) fn add(&mut self, more: Self) {
        self.lost += more.lost;
        self.repeated += more.repeated;
    }
}

/// Rounds in a second.
const ROUNDS: u64 = 10;

/// The share of one round of the `per_second` packets that may be left to nft.
pub(super) fn referred_in(round: u64, per_second: u32) -> u64 {
    let until = |rounds: u64| rounds * u64::from(per_second) / ROUNDS;
    let of_second = round % ROUNDS;
    until(of_second + 1) - until(of_second)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rounds_share_what_a_second_may_refer() {
        fn check(per_second: u32, expected: [u64; 10]) {
            let rounds = std::array::from_fn(|round| referred_in(round as u64, per_second));
            assert_eq!(rounds, expected, "{per_second}");
            assert_eq!(rounds.iter().sum::<u64>(), u64::from(per_second));
        }
        check(0, [0; 10]);
        check(1, [0, 0, 0, 0, 0, 0, 0, 0, 0, 1]);
        check(3, [0, 0, 0, 1, 0, 0, 1, 0, 0, 1]);
        check(10, [1; 10]);
        check(25, [2, 3, 2, 3, 2, 3, 2, 3, 2, 3]);
    }
}
