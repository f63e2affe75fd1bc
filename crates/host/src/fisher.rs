//! Fisher's exact test, one-sided: how likely is it that one sample has so many bad items by chance?
//!
//! The test is exact for any counts. A canary has few requests, for which tests that assume a normal distribution are
//! wrong in both directions.

/// Bad items among all items of a sample.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Sample {
    /// Items with the property, at most `all`.
    pub bad: u64,
    /// All items.
    pub all: u64,
}

impl Sample {
    /// The share of bad items, from 0 to 1; 0 for an empty sample.
    pub fn share(self) -> f64 {
        if self.all == 0 { 0.0 } else { float(self.bad) / float(self.all) }
    }
}

/// The probability that a sample of `suspect.all` items, drawn from both samples together, has `suspect.bad` bad items or
/// more. Small values mean that `suspect` is worse than `reference`. 1 if `suspect` has no bad item.
pub fn probability(suspect: Sample, reference: Sample) -> f64 {
    let drawn = suspect.all;
    let bad = suspect.bad.min(drawn) + reference.bad.min(reference.all);
    let all = drawn + reference.all;
    if suspect.bad == 0 || drawn == 0 {
        return 1.0;
    }
    let good = all - bad;
    let mut k = suspect.bad.min(drawn);
    let mut term = (ln_choose(bad, k) + ln_choose(good, drawn - k) - ln_choose(all, drawn)).exp();
    let mut sum = 0.0;
    let most = bad.min(drawn);
    // The terms rise to their maximum and then fall faster than any geometric series; the sum ends when they no longer count.
    loop {
        sum += term;
        if k >= most || (term < sum * 1e-15 && float(k) > expected(drawn, bad, all)) {
            return sum.min(1.0);
        }
        // Of `drawn - k` good items at least one remains, because `k < most <= drawn`.
        let ratio = float(bad - k) * float(drawn - k)
            / (float(k + 1) * (float(good) - float(drawn - k) + 1.0));
        term *= ratio;
        k += 1;
    }
}

fn expected(drawn: u64, bad: u64, all: u64) -> f64 {
    float(drawn) * float(bad) / float(all)
}

#[expect(clippy::cast_precision_loss, reason = "counts stay below 2^53")]
fn float(count: u64) -> f64 {
    count as f64
}

fn ln_choose(n: u64, k: u64) -> f64 {
    ln_factorial(n) - ln_factorial(k) - ln_factorial(n - k)
}

/// The logarithm of `n!`: a sum for small numbers, Stirling's series for large ones (error below 1e-12).
fn ln_factorial(n: u64) -> f64 {
    if n < 32 {
        return (2..=n).map(|factor| float(factor).ln()).sum();
    }
    let x = float(n) + 1.0;
    let inverse = 1.0 / x;
    let square = inverse * inverse;
    let series = inverse * (1.0 / 12.0 - square * (1.0 / 360.0 - square / 1260.0));
    (x - 0.5) * x.ln() - x + 0.5 * (2.0 * std::f64::consts::PI).ln() + series
}

#[cfg(test)]
mod tests {
    use super::*;

    fn p(bad: u64, all: u64, reference_bad: u64, reference_all: u64) -> f64 {
        probability(Sample { bad, all }, Sample { bad: reference_bad, all: reference_all })
    }

    fn close(found: f64, wanted: f64) {
        assert!((found - wanted).abs() < wanted * 1e-9, "{found} instead of {wanted}");
    }

    /// The sums of binomials, in whole numbers as long as they fit.
    #[test]
    fn tables_agree_with_sums_of_binomials() {
        fn choose(n: u64, k: u64) -> f64 {
            (0..k).fold(1.0, |product, i| product * float(n - i) / float(i + 1))
        }
        for (bad, all, reference_bad, reference_all) in
            [(3, 4, 1, 4), (1, 1, 0, 1), (5, 20, 2, 180), (9, 50, 9, 450), (40, 100, 30, 100)]
        {
            let total = bad + reference_bad;
            let wanted: f64 = (bad..=total.min(all))
                .map(|k| choose(total, k) * choose(all + reference_all - total, all - k))
                .sum::<f64>()
                / choose(all + reference_all, all);
            close(p(bad, all, reference_bad, reference_all), wanted);
        }
        close(p(3, 4, 1, 4), 17.0 / 70.0);
    }

    #[test]
    fn samples_without_a_bad_item_or_without_items_are_no_evidence() {
        close(p(0, 100, 5, 900), 1.0);
        close(p(0, 0, 5, 900), 1.0);
        close(p(5, 10, 0, 0), 1.0);
    }

    #[test]
    fn everything_bad_in_both_is_no_evidence() {
        close(p(100, 100, 900, 900), 1.0);
    }

    #[test]
    fn large_counts_neither_overflow_nor_take_long() {
        let same = p(1_000, 1_000_000, 9_000, 9_000_000);
        assert!((0.4..0.6).contains(&same), "{same}");
        assert!(p(2_000, 1_000_000, 9_000, 9_000_000) < 1e-100);
        let most = p(900_000, 1_000_000, 8_100_000, 9_000_000);
        assert!((0.4..0.6).contains(&most), "{most}");
    }

    /// The second row of the table in docs/DEPLOY.md: 100 requests of a canary against 900 with 0.1 % errors.
    #[test]
    fn hundred_requests_reveal_a_twentieth_of_errors_in_nine_of_ten_cases() {
        let fails = |bad: u64| p(bad, 100, 1, 900) < 0.01;
        let least = (3..100).find(|bad| fails(*bad)).unwrap();
        assert_eq!(least, 3);
        // The chance of at least `least` errors among 100 with 5 %.
        let mut term = 0.95_f64.powi(100);
        let mut below = 0.0;
        for k in 0..least {
            below += term;
            term *= float(100 - k) / float(k + 1) * 0.05 / 0.95;
        }
        assert!((0.85..0.9).contains(&(1.0 - below)), "{}", 1.0 - below);
    }
}
