//! A rough picture from latents without the autoencoder: each latent pixel's colour is a linear map of its channels
//! ([`RgbFactors`]).
//!
//! What a user wants to see in the middle of a run is not the noisy latents but the picture they are heading for: see
//! [`estimate_clean`].

use candle_core::Tensor;

use crate::{
    error::{Error, Result},
    models::RgbFactors,
};

/// Latents [C, h, w], as the pipeline holds them (before the autoencoder's scale and shift are undone), as an RGB8 picture
/// [h, w, 3]: one pixel for each latent.
///
/// # Errors
/// [`Error::Request`] when `latents` are not C·h·w numbers.
pub fn preview_rgb(latents: &[f32], h: usize, w: usize, map: &RgbFactors) -> Result<Vec<u8>> {
    let channels = map.factors.len();
    let plane = h.checked_mul(w).filter(|plane| plane.checked_mul(channels) == Some(latents.len()));
    let Some(plane) = plane else {
        let what = format!("{} latents cannot be [{channels}, {h}, {w}]", latents.len());
        return Err(Error::request(what, "they belong to another size; give the height and width they were made with"));
    };
    let mut rgb = Vec::with_capacity(3 * plane); // [h, w, 3]
    for at in 0..plane {
        let mut color = map.bias;
        for (channel, row) in map.factors.iter().enumerate() {
            let latent = latents[channel * plane + at];
            color.iter_mut().zip(row).for_each(|(sum, factor)| *sum += latent * factor);
        }
        // [-1, 1] to [0, 255]; the cast saturates, and makes 0 of NaN.
        rgb.extend(color.map(|x| ((x + 1.0) / 2.0 * 255.0).round() as u8));
    }
    Ok(rgb)
}

/// The clean latents that an Euler step was heading for, from the latents before and after it, of one shape.
///
/// The step went from sigma `t` to `t_next` along `v = (after - before) / (t_next - t)`, and rectified flow has
/// `x_t = (1 - t)·x_0 + t·noise` with velocity `noise - x_0` (arXiv 2209.03003), so that `x_0 = after - t_next · v`.
/// Any layout will do, packed or not, as long as both have the same.
///
/// # Errors
/// [`Error::Request`] when the sigmas are equal or not finite; [`Error::Tensor`] when the shapes differ or the device fails.
pub fn estimate_clean(before: &Tensor, after: &Tensor, t: f64, t_next: f64) -> Result<Tensor> {
    let factor = t_next / (t_next - t);
    if !factor.is_finite() {
        let what = format!("no step leads from sigma {t} to sigma {t_next}");
        return Err(Error::request(what, "give the latents and sigmas before and after one step"));
    }
    Ok((after - ((after - before)? * factor)?)?)
}

#[cfg(test)]
mod tests {
    use candle_core::Device;
    use proptest::prelude::*;

    use super::*;
    use crate::models::parts::KL16_RGB as LATENT_RGB;

    fn estimate(before: &[f32], after: &[f32], t: f64, t_next: f64) -> Result<Vec<f32>> {
        let tensor = |values: &[f32]| Tensor::new(values, &Device::Cpu);
        Ok(estimate_clean(&tensor(before)?, &tensor(after)?, t, t_next)?.to_vec1()?)
    }

    #[test]
    fn zero_latents_have_the_bias_as_their_colour() {
        // ((-0.0329, -0.0718, -0.0851) + 1) / 2 · 255
        let rgb = preview_rgb(&[0.0; 32], 1, 2, &LATENT_RGB).expect("fits");
        assert_eq!(rgb, [123, 118, 117, 123, 118, 117]);
    }

    #[test]
    fn each_channel_adds_its_row_at_its_own_pixel() {
        for (channel, row) in LATENT_RGB.factors.iter().enumerate() {
            let mut latents = [0.0; 16 * 6];
            latents[channel * 6 + 4] = 2.0; // row 1, column 1 of [16, 2, 3]
            let rgb = preview_rgb(&latents, 2, 3, &LATENT_RGB).expect("fits");
            let value = |i: usize| f64::from(LATENT_RGB.bias[i]) + 2.0 * f64::from(row[i]);
            let expected = [0, 1, 2].map(|i| ((value(i) + 1.0) * 127.5).round() as u8);
            assert_eq!(rgb[12..15], expected, "channel {channel}");
            assert_eq!(rgb[9..12], [123, 118, 117]);
        }
    }

    #[test]
    fn colours_beyond_the_range_are_cut() {
        let bright =
            preview_rgb(&[1e9; 16], 1, 1, &RgbFactors { factors: vec![[1.0, -1.0, 0.0]; 16].into(), bias: [0.0; 3] });
        assert_eq!(bright.expect("fits"), [255, 0, 128]);
        assert_eq!(preview_rgb(&[f32::NAN; 16], 1, 1, &LATENT_RGB).expect("fits"), [0; 3]);
    }

    #[test]
    fn lengths_that_do_not_fit_are_refused() {
        for (count, h, w) in [(15, 1, 1), (32, 1, 1), (16, 0, 1), (16, usize::MAX, 2)] {
            assert!(preview_rgb(&vec![0.0; count], h, w, &LATENT_RGB).is_err(), "{count} {h} {w}");
        }
        assert!(estimate(&[0.0; 3], &[0.0; 4], 1.0, 0.5).is_err());
        assert!(estimate(&[0.0; 3], &[0.0; 3], 0.5, 0.5).is_err());
        assert!(estimate(&[0.0; 3], &[0.0; 3], f64::NAN, 0.5).is_err());
    }

    proptest! {
        #[test]
        fn the_estimate_finds_the_picture_under_the_noise(
            pairs in prop::collection::vec((-4f32..4.0, -4f32..4.0), 1..20),
            t in 0.1f64..1.0,
            part in 0.0f64..0.9,
        ) {
            let t_next = t * part;
            let at = |t: f64| -> Vec<f32> {
                pairs.iter().map(|(clean, noise)| ((1.0 - t) * f64::from(*clean) + t * f64::from(*noise)) as f32).collect()
            };
            let found = estimate(&at(t), &at(t_next), t, t_next).expect("a step");
            for ((clean, _), found) in pairs.iter().zip(found) {
                prop_assert!((clean - found).abs() < 1e-4, "{} {}", clean, found);
            }
        }
    }

    #[test]
    fn after_the_last_step_the_estimate_is_what_there_is() {
        let after = [0.25, -1.5];
        assert_eq!(estimate(&[3.0, 4.0], &after, 0.1, 0.0).expect("a step"), after);
    }
}
