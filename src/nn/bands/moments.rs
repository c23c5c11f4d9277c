//! Statistics of a map, gathered band by band, and the group norm they stand for.

use super::Affine;

/// Running mean and squared deviation of every channel over the pixels seen so far, in f64.
///
/// Bands are merged by the pairwise update of Chan, Golub and LeVeque (1979), which does not cancel.
#[derive(Debug, Clone)]
pub(crate) struct Moments {
    count: f64,
    mean: Vec<f64>,
    squares: Vec<f64>,
}

/// Group norm's epsilon in diffusers' AutoencoderKL (`resnet_eps` of its blocks).
const EPSILON: f64 = 1e-6;

impl Moments {
    /// Nothing seen yet, of `channels` channels.
    pub fn new(channels: usize) -> Self {
        Self { count: 0.0, mean: vec![0.0; channels], squares: vec![0.0; channels] }
    }

    /// Number of channels.
    pub fn channels(&self) -> usize {
        self.mean.len()
    }

    /// Adds `count` pixels of which channel c has this mean and this sum of squared deviations from it.
    pub fn merge(&mut self, count: usize, part: impl Iterator<Item = (f64, f64)>) {
        let (before, added) = (self.count, count as f64);
        self.count += added;
        for ((mean, squares), (part_mean, part_squares)) in self.mean.iter_mut().zip(&mut self.squares).zip(part) {
            let delta = part_mean - *mean;
            *mean += delta * added / self.count;
            *squares += part_squares + delta * delta * before * added / self.count;
        }
    }

    /// Adds `count` pixels by the sum and the sum of squares of each channel.
    ///
    /// In f64 the difference of the two loses nothing that f32 numbers ever had.
    pub fn merge_sums(&mut self, count: usize, sums: &[f64], squares: &[f64]) {
        let n = count as f64;
        self.merge(count, sums.iter().zip(squares).map(|(s, q)| (s / n, (q - s * s / n).max(0.0))));
    }

    /// The group norm these statistics stand for: y = (x - mean_g) / sqrt(var_g + eps) * gamma + beta.
    pub fn affine(&self, groups: usize, gamma: &[f32], beta: &[f32]) -> Affine {
        let per_group = self.channels() / groups;
        let (mut scale, mut shift) = (Vec::with_capacity(gamma.len()), Vec::with_capacity(gamma.len()));
        for group in 0..groups {
            let channels = group * per_group..(group + 1) * per_group;
            let mean = self.mean[channels.clone()].iter().sum::<f64>() / per_group as f64;
            let squares: f64 = channels
                .clone()
                .map(|c| self.squares[c] + self.count * (self.mean[c] - mean) * (self.mean[c] - mean))
                .sum();
            let deviation = (squares / (self.count * per_group as f64) + EPSILON).sqrt();
            for c in channels {
                let factor = f64::from(gamma[c]) / deviation;
                scale.push(factor as f32);
                shift.push((f64::from(beta[c]) - mean * factor) as f32);
            }
        }
        Affine { scale, shift }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn moments_of_parts_are_moments_of_the_whole() {
        // Mean 1000, deviation below 1: sums of squares in f32 would lose all of it.
        let pixels: Vec<[f32; 2]> = (0..97).map(|i| [1000.0 + (i as f32 * 0.7).sin(), (i as f32).cos()]).collect();
        let mut parts = Moments::new(2);
        for part in pixels.chunks(13) {
            let sum = |c: usize, f: fn(f64) -> f64| part.iter().map(|p| f(f64::from(p[c]))).sum::<f64>();
            parts.merge_sums(part.len(), &[sum(0, |x| x), sum(1, |x| x)], &[sum(0, |x| x * x), sum(1, |x| x * x)]);
        }
        for c in 0..2 {
            let mean = pixels.iter().map(|p| f64::from(p[c])).sum::<f64>() / 97.0;
            let squares = pixels.iter().map(|p| (f64::from(p[c]) - mean).powi(2)).sum::<f64>();
            assert!((parts.mean[c] - mean).abs() < 1e-12 * mean.abs().max(1.0));
            assert!((parts.squares[c] - squares).abs() < 1e-7 * squares);
        }
    }

    #[test]
    fn a_group_has_mean_zero_and_deviation_one() {
        let mut moments = Moments::new(2);
        moments.merge(4, [(1.0, 8.0), (3.0, 8.0)].into_iter());
        let affine = moments.affine(1, &[1.0, 2.0], &[0.0, 5.0]);
        // mean 2; var = (8 + 8 + 4 * 1 + 4 * 1) / 8 = 3
        let inverse = 1.0 / (3.0f64 + EPSILON).sqrt();
        assert!((f64::from(affine.scale[0]) - inverse).abs() < 1e-7);
        assert!((f64::from(affine.shift[0]) + 2.0 * inverse).abs() < 1e-7);
        assert!((f64::from(affine.shift[1]) - (5.0 - 4.0 * inverse)).abs() < 1e-6);
    }
}
