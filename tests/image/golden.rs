//! Values of diffusers' FluxImg2ImgPipeline, by the library's pipeline.

use std::collections::HashMap;

use candle_core::{DType, Device, Tensor};
use dype::testing::{
    base::{
        geometry::{ImageSize, LatentGeometry},
        json::read_json,
        progress::Silent,
    },
    models::{ModelRequest, flux1::Flux1, parts::kl::Posterior},
    nn::CodeProducts,
    plan::{Encoding, Machine, Plan, Task},
    recipe::{Recipe, Rng, Wanted},
    run::pipeline::Pipeline,
    sampling::{Progress, noise, noise_after, noised, unpack},
};
use serde::Deserialize;

use crate::support::{
    self, fixture, golden::LATENTS_TOLERANCE, largest_difference, program::rgb8, relative_error, values,
};

/// FLUX.1's.
const GEOMETRY: LatentGeometry = LatentGeometry { channels: 16, px_per_latent: 8, patch: 2 };

/// A run of the reference.
#[derive(Debug, Deserialize)]
pub struct Golden {
    pub case: String,
    pub prompt: String,
    pub guidance: f64,
    pub seed: u64,
    pub height: usize,
    pub width: usize,
    pub steps: usize,
    pub strength: f64,
    pub sigmas_used: Vec<f64>,
}

impl Golden {
    pub fn all() -> Vec<Self> {
        read_json(&fixture("img2img/runs.json")).expect("three runs")
    }

    pub fn tensors() -> HashMap<String, Tensor> {
        candle_core::safetensors::load(fixture("img2img/runs.safetensors"), &Device::Cpu).expect("golden")
    }

    fn first(&self) -> usize {
        self.steps - self.sigmas_used.len()
    }

    fn recipe(&self, model: &Flux1) -> Recipe {
        let wanted = Wanted {
            prompt: Some(self.prompt.clone()),
            height: Some(self.height),
            width: Some(self.width),
            steps: Some(self.steps),
            seed: Some(self.seed),
            guidance: Some(self.guidance),
            ..Wanted::default()
        };
        Recipe::new(&wanted, &model.facts.recipe).expect("in range")
    }

    fn plan(&self, model: &Flux1) -> Plan {
        let (size, steps, encoding) = (self.size(), self.sigmas_used.len(), Some(Encoding::default()));
        let task = Task { encoding, ..Task::new(size, steps, 512) };
        let machine = Machine { device: Device::Cpu, dtype: DType::F32, budget: None, weights: None };
        Plan::new(model, &task, &machine).expect("fits")
    }

    /// The input as packed latents.
    fn encoded(&self, pipeline: &Pipeline<'_>, posterior: Posterior<'_>, plan: &Plan) -> Tensor {
        let mut picture = rows(rgb8(&fixture("img2img/input.png")), self.width);
        pipeline.encode_picture((posterior, self.size()), &mut picture, &plan.choices).expect("encodes")
    }

    fn size(&self) -> ImageSize {
        ImageSize { height_px: self.height, width_px: self.width }
    }
}

/// Latents without noise of what an encoder says and a draw, in tiny-flux's scale and shift, FLUX.1's own.
fn scaled(mean: &[f32], logvar: &[f32], draw: &[f32]) -> Vec<f32> {
    let z = mean.iter().zip(logvar).zip(draw).map(|((mean, logvar), draw)| mean + (logvar / 2.0).exp() * draw);
    z.map(|z| (z - 0.1159) * 0.3611).collect()
}

#[test]
fn first_latents_are_made_of_two_draws() {
    let tensors = Golden::tensors();
    for golden in Golden::all() {
        let shape = GEOMETRY.latents_shape(GEOMETRY.tokens(golden.size()));
        let count = shape.iter().product();
        let first_draw = noise(Rng::TorchCpu, golden.seed, &shape);
        let [mean, logvar] = ["mean", "logvar"].map(|name| values(&tensors[&format!("img2img_0.85/{name}")]));
        let clean = scaled(&mean, &logvar, &first_draw);
        if golden.strength == 0.85 {
            assert!(largest_difference(&clean, &values(&tensors["img2img_0.85/encoded"])) < 2e-5);
        }
        let second = noise_after(Rng::TorchCpu, golden.seed, &[count], &shape);
        let tensor = |values: Vec<f32>| Tensor::from_vec(values, &shape, &Device::Cpu).expect("latents");
        let found = noised(&tensor(clean), &tensor(second), golden.sigmas_used[0]).expect("of one shape");
        let expected = &tensors[&format!("{}/latents_first", golden.case)];
        let expected = unpack(expected, GEOMETRY.tokens(golden.size()), &GEOMETRY).expect("unpacks");
        let worst = largest_difference(&values(&found), &values(&expected));
        assert!(worst < 2e-5, "{}: {worst:e}", golden.case);
    }
}

/// What PyTorch's CPU generator gives after another draw is what it would have given behind it.
#[test]
fn a_later_draw_goes_on_where_those_before_ended() {
    let whole = noise(Rng::TorchCpu, 42, &[4608]);
    for parts in [&[16usize, 48][..], &[64], &[4592], &[]] {
        let start: usize = parts.iter().sum();
        assert_eq!(noise_after(Rng::TorchCpu, 42, parts, &[4608 - start]), whole[start..], "{parts:?}");
    }
    // A last block that is not whole is drawn anew: 1000 values take 1016 words, and so do 1016 - 16 + 16.
    assert_eq!(
        noise_after(Rng::TorchCpu, 42, &[1000, 8 * 16 + 8], &[64])[..],
        noise(Rng::TorchCpu, 42, &[1232])[1168..]
    );
    // Of fewer than 16 each pair leaves its second for the next.
    let few = noise(Rng::TorchCpu, 7, &[8]);
    assert_eq!(
        [noise_after(Rng::TorchCpu, 7, &[3], &[2]), noise_after(Rng::TorchCpu, 7, &[3, 2], &[3])].concat(),
        few[3..]
    );
}

/// A picture's rows in [-1, 1], as an encoder takes them.
fn rows(pixels: Vec<u8>, width: usize) -> impl FnMut(usize, &mut [f32]) -> dype::testing::Result<()> {
    move |first, rows| {
        let pixels = &pixels[first * width * 3..];
        rows.iter_mut().zip(pixels).for_each(|(value, pixel)| *value = 2.0 * (f32::from(*pixel) / 255.0) - 1.0);
        Ok(())
    }
}

/// The reference's encoder, in f64. What its run in f32 says of this picture (`mean`, `logvar` of the runs) is 5.8e-4 off it:
/// PyTorch's group norm adds up the pixels of a picture whose colours lie side by side in one f32 after the other, in as many
/// parts as it has threads. The same run with two threads is 1.9e-4 from that with one.
#[test]
fn the_encoder_says_what_it_says_in_f64() {
    let (model, golden) = (tiny(), Golden::all().remove(0));
    let (pipeline, plan) = (opened(&model), golden.plan(&model));
    let tensors = candle_core::safetensors::load(fixture("img2img/encoder.safetensors"), &Device::Cpu).expect("golden");
    let [mean, logvar] = ["mean", "logvar"].map(|name| values(&tensors[name]));
    let draw = noise(Rng::TorchCpu, golden.seed, &[mean.len()]);
    let zeros = vec![0.0; mean.len()];
    for (posterior, noise) in [(Posterior::Mean, &zeros), (Posterior::Sample(&draw), &draw)] {
        let found = golden.encoded(&pipeline, posterior, &plan);
        let found = unpack(&found, GEOMETRY.tokens(golden.size()), &GEOMETRY).expect("unpacks");
        let error = relative_error(&values(&found), &scaled(&mean, &logvar, noise));
        assert!(error < 1e-5, "{posterior:?}: {error:e}");
    }
}

#[test]
fn the_pipeline_starts_in_the_middle_and_ends_as_the_reference() {
    let model = tiny();
    let pipeline = opened(&model);
    let tensors = Golden::tensors();
    let planar = candle_core::safetensors::load(fixture("img2img/planar.safetensors"), &Device::Cpu).expect("golden");
    assert_eq!(planar.len(), 2);
    for golden in Golden::all() {
        let (recipe, plan) = (golden.recipe(&model), golden.plan(&model));
        assert!(plan.encode_flops.is_some_and(|flops| flops > 0) && plan.peak_bytes.encode.is_some());
        let texts = pipeline.encode(&[golden.prompt.as_str()], 512).expect("encodes").remove(0).into();
        let transformer = pipeline.load_transformer(&plan.choices, CodeProducts::NONE).expect("loads");
        let [start, end] = ["first", "final"].map(|name| &tensors[&format!("{}/latents_{name}", golden.case)]);
        let run = |latents: Tensor| {
            let from = Progress { step: golden.first(), ..Progress::start(latents) };
            pipeline.denoise(&*transformer, (&recipe, golden.first()), &texts, from, &mut |_| Ok(())).expect("runs")
        };
        let error = relative_error(&values(&run(start.clone())), &values(end));
        assert!(error < LATENTS_TOLERANCE, "{} from its first latents: {error:e}", golden.case);
        let shape = GEOMETRY.latents_shape(GEOMETRY.tokens(golden.size()));
        let draw = noise(recipe.rng, recipe.seed, &shape);
        let clean = golden.encoded(&pipeline, Posterior::Sample(&draw), &plan);
        let t = pipeline.sigmas(&recipe).expect("a schedule")[golden.first()];
        assert!((t - golden.sigmas_used[0]).abs() < 1e-6);
        let noise = pipeline.noise_after(&recipe, &[draw.len()]).expect("noise");
        let found = noised(&clean, &noise, t).expect("of one shape");
        // At strength 0.3 what the picture's layout costs the reference weighs more than the tolerance.
        let [start, end] = ["first", "final"].map(|name| {
            let name = format!("{}/latents_{name}", golden.case);
            planar.get(&name).unwrap_or(&tensors[&name])
        });
        for (what, found, expected) in [("first", &found, start), ("final", &run(found.clone()), end)] {
            let error = relative_error(&values(found), &values(expected));
            assert!(error < LATENTS_TOLERANCE, "{} {what}: {error:e}", golden.case);
        }
    }
}

fn tiny() -> Flux1 {
    support::flux1(&ModelRequest::new(fixture("tiny-flux"))).expect("tiny-flux")
}

fn opened(model: &Flux1) -> Pipeline<'_> {
    Pipeline::open(model, Device::Cpu, DType::F32, &Silent).expect("opens")
}
