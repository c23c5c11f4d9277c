//! What a decode will need, known before it: memory and work for each way of doing it, and the best way within a budget.

use std::rc::Rc;

use candle_core::{DType, Device};

use super::{
    VaeConfig,
    dry::{Dry, Ledger},
    kernels::Meter,
    walk,
};
use crate::{
    base::geometry::LatentSize,
    base::progress::Silent,
    error::{Error, Result},
    weights::Weights,
};

/// What a stage of the decoder stores. Less memory means that more is computed again; the picture is the same.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Keep {
    /// Nothing: each group norm's statistics are computed again from the last map stored by a coarser stage.
    Nothing,
    /// One map, replaced block by block: the first convolution of each residual block runs twice.
    Maps,
    /// Everything that is needed twice: two maps of the stage.
    All,
}

/// How to decode: none of it changes the picture beyond float rounding.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DecodeOptions {
    /// Rows of a band, at the resolution of the stage at work; at least 1.
    pub band_rows: usize,
    /// What each stage keeps, coarsest first; stages beyond the end keep all. The mid block, which belongs to the
    /// coarsest stage, always keeps its map: its attention looks at all of it.
    pub keep: Vec<Keep>,
}

impl Default for DecodeOptions {
    fn default() -> Self {
        Self { band_rows: 16, keep: Vec::new() }
    }
}

impl DecodeOptions {
    /// What the stage keeps, 0 being the coarsest.
    pub fn keep_at(&self, stage: usize) -> Keep {
        self.keep.get(stage).copied().unwrap_or(Keep::All)
    }
}

/// Whose memory a decode is planned for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DecodeKernels {
    /// The CPU's own.
    Cpu,
    /// Those made of tensors of this number type, on any other device.
    Tensors(DType),
}

impl DecodeKernels {
    /// What decodes on a device, with weights of this number type.
    pub fn on(device: &Device, dtype: DType) -> Self {
        Self::on_kind(device.is_cpu(), dtype)
    }

    /// As [`DecodeKernels::on`], where a device need not be at hand: for plans.
    pub fn on_kind(is_cpu: bool, dtype: DType) -> Self {
        if is_cpu { Self::Cpu } else { Self::Tensors(dtype) }
    }
}

/// What a decode needs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DecodeCost {
    /// The most bytes held at once: maps, bands, weights of the layers at work, scratch.
    pub memory_bytes: u64,
    /// Multiplications and additions, as the textbook's algorithm has them, repeated ones included.
    pub flops: u64,
    /// Elements of the largest buffer; below 2^32 at every size that is accepted.
    pub largest_elements: u64,
}

/// What decoding latents of this size takes, by walking the decoder without numbers.
///
/// # Errors
/// [`Error::Model`] when the configuration is not one of a decoder.
pub fn decode_cost(
    config: &VaeConfig,
    kernels: DecodeKernels,
    size: LatentSize,
    options: &DecodeOptions,
) -> Result<DecodeCost> {
    dry_run(config, kernels, size, options, None)
}

/// The most bytes a decode holds at once; 0 for a configuration that is not one of a decoder.
pub fn decode_memory_bytes(
    config: &VaeConfig,
    kernels: DecodeKernels,
    size: LatentSize,
    options: &DecodeOptions,
) -> u64 {
    decode_cost(config, kernels, size, options).map_or(0, |cost| cost.memory_bytes)
}

/// Floating point operations of a decode that repeats nothing; 0 for a configuration that is not one of a decoder.
pub fn decode_flops(config: &VaeConfig, size: LatentSize) -> u64 {
    decode_cost(config, DecodeKernels::Cpu, size, &DecodeOptions::default()).map_or(0, |cost| cost.flops)
}

/// One way to decode, and what it takes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DecodeWay {
    /// How.
    pub options: DecodeOptions,
    /// What it takes.
    pub cost: DecodeCost,
}

/// Every way worth trying with latents of this size, each walked once.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DecodeWays(Vec<DecodeWay>);

impl DecodeWays {
    /// Walks them all.
    ///
    /// # Errors
    /// As [`decode_cost`].
    pub fn new(config: &VaeConfig, kernels: DecodeKernels, size: LatentSize) -> Result<Self> {
        let way = |options| Ok(DecodeWay { cost: decode_cost(config, kernels, size, &options)?, options });
        ways(config.block_out_channels.len()).map(way).collect::<Result<_>>().map(Self)
    }

    /// The one with the least work that fits into `budget_bytes` and keeps every buffer below 2^32 elements; among equals
    /// the one with the higher bands. None where none fits.
    pub fn best(&self, budget_bytes: u64) -> Option<&DecodeWay> {
        let fits = |cost: &DecodeCost| cost.memory_bytes <= budget_bytes && cost.largest_elements < 1 << 32;
        self.0.iter().filter(|way| fits(&way.cost)).min_by_key(|way| way.cost.flops)
    }

    /// The one that needs the least memory.
    pub fn least(&self) -> Option<&DecodeWay> {
        self.0.iter().min_by_key(|way| (way.cost.memory_bytes, way.cost.flops))
    }
}

/// The way with the least work that fits into `budget_bytes`; see [`DecodeWays::best`].
///
/// # Errors
/// [`Error::Memory`] when none fits; it says what the least is.
pub fn best_options(
    config: &VaeConfig,
    kernels: DecodeKernels,
    size: LatentSize,
    budget_bytes: u64,
) -> Result<DecodeOptions> {
    let ways = DecodeWays::new(config, kernels, size)?;
    ways.best(budget_bytes).map(|way| way.options.clone()).ok_or_else(|| Error::Memory {
        what: format!(
            "decoding {} x {} latents takes at least {} MB, and {} MB may be used",
            size.height,
            size.width,
            ways.least().map_or(0, |way| way.cost.memory_bytes).div_ceil(1_000_000),
            budget_bytes / 1_000_000
        ),
        hint: "allow more with --memory, or ask for a smaller picture".into(),
    })
}

/// The way that needs the least memory.
///
/// # Errors
/// As [`decode_cost`].
pub fn least_options(config: &VaeConfig, kernels: DecodeKernels, size: LatentSize) -> Result<DecodeOptions> {
    Ok(DecodeWays::new(config, kernels, size)?.least().map(|way| way.options.clone()).unwrap_or_default())
}

/// All ways worth trying: high bands first, and no stage keeps more than a coarser, smaller one.
fn ways(stages: usize) -> impl Iterator<Item = DecodeOptions> {
    [32, 16, 8, 4].into_iter().flat_map(move |band_rows| {
        (0..=stages).flat_map(move |all| {
            (all..=stages).map(move |maps| {
                let keep = |stage| match stage {
                    stage if stage < all => Keep::All,
                    stage if stage < maps => Keep::Maps,
                    _ => Keep::Nothing,
                };
                DecodeOptions { band_rows, keep: (0..stages).map(keep).collect() }
            })
        })
    })
}

/// Walks the decoder over shapes; where there are weights, checks every tensor's name and shape.
pub(super) fn dry_run(
    config: &VaeConfig,
    kernels: DecodeKernels,
    size: LatentSize,
    options: &DecodeOptions,
    weights: Option<&Weights>,
) -> Result<DecodeCost> {
    config.check()?;
    let ledger = Rc::new(Ledger::new(kernels));
    let dry = Dry::new(ledger.clone(), Meter::new(&Silent), rayon::current_num_threads(), weights);
    let latents = dry.rows(size.height, size.width, config.latent_channels);
    walk::decode(&dry, config, options, latents, |_| Ok(()))?;
    Ok(DecodeCost { memory_bytes: ledger.peak_bytes(), flops: dry.flops(), largest_elements: ledger.largest() })
}
