//! The decoder: its layers in their order, latents in, rows of the picture out.

use candle_core::{DType, Tensor};

use super::{
    Banding, Cost, LatentStatistics, PICTURE_CHANNELS, Path, VaeConfig,
    plan::{self, Keep, Side},
    walk::Walk,
};
use crate::{
    base::device::DeviceKind,
    base::geometry::LatentSize,
    base::progress::{Event, Observer, Silent, Stage},
    error::{Error, Result},
    nn::{
        Parameters,
        bands::{Before, Cpu, Kernels, Layer, Map, Meter, Tensors},
    },
    weights::Weights,
};

/// Takes rows of the picture from top to bottom: the first row's number, and the rows [rows, W, 3], about -1 to 1. A device without room
/// ends a try early; the next begins at the top.
pub type RowSink<'a> = dyn FnMut(usize, &[f32]) -> Result<()> + 'a;

/// Decodes latents [h, w, C] (scale and shift already undone) into rows of the picture, [rows, W, 3] each.
///
/// The layers are those of diffusers' `Decoder`: conv_in, mid block, up blocks, norm, SiLU, conv_out.
pub(super) fn walk<K: Kernels>(
    kernels: &K,
    config: &VaeConfig,
    options: &Banding,
    latents: K::Rows,
    sink: impl FnMut(K::Rows) -> Result<()>,
) -> Result<()> {
    let inputs = config.latent_channels;
    let latents = if config.use_post_quant_conv {
        let layer = Layer { name: "post_quant_conv", inputs, outputs: inputs };
        kernels.project(&kernels.projection(layer, true)?, &latents, Before::Nothing, None)?
    } else {
        latents
    };
    let channels = config.decoder_channels();
    let coarsest = channels.last().copied().unwrap_or(0);
    let conv_in = Layer { name: "decoder.conv_in", inputs, outputs: coarsest };
    let mut walk = Walk::begin(kernels, config, options, Map::of(latents), conv_in, Keep::Maps)?;
    walk.mid_block("decoder.mid_block")?;
    for (stage, &outputs) in channels.iter().rev().enumerate() {
        let block = format!("decoder.up_blocks.{stage}");
        for resnet in 0..=config.layers_per_block {
            walk.residual(&format!("{block}.resnets.{resnet}"), outputs, options.keep_at(stage))?;
        }
        if stage + 1 < channels.len() {
            walk.double(&format!("{block}.upsamplers.0.conv"), options.keep_at(stage + 1))?;
        }
    }
    walk.finish("decoder", PICTURE_CHANNELS, sink)
}

/// The decoder of an AutoencoderKL. It holds no weights: each layer's are read when it runs.
pub struct Decoder {
    config: VaeConfig,
    weights: Weights,
}

impl Decoder {
    /// A decoder whose tensors are all there, under diffusers' names.
    ///
    /// # Errors
    /// [`Error::Model`] when the configuration is not a decoder's, or a tensor is missing or of another shape.
    pub fn open(config: VaeConfig, weights: Weights) -> Result<Self> {
        plan::tensors(&config, Side::Decoder)?.iter().try_for_each(|(name, shape)| weights.check(name, shape))?;
        Ok(Self { config, weights })
    }

    /// Its dimensions.
    pub fn config(&self) -> &VaeConfig {
        &self.config
    }

    /// What decoding latents of this size takes on the device of the weights.
    ///
    /// # Errors
    /// As [`plan::cost`](super::cost).
    pub fn cost(&self, size: LatentSize, options: &Banding) -> Result<Cost> {
        let on = (DeviceKind::of(self.weights.device()), self.weights.dtype());
        plan::cost(&self.config, Side::Decoder, on, size, options)
    }

    /// Decodes latents [1, C, h, w] as the pipeline holds them: z / scaling_factor + shift_factor is decoded.
    ///
    /// On the CPU everything is f32; elsewhere it is the weights' number type. Progress is told in millions of operations.
    ///
    /// # Errors
    /// [`Error::Numeric`] when a pixel is not finite; whatever `sink` returns; [`Error::Model`] or [`Error::Tensor`] when
    /// weights cannot be read or the device gives up.
    pub fn decode(
        &self,
        latents: &Tensor,
        options: &Banding,
        observer: &dyn Observer,
        sink: &mut RowSink<'_>,
    ) -> Result<()> {
        self.decode_by(Path::on(self.weights.device()), latents, options, observer, sink)
    }

    /// The same by plain matrix products on the CPU: what the fast kernels are held against.
    #[doc(hidden)]
    pub fn decode_plain(&self, latents: &Tensor, options: &Banding, sink: &mut RowSink<'_>) -> Result<()> {
        self.decode_by(Path::Cpu { plain: true }, latents, options, &Silent, sink)
    }

    /// The same by candle's operations, on the device the weights are for: the way of CUDA and Metal, testable on a CPU.
    #[doc(hidden)]
    pub fn decode_on_device(&self, latents: &Tensor, options: &Banding, sink: &mut RowSink<'_>) -> Result<()> {
        self.decode_by(Path::Device, latents, options, &Silent, sink)
    }

    fn decode_by(
        &self,
        path: Path,
        latents: &Tensor,
        options: &Banding,
        observer: &dyn Observer,
        sink: &mut RowSink<'_>,
    ) -> Result<()> {
        let options = &Banding { band_rows: options.band_rows.max(1), ..options.clone() };
        let (latents, size) = self.unscaled(latents)?;
        observer.on(Event::Begin { stage: Stage::Decode, total: self.cost(size, options)?.flops / 1_000_000 });
        let meter = Meter::new(Stage::Decode, observer);
        match path {
            Path::Cpu { plain } => self.run(&Cpu::new(&self.weights, meter, plain), size, latents, options, sink),
            Path::Device => {
                self.run(&Tensors::new(&Parameters::real(&self.weights), meter), size, latents, options, sink)
            }
        }
    }

    fn run<K: Kernels>(
        &self,
        kernels: &K,
        size: LatentSize,
        latents: Vec<f32>,
        options: &Banding,
        sink: &mut RowSink<'_>,
    ) -> Result<()> {
        let mut picture = Picture { next_row: 0, width: size.width * self.config.scale(), sink };
        let latents = kernels.upload([size.height, size.width, self.config.latent_channels], latents)?;
        walk(kernels, &self.config, options, latents, |band| picture.give(kernels.download(band)?))
    }

    /// z / scaling_factor + shift_factor, or z times each channel's deviation plus its mean, as [h, w, C] in f32.
    fn unscaled(&self, latents: &Tensor) -> Result<(Vec<f32>, LatentSize)> {
        let (batch, channels, height, width) = latents.dims4()?;
        if batch != 1 || channels != self.config.latent_channels {
            let what = format!(
                "latents {:?} do not fit a decoder of {} channels",
                latents.dims(),
                self.config.latent_channels
            );
            return Err(Error::model(what, "the transformer and the autoencoder must come from one kind of model"));
        }
        let latents = latents.to_dtype(DType::F32)?.squeeze(0)?.permute((1, 2, 0))?; // [h, w, C]
        let latents = latents.contiguous()?;
        let unscaled = match &self.config.latents {
            None => latents.affine(1.0 / self.config.scaling_factor, self.config.shift_factor.unwrap_or(0.0))?,
            Some(LatentStatistics { mean, std }) => {
                let vector = |values: &[f64]| {
                    Tensor::from_slice(values, channels, latents.device())?.to_dtype(DType::F32) // [C]
                };
                latents.broadcast_mul(&vector(std)?)?.broadcast_add(&vector(mean)?)?
            }
        };
        Ok((unscaled.flatten_all()?.to_vec1()?, LatentSize { height, width }))
    }
}

/// The picture as far as it has been given away.
struct Picture<'a, 'b> {
    next_row: usize,
    width: usize,
    sink: &'a mut RowSink<'b>,
}

impl Picture<'_, '_> {
    fn give(&mut self, rows: Vec<f32>) -> Result<()> {
        if let Some(at) = rows.iter().position(|x| !x.is_finite()) {
            let row = self.next_row + at / (3 * self.width);
            return Err(Error::Numeric {
                what: format!("the decoded picture is not finite in row {row}"),
                hint: "try --dtype f32; if it stays, the autoencoder's weights are damaged".into(),
            });
        }
        (self.sink)(self.next_row, &rows)?;
        self.next_row += rows.len() / (3 * self.width);
        Ok(())
    }
}
