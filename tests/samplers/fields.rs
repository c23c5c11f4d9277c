//! Samplers on a field whose end is known.

use std::collections::HashMap;

use candle_core::{DType, Device, Tensor};
use dype::testing::{
    Result,
    base::json::read_json,
    sampling::{Denoiser, Dpmpp2m, ErSde, Euler, Heun, Progress, Sampler, StepInfo, denoise},
};
use serde::Deserialize;

use crate::support::fixture;

/// What formulas in f64 meet.
const TOLERANCE: f64 = 1e-12;

#[derive(Deserialize)]
struct Golden {
    steps: Vec<Steps>,
}

#[derive(Deserialize)]
struct Steps {
    case: String,
    sigmas: Vec<f64>,
    /// Where ER-SDE begins: a ten-thousandth below 1, shifted.
    er_sde_first: f64,
}

fn steps() -> Vec<Steps> {
    let golden: Golden = read_json(&fixture("expected/samplers.json")).expect("golden");
    golden.steps
}

fn tensors() -> HashMap<String, Tensor> {
    candle_core::safetensors::load(fixture("expected/samplers.safetensors"), &Device::Cpu).expect("golden")
}

/// Data of the normal distribution N(centre, width^2): D(x, t) = ((1-t) width^2 x + t^2 centre) / ((1-t)^2 width^2 + t^2).
struct Normal {
    centre: Tensor,
    width: Tensor,
    /// The times that were asked for.
    asked: Vec<(f64, usize)>,
}

impl Normal {
    fn new(golden: &HashMap<String, Tensor>) -> Self {
        let [centre, width] = ["field/centre", "field/width"].map(|name| golden[name].clone());
        Self { centre, width, asked: vec![] }
    }
}

impl Denoiser for Normal {
    fn velocity(&mut self, x: &Tensor, step: &StepInfo) -> Result<Tensor> {
        self.asked.push((step.t, step.evaluation));
        let (t, square) = (step.t, self.width.sqr()?);
        let above = (((&square * x)? * (1.0 - t))? + (&self.centre * (t * t))?)?;
        let below = ((square * (1.0 - t).powi(2))? + t * t)?;
        Ok(((x - (above / below)?)? / t)?)
    }
}

/// The latents after each step.
fn run(sampler: &mut dyn Sampler, sigmas: &[f64], golden: &HashMap<String, Tensor>) -> Vec<Tensor> {
    let mut seen = vec![];
    let from = Progress::start(golden["field/x"].clone());
    denoise(&mut Normal::new(golden), sampler, sigmas, from, &mut |after| {
        assert_eq!(after.latents.dtype(), DType::F64);
        seen.push(after.latents.clone());
        Ok(())
    })
    .expect("runs");
    seen
}

fn values(tensor: &Tensor) -> Vec<f64> {
    tensor.flatten_all().and_then(|flat| flat.to_vec1()).expect("f64")
}

#[track_caller]
fn assert_meets(found: &[Tensor], golden: &Tensor) {
    let expected: Vec<Vec<f64>> = golden.to_vec2().expect("[steps, values]");
    assert_eq!(found.len(), expected.len());
    for (step, (found, expected)) in found.iter().map(values).zip(&expected).enumerate() {
        for (found, expected) in found.iter().zip(expected) {
            let difference = (found - expected).abs();
            assert!(difference <= TOLERANCE * expected.abs().max(1.0), "step {step}: {found} {expected}");
        }
    }
}

#[test]
fn samplers_without_noise_are_k_diffusions() {
    let golden = tensors();
    for Steps { case, sigmas, .. } in steps() {
        let samplers: [(&str, &mut dyn Sampler); 3] =
            [("euler", &mut Euler), ("heun", &mut Heun), ("dpmpp_2m", &mut Dpmpp2m::default())];
        for (name, sampler) in samplers {
            assert_meets(&run(sampler, &sigmas, &golden), &golden[&format!("{case}/{name}")]);
        }
    }
}

#[test]
fn er_sde_is_comfyuis_with_the_same_noise() {
    let golden = tensors();
    for Steps { case, mut sigmas, er_sde_first } in steps() {
        sigmas[0] = er_sde_first;
        let noise = golden[&format!("{case}/er_sde_noise")].clone();
        let mut sampler = ErSde::new(move |step| Ok(noise.get(step)?));
        assert_meets(&run(&mut sampler, &sigmas, &golden), &golden[&format!("{case}/er_sde")]);
    }
}

#[test]
fn the_second_evaluation_is_at_the_end_of_the_step() {
    let golden = tensors();
    let sigmas = [1.0, 0.75, 0.5, 0.0];
    let mut field = Normal::new(&golden);
    let from = Progress::start(golden["field/x"].clone());
    denoise(&mut field, &mut Heun, &sigmas, from, &mut |_| Ok(())).expect("runs");
    assert_eq!(field.asked, [(1.0, 0), (0.75, 1), (0.75, 0), (0.5, 1), (0.5, 0)]);
}

#[test]
fn each_goes_on_from_any_step_bit_for_bit() {
    let golden = tensors();
    let Steps { case, mut sigmas, er_sde_first } = steps().swap_remove(1);
    sigmas[0] = er_sde_first;
    let noise = golden[&format!("{case}/er_sde_noise")].to_dtype(DType::F32).expect("f32");
    let samplers = || -> [Box<dyn Sampler>; 4] {
        let noise = noise.clone();
        let er_sde = ErSde::new(move |step| Ok(noise.get(step)?));
        [Box::new(Euler), Box::new(Heun), Box::new(Dpmpp2m::default()), Box::new(er_sde)]
    };
    for which in 0..samplers().len() {
        let (mut seen, mut clean) = (vec![], vec![]);
        let from = Progress::start(golden["field/x"].to_dtype(DType::F32).expect("f32"));
        let sampler = |which: usize| samplers().into_iter().nth(which).expect("one of them");
        let mut normal = Normal32(Normal::new(&golden));
        let whole = denoise(&mut normal, &mut *sampler(which), &sigmas, from, &mut |after| {
            seen.push(after.progress()?);
            clean.push(after.clean()?);
            Ok(())
        })
        .expect("runs");
        assert_eq!(seen[3].state.len(), [0, 0, 1, 2][which]);
        // The picture that the last step heads for is where it ends.
        let bits = |tensor: &Tensor| -> Vec<f32> { tensor.flatten_all().and_then(|flat| flat.to_vec1()).expect("f32") };
        assert_eq!(bits(clean.last().expect("steps")), bits(&whole));
        for progress in seen {
            let step = progress.step;
            let mut normal = Normal32(Normal::new(&golden));
            let end = denoise(&mut normal, &mut *sampler(which), &sigmas, progress, &mut |_| Ok(())).expect("runs");
            assert_eq!(bits(&end), bits(&whole), "sampler {which} from step {step}");
        }
    }
}

/// The same field for latents in f32.
struct Normal32(Normal);

impl Denoiser for Normal32 {
    fn velocity(&mut self, x: &Tensor, step: &StepInfo) -> Result<Tensor> {
        self.0.velocity(&x.to_dtype(DType::F64)?, step)
    }
}
