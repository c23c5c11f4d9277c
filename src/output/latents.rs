//! Packed latents in a file of their own.

use std::path::{Path, PathBuf};

use candle_core::{DType, Device, Tensor};
use safetensors::{Dtype, SafeTensors, tensor::TensorView};

use super::write_atomically;
use crate::{
    error::{Error, Result},
    geometry::TOKEN_CHANNELS,
};

/// The tensor's name in the file.
const KEY: &str = "latents";

/// Writes packed latents [1, N, 64] as f32 under the key `latents` of a safetensors file, and returns the path it got:
/// with `overwrite` off an existing file is kept, as for pictures.
///
/// # Errors
/// [`Error::Request`] when the shape is another; [`Error::Disk`] when the file cannot be written.
pub fn save_latents(path: &Path, latents: &Tensor, overwrite: bool) -> Result<PathBuf> {
    let shape = latents.dims();
    if !is_packed(shape) {
        let what = format!("cannot save latents of shape {shape:?}, expected [1, N, {TOKEN_CHANNELS}]");
        return Err(Error::request(what, "pack them first"));
    }
    let values: Vec<f32> = latents.to_dtype(DType::F32)?.to_device(&Device::Cpu)?.flatten_all()?.to_vec1()?;
    let bytes: Vec<u8> = values.iter().flat_map(|value| value.to_le_bytes()).collect();
    write_atomically(path, overwrite, |file| {
        let view = TensorView::new(Dtype::F32, shape.to_vec(), &bytes).map_err(std::io::Error::other)?;
        let whole = safetensors::serialize([(KEY, view)], None).map_err(std::io::Error::other)?;
        file.write_all(&whole)
    })
}

/// Reads what [`save_latents`] wrote: packed latents [1, N, 64] in f32, on the CPU.
///
/// # Errors
/// [`Error::Disk`] when the file cannot be read; [`Error::Model`] when it is not a safetensors file with finite f32 `latents`
/// of that shape.
pub fn load_latents(path: &Path) -> Result<Tensor> {
    let bytes = std::fs::read(path).map_err(|e| Error::disk("cannot read", path, e))?;
    let wrong =
        |why: String| Error::model(format!("{}: {why}", path.display()), "give a file that --save-latents wrote");
    let file = SafeTensors::deserialize(&bytes).map_err(|e| wrong(format!("not a safetensors file ({e})")))?;
    let view = file.tensor(KEY).map_err(|_| wrong(format!("has no tensor `{KEY}`")))?;
    if view.dtype() != Dtype::F32 || !is_packed(view.shape()) {
        let (dtype, shape) = (view.dtype(), view.shape());
        return Err(wrong(format!("`{KEY}` is {dtype:?} {shape:?}, expected F32 [1, N, {TOKEN_CHANNELS}]")));
    }
    let (words, _) = view.data().as_chunks();
    let values: Vec<f32> = words.iter().map(|word| f32::from_le_bytes(*word)).collect();
    if !values.iter().all(|value| value.is_finite()) {
        return Err(wrong(format!("`{KEY}` holds a number that is not finite")));
    }
    Ok(Tensor::from_vec(values, view.shape(), &Device::Cpu)?) // [1, N, 64]
}

fn is_packed(shape: &[usize]) -> bool {
    matches!(*shape, [1, tokens, TOKEN_CHANNELS] if tokens > 0)
}
