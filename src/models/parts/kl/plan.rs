//! What an encode or a decode will need, known before it: memory and work for each way of doing it, and the best way within
//! a budget.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, OnceLock, PoisonError},
};

use candle_core::DType;
use rayon::iter::{IntoParallelIterator, ParallelIterator};

use super::{PICTURE_CHANNELS, VaeConfig, decoder, encoder};
use crate::{
    base::{
        device::DeviceKind,
        geometry::LatentSize,
        memory::Bytes,
        progress::{Silent, Stage},
    },
    error::{Error, Result},
    models::parts::config::Config,
    nn::{
        Ledger, Parameters,
        bands::{Dry, Kernels, Map, Meter, Tensors},
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
    /// Those of them that are attention's.
    pub attention_flops: u64,
    /// Kernels of tensors that are launched.
    pub launches: u64,
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
    if !on.0.is_cpu() {
        return cost_of_tensors(config, side, on, size, options);
    }
    let ledger = Ledger::new(on.0);
    dry_run(&Dry::new(ledger.clone()), config, side, size, options)?;
    Ok(Cost::of(&ledger))
}

/// The same by the kernels that are made of tensors, whatever the device.
///
/// # Errors
/// As [`cost`].
pub fn cost_of_tensors(
    config: &VaeConfig,
    side: Side,
    (kind, dtype): (DeviceKind, DType),
    size: LatentSize,
    options: &Banding,
) -> Result<Cost> {
    let ledger = Ledger::new(kind);
    let parameters = Parameters::of_configuration(dtype, &ledger);
    let kernels = Tensors::new(&parameters, Meter::new(Stage::Decode, &Silent));
    dry_run(&kernels, config, side, size, options)?;
    Ok(Cost::of(&ledger))
}

impl Cost {
    /// Of a walk that is over.
    fn of(ledger: &Ledger) -> Self {
        let count = |flops| u64::try_from(flops).unwrap_or(u64::MAX);
        Self {
            memory_bytes: ledger.peak_bytes(),
            flops: count(ledger.flops()),
            attention_flops: count(ledger.attention_flops()),
            launches: ledger.launches(),
            largest_elements: ledger.largest_buffer(),
            is_countable: ledger.is_countable(),
        }
    }
}

/// Every tensor one side of an autoencoder of this configuration has, by diffusers' names: those its walk asks for.
///
/// # Errors
/// As [`cost`].
pub fn tensors(config: &VaeConfig, side: Side) -> Result<Vec<Expected>> {
    let dry = Dry::new(Ledger::new(DeviceKind::Cpu));
    dry_run(&dry, config, side, LatentSize { height: 2, width: 2 }, &Banding::default())?;
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

/// Every way worth trying with latents of this size, each walked once, when it is asked for.
#[derive(Debug, Clone)]
pub struct Ways {
    config: VaeConfig,
    side: Side,
    on: (DeviceKind, DType),
    size: LatentSize,
    /// By the height of bands, the highest first, then by what is kept.
    ways: Arc<Vec<(Banding, OnceLock<Way>)>>,
}

/// What was walked lately, the latest first: plans ask for the same again and again.
static WALKED: Mutex<Vec<Ways>> = Mutex::new(Vec::new());
const MOST_WALKED: usize = 16;

impl Ways {
    /// All of them; what this process walked before is known.
    ///
    /// # Errors
    /// As [`cost`].
    pub fn new(config: &VaeConfig, side: Side, on: (DeviceKind, DType), size: LatentSize) -> Result<Self> {
        let known = || WALKED.lock().unwrap_or_else(PoisonError::into_inner);
        let is_asked = |ways: &&Self| (&ways.config, ways.on, ways.side, ways.size) == (config, on, side, size);
        if let Some(ways) = known().iter().find(is_asked) {
            return Ok(ways.clone());
        }
        let ways = bandings(config.block_out_channels.len()).map(|options| (options, OnceLock::new())).collect();
        let ways = Self { config: config.clone(), side, on, size, ways: Arc::new(ways) };
        // What is wrong with the configuration is told by the first.
        ways.walk(0)?;
        let mut known = known();
        known.truncate(MOST_WALKED - 1);
        known.insert(0, ways.clone());
        Ok(ways)
    }

    /// What the one of this number takes; nothing where there are not so many.
    fn walk(&self, number: usize) -> Result<Option<&Way>> {
        let Some((options, way)) = self.ways.get(number) else { return Ok(None) };
        if let Some(walked) = way.get() {
            return Ok(Some(walked));
        }
        let cost = cost(&self.config, self.side, self.on, self.size, options)?;
        Ok(Some(way.get_or_init(|| Way { options: options.clone(), cost })))
    }

    /// The same once the first was walked: none fails then but by a bug, and is no way.
    fn walked(&self, number: usize) -> Option<&Way> {
        self.walk(number).ok().flatten()
    }

    /// The one with the least work that fits into `budget_bytes` and into what the device can count; among equals the one
    /// with the higher bands. None where none fits.
    ///
    /// Work follows from what is kept and memory from the height of bands too: few are walked, and by this thread alone, since each
    /// thread that allocates keeps some memory from then on.
    pub fn best(&self, budget_bytes: u64) -> Option<&Way> {
        let kept = self.ways.len() / BAND_ROWS.len();
        let mut by_work: BTreeMap<u64, Vec<usize>> = BTreeMap::new();
        for keep in 0..kept {
            by_work.entry(self.walked(keep)?.cost.flops).or_default().push(keep);
        }
        let fits = |way: &&Way| way.cost.memory_bytes <= budget_bytes && way.cost.is_countable;
        by_work.values().find_map(|keeps| {
            let numbers = (0..BAND_ROWS.len()).flat_map(|band| keeps.iter().map(move |keep| band * kept + keep));
            numbers.filter_map(|number| self.walked(number)).find(fits)
        })
    }

    /// The one that needs the least memory; all are walked, on as many threads as there are.
    pub fn least(&self) -> Option<&Way> {
        let ways = (0..self.ways.len()).into_par_iter().filter_map(|number| Some((number, self.walked(number)?)));
        ways.min_by_key(|(number, way)| (way.cost.memory_bytes, way.cost.flops, *number)).map(|(_, way)| way)
    }

    /// The best one in markedly less memory than `options` take, for a device that had no room for those; where there is none, the one
    /// that needs the least. None where `options` take no more than that.
    ///
    /// # Errors
    /// As [`cost`].
    pub fn below(&self, options: &Banding) -> Result<Option<&Way>> {
        let taken = cost(&self.config, self.side, self.on, self.size, options)?.memory_bytes;
        let least = || self.least().filter(|way| way.cost.memory_bytes < taken);
        Ok(self.best(Bytes(taken).shrunk().0).or_else(least))
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

/// Rows of a band, the fastest first.
const BAND_ROWS: [usize; 4] = [32, 16, 8, 4];

/// All ways worth trying: high bands first, and no stage keeps more than a coarser, smaller one.
fn bandings(stages: usize) -> impl Iterator<Item = Banding> {
    BAND_ROWS.into_iter().flat_map(move |band_rows| {
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
fn dry_run<K: Kernels>(dry: &K, config: &VaeConfig, side: Side, size: LatentSize, options: &Banding) -> Result<()> {
    config.check().map_err(|error| error.in_file("the autoencoder"))?;
    match side {
        Side::Encoder => {
            let (height_px, width_px) = (size.height * config.scale(), size.width * config.scale());
            let mut picture = Map::new();
            for rows in encoder::bands(height_px, options.band_rows) {
                picture.push(dry, options.band_rows, dry.upload([rows.len(), width_px, PICTURE_CHANNELS], vec![])?)?;
            }
            encoder::walk(dry, config, options, picture, |_| Ok(()))
        }
        Side::Decoder => {
            let latents = dry.upload([size.height, size.width, config.latent_channels], vec![])?;
            decoder::walk(dry, config, options, latents, |_| Ok(()))
        }
    }
}
