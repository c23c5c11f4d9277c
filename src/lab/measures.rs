//! Simple numbers on a picture, for comparing pictures of one prompt, seed and size with each other.

use image::RgbImage;
use serde::{Deserialize, Serialize};

use super::{plane::Plane, self_similarity, spectrum_slope};

/// What each of [`Measures`] says, by its name in JSON.
pub const EXPLANATIONS: [(&str, &str); 3] = [
    (
        "sharpness",
        "variance of the Laplacian of the luma (0 to 255): higher has more fine contrast; noise and grain count as well, and \
         only pictures of one size compare",
    ),
    (
        "spectrum_slope",
        "how power falls with frequency, log over log: photographs about -2; steeper is softer, nearer to 0 is noisier",
    ),
    (
        "self_similarity",
        "highest peak of the autocorrelation at shifts of 1/8 to 1/2 of a side: 0 nothing repeats, 1 the picture repeats \
         itself perfectly; meant patterns (windows, tiles) count too",
    ),
];

/// Three measures of one picture.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Measures {
    /// See [`sharpness`].
    pub sharpness: f64,
    /// See [`spectrum_slope`]; `None` for a flat or tiny picture.
    pub spectrum_slope: Option<f64>,
    /// See [`self_similarity`].
    pub self_similarity: f64,
}

impl Measures {
    /// Measures a picture.
    pub fn of(picture: &RgbImage) -> Self {
        Self {
            sharpness: sharpness(picture),
            spectrum_slope: spectrum_slope(picture),
            self_similarity: self_similarity(picture),
        }
    }

    /// One line for each measure: name, value, what it says.
    pub fn explain(&self) -> String {
        let slope = self.spectrum_slope.map_or_else(|| "none (a flat or tiny picture)".into(), |s| format!("{s:.2}"));
        let values = [format!("{:.1}", self.sharpness), slope, format!("{:.2}", self.self_similarity)];
        let lines =
            EXPLANATIONS.iter().zip(values).map(|((name, meaning), value)| format!("{name} {value}: {meaning}"));
        lines.collect::<Vec<_>>().join("\n")
    }
}

/// The variance of the Laplacian of the luma, over all pixels but the border; 0 for a flat picture.
///
/// The Laplacian (left + right + above + below - 4 · middle) answers to edges and fine texture and to nothing else, so its
/// variance is how much of them there is (Pech-Pacheco et al., 2000, doi:10.1109/ICPR.2000.903548). Luma runs from 0 to
/// 255, as in OpenCV's `Laplacian(grey).var()`. It depends on the size of a picture: compare pictures of one size.
pub fn sharpness(picture: &RgbImage) -> f64 {
    let Plane { width, height, values } = Plane::luma(picture);
    if width < 3 || height < 3 {
        return 0.0;
    }
    let (mut sum, mut squares) = (0.0, 0.0);
    for y in 1..height - 1 {
        let [above, row, below] = [y - 1, y, y + 1].map(|y| &values[y * width..][..width]);
        for x in 1..width - 1 {
            let laplacian = f64::from(row[x - 1] + row[x + 1] + above[x] + below[x] - 4.0 * row[x]);
            sum += laplacian;
            squares += laplacian * laplacian;
        }
    }
    let count = ((width - 2) * (height - 2)) as f64;
    (squares / count - (sum / count).powi(2)).max(0.0)
}

/// Pictures whose measures are known.
#[cfg(test)]
pub(super) mod synthetic {
    use image::{Rgb, RgbImage, imageops};
    use rustfft::{FftPlanner, num_complex::Complex32};

    use crate::base::fourier::transposed;

    /// Numbers that look random (xorshift64*, Vigna 2016), uniform in [0, 1).
    pub fn random(seed: u64) -> impl FnMut() -> f32 {
        let mut state = seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1;
        move || {
            state ^= state >> 12;
            state ^= state << 25;
            state ^= state >> 27;
            (state.wrapping_mul(0x2545_F491_4F6C_DD1D) >> 40) as f32 / (1u32 << 24) as f32
        }
    }

    pub fn plain(width: u32, height: u32, level: u8) -> RgbImage {
        RgbImage::from_pixel(width, height, Rgb([level; 3]))
    }

    /// White noise in grey.
    pub fn noise(width: u32, height: u32, seed: u64) -> RgbImage {
        let mut random = random(seed);
        RgbImage::from_fn(width, height, |_, _| Rgb([(random() * 256.0) as u8; 3]))
    }

    pub fn blurred(picture: &RgbImage, sigma: f32) -> RgbImage {
        imageops::blur(picture, sigma)
    }

    /// A square of grey noise whose amplitude falls as frequency^-exponent, as in photographs at 1.
    pub fn one_over_f(side: usize, exponent: f32, seed: u64) -> RgbImage {
        let mut random = random(seed);
        let cycles = |i: usize| i.min(side - i) as f32;
        let mut values: Vec<Complex32> = (0..side * side)
            .map(|i| {
                let radius = cycles(i / side).hypot(cycles(i % side));
                let amplitude = if radius == 0.0 { 0.0 } else { radius.powf(-exponent) };
                Complex32::from_polar(amplitude, std::f32::consts::TAU * random())
            })
            .collect();
        let plan = FftPlanner::new().plan_fft_inverse(side);
        plan.process(&mut values);
        let mut values = transposed(&values, side);
        plan.process(&mut values);
        // The real part alone has the same spectrum. Four standard deviations fit into 0 to 255.
        let deviation = (values.iter().map(|v| v.re * v.re).sum::<f32>() / values.len() as f32).sqrt();
        let level = |i: usize| (128.0 + 32.0 * values[i].re / deviation).round() as u8;
        RgbImage::from_fn(side as u32, side as u32, |x, y| Rgb([level(y as usize * side + x as usize); 3]))
    }
}

#[cfg(test)]
mod tests {
    use image::Rgb;

    use super::{
        synthetic::{blurred, noise, one_over_f, plain},
        *,
    };

    #[test]
    fn the_laplacian_of_one_bright_pixel_is_known() {
        let mut picture = plain(5, 5, 0);
        picture.put_pixel(2, 2, Rgb([100; 3]));
        // Of 9 inner pixels one has -400 and four have 100: mean 0, variance (160,000 + 4 · 10,000) / 9.
        assert!((sharpness(&picture) - 200_000.0 / 9.0).abs() < 0.1);
    }

    #[test]
    fn blurred_is_less_sharp_and_flat_not_at_all() {
        let sharp = one_over_f(128, 1.0, 5);
        let [a, b, c] = [sharpness(&sharp), sharpness(&blurred(&sharp, 0.7)), sharpness(&blurred(&sharp, 2.0))];
        assert!(a > 1.5 * b && b > 2.0 * c && c > 0.0, "{a} {b} {c}");
        assert!(sharpness(&plain(32, 32, 77)) < 1e-6);
        assert_eq!(sharpness(&noise(2, 50, 1)), 0.0);
    }

    #[test]
    fn the_explanation_names_every_field_of_the_json() {
        let measures = Measures::of(&noise(64, 48, 1));
        let json = serde_json::to_value(measures).expect("JSON");
        let fields: Vec<&str> = json.as_object().expect("an object").keys().map(String::as_str).collect();
        for (name, _) in EXPLANATIONS {
            assert!(fields.contains(&name) && measures.explain().contains(&format!("{name} ")), "{name}");
        }
        assert_eq!(fields.len(), EXPLANATIONS.len());
        let back: Measures = serde_json::from_value(json).expect("reads back");
        assert!((back.sharpness - measures.sharpness).abs() <= 1e-12 * measures.sharpness);
        assert!(Measures::of(&plain(32, 32, 1)).explain().contains("spectrum_slope none"));
    }
}
