//! What networks are made of: one linear layer, one attention, norms, embeddings, the stream of blocks. All of it is written
//! over [`Array`], which is a tensor on a device or, in a dry pass, a shape in a [`Ledger`]: the plan of a stage is the dry
//! pass of the code that computes it.
//!
//! Behind the parts stand the CPU's own kernels ([`kernels::cpu`]), on slices of f32, fused and vectorised, and those made of
//! candle's tensors ([`kernels::tensors`]) for every other device and number type; both are held against each other in the
//! tests. On CUDA attention in half precision is a kernel's ([`kernels::flash`]), and so is what comes between products
//! ([`kernels::fused`]); where it is asked for, so are products in e4m3 ([`kernels::fp8`]).
//!
//! Token streams are [N, C], one picture at a time; heads are [H, N, D].

mod adapter;
mod array;
mod attention;
mod attention_check;
pub mod bands;
mod compute;
mod embedding;
mod fp8_check;
mod kernel_check;
pub mod kernels;
mod ledger;
mod linear;
mod norm;
mod numbers;
mod ops;
mod parameters;
mod place;
mod quantised;
mod rope;
mod stream;
mod unbiased;
mod view;
mod weight_check;
mod weights_mode;

use candle_core::DType;

pub use adapter::{Adapter, Dense, Kronecker, LowRank};
pub use array::{Array, launches};
use attention::timed_attention;
pub use attention::{
    Attention, AttentionTiles, Bias, KeyBias, Scale, attention, attention_by_tensors, attention_error, attention_time,
};
pub use attention_check::settle_attention;
pub use bands::settle_maps;
pub use compute::{CodeProducts, Compute, Products};
pub use embedding::embedding_rows;
pub use fp8_check::settle_fp8;
pub use kernel_check::settle_kernels;
pub use kernels::cpu::int8::available as has_int8;
pub use kernels::cpu::{
    pairs::check_variable as check_pairs,
    tiles::{check_variable as check_matrix_unit, unit as matrix_unit},
};
use ledger::Operation;
pub use ledger::{Held, Ledger};
pub use linear::{Activation, Form, Linear, product};
pub use norm::{
    LayerNorm, NORM_EPS, RmsNorm, Rotation, add_gated, add_gated_norm, heads_of, norm_modulate, rms_norm, silu_gated,
    split_heads,
};
pub use parameters::Parameters;
pub use place::Place;
pub use quantised::Quantised;
pub use rope::{PositionAxis, PositionIds, RopeTables, TokenRun};
pub use stream::Blocks;
pub use weight_check::settle_weights;
pub use weights_mode::WeightsMode;

use crate::error::Error;

impl Array {
    /// Whether the CPU's own kernels take this array: its numbers are f32 in the processor's memory.
    fn is_fast(&self) -> bool {
        self.is_cpu() && self.dtype() == DType::F32
    }
}

/// Tensors that do not fit together: a bug of the caller.
pub(crate) fn mismatch(what: impl Into<String>) -> Error {
    Error::Tensor(candle_core::Error::msg(what.into()))
}
