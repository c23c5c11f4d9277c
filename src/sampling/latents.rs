//! Packing: 2 x 2 patches of latents become tokens, and back.
//!
//! Source: `_pack_latents` and `_unpack_latents` of diffusers' FLUX pipeline. A token's 64 channels run over
//! (latent channel, row in the patch, column in the patch), the last fastest.

use candle_core::Tensor;

use crate::{
    base::geometry::{LATENT_CHANNELS, LATENTS_PER_TOKEN, TOKEN_CHANNELS, TokenGrid},
    error::{Error, Result},
};

/// Latents [1, 16, h, w] as tokens [1, N, 64], N = h/2 · w/2 row by row.
///
/// # Errors
/// [`Error::Request`] when the shape is not [1, 16, even, even]; [`Error::Tensor`] when the device fails.
pub fn pack(latents: &Tensor) -> Result<Tensor> {
    const P: usize = LATENTS_PER_TOKEN;
    match *latents.dims() {
        [1, LATENT_CHANNELS, height, width] if height % P == 0 && width % P == 0 => {
            let (rows, columns) = (height / P, width / P);
            let patches = latents.reshape(&[1, LATENT_CHANNELS, rows, P, columns, P][..])?; // [1, C, h/2, 2, w/2, 2]
            let tokens = patches.permute([0, 2, 4, 1, 3, 5])?; // [1, h/2, w/2, C, 2, 2]
            Ok(tokens.reshape((1, rows * columns, TOKEN_CHANNELS))?) // [1, N, 64]
        }
        ref found => Err(wrong_shape(found, &format!("[1, {LATENT_CHANNELS}, h, w] with even h and w"))),
    }
}

/// Tokens [1, N, 64] of a grid as latents [1, 16, h, w]: what [`pack`] does, undone.
///
/// # Errors
/// [`Error::Request`] when the shape does not fit the grid; [`Error::Tensor`] when the device fails.
pub fn unpack(tokens: &Tensor, grid: TokenGrid) -> Result<Tensor> {
    const P: usize = LATENTS_PER_TOKEN;
    let (rows, columns) = (grid.height_patches, grid.width_patches);
    if tokens.dims() != [1, rows * columns, TOKEN_CHANNELS] {
        return Err(wrong_shape(tokens.dims(), &format!("[1, {rows} x {columns}, {TOKEN_CHANNELS}]")));
    }
    let patches = tokens.reshape(&[1, rows, columns, LATENT_CHANNELS, P, P][..])?; // [1, h/2, w/2, C, 2, 2]
    let latents = patches.permute([0, 3, 1, 4, 2, 5])?; // [1, C, h/2, 2, w/2, 2]
    Ok(latents.reshape((1, LATENT_CHANNELS, rows * P, columns * P))?) // [1, C, h, w]
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

    fn numbered(shape: (usize, usize, usize, usize)) -> Tensor {
        let count = shape.0 * shape.1 * shape.2 * shape.3;
        Tensor::arange(0u32, count as u32, &Device::Cpu).and_then(|t| t.reshape(shape)).expect("arange")
    }

    proptest! {
        #[test]
        fn packing_follows_its_index_formula_and_unpacking_undoes_it(rows in 1usize..9, columns in 1usize..9) {
            let latents = numbered((1, 16, rows * 2, columns * 2));
            let tokens = pack(&latents)?;
            let found: Vec<Vec<u32>> = tokens.squeeze(0)?.to_vec2()?;
            prop_assert_eq!(found.len(), rows * columns);
            for (n, token) in found.iter().enumerate() {
                for (k, value) in token.iter().enumerate() {
                    let (c, row, column) = (k / 4, 2 * (n / columns) + k / 2 % 2, 2 * (n % columns) + k % 2);
                    prop_assert_eq!(*value as usize, (c * rows * 2 + row) * columns * 2 + column);
                }
            }
            let grid = TokenGrid { height_patches: rows, width_patches: columns };
            let back = unpack(&tokens, grid)?;
            prop_assert_eq!(back.dims(), latents.dims());
            prop_assert_eq!(back.flatten_all()?.to_vec1::<u32>()?, latents.flatten_all()?.to_vec1::<u32>()?);
        }
    }

    #[test]
    fn shapes_that_do_not_fit_are_refused() {
        for shape in [(1, 16, 3, 4), (1, 16, 4, 3), (1, 15, 4, 4), (2, 16, 4, 4)] {
            assert!(matches!(pack(&numbered(shape)), Err(Error::Request { .. })), "{shape:?}");
        }
        let tokens = pack(&numbered((1, 16, 4, 6))).expect("packs");
        let grid = TokenGrid { height_patches: 2, width_patches: 4 };
        assert!(unpack(&tokens, grid).is_err());
    }
}
