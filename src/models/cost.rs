//! What a forward pass takes, and the sizes of its pieces: what a plan and a family's dry pass speak of.

use candle_core::DType;

use crate::{
    base::device::DeviceKind,
    error::{Error, Result},
    nn::{CodeProducts, Compute, Ledger},
    weights::{Expected, TensorSource},
};

/// The smallest chunk that still keeps matrix products busy.
const MIN_TOKEN_CHUNK: usize = 128;

/// Sizes of the pieces of a forward pass. They set memory and speed; the velocity does not depend on them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ForwardOptions {
    /// Tokens that are on their way through a block at once.
    pub token_chunk: usize,
    /// Queries of one piece of attention.
    pub query_rows: usize,
    /// Heads of one piece of attention, on devices where scores are a tensor.
    pub heads: usize,
}

impl Default for ForwardOptions {
    /// 2048 tokens keep two cores at their full rate (larger chunks measured no faster); 256 queries share a tile of keys in cache.
    fn default() -> Self {
        Self { token_chunk: 2048, query_rows: 256, heads: 1 }
    }
}

impl ForwardOptions {
    /// The smallest pieces that are tried.
    pub const LEAST: Self = Self { token_chunk: MIN_TOKEN_CHUNK, query_rows: MIN_TOKEN_CHUNK, heads: 1 };

    /// Where to start from on devices that hold scores as a tensor: pieces as large as a large card wants them.
    const LARGEST: Self = Self { token_chunk: 8192, query_rows: 2048, heads: 8 };

    /// Where to start from on a kind of device whose streams compute in this number type.
    pub fn first(kind: DeviceKind, dtype: DType) -> Self {
        let own_kernels = kind.is_cpu() && dtype == DType::F32;
        if own_kernels { Self::default() } else { Self::LARGEST }
    }

    /// The next smaller pieces: scores first, down to one head and 256 queries, then tokens.
    fn smaller(self) -> Option<Self> {
        match self {
            Self { heads: 2.., .. } => Some(Self { heads: self.heads / 2, ..self }),
            Self { query_rows: 257.., .. } => Some(Self { query_rows: self.query_rows / 2, ..self }),
            Self { token_chunk: ..=MIN_TOKEN_CHUNK, .. } => None,
            _ => {
                let token_chunk = self.token_chunk / 2;
                Some(Self { token_chunk, query_rows: self.query_rows.min(token_chunk), ..self })
            }
        }
    }

    /// The largest of these and smaller pieces whose forward pass stays within `budget_bytes`, weights and inputs included, and
    /// whose elements the device can count; and what it takes in them. `cost` says what a pass takes.
    ///
    /// # Errors
    /// [`Error::Memory`] with the least that would do, when even the smallest pieces do not fit; what `cost` may fail with.
    pub fn within(self, budget_bytes: u64, cost: impl Fn(Self) -> Result<ForwardCost>) -> Result<(Self, ForwardCost)> {
        let mut options = self;
        loop {
            let cost = cost(options)?;
            if cost.peak_bytes() <= budget_bytes && cost.is_countable {
                return Ok((options, cost));
            }
            match options.smaller() {
                Some(smaller) => options = smaller,
                None => return Err(cost.too_large(budget_bytes)),
            }
        }
    }
}

/// What the files of one network hold of its weights.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct NetworkBytes {
    /// The part's name.
    pub part: &'static str,
    /// What people call it.
    pub word: &'static str,
    /// Bytes of every tensor that a run reads, each once.
    pub bytes: u64,
}

impl NetworkBytes {
    /// Of these tensors, as a source has them.
    pub fn of(part: &'static str, word: &'static str, source: &dyn TensorSource, tensors: &[Expected]) -> Self {
        let bytes = tensors.iter().filter_map(|(name, _)| source.bytes(name)).sum();
        Self { part, word, bytes }
    }
}

/// What a denoising step works on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct StepShape {
    /// Tokens of the picture and of the text.
    pub tokens: [usize; 2],
    /// First-block caches that are held for the picture: one for each prompt, none without them.
    pub first_blocks: usize,
    /// Which products are of codes.
    pub products: CodeProducts,
}

impl StepShape {
    /// What it is computed in.
    pub fn compute(self, (kind, dtype): (DeviceKind, DType)) -> Compute {
        Compute::on(kind, dtype).with_codes(kind, self.products)
    }
}

impl From<[usize; 2]> for StepShape {
    /// Of so many tokens of picture and text, without caches.
    fn from(tokens: [usize; 2]) -> Self {
        Self { tokens, first_blocks: 0, products: CodeProducts::NONE }
    }
}

/// What a forward pass takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ForwardCost {
    /// Bytes held between forward passes: resident weights, or what is not streamed of them.
    pub weights_bytes: u64,
    /// The most bytes held at once beyond those and the inputs: streamed blocks, streams, keys and values, tables, pieces.
    pub working_bytes: u64,
    /// Those of them that first-block caches keep between passes.
    pub kept_bytes: u64,
    /// Bytes of the inputs: latents and the embeddings of one prompt.
    pub input_bytes: u64,
    /// Floating-point operations, a multiply-add counted as two.
    pub flops: u128,
    /// Those of them that are attention's.
    pub attention_flops: u128,
    /// Kernels of tensors that are launched.
    pub launches: u64,
    /// Elements of the largest buffer.
    pub largest_buffer: u64,
    /// Whether the device can count all elements.
    pub is_countable: bool,
}

impl ForwardCost {
    /// Of a dry pass that is over, whose inputs took so many bytes and are gone.
    pub fn of(ledger: &Ledger, input_bytes: u64) -> Self {
        // What was loaded, and the places of a ring, which the first pass fills and which stay.
        let weights_bytes = ledger.now_bytes();
        Self {
            weights_bytes,
            working_bytes: ledger.peak_bytes() - weights_bytes - input_bytes,
            kept_bytes: 0,
            input_bytes,
            flops: ledger.flops(),
            attention_flops: ledger.attention_flops(),
            launches: ledger.launches(),
            largest_buffer: ledger.largest_buffer(),
            is_countable: ledger.is_countable(),
        }
    }

    /// The same with so many bytes that are kept between passes.
    #[must_use]
    pub fn keeping(self, kept_bytes: u64) -> Self {
        Self { kept_bytes, ..self }
    }

    /// The most bytes held at once.
    pub fn peak_bytes(&self) -> u64 {
        self.weights_bytes + self.input_bytes + self.working_bytes
    }

    /// What is said where even the smallest pieces, which take this, do not fit.
    fn too_large(&self, budget_bytes: u64) -> Error {
        let (need, had) = (self.peak_bytes().div_ceil(1 << 20), budget_bytes >> 20);
        let (what, hint) = match self.is_countable {
            true => (
                format!("the transformer needs {need} MiB for this picture and may take {had} MiB"),
                "allow more with --memory, or ask for a smaller picture",
            ),
            false => (
                "the transformer's tensors for this picture have more elements than the device counts".to_owned(),
                "ask for a smaller picture",
            ),
        };
        Error::Memory { what, hint: hint.into() }
    }
}
