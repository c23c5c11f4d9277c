//! What an encode or a decode will need, known before it: memory and work for each way of doing it, and the best way within
//! a budget.

use std::sync::{Mutex, PoisonError};

use candle_core::DType;
use rayon::iter::{IntoParallelIterator, ParallelIterator};

use super::{PICTURE_CHANNELS, VaeConfig, decoder, encoder};
use crate::{
    base::{device::DeviceKind, geometry::LatentSize},
    error::{Error, Result},
    models::parts::config::Config,
    nn::{
        Ledger,
        bands::{Dry, Map},
    },
    weights::Expected,
};

/// Which half of an autoencoder.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Side {
    /// Picture to latents.
    Encoder,
    /// Latents to picture.
    Decoder,
}

/// What a stage stores. Less memory means that more is computed again; the result is the same.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Keep {
    /// Nothing: each group norm's statistics are computed again from the last map that an earlier stage stored.
    Nothing,
    /// One map, replaced block by block: the first convolution of each residual block runs twice.
    Maps,
    /// Everything that is needed twice: two maps of the stage.
    All,
}

/// How a picture is walked in bands of rows: none of it changes the result beyond float rounding.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Banding {
    /// Rows of a band, at the resolution of the finest stage at work; at least 1.
    pub band_rows: usize,
    /// What each stage keeps, coarsest first; stages beyond the end keep all. The mid block, which belongs to the
    /// coarsest stage, always keeps its map: its attention looks at all of it.
    pub keep: Vec<Keep>,
}

impl Default for Banding {
    fn default() -> Self {
        Self { band_rows: 16, keep: Vec::new() }
    }
}

impl Banding {
    /// What the stage keeps, 0 being the coarsest.
    pub fn keep_at(&self, stage: usize) -> Keep {
        self.keep.get(stage).copied().unwrap_or(Keep::All)
    }
}

/// What an encode or a decode needs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Cost {
    /// The most bytes held at once: maps, bands, weights of the layers at work, scratch.
    pub memory_bytes: u64,
    /// Multiplications and additions, as the textbook's algorithm has them, repeated ones included.
    pub flops: u64,
    /// Elements of the largest buffer.
    pub largest_elements: u64,
    /// Whether the device can count what it would hold and launch.
    pub is_countable: bool,
}

/// What encoding to, or decoding from, latents of this size takes, by walking the layers without numbers. The CPU computes
/// in f32 whatever the number type.
///
/// # Errors
/// [`Error::Model`] when the configuration is not one of an autoencoder.
pub fn cost(
    config: &VaeConfig,
    side: Side,
    on: (DeviceKind, DType),
    size: LatentSize,
    options: &Banding,
) -> Result<Cost> {
    let ledger = Ledger::new(on.0);
    dry_run(config, side, &Dry::new(ledger.clone(), on.1), size, options)?;
    Ok(Cost {
        memory_bytes: ledger.peak_bytes(),
        flops: u64::try_from(ledger.flops()).unwrap_or(u64::MAX),
        largest_elements: ledger.largest_buffer(),
        is_countable: ledger.is_countable(),
    })
}

/// Every tensor one side of an autoencoder of this configuration has, by diffusers' names: those its walk asks for.
///
/// # Errors
/// As [`cost`].
pub fn tensors(config: &VaeConfig, side: Side) -> Result<Vec<Expected>> {
    let dry = Dry::new(Ledger::new(DeviceKind::Cpu), DType::F32);
    dry_run(config, side, &dry, LatentSize { height: 2, width: 2 }, &Banding::default())?;
    Ok(dry.into_asked())
}

/// Every tensor of both sides.
///
/// # Errors
/// As [`cost`].
pub(crate) fn tensors_of_both(config: &VaeConfig) -> Result<Vec<Expected>> {
    Ok([tensors(config, Side::Encoder)?, tensors(config, Side::Decoder)?].concat())
}

/// One way to encode or decode, and what it takes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Way {
    /// How.
    pub options: Banding,
    /// What it takes.
    pub cost: Cost,
}

/// Every way worth trying with latents of this size, each walked once.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ways {
    side: Side,
    size: LatentSize,
    ways: Vec<Way>,
}

/// The ways of one autoencoder on one kind of device.
struct Walked {
    config: VaeConfig,
    on: (DeviceKind, DType),
    ways: Ways,
}

/// What was walked lately, the latest first: plans ask for the same again and again.
static WALKED: Mutex<Vec<Walked>> = Mutex::new(Vec::new());
const MOST_WALKED: usize = 16;

impl Ways {
    /// Walks them all, on as many threads as there are; what this process walked before, not again.
    ///
    /// # Errors
    /// As [`cost`].
    pub fn new(config: &VaeConfig, side: Side, on: (DeviceKind, DType), size: LatentSize) -> Result<Self> {
        let known = || WALKED.lock().unwrap_or_else(PoisonError::into_inner);
        let is_asked = |walked: &&Walked| {
            (&walked.config, walked.on, walked.ways.side, walked.ways.size) == (config, on, side, size)
        };
        if let Some(walked) = known().iter().find(is_asked) {
            return Ok(walked.ways.clone());
        }
        let way = |options| Ok(Way { cost: cost(config, side, on, size, &options)?, options });
        let all: Vec<Banding> = bandings(config.block_out_channels.len()).collect();
        let ways = Self { side, size, ways: all.into_par_iter().map(way).collect::<Result<_>>()? };
        let mut known = known();
        known.truncate(MOST_WALKED - 1);
        known.insert(0, Walked { config: config.clone(), on, ways: ways.clone() });
        Ok(ways)
    }

    /// The one with the least work that fits into `budget_bytes` and into what the device can count; among equals the one
    /// with the higher bands. None where none fits.
    pub fn best(&self, budget_bytes: u64) -> Option<&Way> {
        let fits = |cost: &Cost| cost.memory_bytes <= budget_bytes && cost.is_countable;
        self.ways.iter().filter(|way| fits(&way.cost)).min_by_key(|way| way.cost.flops)
    }

    /// The one that needs the least memory.
    pub fn least(&self) -> Option<&Way> {
        self.ways.iter().min_by_key(|way| (way.cost.memory_bytes, way.cost.flops))
    }

    /// [`Ways::best`], or what to say where none fits.
    ///
    /// # Errors
    /// [`Error::Memory`] when none fits; it says what the least is.
    pub fn best_within(&self, budget_bytes: u64) -> Result<&Way> {
        let doing = match self.side {
            Side::Encoder => "encoding to",
            Side::Decoder => "decoding",
        };
        self.best(budget_bytes).ok_or_else(|| Error::Memory {
            what: format!(
                "{doing} {} x {} latents takes at least {} MB, and {} MB may be used",
                self.size.height,
                self.size.width,
                self.least().map_or(0, |way| way.cost.memory_bytes).div_ceil(1_000_000),
                budget_bytes / 1_000_000
            ),
            hint: "allow more with --memory, or ask for a smaller picture".into(),
        })
    }
}

/// All ways worth trying: high bands first, and no stage keeps more than a coarser, smaller one.
fn bandings(stages: usize) -> impl Iterator<Item = Banding> {
    [32, 16, 8, 4].into_iter().flat_map(move |band_rows| {
        (0..=stages).flat_map(move |all| {
            (all..=stages).map(move |maps| {
                let keep = |stage| match stage {
                    stage if stage < all => Keep::All,
                    stage if stage < maps => Keep::Maps,
                    _ => Keep::Nothing,
                };
                Banding { band_rows, keep: (0..stages).map(keep).collect() }
            })
        })
    })
}

/// Walks one side over shapes.
fn dry_run(config: &VaeConfig, side: Side, dry: &Dry, size: LatentSize, options: &Banding) -> Result<()> {
    config.check().map_err(|error| error.in_file("the autoencoder"))?;
    match side {
        Side::Encoder => {
            let (height_px, width_px) = (size.height * config.scale(), size.width * config.scale());
            let mut picture = Map::new();
            for rows in encoder::bands(height_px, options.band_rows) {
                picture.push(dry, options.band_rows, dry.rows(rows.len(), width_px, PICTURE_CHANNELS))?;
            }
            encoder::walk(dry, config, options, picture, |_| Ok(()))
        }
        Side::Decoder => {
            let latents = dry.rows(size.height, size.width, config.latent_channels);
            decoder::walk(dry, config, options, latents, |_| Ok(()))
        }
    }
}
