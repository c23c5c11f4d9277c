//! Resizing as PIL's `Image.resize(size, LANCZOS)` does it, to the byte.
//!
//! Source: `src/libImaging/Resample.c` of Pillow, its way of 8-bit channels: a windowed sinc over three lobes, widened when the
//! picture shrinks so that nothing aliases; weights in whole numbers of 22 bits; columns first, rounded to bytes, then rows, or the
//! other way round where Pillow 13 finds that to be less work. It weighs the stored values, as all of PIL does, not linear light.

use std::f64::consts::PI;

use rayon::prelude::*;

/// Lobes of the sinc on each side.
const LOBES: f64 = 3.0;
/// Bits of a weight behind the point: 32, less 8 of a channel and 2 of headroom.
const PRECISION_BITS: u32 = 32 - 8 - 2;
/// Red, green, blue.
const CHANNELS: usize = 3;

/// The pixels [height, width, 3] at another size [height, width].
pub fn resized(pixels: Vec<u8>, from: [usize; 2], to: [usize; 2]) -> Vec<u8> {
    let ([height, width], [to_height, to_width]) = (from, to);
    let across = |pixels: Vec<u8>| match width == to_width {
        true => pixels,
        false => columns(&pixels, width, &weights(width, to_width)),
    };
    let down = |pixels: Vec<u8>, width: usize| match height == to_height {
        true => pixels,
        false => rows(&pixels, width * CHANNELS, &weights(height, to_height)),
    };
    if is_lower_first(from, to) { across(down(pixels, width)) } else { down(across(pixels), to_width) }
}

/// The size [height, width] that a picture has on its way from one to another, between columns and rows.
pub fn between(from: [usize; 2], to: [usize; 2]) -> [usize; 2] {
    let ([height, width], [to_height, to_width]) = (from, to);
    if is_lower_first(from, to) { [to_height, width] } else { [height, to_width] }
}

/// Whether rows come before columns: where the height loses more than twice what the width does (Pillow 13; those before it
/// never did so).
fn is_lower_first([height, width]: [usize; 2], [to_height, to_width]: [usize; 2]) -> bool {
    height > to_height && height - to_height > 2 * width.saturating_sub(to_width)
}

/// What a pixel is made of: the first it reads, and the weight of each.
struct Reads {
    first: usize,
    weights: Vec<i32>,
}

/// What each pixel of a line reads when the line becomes `to` pixels long.
fn weights(from: usize, to: usize) -> Vec<Reads> {
    let scale = from as f64 / to as f64;
    let widened = scale.max(1.0);
    let support = LOBES * widened;
    let reads = |place: usize| {
        let center = (place as f64 + 0.5) * scale;
        let first = (center - support + 0.5).max(0.0) as usize;
        let end = ((center + support + 0.5) as usize).min(from);
        let raw: Vec<f64> = (first..end).map(|x| lanczos((x as f64 - center + 0.5) * widened.recip())).collect();
        let sum: f64 = raw.iter().sum();
        let whole = |weight: f64| (weight / sum * f64::from(1u32 << PRECISION_BITS)).round() as i32;
        Reads { first, weights: raw.into_iter().map(whole).collect() }
    };
    (0..to).map(reads).collect()
}

fn lanczos(x: f64) -> f64 {
    let sinc = |x: f64| if x == 0.0 { 1.0 } else { (PI * x).sin() / (PI * x) };
    if (-LOBES..LOBES).contains(&x) { sinc(x) * sinc(x / LOBES) } else { 0.0 }
}

/// A weighted sum as a byte.
fn to_byte(sum: i64) -> u8 {
    (sum >> PRECISION_BITS).clamp(0, 255) as u8
}

const HALF: i64 = 1 << (PRECISION_BITS - 1);

fn columns(pixels: &[u8], width: usize, reads: &[Reads]) -> Vec<u8> {
    let (line, to_line) = (width * CHANNELS, reads.len() * CHANNELS);
    let mut resized = vec![0; pixels.len() / line * to_line];
    resized.par_chunks_mut(to_line).zip(pixels.par_chunks(line)).for_each(|(to, from)| {
        for (pixel, read) in to.chunks_exact_mut(CHANNELS).zip(reads) {
            let mut sums = [HALF; CHANNELS];
            for (from, weight) in from[read.first * CHANNELS..].chunks_exact(CHANNELS).zip(&read.weights) {
                sums.iter_mut().zip(from).for_each(|(sum, byte)| *sum += i64::from(*byte) * i64::from(*weight));
            }
            pixel.iter_mut().zip(sums).for_each(|(byte, sum)| *byte = to_byte(sum));
        }
    });
    resized
}

fn rows(pixels: &[u8], line: usize, reads: &[Reads]) -> Vec<u8> {
    let mut resized = vec![0; reads.len() * line];
    resized.par_chunks_mut(line).zip(reads).for_each(|(to, read)| {
        let mut sums = vec![HALF; line];
        for (from, weight) in pixels[read.first * line..].chunks_exact(line).zip(&read.weights) {
            sums.iter_mut().zip(from).for_each(|(sum, byte)| *sum += i64::from(*byte) * i64::from(*weight));
        }
        to.iter_mut().zip(sums).for_each(|(byte, sum)| *byte = to_byte(sum));
    });
    resized
}

#[cfg(test)]
mod tests {
    use sha2::{Digest, Sha256};

    use super::*;
    use crate::base::hex::hex;

    /// Pixels that any program can make again.
    fn pattern(height: usize, width: usize) -> Vec<u8> {
        let byte = |place: usize| ((place * place * 7 + place * 31) / 5 % 251) as u8;
        (0..height * width * CHANNELS).map(byte).collect()
    }

    /// What Pillow 13 makes of the pattern: the sha256 of its bytes.
    const PILLOW: &[([usize; 4], &str)] = &[
        ([40, 56, 96, 64], "caff2fd19a05cdff328cab565cea344ec50f35e26053c49510725771662135d7"),
        ([96, 64, 40, 56], "25cbd32a9a386bd23b42d33fabf982f2c65c6ea3d129abf4c9aef9e134cef3c7"),
        ([33, 47, 33, 100], "b7cd609b722841b0e8c785e2df263250ed786f587cb42f358864be8d07823eaf"),
        ([33, 47, 12, 47], "034babe8e97e3ab7404ee544d5081f022d5f98c28e99cefac1743cc2f53cc45c"),
        ([7, 5, 64, 64], "47d343b6d7fc7cb61c275f9f72554956e49186b7516c6ce486d9a2291b33e93a"),
        ([200, 300, 16, 17], "0945d4ab5d8dece1489387ab675077f4f4edad47f74ac10c867b9f32728812d4"),
        ([1, 1, 16, 16], "9a9a307e2e50c60f85bb1ecb2df983577813d57a7bba430eea958700a1b462f5"),
        ([50, 50, 50, 50], "8e40cafad1c43157684331cb30e8876ee0bd2bfa4ca81b10fe0a20b4ae38adbc"),
    ];

    #[test]
    fn it_is_pillows_to_the_byte() {
        for ([height, width, to_height, to_width], sha256) in PILLOW {
            let found = resized(pattern(*height, *width), [*height, *width], [*to_height, *to_width]);
            assert_eq!(found.len(), to_height * to_width * CHANNELS);
            assert_eq!(hex(&Sha256::digest(&found)), *sha256, "{height} x {width} to {to_height} x {to_width}");
        }
    }

    #[test]
    fn the_size_on_the_way_is_that_of_whichever_comes_first() {
        assert_eq!(between([40, 56], [96, 64]), [40, 64]);
        assert_eq!(between([200, 300], [16, 17]), [200, 17]);
        assert_eq!(between([5000, 160], [4500, 16]), [4500, 160], "rows first");
    }

    #[test]
    fn one_colour_stays_one() {
        let grey = resized(vec![77; 5 * 9 * CHANNELS], [5, 9], [31, 2]);
        assert!(grey.iter().all(|byte| *byte == 77));
    }
}
