//! A walk over every key of the reference's classes: its default is the reference's, and another value is computed with,
//! refused by name, or changes nothing.

use std::{collections::BTreeMap, fmt::Debug, fs, path::Path};

use serde_json::{Map, Value};

use super::{
    SchedulerConfig,
    flux1::FluxConfig,
    flux2::{Flux2Config, Flux2VaeConfig},
    parts::{
        ClipConfig, Qwen3Config, Qwen25VlConfig, T5Config,
        config::{Config, Key, from_value, json, resolve},
        kl::VaeConfig,
        wan::WanConfig,
    },
    qwen_image::QwenImageConfig,
    z_image::ZImageConfig,
};

/// Keys that a class of the reference takes beside those it declares.
const UNDECLARED: [&str; 14] = [
    "per_layer_config",
    "rope_theta",
    "rope_type",
    "rope_scaling",
    "type",
    "partial_rotary_factor",
    "tie_word_embeddings",
    "scale_decoder_outputs",
    "dense_act_fn",
    "is_gated_act",
    "hidden_size",
    "num_attention_heads",
    "num_hidden_layers",
    "head_dim",
];
/// Keys that only this program knows.
const OWN: [&str; 4] = ["rope_theta", "base_resolution", "dype_scale", "dype_exponent"];

/// Names and defaults of the reference's classes, as its sources declare them.
fn reference(class: &str) -> Map<String, Value> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/config_defaults.json");
    let text = fs::read_to_string(path).expect("fixture");
    let mut all: BTreeMap<String, Map<String, Value>> = serde_json::from_str(&text).expect("fixture");
    all.remove(class).expect("a class of the reference")
}

fn keys<C: Config>() -> impl Iterator<Item = &'static Key> {
    C::KEYS.iter().copied().flatten()
}

/// Another value of the same kind.
fn other(value: &Value) -> Value {
    match value {
        Value::Null => Value::from(0.75),
        Value::Bool(yes) => (!yes).into(),
        Value::Number(number) => number.as_u64().map_or_else(|| Value::from(0.75), |number| (number + 2).into()),
        Value::String(_) => "other".into(),
        Value::Array(list) if list.is_empty() => vec![0.75].into(),
        Value::Array(list) => list.iter().map(other).collect(),
        Value::Object(_) => Value::Null,
    }
}

/// What a config says when it says these keys beside the defaults; what the type's own check says of it is another matter.
fn read<C: Config + Debug>(base: &Map<String, Value>, key: &str, value: Value) -> Result<String, String> {
    let mut said = base.clone();
    said.insert(key.to_owned(), value);
    let resolved = resolve(C::KEYS, &said)?;
    serde_json::from_value::<C>(Value::Object(resolved)).map(|config| format!("{config:?}")).map_err(|e| e.to_string())
}

/// The walk over one class; `usual` is what a config must say because the reference's own default is refused.
fn walk<C: Config + Debug>(class: &str, usual: &[(&str, &str)]) {
    let mut declared = reference(class);
    let base: Map<_, _> = usual.iter().map(|(key, value)| ((*key).to_owned(), json(value))).collect();
    let plain = read::<C>(&base, "nothing", Value::Null).expect("the defaults");
    for key in keys::<C>() {
        let name = key.name;
        assert!(serde_json::from_str::<Value>(key.default).is_ok(), "{class}: the default of {name} is not JSON");
        // What a class declares again is its own.
        match declared.remove(name) {
            Some(default) if name != "is_encoder_decoder" => assert_eq!(json(key.default), default, "{class} {name}"),
            Some(_) => {}
            None => assert!(UNDECLARED.contains(&name) || OWN.contains(&name), "{class} has no {name}"),
        }
        let default = base.get(name).cloned().unwrap_or_else(|| json(key.default));
        match read::<C>(&base, name, other(&default)) {
            Ok(found) if key.is_idle() => assert_eq!(found, plain, "{class}: {name} is said to change nothing"),
            Ok(found) => assert_ne!(found, plain, "{class}: {name} is read and not computed with"),
            Err(why) => assert!(!key.is_idle() && why.contains(name), "{class} {name}: {why}"),
        }
    }
    assert!(declared.is_empty(), "{class}: nobody knows what becomes of {:?}", declared.keys());
}

#[test]
fn every_key_of_the_reference_is_computed_with_or_refused_by_name() {
    walk::<ClipConfig>("CLIPTextConfig", &[]);
    walk::<T5Config>("T5Config", &[("feed_forward_proj", r#""gated-gelu""#)]);
    walk::<Qwen3Config>("Qwen3Config", &[]);
    walk::<Qwen25VlConfig>("Qwen2_5_VLTextConfig", &[]);
    let own = [("base_resolution", "1024"), ("dype_scale", "1.5"), ("dype_exponent", "2.5")];
    walk::<FluxConfig>("FluxTransformer2DModel", &own);
    walk::<Flux2Config>("Flux2Transformer2DModel", &[("guidance_embeds", "false")]);
    walk::<ZImageConfig>("ZImageTransformer2DModel", &[]);
    walk::<VaeConfig>("AutoencoderKL", &[]);
    walk::<Flux2VaeConfig>("AutoencoderKLFlux2", &[]);
    walk::<WanConfig>("AutoencoderKLQwenImage", &[]);
    walk::<QwenImageConfig>("QwenImageTransformer2DModel", &[]);
    walk::<SchedulerConfig>("FlowMatchEulerDiscreteScheduler", &[]);
}

/// The words of a key with several known values: each is another computation.
#[test]
fn known_words_are_told_apart() {
    let none = Map::new();
    let differ =
        |a: Result<String, String>, b: Result<String, String>| assert_ne!(a.expect("known"), b.expect("known"));
    let clip = |act: &str| read::<ClipConfig>(&none, "hidden_act", act.into());
    differ(clip("gelu"), clip("quick_gelu"));
    let shift = |kind: &str| read::<SchedulerConfig>(&none, "time_shift_type", kind.into());
    differ(shift("linear"), shift("exponential"));
}

#[test]
fn values_of_another_kind_are_refused_by_name() {
    let none = Map::new();
    let wrong = [Value::from("many"), (-1).into(), 1.5.into(), true.into(), vec![1].into()];
    for value in wrong {
        let why = read::<FluxConfig>(&none, "num_layers", value.clone()).expect_err("no count");
        assert!(why.contains(&format!("num_layers is {value}")), "{why}");
    }
    for (key, value) in [("guidance_embeds", Value::from(1)), ("axes_dims_rope", vec![16, 112].into())] {
        assert!(read::<FluxConfig>(&none, key, value).expect_err("another kind").contains(key));
    }
    for (key, value) in [("shift_factor", Value::from("0.1")), ("up_block_types", "UpDecoderBlock2D".into())] {
        assert!(read::<VaeConfig>(&none, key, value).expect_err("another kind").contains(key));
    }
}

/// As in the reference: a null is no where yes or no is asked, else the default; another name of a key wins.
#[test]
fn nulls_and_other_names_are_the_reference_s() {
    let none = Map::new();
    let vae = |value: Value| read::<VaeConfig>(&none, "use_post_quant_conv", value).expect("reads");
    assert_eq!(vae(Value::Null), vae(false.into()));
    assert_ne!(
        vae(Value::Null),
        read::<VaeConfig>(&none, "nothing", Value::Null).expect("reads"),
        "its default is yes"
    );
    let groups = |value: Value| read::<VaeConfig>(&none, "norm_num_groups", value).expect("reads");
    assert_eq!(groups(Value::Null), groups(32.into()));
    let base =
        Map::from_iter([("feed_forward_proj".to_owned(), "gated-gelu".into()), ("d_model".to_owned(), 9.into())]);
    let t5 = |key, value: u64| read::<T5Config>(&base, key, value.into()).expect("reads");
    assert_eq!(t5("hidden_size", 77), t5("d_model", 77));
    assert!(from_value::<T5Config>(&"text".into()).is_err(), "a config is an object");
}
