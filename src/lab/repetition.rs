//! Whether a picture repeats itself: beyond its training resolution a model without position scaling draws its subject again
//! and again.

use image::RgbImage;

use super::plane::Plane;
use crate::base::fourier;

/// The longer side at which a picture is looked at: large enough for its subjects, too small for its textures.
const SIDE: usize = 512;
/// Shifts below this part of both sides are not repetition: everything is like itself nearby.
const NEAREST: f64 = 1.0 / 8.0;
/// Shifts beyond this part of a side leave too little overlap to speak of.
const FARTHEST: f64 = 1.0 / 2.0;
/// Standard deviation of the blur whose result is taken off, as a part of the geometric mean of the sides (8 px of 512):
/// light and shade over the whole picture agree with themselves at every shift.
const COARSEST: f32 = 1.0 / 64.0;
/// The finest that is kept, as a part of the coarsest: a repetition that is not a whole number of pixels away must count.
const FINEST: f32 = 1.0 / 8.0;
/// How far from a peak its surroundings are looked at, as a part of the geometric mean of the sides.
const AROUND: f64 = 1.0 / 32.0;
/// Directions in which a straight edge may run.
const DIRECTIONS: usize = 8;
/// Mean square in grey levels below which there is nothing to compare.
const FLAT: f64 = 1e-2;
/// Part of the mean square that both overlapping parts must have: two empty skies are not a repetition.
const LEAST_ENERGY: f64 = 0.1;

/// How much a picture repeats itself: 0 not at all, 1 perfectly.
///
/// The luma, at most 512 px a side, keeps what is between 1/512 and 1/64 of it; the score is the highest peak of its
/// normalised autocorrelation at shifts of 1/8 to 1/2 of a side, over the part where the shifted picture overlaps itself.
/// A straight edge is like itself all along, which is a ridge and not a peak: what stays on both sides is taken off.
/// Patterns that are meant (windows, tiles) count too.
pub fn self_similarity(picture: &RgbImage) -> f64 {
    let plane = Plane::luma(picture).at_most(SIDE);
    let mean_side = ((plane.width * plane.height) as f32).sqrt();
    let band = band(&plane, COARSEST * mean_side);
    let reach = (AROUND * f64::from(mean_side)).round().max(1.0) as i32;
    Correlation::of(&band, reach).map_or(0.0, |correlation| correlation.highest_peak())
}

/// What is finer than `coarsest` pixels, without the very finest.
fn band(plane: &Plane, coarsest: f32) -> Plane {
    let (fine, coarse) = (plane.blurred(FINEST * coarsest), plane.blurred(coarsest));
    let values = fine.values.iter().zip(&coarse.values).map(|(fine, coarse)| fine - coarse).collect();
    Plane { values, ..*plane }
}

/// The normalised autocorrelation at shifts up to half the sides and a little more.
struct Correlation {
    width: i32,
    height: i32,
    /// Pixels between a peak and its surroundings.
    reach: i32,
    /// Largest shifts held.
    most: [i32; 2],
    /// Shifts (dy, dx), dy from 0 to `most[0]`, dx from `-most[1]` to `most[1]`.
    values: Vec<f32>,
}

impl Correlation {
    /// `None` for a plane with nothing in it.
    fn of(plane: &Plane, reach: i32) -> Option<Self> {
        let energy = Energy::of(plane);
        let mean = energy.sum([0, 0], [plane.height, plane.width]) / plane.values.len() as f64;
        if plane.values.is_empty() || mean < FLAT {
            return None;
        }
        let [height, width] = [plane.height as i32, plane.width as i32];
        let most = [height, width].map(|side| ((f64::from(side) * FARTHEST) as i32 + reach).min(side - 1));
        let (padded_width, products) = products(plane, most);
        let padded_height = products.len() / padded_width;
        let mut values = Vec::new();
        for dy in 0..=most[0] {
            for dx in -most[1]..=most[1] {
                let [first, second] = energy.of_overlap(dy, dx);
                let pixels = f64::from((height - dy) * (width - dx.abs()));
                let is_empty = first.min(second) < LEAST_ENERGY * mean * pixels;
                let row = dy as usize % padded_height;
                let product = products[row * padded_width + dx.rem_euclid(padded_width as i32) as usize];
                values.push(if is_empty { 0.0 } else { (f64::from(product) / (first * second).sqrt()) as f32 });
            }
        }
        Some(Self { width, height, reach, most, values })
    }

    /// Correlation at a shift; 0 beyond those held. The correlation at -d is that at d.
    fn at(&self, dy: i32, dx: i32) -> f32 {
        let (dy, dx) = if dy < 0 { (-dy, -dx) } else { (dy, dx) };
        if dy > self.most[0] || dx.abs() > self.most[1] {
            return 0.0;
        }
        let row = 2 * self.most[1] + 1;
        self.values[(dy * row + dx + self.most[1]) as usize]
    }

    fn highest_peak(&self) -> f64 {
        let part = |side: i32, part: f64| (f64::from(side) * part) as i32;
        let (far_y, far_x) = (part(self.height, FARTHEST), part(self.width, FARTHEST));
        let (near_y, near_x) = (part(self.height, NEAREST), part(self.width, NEAREST));
        let mut highest = 0f32;
        for dy in 0..=far_y {
            for dx in -far_x..=far_x {
                let value = self.at(dy, dx);
                if value > highest && (dy > near_y || dx.abs() > near_x) {
                    highest = highest.max(value - self.ridge(dy, dx));
                }
            }
        }
        f64::from(highest.min(1.0))
    }

    /// What of the correlation stays on both sides of a shift, in the direction where most does.
    fn ridge(&self, dy: i32, dx: i32) -> f32 {
        let stays = |direction: usize| {
            let angle = std::f64::consts::PI * direction as f64 / DIRECTIONS as f64;
            let along = |part: f64| (f64::from(self.reach) * part).round() as i32;
            let (y, x) = (along(angle.sin()), along(angle.cos()));
            self.at(dy + y, dx + x).min(self.at(dy - y, dx - x))
        };
        (0..DIRECTIONS).map(stays).fold(0.0, f32::max)
    }
}

/// The sums of f(y, x) · f(y + dy, x + dx) over the overlap, in a transform padded with zeros so that no shift up to `most`
/// wraps around, and the transform's width.
fn products(plane: &Plane, most: [i32; 2]) -> (usize, Vec<f32>) {
    let rows = plane.height + most[0] as usize;
    let width = plane.width + most[1] as usize;
    let mut padded = vec![0.0; rows * width];
    for (to, from) in padded.chunks_exact_mut(width).zip(plane.values.chunks_exact(plane.width)) {
        to[..plane.width].copy_from_slice(from);
    }
    (width, fourier::autocorrelation(&padded, width))
}

/// Sums of squares over rectangles, from a table of sums over all rectangles that begin at the corner.
struct Energy {
    width: usize,
    height: usize,
    /// [height + 1, width + 1]
    sums: Vec<f64>,
}

impl Energy {
    fn of(plane: &Plane) -> Self {
        let row = plane.width + 1;
        let mut sums = vec![0.0; row * (plane.height + 1)];
        for y in 0..plane.height {
            let mut sum = 0.0;
            for x in 0..plane.width {
                sum += f64::from(plane.values[y * plane.width + x]).powi(2);
                sums[(y + 1) * row + x + 1] = sums[y * row + x + 1] + sum;
            }
        }
        Self { width: plane.width, height: plane.height, sums }
    }

    /// Over rows and columns from `from` to just before `to`.
    fn sum(&self, from: [usize; 2], to: [usize; 2]) -> f64 {
        let at = |y: usize, x: usize| self.sums[y * (self.width + 1) + x];
        at(to[0], to[1]) - at(from[0], to[1]) - at(to[0], from[1]) + at(from[0], from[1])
    }

    /// Of the part of the picture that its shifted copy covers, and of the part of the copy; dy >= 0.
    fn of_overlap(&self, dy: i32, dx: i32) -> [f64; 2] {
        let (dy, right, left) = (dy as usize, dx.max(0) as usize, (-dx).max(0) as usize);
        [
            self.sum([0, left], [self.height - dy, self.width - right]),
            self.sum([dy, right], [self.height, self.width - left]),
        ]
    }
}

#[cfg(test)]
mod tests {
    use image::{Rgb, imageops};

    use super::*;
    use crate::lab::measures::synthetic::{blurred, noise, one_over_f, plain};

    /// The picture again and again until the sides are filled.
    fn tiled(tile: &RgbImage, width: u32, height: u32) -> RgbImage {
        let mut picture = RgbImage::new(width, height);
        imageops::tile(&mut picture, tile);
        picture
    }

    #[test]
    fn a_tiled_picture_scores_one() {
        for (side, width, height) in [(128, 256, 256), (100, 256, 200), (64, 256, 256)] {
            let score = self_similarity(&tiled(&blurred(&noise(side, side, 1), 1.0), width, height));
            assert!(score > 0.95, "{side} in {width} x {height}: {score}");
        }
        let natural = one_over_f(128, 1.0, 4);
        let score = self_similarity(&tiled(&natural, 256, 256));
        assert!(score > 0.8, "{score}");
    }

    #[test]
    fn a_repetition_between_whole_pixels_counts() {
        // 700 px are looked at as 512: the period of 350 px is 256, that of 233 px is 170.4.
        for side in [350, 233] {
            let score = self_similarity(&tiled(&blurred(&noise(side, side, 1), 2.0), 700, 700));
            assert!(score > 0.85, "{side}: {score}");
        }
    }

    #[test]
    fn noise_and_single_scenes_score_low() {
        let score = self_similarity(&noise(256, 256, 1));
        assert!(score < 0.1, "{score}");
        for seed in 1..5 {
            let score = self_similarity(&one_over_f(256, 1.0, seed));
            assert!(score < 0.25, "{seed}: {score}");
        }
    }

    #[test]
    fn half_a_repetition_lies_between() {
        let mut picture = tiled(&one_over_f(128, 1.0, 1), 256, 256);
        imageops::replace(
            &mut picture,
            &imageops::resize(&one_over_f(256, 1.0, 2), 256, 128, imageops::Nearest),
            0,
            128,
        );
        let score = self_similarity(&picture);
        assert!((0.2..0.8).contains(&score), "{score}");
    }

    #[test]
    fn straight_edges_are_no_repetition() {
        let horizon = RgbImage::from_fn(256, 256, |_, y| Rgb([if y < 140 { 220 } else { 60 }; 3]));
        let slanted = RgbImage::from_fn(256, 256, |x, y| Rgb([if y < 60 + x / 2 { 220 } else { 60 }; 3]));
        for picture in [horizon, slanted] {
            let score = self_similarity(&picture);
            assert!(score < 0.3, "{score}");
        }
    }

    #[test]
    fn flat_and_tiny_pictures_do_not_repeat() {
        assert_eq!(self_similarity(&plain(64, 64, 128)), 0.0);
        for (width, height) in [(0, 0), (1, 1), (1, 40), (16, 16), (3, 2)] {
            let score = self_similarity(&noise(width, height, 1));
            assert!((0.0..=1.0).contains(&score), "{width} x {height}: {score}");
        }
    }
}
