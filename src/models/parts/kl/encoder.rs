//! The encoder: its layers in their order, rows of a picture in, latents out.

use std::ops::Range;

use candle_core::{Device, Tensor};

use super::{
    Banding, Cost, PICTURE_CHANNELS, Path, VaeConfig,
    plan::{self, Side},
    walk::Walk,
};
use crate::{
    base::{
        device::DeviceKind,
        geometry::LatentSize,
        progress::{Event, Observer, Silent, Stage},
    },
    error::{Error, Result},
    nn::{
        Parameters,
        bands::{Before, Cpu, Kernels, Layer, Map, Meter, Tensors},
    },
    weights::Weights,
};

/// Fills rows of the picture, from the given one on, with numbers from -1 to 1: [rows, W, 3]. Called from top to bottom, each
/// row once in each try.
pub type RowSource<'a> = dyn FnMut(usize, &mut [f32]) -> Result<()> + 'a;

/// Which latents are taken of the distribution that an encoder gives of a picture.
#[derive(Debug, Clone, Copy)]
pub enum Posterior<'a> {
    /// Its mean.
    Mean,
    /// A sample, made with this standard normal noise [C, h, w] of the autoencoder's own latents.
    Sample(&'a [f32]),
}

/// What the logarithms of variances are held within. Source: `DiagonalGaussianDistribution` of diffusers.
const LOG_VARIANCES: [f64; 2] = [-30.0, 20.0];

/// Encodes the picture [H, W, 3] into rows of [h, w, 2C]: the mean of each latent's C channels, then the logarithms of their
/// variances.
///
/// The layers are those of diffusers' `Encoder`: conv_in, down blocks, mid block, norm, SiLU, conv_out; then `quant_conv`.
pub(super) fn walk<K: Kernels>(
    kernels: &K,
    config: &VaeConfig,
    options: &Banding,
    picture: Map<K::Rows>,
    mut sink: impl FnMut(K::Rows) -> Result<()>,
) -> Result<()> {
    let stages = config.block_out_channels.len();
    // The stages are counted from the coarsest, as a decoder meets them.
    let keep_at = |stage: usize| options.keep_at(stages - 1 - stage);
    let finest = config.block_out_channels.first().copied().unwrap_or(0);
    let conv_in = Layer { name: "encoder.conv_in", inputs: PICTURE_CHANNELS, outputs: finest };
    let mut walk = Walk::begin(kernels, config, options, picture, conv_in, keep_at(0))?;
    for (stage, &outputs) in config.block_out_channels.iter().enumerate() {
        let block = format!("encoder.down_blocks.{stage}");
        for resnet in 0..config.layers_per_block {
            walk.residual(&format!("{block}.resnets.{resnet}"), outputs, keep_at(stage))?;
        }
        if stage + 1 < stages {
            walk.halve(&format!("{block}.downsamplers.0.conv"), keep_at(stage + 1))?;
        }
    }
    walk.mid_block("encoder.mid_block")?;
    let outputs = 2 * config.latent_channels;
    if !config.use_quant_conv {
        return walk.finish("encoder", outputs, sink);
    }
    let quant_conv = kernels.projection(Layer { name: "quant_conv", inputs: outputs, outputs }, true)?;
    walk.finish("encoder", outputs, |rows| sink(kernels.project(&quant_conv, &rows, Before::Nothing, None)?))
}

/// The bands in which a picture of so many rows is taken in.
pub(super) fn bands(height: usize, band_rows: usize) -> impl Iterator<Item = Range<usize>> {
    (0..height).step_by(band_rows).map(move |first| first..height.min(first + band_rows))
}

/// The encoder of an AutoencoderKL. It holds no weights: each layer's are read when it runs.
pub struct Encoder {
    config: VaeConfig,
    weights: Weights,
}

impl Encoder {
    /// An encoder whose tensors are all there, under diffusers' names.
    ///
    /// # Errors
    /// [`Error::Model`] when the configuration is not an encoder's, or a tensor is missing or of another shape.
    pub fn open(config: VaeConfig, weights: Weights) -> Result<Self> {
        plan::tensors(&config, Side::Encoder)?.iter().try_for_each(|(name, shape)| weights.check(name, shape))?;
        Ok(Self { config, weights })
    }

    /// Its dimensions.
    pub fn config(&self) -> &VaeConfig {
        &self.config
    }

    /// What encoding to latents of this size takes on the device of the weights.
    ///
    /// # Errors
    /// As [`plan::cost`](super::cost).
    pub fn cost(&self, size: LatentSize, options: &Banding) -> Result<Cost> {
        let on = (DeviceKind::of(self.weights.device()), self.weights.dtype());
        plan::cost(&self.config, Side::Encoder, on, size, options)
    }

    /// Encodes a picture into latents [1, C, h, w] as the pipeline holds them, f32 on the weights' device: the mean of the
    /// encoder's distribution, less shift_factor, times scaling_factor. `size` is that of the latents; the picture is
    /// [`VaeConfig::scale`] times as high and wide.
    ///
    /// On the CPU everything is f32; elsewhere it is the weights' number type. Progress is told in millions of operations.
    ///
    /// # Errors
    /// [`Error::Numeric`] when a latent is not finite; whatever `picture` returns; [`Error::Model`] or [`Error::Tensor`] when
    /// weights cannot be read or the device gives up.
    pub fn encode(
        &self,
        size: LatentSize,
        picture: &mut RowSource<'_>,
        options: &Banding,
        observer: &dyn Observer,
    ) -> Result<Tensor> {
        self.encode_to(Posterior::Mean, size, picture, options, observer)
    }

    /// The same for the mean or a sample of the distribution.
    ///
    /// # Errors
    /// As [`Encoder::encode`]; [`Error::Request`] for noise of another size.
    pub fn encode_to(
        &self,
        posterior: Posterior<'_>,
        size: LatentSize,
        picture: &mut RowSource<'_>,
        options: &Banding,
        observer: &dyn Observer,
    ) -> Result<Tensor> {
        self.encode_by(Path::on(self.weights.device()), (posterior, size), picture, options, observer)
    }

    /// The same by plain matrix products on the CPU: what the fast kernels are held against.
    #[doc(hidden)]
    pub fn encode_plain(&self, size: LatentSize, picture: &mut RowSource<'_>, options: &Banding) -> Result<Tensor> {
        self.encode_by(Path::Cpu { plain: true }, (Posterior::Mean, size), picture, options, &Silent)
    }

    /// The same by candle's operations, on the device the weights are for: the way of CUDA and Metal, testable on a CPU.
    #[doc(hidden)]
    pub fn encode_on_device(&self, size: LatentSize, picture: &mut RowSource<'_>, options: &Banding) -> Result<Tensor> {
        self.encode_by(Path::Device, (Posterior::Mean, size), picture, options, &Silent)
    }

    fn encode_by(
        &self,
        path: Path,
        (posterior, size): (Posterior<'_>, LatentSize),
        picture: &mut RowSource<'_>,
        options: &Banding,
        observer: &dyn Observer,
    ) -> Result<Tensor> {
        let options = &Banding { band_rows: options.band_rows.max(1), ..options.clone() };
        observer.on(Event::Begin { stage: Stage::Encode, total: self.cost(size, options)?.flops / 1_000_000 });
        let meter = Meter::new(Stage::Encode, observer);
        let sampled = Sampled::new(&self.config, size, posterior)?;
        let latents = match path {
            Path::Cpu { plain } => self.run(&Cpu::new(&self.weights, meter, plain), sampled, size, picture, options)?,
            Path::Device => {
                self.run(&Tensors::new(&Parameters::real(&self.weights), meter), sampled, size, picture, options)?
            }
        };
        let shape = (1, self.config.latent_channels, size.height, size.width);
        Ok(Tensor::from_vec(latents, shape, &Device::Cpu)?.to_device(self.weights.device())?) // [1, C, h, w]
    }

    fn run<K: Kernels>(
        &self,
        kernels: &K,
        mut sampled: Sampled<'_>,
        size: LatentSize,
        picture: &mut RowSource<'_>,
        options: &Banding,
    ) -> Result<Vec<f32>> {
        let (height, width) = (size.height * self.config.scale(), size.width * self.config.scale());
        let mut map = Map::new();
        for rows in bands(height, options.band_rows) {
            let mut numbers = vec![0.0; rows.len() * width * PICTURE_CHANNELS];
            picture(rows.start, &mut numbers)?;
            let band = kernels.upload([rows.len(), width, PICTURE_CHANNELS], numbers)?;
            map.push(kernels, options.band_rows, band)?;
        }
        walk(kernels, &self.config, options, map, |rows| sampled.take(&kernels.download(rows)?))?;
        Ok(sampled.latents)
    }
}

/// The latents as far as they have been encoded.
struct Sampled<'a> {
    latents: Vec<f32>, // [C, h, w]
    posterior: Posterior<'a>,
    channels: usize,
    width: usize,
    /// Pixels of the latents so far.
    done: usize,
    /// What each channel is multiplied by, after this is subtracted from it.
    factors: Vec<(f64, f64)>,
}

impl<'a> Sampled<'a> {
    fn new(config: &VaeConfig, size: LatentSize, posterior: Posterior<'a>) -> Result<Self> {
        let count = config.latent_channels * size.height * size.width;
        match posterior {
            Posterior::Sample(noise) if noise.len() != count => {
                let what = format!("{} numbers of noise for {count} latents", noise.len());
                Err(Error::request(what, "please report this"))
            }
            _ => Ok(Self {
                latents: vec![0.0; count],
                posterior,
                channels: config.latent_channels,
                width: size.width,
                done: 0,
                factors: (0..config.latent_channels).map(|channel| config.factor_and_shift(channel)).collect(),
            }),
        }
    }

    /// (z - shift) * factor of the next rows [rows, w, 2C]: z = mean, or mean + exp(logvar / 2) noise.
    fn take(&mut self, rows: &[f32]) -> Result<()> {
        let pixels = self.latents.len() / self.channels;
        for pixel in rows.chunks_exact(2 * self.channels) {
            let (means, log_variances) = pixel.split_at(self.channels);
            for (channel, (mean, (factor, shift))) in means.iter().zip(&self.factors).enumerate() {
                let place = channel * pixels + self.done;
                let z = match self.posterior {
                    Posterior::Mean => f64::from(*mean),
                    Posterior::Sample(noise) => {
                        f64::from(*mean) + deviation(log_variances[channel]) * f64::from(noise[place])
                    }
                };
                let latent = (z - shift) * factor;
                if !latent.is_finite() {
                    return Err(Error::Numeric {
                        what: format!("the encoded picture is not finite in latent row {}", self.done / self.width),
                        hint: "try --dtype f32; if it stays, the autoencoder's weights are damaged".into(),
                    });
                }
                self.latents[place] = latent as f32;
            }
            self.done += 1;
        }
        Ok(())
    }
}

/// The root of a variance that is told by its logarithm.
fn deviation(log_variance: f32) -> f64 {
    let [least, most] = LOG_VARIANCES;
    (f64::from(log_variance).clamp(least, most) / 2.0).exp()
}
