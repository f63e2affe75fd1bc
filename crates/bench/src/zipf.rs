//! Draws from Zipf's law: rank k is asked for in proportion to 1 / k.

use crate::links::MAX_LINKS;

/// Ranks drawn from a seed: the same seed gives the same draws.
pub struct Zipf {
    /// Up to and with each rank, of the total of 1.
    cumulated: Vec<f64>,
    state: u64,
}

impl Zipf {
    /// Over `links` ranks, with exponent 1.
    pub fn new(links: u32, seed: u64) -> Self {
        let mut sum = 0.0;
        let mut cumulated: Vec<f64> = (1..=links)
            .map(|rank| {
                sum += 1.0 / f64::from(rank);
                sum
            })
            .collect();
        for value in &mut cumulated {
            *value /= sum;
        }
        Self { cumulated, state: seed }
    }

    /// The next rank, from 0.
    pub fn draw(&mut self) -> u64 {
        let point = self.uniform();
        let rank = self.cumulated.partition_point(|&up_to| up_to <= point);
        // Rounding may leave the last value below 1.
        let rank = rank.min(self.cumulated.len().saturating_sub(1));
        u64::try_from(rank).unwrap_or(0).min(MAX_LINKS)
    }

    /// In [0, 1), by `SplitMix64`.
    fn uniform(&mut self) -> f64 {
        self.state = self.state.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.state;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^= z >> 31;
        // The upper 32 bits: a million ranks need 20.
        f64::from(u32::try_from(z >> 32).unwrap_or(0)) / (f64::from(u32::MAX) + 1.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_ranks_get_their_share() {
        let mut zipf = Zipf::new(1_000, 1);
        let mut counts = vec![0_u32; 1_000];
        for _ in 0..200_000 {
            counts[usize::try_from(zipf.draw()).unwrap()] += 1;
        }
        // H(1000) = 7.4855: rank 1 gets 26,718 of them, rank 10 a tenth; four sigmas are 600 and 200.
        assert!(counts[0].abs_diff(26_718) < 600, "{}", counts[0]);
        assert!(counts[9].abs_diff(2_672) < 210, "{}", counts[9]);
        assert!(counts.iter().all(|&count| count > 0));
    }

    #[test]
    fn a_seed_decides_the_draws() {
        let draws = |seed| {
            let mut zipf = Zipf::new(1_000, seed);
            (0..100).map(|_| zipf.draw()).collect::<Vec<_>>()
        };
        assert_eq!(draws(1), draws(1));
        assert_ne!(draws(1), draws(2));
    }
}
