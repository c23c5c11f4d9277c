//! The decoder: latents in, rows of the picture out.

use candle_core::{DType, Device, Tensor};

use super::{
    DecodeCost, DecodeKernels, DecodeOptions, VaeConfig,
    cpu::Cpu,
    device::{self, OnDevice},
    kernels::{Kernels, Meter},
    plan, walk,
};
use crate::{
    base::geometry::LatentSize,
    base::progress::{Event, Observer, Stage},
    error::{Error, Result},
    weights::Weights,
};

/// Takes rows of the picture from top to bottom: the first row's number, and the rows [rows, W, 3], about -1 to 1.
pub type RowSink<'a> = dyn FnMut(usize, &[f32]) -> Result<()> + 'a;

/// The decoder of an AutoencoderKL. It holds no weights: each layer's are read when it runs.
pub struct Decoder {
    config: VaeConfig,
    weights: Weights,
}

/// Which kernels to use.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Path {
    Cpu { plain: bool },
    Device,
}

impl Decoder {
    /// A decoder whose tensors are all there, under diffusers' names.
    ///
    /// # Errors
    /// [`Error::Model`] when the configuration is not a decoder's, or a tensor is missing or of another shape.
    pub fn open(config: VaeConfig, weights: Weights) -> Result<Self> {
        let smallest = LatentSize { height: 2, width: 2 };
        plan::dry_run(&config, DecodeKernels::Cpu, smallest, &DecodeOptions::default(), Some(&weights))?;
        Ok(Self { config, weights })
    }

    /// Its dimensions.
    pub fn config(&self) -> &VaeConfig {
        &self.config
    }

    /// What decoding latents of this size takes on the device of the weights.
    ///
    /// # Errors
    /// As [`plan::decode_cost`](super::decode_cost).
    pub fn cost(&self, size: LatentSize, options: &DecodeOptions) -> Result<DecodeCost> {
        let kernels = DecodeKernels::on(self.weights.device(), self.weights.dtype());
        plan::decode_cost(&self.config, kernels, size, options)
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
        options: &DecodeOptions,
        observer: &dyn Observer,
        sink: &mut RowSink<'_>,
    ) -> Result<()> {
        let path = if self.weights.device().is_cpu() { Path::Cpu { plain: false } } else { Path::Device };
        self.decode_by(path, latents, options, observer, sink)
    }

    /// The same by plain matrix products on the CPU: what the fast kernels are held against.
    #[doc(hidden)]
    pub fn decode_plain(&self, latents: &Tensor, options: &DecodeOptions, sink: &mut RowSink<'_>) -> Result<()> {
        self.decode_by(Path::Cpu { plain: true }, latents, options, &crate::base::progress::Silent, sink)
    }

    /// The same by candle's operations, on the device the weights are for: the way of CUDA and Metal, testable on a CPU.
    #[doc(hidden)]
    pub fn decode_on_device(&self, latents: &Tensor, options: &DecodeOptions, sink: &mut RowSink<'_>) -> Result<()> {
        self.decode_by(Path::Device, latents, options, &crate::base::progress::Silent, sink)
    }

    fn decode_by(
        &self,
        path: Path,
        latents: &Tensor,
        options: &DecodeOptions,
        observer: &dyn Observer,
        sink: &mut RowSink<'_>,
    ) -> Result<()> {
        let options = &DecodeOptions { band_rows: options.band_rows.max(1), ..options.clone() };
        let (rows, size) = self.unscaled(latents)?;
        let channels = self.config.latent_channels;
        let cost = plan::dry_run(&self.config, DecodeKernels::Cpu, size, options, None)?;
        observer.on(Event::Begin { stage: Stage::Decode, total: cost.flops / 1_000_000 });
        let meter = Meter::new(observer);
        let mut picture = Picture { next_row: 0, width: size.width * self.config.scale(), sink };
        match path {
            Path::Cpu { plain } => {
                let kernels = Cpu::new(&self.weights, meter, plain);
                let rows = rows.to_device(&Device::Cpu)?.flatten_all()?.to_vec1::<f32>()?;
                let rows = kernels.rows(size.height, size.width, channels, &rows);
                walk::decode(&kernels, &self.config, options, rows, |band| picture.give(kernels.download(band)?))?;
            }
            Path::Device => {
                let kernels = OnDevice::new(&self.weights, meter);
                let rows = rows.to_device(self.weights.device())?.to_dtype(self.weights.dtype())?;
                let rows = device::Rows(rows);
                walk::decode(&kernels, &self.config, options, rows, |band| picture.give(kernels.download(band)?))?;
            }
        }
        Ok(())
    }

    /// z / scaling_factor + shift_factor as [h, w, C] in f32.
    fn unscaled(&self, latents: &Tensor) -> Result<(Tensor, LatentSize)> {
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
        let shift = self.config.shift_factor.unwrap_or(0.0);
        let unscaled = latents.contiguous()?.affine(1.0 / self.config.scaling_factor, shift)?;
        Ok((unscaled, LatentSize { height, width }))
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
