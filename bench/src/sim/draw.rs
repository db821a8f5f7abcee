//! Random numbers of the shapes that measurements of file-sharing networks have.

use rand::{Rng, RngExt};

/// A hash of three numbers that is the same everywhere: SplitMix64's finisher, applied in turn.
pub fn mix(a: u64, b: u64, c: u64) -> u64 {
    [b, c].into_iter().fold(finish(a), |state, next| finish(state ^ next.wrapping_mul(0x9e37_79b9_7f4a_7c15)))
}

fn finish(number: u64) -> u64 {
    let number = number.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let number = (number ^ (number >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let number = (number ^ (number >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    number ^ (number >> 31)
}

/// A number in `0..1` made of the upper bits of a hash.
pub fn unit(hash: u64) -> f64 {
    (hash >> 11) as f64 / (1_u64 << 53) as f64
}

/// A normally distributed number made of two in `0..1` (Box and Muller).
pub fn normal(first: f64, second: f64) -> f64 {
    (-2.0 * (1.0 - first).ln()).sqrt() * (std::f64::consts::TAU * second).cos()
}

/// A lognormal number with that median and sigma.
pub fn lognormal(rng: &mut (impl Rng + ?Sized), median: f64, sigma: f64) -> f64 {
    median * (sigma * normal(rng.random(), rng.random())).exp()
}

/// A Weibull number.
pub fn weibull(rng: &mut (impl Rng + ?Sized), shape: f64, scale: f64) -> f64 {
    scale * exponential(rng, 1.0).powf(1.0 / shape)
}

/// An exponential number with that mean.
pub fn exponential(rng: &mut (impl Rng + ?Sized), mean: f64) -> f64 {
    let uniform: f64 = rng.random();
    -mean * (1.0 - uniform).ln()
}

#[cfg(test)]
mod tests {
    use rand_pcg::Pcg32;

    use super::*;

    fn mean_of(mut draw: impl FnMut(&mut Pcg32) -> f64) -> f64 {
        let mut rng = Pcg32::new(7, 7);
        (0..50_000).map(|_| draw(&mut rng)).sum::<f64>() / 50_000.0
    }

    #[test]
    fn means_are_those_of_the_books() {
        let near = |got: f64, expected: f64| assert!((got / expected - 1.0).abs() < 0.05, "{got}, not {expected}");
        near(mean_of(|rng| exponential(rng, 3.0)), 3.0);
        // Gamma(1 + 1/2) = 0.8862.
        near(mean_of(|rng| weibull(rng, 2.0, 10.0)), 8.862);
        near(mean_of(|rng| lognormal(rng, 5.0, 0.5)), 5.0 * (0.125_f64).exp());
    }

    #[test]
    fn hashes_spread_evenly() {
        let mean = (0..50_000).map(|number| unit(mix(1, number, 2))).sum::<f64>() / 50_000.0;
        assert!((mean - 0.5).abs() < 0.01, "{mean}");
        assert_ne!(mix(1, 2, 3), mix(1, 3, 2));
    }
}
