//! Packing: patches of P x P latents become tokens, and back.
//!
//! Source: `_pack_latents` and `_unpack_latents` of diffusers' FLUX pipeline. A token's C·P·P channels (FLUX.1: 16 · 2 · 2 = 64)
//! run over (latent channel, row in the patch, column in the patch), the last fastest.

use candle_core::Tensor;

use crate::{
    base::geometry::{LatentGeometry, TokenGrid},
    error::{Error, Result},
};

/// Latents [1, C, h, w] as tokens [1, N, C·P·P], N = h/P · w/P row by row.
///
/// # Errors
/// [`Error::Request`] when the shape is not [1, C, h, w] with h and w multiples of P; [`Error::Tensor`] when the device fails.
pub fn pack(latents: &Tensor, geometry: &LatentGeometry) -> Result<Tensor> {
    let LatentGeometry { channels, patch, .. } = *geometry;
    match *latents.dims() {
        [1, found, height, width] if found == channels && height % patch == 0 && width % patch == 0 => {
            let (rows, columns) = (height / patch, width / patch);
            let patches = latents.reshape(&[1, channels, rows, patch, columns, patch][..])?; // [1, C, h/P, P, w/P, P]
            let tokens = patches.permute([0, 2, 4, 1, 3, 5])?; // [1, h/P, w/P, C, P, P]
            Ok(tokens.reshape((1, rows * columns, geometry.token_channels()))?) // [1, N, C·P·P]
        }
        ref found => Err(wrong_shape(found, &format!("[1, {channels}, h, w] with h and w multiples of {patch}"))),
    }
}

/// Tokens [1, N, C·P·P] of a grid as latents [1, C, h, w]: what [`pack`] does, undone.
///
/// # Errors
/// [`Error::Request`] when the shape does not fit the grid; [`Error::Tensor`] when the device fails.
pub fn unpack(tokens: &Tensor, grid: TokenGrid, geometry: &LatentGeometry) -> Result<Tensor> {
    let LatentGeometry { channels, patch, .. } = *geometry;
    let (rows, columns) = (grid.height_patches, grid.width_patches);
    if tokens.dims() != geometry.packed_shape(grid) {
        let expected = format!("[1, {rows} x {columns}, {}]", geometry.token_channels());
        return Err(wrong_shape(tokens.dims(), &expected));
    }
    let patches = tokens.reshape(&[1, rows, columns, channels, patch, patch][..])?; // [1, h/P, w/P, C, P, P]
    let latents = patches.permute([0, 3, 1, 4, 2, 5])?; // [1, C, h/P, P, w/P, P]
    Ok(latents.reshape((1, channels, rows * patch, columns * patch))?) // [1, C, h, w]
}

/// Latents without noise as they are at the time t of rectified flow: `t · noise + (1 - t) · clean`, in f32. All of one shape.
///
/// Source: `scale_noise` of diffusers' `FlowMatchEulerDiscreteScheduler`.
///
/// # Errors
/// When the shapes differ or the device fails.
pub fn noised(clean: &Tensor, noise: &Tensor, t: f64) -> Result<Tensor> {
    // The reference holds its sigmas in f32 and subtracts there.
    let t = t as f32;
    Ok(((noise * f64::from(t))? + (clean * f64::from(1.0 - t))?)?)
}

fn wrong_shape(found: &[usize], expected: &str) -> Error {
    let what = format!("latents have shape {found:?}, expected {expected}");
    Error::request(what, "they belong to another size; give the height and width they were made with")
}

#[cfg(test)]
mod tests {
    use candle_core::Device;
    use proptest::prelude::*;

    use super::*;

    /// FLUX.1's.
    const FLUX: LatentGeometry = LatentGeometry { channels: 16, px_per_latent: 8, patch: 2 };

    fn numbered(shape: (usize, usize, usize, usize)) -> Tensor {
        let count = shape.0 * shape.1 * shape.2 * shape.3;
        Tensor::arange(0u32, count as u32, &Device::Cpu).and_then(|t| t.reshape(shape)).expect("arange")
    }

    proptest! {
        #[test]
        fn packing_follows_its_index_formula_and_unpacking_undoes_it(rows in 1usize..9, columns in 1usize..9) {
            let latents = numbered((1, 16, rows * 2, columns * 2));
            let tokens = pack(&latents, &FLUX)?;
            let found: Vec<Vec<u32>> = tokens.squeeze(0)?.to_vec2()?;
            prop_assert_eq!(found.len(), rows * columns);
            for (n, token) in found.iter().enumerate() {
                for (k, value) in token.iter().enumerate() {
                    let (c, row, column) = (k / 4, 2 * (n / columns) + k / 2 % 2, 2 * (n % columns) + k % 2);
                    prop_assert_eq!(*value as usize, (c * rows * 2 + row) * columns * 2 + column);
                }
            }
            let grid = TokenGrid { height_patches: rows, width_patches: columns };
            let back = unpack(&tokens, grid, &FLUX)?;
            prop_assert_eq!(back.dims(), latents.dims());
            prop_assert_eq!(back.flatten_all()?.to_vec1::<u32>()?, latents.flatten_all()?.to_vec1::<u32>()?);
        }
    }

    #[test]
    fn shapes_that_do_not_fit_are_refused() {
        for shape in [(1, 16, 3, 4), (1, 16, 4, 3), (1, 15, 4, 4), (2, 16, 4, 4)] {
            assert!(matches!(pack(&numbered(shape), &FLUX), Err(Error::Request { .. })), "{shape:?}");
        }
        let tokens = pack(&numbered((1, 16, 4, 6)), &FLUX).expect("packs");
        let grid = TokenGrid { height_patches: 2, width_patches: 4 };
        assert!(unpack(&tokens, grid, &FLUX).is_err());
    }

    #[test]
    fn a_patch_of_one_latent_is_a_token_of_its_own() {
        let geometry = LatentGeometry { channels: 3, px_per_latent: 8, patch: 1 };
        let latents = numbered((1, 3, 2, 5));
        let tokens = pack(&latents, &geometry).expect("packs");
        assert_eq!(tokens.dims(), [1, 10, 3]);
        let first: Vec<Vec<u32>> = tokens.squeeze(0).and_then(|tokens| tokens.to_vec2()).expect("tokens");
        assert_eq!(first[1], [1, 11, 21]);
        let grid = TokenGrid { height_patches: 2, width_patches: 5 };
        let back = unpack(&tokens, grid, &geometry).and_then(|latents| Ok(latents.flatten_all()?.to_vec1::<u32>()?));
        assert_eq!(back.expect("unpacks"), (0..30).collect::<Vec<_>>());
    }
}
