//! Every kernel's convolutions against one that is written out, whatever the bands.

use std::{borrow::Cow, sync::Arc};

use candle_core::{DType, Device, Tensor};

use super::*;
use crate::{
    base::{
        device::DeviceKind,
        progress::{Silent, Stage},
    },
    error::Result,
    nn::{Ledger, Parameters},
    weights::{TensorSource, Weights},
};

/// One convolution's weights and biases.
struct Source {
    inputs: usize,
    outputs: usize,
}

impl Source {
    fn weights(&self) -> Vec<f32> {
        numbers(9 * self.inputs * self.outputs, 0.73)
    }

    fn biases(&self) -> Vec<f32> {
        numbers(self.outputs, 1.31)
    }
}

impl TensorSource for Source {
    fn shape(&self, name: &str) -> Option<Vec<usize>> {
        Some(if name == "conv.weight" { vec![self.outputs, self.inputs, 3, 3] } else { vec![self.outputs] })
    }

    fn load(&self, name: &str, dtype: DType, device: &Device) -> Result<Tensor> {
        let values = if name == "conv.weight" { self.weights() } else { self.biases() };
        let shape = self.shape(name).unwrap_or_default();
        Ok(Tensor::from_vec(values, shape, device)?.to_dtype(dtype)?)
    }

    fn describe(&self) -> String {
        "one convolution".into()
    }
}

/// Numbers between -1 and 1 without a period that a mistake could hide in.
fn numbers(count: usize, step: f32) -> Vec<f32> {
    (0..count).map(|i| (i as f32 * step).sin() * (i as f32 * 0.017 + step).cos()).collect()
}

/// The convolution of a map [h, w, I], number by number, in f64.
fn plain(source: &Source, reach: Reach, map: &[f32], [height, width]: [usize; 2]) -> Vec<f32> {
    let (weights, biases) = (source.weights(), source.biases());
    let pixel = |y: usize, x: usize, channel: usize, row: usize, column: usize| -> f64 {
        // Places in the map as it is convolved, after doubling; zeros around it.
        let (scale, border) = (if reach == Reach::Doubled { 2 } else { 1 }, reach.border());
        let at = |out: usize, tap: usize, length: usize| -> Option<usize> {
            (out * reach.stride() + tap).checked_sub(border).filter(|at| *at < scale * length).map(|at| at / scale)
        };
        match (at(y, row, height), at(x, column, width)) {
            (Some(y), Some(x)) => f64::from(map[(y * width + x) * source.inputs + channel]),
            _ => 0.0,
        }
    };
    let mut output = Vec::new();
    for (y, x) in (0..reach.resized(height)).flat_map(|y| (0..reach.resized(width)).map(move |x| (y, x))) {
        for (out, bias) in biases.iter().enumerate() {
            let mut sum = f64::from(*bias);
            for (channel, tap) in (0..source.inputs).flat_map(|channel| (0..9).map(move |tap| (channel, tap))) {
                let weight = weights[(out * source.inputs + channel) * 9 + tap];
                sum += f64::from(weight) * pixel(y, x, channel, tap / 3, tap % 3);
            }
            output.push(sum as f32);
        }
    }
    output
}

/// The same by these kernels, band by band.
fn streamed<K: Kernels>(
    kernels: &K,
    source: &Source,
    reach: Reach,
    map: &[f32],
    [height, width]: [usize; 2],
    band: usize,
) -> Result<Vec<f32>> {
    let filter = kernels.filter(Layer { name: "conv", inputs: source.inputs, outputs: source.outputs }, reach)?;
    let mut chain = Chain::new(kernels, vec![Node::Conv(ConvStream::new(&filter, None))]);
    let (mut output, line) = (Vec::new(), width * source.inputs);
    for first in (0..height).step_by(band) {
        let rows = band.min(height - first);
        let rows = kernels.upload([rows, width, source.inputs], map[first * line..(first + rows) * line].to_vec())?;
        if let Some(rows) = chain.feed(Cow::Owned(rows))? {
            output.extend(kernels.download(rows)?);
        }
    }
    chain.finish(|rows| {
        output.extend(kernels.download(rows)?);
        Ok(())
    })?;
    Ok(output)
}

#[test]
fn every_kernel_convolves_as_written_out() {
    for (inputs, outputs) in [(16, 32), (3, 5)] {
        let source = Arc::new(Source { inputs, outputs });
        let weights = Weights::new(source.clone(), DType::F32, Device::Cpu);
        let meter = || Meter::new(Stage::Encode, &Silent);
        let (fast, slow) = (Cpu::new(&weights, meter(), false), Cpu::new(&weights, meter(), true));
        let tensors = Tensors::new(&Parameters::real(&weights), meter());
        for reach in [Reach::Same, Reach::Doubled, Reach::Halved] {
            for size in [[2, 2], [4, 10], [7, 5], [8, 6]] {
                let map = numbers(size[0] * size[1] * inputs, 0.37);
                let expected = plain(&source, reach, &map, size);
                for band in [1, 2, 3, 8] {
                    let found = [
                        streamed(&fast, &source, reach, &map, size, band),
                        streamed(&slow, &source, reach, &map, size, band),
                        streamed(&tensors, &source, reach, &map, size, band),
                    ];
                    for (kernels, found) in ["fast", "plain", "tensors"].into_iter().zip(found) {
                        let found = found.expect("computes");
                        assert_eq!(found.len(), expected.len());
                        let worst = found.iter().zip(&expected).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
                        assert!(worst < 1e-4, "{kernels}, {reach:?} of {size:?} in bands of {band}: off by {worst:e}");
                    }
                }
            }
        }
    }
}

/// On CUDA what is kept gets a buffer of its own, whose bytes and copy a dry pass counts; elsewhere it stays what it is.
#[test]
fn what_is_kept_on_cuda_is_copied_out_of_what_temporaries_left() {
    for (kind, copies) in [(DeviceKind::Cuda { capability: (8, 0) }, 1), (DeviceKind::Metal, 0)] {
        let ledger = Ledger::new(kind);
        let parameters = Parameters::of_configuration(DType::BF16, &ledger);
        let kernels = Tensors::new(&parameters, Meter::new(Stage::Decode, &Silent));
        let band = kernels.upload([4, 8, 16], vec![]).expect("a dry band");
        let (bytes, before) = (ledger.now_bytes(), ledger.launches());
        let mut map = Map::new();
        map.push(&kernels, 4, band).expect("kept");
        assert_eq!(ledger.launches() - before, copies, "{kind:?}");
        assert_eq!((ledger.now_bytes(), bytes), (4 * 8 * 16 * 2, 4 * 8 * 16 * 2), "{kind:?}");
        assert!(ledger.peak_bytes() >= bytes * (1 + copies), "{kind:?}");
    }
}
