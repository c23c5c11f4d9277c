//! Random weights of true FLUX.1 shapes, made when they are asked for. Shared by the benches.

use std::{collections::HashMap, path::Path, sync::Arc};

use candle_core::{DType, Device, Tensor};
use dype::testing::{
    base::json::read_json,
    models::flux1::FluxConfig,
    weights::{TensorSource, Weights},
};

/// Tensors of FLUX.1-dev's names and shapes, uniform in ±1/√(last dimension), the same in every run.
struct RandomWeights(HashMap<String, Vec<usize>>);

impl TensorSource for RandomWeights {
    fn shape(&self, name: &str) -> Option<Vec<usize>> {
        self.0.get(name).cloned()
    }

    fn load(&self, name: &str, dtype: DType, device: &Device) -> dype::testing::Result<Tensor> {
        let shape = self.0[name].as_slice();
        let scale = 1.0 / (*shape.last().unwrap_or(&1) as f32).sqrt();
        let mut state = name.bytes().fold(1u64, |hash, byte| hash.wrapping_mul(31).wrapping_add(byte.into()));
        let mut next = || {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            ((state >> 40) as f32 / (1u64 << 23) as f32 - 1.0) * scale
        };
        let count = shape.iter().product::<usize>();
        let tensor = match dtype {
            DType::BF16 => {
                let values: Vec<_> = (0..count).map(|_| half::bf16::from_f32(next())).collect();
                Tensor::from_vec(values, shape, device)?
            }
            _ => Tensor::from_vec((0..count).map(|_| next()).collect::<Vec<f32>>(), shape, device)?,
        };
        Ok(tensor.to_dtype(dtype)?)
    }

    fn describe(&self) -> String {
        "random weights".into()
    }
}

/// The weights of a part of FLUX.1-dev ("transformer" or "vae"), random, on the CPU.
pub fn weights(part: &str, dtype: DType) -> Weights {
    Weights::new(source(part), dtype, Device::Cpu)
}

/// Its tensors.
pub fn source(part: &str) -> Arc<dyn TensorSource> {
    let names = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/flux1_dev_tensors.json");
    let mut models: HashMap<String, HashMap<String, Vec<usize>>> = read_json(&names).expect("names and shapes");
    let shapes = models.remove(part).expect("a part");
    Arc::new(RandomWeights(shapes))
}

/// FLUX.1-dev with fewer blocks.
pub fn config(num_layers: usize, num_single_layers: usize) -> FluxConfig {
    FluxConfig { num_layers, num_single_layers, ..FluxConfig::flux1_dev() }
}
