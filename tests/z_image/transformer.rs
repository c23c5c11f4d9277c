//! One forward pass against the reference, its position tables, and the dry pass against a real one.

use candle_core::{DType, Device, Tensor};
use dype::testing::{
    base::{device::DeviceKind, geometry::TokenGrid},
    methods::{DypeSettings, Method, Moment, PositionScaler, TextBias},
    models::{
        Conditioning, ForwardOptions, Model, Velocity, VelocityAt,
        z_image::{Forward, Transformer, text::Prompt},
    },
    nn::{Compute, RopeTables, WeightsMode, launches},
};

use super::{CPU_F32, MODES, support::relative_error, support::values, tensors, tiny};

const TOLERANCE: f64 = 1e-4;
const SIGMA: f64 = 0.7;
const GRID: TokenGrid = TokenGrid { height_patches: 11, width_patches: 19 };

/// What is added to the text's logits, and what all are multiplied by.
type Logits = (Option<TextBias>, f64);
const AS_TRAINED: Logits = (None, 1.0);

/// The golden pass: packed latents, what the prompt became, and the tables as native and as stretched from 128 px.
struct Pass {
    golden: std::collections::HashMap<String, Tensor>,
    latents: Tensor,
    text: Conditioning,
}

impl Pass {
    fn new() -> Self {
        let golden = tensors("expected/transformer.safetensors");
        let latents = packed(&golden["latents"]);
        let text = conditioning(&golden["cap_feats"]);
        Self { golden, latents, text }
    }

    fn tables(&self, kind: &str) -> RopeTables {
        let scaler = match kind {
            "native" => Method::BASE.scaler(None),
            _ => Method::YARN.scaler(Some(DypeSettings::default())),
        };
        self.tables_of(&*scaler)
    }

    fn tables_of(&self, scaler: &dyn PositionScaler) -> RopeTables {
        let ids = tiny().positions(GRID, &self.text);
        RopeTables::new(&ids, 8, scaler, &Moment::at(SIGMA), &Device::Cpu).expect("tables")
    }

    fn velocity(&self, model: &dyn Velocity, kind: &str) -> Vec<f32> {
        values(&self.found(model, &self.tables(kind), AS_TRAINED))
    }

    fn found(&self, model: &dyn Velocity, rope: &RopeTables, (text_bias, logit_scale): Logits) -> Tensor {
        let at =
            VelocityAt { t: SIGMA, guidance: None, text: &self.text, rope, text_bias, logit_scale, first_block: None };
        model.velocity(&self.latents, &at).expect("a velocity")
    }

    fn expected(&self, kind: &str) -> Vec<f32> {
        values(&packed(&self.golden[&format!("{kind}.velocity")]))
    }
}

/// Latents [1, 16, 2r, 2c] as tokens [1, r·c, 64].
fn packed(latents: &Tensor) -> Tensor {
    let (rows, columns) = (GRID.height_patches, GRID.width_patches);
    let patches = latents.reshape(&[1, 16, rows, 2, columns, 2][..]).expect("patches");
    let tokens = patches.permute([0, 2, 4, 1, 3, 5]).and_then(|tokens| tokens.reshape((1, rows * columns, 64)));
    tokens.expect("tokens")
}

fn conditioning(features: &Tensor) -> Conditioning {
    let tokens = features.dim(0).expect("tokens").next_multiple_of(32);
    Conditioning::new(Prompt::new(features.unsqueeze(0).expect("one prompt")), tokens)
}

#[test]
fn the_velocity_is_the_references_however_weights_arrive_and_in_whatever_pieces() {
    let (pass, model) = (Pass::new(), tiny());
    for mode in MODES {
        for pieces in [ForwardOptions::default(), ForwardOptions { token_chunk: 50, query_rows: 17, heads: 1 }] {
            let transformer = model.velocity(&CPU_F32, mode, pieces).expect("loads");
            for kind in ["native", "stretched"] {
                let error = relative_error(&pass.velocity(&*transformer, kind), &pass.expected(kind));
                assert!(error < TOLERANCE, "{kind}, {mode:?}: {error:e}");
            }
        }
    }
}

/// What the reference's ids and frequencies say of every token.
#[test]
fn every_token_stands_where_the_reference_has_it() {
    let pass = Pass::new();
    let ids = |key: &str| -> Vec<Vec<f64>> {
        pass.golden[key].to_dtype(DType::F64).and_then(|ids| ids.to_vec2()).expect("ids")
    };
    let rows = |tensor: &Tensor| -> Vec<Vec<f32>> { tensor.to_vec2().expect("rows") };
    for kind in ["native", "stretched"] {
        // The reference's own tables of some ids, then ours of all tokens in the order of the layers.
        let of = |part: &str| rows(&pass.golden[&format!("{kind}.rope_{part}")]);
        let tables = pass.tables(kind);
        let ours = [rows(&tables.cos), rows(&tables.sin)];
        for ([cos, sin], ids) in
            [([of("cos"), of("sin")], ids("rope_ids")), (ours, [ids("image_ids"), ids("caption_ids")].concat())]
        {
            assert_eq!(cos.len(), ids.len());
            for (token, id) in ids.iter().enumerate() {
                let turns = turns(&pass, kind, id);
                assert_eq!(turns.len(), cos[token].len());
                for (pair, (amplitude, angle)) in turns.into_iter().enumerate() {
                    let near = |found: f32, expected: f64| (f64::from(found) - expected).abs() < 1e-5;
                    assert!(near(cos[token][pair], amplitude * angle.cos()), "{kind} {id:?} pair {pair}");
                    assert!(near(sin[token][pair], amplitude * angle.sin()), "{kind} {id:?} pair {pair}");
                }
            }
        }
    }
}

/// Amplitude and angle of each pair of a token at these ids.
fn turns(pass: &Pass, kind: &str, id: &[f64]) -> Vec<(f64, f64)> {
    let numbers = |axis: usize, what: &str| -> Vec<f64> {
        let tensor = &pass.golden[&format!("{kind}.axis{axis}.{what}")];
        tensor.flatten_all().and_then(|tensor| tensor.to_vec1()).expect("f64")
    };
    let of_axis = |(axis, position): (usize, &f64)| {
        let (amplitude, position) = (numbers(axis, "amplitude")[0], *position);
        numbers(axis, "inv_freq").into_iter().map(move |frequency| (amplitude, position * frequency))
    };
    id.iter().enumerate().flat_map(of_axis).collect()
}

/// The text's own layers run once a prompt, and anew where the tables of its tokens change.
#[test]
fn a_refined_text_serves_all_steps_of_its_tables_and_no_others() {
    let (pass, model) = (Pass::new(), tiny());
    let transformer = model.velocity(&CPU_F32, WeightsMode::Resident, ForwardOptions::default()).expect("loads");
    let count = |kind: &str| {
        let before = launches();
        let velocity = pass.velocity(&*transformer, kind);
        (velocity, launches() - before)
    };
    let (first, whole) = count("native");
    let (again, less) = count("native");
    assert!(first == again && less < whole, "{less} launches after {whole}");
    // YaRN's amplitude turns text too.
    let (stretched, anew) = count("stretched");
    assert_eq!(anew, whole);
    assert!(stretched == Pass::new().velocity(&*transformer, "stretched"), "as from a fresh prompt");
}

#[test]
fn a_bias_on_the_texts_keys_acts_on_them_alone() {
    let (pass, model) = (Pass::new(), tiny());
    let transformer = model.velocity(&CPU_F32, WeightsMode::Resident, ForwardOptions::default()).expect("loads");
    let tables = pass.tables("native");
    let of = |bias: Option<f64>| values(&pass.found(&*transformer, &tables, (bias.map(TextBias), 1.0)));
    assert!(of(Some(0.0)) == of(None), "nothing added is nothing changed");
    assert!(relative_error(&of(Some(2.0)), &of(None)) > 1e-4);
}

#[test]
fn logits_grow_alike_with_weights_resident_and_streamed() {
    let (pass, model) = (Pass::new(), tiny());
    let tables = pass.tables("native");
    let of = |mode, scale| {
        let transformer = model.velocity(&CPU_F32, mode, ForwardOptions::default()).expect("loads");
        values(&Pass::new().found(&*transformer, &tables, (None, scale)))
    };
    let sharper = of(WeightsMode::Resident, 1.147);
    assert!(sharper == of(WeightsMode::Stream, 1.147));
    assert!(relative_error(&sharper, &of(WeightsMode::Resident, 1.0)) > 1e-4, "it acts");
    assert!(relative_error(&of(WeightsMode::Resident, 1.0), &pass.expected("native")) < TOLERANCE);
}

/// A dry pass launches, and multiplies, what a real one does.
#[test]
fn the_plan_of_a_step_is_the_step() {
    let (pass, model) = (Pass::new(), tiny());
    let config = &model.transformer.config;
    for (dtype, mode) in
        [(DType::F32, WeightsMode::Resident), (DType::F32, WeightsMode::Stream), (DType::F16, WeightsMode::Resident)]
    {
        let pieces = ForwardOptions { token_chunk: 100, query_rows: 50, heads: 1 };
        let weights = model.transformer_weights(dtype, &Device::Cpu);
        let transformer = Transformer::load(config, &weights, mode, Compute::on(DeviceKind::Cpu, dtype))
            .expect("loads")
            .with_options(pieces);
        let tables = pass.tables("native");
        let fresh = Pass::new();
        let before = launches();
        fresh.found(&transformer, &tables, AS_TRAINED);
        let real = launches() - before;
        let compute = Compute::on(DeviceKind::Cpu, dtype);
        let (image_tokens, text_tokens) = (GRID.count(), pass.golden["cap_feats"].dim(0).expect("tokens"));
        let forward =
            Forward { config, kind: DeviceKind::Cpu, compute, weights, mode, step: [image_tokens, text_tokens].into() };
        let cost = forward.cost(pieces).expect("a dry pass");
        assert_eq!(cost.launches, real, "{dtype:?} {mode:?}");
        assert!(cost.flops > 0 && cost.working_bytes > 0);
        let whole = forward.cost(ForwardOptions::default()).expect("a dry pass");
        assert_eq!(whole.flops, cost.flops, "pieces change memory, not work");
    }
}

/// Methods that look at latents read each token as one number: the embedder's mean, in the order in which tokens are packed.
#[test]
fn a_token_is_read_in_the_order_it_is_packed_in() {
    let model = tiny();
    let transformer = model.velocity(&CPU_F32, WeightsMode::Resident, ForwardOptions::default()).expect("loads");
    let found = transformer.token_reading(&Device::Cpu).expect("a reading");
    let weights = model.transformer_weights(DType::F32, &Device::Cpu);
    let weight = weights.get("all_x_embedder.2-1.weight", &[96, 64]).expect("the embedder");
    let means: Vec<f32> = weight.mean(0).and_then(|mean| mean.to_vec1()).expect("means");
    for (packed, found) in found.iter().enumerate() {
        let (channel, place) = (packed / 4, packed % 4);
        assert!((found - f64::from(means[place * 16 + channel])).abs() < 1e-6, "channel {channel} at {place}");
    }
}
