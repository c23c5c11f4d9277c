//! What a linear layer gives, before its bias.

use super::{
    Activation, Array,
    kernels::{fused, tensors},
};
use crate::error::Result;

/// Rows [C, out] of a linear layer, and the bias \[out\] that whoever reads them adds on the way: none where it has been added.
#[derive(Debug)]
pub struct Unbiased {
    rows: Array,
    bias: Option<Array>,
}

impl Unbiased {
    /// Rows that are nobody else's, without their bias.
    pub(super) fn new(rows: Array, bias: Option<Array>) -> Self {
        Self { rows, bias }
    }

    /// Both, as kernels take them that add the bias.
    pub(super) fn parts(&self) -> (&Array, Option<&Array>) {
        (&self.rows, self.bias.as_ref())
    }

    /// The rows with their bias.
    pub(super) fn biased(self) -> Result<Array> {
        match self.bias {
            None => Ok(self.rows),
            Some(bias) => after_product(self.rows, Some(&bias), Activation::None),
        }
    }
}

impl From<&Array> for Unbiased {
    fn from(rows: &Array) -> Self {
        Self::new(rows.clone(), None)
    }
}

/// `activation(x + bias)` for a product x [C, out] that is nobody else's: in place where a kernel of CUDA's takes it.
///
/// # Errors
/// When shapes do not fit or the device fails.
pub(super) fn after_product(x: Array, bias: Option<&Array>, activation: Activation) -> Result<Array> {
    let is_gelu = activation == Activation::Gelu;
    if bias.is_none() && !is_gelu {
        return Ok(x);
    }
    let bias = bias.map(|bias| bias.to_dtype(x.dtype())).transpose()?;
    if fused::add_bias(&x, bias.as_ref(), is_gelu)? {
        return Ok(x);
    }
    tensors::after_product(x, bias.as_ref(), activation)
}
