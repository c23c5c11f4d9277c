//! The autoencoder in bands of rows: against the reference, against a plain one of the whole picture, and what it takes.

#[path = "../support/mod.rs"]
mod support;

mod cost;
mod decode;
mod encode;

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    sync::{Arc, Mutex},
};

use candle_core::{DType, Device, Tensor};
use dype::testing::{
    Error,
    base::device::DeviceKind,
    base::geometry::{ImageSize, LatentSize},
    base::progress::{Event, Observer, Silent, Stage},
    models::flux1::{LATENTS, autoencoder},
    models::parts::kl::{Banding, Decoder, Encoder, Keep, Side, VaeConfig, Ways, cost, cost_of_tensors},
    nn::launches,
    weights::{TensorFiles, TensorSource, Weights},
};
use support::{
    fixture, largest_difference, relative_error,
    vae::{Plain, tiny},
};

/// Weights made up from their names, of any autoencoder; remembers what was asked for.
#[derive(Default)]
struct Made {
    shapes: HashMap<String, Vec<usize>>,
    loaded: Mutex<BTreeSet<String>>,
    checked: Mutex<BTreeSet<String>>,
}

impl Made {
    fn for_config(config: &VaeConfig) -> Self {
        let mut made = Self::default();
        let (stages, coarsest) = (&config.block_out_channels, *config.block_out_channels.last().expect("stages"));
        let last = stages.len() - 1;
        let mut channels = stages[0];
        made.conv("encoder.conv_in", 3, channels);
        for (stage, &outputs) in stages.iter().enumerate() {
            for resnet in 0..config.layers_per_block {
                made.residual(&format!("encoder.down_blocks.{stage}.resnets.{resnet}"), channels, outputs);
                channels = outputs;
            }
            if stage < last {
                made.conv(&format!("encoder.down_blocks.{stage}.downsamplers.0.conv"), outputs, outputs);
            }
        }
        made.mid_block("encoder.mid_block", coarsest);
        made.norm("encoder.conv_norm_out", coarsest);
        made.conv("encoder.conv_out", coarsest, 2 * config.latent_channels);
        made.layer("quant_conv", &[2 * config.latent_channels, 2 * config.latent_channels, 1, 1]);

        made.layer("post_quant_conv", &[config.latent_channels, config.latent_channels, 1, 1]);
        made.conv("decoder.conv_in", config.latent_channels, coarsest);
        made.mid_block("decoder.mid_block", coarsest);
        channels = coarsest;
        for (stage, &outputs) in stages.iter().rev().enumerate() {
            for resnet in 0..=config.layers_per_block {
                made.residual(&format!("decoder.up_blocks.{stage}.resnets.{resnet}"), channels, outputs);
                channels = outputs;
            }
            if stage < last {
                made.conv(&format!("decoder.up_blocks.{stage}.upsamplers.0.conv"), outputs, outputs);
            }
        }
        made.norm("decoder.conv_norm_out", channels);
        made.conv("decoder.conv_out", channels, 3);
        made
    }

    fn layer(&mut self, name: &str, shape: &[usize]) {
        self.shapes.insert(format!("{name}.weight"), shape.to_vec());
        self.shapes.insert(format!("{name}.bias"), vec![shape[0]]);
    }

    fn conv(&mut self, name: &str, inputs: usize, outputs: usize) {
        self.layer(name, &[outputs, inputs, 3, 3]);
    }

    fn norm(&mut self, name: &str, channels: usize) {
        self.layer(name, &[channels]);
    }

    fn residual(&mut self, name: &str, inputs: usize, outputs: usize) {
        self.norm(&format!("{name}.norm1"), inputs);
        self.conv(&format!("{name}.conv1"), inputs, outputs);
        self.norm(&format!("{name}.norm2"), outputs);
        self.conv(&format!("{name}.conv2"), outputs, outputs);
        if inputs != outputs {
            self.layer(&format!("{name}.conv_shortcut"), &[outputs, inputs, 1, 1]);
        }
    }

    fn mid_block(&mut self, name: &str, channels: usize) {
        self.residual(&format!("{name}.resnets.0"), channels, channels);
        self.residual(&format!("{name}.resnets.1"), channels, channels);
        self.norm(&format!("{name}.attentions.0.group_norm"), channels);
        for part in ["to_q", "to_k", "to_v", "to_out.0"] {
            self.layer(&format!("{name}.attentions.0.{part}"), &[channels, channels]);
        }
    }

    fn weights(self) -> Weights {
        Weights::new(Arc::new(self), DType::F32, Device::Cpu)
    }
}

impl TensorSource for Made {
    fn shape(&self, name: &str) -> Option<Vec<usize>> {
        self.checked.lock().expect("lock").insert(name.to_owned());
        self.shapes.get(name).cloned()
    }

    fn load(&self, name: &str, dtype: DType, device: &Device) -> dype::testing::Result<Tensor> {
        self.loaded.lock().expect("lock").insert(name.to_owned());
        let shape = &self.shapes[name];
        let fan_in: usize = shape[1..].iter().product();
        let seed = name.bytes().fold(7u32, |s, b| s.wrapping_mul(31).wrapping_add(u32::from(b)));
        let values = noise(seed, shape.iter().product(), (1.5 / fan_in as f32).sqrt());
        Ok(Tensor::from_vec(values, shape.as_slice(), device)?.to_dtype(dtype)?)
    }

    fn describe(&self) -> String {
        "made-up weights".into()
    }
}

fn noise(mut state: u32, count: usize, size: f32) -> Vec<f32> {
    let mut next = || {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        size * ((state >> 8) as f32 / 8_388_608.0 - 1.0)
    };
    (0..count).map(|_| next()).collect()
}

fn latents(channels: usize, height: usize, width: usize) -> Tensor {
    let values = noise(42, channels * height * width, 2.0);
    Tensor::from_vec(values, (1, channels, height, width), &Device::Cpu).expect("latents")
}

/// Every way of keeping maps, for `stages` stages.
fn every_keep(stages: usize) -> Vec<Vec<Keep>> {
    let kinds = [Keep::Nothing, Keep::Maps, Keep::All];
    (0..3usize.pow(stages as u32)).map(|n| (0..stages).map(|s| kinds[n / 3usize.pow(s as u32) % 3]).collect()).collect()
}

/// The same with the kinds of so many stages.
fn stages(count: usize, config: &VaeConfig) -> VaeConfig {
    let kinds = |kinds: &[String]| kinds.iter().take(count).cloned().collect();
    let (down_block_types, up_block_types) = (kinds(&config.down_block_types), kinds(&config.up_block_types));
    VaeConfig { down_block_types, up_block_types, ..config.clone() }
}

/// Autoencoders small enough for the plain one: vectors' worth of channels, and odd numbers of them.
fn small_configs() -> [VaeConfig; 2] {
    let base = VaeConfig { norm_num_groups: 4, latent_channels: 16, ..autoencoder() };
    [
        VaeConfig { block_out_channels: vec![16, 32, 32], ..stages(3, &base) },
        VaeConfig {
            block_out_channels: vec![4, 12],
            layers_per_block: 1,
            latent_channels: 5,
            use_quant_conv: true,
            use_post_quant_conv: true,
            ..stages(2, &base)
        },
    ]
}

/// The golden values of tiny-flux's autoencoder.
fn golden() -> HashMap<String, Tensor> {
    candle_core::safetensors::load(fixture("expected/vae.safetensors"), &Device::Cpu).expect("golden")
}

/// Names of the real autoencoder's tensors that begin so, and a source that has all of its tensors.
fn real_tensors(prefix: &str) -> (BTreeSet<String>, Arc<Made>) {
    let text = std::fs::read_to_string(fixture("flux1_dev_tensors.json")).expect("fixture");
    let all: HashMap<String, BTreeMap<String, Vec<usize>>> = serde_json::from_str(&text).expect("JSON");
    let names = all["vae"].keys().filter(|name| name.starts_with(prefix)).cloned().collect();
    (names, Arc::new(Made { shapes: all["vae"].clone().into_iter().collect(), ..Made::default() }))
}

/// The total that a stage announced, and how far it has come.
struct Told(Stage, Mutex<(u64, u64)>);

impl Told {
    fn about(stage: Stage) -> Self {
        Self(stage, Mutex::default())
    }

    fn assert_done(&self) {
        let (total, done) = *self.1.lock().expect("lock");
        assert!(total > 0);
        assert_eq!(total, done);
    }
}

impl Observer for Told {
    fn on(&self, event: Event) {
        let mut told = self.1.lock().expect("lock");
        match event {
            Event::Begin { stage, total } if stage == self.0 => told.0 = total,
            Event::Advance { stage, done, .. } if stage == self.0 => {
                assert!(done >= told.1);
                told.1 = done;
            }
            _ => {}
        }
    }
}
