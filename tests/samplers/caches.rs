//! EasyCache on given latents and velocities.

use std::{
    cell::{Cell, RefCell},
    rc::Rc,
};

use candle_core::{Device, Tensor};
use dype::testing::{
    Result,
    base::json::read_json,
    sampling::{Decision, Denoiser, EasyCache, EasyRule, Euler, Heun, Progress, Sampler, StepInfo, denoise},
};
use serde::Deserialize;
use serde_json::Value;

use crate::support::{fixture, values};

#[derive(Deserialize)]
struct Golden {
    case: String,
    threshold: f64,
    start_sigma: f64,
    end_sigma: f64,
    sigmas: Vec<f64>,
    computed: Vec<u8>,
    /// What has added up of changes after each step.
    sum_after: Vec<f64>,
}

fn golden() -> Vec<Golden> {
    let cases: Vec<Value> = read_json(&fixture("expected/caches.json")).expect("golden");
    let easy = cases.into_iter().filter(|case| case["case"].as_str().is_some_and(|name| name.starts_with("easy")));
    easy.map(|case| serde_json::from_value(case).expect("golden")).collect()
}

/// Gives the velocity of each step, and counts how often it is asked.
struct Given {
    velocities: Tensor,
    asked: Rc<Cell<usize>>,
}

impl Denoiser for Given {
    fn velocity(&mut self, _: &Tensor, step: &StepInfo) -> Result<Tensor> {
        self.asked.set(self.asked.get() + 1);
        Ok(self.velocities.get(step.index)?)
    }
}

#[test]
fn steps_are_computed_where_stable_diffusion_cpp_computes_them() {
    let tensors = candle_core::safetensors::load(fixture("expected/caches.safetensors"), &Device::Cpu).expect("golden");
    assert_eq!(golden().len(), 3);
    for Golden { case, threshold, start_sigma, end_sigma, sigmas, computed, sum_after } in golden() {
        let [latents, velocities, used] =
            ["latents", "velocity", "used"].map(|name| tensors[&format!("{case}/{name}")].clone());
        let rule = EasyRule { threshold, start: start_sigma, end: end_sigma };
        let asked = Rc::new(Cell::new(0));
        let mut cache = EasyCache::leading(Given { velocities, asked: Rc::clone(&asked) }, rule, Decision::default());
        let mut found = vec![];
        for (index, t) in sigmas.iter().enumerate() {
            let before = asked.get();
            let step = StepInfo { index, steps: sigmas.len(), t: *t, t_next: 0.0, evaluation: 0 };
            let velocity = cache.velocity(&latents.get(index).expect("a row"), &step).expect("a velocity");
            found.push(u8::try_from(asked.get() - before).expect("once"));
            let expected: Vec<f64> = used.get(index).and_then(|row| row.to_vec1()).expect("f64");
            for (found, expected) in values(&velocity).into_iter().zip(expected) {
                assert!((f64::from(found) - expected).abs() < 1e-5, "{case} step {index}: {found} {expected}");
            }
            let sum = sum_of(&cache);
            assert!((sum - sum_after[index]).abs() < 1e-6, "{case} step {index}: {sum} {}", sum_after[index]);
        }
        assert_eq!(found, computed, "{case}");
        let skipped = computed.iter().filter(|computed| **computed == 0).count();
        assert_eq!((cache.skips().steps, cache.skips().evaluations), (skipped, skipped));
    }
}

/// What its state says has added up; nothing before a step it acts at.
fn sum_of(cache: &EasyCache<Given>) -> f64 {
    let measure = cache.state().expect("a state").remove("easy_cache.measure");
    measure.map_or(0.0, |measure| measure.to_vec1::<f64>().expect("f64")[0])
}

/// A field whose velocity changes slowly, which writes down when it is asked.
struct Slow(Rc<RefCell<Vec<(usize, usize)>>>);

impl Denoiser for Slow {
    fn velocity(&mut self, x: &Tensor, step: &StepInfo) -> Result<Tensor> {
        self.0.borrow_mut().push((step.index, step.evaluation));
        Ok((x.sin()? * (0.3 * step.t))?)
    }
}

const RULE: EasyRule = EasyRule { threshold: 0.2, start: 0.95, end: 0.03 };

fn sigmas(steps: usize) -> Vec<f64> {
    (0..=steps).rev().map(|i| i as f64 / steps as f64).collect()
}

fn start() -> Progress {
    Progress::start(Tensor::arange(0f32, 128.0, &Device::Cpu).and_then(|x| x.reshape((1, 2, 64))).expect("latents"))
}

type Asked = Rc<RefCell<Vec<(usize, usize)>>>;

fn slow() -> (EasyCache<Slow>, Asked) {
    let asked = Asked::default();
    (EasyCache::leading(Slow(Rc::clone(&asked)), RULE, Decision::default()), asked)
}

#[test]
fn a_run_goes_on_from_any_step_bit_for_bit() {
    let samplers: [fn() -> Box<dyn Sampler>; 2] = [|| Box::new(Euler), || Box::new(Heun)];
    for sampler in samplers {
        let ((mut cache, asked), mut seen) = (slow(), vec![]);
        let whole = denoise(&mut cache, &mut *sampler(), &sigmas(16), start(), &mut |after| {
            seen.push(after.progress()?);
            Ok(())
        })
        .expect("runs");
        assert!(cache.skips().steps > 3, "{:?}", cache.skips());
        let asked = asked.borrow().clone();
        for progress in seen {
            let (step, (mut cache, again)) = (progress.step, slow());
            let end = denoise(&mut cache, &mut *sampler(), &sigmas(16), progress, &mut |_| Ok(())).expect("runs");
            assert_eq!(values(&end), values(&whole), "from step {step}");
            let left: Vec<_> = asked.iter().copied().filter(|(index, _)| *index >= step).collect();
            assert_eq!(*again.borrow(), left);
        }
    }
}

/// Heun's second evaluation is computed where the first is, and skipped where that is.
#[test]
fn a_second_evaluation_goes_as_the_first() {
    let (mut cache, asked) = slow();
    denoise(&mut cache, &mut Heun, &sigmas(16), start(), &mut |_| Ok(())).expect("runs");
    let asked = asked.borrow();
    let (mut computed, mut evaluations) = (0, 0);
    for step in 0..16 {
        let of_step: Vec<_> =
            asked.iter().filter(|(index, _)| *index == step).map(|(_, evaluation)| *evaluation).collect();
        match of_step[..] {
            [] => {}
            [0, 1] => (computed, evaluations) = (computed + 1, evaluations + 2),
            [0] if step == 15 => (computed, evaluations) = (computed + 1, evaluations + 1),
            _ => panic!("step {step}: {of_step:?}"),
        }
    }
    assert_eq!((cache.skips().steps, cache.skips().evaluations), (16 - computed, 31 - evaluations));
}

/// One decides for both, whatever the other sees.
#[test]
fn one_of_two_decides_for_both() {
    let decision = Decision::default();
    let [first, second] = [Asked::default(), Asked::default()];
    let mut leading = EasyCache::leading(Slow(Rc::clone(&first)), RULE, decision.clone());
    let mut following = EasyCache::following(Slow(Rc::clone(&second)), RULE, decision);
    let (sigmas, mut x) = (sigmas(16), start().latents);
    for (index, pair) in sigmas.windows(2).enumerate() {
        let step = StepInfo { index, steps: 16, t: pair[0], t_next: pair[1], evaluation: 0 };
        let velocity = leading.velocity(&x, &step).expect("a velocity");
        following.velocity(&(&x * 3.0).expect("others"), &step).expect("a velocity");
        x = (x + (velocity * (pair[1] - pair[0])).expect("a step")).expect("latents");
    }
    assert!(first.borrow().len() < 13);
    assert_eq!(*first.borrow(), *second.borrow());
}
