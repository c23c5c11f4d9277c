//! Classifier-free guidance through the pipeline, against arithmetic on what it is made of.

use candle_core::{DType, Device};
use dype::testing::{
    Error,
    base::progress::Silent,
    models::Model,
    nn::CodeProducts,
    plan::{Machine, Plan},
    recipe::{Recipe, Wanted},
    run::{
        Item,
        pipeline::{Pipeline, Texts},
    },
    sampling::Progress,
};

use super::{relative_error, values};

/// Latents before and after the first step.
fn first_step(model: &dyn Model, wanted: &Wanted) -> [Vec<f32>; 2] {
    let pipeline = Pipeline::open(model, Device::Cpu, DType::F32, &Silent).expect("opens");
    let recipe = Recipe::new(wanted, &model.facts().recipe).expect("in range");
    let machine = Machine { device: Device::Cpu, dtype: DType::F32, budget: None, weights: None };
    let choices = Plan::new(model, &Item::task(&recipe, 1), &machine).expect("fits").choices;
    let negative = recipe.cfg().map(|(_, negative)| negative);
    let prompts: Vec<&str> = [Some(recipe.prompt.as_str()), negative].into_iter().flatten().collect();
    let mut encoded = pipeline.encode(&prompts, recipe.max_sequence_length).expect("encodes").into_iter();
    let texts = Texts { prompt: encoded.next().expect("a prompt"), negative: encoded.next() };
    let transformer = pipeline.load_transformer(&choices, CodeProducts::NONE).expect("loads");
    let noise = pipeline.noise(&recipe).expect("noise");
    let mut first = None;
    let stopped = pipeline.denoise(&*transformer, (&recipe, 0), &texts, Progress::start(noise.clone()), &mut |after| {
        first = Some(values(after.latents));
        Err(Error::request("one step is enough", ""))
    });
    stopped.expect_err("the callback's error");
    [values(&noise), first.expect("a step")]
}

/// `--cfg` of a family that starts from the negative velocity, by what its two prompts give alone. A step is linear in its velocity.
pub fn assert_is_arithmetic(model: &dyn Model, wanted: &Wanted) {
    let of = |prompt: &str, cfg, negative: Option<&str>| {
        let (prompt, negative_prompt) = (Some(prompt.to_owned()), negative.map(str::to_owned));
        first_step(model, &Wanted { prompt, cfg, negative_prompt, ..wanted.clone() })
    };
    let ([noise, positive], [_, negative]) = (of("a lake", None, None), of("fog", None, None));
    for scale in [1.5, 4.0] {
        let [_, guided] = of("a lake", Some(scale), Some("fog"));
        let sum = |((p, n), x): ((&f32, &f32), &f32)| n + scale as f32 * (p - n) - x;
        let expected: Vec<f32> = positive.iter().zip(&negative).zip(&noise).map(sum).collect();
        let found: Vec<f32> = guided.iter().zip(&noise).map(|(latent, noise)| latent - noise).collect();
        let error = relative_error(&found, &expected);
        assert!(error < 1e-5, "scale {scale}: {error:e}");
        assert!(relative_error(&guided, &positive) > 1e-3, "the negative prompt acts");
    }
    assert!(of("a lake", Some(1.0), Some("fog"))[1] == positive, "1 is off: bit for bit");
}
