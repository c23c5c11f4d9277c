//! The arithmetic of a stage, in f64 to 1e-12 and as a decorator in f32 to 1e-6.

use std::collections::HashMap;

use candle_core::{DType, Device, Tensor};
use dype::testing::{
    Result,
    base::geometry::{ImageSize, LatentGeometry, TokenGrid},
    base::json::read_json,
    recipe::{Mu, Recipe, SamplerName, Spacing, Wanted},
    sampling::{
        Denoiser, Euler, Progress, ScheduleFor, SchedulerConfig, State, StepInfo, denoise,
        ladder::{Bicubic, Channel, Climb, Climbing, Enlarged, Guide, LowPass, Pull, handed_up, resized},
        pack, sigmas, unpack,
    },
};

use crate::support::fixture;

const EXACT: f64 = 1e-12;
const SINGLE: f64 = 1e-6;
const SCHEDULE: f64 = 1e-7;
/// Of the case "guided".
const SIGMAS: [f64; 5] = [0.6779867152174471, 0.5751029440498809, 0.4411997482513561, 0.25975841419433054, 0.0];
const STEPS: usize = SIGMAS.len() - 1;
const HIFLOW: Pull = Pull { alpha: 1.0, beta: 0.5 };

struct Golden(HashMap<String, Tensor>);

impl Golden {
    fn load() -> Self {
        let path = fixture("expected/ladder.safetensors");
        Self(candle_core::safetensors::load(path, &Device::Cpu).expect("the fixture is part of the repository"))
    }

    fn tensor(&self, name: &str) -> &Tensor {
        &self.0[name]
    }

    fn values(&self, name: &str) -> Vec<f64> {
        f64s(self.tensor(name))
    }

    /// Each channel of a tensor [C, rows, columns].
    fn channels(&self, name: &str) -> Vec<Vec<f64>> {
        let count = self.tensor(name).dims()[0];
        (0..count).map(|channel| f64s(&self.tensor(name).get(channel).expect("a channel"))).collect()
    }
}

fn f64s(tensor: &Tensor) -> Vec<f64> {
    tensor.to_dtype(DType::F64).and_then(|t| t.flatten_all()?.to_vec1()).expect("numbers")
}

#[track_caller]
fn close(found: &[f64], expected: &[f64], tolerance: f64, what: &str) {
    assert_eq!(found.len(), expected.len(), "{what}");
    let worst = found.iter().zip(expected).map(|(a, b)| (a - b).abs()).fold(0.0, f64::max);
    assert!(worst <= tolerance, "{what}: off by {worst:e}");
}

#[test]
fn the_low_pass_is_the_references() {
    let golden = Golden::load();
    for (rows, columns) in [(16, 16), (24, 40), (30, 18)] {
        let case = format!("low_pass_{rows}x{columns}_0.2");
        let low_pass = LowPass::new(rows, columns);
        let gains = Tensor::from_slice(low_pass.gains(), (columns, rows), &Device::Cpu).and_then(|gains| gains.t());
        close(&f64s(&gains.expect("a map")), &golden.values(&format!("{case}/gain")), EXACT, &case);
        let (x, low) = (golden.channels(&format!("{case}/x")), golden.channels(&format!("{case}/low")));
        for (x, low) in x.iter().zip(low) {
            close(&low_pass.of(x), &low, EXACT, &case);
        }
    }
}

#[test]
fn bicubic_is_pytorchs_up_down_and_at_the_same_size() {
    let golden = Golden::load();
    for [rows, columns, new_rows, new_columns] in [[8, 12, 16, 24], [8, 12, 20, 27], [12, 10, 6, 5], [5, 7, 5, 7]] {
        let case = format!("bicubic_{rows}x{columns}_{new_rows}x{new_columns}");
        let sides = [Bicubic::new(rows, new_rows), Bicubic::new(columns, new_columns)];
        let (x, y) = (golden.channels(&format!("{case}/x")), golden.channels(&format!("{case}/y")));
        for (x, y) in x.iter().zip(y) {
            close(&resized(x, columns, &sides[0], &sides[1]), &y, EXACT, &case);
        }
    }
}

#[test]
fn a_picture_is_sharpened_as_the_reference_does() {
    let golden = Golden::load();
    let size = ImageSize { height_px: 11, width_px: 13 };
    for deviation in ["0.74", "1.0", "2.0"] {
        let case = format!("sharpen_{deviation}");
        let pixels = |field: &str| golden.tensor(&format!("{case}/{field}")).permute((1, 2, 0)).expect("[H, W, 3]");
        let picture: Vec<f32> = pixels("x").flatten_all().and_then(|x| x.to_vec1()).expect("f32");
        let sharp = Enlarged::with_deviation(picture.clone(), size, size, deviation.parse().expect("a number"));
        close(&sharp.rows(0, 11), &f64s(&pixels("y")), EXACT, &case);
        if deviation != "0.74" {
            continue;
        }
        // The usual one, and rows asked for by pieces.
        let usual = Enlarged::new(picture, size, size);
        let mut rows = vec![0.0f32; 11 * 13 * 3];
        for (piece, rows) in rows.chunks_mut(4 * 13 * 3).enumerate() {
            usual.fill(4 * piece, rows);
        }
        let rows: Vec<f64> = rows.into_iter().map(f64::from).collect();
        close(&rows, &f64s(&pixels("y")), SINGLE, &case);
    }
}

/// The larger picture is what one after the other would give, for rows alone as for all together.
#[test]
fn a_picture_is_enlarged_before_it_is_sharpened() {
    let (from, to) = (ImageSize { height_px: 5, width_px: 7 }, ImageSize { height_px: 40, width_px: 12 });
    let picture: Vec<f32> = (0..5 * 7 * 3).map(|i| ((i * 37) % 19) as f32 / 9.5 - 1.0).collect();
    let both = Enlarged::new(picture.clone(), from, to);
    let plain: Vec<Vec<f64>> = (0..3)
        .map(|channel| {
            let channel: Vec<f32> = picture.iter().skip(channel).step_by(3).copied().collect();
            resized(&channel, 7, &Bicubic::new(5, 40), &Bicubic::new(7, 12))
        })
        .collect();
    let large: Vec<f32> = (0..40 * 12).flat_map(|i| [0, 1, 2].map(|channel| plain[channel][i] as f32)).collect();
    let after = Enlarged::new(large, to, to);
    close(&both.rows(0, 40), &after.rows(0, 40), SINGLE, "all rows");
    close(&both.rows(39, 1), &both.rows(0, 40)[39 * 12 * 3..], 0.0, "the last row");
    let mut filled = vec![0.0f32; 40 * 12 * 3];
    both.fill(0, &mut filled);
    let filled: Vec<f64> = filled.into_iter().map(f64::from).collect();
    close(&filled, &both.rows(0, 40), SINGLE, "filled");
}

/// Numbers of the reference by case.
fn rows(case: &str) -> serde_json::Value {
    let cases: Vec<serde_json::Value> = read_json(&fixture("expected/ladder.json")).expect("golden");
    cases.into_iter().find(|row| row["case"] == case).expect("a case")
}

fn numbers(value: &serde_json::Value) -> Vec<f64> {
    serde_json::from_value(value.clone()).expect("numbers")
}

#[test]
fn weights_fall_to_nothing_over_a_stage() {
    for (stage, steps) in [(1, 16), (2, 10)] {
        let golden = rows(&format!("weights_stage{stage}"));
        let pull = Pull::of_stage(stage);
        let found = (1..=steps).rev().map(|left| pull.at(left, steps));
        let (alpha, beta): (Vec<f64>, Vec<f64>) = found.map(|Pull { alpha, beta }| (alpha, beta)).unzip();
        close(&alpha, &numbers(&golden["alpha"]), EXACT, "alpha");
        close(&beta, &numbers(&golden["beta"]), EXACT, "beta");
    }
}

/// Every stage has the last steps of the first one's schedule.
#[test]
fn stages_run_the_end_of_the_schedule() {
    let config = SchedulerConfig::read(&fixture("tiny-flux/scheduler/scheduler_config.json")).expect("reads");
    for mu in [1.15, 0.8] {
        let golden = rows(&format!("schedule_mu{mu}"));
        let (spacing, sampler) = (Spacing::Uniform, SamplerName::Euler);
        let asked =
            ScheduleFor { steps: 30, spacing, sampler, image_tokens: 4096, base_tokens: 4096, mu: Mu::Value(mu) };
        let found = sigmas(&config, &asked).expect("a schedule");
        close(&found, &numbers(&golden["sigmas"]), SCHEDULE, "sigmas");
        for (stage, steps) in [(1, 16), (2, 10)] {
            let expected = numbers(&golden[&format!("stage{stage}")]);
            close(&found[30 - steps..], &expected, SCHEDULE, "a stage");
        }
        let wanted = Wanted { ladder: "1024,2048,4096".parse().ok(), steps: Some(30), ..Wanted::default() };
        let recipe = Recipe::draft(&wanted).expect("a recipe");
        let rungs: Vec<usize> = recipe.rungs(16).iter().map(|rung| rung.steps).collect();
        assert_eq!(rungs, [30, 16, 10]);
    }
}

/// A whole stage on given velocities, in f64.
#[test]
fn a_led_stage_is_the_references() {
    let golden = Golden::load();
    let low_pass = LowPass::new(16, 12);
    let (rows, columns) = (Bicubic::new(8, 16), Bicubic::new(6, 12));
    let of = |name: &str, step: usize, channel: usize| {
        f64s(&golden.tensor(name).get(step).and_then(|step| step.get(channel)).expect("a channel"))
    };
    for channel in 0..4 {
        let mut x = of("guided/latents", 0, channel);
        let mut last: Option<[Vec<f64>; 2]> = None;
        for step in 0..STEPS {
            let (t, t_next) = (SIGMAS[step], SIGMAS[step + 1]);
            let velocity = of("guided/velocity", step, channel);
            let clean: Vec<f64> = x.iter().zip(&velocity).map(|(x, v)| x - t * v).collect();
            close(&clean, &of("guided/x0", step, channel), EXACT, "x0");
            let reference = resized(&of("guided/reference", step, channel), 6, &rows, &columns);
            let before = last.as_ref().map(|[u, r]| [u.as_slice(), r.as_slice()]);
            let channel_now = Channel { latents: &x, velocity: &velocity, reference: &reference, last: before };
            let [u, r] = channel_now.pulled(t, HIFLOW.at(STEPS - step, STEPS), &low_pass);
            close(&u, &of("guided/guided", step, channel), 1e-11, "u");
            x = x.iter().zip(&u).map(|(x, u)| x + (t_next - t) * u).collect();
            close(&x, &of("guided/latents", step + 1, channel), EXACT, "latents");
            last = Some([u, r]);
        }
    }
}

const GEOMETRY: LatentGeometry = LatentGeometry { channels: 4, px_per_latent: 8, patch: 2 };
const GRIDS: [TokenGrid; 2] =
    [TokenGrid { height_patches: 4, width_patches: 3 }, TokenGrid { height_patches: 8, width_patches: 6 }];

/// Gives the velocities of a file, one a step.
struct Given<'a>(&'a Golden);

impl Denoiser for Given<'_> {
    fn velocity(&mut self, _latents: &Tensor, step: &StepInfo) -> Result<Tensor> {
        packed(self.0, "guided/velocity", step.index)
    }
}

fn packed(golden: &Golden, name: &str, step: usize) -> Result<Tensor> {
    let one = golden.tensor(name).get(step)?.unsqueeze(0)?.to_dtype(DType::F32)?; // [1, C, h, w]
    pack(&one, &GEOMETRY)
}

fn references(golden: &Golden) -> State {
    let of = |step: usize| {
        (format!("ladder.x0.{}", STEPS - step), packed(golden, "guided/reference", step).expect("packed"))
    };
    handed_up((0..STEPS).map(of).collect())
}

fn climbing(golden: &Golden) -> Climbing<Given<'_>> {
    Climbing::new(Given(golden), Climb { keeps: 3, guide: Some(Guide::new(HIFLOW, STEPS, GEOMETRY, GRIDS)) })
}

fn start(golden: &Golden) -> Progress {
    let [noise, anchor] = ["guided/noise", "guided/anchor"].map(|name| golden.tensor(name).unsqueeze(0).expect("one"));
    let t = SIGMAS[0];
    let mixed = (noise * t).and_then(|noise| noise + (anchor * (1.0 - t))?).expect("mixed");
    Progress { state: references(golden), ..Progress::start(pack(&mixed, &GEOMETRY).expect("packed")) }
}

/// The same as a decorator: latents, and what is kept for the stage above, before any correction.
#[test]
fn a_pass_is_led_and_keeps_where_it_was_heading_for() {
    let golden = Golden::load();
    let mut kept = State::new();
    let mut index = 0;
    denoise(&mut climbing(&golden), &mut Euler, &SIGMAS, start(&golden), &mut |after| {
        index += 1;
        let latents = unpack(after.latents, GRIDS[1], &GEOMETRY)?;
        let expected = f64s(&golden.tensor("guided/latents").get(index)?);
        close(&f64s(&latents), &expected, SINGLE, &format!("after step {index}"));
        kept = after.progress()?.state;
        Ok(())
    })
    .expect("runs");
    let kept = handed_up(kept);
    assert_eq!(kept.keys().collect::<Vec<_>>(), ["ladder.reference.1", "ladder.reference.2", "ladder.reference.3"]);
    for left in 1..=3 {
        let found = unpack(&kept[&format!("ladder.reference.{left}")], GRIDS[1], &GEOMETRY).expect("unpacked");
        let expected = golden.tensor("guided/x0").get(STEPS - left).expect("a step");
        close(&f64s(&found), &f64s(&expected), SINGLE, "x0");
    }
}

#[test]
fn going_on_from_any_step_is_going_on() {
    let golden = Golden::load();
    let mut places = vec![start(&golden)];
    let run = |from: Progress, places: &mut Vec<Progress>| {
        let mut ends = State::new();
        let end = denoise(&mut climbing(&golden), &mut Euler, &SIGMAS, from, &mut |after| {
            places.push(after.progress()?);
            ends = after.progress()?.state;
            Ok(())
        });
        (f64s(&end.expect("runs")), ends)
    };
    let (whole, kept) = run(places[0].clone(), &mut places);
    for place in &places[1..STEPS] {
        let (end, ends) = run(place.clone(), &mut Vec::new());
        assert_eq!(end, whole, "from step {}", place.step);
        assert_eq!(ends.keys().collect::<Vec<_>>(), kept.keys().collect::<Vec<_>>());
        assert!(kept.iter().all(|(name, tensor)| f64s(&ends[name]) == f64s(tensor)));
    }
    // What is behind a step is not kept for it.
    assert_eq!(places[2].state.keys().filter(|name| name.starts_with("ladder.reference")).count(), 2);
    let lost = Progress { state: State::new(), ..places[1].clone() };
    let error =
        denoise(&mut climbing(&golden), &mut Euler, &SIGMAS, lost, &mut |_| Ok(())).expect_err("nothing leads it");
    assert!(error.to_string().contains("stage below"), "{error}");
}

/// Without a guide it is the denoiser itself, which keeps.
#[test]
fn a_first_pass_follows_the_model() {
    let golden = Golden::load();
    let first = Progress { state: State::new(), ..start(&golden) };
    let plain = denoise(&mut Given(&golden), &mut Euler, &SIGMAS, first.clone(), &mut |_| Ok(())).expect("runs");
    let mut keeping = Climbing::new(Given(&golden), Climb { keeps: 2, guide: None });
    let kept = denoise(&mut keeping, &mut Euler, &SIGMAS, first, &mut |_| Ok(())).expect("runs");
    assert_eq!(f64s(&kept), f64s(&plain));
    assert_eq!(keeping.state().expect("two").len(), 2);
}
