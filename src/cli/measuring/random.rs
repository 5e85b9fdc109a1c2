//! Numbers that look random, from a seed, so that a run can be repeated.

/// SplitMix64: enough to draw sizes of frames, and nothing more is asked of it.
#[derive(Clone, Debug)]
pub(in crate::cli) struct Random(u64);

impl Random {
    pub(in crate::cli) fn new(seed: u64) -> Self {
        Self(seed)
    }

    pub(in crate::cli) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// From 0 to less than 1.
    pub(in crate::cli) fn share(&mut self) -> f64 {
        (self.next() >> 11) as f64 / (1_u64 << 53) as f64
    }

    /// Any number from the first to the last, both included.
    pub(in crate::cli) fn between(&mut self, [first, last]: [usize; 2]) -> usize {
        first + (self.share() * (last - first + 1) as f64) as usize
    }

    /// Of a normal distribution with a mean of 0 and a standard deviation of 1 (Box and Muller, 1958).
    pub(in crate::cli) fn normal(&mut self) -> f64 {
        let radius = (-2.0 * (1.0 - self.share()).ln()).sqrt();
        radius * (std::f64::consts::TAU * self.share()).cos()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_between_their_bounds_and_reach_them() {
        let mut random = Random::new(1);
        let drawn: Vec<usize> = (0..1_000).map(|_| random.between([3, 6])).collect();
        assert_eq!(drawn.iter().min(), Some(&3));
        assert_eq!(drawn.iter().max(), Some(&6));
        assert!((0..1_000).all(|_| (0.0..1.0).contains(&random.share())));
    }

    #[test]
    fn normal_numbers_are_normal() {
        let mut random = Random::new(1);
        let drawn: Vec<f64> = (0..100_000).map(|_| random.normal()).collect();
        let count = drawn.len() as f64;
        let mean = drawn.iter().sum::<f64>() / count;
        let variance = drawn.iter().map(|value| (value - mean).powi(2)).sum::<f64>() / count;
        assert!(mean.abs() < 0.02 && (variance - 1.0).abs() < 0.02, "{mean}, {variance}");
        let within = drawn.iter().filter(|value| value.abs() < 1.0).count() as f64 / count;
        assert!((0.67..0.70).contains(&within), "{within}");
    }
}
