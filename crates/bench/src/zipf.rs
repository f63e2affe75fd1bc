//! Ranks drawn from Zipf's law with exponent 1: rank `k` is drawn in proportion to `1 / k`.

use rand::{SeedableRng, distr::Distribution, rngs::StdRng};

/// Draws ranks. The same seed gives the same ranks.
pub struct RankSampler {
    zipf: rand_distr::Zipf<f64>,
    random: StdRng,
}

impl RankSampler {
    /// For ranks from 0 to `links - 1`; `links` must be at least 1.
    pub fn new(links: u32, seed: u64) -> Result<Self, rand_distr::ZipfError> {
        let zipf = rand_distr::Zipf::new(f64::from(links), 1.0)?;
        Ok(Self { zipf, random: StdRng::seed_from_u64(seed) })
    }

    /// The next rank, from 0.
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "Zipf returns whole numbers from 1 to the number of links, which fits in 32 bits"
    )]
    pub fn draw(&mut self) -> u64 {
        self.zipf.sample(&mut self.random) as u64 - 1
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_rank_gets_its_share_of_the_draws() {
        let mut sampler = RankSampler::new(1_000, 1).unwrap();
        let mut counts = vec![0_u32; 1_000];
        for _ in 0..200_000 {
            counts[usize::try_from(sampler.draw()).unwrap()] += 1;
        }
        // H(1000) = 7.4855: the first rank gets 26,718 draws, the tenth a tenth of that. Four sigmas are 600 and 200.
        assert!(counts[0].abs_diff(26_718) < 600, "{}", counts[0]);
        assert!(counts[9].abs_diff(2_672) < 210, "{}", counts[9]);
        assert!(counts.iter().all(|&count| count > 0));
    }

    #[test]
    fn one_link_gets_every_draw() {
        let mut sampler = RankSampler::new(1, 1).unwrap();
        assert!((0..1_000).all(|_| sampler.draw() == 0));
    }

    #[test]
    fn the_seed_determines_the_draws() {
        let draws = |seed| {
            let mut sampler = RankSampler::new(1_000, seed).unwrap();
            (0..100).map(|_| sampler.draw()).collect::<Vec<_>>()
        };
        assert_eq!(draws(1), draws(1));
        assert_ne!(draws(1), draws(2));
    }
}
